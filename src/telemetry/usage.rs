//! What the profiler itself uses: CPU time, memory, descriptors, and the same of its kernel half, from `/proc`.
//!
//! Three things are easily missed. BPF programs run on the time of whoever was interrupted, so no process accounting shows
//! them; maps of the kernel half are no memory of the process; and those maps that are mapped are resident too, so that a
//! plain sum counts them twice.

mod bpf;
mod host;
mod parse;

use std::fs::File;
use std::io::Read;

pub use bpf::{BpfTime, BpfUse};
pub use host::HostCpu;

/// CPU time of the profiler since its start, s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// In user mode.
    pub user: f64,
    /// In the kernel, for the profiler's own system calls.
    pub kernel: f64,
    /// In its BPF programs, on other tasks' time; see [`BpfTime`].
    pub bpf: f64,
}

impl CpuTime {
    /// All of it, s.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.user + self.kernel + self.bpf
    }
}

/// User and kernel CPU time of this process since its start, s; the BPF time is left 0. None if `/proc` says nothing.
#[must_use]
pub fn own_cpu() -> Option<CpuTime> {
    parse::process_ticks(&read("/proc/self/stat")?).map(seconds)
}

/// The same of the process `pid`.
#[must_use]
pub fn cpu_of(pid: u32) -> Option<CpuTime> {
    parse::process_ticks(&read(&format!("/proc/{pid}/stat"))?).map(seconds)
}

/// The same of the children of this process that have ended and were waited for.
#[must_use]
pub fn cpu_of_children() -> Option<CpuTime> {
    parse::children_ticks(&read("/proc/self/stat")?).map(seconds)
}

fn seconds((user, kernel): (u64, u64)) -> CpuTime {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    CpuTime { user: user as f64 / ticks, kernel: kernel as f64 / ticks, bpf: 0.0 }
}

/// Memory of the process `pid` that is its own and not that of files, bytes.
#[must_use]
pub fn memory_of(pid: u32) -> Option<u64> {
    let page = rustix::param::page_size() as u64;
    parse::anonymous_pages(&read(&format!("/proc/{pid}/statm"))?).map(|pages| pages.saturating_mul(page))
}

/// Memory of this process and of `bpf`, its maps in the kernel, bytes, each byte once. None if `/proc` says nothing.
#[must_use]
pub fn own_memory(bpf: &BpfUse) -> Option<u64> {
    let page = rustix::param::page_size() as u64;
    let resident = parse::resident_pages(&read("/proc/self/statm")?)?.saturating_mul(page);
    // The whole of a mapped BPF map is resident from mmap on.
    let mapped = read("/proc/self/maps").map_or(0, |maps| parse::mapped_bpf_bytes(&maps));
    Some(resident.saturating_sub(mapped).saturating_add(bpf.map_bytes()))
}

/// Number of open file descriptors.
#[must_use]
pub fn own_file_descriptors() -> u64 {
    // One of them is that of the folder.
    std::fs::read_dir("/proc/self/fd").map_or(0, |folder| (folder.count() as u64).saturating_sub(1))
}

/// A text of `/proc`, as far as it is of use; none if it cannot be read.
fn read(path: &str) -> Option<String> {
    const LIMIT: u64 = 4 << 20;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_what_the_clock_says() {
        let clock = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        // Other tests of this process use CPU time meanwhile: each reading lies between two of the clock.
        let first = clock();
        let before = own_cpu().unwrap();
        let second = clock();
        while clock() - second < 0.3 {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
        let third = clock();
        let used = own_cpu().unwrap().total() - before.total();
        let fourth = clock();
        // Two ticks of 10 ms.
        assert!(used > third - second - 0.02, "{used} s by /proc, {} s by the clock", third - second);
        assert!(used < fourth - first + 0.02, "{used} s by /proc, {} s by the clock", fourth - first);
    }

    #[test]
    fn memory_grows_by_what_is_touched() {
        let none = BpfUse::default();
        let before = own_memory(&none).unwrap();
        let block = vec![1u8; 64 << 20];
        let after = own_memory(&none).unwrap();
        assert!(std::hint::black_box(&block).iter().step_by(4096).all(|&byte| byte == 1));
        // Other tests may give memory back at the same time.
        assert!(after > before + (32 << 20), "{before} B before, {after} B after 64 MiB");
    }

    #[test]
    fn descriptors_are_counted() {
        let before = own_file_descriptors();
        let files: Vec<_> = (0..50).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let after = own_file_descriptors();
        assert!(after >= before.saturating_sub(20) + 50, "{before} before, {after} after {} more", files.len());
    }
}
