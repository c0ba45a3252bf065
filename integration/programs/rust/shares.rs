//! Rust work with known shares: closures behind `dyn Fn`, generics that are inlined, a hand-made async state machine,
//! collections and formatting of the standard library.
//!
//! usage: shares [--ms 2000] [--depth 0]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

/// CPU time of the calling thread, ns.
fn thread_cpu_ns() -> u64 {
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is a valid timespec for the call to write to.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// Inlined into its caller: a profile with inlined functions shows it, one without does not.
#[inline(always)]
fn inlined_step(x: u64, i: u64) -> u64 {
    black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i))
}

#[inline(never)]
fn hot_inline(units: u64) -> u64 {
    let mut x = units;
    for i in 0..units * 16 {
        x = inlined_step(x, i);
    }
    x
}

#[inline(never)]
fn call_boxed(callee: &dyn Fn(u64) -> u64, value: u64) -> u64 {
    callee(value).wrapping_add(1)
}

#[inline(never)]
fn hot_closure(units: u64) -> u64 {
    let closures: [Box<dyn Fn(u64) -> u64>; 2] = [
        Box::new(move |value| (0..32).fold(value, |x, i| black_box(x * 31 ^ i ^ units))),
        Box::new(|value| (0..32).fold(value, |x, i| black_box((x >> 3) + i))),
    ];
    let mut x = 0u64;
    for i in 0..units {
        x = x.wrapping_add(call_boxed(&*closures[(i & 1) as usize], i & 0xffff));
    }
    x
}

#[inline(never)]
fn hot_map(units: u64) -> u64 {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut key = String::new();
    for i in 0..units {
        key.clear();
        let _ = write!(key, "key {}", i % 97);
        *counts.entry(key.clone()).or_default() += i;
    }
    counts.values().sum()
}

/// A future polled by hand, as an executor does: each poll advances it by one state.
struct Machine {
    state: u8,
    left: u64,
    x: u64,
}

impl Future for Machine {
    type Output = u64;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        if self.left == 0 {
            return Poll::Ready(self.x);
        }
        self.left -= 1;
        self.state = (self.state + 1) % 3;
        for i in 0..64 {
            self.x = match self.state {
                0 => black_box(self.x.wrapping_mul(3).wrapping_add(i)),
                1 => black_box(self.x ^ i),
                _ => black_box(self.x.rotate_left(7)),
            };
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

#[inline(never)]
fn hot_async(units: u64) -> u64 {
    let waker = Waker::from(Arc::new(Nothing));
    let mut context = Context::from_waker(&waker);
    let mut task: Pin<Box<dyn Future<Output = u64>>> = Box::pin(async move {
        let first = Machine { state: 0, left: units / 2, x: units }.await;
        Machine { state: 1, left: units / 2, x: first }.await
    });
    loop {
        if let Poll::Ready(x) = task.as_mut().poll(&mut context) {
            return x;
        }
    }
}

struct Group {
    name: &'static str,
    run: fn(u64) -> u64,
    weight: u64,
    ns: u64,
    units: u64,
}

/// Always runs the group furthest behind its planned share, until `ms` of CPU time are used.
#[inline(never)]
fn spin_shares(groups: &mut [Group], ms: u64) -> u64 {
    const TURN_NS: u64 = 400_000;
    let weights: u64 = groups.iter().map(|group| group.weight).sum();
    let (mut total, mut result, mut random) = (0u64, 0u64, 0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()));
    while total < ms * 1_000_000 {
        let Some(next) = groups.iter_mut().max_by_key(|group| {
            (total * group.weight / weights) as i64 - group.ns as i64 + group.weight as i64
        }) else {
            break;
        };
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let units = next.units / 2 + random % next.units + 1;
        let before = thread_cpu_ns();
        result ^= (next.run)(units);
        let used = thread_cpu_ns() - before;
        next.ns += used;
        total += used;
        if used < TURN_NS / 2 {
            next.units *= 2;
        } else if used > TURN_NS * 2 && next.units > 1 {
            next.units /= 2;
        }
    }
    black_box(result)
}

#[inline(never)]
fn descend(groups: &mut [Group], depth: u64, ms: u64) -> u64 {
    let kept = black_box(vec![depth; 3]);
    let result = if depth > 1 { descend(groups, depth - 1, ms) } else { spin_shares(groups, ms) };
    result.wrapping_add(kept[1])
}

fn option(name: &str, otherwise: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    arguments
        .iter()
        .position(|argument| argument == name)
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(otherwise)
}

fn main() {
    let depth = option("--depth", 1).max(1);
    let group = |name, run, weight| Group { name, run, weight, ns: 0, units: 16 };
    let mut groups = [
        group("hot_inline", hot_inline, 50),
        group("hot_closure", hot_closure, 30),
        group("hot_map", hot_map, 15),
        group("hot_async", hot_async, 5),
    ];
    black_box(descend(&mut groups, depth, option("--ms", 2000)));
    let total: u64 = groups.iter().map(|group| group.ns).sum();
    let shares: Vec<String> = groups.iter().map(|group| format!("\"{}\":{}", group.name, group.ns)).collect();
    let stacks: Vec<String> = groups
        .iter()
        .map(|group| format!("\"{0}\":[\"{0}\",\"spin_shares\",\"descend*{depth}\",\"main\",\"...\",\"main\"]", group.name))
        .collect();
    println!(
        "{{\"program\":\"rust/shares\",\"pid\":{},\"cpu_ns\":{total},\"shares\":{{{}}},\"stacks\":{{{}}}}}",
        std::process::id(),
        shares.join(","),
        stacks.join(",")
    );
}
