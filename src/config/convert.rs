//! The configuration as the options of the parts that it is for.

use profiler_otlp::export::{
    Compression as ExportCompression, ExporterOptions, Protocol as ExportProtocol, RetryOptions, Secret as ExportSecret,
    SpoolOptions, TlsOptions,
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
            headers: headers.map(|(name, value)| (name.clone(), ExportSecret::new(value.expose()))).collect(),
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
