//! URLs that can be connected to.

use http::{
    Uri,
    uri::{Authority, PathAndQuery},
};
use profiler_receiver::hide_secrets;

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub tls: bool,
    /// Host without the brackets of an IPv6 address.
    pub host: String,
    /// Port, as written or by default.
    pub port: u16,
    /// Host, in brackets where it is an IPv6 address, and port.
    pub authority: Authority,
    /// Path and query; `/` if there are none.
    pub path: PathAndQuery,
}

impl Url {
    /// Takes `text` apart; where it has no port, that is `default_port` of whether it is `https`.
    ///
    /// # Errors
    /// What is wrong and what would be right, to be put after the URL; without what may be a secret.
    pub fn parse(text: &str, default_port: impl Fn(bool) -> u16) -> Result<Self, String> {
        let text = text.trim();
        let Some((scheme, _)) = text.split_once("://") else {
            let shown = hide_secrets(text);
            return Err(format!("has no scheme; write http://{shown} or, with TLS, https://{shown}"));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(format!("has the scheme {other:?}; http:// and https:// can be sent to")),
        };
        let uri: Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user name or password; put them into a header (authorization: ...)".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("names no host".to_owned());
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => {
                digits.parse().ok().filter(|&port| port != 0).ok_or("has no port from 1 to 65535")?
            }
            _ => default_port(tls),
        };
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = Authority::try_from(format!("{bracketed}:{port}"));
        let authority = authority.map_err(|error| format!("has a host that is none: {error}"))?;
        let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        Ok(Self { tls, host, port, authority, path })
    }

    /// For logs: the path and above all the query may be a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let parsed = |text| {
            let url = Url::parse(text, |tls| if tls { 443 } else { 80 })?;
            Ok::<_, String>((url.shown(), url.host, url.port, url.path.to_string()))
        };
        let of =
            |shown: &str, host: &str, port, path: &str| Ok((shown.to_owned(), host.to_owned(), port, path.to_owned()));
        assert_eq!(parsed("http://h"), of("http://h:80", "h", 80, "/"));
        assert_eq!(parsed(" HTTPS://h/a?b=c "), of("https://h:443", "h", 443, "/a?b=c"));
        assert_eq!(parsed("https://[fd00::1]"), of("https://[fd00::1]:443", "fd00::1", 443, "/"));
        assert_eq!(parsed("https://[fd00::1]:6443/x"), of("https://[fd00::1]:6443", "fd00::1", 6443, "/x"));
        for (text, problem) in [
            ("h:1", "write http://h:1 or"),
            ("u:hunter2@h", "no scheme"),
            ("http://u:hunter2@h", "put them into a header"),
            ("unix:///run/x", "http:// and https:// can be sent to"),
            ("http://h:0", "no port from 1 to 65535"),
            ("http://h:65536", "port"),
            ("http://:80", "host"),
            ("http://", "is no URL"),
            ("", "no scheme"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(problem) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
