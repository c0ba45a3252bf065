//! Sends profiles to receivers of OTLP (gRPC or HTTP with protobuf), or keeps them as files in a folder.
//!
//! ```no_run
//! use profiler_export::{Exporter, ExporterOptions};
//! use profiler_model::Profiles;
//! use std::time::Duration;
//!
//! let options = ExporterOptions { endpoint: "http://localhost:4317".to_owned(), ..Default::default() };
//! let exporter = Exporter::start(options)?;
//! exporter.export(&Profiles::default());
//! let stats = exporter.shutdown(Duration::from_secs(5));
//! assert_eq!(stats.unaccounted_samples(), 0);
//! # Ok::<(), profiler_export::Error>(())
//! ```
//!
//! Delivery is as OTLP's specification has it:
//!
//! - Retried are gRPC's CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and DATA_LOSS, RESOURCE_EXHAUSTED only
//!   with `RetryInfo`, HTTP's 429, 502, 503 and 504, and whatever happens to a connection. A `RetryInfo` or `Retry-After` (at most
//!   10 minutes) lengthens the exporter's own backoff and never shortens it.
//! - Anything else is dropped and counted under its code. Partial success is counted and never retried.
//! - 413, and gRPC's refusals for size, divide the request, and all later ones as far.
//! - Requests go one after the other, the oldest first. When the receiver is back, all that waits is sent at once.
//!
//! Whoever has rights to lose lets another process speak to the receiver ([`Exporter::start_apart`], [`serve`]).
//!
//! Every sample is accounted for at every moment; see [`ExportStats`].
#![forbid(unsafe_code)]

mod answer;
mod apart;
mod backoff;
mod client;
mod endpoint;
mod error;
mod files;
mod grpc;
mod headers;
mod http_protobuf;
mod options;
mod outcome;
mod payload;
mod queue;
mod quiet;
mod sender;
mod settings;
mod shared;
pub mod spool;
mod stats;

use std::{
    sync::{Arc, Mutex, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

pub use apart::serve;
pub use client::MetricsClient;
pub use error::Error;
pub use files::{FileSink, FilesOptions, FilesStats};
pub use options::{Compression, ExporterOptions, HIDDEN, Protocol, RetryOptions, Secret, SpoolOptions, TlsOptions};
use profiler_formats::otlp;
use profiler_model::Profiles;
use profiler_network::Network;
pub use stats::{ExportStats, LATENCY_BOUNDS, Latency};

use self::{
    queue::REQUEST_TOO_LARGE,
    sender::Sender,
    settings::Settings,
    shared::{Shared, lock},
};
use crate::spool::Spool;

#[doc(hidden)]
pub mod fuzzing {
    //! For the fuzz targets.

    /// Decodes `bytes` as each message between an exporter and the process that speaks for it, and takes in what they say.
    pub fn messages(bytes: &[u8]) {
        crate::apart::fuzz(bytes);
    }
}

/// What the exporter says it is.
const USER_AGENT: &str = concat!("profiler-otlp/", env!("CARGO_PKG_VERSION"));

/// Sends profiles to one receiver, from threads of its own; see the [module](self).
#[derive(Debug)]
pub struct Exporter {
    shared: Arc<Shared>,
    spool: Option<SpoolOptions>,
    /// Disconnected when the threads have ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Exporter {
    /// Checks `options`, reads the files that they name, opens the spool and starts the threads. That the receiver cannot be reached is
    /// no error: what is exported waits for it.
    pub fn start(options: ExporterOptions) -> Result<Self, Error> {
        Self::start_by(options, None)
    }

    /// As [`start`](Self::start); processes of `network` speak to the receiver. Queue and spool are here all the same, so that the end of such a
    /// process loses nothing.
    pub fn start_apart(options: ExporterOptions, network: Network) -> Result<Self, Error> {
        Self::start_by(options, Some(network))
    }

    fn start_by(options: ExporterOptions, network: Option<Network>) -> Result<Self, Error> {
        let settings = Settings::new(options)?;
        let spool_options = settings.options.spool.clone();
        let spool = spool_options.as_ref().map(Spool::open).transpose()?;
        let name = settings.options.name.clone();
        let failed = |source| Error::Thread { name: name.clone(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let shared = Arc::new(Shared::new(&settings, spool));
        let (alive, ended) = mpsc::channel();
        let exporter = Self { shared: Arc::clone(&shared), spool: spool_options, ended: Mutex::new(ended) };
        if shared.has_spool() {
            let (shared, alive) = (Arc::clone(&shared), alive.clone());
            let spooler = thread::Builder::new().name("export-spool".to_owned());
            let run = move || {
                shared.write_spool();
                // The sender may wait for nothing but this.
                shared.wake.notify_one();
                // In this order: whoever waits for the end may open the spool anew.
                drop(shared);
                drop(alive);
            };
            spooler.spawn(run).map_err(failed)?;
        }
        let sender = Sender::new(shared, settings, network);
        let run = move || {
            runtime.block_on(sender.run());
            // A name server that does not answer must not hold up the end.
            runtime.shutdown_background();
            drop(alive);
        };
        thread::Builder::new().name("export-send".to_owned()).spawn(run).map_err(failed)?;
        Ok(exporter)
    }

    /// Encodes `profile` and hands it to the threads that send it. Takes the time that encoding and compression take; a profile
    /// without samples is no request.
    pub fn export(&self, profile: &Profiles) {
        let split = otlp::split(profile, self.shared.max_request_bytes.load(Ordering::Relaxed));
        let compression = *lock(&self.shared.compression);
        let records: Vec<_> = split.requests.iter().map(|request| payload::pack(request, compression)).collect();
        let stage = self.shared.first_stage();
        let mut state = self.shared.state();
        state.stats.accepted_samples += profile.sample_entries() as u64;
        state.stats.drop_samples(REQUEST_TOO_LARGE, split.oversized_samples);
        for record in records {
            state.push(record, stage);
        }
        drop(state);
        self.shared.spooler.notify_one();
        self.shared.wake.notify_one();
    }

    /// Counters as they are now.
    #[must_use]
    pub fn stats(&self) -> ExportStats {
        self.shared.state().stats.clone()
    }

    /// Goes on with other options; what waits is sent as they say. The former stay if these are wrong.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and if the spool's folder is another one: that takes a new exporter.
    pub fn reconfigure(&self, options: ExporterOptions) -> Result<(), Error> {
        let folder = |spool: &Option<SpoolOptions>| spool.as_ref().map(|spool| spool.directory.clone());
        if folder(&options.spool) != folder(&self.spool) {
            let problem = "cannot change while the exporter runs; shut it down and start another".to_owned();
            return Err(Error::Option { option: "spool.directory", problem });
        }
        let settings = Settings::new(options)?;
        let options = &settings.options;
        self.shared.max_request_bytes.store(options.max_request_bytes, Ordering::Relaxed);
        self.shared.spool_max_bytes.store(options.spool.as_ref().map_or(0, |spool| spool.max_bytes), Ordering::Relaxed);
        *lock(&self.shared.compression) = options.compression;
        self.shared.state().max_bytes = options.queue_bytes;
        *lock(&self.shared.pending) = Some(settings);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Sends what waits for at most `deadline`. What is left then stays in the spool if there is one, and else is counted as
    /// dropped. When this returns, the spool can be opened again, unless its disk hangs longer than 1 s after `deadline`.
    #[must_use]
    pub fn shutdown(self, deadline: Duration) -> ExportStats {
        let end = Instant::now() + deadline;
        self.close(end);
        // A disk that hangs holds up its thread, not this one.
        let grace = end.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        while lock(&self.ended).recv_timeout(grace).is_ok() {}
        let mut state = self.shared.state();
        state.abandon();
        state.stats.clone()
    }

    fn close(&self, end: Instant) {
        self.shared.state().is_closing = true;
        self.shared.closing.send_replace(Some(end));
        self.shared.spooler.notify_all();
        self.shared.wake.notify_one();
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if !self.shared.state().is_closing {
            self.close(Instant::now());
        }
    }
}
