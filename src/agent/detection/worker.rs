//! The thread: names and processes to series, events to what is said of them.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use profiler_config::{DetectedSeries, Detection as Options};
use profiler_detectors::{Config, Kind, Observation, SECOND};
use profiler_model::attribute::SERVICE_NAME;
use profiler_resource::Resources;
use profiler_unwinders::process::Clock;
use rustc_hash::FxHashMap;

use super::pressure::Pressure;
use super::tell::{Around, sentences};
use super::watch::{Level, Told, Watch, cut};
use super::{Report, describe, kept};
use crate::agent::sampling::Ticked;
use crate::pipeline::{Image, Named, Place, Tick, sampled_facts};

/// Between two looks at the kernel's pressure.
const PRESSURE: Duration = Duration::from_secs(5);
/// Between two times that what is normal is kept.
const KEEP: Duration = Duration::from_secs(300);
/// What is known of a process is asked again after so long: its pod may have become known.
const PROCESS: Duration = Duration::from_secs(30);
/// Processes that are known, at most; beyond, those of the tick alone.
const MAX_PROCESSES: usize = 4_096;
/// What was told last, for `/status`.
const RECENT: usize = 50;
/// Of the changes of one service in one tick, those that get lines of their own: the largest.
const LINES: usize = 3;
/// Ticks wait so long (ns) for names: longer than a window of the default length.
const HOLD: u64 = 15 * SECOND;
/// A tick of a service is not judged by functions if more than one in so many of its samples has no name.
const MANY_UNNAMED: u64 = 20;
/// Lines of the log in a burst, and the time after which there may be one more.
const BURST: u32 = 30;
const REFILL: Duration = Duration::from_secs(20);

/// Where a process is that no container has.
const PROCESS_LINUX_CGROUP: &str = "process.linux.cgroup";

/// Kinds of events, as metrics have them.
pub const KINDS: [(Kind, &str); 3] =
    [(Kind::Changed, "changed"), (Kind::Returned, "returned"), (Kind::Settled, "settled")];

/// What is to be done.
pub enum Message {
    Tick(Box<Ticked>),
    Names(Vec<Named>),
    Configure(Box<Options>),
    Stop,
}

pub struct Worker {
    options: Options,
    resources: Arc<Resources>,
    waiting: Arc<AtomicUsize>,
    report: Arc<Mutex<Report>>,
    watch: Watch,
    pressure: Pressure,
    pressure_due: Instant,
    keep_due: Instant,
    names: FxHashMap<Place, (Arc<str>, Option<Arc<str>>)>,
    processes: FxHashMap<u32, Process>,
    /// By service, in the order of time: what waits for names. Where a program's profile is flat, each tick has places that are new, and
    /// to leave them out would make all other shares larger, less and less so as more of them are known.
    held: FxHashMap<Arc<str>, VecDeque<Held>>,
    /// The last tick.
    last: Tick,
    /// The largest services of the last tick.
    largest: Vec<(Arc<str>, f64)>,
    /// Lines that the log may still have, and since when.
    lines: (u32, Instant),
}

/// An image as series see it.
struct Process {
    service: Arc<str>,
    name: Arc<str>,
    cgroup: Option<Arc<str>>,
    asked: Instant,
}

/// The samples of one service in one tick.
#[derive(Default)]
struct Service {
    total: u64,
    places: Vec<(Place, u64)>,
}

/// The samples of one service in a tick that has places without a name, or comes after one that has.
struct Held {
    /// The tick's end, ns since the Unix epoch.
    time: u64,
    places: Vec<(Place, u64)>,
}

impl Worker {
    pub fn new(
        options: Options,
        resources: Arc<Resources>,
        waiting: Arc<AtomicUsize>,
        report: Arc<Mutex<Report>>,
    ) -> Self {
        let now = Instant::now();
        let mut worker = Self {
            watch: watch(&options),
            options,
            resources,
            waiting,
            report,
            pressure: Pressure::open(Path::new("/proc/pressure")),
            pressure_due: now,
            keep_due: now + KEEP,
            names: FxHashMap::default(),
            processes: FxHashMap::default(),
            held: FxHashMap::default(),
            last: Tick::default(),
            largest: Vec::new(),
            lines: (BURST, now),
        };
        worker.begin();
        worker
    }

    /// Until it is told to stop.
    pub fn run(&mut self, inbox: &Receiver<Message>) {
        loop {
            match inbox.recv_timeout(self.pressure_due.saturating_duration_since(Instant::now())) {
                Ok(Message::Tick(ticked)) => {
                    self.tick(*ticked);
                    self.waiting.fetch_sub(1, Ordering::AcqRel);
                }
                Ok(Message::Names(named)) => {
                    self.names.extend(named.into_iter().map(|of| (of.place, (cut(&of.name).into(), of.file))));
                    self.judge_held(0);
                }
                Ok(Message::Configure(options)) => self.configure(*options),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if now >= self.pressure_due {
                self.pressure_due = now + PRESSURE;
                self.look_at_pressure(now);
            }
            if now >= self.keep_due {
                self.keep_due = now + KEEP;
                self.keep();
            }
        }
        self.keep();
    }

    /// With what was kept, if anything was.
    fn begin(&mut self) {
        self.lock().detectors = describe(&self.options, self.pressure.is_there());
        let Some(path) = &self.options.state_file else { return };
        match kept::read(path, &mut self.watch, budget(&self.options), unix_now()) {
            Ok(0) => {}
            Ok(banks) => tracing::info!(file = %path.display(), banks, "What was normal before the restart is known."),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "What was normal before the restart is not known, and is learned anew.");
            }
        }
    }

    fn keep(&self) {
        let Some(path) = &self.options.state_file else { return };
        if let Err(error) = kept::write(path, &self.watch, unix_now()) {
            crate::once_a_minute!(warn, "detection state", file = %path.display(), %error, "What is normal cannot be kept over a restart.");
        }
    }

    fn configure(&mut self, options: Options) {
        let anew = |options: &Options| (options.detectors.clone(), options.pressure_detectors.clone(), options.memory);
        if anew(&options) != anew(&self.options) {
            self.watch = watch(&options);
        }
        self.held.clear();
        let file = options.state_file != self.options.state_file;
        self.options = options;
        if file && self.watch.bytes() == 0 {
            self.begin();
        }
        let mut report = self.lock();
        report.detectors = describe(&self.options, self.pressure.is_there());
        report.series = self.watch.series();
    }

    fn look_at_pressure(&mut self, now: Instant) {
        if self.options.pressure_detectors.is_empty() {
            return;
        }
        let time = unix_now();
        let mut told = Vec::new();
        for (name, share) in self.pressure.look(now) {
            if let Ok(observation) = Observation::measured(time, share, 0.0) {
                told.extend(self.watch.value(Level::Pressure, &name, &observation));
            }
        }
        if !told.is_empty() {
            self.tell(told);
        }
        let mut report = self.lock();
        report.series = self.watch.series();
    }

    fn tick(&mut self, Ticked { mut tick, time, span, period }: Ticked) {
        if tick.forget {
            self.judge_held(u64::MAX);
            self.names.clear();
            self.processes.clear();
        }
        let named = std::mem::take(&mut tick.named);
        self.names.extend(named.into_iter().map(|(place, name)| (place, (cut(&name).into(), None))));
        self.learn(&tick);
        let wants = |series| self.options.series.contains(&series);
        let mut services: FxHashMap<Arc<str>, Service> = FxHashMap::default();
        let (mut processes, mut cgroups) = (FxHashMap::default(), FxHashMap::default());
        let add = |to: &mut FxHashMap<Arc<str>, u64>, name: &Arc<str>, count: u64| match to.get_mut(name) {
            Some(sum) => *sum += count,
            None => drop(to.insert(Arc::clone(name), count)),
        };
        for (&(serial, place), &count) in &tick.counts {
            let Some(process) = self.processes.get(&serial) else { continue };
            let service = match services.get_mut(&process.service) {
                Some(service) => service,
                None => services.entry(Arc::clone(&process.service)).or_default(),
            };
            service.total += count;
            service.places.push((place, count));
            add(&mut processes, &process.name, count);
            if let Some(cgroup) = &process.cgroup {
                add(&mut cgroups, cgroup, count);
            }
        }
        // What the host's CPUs could have been sampled, at the rate that these samples tell of.
        let cpus = profiler_bpf::online_cpus().map_or(1, |cpus| cpus.len() as u64);
        let possible = span.saturating_mul(cpus) as f64;
        let worth = if tick.samples > 0 { tick.busy as f64 / tick.samples as f64 } else { period as f64 };
        let capacity = ((possible / worth.max(1.0)).round() as u64).max(tick.samples).max(1);
        let shares = |service: &Service| service.total as f64 / capacity as f64;
        let mut largest: Vec<_> = services.iter().map(|(name, of)| (Arc::clone(name), shares(of))).collect();
        largest.sort_unstable_by(|(_, one), (_, other)| other.total_cmp(one));
        largest.truncate(3);
        self.largest = largest;

        let mut told = Vec::new();
        if wants(DetectedSeries::Host) {
            let host = [("host".into(), tick.samples)].into_iter().collect();
            told.extend(self.watch.shares(Level::Host, time, capacity, &host));
        }
        if wants(DetectedSeries::Services) {
            let totals = services.iter().map(|(name, of)| (Arc::clone(name), of.total)).collect();
            told.extend(self.watch.shares(Level::Service, time, capacity, &totals));
        }
        if wants(DetectedSeries::Processes) {
            told.extend(self.watch.shares(Level::Process, time, capacity, &processes));
        }
        if wants(DetectedSeries::Cgroups) {
            told.extend(self.watch.shares(Level::Cgroup, time, capacity, &cgroups));
        }
        let wants_functions = wants(DetectedSeries::Functions);
        let newest = tick.newest;
        self.last = tick;
        self.tell(told);
        if wants_functions {
            for (service, of) in services {
                self.held.entry(service).or_default().push_back(Held { time, places: of.places });
            }
            self.judge_held(time.saturating_sub(HOLD));
        }
        let delay = (newest > 0).then(|| Clock::monotonic_now().saturating_sub(newest));
        let names = self.names.capacity() * (size_of::<(Place, (Arc<str>, Option<Arc<str>>))>() + 1);
        let held = self.held.values().flatten().map(|held| size_of_val(&*held.places) + size_of::<Held>());
        let held: usize = held.sum();
        let mut report = self.lock();
        if let Some(delay) = delay {
            report.delay.record(delay as f64 / 1e9);
        }
        report.series = self.watch.series();
        report.skipped = self.watch.skipped();
        report.bytes = (self.watch.bytes() + names + held) as u64;
    }

    /// Judges the functions of each service up to the first tick that has a place without a name; those up to `until` in any case.
    fn judge_held(&mut self, until: u64) {
        let mut held = std::mem::take(&mut self.held);
        let mut told = Vec::new();
        for (service, ticks) in &mut held {
            while let Some(first) = ticks.front() {
                if first.time > until && !first.places.iter().all(|(place, _)| self.names.contains_key(place)) {
                    break;
                }
                let Some(Held { time, places }) = ticks.pop_front() else { break };
                let mut functions: FxHashMap<Arc<str>, u64> = FxHashMap::default();
                let (mut named, mut unnamed) = (0, 0);
                for (place, count) in places {
                    let Some((name, _)) = self.names.get(&place) else {
                        unnamed += count;
                        continue;
                    };
                    named += count;
                    match functions.get_mut(name) {
                        Some(sum) => *sum += count,
                        None => drop(functions.insert(Arc::clone(name), count)),
                    }
                }
                self.lock().unnamed += unnamed;
                // A part says nothing of the whole: what has a name first may be anything.
                if unnamed * MANY_UNNAMED > named + unnamed {
                    continue;
                }
                // Places without a name may be of any function, and make the shares of the others no smaller.
                told.extend(self.watch.functions(service, time, named, &functions));
            }
        }
        held.retain(|_, ticks| !ticks.is_empty());
        self.held = held;
        self.tell(told);
    }

    /// What the processes of a tick are called.
    fn learn(&mut self, tick: &Tick) {
        let now = Instant::now();
        if self.processes.len() > MAX_PROCESSES {
            self.processes.retain(|serial, _| tick.images.contains_key(serial));
        }
        for (serial, image) in &tick.images {
            match self.processes.entry(*serial) {
                Entry::Occupied(known) if now.duration_since(known.get().asked) < PROCESS => {}
                Entry::Occupied(mut known) => drop(known.insert(process(&self.resources, image, now))),
                Entry::Vacant(new) => drop(new.insert(process(&self.resources, image, now))),
            }
        }
    }

    /// Says what changed: the largest changes of each service in lines of their own, the others by number.
    fn tell(&mut self, mut told: Vec<Told>) {
        let size = |told: &Told| {
            let event = &told.event.event;
            (event.to.value - event.from.value).abs()
        };
        told.sort_by(|one, other| size(other).total_cmp(&size(one)));
        let mut of_service: FxHashMap<(Level, Option<Arc<str>>), usize> = FxHashMap::default();
        let mut held_back = 0;
        for told in &told {
            let event = &told.event.event;
            let kind = KINDS.iter().find(|(kind, _)| *kind == event.kind).map_or("", |(_, name)| name);
            *self.lock().events.entry((told.level.name(), kind)).or_default() += 1;
            let lines = of_service.entry((told.level, told.service.clone())).or_default();
            *lines += 1;
            if *lines > LINES || !self.may_log() {
                held_back += 1;
                continue;
            }
            let text = sentences(told, &self.around(told));
            match event.kind {
                // Loads change all day; that the same load is spent otherwise wants somebody's attention.
                Kind::Changed if matches!(told.level, Level::Function | Level::Pressure) => {
                    tracing::warn!(of = told.level.name(), "{text}");
                }
                _ => tracing::info!(of = told.level.name(), "{text}"),
            }
            self.note(event.time, text);
        }
        if let (true, Some(first)) = (held_back > 0, told.first()) {
            let text = format!(
                "{held_back} more series changed or went back at the same time; profiler.detection.events counts them."
            );
            tracing::info!("{text}");
            self.note(first.event.event.time, text);
        }
    }

    fn note(&self, time: u64, text: String) {
        let mut report = self.lock();
        report.recent.push_front((time, text));
        report.recent.truncate(RECENT);
    }

    fn may_log(&mut self) -> bool {
        let (left, since) = &mut self.lines;
        let earned = u32::try_from(since.elapsed().as_secs() / REFILL.as_secs()).unwrap_or(BURST);
        if earned > 0 {
            *since += REFILL * earned;
            *left = left.saturating_add(earned).min(BURST);
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    fn around(&self, told: &Told) -> Around {
        let tick = &self.last;
        let is_of = |serial: &u32, service: &str| self.processes.get(serial).is_some_and(|of| &*of.service == service);
        let service = match told.level {
            Level::Function => told.service.as_deref(),
            Level::Service => Some(&*told.event.series),
            _ => None,
        };
        let newest = service.and_then(|service| {
            let images = tick.images.iter().filter(|(serial, _)| is_of(serial, service));
            let (serial, image) = images.max_by_key(|(_, image)| image.start_unix_ns)?;
            Some((Arc::clone(&self.processes.get(serial)?.name), image.pid, image.start_unix_ns))
        });
        let file = told.service.as_deref().filter(|_| told.level == Level::Function).and_then(|service| {
            let counts = tick.counts.iter().filter(|((serial, _), _)| is_of(serial, service));
            let named = counts.filter_map(|((_, place), count)| Some((self.names.get(place)?, count)));
            let of_function = named.filter(|((name, _), _)| name == &told.event.series);
            of_function.max_by_key(|(_, count)| **count).and_then(|((_, file), _)| file.clone())
        });
        let largest =
            if matches!(told.level, Level::Host | Level::Pressure) { self.largest.clone() } else { Vec::new() };
        Around { file, newest, largest }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn process(resources: &Resources, image: &Image, now: Instant) -> Process {
    let comm = image.comm.to_text();
    let attributes = resources.attributes(&sampled_facts(image, &comm));
    let cgroup = image.container_id.as_deref().or(image.cgroup.as_deref());
    let cgroup = cgroup.or_else(|| attributes.text(PROCESS_LINUX_CGROUP));
    Process {
        service: cut(attributes.text(SERVICE_NAME).unwrap_or(&comm)).into(),
        name: cut(&comm).into(),
        cgroup: cgroup.map(|cgroup| cut(cgroup).into()),
        asked: now,
    }
}

/// The configuration has read them before.
fn watch(options: &Options) -> Watch {
    let read = |texts: &[String]| -> Vec<Config> { texts.iter().filter_map(|text| text.parse().ok()).collect() };
    Watch::new(&read(&options.detectors), &read(&options.pressure_detectors), budget(options))
}

fn budget(options: &Options) -> usize {
    usize::try_from(options.memory).unwrap_or(usize::MAX)
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use profiler_address::{ElfVaddr, KernelAddr};
    use profiler_resource::ResourceOptions;
    use profiler_unwinders::executable::ExecutableId;
    use profiler_unwinders::process::Comm;

    use super::*;

    const HOT: Place = Place::Native(ExecutableId(1), ElfVaddr(1));
    const COLD: Place = Place::Native(ExecutableId(1), ElfVaddr(2));
    const NEW: Place = Place::Kernel(KernelAddr(3));

    fn worker(series: &[DetectedSeries]) -> Worker {
        let options = Options {
            detectors: vec!["cusum,warm-up=30".to_owned()],
            series: series.to_vec(),
            pressure_detectors: Vec::new(),
            memory: 1 << 20,
            state_file: None,
        };
        let resources = Arc::new(Resources::start(ResourceOptions::default()).expect("the defaults"));
        let report = Arc::new(Mutex::new(Report::new()));
        let mut worker = Worker::new(options, resources, Arc::default(), report);
        let named = |place, name: &str| (place, (Arc::from(name), Some(Arc::from("/bin/shop, build id ab"))));
        worker.names.extend([named(HOT, "hot"), named(COLD, "cold")]);
        worker
    }

    fn image() -> Image {
        Image {
            pid: 4_000_000,
            serial: 1,
            start_unix_ns: SECOND,
            start_time_ns: 0,
            comm: Comm::new(b"shop"),
            exe: Arc::from(&b"/bin/shop"[..]),
            executable: None,
            container_id: None,
            cgroup: None,
            namespace_pid: 1,
        }
    }

    /// A second that ends at `second`, of one image, with samples `period` ns apart.
    fn ticked(second: u64, period: u64, counts: &[(Place, u64)]) -> Box<Ticked> {
        let samples = counts.iter().map(|(_, count)| count).sum();
        let tick = Tick {
            samples,
            busy: samples * period,
            newest: Clock::monotonic_now(),
            counts: counts.iter().map(|(place, count)| ((1, *place), *count)).collect(),
            images: [(1, image())].into_iter().collect(),
            ..Tick::default()
        };
        Box::new(Ticked { tick, time: 1_795_727_100 * SECOND + second * SECOND, span: SECOND, period })
    }

    fn events(worker: &Worker) -> Vec<String> {
        worker.lock().recent.iter().rev().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn another_rate_is_no_change_of_what_is_sampled() {
        let all =
            [DetectedSeries::Host, DetectedSeries::Services, DetectedSeries::Processes, DetectedSeries::Functions];
        let mut worker = worker(&all);
        let cpus = profiler_bpf::online_cpus().expect("there are some").len() as u64;
        for second in 0..200 {
            // Half of the host, at 100 Hz and then at 10 Hz.
            let (period, count) = if second < 100 { (10_000_000, 50 * cpus) } else { (100_000_000, 5 * cpus) };
            worker.tick(*ticked(second, period, &[(HOT, count / 5), (COLD, count - count / 5)]));
        }
        assert_eq!(events(&worker), [""; 0]);
        let report = worker.lock();
        let of = |level| report.series[level];
        assert_eq!((of("host"), of("service"), of("process"), of("function"), report.delay.count()), (1, 1, 1, 2, 200));
    }

    #[test]
    fn samples_without_a_name_are_waited_for_and_make_no_functions_share_smaller() {
        let mut worker = worker(&[DetectedSeries::Functions]);
        for second in 0..100 {
            worker.tick(*ticked(second, 10_000_000, &[(HOT, 20), (COLD, 180)]));
        }
        // As many again of a place that is new: hot has 5 % of all, and is as it was.
        for second in 100..120 {
            worker.tick(*ticked(second, 10_000_000, &[(HOT, 20), (COLD, 180), (NEW, 200)]));
        }
        assert_eq!(events(&worker), [""; 0]);
        // Those that waited for longer than they may.
        assert_eq!(worker.lock().unnamed, 1_000);
        assert_eq!(worker.held.values().map(VecDeque::len).sum::<usize>(), 15);
        // With its name it is a function that is new and large, and so it was while it had none.
        worker.names.insert(NEW, ("fresh".into(), None));
        for second in 120..125 {
            worker.tick(*ticked(second, 10_000_000, &[(HOT, 20), (COLD, 180), (NEW, 200)]));
        }
        let told = events(&worker);
        let first = told.first().expect("an event");
        assert!(first.starts_with("Function fresh of service shop went up from "), "{told:#?}");
        assert!(first.contains(" to 50.00 % ") && first.contains("shop (pid 4000000)"), "{first}");
    }

    #[test]
    fn of_many_changes_at_once_the_largest_are_told_and_all_are_counted() {
        let mut worker = worker(&[DetectedSeries::Functions]);
        let place = |n| Place::Native(ExecutableId(2), ElfVaddr(n));
        worker.names.extend((0..20).map(|n| (place(n), (Arc::from(format!("f{n}")), None))));
        let counts = |factor: u64| -> Vec<(Place, u64)> {
            (0..20).map(|n| (place(n), 100 + if n < 10 { factor * (n + 20) } else { 0 })).collect()
        };
        (0..60).for_each(|second| worker.tick(*ticked(second, 1_000_000, &counts(0))));
        (60..80).for_each(|second| worker.tick(*ticked(second, 1_000_000, &counts(10))));
        let told = events(&worker);
        let changed = worker.lock().events[&("function", "changed")];
        let lines = told.iter().filter(|text| text.starts_with("Function")).count() as u64;
        let more: u64 = told.iter().filter_map(|text| text.split_once(" more series")?.0.parse::<u64>().ok()).sum();
        let ended: u64 = worker.lock().events.iter().filter(|((_, kind), _)| *kind != "changed").map(|(_, n)| n).sum();
        assert!(changed >= 10 && lines < changed, "{changed}: {told:#?}");
        assert_eq!(lines + more, changed + ended, "{told:#?}");
    }
}
