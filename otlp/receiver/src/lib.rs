//! How a receiver of OTLP is spoken to, as plain values: what a configuration says and an exporter does. Knows no network, no TLS,
//! no file format.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

/// What is shown in place of a [`Secret`].
pub const HIDDEN: &str = "[hidden]";

/// Text that no message, log or listing shows: a token, a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `text`, from now on hidden.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for who sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// How OTLP is transported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC over HTTP/2, by convention to port 4317.
    #[default]
    Grpc,
    /// Protobuf in an HTTP/1.1 POST, by convention to port 4318.
    HttpProtobuf,
}

/// How a request is compressed on the wire, in the queue and in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which every receiver has to accept.
    #[default]
    Gzip,
    /// Zstandard, which receivers may accept; the Collector does.
    Zstd,
}

impl Compression {
    /// Name in `content-encoding` and `grpc-encoding`; `None` for no compression.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Certificates. The files are read again when they change; one that cannot be used leaves the former in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate chain, for mTLS; needs [`Self::key_file`].
    pub cert_file: Option<PathBuf>,
    /// PEM file of the client's private key.
    pub key_file: Option<PathBuf>,
    /// Name that the receiver's certificate has to be for, and that is sent as SNI; the endpoint's host if `None`.
    pub server_name: Option<String>,
    /// Accept any certificate. Whoever is on the way can then read and change what is sent.
    pub insecure_skip_verify: bool,
}

/// The URL `text` with [`HIDDEN`] for its user, password, query and fragment, for logs and messages. It need not be a right one, and
/// may lack a scheme, as an endpoint by mistake and a redirect's target by right.
#[must_use]
pub fn hide_secrets(text: &str) -> String {
    // First of all: a query may well have a URL in it.
    let (text, has_query) = text.split_once(['?', '#']).map_or((text, false), |(text, _)| (text, true));
    let (scheme, slashes, rest) = text.split_once("//").map_or(("", "", text), |(scheme, rest)| (scheme, "//", rest));
    // A password may have a slash in it, by mistake: the last @ counts, even where it is the path's. A path alone has no password.
    let user_ends = if rest.starts_with('/') { None } else { rest.rfind('@') };
    let (user, rest) = user_ends.map_or(("", rest), |at| (HIDDEN, rest.get(at..).unwrap_or_default()));
    let query = if has_query { format!("?{HIDDEN}") } else { String::new() };
    format!("{scheme}{slashes}{user}{rest}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("https://h:1/a/b", "https://h:1/a/b"),
            ("https://u:p@h/a?b=c#d", "https://[hidden]@h/a?[hidden]"),
            ("https://u:p@h", "https://[hidden]@h"),
            ("//u:p@h/a", "//[hidden]@h/a"),
            ("http://u:p/q@h/x", "http://[hidden]@h/x"),
            ("/a/@b?c", "/a/@b?[hidden]"),
            ("/a?token=t&next=https://u:p@h/", "/a?[hidden]"),
            ("https://h#token", "https://h?[hidden]"),
            ("u:p@h/a", "[hidden]@h/a"),
            ("", ""),
        ] {
            assert_eq!(hide_secrets(url), shown);
        }
    }
}
