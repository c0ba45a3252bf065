//! Events as lines.

use profiler_detectors::{Direction, Estimate, Event, Kind, SeriesEvent};
use profiler_model::rfc3339;
use serde_json::json;

use crate::shown;

/// One object on one line.
pub fn json(SeriesEvent { series, event }: &SeriesEvent) -> String {
    let object = json!({
        "time": rfc3339::format(event.time),
        "time_unix_nano": event.time.to_string(),
        "series": &**series,
        "kind": event.kind,
        "direction": event.direction,
        "from": event.from,
        "to": event.to,
        "since": rfc3339::format(event.since),
        "since_unix_nano": event.since.to_string(),
        "detector": event.detector,
        "score": event.score,
        "threshold": event.threshold,
    });
    format!("{}\n", shown::json(&object.to_string()))
}

/// One line for people.
pub fn text(SeriesEvent { series, event }: &SeriesEvent, is_share: bool) -> String {
    let Event { time, since, .. } = *event;
    let (from, to) = (estimate(event.from, is_share), estimate(event.to, is_share));
    let way = match event.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let what = match event.kind {
        Kind::Changed => format!("{way} from {from} to {to}"),
        Kind::Returned => format!("back at {to}, from before {from}"),
        Kind::Settled => format!("stays at {to}, before {from}"),
    };
    let evidence = match event.kind {
        Kind::Changed => format!(" ({} {:.1}, threshold {})", event.detector, event.score, event.threshold),
        Kind::Returned | Kind::Settled => format!(" ({})", event.detector),
    };
    let (time, since) = (rfc3339::format(time), rfc3339::format(since));
    format!("{time}  {}: {what}, since {since}{evidence}\n", shown::one_line(series))
}

/// A share in percent, or a value, with its standard error.
pub fn estimate(of: Estimate, is_share: bool) -> String {
    if is_share {
        format!("{:.2} % ± {:.2}", of.value * 100.0, of.error * 100.0)
    } else {
        format!("{} ± {}", number(of.value), number(of.error))
    }
}

/// Four digits that say something.
pub fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        _ if size >= 1_000.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
