//! The variables that OpenTelemetry defines, as keys of this configuration.
//!
//! `PROFILER_*` are not here: the reader looks them up by the path of the key.
//!
//! Sources: OpenTelemetry specification, `protocol/exporter.md` (OTEL_EXPORTER_OTLP_*), `configuration/sdk-environment-
//! variables.md` and `resource/sdk.md` (OTEL_RESOURCE_ATTRIBUTES: W3C Baggage syntax, percent-encoded).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::errors::Problem;
use super::layers::Overlay;
use super::origin::Origin;

/// The exporter that flags and variables mean; see [`super::exporters::target`].
pub(super) const EXPORTER: &str = "@otlp";
/// The exporter of the agent's own metrics.
const METRICS: &str = "telemetry.otlp";
/// The most members of a variable.
const MAX_PAIRS: usize = 128;

/// Attributes with these prefixes in the agent's own OTEL_RESOURCE_ATTRIBUTES describe the agent, not what it samples.
const OWN: [&str; 13] = [
    "service.",
    "process.",
    "telemetry.",
    "container.",
    "k8s.pod.",
    "k8s.container.",
    "k8s.cronjob.",
    "k8s.daemonset.",
    "k8s.deployment.",
    "k8s.job.",
    "k8s.namespace.",
    "k8s.replicaset.",
    "k8s.statefulset.",
];

/// Text of a variable as text of the key.
type Translate = fn(&str) -> String;

const SAME: Translate = str::to_owned;
/// The specification's times are milliseconds.
const MILLIS: Translate =
    |text| if text.chars().all(|c| c.is_ascii_digit()) { format!("{text}ms") } else { text.to_owned() };

/// Variables of an OTLP exporter, without prefix, and the keys they set.
const OTLP: [(&str, &str, Translate); 7] = [
    ("PROTOCOL", "protocol", SAME),
    ("COMPRESSION", "compression", SAME),
    ("TIMEOUT", "timeout", MILLIS),
    ("INSECURE", "tls.insecure", SAME),
    ("CERTIFICATE", "tls.ca_file", SAME),
    ("CLIENT_CERTIFICATE", "tls.cert_file", SAME),
    ("CLIENT_KEY", "tls.key_file", SAME),
];

/// What OTEL_* set, by path. Problems with a variable name it.
pub(super) fn otel(env: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) -> Overlay {
    let set = |name: &str| env(name).filter(|text| !text.is_empty());
    let mut overlay = Overlay::default();
    // A variable for the signal wins over the general one.
    let either = |signal: &str, name: &str| {
        let names = [format!("OTEL_EXPORTER_OTLP_{signal}_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find_map(|name| set(&name).map(|text| (text, Origin::Environment(name))))
    };
    let metrics_endpoint = set("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
    // A receiver of profiles need not be one of metrics: the general endpoint alone does not switch them on.
    let metrics_on = metrics_endpoint.is_some() || set("OTEL_METRICS_EXPORTER").as_deref() == Some("otlp");
    let signals =
        [("PROFILES", EXPORTER, "profiles_endpoint", true), ("METRICS", METRICS, "metrics_endpoint", metrics_on)];
    for (signal, path, signal_endpoint, on) in signals {
        if !on {
            continue;
        }
        let mut text = |key: &str, text: String, origin| overlay.texts.insert(format!("{path}.{key}"), (text, origin));
        for (name, key, translate) in OTLP {
            if let Some((value, origin)) = either(signal, name) {
                text(key, translate(&value), origin);
            }
        }
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        if let Some(value) = set(name) {
            text("endpoint", value, Origin::Environment(name.to_owned()));
        }
        let name = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        if let Some(value) = set(&name) {
            text(signal_endpoint, value, Origin::Environment(name));
        }
        if let Some((value, origin)) = either(signal, "HEADERS") {
            pairs(&mut overlay, format!("{path}.headers"), &value, &origin, problems);
        }
    }
    if metrics_on && let Some(value) = set("OTEL_METRIC_EXPORT_INTERVAL") {
        let origin = Origin::Environment("OTEL_METRIC_EXPORT_INTERVAL".to_owned());
        overlay.texts.insert(format!("{METRICS}.interval"), (MILLIS(&value), origin));
    }
    let mut single = |name: &str, path: &str| {
        if let Some(value) = set(name) {
            overlay.texts.insert(path.to_owned(), (value, Origin::Environment(name.to_owned())));
        }
    };
    single("OTEL_SERVICE_NAME", "telemetry.service_name");
    single("NODE_NAME", "resource.kubernetes.node_name");
    single("K8S_NODE_NAME", "resource.kubernetes.node_name");
    resource_attributes(&mut overlay, &set, problems);
    overlay
}

fn resource_attributes(overlay: &mut Overlay, set: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let Some(value) = set(NAME) else { return };
    let origin = Origin::Environment(NAME.to_owned());
    let all = match parse_pairs(&value) {
        Ok(all) => all,
        Err(message) => return problems.push(Problem { origin, key: String::new(), message }),
    };
    for (key, value) in all {
        let own = OWN.iter().any(|prefix| key.starts_with(prefix));
        if key == "service.name" {
            // OTEL_SERVICE_NAME wins over it.
            overlay.texts.entry("telemetry.service_name".to_owned()).or_insert((value, origin.clone()));
            continue;
        }
        let path = if own { "telemetry.attributes" } else { "resource.attributes" };
        overlay.pairs.entry(path.to_owned()).or_default().push((key, value, origin.clone()));
    }
}

fn pairs(overlay: &mut Overlay, path: String, text: &str, origin: &Origin, problems: &mut Vec<Problem>) {
    match parse_pairs(text) {
        Ok(found) => {
            let found = found.into_iter().map(|(name, value)| (name, value, origin.clone()));
            overlay.pairs.entry(path).or_default().extend(found);
        }
        Err(message) => problems.push(Problem { origin: origin.clone(), key: String::new(), message }),
    }
}

/// `name=value,name2=value2`, values percent-encoded.
///
/// # Errors
///
/// Says which member is wrong, by its number: its text may be secret.
pub(super) fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (index, member) in text.split(',').enumerate() {
        let member = member.trim();
        if member.is_empty() {
            continue;
        }
        let number = index + 1;
        let Some((name, value)) = member.split_once('=') else {
            return Err(format!("member {number} has no `=`: write name=value,name2=value2"));
        };
        let name = decode(name.trim());
        let value = decode(value.trim());
        let (Some(name), Some(value)) = (name, value) else {
            return Err(format!("member {number} is not percent-encoded UTF-8: write % as %25 and , as %2C"));
        };
        if name.is_empty() {
            return Err(format!("member {number} has no name before the `=`"));
        }
        pairs.push((name, value));
        if pairs.len() > MAX_PAIRS {
            return Err(format!("has more than {MAX_PAIRS} members"));
        }
    }
    Ok(pairs)
}

/// `%20` is a space; a `%` that begins no such pair stands for itself, as URL decoders have it.
fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(variables: &[(&str, &str)]) -> (Overlay, Vec<Problem>) {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut problems = Vec::new();
        let find = |name: &str| variables.iter().find(|(there, _)| there == name).map(|(_, value)| value.clone());
        (otel(&find, &mut problems), problems)
    }

    fn text<'a>(overlay: &'a Overlay, path: &str) -> Option<&'a str> {
        overlay.texts.get(path).map(|(text, _)| text.as_str())
    }

    #[test]
    fn pairs_are_decoded() {
        let pairs = parse_pairs("a=1, b = x%20y%2Cz ,c=d=e,,t=Bearer%20%ZZ").expect("right");
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", "x y,z"), ("c", "d=e"), ("t", "Bearer %ZZ")]);
        assert!(parse_pairs("a=1,geheim").is_err_and(|error| error.contains('2') && !error.contains("geheim")));
        assert!(parse_pairs("a=%FF").is_err());
        assert!(parse_pairs(&"a=b,".repeat(1000)).is_err());
    }

    #[test]
    fn a_variable_of_the_signal_wins() {
        let (overlay, problems) = overlay(&[
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_EXPORTER_OTLP_PROFILES_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_PROFILES_PROTOCOL", ""),
        ]);
        assert!(problems.is_empty());
        assert_eq!(text(&overlay, "@otlp.timeout"), Some("2000ms"));
        assert_eq!(text(&overlay, "@otlp.protocol"), Some("http/protobuf"));
    }

    #[test]
    fn the_general_endpoint_does_not_switch_metrics_on() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        assert!(!overlay(&[general]).0.reaches("telemetry.otlp"));
        let (on, _) = overlay(&[general, ("OTEL_METRICS_EXPORTER", "otlp")]);
        assert_eq!(text(&on, "telemetry.otlp.endpoint"), Some("http://collector:4317"));
        let (on, _) = overlay(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:4318/v1/metrics")]);
        assert_eq!(text(&on, "telemetry.otlp.metrics_endpoint"), Some("http://m:4318/v1/metrics"));
    }

    #[test]
    fn what_describes_the_agent_stays_with_the_agent() {
        let (overlay, _) = overlay(&[(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=profiler,service.version=1,cloud.region=eu,k8s.pod.name=p,k8s.cluster.name=c",
        )]);
        assert_eq!(text(&overlay, "telemetry.service_name"), Some("profiler"));
        let names = |path: &str| -> Vec<&str> { overlay.pairs[path].iter().map(|(name, ..)| name.as_str()).collect() };
        assert_eq!(names("telemetry.attributes"), ["service.version", "k8s.pod.name"]);
        assert_eq!(names("resource.attributes"), ["cloud.region", "k8s.cluster.name"]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c=,% 0-9A-Fé]{0,60}") {
            let _ = parse_pairs(&text);
        }
    }
}
