//! Headers of every request, from the options and from a file.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{error::Error, options::ExporterOptions};

/// Headers that the protocols set.
const RESERVED: &[&str] =
    &["connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"];

fn name(text: &str) -> Result<HeaderName, &'static str> {
    let name: HeaderName = text.trim().parse().map_err(|_| "has a name that HTTP does not allow")?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
        return Err("is set by the protocol itself; leave it out");
    }
    if name.as_str().ends_with("-bin") {
        return Err("is binary metadata of gRPC, which is not supported");
    }
    Ok(name)
}

fn value(text: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "has a value that HTTP does not allow")?;
    value.set_sensitive(true);
    Ok(value)
}

/// All headers, those of the file last and so in force.
pub(super) fn headers(options: &ExporterOptions) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (key, secret) in &options.headers {
        let wrong = |problem| Error::Header { name: key.clone(), problem };
        headers.append(name(key).map_err(wrong)?, value(secret.expose()).map_err(wrong)?);
    }
    if let Some(path) = &options.headers_file {
        let mut of_file = HeaderMap::new();
        read(path, &mut of_file)?;
        for key in of_file.keys() {
            headers.remove(key);
        }
        for (key, value) in &of_file {
            headers.append(key.clone(), value.clone());
        }
    }
    Ok(headers)
}

fn read(path: &Path, headers: &mut HeaderMap) -> Result<(), Error> {
    let bytes = profiler_http::read(path).map_err(|source| Error::Read {
        what: "headers file",
        path: path.to_owned(),
        source,
    })?;
    for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem| Error::HeadersFile { path: path.to_owned(), line: index + 1, problem };
        let (key, text) = line.split_once(':').ok_or_else(|| wrong("is not \"name: value\""))?;
        headers.append(name(key).map_err(wrong)?, value(text.trim()).map_err(wrong)?);
    }
    Ok(())
}
