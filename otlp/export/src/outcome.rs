//! What a receiver's answer means for the request.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use profiler_http::excerpt;
use prost::Message;

/// The longest delay that a receiver can ask for; more than this is a mistake or malice.
const MAX_DELAY: Duration = Duration::from_secs(600);

/// Reason of what was sent to something that is no receiver of OTLP profiles.
pub(super) const NOT_OTLP: &str = "not an OTLP receiver";
/// Reason of an answer that is larger than a client has to read.
pub(super) const ANSWER_TOO_LARGE: &str = "answer too large";

/// Reason of a request that cannot be made, which is a bug.
pub(super) const INTERNAL: &str = "internal";

/// What is to be done with the request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Delivered(Option<PartialSuccess>),
    /// The same again, later.
    Retry {
        error: String,
        /// The wait that the receiver asks for.
        after: Option<Duration>,
    },
    /// In smaller parts.
    TooLarge { reason: &'static str, error: String },
    /// Never again.
    Refused { reason: &'static str, error: String },
}

impl Outcome {
    pub(super) fn retry(error: impl Into<String>) -> Self {
        Self::Retry { error: error.into(), after: None }
    }

    pub(super) fn not_otlp(error: String) -> Self {
        Self::Refused { reason: NOT_OTLP, error }
    }
}

/// A receiver took a request, but has something to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartialSuccess {
    /// Profiles that it refused.
    pub(super) rejected_profiles: u64,
    pub(super) message: String,
}

/// The outcome that an `ExportProfilesServiceResponse` means.
pub(super) fn of_response(bytes: &[u8]) -> Outcome {
    match ExportProfilesServiceResponse::decode(bytes) {
        Ok(response) => Outcome::Delivered(response.partial_success.and_then(|partial| {
            let rejected_profiles = u64::try_from(partial.rejected_profiles).unwrap_or(0);
            let message = excerpt(partial.error_message.as_bytes());
            (rejected_profiles > 0 || !message.is_empty()).then_some(PartialSuccess { rejected_profiles, message })
        })),
        Err(_) => Outcome::not_otlp(format!("the answer is no ExportProfilesServiceResponse: {:?}", excerpt(bytes))),
    }
}

/// `google.rpc.Status`: `grpc-status-details-bin`, and the body of an HTTP answer that is an error.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// The delay of the first `RetryInfo`, at most 10 minutes; zero if it does not say.
    pub(super) fn retry_delay(&self) -> Option<Duration> {
        let details = self.details.iter().filter(|any| any.type_url.ends_with("/google.rpc.RetryInfo"));
        let info = details.filter_map(|any| RetryInfo::decode(any.value.as_slice()).ok()).next()?;
        let delay = info.retry_delay.unwrap_or_default();
        let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
        let nanos = Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0));
        Some(bounded(seconds.saturating_add(nanos)))
    }
}

/// `delay`, at most 10 minutes.
pub(super) fn bounded(delay: Duration) -> Duration {
    delay.min(MAX_DELAY)
}
