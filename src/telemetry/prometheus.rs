//! The page that Prometheus reads: text format 0.0.4, or OpenMetrics 1.0 where the reader asks for it.
//!
//! Names follow OpenTelemetry's mapping ("Prometheus and OpenMetrics Compatibility"): `profiler.samples.lost` becomes
//! `profiler_samples_lost_total`, a unit becomes a word at the end, braces are dropped.

use std::fmt::Write;

use super::metric::{Description, Histogram, Metric, Number, Snapshot, Value};

/// Which of the two text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that the `Accept` header of a request prefers.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        // A weight is of [0, 1]; what says nothing weighs 1, what is no number cannot be preferred.
        let weight = |parameters: &[&str]| {
            let weight = parameters.iter().find_map(|parameter| parameter.strip_prefix("q="));
            weight.map_or(1.0, |weight| weight.parse::<f32>().unwrap_or(0.0))
        };
        let (mut open, mut text) = (0.0f32, 0.0f32);
        for range in accept.split(',').take(32) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<&str> = parts.collect();
            let version = parameters.iter().find_map(|parameter| parameter.strip_prefix("version="));
            match kind.as_str() {
                "application/openmetrics-text" if version.is_none_or(|version| version == "1.0.0") => {
                    open = open.max(weight(&parameters));
                }
                "text/plain" | "text/*" | "*/*" => text = text.max(weight(&parameters)),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The page of a snapshot; `resource` describes the agent as `target_info`.
#[must_use]
pub fn page(snapshot: &Snapshot, resource: &[(String, String)], format: Format) -> String {
    let mut page = Page { text: String::with_capacity(16 << 10), format };
    if !resource.is_empty() {
        page.target_info(resource);
    }
    for (description, values) in snapshot.families() {
        page.family(description, &values);
    }
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn target_info(&mut self, resource: &[(String, String)]) {
        match self.format {
            Format::Text => self.head("target_info", "gauge", "", "The agent"),
            Format::OpenMetrics => self.head("target", "info", "", "The agent"),
        }
        let mut labels = Labels::default();
        for (key, value) in resource {
            labels.add(key, value);
        }
        self.line("target_info", &labels, Number::Int(1));
    }

    fn family(&mut self, description: Description, values: &[&Metric]) {
        let Some(first) = values.first() else { return };
        let unit = unit_word(description.unit, matches!(first.value, Value::Gauge(_)));
        let mut name = sanitize(description.name);
        if !unit.is_empty() && !name.ends_with(&format!("_{unit}")) {
            let _ = write!(name, "_{unit}");
        }
        let is_counter = matches!(first.value, Value::Counter(_));
        let kind = match first.value {
            Value::Counter(_) => "counter",
            Value::UpDown(_) | Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
        };
        let sample = if is_counter { format!("{name}_total") } else { name.clone() };
        // The text format describes a counter by its sample's name, OpenMetrics by its family's.
        let head = if self.format == Format::Text { &sample } else { &name };
        self.head(head, kind, unit, description.help);
        for metric in values {
            let mut labels = Labels::default();
            for (key, value) in &metric.attributes {
                labels.add(key, value);
            }
            match &metric.value {
                Value::Counter(number) | Value::UpDown(number) | Value::Gauge(number) => {
                    self.line(&sample, &labels, *number);
                }
                Value::Histogram(histogram) => self.histogram(&name, &labels, histogram),
            }
        }
    }

    fn head(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let help = escape(help, self.format == Format::OpenMetrics);
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
    }

    fn histogram(&mut self, name: &str, labels: &Labels, histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let bounds = histogram.bounds().iter().copied().chain([f64::INFINITY]);
        for (bound, count) in bounds.zip(histogram.counts()) {
            below += count;
            let mut labels = labels.clone();
            labels.add("le", &float(bound));
            self.line(&bucket, &labels, Number::Int(below));
        }
        self.line(&format!("{name}_sum"), labels, Number::Float(histogram.sum()));
        self.line(&format!("{name}_count"), labels, Number::Int(below));
    }

    fn line(&mut self, name: &str, labels: &Labels, value: Number) {
        self.text.push_str(name);
        if !labels.text.is_empty() {
            let _ = write!(self.text, "{{{}}}", labels.text);
        }
        let value = match value {
            Number::Int(value) => value.to_string(),
            Number::Float(value) => float(value),
        };
        let _ = writeln!(self.text, " {value}");
    }
}

/// `key="value",...`
#[derive(Clone, Default)]
struct Labels {
    text: String,
    keys: Vec<String>,
}

impl Labels {
    /// Adds a label, unless there is one of that name: `a.b` and `a_b` are one name here.
    fn add(&mut self, key: &str, value: &str) {
        let key = sanitize(key);
        if key.is_empty() || self.keys.contains(&key) {
            return;
        }
        let comma = if self.keys.is_empty() { "" } else { "," };
        let _ = write!(self.text, "{comma}{key}=\"{}\"", escape(value, true));
        self.keys.push(key);
    }
}

/// What a UCUM unit is called at the end of a name; what is counted has no name there.
fn unit_word(unit: &'static str, gauge: bool) -> &'static str {
    match unit {
        "By" => "bytes",
        "s" => "seconds",
        "Hz" => "hertz",
        "1" if gauge => "ratio",
        _ => "",
    }
}

/// A name of letters, digits and single underscores that does not begin with a digit.
fn sanitize(name: &str) -> String {
    let mut clean = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if clean.is_empty() && c.is_ascii_digit() {
            clean.push('_');
        }
        if c != '_' || !clean.ends_with('_') {
            clean.push(c);
        }
    }
    clean
}

/// Both formats escape `\` and line feeds everywhere, and quotes where they end the text.
fn escape(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            c => escaped.push(c),
        }
    }
    escaped
}

fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        // `1.0`, not `1`: OpenMetrics' canonical form, and `le` must be spelled the same in every scrape.
        format!("{value:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let lost = Description { name: "profiler.samples.lost", unit: "{sample}", help: "Samples lost" };
        snapshot.counter(lost, &[("reason", "a \"quoted\" \\ back\nslash")], 3);
        let time = Description { name: "profiler.cpu.time", unit: "s", help: "CPU \\ time" };
        snapshot.counter(time, &[("cpu.mode", "user")], 1.5);
        let host = Description { name: "host.cpu", unit: "1", help: "Busy" };
        snapshot.gauge(host, &[], 0.25);
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        histogram.record(0.05);
        histogram.record(5.0);
        let duration = Description { name: "profiler.export.duration", unit: "s", help: "Time" };
        snapshot.histogram(duration, &[("exporter", "main")], histogram);
        snapshot
    }

    #[test]
    fn the_text_format() {
        let resource = [("service.name".to_owned(), "profiler".to_owned())];
        let expected = r#"# HELP target_info The agent
# TYPE target_info gauge
target_info{service_name="profiler"} 1
# HELP profiler_samples_lost_total Samples lost
# TYPE profiler_samples_lost_total counter
profiler_samples_lost_total{reason="a \"quoted\" \\ back\nslash"} 3
# HELP profiler_cpu_time_seconds_total CPU \\ time
# TYPE profiler_cpu_time_seconds_total counter
profiler_cpu_time_seconds_total{cpu_mode="user"} 1.5
# HELP host_cpu_ratio Busy
# TYPE host_cpu_ratio gauge
host_cpu_ratio 0.25
# HELP profiler_export_duration_seconds Time
# TYPE profiler_export_duration_seconds histogram
profiler_export_duration_seconds_bucket{exporter="main",le="0.1"} 1
profiler_export_duration_seconds_bucket{exporter="main",le="1.0"} 1
profiler_export_duration_seconds_bucket{exporter="main",le="+Inf"} 2
profiler_export_duration_seconds_sum{exporter="main"} 5.05
profiler_export_duration_seconds_count{exporter="main"} 2
"#;
        assert_eq!(page(&snapshot(), &resource, Format::Text), expected);
    }

    #[test]
    fn open_metrics_names_families_and_ends() {
        let page = page(&snapshot(), &[], Format::OpenMetrics);
        assert!(page.contains("# TYPE profiler_cpu_time_seconds counter\n# UNIT profiler_cpu_time_seconds seconds\n"));
        assert!(page.contains("\nprofiler_cpu_time_seconds_total{cpu_mode=\"user\"} 1.5\n"));
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn accept_headers() {
        assert_eq!(Format::negotiate(""), Format::Text);
        assert_eq!(Format::negotiate("*/*"), Format::Text);
        // Prometheus 2 and 3.
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::negotiate(prometheus), Format::OpenMetrics);
        assert_eq!(Format::negotiate("application/openmetrics-text; version=0.0.1"), Format::Text);
        assert_eq!(Format::negotiate("text/plain, application/openmetrics-text;q=0.5"), Format::Text);
        assert_eq!(Format::negotiate("application/openmetrics-text;q=nonsense"), Format::Text);
    }

    #[test]
    fn names_are_clean() {
        assert_eq!(sanitize("a.b-c..d"), "a_b_c_d");
        assert_eq!(sanitize("9lives"), "_9lives");
    }

    #[test]
    fn a_label_is_there_once() {
        let resource = [("a.b".to_owned(), "1".to_owned()), ("a_b".to_owned(), "2".to_owned())];
        let page = page(&Snapshot::default(), &resource, Format::Text);
        assert!(page.ends_with("target_info{a_b=\"1\"} 1\n"), "{page}");
    }
}
