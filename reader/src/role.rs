//! The reader itself: reads what it is asked for, one thing after the other.

mod names;
mod roots;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use profiler_address::UserAddr;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_confine::{Report, Rights, Role as Part};
use profiler_environ::Asked;
use profiler_unwinders::executable::{Executable, ExecutableId, Executables, Format, Known, Mapper, Revision};
use profiler_unwinders::maps::{Backing, Mapping};
use profiler_unwinders::process::procfs::{Place, Scan, Stat};
use profiler_unwinders::reading::{Reading, RowsError};
use profiler_unwinders::runtime::MAX_FRAMES;
use rustc_hash::FxHashMap;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use self::names::Naming;
use self::roots::Roots;
use crate::channel;
use crate::wire::names::{JitCode, Named};
use crate::wire::{
    Answer, AttachedFields, Confinement, Failure, Found, LentFields, NamesFields, NotAttached, Request, RowsHead,
    SaidFields, Scanned, StatFields, Unsaid,
};

/// Name of the hidden subcommand that becomes a reader.
pub const SUBCOMMAND: &str = "__reader";

/// Executables known.
const MAX_EXECUTABLES: usize = 8192;
/// Files kept open.
const MAX_OPEN_FILES: usize = 512;
/// How long the memory of a process may be read, in the place of files that may not, for one request.
const RESTORING: Duration = Duration::from_secs(1);
/// Nice value: who samples waits for it.
const PRIORITY: i32 = -10;

/// Becomes a reader, of at most `memory` bytes, for `names` or for who samples: answers on standard input until its other end is closed.
///
/// # Errors
/// Standard input is no socket, or what comes is no request.
pub fn serve(memory: Option<u64>, names: bool) -> io::Result<()> {
    prepare(memory, names)?;
    // Nothing of a target's has been opened yet.
    let confined = profiler_confine::process(&Rights::of(&[Part::Reader]));
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut role = Role {
        executables: Executables::with_bounds(MAX_EXECUTABLES, MAX_OPEN_FILES),
        told: FxHashMap::default(),
        roots: Roots::default(),
        lent: FxHashMap::default(),
        naming: None,
        confined,
    };
    while let Some(body) = channel::read(&mut socket)? {
        let (may_restore, request) = borsh::from_slice(&body)?;
        drop(body);
        role.roots.look();
        role.executables.restore_for(if may_restore { RESTORING } else { Duration::ZERO });
        let (answer, rest) = role.answer(request);
        channel::write(&mut socket, &borsh::to_vec(&answer)?, &rest)?;
    }
    Ok(())
}

fn prepare(memory: Option<u64>, names: bool) -> io::Result<()> {
    // However the one that started it ends, and whatever it hangs in.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let (name, priority) = if names { (c"profiler-namer", 0) } else { (c"profiler-reader", PRIORITY) };
    let _ = rustix::thread::set_name(name);
    let _ = rustix::process::setpriority_process(None, priority);
    // They are meant for the one that started it, which ends its readers itself.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        signal_hook::flag::register(signal.as_raw(), Arc::default())?;
    }
    let limit = |resource, current| setrlimit(resource, Rlimit { current, maximum: current });
    limit(Resource::Core, Some(0))?;
    if let Some(memory) = memory {
        // What is allocated, and not the program.
        limit(Resource::Data, Some(memory))?;
    }
    let files = getrlimit(Resource::Nofile).maximum;
    let _ = limit(Resource::Nofile, files);
    Ok(())
}

struct Role {
    executables: Executables,
    /// What the other side knows of each.
    told: FxHashMap<ExecutableId, Revision>,
    roots: Roots,
    /// For who names frames, with the root directory of who runs it; also those that the registry has closed since.
    lent: FxHashMap<ExecutableId, (Arc<File>, Option<Arc<OwnedFd>>)>,
    naming: Option<Naming>,
    /// What was given up.
    confined: Report,
}

impl Role {
    fn answer(&mut self, request: Request) -> (Answer, Vec<u8>) {
        let answer = match request {
            Request::Begin { last, known, naming } => {
                self.naming = naming.map(|symbols| Naming::new(symbols.options()));
                self.executables.begin_after(ExecutableId(last));
                known.into_iter().for_each(|known| self.adopt(known));
                Answer::Begun(Confinement::of(&self.confined))
            }
            Request::Scan { pid } => Answer::Scan(Scan::read(pid).map(|scan| Scanned::of(&scan)).map_err(Failure::of)),
            Request::Stat { pid } => {
                Answer::Stat(Stat::read(pid).map(|stat| StatFields::of(&stat)).map_err(Failure::of))
            }
            Request::Place { pid } => Answer::Place(
                Place::read(pid)
                    .map(|place| (place.cgroup.map(|cgroup| cgroup.path.to_string()), place.namespace_pid))
                    .map_err(Failure::of),
            ),
            Request::Open { process, mappings } => {
                let mappings = mappings.take().unwrap_or_default();
                Answer::Opened(mappings.iter().map(|mapping| self.open(&process.mapper(), mapping)).collect())
            }
            Request::IsMadeCode { process, mappings } => {
                let mapping = mappings.take().and_then(|mut mappings| mappings.pop());
                Answer::IsMadeCode(
                    mapping.is_some_and(|mapping| self.executables.is_made_code(&process.mapper(), &mapping)),
                )
            }
            Request::Rows { id, limit } => {
                let Some(executable) = self.get(id) else { return (Answer::Unknown, Vec::new()) };
                match self.executables.rows(&executable, limit as usize) {
                    Ok(compiled) => {
                        let (head, rest) = RowsHead::of(&compiled);
                        return (Answer::Rows(Ok(head)), rest);
                    }
                    Err(RowsError::None(problem) | RowsError::NotNow(problem)) => Answer::Rows(Err(problem)),
                }
            }
            Request::Bytes { id, offset, length } => match self.get(id) {
                Some(executable) => {
                    let bytes = self.executables.bytes(&executable, offset, length as usize);
                    Answer::Bytes(bytes.map_err(|error| error.to_string()))
                }
                None => Answer::Unknown,
            },
            Request::Attach { process, id, mappings } => {
                let Some(executable) = self.get(id) else { return (Answer::Unknown, Vec::new()) };
                let mappings = mappings.take().unwrap_or_default();
                let mappings: Vec<&Mapping> = mappings.iter().collect();
                let attached = self.executables.attach(&process.mapper(), &executable, &mappings);
                Answer::Attached(attached.map(AttachedFields::of).map_err(NotAttached::of))
            }
            Request::Names { pid, kind, opaque, frames } => Answer::Names(self.names(pid, kind, &opaque, &frames)),
            Request::Memory { pid, address, length } => {
                Answer::Memory(self.executables.memory(pid, address, length as usize))
            }
            Request::Environment { pid, start_ticks, exe, wanted } => {
                let said = profiler_environ::read(Asked { pid, start_ticks, exe: &exe }, &wanted);
                Answer::Environment(said.map(SaidFields::of).map_err(Unsaid::of))
            }
            Request::Tell { id } => {
                let id = ExecutableId(id);
                self.told.insert(id, self.executables.revision(id));
                Answer::Known(self.executables.known(id))
            }
            Request::Adopt { known } => {
                self.adopt(known);
                Answer::Done
            }
            Request::Lend { id } => match self.get(id) {
                Some(executable) => {
                    let file = self.executables.file(&executable).ok();
                    Answer::Lent(file.and_then(|file| self.lend(&executable, file)))
                }
                None => Answer::Unknown,
            },
            Request::Close { ids } => {
                ids.into_iter().for_each(|id| self.executables.close_file(ExecutableId(id)));
                Answer::Done
            }
            Request::Return { ids } => {
                ids.into_iter().for_each(|id| drop(self.lent.remove(&ExecutableId(id))));
                Answer::Done
            }
            Request::Symbols { file, addresses, room, forget } => {
                return self.named(None, |naming| naming.native(file, &addresses, room as usize, forget));
            }
            Request::Generations { code, addresses, room } => {
                return self.named(Some(&code), |naming| Some(naming.generations(&code, &addresses, room as usize)));
            }
            Request::Prefetch { code } => {
                return self.named(Some(&code), |naming| {
                    naming.prefetch(&code);
                    None
                });
            }
            Request::Forget => {
                return self.named(None, |naming| {
                    naming.forget();
                    None
                });
            }
        };
        (answer, Vec::new())
    }

    fn names(&mut self, pid: u32, kind: u8, opaque: &[u8], frames: &[(u64, u32, u32)]) -> NamesFields {
        let Some(kind) = FrameKind::new(kind) else { return NamesFields::default() };
        let frame = |&(object, position, cookie): &(u64, u32, u32)| RuntimeFrame {
            kind,
            object: UserAddr(object),
            position,
            cookie,
        };
        let frames: Vec<RuntimeFrame> = frames.iter().take(MAX_FRAMES).map(frame).collect();
        NamesFields::of(&self.executables.names(pid, kind, opaque, &frames))
    }

    /// What is asked, about `code` perhaps.
    fn named(&mut self, code: Option<&JitCode>, ask: impl FnOnce(&mut Naming) -> Option<Named>) -> (Answer, Vec<u8>) {
        let Some(naming) = &mut self.naming else { return (Answer::Unknown, Vec::new()) };
        let rest = ask(naming).and_then(|named| borsh::to_vec(&named).ok());
        let stats = naming.stats().to_array();
        let read = code.and_then(|code| naming.so_far(code));
        (Answer::Named { stats, found: rest.is_some(), read }, rest.unwrap_or_default())
    }

    /// Holds `file` open until it is returned.
    fn lend(&mut self, executable: &Executable, file: Arc<File>) -> Option<LentFields> {
        let ((device, inode), _) = names::identity_of(&file).ok()?;
        let mut lent = LentFields { file: (file.as_raw_fd(), device, inode), root: None };
        // What was restored is memory, of which the registry has as much as there may be. Whoever comes too late asks once more.
        if executable.format != Format::Restored {
            let root = self.roots.get(executable.id);
            lent.root = root.as_ref().map(|(root, (device, inode))| (root.as_raw_fd(), *device, *inode));
            self.lent.insert(executable.id, (file, root.map(|(root, _)| root)));
        }
        Some(lent)
    }

    fn adopt(&mut self, known: Known) {
        let id = ExecutableId(known.id);
        if self.executables.adopt(known) {
            self.told.insert(id, self.executables.revision(id));
        }
    }

    fn get(&self, id: u32) -> Option<Arc<Executable>> {
        self.executables.get(ExecutableId(id)).map(Arc::clone)
    }

    fn open(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> Found {
        let executable = match self.executables.open_of(process, mapping) {
            Ok(executable) => executable,
            Err(error) if self.executables.take_put_off() => return Found::NotNow(error.to_string()),
            Err(error) => return Found::Nothing(error.to_string()),
        };
        let (id, revision) = (executable.id, self.executables.revision(executable.id));
        if matches!(&mapping.backing, Backing::File(_, path) if **path == *process.exe) {
            self.roots.take(id, process.pid);
        }
        if self.told.get(&id) == Some(&revision) {
            return Found::Known(id.0);
        }
        match self.executables.known(id) {
            Some(known) => {
                self.told.insert(id, revision);
                Found::New(Box::new(known))
            }
            None => Found::Nothing("it was forgotten at once".to_owned()),
        }
    }
}
