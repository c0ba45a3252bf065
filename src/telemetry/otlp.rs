//! A snapshot as an OTLP metrics request. All sums and histograms are cumulative from the agent's start.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as PointValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram as OtlpHistogram, HistogramDataPoint, Metric as OtlpMetric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::metric::{Description, Histogram, Metric, Number, Snapshot, Value};

/// The request. `start` is when counters began, `time` when the snapshot was taken, both ns since the Unix epoch.
pub(super) fn request(
    snapshot: &Snapshot,
    resource: &[(String, String)],
    start: u64,
    time: u64,
) -> ExportMetricsServiceRequest {
    let times = Times { start, time };
    let metrics = snapshot.families().into_iter().map(|(of, values)| times.metric(of, &values)).collect();
    let scope = InstrumentationScope {
        name: "profiler".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

struct Times {
    start: u64,
    time: u64,
}

impl Times {
    fn metric(&self, of: Description, values: &[&Metric]) -> OtlpMetric {
        let cumulative = AggregationTemporality::Cumulative as i32;
        let sum = |is_monotonic| {
            let data_points = self.numbers(values, self.start);
            metric::Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic })
        };
        let data = values.first().map(|first| match first.value {
            Value::Counter(_) => sum(true),
            Value::UpDown(_) => sum(false),
            // A state has no start.
            Value::Gauge(_) => metric::Data::Gauge(Gauge { data_points: self.numbers(values, 0) }),
            Value::Histogram(_) => metric::Data::Histogram(OtlpHistogram {
                data_points: values.iter().filter_map(|value| self.distribution(value)).collect(),
                aggregation_temporality: cumulative,
            }),
        });
        OtlpMetric {
            name: of.name.to_owned(),
            description: of.help.to_owned(),
            unit: of.unit.to_owned(),
            data,
            ..OtlpMetric::default()
        }
    }

    fn numbers(&self, values: &[&Metric], start: u64) -> Vec<NumberDataPoint> {
        let point = |value: &&Metric| {
            let (Value::Counter(number) | Value::UpDown(number) | Value::Gauge(number)) = value.value else {
                return None;
            };
            Some(NumberDataPoint {
                attributes: attributes(value),
                start_time_unix_nano: start,
                time_unix_nano: self.time,
                value: Some(match number {
                    Number::Int(value) => PointValue::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
                    Number::Float(value) => PointValue::AsDouble(value),
                }),
                ..NumberDataPoint::default()
            })
        };
        values.iter().filter_map(point).collect()
    }

    fn distribution(&self, value: &Metric) -> Option<HistogramDataPoint> {
        let Value::Histogram(histogram) = &value.value else { return None };
        Some(HistogramDataPoint {
            attributes: attributes(value),
            start_time_unix_nano: self.start,
            time_unix_nano: self.time,
            count: histogram.count(),
            sum: Some(histogram.sum()),
            bucket_counts: histogram.counts().to_vec(),
            explicit_bounds: Histogram::bounds(histogram).to_vec(),
            ..HistogramDataPoint::default()
        })
    }
}

fn attributes(metric: &Metric) -> Vec<KeyValue> {
    metric.attributes.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}
