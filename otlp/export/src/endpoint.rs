//! Where requests go.

use profiler_http::Url;
use profiler_receiver::hide_secrets;

use super::{
    error::Error,
    options::{ExporterOptions, Protocol},
};

/// The method that exports profiles.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
/// The path that a base URL gets.
pub(super) const HTTP_PATH: &str = "v1development/profiles";

/// The URL that requests of profiles go to, their path included.
pub(super) fn parse(options: &ExporterOptions) -> Result<Url, Error> {
    let wrong = |problem: String| Error::Endpoint { endpoint: hide_secrets(options.endpoint.trim()), problem };
    let mut url = Url::parse(&options.endpoint, |_| match options.protocol {
        Protocol::Grpc => 4317,
        Protocol::HttpProtobuf => 4318,
    })
    .map_err(wrong)?;
    let path = match options.protocol {
        Protocol::Grpc if url.path.path() != "/" || url.path.query().is_some() => {
            let problem = "has a path, which gRPC has no use for; leave it out, or choose the protocol http/protobuf";
            return Err(wrong(problem.to_owned()));
        }
        Protocol::Grpc => GRPC_PATH.to_owned(),
        Protocol::HttpProtobuf if options.endpoint_is_complete => return Ok(url),
        Protocol::HttpProtobuf if url.path.query().is_some() => {
            return Err(wrong("has a query, which a base URL cannot have".to_owned()));
        }
        Protocol::HttpProtobuf => format!("{}/{HTTP_PATH}", url.path.path().trim_end_matches('/')),
    };
    url.path = path.parse().map_err(|error| wrong(format!("has a path that is none: {error}")))?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(endpoint: &str, protocol: Protocol, complete: bool) -> Result<(bool, String, u16, String), String> {
        let endpoint = endpoint.to_owned();
        let options = ExporterOptions { endpoint, protocol, endpoint_is_complete: complete, ..Default::default() };
        match parse(&options) {
            Ok(url) => Ok((url.tls, url.host, url.port, url.path.to_string())),
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
