//! Perf maps and jitdumps as files of a process: where they are found, what is refused, what happens as they grow.

use profiler_address::UserAddr;
use profiler_symbolizer::{JitProcess, Options, Symbolizer};
use std::{fs, io::Write, os::unix::fs::symlink, path::Path, process::Command, time::Instant};

/// This very process, with a root directory of its own.
fn process(root: &Path) -> JitProcess {
    fs::create_dir_all(root.join("tmp")).unwrap();
    JitProcess { pid: std::process::id(), start_time: 1, root: root.into(), namespace_pid: 7 }
}

fn name(symbolizer: &mut Symbolizer, process: &JitProcess, address: u64) -> String {
    let found = symbolizer.jit(process, &[(UserAddr(address), u64::MAX)]);
    found[0].frames.first().map(|frame| frame.name.to_string()).unwrap_or_default()
}

#[test]
fn a_map_is_followed_as_it_grows_and_read_anew_when_rewritten() {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path());
    let path = root.path().join("tmp/perf-7.map");
    fs::write(&path, "1000 10 one\n2000 10 tw").unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    assert_eq!(name(&mut symbolizer, &process, 0x1001), "one");
    assert_eq!(name(&mut symbolizer, &process, 0x2001), "");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"o words\n1008 8 later\n").unwrap();
    assert_eq!(name(&mut symbolizer, &process, 0x2001), "two words");
    assert_eq!(name(&mut symbolizer, &process, 0x1001), "one");
    assert_eq!(name(&mut symbolizer, &process, 0x1009), "later");
    // Rewritten in place, longer than before: as HotSpot does at each dump.
    fs::write(&path, "0x1000 0x10 changed\n".repeat(10)).unwrap();
    assert_eq!(name(&mut symbolizer, &process, 0x1009), "changed");
    assert_eq!(name(&mut symbolizer, &process, 0x2001), "");
}

#[test]
fn names_outlive_the_process() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("tmp")).unwrap();
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    let process = JitProcess { pid: child.id(), start_time: 5, root: root.path().into(), namespace_pid: child.id() };
    fs::write(root.path().join(format!("tmp/perf-{}.map", child.id())), "1000 10 one\n").unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    symbolizer.jit_prefetch(&process);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(root);
    assert_eq!(name(&mut symbolizer, &process, 0x1000), "one");
    // Another process of the same pid has nothing of it.
    assert_eq!(name(&mut symbolizer, &JitProcess { start_time: 6, ..process }, 0x1000), "");
}

#[test]
fn what_is_not_a_plain_file_is_refused_and_does_not_block() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "1000 10 leaked\n").unwrap();
    type Make = fn(&Path, &Path);
    let make: [(&str, Make); 4] = [
        ("fifo", |path, _| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("symlink", |path, outside| symlink(outside.join("secret"), path).unwrap()),
        ("device", |path, _| symlink("/dev/zero", path).unwrap()),
        ("directory", |path, _| fs::create_dir(path).unwrap()),
    ];
    for (kind, make) in make {
        let root = tempfile::tempdir().unwrap();
        let process = process(root.path());
        make(&root.path().join("tmp/perf-7.map"), outside.path());
        let mut symbolizer = Symbolizer::new(Options::default());
        let started = Instant::now();
        assert_eq!(name(&mut symbolizer, &process, 0x1000), "", "{kind}");
        assert!(started.elapsed().as_secs() < 2, "{kind}");
        assert_eq!(symbolizer.stats().jit_refused, 1, "{kind}");
    }
}

#[test]
fn a_link_in_the_path_does_not_lead_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("perf-7.map"), "1000 10 leaked\n").unwrap();
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("tmp")).unwrap();
    let process = JitProcess { pid: std::process::id(), start_time: 1, root: root.path().into(), namespace_pid: 7 };
    assert_eq!(name(&mut Symbolizer::new(Options::default()), &process, 0x1000), "");
}

#[test]
fn a_huge_sparse_map_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path());
    fs::File::create(root.path().join("tmp/perf-7.map")).unwrap().set_len(1 << 40).unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    assert_eq!(name(&mut symbolizer, &process, 0x1000), "");
    assert_eq!(symbolizer.stats().jit_refused, 1);
}

#[test]
fn a_large_map_is_read_within_its_time_and_memory() {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path());
    let mut text = String::new();
    for i in 0..500_000u64 {
        text += &format!("{:x} 40 LazyCompile:~function{i} file:///app/lib/module.js:{i}:1\n", 0x10_0000 + i * 64);
    }
    fs::write(root.path().join("tmp/perf-7.map"), &text).unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    let started = Instant::now();
    assert_eq!(
        name(&mut symbolizer, &process, 0x10_0000 + 64 * 499_999),
        "LazyCompile:~function499999 file:///app/lib/module.js:499999:1"
    );
    println!("{} MB of perf map in {:?}, {} bytes held", text.len() >> 20, started.elapsed(), symbolizer.stats().bytes);
    assert!(symbolizer.stats().bytes < 3 * text.len() as u64);
}

/// What the agent gives names by default.
fn default_budget() -> Options {
    Options { budget_bytes: (128 << 20) / 12, ..Options::default() }
}

fn write_map(process: &JitProcess, lines: u64) {
    let line =
        |i: u64| format!("{:x} 40 LazyCompile:~function{i} file:///app/lib/module.js:{i}:1\n", 0x10_0000 + i * 64);
    let mut file = std::io::BufWriter::new(fs::File::create(process.root.join("tmp/perf-7.map")).unwrap());
    (0..lines).for_each(|i| file.write_all(line(i).as_bytes()).unwrap());
}

#[test]
fn a_hundred_thousand_functions_are_all_named_within_the_default_budget() {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path());
    write_map(&process, 100_000);
    let mut symbolizer = Symbolizer::new(default_budget());
    let addresses: Vec<_> = (0..100_000).map(|i| (UserAddr(0x10_0000 + i * 64), 0)).collect();
    let found = symbolizer.jit(&process, &addresses);
    assert!(found.iter().enumerate().all(|(i, found)| found.frames[0].name.ends_with(&format!(".js:{i}:1"))));
    assert_eq!((symbolizer.stats().jit_left_out, symbolizer.stats().evictions), (0, 0));
    assert!(symbolizer.stats().bytes < 2 << 20);
}

#[test]
fn a_map_of_millions_stays_within_the_budget_and_leaves_the_oldest_out() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let process_of_many = process(root.path());
    write_map(&process_of_many, 1_500_000);
    let mut symbolizer = Symbolizer::new(default_budget());
    assert_eq!(
        name(&mut symbolizer, &process_of_many, 0x10_0000 + 64 * 1_499_999),
        "LazyCompile:~function1499999 file:///app/lib/module.js:1499999:1"
    );
    assert_eq!(name(&mut symbolizer, &process_of_many, 0x10_0000), "");
    let stats = symbolizer.stats();
    assert!(stats.bytes <= (128 << 20) / 12 / 4, "{} bytes", stats.bytes);
    assert!(stats.jit_left_out > 1_300_000, "{} left out", stats.jit_left_out);
    let process = JitProcess { start_time: 2, ..process(other.path()) };
    write_map(&process, 10);
    assert!(name(&mut symbolizer, &process, 0x10_0000).contains("function0 "));
}

#[test]
fn root_a_map_of_another_user_is_refused() {
    // To own a file as another user.
    if !profiler_need::have_root("root_a_map_of_another_user_is_refused") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("tmp")).unwrap();
    let path = root.path().join("tmp/perf-7.map");
    fs::write(&path, "1000 10 planted\n").unwrap();
    std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
    let process = process(root.path());
    let mut symbolizer = Symbolizer::new(Options::default());
    assert_eq!(name(&mut symbolizer, &process, 0x1000), "");
    assert_eq!(symbolizer.stats().jit_refused, 1);
}

/// A jitdump's head, and a record of code at an address.
fn dump_head(time: u64) -> Vec<u8> {
    let words = [0x4a69_5444u32, 1, 40, 62, 0, std::process::id()];
    let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    out.extend([time, 0].iter().flat_map(|word| word.to_le_bytes()));
    out
}

fn dump_load(time: u64, start: u64, index: u64, name: &str) -> Vec<u8> {
    let mut out = [0u32.to_le_bytes(), (56 + name.len() as u32 + 1 + 16).to_le_bytes()].concat();
    out.extend(time.to_le_bytes());
    out.extend([1u32, 1].iter().flat_map(|word| word.to_le_bytes()));
    out.extend([start, start, 16, index].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(name.as_bytes());
    out.extend([0; 17]);
    out
}

fn monotonic() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    (uptime.split(' ').next().unwrap().parse::<f64>().unwrap() * 1e9) as u64
}

fn meanings(symbolizer: &mut Symbolizer, process: &JitProcess, address: u64) -> Vec<(String, u64)> {
    let found = symbolizer.jit_generations(process, &[UserAddr(address)]).remove(0);
    let name = |of: &profiler_symbolizer::Generation| {
        of.symbolized.frames.first().map(|frame| frame.name.to_string()).unwrap_or_default()
    };
    found.iter().map(|of| (name(of), of.until)).collect()
}

/// A process that maps a jitdump, and its identity.
fn with_dump(root: &Path, content: &[u8]) -> (std::process::Child, JitProcess) {
    let path = root.join("jit-1.dump");
    fs::write(&path, content).unwrap();
    let script = "import mmap,sys,time\nf=open(sys.argv[1],'rb')\n\
        m=mmap.mmap(f.fileno(),0,mmap.MAP_PRIVATE,mmap.PROT_READ|mmap.PROT_EXEC)\nprint('ready',flush=True)\ntime.sleep(100)";
    let mut child =
        Command::new("python3").args(["-c", script]).arg(&path).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut ready).unwrap();
    let process = JitProcess { pid: child.id(), start_time: 1, root: "/".into(), namespace_pid: child.id() };
    (child, process)
}

#[test]
fn an_address_in_a_jitdump_has_a_meaning_for_each_time() {
    let root = tempfile::tempdir().unwrap();
    let now = monotonic();
    let at = |seconds: u64| now.saturating_sub((10 - seconds) * 1_000_000_000);
    let loads = [dump_load(at(1), 0x1000, 1, "first"), dump_load(at(2), 0x1000, 2, "second")].concat();
    let (mut child, process) = with_dump(root.path(), &[dump_head(at(0)), loads.clone()].concat());
    let mut symbolizer = Symbolizer::new(Options::default());
    let found = meanings(&mut symbolizer, &process, 0x1004);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, [("first".to_owned(), at(2)), ("second".to_owned(), u64::MAX)]);

    // Times of another clock, the one on the wall, say nothing of ours.
    let (mut child, process) = with_dump(root.path(), &[dump_head(now + (1 << 60)), loads].concat());
    let found = meanings(&mut Symbolizer::new(Options::default()), &process, 0x1004);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, [("second".to_owned(), u64::MAX)]);
}

#[test]
fn an_address_in_a_perf_map_has_a_meaning_for_each_reading() {
    let root = tempfile::tempdir().unwrap();
    let process = process(root.path());
    let path = root.path().join("tmp/perf-7.map");
    fs::write(&path, "1000 10 first\n2000 10 stays\n").unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    symbolizer.jit_prefetch(&process);
    let before = monotonic();
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"1000 10 second\n").unwrap();
    let found = meanings(&mut symbolizer, &process, 0x1004);
    let [(first, until), (second, u64::MAX)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((first.as_str(), second.as_str()), ("first", "second"));
    assert!(*until <= before + 20_000_000, "up to the reading that still had it");
    assert_eq!(meanings(&mut symbolizer, &process, 0x2004), [("stays".to_owned(), u64::MAX)]);

    // Another file in its place: what the one before said of its time stays.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    fs::write(root.path().join("new"), "1000 10 third\n2000 10 stays\n").unwrap();
    fs::rename(root.path().join("new"), &path).unwrap();
    let found: Vec<_> = meanings(&mut symbolizer, &process, 0x1004).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["first", "second", "third"]);
    assert_eq!(meanings(&mut symbolizer, &process, 0x2004), [("stays".to_owned(), u64::MAX)]);
}
