//! Requests as they are: for who edits a file of any producer and leaves the rest of it alone.

use std::io::{self, Write};

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message;

use super::{json, schema::REQUEST};
use crate::{error::Error, wire::decompressed};

/// The requests of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Messages {
    /// One, or in JSON several, one after the other.
    pub requests: Vec<ExportProfilesServiceRequest>,
    /// Whether they are in JSON.
    pub json: bool,
}

/// Reads the requests of a file in protobuf or JSON, raw or gzipped.
///
/// # Errors
///
/// As [`decode`](super::decode): what is too large, malformed, or of another version of OTLP, which a rewritten file would misquote.
pub fn messages(bytes: &[u8]) -> Result<Messages, Error> {
    let raw = decompressed(bytes)?;
    let mut requests = Vec::new();
    let mut one = |bytes: &[u8]| {
        REQUEST.check(bytes)?;
        requests.push(
            ExportProfilesServiceRequest::decode(bytes).map_err(|error| Error::malformed("OTLP request", error))?,
        );
        Ok(())
    };
    let json = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&raw).trim_ascii_start().starts_with(b"{");
    if json {
        json::read(&raw, one)?;
    } else {
        one(&raw)?;
    }
    Ok(Messages { requests, json })
}

/// Writes `request` to `out` in JSON and the end of a line. Errors are those of `out`.
pub fn write_message_json(request: &ExportProfilesServiceRequest, mut out: impl Write) -> io::Result<()> {
    json::write(&REQUEST, &request.encode_to_vec(), &mut out)?;
    writeln!(out)?;
    out.flush()
}
