//! TLS and mTLS, with certificates that are wrong, expire and are replaced.

use std::{fs, path::PathBuf, time::Duration};

use crate::profiles::small;
use crate::receivers::{GrpcOptions, GrpcReceiver, drained, options, wait_for};
use profiler_export::{ExportStats, Exporter, ExporterOptions, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for `name`; expired years ago if asked for.
    fn issue(&self, name: &str, expired: bool) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A receiver with the certificate of `authority`; it asks for one of `clients` if there is that.
fn receiver(authority: &Authority, name: &str, clients: Option<&Authority>) -> GrpcReceiver {
    let (certificate, key) = authority.issue(name, false);
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    if let Some(clients) = clients {
        tls = tls.client_ca_root(Certificate::from_pem(clients.pem()));
    }
    GrpcReceiver::start(GrpcOptions { tls: Some(tls), ..GrpcOptions::default() })
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes `text` to a file by way of another, as who replaces a file under use does.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, new) = (self.folder.path().join(name), self.folder.path().join("new"));
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }
}

fn tls_options(receiver: &GrpcReceiver, tls: TlsOptions) -> ExporterOptions {
    ExporterOptions { tls, ..options(format!("https://localhost:{}", receiver.address.port())) }
}

/// Failures of a receiver that refuses a certificate, after which its reason is not waited for any more: with TLS 1.3 its alert may be
/// overtaken by the end of the connection, on a busy machine each time.
const OVERTAKEN: u64 = 20;

/// Waits for a failure whose error has `text`.
fn wait_for_failure(exporter: &Exporter, text: &str) -> ExportStats {
    wait_for(&format!("a failure that says {text:?}"), || {
        let stats = exporter.stats();
        let error = stats.last_error.as_ref().map_or("", |(_, error)| error);
        (stats.failures_in_a_row > 0 && error.contains(text)).then_some(stats)
    })
}

/// Waits until the receiver has refused what the exporter shows for itself: a failure whose error has `text`, or many without a reason.
fn wait_for_refusal(exporter: &Exporter, text: &str) -> ExportStats {
    wait_for(&format!("a refusal that says {text:?}"), || {
        let stats = exporter.stats();
        let error = stats.last_error.as_ref().map_or("", |(_, error)| error);
        (stats.failures_in_a_row > 0 && (error.contains(text) || stats.failures_in_a_row >= OVERTAKEN)).then_some(stats)
    })
}

/// Exports 5 samples, which stay in the queue while attempts fail for the reason `text`.
fn fails(options: ExporterOptions, text: &str) {
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(5));
    let stats = wait_for_failure(&exporter, text);
    assert_eq!((stats.queued_samples, stats.unaccounted_samples()), (5, 0));
    assert_eq!(exporter.shutdown(Duration::ZERO).unaccounted_samples(), 0);
}

fn sent(options: ExporterOptions) -> ExportStats {
    let exporter = Exporter::start(options).unwrap();
    exporter.export(&small(5));
    drained(&exporter)
}

#[test]
fn a_receiver_of_the_given_authority_is_trusted_and_no_other() {
    let (authority, other, files) = (Authority::new("ours"), Authority::new("other"), Files::new());
    let receiver = receiver(&authority, "localhost", None);
    let ca_file = Some(files.write("ca.pem", &authority.pem()));
    let stats = sent(tls_options(&receiver, TlsOptions { ca_file, ..TlsOptions::default() }));
    assert_eq!((stats.sent_samples, stats.retries), (5, 0));

    let ca_file = Some(files.write("other.pem", &other.pem()));
    fails(tls_options(&receiver, TlsOptions { ca_file, ..TlsOptions::default() }), "UnknownIssuer");
    // Neither is one of the system's.
    if let Ok(exporter) = Exporter::start(tls_options(&receiver, TlsOptions::default())) {
        exporter.export(&small(5));
        wait_for("a failure", || (exporter.stats().failures_in_a_row > 0).then_some(()));
    }
    let all = TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() };
    assert_eq!(sent(tls_options(&receiver, all)).sent_samples, 5);
}

#[test]
fn the_name_has_to_be_right_or_given() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let receiver = receiver(&authority, "collector.example", None);
    let ca_file = Some(files.write("ca.pem", &authority.pem()));
    let tls = TlsOptions { ca_file, ..TlsOptions::default() };
    fails(tls_options(&receiver, tls.clone()), "not valid for name");
    let tls = TlsOptions { server_name: Some("collector.example".to_owned()), ..tls };
    assert_eq!(sent(tls_options(&receiver, tls)).sent_samples, 5);
}

#[test]
fn a_receiver_without_tls_is_named() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let receiver = GrpcReceiver::new(Vec::new());
    let ca_file = Some(files.write("ca.pem", &authority.pem()));
    fails(tls_options(&receiver, TlsOptions { ca_file, ..TlsOptions::default() }), "does it speak TLS on this port?");
}

#[test]
fn an_expired_client_certificate_is_waited_out_and_its_successor_taken() {
    let (authority, clients, files) = (Authority::new("one"), Authority::new("two"), Files::new());
    let receiver = receiver(&authority, "localhost", Some(&clients));
    let (certificate, key) = clients.issue("agent", true);
    let tls = TlsOptions {
        ca_file: Some(files.write("ca.pem", &authority.pem())),
        cert_file: Some(files.write("cert.pem", &certificate)),
        key_file: Some(files.write("key.pem", &key)),
        ..TlsOptions::default()
    };
    let exporter = Exporter::start(tls_options(&receiver, tls)).unwrap();
    exporter.export(&small(5));
    let stats = wait_for_refusal(&exporter, "CertificateExpired");
    assert_eq!((stats.sent_samples, stats.unaccounted_samples(), receiver.calls()), (0, 0, 0));
    // Between the two writes they do not go together; that leaves the former in place.
    let (certificate, key) = clients.issue("agent", false);
    files.write("cert.pem", &certificate);
    files.write("key.pem", &key);
    assert_eq!(drained(&exporter).sent_samples, 5);

    // A file that is no certificate does no harm.
    files.write("cert.pem", "torn");
    exporter.export(&small(5));
    assert_eq!(drained(&exporter).sent_samples, 10);
    // And a new one is used at once, on a new connection.
    let (certificate, key) = clients.issue("agent", false);
    files.write("cert.pem", &certificate);
    files.write("key.pem", &key);
    exporter.export(&small(5));
    assert_eq!(drained(&exporter).sent_samples, 15);
}

#[test]
fn a_receiver_that_asks_for_a_certificate_gets_none() {
    let (authority, clients, files) = (Authority::new("one"), Authority::new("two"), Files::new());
    let receiver = receiver(&authority, "localhost", Some(&clients));
    let ca_file = Some(files.write("ca.pem", &authority.pem()));
    let exporter = Exporter::start(tls_options(&receiver, TlsOptions { ca_file, ..TlsOptions::default() })).unwrap();
    exporter.export(&small(5));
    let stats = wait_for_refusal(&exporter, "CertificateRequired");
    assert_eq!((stats.queued_samples, stats.unaccounted_samples(), receiver.calls()), (5, 0, 0));
    assert_eq!(exporter.shutdown(Duration::ZERO).unaccounted_samples(), 0);
}

#[test]
fn the_authority_is_read_again_too() {
    let (old, new, files) = (Authority::new("one"), Authority::new("two"), Files::new());
    let receiver = receiver(&new, "localhost", None);
    let ca_file = Some(files.write("ca.pem", &old.pem()));
    let exporter = Exporter::start(tls_options(&receiver, TlsOptions { ca_file, ..TlsOptions::default() })).unwrap();
    exporter.export(&small(5));
    wait_for("a failure", || (exporter.stats().failures_in_a_row > 0).then_some(()));
    files.write("ca.pem", &format!("{}{}", old.pem(), new.pem()));
    assert_eq!(drained(&exporter).sent_samples, 5);
}

#[test]
fn files_that_are_wrong_at_the_start_are_refused_by_name() {
    let (authority, files) = (Authority::new("ours"), Files::new());
    let (certificate, key) = authority.issue("agent", false);
    let (_, other_key) = authority.issue("agent", false);
    let ca = files.write("ca.pem", &authority.pem());
    let (cert_file, key_file) = (files.write("cert.pem", &certificate), files.write("key.pem", &key));
    let (other_key, empty) = (files.write("other.pem", &other_key), files.write("empty.pem", ""));
    let missing = files.folder.path().join("missing.pem");
    let cases: [(TlsOptions, &[&str]); 6] = [
        (TlsOptions { ca_file: Some(missing), ..Default::default() }, &["cannot read the CA file", "missing.pem"]),
        (TlsOptions { ca_file: Some(empty.clone()), ..Default::default() }, &["CA file", "has no certificate"]),
        (
            TlsOptions { ca_file: Some(ca.clone()), cert_file: Some(cert_file.clone()), ..Default::default() },
            &["tls.cert_file", "of no use without tls.key_file"],
        ),
        (
            TlsOptions { ca_file: Some(ca.clone()), key_file: Some(key_file), ..Default::default() },
            &["tls.key_file", "of no use without tls.cert_file"],
        ),
        (
            TlsOptions {
                ca_file: Some(ca.clone()),
                cert_file: Some(cert_file.clone()),
                key_file: Some(empty),
                ..Default::default()
            },
            &["private key", "empty.pem"],
        ),
        (
            TlsOptions {
                ca_file: Some(ca),
                cert_file: Some(cert_file),
                key_file: Some(other_key),
                ..Default::default()
            },
            &["other.pem", "does not go with the certificate"],
        ),
    ];
    for (tls, expected) in cases {
        let error = Exporter::start(ExporterOptions { tls, ..options("https://localhost") }).unwrap_err().to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    }
}
