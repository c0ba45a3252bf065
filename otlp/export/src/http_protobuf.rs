//! OTLP/HTTP with binary protobuf.

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use profiler_http::excerpt;
use profiler_receiver::hide_secrets;
use prost::Message;

use super::{
    answer::Answer,
    outcome::{Outcome, PartialSuccess, Status, of_response},
    settings::Settings,
};
use crate::spool::Record;

/// Reasons, as [`outcome`] gives them.
pub(super) const REASONS: [&str; 12] = [
    "http 400",
    "http 401",
    "http 403",
    "http 404",
    "http 405",
    "http 413",
    "http 415",
    "http 500",
    "http 3xx",
    "http 4xx",
    "http 5xx",
    "http unknown status",
];

/// The request that exports `record`.
pub(super) fn request(settings: &Settings, record: &Record) -> http::Result<Request<Bytes>> {
    let mut request = Request::post(settings.destination.url.path.as_str()).body(record.bytes.clone())?;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    headers.extend(settings.headers.clone());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if let Some(name) = record.compression.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Ok(request)
}

/// What `answer` means.
pub(super) fn outcome(answer: &Answer) -> Outcome {
    let described = || match Status::decode(answer.body.as_ref()) {
        Ok(status) if answer.content_type().starts_with("application/x-protobuf") && !status.message.is_empty() => {
            format!("HTTP {}: {}", answer.status.as_u16(), excerpt(status.message.as_bytes()))
        }
        _ => answer.described(),
    };
    match answer.status.as_u16() {
        200..=299 => success(answer),
        429 | 502..=504 => Outcome::Retry { error: described(), after: answer.retry_after() },
        413 => Outcome::TooLarge { reason: "http 413", error: described() },
        300..=399 => {
            // Without the body, which repeats the target, and without the target's secrets.
            let to = answer.headers.get(header::LOCATION).map(HeaderValue::as_bytes).unwrap_or_default();
            let to = excerpt(hide_secrets(&String::from_utf8_lossy(to)).as_bytes());
            let status = answer.status.as_u16();
            let error = format!("HTTP {status}, redirects to {to:?}; if that is right, make it the endpoint");
            Outcome::Refused { reason: "http 3xx", error }
        }
        status => {
            let hint = match status {
                404 | 405 => {
                    "; the receiver takes no profiles at this path (the Collector needs 0.148 or newer and \
                              --feature-gates=service.profilesSupport)"
                }
                401 | 403 => "; the headers lack what authorizes, or it is wrong",
                415 => "; the receiver does not take this compression or protobuf",
                _ => "",
            };
            Outcome::Refused { reason: reason(status), error: format!("{}{hint}", described()) }
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "http 400",
        401 => "http 401",
        403 => "http 403",
        404 => "http 404",
        405 => "http 405",
        415 => "http 415",
        500 => "http 500",
        _ if status / 100 == 4 => "http 4xx",
        _ if status / 100 == 5 => "http 5xx",
        _ => "http unknown status",
    }
}

fn success(answer: &Answer) -> Outcome {
    let content_type = answer.content_type();
    match content_type.split(';').next().unwrap_or("").trim() {
        // Servers that accept without a word.
        _ if answer.body.is_empty() => of_response(&[]),
        "application/x-protobuf" | "application/protobuf" | "" => of_response(&answer.body),
        "application/json" => of_json(&answer.body),
        _ => Outcome::not_otlp(format!("{}; this is no OTLP receiver, or not its path", answer.described())),
    }
}

/// The answer of servers that always speak JSON; numbers of 64 bits may be strings there.
fn of_json(body: &[u8]) -> Outcome {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Outcome::not_otlp(format!("the answer is no JSON: {:?}", excerpt(body)));
    };
    let Some(partial) = answer.get("partialSuccess") else { return Outcome::Delivered(None) };
    let rejected = partial.get("rejectedProfiles");
    let rejected = rejected.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok())).unwrap_or(0);
    let message = partial.get("errorMessage").and_then(serde_json::Value::as_str).unwrap_or("");
    let message = excerpt(message.as_bytes());
    let partial = PartialSuccess { rejected_profiles: rejected, message };
    Outcome::Delivered((rejected > 0 || !partial.message.is_empty()).then_some(partial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn of(status: u16, content_type: &'static str, body: &'static [u8]) -> Outcome {
        let mut answer =
            Answer { status: StatusCode::from_u16(status).unwrap(), body: body.into(), ..Answer::default() };
        answer.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        outcome(&answer)
    }

    #[test]
    fn statuses_are_retried_as_the_specification_says() {
        let retried: Vec<u16> =
            (200..600).filter(|&status| matches!(of(status, "", b""), Outcome::Retry { .. })).collect();
        assert_eq!(retried, [429, 502, 503, 504]);
        assert!(matches!(of(413, "", b""), Outcome::TooLarge { .. }));
        assert!(matches!(of(500, "", b""), Outcome::Refused { reason: "http 500", .. }));
        assert!(matches!(of(302, "", b""), Outcome::Refused { reason: "http 3xx", .. }));
    }

    #[test]
    fn success_needs_an_answer_of_otlp() {
        assert_eq!(of(200, "application/x-protobuf", b""), Outcome::Delivered(None));
        assert_eq!(of(202, "text/plain", b""), Outcome::Delivered(None));
        assert_eq!(of(200, "application/json; charset=utf-8", b"{}"), Outcome::Delivered(None));
        let partial = of(200, "application/json", br#"{"partialSuccess":{"rejectedProfiles":"3","errorMessage":"x"}}"#);
        let expected = PartialSuccess { rejected_profiles: 3, message: "x".to_owned() };
        assert_eq!(partial, Outcome::Delivered(Some(expected)));
        for (content_type, body) in [
            ("text/html", &b"<html>log in"[..]),
            ("application/x-protobuf", b"<html>"),
            ("application/json", b"<html>"),
        ] {
            let Outcome::Refused { reason, error } = of(200, content_type, body) else { panic!("{content_type}") };
            assert_eq!(reason, super::super::outcome::NOT_OTLP);
            assert!(error.contains("<html>"), "{error}");
        }
    }

    #[test]
    fn an_error_shows_the_message_of_its_status() {
        // Status { message: "bad sample" }
        let Outcome::Refused { error, .. } = of(400, "application/x-protobuf", b"\x12\x0abad sample") else { panic!() };
        assert_eq!(error, "HTTP 400: bad sample");
    }
}
