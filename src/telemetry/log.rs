//! Logs: set up once, their level changed live, and repeated messages held back.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message` and the message's fields.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What `RUST_LOG` or the configuration says is no level.
    #[error(
        "{text:?} is no log level: use error, warn, info, debug or trace, or such a level for some modules, as in info,profiler=debug"
    )]
    Level {
        /// As given.
        text: String,
    },
    /// Something in this process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// The running log; changes its level.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    fixed: bool,
}

/// What `RUST_LOG` says, which goes before the configured level.
#[must_use]
pub fn forced_level() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty())
}

/// Starts logging to standard error. `level` is one of `error`, `warn`, `info`, `debug` and `trace`, or several by module
/// (`info,profiler=debug`); `RUST_LOG`, which is written in the same way, goes before it.
///
/// # Errors
/// `level` or `RUST_LOG` is no level, or logging is set up already.
pub fn init(level: &str, format: Format) -> Result<Log, Error> {
    let forced = forced_level();
    let (filter, handle) = reload::Layer::new(parse(forced.as_deref().unwrap_or(level))?);
    // The journal knows the time, and has no use for colours.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match (format, journal) {
        (Format::Json, _) => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        (Format::Text, true) => lines.without_time().with_ansi(false).boxed(),
        (Format::Text, false) => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    subscriber.try_init().map_err(|_| Error::Twice)?;
    Ok(Log { filter: handle, fixed: forced.is_some() })
}

impl Log {
    /// Changes the level from now on, unless `RUST_LOG` fixes it.
    ///
    /// # Errors
    /// `level` is no level; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), Error> {
        let filter = parse(level)?;
        if !self.fixed {
            self.filter.reload(filter).map_err(|_| Error::Twice)?;
        }
        Ok(())
    }
}

/// Libraries that tell of every frame on the wire; whoever wants that names them.
const CHATTY: &str = "h2=info,hyper=info,hyper_util=info,rustls=info";

fn parse(text: &str) -> Result<Targets, Error> {
    let wrong = || Error::Level { text: text.to_owned() };
    let detailed = text.contains("debug") || text.contains("trace");
    // What comes later goes before.
    let all = if detailed { format!("{CHATTY},{}", text.trim()) } else { text.trim().to_owned() };
    let filter: Targets = all.parse().map_err(|_| wrong())?;
    // A lone word that is no level would be taken for a module's name.
    let words = text.split(',').map(str::trim).filter(|word| !word.contains('='));
    for word in words {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(wrong());
        }
    }
    Ok(filter)
}

/// Messages that repeat are let through once a minute each.
#[derive(Debug, Default)]
pub struct OnceAMinute {
    seen: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    said: Instant,
    held_back: u64,
}

const MINUTE: Duration = Duration::from_secs(60);
/// Keys remembered; what a hostile target can vary must not be in a key, but a bound costs nothing.
const MAX_KEYS: usize = 256;

impl OnceAMinute {
    /// Whether the message of this key is to be said now, and how many of it were held back since the last time.
    pub fn due(&mut self, key: &str, now: Instant) -> Option<u64> {
        if let Some(seen) = self.seen.get_mut(key) {
            if now.saturating_duration_since(seen.said) < MINUTE {
                seen.held_back += 1;
                return None;
            }
            seen.said = now;
            return Some(std::mem::take(&mut seen.held_back));
        }
        if self.seen.len() >= MAX_KEYS
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, seen)| seen.said).map(|(key, _)| key.clone())
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(key.to_owned(), Seen { said: now, held_back: 0 });
        Some(0)
    }
}

static LIMITER: LazyLock<Mutex<OnceAMinute>> = LazyLock::new(Mutex::default);

/// [`OnceAMinute::due`] for the whole process, now.
#[must_use]
pub fn due(key: &str) -> Option<u64> {
    LIMITER.lock().unwrap_or_else(PoisonError::into_inner).due(key, Instant::now())
}

/// Logs at most once a minute for a key: `once_a_minute!(warn, "export/main", %error, "The receiver cannot be reached.")`. The
/// field `held_back` tells how many were not said since the last time.
#[macro_export]
macro_rules! once_a_minute {
    ($level:ident, $key:expr, $($message:tt)+) => {
        if let Some(held_back) = $crate::telemetry::log::due($key) {
            ::tracing::$level!(held_back, $($message)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_messages_are_held_back_and_counted() {
        let mut limiter = OnceAMinute::default();
        let start = Instant::now();
        assert_eq!(limiter.due("a", start), Some(0));
        assert_eq!(limiter.due("b", start), Some(0));
        for second in 1..60 {
            assert_eq!(limiter.due("a", start + Duration::from_secs(second)), None);
        }
        assert_eq!(limiter.due("a", start + MINUTE), Some(59));
        assert_eq!(limiter.due("a", start + MINUTE * 2), Some(0));
    }

    #[test]
    fn keys_are_bounded() {
        let mut limiter = OnceAMinute::default();
        let start = Instant::now();
        for number in 0..10_000u64 {
            limiter.due(&number.to_string(), start + Duration::from_millis(number));
        }
        assert_eq!(limiter.seen.len(), MAX_KEYS);
    }

    #[test]
    fn levels() {
        assert!(parse("info").is_ok() && parse("WARN").is_ok() && parse("info,profiler::agent=debug").is_ok());
        for wrong in ["", "loud", "info,loud", "profiler=loud"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("is no log level"), "{error}");
        }
    }
}
