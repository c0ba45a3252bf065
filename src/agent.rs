//! `profiler agent`: samples for as long as it lives, a window at a time, and says how it is.
//!
//! ```text
//!  this thread     step ─ ... ─ step ─ window ─┬─ publish.rs: name, assemble ─ processors.rs: rules ─ sinks.rs: exporters, files
//!                  step ─ ... ─ tick ───── detection.rs: series, detectors ─ log, /status
//!  each second     configuration, kill switch, budgets ─> rate, targets, sinks;  state.rs ─> telemetry
//! ```

mod detection;
mod managed;
mod options;
mod processors;
mod publish;
mod sampling;
mod signals;
mod sinks;
mod state;
mod window;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use profiler_config::{self as config, Change, Changes, Config, Loaded, Remote, Watcher};
use profiler_limits::{Arbiter, Cap, Decision, Governor, KillSwitch, Shed, Usage};
use profiler_network::{Member, Network};
use profiler_reader::Reader;
use profiler_resource::Resources;

use self::detection::Detection;
use self::managed::Managed;
pub(crate) use self::processors::{Counts, Explained, Processors};
use self::publish::{NameOptions, Publisher};
use self::sampling::{Sampling, SamplingOptions};
pub(crate) use self::signals::Signals;
use self::sinks::Sinks;
use self::state::OwnUse;
use self::window::Windows;
use crate::confinement::{self, Confined};
use crate::once_a_minute;
use crate::pipeline::Learner;
use crate::telemetry::{Notifier, Telemetry, TelemetryOptions, log, metrics};

/// How often signals and the window's end are looked at.
const STEP: Duration = Duration::from_millis(200);
/// How often everything else is.
const SECOND: Duration = Duration::from_secs(1);
/// Time for what waits to be published when the agent ends, and then for what is still to be sent: less than a service manager waits.
const LAST_WINDOWS: Duration = Duration::from_secs(8);
const FAREWELL: Duration = Duration::from_secs(5);
/// Nice value of the sampling thread.
const PRIORITY: i32 = -10;

/// Runs until SIGTERM or SIGINT.
pub fn run(flags: config::Flags) -> anyhow::Result<ExitCode> {
    let mut flags = flags;
    let mut loaded = config::load(&flags).map_err(crate::exit::usage)?;
    let kept = loaded.config.opamp.as_ref().map(managed::kept).transpose()?;
    if let Some((opamp, kept)) = loaded.config.opamp.as_ref().zip(kept.as_ref())
        && opamp.accept_config
    {
        if flags.remote.is_some() {
            let text = "--remote and opamp.accept_config both bring a configuration from elsewhere: choose one";
            return Err(crate::exit::usage(text).into());
        }
        flags.offered = managed::applied(opamp, kept);
        loaded = config::load(&flags).map_err(crate::exit::usage)?;
    }
    let log = log::init(loaded.config.log.level.name(), options::log_format(loaded.config.log.format))?;
    let signals = Signals::install()?;
    let mut agent = Agent::start(flags, loaded, log, kept)?;
    agent.run(&signals);
    agent.finish();
    Ok(ExitCode::SUCCESS)
}

struct Agent {
    flags: config::Flags,
    config: Config,
    watcher: Watcher,
    log: log::Log,
    sampling: Sampling,
    windows: Windows,
    publisher: Publisher,
    detection: Detection,
    resources: Arc<Resources>,
    learner: Learner,
    sinks: Sinks,
    network: Network,
    telemetry: Telemetry,
    notifier: Notifier,
    kill_switch: KillSwitch,
    governor: Governor,
    arbiter: Arbiter,
    decision: Option<Decision>,
    own: OwnUse,
    confined: Confined,
    killed: bool,
    reloads: Reloads,
    managed: Option<Managed>,
    /// Why the configuration from elsewhere is not in force, if it is not.
    refused: Option<String>,
}

/// Attempts to read the configuration again.
#[derive(Clone, Copy, Debug, Default)]
struct Reloads {
    taken: u64,
    refused: u64,
}

impl Agent {
    fn start(flags: config::Flags, loaded: Loaded, log: log::Log, kept: Option<managed::Kept>) -> anyhow::Result<Self> {
        let mut arbiter = Arbiter::new(loaded.config.rate, rate_origin(&loaded));
        ask_rates(&mut arbiter, &loaded);
        tell_refused(&loaded);
        let effective = loaded.describe();
        let refused = loaded.refused.as_ref().map(ToString::to_string);
        let Loaded { config, watcher, .. } = loaded;
        raise_open_files();
        let notifier = Notifier::from_environment().context("cannot reach systemd by NOTIFY_SOCKET")?;
        // Who cannot be answered ends the start, before anything of the kernel's is touched.
        let network = Network::of_this_program();
        let telemetry = Telemetry::bind(TelemetryOptions {
            network: Some(network.clone()),
            ..options::telemetry(&config.telemetry)
        })?;
        // All that follows does with what the unit of a user without rights has. No thread is there yet.
        let confined = confinement::agent();
        let telemetry = telemetry.serve(vec![confined.clone()])?;
        let resources = Arc::new(Resources::start(options::resource(&config))?);
        let sinks = Sinks::start(&config.exporters, network.clone())?;
        let processors = Processors::compile(&config.processors)?;
        let early = processors.early();
        let way_out = (processors, sinks.clone());
        let reader = Reader::start(profiler_reader::Options::of_this_program(sampling::reader_bytes(&config)))?;
        let learner = Learner::new(reader.clone());
        let publisher = Publisher::start(name_options(&config), reader.clone(), Arc::clone(&resources), way_out)
            .context("cannot start the thread that publishes")?;
        let detection = Detection::start(&config.detection, Arc::clone(&resources))
            .context("cannot start the thread that detects changes")?;
        telemetry.set_detection(detection.page());
        let mut kill_switch = KillSwitch::new(&config.kill_switch);
        let (frequency, rate) = (arbiter.rate(), arbiter.configured());
        let mut sampling = Sampling::new(SamplingOptions { frequency, rate, ..SamplingOptions::of(&config) }, reader);
        sampling.set_ticking(detection.is_on());
        sampling.set_early(early);
        let killed = is_on(&mut kill_switch);
        if killed {
            tracing::warn!(file = %config.kill_switch.display(), "The kill switch is on: nothing is sampled.");
        } else {
            sampling.start()?;
        }
        // On a host with more work than CPUs a new process is known sooner so; without the right to it nothing is worse than before.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        let windows = Windows::new(config.window, config.jitter.of(config.window), Instant::now());
        let governor = Governor::new(config.limits);
        let managed = match (config.opamp.clone(), kept) {
            (Some(opamp), Some(kept)) => {
                let resource = options::telemetry(&config.telemetry).resource;
                Some(Managed::start(opamp, kept, &resource, &effective)?)
            }
            _ => None,
        };
        tracing::info!(
            rate = config.rate,
            window = ?config.window,
            metrics = telemetry.address().map(|address| address.to_string()),
            "The agent has started."
        );
        notifier.ready();
        Ok(Self {
            flags,
            watcher,
            config,
            log,
            sampling,
            windows,
            publisher,
            detection,
            resources,
            learner,
            sinks,
            network,
            telemetry,
            notifier,
            kill_switch,
            governor,
            arbiter,
            decision: None,
            own: OwnUse::new(),
            confined,
            killed,
            reloads: Reloads::default(),
            managed,
            refused,
        })
    }

    fn run(&mut self, signals: &Signals) {
        let mut next_second = Instant::now();
        while !signals.stop() {
            // A window that is over and has to wait for the publisher is no reason to hurry.
            let left = Some(self.windows.left(Instant::now())).filter(|left| !left.is_zero());
            self.sampling.step(left.map_or(STEP, |left| left.min(STEP)));
            self.telemetry.health().beat();
            self.notifier.step();
            self.learn();
            if self.publisher.is_ready()
                && let Some(images) = self.sampling.new_jit_images()
            {
                self.publisher.jit(images);
            }
            let now = Instant::now();
            self.detection.step(now, &mut self.sampling, &self.publisher);
            // One that cannot be published yet goes on.
            if self.windows.left(now).is_zero() && self.publisher.is_ready() {
                self.windows.next(now);
                self.publish();
            }
            if now >= next_second {
                next_second = now + SECOND;
                self.each_second(signals);
            }
        }
    }

    fn publish(&mut self) {
        for window in self.sampling.take_windows() {
            self.publisher.window(window);
        }
        self.detection.window_ended(&mut self.sampling, &self.publisher);
        if self.sampling.is_on() {
            self.telemetry.health().ready();
        }
    }

    fn each_second(&mut self, signals: &Signals) {
        if signals.reload() {
            self.reload("SIGHUP");
        }
        match self.watcher.poll() {
            Some(Change::Changed) => self.reload("the file has changed"),
            // One from elsewhere that is gone asks for nothing more.
            Some(Change::Gone)
                if self.flags.remote.as_ref().is_some_and(|path| matches!(path.try_exists(), Ok(false))) =>
            {
                self.reload("the remote configuration is gone");
            }
            Some(Change::Gone) => tracing::warn!("The configuration file is gone; what it said stays."),
            None => {}
        }
        self.obey_kill_switch();
        if self.sampling.is_refused() {
            self.telemetry.health().not_ready("the kernel refuses to sample");
        }
        let restricted = self.decision.is_some_and(|decision| decision.reason.is_some());
        let senders: Vec<u32> = self.network.members().into_iter().map(|member| member.pid).collect();
        let usage = self.own.look(&self.sampling, self.publisher.namer(), &senders, restricted);
        let decision = self.governor.observe(&Usage {
            memory_bytes: usage.memory_bytes,
            cpu_seconds: usage.cpu.total(),
            cpus: usage.cpus,
            now: Instant::now(),
            asked_rate: self.arbiter.rate_without(Cap::Governed),
        });
        self.decision = Some(decision);
        if decision.changed {
            self.obey(&decision);
        }
        // What the kernel refused is tried again.
        if let Err(error) = self.follow_arbiter() {
            once_a_minute!(error, "rate", %error, "The rate cannot become {}.", self.arbiter);
        }
        self.telemetry.health().late(self.publisher.late());
        let state = state::of(self);
        self.notifier.status(&state::status(&state));
        self.telemetry.publish(metrics::of(&state));
        self.telemetry.set_confined(self.confined());
        if let Some(mut managed) = self.managed.take() {
            managed.step(self, &state);
            self.managed = Some(managed);
        }
    }

    /// Takes a configuration from elsewhere instead of the one before, all of it or nothing; gives what runs now.
    fn take_offer(&mut self, offered: Option<Remote>) -> Result<String, String> {
        let before = std::mem::replace(&mut self.flags.offered, offered);
        self.watcher.learn();
        let taken = match config::load(&self.flags) {
            Err(errors) => Err(format!("the host's own configuration cannot be read now: {errors}")),
            Ok(Loaded { refused: Some(errors), .. }) => Err(errors.to_string()),
            Ok(loaded) => {
                let changes = self.config.diff(&loaded.config);
                self.apply(&loaded, &changes).map_err(|error| format!("{error:#}")).map(|()| self.took(loaded))
            }
        };
        match &taken {
            Ok(_) => self.reloads.taken += 1,
            Err(_) => {
                self.reloads.refused += 1;
                self.flags.offered = before;
            }
        }
        taken
    }

    /// `loaded` runs.
    fn took(&mut self, loaded: Loaded) -> String {
        self.watcher.watch(&loaded.files);
        let effective = loaded.describe();
        if let Some(managed) = &self.managed {
            managed.runs(&effective);
        }
        self.refused = loaded.refused.as_ref().map(ToString::to_string);
        self.config = loaded.config;
        effective
    }

    /// Our processes, and what each gave up.
    fn confined(&self) -> Vec<Confined> {
        let reader = self.sampling.reader();
        let pid = reader.stats().pid;
        let reader = pid.map(|_| Confined { name: "reader", of: None, pid, report: reader.confined() });
        let namer = self.publisher.namer();
        let pid = namer.stats().pid;
        let namer = pid.map(|_| Confined { name: "namer", of: None, pid, report: namer.confined() });
        let senders = self.network.members().into_iter();
        let senders = senders.map(|Member { name, pid, report }| Confined {
            name: "sender",
            of: Some(name),
            pid: Some(pid),
            report,
        });
        let pods = self.resources.confined().map(|report| Confined { name: "kubernetes", of: None, pid: None, report });
        let threads = confinement::threads().into_iter().chain(pods);
        [self.confined.clone()].into_iter().chain(threads).chain(reader).chain(namer).chain(senders).collect()
    }

    fn obey_kill_switch(&mut self) {
        let on = is_on(&mut self.kill_switch);
        if on == self.killed {
            return;
        }
        self.killed = on;
        let file = self.config.kill_switch.display();
        if on {
            tracing::warn!(%file, "The kill switch is on: nothing is sampled until the file is gone.");
        } else {
            tracing::warn!(%file, "The kill switch is off.");
        }
        self.pause_or_resume();
    }

    /// Within the budget again, or out of it.
    fn obey(&mut self, decision: &Decision) {
        match decision.reason {
            Some(_) => tracing::warn!("{decision}."),
            None => tracing::info!("{decision}."),
        }
        if decision.shed >= Some(Shed::SymbolCaches) {
            self.publisher.forget();
        }
        if decision.shed == Some(Shed::RowCaches) {
            self.sampling.restart();
        }
        match (decision.cap, decision.reason) {
            (Some(hz), Some(reason)) => self.arbiter.cap(Cap::Governed, hz, reason.to_string()),
            _ => self.arbiter.release(Cap::Governed),
        }
        self.pause_or_resume();
    }

    /// What the arbiter rules, the kernel half does. Nobody else sets the rate.
    fn follow_arbiter(&mut self) -> Result<(), profiler_bpf::Error> {
        let (rate, configured) = (self.arbiter.rate(), self.arbiter.configured());
        let before = self.sampling.frequency();
        if rate != before || configured != self.sampling.configured() {
            self.sampling.set_frequency(rate, configured)?;
            tracing::info!(before, "The rate is {}.", self.arbiter);
        }
        Ok(())
    }

    fn pause_or_resume(&mut self) {
        let shed = self.decision.is_some_and(|decision| decision.shed == Some(Shed::Sampling));
        match (self.killed, shed) {
            (false, false) => self.sampling.resume(),
            (true, _) => {
                self.sampling.pause();
                self.telemetry.health().not_ready("the kill switch is on");
            }
            (false, true) => {
                self.sampling.pause();
                self.telemetry.health().not_ready("sampling is paused, over budget");
            }
        }
    }

    /// Takes what is new in the configuration; all of it, or nothing.
    fn reload(&mut self, why: &str) {
        self.notifier.reloading();
        // What is read now is known, and so is what is gone: should it come back as it was, that is a change.
        self.watcher.learn();
        match config::load(&self.flags) {
            Err(errors) => {
                self.reloads.refused += 1;
                tracing::error!("The new configuration is refused, and the running one stays ({why}):\n{errors}");
            }
            Ok(loaded) => {
                tell_refused(&loaded);
                let changes = self.config.diff(&loaded.config);
                match self.apply(&loaded, &changes) {
                    Err(error) => {
                        self.reloads.refused += 1;
                        tracing::error!(
                            "The new configuration is refused, and the running one stays ({why}): {error:#}"
                        );
                    }
                    Ok(()) => {
                        let changed = changes.names().join(", ");
                        if changes.any() {
                            tracing::info!(changed, "The configuration was read again ({why}).");
                        } else {
                            tracing::info!("The configuration was read again ({why}); nothing has changed.");
                        }
                        self.took(loaded);
                        self.reloads.taken += 1;
                    }
                }
            }
        }
        self.notifier.ready();
    }

    fn apply(&mut self, loaded: &Loaded, changes: &Changes) -> anyhow::Result<()> {
        let new = &loaded.config;
        let before = self.arbiter.clone();
        ask_rates(&mut self.arbiter, loaded);
        if let Err(error) = self.apply_what_can_be_refused(new, changes) {
            self.arbiter = before;
            self.set_back(changes);
            return Err(error);
        }
        if changes.targets {
            self.sampling.set_targets(new.targets.clone());
        }
        if changes.window {
            self.windows = Windows::new(new.window, new.jitter.of(new.window), Instant::now());
        }
        let has_other_budgets = new.limits.memory_bytes != self.config.limits.memory_bytes;
        if changes.symbols || has_other_budgets {
            self.publisher.set_names(name_options(new));
        }
        if has_other_budgets {
            self.sampling.reader().set_options(profiler_reader::Options::of_this_program(sampling::reader_bytes(new)));
            self.sampling.set_row_budget(sampling::row_budget(new));
        }
        if changes.limits {
            self.governor.set_limits(new.limits);
        }
        if changes.detection {
            self.detection.configure(&new.detection);
            self.sampling.set_ticking(self.detection.is_on());
        }
        if changes.kill_switch {
            self.kill_switch = KillSwitch::new(&new.kill_switch);
        }
        if changes.telemetry {
            tracing::warn!("A change of `telemetry` takes effect when the agent is started again.");
        }
        if changes.opamp {
            tracing::warn!("A change of `opamp` takes effect when the agent is started again.");
        }
        Ok(())
    }

    /// What ends something comes last, when nothing is left that may fail.
    fn apply_what_can_be_refused(&mut self, new: &Config, changes: &Changes) -> anyhow::Result<()> {
        let processors = changes.processors.then(|| Processors::compile(&new.processors)).transpose()?;
        if changes.log {
            self.log.set_level(new.log.level.name())?;
        }
        if changes.resource {
            self.resources.reconfigure(options::resource(new))?;
            if new.resource.environment_variables != self.config.resource.environment_variables {
                // They are read anew, of every process.
                self.sampling.forget_images();
            }
        }
        if changes.events {
            let changed = self.sampling.set_events(&new.events);
            changed.with_context(|| format!("{} cannot be sampled", new.events.join(", ")))?;
        }
        self.follow_arbiter().with_context(|| format!("the rate cannot become {} Hz", new.rate))?;
        if changes.exporters {
            let sinks = self.sinks.changed(&new.exporters)?;
            self.publisher.set_sinks(sinks.clone());
            self.sinks = sinks;
        }
        if let Some(processors) = processors {
            self.sampling.set_early(processors.early());
            self.publisher.set_processors(processors);
        } else if changes.resource {
            self.sampling.decide_anew();
        }
        Ok(())
    }

    /// To what runs, after a part of another configuration was refused. The exporters have seen to themselves.
    fn set_back(&mut self, changes: &Changes) {
        let mut failed: Vec<anyhow::Error> = Vec::new();
        if changes.log {
            failed.extend(self.log.set_level(self.config.log.level.name()).err().map(Into::into));
        }
        if changes.resource {
            failed.extend(self.resources.reconfigure(options::resource(&self.config)).err().map(Into::into));
        }
        if changes.events {
            failed.extend(self.sampling.set_events(&self.config.events).err().map(Into::into));
        }
        failed.extend(self.follow_arbiter().err().map(Into::into));
        for error in failed {
            tracing::error!("A part of the running configuration could not be set back: {error:#}.");
        }
    }

    /// Reads what the processes that are new say of themselves, while they live.
    fn learn(&mut self) {
        self.learner.learn(self.sampling.new_images(), &self.resources);
        self.sampling.rule_out(&self.resources);
    }

    /// Sends what is left, as far as it can be sent in time.
    fn finish(mut self) {
        self.notifier.stopping();
        self.telemetry.health().not_ready("shutting down");
        self.sampling.finish();
        self.learner.finish(self.sampling.new_images(), &self.resources);
        self.publish();
        self.detection.finish();
        self.publisher.finish(LAST_WINDOWS);
        let state = state::of(&self);
        self.telemetry.publish(metrics::of(&state));
        if let Some(managed) = self.managed.take() {
            managed.finish();
        }
        self.sinks.shutdown(FAREWELL);
        self.telemetry.shutdown(SECOND);
        tracing::info!(samples = state.all_samples(), "The agent has ended.");
    }
}

/// What the host's own configuration and a remote one ask for.
fn ask_rates(arbiter: &mut Arbiter, loaded: &Loaded) {
    let local = loaded.local();
    arbiter.configure(local.config.rate, rate_origin(local));
    if loaded.config.rate < local.config.rate {
        arbiter.cap(Cap::Remote, loaded.config.rate, rate_origin(loaded));
    } else {
        arbiter.release(Cap::Remote);
    }
}

/// Says why a remote configuration is not taken.
fn tell_refused(loaded: &Loaded) {
    if let Some(errors) = &loaded.refused {
        tracing::error!("The remote configuration is refused whole, and the host's own goes on alone:\n{errors}");
    }
}

/// Where the rate was configured.
fn rate_origin(loaded: &Loaded) -> String {
    loaded.origin("rate").map_or_else(String::new, ToString::to_string)
}

/// What the kill switch says, or said last.
fn is_on(switch: &mut KillSwitch) -> bool {
    switch.look().unwrap_or_else(|error| {
        let path = switch.path().display();
        once_a_minute!(warn, "kill switch", %path, %error, "The kill switch cannot be looked at.");
        switch.is_on()
    })
}

/// Waits for the end of `thread`, until then at most; whether it has ended.
fn ends_by(thread: &JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    thread.is_finished()
}

fn name_options(config: &Config) -> NameOptions {
    NameOptions {
        symbols: symbols(config),
        namer: profiler_reader::Options::of_names(sampling::reader_bytes(config)),
        budget: names_budget(config),
    }
}

fn symbols(config: &Config) -> profiler_symbolizer::Options {
    let memory = config.limits.memory_bytes.unwrap_or(u64::MAX);
    profiler_symbolizer::Options {
        source_lines: config.symbols == config::Symbols::Lines,
        // Beside it are the kernel's symbols, which no file pushes out: they are in this process, the files' in the namer.
        budget_bytes: (memory / 16).clamp(4 << 20, 64 << 20),
        ..profiler_symbolizer::Options::default()
    }
}

/// Bytes of names that are kept.
fn names_budget(config: &Config) -> usize {
    let memory = config.limits.memory_bytes.unwrap_or(u64::MAX);
    usize::try_from(memory / 24).unwrap_or(usize::MAX).clamp(2 << 20, 32 << 20)
}

/// As many files as the host's owner allows: executables are kept open.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What stays low makes files be opened again more often, and that is all.
    let _ = setrlimit(Resource::Nofile, raised);
}

#[cfg(test)]
mod tests {
    use profiler_config::{Flags, Remote, load_remote};
    use profiler_limits::Client;

    use super::*;

    #[test]
    fn a_remote_rate_is_asked_for_and_released_with_what_asked_for_it() {
        let mut flags = Flags::default();
        flags.rate("--rate", "49");
        let load = |text: Option<&str>| {
            let remote = text.map(|text| Remote { name: "fleet".to_owned(), text: text.to_owned() });
            load_remote(&flags, &|_| None, None, remote.as_ref()).expect("right")
        };
        let mut arbiter = Arbiter::new(99, "");
        ask_rates(&mut arbiter, &load(Some("rate: 19")));
        assert_eq!((arbiter.rate(), arbiter.ruled_by()), (19, Client::Remote));
        assert_eq!(arbiter.to_string(), "19 Hz (remote: 19 Hz, remote fleet:1:7; configured: 49 Hz, flag --rate)");
        // Refused, and gone.
        for text in [Some("rate: 99"), None] {
            ask_rates(&mut arbiter, &load(text));
            assert_eq!((arbiter.rate(), arbiter.ruled_by()), (49, Client::Configured), "{text:?}");
        }
    }
}
