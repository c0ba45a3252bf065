//! An event in sentences: what, from how much to how much, since when, and of what it is.

use std::sync::Arc;
use std::time::Duration;

use profiler_detectors::{Direction, Estimate, Kind, SECOND};
use profiler_model::rfc3339;

use super::watch::{Level, Told};
use crate::shown;

/// What was running when the event was decided.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The file of the function's code, with its build id.
    pub file: Option<Arc<str>>,
    /// The newest process of the service: its name, its pid, its start in ns since the Unix epoch.
    pub newest: Option<(Arc<str>, u32, u64)>,
    /// The largest services, with their shares of the host's CPU time.
    pub largest: Vec<(Arc<str>, f64)>,
}

/// Three sentences, the third where there is something to say.
pub fn sentences(told: &Told, around: &Around) -> String {
    let event = &told.event.event;
    let subject = subject(told);
    let (from, to) = (percent(event.from), percent(event.to));
    let of = match told.level {
        Level::Function => "of the service's CPU samples",
        Level::Pressure => "of the time",
        _ => "of the host's CPU time",
    };
    let way = match event.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let since = second(event.since);
    let lasted = duration(event.time.saturating_sub(event.since));
    let mut text = match event.kind {
        Kind::Changed => format!(
            "{subject} went {way} from {from} to {to} {of}. It has been so since {since}, {lasted} before it was told ({} {:.1}, threshold {}).",
            event.detector,
            event.score.abs(),
            event.threshold
        ),
        Kind::Returned => format!(
            "{subject} is back at {to} {of}, from {from} before the change. The change began at {since} and lasted {lasted} ({}).",
            event.detector
        ),
        Kind::Settled => format!(
            "{subject} stays at {to} {of}, and that is normal from now on. Until {since} it was {from} ({}).",
            event.detector
        ),
    };
    if event.kind == Kind::Changed {
        text.push_str(&third(around, event.since));
    }
    text
}

/// What a change might come from.
fn third(around: &Around, since: u64) -> String {
    let mut parts = Vec::new();
    if let Some(file) = around.file.as_deref().filter(|file| !file.is_empty()) {
        parts.push(format!("its code is of {}", shown::one_line(file)));
    }
    if let Some((name, pid, start)) = around.newest.as_ref().filter(|(_, _, start)| *start > 0) {
        let (distance, way) = if *start <= since { (since - start, "before") } else { (start - since, "after") };
        let name = shown::one_line(name);
        parts.push(format!(
            "the newest process of the service, {name} (pid {pid}), began {} {way} that",
            duration(distance)
        ));
    }
    if !around.largest.is_empty() {
        let largest = around.largest.iter();
        let largest: Vec<String> =
            largest.map(|(name, share)| format!("{} {:.1} %", shown::one_line(name), share * 100.0)).collect();
        parts.push(format!("most CPU time is used by {}", largest.join(", ")));
    }
    let text = parts.join("; ");
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!(" {}{}.", first.to_uppercase(), letters.as_str()))
}

/// What the series is of.
fn subject(told: &Told) -> String {
    let name = shown::one_line(&told.event.series);
    match (told.level, &told.service) {
        (Level::Function, Some(service)) => format!("Function {name} of service {}", shown::one_line(service)),
        (Level::Function, None) => format!("Function {name}"),
        (Level::Host, _) => "The host".to_owned(),
        (Level::Service, _) => format!("Service {name}"),
        (Level::Process, _) => format!("Processes {name}"),
        (Level::Cgroup, _) => format!("Cgroup {name}"),
        (Level::Pressure, _) => format!("Pressure of {name}"),
    }
}

fn percent(of: Estimate) -> String {
    format!("{:.2} % ± {:.2}", of.value * 100.0, of.error * 100.0)
}

/// A time of day, to the second.
pub fn second(nanos: u64) -> String {
    rfc3339::format(nanos / SECOND * SECOND)
}

/// A time that people read: whole seconds from ten on.
fn duration(nanos: u64) -> String {
    let time = Duration::from_nanos(nanos);
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{} s", time.as_secs()),
        120..7_200 => format!("{} min", time.as_secs() / 60),
        7_200..172_800 => format!("{} h", time.as_secs() / 3_600),
        _ => format!("{} days", time.as_secs() / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use profiler_detectors::{Event, SeriesEvent};

    use super::*;

    fn told(level: Level, kind: Kind) -> Told {
        let event = Event {
            time: 1_795_727_109 * SECOND,
            kind,
            detector: "cusum",
            direction: Direction::Up,
            from: Estimate { value: 0.0502, error: 0.0021 },
            to: Estimate { value: 0.1031, error: 0.0093 },
            since: 1_795_727_100 * SECOND + 7,
            score: 17.66,
            threshold: 17.0,
        };
        Told { level, service: Some("shop".into()), event: SeriesEvent { series: "hot\u{1b}[2J".into(), event } }
    }

    #[test]
    fn a_change_is_told_in_three_sentences_without_what_drives_a_terminal() {
        let around = Around {
            file: Some("/bin/shop, build id ab12".into()),
            newest: Some(("shop".into(), 7, 1_795_727_095 * SECOND)),
            largest: Vec::new(),
        };
        assert_eq!(
            sentences(&told(Level::Function, Kind::Changed), &around),
            "Function hot\\u{1b}[2J of service shop went up from 5.02 % ± 0.21 to 10.31 % ± 0.93 of the service's CPU samples. It has been \
             so since 2026-11-26T21:05:00Z, 9.0 s before it was told (cusum 17.7, threshold 17). Its code is of /bin/shop, build id ab12; \
             the newest process of the service, shop (pid 7), began 5.0 s before that."
        );
    }

    #[test]
    fn what_has_no_third_sentence_has_two() {
        let text = sentences(&told(Level::Host, Kind::Changed), &Around::default());
        assert!(text.starts_with("The host went up from 5.02 %") && text.ends_with("threshold 17)."), "{text}");
        let around = Around { largest: vec![("a".into(), 0.5), ("b".into(), 0.25)], ..Around::default() };
        let text = sentences(&told(Level::Pressure, Kind::Changed), &around);
        assert!(text.ends_with(" Most CPU time is used by a 50.0 %, b 25.0 %."), "{text}");
        for (kind, words) in [(Kind::Returned, "is back at 10.31 %"), (Kind::Settled, "stays at 10.31 %")] {
            let text = sentences(&told(Level::Service, kind), &around);
            assert!(text.contains(words) && !text.contains("Most CPU"), "{text}");
        }
    }
}
