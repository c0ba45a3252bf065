//! Messages on a socket: `[length of the body][length of the rest]`, 32 bits each, the body, and bytes that follow it as they are.

use std::io::{self, Read, Write};

/// Largest body, bytes.
pub(crate) const MAX_BODY: usize = 32 << 20;
/// Largest rest, bytes: rows of one executable.
pub(crate) const MAX_REST: usize = 256 << 20;
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
pub(crate) fn write(to: &mut impl Write, body: &[u8], rest: &[u8]) -> io::Result<()> {
    to.write_all(&head(body.len(), rest.len())?)?;
    to.write_all(body)?;
    to.write_all(rest)
}

/// Reads the body of a message that has no rest; `None` at the end.
pub(crate) fn read(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let (body, _) = lengths(head, 0).ok_or_else(|| io::Error::other("a message is too large"))?;
    let mut bytes = vec![0; body];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(lengths(head(7, 9).unwrap(), 9), Some((7, 9)));
        assert_eq!(lengths(head(7, 9).unwrap(), 8), None, "more than was asked for");
        assert_eq!(lengths([0xff; HEAD], usize::MAX), None);
        assert!(head(MAX_BODY + 1, 0).is_err() && head(0, MAX_REST + 1).is_err());
        let mut bytes = Vec::new();
        write(&mut bytes, b"body", b"").unwrap();
        assert_eq!(read(&mut &*bytes).unwrap().unwrap(), b"body");
        assert!(read(&mut &bytes[..10]).is_err(), "cut");
        assert_eq!(read(&mut &b""[..]).unwrap(), None);
    }
}
