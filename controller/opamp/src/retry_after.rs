//! The header `Retry-After`.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// The wait that `Retry-After` asks for, as seconds or as a date to come. A date counts from the answer's own date where there is one: the
/// clocks of both sides may differ.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text| httpdate::parse_http_date(text).ok();
    let after = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = text(header::DATE).and_then(date).unwrap_or(now);
    date(after)?.duration_since(now).ok()
}
