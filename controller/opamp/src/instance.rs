//! Who an agent is.

use std::{fmt, str::FromStr, time::Duration};

use super::random::Random;

/// `instance_uid`: 16 bytes, written as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceUid([u8; 16]);

/// What is no instance uid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongUid {
    /// Not 16 bytes.
    #[error("an instance_uid has 16 bytes, not {0}")]
    Length(usize),
    /// All bytes are zero, which is nobody's.
    #[error("an instance_uid is not all zeros")]
    Nil,
    /// No UUID.
    #[error("{0:?} is no UUID, such as 0192b4d4-5e3b-7a51-9c6e-3f6b8a1d2e4f")]
    Text(String),
}

impl InstanceUid {
    /// The uid with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A new one, a UUID of version 7, made at `unix_time`, the time since 1970.
    pub fn generate(unix_time: Duration, random: &mut dyn Random) -> Self {
        let milliseconds = u64::try_from(unix_time.as_millis()).unwrap_or(u64::MAX) & 0xffff_ffff_ffff;
        let high = milliseconds << 16 | 0x7000 | random.bits() & 0x0fff;
        let low = random.bits() >> 2 | 1 << 63;
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The uid in a message.
    ///
    /// # Errors
    /// It does not have 16 bytes, or nothing but zeros.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, WrongUid> {
        let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| WrongUid::Length(bytes.len()))?;
        if bytes == [0; 16] { Err(WrongUid::Nil) } else { Ok(Self(bytes)) }
    }

    /// Its 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Its 16 bytes, for a message.
    #[must_use]
    pub fn to_wire(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for InstanceUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for InstanceUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceUid {
    type Err = WrongUid;

    fn from_str(text: &str) -> Result<Self, WrongUid> {
        let wrong = || WrongUid::Text(text.chars().take(64).collect());
        let shape = text.len() == 36
            && text.bytes().enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if !shape {
            return Err(wrong());
        }
        let digits: String = text.chars().filter(|&character| character != '-').collect();
        let bytes = u128::from_str_radix(&digits, 16).map_err(|_| wrong())?.to_be_bytes();
        Self::from_wire(&bytes)
    }
}
