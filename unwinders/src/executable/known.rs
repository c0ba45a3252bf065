//! What one registry of executables tells another: of one that has died, or of a reader's in a process of its own. Whoever
//! takes it in checks it.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_address::{ElfVaddr, FileOffset};
use profiler_bpf::abi::FrameKind;
use profiler_elf::Segment;

use super::identity::MAX_SEGMENTS;
use super::{Content, Executable, ExecutableId, FileKey, Format};
use crate::runtime::Unfollowed;

/// Longest path and id that is taken in, bytes.
const MAX_TEXT: usize = 4096 + 64;
/// Largest image without a file, bytes.
const MAX_IMAGE: usize = 1 << 20;

/// An executable, and by what its file is known again.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Known {
    /// [`Executable::id`].
    pub id: u32,
    /// [`Executable::format`], by its place in the list.
    pub format: u8,
    /// [`Executable::path`].
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// [`Executable::build_id_gnu`].
    pub build_id_gnu: Option<String>,
    /// [`Executable::build_id_go`].
    pub build_id_go: Option<String>,
    /// [`Executable::htlhash`].
    pub htlhash: String,
    /// [`Executable::segments`]: address, offset, bytes in the file, bytes in memory, flags.
    pub segments: Vec<(u64, u64, u64, u64, u32)>,
    /// [`Executable::interpreter`].
    pub interpreter: Option<Vec<u8>>,
    /// [`Executable::runtime`]; 0: none.
    pub runtime: u8,
    /// [`Executable::unfollowed`], by its number; 0: none.
    pub unfollowed: u8,
    /// All of what has no file.
    pub bytes: Option<Vec<u8>>,
    /// States of files that have this content.
    pub keys: Vec<FileKey>,
    /// Hash of all bytes.
    pub digest: Option<[u8; 32]>,
    /// Where it was seen mapped: pid, first address, one past the last.
    pub mappers: Vec<(u32, u64, u64)>,
}

/// Differs where [`Known`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    keys: usize,
    newest: Option<FileKey>,
    has_digest: bool,
}

impl Revision {
    pub(super) fn new(keys: &[FileKey], digest: Option<[u8; 32]>) -> Self {
        Self { keys: keys.len(), newest: keys.last().copied(), has_digest: digest.is_some() }
    }
}

const FORMATS: [Format; 5] = [Format::Elf64, Format::Elf32, Format::Vdso, Format::Other, Format::Restored];

impl Known {
    pub(super) fn of(executable: &Executable) -> Self {
        let format = FORMATS.iter().position(|format| *format == executable.format).unwrap_or(3);
        let segment = |s: &Segment| (s.vaddr.0, s.offset.0, s.file_size, s.memory_size, s.flags);
        Self {
            id: executable.id.0,
            format: format as u8,
            path: executable.path.to_vec(),
            size: executable.size,
            build_id_gnu: executable.build_id_gnu.clone(),
            build_id_go: executable.build_id_go.clone(),
            htlhash: executable.htlhash.clone(),
            segments: executable.segments.iter().map(segment).collect(),
            interpreter: executable.interpreter.clone(),
            runtime: executable.runtime.map_or(0, FrameKind::number),
            unfollowed: executable.unfollowed.map_or(0, Unfollowed::number),
            bytes: executable.bytes().map(|bytes| bytes.to_vec()),
            keys: Vec::new(),
            digest: None,
            mappers: Vec::new(),
        }
    }

    /// The executable, whose file another process has; `None` if this is none.
    #[must_use]
    pub fn executable(&self) -> Option<Executable> {
        let format = *FORMATS.get(usize::from(self.format))?;
        let short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= MAX_TEXT);
        let interpreter = self.interpreter.as_ref().map_or(0, Vec::len);
        let is_sane = self.id != 0
            && self.path.len() <= MAX_TEXT
            && interpreter <= MAX_TEXT
            && short(&self.build_id_gnu)
            && short(&self.build_id_go)
            && self.htlhash.len() == 32
            && self.segments.len() <= MAX_SEGMENTS
            && (format == Format::Vdso) == self.bytes.is_some()
            && self.bytes.as_ref().is_none_or(|bytes| bytes.len() <= MAX_IMAGE);
        if !is_sane {
            return None;
        }
        let segment = |&(vaddr, offset, file_size, memory_size, flags): &(u64, u64, u64, u64, u32)| Segment {
            vaddr: ElfVaddr(vaddr),
            offset: FileOffset(offset),
            file_size,
            memory_size,
            flags,
        };
        Some(Executable {
            id: ExecutableId(self.id),
            format,
            path: Arc::from(self.path.as_slice()),
            size: self.size,
            build_id_gnu: self.build_id_gnu.clone(),
            build_id_go: self.build_id_go.clone(),
            htlhash: self.htlhash.clone(),
            segments: self.segments.iter().map(segment).collect(),
            interpreter: self.interpreter.clone(),
            runtime: FrameKind::new(self.runtime).filter(|kind| *kind != FrameKind::NATIVE),
            unfollowed: Unfollowed::of_number(self.unfollowed),
            content: match &self.bytes {
                Some(bytes) => Content::Bytes(Arc::from(bytes.as_slice())),
                None => Content::Elsewhere,
            },
        })
    }
}
