//! Messages on a socket: `[length of the body][length of the rest]`, 32 bits each, the body, and bytes that follow it as they are.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest body, bytes.
pub const MAX_BODY: usize = 4 << 20;
/// Largest rest, bytes: a request, of which none has more than 512 MiB before compression.
pub const MAX_REST: usize = 520 << 20;
/// Bytes of the two lengths.
pub(crate) const HEAD: usize = 8;

/// The head of a message.
pub(crate) fn head(body: usize, rest: usize) -> io::Result<[u8; HEAD]> {
    if body > MAX_BODY || rest > MAX_REST {
        return Err(io::Error::other("a message is too large"));
    }
    // SANITY: both are less than 2^32.
    Ok(((body as u64) << 32 | rest as u64).to_be_bytes())
}

/// Lengths of body and rest, if they are within bounds.
pub(crate) fn lengths(head: [u8; HEAD], max_rest: usize) -> Option<(usize, usize)> {
    let both = u64::from_be_bytes(head);
    let (body, rest) = ((both >> 32) as usize, (both & 0xffff_ffff) as usize);
    (body <= MAX_BODY && rest <= max_rest.min(MAX_REST)).then_some((body, rest))
}

/// Writes a message.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), body: &[u8], rest: &[u8]) -> io::Result<()> {
    to.write_all(&head(body.len(), rest.len())?).await?;
    to.write_all(body).await?;
    to.write_all(rest).await
}

/// Reads a message whose rest has at most `max_rest` bytes; `None` at the end.
///
/// # Errors
/// The other side is gone in the middle of one, or what comes is none (`InvalidData`).
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin), max_rest: usize) -> io::Result<Option<(Vec<u8>, Bytes)>> {
    let mut head = [0; HEAD];
    let _ = match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let too_large = || io::Error::new(io::ErrorKind::InvalidData, "a message is too large");
    let (body_length, rest_length) = lengths(head, max_rest).ok_or_else(too_large)?;
    let (mut body, mut rest) = (vec![0; body_length], vec![0; rest_length]);
    from.read_exact(&mut body).await?;
    from.read_exact(&mut rest).await?;
    Ok(Some((body, rest.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_comes_as_it_went_and_lengths_are_bounded() {
        assert_eq!(lengths(head(7, 9).unwrap(), 9), Some((7, 9)));
        assert_eq!(lengths(head(7, 9).unwrap(), 8), None, "more than was asked for");
        assert_eq!(lengths([0xff; HEAD], usize::MAX), None);
        assert!(head(MAX_BODY + 1, 0).is_err() && head(0, MAX_REST + 1).is_err());
        let mut bytes = Vec::new();
        write(&mut bytes, b"body", b"rest").await.unwrap();
        let (body, rest) = read(&mut &*bytes, 4).await.unwrap().unwrap();
        assert_eq!((&*body, &*rest), (&b"body"[..], &b"rest"[..]));
        assert_eq!(read(&mut &*bytes, 3).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read(&mut &bytes[..10], 4).await.is_err(), "cut");
        assert_eq!(read(&mut &b""[..], 4).await.unwrap(), None);
    }
}
