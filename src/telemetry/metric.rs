//! Metrics in memory: what the agent publishes once a second, and every exporter of metrics reads.

/// A number as it was counted or measured; counters of things are exact, those of seconds are not whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count, or bytes.
    Int(u64),
    /// Seconds, a share, Hz.
    Float(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// The value of a metric, by what may be done with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Grows from the agent's start on; what counts is its rate.
    Counter(Number),
    /// How much there is now; may be added over hosts.
    UpDown(Number),
    /// How it is now; adding it over hosts has no meaning.
    Gauge(Number),
    /// How measurements since the agent's start were distributed.
    Histogram(Histogram),
}

/// A cumulative distribution in fixed buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds; the last is of what is above all of them.
    counts: Vec<u64>,
    sum: f64,
}

/// Bounds for times of requests, s: from a local receiver to the longest timeout that is of use.
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl Histogram {
    /// An empty one. `bounds` are inclusive upper bounds in rising order.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// One that was counted elsewhere; none unless there is one count more than bounds and the bounds rise.
    #[must_use]
    pub fn from_parts(bounds: &'static [f64], counts: Vec<u64>, sum: f64) -> Option<Self> {
        let rising = bounds.iter().zip(bounds.iter().skip(1)).all(|(low, high)| low < high);
        (rising && counts.len() == bounds.len() + 1).then_some(Self { bounds, counts, sum })
    }

    /// Counts one measurement; what is no number is left out.
    pub fn record(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
    }

    /// Inclusive upper bounds.
    #[must_use]
    pub const fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Measurements in each bucket, one more than bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// All measurements.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in the unit of the metric.
    #[must_use]
    pub const fn sum(&self) -> f64 {
        self.sum
    }
}

/// What names and explains a metric; the same for all its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// OpenTelemetry name, such as `profiler.samples.lost`.
    pub name: &'static str,
    /// UCUM unit: `By`, `s`, `Hz`, `1`, or what is counted, in braces: `{sample}`.
    pub unit: &'static str,
    /// One sentence for people, without a full stop.
    pub help: &'static str,
}

/// One value of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name, unit, help.
    pub description: Description,
    /// What tells this value from the metric's others.
    pub attributes: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// All metrics at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot(pub Vec<Metric>);

impl Snapshot {
    /// Adds a value that only grows.
    pub fn counter(&mut self, of: Description, attributes: &[(&'static str, &str)], value: impl Into<Number>) {
        self.add(of, attributes, Value::Counter(value.into()));
    }

    /// Adds an amount that comes and goes.
    pub fn up_down(&mut self, of: Description, attributes: &[(&'static str, &str)], value: impl Into<Number>) {
        self.add(of, attributes, Value::UpDown(value.into()));
    }

    /// Adds a state.
    pub fn gauge(&mut self, of: Description, attributes: &[(&'static str, &str)], value: impl Into<Number>) {
        self.add(of, attributes, Value::Gauge(value.into()));
    }

    /// Adds a distribution.
    pub fn histogram(&mut self, of: Description, attributes: &[(&'static str, &str)], value: Histogram) {
        self.add(of, attributes, Value::Histogram(value));
    }

    fn add(&mut self, description: Description, attributes: &[(&'static str, &str)], value: Value) {
        let attributes = attributes.iter().map(|&(key, value)| (key, value.to_owned())).collect();
        self.0.push(Metric { description, attributes, value });
    }

    /// The metrics by name, each with its values, in the order in which they were added. A value whose name and attributes
    /// were there already is left out: no receiver takes a series twice.
    pub(crate) fn families(&self) -> Vec<(Description, Vec<&Metric>)> {
        let mut families: Vec<(Description, Vec<&Metric>)> = Vec::new();
        for metric in &self.0 {
            match families.iter_mut().find(|(description, _)| description.name == metric.description.name) {
                Some((_, values)) => {
                    let known = values.iter().any(|other| other.attributes == metric.attributes);
                    // Of one kind too: the first value decides it.
                    let same_kind = values.first().is_some_and(|first| {
                        std::mem::discriminant(&first.value) == std::mem::discriminant(&metric.value)
                    });
                    if !known && same_kind {
                        values.push(metric);
                    }
                }
                None => families.push((metric.description, vec![metric])),
            }
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Description = Description { name: "lost", unit: "{sample}", help: "Lost" };

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 2.5, f64::INFINITY, f64::NAN] {
            histogram.record(value);
        }
        assert_eq!(histogram.counts(), [2, 2, 2]);
        assert_eq!(histogram.count(), 6);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        assert!(Histogram::from_parts(&[1.0, 2.0], vec![0, 0, 0], 0.0).is_some());
        assert!(Histogram::from_parts(&[1.0, 2.0], vec![0, 0], 0.0).is_none());
        assert!(Histogram::from_parts(&[2.0, 1.0], vec![0, 0, 0], 0.0).is_none());
    }

    #[test]
    fn a_series_is_there_once() {
        let mut snapshot = Snapshot::default();
        snapshot.counter(LOST, &[("reason", "a")], 1);
        snapshot.counter(LOST, &[("reason", "b")], 2);
        snapshot.counter(LOST, &[("reason", "a")], 3);
        let families = snapshot.families();
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].1.len(), 2);
        assert_eq!(families[0].1[0].value, Value::Counter(Number::Int(1)));
    }
}
