//! HotSpot's structures, of a JVM that runs and of memory that only claims to be one.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use profiler_elf::{Bytes, Elf};
use profiler_need::have_tools;
use profiler_unwinders::hotspot::{AttachError, Attached, Blob, Code, Frame, Symbols, attach};
use profiler_unwinders::memory::{Memory, ProcessMemory};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Of `enum hotspot_frame`, where a frame has it.
const COMPILED_LEAF: u64 = 3 << 48;

/// A JVM with code of all compilers, which waits for its input to end.
struct Jvm {
    child: Child,
    _folder: tempfile::TempDir,
}

const PROGRAM: &str = r#"
public class Parked {
    static int work(int x) { for (int i = 0; i < 100; i++) { x = x * 31 + Integer.toString(x).hashCode(); } return x; }
    public static void main(String[] args) throws Exception {
        int x = 1;
        for (int i = 0; i < 20000; i++) { x = work(x); }
        System.out.println("ready " + (x & 1));
        System.in.read();
    }
}
"#;

impl Jvm {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("Parked.java");
        std::fs::write(&source, PROGRAM).unwrap();
        let mut command = Command::new("java");
        command.args(flags).arg(&source).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "the program says {line:?}");
        Self { child, _folder: folder }
    }

    /// The library's symbols, and where it is.
    fn library(&self) -> (Symbols, u64) {
        let pid = self.child.id();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let files = maps.lines().filter_map(|line| Some((line, line.split_whitespace().nth(5)?)));
        let (line, path) = files.filter(|(_, path)| path.ends_with("libjvm.so")).min().unwrap();
        let bias = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        (symbols_of(Path::new(path)).unwrap(), bias)
    }

    fn memory(&self) -> ProcessMemory {
        ProcessMemory::open(self.child.id()).unwrap()
    }

    /// Holds all its threads: its compilers and its sweeper go on when the program waits.
    fn stop(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }

    fn attach(&self) -> Attached {
        let (symbols, bias) = self.library();
        attach(&self.memory(), &symbols, bias).unwrap()
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
        self.child.stdin.take().unwrap().flush().ok();
        self.child.wait().unwrap();
    }
}

fn symbols_of(path: &Path) -> Option<Symbols> {
    let bytes = Bytes::of_file(Arc::new(File::open(path).unwrap())).unwrap();
    Symbols::find(&Elf::parse(bytes).unwrap())
}

#[test]
fn compiled_methods_are_named_as_jcmd_names_them() {
    if !have_tools("compiled_methods_are_named_as_jcmd_names_them", &["java", "jcmd"]) {
        return;
    }
    let jvm = Jvm::start(&[]);
    let attached = jvm.attach();
    // as the process that names frames gets it
    let attached = Attached::parse(&mut &*attached.bytes()).filter(|parsed| *parsed == attached).unwrap();
    let listed = Command::new("jcmd").args([&jvm.child.id().to_string(), "Compiler.codelist"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let memory = jvm.memory();
    let mut names = attached.names(&memory);
    let mut compared = 0;
    for line in listed.lines() {
        // id level state class.method(signature) [blob, start - end]
        let Some((words, place)) = line.rsplit_once(" [0x") else { continue };
        let mut words = words.split(' ');
        let id: u32 = words.next().unwrap().parse().unwrap();
        let level: u8 = words.next().unwrap().parse().unwrap();
        let method = words.nth(1).unwrap().split('(').next().unwrap();
        let blob = u64::from_str_radix(place.split(',').next().unwrap(), 16).unwrap();
        // A hidden class's name has its address, which is left out; and what was freed since has no name.
        let frame = Frame { object: blob | COMPILED_LEAF, position: 0, cookie: id };
        let Some((tier, functions)) = names.name(frame).filter(|_| !method.contains("/0x")) else { continue };
        assert_eq!(functions.last().unwrap().name, method, "{line}");
        let expected = match level {
            0 => Code::Native,
            1..=3 => Code::C1,
            _ => Code::C2,
        };
        assert_eq!(tier, expected, "{line}");
        // another method's number: the one that was sampled is gone
        assert_eq!(names.name(Frame { cookie: id ^ 1, ..frame }), None);
        compared += 1;
    }
    assert!(compared > 100, "{compared} methods of\n{listed}");
}

#[test]
fn every_blob_of_the_code_heaps_is_found_from_its_code() {
    if !have_tools("every_blob_of_the_code_heaps_is_found_from_its_code", &["java"]) {
        return;
    }
    for flags in [&[][..], &["-Xint"], &["-XX:TieredStopAtLevel=1"], &["-XX:-SegmentedCodeCache", "-XX:+UseSerialGC"]] {
        let jvm = Jvm::start(flags);
        let attached = jvm.attach();
        jvm.stop();
        let memory = jvm.memory();
        let (layout, heaps) = (&attached.layout, &attached.heaps);
        let mut methods = 0;
        let mut blobs = 0;
        for heap in &heaps.0 {
            for address in heap.blobs(&memory, layout, 100_000) {
                let Some(blob) = Blob::read(&memory, layout, address).unwrap() else { continue };
                // One that was being freed is half there.
                for pc in [blob.code_begin, blob.code_end - 1] {
                    let found = heaps.blob_at(&memory, layout, pc).unwrap();
                    assert!(found == Some(address) || found.is_none(), "{blob:x?} {found:x?}");
                }
                blobs += 1;
                methods += usize::from(blob.is_nmethod());
            }
        }
        assert!(blobs > 100 && (methods > 50 || flags == ["-Xint"]), "{flags:?}: {blobs} blobs, {methods} methods");
    }
}

#[test]
fn what_exports_no_such_tables_is_no_jvm() {
    assert_eq!(symbols_of(Path::new("/proc/self/exe")), None);
}

/// A JVM's memory in which now and then a word is another one.
#[derive(Debug)]
struct Liar<'a> {
    truth: &'a ProcessMemory,
    state: Cell<u64>,
    one_in: u64,
    reads: Cell<u64>,
}

impl Liar<'_> {
    fn random(&self) -> u64 {
        let mut x = self.state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        x
    }
}

impl Memory for Liar<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.truth.read(address, bytes)?;
        if self.random().is_multiple_of(self.one_in) {
            let lie = match self.random() % 5 {
                0 => 0,
                1 => u64::MAX,
                2 => self.random(),
                3 => address,
                _ => self.random() % 4096,
            };
            let at = self.random() as usize % bytes.len().max(1);
            for (to, from) in bytes.iter_mut().skip(at & !7).zip(lie.to_le_bytes()) {
                *to = from;
            }
        }
        Ok(())
    }
}

#[test]
fn a_jvm_that_lies_costs_bounded_work_and_no_panic() {
    if !have_tools("a_jvm_that_lies_costs_bounded_work_and_no_panic", &["java"]) {
        return;
    }
    let jvm = Jvm::start(&[]);
    let (symbols, bias) = jvm.library();
    let honest = jvm.attach();
    let truth = jvm.memory();
    let blobs: Vec<u64> =
        honest.heaps.0.iter().flat_map(|heap| heap.blobs(&truth, &honest.layout, 100).collect::<Vec<_>>()).collect();
    let mut refused = 0;
    for seed in 1..25 {
        let one_in = [2, 10, 50, 500][seed as usize % 4];
        let liar = Liar { truth: &truth, state: Cell::new(seed), one_in, reads: Cell::new(0) };
        match attach(&liar, &symbols, bias) {
            Ok(attached) => assert_eq!(attached.instance().len(), honest.instance().len()),
            Err(AttachError::NotReady(_) | AttachError::NotSupported(_)) => refused += 1,
        }
        assert!(liar.reads.get() < 500_000, "{} reads", liar.reads.get());
        liar.reads.set(0);
        let mut names = honest.names(&liar);
        for blob in &blobs {
            let cookie = truth.half(blob + u64::from(honest.layout.compile_id)).unwrap();
            for position in [0, 5, 40, 1000, u32::MAX] {
                for subtype in 0..6_u64 {
                    let functions = names.name(Frame { object: blob | subtype << 48, position, cookie });
                    assert!(functions.is_none_or(|(_, functions)| functions.len() <= 128));
                }
            }
        }
        assert!(liar.reads.get() < 4000 * 30 * blobs.len() as u64, "{} reads", liar.reads.get());
    }
    assert!(refused > 4, "most lies are noticed: {refused}");
}

/// Memory that is the same wherever one looks.
#[derive(Debug)]
struct Everywhere(Option<u64>);

impl Memory for Everywhere {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        // none: each word points to itself
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = address.wrapping_add(i as u64);
            *byte = self.0.unwrap_or(at & !7).to_le_bytes()[(at & 7) as usize];
        }
        Ok(())
    }
}

#[test]
fn tables_that_have_no_end_or_no_sense_are_refused() {
    let mut symbols = Symbols::default();
    symbols.structs.array = 0x1000;
    for word in [None, Some(0), Some(1), Some(40), Some(0x4141_4141_4141_4141), Some(u64::MAX)] {
        let error = attach(&Everywhere(word), &symbols, 0x5000).unwrap_err();
        assert!(error.to_string().starts_with("jvm: not "), "{error}");
    }
}
