//! `profiler agent` as a test runs it: a configuration, the process, its metrics, its log, and what it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_formats::otlp::ExportProfilesServiceRequest;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Error;
use crate::environment::profiler;
use crate::recording::folder;

/// Patience with its start and its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the exporter that writes what was sampled.
const RECORD: &str = "record";

/// A running agent, killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    home: Home,
    address: String,
}

/// The folder of an agent: it may have several lives in it.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    starts: u32,
}

/// A configuration: windows of a second and a file exporter beside what the test adds, so that there is a record of everything that
/// was sampled.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Samples a second.
    pub rate: u64,
    /// Length of a window, s.
    pub window: u64,
    /// Further items of `exporters`, YAML, with their dash.
    pub exporters: String,
    /// Names of the processes to sample (`comm`); all if there are none.
    pub comms: Vec<String>,
    /// Further keys, YAML.
    pub more: String,
}

impl Configuration {
    /// At `rate`, the processes named `comms` alone, with `exporters`.
    #[must_use]
    pub fn new(rate: u64, comms: &[&str], exporters: String) -> Self {
        let comms = comms.iter().map(|&comm| comm.to_owned()).collect();
        Self { rate, window: 1, exporters, comms, more: String::new() }
    }

    fn text(&self, home: &Path) -> String {
        let Self { rate, window, exporters, comms, more } = self;
        let targets = match comms.as_slice() {
            [] => String::new(),
            comms => format!("targets: {{include: [{{comms: [{}]}}]}}\n", comms.join(", ")),
        };
        let home = home.display();
        format!(
            "rate: {rate}\nwindow: {window}s\njitter: 0s\n{targets}kill_switch: {home}/disabled\n\
             log: {{level: debug, format: text}}\ntelemetry: {{listen: 127.0.0.1:0}}\n{more}\
             exporters:\n- {{name: {RECORD}, files: {{directory: {home}/record, format: otlp, max_files: 100000}}}}\n{exporters}"
        )
    }
}

impl Home {
    /// An empty one.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { folder: folder()?, starts: 0 })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file that stops sampling while it exists.
    #[must_use]
    pub fn kill_switch(&self) -> PathBuf {
        self.path().join("disabled")
    }

    /// Writes the configuration, whole at once.
    pub fn configure(&self, configuration: &Configuration) -> Result<PathBuf, Error> {
        self.write_configuration(&configuration.text(self.path()))
    }

    /// As [`Self::configure`], of any text.
    pub fn write_configuration(&self, text: &str) -> Result<PathBuf, Error> {
        let (file, new) = (self.path().join("agent.yaml"), self.path().join("agent.yaml.new"));
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        fs::rename(&new, &file).map_err(Error::file("move into place", &file))?;
        Ok(file)
    }

    /// Starts an agent here; `wrapper` is a command that runs it, if there is one.
    pub fn start(mut self, configuration: &Configuration, wrapper: &[&str]) -> Result<Agent, Error> {
        let file = self.configure(configuration)?;
        self.starts += 1;
        let log_path = self.log_path();
        let log = fs::File::create(&log_path).map_err(Error::file("write", &log_path))?;
        let mut command = match wrapper {
            [] => Command::new(profiler()),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(profiler());
                command
            }
        };
        command.arg("agent").arg("--config").arg(&file);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("OTEL_") || name_text.starts_with("PROFILER_") || name_text == "RUST_LOG" {
                command.env_remove(&name);
            }
        }
        let text = crate::children::describe(&command);
        let errors = log.try_clone().map_err(Error::file("write", &log_path))?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir(self.path());
        let child = command.spawn().map_err(|source| Error::Start { command: text.clone(), source })?;
        let mut agent = Agent { child, home: self, address: String::new() };
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = address_in(&agent.log()) {
                agent.address = address;
                return Ok(agent);
            }
            let ended = agent.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > until {
                let status = ended.map_or("running".to_owned(), |status| status.to_string());
                return Err(Error::Failed { command: text, status, output: agent.log() });
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.path().join(format!("agent-{}.log", self.starts))
    }

    /// What was sampled and published, of all lives: the requests that the `files` exporter wrote, in order.
    pub fn record(&self) -> Result<Vec<ExportProfilesServiceRequest>, Error> {
        let folder = self.path().join("record");
        let mut files: Vec<PathBuf> = match fs::read_dir(&folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => return Ok(Vec::new()),
        };
        files.retain(|file| file.extension().is_some_and(|extension| extension == "otlp"));
        files.sort_unstable();
        files
            .iter()
            .map(|file| {
                let bytes = fs::read(file).map_err(Error::file("read", file))?;
                ExportProfilesServiceRequest::decode(&*bytes).map_err(|error| Error::Collector {
                    problem: format!("{} is no request: {error}", file.display()),
                    log: String::new(),
                })
            })
            .collect()
    }
}

/// The address in the line that says that the agent has started: `metrics=Some("127.0.0.1:41234")` or `metrics="..."`.
fn address_in(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("The agent has started"))?;
    let (_, after) = line.split_once("metrics=")?;
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':');
    let start = after.find(digits)?;
    let rest = after.get(start..)?;
    let end = rest.find(|c| !digits(c)).unwrap_or(rest.len());
    rest.get(..end).filter(|address| address.contains(':')).map(str::to_owned)
}

impl Agent {
    /// Starts one in a folder of its own.
    pub fn start(configuration: &Configuration) -> Result<Self, Error> {
        Home::new()?.start(configuration, &[])
    }

    /// Its pid; that of the wrapper if it has one that stays.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// What it said in this life.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log_path()).unwrap_or_default()
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// GETs `path` of its HTTP server: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String), Error> {
        let failed = Error::file("GET from", format!("http://{}{path}", self.address));
        let exchange = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = exchange().map_err(failed)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// Its metrics of now.
    pub fn metrics(&self) -> Result<Metrics, Error> {
        self.get("/metrics").map(|(_, page)| Metrics::parse(&page))
    }

    /// Waits until `wanted` holds.
    ///
    /// # Errors
    ///
    /// It does not within `patience`; with `what`, the metrics and the log.
    pub fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics, Error> {
        let until = Instant::now() + patience;
        loop {
            let metrics = self.metrics();
            if let Ok(metrics) = &metrics
                && wanted(metrics)
            {
                return Ok(metrics.clone());
            }
            if !self.is_running() || Instant::now() > until {
                let metrics = metrics.map_or_else(|error| error.to_string(), |metrics| metrics.to_string());
                let log = tail(&self.log(), 60);
                let problem = format!("the agent does not come to {what}; it says\n{metrics}");
                return Err(Error::Collector { problem, log });
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// Waits until all that was published by now has left the exporter `name`: delivered, rejected or dropped.
    pub fn wait_until_idle(&mut self, name: &str, patience: Duration) -> Result<Metrics, Error> {
        self.wait("an empty queue", patience, |metrics| {
            metrics.published() > 0 && metrics.published() == metrics.gone(name)
        })
    }

    /// Ends it as a service manager does.
    pub fn stop(mut self) -> Result<(Home, ExitStatus, String), Error> {
        self.signal(Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = self.log();
                return Ok((self.take_home()?, status, log));
            }
            sleep(Duration::from_millis(20));
        }
        Err(Error::Collector { problem: "the agent does not end at SIGTERM".into(), log: tail(&self.log(), 60) })
    }

    /// Ends it with SIGKILL, mid-way through whatever it does.
    pub fn kill(mut self) -> Result<Home, Error> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.take_home()
    }

    /// The folder, out of an agent that has ended.
    fn take_home(&mut self) -> Result<Home, Error> {
        Ok(std::mem::replace(&mut self.home, Home::new()?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// A page of metrics in Prometheus' text format, by name with labels as it is written.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(lines.filter_map(value).collect())
    }

    /// Sum of all series of `name` that have each of `labels`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &str| labels.iter().all(|(key, value)| series.contains(&format!("{key}=\"{value}\"")));
        let named = |series: &str| series.split('{').next() == Some(name);
        self.0.iter().filter(|(series, _)| named(series) && has(series)).map(|(_, value)| value).sum()
    }

    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Samples that the record has.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.delivered(RECORD)
    }

    /// Samples that the receiver of `exporter` took.
    #[must_use]
    pub fn delivered(&self, exporter: &str) -> u64 {
        self.outcome(exporter, "delivered")
    }

    /// Samples that the receiver of `exporter` refused for good.
    #[must_use]
    pub fn rejected(&self, exporter: &str) -> u64 {
        self.outcome(exporter, "rejected")
    }

    /// Samples that `exporter` gave up, for whatever reason.
    #[must_use]
    pub fn dropped(&self, exporter: &str) -> u64 {
        self.outcome(exporter, "dropped")
    }

    /// Samples that are no longer in `exporter`.
    #[must_use]
    pub fn gone(&self, exporter: &str) -> u64 {
        self.delivered(exporter) + self.rejected(exporter) + self.dropped(exporter)
    }

    /// Requests that `exporter` sent again.
    #[must_use]
    pub fn retries(&self, exporter: &str) -> u64 {
        self.count("profiler_export_retries_total", &[("exporter", exporter)])
    }

    fn outcome(&self, exporter: &str, outcome: &str) -> u64 {
        self.count("profiler_export_samples_total", &[("exporter", exporter), ("outcome", outcome)])
    }
}

impl std::fmt::Display for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.iter().filter(|(series, _)| !series.contains("_bucket"));
        shown.into_iter().try_for_each(|(series, value)| writeln!(f, "{series} {value}"))
    }
}

/// An OTLP exporter as an item of `exporters`: retries after a fraction of a second, so that tests are short.
#[must_use]
pub fn otlp_exporter(name: &str, endpoint: &str, protocol: &str, more: &str) -> String {
    format!(
        "- name: {name}\n  otlp:\n    endpoint: {endpoint}\n    protocol: {protocol}\n    timeout: 5s\n    \
         retry: {{initial_interval: 200ms, max_interval: 1s, max_elapsed_time: 0s}}\n{more}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_the_log() {
        let log = "x\n2026 INFO profiler: The agent has started. rate=99 window=1s metrics=\"127.0.0.1:41234\"\n";
        assert_eq!(address_in(log).as_deref(), Some("127.0.0.1:41234"));
        assert_eq!(
            address_in("The agent has started. metrics=Some(\"127.0.0.1:4\") x=1").as_deref(),
            Some("127.0.0.1:4")
        );
        assert_eq!(address_in("metrics=\"127.0.0.1:41234\""), None);
    }

    #[test]
    fn series_are_summed_by_labels() {
        let page = "# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 9\nb 1.5\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.count("a", &[("x", "1")]), 7);
        assert_eq!(metrics.count("a", &[("y", "3")]), 4);
        assert!((metrics.sum("b", &[]) - 1.5).abs() < 1e-9);
    }
}
