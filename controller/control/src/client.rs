//! A client of the REST interface, for the command line.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use profiler_http::{Connection, Destination, Url, Version};
use profiler_receiver::{Secret, TlsOptions};
use serde_json::Value;

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;
/// How long a connection, and an answer, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and who speaks to it.
#[derive(Clone, Debug)]
pub struct Client {
    url: Url,
    tls: TlsOptions,
    token: Secret,
}

/// Why there is no answer, or none that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The URL of the server.
    #[error("{0:?} is no URL of a control server, such as http://127.0.0.1:4320: {1}")]
    Url(String, String),
    /// Anybody on the way could read the token, and change what is said.
    #[error(
        "{0} is not on this host, and the token would go there in plain text: write https://, or ask for it by --allow-plain-text"
    )]
    PlainText(String),
    /// No connection, or it broke.
    #[error("the control server does not answer: {0}; does `profiler control serve` run there?")]
    Connection(String),
    /// It said no.
    #[error("{text} (HTTP {status})")]
    Refused {
        /// HTTP's number.
        status: u16,
        /// Its reason.
        text: String,
    },
}

impl Client {
    /// A client of the server at `url`; of one on another host without TLS only if `allow_plain_text`.
    ///
    /// # Errors
    /// It is no URL, or has no TLS.
    pub fn new(url: &str, tls: TlsOptions, token: Secret, allow_plain_text: bool) -> Result<Self, ClientError> {
        let parsed = Url::parse(url, |_| 4320)
            .map_err(|problem| ClientError::Url(profiler_receiver::hide_secrets(url), problem))?;
        if !parsed.tls && !allow_plain_text && !is_this_host(&parsed.host) {
            return Err(ClientError::PlainText(parsed.shown()));
        }
        Ok(Self { url: parsed, tls, token })
    }

    /// Asks for `path`, which may have a query, with `body` if there is one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let asked = tokio::time::timeout(PATIENCE * 2, self.asked(method, path, body)).await;
        asked.unwrap_or_else(|_| Err(ClientError::Connection("it took too long".to_owned())))
    }

    async fn asked(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let failed = |problem: String| ClientError::Connection(problem);
        let to =
            Destination::new(self.url.clone(), Version::Http1, &self.tls).map_err(|error| failed(error.to_string()))?;
        let mut connection = Connection::open(&to, PATIENCE).await.map_err(failed)?;
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request =
            Request::builder().method(method).uri(path).body(bytes).map_err(|error| failed(error.to_string()))?;
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.token.expose()))
            .map_err(|_| failed("the token has characters that no token has".to_owned()))?;
        token.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, token);
        if body.is_some() {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let answer = connection.send(request).await.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        let bytes = answer.into_body().whole(MAX_ANSWER).await.map_err(|error| failed(error.to_string()))?;
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        if !status.is_success() {
            let text = value.as_ref().and_then(|value| value["error"].as_str()).map(str::to_owned);
            let text = text.unwrap_or_else(|| profiler_http::excerpt(&bytes));
            return Err(ClientError::Refused { status: status.as_u16(), text });
        }
        value.ok_or_else(|| failed("what it says is no JSON: is it a control server?".to_owned()))
    }
}

/// `text` as it may be in a path or a query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Whether what is sent to `host` does not leave this one.
fn is_this_host(host: &str) -> bool {
    let is_address = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    is_address || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_this_host_in_plain_text_only_if_somebody_asks_for_it() {
        let new = |url, allow| Client::new(url, TlsOptions::default(), Secret::new("profctl_1_00"), allow);
        for url in ["http://127.0.0.1:4320", "http://[::1]:4320", "http://LocalHost", "https://control.example.com"] {
            assert!(new(url, false).is_ok(), "{url}");
        }
        for url in
            ["http://control.example.com:4320", "http://10.0.0.1", "http://localhost.example.com", "http://0.0.0.0"]
        {
            let error = new(url, false).expect_err(url).to_string();
            assert!(error.contains("https://") && error.contains("--allow-plain-text"), "{error}");
            assert!(new(url, true).is_ok(), "{url}");
        }
    }
}
