//! The contract of a runtime, held by a small one: its code is a page of this test's own program, its frames are objects in it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use profiler_address::UserAddr;
use profiler_bpf::Tables;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_unwinders::executable::{Executable, ExecutableId, Executables, Identity, Mapper, OpenError};
use profiler_unwinders::maps::Mapping;
use profiler_unwinders::memory::{Memory, ProcessMemory};
use profiler_unwinders::native::Native;
use profiler_unwinders::process::procfs::{Place, Scan, Stat};
use profiler_unwinders::process::{Clock, Process, ProcessTable, ScanError};
use profiler_unwinders::publish::{Located, Publisher};
use profiler_unwinders::reading::{Compiled, InHand, Lent, Opened, Reading, RowsError};
use profiler_unwinders::runtime::{
    AttachError, Attached, FrameName, Instance, Loader, Named, Piece, RuntimeError, Runtimes, Tier, loaders,
};
use rustc_hash::FxHashMap;

const KIND: FrameKind = FrameKind::new(9).unwrap();

/// What a frame of this runtime points to.
#[repr(C)]
struct Object {
    cookie: u32,
    length: u32,
    name: [u8; 16],
}

static OBJECT: Object = Object { cookie: 77, length: 5, name: *b"hello, world!   " };

#[derive(Debug, Default)]
struct Counts {
    loads: AtomicUsize,
    attached: AtomicUsize,
    detached: AtomicUsize,
    not_ready: AtomicUsize,
    unsupported: AtomicBool,
}

impl Counts {
    fn now(&self) -> [usize; 3] {
        [&self.loads, &self.attached, &self.detached].map(|count| count.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct TestLoader {
    /// Of the executables of this kind.
    hash: String,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct TestInstance(Arc<Counts>);

impl Loader for TestLoader {
    fn kind(&self) -> FrameKind {
        KIND
    }

    fn attach(
        &mut self,
        executable: &Arc<Executable>,
        _: &Process,
        reading: &mut dyn Reading,
        _: u64,
    ) -> Result<Option<Box<dyn Instance>>, RuntimeError> {
        if executable.htlhash != self.hash {
            return Ok(None);
        }
        assert_eq!(reading.bytes(executable, 0, 4).unwrap(), b"\x7fELF", "a loader can read the file");
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        let not_ready = &self.counts.not_ready;
        if not_ready.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let why = "the interpreter has not started".to_owned();
            return Err(RuntimeError::NotReady(why, Duration::from_nanos(10)));
        }
        if self.counts.unsupported.load(Ordering::Relaxed) {
            return Err(RuntimeError::Unsupported("an old one".to_owned()));
        }
        self.counts.attached.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Box::new(TestInstance(Arc::clone(&self.counts)))))
    }

    fn tidy(&mut self, _: u64) {}
}

impl Instance for TestInstance {
    fn pieces(&mut self, _: &Process, own: &[&Mapping], _: &mut dyn Reading, _: u64) -> Vec<Piece> {
        let mapping = own.first().unwrap();
        vec![Piece { start: mapping.start.plus(0x1000), end: mapping.start.plus(0x2000), rows: None, instance: 3 }]
    }

    fn opaque(&self) -> Option<&[u8]> {
        Some(b"as attached")
    }

    fn detach(self: Box<Self>, _: u64) {
        self.0.detached.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads names of this runtime's frames, and all else as it is read in this process.
#[derive(Debug)]
struct TestReading(Executables);

impl TestReading {
    fn name(memory: &ProcessMemory, frame: &RuntimeFrame) -> Named {
        let gone = |_| Arc::<str>::from("test: object gone");
        let head = memory.word(frame.object.0).map_err(gone)?;
        let (cookie, length) = (head as u32, (head >> 32) as usize);
        let mut name = vec![0; length.min(16)];
        memory.read(frame.object.0 + 8, &mut name).map_err(gone)?;
        if cookie != frame.cookie {
            return Err(Arc::from("test: another object"));
        }
        let function = String::from_utf8_lossy(&name).into_owned().into();
        Ok(vec![FrameName {
            function,
            file: "objects".into(),
            line: frame.position,
            start_line: 1,
            tier: Some(Tier::C1),
        }])
    }
}

impl Reading for TestReading {
    fn names(&mut self, pid: u32, kind: FrameKind, opaque: &[u8], frames: &[RuntimeFrame]) -> Vec<Named> {
        assert_eq!((kind, opaque), (KIND, &b"as attached"[..]));
        let memory = ProcessMemory::open(pid).unwrap();
        frames.iter().map(|frame| Self::name(&memory, frame)).collect()
    }
    fn scan(&mut self, pid: u32) -> Result<Scan, ScanError> {
        self.0.scan(pid)
    }
    fn stat(&mut self, pid: u32) -> Result<Stat, ScanError> {
        self.0.stat(pid)
    }
    fn place(&mut self, pid: u32) -> Result<Place, ScanError> {
        self.0.place(pid)
    }
    fn open(&mut self, process: &Mapper<'_>, mappings: &[&Mapping]) -> Opened {
        Reading::open(&mut self.0, process, mappings)
    }
    fn is_made_code(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> bool {
        self.0.is_made_code(process, mapping)
    }
    fn rows(&mut self, executable: &Executable, limit: usize) -> Result<Compiled, RowsError> {
        self.0.rows(executable, limit)
    }
    fn bytes(&mut self, executable: &Executable, offset: u64, length: usize) -> Result<Vec<u8>, OpenError> {
        self.0.bytes(executable, offset, length)
    }
    fn attach(&mut self, _: &Mapper<'_>, _: &Executable, _: &[&Mapping]) -> Result<Attached, AttachError> {
        panic!("nobody asks for it")
    }
    fn memory(&mut self, pid: u32, address: u64, length: usize) -> Option<Vec<u8>> {
        self.0.memory(pid, address, length)
    }
    fn lend(&mut self, wanted: &[Arc<Executable>]) -> FxHashMap<ExecutableId, Lent> {
        self.0.lend(wanted)
    }
    fn close_orphans(&mut self, living: &dyn Fn(u32) -> bool, needed: &dyn Fn(ExecutableId) -> bool) -> usize {
        self.0.close_orphans(living, needed)
    }
    fn in_hand(&self) -> InHand {
        self.0.in_hand()
    }
}

fn own_hash() -> String {
    let file = Arc::new(File::open("/proc/self/exe").unwrap());
    let size = file.metadata().unwrap().len();
    Identity::read(&file, size).unwrap().htlhash
}

#[test]
fn a_runtime_is_attached_once_named_while_it_lives_and_detached_with_its_image() {
    let pid = std::process::id();
    let mut processes = ProcessTable::new();
    processes.scan(pid, Clock::monotonic_now()).unwrap();
    let process = processes.get(pid).unwrap().clone();
    let mut executables = TestReading(Executables::new());
    let tables = Tables::in_memory().unwrap();
    let native = Native::new(tables.rows, 16 << 20).unwrap();
    let counts = Arc::new(Counts::default());
    counts.not_ready.store(1, Ordering::Relaxed);
    let runtimes = Runtimes::new(tables.instances);
    let mut all = loaders(&native, &runtimes);
    all.push(Box::new(TestLoader { hash: own_hash(), counts: Arc::clone(&counts) }));
    let mut publisher = Publisher::with_loaders(tables.processes, native, runtimes, all);

    // What is not ready has no part yet, and takes nothing from others.
    publisher.publish(&process, &mut executables, 1);
    assert_eq!(counts.now(), [1, 0, 0]);
    // However soon it would be asked again.
    let soon = 100_000_000;
    assert_eq!((publisher.due(soon), publisher.due(soon + 1)), (vec![], vec![pid]), "and is asked again soon");
    let code = UserAddr(process.address_space.unwrap().start_code);
    assert!(matches!(publisher.locate(pid, code, 1), Located::Executable(..)));

    let mut changed = process.clone();
    for _ in 1..5 {
        changed.mappings_version += 1;
        publisher.publish(&changed, &mut executables, 1);
        assert_eq!(counts.now(), [2, 1, 0], "attached once an image, whatever else it maps");
    }
    // The rows beneath the piece still hold.
    let text = process.mappings.find(code).unwrap();
    for offset in [0, 0x1000, 0x1fff, 0x2000] {
        match publisher.locate(pid, text.start.plus(offset), 1) {
            Located::Executable(executable, vaddr) => {
                assert_eq!(executable.vaddr_of(text.offset.plus(offset)), Some(vaddr));
            }
            other => panic!("{offset:#x}: {other:?}"),
        }
    }

    let object = UserAddr(&raw const OBJECT as u64);
    let frame = RuntimeFrame { kind: KIND, object, position: 12, cookie: 77 };
    let name =
        FrameName { function: "hello".into(), file: "objects".into(), line: 12, start_line: 1, tier: Some(Tier::C1) };
    let frames = [
        frame,
        RuntimeFrame { cookie: 78, ..frame },
        RuntimeFrame { object: UserAddr(0x10), ..frame },
        RuntimeFrame { kind: FrameKind::new(10).unwrap(), ..frame },
    ];
    let not = |why: &str| Err(Arc::from(why));
    assert_eq!(
        publisher.names(pid, &frames, &mut executables),
        [Ok(vec![name]), not("test: another object"), not("test: object gone"), not("runtime: process gone")]
    );
    assert_eq!(publisher.names(pid + 1, &[frame], &mut executables), [not("runtime: process gone")], "not published");
    let address = text.start.plus(0x1800);
    assert_eq!(publisher.unwinder(pid, address), KIND);
    assert_eq!(publisher.unwinder(pid, text.start), FrameKind::NATIVE);

    changed.serial += 1;
    publisher.publish(&changed, &mut executables, 2);
    assert_eq!(counts.now(), [3, 2, 1], "another image");
    publisher.forget(pid, 3);
    assert_eq!(counts.now(), [3, 2, 2]);
    assert_eq!(publisher.names(pid, &[frame], &mut executables), [not("runtime: process gone")]);
}

#[test]
fn a_runtime_that_is_not_supported_is_asked_once_an_image_and_counted_once() {
    let pid = std::process::id();
    let mut processes = ProcessTable::new();
    processes.scan(pid, Clock::monotonic_now()).unwrap();
    let mut process = processes.get(pid).unwrap().clone();
    let mut executables = TestReading(Executables::new());
    let tables = Tables::in_memory().unwrap();
    let native = Native::new(tables.rows, 16 << 20).unwrap();
    let counts = Arc::new(Counts::default());
    counts.unsupported.store(true, Ordering::Relaxed);
    let loader = TestLoader { hash: own_hash(), counts: Arc::clone(&counts) };
    let runtimes = Runtimes::new(tables.instances);
    let all: Vec<Box<dyn Loader>> = vec![Box::new(native.clone()), Box::new(loader)];
    let mut publisher = Publisher::with_loaders(tables.processes, native, runtimes, all);
    let (mut asked, mut counted) = (Vec::new(), Vec::new());
    for image in 0..2 {
        for _ in 0..5 {
            process.mappings_version += 1;
            publisher.publish(&process, &mut executables, 1);
        }
        asked.push(counts.now()[0]);
        counted.push(publisher.refused().values().sum::<u64>());
        process.serial += image + 1;
    }
    assert_eq!((asked, counted), (vec![1, 2], vec![1, 2]));
    assert!(publisher.refused().keys().all(|(_, reason)| *reason == "not supported"), "{:?}", publisher.refused());
}
