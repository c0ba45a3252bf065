//! Where requests go.

use http::{Uri, uri::PathAndQuery};
use profiler_receiver::hide_secrets;

use super::{
    error::Error,
    options::{ExporterOptions, Protocol},
};

/// The method that exports profiles.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
/// The path that a base URL gets.
pub(super) const HTTP_PATH: &str = "v1development/profiles";

/// An endpoint, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) tls: bool,
    /// Host without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as in the URL.
    pub(super) authority: String,
    pub(super) path: PathAndQuery,
}

impl Endpoint {
    pub(super) fn parse(options: &ExporterOptions) -> Result<Self, Error> {
        let text = options.endpoint.trim();
        let shown = hide_secrets(text);
        let wrong = |problem: &str| Error::Endpoint { endpoint: shown.clone(), problem: problem.to_owned() };
        let Some((scheme, _)) = text.split_once("://") else {
            let problem = format!("has no scheme; write http://{shown} or, with TLS, https://{shown}");
            return Err(wrong(&problem));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(wrong(&format!("has the scheme {other:?}; http:// and https:// can be sent to"))),
        };
        let uri: Uri = text.parse().map_err(|error| wrong(&format!("is no URL: {error}")))?;
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user name or password; put them into a header (authorization: ...)"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let default_port = match options.protocol {
            Protocol::Grpc => 4317,
            Protocol::HttpProtobuf => 4318,
        };
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => {
                digits.parse().ok().filter(|&port| port != 0).ok_or_else(|| wrong("has no port from 1 to 65535"))?
            }
            _ => default_port,
        };
        let path = match options.protocol {
            Protocol::Grpc if !matches!(uri.path(), "" | "/") || uri.query().is_some() => {
                let problem =
                    "has a path, which gRPC has no use for; leave it out, or choose the protocol http/protobuf";
                return Err(wrong(problem));
            }
            Protocol::Grpc => GRPC_PATH.to_owned(),
            Protocol::HttpProtobuf if options.endpoint_is_complete => {
                uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned()
            }
            Protocol::HttpProtobuf if uri.query().is_some() => {
                return Err(wrong("has a query, which a base URL cannot have"));
            }
            Protocol::HttpProtobuf => format!("{}/{HTTP_PATH}", uri.path().trim_end_matches('/')),
        };
        let path = path.parse().map_err(|error| wrong(&format!("has a path that is none: {error}")))?;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Ok(Self { tls, authority: format!("{bracketed}:{port}"), host, port, path })
    }

    /// For logs.
    pub(super) fn shown(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(endpoint: &str, protocol: Protocol, complete: bool) -> Result<(bool, String, u16, String), String> {
        let endpoint = endpoint.to_owned();
        let options = ExporterOptions { endpoint, protocol, endpoint_is_complete: complete, ..Default::default() };
        match Endpoint::parse(&options) {
            Ok(endpoint) => Ok((endpoint.tls, endpoint.host, endpoint.port, endpoint.path.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_base_url_gets_the_path_of_the_signal_and_a_complete_one_does_not() {
        use Protocol::{Grpc, HttpProtobuf as Http};
        let of = |host: &str, port, path: &str| Ok((false, host.to_owned(), port, path.to_owned()));
        assert_eq!(parsed("http://localhost", Http, false), of("localhost", 4318, "/v1development/profiles"));
        assert_eq!(parsed("http://h:1/", Http, false), of("h", 1, "/v1development/profiles"));
        assert_eq!(parsed("http://h:1/otlp/", Http, false), of("h", 1, "/otlp/v1development/profiles"));
        assert_eq!(parsed("http://h:1/a?b=c", Http, true), of("h", 1, "/a?b=c"));
        assert_eq!(parsed("http://h", Http, true), of("h", 4318, "/"));
        assert_eq!(parsed("http://[::1]:5", Grpc, false), of("::1", 5, GRPC_PATH));
        assert_eq!(parsed("HTTP://[::1]", Grpc, false), of("::1", 4317, GRPC_PATH));
        assert!(parsed("https://h", Grpc, false).unwrap().0);
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_the_way_out_and_no_secret() {
        for (endpoint, expected) in [
            ("localhost:4317", "write http://localhost:4317"),
            ("ftp://h", "http:// and https:// can be sent to"),
            ("http://user:hunter2@h", "put them into a header"),
            ("user:hunter2@h", "no scheme"),
            ("http://h:0", "no port from 1 to 65535"),
            ("http://h:70000", "port"),
            ("http://", "is no URL"),
            ("http://h/path", "leave it out, or choose"),
            ("", "no scheme"),
        ] {
            let error = parsed(endpoint, Protocol::Grpc, false).unwrap_err();
            assert!(error.contains(expected), "{endpoint}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
