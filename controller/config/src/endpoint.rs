//! URLs of receivers: what is a right one, and what to say of a wrong one or of one that does not answer.

use std::fmt;

use http::Uri;
use profiler_receiver::{Protocol, hide_secrets};

use super::errors::quoted;

/// The URL of a receiver. Never shows what a query holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    as_is: bool,
}

impl Endpoint {
    /// Reads `http://host:port/path`, `https://...`, or `host:port`, which still lacks a scheme.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what a right one looks like, without repeating what may be secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "write http://HOST:PORT, or https://HOST:PORT for TLS";
        let text = text.trim();
        let shown = || quoted(&hide_secrets(text));
        if text.is_empty() {
            return Err(format!("is empty: {RIGHT}"));
        }
        let with_scheme = match text.split_once("://") {
            Some(("http" | "https", _)) => text.to_owned(),
            Some((scheme, _)) => return Err(format!("{} is no scheme for OTLP: {RIGHT}", quoted(scheme))),
            None => format!("http://{text}"),
        };
        let uri: Uri = with_scheme.parse().map_err(|error| format!("{} is no URL ({error}): {RIGHT}", shown()))?;
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err(format!("{} names no host: {RIGHT}", shown()));
        };
        if authority.as_str().contains('@') {
            return Err(format!("{} holds a user or password: put credentials into headers or headers_file", shown()));
        }
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        if let Some(port) = port.strip_prefix(':')
            && !port.parse::<u16>().is_ok_and(|port| port != 0)
        {
            return Err(format!("{} has the port {}: ports are 1 to 65535", shown(), quoted(port)));
        }
        Ok(Self { url: text.to_owned(), as_is: false })
    }

    /// The endpoint with a scheme, checked against what is spoken there.
    ///
    /// # Errors
    ///
    /// If the protocol has no use for such a URL.
    pub(super) fn resolved(&self, protocol: Protocol, insecure: bool, as_is: bool) -> Result<Self, String> {
        let url = match (self.url.contains("://"), protocol) {
            (true, _) => self.url.clone(),
            (false, Protocol::Grpc) if insecure => format!("http://{}", self.url),
            (false, Protocol::Grpc) => format!("https://{}", self.url),
            (false, Protocol::HttpProtobuf) => {
                return Err(format!("{self} lacks the scheme: write http://{self}, or https://{self} for TLS"));
            }
        };
        let uri: Uri = url.parse().map_err(|_| format!("{self} is no URL"))?;
        if protocol == Protocol::Grpc && (uri.query().is_some() || !matches!(uri.path(), "" | "/")) {
            return Err(format!(
                "{self} has a path, and gRPC takes none: leave it away, or set protocol: http/protobuf"
            ));
        }
        if !as_is && uri.query().is_some() {
            return Err(format!("{self} has a query, which only profiles_endpoint, a URL used as it is, may have"));
        }
        Ok(Self { url, as_is })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the URL is that of the signal itself; otherwise OTLP/HTTP appends the signal's path.
    #[must_use]
    pub fn is_as_is(&self) -> bool {
        self.as_is
    }

    /// The URL that OTLP/HTTP posts to; `path` is the signal's, such as `v1development/profiles`.
    #[must_use]
    pub fn http_url(&self, path: &str) -> String {
        if self.as_is { self.url.clone() } else { format!("{}/{path}", self.url.trim_end_matches('/')) }
    }

    /// True for `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.starts_with("https://")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hide_secrets(&self.url))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", hide_secrets(&self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_ones_are_taken() {
        for right in [
            "http://localhost:4317",
            "https://otlp.example.com",
            "https://[::1]:4318/prefix/",
            "http://10.0.0.1:4318/v1development/profiles?tenant=x",
            "collector:4317",
            "collector",
        ] {
            assert!(Endpoint::parse(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn wrong_ones_are_refused_with_the_right_way() {
        for (wrong, word) in [
            ("", "empty"),
            ("grpc://collector:4317", "no scheme"),
            ("http://", "http"),
            ("http://:4317", "host"),
            ("http://a b:1", "URL"),
            ("http://collector:99999", "port"),
            ("http://collector:0", "port"),
            ("http://joe:geheim@collector:4317", "headers"),
        ] {
            let error = Endpoint::parse(wrong).expect_err(wrong);
            assert!(error.contains(word), "{wrong}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn queries_are_not_shown() {
        let endpoint = Endpoint::parse("http://collector:4318/p?token=geheim").expect("right");
        let shown = format!("{endpoint} {endpoint:?}");
        assert!(!shown.contains("geheim") && shown.contains("collector:4318/p"), "{shown}");
    }

    #[test]
    fn the_scheme_is_resolved_as_otlp_says() {
        let bare = Endpoint::parse("collector:4317").expect("right");
        let url = |insecure| bare.resolved(Protocol::Grpc, insecure, false).map(|endpoint| endpoint.url);
        assert_eq!(url(false).as_deref(), Ok("https://collector:4317"));
        assert_eq!(url(true).as_deref(), Ok("http://collector:4317"));
        assert!(
            bare.resolved(Protocol::HttpProtobuf, true, false).expect_err("no scheme").contains("http://collector")
        );
        let path = Endpoint::parse("http://collector:4318/x").expect("right");
        assert!(path.resolved(Protocol::Grpc, false, false).expect_err("a path").contains("http/protobuf"));
        let base = path.resolved(Protocol::HttpProtobuf, false, false).expect("right");
        assert_eq!(base.http_url("v1development/profiles"), "http://collector:4318/x/v1development/profiles");
        let as_is = path.resolved(Protocol::HttpProtobuf, false, true).expect("right");
        assert_eq!(as_is.http_url("v1development/profiles"), "http://collector:4318/x");
    }
}
