//! Both transports over TLS, with certificates of both sides.

use std::{fs, path::Path, sync::Arc};

use profiler_opamp::{client::Event, server, transport::Denial};
use profiler_receiver::TlsOptions;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};

use super::{
    simulated::{UID, settings},
    transports::{Agent, Running},
};

/// A certificate authority, a server's certificate and an agent's, in files of `folder`; the server's side of TLS, which asks for the agent's.
fn certificates(folder: &Path) -> Arc<ServerConfig> {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    fs::write(folder.join("ca.pem"), &ca).unwrap();
    let mut issued = Vec::new();
    for name in ["server", "agent"] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        issued.push((certificate.pem(), key.serialize_pem()));
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let (certificate, key) = &issued[0];
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(vec![certificate], key).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_with_certificates_are_let_in_and_trust_the_right_server_alone() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path());
    let mut running = Running::with(server::Options::default(), None, None, Some(tls)).await;
    let port = running.address.port();
    let file = |name: &str| Some(folder.path().join(name));
    let mutual = TlsOptions {
        ca_file: file("ca.pem"),
        cert_file: file("agent.pem"),
        key_file: file("agent.key"),
        ..Default::default()
    };
    for scheme in ["wss", "https"] {
        let mut trusted = settings(&format!("{scheme}://localhost:{port}"));
        trusted.tls = mutual.clone();
        let mut agent = Agent::start(trusted.clone());
        agent.until(|event| *event == Event::Connected).await;
        agent.stop().await;
        running.until(|event, _| *event == server::Event::Disconnected(UID)).await;

        // Without a certificate of its own, or with a server whose certificate is for another name.
        let anonymous = TlsOptions { cert_file: None, key_file: None, ..mutual.clone() };
        let misnamed = TlsOptions { server_name: Some("example.com".into()), ..mutual.clone() };
        for tls in [anonymous, misnamed] {
            let mut agent = Agent::start(profiler_opamp::Settings { tls, ..trusted.clone() });
            let event = agent.until(|event| matches!(event, Event::Disconnected { .. } | Event::Connected)).await;
            assert!(matches!(event, Event::Disconnected { .. }), "{event:?}");
            agent.stop().await;
        }
    }
    // Denials are told over TLS as without.
    *running.denial.lock().unwrap() = Some(Denial::Forbidden);
    let mut trusted = settings(&format!("wss://localhost:{port}"));
    trusted.tls = mutual;
    let mut agent = Agent::start(trusted);
    let event = agent.until(|event| matches!(event, Event::Disconnected { .. })).await;
    assert!(matches!(&event, Event::Disconnected { reason, .. } if reason.contains("403")), "{event:?}");
    agent.stop().await;
}
