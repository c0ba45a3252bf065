//! A receiver's answer, read as far as one of OTLP can be long.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use profiler_http::{Body, BodyError, excerpt};

use super::outcome::bounded;

/// Bytes of an answer that are read; an answer of OTLP has a few.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// An answer, read to its end or to [`MAX_ANSWER`].
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: HeaderMap,
    pub(super) body: Bytes,
    /// There was more than is read.
    pub(super) is_cut: bool,
}

impl Answer {
    /// Reads what `response` has.
    pub(super) async fn read(response: Response<Body>) -> Result<Self, BodyError> {
        let (head, mut body) = response.into_parts();
        let (bytes, is_cut) = match body.whole(MAX_ANSWER).await {
            Ok(bytes) => (bytes, false),
            Err(BodyError::TooLong { .. }) => (body.taken(), true),
            Err(error) => return Err(error),
        };
        let trailers = body.trailers().clone();
        Ok(Self { status: head.status, headers: head.headers, trailers, body: bytes, is_cut })
    }

    /// The content type, lower case; "" if there is none.
    pub(super) fn content_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE).map(|value| excerpt(value.as_bytes()));
        value.unwrap_or_default().to_ascii_lowercase()
    }

    /// Status, content type and beginning, for an error.
    pub(super) fn described(&self) -> String {
        let status = self.status.as_u16();
        match (self.content_type().as_str(), excerpt(&self.body)) {
            (_, body) if body.is_empty() => format!("HTTP {status} without a text"),
            ("", body) => format!("HTTP {status}: {body:?}"),
            (content_type, body) => format!("HTTP {status} with {content_type}: {body:?}"),
        }
    }

    /// The delay in `Retry-After`, seconds or a date to come, at most 10 minutes. A date counts from the answer's own: the receiver's
    /// clock and ours may differ.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = |name| self.headers.get(name)?.to_str().ok().map(str::trim);
        let date = |text| httpdate::parse_http_date(text).ok();
        let after = text(header::RETRY_AFTER)?;
        if let Ok(seconds) = after.parse() {
            return Some(bounded(Duration::from_secs(seconds)));
        }
        let now = text(header::DATE).and_then(date).unwrap_or_else(SystemTime::now);
        date(after)?.duration_since(now).ok().map(bounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(headers: &[(header::HeaderName, &str)]) -> Option<Duration> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        Answer { headers, ..Answer::default() }.retry_after()
    }

    #[test]
    fn a_date_to_retry_after_counts_from_the_answers_own() {
        // Whatever time it is here.
        let date = (header::DATE, "Wed, 21 Oct 2015 07:28:00 GMT");
        let after = |text| [date.clone(), (header::RETRY_AFTER, text)];
        assert_eq!(delay(&after("Wed, 21 Oct 2015 07:28:07 GMT")), Some(Duration::from_secs(7)));
        assert_eq!(delay(&after("Fri, 21 Oct 2016 07:28:00 GMT")), Some(Duration::from_secs(600)));
        // One that is past is no leave to try at once, again and again.
        assert_eq!(delay(&after("Wed, 21 Oct 2015 07:27:59 GMT")), None);
        assert_eq!(delay(&[(header::RETRY_AFTER, "Wed, 21 Oct 2015 07:28:07 GMT")]), None);
        assert_eq!(delay(&after("3")), Some(Duration::from_secs(3)));
        assert_eq!(delay(&after("soon")), None);
    }
}
