//! A hash over all bytes of a file: two files of one digest are the same, whatever they claim.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// SHA-256 of a file.
pub(super) type Digest = [u8; 32];

use super::open::FileKey;

/// Largest file that is hashed, bytes. Two are hashed where the first copy of a file appears.
const MAX_BYTES: u64 = 48 << 20;
/// The same for files that nothing claims to be equal to yet.
const MAX_BYTES_AT_LEISURE: u64 = 4 << 20;
/// Bytes hashed in [`PERIOD`], so that many files that claim to be the same do not keep the sampling thread from its work.
const MAX_BYTES_A_PERIOD: u64 = 96 << 20;
const MAX_LEISURE_A_PERIOD: u64 = 8 << 20;
const PERIOD: Duration = Duration::from_secs(10);
const BUFFER: usize = 256 << 10;

/// Hashes files, within a budget of work.
#[derive(Debug, Default)]
pub(super) struct Digests {
    since: Option<Instant>,
    spent: u64,
}

impl Digests {
    /// The digest of a file while it is in the state of `key`; `None` if it is not, can't be read, or would take too long.
    pub(super) fn of(&mut self, file: &File, key: &FileKey) -> Option<Digest> {
        self.within(file, key, MAX_BYTES, MAX_BYTES_A_PERIOD)
    }

    /// The same for a file that is small, and while there is little to do.
    pub(super) fn at_leisure(&mut self, file: &File, key: &FileKey) -> Option<Digest> {
        self.within(file, key, MAX_BYTES_AT_LEISURE, MAX_LEISURE_A_PERIOD)
    }

    fn within(&mut self, file: &File, key: &FileKey, largest: u64, a_period: u64) -> Option<Digest> {
        let size = key.size;
        if self.since.is_none_or(|since| since.elapsed() > PERIOD) {
            (self.since, self.spent) = (Some(Instant::now()), 0);
        }
        if size > largest || self.spent.saturating_add(size) > a_period {
            return None;
        }
        self.spent += size;
        let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; BUFFER], 0);
        while at < size {
            let wanted = usize::try_from(size - at).unwrap_or(BUFFER).min(BUFFER);
            let read = match file.read_at(buffer.get_mut(..wanted)?, at) {
                Ok(0) => return None,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            hash.update(buffer.get(..read)?);
            at += read as u64;
        }
        // Whoever writes to it meanwhile changes its time of change, which can't be set back; it is as coarse as the kernel's tick.
        (FileKey::of(file).ok()? == *key).then(|| hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn work_is_bounded_and_a_file_that_shrank_has_no_digest() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        let mut digests = Digests::default();
        let key = FileKey::of(&file).unwrap();
        let first = digests.of(&file, &key).unwrap();
        assert_eq!(digests.at_leisure(&file, &key), Some(first));
        digests.spent = MAX_LEISURE_A_PERIOD;
        assert_eq!(digests.at_leisure(&file, &key), None);
        assert_eq!(digests.of(&file, &key), Some(first));
        digests.spent = MAX_BYTES_A_PERIOD;
        assert_eq!(digests.of(&file, &key), None, "later");
        digests.spent = 0;
        file.set_len(6).unwrap();
        assert_eq!(digests.of(&file, &key), None, "another state");
        let shorter = FileKey::of(&file).unwrap();
        assert_ne!(digests.of(&file, &shorter), Some(first));
        file.set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(digests.of(&file, &FileKey::of(&file).unwrap()), None);
    }
}
