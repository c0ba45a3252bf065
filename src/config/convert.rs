//! The configuration as the options of the parts that it is for.

use profiler_otlp::export::{
    Compression as ExportCompression, ExporterOptions, Protocol as ExportProtocol, RetryOptions, SpoolOptions,
    TlsOptions,
};
use profiler_otlp::resource::{KubernetesOptions, KubernetesSource as PodSource, ResourceOptions};

use super::model::{
    Compression, Config, Connection, Exporter, ExporterKind, Kubernetes, KubernetesSource, Limits, LogFormat, Protocol,
    TargetRule, Targets, Telemetry, TelemetryOtlp,
};
use crate::telemetry::{self, PushOptions, TelemetryOptions};
use crate::{limits, pipeline};

impl From<&Targets> for pipeline::TargetRules {
    fn from(targets: &Targets) -> Self {
        let rules = |rules: &[TargetRule]| rules.iter().map(pipeline::Rule::from).collect();
        Self { include: rules(&targets.include), exclude: rules(&targets.exclude), min_age: targets.min_age }
    }
}

impl From<&TargetRule> for pipeline::Rule {
    fn from(rule: &TargetRule) -> Self {
        let TargetRule { pids, cgroups, cgroup_ids, containers, comms, executables } = rule.clone();
        Self { pids, cgroups, cgroup_ids, containers, comms, executables }
    }
}

impl From<&Config> for ResourceOptions {
    fn from(config: &Config) -> Self {
        Self {
            environment_variables: config.resource.environment_variables.clone(),
            // The agent's own OTEL_RESOURCE_ATTRIBUTES are among them already.
            attributes: config.resource.attributes.clone(),
            labels: config.labels.clone(),
            kubernetes: (&config.resource.kubernetes).into(),
            ..Self::default()
        }
    }
}

impl From<&Kubernetes> for KubernetesOptions {
    fn from(kubernetes: &Kubernetes) -> Self {
        let default = Self::default();
        Self {
            source: match kubernetes.source {
                KubernetesSource::Off => PodSource::Off,
                KubernetesSource::Auto => PodSource::Auto,
                KubernetesSource::Kubelet => PodSource::Kubelet,
                KubernetesSource::Api => PodSource::Api,
            },
            kubelet_url: kubernetes.kubelet_url.as_ref().map(|url| url.url().to_owned()),
            kubelet_insecure: kubernetes.insecure_skip_verify,
            api_url: kubernetes.api_url.as_ref().map(|url| url.url().to_owned()),
            node_name: kubernetes.node_name.clone(),
            ca_file: kubernetes.ca_file.clone().unwrap_or(default.ca_file),
            token_file: kubernetes.token_file.clone().unwrap_or(default.token_file),
            pod_labels: kubernetes.labels.clone(),
            poll_interval: kubernetes.poll_interval,
            min_poll_interval: kubernetes.min_poll_interval,
        }
    }
}

impl From<&Connection> for ExporterOptions {
    fn from(connection: &Connection) -> Self {
        let headers = connection.headers.iter();
        Self {
            endpoint: connection.endpoint.url().to_owned(),
            endpoint_is_complete: connection.endpoint.is_as_is(),
            protocol: match connection.protocol {
                Protocol::Grpc => ExportProtocol::Grpc,
                Protocol::HttpProtobuf => ExportProtocol::HttpProtobuf,
            },
            compression: match connection.compression {
                Compression::None => ExportCompression::None,
                Compression::Gzip => ExportCompression::Gzip,
                Compression::Zstd => ExportCompression::Zstd,
            },
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            headers_file: connection.headers_file.clone(),
            timeout: connection.timeout,
            tls: TlsOptions {
                ca_file: connection.tls.ca_file.clone(),
                cert_file: connection.tls.cert_file.clone(),
                key_file: connection.tls.key_file.clone(),
                server_name: connection.tls.server_name.clone(),
                insecure_skip_verify: connection.tls.insecure_skip_verify,
            },
            ..Self::default()
        }
    }
}

/// Of an exporter that speaks OTLP; the options of another one would be the defaults.
impl From<&Exporter> for ExporterOptions {
    fn from(exporter: &Exporter) -> Self {
        let ExporterKind::Otlp(otlp) = &exporter.kind else {
            return Self { name: exporter.name.clone(), ..Self::default() };
        };
        let spool = otlp.spool.as_ref();
        Self {
            name: exporter.name.clone(),
            retry: RetryOptions {
                initial_interval: otlp.retry.initial_interval,
                max_interval: otlp.retry.max_interval,
                max_elapsed: otlp.retry.max_elapsed_time,
                ..RetryOptions::default()
            },
            queue_bytes: otlp.queue_size,
            max_request_bytes: usize::try_from(otlp.max_request_size).unwrap_or(usize::MAX),
            spool: spool.map(|spool| SpoolOptions { directory: spool.directory.clone(), max_bytes: spool.max_size }),
            ..Self::from(&otlp.connection)
        }
    }
}

impl From<&TelemetryOtlp> for PushOptions {
    fn from(otlp: &TelemetryOtlp) -> Self {
        let name = Self::default().receiver.name;
        Self { receiver: ExporterOptions { name, ..(&otlp.connection).into() }, interval: otlp.interval }
    }
}

impl From<&Telemetry> for TelemetryOptions {
    fn from(telemetry: &Telemetry) -> Self {
        // A name that was set goes before the attribute of that name.
        let mut own = vec![("service.name".to_owned(), telemetry.service_name.clone())];
        own.extend(telemetry.attributes.clone());
        Self {
            listen: telemetry.listen,
            otlp: telemetry.otlp.as_ref().map(PushOptions::from),
            resource: telemetry::resource(&own),
            ..Self::default()
        }
    }
}

impl From<LogFormat> for telemetry::log::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

impl From<&Limits> for limits::Limits {
    fn from(limits: &Limits) -> Self {
        Self { memory_bytes: limits.memory, cpu_fraction: limits.cpu.map(super::Percent::fraction) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;
    use crate::config::{Flags, load_text};

    fn config(text: &str) -> Config {
        let loaded = load_text(&Flags::default(), &|_| None, Some((Path::new("c.yaml"), text)));
        loaded.unwrap_or_else(|errors| panic!("{errors}")).config
    }

    /// Every option has another value than its default, as every key has.
    #[test]
    fn every_key_reaches_what_it_is_for() {
        let config = config(include_str!("tests/everything.yaml"));
        let tls = TlsOptions {
            ca_file: Some("/tls/ca.pem".into()),
            cert_file: Some("/tls/cert.pem".into()),
            key_file: Some("/tls/key.pem".into()),
            server_name: Some("collector".to_owned()),
            insecure_skip_verify: true,
        };
        let metrics = ExporterOptions {
            name: "metrics".to_owned(),
            endpoint: "http://metrics:4318/m".to_owned(),
            endpoint_is_complete: true,
            protocol: ExportProtocol::HttpProtobuf,
            compression: ExportCompression::None,
            headers: vec![("x-tenant".to_owned(), profiler_otlp::export::Secret::new("43"))],
            headers_file: Some("/run/metrics-headers".into()),
            timeout: Duration::from_secs(4),
            tls: tls.clone(),
            ..ExporterOptions::default()
        };
        let profiles = ExporterOptions {
            name: "backend".to_owned(),
            endpoint: "https://otlp.example.com/p".to_owned(),
            compression: ExportCompression::Zstd,
            headers: vec![("x-tenant".to_owned(), profiler_otlp::export::Secret::new("42"))],
            headers_file: Some("/run/headers".into()),
            timeout: Duration::from_secs(3),
            retry: RetryOptions {
                initial_interval: Duration::from_secs(1),
                max_interval: Duration::from_secs(10),
                max_elapsed: Duration::ZERO,
                ..RetryOptions::default()
            },
            queue_bytes: 8 << 20,
            max_request_bytes: 1 << 20,
            spool: Some(SpoolOptions { directory: "/var/lib/profiler/spool".into(), max_bytes: 1 << 30 }),
            ..metrics.clone()
        };
        assert_eq!(ExporterOptions::from(&config.exporters[0]), profiles);

        let telemetry = TelemetryOptions::from(&config.telemetry);
        let push = telemetry.otlp.expect("it is on");
        assert_eq!((push.receiver, push.interval), (metrics, Duration::from_secs(15)));
        let says = |name: &str, value: &str| telemetry.resource.contains(&(name.to_owned(), value.to_owned()));
        assert!(says("service.name", "my-profiler") && says("service.version", "7"), "{:?}", telemetry.resource);
        assert_eq!(telemetry.listen, Some(([0, 0, 0, 0], 9000).into()));

        let targets = pipeline::TargetRules::from(&config.targets);
        let rule = pipeline::Rule {
            pids: vec![1, 2],
            cgroups: vec!["/system.slice/*".to_owned()],
            cgroup_ids: vec![4242],
            containers: vec!["0123456789ab".to_owned()],
            comms: vec!["nginx".to_owned()],
            executables: vec!["/usr/bin/*".to_owned()],
        };
        let not = pipeline::Rule { comms: vec!["sshd".to_owned()], ..pipeline::Rule::default() };
        let expected =
            pipeline::TargetRules { include: vec![rule], exclude: vec![not], min_age: Duration::from_secs(5) };
        assert_eq!(targets, expected);

        let resource = ResourceOptions::from(&config);
        assert_eq!(resource.environment_variables, ["OTEL_SERVICE_NAME", "DD_SERVICE"]);
        assert_eq!(
            (resource.labels["version"].as_str(), resource.attributes["cloud.region"].as_str()),
            ("1.10", "eu-west-1")
        );
        let kubernetes = KubernetesOptions {
            source: PodSource::Kubelet,
            kubelet_url: Some("https://10.0.0.1:10250".to_owned()),
            kubelet_insecure: true,
            api_url: Some("https://kubernetes.default.svc".to_owned()),
            node_name: Some("node-1".to_owned()),
            ca_file: PathBuf::from("/k8s/ca.crt"),
            token_file: PathBuf::from("/k8s/token"),
            pod_labels: vec!["app".to_owned()],
            poll_interval: Duration::from_secs(30),
            min_poll_interval: Duration::from_secs(2),
        };
        assert_eq!(resource.kubernetes, kubernetes);

        let limits = limits::Limits::from(&config.limits);
        assert_eq!(limits, limits::Limits { memory_bytes: None, cpu_fraction: Some(0.005) });
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let config = config("");
        assert_eq!(ExporterOptions::from(&config.exporters[0]), ExporterOptions::default());
        assert_eq!(ResourceOptions::from(&config), ResourceOptions::default());
        assert_eq!(pipeline::TargetRules::from(&config.targets), pipeline::TargetRules::default());
        let push = PushOptions::default();
        let config = self::config("telemetry: {otlp: {endpoint: 'http://localhost:4317'}}");
        let telemetry = TelemetryOptions::from(&config.telemetry).otlp.expect("it is on");
        assert_eq!((telemetry.receiver, telemetry.interval), (push.receiver, push.interval));
    }
}
