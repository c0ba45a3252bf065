//! What a file is: the hash and the ids that profiles name it by.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use profiler_bpf::abi::FrameKind;
use profiler_elf::{Bytes, Elf, Error, Headers, Segment};

use super::Format;
use crate::runtime::{self, Unfollowed};

/// Segments kept of one file. Linkers make four to eight that are loaded; a thousand are possible.
pub(super) const MAX_SEGMENTS: usize = 64;
/// Bytes hashed at either end of a file.
const HASHED: u64 = 4096;

/// What a file's content says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What kind of file it is.
    pub format: Format,
    /// GNU build id, lower-case hexadecimal.
    pub build_id_gnu: Option<String>,
    /// Go build id.
    pub build_id_go: Option<String>,
    /// See [`htlhash`].
    pub htlhash: String,
    /// `PT_LOAD` segments of 64-bit ELF files.
    pub segments: Vec<Segment>,
    /// Path of the dynamic linker.
    pub interpreter: Option<Vec<u8>>,
    /// The runtime that it is.
    pub runtime: Option<FrameKind>,
    /// The runtime that it is, if that is not followed.
    pub unfollowed: Option<Unfollowed>,
}

impl Identity {
    /// Reads what is needed of a file of `size` bytes.
    ///
    /// # Errors
    /// If reading fails.
    pub fn read(file: &Arc<File>, size: u64) -> io::Result<Self> {
        let htlhash = htlhash_of_file(file, size)?;
        match Elf::parse(Bytes::File { file: Arc::clone(file), len: size }) {
            Err(Error::Read { source, .. }) => Err(io::Error::other(source)),
            Err(error) => Ok(Self::of_headers(Err(error), htlhash)),
            Ok(elf) => {
                let (runtime, unfollowed) = runtime::recognise(&elf);
                Ok(Self { runtime, unfollowed, ..Self::of_headers(Ok(&elf), htlhash) })
            }
        }
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        match Headers::read(bytes) {
            Ok(headers) => Self::of_headers(Ok(&headers), htlhash(bytes)),
            Err(error) => Self::of_headers(Err(error), htlhash(bytes)),
        }
    }

    fn of_headers(headers: Result<&Headers, Error>, htlhash: String) -> Self {
        let mut identity = Self {
            format: Format::Other,
            build_id_gnu: None,
            build_id_go: None,
            htlhash,
            segments: Vec::new(),
            interpreter: None,
            runtime: None,
            unfollowed: None,
        };
        match headers {
            Ok(elf) => {
                identity.format = Format::Elf64;
                identity.build_id_gnu = elf.gnu_build_id().map(hex);
                identity.build_id_go = elf.go_build_id().map(|id| String::from_utf8_lossy(id).into_owned());
                identity.segments = elf.segments().iter().take(MAX_SEGMENTS).copied().collect();
                identity.interpreter = elf.interpreter().map(<[u8]>::to_vec);
            }
            Err(Error::Unsupported { class: 1, .. }) => identity.format = Format::Elf32,
            Err(_) => {}
        }
        identity
    }
}

/// The hash that the profiles signal names executables by: the first half of the SHA-256 of a file's first and last 4,096 bytes
/// (which overlap in small files) and its length as eight big-endian bytes, in lower-case hexadecimal
/// (OpenTelemetry semantic conventions, `process.executable.build_id.htlhash`).
#[must_use]
pub fn htlhash(content: &[u8]) -> String {
    let length = usize::try_from(HASHED).unwrap_or(usize::MAX).min(content.len());
    let head = content.get(..length).unwrap_or_default();
    let tail = content.get(content.len() - length..).unwrap_or_default();
    hash(head, tail, content.len() as u64)
}

fn htlhash_of_file(file: &File, size: u64) -> io::Result<String> {
    let length = HASHED.min(size);
    // SANITY: at most HASHED.
    let mut head = vec![0; length as usize];
    let mut tail = head.clone();
    file.read_exact_at(&mut head, 0)?;
    file.read_exact_at(&mut tail, size - length)?;
    Ok(hash(&head, &tail, size))
}

fn hash(head: &[u8], tail: &[u8], length: u64) -> String {
    let digest = Sha256::new().chain_update(head).chain_update(tail).chain_update(length.to_be_bytes()).finalize();
    hex(digest.get(..16).unwrap_or(&digest))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
