//! How large messages may be.

/// Bytes of a message, before compression when it is sent and after decompression when it is received, the header of a WebSocket
/// message included.
///
/// What a message takes in memory once it is decoded can be some twenty times as much, if the other side makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What is sent; larger messages are not.
    pub send: usize,
    /// What is received; larger messages are malformed.
    pub receive: usize,
}

impl Default for Limits {
    /// 64 MiB, as the specification recommends.
    fn default() -> Self {
        Self { send: 64 << 20, receive: 64 << 20 }
    }
}
