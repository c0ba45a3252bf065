//! Certificates for a server on this machine and for its clients, good or expired.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use super::options::ServerTls;
use crate::Error;

/// An authority and what it signed, in a folder.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// Until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// For years.
    Long,
    /// It was, until years ago.
    Expired,
    /// For this much longer.
    For(Duration),
}

impl Certificates {
    /// An authority of its own, whose certificate is `ca.pem` in `folder`.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "profiler's tests");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(failed)?).map_err(failed)?;
        let certificates = Self { folder: folder.to_owned(), authority };
        certificates.write("ca.pem", &certificates.authority.pem())?;
        Ok(certificates)
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for `localhost` and 127.0.0.1, as `server.pem` and `server.key`; replaces the one before.
    pub fn server(&self, valid: Valid) -> Result<ServerTls, Error> {
        let (certificate, key) = self.sign("server", ExtendedKeyUsagePurpose::ServerAuth, valid)?;
        Ok(ServerTls { certificate, key, clients: None })
    }

    /// As [`Self::server`], and clients need a certificate of the same authority.
    pub fn server_for_clients(&self, valid: Valid) -> Result<ServerTls, Error> {
        Ok(ServerTls { clients: Some(self.ca()), ..self.server(valid)? })
    }

    /// A client's certificate and key, as `client.pem` and `client.key`; replaces the one before.
    pub fn client(&self, valid: Valid) -> Result<(PathBuf, PathBuf), Error> {
        self.sign("client", ExtendedKeyUsagePurpose::ClientAuth, valid)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, valid: Valid) -> Result<(PathBuf, PathBuf), Error> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_after = match valid {
            Valid::Long => date_time_ymd(2100, 1, 1),
            Valid::Expired => date_time_ymd(2020, 1, 1),
            Valid::For(time) => (SystemTime::now() + time).into(),
        };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.authority).map_err(failed)?;
        // The key first: who watches the certificate then finds both.
        let key = self.write(&format!("{name}.key"), &key.serialize_pem())?;
        Ok((self.write(&format!("{name}.pem"), &certificate.pem())?, key))
    }

    /// Whole or not at all, as certificate managers write.
    fn write(&self, name: &str, pem: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!("{name}.new"));
        fs::write(&new, pem).map_err(Error::file("write", &new))?;
        fs::rename(&new, &path).map_err(Error::file("move into place", &path))?;
        Ok(path)
    }
}

fn failed(error: rcgen::Error) -> Error {
    Error::Collector { problem: format!("no certificate can be made: {error}"), log: String::new() }
}
