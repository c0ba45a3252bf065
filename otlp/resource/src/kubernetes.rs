//! Which pod a container belongs to: asked of the API server or of the kubelet, on a thread of its own.
//!
//! What was learnt stays when nobody answers; trouble is counted, told once a minute, and tried again after 1 s to 1 min.

mod client;
mod json;
mod kubelet;
mod list;
mod plan;
mod pod;
mod pods;
mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use profiler_confine::Report;
use tokio::sync::{Notify, oneshot};

use self::{
    client::Failure,
    plan::Source,
    pod::{Container, Pod},
    pods::Pods,
};
use super::{
    Attributes,
    options::{Error, KubernetesOptions},
};

/// Between a failure and the next attempt, at first and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Between two lines in the log.
const QUIET: Duration = Duration::from_secs(60);

/// What is known of the pods of this node, and how it came to be known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesStats {
    /// Who is asked: `API server` or `kubelet`.
    pub source: &'static str,
    /// Pods that are known, those gone for less than 10 minutes included.
    pub pods: usize,
    /// Starts of containers that are known.
    pub containers: usize,
    /// Pods that there was no room for.
    pub dropped_pods: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that failed, and watches that broke off.
    pub failures: u64,
    /// Changes that the API server told of.
    pub events: u64,
    /// How often a watch was too old to go on, so that all was listed again.
    pub relists: u64,
    /// When something was last heard.
    pub last_success: Option<SystemTime>,
    /// The last failure.
    pub last_error: Option<(SystemTime, String)>,
}

/// Where a process runs.
#[derive(Debug)]
pub(super) struct Place {
    pod: Arc<Pod>,
    container: Option<Container>,
}

impl Place {
    /// Whether the container is known, too.
    pub(super) fn is_whole(&self) -> bool {
        self.container.is_some()
    }

    /// Puts who and where pod and container are: known better here than to any process in them.
    pub(super) fn identify(&self, into: &mut Attributes) {
        self.pod.identify(self.container.as_ref(), into);
    }

    /// Puts what annotations and labels say of the service, and what follows from its place.
    pub(super) fn describe(&self, into: &mut Attributes) {
        self.pod.describe(self.container.as_ref(), into);
    }
}

/// The pods of this node, kept up to date until this is dropped.
#[derive(Debug)]
pub(super) struct Kubernetes {
    state: Arc<State>,
    node: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Kubernetes {
    /// Starts to ask, if the options and what `environment` offers say so.
    pub(super) fn start(
        options: &KubernetesOptions,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        let Some(plan) = plan::plan(options, environment)? else { return Ok(None) };
        let state = Arc::new(State { labels: options.pod_labels.clone(), ..State::default() });
        let (stop, stopped) = oneshot::channel();
        let of_thread = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let thread = std::thread::Builder::new()
            .name("pods".to_owned())
            .spawn(move || {
                let ports = plan.sources.iter().map(|source| source.server().port()).collect();
                of_thread.stats().confined = profiler_confine::thread(&profiler_network::thread_rights(Some(ports)));
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        () = follow(&of_thread, plan.sources) => {}
                    }
                });
                // A name that is being looked up must not hold up the end.
                runtime.shutdown_background();
            })
            .map_err(Error::Thread)?;
        Ok(Some(Self { state, node: plan.node, stop: Some(stop), thread: Some(thread) }))
    }

    /// Name of this node.
    pub(super) fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The pod of a process, and its container. What is not known is asked for.
    pub(super) fn find(&self, container_id: Option<&str>, cgroup: Option<&str>) -> Option<Place> {
        let mut pods = self.state.pods();
        if let Some(id) = container_id {
            if let Some((pod, container)) = pods.by_container(id) {
                return Some(Place { pod, container: Some(container) });
            }
            if pods.wants(id) {
                self.state.refresh.notify_one();
            }
        }
        Some(Place { pod: pods.by_cgroup(cgroup?)?, container: None })
    }

    /// What the thread that asks gave up.
    pub(super) fn confined(&self) -> Report {
        self.state.stats().confined.clone()
    }

    pub(super) fn stats(&self) -> KubernetesStats {
        let (pods, containers, dropped_pods) = self.state.pods().size();
        KubernetesStats { pods, containers, dropped_pods, ..self.state.stats().stats.clone() }
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ended by a panic at worst.
            let _ = thread.join();
        }
    }
}

/// Asks the first source; the next one where it refuses, or never answered.
async fn follow(state: &State, mut sources: Vec<Source>) {
    let mut current = 0;
    let mut wait = FIRST_WAIT;
    while let Some(source) = sources.get_mut(current) {
        let name = source.server().name();
        state.stats().begin(name);
        let failure = match source {
            Source::Api(watch) => watch.run(state).await,
            Source::Kubelet(kubelet) => kubelet.run(state).await,
        };
        let reached = state.stats().failed(&failure);
        if !reached || matches!(failure, Failure::Denied(_)) {
            current = (current + 1) % sources.len();
        }
        wait = if reached { FIRST_WAIT } else { wait.saturating_mul(2).min(MAX_WAIT) };
        tokio::time::sleep(wait.mul_f64(0.5 + jitter() / 2.0)).await;
    }
}

/// From 0 to 1, so that a cluster's agents do not ask in step.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) >> 32;
    random as f64 / f64::from(u32::MAX)
}

/// What the thread shares with its owner.
#[derive(Debug, Default)]
struct State {
    pods: Mutex<Pods>,
    stats: Mutex<Record>,
    refresh: Notify,
    labels: Vec<String>,
}

#[derive(Debug, Default)]
struct Record {
    stats: KubernetesStats,
    /// Since the last failure.
    reached: bool,
    told: Option<Instant>,
    confined: Report,
}

impl Record {
    fn begin(&mut self, source: &'static str) {
        self.stats.source = source;
    }

    /// Notes a failure; says whether anything was heard since the one before.
    fn failed(&mut self, failure: &Failure) -> bool {
        self.stats.failures += 1;
        self.stats.last_error = Some((SystemTime::now(), failure.to_string()));
        if self.told.is_none_or(|told| told.elapsed() >= QUIET) {
            self.told = Some(Instant::now());
            let (source, pods) = (self.stats.source, "what is known of pods stays as it is");
            tracing::warn!("Kubernetes {source}: {failure}; {pods} until the next attempt succeeds");
        }
        std::mem::take(&mut self.reached)
    }
}

impl State {
    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, Record> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    async fn wanted(&self) {
        self.refresh.notified().await;
    }

    fn asked(&self) {
        self.stats().stats.requests += 1;
    }

    fn reached(&self) {
        let mut record = self.stats();
        record.reached = true;
        record.stats.last_success = Some(SystemTime::now());
    }

    fn event(&self) {
        self.reached();
        self.stats().stats.events += 1;
    }

    fn relisted(&self) {
        self.stats().stats.relists += 1;
    }

    fn replace(&self, pods: Vec<Pod>, left_out: u64) {
        self.pods().replace(pods, left_out, Instant::now());
        self.reached();
    }

    fn put(&self, pod: Option<Pod>) {
        if let Some(pod) = pod {
            self.pods().put(pod, Instant::now());
        }
    }

    fn remove(&self, uid: &str) {
        self.pods().remove(uid, Instant::now());
    }
}
