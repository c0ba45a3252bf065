//! What the Resource of each process says: the service, the process, its container and pod, the machine.
//!
//! ```
//! use profiler_resource::{ProcessFacts, ResourceOptions, Resources};
//!
//! let resources = Resources::start(ResourceOptions::default())?;
//! let facts = ProcessFacts { pid: std::process::id(), comm: "example", ..ProcessFacts::default() };
//! // While the process lives, soon after its first sample:
//! resources.learn(&facts);
//! // When a profile is put together, even if the process has ended since:
//! assert!(resources.attributes(&facts).text("service.name").is_some());
//! assert_eq!(resources.shared().text("os.type"), Some("linux"));
//! # Ok::<(), profiler_resource::Error>(())
//! ```
//!
//! docs/resources.md says which attributes there are, where each comes from, and who wins where two sources disagree. What comes
//! from a process (its environment) is a claim: bounded, cleaned, and never believed over what was measured.
#![forbid(unsafe_code)]

mod attributes;
mod claimed;
mod environment;
mod host;
mod kubernetes;
mod learned;
mod options;
mod process;
mod service;

use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry_semantic_conventions::attribute::{
    PROCESS_ENVIRONMENT_VARIABLE, PROCESS_EXECUTABLE_BUILD_ID_GNU, PROCESS_EXECUTABLE_BUILD_ID_GO,
    PROCESS_EXECUTABLE_BUILD_ID_HTLHASH, PROCESS_LINUX_CGROUP, PROCESS_OWNER, SERVICE_INSTANCE_ID, SERVICE_NAME,
};

use self::{
    attributes::clean,
    host::Host,
    kubernetes::Kubernetes,
    learned::Cache,
    process::{Learned, Users},
};
pub use profiler_environ::{Asked, Said, Trouble};

pub use self::{
    attributes::{Attributes, Value},
    environment::{AttributeList, RESOURCE_ATTRIBUTES, SERVICE_NAME as SERVICE_NAME_VARIABLE, attribute_list},
    kubernetes::KubernetesStats,
    options::{Error, KubernetesOptions, KubernetesSource, ResourceOptions},
    process::ProcessFacts,
};

/// Counts of what was learnt, and of what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceStats {
    /// Processes that are known.
    pub processes: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// Processes that were read.
    pub learned: u64,
    /// Processes that had ended before they could be read.
    pub gone: u64,
    /// Processes whose pid or program had changed hands before they were read.
    pub changed: u64,
    /// Processes that the kernel would not show (`CAP_SYS_PTRACE` is missing, or a security module is against it).
    pub denied: u64,
    /// Times that nobody could read a process: who was to was held by it, or by others of its user.
    pub set_aside: u64,
    /// Environments that were longer than what is read (256 KiB).
    pub cut: u64,
    /// Attributes claimed by processes that were malformed or too many.
    pub dropped_attributes: u64,
    /// Processes that were given up to stay within the budget.
    pub evicted: u64,
    /// Pods, if anybody is asked for them.
    pub kubernetes: Option<KubernetesStats>,
}

/// Finds out about processes, and remembers.
#[derive(Debug)]
pub struct Resources {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ResourceOptions,
    /// Goes up with each change of the variables that may be read.
    generation: u64,
    host: Host,
    shared: Attributes,
    users: Users,
    cache: Cache,
    kubernetes: Option<Kubernetes>,
    stats: ResourceStats,
}

impl Resources {
    /// Reads what is the same for all processes, and starts to watch pods if `options` and the environment say so. Pods are
    /// learnt on a thread of their own; that nobody answers is no error.
    pub fn start(options: ResourceOptions) -> Result<Self, Error> {
        options.check()?;
        let kubernetes = Kubernetes::start(&options.kubernetes, variable)?;
        let host = Host::detect();
        let shared = host.attributes(&options, kubernetes.as_ref().and_then(Kubernetes::node));
        let inner = Inner {
            cache: Cache::new(options.max_bytes),
            generation: 0,
            users: Users::default(),
            stats: ResourceStats::default(),
            options,
            host,
            shared,
            kubernetes,
        };
        Ok(Self { inner: Mutex::new(inner) })
    }

    /// What the thread gave up that asks Kubernetes; none if there is none.
    #[must_use]
    pub fn confined(&self) -> Option<profiler_confine::Report> {
        let inner = self.inner();
        inner.kubernetes.as_ref().map(Kubernetes::confined)
    }

    /// Remembers unit and control group, and reads what the process says of itself, while it lives: a few small files of `/proc`, about 100 µs. What is known already is not
    /// read again, so this can be called for every process of every window.
    pub fn learn(&self, facts: &ProcessFacts<'_>) {
        self.learn_by(facts, profiler_environ::read);
    }

    /// The same by `read`: a process can make whoever reads its environment wait, so that who must not wait has it read by another. Nobody else
    /// waits meanwhile. Whether it is to be tried again, since nobody could read it now.
    pub fn learn_by(
        &self,
        facts: &ProcessFacts<'_>,
        read: impl FnOnce(Asked<'_>, &[String]) -> Result<Said, Trouble>,
    ) -> bool {
        let mut again = false;
        let wanted = self.inner().wanted_of(facts);
        let said = wanted.map(|(generation, wanted)| (generation, read(facts.asked(), &wanted)));
        let mut inner = self.inner();
        if let Some((generation, said)) = said {
            again = said == Err(Trouble::SetAside);
            inner.learn(facts, generation, said);
        }
        let Inner { cache, kubernetes, .. } = &mut *inner;
        if let Some(kubernetes) = kubernetes
            && !is_claimed(cache.get(facts.identity()), facts)
        {
            // Asks for a container that is not known.
            kubernetes.find(facts.container_id, facts.cgroup);
        }
        again
    }

    /// What the resource of a process says beside what [`Process`](profiler_model::Process) has fields for and [`Self::shared`]. The
    /// process need not live any more; what [`Self::learn`] was not called for in time is not known.
    #[must_use]
    pub fn attributes(&self, facts: &ProcessFacts<'_>) -> Attributes {
        self.inner().attributes(facts)
    }

    /// Whether [`Self::attributes`] of a process will say the same as long as nothing about it changes: it was learnt, and the pod that its container is in is
    /// known, if pods are.
    #[must_use]
    pub fn is_settled(&self, facts: &ProcessFacts<'_>) -> bool {
        let mut inner = self.inner();
        let Inner { cache, kubernetes, generation, .. } = &mut *inner;
        // Of variables that were chosen since, nothing was read yet.
        if !cache.knows(facts.identity(), *generation) {
            return false;
        }
        let Some(learned) = cache.get(facts.identity()) else { return false };
        let cgroup = facts.cgroup.or(learned.cgroup.as_deref());
        let Some(kubernetes) = kubernetes.as_ref().filter(|_| facts.container_id.is_some()) else { return true };
        is_claimed(Some(learned), facts)
            || kubernetes.find(facts.container_id, cgroup).is_some_and(|place| place.is_whole())
    }

    /// What the resources of all processes say: machine, operating system, cloud, labels.
    #[must_use]
    pub fn shared(&self) -> Attributes {
        self.inner().shared.clone()
    }

    /// Takes on other options; what is known of processes and, unless their source changes, of pods, stays. Variables that may be read
    /// no longer are forgotten at once; others are read when [`Self::learn`] is called the next time.
    pub fn reconfigure(&self, options: ResourceOptions) -> Result<(), Error> {
        options.check()?;
        let mut inner = self.inner();
        if options.kubernetes != inner.options.kubernetes {
            // The old watch ends only if the new one can begin.
            inner.kubernetes = Kubernetes::start(&options.kubernetes, variable)?;
        }
        if options.environment_variables != inner.options.environment_variables {
            inner.generation += 1;
            inner.cache.keep_variables(&options.environment_variables);
        }
        inner.cache.resize(options.max_bytes);
        inner.shared = inner.host.attributes(&options, inner.kubernetes.as_ref().and_then(Kubernetes::node));
        inner.options = options;
        Ok(())
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> ResourceStats {
        let inner = self.inner();
        let (processes, bytes, evicted) = inner.cache.size();
        let kubernetes = inner.kubernetes.as_ref().map(Kubernetes::stats);
        ResourceStats { processes, bytes, evicted, kubernetes, ..inner.stats.clone() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whatever a panic left is still a consistent cache.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `true` where a control group names a container in a hierarchy that is delegated: anybody may have given it that name.
const CONTAINER_CLAIMED: &str = "profiler.container.claimed";

/// A variable of the agent's own environment.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether container and pod of a process are claims. What was learnt may have been given up, since anybody can start so many
/// processes, or be of a control group that the process has left.
fn is_claimed(learned: Option<&Learned>, facts: &ProcessFacts<'_>) -> bool {
    let same =
        |learned: &&Learned| facts.cgroup.is_none_or(|cgroup| learned.cgroup.as_deref() == Some(&*clean(cgroup)));
    learned.filter(same).map_or_else(|| process::is_claimed(facts), |learned| learned.is_claimed)
}

impl Inner {
    /// Variables to be read of a process, and of which choice they are; none if that was done.
    fn wanted_of(&mut self, facts: &ProcessFacts<'_>) -> Option<(u64, Vec<String>)> {
        let generation = self.generation;
        let is_known = self.cache.knows(facts.identity(), generation);
        (!is_known).then(|| (generation, self.options.environment_variables.clone()))
    }

    fn learn(&mut self, facts: &ProcessFacts<'_>, generation: u64, said: Result<Said, Trouble>) {
        match said {
            Ok(mut said) => {
                // Others may have been chosen meanwhile.
                said.variables.retain(|(name, _)| self.options.environment_variables.contains(name));
                let learned = Learned::of(said, facts);
                self.stats.learned += 1;
                self.stats.cut += u64::from(learned.cut);
                self.stats.dropped_attributes += learned.dropped;
                self.cache.insert(facts.identity(), generation, learned);
            }
            Err(trouble) => {
                match trouble {
                    Trouble::Gone => self.stats.gone += 1,
                    Trouble::Changed => self.stats.changed += 1,
                    Trouble::Denied => self.stats.denied += 1,
                    Trouble::SetAside => self.stats.set_aside += 1,
                }
                self.cache.insert_unread(facts.identity(), Learned::told(facts));
            }
        }
    }

    fn attributes(&mut self, facts: &ProcessFacts<'_>) -> Attributes {
        let mut found = Attributes::default();
        let learned = self.cache.get(facts.identity());
        let cgroup = facts.cgroup.or_else(|| learned?.cgroup.as_deref());
        let unit = facts.systemd_unit.or_else(|| learned?.systemd_unit.as_deref());
        let kubernetes = self.kubernetes.as_ref();
        let is_claimed = is_claimed(learned, facts);
        // A claim to be in a pod makes nobody a part of it.
        let kubernetes = kubernetes.filter(|_| !is_claimed);
        let place = kubernetes.and_then(|kubernetes| kubernetes.find(facts.container_id, cgroup));
        if is_claimed && facts.container_id.is_some() {
            found.put(CONTAINER_CLAIMED, "true");
        }

        if let Some(place) = &place {
            place.identify(&mut found);
        }
        if let Some(learned) = learned {
            put_claims(learned, &mut found);
        }
        if let Some(place) = &place {
            place.describe(&mut found);
        }
        let unit = unit.filter(|_| facts.container_id.is_none()).and_then(service::of_unit);
        found.put(SERVICE_NAME, unit.unwrap_or_else(|| service::of_program(facts.exe, facts.comm)));
        let read = learned.map(|learned| learned.start_ticks).filter(|&ticks| ticks != 0);
        let start_ticks = read.unwrap_or_else(|| facts.start_ticks());
        found.put(
            SERVICE_INSTANCE_ID,
            service::instance_id((&self.host.id, &self.host.boot_id), facts.pid, start_ticks),
        );

        if let Some(uid) = learned.and_then(|learned| learned.uid) {
            // In a container the host's names are not the container's.
            let name = if facts.container_id.is_none() { self.users.name(uid) } else { None };
            found.put(PROCESS_OWNER, name.map_or_else(|| uid.to_string(), str::to_owned));
        }
        if let Some(cgroup) = cgroup.filter(|path| facts.container_id.is_none() && *path != "/") {
            found.put(PROCESS_LINUX_CGROUP, clean(cgroup));
        }
        let build_ids = [
            (PROCESS_EXECUTABLE_BUILD_ID_GNU, facts.build_id_gnu),
            (PROCESS_EXECUTABLE_BUILD_ID_GO, facts.build_id_go),
            (PROCESS_EXECUTABLE_BUILD_ID_HTLHASH, facts.build_id_htlhash),
        ];
        for (key, id) in build_ids {
            if let Some(id) = id {
                found.put(key, id);
            }
        }
        // What the user set for all stands in what is shared.
        found.retain(|key| !self.options.labels.contains_key(key));
        found
    }
}

/// What a process says of itself.
fn put_claims(learned: &Learned, into: &mut Attributes) {
    if let Some(name) = &learned.service_name {
        into.put(SERVICE_NAME, name.as_str());
    }
    for (key, value) in &learned.claims {
        if attributes::is_claimable(key) {
            into.put(key.clone(), value.as_str());
        }
    }
    for (name, value) in &learned.variables {
        into.put(format!("{PROCESS_ENVIRONMENT_VARIABLE}.{name}"), value.as_str());
    }
}
