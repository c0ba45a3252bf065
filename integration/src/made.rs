//! Made samples of living processes: what the kernel half would send of a busy host, for tests and measurements of what reads it.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use profiler_bpf::Batch;
use profiler_bpf::feed::{Fed, Feed};
use profiler_bpf::record::SampleHead;
use profiler_unwinders::process::procfs::Stat;

use crate::Error;
use crate::children::{self, Running};

/// Of the stacks; the fewest are those of a small loop, the most those of a server's framework.
pub const USER_FRAMES: std::ops::RangeInclusive<u64> = 7..=40;
/// Every fourth stack goes on into the kernel, by so many frames.
pub const KERNEL_FRAMES: u64 = 8;
/// CPU time that a sample stands for, ns: 99 Hz.
pub const PERIOD: u64 = 10_101_010;
/// A user frame's word that is an instruction pointer (`FRAME_IS_IP`).
const IS_IP: u64 = 1 << 63;
/// How often records are sent, when they are to come at a rate.
const BEAT: Duration = Duration::from_micros(100);

/// Processes that do nothing, and samples of them.
#[derive(Debug)]
pub struct Made {
    /// The processes; they end with this.
    pub processes: Vec<Running>,
    /// The records, in an order without order. Each has a stack of its own and its index as thread id.
    pub records: Batch,
    /// The same, as made.
    pub stacks: Vec<Stack>,
}

/// One stack, leaf first.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Of its process.
    pub pid: u32,
    /// The kernel's frames.
    pub kernel: Vec<u64>,
    /// User frames: addresses in code that the process maps; the first is an instruction pointer, the others return addresses.
    pub user: Vec<u64>,
}

/// xorshift64*: the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n.max(1)
    }
}

/// Starts `processes` processes, and makes `stacks` distinct stacks of them.
pub fn make(processes: usize, stacks: usize) -> Result<Made, Error> {
    let mut running = Vec::new();
    let mut known = Vec::new();
    for _ in 0..processes {
        let child = children::start(Command::new("sleep").arg("3600"))?;
        let code = settled_code(child.pid())?;
        let space = Stat::read(child.pid()).map_err(|error| gone(child.pid(), &error))?.address_space;
        known.push((child.pid(), space, code));
        running.push(child);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut made = Made { processes: running, records: Batch::default(), stacks: Vec::new() };
    for index in 0..stacks {
        let (pid, space, code) = &known[random.below(known.len() as u64) as usize];
        let depth = USER_FRAMES.start() + random.below(USER_FRAMES.end() - USER_FRAMES.start() + 1);
        let mut user: Vec<u64> = (0..depth)
            .map(|_| {
                let (start, end) = code[random.below(code.len() as u64) as usize];
                start + 1 + random.below(end - start - 1)
            })
            .collect();
        user[0] |= IS_IP;
        let kernel_frames = if index % 4 == 0 { KERNEL_FRAMES } else { 0 };
        let kernel: Vec<u64> = (0..kernel_frames).map(|_| 0xffff_ffff_8100_0000 + random.below(1 << 20)).collect();
        let head = SampleHead {
            start_code: space.start_code,
            start_stack: space.start_stack,
            value: PERIOD,
            pid: *pid,
            tid: index as u32,
            parent_pid: std::process::id(),
            cpu: (index % 2) as u32,
            version: 1,
            comm: *b"made\0\0\0\0\0\0\0\0\0\0\0\0",
            ..SampleHead::default()
        };
        made.records.push(&head.record(&kernel, &user));
        made.stacks.push(Stack { pid: *pid, kernel, user });
    }
    Ok(made)
}

/// Sends records at `rate` a second for `time`, and says what became of them and how long it took.
///
/// # Errors
/// The kernel does not run the program.
pub fn send_at(feed: &mut Feed, rate: u64, time: Duration) -> Result<(Fed, Duration), profiler_bpf::Error> {
    let started = Instant::now();
    let mut fed = Fed::default();
    loop {
        let elapsed = started.elapsed();
        let due = (elapsed.min(time).as_secs_f64() * rate as f64) as u64;
        let sent = feed.send((due - fed.sent - fed.full) as usize)?;
        fed.sent += sent.sent;
        fed.full += sent.full;
        if elapsed >= time {
            return Ok((fed, elapsed));
        }
        thread::sleep(BEAT);
    }
}

/// Where the code lies that a process maps from files, once it is the program that was asked for, with its library.
fn settled_code(pid: u32) -> Result<Vec<(u64, u64)>, Error> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| gone(pid, &error))?;
        let code: Vec<(u64, u64)> = maps
            .lines()
            .filter(|line| line.contains(" r-xp ") && (line.contains("/sleep") || line.contains("/libc")))
            .filter_map(|line| {
                let (start, end) = line.split(' ').next()?.split_once('-')?;
                Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
            })
            .collect();
        if code.len() == 2 {
            return Ok(code);
        }
        if Instant::now() > until {
            return Err(gone(pid, &format!("its code is not that of `sleep` and the C library:\n{maps}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn gone(pid: u32, error: &dyn std::fmt::Display) -> Error {
    let status = format!("cannot be read: {error}");
    Error::Failed { command: format!("sleep 3600 (process {pid})"), status, output: String::new() }
}
