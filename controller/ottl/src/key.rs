//! The key of keyed hashes.

use std::{fmt, sync::Arc};

/// The key that `KeyedHash` hashes under. It is never shown.
///
/// ```
/// use profiler_ottl::HashKey;
///
/// let key = HashKey::new("correct horse battery staple")?;
/// assert_eq!(format!("{key:?}"), "HashKey(hidden)");
/// assert!(HashKey::new("short").is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey(Arc<[u8]>);

impl HashKey {
    /// The fewest bytes of a key: a shorter one could be found by trying, and with it what was hashed.
    pub const LEAST: usize = 16;

    /// `key`, from now on hidden.
    ///
    /// # Errors
    ///
    /// It is shorter than [`HashKey::LEAST`] bytes; says nothing of what it is.
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, String> {
        let key = key.as_ref();
        if key.len() < Self::LEAST {
            let least = Self::LEAST;
            return Err(format!("a key has at least {least} bytes, as `openssl rand -hex 32` makes them"));
        }
        Ok(Self(key.into()))
    }

    #[cfg(feature = "hashes")]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(hidden)")
    }
}
