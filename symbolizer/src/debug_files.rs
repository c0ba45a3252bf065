//! Finding the separate debug info of a stripped file: by build id, by debug link, or within the file itself.

use crate::object::Object;
use profiler_elf::{Bytes, Elf, Error, ReadError, SHT_NOBITS, SHT_SYMTAB, decompress};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A debug file without a build id is checked by the CRC of all its bytes; larger ones are not.
const MAX_CHECKED: u64 = 1 << 30;
/// Mini debug info unpacks to a few per cent of the program.
const MAX_MINI: u64 = 64 << 20;

/// Opens a file as a process with that root directory would, following links but never out of the root. Does not block on what
/// is not a regular file, and refuses it.
pub(crate) fn open_within(root: &Path, path: &Path, extra: OFlags) -> std::io::Result<File> {
    let directory = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | extra;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(directory, relative, flags, Mode::empty(), resolve)?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// The GNU build id, lower-case hex.
fn build_id_of(elf: &Elf) -> Option<String> {
    Some(elf.gnu_build_id()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The separate debug file of `elf`, if there is one that belongs to it.
pub(crate) fn find(object: &Object, elf: &Elf, debug_dirs: &[PathBuf]) -> Option<Elf> {
    let build_id = build_id_of(elf);
    let link = debug_link(elf);
    let mut candidates = Vec::new();
    if let Some((head, rest)) =
        build_id.as_deref().and_then(|id| id.split_at_checked(2)).filter(|(_, rest)| !rest.is_empty())
    {
        candidates.extend(debug_dirs.iter().map(|dir| dir.join(format!(".build-id/{head}/{rest}.debug"))));
    }
    if let Some((name, _)) = &link {
        // A deleted file's path ends so in /proc.
        let path = Path::new(object.path.trim_end_matches(" (deleted)"));
        let beside = path.parent().unwrap_or(Path::new("/"));
        candidates.extend([beside.join(name), beside.join(".debug").join(name)]);
        let below = beside.strip_prefix("/").unwrap_or(beside);
        candidates.extend(debug_dirs.iter().map(|dir| dir.join(below).join(name)));
    }
    // The process's own file system first, then the host's: that is where people install debug packages.
    let host = Path::new("/");
    let roots = [object.root.as_path(), host];
    let roots = if object.root == host { roots.get(1..)? } else { &roots };
    for root in roots {
        for candidate in &candidates {
            let Ok(file) = open_within(root, candidate, OFlags::empty()) else { continue };
            match accept(file, elf, build_id.as_deref(), link.as_ref().map(|(_, crc)| *crc)) {
                Ok(found) => return Some(found),
                Err(reason) => {
                    tracing::debug!(object = object.path, candidate = %candidate.display(), reason, "debug file not used")
                }
            }
        }
    }
    None
}

/// The debug file, if it is of this build.
fn accept(file: File, of: &Elf, build_id: Option<&str>, crc: Option<u32>) -> Result<Elf, &'static str> {
    let file = Arc::new(file);
    let bytes = Bytes::of_file(file.clone()).map_err(|_| "unreadable")?;
    let len = bytes.len();
    let elf = Elf::parse(bytes).map_err(|_| "not an ELF file")?;
    if elf.machine() != of.machine() {
        return Err("of another machine");
    }
    match (build_id, build_id_of(&elf)) {
        (Some(ours), Some(theirs)) if ours == theirs => {}
        (Some(_), Some(_)) => return Err("of another build"),
        _ => {
            let crc = crc.ok_or("no build id to check")?;
            if len > MAX_CHECKED || crc_of(&file, len).map_err(|_| "unreadable")? != crc {
                return Err("of another build (CRC)");
            }
        }
    }
    let useful =
        elf.sections().iter().any(|s| s.kind != SHT_NOBITS && (s.kind == SHT_SYMTAB || s.name.contains("debug_info")));
    if useful { Ok(elf) } else { Err("without symbols and debug info") }
}

fn crc_of(file: &File, len: u64) -> Result<u32, ReadError> {
    let (mut hasher, mut at, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 256 << 10]);
    while at < len {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(hasher.finalize())
}

/// File name and CRC from `.gnu_debuglink`: the name, NUL, padding to four bytes, the CRC.
fn debug_link(elf: &Elf) -> Option<(String, u32)> {
    let content = elf.data(elf.section(".gnu_debuglink")?, 4096).ok()?;
    let len = content.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(content.get(..len)?).ok()?;
    if name.is_empty() || name.contains('/') || name == ".." {
        return None;
    }
    let crc = content.get((len + 4) & !3..)?.first_chunk().copied().map(u32::from_le_bytes)?;
    Some((name.to_owned(), crc))
}

/// The file within `.gnu_debugdata`: a symbol table of local functions, packed with xz.
pub(crate) fn mini_debug_info(elf: &Elf) -> Option<Result<Elf, Error>> {
    let section = elf.section(".gnu_debugdata")?;
    let unpack = || {
        let content = decompress::xz(&elf.data(section, MAX_MINI)?, MAX_MINI)?;
        Elf::parse(Bytes::Memory(content.into()))
    };
    Some(unpack())
}
