//! A receiver that another process speaks to: which messages go between the two, and what each side makes of the other's.
//!
//! The other process has one receiver's options and one request at a time. Queue, spool, retries and counters stay on this side: what the
//! other one does not answer for is sent again.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use profiler_confine::Rights;
use profiler_http::{Watched, line};
use profiler_network::{Failed, Link, MAX_REST, Network, Served, name_service, rights};

use super::{
    client::{Client, MetricsClient},
    grpc, http_protobuf,
    options::{Compression, ExporterOptions, Protocol, Secret, TlsOptions},
    outcome::{ANSWER_TOO_LARGE, INTERNAL, NOT_OTLP, Outcome, PartialSuccess, bounded},
    queue::REQUEST_TOO_LARGE,
    settings::{Refreshed, Settings},
};
use crate::spool::Record;

/// How much longer than an attempt its answer may take: the other process ends attempts by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Characters of a text that the other process tells: an excerpt of an answer, and a hint.
const MAX_TEXT: usize = 1000;
/// The most that one attempt repeats: once for each connection that was idle.
const MAX_REPEATED: u64 = 4;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) enum Signal {
    Profiles,
    Metrics,
}

/// The way to a receiver by a process of its own.
pub(super) struct Apart {
    link: Link,
    signal: Signal,
    /// Which certificates and how names are resolved is read once, by who is new.
    files: Watched,
}

impl Apart {
    pub(super) fn new(network: Network, signal: Signal, settings: &Settings) -> Self {
        Self { link: Link::new(network, &settings.options.name), signal, files: Watched::new(name_service()) }
    }

    /// Has the process started that will send, so that the first request need not wait for it.
    pub(super) async fn prepare(&mut self, settings: &Settings) {
        let largest = settings.options.max_request_bytes as u64;
        // The first request tries again, and says why it cannot.
        let _ = self.link.prepare(begin(self.signal, settings), largest).await;
    }

    /// Has `record` sent; what became of it, and how often it went out once more.
    pub(super) async fn attempt(
        &mut self,
        settings: &Settings,
        refreshed: Refreshed,
        record: &Record,
    ) -> (Outcome, u64) {
        if self.files.changed() || refreshed.certificates || refreshed.headers {
            self.link.end();
        }
        let options = &settings.options;
        if record.bytes.len() > MAX_REST {
            let error = format!("it has {} bytes, of which no receiver takes as many", record.bytes.len());
            return (Outcome::Refused { reason: REQUEST_TOO_LARGE, error }, 0);
        }
        let begin = begin(self.signal, settings);
        let head = borsh::to_vec(&Head::of(record)).unwrap_or_default();
        let request = (&*head, &*record.bytes, options.max_request_bytes as u64);
        let failed = match self.link.ask(begin, request, options.timeout.saturating_add(GRACE)).await {
            Ok(answer) => match borsh::from_slice::<Told>(&answer).ok().and_then(Told::take) {
                Some(told) => return told,
                None => self.link.malformed(),
            },
            Err(failed) => failed,
        };
        (Outcome::retry(said(failed, settings)), 0)
    }
}

/// The first message.
fn begin(signal: Signal, settings: &Settings) -> impl FnOnce() -> Vec<u8> {
    let begin = Begin { signal, receiver: Receiver::of(&settings.options) };
    move || borsh::to_vec(&begin).unwrap_or_default()
}

fn said(failed: Failed, settings: &Settings) -> String {
    match failed {
        Failed::Wrong(text) => line(text.as_bytes(), MAX_TEXT),
        failed => format!("{}: {failed}", settings.destination.url.shown()),
    }
}

/// Becomes the process that speaks to one receiver, for the one that started it.
///
/// # Errors
/// Standard input is not where requests come from.
pub fn serve() -> std::io::Result<()> {
    profiler_network::serve(|what| {
        let Begin { signal, receiver } = borsh::from_slice(what).map_err(|error| error.to_string())?;
        let options = receiver.take();
        let settings = match signal {
            Signal::Profiles => Settings::new(options),
            Signal::Metrics => MetricsClient::settings(options),
        };
        let settings = settings.map_err(|error| error.to_string())?;
        let rights: Rights = rights(settings.destination.url.port);
        // Whoever sees that a file has changed starts another one of us: here it cannot be opened any more.
        Ok((Sending(Client::new(settings.fixed())), rights))
    })
}

struct Sending(Client);

impl Served for Sending {
    async fn answer(&mut self, body: Vec<u8>, rest: Bytes) -> Vec<u8> {
        let outcome = match borsh::from_slice::<Head>(&body) {
            Ok(head) => self.0.attempt(&head.record(rest)).await,
            Err(error) => Outcome::Refused { reason: INTERNAL, error: error.to_string() },
        };
        let told = Told::of(outcome, std::mem::take(&mut self.0.repeated));
        borsh::to_vec(&told).unwrap_or_default()
    }
}

/// The first message: what to be.
#[derive(Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Begin {
    signal: Signal,
    receiver: Receiver,
}

/// [`ExporterOptions`], as far as they are of the receiver.
#[derive(Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Receiver {
    name: String,
    endpoint: String,
    endpoint_is_complete: bool,
    only_trusted: bool,
    /// OTLP/HTTP.
    http: bool,
    compression: u8,
    headers: Vec<(String, Hidden)>,
    headers_file: Option<Vec<u8>>,
    /// ns.
    timeout: u64,
    /// Certificate authorities, certificate, key.
    tls_files: [Option<Vec<u8>>; 3],
    server_name: Option<String>,
    insecure_skip_verify: bool,
}

/// [`Secret`]: no message shows it.
#[derive(PartialEq, BorshSerialize, BorshDeserialize)]
struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(super::HIDDEN)
    }
}

impl Receiver {
    fn of(options: &ExporterOptions) -> Self {
        let path = |path: &Option<PathBuf>| path.clone().map(|path| path.into_os_string().into_vec());
        let tls = &options.tls;
        Self {
            name: options.name.clone(),
            endpoint: options.endpoint.clone(),
            endpoint_is_complete: options.endpoint_is_complete,
            only_trusted: options.only_trusted,
            http: options.protocol == Protocol::HttpProtobuf,
            compression: number(options.compression),
            headers: options
                .headers
                .iter()
                .map(|(key, text)| (key.clone(), Hidden(text.expose().to_owned())))
                .collect(),
            headers_file: path(&options.headers_file),
            timeout: nanos(options.timeout),
            tls_files: [path(&tls.ca_file), path(&tls.cert_file), path(&tls.key_file)],
            server_name: tls.server_name.clone(),
            insecure_skip_verify: tls.insecure_skip_verify,
        }
    }

    fn take(self) -> ExporterOptions {
        let path = |path: Option<Vec<u8>>| path.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        let [ca_file, cert_file, key_file] = self.tls_files.map(path);
        ExporterOptions {
            name: self.name,
            endpoint: self.endpoint,
            endpoint_is_complete: self.endpoint_is_complete,
            only_trusted: self.only_trusted,
            protocol: if self.http { Protocol::HttpProtobuf } else { Protocol::Grpc },
            compression: compression(self.compression),
            headers: self.headers.into_iter().map(|(key, Hidden(text))| (key, Secret::new(text))).collect(),
            headers_file: path(self.headers_file),
            timeout: Duration::from_nanos(self.timeout),
            tls: TlsOptions {
                ca_file,
                cert_file,
                key_file,
                server_name: self.server_name,
                insecure_skip_verify: self.insecure_skip_verify,
            },
            ..ExporterOptions::default()
        }
    }
}

fn number(compression: Compression) -> u8 {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 1,
        Compression::Zstd => 2,
    }
}

fn compression(number: u8) -> Compression {
    match number {
        0 => Compression::None,
        2 => Compression::Zstd,
        _ => Compression::Gzip,
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A [`Record`], whose bytes follow; what of it goes out.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
struct Head {
    compression: u8,
}

impl Head {
    fn of(record: &Record) -> Self {
        Self { compression: number(record.compression) }
    }

    fn record(&self, bytes: Bytes) -> Record {
        let raw_bytes = bytes.len() as u64;
        let compression = compression(self.compression);
        Record { bytes, compression, raw_bytes, samples: 0, start_unix_nanos: 0, end_unix_nanos: 0 }
    }
}

/// The answer: what became of the request, and how often it went out once more.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
struct Told {
    end: End,
    repeated: u64,
}

/// [`Outcome`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
enum End {
    /// With the profiles that were refused, and a message.
    Delivered(Option<(u64, String)>),
    /// With the wait that is asked for, ns.
    Retry(String, Option<u64>),
    /// Reason and error.
    TooLarge(String, String),
    /// Reason and error.
    Refused(String, String),
}

impl Told {
    fn of(outcome: Outcome, repeated: u64) -> Self {
        let end = match outcome {
            Outcome::Delivered(partial) => {
                End::Delivered(partial.map(|partial| (partial.rejected_profiles, partial.message)))
            }
            Outcome::Retry { error, after } => End::Retry(error, after.map(nanos)),
            Outcome::TooLarge { reason, error } => End::TooLarge(reason.to_owned(), error),
            Outcome::Refused { reason, error } => End::Refused(reason.to_owned(), error),
        };
        Self { end, repeated }
    }

    /// `None` if it is no answer. Texts are shown and waits are waited for: both within bounds.
    fn take(self) -> Option<(Outcome, u64)> {
        let text = |text: String| line(text.as_bytes(), MAX_TEXT);
        let outcome = match self.end {
            End::Delivered(None) => Outcome::Delivered(None),
            End::Delivered(Some((rejected_profiles, message))) => {
                Outcome::Delivered(Some(PartialSuccess { rejected_profiles, message: text(message) }))
            }
            End::Retry(error, after) => {
                let after = after.map(|after| bounded(Duration::from_nanos(after)));
                Outcome::Retry { error: text(error), after }
            }
            End::TooLarge(reason, error) => Outcome::TooLarge { reason: known(&reason)?, error: text(error) },
            End::Refused(reason, error) => Outcome::Refused { reason: known(&reason)?, error: text(error) },
        };
        Some((outcome, self.repeated.min(MAX_REPEATED)))
    }
}

/// `reason`, if it is one of ours: they are names of counters.
fn known(reason: &str) -> Option<&'static str> {
    let others = [NOT_OTLP, ANSWER_TOO_LARGE, INTERNAL, grpc::UNKNOWN_CODE];
    let mut all = grpc::CODES.iter().chain(&http_protobuf::REASONS).chain(&others);
    all.find(|known| **known == reason).copied()
}

/// Decodes `bytes` as each message, and takes in what they say.
pub(super) fn fuzz(bytes: &[u8]) {
    if let Ok(told) = borsh::from_slice::<Told>(bytes)
        && let Some((outcome, repeated)) = told.take()
    {
        let shown = match &outcome {
            Outcome::Delivered(partial) => partial.as_ref().map_or("", |partial| &partial.message),
            Outcome::Retry { error, .. } | Outcome::TooLarge { error, .. } | Outcome::Refused { error, .. } => error,
        };
        assert!(
            shown.chars().count() <= MAX_TEXT + 1 && !shown.chars().any(char::is_control) && repeated <= MAX_REPEATED
        );
    }
    if let Ok(begin) = borsh::from_slice::<Begin>(bytes) {
        let options = begin.receiver.take();
        assert_eq!(Receiver::of(&options).take(), options);
    }
    let _ = borsh::from_slice::<Head>(bytes).map(|head| head.record(Bytes::new()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(outcome: Outcome) -> Option<(Outcome, u64)> {
        let bytes = borsh::to_vec(&Told::of(outcome, 1)).unwrap();
        borsh::from_slice::<Told>(&bytes).unwrap().take()
    }

    #[test]
    fn an_outcome_comes_as_it_went() {
        let partial = PartialSuccess { rejected_profiles: 3, message: "some".to_owned() };
        let mut all = vec![
            Outcome::Delivered(None),
            Outcome::Delivered(Some(partial)),
            Outcome::retry("nobody answers"),
            Outcome::Retry { error: "busy".to_owned(), after: Some(Duration::from_millis(1500)) },
        ];
        let others = [NOT_OTLP, ANSWER_TOO_LARGE, INTERNAL, grpc::UNKNOWN_CODE];
        for reason in grpc::CODES.into_iter().chain(http_protobuf::REASONS).chain(others) {
            all.push(Outcome::Refused { reason, error: "no".to_owned() });
            all.push(Outcome::TooLarge { reason, error: "no".to_owned() });
        }
        for outcome in all {
            assert_eq!(told(outcome.clone()), Some((outcome, 1)));
        }
    }

    #[test]
    fn what_the_other_process_says_is_held_to_what_it_may_say() {
        let end = |end, repeated| Told { end, repeated }.take();
        assert_eq!(end(End::Refused("a reason of its own".to_owned(), String::new()), 0), None);
        let hour = End::Retry("\u{1b}[2J\nwait\u{202e}".to_owned(), Some(u64::MAX));
        let expected = Outcome::Retry { error: "[2J wait".to_owned(), after: Some(Duration::from_secs(600)) };
        assert_eq!(end(hour, u64::MAX), Some((expected, MAX_REPEATED)));
        let Some((Outcome::Retry { error, .. }, _)) = end(End::Retry("x".repeat(1 << 20), None), 0) else { panic!() };
        assert_eq!(error.chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn options_of_the_receiver_come_as_they_went_and_secrets_are_not_shown() {
        let options = ExporterOptions {
            name: "backend".to_owned(),
            endpoint: "https://h:1/p".to_owned(),
            endpoint_is_complete: true,
            only_trusted: true,
            protocol: Protocol::HttpProtobuf,
            compression: Compression::Zstd,
            headers: vec![("x-tenant".to_owned(), Secret::new("hunter2"))],
            headers_file: Some("/run/headers".into()),
            timeout: Duration::from_millis(2500),
            tls: TlsOptions {
                ca_file: Some("/ca".into()),
                cert_file: Some("/cert".into()),
                key_file: Some("/key".into()),
                server_name: Some("name".to_owned()),
                insecure_skip_verify: true,
            },
            ..ExporterOptions::default()
        };
        let begin = Begin { signal: Signal::Metrics, receiver: Receiver::of(&options) };
        assert!(!format!("{begin:?}").contains("hunter2"));
        let come: Begin = borsh::from_slice(&borsh::to_vec(&begin).unwrap()).unwrap();
        assert_eq!((come.signal, come.receiver.take()), (Signal::Metrics, options));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_taken_in(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..5) {
            let mut bytes = bytes;
            bytes.insert(0, kind);
            fuzz(&bytes);
        }
    }
}
