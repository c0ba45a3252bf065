//! `profiler doctor -p PID`: what a process is, what of its stacks has names, and what is missing for the rest.
//!
//! All of it is read by a reader, as when it is sampled: what the process maps may be anything.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler_reader::{Options, Reader};
use profiler_unwinders::executable::{Executable, Format, Mapper};
use profiler_unwinders::maps::{Backing, Mapping};
use profiler_unwinders::process::procfs::Scan;
use profiler_unwinders::reading::{Reading, RowsError};
use profiler_unwinders::runtime::{AttachError, of_kind};

use super::{Finding, State, limited, missing, ok, print};

/// Bytes that the reader may take.
const MEMORY: u64 = 1 << 30;
/// How long a runtime that starts is waited for.
const STARTING: Duration = Duration::from_secs(2);
/// Most rows of one file; the largest libraries have some millions.
const MAX_ROWS: usize = 16 << 20;
/// Files whose unwind information is looked at.
const MAX_FILES: usize = 256;
/// Files that are named one by one.
const NAMED: usize = 3;

/// Programs that contain V8 and export nothing of it: nothing but their names tells.
const BARE: [&[u8]; 6] = [b"chrome", b"chromium", b"msedge", b"brave", b"opera", b"vivaldi-bin"];

/// Prints what is to be had of `pid`; 0 if it can be sampled, 1 if not.
///
/// # Errors
/// No reader can be started.
pub fn of_process(pid: u32) -> anyhow::Result<u8> {
    let mut reader = Reader::start(Options::of_this_program(MEMORY))?;
    let findings = match reader.scan(pid) {
        Ok(scan) => findings(pid, &scan, &mut reader),
        Err(error) => vec![missing("process", error.to_string(), "sudo profiler doctor -p PID, while it runs")],
    };
    print(&findings);
    let works = findings.iter().all(|finding| finding.state != State::Missing);
    if works {
        println!("Recording it: profiler record -p {pid} -d 10");
    } else {
        println!("It cannot be recorded, see above.");
    }
    Ok(u8::from(!works))
}

fn findings(pid: u32, scan: &Scan, reading: &mut dyn Reading) -> Vec<Finding> {
    if scan.stat.kthread {
        return vec![ok("process", format!("{pid} is a thread of the kernel: kernel stacks"))];
    }
    let mapper = Mapper { pid, alive: true, exe: &scan.exe, parent: scan.stat.parent };
    let mapped: Vec<&Mapping> = scan.mappings.iter().collect();
    let opened = reading.open(&mapper, &mapped).executables;
    let mut executables: BTreeMap<u32, Arc<Executable>> = BTreeMap::new();
    let mut unread: Vec<String> = Vec::new();
    let mut made = 0;
    for (mapping, opened) in mapped.iter().zip(opened) {
        match opened {
            Ok(executable) => {
                executables.entry(executable.id.0).or_insert(executable);
            }
            Err(_) if matches!(mapping.backing, Backing::Anonymous) => made += mapping.end.0 - mapping.start.0,
            Err(error) if matches!(mapping.backing, Backing::File(..)) => unread.push(error.to_string()),
            Err(_) => {}
        }
    }
    unread.sort_unstable();
    unread.dedup();
    let is_program = |executable: &&Arc<Executable>| *executable.path == *scan.exe;
    let mut findings = vec![process(pid, scan, executables.values().find(is_program))];
    let before = findings.len();
    for executable in executables.values() {
        findings.extend(runtime(executable, &mapper, &mapped, reading));
    }
    if findings.len() == before {
        findings.push(no_runtime(scan, made));
    }
    findings.push(native(&executables, reading));
    if let Some(first) = unread.first() {
        let detail = format!("{} mapped files cannot be read: {}", unread.len(), first.escape_debug());
        findings.push(limited("files", detail, "sudo profiler ...; their frames are followed by frame pointer"));
    }
    if scan.truncated {
        let detail = format!("it has more than the {} that are kept", mapped.len());
        findings.push(limited("mappings", detail, "map less code: frames in the rest have no names"));
    }
    findings
}

fn process(pid: u32, scan: &Scan, program: Option<&Arc<Executable>>) -> Finding {
    let exe = String::from_utf8_lossy(&scan.exe);
    let build = program.map_or_else(String::new, |program| format!(", {}", build(program)));
    let detail = format!("{pid}: {}{build}", exe.escape_debug());
    if program.is_some_and(|program| program.format == Format::Elf32) {
        limited("process", format!("{detail}, 32-bit"), "a 64-bit build: user stacks of 32-bit ones are not whole")
    } else {
        ok("process", detail)
    }
}

/// By what its file is told from others.
fn build(executable: &Executable) -> String {
    let Executable { build_id_gnu, build_id_go, .. } = executable;
    identity(build_id_gnu.as_deref(), build_id_go.as_deref(), executable.build_id_htlhash())
}

/// The same of its build ids and, if its file could be read, the hash of that.
fn identity(gnu: Option<&str>, go: Option<&str>, htlhash: Option<&str>) -> String {
    let id = gnu.map(|id| format!("build id {id}")).or_else(|| Some(format!("Go build id {}", go?.escape_debug())));
    match (id, htlhash) {
        (Some(id), Some(_)) => id,
        (None, Some(htlhash)) => format!("without build id, htlhash {htlhash}"),
        (id, None) => {
            let id = id.as_deref().unwrap_or("without build id");
            format!("{id}, its file may not be read: exported names only, from memory")
        }
    }
}

/// What is found of an executable that is a runtime.
fn runtime(
    executable: &Executable,
    mapper: &Mapper<'_>,
    mapped: &[&Mapping],
    reading: &mut dyn Reading,
) -> Option<Finding> {
    let place = format!("in {}, {}", executable.path_text().escape_debug(), build(executable));
    if let Some(other) = executable.unfollowed {
        let detail = format!("{place}: no names of its functions, native frames only");
        return Some(limited(other.name(), detail, other.why()));
    }
    let runtime = executable.runtime.and_then(of_kind)?;
    let begun = Instant::now();
    let attached = loop {
        match reading.attach(mapper, executable, mapped) {
            Err(AttachError::NotReady(_, pause)) if begun.elapsed() < STARTING => {
                std::thread::sleep(pause.clamp(Duration::from_millis(10), Duration::from_millis(200)));
            }
            answer => break answer,
        }
    };
    Some(match attached {
        Ok(attached) => {
            ok(runtime.name(), format!("{} {place}: functions, files and lines", attached.about.escape_debug()))
        }
        Err(AttachError::NotReady(why, _)) => {
            let detail = format!("{place}: not ready: {}; native frames only", why.escape_debug());
            limited(runtime.name(), detail, "ask again when it has started")
        }
        Err(AttachError::Unsupported(why)) => {
            let detail = format!("{place}: {}; native frames only", why.escape_debug());
            let remedy = "a version that is followed: CPython 3.8 to 3.15, HotSpot 8 to 28, Node.js 18 to 26, x86-64";
            limited(runtime.name(), detail, remedy)
        }
    })
}

fn no_runtime(scan: &Scan, made: u64) -> Finding {
    let name = scan.exe.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if BARE.contains(&name) {
        return limited(
            "V8",
            "by its name a browser with V8 in it, which does not export where its objects' fields are (v8dbg_*)",
            "none: JavaScript is followed by frame pointer, without names",
        );
    }
    if made > 0 {
        let detail = format!("none that is known, and {} KiB of code that was made while it runs", made / 1024);
        return limited("runtime", detail, "such code has names from a perf map (/tmp/perf-PID.map) or jitdump only");
    }
    ok("runtime", "none that is known: native code")
}

/// How many of its files say how to unwind them.
fn native(executables: &BTreeMap<u32, Arc<Executable>>, reading: &mut dyn Reading) -> Finding {
    let (mut with, mut without): (usize, Vec<Cow<'_, str>>) = (0, Vec::new());
    for executable in executables.values().take(MAX_FILES) {
        match reading.rows(executable, MAX_ROWS) {
            Ok(_) => with += 1,
            Err(RowsError::None(_) | RowsError::NotNow(_)) => without.push(executable.path_text()),
        }
    }
    let files = with + without.len();
    if without.is_empty() {
        return ok("unwinding", format!("all {files} files have unwind information"));
    }
    let names: Vec<String> = without.iter().take(NAMED).map(|path| path.escape_debug().to_string()).collect();
    let more = if without.len() > NAMED { " ..." } else { "" };
    let detail = format!("{} of {files} files have no unwind information: {}{more}", without.len(), names.join(", "));
    limited("unwinding", detail, "their frames are followed by frame pointer: build them with -fno-omit-frame-pointer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_its_build_id_or_its_hash() {
        for (gnu, go, htlhash, told) in [
            (Some("ab"), Some("x/y"), Some("12"), "build id ab"),
            (None, Some("x\u{1b}y"), Some("12"), "Go build id x\\u{1b}y"),
            (None, None, Some("12"), "without build id, htlhash 12"),
            (Some("ab"), None, None, "build id ab, its file may not be read"),
            (None, None, None, "without build id, its file may not be read"),
        ] {
            let text = identity(gnu, go, htlhash);
            assert_eq!(text.split(": ").next(), Some(told), "{text}");
        }
    }
}
