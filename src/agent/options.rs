//! The configuration as the options of the parts that it is for.

use profiler_config::{Config, Connection, Exporter, ExporterKind, Kubernetes, KubernetesSource, LogFormat};
use profiler_export::{ExporterOptions, RetryOptions, SpoolOptions};
use profiler_resource::{KubernetesOptions, KubernetesSource as PodSource, ResourceOptions};

use crate::telemetry::{self, PushOptions, TelemetryOptions};

/// What the Resource of a process says.
pub fn resource(config: &Config) -> ResourceOptions {
    ResourceOptions {
        environment_variables: config.resource.environment_variables.clone(),
        // The agent's own OTEL_RESOURCE_ATTRIBUTES are among them already.
        attributes: config.resource.attributes.clone(),
        labels: config.labels.clone(),
        kubernetes: kubernetes(&config.resource.kubernetes),
        ..ResourceOptions::default()
    }
}

fn kubernetes(kubernetes: &Kubernetes) -> KubernetesOptions {
    let default = KubernetesOptions::default();
    KubernetesOptions {
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

fn connection(connection: &Connection) -> ExporterOptions {
    let headers = connection.headers.iter();
    ExporterOptions {
        endpoint: connection.endpoint.url().to_owned(),
        endpoint_is_complete: connection.endpoint.is_as_is(),
        only_trusted: !connection.is_chosen,
        protocol: connection.protocol,
        compression: connection.compression,
        headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
        headers_file: connection.headers_file.clone(),
        timeout: connection.timeout,
        tls: connection.tls.clone(),
        ..ExporterOptions::default()
    }
}

/// Of an exporter that speaks OTLP; the options of another one would be the defaults.
pub fn exporter(exporter: &Exporter) -> ExporterOptions {
    let ExporterKind::Otlp(otlp) = &exporter.kind else {
        return ExporterOptions { name: exporter.name.clone(), ..ExporterOptions::default() };
    };
    let spool = otlp.spool.as_ref();
    ExporterOptions {
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
        ..connection(&otlp.connection)
    }
}

/// What the agent tells about itself, and where.
pub fn telemetry(config: &profiler_config::Telemetry) -> TelemetryOptions {
    // A name that was set goes before the attribute of that name.
    let mut own = vec![("service.name".to_owned(), config.service_name.clone())];
    own.extend(config.attributes.clone());
    TelemetryOptions {
        listen: config.listen,
        otlp: config.otlp.as_ref().map(|otlp| PushOptions {
            receiver: ExporterOptions { name: PushOptions::default().receiver.name, ..connection(&otlp.connection) },
            interval: otlp.interval,
        }),
        resource: telemetry::resource(&own),
        ..TelemetryOptions::default()
    }
}

/// What a line of the log looks like.
pub fn log_format(format: LogFormat) -> telemetry::log::Format {
    match format {
        LogFormat::Text => telemetry::log::Format::Text,
        LogFormat::Json => telemetry::log::Format::Json,
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use profiler_config::{Flags, load_text};
    use profiler_export::{Compression, Protocol, TlsOptions};

    use super::*;

    fn config(text: &str) -> Config {
        let loaded = load_text(&Flags::default(), &|_| None, Some((Path::new("c.yaml"), text)));
        loaded.unwrap_or_else(|errors| panic!("{errors}")).config
    }

    /// Every option has another value than its default, as every key has.
    #[test]
    fn every_key_reaches_what_it_is_for() {
        let config = config(include_str!("../../controller/config/src/tests/everything.yaml"));
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
            protocol: Protocol::HttpProtobuf,
            compression: Compression::None,
            headers: vec![("x-tenant".to_owned(), profiler_export::Secret::new("43"))],
            headers_file: Some("/run/metrics-headers".into()),
            timeout: Duration::from_secs(4),
            tls: tls.clone(),
            ..ExporterOptions::default()
        };
        let profiles = ExporterOptions {
            name: "backend".to_owned(),
            endpoint: "https://otlp.example.com/p".to_owned(),
            compression: Compression::Zstd,
            headers: vec![("x-tenant".to_owned(), profiler_export::Secret::new("42"))],
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
        assert_eq!(exporter(&config.exporters[0]), profiles);

        let telemetry = super::telemetry(&config.telemetry);
        let push = telemetry.otlp.expect("it is on");
        assert_eq!((push.receiver, push.interval), (metrics, Duration::from_secs(15)));
        let says = |name: &str, value: &str| telemetry.resource.contains(&(name.to_owned(), value.to_owned()));
        assert!(says("service.name", "my-profiler") && says("service.version", "7"), "{:?}", telemetry.resource);
        assert_eq!(telemetry.listen, Some(([0, 0, 0, 0], 9000).into()));

        let resource = super::resource(&config);
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
    }

    #[test]
    fn the_defaults_are_those_of_the_parts() {
        let config = config("");
        // Nobody has chosen this receiver.
        let default = ExporterOptions { only_trusted: true, ..ExporterOptions::default() };
        assert_eq!(exporter(&config.exporters[0]), default);
        assert_eq!(resource(&config), ResourceOptions::default());
        let push = PushOptions::default();
        let config = self::config("telemetry: {otlp: {endpoint: 'http://localhost:4317'}}");
        let telemetry = super::telemetry(&config.telemetry).otlp.expect("it is on");
        assert_eq!((telemetry.receiver, telemetry.interval), (push.receiver, push.interval));
    }
}
