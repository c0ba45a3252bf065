//! Executables of real processes: the right file in every case, and never a wrong one.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler_address::{FileOffset, UserAddr};
use profiler_elf::ElfParts;
use profiler_need::{have, have_root};
use profiler_unwinders::executable::{Executables, Format, OpenError, PartBytes, htlhash, read_parts};
use profiler_unwinders::maps::{Backing, FileId, Mapping};
use profiler_unwinders::process::{Clock, Process, ProcessTable, procfs};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `command` and waits until it runs `program`.
    fn new(command: &mut Command, program: &str) -> Self {
        let running = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        wait_until(|| procfs::exe_path(running.0.id()).is_some_and(|exe| exe.ends_with(program.as_bytes())));
        // Until the loader is through with its libraries.
        std::thread::sleep(Duration::from_millis(100));
        running
    }

    fn process(&self) -> Process {
        scan(self.0.id())
    }
}

fn scan(pid: u32) -> Process {
    let mut table = ProcessTable::new();
    table.scan(pid, Clock::monotonic_now()).unwrap();
    table.get(pid).unwrap().clone()
}

fn wait_until(mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mapping_of<'a>(process: &'a Process, name: &str) -> &'a Mapping {
    let named = |mapping: &&Mapping| mapping.file().is_some_and(|(_, path)| path.ends_with(name.as_bytes()));
    process.mappings.iter().find(named).unwrap_or_else(|| panic!("{name} is not in {:?}", process.mappings))
}

/// Copies a program in a process of its own: a file that is open for writing here is so in every child that another test forks at
/// that moment too, and nobody can execute it until those children's own exec (ETXTBSY).
fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

fn sleep_program() -> PathBuf {
    let found = ["/bin/sleep", "/usr/bin/sleep"].iter().find(|path| Path::new(path).exists());
    std::fs::canonicalize(found.expect("a sleep program")).unwrap()
}

fn copy_of_sleep(directory: &Path) -> PathBuf {
    let program = directory.join("naptime");
    copy_program(&sleep_program(), &program);
    program
}

/// Another program of the same path: the loader would run it as well.
fn replace(program: &Path) {
    let other = program.with_extension("new");
    copy_program(&std::fs::canonicalize("/bin/cat").unwrap(), &other);
    std::fs::rename(other, program).unwrap();
}

fn cc(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let file = directory.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let program = directory.join(name);
    let status = Command::new("cc").args(["-o"]).args([&program, &file]).args(flags).status().unwrap();
    assert!(status.success());
    program
}

#[test]
fn every_mapped_file_of_a_program_opens_as_what_it_is() {
    let sleep = Running::new(Command::new("sleep").arg("60"), "sleep");
    let process = sleep.process();
    let mut executables = Executables::new();
    let mut files = 0;
    for mapping in &*process.mappings {
        let Some((_, path)) = mapping.file() else { continue };
        let executable = executables.open(&process, mapping).unwrap();
        let content = std::fs::read(String::from_utf8_lossy(path).as_ref()).unwrap();
        assert_eq!((executable.format, executable.size), (Format::Elf64, content.len() as u64));
        assert_eq!(executable.htlhash, htlhash(&content));
        let elf = ElfParts::parse(&content).unwrap();
        assert_eq!(executable.segments, elf.segments());
        let vaddr = executable.vaddr_of(mapping.offset).unwrap();
        assert_eq!(Some(vaddr), elf.to_vaddr(mapping.offset));
        assert_eq!(executable.build_id_gnu, build_id_by_readelf(&String::from_utf8_lossy(path)));
        assert_eq!(executable.file().unwrap().metadata().unwrap().len(), executable.size);
        let again = executables.open(&process, mapping).unwrap();
        assert!(Arc::ptr_eq(&executable, &again));
        files += 1;
    }
    assert!(files >= 2, "the program and its libc");
    assert_eq!((executables.len(), executables.open_files()), (files, files));
}

fn build_id_by_readelf(path: &str) -> Option<String> {
    let output = Command::new("readelf").args(["-n", path]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(|line| Some(line.trim().strip_prefix("Build ID: ")?.to_owned()))
}

/// The definition, computed by other programs.
#[test]
fn htlhash_is_what_its_definition_says() {
    let directory = tempfile::tempdir().unwrap();
    for size in [0usize, 1, 4095, 4096, 4097, 8192, 100_000] {
        let content: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let path = directory.path().join("file");
        std::fs::write(&path, &content).unwrap();
        let script = "( head -c 4096 \"$1\"; tail -c 4096 \"$1\"; \
            printf \"$(printf '%016x' $(stat -c %s \"$1\") | sed 's/../\\\\x&/g')\" ) | sha256sum | cut -c1-32";
        let output = Command::new("bash").args(["-c", script, "-"]).arg(&path).output().unwrap();
        assert_eq!(htlhash(&content), String::from_utf8_lossy(&output.stdout).trim(), "{size} bytes");
    }
}

#[test]
fn a_deleted_program_is_still_opened() {
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_sleep(directory.path());
    let child = Running::new(Command::new(&program).arg("60"), "naptime");
    std::fs::remove_file(&program).unwrap();
    let process = child.process();
    assert!(process.exe_text().ends_with("/naptime"), "without its (deleted)");
    let executable = Executables::new().open(&process, mapping_of(&process, "naptime")).unwrap();
    assert_eq!(executable.htlhash, htlhash(&std::fs::read(sleep_program()).unwrap()));
}

#[test]
fn a_replaced_program_is_the_one_that_runs_and_not_the_one_at_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_sleep(directory.path());
    let child = Running::new(Command::new(&program).arg("60"), "naptime");
    let before = child.process();
    replace(&program);
    let after = child.process();
    for process in [before, after] {
        let executable = Executables::new().open(&process, mapping_of(&process, "naptime")).unwrap();
        assert_eq!(executable.htlhash, htlhash(&std::fs::read(sleep_program()).unwrap()));
    }
}

#[test]
fn a_mapping_that_was_split_since_still_leads_to_its_file() {
    let sleep = Running::new(Command::new("sleep").arg("60"), "sleep");
    let process = sleep.process();
    let whole = mapping_of(&process, "sleep");
    let part = Mapping { start: UserAddr(whole.start.0 + 0x1000), offset: whole.offset.plus(0x1000), ..whole.clone() };
    let executable = Executables::new().open(&process, &part).unwrap();
    assert_eq!(executable.path_text(), String::from_utf8_lossy(whole.file().unwrap().1));
}

#[test]
fn a_dead_process_is_found_by_path_but_only_the_very_file() {
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_sleep(directory.path());
    let child = Running::new(Command::new(&program).arg("60"), "naptime");
    let mut process = child.process();
    let mapping = mapping_of(&process, "naptime").clone();
    drop(child);
    process.ended = Some(Clock::monotonic_now());
    let mut executables = Executables::new();
    let executable = executables.open(&process, &mapping).unwrap();
    assert_eq!(executable.format, Format::Elf64);

    let mut fresh = Executables::new();
    replace(&program);
    assert!(matches!(fresh.open(&process, &mapping), Err(OpenError::Replaced { .. })));
    std::fs::remove_file(&program).unwrap();
    let gone = fresh.open(&process, &mapping);
    assert!(matches!(gone, Err(OpenError::Gone { .. })), "{gone:?}");

    // What was opened in time stays.
    assert_eq!(executable.file().unwrap().metadata().unwrap().len(), executable.size);
    assert!(Arc::ptr_eq(&executables.open(&process, &mapping).unwrap(), &executable));
}

#[test]
fn what_is_found_at_a_dead_processs_path_is_not_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let directory = std::fs::canonicalize(directory.path()).unwrap();
    let sleep = Running::new(Command::new("sleep").arg("60"), "sleep");
    let mut process = sleep.process();
    process.ended = Some(1);
    process.parent = 0;
    let open = |name: &str| {
        let path = directory.join(name);
        // The inode is right, where there is one: only the kind of file is wrong.
        let (major, minor, inode) = std::fs::symlink_metadata(&path)
            .map_or((8, 1, 1), |meta| (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()), meta.ino()));
        let backing = Backing::File(FileId { major, minor, inode }, Arc::from(path.as_os_str().as_encoded_bytes()));
        let mapping = Mapping { start: UserAddr(0x1000), end: UserAddr(0x2000), offset: FileOffset(0), backing };
        Executables::new().open(&process, &mapping)
    };
    // Opening a pipe to read would block for ever.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(matches!(open("fifo"), Err(OpenError::NotRegular { .. })));
    std::fs::create_dir(directory.join("directory")).unwrap();
    assert!(matches!(open("directory"), Err(OpenError::NotRegular { .. })));
    std::os::unix::fs::symlink("endless", directory.join("endless")).unwrap();
    assert!(matches!(open("endless"), Err(OpenError::Gone { .. })));
    for link in 0..60 {
        std::os::unix::fs::symlink(format!("link{}", link + 1), directory.join(format!("link{link}"))).unwrap();
    }
    std::fs::write(directory.join("link60"), "at the end").unwrap();
    assert!(matches!(open("link0"), Err(OpenError::Gone { .. })));
    std::os::unix::fs::symlink("/proc/self/exe", directory.join("magic")).unwrap();
    assert!(matches!(open("magic"), Err(OpenError::Gone { .. })));
    assert!(matches!(open("nothing"), Err(OpenError::Gone { .. })));
    let long = format!("a{}", "/b".repeat(5000));
    assert!(matches!(open(&long), Err(OpenError::Gone { .. })));
    assert!(matches!(open("nul\0byte"), Err(OpenError::Gone { .. })));
    // A text file is a file that no code is known of.
    std::fs::write(directory.join("text"), "no program").unwrap();
    let text = open("text").unwrap();
    assert_eq!((text.format, text.size, text.segments.len()), (Format::Other, 10, 0));
    assert_eq!(text.vaddr_of(FileOffset(0)), None);
    // One ELF header and nothing behind it; one of 32 bits; a hole of a terabyte, of which nothing is taken.
    let real = std::fs::read(sleep_program()).unwrap();
    std::fs::write(directory.join("cut"), &real[..64]).unwrap();
    assert_eq!(open("cut").unwrap().format, Format::Other);
    std::fs::write(directory.join("small"), b"\x7fELF\x01\x01\x01").unwrap();
    assert_eq!(open("small").unwrap().format, Format::Elf32);
    let hole = std::fs::File::create(directory.join("hole")).unwrap();
    if hole.set_len(1 << 40).is_ok() {
        assert_eq!(open("hole").unwrap().format, Format::Other);
        hole.set_len(8 << 30).unwrap();
        let executable = open("hole").unwrap();
        assert_eq!(executable.size, 8 << 30);
    }
}

#[test]
fn root_a_program_in_another_mount_namespace() {
    if !have_root("root_a_program_in_another_mount_namespace") {
        return;
    }
    // The same path is another file inside and outside.
    let directory = tempfile::tempdir().unwrap();
    let program = copy_of_sleep(directory.path());
    let script = format!(
        "mount -t tmpfs none {0} && cp {1} {0}/naptime && printf changed >> {0}/naptime && exec {0}/naptime 60",
        directory.path().display(),
        sleep_program().display()
    );
    let child = Running::new(Command::new("unshare").args(["--mount", "sh", "-c", &script]), "naptime");
    let process = child.process();
    let executable = Executables::new().open(&process, mapping_of(&process, "naptime")).unwrap();
    let outside = std::fs::read(&program).unwrap();
    let inside = [&outside[..], b"changed"].concat();
    assert_eq!(executable.htlhash, htlhash(&inside));
    // Without map_files: by the process's root.
    let mapping = mapping_of(&process, "naptime").clone();
    let moved = Mapping { start: UserAddr(mapping.start.0 + 0x1000), ..mapping.clone() };
    let mut other = process.clone();
    other.exe = Arc::from(&b"/elsewhere"[..]);
    assert_eq!(Executables::new().open(&other, &moved).unwrap().htlhash, htlhash(&inside));
    // When it is dead, the host's file of that path is another inode.
    drop(child);
    let mut dead = process;
    dead.ended = Some(1);
    assert!(matches!(Executables::new().open(&dead, &mapping), Err(OpenError::Replaced { .. })));
}

#[test]
fn root_a_program_on_an_overlay_is_opened_and_shares_its_content() {
    if !have_root("root_a_program_on_an_overlay_is_opened_and_shares_its_content") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "cd {} && mount -t tmpfs none . && cd $PWD && mkdir low up work all && cp {} low/naptime && \
         mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work all && exec all/naptime 60",
        directory.path().display(),
        sleep_program().display()
    );
    let child = Running::new(Command::new("unshare").args(["--mount", "sh", "-c", &script]), "naptime");
    let process = child.process();
    let mut executables = Executables::new();
    let executable = executables.open(&process, mapping_of(&process, "naptime")).unwrap();
    assert_eq!(executable.htlhash, htlhash(&std::fs::read(sleep_program()).unwrap()));
    // The same program from the host's own file system is the same executable.
    let host = Running::new(Command::new(sleep_program()).arg("60"), "sleep");
    let process = host.process();
    let same = executables.open(&process, mapping_of(&process, "sleep")).unwrap();
    assert_eq!(same.id, executable.id);
    assert_eq!((executables.len(), executables.open_files()), (1, 1));
}

#[test]
fn a_library_loaded_after_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let library = cc(directory.path(), "late.so", "int late(int x) { return x + 1; }\n", &["-shared", "-fPIC"]);
    let source = "#include <dlfcn.h>\n#include <stdio.h>\n#include <unistd.h>\n\
        int main(int c, char **v) { getchar(); void *l = dlopen(v[1], RTLD_NOW); puts(l ? \"loaded\" : dlerror()); \
        fflush(stdout); pause(); }\n";
    let program = cc(directory.path(), "loader", source, &["-ldl"]);
    let mut child = Running::new(Command::new(&program).arg(&library), "loader");
    let pid = child.0.id();
    let mut table = ProcessTable::new();
    table.scan(pid, Clock::monotonic_now()).unwrap();
    let version = table.get(pid).unwrap().mappings_version;
    child.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "loaded\n");
    let changes = table.scan(pid, Clock::monotonic_now()).unwrap();
    assert!(changes.mappings && !changes.new_image);
    let process = table.get(pid).unwrap();
    assert!(process.mappings_version > version);
    let executable = Executables::new().open(process, mapping_of(process, "late.so")).unwrap();
    assert_eq!(executable.htlhash, htlhash(&std::fs::read(library).unwrap()));
}

#[test]
fn a_file_written_in_place_is_another_executable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin");
    let content = std::fs::read(sleep_program()).unwrap();
    std::fs::write(&path, &content).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    let id = FileId { major: rustix::fs::major(meta.dev()), minor: rustix::fs::minor(meta.dev()), inode: meta.ino() };
    let name = std::fs::canonicalize(&path).unwrap();
    let backing = Backing::File(id, Arc::from(name.as_os_str().as_encoded_bytes()));
    let mapping = Mapping { start: UserAddr(0x1000), end: UserAddr(0x2000), offset: FileOffset(0), backing };
    let process = scan(std::process::id());
    let mut executables = Executables::new();
    let first = executables.open(&process, &mapping).unwrap();
    // Renaming and linking change no byte.
    std::fs::hard_link(&path, directory.path().join("link")).unwrap();
    assert_eq!(executables.open(&process, &mapping).unwrap().id, first.id);
    let mut other = content.clone();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &other).unwrap();
    let second = executables.open(&process, &mapping).unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.htlhash, htlhash(&other));
}

/// A mapping of a file of this name.
fn mapping_of_path(path: &Path) -> Mapping {
    let path = std::fs::canonicalize(path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    let id = FileId { major: rustix::fs::major(meta.dev()), minor: rustix::fs::minor(meta.dev()), inode: meta.ino() };
    let backing = Backing::File(id, Arc::from(path.as_os_str().as_encoded_bytes()));
    Mapping { start: UserAddr(0x1000), end: UserAddr(0x2000), offset: FileOffset(0), backing }
}

#[test]
fn a_file_that_claims_to_be_another_is_not_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let content = std::fs::read(sleep_program()).unwrap();
    // Size, build id, and the ends that the hash is of: all the same.
    let mut forged = content.clone();
    forged[content.len() / 2] ^= 1;
    for (name, content) in [("real", &content), ("copy", &content), ("forged", &forged)] {
        std::fs::write(path(name), content).unwrap();
    }
    let process = scan(std::process::id());
    for order in [["real", "copy", "forged"], ["forged", "real", "copy"]] {
        let mut executables = Executables::new();
        let mut open = |name: &str| executables.open(&process, &mapping_of_path(&path(name))).unwrap();
        let opened: Vec<_> = order.iter().map(|name| (*name, open(name))).collect();
        let of = |name: &str| &opened.iter().find(|(of, _)| *of == name).unwrap().1;
        assert_eq!(
            (&of("real").htlhash, &of("real").build_id_gnu),
            (&of("forged").htlhash, &of("forged").build_id_gnu)
        );
        assert_ne!(of("real").id, of("forged").id);
        assert_eq!(of("real").id, of("copy").id);
    }
}

#[test]
fn a_copy_that_is_written_behind_an_older_time_is_not_opened_as_the_original() {
    let directory = tempfile::tempdir().unwrap();
    let (real, copy) = (directory.path().join("real"), directory.path().join("copy"));
    let content = std::fs::read(sleep_program()).unwrap();
    for path in [&real, &copy] {
        std::fs::write(path, &content).unwrap();
    }
    let process = scan(std::process::id());
    let mut executables = Executables::new();
    let (of_real, of_copy) = (mapping_of_path(&real), mapping_of_path(&copy));
    let executable = executables.open(&process, &of_real).unwrap();
    assert_eq!(executables.open(&process, &of_copy).unwrap().id, executable.id);
    // Times of files are as coarse as the kernel's tick.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"evil", content.len() as u64 / 2).unwrap();
    file.set_modified(modified).unwrap();
    std::fs::remove_file(&real).unwrap();
    assert_ne!(executables.open(&process, &of_copy).unwrap().id, executable.id);
    // Closed, and the copy is the only one left at a path.
    executables.close_orphans(|_| false, |_| false);
    assert!(matches!(executables.file(&executable), Err(OpenError::Gone { .. })));
}

#[test]
fn few_files_are_open_and_closed_ones_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let directory = std::fs::canonicalize(directory.path()).unwrap();
    let process = scan(std::process::id());
    let mut executables = Executables::with_bounds(100, 8);
    let mapping = |i: usize| {
        let path = directory.join(format!("file{i}"));
        if !path.exists() {
            std::fs::write(&path, format!("content {i}")).unwrap();
        }
        let meta = std::fs::metadata(&path).unwrap();
        let id =
            FileId { major: rustix::fs::major(meta.dev()), minor: rustix::fs::minor(meta.dev()), inode: meta.ino() };
        let backing = Backing::File(id, Arc::from(path.as_os_str().as_encoded_bytes()));
        Mapping { start: UserAddr(0x1000), end: UserAddr(0x2000), offset: FileOffset(0), backing }
    };
    let opened: Vec<_> = (0..50).map(|i| executables.open(&process, &mapping(i)).unwrap()).collect();
    assert!(executables.open_files() <= 8);
    assert!(opened[0].file().is_none() && opened[49].file().is_some());
    assert!(read_parts(&opened[0]).is_err());
    assert!(executables.parts(&opened[0]).is_err(), "text is no ELF file");
    let file = opened[0].file().expect("opened again");
    assert_eq!(std::io::read_to_string(&*file).unwrap(), "content 0");
    // Of files that only dead processes map, none stays open.
    assert_eq!(executables.close_orphans(|pid| pid == process.pid, |_| false), 0);
    assert_eq!(executables.close_orphans(|_| false, |_| true), 0);
    assert!(executables.close_orphans(|_| false, |_| false) > 0);
    assert_eq!(executables.open_files(), 0);
    // A file that is another one now does not come back.
    std::fs::write(directory.join("file1"), "other").unwrap();
    assert!(matches!(executables.file(&opened[1]), Err(OpenError::Gone { .. })));
    // Nor are there ever more executables than wanted, as long as nobody holds them.
    drop(opened);
    for i in 50..500 {
        executables.open(&process, &mapping(i)).unwrap();
        assert!(executables.len() <= 100 && executables.open_files() <= 8);
    }
}

#[test]
fn the_vdso_is_an_executable_without_a_file() {
    let process = scan(std::process::id());
    let mapping = process.mappings.iter().find(|mapping| mapping.backing == Backing::Vdso);
    if !have("the_vdso_is_an_executable_without_a_file", mapping.is_some(), "a kernel that maps a vDSO") {
        return;
    }
    let mapping = mapping.unwrap();
    let mut executables = Executables::new();
    let vdso = executables.open(&process, mapping).unwrap();
    assert_eq!((vdso.format, vdso.path_text().as_ref()), (Format::Vdso, "[vdso]"));
    assert!(vdso.build_id_gnu.is_some());
    let parts = read_parts(&vdso).unwrap();
    let whole = ElfParts::parse(vdso.bytes().unwrap()).unwrap();
    assert_eq!(parts.parts().eh_frame().unwrap().bytes, whole.eh_frame().unwrap().bytes);
    assert_eq!(executables.get(vdso.id).unwrap().id, vdso.id);
    assert!(executables.file(&vdso).is_err());
}

/// What unwinding reads must be in the parts, byte for byte, and what it need not read must take no memory.
#[test]
fn images_have_the_unwind_information_of_the_largest_files_at_hand() {
    let mut seen = 0;
    for path in big_files() {
        let content = std::fs::read(&path).unwrap();
        let elf = ElfParts::parse(&content).unwrap();
        let (executable, parts) = open_by_path(&path);
        assert_eq!(parts.pieces().size(), content.len() as u64);
        assert!(parts.pieces().iter().all(|(at, bytes)| content[at as usize..].starts_with(bytes)));
        let sparse = parts.parts();
        assert_eq!(sparse.segments(), elf.segments());
        assert_eq!(sparse.sections().len(), elf.sections().len());
        assert_eq!(sparse.gnu_build_id(), elf.gnu_build_id());
        assert_eq!(sparse.go_build_id(), elf.go_build_id());
        assert_eq!(executable.build_id_go.is_some(), elf.go_build_id().is_some());
        match (sparse.eh_frame(), elf.eh_frame()) {
            (Some(ours), Some(real)) => assert_eq!((ours.bytes, ours.address), (real.bytes, real.address)),
            (ours, real) => assert_eq!(ours.is_some(), real.is_some()),
        }
        for name in [".eh_frame_hdr", ".debug_frame", ".gopclntab", ".data.rel.ro.gopclntab", ".init", ".plt"] {
            if let (Some(ours), Some(real)) = (sparse.section(name), elf.section(name)) {
                assert_eq!(sparse.section_bytes(ours), elf.section_bytes(real), "{name} of {path:?}");
            }
        }
        let read = parts.pieces().bytes_read();
        println!("{path:?}: {} of {} KiB read", read >> 10, content.len() >> 10);
        seen += 1;
    }
    assert!(seen > 0);
}

fn big_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let toolchains = home.join(".rustup/toolchains");
    let mut files: Vec<PathBuf> = vec![std::env::current_exe().unwrap(), sleep_program()];
    files.extend(["/usr/bin/node", "/usr/local/go/bin/go", "/usr/bin/python3"].iter().map(PathBuf::from));
    for toolchain in std::fs::read_dir(toolchains).into_iter().flatten().flatten().take(1) {
        let libraries = std::fs::read_dir(toolchain.path().join("lib")).into_iter().flatten().flatten();
        files.extend(
            libraries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("librustc_driver")),
        );
    }
    files.into_iter().filter(|path| path.exists()).collect()
}

fn open_by_path(path: &Path) -> (Arc<profiler_unwinders::executable::Executable>, PartBytes) {
    let path = std::fs::canonicalize(path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    let id = FileId { major: rustix::fs::major(meta.dev()), minor: rustix::fs::minor(meta.dev()), inode: meta.ino() };
    let backing = Backing::File(id, Arc::from(path.as_os_str().as_encoded_bytes()));
    let mapping = Mapping { start: UserAddr(0x1000), end: UserAddr(0x2000), offset: FileOffset(0), backing };
    let executable = Executables::new().open(&scan(std::process::id()), &mapping).unwrap();
    let begun = Instant::now();
    let parts = read_parts(&executable).unwrap();
    println!("{path:?}: parts in {:?}", begun.elapsed());
    (executable, parts)
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_zeros_or_an_error_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("victim");
    copy_program(&sleep_program(), &path);
    let path = std::fs::canonicalize(path).unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    let id = FileId { major: rustix::fs::major(meta.dev()), minor: rustix::fs::minor(meta.dev()), inode: meta.ino() };
    let backing = Backing::File(id, Arc::from(path.as_os_str().as_encoded_bytes()));
    let mapping = Mapping { start: UserAddr(0x1000), end: UserAddr(0x2000), offset: FileOffset(0), backing };
    let executable = Executables::new().open(&scan(std::process::id()), &mapping).unwrap();
    let cut = |size| std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size).unwrap();
    cut(5000);
    let parts = read_parts(&executable).unwrap();
    assert_eq!(parts.pieces().size(), executable.size);
    let mut behind = 0;
    for (at, bytes) in parts.pieces().iter() {
        let kept = usize::try_from(5000_u64.saturating_sub(at)).unwrap().min(bytes.len());
        assert!(bytes[kept..].iter().all(|&byte| byte == 0));
        behind += bytes.len() - kept;
    }
    assert!(behind > 0);
    cut(100);
    assert!(matches!(read_parts(&executable), Err(OpenError::Read { .. })));
}
