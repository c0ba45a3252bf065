//! Finding the separate debug info of a stripped file: by build id, by debug link, or within the file itself.

use crate::object::Object;
use profiler_elf::{Bytes, Elf, Error, ReadError, SHT_NOBITS, SHT_SYMTAB, decompress};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

/// A debug file without a build id is checked by the CRC of all its bytes; larger ones are not.
const MAX_CHECKED: u64 = 1 << 30;

/// Opens a file as a process with that root directory would, following links but never out of the root. What is not a regular
/// file is refused and never opened: to open a device may set it off.
pub(crate) fn open_within(root: &Path, path: &Path, extra: OFlags) -> std::io::Result<File> {
    let directory = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    open_below(&directory, path, extra)
}

/// The same of a root directory that is open.
fn open_below(directory: &OwnedFd, path: &Path, extra: OFlags) -> std::io::Result<File> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
    let open = || rustix::fs::openat2(directory, relative, flags, Mode::empty(), resolve);
    let found = match open() {
        // Something on the host was renamed meanwhile.
        Err(rustix::io::Errno::AGAIN) => open()?,
        found => found?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::other("not a regular file"));
    }
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(itself.as_str(), flags, Mode::empty())?))
}

/// A root directory.
#[derive(Clone, Debug)]
enum Root {
    At(PathBuf),
    /// Who asks has it open: an end of its file system waits for nothing that is kept here.
    Held(Weak<OwnedFd>),
}

impl Root {
    fn open(&self, path: &Path) -> std::io::Result<File> {
        match self {
            Self::At(root) => open_within(root, path, OFlags::empty()),
            Self::Held(root) => {
                let root = root.upgrade().ok_or_else(|| std::io::Error::other("it is held no longer"))?;
                open_below(&root, path, OFlags::empty())
            }
        }
    }
}

/// Where the files that belong to an object are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The process's own root, and then the host's: that is where people install debug packages.
    roots: Vec<Root>,
    /// Path of the object, as its process sees it.
    pub path: PathBuf,
    dirs: Vec<PathBuf>,
}

impl Place {
    pub fn of(object: &Object, debug_dirs: &[PathBuf]) -> Self {
        let host = Path::new("/");
        let own = match &object.held {
            Some(held) => Some(Root::Held(Arc::downgrade(held))),
            None => (object.root != host).then(|| Root::At(object.root.clone())),
        };
        let roots = own.into_iter().chain([Root::At(host.to_owned())]).collect();
        // A deleted file's path ends so in /proc.
        Self { roots, path: object.path.trim_end_matches(" (deleted)").into(), dirs: debug_dirs.to_vec() }
    }

    /// The first file among `candidates` that `accept` takes, and where it was.
    fn search<T>(
        &self,
        candidates: &[PathBuf],
        mut accept: impl FnMut(File) -> Result<T, &'static str>,
    ) -> Option<(T, PathBuf)> {
        for (root, candidate) in self.roots.iter().flat_map(|root| candidates.iter().map(move |path| (root, path))) {
            let Ok(file) = root.open(candidate) else { continue };
            match accept(file) {
                Ok(found) => return Some((found, candidate.clone())),
                Err(reason) => {
                    tracing::debug!(object = %self.path.display(), candidate = %candidate.display(), reason, "debug file not used");
                }
            }
        }
        None
    }

    fn by_build_id(&self, id: &str) -> Vec<PathBuf> {
        match id.split_at_checked(2).filter(|(_, rest)| !rest.is_empty()) {
            Some((head, rest)) => {
                self.dirs.iter().map(|dir| dir.join(format!(".build-id/{head}/{rest}.debug"))).collect()
            }
            None => Vec::new(),
        }
    }

    /// The file that `.gnu_debugaltlink` of `elf`, which lies at `at`, leads to: `dwz -m` moves there what several files have in common.
    /// An error if there should be one and is not.
    pub fn supplement(&self, elf: &Elf, at: &Path) -> Result<Option<Elf>, ()> {
        let Some(section) = elf.section(".gnu_debugaltlink") else { return Ok(None) };
        let content = elf.data(section, 8192).map_err(|_| ())?;
        let len = content.iter().position(|byte| *byte == 0).ok_or(())?;
        let (name, id) = (content.get(..len).unwrap_or_default(), hex(content.get(len + 1..).unwrap_or_default()));
        let name = Path::new(std::str::from_utf8(name).map_err(|_| ())?);
        let mut candidates = vec![at.parent().unwrap_or(Path::new("/")).join(name)];
        candidates.extend(self.by_build_id(&id));
        let found = self.search(&candidates, |file| {
            let elf = Bytes::of_file(Arc::new(file)).map_err(|_| "unreadable")?;
            let elf = Elf::parse(elf).map_err(|_| "not an ELF file")?;
            if build_id_of(&elf).is_some_and(|theirs| theirs == id) { Ok(elf) } else { Err("of another build") }
        });
        found.map(|(elf, _)| Some(elf)).ok_or(())
    }

    /// The first ELF file at one of these paths that `accept` takes: it belongs to the object by what is in it.
    pub fn find<T>(&self, candidates: &[PathBuf], mut accept: impl FnMut(Elf) -> Option<T>) -> Option<T> {
        let found = self.search(candidates, |file| {
            let elf = Bytes::of_file(Arc::new(file)).map_err(|_| "unreadable")?;
            accept(Elf::parse(elf).map_err(|_| "not an ELF file")?).ok_or("of another build")
        });
        found.map(|(found, _)| found)
    }
}

/// The GNU build id, lower-case hex.
fn build_id_of(elf: &Elf) -> Option<String> {
    elf.gnu_build_id().map(hex)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The separate debug file of `elf`, if there is one that belongs to it, and its path.
pub(crate) fn find(place: &Place, elf: &Elf) -> Option<(Elf, PathBuf)> {
    let build_id = build_id_of(elf);
    let link = debug_link(elf);
    let mut candidates = build_id.as_deref().map(|id| place.by_build_id(id)).unwrap_or_default();
    if let Some((name, _)) = &link {
        let beside = place.path.parent().unwrap_or(Path::new("/"));
        candidates.extend([beside.join(name), beside.join(".debug").join(name)]);
        let below = beside.strip_prefix("/").unwrap_or(beside);
        candidates.extend(place.dirs.iter().map(|dir| dir.join(below).join(name)));
    }
    place.search(&candidates, |file| accept(file, elf, build_id.as_deref(), link.as_ref().map(|(_, crc)| *crc)))
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

/// The file within `.gnu_debugdata`: a symbol table of local functions, packed with xz. It unpacks to a few per cent of the program; to
/// more than `limit` bytes it is refused.
pub(crate) fn mini_debug_info(elf: &Elf, limit: u64) -> Option<Result<Elf, Error>> {
    let section = elf.section(".gnu_debugdata")?;
    let unpack = || Elf::parse(Bytes::Unpacked(decompress::xz(elf.stream(section), limit)?.into()));
    Some(unpack())
}
