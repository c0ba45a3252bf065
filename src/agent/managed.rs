//! An agent that a server manages, by OpAMP: says who and how it is, and takes configurations that narrow the host's own.
//!
//! ```text
//!  offer ─ kept as tried ─ loaded beside the host's own ─ APPLYING ─ soak ─┬─ kept as the one that works: APPLIED
//!            (kept.rs)            refused: FAILED                 (trial.rs) └─ the one before is back: FAILED, and not tried again
//! ```

mod kept;
mod losses;
mod trial;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use profiler_config::{Opamp, Remote};
use profiler_opamp::{
    Endpoint, InstanceUid, Limits, Settings, SystemRandom,
    client::{Client, Event, Options},
    messages::{
        AgentCapabilities, AgentConfigMap, AgentConfigObject, AgentDescription, AgentRemoteConfig, ComponentHealth,
        EffectiveConfig, KeyValue, RemoteConfigStatus, RemoteConfigStatuses,
    },
    transport::{Handle, TransportOptions, start},
};

pub use self::kept::Kept;
use self::losses::Losses;
use self::trial::{Outcome, Trial, Verdict};
use super::{Agent, ends_by};
use crate::telemetry::AgentState;
use crate::{confinement, once_a_minute};

/// Names the configuration in messages and as an origin.
const NAME: &str = "opamp";
/// What a server may send: a configuration and what is around it, bytes.
const MAX_MESSAGE: usize = 4 << 20;
/// What came before a configuration is judged by so many seconds.
const HISTORY: usize = 60;
/// So many seconds there have to be before one is tried, or as many as it is watched.
const BEFORE: u64 = 10;
/// An exporter that gave up samples so long ago is well again.
const RECENT: Duration = Duration::from_secs(60);
/// Time for the goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// The link to the server, and what is kept.
pub struct Managed {
    options: Opamp,
    kept: Kept,
    handle: Handle,
    inbox: Arc<Mutex<Inbox>>,
    thread: JoinHandle<()>,
    trial: Option<Trial>,
    history: VecDeque<Outcome>,
    /// What is tried did not work, and what did cannot be set again yet.
    owes: bool,
    /// Samples that each exporter has given up, and when there were more of them.
    given_up: BTreeMap<String, (u64, Option<Instant>)>,
    losses: Losses,
    /// As it was last told, without times.
    health: Option<ComponentHealth>,
    started: u64,
}

/// What the server said, until the agent looks: the newest of each.
#[derive(Default)]
struct Inbox {
    offer: Option<AgentRemoteConfig>,
    uid: Option<InstanceUid>,
}

fn locked(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `options` have kept, or the beginning of it.
///
/// # Errors
/// The directory cannot be used.
pub fn kept(options: &Opamp) -> anyhow::Result<Kept> {
    let directory = &options.directory;
    let failed = || format!("opamp.directory {directory:?} cannot be used");
    match Kept::read(directory) {
        Ok(Some(kept)) => return Ok(kept),
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let aside = Kept::set_aside(directory).with_context(failed)?;
            tracing::error!("{error}: it is set aside as {aside:?}, and the server sees a new agent.");
        }
        Err(error) => return Err(error).with_context(failed),
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let kept = Kept::new(InstanceUid::generate(now, &mut SystemRandom));
    kept.write(directory).with_context(failed)?;
    Ok(kept)
}

/// The configuration from the server that has worked, if `options` let there be one.
pub fn applied(options: &Opamp, kept: &Kept) -> Option<Remote> {
    let (_, text) = kept.applied.as_ref().filter(|_| options.accept_config)?;
    Some(remote(text.clone()))
}

fn remote(text: String) -> Remote {
    Remote { name: NAME.to_owned(), text }
}

impl Managed {
    /// Connects, on a thread of its own. `resource` says who the agent is, `effective` what it does.
    ///
    /// # Errors
    /// The URL is none, or there is no thread.
    pub fn start(options: Opamp, kept: Kept, resource: &[(String, String)], effective: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::parse(&options.endpoint).context("opamp.endpoint")?;
        let settings = Settings {
            headers: options.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            tls: options.tls.clone(),
            ..Settings::new(endpoint)
        };
        let limits = Limits { receive: MAX_MESSAGE, send: MAX_MESSAGE };
        let behaviour = Options { capabilities: capabilities(&options), limits, ..Options::default() };
        let mut client = Client::new(behaviour, kept.uid, settings);
        client.set_description(description(resource, kept.uid));
        client.set_effective_config(config(effective));
        if options.accept_config
            && let Some(status) = kept.status()
        {
            client.set_remote_config_status(status);
        }
        let inbox = Arc::<Mutex<Inbox>>::default();
        let transport = TransportOptions { receive: MAX_MESSAGE, ..TransportOptions::default() };
        let (handle, mut events, run) = start(client, transport);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let told = Arc::clone(&inbox);
        let server = options.endpoint.clone();
        let thread = std::thread::Builder::new().name("opamp".to_owned()).spawn(move || {
            // A server may send the agent elsewhere: to any port.
            confinement::thread("opamp", &profiler_network::thread_rights(None));
            runtime.block_on(async {
                let listen = async {
                    while let Some(event) = events.recv().await {
                        hear(event, &told, &server);
                    }
                };
                tokio::join!(run, listen);
            });
        })?;
        let started = unix_nanos();
        Ok(Self {
            options,
            kept,
            handle,
            inbox,
            thread,
            trial: None,
            history: VecDeque::new(),
            owes: false,
            given_up: BTreeMap::new(),
            losses: Losses::default(),
            health: None,
            started,
        })
    }

    /// What runs is another configuration now.
    pub fn runs(&self, effective: &str) {
        let config = config(effective);
        self.handle.with(|client| client.set_effective_config(config));
    }

    /// Says goodbye.
    pub fn finish(mut self) {
        if self.trial.is_some() {
            self.kept.pause();
            self.keep();
        }
        self.handle.stop();
        ends_by(&self.thread, Instant::now() + GOODBYE);
    }

    fn status(&self, hash: &[u8], status: RemoteConfigStatuses, error_message: &str) {
        let status = RemoteConfigStatus {
            last_remote_config_hash: hash.to_vec(),
            status: status.into(),
            error_message: kept::shortened(error_message).to_owned(),
        };
        self.handle.with(|client| client.set_remote_config_status(status));
    }

    /// What is not on disk does not count as done.
    fn keep(&self) -> bool {
        let written = self.kept.write(&self.options.directory);
        if let Err(error) = &written {
            tracing::error!(directory = ?self.options.directory, %error, "What the server said cannot be kept.");
        }
        written.is_ok()
    }

    /// Each second.
    pub fn step(&mut self, agent: &mut Agent, state: &AgentState) {
        let now = Outcome::of(state, Instant::now());
        let uid = locked(&self.inbox).uid.take();
        if let Some(uid) = uid {
            tracing::warn!(from = %self.kept.uid, to = %uid, "The server has named this agent anew.");
            self.kept.uid = uid;
            self.keep();
        }
        if self.owes {
            self.give_what_works(agent);
        }
        match self.trial.take() {
            Some(trial) => self.watch(trial, agent, &now),
            // Without anything to hold it against, whatever drops everything would seem right.
            None if !self.owes && self.history.len() as u64 >= BEFORE.min(self.options.soak.as_secs()) => {
                let offer = locked(&self.inbox).offer.take();
                if let Some(offer) = offer {
                    self.consider(offer, agent, now);
                }
            }
            None => {}
        }
        if self.trial.is_some() || self.owes || agent.killed {
            // What a configuration that may be wrong did is nothing to hold the next one against.
            self.history.clear();
        } else {
            self.history.push_back(now);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        self.note_given_up(state);
        self.losses.note(now.samples, now.lost);
        self.tell_health(agent, state);
    }

    fn note_given_up(&mut self, state: &AgentState) {
        let now = Instant::now();
        let before = std::mem::take(&mut self.given_up);
        for exporter in &state.exporters {
            let samples = exporter.dropped_samples.values().sum();
            let (known, at) = before.get(&exporter.name).copied().unwrap_or_default();
            let at = if samples > known { Some(now) } else { at };
            self.given_up.insert(exporter.name.clone(), (samples, at.filter(|at| now - *at < RECENT)));
        }
    }

    /// Tries a configuration, if it may be tried.
    fn consider(&mut self, offer: AgentRemoteConfig, agent: &mut Agent, now: Outcome) {
        let hash = offer.config_hash.clone();
        if hash.len() > kept::MAX_HASH {
            let reason = format!("its hash has {} bytes; {} are the most", hash.len(), kept::MAX_HASH);
            once_a_minute!(error, "opamp hash", "A configuration from the server is not used: {reason}.");
            return self.status(&hash, RemoteConfigStatuses::Failed, &reason);
        }
        if let Some(reason) = self.kept.why_not(&hash) {
            return self.failed(&hash, &reason);
        }
        if self.kept.works(&hash) && agent.refused.is_none() {
            // The server's answer crossed the report of it, or what was tried after it has failed.
            self.kept.settled = Some((hash.clone(), None));
            self.keep();
            return self.status(&hash, RemoteConfigStatuses::Applied, "");
        }
        let text = match text(offer) {
            Ok(text) => text,
            Err(reason) => return self.failed(&hash, &reason),
        };
        let attempts = self.kept.trying.take().filter(|(tried, _)| *tried == hash).map_or(0, |(_, attempts)| attempts);
        self.kept.trying = Some((hash.clone(), attempts + 1));
        // From here on an end of the agent counts against it.
        if !self.keep() {
            self.kept.trying = None;
            return self.status(&hash, RemoteConfigStatuses::Failed, "opamp.directory cannot be written");
        }
        match agent.take_offer(text.clone().map(remote)) {
            Ok(effective) => self.runs(&effective),
            Err(reason) => return self.failed(&hash, &reason),
        }
        self.status(&hash, RemoteConfigStatuses::Applying, "");
        tracing::info!(soak = ?self.options.soak, "A configuration from the server runs, and is watched.");
        let long_before = self.history.front().copied().unwrap_or(now);
        let window = agent.config.window;
        self.trial = Some(Trial::new(hash, text, &long_before, now, self.options.soak, window));
    }

    fn watch(&mut self, mut trial: Trial, agent: &mut Agent, now: &Outcome) {
        if let Some(reason) = &agent.refused {
            let reason = format!("the host's own configuration has changed, and refuses this one: {reason}");
            return self.give_back(&trial.hash, &reason, agent);
        }
        if agent.killed {
            // Whoever stopped sampling by hand has not judged the configuration.
            trial.begin_again(*now);
            self.trial = Some(trial);
            return;
        }
        if trial.settle(*now) {
            self.trial = Some(trial);
            return;
        }
        match trial.verdict(now) {
            Verdict::Wait => self.trial = Some(trial),
            Verdict::Works => {
                let before = self.kept.clone();
                self.kept.apply(&trial.hash, trial.text.clone());
                if self.keep() {
                    tracing::info!("The configuration from the server works, and is kept.");
                    self.status(&trial.hash, RemoteConfigStatuses::Applied, "");
                } else {
                    self.kept = before;
                    self.give_back(&trial.hash, "opamp.directory cannot be written", agent);
                }
            }
            Verdict::Fails(reason) => self.give_back(&trial.hash, &reason, agent),
        }
    }

    /// The configuration with `hash` does not work: the one before does.
    fn give_back(&mut self, hash: &[u8], reason: &str, agent: &mut Agent) {
        self.owes = true;
        self.give_what_works(agent);
        self.failed(hash, reason);
    }

    /// Sets what has worked again; if the host's own configuration refuses it by now, that alone; if neither can be set, later.
    fn give_what_works(&mut self, agent: &mut Agent) {
        let worked = applied(&self.options, &self.kept);
        let taken = agent.take_offer(worked.clone()).or_else(|reason| {
            once_a_minute!(error, "opamp back", "The configuration that worked before cannot be set again: {reason}");
            let taken = agent.take_offer(None);
            if taken.is_ok() {
                agent.refused = Some(reason);
            }
            taken
        });
        // Whatever came of it: the next change of a file is not to bring back what failed, and may let in what worked.
        agent.flags.offered = worked;
        if let Ok(effective) = taken {
            self.owes = false;
            self.runs(&effective);
        }
    }

    fn failed(&mut self, hash: &[u8], reason: &str) {
        tracing::error!("A configuration from the server is not used, and not tried again: {reason}");
        self.kept.fail(hash, reason);
        self.keep();
        self.status(hash, RemoteConfigStatuses::Failed, reason);
    }

    fn tell_health(&mut self, agent: &Agent, state: &AgentState) {
        let health = health(agent, state, &self.given_up, &self.losses);
        if self.health.as_ref() == Some(&health) {
            return;
        }
        self.health = Some(health.clone());
        let (start, now) = (self.started, unix_nanos());
        let stamped = stamped(health, start, now);
        self.handle.with(|client| client.set_health(stamped));
    }
}

fn hear(event: Event, inbox: &Mutex<Inbox>, server: &str) {
    match event {
        Event::RemoteConfig(offer) => locked(inbox).offer = Some(offer),
        Event::NewIdentity(uid) => locked(inbox).uid = Some(uid),
        Event::Connected => tracing::info!(server, "The management server answers."),
        Event::Disconnected { reason, again_in } => {
            tracing::warn!(server, ?again_in, "The management server cannot be reached: {reason}.");
        }
        Event::ServerError(error) => {
            let text = profiler_opamp::shown(&error.error_message);
            once_a_minute!(warn, "opamp refuses", server, "The management server refuses a message: {text}.");
        }
        Event::Malformed(problem) => {
            once_a_minute!(warn, "opamp malformed", server, "The management server sent what is not used: {problem}.");
        }
        Event::TooLarge(parts) => {
            once_a_minute!(warn, "opamp size", server, ?parts, "A report is too large, and goes out without a part.");
        }
        _ => {}
    }
}

fn capabilities(options: &Opamp) -> u64 {
    let always = [
        AgentCapabilities::ReportsStatus,
        AgentCapabilities::ReportsEffectiveConfig,
        AgentCapabilities::ReportsHealth,
        AgentCapabilities::ReportsHeartbeat,
    ];
    let of_config = [AgentCapabilities::AcceptsRemoteConfig, AgentCapabilities::ReportsRemoteConfig];
    let asked = of_config.into_iter().filter(|_| options.accept_config);
    always.into_iter().chain(asked).fold(0, |all, capability| all | capability.bit())
}

/// The agent's own Resource: what names it apart from what it can be chosen by.
fn description(resource: &[(String, String)], uid: InstanceUid) -> AgentDescription {
    let mut description = AgentDescription::default();
    let identifies = |name: &str| matches!(name, "service.name" | "service.namespace" | "service.version");
    for (name, value) in resource.iter().filter(|(name, _)| name != "service.instance.id") {
        let attributes = if identifies(name) {
            &mut description.identifying_attributes
        } else {
            &mut description.non_identifying_attributes
        };
        attributes.push(KeyValue::text(name, value));
    }
    description.identifying_attributes.push(KeyValue::text("service.instance.id", uid.to_string()));
    let kernel = rustix::system::uname();
    let has_cgroup_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for (name, value) in [
        ("os.version", kernel.release().to_string_lossy().into_owned()),
        ("profiler.cgroup.mode", if has_cgroup_v2 { "v2" } else { "v1" }.to_owned()),
    ] {
        if !resource.iter().any(|(known, _)| known == name) {
            description.non_identifying_attributes.push(KeyValue::text(name, value));
        }
    }
    description
}

fn config(text: &str) -> EffectiveConfig {
    let object = AgentConfigObject {
        body: text.to_owned().into(),
        content_type: "text/yaml".to_owned(),
        ..AgentConfigObject::default()
    };
    EffectiveConfig { config_map: Some(AgentConfigMap { config_map: [(String::new(), object)].into() }) }
}

/// The one text of a configuration; none if it is empty.
fn text(offer: AgentRemoteConfig) -> Result<Option<String>, String> {
    let mut objects = offer.config.unwrap_or_default().config_map.into_iter();
    let Some((_, object)) = objects.next() else { return Ok(None) };
    if objects.next().is_some() {
        return Err("there are several configurations in it; this agent has one".to_owned());
    }
    String::from_utf8(object.body.into()).map(Some).map_err(|_| "the configuration is not UTF-8".to_owned())
}

fn component(problem: Option<String>, status: &str) -> ComponentHealth {
    ComponentHealth {
        healthy: problem.is_none(),
        status: if problem.is_none() { status.to_owned() } else { "failing".to_owned() },
        last_error: problem.unwrap_or_default(),
        ..ComponentHealth::default()
    }
}

/// The agent and its parts, without what changes all the time.
fn health(
    agent: &Agent,
    state: &AgentState,
    given_up: &BTreeMap<String, (u64, Option<Instant>)>,
    losses: &Losses,
) -> ComponentHealth {
    let paused = agent.killed || state.shed_level > 2;
    let status = if paused { "paused".to_owned() } else { losses.status(state.rate) };
    let refused = agent.sampling.is_refused().then(|| "the kernel refuses to sample".to_owned());
    let sampler = component(refused, &status);
    let over = (state.shed_level > 0).then(|| "over its budget, and parts of it are given up".to_owned());
    let budget = component(over, "within");
    let refused = agent.refused.as_ref().map(|reason| format!("the remote configuration is refused: {reason}"));
    let configuration = component(refused, "runs");
    let mut parts: Vec<_> = [("sampler", sampler), ("budget", budget), ("configuration", configuration)]
        .into_iter()
        .map(|(name, part)| (name.to_owned(), part))
        .collect();
    parts.extend(state.exporters.iter().map(|exporter| {
        let gives_up = given_up.get(&exporter.name).is_some_and(|(_, recently)| recently.is_some());
        let problem = gives_up.then(|| "samples were given up in the last minute".to_owned());
        (format!("exporter/{}", exporter.name), component(problem, "exporting"))
    }));
    let problems: Vec<_> = parts
        .iter()
        .filter(|(_, part)| !part.healthy)
        .map(|(name, part)| format!("{name}: {}", part.last_error))
        .collect();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    ComponentHealth { component_health_map: parts.into_iter().collect(), ..component(problem, &status) }
}

/// `health` with the agent's start, and when it was so.
fn stamped(mut health: ComponentHealth, start: u64, now: u64) -> ComponentHealth {
    health.start_time_unix_nano = start;
    health.status_time_unix_nano = now;
    let parts = std::mem::take(&mut health.component_health_map);
    health.component_health_map = parts.into_iter().map(|(name, part)| (name, stamped(part, start, now))).collect();
    health
}

fn unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
