//! `profiler record`.

mod aside;
mod cgroup;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use profiler_bpf::{Event, Rate, Source, Targets};
use profiler_formats::format::Format;
use profiler_model::Profiles;
use profiler_reader::{Namer, Reader};
use profiler_resource::{KubernetesOptions, KubernetesSource, ResourceOptions, Resources};
use profiler_symbolizer::Symbolizer;
use profiler_unwinders::process::Clock;
use rustix::process::Signal;

use self::aside::Aside;
use crate::launch::Launched;
use crate::output::{Named, Output, Written};
use crate::pipeline::{
    Budgets, Image, Learner, NameLosses, Names, Naming, Sampled, Session, SessionOptions, Span, files, finish, losses,
    origin,
};
use crate::rules::Edits;
use crate::shown;
use crate::terminal::Terminal;
use crate::{confinement, exit};

/// How often signals, the command and the clock are looked at.
const STEP: Duration = Duration::from_millis(200);
/// The kernel's symbols are read when no stack had to be finished here for so long: that takes up to 0.3 s, and what waits meanwhile is
/// finished over memory that has moved on.
const KERNEL_NAMES_AFTER: Duration = Duration::from_secs(1);
/// Nice value of the thread that works off samples.
const PRIORITY: i32 = -10;
/// How often the names of code that JITs make are read.
const JIT_NAMES: Duration = Duration::from_millis(500);
/// A recording is kept whole until it is written: 24 bytes a sample, and each stack once.
const BUDGETS: Budgets = Budgets { rows: 128 << 20, aggregate: usize::MAX, raw_stacks: 8 << 20, waiting: 64 << 20 };

/// What the process that reads targets' files may take, bytes.
const READER_BYTES: u64 = 2 << 30;

/// Whom to record.
#[derive(Clone, Debug)]
pub enum Target {
    /// Every process.
    All,
    /// These, and their children from now on.
    Processes(Vec<u32>),
    /// A cgroup and what is below.
    Cgroup(PathBuf),
    /// A command and its children, or everything while it runs.
    Command {
        /// With its arguments.
        command: Vec<OsString>,
        /// Everything while it runs.
        all: bool,
    },
}

/// What to record and where to.
#[derive(Debug)]
pub struct Options {
    /// Whom.
    pub target: Target,
    /// What makes samples.
    pub sources: Vec<Source>,
    /// How long; none: until Ctrl-C or the command's end.
    pub duration: Option<Duration>,
    /// Files; `-` is standard output.
    pub outputs: Vec<PathBuf>,
    /// Who chose their names.
    pub named: Named,
    /// Format of all files; by their names if none.
    pub format: Option<Format>,
    /// What formats with room for one sample type show.
    pub sample_type: Option<String>,
    /// Files, lines and inlined functions, not only names.
    pub lines: bool,
    /// An interpreter's own C functions between its functions, too.
    pub all_runtime_frames: bool,
    /// BTF of the kernel.
    pub btf: Option<PathBuf>,
    /// Print only errors.
    pub quiet: bool,
    /// What edits the profile before it is written.
    pub rules: Edits,
}

/// Records, writes, reports. The exit code is the command's, if there is one.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let limit = profiler_bpf::max_frequency();
    for source in &options.sources {
        if let Rate::Frequency(frequency) = source.rate
            && !(1..=limit).contains(&frequency)
        {
            return Err(exit::usage(profiler_bpf::Error::Frequency { frequency, limit }).into());
        }
    }
    // What can fail for what the user wrote fails before anything is recorded.
    let prepare = |path: &PathBuf| Output::prepare(path, options.format, options.named);
    let outputs = options.outputs.iter().map(prepare).collect::<anyhow::Result<Vec<_>>>()?;
    let target = &chosen(&options.target, options.quiet)?;
    // Counted, and installed before the command runs, so that no Ctrl-C finds us without it.
    let interrupts = Interrupts::install()?;
    let mut command = match target {
        Target::Command { command, .. } => Some(Launched::stopped(command)?),
        _ => None,
    };
    // The command keeps what its user has; ours goes before there are threads, and before anything of targets is read.
    confinement::recording(options.quiet);
    let reader = Reader::start(profiler_reader::Options::of_this_program(READER_BYTES))?;
    let lenders = reader.clone();
    let mut learner = Learner::new(reader.clone());
    let mut session = Session::new(SessionOptions {
        sampler: profiler_bpf::Options {
            sources: options.sources.clone(),
            targets: targets(target, command.as_ref(), !options.rules.early().is_empty())?,
            ring_bytes: ring_bytes(&options.sources),
            btf: options.btf.clone(),
            without_task_pt_regs: false,
        },
        budgets: BUDGETS,
        sideband_bytes: 1 << 18,
        reading: Box::new(reader),
    })?;
    session.show_all_runtime_frames(options.all_runtime_frames);
    if matches!(target, Target::All | Target::Command { all: true, .. }) {
        session.set_early(options.rules.early());
    }
    let resources = Resources::start(ResourceOptions {
        // A recording is of this host, and its processes say themselves who they are.
        kubernetes: KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() },
        ..ResourceOptions::default()
    })?;
    let symbols =
        profiler_symbolizer::Options { source_lines: options.lines, ..profiler_symbolizer::Options::default() };
    let namer = Namer::new(profiler_reader::Options::of_names(READER_BYTES), symbols.clone()).with_lenders(lenders);
    // Whoever asks a namer waits for it, for as long as a target may hold it: that is not who samples.
    let names = Aside::start("names", move || Names::once(Symbolizer::new(symbols)).by(namer))?;

    if let Target::Processes(pids) = target {
        session.prepare(pids);
    }
    if let Some(command) = &command {
        session.begin_with_exec(command.id());
        session.expect(command.id(), command.program());
    }
    // On a host with more work than CPUs a new process is known sooner so, and fewer of its samples need a copy of their stack.
    // Without the right to it nothing is worse than before.
    let _ = rustix::process::setpriority_process(None, PRIORITY);
    let started = Instant::now();
    let begun = Clock::monotonic_now();
    session.start()?;
    let terminal = Terminal::start(&headline(target, options), options.duration, command.is_some(), options.quiet);
    if let Some(command) = &command {
        command.go().context("cannot let the command go")?;
    }
    let (mut jit_images, mut jit_read) = (0, Instant::now());
    let (mut kernel_named, mut cut_short) = (false, false);
    let (told, kernel_troubles) = std::sync::mpsc::channel();
    let (mut continued, mut calm_since) = (0, Instant::now());
    let mut forwarded = 0;
    loop {
        let elapsed = started.elapsed();
        let step = options.duration.map_or(STEP, |duration| STEP.min(duration.saturating_sub(elapsed)));
        if let Err(error) = session.step(step) {
            eprintln!("profiler: the recording ends here: {error}");
            cut_short = true;
            break;
        }
        learn(&mut session, &mut learner, &resources);
        // Often enough to have the names of a process that ends, seldom enough to cost nothing.
        let images = session.jit_images().count();
        if images > jit_images || (images > 0 && jit_read.elapsed() >= JIT_NAMES) {
            let read: Vec<Image> = session.jit_images().cloned().collect();
            // If the last reading is not over yet, at the next step.
            if names.try_do(move |names| names.prefetch(&read)) {
                (jit_images, jit_read) = (images, Instant::now());
            }
        }
        let totals = session.totals();
        if totals.continued != continued {
            (continued, calm_since) = (totals.continued, Instant::now());
        }
        // If it is never calm, they are read at the end.
        if !kernel_named && calm_since.elapsed() > KERNEL_NAMES_AFTER {
            let tell = told.clone();
            // Nobody hears of it if the recording is over.
            kernel_named = names.try_do(move |names| drop(tell.send(names.kernel_trouble())));
        }
        kernel_troubles.try_iter().for_each(|trouble| tell_kernel_trouble(trouble, &terminal));
        terminal.update(started.elapsed(), &totals);
        if options.duration.is_some_and(|duration| started.elapsed() >= duration) {
            break;
        }
        let count = interrupts.count();
        match &mut command {
            Some(command) => {
                if command.has_ended()? {
                    break;
                }
                // The terminal sends Ctrl-C to the command by itself; what came otherwise is passed on.
                if count > forwarded && !on_our_terminal() {
                    command.signal(interrupts.last());
                }
                forwarded = count;
                // Whoever asks twice does not want to wait for the command.
                if count > 1 {
                    break;
                }
            }
            None if count > 0 => break,
            None => {
                if let Target::Processes(pids) = target
                    && !pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists())
                {
                    terminal.say("All chosen processes have ended.");
                    break;
                }
            }
        }
    }
    if let Err(error) = session.finish()
        && !cut_short
    {
        eprintln!("profiler: the last samples are lost: {error}");
        cut_short = true;
    }
    // On a busy host a process may be in the last samples only.
    learner.finish(session.new_images(), &resources);
    // Naming can wait its turn.
    let _ = rustix::process::setpriority_process(None, 0);
    let trouble = names.wait_for(move |names| {
        names.be_patient();
        if kernel_named { None } else { names.kernel_trouble() }
    })?;
    tell_kernel_trouble(trouble, &terminal);
    kernel_troubles.try_iter().for_each(|trouble| tell_kernel_trouble(trouble, &terminal));
    terminal.finish();

    let span = Span { clock: session.read_clock(), begun, ended: Clock::monotonic_now() };
    let aggregate = session.take_aggregate();
    // What has no name is counted when it is taken.
    let totals = session.totals();
    let files = files(&aggregate, session.reading());
    let losses = losses::of(&totals, &session.unwind_stats());
    let sampled = Sampled { aggregate, files, span, losses };
    // A file of nothing says what it is nothing of.
    let of_nothing: Vec<_> =
        options.sources.iter().map(|source| source.measure(source.period(source.clock_period()))).collect();
    let origin = origin(frequency(&options.sources), what(target));
    let profile = names.wait_for(move |names| {
        let naming = Naming { names, losses: &mut NameLosses::default(), resources: &resources };
        finish(sampled, naming, &of_nothing, |_: &Profiles| origin)
    })?;
    let profile = options.rules.apply(profile)?;

    let shown = match profile.shown(options.sample_type.as_deref()) {
        Ok(shown) => shown,
        Err(error) => {
            // What was recorded is worth more than the wish.
            eprintln!("profiler: {error}; what is first is shown");
            profile.shown(None)?
        }
    };
    // One that cannot be written is no reason not to write the others.
    let (mut written, mut failed) = (Vec::<Written>::new(), false);
    let asked = interrupts.count();
    for output in outputs {
        match output.write(&profile, &shown, &|| interrupts.count() > asked) {
            Ok(one) => written.push(one),
            Err(error) => {
                eprintln!("profiler: {}", shown::lines(&format!("{error:#}")));
                failed = true;
            }
        }
    }
    terminal.report(&profile, &written);
    let code = command.as_mut().map_or(Ok(0), Launched::exit_code)?;
    failed |= cut_short || written.iter().any(|written| written.instead_of.is_some());
    Ok(ExitCode::from(if code == 0 && failed { exit::FAILURE } else { code }))
}

/// Reads what the processes that are new say of themselves, while they live.
fn learn(session: &mut Session, learner: &mut Learner, resources: &Resources) {
    learner.learn(session.new_images(), resources);
    session.rule_out(resources);
}

/// The target with processes in place of the threads that were given for them.
fn chosen(target: &Target, quiet: bool) -> anyhow::Result<Target> {
    let Target::Processes(ids) = target else { return Ok(target.clone()) };
    let mut pids = Vec::with_capacity(ids.len());
    for &id in ids {
        let pid = process_of(id).with_context(|| format!("there is no process {id}"))?;
        if pid != id && !quiet {
            eprintln!("{id} is a thread of process {pid}: all threads of that process are recorded.");
        }
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    Ok(Target::Processes(pids))
}

/// The process that the process or thread `id` belongs to.
fn process_of(id: u32) -> Option<u32> {
    let status = std::fs::read(format!("/proc/{id}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// Samples a second and CPU, for people: of the first source that has a rate by time; 0 if none has.
fn frequency(sources: &[Source]) -> u64 {
    sources.iter().find_map(Source::frequency).unwrap_or_default()
}

fn targets(target: &Target, command: Option<&Launched>, has_early: bool) -> anyhow::Result<Targets> {
    Ok(match (target, command) {
        // Every process, but for those that rules drop whole.
        (Target::All | Target::Command { all: true, .. }, _) if has_early => Targets::Rules,
        (Target::All | Target::Command { all: true, .. }, _) | (Target::Command { .. }, None) => Targets::All,
        (Target::Processes(pids), _) => Targets::Processes(pids.clone()),
        (Target::Command { .. }, Some(command)) => Targets::Processes(vec![command.id()]),
        (Target::Cgroup(path), _) => Targets::Cgroup(cgroup::open(path)?.into()),
    })
}

/// Room for half a second of stacks, most of them with frames only, but a second's start with copies.
fn ring_bytes(sources: &[Source]) -> u32 {
    let cpus = profiler_bpf::online_cpus().map_or(1, |cpus| cpus.len() as u64);
    // How often an event happens nobody knows beforehand.
    let frequency = sources.iter().map(|source| source.frequency().unwrap_or(1_000)).max().unwrap_or_default();
    (cpus * frequency * 8192).clamp(4 << 20, 64 << 20) as u32
}

fn headline(target: &Target, options: &Options) -> String {
    let until = match (options.duration, target) {
        (Some(duration), _) => format!("for {duration:?}"),
        (None, Target::Command { .. }) => "until it ends".to_owned(),
        (None, _) => "until Ctrl-C".to_owned(),
    };
    let rates = match &*options.sources {
        [Source { event: Event::CPU_CLOCK, rate: Rate::Frequency(frequency) }] => format!("at {frequency} Hz"),
        sources => {
            let list: Vec<_> = sources.iter().map(Source::to_string).collect();
            format!("by {}", list.join(", "))
        }
    };
    format!("Sampling {} {rates} {until}.", what(target))
}

fn what(target: &Target) -> String {
    match target {
        Target::All => "all processes".to_owned(),
        Target::Processes(pids) => {
            let list: Vec<_> = pids.iter().map(u32::to_string).collect();
            format!("pid {}", list.join(", "))
        }
        Target::Cgroup(path) => format!("cgroup {}", path.display()),
        Target::Command { command, all } => {
            let line: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
            let whom = if *all { "all processes during " } else { "" };
            format!("{whom}command: {}", line.join(" "))
        }
    }
}

/// Says if there are no symbols of the kernel.
fn tell_kernel_trouble(trouble: Option<String>, terminal: &Terminal) {
    if let Some(trouble) = trouble {
        terminal.say(&format!("Kernel frames will have no names: {trouble}"));
    }
}

/// Whether Ctrl-C on our terminal reaches the command too: then both are in its foreground group.
fn on_our_terminal() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// SIGINT and SIGTERM, counted.
struct Interrupts {
    count: Arc<AtomicUsize>,
    last: Arc<AtomicUsize>,
}

impl Interrupts {
    fn install() -> anyhow::Result<Self> {
        let (count, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut signals = signal_hook::iterator::Signals::new([libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
            .context("cannot take signals")?;
        let (counter, newest) = (Arc::clone(&count), Arc::clone(&last));
        let (confined, is_confined) = std::sync::mpsc::channel::<()>();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                // It needs none; what is refused is told with what the process gives up later.
                let _ = profiler_confine::early_thread();
                drop(confined);
                for signal in signals.forever() {
                    newest.store(signal as usize, Ordering::Relaxed);
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .context("cannot start a thread")?;
        // Nothing is sent: it ends when the thread has come so far.
        let _ = is_confined.recv();
        Ok(Self { count, last })
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn last(&self) -> Signal {
        match self.last.load(Ordering::Relaxed) as i32 {
            libc::SIGTERM => Signal::TERM,
            libc::SIGHUP => Signal::HUP,
            _ => Signal::INT,
        }
    }
}
