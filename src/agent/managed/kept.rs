//! What an agent that is managed keeps on disk: who it is, the configuration that works, and what is being tried.
//!
//! One small file, replaced whole: at every moment there is either the former state or the new one. The configuration that is tried is not in
//! it, only its hash, so that a start is always with one that has worked.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use profiler_opamp::{
    InstanceUid,
    messages::{RemoteConfigStatus, RemoteConfigStatuses},
};
use serde_json::{Map, Value, json};

/// Name of the file.
const FILE: &str = "state.json";
/// Bytes that it may have: a configuration, and some.
const MAX_BYTES: u64 = 8 << 20;
/// Bytes of a hash, and of a reason, that are kept: with the text of a configuration within what [`MAX_BYTES`] allows.
pub const MAX_HASH: usize = 128;
const MAX_REASON: usize = 4096;
/// Hashes that are remembered as failed.
const MAX_FAILED: usize = 64;
/// Times that a configuration is tried, where the agent ended before it was known to work: once may be anybody's doing.
pub const MAX_ATTEMPTS: u64 = 2;

/// The state, in memory as on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who the agent is.
    pub uid: InstanceUid,
    /// The configuration from the server that works: its hash and its text. None: there is none.
    pub applied: Option<(Vec<u8>, String)>,
    /// The hash of the configuration that is tried, and how often it was.
    pub trying: Option<(Vec<u8>, u64)>,
    /// Hashes that are not tried again, and why; the oldest first.
    pub failed: Vec<(Vec<u8>, String)>,
    /// What was last told of a configuration that is no longer tried.
    pub settled: Option<(Vec<u8>, Option<String>)>,
}

impl Kept {
    /// Of an agent that starts for the first time.
    pub fn new(uid: InstanceUid) -> Self {
        Self { uid, applied: None, trying: None, failed: Vec::new(), settled: None }
    }

    /// What `directory` has, which is made if it is missing; `None` if it has nothing.
    ///
    /// # Errors
    /// It cannot be made or read, or holds something else ([`io::ErrorKind::InvalidData`]).
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES), &mut bytes)?;
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("{} is no state of an agent", path.display()));
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        Self::from_json(&value).map(Some).ok_or_else(wrong)
    }

    /// Puts what `directory` has out of the way, so that it can be looked at.
    pub fn set_aside(directory: &Path) -> io::Result<PathBuf> {
        let aside = directory.join(format!("{FILE}.broken"));
        fs::rename(directory.join(FILE), &aside)?;
        Ok(aside)
    }

    /// Replaces what `directory` has. When this returns, a power cut changes nothing any more.
    ///
    /// # Errors
    /// It cannot be written. What was there is still there.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{FILE}.new"));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(self.to_json().to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }

    /// Remembers that `hash` does not work.
    pub fn fail(&mut self, hash: &[u8], reason: &str) {
        let reason = shortened(reason);
        self.trying = None;
        self.failed.retain(|(known, _)| known != hash);
        self.failed.push((hash.to_vec(), reason.to_owned()));
        let surplus = self.failed.len().saturating_sub(MAX_FAILED);
        self.failed.drain(..surplus);
        self.settled = Some((hash.to_vec(), Some(reason.to_owned())));
    }

    /// The agent ends because it was told to: that says nothing about what is tried.
    pub fn pause(&mut self) {
        if let Some((_, attempts)) = &mut self.trying {
            *attempts = attempts.saturating_sub(1);
        }
    }

    /// Remembers that `text` works.
    pub fn apply(&mut self, hash: &[u8], text: Option<String>) {
        self.trying = None;
        self.applied = text.map(|text| (hash.to_vec(), text));
        self.settled = Some((hash.to_vec(), None));
    }

    /// Whether `hash` is of what works already.
    pub fn works(&self, hash: &[u8]) -> bool {
        match &self.applied {
            Some((applied, _)) => applied == hash,
            // The host's own alone, since a server said so.
            None => self.settled.as_ref().is_some_and(|(settled, failed)| settled == hash && failed.is_none()),
        }
    }

    /// Why `hash` is not tried, if it is not.
    pub fn why_not(&self, hash: &[u8]) -> Option<String> {
        if let Some((_, reason)) = self.failed.iter().find(|(known, _)| known == hash) {
            return Some(reason.clone());
        }
        let attempts = self.trying.as_ref().filter(|(tried, _)| tried == hash).map_or(0, |&(_, attempts)| attempts);
        (attempts >= MAX_ATTEMPTS)
            .then(|| format!("the agent ended {attempts} times before it was known whether this configuration works"))
    }

    /// What a server is told at the start: of the last configuration about which something is certain. One that was being tried is offered again.
    pub fn status(&self) -> Option<RemoteConfigStatus> {
        let (hash, failed) = self.settled.as_ref()?;
        let status = if failed.is_some() { RemoteConfigStatuses::Failed } else { RemoteConfigStatuses::Applied };
        Some(RemoteConfigStatus {
            last_remote_config_hash: hash.clone(),
            status: status.into(),
            error_message: failed.clone().unwrap_or_default(),
        })
    }

    fn to_json(&self) -> Value {
        let failed: Vec<_> = self.failed.iter().map(|(hash, reason)| json!([hex(hash), reason])).collect();
        json!({
            "instance_uid": self.uid.to_string(),
            "applied": self.applied.as_ref().map(|(hash, text)| json!({"hash": hex(hash), "text": text})),
            "trying": self.trying.as_ref().map(|(hash, attempts)| json!({"hash": hex(hash), "attempts": attempts})),
            "failed": failed,
            "settled": self.settled.as_ref().map(|(hash, failed)| json!({"hash": hex(hash), "failed": failed})),
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let value = value.as_object()?;
        let text = |value: &Map<String, Value>, key: &str| value.get(key)?.as_str().map(str::to_owned);
        let part = |key: &str| value.get(key).and_then(Value::as_object);
        let hash = |part: &Map<String, Value>| unhex(&text(part, "hash")?);
        let failed = value.get("failed")?.as_array()?.iter().map(|item| {
            let (hash, reason) = (item.get(0)?.as_str()?, item.get(1)?.as_str()?);
            Some((unhex(hash)?, reason.to_owned()))
        });
        Some(Self {
            uid: text(value, "instance_uid")?.parse().ok()?,
            applied: part("applied").and_then(|part| Some((hash(part)?, text(part, "text")?))),
            trying: part("trying").and_then(|part| Some((hash(part)?, part.get("attempts")?.as_u64()?))),
            failed: failed.collect::<Option<_>>()?,
            settled: part("settled").and_then(|part| Some((hash(part)?, text(part, "failed")))),
        })
    }
}

/// As much of a reason as is kept and told.
pub fn shortened(reason: &str) -> &str {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|&end| reason.is_char_boundary(end));
    &reason[..end.unwrap_or(0)]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let mut kept = Kept::new(InstanceUid::new([7; 16]));
        kept.fail(&[1], "it is bad");
        kept.apply(&[2, 0xff], Some("rate: 9 # \"ä\"\n".to_owned()));
        kept.trying = Some((vec![3], 1));
        kept
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("a/b");
        assert_eq!(Kept::read(&directory).expect("it is made"), None);
        for state in [Kept::new(InstanceUid::new([1; 16])), kept()] {
            state.write(&directory).expect("written");
            assert_eq!(Kept::read(&directory).expect("read"), Some(state));
        }
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(directory.join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_most_that_is_kept_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut kept = Kept::new(InstanceUid::new([1; 16]));
        // What JSON writes longest.
        let text = "\u{1}".repeat(profiler_config::MAX_BYTES);
        kept.apply(&[1; MAX_HASH], Some(text));
        for number in 0..100 {
            kept.fail(&[number; MAX_HASH], &"\"ä".repeat(MAX_REASON));
        }
        kept.write(folder.path()).expect("written");
        assert_eq!(Kept::read(folder.path()).expect("read"), Some(kept));
    }

    #[test]
    fn who_is_told_to_end_has_not_failed() {
        let mut kept = kept();
        kept.trying = Some((vec![3], 2));
        kept.pause();
        assert_eq!(kept.why_not(&[3]), None);
        kept.trying = None;
        kept.pause();
        assert_eq!(kept.trying, None);
    }

    #[test]
    fn a_write_that_ends_early_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = Kept::new(InstanceUid::new([1; 16]));
        before.write(folder.path()).expect("written");
        // Killed at each byte of the new file: it is not in place before it is whole.
        let bytes = kept().to_json().to_string();
        for length in 0..bytes.len() {
            fs::write(folder.path().join(format!("{FILE}.new")), &bytes.as_bytes()[..length]).expect("written");
            assert_eq!(Kept::read(folder.path()).expect("read"), Some(before.clone()));
        }
        kept().write(folder.path()).expect("over what was left");
        assert_eq!(Kept::read(folder.path()).expect("read"), Some(kept()));
    }

    #[test]
    fn what_is_no_state_is_told_and_set_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in ["", "{", "[]", "{}", r#"{"instance_uid": "x", "failed": []}"#, "\u{0}"] {
            fs::write(folder.path().join(FILE), text).expect("written");
            let error = Kept::read(folder.path()).expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let aside = Kept::set_aside(folder.path()).expect("moved");
            assert_eq!(fs::read_to_string(aside).expect("there"), text);
            assert_eq!(Kept::read(folder.path()).expect("nothing is there"), None);
        }
    }

    #[test]
    fn a_hash_that_failed_or_ended_the_agent_twice_is_not_tried_again() {
        let mut kept = Kept::new(InstanceUid::new([1; 16]));
        assert_eq!(kept.why_not(&[1]), None);
        kept.trying = Some((vec![1], 1));
        assert_eq!(kept.why_not(&[1]), None);
        kept.trying = Some((vec![1], MAX_ATTEMPTS));
        assert!(kept.why_not(&[1]).is_some_and(|reason| reason.contains("ended 2 times")));
        assert_eq!(kept.why_not(&[2]), None);
        kept.fail(&[1], "it is bad");
        assert_eq!(kept.why_not(&[1]).as_deref(), Some("it is bad"));
        for hash in 0..100 {
            kept.fail(&[2, hash], "x");
        }
        assert_eq!(kept.failed.len(), MAX_FAILED);
    }

    #[test]
    fn what_works_is_known_by_its_hash_also_when_it_is_the_hosts_own_alone() {
        let mut kept = Kept::new(InstanceUid::new([1; 16]));
        assert!(!kept.works(&[1]));
        kept.apply(&[1], Some("rate: 9".to_owned()));
        kept.fail(&[2], "it is bad");
        assert!(kept.works(&[1]) && !kept.works(&[2]));
        kept.apply(&[3], None);
        assert!(kept.works(&[3]) && !kept.works(&[1]));
        kept.fail(&[2], "it is bad");
        assert!(!kept.works(&[2]));
    }

    #[test]
    fn a_server_is_told_of_what_is_certain() {
        let mut kept = Kept::new(InstanceUid::new([1; 16]));
        kept.trying = Some((vec![9], 1));
        assert_eq!(kept.status(), None);
        kept.apply(&[1], Some(String::new()));
        kept.trying = Some((vec![9], 1));
        assert_eq!(kept.status().map(|status| (status.last_remote_config_hash, status.status)), Some((vec![1], 1)));
        kept.fail(&[9], "it is bad");
        let status = kept.status().expect("one");
        assert_eq!((status.last_remote_config_hash, status.status, &*status.error_message), (vec![9], 3, "it is bad"));
        assert_eq!(kept.applied, Some((vec![1], String::new())), "what works stays");
    }
}
