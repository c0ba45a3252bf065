//! Options, resolved: what the sender works with, and what it reads again.

use http::HeaderMap;
use profiler_http::{Destination, Version, Watched};
use tracing::{info, warn};

use super::{
    endpoint,
    error::Error,
    headers::headers,
    options::{ExporterOptions, Protocol, TlsOptions},
};

/// Options that have been checked, with the files that they name.
pub(super) struct Settings {
    pub(super) options: ExporterOptions,
    /// The receiver, with the path of the signal.
    pub(super) destination: Destination,
    pub(super) headers: HeaderMap,
    tls_files: Watched,
    headers_files: Watched,
}

fn out_of_range(option: &'static str, problem: impl Into<String>) -> Error {
    Error::Option { option, problem: problem.into() }
}

fn check(options: &ExporterOptions) -> Result<(), Error> {
    if options.timeout.is_zero() {
        return Err(out_of_range("timeout", "is 0, in which nothing can be sent; the default is 10 s"));
    }
    if options.max_request_bytes < 4096 {
        return Err(out_of_range(
            "max_request_bytes",
            "is less than 4096, which few samples fit in; the default is 4 MiB",
        ));
    }
    if options.max_request_bytes > profiler_formats::wire::MAX_BYTES {
        return Err(out_of_range("max_request_bytes", "is more than 512 MiB, which no receiver takes"));
    }
    let retry = &options.retry;
    if !(retry.multiplier.is_finite() && retry.multiplier >= 1.0) {
        return Err(out_of_range("retry.multiplier", "is not a number of at least 1; the default is 1.5"));
    }
    if !(0.0..=1.0).contains(&retry.randomization) {
        return Err(out_of_range("retry.randomization", "is not from 0 to 1; the default is 0.5"));
    }
    if retry.initial_interval.is_zero() || retry.max_interval < retry.initial_interval {
        let problem = "has to be more than 0 and at most retry.max_interval; the defaults are 5 s and 30 s";
        return Err(out_of_range("retry.initial_interval", problem));
    }
    if let Some(spool) = &options.spool {
        let least = (2 * options.max_request_bytes as u64).max(1 << 20);
        if spool.max_bytes < least {
            let problem =
                format!("is {} bytes; it has to hold two requests at least: {least} or more", spool.max_bytes);
            return Err(out_of_range("spool.max_bytes", problem));
        }
    }
    Ok(())
}

/// The HTTP that OTLP's transports are made of.
fn version(protocol: Protocol) -> Version {
    match protocol {
        Protocol::Grpc => Version::Http2,
        Protocol::HttpProtobuf => Version::Http1,
    }
}

impl Settings {
    pub(super) fn new(options: ExporterOptions) -> Result<Self, Error> {
        check(&options)?;
        let url = endpoint::parse(&options)?;
        let name = &options.name;
        if !url.tls && options.tls != TlsOptions::default() {
            warn!(exporter = name, endpoint = url.shown(), "TLS options have no effect on http://; write https://");
        }
        if url.tls && options.tls.insecure_skip_verify {
            warn!(
                exporter = name,
                "The receiver's certificate is not verified; anyone on the way can read what is sent"
            );
        }
        let files = [&options.tls.ca_file, &options.tls.cert_file, &options.tls.key_file];
        // Seen before they are read: what changes in between is read once more.
        let tls_files = Watched::new(files.into_iter().flatten().filter(|_| url.tls).cloned());
        let headers_files = Watched::new(options.headers_file.clone());
        let destination = Destination::new(url, version(options.protocol), &options.tls)?;
        let destination = destination.only_trusted(options.only_trusted);
        let headers = headers(&options)?;
        Ok(Self { options, destination, headers, tls_files, headers_files })
    }

    /// Whether certificate files are not as they were when they were last read.
    pub(super) fn wants_refresh(&self) -> bool {
        self.tls_files.differs()
    }

    /// Reads files again that changed, and says which of them are new. What cannot be used leaves the former in place.
    pub(super) fn refresh(&mut self) -> Refreshed {
        let exporter = &self.options.name;
        let mut refreshed = Refreshed::default();
        if self.headers_files.changed() {
            match headers(&self.options) {
                Ok(found) => {
                    info!(exporter, "The headers file changed and was read again");
                    self.headers = found;
                    refreshed.headers = true;
                }
                Err(error) => {
                    warn!(exporter, %error, "The headers file changed but cannot be used; the former headers stay")
                }
            }
        }
        if !self.tls_files.changed() {
            return refreshed;
        }
        match Destination::new(self.destination.url.clone(), version(self.options.protocol), &self.options.tls) {
            Ok(destination) => {
                info!(exporter, "Certificate files changed and were read again");
                self.destination = destination.only_trusted(self.options.only_trusted);
                refreshed.certificates = true;
            }
            Err(error) => {
                warn!(exporter, %error, "Certificate files changed but cannot be used; the former ones stay");
            }
        }
        refreshed
    }

    /// As they are now, for good: somebody else looks at the files.
    pub(super) fn fixed(mut self) -> Self {
        (self.tls_files, self.headers_files) = (Watched::default(), Watched::default());
        self
    }
}

/// Which files were read again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refreshed {
    /// Connections are to be made anew.
    pub(super) certificates: bool,
    pub(super) headers: bool,
}
