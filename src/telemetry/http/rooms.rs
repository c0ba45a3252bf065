//! Who is served while more come than there is room for.
//!
//! A connection is nobody's until the beginning of its request says what it is for. Probes have a room of their own, so that no number
//! of other connections takes a probe's place; in each room the oldest gives way. There is much room for those of which nothing is
//! known yet: they cost a task and a few bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Not known yet.
    Unknown,
    /// `/healthz` or `/readyz`.
    Probe,
    /// Anything else.
    Page,
}

impl Purpose {
    /// By the beginning of a request; [`Self::Unknown`] if more of it is needed.
    fn of(head: &[u8]) -> Self {
        let mut open = false;
        for method in [&b"GET "[..], b"HEAD "] {
            for path in [&b"/healthz"[..], b"/readyz"] {
                let wanted = [method, path].concat();
                match head.strip_prefix(&*wanted) {
                    Some([b' ' | b'?', ..]) => return Self::Probe,
                    Some([]) => open = true,
                    Some(_) => {}
                    None => open |= wanted.starts_with(head),
                }
            }
        }
        if open { Self::Unknown } else { Self::Page }
    }
}

/// Connections by purpose, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<[VecDeque<(u64, AbortHandle)>; 3]>);

impl Rooms {
    /// Connections at a time of each purpose.
    const PLACES: [usize; 3] = [1024, 32, 32];

    /// Takes in a connection that was accepted.
    pub(super) fn enter(&self, number: u64, connection: AbortHandle) {
        self.put(Purpose::Unknown, number, connection);
    }

    /// The connection `number` is for that.
    pub(super) fn turn_out(&self, number: u64, purpose: Purpose) {
        let known = {
            let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let [unknown, ..] = &mut *rooms;
            let at = unknown.iter().position(|(other, _)| *other == number);
            at.and_then(|at| unknown.remove(at))
        };
        if let Some((number, connection)) = known {
            self.put(purpose, number, connection);
        }
    }

    fn put(&self, purpose: Purpose, number: u64, connection: AbortHandle) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(room), Some(&places)) = (rooms.get_mut(purpose as usize), Self::PLACES.get(purpose as usize)) else {
            return;
        };
        if room.len() >= places {
            room.retain(|(_, connection)| !connection.is_finished());
        }
        if room.len() >= places
            && let Some((_, oldest)) = room.pop_front()
        {
            oldest.abort();
        }
        room.push_back((number, connection));
    }
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
pub(super) struct Begun {
    head: Vec<u8>,
    /// How much of `head` was read again.
    read: usize,
    stream: TcpStream,
}

impl Begun {
    /// Reads until it is known what `stream` is for.
    pub(super) async fn new(mut stream: TcpStream) -> std::io::Result<(Self, Purpose)> {
        let mut head = Vec::new();
        loop {
            let mut buffer = [0; 64];
            let read = stream.read(&mut buffer).await?;
            head.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let purpose = if read == 0 { Purpose::Page } else { Purpose::of(&head) };
            if purpose != Purpose::Unknown {
                return Ok((Self { head, read: 0, stream }, purpose));
            }
        }
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        match this.head.get(this.read..) {
            Some(left) if !left.is_empty() => {
                let some = left.get(..buffer.remaining()).unwrap_or(left);
                buffer.put_slice(some);
                this.read += some.len();
                Poll::Ready(Ok(()))
            }
            _ => Pin::new(&mut this.stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_what_its_beginning_says() {
        for (head, purpose) in [
            ("", Purpose::Unknown),
            ("G", Purpose::Unknown),
            ("HEAD /ready", Purpose::Unknown),
            ("GET /healthz", Purpose::Unknown),
            ("GET /healthz ", Purpose::Probe),
            ("GET /readyz?verbose", Purpose::Probe),
            ("HEAD /readyz HTTP/1.1\r\n", Purpose::Probe),
            ("GET /healthzx", Purpose::Page),
            ("GET /m", Purpose::Page),
            ("POST", Purpose::Page),
            ("\u{16}\u{3}\u{1}", Purpose::Page),
        ] {
            assert_eq!(Purpose::of(head.as_bytes()), purpose, "{head:?}");
        }
    }
}
