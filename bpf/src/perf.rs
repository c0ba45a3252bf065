//! perf events: those of the sources, and the side band, each a CPU.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use perf_event_open_sys as sys;
use sys::bindings as b;

use profiler_measure::source::{Event, Kind, Rate, Source};

use crate::cpus::online_cpus;
use crate::error::{Error, Result};

/// The highest sampling rate that the kernel allows, Hz (`kernel.perf_event_max_sample_rate`).
#[must_use]
pub fn max_frequency() -> u64 {
    sysctl("perf_event_max_sample_rate").and_then(|value| u64::try_from(value).ok()).unwrap_or(100_000)
}

/// `kernel.perf_event_paranoid`; `None` if the kernel has no perf events.
#[must_use]
pub fn paranoid() -> Option<i64> {
    sysctl("perf_event_paranoid")
}

fn sysctl(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

/// Where tracefs may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// `perf_event_attr::type` and `config`.
fn attribute(event: &Event) -> Result<(u32, u64)> {
    match event {
        Event::Named(_) => Ok(event.named().map_or((0, 0), |named| match named.kind {
            Kind::Software => (b::PERF_TYPE_SOFTWARE, named.config),
            Kind::Hardware => (b::PERF_TYPE_HARDWARE, named.config),
        })),
        Event::Raw(config) => Ok((b::PERF_TYPE_RAW, *config)),
        Event::Tracepoint { group, name } => Ok((b::PERF_TYPE_TRACEPOINT, tracepoint_id(group, name)?)),
    }
}

fn tracepoint_id(group: &str, name: &str) -> Result<u64> {
    let wrong = |hint: String| Error::Tracepoint { group: group.to_owned(), name: name.to_owned(), hint };
    let Some(root) = TRACEFS.iter().map(Path::new).find(|root| root.join("events").is_dir()) else {
        return Err(wrong(
            "tracefs is not mounted (or not readable: run as root):\n  sudo mount -t tracefs tracefs /sys/kernel/tracing"
                .to_owned(),
        ));
    };
    let path = root.join("events").join(group).join(name).join("id");
    let text = fs::read_to_string(&path).map_err(|error| {
        wrong(format!(
            "{}: {error}\n  this kernel's tracepoints: sudo cat {}/available_events",
            path.display(),
            root.display()
        ))
    })?;
    text.trim().parse().map_err(|_| wrong(format!("{} is no number", path.display())))
}

/// An event of `source` on `cpu`, whatever runs there; a clock does not tick while the CPU is idle. Not enabled yet.
pub(crate) fn open_source(cpu: u32, source: &Source) -> Result<OwnedFd> {
    let (type_, config) = attribute(&source.event)?;
    let mut attr =
        b::perf_event_attr { size: size_of::<b::perf_event_attr>() as u32, type_, config, ..Default::default() };
    match source.rate {
        // Its program counts by itself, and needs no overflow.
        _ if source.event.is_tracepoint() => {}
        _ if source.counted().is_some() => attr.__bindgen_anon_1.sample_period = 1,
        _ if source.event.is_clock() => attr.__bindgen_anon_1.sample_period = source.clock_period(),
        Rate::Every(period) => attr.__bindgen_anon_1.sample_period = period,
        Rate::Frequency(frequency) => {
            attr.__bindgen_anon_1.sample_freq = frequency;
            attr.set_freq(1);
        }
    }
    attr.set_disabled(1);
    attr.set_exclude_idle(u64::from(source.event.is_clock()));
    open(&mut attr, cpu).map_err(|error| match error {
        Error::PerfEvent { cpu, source: cause, hint } => {
            let hint = if is_missing(&cause) { missing(&source.event) } else { hint };
            Error::Event { event: source.event.to_string(), cpu, source: cause, hint }
        }
        other => other,
    })
}

/// The kernel, or the machine, has no such event.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::ENXIO | libc::EINVAL))
}

fn missing(event: &Event) -> String {
    match attribute(event) {
        Ok((b::PERF_TYPE_HARDWARE | b::PERF_TYPE_RAW, _)) => {
            "\n  this machine shows no such hardware counter, as most virtual machines: sample cpu-clock instead"
                .to_owned()
        }
        _ => "\n  this kernel has no such event, or does not take this rate of it".to_owned(),
    }
}

/// Whether `source` can be sampled on this host.
///
/// # Errors
/// What [`crate::Sampler::follow_cpus`] would fail with.
pub fn probe(source: &Source) -> Result<()> {
    let cpu = online_cpus()?.first().copied().unwrap_or_default();
    open_source(cpu, source).map(drop)
}

/// Stops an event, gives it another period (or frequency, if it has one), calls `meanwhile`, and starts it again. What a clock ticked
/// before had the old period, what it ticks after has the new one, and nothing ticks in between. After an error it goes on as before.
pub(crate) fn change_period(fd: &OwnedFd, period: u64, meanwhile: impl FnOnce()) -> Result<()> {
    let failed = || Error::io("change the rate of a perf event", io::Error::last_os_error());
    // SAFETY: a perf event's descriptor, and an ioctl without argument.
    if unsafe { sys::ioctls::DISABLE(fd.as_raw_fd(), 0) } < 0 {
        return Err(failed());
    }
    // SAFETY: the argument is the address of a u64 that lives through the call.
    if unsafe { sys::ioctls::PERIOD(fd.as_raw_fd(), (&raw const period) as u64) } < 0 {
        let error = failed();
        enable(fd)?;
        return Err(error);
    }
    meanwhile();
    enable(fd)
}

/// Whether a system-wide clock may be opened on `cpu`.
///
/// # Errors
/// What [`crate::Sampler::follow_cpus`] would fail with.
pub fn probe_clock(cpu: u32) -> Result<()> {
    open_source(cpu, &Source::cpu_clock(1)).map(drop)
}

/// The side band of `cpu`: forks, execs, exits, names and executable mappings. Readers wake when there are `watermark` bytes.
pub(crate) fn open_sideband(cpu: u32, watermark: u32) -> Result<OwnedFd> {
    let mut attr = b::perf_event_attr {
        size: size_of::<b::perf_event_attr>() as u32,
        type_: b::PERF_TYPE_SOFTWARE,
        config: u64::from(b::PERF_COUNT_SW_DUMMY),
        sample_type: u64::from(b::PERF_SAMPLE_TID | b::PERF_SAMPLE_TIME),
        clockid: libc::CLOCK_MONOTONIC,
        ..Default::default()
    };
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    attr.set_watermark(1);
    attr.__bindgen_anon_2.wakeup_watermark = watermark;
    open(&mut attr, cpu)
}

fn open(attr: &mut b::perf_event_attr, cpu: u32) -> Result<OwnedFd> {
    // SAFETY: `attr` is a valid perf_event_attr with its size set; the other arguments are plain numbers.
    let fd = unsafe {
        sys::perf_event_open(attr, -1, cpu as i32, -1, u64::from(b::PERF_FLAG_FD_CLOEXEC).cast_signed() as _)
    };
    if fd < 0 {
        let source = io::Error::last_os_error();
        if source.raw_os_error() == Some(libc::ENODEV) && online_cpus().is_ok_and(|online| !online.contains(&cpu)) {
            return Err(Error::CpuGone { cpu });
        }
        return Err(Error::PerfEvent { cpu, hint: hint(&source), source });
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What to do about a refused perf event.
fn hint(error: &io::Error) -> String {
    match (error.raw_os_error(), paranoid()) {
        (Some(libc::EACCES | libc::EPERM), Some(level)) if level > 2 => format!(
            "\n  kernel.perf_event_paranoid is {level}, which asks for CAP_SYS_ADMIN: run as root, or\n  \
             sudo sysctl kernel.perf_event_paranoid=2   (then CAP_PERFMON suffices)"
        ),
        (Some(libc::EACCES | libc::EPERM), _) => {
            "\n  system-wide events need CAP_PERFMON (or CAP_SYS_ADMIN): run as root (sudo)".to_owned()
        }
        (Some(libc::ENOENT | libc::EOPNOTSUPP), _) => "\n  this kernel has no software clock events".to_owned(),
        (Some(libc::ENOSYS), _) | (_, None) => "\n  this kernel was built without CONFIG_PERF_EVENTS".to_owned(),
        (Some(libc::EMFILE), _) => "\n  too many open files: raise the limit with ulimit -n".to_owned(),
        _ => String::new(),
    }
}

/// Enables an event.
pub(crate) fn enable(fd: &OwnedFd) -> Result<()> {
    // SAFETY: a perf event's descriptor, and an ioctl without argument.
    if unsafe { sys::ioctls::ENABLE(fd.as_raw_fd(), 0) } < 0 {
        return Err(Error::io("enable a perf event", io::Error::last_os_error()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_kernels_numbers() {
        let numbers = [
            ("cpu-clock", b::PERF_COUNT_SW_CPU_CLOCK),
            ("task-clock", b::PERF_COUNT_SW_TASK_CLOCK),
            ("page-faults", b::PERF_COUNT_SW_PAGE_FAULTS),
            ("minor-faults", b::PERF_COUNT_SW_PAGE_FAULTS_MIN),
            ("major-faults", b::PERF_COUNT_SW_PAGE_FAULTS_MAJ),
            ("context-switches", b::PERF_COUNT_SW_CONTEXT_SWITCHES),
            ("cpu-migrations", b::PERF_COUNT_SW_CPU_MIGRATIONS),
            ("cycles", b::PERF_COUNT_HW_CPU_CYCLES),
            ("instructions", b::PERF_COUNT_HW_INSTRUCTIONS),
            ("cache-misses", b::PERF_COUNT_HW_CACHE_MISSES),
            ("branch-misses", b::PERF_COUNT_HW_BRANCH_MISSES),
        ];
        assert_eq!(numbers.len(), profiler_measure::source::NAMED.len());
        for (name, number) in numbers {
            let (_, config) = attribute(&name.parse().unwrap()).unwrap();
            assert_eq!(config, u64::from(number), "{name}");
        }
    }
}
