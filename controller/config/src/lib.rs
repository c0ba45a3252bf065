//! The agent's configuration: flags, over the environment, over a YAML file, over defaults.
//!
//! [`load`] gives one typed [`Config`], or everything that is wrong, with line, column and the right way. Every key is
//! defined once, in `sections.rs` and `exporters.rs`; the effective configuration ([`Loaded::describe`]), the
//! [JSON Schema](schema()) and the [reference](reference()) come from those definitions.
//!
//! ```
//! use profiler_config::{self as config, Flags};
//!
//! let mut flags = Flags::default();
//! flags.rate("--rate", "49");
//! let loaded = config::load_with(&flags, &|_| None)?;
//! assert_eq!(loaded.config.rate, 49);
//! assert!(loaded.describe().contains("rate: 49  # flag --rate"));
//!
//! let mut flags = Flags::default();
//! flags.set("--set", "widnow", "10s");
//! let errors = config::load_with(&flags, &|_| None).expect_err("there is no such key");
//! assert!(errors.to_string().contains("did you mean window?"));
//! # Ok::<(), config::ConfigErrors>(())
//! ```
//!
//! The crate knows nothing of the parts that the values are for: whoever starts them makes their options of a [`Config`].
//! Not done here: opening certificates, resolving names, reaching receivers. A configuration may be checked on another
//! machine than the one that it is for.
#![forbid(unsafe_code)]

mod describe;
mod endpoint;
mod entry;
mod environment;
mod errors;
mod exporters;
mod flags;
mod kind;
mod layers;
mod model;
mod nearest;
mod origin;
mod ownership;
mod processors;
mod reader;
mod schema;
mod sections;
mod substitute;
mod units;
mod watch;
mod yaml;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::OFlags;

pub use endpoint::Endpoint;
pub use errors::{ConfigErrors, Problem};
pub use flags::Flags;
pub use kind::Choice;
pub use model::{
    Changes, Config, Connection, DetectedSeries, Detection, Exporter, ExporterKind, FileFormat, FilesExporter, Jitter,
    Kubernetes, KubernetesSource, Log, LogFormat, LogLevel, Opamp, OtlpExporter, Percent, Processor, ProcessorKind,
    Resource, Retry, RuleGroup, Spool, Symbols, Telemetry, TelemetryOtlp,
};
pub use nearest::nearest;
pub use origin::Origin;
pub use profiler_ottl::ErrorMode;
pub use profiler_rules::Level;
pub use schema::{reference, schema};
pub use units::parse_time;
pub use watch::{Change, Watcher};
pub use yaml::{MAX_BYTES, Place};

use entry::Entry;
use layers::{Findings, Overlay, Sources};
use reader::Reader;
use yaml::Node;

/// A configuration, and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The files that it was read from, those of `${file:...}` included: when one changes, it is to be loaded again.
    pub files: Vec<PathBuf>,
    /// Watches them, from before they were read.
    pub watcher: Watcher,
    /// Why a remote configuration is not in it, if there is one and it is refused: all of it, for any one reason.
    pub refused: Option<ConfigErrors>,
    entries: Vec<Entry>,
    /// Without the remote configuration, where there is one.
    local: Option<Box<Loaded>>,
}

/// A configuration from elsewhere. It narrows the host's own, key by key as each is declared, and never widens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Names it in messages and as an origin.
    pub name: String,
    /// YAML, with the keys of the file.
    pub text: String,
}

impl Loaded {
    /// The effective configuration as YAML, with where each value came from as a comment. Secrets are not in it.
    #[must_use]
    pub fn describe(&self) -> String {
        describe::describe(&self.entries)
    }

    /// What the host's own configuration says, without a remote one.
    #[must_use]
    pub fn local(&self) -> &Loaded {
        self.local.as_deref().unwrap_or(self)
    }

    /// Where the value of a key came from, by its path: `exporters[0].otlp.endpoint`, `labels.team`.
    #[must_use]
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        describe::origin(&self.entries, path)
    }
}

/// Loads the configuration from `flags`, the file that they name, and the environment of this process.
///
/// # Errors
///
/// Everything that is wrong. Nothing of such a configuration should be used.
pub fn load(flags: &Flags) -> Result<Loaded, ConfigErrors> {
    load_with(flags, &|name| std::env::var(name).ok())
}

/// Like [`load`], in another environment. `env` gives the value of a variable; an empty one counts as not set.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigErrors> {
    let path = flags.file.as_deref();
    let watched: Vec<&Path> = path.into_iter().chain(flags.remote.as_deref()).collect();
    let watcher = Watcher::new(&watched);
    let text = path.map(|path| read(path, flags.whosever)).transpose()?;
    let asked = match &flags.remote {
        Some(path) => Some(remote_file(path, flags.whosever)).transpose(),
        None => Ok(flags.offered.clone().map(Some)),
    };
    let own = |remote: Option<&Remote>| load_remote(flags, env, path.zip(text.as_deref()), remote);
    let mut loaded = match &asked {
        Ok(remote) => own(remote.as_ref().and_then(Option::as_ref))?,
        // What cannot be read is refused, as what is wrong is.
        Err(errors) => Loaded { refused: Some(errors.clone()), ..own(None)? },
    };
    loaded.files.extend(flags.remote.clone());
    loaded.watcher = watcher;
    loaded.watcher.watch(&loaded.files);
    Ok(loaded)
}

/// The remote configuration in a file; none if there is no such file.
fn remote_file(path: &Path, whosever: bool) -> Result<Option<Remote>, ConfigErrors> {
    // One that cannot be looked at is there: reading it tells why it is refused.
    if matches!(path.try_exists(), Ok(false)) {
        return Ok(None);
    }
    let name = path.display().to_string();
    let text = read(path, whosever).map_err(|errors| {
        let origin = Origin::Remote { name: name.clone(), place: None };
        let problems = errors.problems.into_iter().map(|problem| Problem { origin: origin.clone(), ..problem });
        ConfigErrors { problems: problems.collect() }
    })?;
    Ok(Some(Remote { name, text }))
}

/// Like [`load_text`], narrowed by `remote`. One that is refused changes nothing, and is told in [`Loaded::refused`].
///
/// # Errors
///
/// As [`load`]: of the host's own configuration alone.
pub fn load_remote(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<(&Path, &str)>,
    remote: Option<&Remote>,
) -> Result<Loaded, ConfigErrors> {
    let local = load_layers(flags, env, file, None)?;
    let Some(remote) = remote else { return Ok(local) };
    match load_layers(flags, env, file, Some((remote, &local.config.remote_allow))) {
        Ok(narrowed) => Ok(Loaded { local: Some(Box::new(local)), ..narrowed }),
        Err(errors) => Ok(Loaded { refused: Some(errors), ..local }),
    }
}

/// Like [`load_with`], of a text that was read already; its path is for messages.
///
/// # Errors
///
/// As [`load`].
pub fn load_text(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<(&Path, &str)>,
) -> Result<Loaded, ConfigErrors> {
    load_layers(flags, env, file, None)
}

/// `remote` comes with the keys that it may set as it likes.
fn load_layers(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<(&Path, &str)>,
    remote: Option<(&Remote, &[String])>,
) -> Result<Loaded, ConfigErrors> {
    let path = file.map(|(path, _)| path);
    let root = match file {
        None => None,
        Some((path, text)) => Some(yaml::parse(text).map_err(|refusal| {
            let origin = Origin::File { path: path.to_owned(), place: refusal.place };
            refused(origin, refusal.message)
        })?),
    };
    let (remote, allowed) = remote.map_or((None, &[][..]), |(remote, allowed)| (Some(remote), allowed));
    let asked = match remote {
        None => None,
        Some(Remote { name, text }) => Some(yaml::parse(text).map_err(|refusal| {
            let origin = Origin::Remote { name: name.clone(), place: refusal.place };
            refused(origin, refusal.message)
        })?),
    };
    let mut findings = Findings::default();
    let mut otel = environment::otel(env, &mut findings.problems);
    let mut above = flags.overlay();
    let (target, in_file) = exporters::target(root.as_ref());
    let target = format!("exporters.{target}.otlp");
    // A receiver that a flag or variable names is one even if the file has only others.
    let named = [&above, &otel].iter().any(|overlay| {
        let named = |key: &str| overlay.texts.contains_key(&format!("{}.{key}", environment::EXPORTER));
        named("endpoint") || named("profiles_endpoint")
    });
    otel.rename(environment::EXPORTER, &target);
    above.rename(environment::EXPORTER, &target);
    let implied_exporter = !in_file && (named || !has_exporters(root.as_ref()));
    let sources = Sources {
        file: path,
        env,
        otel,
        flags: above,
        implied_exporter,
        schema: false,
        remote: remote.map(|remote| remote.name.as_str()),
        allowed,
        paths: paths(),
    };

    let mut reader = Reader::root(&sources, &mut findings, root.as_ref(), asked.as_ref());
    let config = sections::read(&mut reader);
    let entries = reader.finish();

    for (name, (_, origin)) in &sources.flags.texts {
        if !findings.used.contains(name) {
            let message = unused(name, origin, &target);
            findings.problems.push(Problem { origin: origin.clone(), key: String::new(), message });
        }
    }
    if findings.problems.is_empty() {
        let mut files: Vec<PathBuf> = path.map(Path::to_owned).into_iter().chain(findings.files).collect();
        files.dedup();
        let watcher = Watcher::new(&files);
        return Ok(Loaded { config, watcher, files, refused: None, entries, local: None });
    }
    let mut problems = findings.problems;
    problems.sort_by(|a, b| a.origin.cmp(&b.origin));
    problems.dedup();
    Err(ConfigErrors { problems })
}

fn refused(origin: Origin, message: impl Into<String>) -> ConfigErrors {
    ConfigErrors { problems: vec![Problem { origin, key: String::new(), message: message.into() }] }
}

/// Why a flag had no effect.
fn unused(name: &str, origin: &Origin, target: &str) -> String {
    if name.starts_with(target) && *origin != Origin::Flag("--set".to_owned()) {
        return "there is no OTLP exporter to set this for: give --endpoint too, or an exporter in the file".to_owned();
    }
    let names: Vec<&str> = paths().iter().map(String::as_str).filter(|path| !path.contains('[')).collect();
    match nearest::nearest(name, names) {
        Some(near) => format!("there is no key {}; did you mean {near}?", errors::quoted(name)),
        None => format!("there is no key {}; `profiler config check` lists all", errors::quoted(name)),
    }
}

fn has_exporters(root: Option<&Node>) -> bool {
    match root.map(|root| &root.value) {
        Some(yaml::Value::Map(items)) => {
            items.iter().any(|(key, node)| key.text == "exporters" && node.value != yaml::Value::Nothing)
        }
        _ => false,
    }
}

/// The text of a file that is not larger than a configuration may be, and that nobody else may have written, unless it is `whosever`.
fn read(path: &Path, whosever: bool) -> Result<String, ConfigErrors> {
    let cannot = |message: String| refused(Origin::File { path: path.to_owned(), place: None }, message);
    let reader = (!whosever).then(ownership::Reader::this_process);
    let bytes = read_bytes(path, reader).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => cannot("there is no such file".to_owned()),
        _ => cannot(format!("cannot be read: {error}")),
    })?;
    if bytes.len() > yaml::MAX_BYTES {
        return Err(cannot(yaml::too_large()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        cannot(format!("line {line} is not UTF-8"))
    })
}

/// The bytes of a file, at most one more than a configuration may have; refused if others than `reader` may have written it.
fn read_bytes(path: &Path, reader: Option<ownership::Reader>) -> std::io::Result<Vec<u8>> {
    ownership::check_kind(&std::fs::metadata(path)?)?;
    // Not to wait for somebody who opens the other end of a pipe.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    ownership::check_kind(&found)?;
    if found.is_file()
        && let Some(reader) = reader
    {
        reader.check(&found)?;
    }
    if found.file_type().is_fifo() {
        // A pipe of the shell (`config check <(...)`, `/dev/stdin`) has a writer, and an end. One with a name may have neither.
        if rustix::fs::fstatfs(&file)?.f_type as u64 != PIPEFS {
            let what = "it is a named pipe; a configuration is a file, which can be read again";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
        }
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    }
    let mut bytes = Vec::new();
    file.take(yaml::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file system of pipes without a name (linux/magic.h).
const PIPEFS: u64 = 0x5049_5045;

/// Every key there is, as the reader of a file without any sees them.
fn blank() -> Vec<Entry> {
    let sources = Sources {
        file: None,
        env: &|_| None,
        otel: Overlay::default(),
        flags: Overlay::default(),
        implied_exporter: false,
        schema: true,
        remote: None,
        allowed: &[],
        paths: &[],
    };
    // Required keys are missing, of course.
    let mut findings = Findings::default();
    let mut reader = Reader::root(&sources, &mut findings, None, None);
    sections::read(&mut reader);
    reader.finish()
}

/// The paths of all keys.
fn paths() -> &'static [String] {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    PATHS.get_or_init(|| schema::paths(&blank()))
}
