//! The body of an answer, read within bounds.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{metered::Allowance, text::chain};

/// A body that is no more of use: of it, what came before is still there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// There is more than may be kept.
    #[error("the answer has more than {limit} bytes")]
    TooLong {
        /// What may be kept, bytes.
        limit: usize,
    },
    /// The connection failed.
    #[error("the connection failed within the answer: {0}")]
    BrokenOff(String),
}

/// The body of an answer: what came and was not taken yet, and what is to come.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    buffer: BytesMut,
    /// How much of `buffer` holds no end of a line.
    scanned: usize,
    trailers: HeaderMap,
    allowance: Allowance,
}

impl Body {
    pub(super) fn new(incoming: Incoming, allowance: Allowance) -> Self {
        Self { incoming, allowance, buffer: BytesMut::new(), scanned: 0, trailers: HeaderMap::new() }
    }

    /// All of it, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn whole(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        while self.more(limit).await? {}
        Ok(self.taken())
    }

    /// The next line with its end, of at most `limit` bytes; `None` at the end, where what is no whole line is dropped.
    ///
    /// # Errors
    /// See [`BodyError`].
    pub async fn line(&mut self, limit: usize) -> Result<Option<Bytes>, BodyError> {
        loop {
            let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(end) = unscanned.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + end + 1);
                self.scanned = 0;
                return Ok(Some(line.freeze()));
            }
            self.scanned = self.buffer.len();
            if !self.more(limit).await? {
                return Ok(None);
            }
        }
    }

    /// What came and was not taken, the beginning of a body that is too long, say.
    pub fn taken(&mut self) -> Bytes {
        self.scanned = 0;
        std::mem::take(&mut self.buffer).freeze()
    }

    /// The trailers that came so far; all of them once the body is read to its end.
    #[must_use]
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// Waits for more; `false` at the end.
    async fn more(&mut self, limit: usize) -> Result<bool, BodyError> {
        let Some(frame) = self.incoming.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| BodyError::BrokenOff(chain(&error)))?;
        match frame.into_data() {
            Ok(data) if self.buffer.len().saturating_add(data.len()) > limit => {
                return Err(BodyError::TooLong { limit });
            }
            Ok(data) => {
                self.allowance.answered(data.len());
                self.buffer.extend_from_slice(&data);
            }
            Err(frame) => self.trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
        Ok(true)
    }
}
