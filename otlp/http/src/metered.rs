//! A connection that takes only so much which is no part of an answer.
//!
//! Before an answer and between its pieces the other side may send interim responses (1xx), PING, SETTINGS and what else HTTP has
//! beside answers, and nothing in HTTP says how much. Each costs CPU time here, and none needs more than some hundred bytes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may come before an answer goes on: its head, frames, records of TLS, and what is read ahead of it.
pub(super) const ALLOWANCE: u64 = 256 << 10;
/// Bytes of an answer that are read ahead at most, before they are asked for.
pub(super) const READ_AHEAD: usize = 64 << 10;
/// What a piece of an answer brings with it beside its bytes.
const AROUND_A_PIECE: u64 = 256;

/// What may still come, bytes.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<AtomicU64>);

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(ALLOWANCE)))
    }

    /// A request goes out.
    pub(super) fn renew(&self) {
        self.0.store(ALLOWANCE, Ordering::Relaxed);
    }

    /// An answer went on by so many bytes.
    pub(super) fn answered(&self, bytes: usize) {
        if bytes > 0 {
            let more = (bytes as u64).saturating_mul(2).saturating_add(AROUND_A_PIECE);
            let left = self.0.load(Ordering::Relaxed);
            self.0.store(left.saturating_add(more).min(ALLOWANCE), Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let left = self.0.load(Ordering::Relaxed).checked_sub(bytes as u64);
        self.0.store(left.unwrap_or_default(), Ordering::Relaxed);
        left.is_some()
    }
}

/// A stream that fails when more is read than is allowed.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    allowance: Allowance,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, allowance: Allowance) -> Self {
        Self { stream, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        if self.allowance.take(read) {
            return Poll::Ready(Ok(()));
        }
        let text = format!("more than {} KiB came that were no part of an answer", ALLOWANCE >> 10);
        Poll::Ready(Err(io::Error::other(text)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
