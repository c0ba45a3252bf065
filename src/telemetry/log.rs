//! Logs: set up once, their level changed live, and repeated messages held back.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::shown;

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
    let lines = lines(std::io::stderr, Look::of_stderr(format));
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    subscriber.try_init().map_err(|_| Error::Twice)?;
    Ok(Log { filter: handle, fixed: forced.is_some() })
}

/// Starts logging to standard error for a command that ends: what is at least of `level`, without the time.
pub fn init_for_command(level: LevelFilter) {
    let lines = lines(std::io::stderr, Look { time: false, ..Look::of_stderr(Format::Text) });
    // A command logs nothing before.
    let _ = tracing_subscriber::registry().with(lines.with_filter(level)).try_init();
}

/// How lines look, in detail.
#[derive(Clone, Copy, Debug)]
struct Look {
    format: Format,
    time: bool,
    colours: bool,
}

impl Look {
    fn of_stderr(format: Format) -> Self {
        // The journal knows the time, and has no use for colours.
        let journal = std::env::var_os("JOURNAL_STREAM").is_some();
        let colours = !journal && std::io::IsTerminal::is_terminal(&std::io::stderr());
        Self { format, time: !journal, colours }
    }
}

/// What writes lines: the one place where what others may have put into a message or a field becomes harmless (see [`shown`]).
fn lines<W>(writer: W, look: Look) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().log_internal_errors(false);
    if look.format == Format::Json {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
        return lines.with_writer(Escaping(writer)).boxed();
    }
    let fields = debug_fn(|out, field, value| match field.name() {
        "message" => write!(out, "{}", shown::lines(&format!("{value:?}"))),
        // Where the message of a library that knows other logs came from; its target says enough.
        name if name.starts_with("log.") => Ok(()),
        name => write!(out, "{name}={}", shown::one_line(&format!("{value:?}"))),
    });
    let lines = lines.fmt_fields(fields.delimited(" ")).with_ansi(look.colours).with_writer(writer);
    if look.time { lines.boxed() } else { lines.without_time().boxed() }
}

/// Writes lines of JSON, whose writer escapes less than a terminal needs.
struct Escaping<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

struct EscapingWriter<W>(W);

impl<W: std::io::Write> std::io::Write for EscapingWriter<W> {
    /// A line comes whole.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(shown::json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
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

    /// What is written into it.
    #[derive(Clone, Default)]
    struct Page(std::sync::Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_forges_a_line_or_drives_a_terminal_by_what_is_logged() {
        let hostile = "x\u{1b}]0;title\u{7}\r\u{9b}2J\u{202e}\u{7f}\n2026-01-01T00:00:00Z ERROR profiler: forged\n";
        for (format, time) in [(Format::Text, true), (Format::Text, false), (Format::Json, true)] {
            let page = Page::default();
            let writer = page.clone();
            let subscriber = tracing_subscriber::registry()
                .with(lines(move || writer.clone(), Look { format, time, colours: false }));
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(shown = %hostile, text = hostile, debug = ?std::path::Path::new(hostile), "message of {hostile} ends");
                tracing::warn!("A second line.");
            });
            let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
            assert!(text.chars().all(|c| c == '\n' || !shown::is_deceptive(c)), "{format:?}: {text:?}");
            let begun: Vec<_> = text.lines().filter(|line| !line.starts_with("    ")).collect();
            assert_eq!(begun.len(), 2, "{format:?}: {text:?}");
            if format == Format::Json {
                let read: serde_json::Value = serde_json::from_str(begun[0]).unwrap();
                assert_eq!(read["shown"], hostile);
            }
        }
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
