//! OTLP/gRPC: one unary call is one HTTP/2 request whose body is a flag, a length and the message
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::{io::Read, time::Duration};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use percent_encoding::percent_decode;
use profiler_http::excerpt;
use prost::Message;

use super::{
    answer::{Answer, MAX_ANSWER},
    outcome::{Outcome, Status, of_response},
    settings::Settings,
};
use crate::spool::Record;

/// Details come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Names of the codes, from 0.
pub(super) const CODES: [&str; 17] = [
    "grpc OK",
    "grpc CANCELLED",
    "grpc UNKNOWN",
    "grpc INVALID_ARGUMENT",
    "grpc DEADLINE_EXCEEDED",
    "grpc NOT_FOUND",
    "grpc ALREADY_EXISTS",
    "grpc PERMISSION_DENIED",
    "grpc RESOURCE_EXHAUSTED",
    "grpc FAILED_PRECONDITION",
    "grpc ABORTED",
    "grpc OUT_OF_RANGE",
    "grpc UNIMPLEMENTED",
    "grpc INTERNAL",
    "grpc UNAVAILABLE",
    "grpc DATA_LOSS",
    "grpc UNAUTHENTICATED",
];
/// Of a code that is none of them.
pub(super) const UNKNOWN_CODE: &str = "grpc unknown code";
const UNKNOWN: usize = 2;
const PERMISSION_DENIED: usize = 7;
const RESOURCE_EXHAUSTED: usize = 8;
const OUT_OF_RANGE: usize = 11;
const UNIMPLEMENTED: usize = 12;
const INTERNAL: usize = 13;
const UNAVAILABLE: usize = 14;
const UNAUTHENTICATED: usize = 16;
/// CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
const RETRYABLE: [usize; 6] = [1, 4, 10, OUT_OF_RANGE, UNAVAILABLE, 15];

/// The call that exports `record`.
pub(super) fn request(settings: &Settings, record: &Record, timeout: Duration) -> http::Result<Request<Bytes>> {
    let mut body = Vec::with_capacity(record.bytes.len() + 5);
    body.push(u8::from(record.compression.name().is_some()));
    // The length of a request is bounded far below this by its maximum.
    body.extend(u32::try_from(record.bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(&record.bytes);
    let mut request = Request::post(settings.destination.url.path.as_str()).body(Bytes::from(body))?;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    headers.extend(settings.headers.clone());
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
    // At most eight digits.
    let timeout = format!("{}m", timeout.as_millis().clamp(1, 99_999_999));
    headers.insert("grpc-timeout", HeaderValue::try_from(timeout)?);
    if let Some(name) = record.compression.name() {
        headers.insert("grpc-encoding", HeaderValue::from_static(name));
    }
    Ok(request)
}

/// The status in trailers, or in the headers of an answer without a body.
fn status(answer: &Answer) -> Option<(usize, String, Option<Status>)> {
    let code_of = |headers: &HeaderMap| -> Option<usize> { headers.get("grpc-status")?.to_str().ok()?.parse().ok() };
    let headers = if code_of(&answer.trailers).is_some() { &answer.trailers } else { &answer.headers };
    let code = code_of(headers)?;
    let details = headers.get("grpc-status-details-bin").and_then(|value| BASE64.decode(value.as_bytes()).ok());
    let details = details.and_then(|bytes| Status::decode(bytes.as_slice()).ok());
    let message = headers.get("grpc-message").map(|value| percent_decode(value.as_bytes()).collect::<Vec<u8>>());
    Some((code, excerpt(&message.unwrap_or_default()), details))
}

/// What `answer` means.
pub(super) fn outcome(answer: &Answer) -> Outcome {
    if let Some((code, message, details)) = status(answer) {
        return if code == 0 { success(answer) } else { failure(code, &message, details.as_ref()) };
    }
    let http = answer.status.as_u16();
    if http == 200 && !answer.content_type().starts_with("application/grpc") {
        return Outcome::not_otlp(format!("{}; this is no gRPC receiver", answer.described()));
    }
    // https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
    let code = match http {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    };
    match failure(code, &answer.described(), None) {
        Outcome::Retry { error, .. } => Outcome::Retry { error, after: answer.retry_after() },
        other => other,
    }
}

fn failure(code: usize, message: &str, details: Option<&Status>) -> Outcome {
    let reason = CODES.get(code).copied().unwrap_or(UNKNOWN_CODE);
    let after = details.and_then(Status::retry_delay);
    let error = match code {
        UNIMPLEMENTED => format!(
            "{reason}: {message}; the receiver has no profiles service of proto v1development (the Collector needs 0.148 or \
             newer and --feature-gates=service.profilesSupport)"
        ),
        _ => format!("{reason}: {message}"),
    };
    if matches!(code, RESOURCE_EXHAUSTED | OUT_OF_RANGE) && after.is_none() && speaks_of_size(message) {
        return Outcome::TooLarge { reason, error };
    }
    let retryable = RETRYABLE.contains(&code) || code == RESOURCE_EXHAUSTED && after.is_some();
    if retryable { Outcome::Retry { error, after } } else { Outcome::Refused { reason, error } }
}

/// The words of grpc-go, grpc-java, gRPC core and tonic for a message over their limit.
fn speaks_of_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let known = ["larger than max", "exceeds maximum size", "message length too large", "exceeded while decompressing"];
    known.iter().any(|words| message.contains(words))
}

fn success(answer: &Answer) -> Outcome {
    let message = match answer.body.split_first_chunk::<5>() {
        // Some proxies end a call well without a message.
        None if answer.body.is_empty() => return of_response(&[]),
        Some(([0, length @ ..], rest)) if u32::from_be_bytes(*length) as usize <= rest.len() => Some(rest.to_vec()),
        Some(([1, length @ ..], rest)) if u32::from_be_bytes(*length) as usize <= rest.len() => gunzipped(rest),
        _ => None,
    };
    match message {
        Some(message) => of_response(&message),
        None => Outcome::not_otlp("the answer is no gRPC message".to_owned()),
    }
}

fn gunzipped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(MAX_ANSWER as u64).read_to_end(&mut raw).ok()?;
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Any;

    /// The outcome of an answer with a status and, if there is one, the bytes of a `RetryInfo`.
    fn of(code: usize, message: &str, retry_info: Option<&[u8]>) -> Outcome {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", message.parse().unwrap());
        if let Some(value) = retry_info {
            let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: value.to_vec() };
            let status = Status { code: 8, message: String::new(), details: vec![any] };
            let text = base64::prelude::BASE64_STANDARD_NO_PAD.encode(status.encode_to_vec());
            trailers.insert("grpc-status-details-bin", text.parse().unwrap());
        }
        outcome(&Answer { trailers, ..Answer::default() })
    }

    #[test]
    fn codes_are_retried_as_the_specification_says() {
        let retried = |code| matches!(of(code, "no", None), Outcome::Retry { .. });
        let codes: Vec<usize> = (1..20).filter(|&code| retried(code)).collect();
        assert_eq!(codes, [1, 4, 10, 11, 14, 15]);
        assert!(matches!(of(3, "no", None), Outcome::Refused { reason: "grpc INVALID_ARGUMENT", .. }));
    }

    #[test]
    fn resource_exhausted_is_retried_only_with_retry_info() {
        assert!(matches!(of(8, "no", None), Outcome::Refused { reason: "grpc RESOURCE_EXHAUSTED", .. }));
        // RetryInfo { retry_delay: { seconds: 7, nanos: 500000000 } }
        let seven_and_a_half = [0x0a, 0x08, 0x08, 0x07, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01];
        let Outcome::Retry { after, .. } = of(8, "no", Some(&seven_and_a_half)) else { panic!() };
        assert_eq!(after, Some(Duration::from_millis(7500)));
        let Outcome::Retry { after, .. } = of(8, "no", Some(&[])) else { panic!() };
        assert_eq!(after, Some(Duration::ZERO));
        // A year.
        let Outcome::Retry { after, .. } = of(14, "no", Some(&[0x0a, 0x05, 0x08, 0x80, 0xe7, 0x84, 0x0f])) else {
            panic!()
        };
        assert_eq!(after, Some(Duration::from_secs(600)));
    }

    #[test]
    fn refusals_for_size_are_known_by_their_words() {
        for (code, message) in [
            (8, "grpc: received message larger than max (5242880 vs. 4194304)"),
            (8, "grpc: received message after decompression larger than max 4194304"),
            (8, "gRPC message exceeds maximum size 4194304: 5242880"),
            (8, "Error decompressing: size limit, of 4 bytes, exceeded while decompressing message"),
            (11, "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes"),
        ] {
            assert!(matches!(of(code, message, None), Outcome::TooLarge { .. }), "{message}");
        }
    }

    #[test]
    fn a_status_is_read_whatever_its_message_and_details_are() {
        for (message, expected) in [
            ("a%20b%C3%BC%", "grpc UNAVAILABLE: a bü%"),
            ("%zz%4", "grpc UNAVAILABLE: %zz%4"),
            ("%+1", "grpc UNAVAILABLE: %+1"),
            ("%FF", "grpc UNAVAILABLE: \u{fffd}"),
        ] {
            let Outcome::Retry { error, after: None } = of(14, message, None) else { panic!("{message}") };
            assert_eq!(error, expected);
        }
        for details in ["%", "no base64!", "AAAA", "A", "CAgSBHdhaXQ"] {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", 14.into());
            trailers.insert("grpc-status-details-bin", details.parse().unwrap());
            let outcome = outcome(&Answer { trailers, ..Answer::default() });
            assert!(matches!(outcome, Outcome::Retry { after: None, .. }), "{details}: {outcome:?}");
        }
    }
}
