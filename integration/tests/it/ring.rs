//! Records through the kernel's ring: none is lost, none is changed, and the reader is woken in time.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use profiler::pipeline::{Aggregate, Budgets, Frame, Session, SessionOptions};
use profiler_bpf::{Counter, Options, Sampler, Source, Targets};
use profiler_integration::environment::{have_root, one_at_a_time};
use profiler_integration::made;
use profiler_measure::Measure;
use profiler_unwinders::executable::Executables;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const RECORDS: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn options(ring_bytes: u32) -> Options {
    Options {
        sources: vec![Source::cpu_clock(99)],
        targets: Targets::Rules,
        ring_bytes,
        btf: None,
        without_task_pt_regs: false,
    }
}

/// By thread id: how often it was sampled, with which process, CPU and frames.
fn by_thread(aggregate: &Aggregate) -> BTreeMap<u32, (u64, u32, u32, Vec<Frame>)> {
    let mut threads = BTreeMap::new();
    for sample in aggregate.samples() {
        let thread = aggregate.threads[sample.thread as usize];
        let frames: Vec<Frame> =
            aggregate.stacks[sample.stack as usize].iter().map(|&frame| aggregate.frames[frame as usize]).collect();
        let pid = aggregate.images[thread.image as usize].pid;
        let known = threads.entry(thread.tid).or_insert_with(|| (0, pid, sample.cpu(), frames.clone()));
        assert_eq!((known.1, known.2, &known.3), (pid, sample.cpu(), &frames), "two stacks of thread {}", thread.tid);
        known.0 += 1;
    }
    threads
}

fn only(session: &mut Session) -> Aggregate {
    let aggregate = session.take_aggregate();
    let measures: Vec<_> = aggregate.series.iter().map(|series| series.measure.clone()).collect();
    assert_eq!(measures, [Measure::cpu_clock(made::PERIOD)]);
    aggregate
}

#[test]
fn root_what_passes_the_ring_is_in_the_aggregate_whole() {
    let test = "root_what_passes_the_ring_is_in_the_aggregate_whole";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let made = made::make(10, 500).expect("records");
    let mut session = Session::new(SessionOptions {
        sampler: options(8 << 20),
        budgets: Budgets::default(),
        sideband_bytes: 1 << 19,
        reading: Box::new(Executables::new()),
    })
    .expect("a session");
    let mut feed = session.feed(&made.records, true).expect("a feed");
    let sender = thread::spawn(move || {
        let mut left = RECORDS;
        while left > 0 {
            let fed = feed.send(left.min(100) as usize).expect("records are sent");
            assert_eq!(fed.full, 0, "the ring was full");
            left -= fed.sent;
            thread::sleep(Duration::from_millis(5));
        }
    });
    let until = Instant::now() + PATIENCE;
    while session.totals().samples() < RECORDS && Instant::now() < until {
        session.step(Duration::from_millis(200)).expect("a step");
    }
    sender.join().expect("all are sent");
    session.finish().expect("an end");
    let totals = session.totals();
    assert_eq!((totals.samples(), totals.incomplete()), (RECORDS, 0), "{totals:?}");
    assert_eq!(totals.kernel(Counter::Samples), 0, "the clocks stand still");
    let arrived = only(&mut session);
    assert!(arrived.series[0].samples.windows(2).all(|pair| pair[0].time <= pair[1].time), "not in the order of time");

    // The same without the ring.
    session.replay(made.records.clone());
    let replayed = by_thread(&only(&mut session));
    let arrived = by_thread(&arrived);
    assert_eq!(arrived.len(), made.stacks.len());
    for (tid, stack) in made.stacks.iter().enumerate() {
        let (count, pid, cpu, frames) = &arrived[&(tid as u32)];
        assert_eq!((*count, *pid), (RECORDS / made.stacks.len() as u64, stack.pid), "stack {tid}");
        assert_eq!((*cpu, frames), (replayed[&(tid as u32)].2, &replayed[&(tid as u32)].3), "stack {tid}");
        // What was made: a call is before its return address, and a file's page is a page in memory.
        let kernel = stack.kernel.iter().enumerate().map(|(depth, &at)| if depth == 0 { at } else { at - 1 });
        let user = stack.user.iter().enumerate().map(|(depth, &at)| if depth == 0 { at } else { at - 1 } & 0xfff);
        let found = frames.iter().map(|frame| match frame {
            Frame::Kernel { address } => address.0,
            Frame::Native { address, .. } => address.0 & 0xfff,
            other => panic!("stack {tid}: {other:?}"),
        });
        assert!(found.eq(kernel.chain(user)), "stack {tid}: {frames:?}");
    }
}

#[test]
fn root_the_reader_is_woken_when_a_quarter_of_the_ring_is_used() {
    let test = "root_the_reader_is_woken_when_a_quarter_of_the_ring_is_used";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let made = made::make(1, 100).expect("records");
    let ring_bytes = 1 << 20;
    let sampler = Sampler::load(options(ring_bytes)).expect("the kernel half");
    let mut ring = sampler.rings().expect("its ring").remove(0);
    let mut feed = sampler.feed(&made.records, true).expect("a feed");
    let is_called = |ring: &profiler_bpf::SampleRing, seconds| {
        let mut fds = [PollFd::from_borrowed_fd(ring.fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).expect("a poll") > 0
    };
    // Each record has a head of 8 bytes in the ring.
    let bytes = made.records.bytes() / 100 + 8;
    let quarter = ring_bytes as usize / 4 / bytes;
    for round in 0..3 {
        feed.send(quarter - 100).expect("records are sent");
        assert!(!is_called(&ring, 0), "round {round}: less than a quarter wakes nobody");
        feed.send(200).expect("records are sent");
        assert!(is_called(&ring, 60), "round {round}: a quarter wakes the reader");
        assert_eq!(ring.take().expect("the records").len(), quarter + 100);
        assert!(!is_called(&ring, 0), "round {round}: the call is answered");
        // A CPU calls once a millisecond at most.
        thread::sleep(Duration::from_millis(2));
    }
}
