//! Series and their events as a picture.

use std::collections::HashMap;
use std::fmt::Write;

use profiler_detectors::{Kind, Observation, SeriesEvent};
use profiler_model::rfc3339;

use super::report::{estimate, number};

/// Points of a series that are kept; beyond, two neighbours become one.
const MAX_POINTS: usize = 2_000;
/// Series that are kept: those that come first.
const MAX_SERIES: usize = 5_000;
/// Series that are shown: those with events, then the largest.
const SHOWN: usize = 12;
/// Events of a series that are drawn.
const MAX_EVENTS: usize = 200;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 70.0;
const PANEL: f64 = 150.0;
const GRAPH: f64 = 100.0;

/// All series, thinned out.
#[derive(Debug, Default)]
pub struct Plot {
    series: HashMap<String, Series>,
    first: Option<u64>,
    last: u64,
}

#[derive(Debug, Default)]
struct Series {
    points: Vec<Point>,
    /// Observations that are one point.
    each: u64,
    is_share: bool,
    events: Vec<SeriesEvent>,
    sum: f64,
}

/// The mean of some observations, and the square of its error.
#[derive(Clone, Copy, Debug)]
struct Point {
    time: u64,
    value: f64,
    variance: f64,
    count: u64,
}

impl Series {
    fn add(&mut self, observation: &Observation) {
        let point =
            Point { time: observation.time(), value: observation.value(), variance: observation.variance(), count: 1 };
        self.is_share = observation.counts().is_some();
        self.sum += observation.value();
        match self.points.last_mut() {
            Some(last) if last.count < self.each => *last = last.with(point),
            _ => self.points.push(point),
        }
        if self.points.len() > MAX_POINTS {
            self.points = self
                .points
                .chunks(2)
                .map(|two| two.iter().skip(1).fold(two[0], |one, other| one.with(*other)))
                .collect();
            self.each = self.each.max(1) * 2;
        }
    }
}

impl Point {
    fn with(self, other: Self) -> Self {
        let count = self.count + other.count;
        let (one, two) = (self.count as f64 / count as f64, other.count as f64 / count as f64);
        Self {
            time: other.time,
            value: one * self.value + two * other.value,
            variance: one * one * self.variance + two * two * other.variance,
            count,
        }
    }
}

impl Plot {
    /// Adds an observation.
    pub fn add(&mut self, name: &str, observation: &Observation) {
        let time = observation.time();
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(time);
        let has_room = self.series.len() < MAX_SERIES;
        if let Some(series) = self.series.get_mut(name) {
            series.add(observation);
        } else if has_room {
            self.series.entry(name.to_owned()).or_default().add(observation);
        }
    }

    /// The share of series that were not named in the period that ended at `time` is 0.
    pub fn end_of_shares(&mut self, time: u64, total: u64) {
        let Ok(none) = Observation::share(time, 0, total) else { return };
        for series in self.series.values_mut().filter(|series| series.is_share) {
            if series.points.last().is_some_and(|last| last.time < time) {
                series.add(&none);
            }
        }
    }

    /// Adds an event; true if it is of a share.
    pub fn mark(&mut self, event: &SeriesEvent) -> bool {
        let Some(series) = self.series.get_mut(&*event.series) else { return event.event.to.value.abs() <= 1.0 };
        if series.events.len() < MAX_EVENTS {
            series.events.push(event.clone());
        }
        series.is_share
    }

    /// The picture.
    pub fn svg(&self) -> String {
        let mut series: Vec<(&String, &Series)> = self.series.iter().collect();
        let rank = |series: &Series| (series.events.is_empty(), -series.sum.abs());
        series.sort_by(|(a, one), (b, other)| {
            rank(one).partial_cmp(&rank(other)).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b))
        });
        series.truncate(SHOWN);
        let height = 30.0 + PANEL * series.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <style>.line{{fill:none;stroke:#1f6fb4}}.band{{fill:#1f6fb4;opacity:.15}}.event{{fill:#d62728;opacity:.15}}\
             .told{{stroke:#d62728}}.level{{stroke:#d62728;stroke-dasharray:4 3}}.frame{{fill:none;stroke:#bbb}}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let (first, last) = (self.first.unwrap_or(0), self.last);
        for (row, (name, series)) in series.iter().enumerate() {
            panel(&mut svg, 20.0 + PANEL * row as f64, (first, last), name, series);
        }
        let more = self.series.len() - series.len();
        let more = if more > 0 { format!(" ({more} more series are not shown)") } else { String::new() };
        let span = format!("{} to {}{more}", rfc3339::format(first), rfc3339::format(last));
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#555\">{span}</text>\n</svg>", height - 8.0);
        svg
    }
}

/// One series, with its top at `top`.
fn panel(svg: &mut String, top: f64, (first, last): (u64, u64), name: &str, series: &Series) {
    let width = WIDTH - LEFT - 20.0;
    let span = last.saturating_sub(first).max(1) as f64;
    let x = |time: u64| LEFT + width * (time.saturating_sub(first) as f64 / span).min(1.0);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for point in &series.points {
        (low, high) = (low.min(point.value), high.max(point.value));
    }
    if series.is_share {
        low = 0.0;
    }
    // Differences of very large numbers have to stay finite.
    let range = if high - low > 0.0 { high - low } else { low.abs().max(1e-9) };
    let y = |value: f64| top + 18.0 + GRAPH * (1.0 - ((value - low) / range).clamp(-0.05, 1.05));
    let title = escape(name);
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>", top + 10.0);
    let _ = writeln!(
        svg,
        "<rect class=\"frame\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{width}\" height=\"{GRAPH}\"/>",
        top + 18.0
    );
    for value in [low, low + range] {
        let text = if series.is_share { format!("{:.2} %", value * 100.0) } else { number(value) };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{text}</text>",
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    let mut begun = None;
    for event in &series.events {
        match event.event.kind {
            Kind::Changed => begun = Some(event),
            Kind::Returned | Kind::Settled => {
                if let Some(begin) = begun.take() {
                    change(svg, top, (x(begin.event.since), x(event.event.time)), begin, series.is_share, &x, &y);
                }
            }
        }
    }
    if let Some(begin) = begun {
        change(svg, top, (x(begin.event.since), x(last)), begin, series.is_share, &x, &y);
    }
    let error = |point: &Point| 2.0 * point.variance.max(0.0).sqrt();
    if series.points.iter().any(|point| point.variance > 0.0) {
        let mut path = String::new();
        for point in &series.points {
            let _ = write!(path, "{:.1},{:.1} ", x(point.time), y(point.value + error(point)));
        }
        for point in series.points.iter().rev() {
            let _ = write!(path, "{:.1},{:.1} ", x(point.time), y(point.value - error(point)));
        }
        let _ = writeln!(svg, "<polygon class=\"band\" points=\"{}\"/>", path.trim_end());
    }
    let mut path = String::new();
    for point in &series.points {
        let _ = write!(path, "{:.1},{:.1} ", x(point.time), y(point.value));
    }
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", path.trim_end());
}

/// A change from its beginning to its end, with both levels.
fn change(
    svg: &mut String,
    top: f64,
    (begin, end): (f64, f64),
    event: &SeriesEvent,
    is_share: bool,
    x: &dyn Fn(u64) -> f64,
    y: &dyn Fn(f64) -> f64,
) {
    let (told, event) = (x(event.event.time), event.event);
    let (from, to) = (estimate(event.from, is_share), estimate(event.to, is_share));
    let title = escape(&format!("{}: {from} to {to}, told {}", event.detector, rfc3339::format(event.time)));
    let (upper, lower) = (top + 18.0, top + 18.0 + GRAPH);
    let width = (end - begin).max(0.5);
    let _ = writeln!(
        svg,
        "<g><title>{title}</title><rect class=\"event\" x=\"{begin:.1}\" y=\"{upper:.1}\" width=\"{width:.1}\" height=\"{GRAPH}\"/>\
         <line class=\"told\" x1=\"{told:.1}\" y1=\"{upper:.1}\" x2=\"{told:.1}\" y2=\"{lower:.1}\"/>\
         <line class=\"level\" x1=\"{:.1}\" y1=\"{1:.1}\" x2=\"{begin:.1}\" y2=\"{1:.1}\"/>\
         <line class=\"level\" x1=\"{begin:.1}\" y1=\"{2:.1}\" x2=\"{end:.1}\" y2=\"{2:.1}\"/></g>",
        (begin - 60.0).max(LEFT),
        y(event.from.value),
        y(event.to.value),
    );
}

/// Text for XML: what it has no place for, and what deceives, becomes a question mark.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars().take(160) {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            _ if crate::shown::is_deceptive(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('?'),
            _ => escaped.push(c),
        }
    }
    escaped
}
