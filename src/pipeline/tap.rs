//! What a detector is told of samples as they arrive: how many each function of each process image had since the last look.
//!
//! Every sample counts once, in the tick in which it was worked off: windows may end meanwhile. A function is where its samples are, in it
//! alone and not in what it calls.

use std::sync::Arc;

use profiler_address::{ElfVaddr, KernelAddr, UserAddr};
use profiler_bpf::record::{RuntimeFrame, UnwindEnd};
use profiler_unwinders::executable::ExecutableId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::aggregate::{Aggregate, Frame, Image};

/// Places whose names are known elsewhere, at most; beyond, all are asked for anew.
const MAX_PLACES: usize = 32_768;
/// Places that wait for names, at most; those beyond are asked for when they are sampled again.
const MAX_UNNAMED: usize = 4_096;

/// Where a sample was taken, over windows: what names a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Code of a file.
    Native(ExecutableId, ElfVaddr),
    /// The kernel.
    Kernel(KernelAddr),
    /// Code in anonymous memory of the image with this serial.
    Jit(u32, UserAddr),
    /// A function of a runtime in the image with this serial.
    Runtime(u32, RuntimeFrame),
    /// Code of a file that could not be opened.
    Unopened,
    /// An address in no known mapping.
    Unmapped,
    /// No frame at all but the reason why.
    Marker(UnwindEnd),
}

/// What was sampled since the last one.
#[derive(Debug, Default)]
pub struct Tick {
    /// Samples of CPU time.
    pub samples: u64,
    /// CPU time that they are worth, ns.
    pub busy: u64,
    /// The time of the newest, `CLOCK_MONOTONIC`, ns; 0 if there is none.
    pub newest: u64,
    /// By serial of the image and place.
    pub counts: FxHashMap<(u32, Place), u64>,
    /// The images of `counts`.
    pub images: FxHashMap<u32, Image>,
    /// Names that the runtimes have told.
    pub named: Vec<(Place, Arc<str>)>,
    /// All names of before are to be forgotten.
    pub forget: bool,
}

/// Places to be named, as an aggregate without samples: frame by frame.
#[derive(Debug, Default)]
pub struct Unnamed {
    /// The frames, and what they are in.
    pub aggregate: Aggregate,
    /// The place of each frame.
    pub places: Vec<Place>,
}

/// Follows an aggregate while it grows.
#[derive(Debug, Default)]
pub struct Tap {
    /// Samples of each series that are counted.
    counted: Vec<usize>,
    /// The series of CPU time that is followed; a second event of CPU time would count it twice.
    source: Option<String>,
    tick: Tick,
    known: FxHashSet<Place>,
    unnamed: Unnamed,
}

impl Tap {
    /// Counts what is new in `aggregate`.
    pub fn look(&mut self, aggregate: &Aggregate) {
        self.counted.resize(aggregate.series.len(), 0);
        for (series, counted) in aggregate.series.iter().zip(&mut self.counted) {
            let new = series.samples.get(*counted..).unwrap_or_default();
            *counted = series.samples.len();
            let measure = &series.measure;
            let is_cpu = measure.period_type.kind == "cpu" && measure.period > 0;
            let source = self.source.get_or_insert_with(|| if is_cpu { measure.source.clone() } else { String::new() });
            if source.is_empty() && is_cpu {
                source.clone_from(&measure.source);
            }
            if !is_cpu || *source != measure.source {
                continue;
            }
            self.tick.samples += new.len() as u64;
            self.tick.busy = self.tick.busy.saturating_add(measure.period.saturating_mul(new.len() as u64));
            for sample in new {
                self.tick.newest = self.tick.newest.max(sample.time);
                let image = aggregate.threads.get(sample.thread as usize).map(|thread| thread.image);
                let Some((id, image)) = image.and_then(|id| Some((id, aggregate.images.get(id as usize)?))) else {
                    continue;
                };
                let leaf = aggregate.stacks.get(sample.stack as usize).and_then(|frames| frames.first().copied());
                let frame = leaf.and_then(|leaf| aggregate.frames.get(leaf as usize));
                let place = match frame {
                    Some(frame) => place(frame, aggregate, image.serial),
                    None => Place::Unmapped,
                };
                *self.tick.counts.entry((image.serial, place)).or_default() += 1;
                let images = &mut self.tick.images;
                images.entry(image.serial).or_insert_with(|| image.clone());
                if !self.known.contains(&place) {
                    let leaf = leaf.unwrap_or_default();
                    learn(&mut self.known, &mut self.unnamed, &mut self.tick, (place, leaf, id), aggregate);
                }
            }
        }
    }

    /// The aggregate that was looked at has been taken, and the next one begins.
    pub fn window_ended(&mut self) {
        self.counted.clear();
    }

    /// What was counted since the last call.
    pub fn take(&mut self) -> Tick {
        let mut tick = std::mem::take(&mut self.tick);
        if self.known.len() > MAX_PLACES {
            // What is in use is asked for again, most of it from a cache.
            self.known.clear();
            self.unnamed = Unnamed::default();
            tick.forget = true;
        }
        tick
    }

    /// What is to be named, if anything is. Not before the tick that makes names forgotten was taken: those that came sooner would be lost, and
    /// nobody would ask again.
    pub fn take_unnamed(&mut self) -> Option<Unnamed> {
        (!self.tick.forget && !self.unnamed.places.is_empty()).then(|| std::mem::take(&mut self.unnamed))
    }

    /// Code of JITs may be other code by now; what is sampled is asked for again.
    pub fn forget_jit(&mut self) {
        self.known.retain(|place| !matches!(place, Place::Jit(..)));
    }

    /// Another session begins, whose images have serials of their own.
    pub fn restart(&mut self) {
        *self = Self::default();
        self.tick.forget = true;
    }

    /// Bytes that it takes, about.
    pub fn memory_bytes(&self) -> usize {
        let slot = size_of::<Place>() + 1;
        self.known.capacity() * slot * 8 / 7
            + self.tick.counts.capacity() * (slot + 16)
            + self.tick.images.len() * size_of::<Image>()
            + self.unnamed.aggregate.memory_bytes()
    }
}

fn place(frame: &Frame, aggregate: &Aggregate, serial: u32) -> Place {
    match *frame {
        Frame::Native { executable, address, .. } => Place::Native(executable, address),
        Frame::Kernel { address } => Place::Kernel(address),
        Frame::Jit { image, address, .. } => {
            Place::Jit(aggregate.images.get(image as usize).map_or(serial, |image| image.serial), address)
        }
        Frame::Runtime { image, frame } => {
            Place::Runtime(aggregate.images.get(image as usize).map_or(serial, |image| image.serial), frame)
        }
        Frame::Unopened { .. } => Place::Unopened,
        Frame::Unmapped { .. } => Place::Unmapped,
        Frame::Marker(end) => Place::Marker(end),
    }
}

/// Names a place that is new, or notes it to be named.
fn learn(
    known: &mut FxHashSet<Place>,
    unnamed: &mut Unnamed,
    tick: &mut Tick,
    (place, leaf, image): (Place, u32, u32),
    aggregate: &Aggregate,
) {
    let name: Arc<str> = match place {
        Place::Native(..) | Place::Kernel(_) | Place::Jit(..) => {
            if unnamed.places.len() >= MAX_UNNAMED {
                return;
            }
            known.insert(place);
            let wanted = &mut unnamed.aggregate;
            let mut image_of = |id: u32| {
                let image = aggregate.images.get(id as usize)?;
                Some(wanted.known_image(image.serial).unwrap_or_else(|| wanted.image(image.clone())))
            };
            let frame = match (place, aggregate.frames.get(leaf as usize)) {
                (Place::Native(executable, address), _) => {
                    // Its own process is where debug files are looked for.
                    image_of(image);
                    if let Some(file) = aggregate.executables.get(&executable) {
                        wanted.executables.insert(executable, Arc::clone(file));
                    }
                    Frame::Native { executable, address, guessed: false }
                }
                (Place::Kernel(address), _) => Frame::Kernel { address },
                (Place::Jit(_, address), Some(Frame::Jit { image, .. })) => {
                    let Some(image) = image_of(*image) else { return };
                    Frame::Jit { image, address, guessed: false }
                }
                _ => return,
            };
            if wanted.frame(frame) as usize == unnamed.places.len() {
                unnamed.places.push(place);
            }
            return;
        }
        Place::Runtime(..) => match aggregate.names.get(&leaf).and_then(|names| names.first()) {
            Some(name) => Arc::clone(&name.function),
            None => aggregate
                .unnamed
                .get(&leaf)
                .map_or_else(|| "[runtime]".into(), |unnamed| format!("[{}]", unnamed.why).into()),
        },
        Place::Unopened => "[file not readable]".into(),
        Place::Unmapped => "[unmapped]".into(),
        Place::Marker(end) => format!("[{}]", end.reason()).into(),
    };
    tick.named.push((place, name));
    // What its runtime is to be asked again has this name until it has a better one: nobody waits for what may never come.
    if !aggregate.may_be_named(leaf) {
        known.insert(place);
    }
}

#[cfg(test)]
mod tests {
    use profiler_bpf::abi::FrameKind;
    use profiler_measure::Measure;
    use profiler_unwinders::process::Comm;
    use profiler_unwinders::runtime::{FrameName, Named};

    use super::super::aggregate::{RawSample, Series, Thread};
    use super::*;

    fn image(serial: u32) -> Image {
        Image {
            pid: 100 + serial,
            serial,
            start_unix_ns: 0,
            start_time_ns: 0,
            comm: Comm::new(b"x"),
            exe: Arc::from(&b"/bin/x"[..]),
            executable: None,
            container_id: None,
            cgroup: None,
            namespace_pid: 1,
        }
    }

    /// An aggregate whose image `serial` has stacks with these leaves.
    fn aggregate(serial: u32, leaves: &[u64]) -> Aggregate {
        let mut aggregate = Aggregate::default();
        let id = aggregate.image(image(serial));
        aggregate.thread(Thread { image: id, tid: 1, comm: [0; 16] });
        let caller =
            aggregate.frame(Frame::Native { executable: ExecutableId(1), address: ElfVaddr(1), guessed: false });
        for leaf in leaves {
            let frame = Frame::Native { executable: ExecutableId(1), address: ElfVaddr(*leaf), guessed: false };
            let leaf = aggregate.frame(frame);
            aggregate.stack(&[leaf, caller]);
        }
        aggregate
    }

    fn add(aggregate: &mut Aggregate, measure: Measure, stacks: &[u32]) {
        let at = aggregate.series.iter().position(|series| series.measure == measure).unwrap_or_else(|| {
            aggregate.series.push(Series { measure, samples: Vec::new() });
            aggregate.series.len() - 1
        });
        let samples = stacks.iter().map(|stack| RawSample::new(u64::from(*stack) + 1, *stack, 0, 0, 1));
        aggregate.series[at].samples.extend(samples);
    }

    #[test]
    fn every_sample_of_cpu_time_counts_once_over_the_ends_of_windows() {
        let mut tap = Tap::default();
        let faults = Measure { source: "page-faults".to_owned(), period: 1, ..Measure::default() };
        let task_clock = Measure { source: "task-clock".to_owned(), ..Measure::cpu_clock(10) };
        let mut first = aggregate(7, &[10, 20]);
        add(&mut first, faults, &[0, 0, 0]);
        add(&mut first, Measure::cpu_clock(10), &[0, 1, 1]);
        tap.look(&first);
        add(&mut first, Measure::cpu_clock(100), &[1]);
        add(&mut first, task_clock, &[0, 0]);
        add(&mut first, Measure::cpu_clock(10), &[0]);
        tap.look(&first);
        tap.look(&first);
        tap.window_ended();
        let mut second = aggregate(7, &[20]);
        add(&mut second, Measure::cpu_clock(10), &[0]);
        tap.look(&second);
        let tick = tap.take();
        assert_eq!((tick.samples, tick.busy, tick.newest, tick.images.len()), (6, 150, 2, 1));
        let of = |address| tick.counts[&(7, Place::Native(ExecutableId(1), ElfVaddr(address)))];
        assert_eq!((of(10), of(20), tick.counts.len()), (2, 4, 2));
        let unnamed = tap.take_unnamed().expect("two places");
        assert_eq!(unnamed.places.len(), 2);
        // Asked for once.
        add(&mut second, Measure::cpu_clock(10), &[0, 0]);
        tap.look(&second);
        assert!(tap.take_unnamed().is_none() && tap.take().samples == 2);
        assert_eq!(tap.take().samples, 0);
    }

    #[test]
    fn a_name_that_comes_at_the_second_asking_takes_the_place_of_the_reason_why_there_was_none() {
        let mut tap = Tap::default();
        let mut window = Aggregate::default();
        let id = window.image(image(7));
        window.thread(Thread { image: id, tid: 1, comm: [0; 16] });
        let frame = |cookie| RuntimeFrame { kind: FrameKind::V8, object: UserAddr(0x1000), position: 3, cookie };
        let gone = || -> Named { Err("v8: function gone".into()) };
        let name = || -> Named {
            let function = "handle".into();
            Ok(vec![FrameName { function, file: "a.js".into(), line: 5, start_line: 1, tier: None }])
        };
        let mut told = |window: &mut Aggregate, frame, names: &dyn Fn() -> Named| {
            let leaf = window.runtime_frame(id, frame, names);
            let stack = window.stack(&[leaf]);
            add(window, Measure::cpu_clock(10), &[stack]);
            tap.look(window);
            let named = tap.take().named;
            named.into_iter().map(|(_, name)| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut window, frame(1), &gone), ["[v8: function gone]"], "nobody waits for it");
        assert_eq!(told(&mut window, frame(1), &name), ["handle"]);
        assert!(told(&mut window, frame(1), &name).is_empty(), "known");
        for left in [1, 1, 1, 0] {
            assert_eq!(told(&mut window, frame(2), &gone).len(), left, "asked often enough");
        }
    }

    #[test]
    fn names_are_asked_for_after_the_tick_that_forgets_them() {
        let mut tap = Tap::default();
        tap.restart();
        let mut window = aggregate(1, &[10]);
        add(&mut window, Measure::cpu_clock(10), &[0]);
        tap.look(&window);
        assert!(tap.take_unnamed().is_none());
        assert!(tap.take().forget);
        assert_eq!(tap.take_unnamed().expect("a place").places.len(), 1);
    }

    #[test]
    fn places_are_bounded_and_asked_for_again() {
        let mut tap = Tap::default();
        let addresses: Vec<u64> = (1..=MAX_PLACES as u64 + 10).collect();
        let mut forgotten = 0;
        for part in addresses.chunks(1_000).chain(addresses.chunks(1_000)) {
            let mut window = aggregate(1, part);
            let stacks: Vec<u32> = (0..part.len() as u32).collect();
            add(&mut window, Measure::cpu_clock(1), &stacks);
            tap.look(&window);
            tap.window_ended();
            forgotten += u32::from(tap.take().forget);
            let _ = tap.take_unnamed();
            assert!(tap.known.len() <= MAX_PLACES + 1_000, "{}", tap.known.len());
        }
        assert!(forgotten >= 1);
    }
}
