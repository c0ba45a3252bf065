//! Samples by full identity: a stack is its frames, a frame is all that it is made of.

use std::sync::Arc;

use profiler_address::{ElfVaddr, FileOffset, KernelAddr, UserAddr};
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::{RuntimeFrame, UnwindEnd};
use profiler_measure::Measure;
use profiler_unwinders::executable::{Executable, ExecutableId};
use profiler_unwinders::process::Comm;
use profiler_unwinders::runtime::{self, FrameName, Named};
use rustc_hash::FxHashMap;

/// Index into [`Aggregate::frames`].
pub type FrameId = u32;
/// Index into [`Aggregate::stacks`].
pub type StackId = u32;
/// Index into [`Aggregate::images`].
pub type ImageId = u32;
/// Index into [`Aggregate::paths`].
pub type PathId = u32;
/// Index into [`Aggregate::threads`].
pub type ThreadId = u32;

/// One frame, with everything that tells it from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Code of a file.
    Native {
        /// The file's content.
        executable: ExecutableId,
        /// Where in it; of a call, not after it.
        address: ElfVaddr,
        /// Found by frame pointer.
        guessed: bool,
    },
    /// Code of a file that could not be opened, most often since its process was gone.
    Unopened {
        /// Its path, an index into [`Aggregate::paths`].
        path: PathId,
        /// Where in the file.
        offset: FileOffset,
        /// Found by frame pointer.
        guessed: bool,
    },
    /// Code in anonymous memory of one process image.
    Jit {
        /// The process image.
        image: ImageId,
        /// Where; of a call, not after it.
        address: UserAddr,
        /// Found by frame pointer.
        guessed: bool,
    },
    /// A function of an interpreter or JIT compiler, as its runtime tells it from all others of one process image; its names are in
    /// [`Aggregate::names`].
    Runtime {
        /// The process image.
        image: ImageId,
        /// Kind, object, position and cookie.
        frame: RuntimeFrame,
    },
    /// An address that is in no known mapping.
    Unmapped {
        /// Where.
        address: UserAddr,
    },
    /// The kernel.
    Kernel {
        /// Where; of a call, not after it.
        address: KernelAddr,
    },
    /// Why the stack has no further frames.
    Marker(UnwindEnd),
}

/// One process image (a pid from an exec to the next, or to its end) that samples belong to.
#[derive(Clone, Debug)]
pub struct Image {
    /// Process id.
    pub pid: u32,
    /// The process table's serial of the image.
    pub serial: u32,
    /// ns since the Unix epoch; 0 if unknown.
    pub start_unix_ns: u64,
    /// `CLOCK_BOOTTIME`, ns.
    pub start_time_ns: u64,
    /// Name of the main thread.
    pub comm: Comm,
    /// Path of the executable.
    pub exe: Arc<[u8]>,
    /// The executable itself, where it could be read.
    pub executable: Option<Arc<Executable>>,
    /// Container id.
    pub container_id: Option<Arc<str>>,
    /// Path of its control group, where the container's name may be a claim only.
    pub cgroup: Option<Arc<str>>,
    /// Pid in its innermost pid namespace.
    pub namespace_pid: u32,
}

/// One sample.
#[derive(Clone, Copy, Debug)]
pub struct RawSample {
    /// `CLOCK_MONOTONIC`, ns.
    pub time: u64,
    /// Its stack.
    pub stack: StackId,
    /// Its thread.
    pub thread: ThreadId,
    value_low: u32,
    value_high: u16,
    cpu: u16,
}
const _: () = assert!(size_of::<RawSample>() == 24);

/// What a sample can count at most: 48 bits.
const MAX_VALUE: u64 = (1 << 48) - 1;

impl RawSample {
    /// A sample on `cpu` that counts `value`, which has 48 bits (`profiler_bpf::event` allows no longer period).
    #[must_use]
    pub fn new(time: u64, stack: StackId, thread: ThreadId, cpu: u32, value: u64) -> Self {
        let value = value.min(MAX_VALUE);
        // The kernel has fewer CPUs than 16 bits have numbers.
        let cpu = u16::try_from(cpu).unwrap_or(u16::MAX);
        Self { time, stack, thread, value_low: value as u32, value_high: (value >> 32) as u16, cpu }
    }

    /// What it counts, as its measure says.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value_low as u64 | (self.value_high as u64) << 32
    }

    /// Its CPU.
    #[must_use]
    pub const fn cpu(&self) -> u32 {
        self.cpu as u32
    }
}

/// The samples of one measure.
#[derive(Clone, Debug)]
pub struct Series {
    /// What they are samples of.
    pub measure: Measure,
    /// The samples.
    pub samples: Vec<RawSample>,
}

/// A thread that was sampled under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Its process image.
    pub image: ImageId,
    /// Thread id.
    pub tid: u32,
    /// The name it had when sampled.
    pub comm: [u8; 16],
}

/// A runtime's frame that has no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Why, in words.
    pub why: Arc<str>,
    /// How often its runtime was asked.
    pub asked: u32,
}

/// A runtime is asked so often what a frame is. What it could not tell of a sample that was read late it may tell of the next.
const MAX_ASKED: u32 = 3;

/// A runtime's frame without its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Function {
    kind: FrameKind,
    object: UserAddr,
    cookie: u32,
}

impl Function {
    fn of(frame: &RuntimeFrame) -> Self {
        let identity = runtime::of_kind(frame.kind).map_or(u32::MAX, |runtime| runtime.identity());
        Self { kind: frame.kind, object: frame.object, cookie: frame.cookie & identity }
    }
}

/// Everything sampled so far.
#[derive(Debug, Default)]
pub struct Aggregate {
    /// Distinct frames.
    pub frames: Vec<Frame>,
    /// Distinct stacks, leaf first.
    pub stacks: Vec<Arc<[FrameId]>>,
    /// Process images.
    pub images: Vec<Image>,
    /// Threads.
    pub threads: Vec<Thread>,
    /// The samples, by measure.
    pub series: Vec<Series>,
    /// Paths of files that could not be opened.
    pub paths: Vec<Arc<[u8]>>,
    /// Executables that frames are in.
    pub executables: FxHashMap<ExecutableId, Arc<Executable>>,
    /// What runtimes said of their frames when these were first seen, innermost function first; their processes may be gone since.
    pub names: FxHashMap<FrameId, Box<[FrameName]>>,
    /// Why those runtimes' frames have none that are not there.
    pub unnamed: FxHashMap<FrameId, Unnamed>,
    /// Of each function a frame that has names.
    functions: FxHashMap<(ImageId, Function), FrameId>,
    /// Bytes of the texts in `names`.
    name_bytes: usize,
    path_ids: FxHashMap<Arc<[u8]>, PathId>,
    frame_ids: FxHashMap<Frame, FrameId>,
    stack_ids: FxHashMap<Arc<[FrameId]>, StackId>,
    image_ids: FxHashMap<u32, ImageId>,
    thread_ids: FxHashMap<Thread, ThreadId>,
    /// Frames of all stacks.
    stack_frames: usize,
    /// Bytes of what is in the tables, without room to grow.
    content: usize,
}

/// What an entry of a table takes: itself, as a key of the table of ids, and the id.
const fn entry<T>() -> usize {
    2 * size_of::<T>() + size_of::<u32>()
}

impl Aggregate {
    /// Whether it has no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sample_count() == 0
    }

    /// Samples of all measures.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.series.iter().map(|series| series.samples.len()).sum()
    }

    /// The samples of all measures.
    pub fn samples(&self) -> impl Iterator<Item = &RawSample> {
        self.series.iter().flat_map(|series| &series.samples)
    }

    /// Bytes of what is in the tables, without samples and room to grow: what it grows by is what a new stack costs.
    pub(super) const fn content_bytes(&self) -> usize {
        self.content
    }

    /// Bytes that it takes, to within a few per cent, without what it shares with others (executables, names).
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        fn vec<T>(vec: &Vec<T>) -> usize {
            vec.capacity() * size_of::<T>()
        }
        // A slot of a hash table is its entry and a byte; an eighth is always free.
        fn map<K, V>(map: &FxHashMap<K, V>) -> usize {
            map.capacity() * 8 / 7 * (size_of::<(K, V)>() + 1)
        }
        // The two counts before what an Arc holds, and the allocator's word.
        let stacks = self.stacks.len() * 24 + self.stack_frames * size_of::<FrameId>();
        let lists = vec(&self.frames) + vec(&self.stacks) + vec(&self.images) + vec(&self.threads);
        let samples: usize = self.series.iter().map(|series| vec(&series.samples)).sum();
        let ids = map(&self.frame_ids) + map(&self.stack_ids) + map(&self.image_ids) + map(&self.thread_ids);
        let names = map(&self.names) + map(&self.unnamed) + map(&self.functions) + self.name_bytes;
        lists + samples + ids + names + stacks + vec(&self.paths) + map(&self.path_ids) + map(&self.executables)
    }

    /// A frame for the log.
    pub(super) fn describe(&self, frame: FrameId) -> String {
        match self.frames.get(frame as usize) {
            Some(Frame::Native { executable, address, .. }) => {
                let path = self.executables.get(executable).map(|executable| executable.path_text());
                format!("{}+{:#x}", path.unwrap_or_default(), address.0)
            }
            other => format!("{other:x?}"),
        }
    }

    /// The id of `frame`.
    pub fn frame(&mut self, frame: Frame) -> FrameId {
        *self.frame_ids.entry(frame).or_insert_with(|| {
            self.content += entry::<Frame>();
            self.frames.push(frame);
            self.frames.len() as u32 - 1
        })
    }

    /// Whether a runtime need not be asked (again) what this frame is.
    #[must_use]
    pub fn knows(&self, image: ImageId, frame: RuntimeFrame) -> bool {
        self.frame_ids.get(&Frame::Runtime { image, frame }).is_some_and(|id| !self.may_be_named(*id))
    }

    /// Whether a frame has no name, and its runtime is to be asked again when it is seen.
    #[must_use]
    pub fn may_be_named(&self, frame: FrameId) -> bool {
        self.unnamed.get(&frame).is_some_and(|unnamed| unnamed.asked < MAX_ASKED)
    }

    /// The id of a runtime's frame; `names` is asked when it is new here, and some times more if it could not be named.
    pub fn runtime_frame(&mut self, image: ImageId, frame: RuntimeFrame, names: impl FnOnce() -> Named) -> FrameId {
        if self.knows(image, frame)
            && let Some(&known) = self.frame_ids.get(&Frame::Runtime { image, frame })
        {
            return known;
        }
        let id = self.frame(Frame::Runtime { image, frame });
        let why = match names() {
            Ok(names) => {
                self.functions.entry((image, Function::of(&frame))).or_insert(id);
                self.unnamed.remove(&id);
                self.note_names(id, names);
                return id;
            }
            Err(why) => why,
        };
        // Another place of it has a name: it is that function, of which the place is not known any more.
        let outermost =
            self.functions.get(&(image, Function::of(&frame))).and_then(|known| self.names.get(known)?.last());
        if let Some(outermost) = outermost.filter(|_| frame.object.0 != 0) {
            let name = FrameName { line: 0, tier: None, ..outermost.clone() };
            self.unnamed.remove(&id);
            self.note_names(id, vec![name]);
            return id;
        }
        let unnamed = self.unnamed.entry(id).or_insert_with(|| Unnamed { why: Arc::clone(&why), asked: 0 });
        *unnamed = Unnamed { why, asked: unnamed.asked + 1 };
        id
    }

    fn note_names(&mut self, id: FrameId, names: Vec<FrameName>) {
        let bytes = |name: &FrameName| size_of::<FrameName>() + name.function.len() + name.file.len();
        self.name_bytes += names.iter().map(bytes).sum::<usize>();
        self.names.insert(id, names.into());
    }

    /// The id of `path`.
    pub fn path(&mut self, path: &Arc<[u8]>) -> PathId {
        *self.path_ids.entry(Arc::clone(path)).or_insert_with(|| {
            self.content += entry::<Arc<[u8]>>() + path.len();
            self.paths.push(Arc::clone(path));
            self.paths.len() as u32 - 1
        })
    }

    /// The id of the stack of `frames`, leaf first.
    pub fn stack(&mut self, frames: &[FrameId]) -> StackId {
        if let Some(&id) = self.stack_ids.get(frames) {
            return id;
        }
        let id = self.stacks.len() as u32;
        let frames: Arc<[FrameId]> = frames.into();
        self.stack_frames += frames.len();
        self.content += entry::<Arc<[FrameId]>>() + 24 + size_of_val(&*frames);
        self.stacks.push(Arc::clone(&frames));
        self.stack_ids.insert(frames, id);
        id
    }

    /// The id of the image with this serial, if it has been sampled before.
    #[must_use]
    pub fn known_image(&self, serial: u32) -> Option<ImageId> {
        self.image_ids.get(&serial).copied()
    }

    /// Adds an image that [`Self::known_image`] does not know.
    pub fn image(&mut self, image: Image) -> ImageId {
        let id = self.images.len() as u32;
        self.image_ids.insert(image.serial, id);
        self.content += entry::<Image>();
        self.images.push(image);
        id
    }

    /// The id of `thread`.
    pub fn thread(&mut self, thread: Thread) -> ThreadId {
        *self.thread_ids.entry(thread).or_insert_with(|| {
            self.content += entry::<Thread>();
            self.threads.push(thread);
            self.threads.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_asked_for_names_once_and_they_outlive_it() {
        let mut aggregate = Aggregate::default();
        let frame = |object, cookie| RuntimeFrame {
            kind: FrameKind::new(5).unwrap(),
            object: UserAddr(object),
            position: 3,
            cookie,
        };
        let name = |function: &str| FrameName {
            function: function.into(),
            file: "a.py".into(),
            line: 7,
            start_line: 1,
            tier: None,
        };
        let gone = || Err("python: code object gone".into());
        let mut asked = 0;
        let mut id = |aggregate: &mut Aggregate, image, frame, names: Named| {
            aggregate.runtime_frame(image, frame, || {
                asked += 1;
                names
            })
        };
        let before = aggregate.memory_bytes();
        let first = id(&mut aggregate, 0, frame(0x1000, 1), Ok(vec![name("inlined"), name("caller")]));
        let again = id(&mut aggregate, 0, frame(0x1000, 1), Ok(vec![name("what the address holds by now")]));
        assert_eq!(first, again);
        // Any part of its identity makes it another.
        let others = [
            id(&mut aggregate, 1, frame(0x1000, 1), gone()),
            id(&mut aggregate, 0, frame(0x1000, 2), Ok(vec![name("reused")])),
            id(&mut aggregate, 0, frame(0x2000, 1), gone()),
        ];
        assert!(!others.contains(&first));
        assert_eq!(asked, 4);
        assert_eq!(*aggregate.names[&first], [name("inlined"), name("caller")]);
        assert_eq!(aggregate.names.len(), 2, "what has no name has no entry");
        assert_eq!(&*aggregate.unnamed[&others[0]].why, "python: code object gone");
        assert!(aggregate.memory_bytes() > before + 3 * size_of::<FrameName>());
    }

    #[test]
    fn what_could_not_be_named_is_asked_again_and_not_for_ever() {
        let mut aggregate = Aggregate::default();
        let frame =
            |object, position, cookie| RuntimeFrame { kind: FrameKind::V8, object: UserAddr(object), position, cookie };
        let name = |function: &str, line| FrameName {
            function: function.into(),
            file: "a.js".into(),
            line,
            start_line: 1,
            tier: Some(profiler_unwinders::runtime::Tier::Interpreted),
        };
        let gone = || Err("v8: function gone".into());
        let first = aggregate.runtime_frame(0, frame(0x1000, 3, 1), gone);
        assert!(!aggregate.knows(0, frame(0x1000, 3, 1)) && aggregate.may_be_named(first), "it is asked again");
        let again = aggregate.runtime_frame(0, frame(0x1000, 3, 1), || Ok(vec![name("inlined", 5), name("down", 7)]));
        assert_eq!(first, again, "the samples that had it first get its name, too");
        assert_eq!((&*aggregate.names[&first][0].function, aggregate.unnamed.len()), ("inlined", 0));

        // The same function at a place that nobody can tell any more, and others.
        let elsewhere = aggregate.runtime_frame(0, frame(0x1000, 9, 1 | 2 << 30), gone);
        assert_eq!(*aggregate.names[&elsewhere], [FrameName { line: 0, tier: None, ..name("down", 7) }]);
        for other in [(1, frame(0x1000, 9, 1)), (0, frame(0x2000, 9, 1)), (0, frame(0x1000, 9, 2)), (0, frame(0, 9, 1))]
        {
            let id = aggregate.runtime_frame(other.0, other.1, gone);
            assert!(!aggregate.names.contains_key(&id), "{other:?}");
            let mut asked = 1;
            while !aggregate.knows(other.0, other.1) {
                asked += 1;
                assert_eq!(aggregate.runtime_frame(other.0, other.1, gone), id);
            }
            assert_eq!((asked, aggregate.unnamed[&id].asked), (MAX_ASKED, MAX_ASKED));
            aggregate.runtime_frame(other.0, other.1, || unreachable!("often enough"));
        }
    }
}
