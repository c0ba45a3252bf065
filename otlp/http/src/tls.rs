//! TLS as the options and the files that they name have it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use profiler_receiver::TlsOptions;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};

use super::{connection::Version, watched};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read the {what} {path:?}: {source}")]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("{what} {path:?} {problem}")]
    Certificate {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// One of two options that belong together.
    #[error("{option} is of no use without {missing}; set both or none")]
    Alone {
        /// The one that is given.
        option: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

/// The client's side of TLS for `version`.
///
/// # Errors
///
/// A file that `options` names cannot be read or holds no such thing, or one of two that belong together is missing.
pub(super) fn client_config(options: &TlsOptions, version: Version) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unusable(error.to_string()))?;
    let builder = if options.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone { provider }))
    } else {
        builder.with_root_certificates(roots(options.ca_file.as_deref())?)
    };
    let mut config = match (&options.cert_file, &options.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates("client certificate", cert_file)?;
            let wrong =
                |problem: String| TlsError::Certificate { what: "private key", path: key_file.clone(), problem };
            let bytes = read("private key", key_file)?;
            let key = PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|error| wrong(format!("has no private key in PEM form: {error}")))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| wrong(format!("does not go with the certificate {cert_file:?}: {error}")))?
        }
        (Some(_), None) => return Err(TlsError::Alone { option: "tls.cert_file", missing: "tls.key_file" }),
        (None, Some(_)) => return Err(TlsError::Alone { option: "tls.key_file", missing: "tls.cert_file" }),
    };
    config.alpn_protocols = match version {
        Version::Http2 => vec![b"h2".to_vec()],
        Version::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    watched::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |problem: String| TlsError::Certificate { what, path: path.to_owned(), problem };
    let bytes = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("is not PEM: {error}")))?;
    if found.is_empty() {
        return Err(wrong("has no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in certificates("CA file", path)? {
            roots.add(certificate).map_err(|error| TlsError::Certificate {
                what: "CA file",
                path: path.to_owned(),
                problem: format!("has a certificate that cannot be used: {error}"),
            })?;
        }
        return Ok(roots);
    }
    let native = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(native.certs);
    if usable == 0 {
        let problem =
            "no certificate authorities are installed on this system; install ca-certificates, or set tls.ca_file";
        return Err(TlsError::Unusable(problem.to_owned()));
    }
    Ok(roots)
}

/// Accepts any certificate, for who asked for it; that the other side has its key is still checked.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
