//! Where profiles go: the exporters of the configuration, running.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use profiler_config::{self as config, ExporterKind};
use profiler_export::{ExportStats, Exporter, FileSink, FilesOptions, FilesStats};
use profiler_formats::format::Format;
use profiler_model::Profiles;
use profiler_network::Network;

use super::{ends_by, options};
use crate::once_a_minute;

/// Time that an exporter has for what it still holds when the configuration drops it.
const RETIREMENT: Duration = Duration::from_secs(30);

/// All exporters; clones are the same exporters.
#[derive(Clone)]
pub struct Sinks {
    all: Vec<Arc<Sink>>,
    /// Processes of its own speak to the receivers.
    network: Network,
    /// Those that are no longer configured and still send what they hold.
    ending: Arc<Mutex<Vec<Ending>>>,
}

/// An exporter's name, and the thread on which it ends.
type Ending = (String, JoinHandle<()>);

/// One exporter.
struct Sink {
    config: Mutex<config::Exporter>,
    kind: Kind,
}

enum Kind {
    /// None once it has been shut down.
    Otlp(RwLock<Option<Exporter>>),
    Files(FileSink),
}

/// What one exporter did.
pub enum SinkStats {
    /// A receiver's.
    Otlp(Box<ExportStats>),
    /// A directory's.
    Files(FilesStats),
}

impl Sinks {
    /// Starts the exporters. Processes of `network` speak to the receivers.
    ///
    /// # Errors
    /// One cannot work as it is configured. That a receiver cannot be reached is no such error.
    pub fn start(exporters: &[config::Exporter], network: Network) -> anyhow::Result<Self> {
        let all = exporters.iter().map(|config| Sink::start(config, &network)).collect::<anyhow::Result<_>>()?;
        Ok(Self { all, network, ending: Arc::default() })
    }

    /// The exporters of another configuration. Those of the same name and spool, or of the same spool, go on with what they hold; others
    /// run until [`Self::retire_all_but`].
    ///
    /// # Errors
    /// One cannot work so; all are as before.
    pub fn changed(&self, exporters: &[config::Exporter]) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        let mut changed: Vec<(Arc<Sink>, config::Exporter)> = Vec::new();
        for new in exporters {
            let same = self.all.iter().find(|sink| sink.can_become(new));
            let sink = match same {
                Some(sink) => sink.reconfigure(new).map(|before| {
                    changed.push((Arc::clone(sink), before));
                    Arc::clone(sink)
                }),
                None => Sink::start(new, &self.network),
            };
            match sink {
                Ok(sink) => all.push(sink),
                Err(error) => {
                    for (sink, before) in changed {
                        if let Err(error) = sink.reconfigure(&before) {
                            tracing::error!(exporter = before.name, "It could not be set back: {error:#}.");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self { all, network: self.network.clone(), ending: Arc::clone(&self.ending) })
    }

    /// Ends the exporters that are not among `kept`; nobody waits for them.
    pub fn retire_all_but(&self, kept: &Self) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.retain(|(_, end)| !end.is_finished());
        for gone in self.all.iter().filter(|sink| !kept.all.iter().any(|kept| Arc::ptr_eq(kept, sink))) {
            tracing::info!(exporter = gone.name(), "The exporter is no longer configured and ends.");
            ending.extend(gone.end(RETIREMENT).map(|end| (gone.name(), end)));
        }
    }

    /// Hands `profile` to all exporters; those that queue it before those that write it here, on a disk that may hang.
    pub fn export(&self, profile: &Profiles) {
        let (queues, files): (Vec<_>, Vec<_>) = self.all.iter().partition(|sink| matches!(sink.kind, Kind::Otlp(_)));
        for sink in queues.into_iter().chain(files) {
            sink.export(profile);
        }
    }

    /// What each exporter did, by name.
    #[must_use]
    pub fn stats(&self) -> Vec<(String, SinkStats)> {
        self.all.iter().filter_map(|sink| Some((sink.name(), sink.stats()?))).collect()
    }

    /// Sends what is left for `deadline` at most.
    pub fn shutdown(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let ends: Vec<_> = self.all.iter().filter_map(|sink| sink.end(deadline)).collect();
        for end in ends {
            // It has said what it could not do.
            let _ = end.join();
        }
        for (exporter, end) in self.ending.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if !ends_by(&end, until) {
                tracing::error!(
                    exporter,
                    "The exporter was no longer configured; what it still held and has no spool for is lost."
                );
            }
        }
    }
}

impl Sink {
    fn start(config: &config::Exporter, network: &Network) -> anyhow::Result<Arc<Self>> {
        let context = || format!("the exporter {:?} cannot work", config.name);
        let kind = match &config.kind {
            ExporterKind::Otlp(_) => {
                let exporter =
                    Exporter::start_apart(options::exporter(config), network.clone()).with_context(context)?;
                Kind::Otlp(RwLock::new(Some(exporter)))
            }
            ExporterKind::Files(files) => Kind::Files(FileSink::open(folder(files)).with_context(context)?),
        };
        Ok(Arc::new(Self { config: Mutex::new(config.clone()), kind }))
    }

    fn config(&self) -> config::Exporter {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn name(&self) -> String {
        self.config().name
    }

    /// Whether `new` is this exporter with other options, and not another one.
    fn can_become(&self, new: &config::Exporter) -> bool {
        let old = self.config();
        let spool = |otlp: &config::OtlpExporter| otlp.spool.as_ref().map(|spool| spool.directory.clone());
        let same_name = old.name == new.name;
        match (&old.kind, &new.kind) {
            // A spool goes on under another name: only one exporter can have it.
            (ExporterKind::Otlp(old), ExporterKind::Otlp(new)) => {
                spool(old) == spool(new) && (same_name || spool(old).is_some())
            }
            (ExporterKind::Files(old), ExporterKind::Files(new)) => same_name && old == new,
            _ => false,
        }
    }

    /// The former configuration.
    fn reconfigure(&self, new: &config::Exporter) -> anyhow::Result<config::Exporter> {
        let old = self.config();
        if old != *new
            && let Kind::Otlp(exporter) = &self.kind
            && let Some(exporter) = &*exporter.read().unwrap_or_else(PoisonError::into_inner)
        {
            let context = || format!("the exporter {:?} cannot work so", new.name);
            exporter.reconfigure(options::exporter(new)).with_context(context)?;
        }
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone_from(new);
        Ok(old)
    }

    fn export(&self, profile: &Profiles) {
        match &self.kind {
            Kind::Otlp(exporter) => {
                if let Some(exporter) = &*exporter.read().unwrap_or_else(PoisonError::into_inner) {
                    exporter.export(profile);
                }
            }
            Kind::Files(files) => {
                if let Err(error) = files.write(profile) {
                    let name = self.name();
                    once_a_minute!(error, &name, %error, exporter = name, "A profile could not be written and is lost.");
                }
            }
        }
    }

    fn stats(&self) -> Option<SinkStats> {
        match &self.kind {
            Kind::Otlp(exporter) => {
                let exporter = exporter.read().unwrap_or_else(PoisonError::into_inner);
                exporter.as_ref().map(|exporter| SinkStats::Otlp(Box::new(exporter.stats())))
            }
            Kind::Files(files) => Some(SinkStats::Files(files.stats())),
        }
    }

    /// Ends the exporter on a thread of its own.
    fn end(&self, deadline: Duration) -> Option<JoinHandle<()>> {
        let Kind::Otlp(exporter) = &self.kind else { return None };
        let exporter = exporter.write().unwrap_or_else(PoisonError::into_inner).take()?;
        let name = self.name();
        Some(std::thread::spawn(move || {
            let stats = exporter.shutdown(deadline);
            let (dropped, spooled) = (stats.total_dropped_samples(), stats.spooled_samples());
            tracing::info!(exporter = name, sent = stats.sent_samples, dropped, spooled, "The exporter has ended.");
        }))
    }
}

fn folder(config: &config::FilesExporter) -> FilesOptions {
    FilesOptions {
        directory: config.directory.clone(),
        format: match config.format {
            config::FileFormat::Pprof => Format::Pprof,
            config::FileFormat::Otlp => Format::Otlp,
            config::FileFormat::OtlpJson => Format::OtlpJson,
        },
        max_files: usize::try_from(config.max_files).unwrap_or(usize::MAX),
        max_bytes: config.max_size,
    }
}
