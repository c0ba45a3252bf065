//! The contract of a runtime, held by a small one: its code is a page of this test's own program, its frames are objects in it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use profiler_address::UserAddr;
use profiler_bpf::Tables;
use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_unwinders::executable::{Executable, Executables, Identity};
use profiler_unwinders::maps::Mapping;
use profiler_unwinders::memory::Memory;
use profiler_unwinders::native::Native;
use profiler_unwinders::process::{Clock, Process, ProcessTable};
use profiler_unwinders::publish::{Located, Publisher};
use profiler_unwinders::reading::Reading;
use profiler_unwinders::runtime::{Data, FrameName, Instance, Loader, Piece, RuntimeError, loaders};

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
struct TestData(Arc<Counts>);

#[derive(Debug)]
struct TestInstance(Arc<Counts>);

impl Loader for TestLoader {
    fn kind(&self) -> FrameKind {
        KIND
    }

    fn load(
        &mut self,
        executable: &Arc<Executable>,
        reading: &mut dyn Reading,
        _: u64,
    ) -> Result<Option<Box<dyn Data>>, RuntimeError> {
        if executable.htlhash != self.hash {
            return Ok(None);
        }
        assert_eq!(reading.bytes(executable, 0, 4).unwrap(), b"\x7fELF", "a loader can read the file");
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Box::new(TestData(Arc::clone(&self.counts)))))
    }

    fn tidy(&mut self, _: u64) {}
}

impl Data for TestData {
    fn attach(self: Box<Self>, _: &Process) -> Result<Box<dyn Instance>, RuntimeError> {
        if self.0.not_ready.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(RuntimeError::NotReady("the interpreter has not started".to_owned()));
        }
        self.0.attached.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(TestInstance(self.0)))
    }
}

impl Instance for TestInstance {
    fn pieces(&mut self, _: &Process, own: &[&Mapping]) -> Vec<Piece> {
        let mapping = own.first().unwrap();
        vec![Piece { start: mapping.start.plus(0x1000), end: mapping.start.plus(0x2000), rows: None }]
    }

    fn names(&mut self, frame: &RuntimeFrame, memory: &dyn Memory) -> Vec<FrameName> {
        let Ok(head) = memory.word(frame.object.0) else { return Vec::new() };
        let (cookie, length) = (head as u32, (head >> 32) as usize);
        let mut name = vec![0; length.min(16)];
        if cookie != frame.cookie || memory.read(frame.object.plus(8).0, &mut name).is_err() {
            return Vec::new();
        }
        let function = String::from_utf8_lossy(&name).into_owned().into();
        vec![FrameName { function, file: "objects".into(), line: frame.position }]
    }

    fn detach(self: Box<Self>, _: u64) {
        self.0.detached.fetch_add(1, Ordering::Relaxed);
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
    let mut executables = Executables::new();
    let tables = Tables::in_memory().unwrap();
    let native = Native::new(tables.rows, 16 << 20).unwrap();
    let counts = Arc::new(Counts::default());
    counts.not_ready.store(1, Ordering::Relaxed);
    let mut all = loaders(&native);
    all.push(Box::new(TestLoader { hash: own_hash(), counts: Arc::clone(&counts) }));
    let mut publisher = Publisher::with_loaders(tables.processes, native, all);

    // What is not ready has no part yet, and takes nothing from others.
    publisher.publish(&process, &mut executables, 1);
    assert_eq!(counts.now(), [1, 0, 0]);
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
    let name = FrameName { function: "hello".into(), file: "objects".into(), line: 12 };
    assert_eq!(publisher.names(pid, &frame), [name]);
    assert_eq!(publisher.names(pid, &RuntimeFrame { cookie: 78, ..frame }), [], "another object by now");
    assert_eq!(publisher.names(pid, &RuntimeFrame { object: UserAddr(0x10), ..frame }), [], "not readable");
    assert_eq!(publisher.names(pid, &RuntimeFrame { kind: FrameKind::new(10).unwrap(), ..frame }), []);
    assert_eq!(publisher.names(pid + 1, &frame), [], "not published");

    changed.serial += 1;
    publisher.publish(&changed, &mut executables, 2);
    assert_eq!(counts.now(), [3, 2, 1], "another image");
    publisher.forget(pid, 3);
    assert_eq!(counts.now(), [3, 2, 2]);
    assert_eq!(publisher.names(pid, &frame), []);
}
