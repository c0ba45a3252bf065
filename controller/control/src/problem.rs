//! What is not done, and why.

use http::StatusCode;

/// A request that is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// 400: it is wrong in itself.
    #[error("{0}")]
    Invalid(String),
    /// 401: nobody is named, or not rightly.
    #[error("no token, or none that is good here: send the header authorization: Bearer TOKEN")]
    Unauthorized,
    /// 403: the role does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// 404: there is no such thing.
    #[error("there is no {0}")]
    Missing(String),
    /// 405: not by this method.
    #[error("not by this method; {0} are")]
    Method(String),
    /// 409: something has changed meanwhile, or stands against it.
    #[error("{0}")]
    Conflict(String),
    /// 413.
    #[error("the request has more than {0} bytes")]
    TooLarge(usize),
    /// 500: the database, most likely.
    #[error("{0}")]
    Internal(String),
}

impl Problem {
    /// HTTP's number for it.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Internal(format!("the database failed: {error}"))
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::Invalid(format!("the request is not the JSON that it should be: {error}"))
    }
}
