//! The keys of `exporters`, and of everything else that speaks OTLP.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use profiler_receiver::{Compression, Protocol, Secret, TlsOptions};

use super::endpoint::Endpoint;
use super::errors::quoted;
use super::kind::{self, Items, Kind};
use super::model::{Connection, Exporter, ExporterKind, FileFormat, FilesExporter, OtlpExporter, Retry, Spool};
use super::origin::Origin;
use super::reader::Reader;
use super::yaml::{Key, Node, Value};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// The name of an exporter that is given none: what it is.
const OTLP: &str = "otlp";
const FILES: &str = "files";

/// Reads `exporters`. There is at least one unless a problem was reported.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<Exporter> {
    let doc = "Where profiles go; each item is one place, all of them get everything. Without any, one OTLP exporter to \
               `http://localhost:4317`";
    let before = reader.problems();
    let mut exporters = reader.sections("exporters", Items::Local, doc, name_of, exporter);
    if reader.has_implied_exporter() {
        exporters.push(reader.further("exporters", OTLP, |reader| {
            reader.imply(OTLP);
            exporter(reader)
        }));
    }
    if exporters.is_empty() && reader.problems() == before {
        let message = "is empty: samples would go nowhere; take the key away for http://localhost:4317";
        reader.problem(reader.origin(), "exporters", message);
    }
    let duplicates = |exporter: &&Exporter| exporters.iter().filter(|other| other.name == exporter.name).count() > 1;
    if let Some(twice) = exporters.iter().find(duplicates) {
        let message = format!("two exporters are named {}: give each a name of its own", quoted(&twice.name));
        reader.problem(reader.origin(), "exporters", message);
    }
    let mut spools: Vec<&PathBuf> = Vec::new();
    for exporter in &exporters {
        let directory = match &exporter.kind {
            ExporterKind::Otlp(otlp) => otlp.spool.as_ref().map(|spool| &spool.directory),
            ExporterKind::Files(files) => Some(&files.directory),
        };
        if let Some(directory) = directory {
            if spools.contains(&directory) {
                let message =
                    format!("two exporters write to {}: give each a directory of its own", directory.display());
                reader.problem(reader.origin(), "exporters", message);
            }
            spools.push(directory);
        }
    }
    exporters
}

/// Of two keys that contradict each other, the one that was set.
fn blame<'a>(one: (&Origin, &'a str), other: (&Origin, &'a str)) -> (Origin, &'a str) {
    let (origin, key) = if one.0.precedence() >= other.0.precedence() { one } else { other };
    (origin.clone(), key)
}

/// The name of an item of `exporters`, before it is read: by it flags reach it.
fn name_of(node: &Node) -> Option<String> {
    let Value::Map(items) = &node.value else { return None };
    let has = |name: &str| items.iter().find(|(Key { text, .. }, _)| text == name).map(|(_, node)| node);
    match has("name").map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => Some(text.clone()),
        _ => [OTLP, FILES].into_iter().find(|name| has(name).is_some()).map(str::to_owned),
    }
}

/// The name of the exporter that flags and OTEL_* mean, and whether the file has it: the one named `otlp`, else the
/// first that speaks OTLP, else one that the file has not.
pub(super) fn target(root: Option<&Node>) -> (String, bool) {
    let exporters = match root.map(|root| &root.value) {
        Some(Value::Map(items)) => items.iter().find(|(key, _)| key.text == "exporters").map(|(_, node)| &node.value),
        _ => None,
    };
    let Some(Value::List(items)) = exporters else { return (OTLP.to_owned(), false) };
    let speaks =
        |node: &&Node| matches!(&node.value, Value::Map(items) if items.iter().any(|(key, _)| key.text == OTLP));
    let names: Vec<String> = items.iter().filter(speaks).filter_map(name_of).collect();
    match names.iter().find(|name| *name == OTLP).or(names.first()) {
        Some(name) => (name.clone(), true),
        None => (OTLP.to_owned(), false),
    }
}

fn exporter(reader: &mut Reader<'_>) -> Exporter {
    reader.exactly_one(&[OTLP, FILES]);
    let default = if reader.is_present(FILES) { FILES } else { OTLP };
    let name = kind::text("1 to 64 of A-Z a-z 0-9 _ -; differs from the others").checked(|name: &String| {
        let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.len() <= 64 && name.chars().all(right) {
            Ok(())
        } else {
            Err(format!("{} is no name: use 1 to 64 of A-Z a-z 0-9 _ -", quoted(name)))
        }
    });
    let name = name.local();
    let name = reader.value(
        "name",
        name,
        default.to_owned(),
        "Names the exporter in logs, in metrics and for `--set`. By default `otlp` or `files`, after what it is",
    );
    let otlp = reader.optional_section(OTLP, "A receiver of OTLP profiles, such as an OpenTelemetry Collector", otlp);
    let files = reader.optional_section(
        FILES,
        "A directory of files, one each window, the oldest removed. Files, and directories that are made, are for the agent's user \
         alone (modes 0600 and 0700)",
        files,
    );
    let kind = match (otlp, files) {
        (_, Some(files)) => ExporterKind::Files(files),
        (Some(otlp), None) => ExporterKind::Otlp(Box::new(otlp)),
        // Refused by `exactly_one`; what stands here is not used.
        (None, None) => ExporterKind::Files(FilesExporter {
            directory: PathBuf::new(),
            format: FileFormat::Pprof,
            max_files: 1,
            max_size: 1,
        }),
    };
    Exporter { name, kind }
}

fn otlp(reader: &mut Reader<'_>) -> OtlpExporter {
    let connection = connection(reader, &PROFILES);
    let retry = reader.section("retry", "What happens when the receiver cannot take a request now", |reader| {
        let initial_interval = reader.value(
            "initial_interval",
            kind::time(Duration::from_millis(100), HOUR).local(),
            5 * SECOND,
            "The wait before the first repetition; later ones are 1.5 times as long each",
        );
        let (max_interval, origin) = reader.located(
            "max_interval",
            kind::time(Duration::from_millis(100), HOUR).local(),
            30 * SECOND,
            "The longest wait",
        );
        if max_interval < initial_interval {
            reader.problem(origin, "max_interval", "is shorter than initial_interval");
        }
        let max_elapsed_time = reader.value(
            "max_elapsed_time",
            kind::time(Duration::ZERO, 24 * HOUR).local(),
            300 * SECOND,
            "After this long a request is given up and its samples are counted as lost; `0s`: never. What is spooled \
             is kept until the spool is full",
        );
        Retry { initial_interval, max_interval, max_elapsed_time }
    });
    let (queue_size, queue_origin) = reader.located(
        "queue_size",
        kind::size(64 * KIB, 16 * GIB).local(),
        16 * MIB,
        "Compressed profiles that may wait in memory. The oldest give way, and are counted",
    );
    let (max_request_size, origin) = reader.located(
        "max_request_size",
        kind::size(16 * KIB, 256 * MIB).local(),
        4 * MIB,
        "The largest request before compression; larger profiles are split. Receivers refuse more than 4MiB by default",
    );
    if max_request_size > queue_size {
        let (at, key) = blame((&origin, "max_request_size"), (&queue_origin, "queue_size"));
        reader.problem(at, key, "a request of max_request_size would not fit into queue_size");
    }
    let spool = reader.optional_section(
        "spool",
        "Keeps profiles on disk until the receiver has them: over restarts of either, and power cuts",
        |reader| {
            let directory = reader.required(
                "directory",
                kind::path().local(),
                "Where; made if it is missing. Only for this exporter",
            );
            let directory = directory.map_or_else(PathBuf::new, |(directory, _)| directory);
            let (max_size, origin) = reader.located(
                "max_size",
                kind::size(MIB, TIB).local(),
                256 * MIB,
                "What it may hold. The oldest give way, and are counted",
            );
            (Spool { directory, max_size }, origin)
        },
    );
    if let Some((spool, spool_origin)) = &spool
        && spool.max_size < 2 * max_request_size
    {
        let (at, key) = blame((&origin, "max_request_size"), (spool_origin, "spool.max_size"));
        reader.problem(at, key, "has to hold two requests of max_request_size at least");
    }
    OtlpExporter { connection, retry, queue_size, max_request_size, spool: spool.map(|(spool, _)| spool) }
}

/// What differs between the signals that are sent by OTLP.
pub(super) struct Signal {
    /// The key of the URL that is used as it is.
    complete_endpoint: &'static str,
    endpoint_doc: &'static str,
    complete_doc: &'static str,
}

/// Profiles.
const PROFILES: Signal = Signal {
    complete_endpoint: "profiles_endpoint",
    endpoint_doc: "URL of the receiver: `http://` plain, `https://` TLS; without a port 4317 (gRPC) or 4318 (HTTP). HTTP \
                   appends `/v1development/profiles`",
    complete_doc: "For HTTP: the whole URL, nothing is appended. Goes before `endpoint`",
};

/// The agent's own metrics.
pub(super) const METRICS: Signal = Signal {
    complete_endpoint: "metrics_endpoint",
    endpoint_doc: "URL of the receiver of the agent's own metrics, as for exporters. HTTP appends `/v1/metrics`",
    complete_doc: "For HTTP: the whole URL, nothing is appended. Goes before `endpoint`",
};

fn endpoint_kind() -> Kind<Endpoint> {
    Kind {
        parse: Box::new(Endpoint::parse),
        show: Endpoint::to_string,
        schema: serde_json::json!({ "type": "string", "minLength": 1 }),
        what: "URL".to_owned(),
        secret: false,
    }
}

/// An optional URL of a service that is spoken to by HTTPS.
pub(super) fn service_url(reader: &mut Reader<'_>, key: &'static str, doc: &'static str) -> Option<Endpoint> {
    let kind = endpoint_kind().checked(|endpoint| {
        if endpoint.url().contains("://") {
            Ok(())
        } else {
            Err(format!("{endpoint} lacks the scheme: write https://{endpoint}"))
        }
    });
    reader.optional(key, kind.local(), doc).map(|(endpoint, _)| endpoint)
}

/// Reads the keys of a connection.
pub(super) fn connection(reader: &mut Reader<'_>, signal: &Signal) -> Connection {
    let (protocol, protocol_origin) =
        reader.located("protocol", kind::choice().local(), Protocol::Grpc, "What is spoken");
    let default = match protocol {
        Protocol::Grpc => "http://localhost:4317",
        Protocol::HttpProtobuf => "http://localhost:4318",
    };
    let default = Endpoint::parse(default).unwrap_or_default();
    let (base, base_origin) = reader.located("endpoint", endpoint_kind().local(), default, signal.endpoint_doc);
    let complete = reader.optional(signal.complete_endpoint, endpoint_kind().local(), signal.complete_doc);
    let compression =
        reader.value("compression", kind::choice().local(), Compression::Gzip, "How requests are compressed");
    let headers = headers(reader);
    let headers_file = reader.optional(
        "headers_file",
        kind::path().local(),
        "A file of further headers, one `name: value` a line. Read again when it changes. Goes before `headers`",
    );
    let timeout = reader.value(
        "timeout",
        kind::time(Duration::from_millis(100), HOUR).local(),
        10 * SECOND,
        "How long one request may take, answer included",
    );
    let (tls, insecure, insecure_origin) =
        reader.section("tls", "Certificates. The files are read again when they change", tls);
    // The URL of the signal counts unless the other was set from nearer by.
    let complete = complete.filter(|(_, origin)| origin.precedence() >= base_origin.precedence());
    let (url, origin, key, as_is) = match complete {
        Some((url, origin)) => (url, origin, signal.complete_endpoint, protocol == Protocol::HttpProtobuf),
        None => (base, base_origin, "endpoint", false),
    };
    let endpoint = url.resolved(protocol, insecure, as_is).unwrap_or_else(|message| {
        // What was set last made it wrong.
        let later = protocol_origin.precedence() > origin.precedence();
        reader.problem(if later { protocol_origin } else { origin.clone() }, key, message);
        url
    });
    let nearer = insecure_origin.precedence() >= origin.precedence() && insecure_origin.is_deliberate();
    if endpoint.is_tls() && insecure && nearer {
        let message = format!("{endpoint} asks for TLS, and insecure for none: change either");
        reader.problem(insecure_origin, "tls.insecure", message);
    }
    Connection {
        endpoint,
        is_chosen: origin != Origin::Default,
        protocol,
        compression,
        headers,
        headers_file: headers_file.map(|(path, _)| path),
        timeout,
        tls,
    }
}

/// Headers of each request.
pub(super) fn headers(reader: &mut Reader<'_>) -> BTreeMap<String, Secret> {
    let visible = |value: &Secret| {
        let visible = value.expose().bytes().all(|byte| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic());
        if visible { Ok(()) } else { Err("a header may hold only visible ASCII".to_owned()) }
    };
    reader.map(
        "headers",
        header_name,
        kind::secret("text").checked(visible).local(),
        "Sent with every request, such as `authorization: Bearer ${file:/run/secrets/token}`. Never shown",
    )
}

/// Certificates, whether TLS is not wanted, and where that was said.
fn tls(reader: &mut Reader<'_>) -> (TlsOptions, bool, Origin) {
    let (insecure, origin) = reader.located(
        "insecure",
        kind::boolean().local(),
        false,
        "No TLS, for an endpoint that is written without `http://` or `https://`; the scheme decides otherwise",
    );
    (certificates(reader), insecure, origin)
}

/// Certificates of both sides.
pub(super) fn certificates(reader: &mut Reader<'_>) -> TlsOptions {
    let insecure_skip_verify = reader.value(
        "insecure_skip_verify",
        kind::boolean().local(),
        false,
        "Accept any certificate: whoever is on the way can then read and change what is sent",
    );
    let mut file = |key, doc| reader.optional(key, kind::path().local(), doc);
    let ca_file = file("ca_file", "Authorities that vouch for the receiver, PEM; without it those of the system");
    let cert_file = file("cert_file", "Our own certificate for mTLS, PEM");
    let key_file = file("key_file", "The key of `cert_file`, PEM");
    match (&cert_file, &key_file) {
        (Some((_, origin)), None) => reader.problem(origin.clone(), "key_file", "is missing beside cert_file"),
        (None, Some((_, origin))) => reader.problem(origin.clone(), "cert_file", "is missing beside key_file"),
        _ => {}
    }
    let server_name = reader.optional(
        "server_name",
        kind::text("host name").local(),
        "The name that the receiver's certificate must be for, if it is not the endpoint's",
    );
    let first = |found: Option<(PathBuf, Origin)>| found.map(|(path, _)| path);
    TlsOptions {
        insecure_skip_verify,
        ca_file: first(ca_file),
        cert_file: first(cert_file),
        key_file: first(key_file),
        server_name: server_name.map(|(name, _)| name),
    }
}

/// Names of headers are lower case in HTTP/2, and some are not the user's to set.
fn header_name(name: &str) -> Result<String, String> {
    let right = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let name = name.to_ascii_lowercase();
    if name.is_empty() || name.len() > 256 || !name.chars().all(right) {
        return Err(format!("{} is no name of a header", quoted(&name)));
    }
    let ours = [
        "content-type",
        "content-length",
        "content-encoding",
        "te",
        "host",
        "connection",
        "transfer-encoding",
        "upgrade",
    ];
    if ours.contains(&name.as_str()) || name.starts_with("grpc-") || name.ends_with("-bin") {
        return Err(format!("the header {name} is set by the protocol itself: take it away"));
    }
    Ok(name)
}

fn files(reader: &mut Reader<'_>) -> FilesExporter {
    let directory =
        reader.required("directory", kind::path().local(), "Where; made if it is missing. Only for this exporter");
    let format = reader.value(
        "format",
        kind::choice().local(),
        FileFormat::Pprof,
        "`pprof`: gzipped, for pprof and most viewers; `otlp`: the request that an OTLP receiver would get; `otlp-json`: the same in JSON",
    );
    let max_files = reader.value(
        "max_files",
        kind::whole(1_u64, 1_000_000, "files").local(),
        360,
        "How many profiles are kept; 360 are an hour of 10 s windows",
    );
    let max_size = reader.value(
        "max_size",
        kind::size(MIB, TIB).local(),
        GIB,
        "What the profiles may hold together; the oldest are removed",
    );
    FilesExporter { directory: directory.map_or_else(PathBuf::new, |(path, _)| path), format, max_files, max_size }
}
