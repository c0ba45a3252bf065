//! `profiler doctor`: what this kernel and these privileges allow, feature by feature; with `-p PID`, what is to be had of a process.

mod process;

use std::fs;
use std::path::Path;

use profiler_bpf::{Options, Sampler, Source, Targets, online_cpus, paranoid};
use profiler_confine::{Entry, Files, Force, Role, Wall};
use profiler_symbolizer::Symbolizer;
use profiler_unwinders::process::host;

pub use process::of_process;

/// One finding.
struct Finding {
    feature: &'static str,
    state: State,
    /// What is there, or what is missing and what it costs.
    detail: String,
    /// The command that mends it.
    remedy: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Works, with less.
    Limited,
    /// Recording does not work.
    Missing,
}

/// Prints the findings; 0 if recording works, 1 if not.
pub fn run(btf: Option<&Path>) -> anyhow::Result<u8> {
    println!("profiler {} on Linux {} ({})", env!("CARGO_PKG_VERSION"), host::kernel_release(), host::machine());
    let mut findings = vec![
        kernel(),
        privileges(),
        kernel_btf(btf),
        lockdown(),
        perf_events(),
        programs(btf),
        other_processes(),
        kernel_symbols(),
        cgroups(),
        memory_lock(),
    ];
    findings.extend(confinement());
    findings.extend(running());
    print(&findings);
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    if missing == 0 {
        println!("Recording works: profiler record -d 10");
        Ok(0)
    } else {
        println!("Recording does not work: {missing} missing, see above.");
        Ok(1)
    }
}

fn print(findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.state {
            State::Ok => "ok     ",
            State::Limited => "limited",
            State::Missing => "MISSING",
        };
        println!("{mark}  {:<18} {}", finding.feature, finding.detail);
        if let Some(remedy) = &finding.remedy {
            println!("         {:<18} -> {remedy}", "");
        }
    }
}

fn ok(feature: &'static str, detail: impl Into<String>) -> Finding {
    Finding { feature, state: State::Ok, detail: detail.into(), remedy: None }
}

fn limited(feature: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { feature, state: State::Limited, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn missing(feature: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { feature, state: State::Missing, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn kernel() -> Finding {
    let release = host::kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 10) {
        let registers =
            if version >= (5, 15) { "bpf_task_pt_regs" } else { "registers from the kernel stack (before 5.15)" };
        ok("kernel", format!("{release}: {registers}"))
    } else {
        missing("kernel", format!("{release} is older than 5.10"), "use kernel 5.10 or newer")
    }
}

fn privileges() -> Finding {
    const NEEDED: [(u32, &str); 6] = [
        (39, "CAP_BPF"),
        (38, "CAP_PERFMON"),
        (19, "CAP_SYS_PTRACE"),
        (2, "CAP_DAC_READ_SEARCH"),
        (40, "CAP_CHECKPOINT_RESTORE"),
        (34, "CAP_SYSLOG"),
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim).unwrap_or("0");
    let effective = u64::from_str_radix(effective, 16).unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 == 1;
    const SYS_ADMIN: u32 = 21;
    let lacking: Vec<_> = NEEDED
        .iter()
        .filter(|(bit, _)| !(has(*bit) || has(SYS_ADMIN) && matches!(bit, 34 | 38 | 39 | 40)))
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        ok(
            "privileges",
            if has(SYS_ADMIN) { "CAP_SYS_ADMIN and what else is needed" } else { "all capabilities that are needed" },
        )
    } else if lacking.iter().any(|name| matches!(*name, "CAP_BPF" | "CAP_PERFMON")) {
        missing("privileges", format!("without {}", lacking.join(", ")), "sudo profiler record ...")
    } else {
        limited(
            "privileges",
            format!("without {}: some processes' files cannot be read", lacking.join(", ")),
            "sudo profiler record ...",
        )
    }
}

fn kernel_btf(given: Option<&Path>) -> Finding {
    match given {
        Some(path) if path.exists() => ok("BTF", format!("given: {}", path.display())),
        Some(path) => missing("BTF", format!("there is no {}", path.display()), "give an existing file with --btf"),
        None if Path::new("/sys/kernel/btf/vmlinux").exists() => ok("BTF", "/sys/kernel/btf/vmlinux"),
        None => missing(
            "BTF",
            "this kernel was built without CONFIG_DEBUG_INFO_BTF",
            "profiler record --btf FILE, with the kernel's BTF from its debug package or BTFHub",
        ),
    }
}

fn lockdown() -> Finding {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if text.contains("[confidentiality]") {
        missing(
            "lockdown",
            "confidentiality: BPF may not read memory",
            "boot with lockdown=integrity, or echo integrity before it is raised",
        )
    } else if text.contains("[integrity]") {
        ok("lockdown", "integrity")
    } else {
        ok("lockdown", "none")
    }
}

fn perf_events() -> Finding {
    let Some(level) = paranoid() else {
        return missing(
            "perf events",
            "this kernel was built without CONFIG_PERF_EVENTS",
            "use a kernel with perf events",
        );
    };
    let opened = online_cpus().and_then(|cpus| profiler_bpf::probe_clock(cpus.first().copied().unwrap_or(0)));
    match opened {
        Ok(()) => ok("perf events", format!("system-wide (kernel.perf_event_paranoid={level})")),
        Err(error) => {
            let remedy =
                if level > 2 { "sudo sysctl kernel.perf_event_paranoid=2" } else { "sudo profiler record ..." };
            missing("perf events", error.to_string().lines().next().unwrap_or_default().to_owned(), remedy)
        }
    }
}

fn programs(btf: Option<&Path>) -> Finding {
    let options = Options {
        sources: vec![Source::cpu_clock(99)],
        targets: Targets::All,
        ring_bytes: 1 << 16,
        btf: btf.map(Path::to_path_buf),
        without_task_pt_regs: false,
    };
    match Sampler::load(options) {
        Ok(_) => ok("BPF programs", "verified and loaded"),
        Err(error) => {
            let text = error.to_string();
            let mut lines = text.lines();
            let detail = lines.next().unwrap_or_default().to_owned();
            missing(
                "BPF programs",
                detail,
                lines.next().map_or("sudo profiler record -vv shows the verifier's log", str::trim),
            )
        }
    }
}

fn other_processes() -> Finding {
    match fs::read_dir("/proc/1/map_files") {
        Ok(_) => ok("other processes", "/proc/PID/map_files is readable: deleted files are named too"),
        Err(error) => limited(
            "other processes",
            format!("/proc/1/map_files: {error}: deleted and replaced files have no names"),
            "sudo profiler record ... (CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE)",
        ),
    }
}

fn kernel_symbols() -> Finding {
    match Symbolizer::new(profiler_symbolizer::Options::default()).kernel_status() {
        Ok(()) => ok("kernel symbols", "/proc/kallsyms"),
        Err(error) => {
            limited("kernel symbols", error.to_string(), "sudo sysctl kernel.kptr_restrict=1   (with CAP_SYSLOG)")
        }
    }
}

fn cgroups() -> Finding {
    let found = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find(|path| {
        Path::new(path).join("cgroup.procs").exists() && Path::new(path).join("cgroup.controllers").exists()
    });
    match found {
        Some(path) => ok("cgroups v2", path),
        None => {
            limited("cgroups v2", "not mounted: --cgroup does not work", "sudo mount -t cgroup2 none /sys/fs/cgroup")
        }
    }
}

/// What the profiler's processes give up after their start, as this kernel and the container around permit it.
fn confinement() -> Vec<Finding> {
    // The network's rights, and no file at all: each wall is tried, on a thread that ends with it.
    let rights = Role::Network.rights().within(Files::default());
    let report = match profiler_confine::probe(&rights) {
        Ok(report) => report,
        Err(error) => return vec![limited("confinement", format!("cannot be tried: {error}"), "raise `ulimit -u`")],
    };
    let finding = |Entry { wall, force }: &Entry| match (wall, force) {
        (_, Force::NotAsked) => None,
        (Wall::Capabilities, Force::Full(_)) => {
            Some(ok("capabilities", "given up after the start, but for those above"))
        }
        (Wall::NoNewPrivileges, Force::Full(_)) => Some(ok("no_new_privs", "set after the start")),
        (Wall::Calls, Force::Full(_)) => {
            Some(ok("seccomp", "system calls that no part makes are refused after the start"))
        }
        (Wall::Files, Force::Full(_)) => Some(ok("landlock", "what speaks to the network opens its own files only")),
        (wall, Force::Part(why) | Force::None(why)) => {
            let remedy = match wall {
                Wall::Calls => "a kernel with CONFIG_SECCOMP_FILTER, and a container that permits seccomp(2)",
                Wall::Files => "Linux 6.10 or newer, with landlock among the kernel's lsm=",
                Wall::Capabilities | Wall::NoNewPrivileges => "a container that permits capset(2) and prctl(2)",
            };
            Some(limited(wall.name(), format!("{why}: this wall around the profiler is missing or lower"), remedy))
        }
    };
    report.entries.iter().filter_map(finding).collect()
}

/// What the profilers that run now have given up.
fn running() -> Vec<Finding> {
    let one = |(pid, name): (u32, String)| {
        let groups = profiler_confine::threads(pid).ok().filter(|groups| !groups.is_empty())?;
        let texts: Vec<_> = groups.iter().map(|group| format!("{}: {group}", group.names.join(", "))).collect();
        let text = format!("{name}, pid {pid}: {}", texts.join(" | "));
        let confined = groups.iter().all(|group| group.no_new_privs && group.filters > 0);
        Some(if confined {
            ok("running", text)
        } else {
            limited("running", text, "its log says what was refused to it")
        })
    };
    profiler_confine::profilers().into_iter().filter_map(one).collect()
}

fn memory_lock() -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap_or_default();
    let soft = line.split_whitespace().nth(3).unwrap_or("unknown").to_owned();
    ok("locked memory", format!("limit {soft} (matters only before 5.11; raised where the kernel asks for it)"))
}
