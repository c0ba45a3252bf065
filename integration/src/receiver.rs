//! The receiver that misbehaves as told (`collector/receiver`): grpc-go and the Collector's own data model behind a script.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use profiler_formats::otlp::ExportProfilesServiceRequest;
use prost::Message;
use serde::Deserialize;
use tempfile::TempDir;

use crate::Error;
use crate::collector::{Protocol, ServerTls, go_program};
use crate::recording::folder;

/// What happened to one request.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// What it did: a word of the script.
    pub action: String,
    /// True if the sender was told that all is well, and it is.
    pub accepted: bool,
    /// Occurrences of samples; 0 where it was not read to the end.
    pub samples: u64,
    /// Profile messages.
    pub profiles: u64,
    /// When, ns since the Unix epoch.
    pub unix_nanos: u64,
    /// Headers or gRPC metadata, names in lower case.
    #[serde(default)]
    pub headers: Option<BTreeMap<String, String>>,
}

/// A running receiver, killed when dropped.
#[derive(Debug)]
pub struct Receiver {
    child: Child,
    address: String,
    is_tls: bool,
    folder: TempDir,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Receiver {
    /// Starts it on a free port. `script`: see `integration/collector/receiver/main.go`; after its end everything is accepted.
    pub fn start(protocol: Protocol, script: &str, tls: Option<&ServerTls>) -> Result<Self, Error> {
        Self::listen(protocol, script, tls, "127.0.0.1:0")
    }

    /// As [`Self::start`], on `address`.
    pub fn listen(protocol: Protocol, script: &str, tls: Option<&ServerTls>, address: &str) -> Result<Self, Error> {
        let folder = folder()?;
        let mut command = Command::new(go_program("integration/collector/receiver")?);
        command.arg("--protocol").arg(match protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
        });
        command.args(["--listen", address, "--script", script]).arg("--folder").arg(folder.path());
        if let Some(tls) = tls {
            command.arg("--cert").arg(&tls.certificate).arg("--key").arg(&tls.key);
            if let Some(clients) = &tls.clients {
                command.arg("--client-ca").arg(clients);
            }
        }
        let text = crate::children::describe(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|source| Error::Start { command: text, source })?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            let events = Arc::clone(&events);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let Ok(json) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
                    if let Some(address) = json.get("listening").and_then(serde_json::Value::as_str) {
                        let _ = tell.send(address.to_owned());
                    } else if let Ok(event) = serde_json::from_value(json) {
                        locked(&events).push(event);
                    }
                }
            });
        }
        let address = told.recv_timeout(Duration::from_secs(30)).map_err(|_| Error::Collector {
            problem: "the receiver does not listen; what it said is on standard error".to_owned(),
            log: String::new(),
        });
        let mut receiver = Self { child, address: String::new(), is_tls: tls.is_some(), folder, events };
        receiver.address = address?;
        Ok(receiver)
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        match self.is_tls {
            // What the certificate is for.
            true => format!("https://{}", self.address.replace("127.0.0.1", "localhost")),
            false => format!("http://{}", self.address),
        }
    }

    /// Its address, for a successor on the same port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What happened so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        locked(&self.events).clone()
    }

    /// Samples that it took.
    #[must_use]
    pub fn accepted_samples(&self) -> u64 {
        self.events().iter().filter(|event| event.accepted).map(|event| event.samples).sum()
    }

    /// The requests that it took, in order.
    pub fn requests(&self) -> Result<Vec<ExportProfilesServiceRequest>, Error> {
        let path = self.folder.path();
        let entries = fs::read_dir(path).map_err(Error::file("read", path))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "otlp"));
        files.sort_unstable();
        let decode = |file: &PathBuf| {
            let bytes = fs::read(file).map_err(Error::file("read", file))?;
            ExportProfilesServiceRequest::decode(&*bytes).map_err(|error| Error::Collector {
                problem: format!("{} is no request: {error}", file.display()),
                log: String::new(),
            })
        };
        files.iter().map(decode).collect()
    }
}

fn locked(events: &Mutex<Vec<Event>>) -> MutexGuard<'_, Vec<Event>> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
