//! Records a program through the library, as `profiler record` does through the command line: for what the command line has no
//! option for.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use profiler::pipeline::{Budgets, Names, Session, SessionOptions, assemble, files};
use profiler_bpf::{Options, Source, Targets};
use profiler_integration::children;
use profiler_integration::truth::Truth;
use profiler_model::Profiles;
use profiler_resource::{KubernetesOptions, KubernetesSource, ResourceOptions, Resources};
use profiler_symbolizer::Symbolizer;

use profiler_kernels::Error;

/// Patience with a program.
const PATIENCE: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(50);

/// What was recorded.
#[derive(Debug)]
pub struct Watched {
    /// All processes of the host.
    pub profile: Profiles,
    /// What the program says of itself.
    pub truth: Truth,
}

/// How to load the kernel half for the whole host at `frequency` Hz.
pub fn everything(frequency: u64) -> Options {
    Options {
        sources: vec![Source::cpu_clock(frequency)],
        targets: Targets::All,
        ring_bytes: 1 << 21,
        btf: None,
        without_task_pt_regs: false,
    }
}

/// Starts to record, then `program`, and ends with it. `meanwhile` is called some twenty times a second with the program's pid.
pub fn watch(
    sampler: Options,
    program: &Path,
    arguments: &[&str],
    mut meanwhile: impl FnMut(&mut Session, u32) -> Result<(), Error>,
) -> Result<Watched, Error> {
    // At first every process of a busy host is new, and each of its samples carries a copy of its stack: as `record` has it.
    let budgets = Budgets { rows: 128 << 20, aggregate: usize::MAX, waiting: 64 << 20, ..Budgets::default() };
    let mut session = Session::new(SessionOptions {
        sampler,
        budgets,
        sideband_bytes: 1 << 18,
        reading: Box::new(profiler_unwinders::executable::Executables::new()),
    })?;
    session.start()?;
    let mut running = children::start(Command::new(program).args(arguments))?;
    let until = Instant::now() + PATIENCE;
    while running.is_running() && Instant::now() < until {
        session.step(STEP)?;
        meanwhile(&mut session, running.pid())?;
    }
    let output = running.wait(Duration::from_secs(1))?.stdout;
    session.finish()?;
    let truth = Truth::find(&program.display().to_string(), &output)?;
    let aggregate = session.take_aggregate();
    let mut names = Names::once(Symbolizer::new(profiler_symbolizer::Options::default()));
    let files = files(&aggregate, session.reading());
    let kubernetes = KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() };
    let resources = Resources::start(ResourceOptions { kubernetes, ..ResourceOptions::default() });
    let resources = resources.unwrap_or_else(|error| panic!("no resources: {error}"));
    let profile = assemble(&aggregate, &mut names, &files, &resources, session.clock());
    if profile.profiles.is_empty() {
        return Err(Error::Rate("nothing was sampled".into()));
    }
    Ok(Watched { profile, truth })
}
