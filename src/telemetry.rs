//! What the agent tells about itself: metrics by Prometheus and OTLP, health and readiness by HTTP, its life to systemd, logs.
//!
//! ```text
//!  agent loop ── metrics::of(&AgentState) ── Telemetry::publish ──┬── GET /metrics
//!             ── Health::beat, ready ─────────────────────────────┼── GET /healthz, /readyz
//!             ── Notifier::step (watchdog)                        └── OTLP, each interval
//! ```
//!
//! The loop publishes a whole [`Snapshot`] about once a second; whoever asks gets the last one. Nobody who asks can hold the loop
//! up, and nothing is counted here: each count lives where the counted thing happens.

mod health;
mod http;
pub mod log;
pub mod metric;
pub mod metrics;
pub mod notify;
mod otlp;
mod prometheus;
mod push;
mod state;
mod status;
pub mod usage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use profiler_confine::{Files, Role};
use profiler_network::Network;
use tokio::sync::oneshot;

pub use health::Health;
pub use metric::{Metric, Snapshot};
pub use metrics::{AgentState, DetectionState, ExporterState, SendersState, SpoolState};
pub use notify::Notifier;
pub use push::PushOptions;

use push::Pusher;
use state::Shared;

use crate::confinement::{self, Confined};

/// Where telemetry goes.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    /// Address of the HTTP server; port 0 chooses a free one ([`Telemetry::address`] tells it). None: no server.
    pub listen: Option<SocketAddr>,
    /// OTLP metrics. None: not sent.
    pub otlp: Option<PushOptions>,
    /// What describes the agent: see [`resource`]. Attribute keys and values.
    pub resource: Vec<(String, String)>,
    /// The sampling loop counts as hung when it has not beaten for this long.
    pub stall_after: Duration,
    /// Who speaks to the receiver of OTLP metrics; none: this process itself.
    pub network: Option<Network>,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { listen: None, otlp: None, resource: resource(&[]), stall_after: Duration::from_secs(30), network: None }
    }
}

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The HTTP server's address is not to be had.
    #[error(
        "cannot listen on {address} for metrics and health: {source}; {}",
        match source.kind() {
            io::ErrorKind::AddrInUse => "another process has that address (another profiler?): choose one with telemetry.listen",
            io::ErrorKind::AddrNotAvailable => "this host has no such address: choose one with telemetry.listen",
            io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: choose one with telemetry.listen",
            _ => "choose another address with telemetry.listen",
        }
    )]
    Listen {
        /// As asked.
        address: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
    /// Where the profiler's own metrics are to be sent makes no sense.
    #[error("the profiler's own metrics cannot be sent: {0}")]
    Otlp(#[from] profiler_export::Error),
    /// They are to be sent too often.
    #[error(
        "the profiler's own metrics cannot be sent every {interval:?}: make telemetry.otlp.interval at least a second"
    )]
    Interval {
        /// As asked.
        interval: Duration,
    },
    /// No thread or no event queue.
    #[error("cannot start the telemetry thread: {0}")]
    Thread(#[source] io::Error),
}

/// The agent's resource: `service.name`, `service.version`, `service.instance.id` (random, for this run), `host.name`,
/// `process.pid`, `os.type`, `host.arch`; `further` goes before these.
#[must_use]
pub fn resource(further: &[(String, String)]) -> Vec<(String, String)> {
    let mut resource: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() && !resource.iter().any(|(known, _)| known == key) {
            resource.push((key.to_owned(), value));
        }
    };
    for (key, value) in further {
        add(key, value.clone());
    }
    add("service.name", "profiler".to_owned());
    add("service.version", env!("CARGO_PKG_VERSION").to_owned());
    // A random UUID (version 4) at each reading.
    let instance = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    add("service.instance.id", instance.trim().to_owned());
    add("host.name", profiler_unwinders::process::host::hostname());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    add("host.arch", arch.to_owned());
    add("os.type", "linux".to_owned());
    add("process.pid", std::process::id().to_string());
    resource
}

/// Running telemetry: a thread that serves, and one that has metrics sent, in so far as that is asked for.
#[derive(Debug)]
pub struct Telemetry {
    shared: Arc<Shared>,
    address: Option<SocketAddr>,
    threads: Vec<Worker>,
}

/// A thread, until it is told to stop.
#[derive(Debug)]
struct Worker {
    stop: Option<oneshot::Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Runs `work` on a thread of this `name`; it is told for how long it may still go on.
    fn start<F: Future<Output = ()>>(
        name: &str,
        work: impl FnOnce(oneshot::Receiver<Duration>) -> F + Send + 'static,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(work(stopped));
            // A name that is being resolved is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Error::Thread)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    fn join(&mut self) {
        // Dropping the sender stops the thread, too, without a last request.
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("A telemetry thread panicked.");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.join();
    }
}

/// Telemetry with its address, and without a thread yet.
pub struct Bound {
    listener: Option<std::net::TcpListener>,
    pusher: Option<Pusher>,
    resource: Vec<(String, String)>,
    stall_after: Duration,
}

impl Bound {
    /// Starts to serve and to send. `confined` are the processes of the profiler.
    ///
    /// # Errors
    /// There can be no thread.
    pub(crate) fn serve(self, confined: Vec<Confined>) -> Result<Telemetry, Error> {
        let Self { listener, pusher, resource, stall_after } = self;
        let health = Arc::new(Health::new(stall_after));
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let shared = Arc::new(Shared::new(health, resource, pusher.is_some(), confined));
        let mut threads = Vec::new();
        if let Some(listener) = listener {
            let shared = Arc::clone(&shared);
            threads.push(Worker::start("telemetry", |stopped| async move {
                // It answers whoever comes, of what it is told; `/status` asks the kernel.
                let files = Files { read: vec!["/proc".into()], write: Vec::new() };
                confinement::thread("telemetry", &Role::Sender.rights().within(files).connect([]));
                tokio::select! {
                    () = http::serve(listener, shared) => {}
                    _ = stopped => {}
                }
            })?);
        }
        if let Some(pusher) = pusher {
            let shared = Arc::clone(&shared);
            threads.push(Worker::start("telemetry-push", |stopped| push(pusher, shared, stopped))?);
        }
        Ok(Telemetry { shared, address, threads })
    }
}

impl Telemetry {
    /// Takes the HTTP address, for which a right may be needed that is then given up.
    ///
    /// # Errors
    /// The address is taken, or the receiver's URL or certificates make no sense.
    pub fn bind(options: TelemetryOptions) -> Result<Bound, Error> {
        let pusher = options.otlp.map(|otlp| Pusher::new(otlp, options.network.as_ref())).transpose()?;
        let listener = match options.listen {
            Some(address) => Some(http::bind(address).map_err(|source| Error::Listen { address, source })?),
            None => None,
        };
        Ok(Bound { listener, pusher, resource: options.resource, stall_after: options.stall_after })
    }

    /// Takes the HTTP address and starts to serve and to send. A receiver that cannot be reached is no error.
    ///
    /// # Errors
    /// As for [`Self::bind`], or there can be no thread.
    pub fn start(options: TelemetryOptions) -> Result<Self, Error> {
        Self::bind(options)?.serve(Vec::new())
    }

    /// The HTTP server's address with its real port.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What probes are told; to be shared with the sampling loop.
    #[must_use]
    pub fn health(&self) -> &Arc<Health> {
        &self.shared.health
    }

    /// Makes a snapshot what everybody sees.
    pub fn publish(&self, snapshot: Snapshot) {
        self.shared.publish(snapshot);
    }

    /// The processes of the profiler, for `/status`.
    pub(crate) fn set_confined(&self, confined: Vec<Confined>) {
        self.shared.set_confined(confined);
    }

    /// Who writes what `/status` says of detection.
    pub(crate) fn set_detection(&self, page: Arc<dyn Fn() -> String + Send + Sync>) {
        self.shared.set_detection(page);
    }

    /// Sends the last snapshot once more over OTLP, for `deadline` at most, and stops serving.
    pub fn shutdown(mut self, deadline: Duration) {
        for worker in &mut self.threads {
            if let Some(stop) = worker.stop.take() {
                // The thread has ended by itself: nothing is left to do.
                let _ = stop.send(deadline);
            }
        }
        self.threads.iter_mut().for_each(Worker::join);
    }
}

async fn push(mut pusher: Pusher, shared: Arc<Shared>, stopped: oneshot::Receiver<Duration>) {
    let deadline = tokio::select! {
        () = pusher.run(&shared) => None,
        deadline = stopped => deadline.ok(),
    };
    if let Some(deadline) = deadline {
        // Whoever ends within a moment of its start is seen too.
        let _ = tokio::time::timeout(deadline, pusher.push(&shared)).await;
    }
}
