//! Pods from a server that answers as the API server does, and as it does on a bad day.

use std::{
    fs,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::servers::{Events, Reply, Server, event, list, refusal, wait_until};
use profiler_resource::{
    Attributes, KubernetesOptions, KubernetesSource, KubernetesStats, ProcessFacts, ResourceOptions, Resources, Value,
};
use serde_json::json;
use tokio::sync::mpsc;

/// The id of container number `n`.
pub fn container(n: u32) -> String {
    format!("{n:064x}")
}

/// The uid of pod number `n`.
fn uid(n: u32) -> String {
    format!("00000000-0000-0000-0000-{n:012}")
}

/// A pod of a Deployment, as `kubectl get -o json` shows it, cut down.
pub fn pod(n: u32, version: &str, container_id: &str) -> serde_json::Value {
    json!({
        "metadata": {
            "name": format!("shop-7d4b9c5f6d-x{n}"), "namespace": "store", "uid": uid(n), "resourceVersion": version,
            "labels": {"app": "shop-app", "pod-template-hash": "7d4b9c5f6d", "team": "blue"},
            "annotations": null,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d4b9c5f6d", "controller": true}]
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "web", "image": "registry.local:5000/shop/web:1.4@sha256:abcd"}]
        },
        "status": {
            "phase": "Running", "podIP": "10.1.2.3",
            "containerStatuses": [{
                "name": "web", "image": "registry.local:5000/shop/web:1.4", "containerID": format!("containerd://{container_id}"),
                "imageID": "registry.local:5000/shop/web@sha256:ef01", "restartCount": 0, "state": {"running": {}}, "lastState": {}
            }]
        }
    })
}

pub fn options(server: &Server, source: KubernetesSource) -> ResourceOptions {
    let kubernetes = KubernetesOptions {
        source,
        api_url: Some(server.url.clone()),
        kubelet_url: Some(server.url.clone()),
        node_name: Some("node-1".to_owned()),
        ca_file: server.ca_file.clone(),
        token_file: server.token_file.clone(),
        pod_labels: vec!["team".to_owned()],
        poll_interval: Duration::from_secs(3600),
        min_poll_interval: Duration::from_millis(100),
        ..KubernetesOptions::default()
    };
    ResourceOptions { kubernetes, ..ResourceOptions::default() }
}

fn follow(server: &Server, source: KubernetesSource) -> Resources {
    Resources::start(options(server, source)).unwrap()
}

pub fn stats(resources: &Resources) -> KubernetesStats {
    resources.stats().kubernetes.unwrap()
}

/// What is known of a process in the container.
fn of(resources: &Resources, container_id: &str) -> Attributes {
    let facts = ProcessFacts { container_id: Some(container_id), exe: b"/app/web", ..ProcessFacts::default() };
    resources.attributes(&facts)
}

fn knows(resources: &Resources, container_id: &str) -> bool {
    of(resources, container_id).get("k8s.pod.name").is_some()
}

/// Answers lists with `list`, and watches with streams that are kept here.
#[derive(Clone, Default)]
struct Watches(Arc<Mutex<Vec<Events>>>);

impl Watches {
    fn open(&self) -> Reply {
        let (events, stream) = mpsc::unbounded_channel();
        self.0.lock().unwrap().push(events);
        Reply::Stream(stream)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Sends to the newest watch.
    fn send(&self, chunk: Vec<u8>) {
        wait_until("a watch", || self.count() > 0);
        self.0.lock().unwrap().last().unwrap().send(chunk).unwrap();
    }

    /// Ends the newest watch, as the server does when its time is over.
    fn end(&self) {
        self.0.lock().unwrap().pop();
    }
}

fn api(first: &'static str, pods: Vec<serde_json::Value>) -> (Server, Watches) {
    let watches = Watches::default();
    let streams = watches.clone();
    let server = Server::start(move |seen| if seen.is_watch() { streams.open() } else { list(first, &pods) });
    (server, watches)
}

#[test]
fn a_process_is_settled_when_its_pod_is_known() {
    let (server, watches) = api("10", vec![pod(1, "9", &container(1))]);
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("the list", || knows(&resources, &container(1)));
    let (known, unknown) = (container(1), container(2));
    let facts =
        |container_id| ProcessFacts { pid: std::process::id(), container_id, image: 1, ..ProcessFacts::default() };
    let [known, unknown] = [&known, &unknown].map(|id| facts(Some(id.as_str())));
    assert!(!resources.is_settled(&known), "nobody has learnt of it");
    resources.learn(&known);
    assert!(resources.is_settled(&known) && resources.is_settled(&facts(None)));
    assert!(!resources.is_settled(&unknown), "the pod may come");
    watches.send(event("ADDED", &pod(2, "11", &container(2))));
    wait_until("the pod", || resources.is_settled(&unknown));
    assert!(!resources.is_settled(&ProcessFacts { image: 2, ..known }), "another image");
    let more =
        ResourceOptions { environment_variables: vec!["PATH".to_owned()], ..options(&server, KubernetesSource::Api) };
    resources.reconfigure(more).unwrap();
    assert!(!resources.is_settled(&known), "its variables are others");
    resources.learn(&known);
    assert!(resources.is_settled(&known));
}

#[test]
fn a_container_is_named_by_its_pod() {
    let (server, watches) = api("10", vec![pod(1, "9", &container(1))]);
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("the list", || knows(&resources, &container(1)));
    let found = of(&resources, &container(1));
    for (key, value) in [
        ("k8s.namespace.name", "store"),
        ("k8s.pod.name", "shop-7d4b9c5f6d-x1"),
        ("k8s.pod.uid", "00000000-0000-0000-0000-000000000001"),
        ("k8s.pod.ip", "10.1.2.3"),
        ("k8s.deployment.name", "shop"),
        ("k8s.replicaset.name", "shop-7d4b9c5f6d"),
        ("k8s.container.name", "web"),
        ("k8s.pod.label.team", "blue"),
        ("container.image.name", "registry.local:5000/shop/web"),
        ("service.name", "shop-app"),
        ("service.namespace", "store"),
        ("service.version", "1.4@sha256:abcd"),
        ("service.instance.id", "store.shop-7d4b9c5f6d-x1.web"),
    ] {
        assert_eq!(found.text(key), Some(value), "{key}");
    }
    let texts = |text: &str| Value::Texts(vec![text.to_owned()]);
    assert_eq!(found.get("container.image.tags"), Some(&texts("1.4")));
    assert_eq!(found.get("container.image.repo_digests"), Some(&texts("registry.local:5000/shop/web@sha256:ef01")));
    assert_eq!(resources.shared().text("k8s.node.name"), Some("node-1"));
    assert_eq!(resources.shared().text("host.name"), Some("node-1"));

    wait_until("a watch", || watches.count() == 1);
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.parameter("fieldSelector") == Some("spec.nodeName%3Dnode-1")), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer first")), "{seen:?}");
    assert_eq!(seen[0].parameter("resourceVersion"), Some("0"));
    assert_eq!((seen[1].is_watch(), seen[1].parameter("resourceVersion")), (true, Some("10")));
}

#[test]
fn a_control_group_names_a_pod_whose_container_is_not_known_yet() {
    let (server, _watches) = api("10", vec![pod(1, "9", &container(1))]);
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("the list", || knows(&resources, &container(1)));
    for path in [
        format!(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-x.scope",
            uid(1).replace('-', "_")
        ),
        format!("/kubepods/besteffort/pod{}/x", uid(1)),
    ] {
        let facts = ProcessFacts { container_id: Some("new"), cgroup: Some(&path), ..ProcessFacts::default() };
        let found = resources.attributes(&facts);
        assert_eq!(
            (found.text("k8s.deployment.name"), found.text("k8s.container.name")),
            (Some("shop"), None),
            "{path}"
        );
    }
}

#[test]
fn changes_arrive_and_what_is_gone_is_known_for_a_while() {
    let (server, watches) = api("10", vec![pod(1, "9", &container(1))]);
    let resources = follow(&server, KubernetesSource::Api);
    watches.send(event("ADDED", &pod(2, "11", &container(2))));
    wait_until("the second pod", || knows(&resources, &container(2)));
    // The container is started again: the processes of both starts were sampled.
    watches.send(event("MODIFIED", &pod(1, "12", &container(3))));
    wait_until("the second start", || knows(&resources, &container(3)));
    assert!(knows(&resources, &container(1)));
    watches.send(event("DELETED", &pod(2, "13", &container(2))));
    // An event in two pieces, an empty line, a kind of the future.
    let pieces = event("ADDED", &pod(4, "14", &container(4)));
    watches.send(b"\n".to_vec());
    watches.send(event("PROGRESS", &json!({"odd": 1})));
    let (head, tail) = pieces.split_at(pieces.len() / 2);
    watches.send(head.to_vec());
    watches.send(tail.to_vec());
    wait_until("the fourth pod", || knows(&resources, &container(4)));
    assert!(knows(&resources, &container(2)));
    let stats = stats(&resources);
    assert_eq!((stats.source, stats.pods, stats.failures, stats.relists), ("API server", 3, 0, 0));
    assert_eq!(stats.events, 4);
}

#[test]
fn a_watch_goes_on_where_it_broke_off() {
    let (server, watches) = api("10", vec![]);
    let resources = follow(&server, KubernetesSource::Api);
    watches.send(event("ADDED", &pod(1, "11", &container(1))));
    watches.send(event("BOOKMARK", &json!({"kind": "Pod", "metadata": {"resourceVersion": "20"}})));
    wait_until("the bookmark", || stats(&resources).events == 2);
    // Cut off in the middle of a body.
    watches.send(Vec::new());
    wait_until("a second watch", || watches.count() == 2);
    watches.send(event("ADDED", &pod(2, "21", &container(2))));
    wait_until("what came after", || knows(&resources, &container(2)));
    assert!(knows(&resources, &container(1)));
    let lists = server.seen().iter().filter(|seen| !seen.is_watch()).count();
    let versions: Vec<_> = server
        .seen()
        .iter()
        .filter(|seen| seen.is_watch())
        .map(|seen| seen.parameter("resourceVersion").unwrap().to_owned())
        .collect();
    assert_eq!((lists, versions), (1, vec!["10".to_owned(), "20".to_owned()]));
    assert_eq!(stats(&resources).failures, 1);
}

#[test]
fn a_watch_that_ends_in_time_is_no_failure() {
    let (server, watches) = api("10", vec![]);
    let resources = follow(&server, KubernetesSource::Api);
    watches.send(event("ADDED", &pod(1, "11", &container(1))));
    wait_until("the pod", || knows(&resources, &container(1)));
    // Less than a second would be too short a life for a watch.
    std::thread::sleep(Duration::from_millis(1100));
    watches.end();
    wait_until("another watch", || server.seen().iter().filter(|seen| seen.is_watch()).count() == 2);
    assert_eq!(server.seen().last().unwrap().parameter("resourceVersion"), Some("11"));
    assert_eq!(stats(&resources).failures, 0);
}

/// 410 as an event, and as an answer.
#[test]
fn a_version_that_is_too_old_is_listed_again() {
    let watches = Watches::default();
    let (streams, watched) = (watches.clone(), AtomicUsize::new(0));
    let server = Server::start(move |seen| match (seen.is_watch(), seen.parameter("resourceVersion")) {
        (true, _) => match watched.fetch_add(1, Ordering::SeqCst) {
            0 => {
                let (events, stream) = mpsc::unbounded_channel();
                let status = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
                events.send(event("ERROR", &status)).unwrap();
                Reply::Stream(stream)
            }
            1 => refusal(410, "too old resource version"),
            _ => streams.open(),
        },
        // From the cache, then what is certain.
        (false, Some("0")) => list("10", &[pod(1, "9", &container(1))]),
        (false, _) => list("30", &[pod(2, "29", &container(2))]),
    });
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("a lasting watch", || watches.count() == 1);
    assert!(knows(&resources, &container(1)) && knows(&resources, &container(2)));
    assert_eq!((stats(&resources).relists, stats(&resources).failures), (2, 2));
    let last = server.seen().last().unwrap().clone();
    assert_eq!(last.parameter("resourceVersion"), Some("30"));
}

#[test]
fn a_rotated_token_is_read_again() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let server = Server::start(move |seen| match seen.authorization.as_deref() {
        Some("Bearer second") if seen.is_watch() => Reply::Never,
        Some("Bearer second") => {
            count.fetch_add(1, Ordering::SeqCst);
            list("10", &[pod(1, "9", &container(1))])
        }
        _ => refusal(401, "Unauthorized"),
    });
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("a refusal", || stats(&resources).failures > 0);
    assert!(stats(&resources).last_error.unwrap().1.contains("refused: 401 Unauthorized"));
    fs::write(&server.token_file, "second").unwrap();
    wait_until("the list", || knows(&resources, &container(1)));
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[test]
fn garbage_costs_nothing_that_is_known() {
    let watches = Watches::default();
    let (streams, lists) = (watches.clone(), AtomicUsize::new(0));
    let server = Server::start(move |seen| {
        if seen.is_watch() {
            return streams.open();
        }
        match lists.fetch_add(1, Ordering::SeqCst) {
            0 => list("10", &[pod(1, "9", &container(1))]),
            1 => Reply::Whole(200, b"<html>login</html>".to_vec()),
            2 => Reply::Whole(200, b"{}".to_vec()),
            3 => Reply::Whole(500, vec![0xff; 100_000]),
            _ => list(
                "40",
                &[
                    pod(1, "9", &container(1)),
                    json!({"metadata": {"name": "without uid"}}),
                    pod(2, "39", &container(2)),
                ],
            ),
        }
    });
    let resources = follow(&server, KubernetesSource::Api);
    watches.send(b"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"labels\":7}}}\n".to_vec());
    wait_until("the list after all that", || knows(&resources, &container(2)));
    assert!(knows(&resources, &container(1)));
    // The event, and three lists.
    assert_eq!(stats(&resources).failures, 4);
    assert_eq!(stats(&resources).pods, 2);
}

#[test]
fn lists_are_read_by_pages_and_what_is_too_much_is_left() {
    let server = Server::start(|seen| {
        if seen.is_watch() {
            return Reply::Never;
        }
        assert_eq!(seen.parameter("limit"), Some("250"));
        let page: u32 =
            seen.parameter("continue").map_or(0, |page| page.strip_prefix("p%2F").unwrap().parse().unwrap());
        let pods: Vec<_> = (page * 250..page * 250 + 250).map(|n| pod(n, "9", &container(n))).collect();
        let next = if page == 11 { String::new() } else { format!("p/{}", page + 1) };
        let list = json!({"kind": "PodList", "metadata": {"resourceVersion": "10", "continue": next}, "items": pods});
        Reply::Whole(200, list.to_string().into_bytes())
    });
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("the list", || stats(&resources).pods > 0);
    let stats = stats(&resources);
    assert_eq!((stats.pods, stats.dropped_pods, stats.failures), (2048, 12 * 250 - 2048, 0));
    assert!(knows(&resources, &container(300)));
}

#[test]
fn an_endless_list_and_an_endless_line_are_given_up() {
    let endless = |chunk: &'static [u8]| {
        let (events, stream) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            // Until the other side has had enough: 128 MiB would be a failure of the test.
            (0..128).take_while(|_| events.send(chunk.repeat(1 << 18)).is_ok()).count()
        });
        Reply::Stream(stream)
    };
    let lists = AtomicUsize::new(0);
    let server = Server::start(move |seen| match (seen.is_watch(), lists.load(Ordering::SeqCst)) {
        (false, 0) => {
            lists.store(1, Ordering::SeqCst);
            endless(b"    ")
        }
        (false, _) => list("10", &[]),
        (true, _) => endless(b"xxxx"),
    });
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("the list's failure", || stats(&resources).failures >= 1);
    assert!(stats(&resources).last_error.unwrap().1.contains("more than 33554432 bytes"));
    wait_until("the watch's failure", || stats(&resources).failures >= 2);
    assert!(stats(&resources).last_error.unwrap().1.contains("more than 4194304 bytes"));
}

/// The most memory that this process ever had, bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// In a process of its own: the peak of the tests' process is that of whichever test took most.
#[test]
fn a_list_of_nothing_costs_no_more_than_its_bytes() {
    const CHILD: &str = "PROFILER_TEST_OF_MEMORY";
    const SIZE: usize = 4 << 20;
    if std::env::var_os(CHILD).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = "kubernetes::a_list_of_nothing_costs_no_more_than_its_bytes";
        let output = command.args([test, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let grown = text.lines().find_map(|line| line.strip_prefix("GROWN ")).unwrap_or_else(|| panic!("{text}"));
        let grown: usize = grown.parse().unwrap();
        println!("{} MiB more at the peak", grown >> 20);
        // Of each byte some copies, at the server and here; each object of 3 bytes took 300, once.
        assert!(grown < 13 * SIZE, "{} MiB for {} MiB of JSON", grown >> 20, SIZE >> 20);
        return;
    }
    let items = "{},".repeat(SIZE / 3);
    let body = format!(r#"{{"kind":"PodList","items":[{items}{{}}]}}"#).into_bytes();
    let server = Server::start(move |_| Reply::Whole(200, body.clone()));
    let before = peak();
    let resources = follow(&server, KubernetesSource::Kubelet);
    wait_until("the list", || stats(&resources).last_success.is_some());
    // On a line of its own: the harness wrote the name of the test.
    println!("\nGROWN {}", peak() - before);
    assert_eq!((stats(&resources).pods, stats(&resources).failures), (0, 0));
}

#[test]
fn a_kubelet_is_asked_again_for_a_container_that_it_did_not_know() {
    let lists = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lists);
    let server = Server::start(move |seen| {
        assert_eq!(seen.path, "/pods");
        match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => list("", &[]),
            _ => list("", &[pod(1, "", &container(1))]),
        }
    });
    let resources = follow(&server, KubernetesSource::Kubelet);
    // Nobody asks again without a reason: the next list is due in an hour.
    wait_until("the first list", || lists.load(Ordering::SeqCst) == 1 && stats(&resources).last_success.is_some());
    wait_until("the container", || knows(&resources, &container(1)));
    assert_eq!((lists.load(Ordering::SeqCst), stats(&resources).source), (3, "kubelet"));
    // A container that is not of Kubernetes is not asked for without end, however often it is sampled.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        assert!(!knows(&resources, "not of Kubernetes"));
        std::thread::sleep(Duration::from_millis(2));
    }
    let asked = lists.load(Ordering::SeqCst) - 3;
    assert!((1..=7).contains(&asked), "asked {asked} times");
}

#[test]
fn a_server_with_another_certificate_is_not_shown_the_token() {
    let (server, _watches) = api("10", vec![pod(1, "9", &container(1))]);
    let (other, _) = api("10", vec![]);
    let mut chosen = options(&server, KubernetesSource::Api);
    chosen.kubernetes.ca_file = other.ca_file.clone();
    let resources = Resources::start(chosen.clone()).unwrap();
    wait_until("a failure", || stats(&resources).failures > 0);
    assert!(stats(&resources).last_error.unwrap().1.contains("certificate"));
    assert!(server.seen().is_empty());
    // Kubelets sign their own certificates, and who says so is let through.
    chosen.kubernetes.source = KubernetesSource::Kubelet;
    chosen.kubernetes.kubelet_insecure = true;
    resources.reconfigure(chosen).unwrap();
    wait_until("the list", || knows(&resources, &container(1)));
}

#[test]
fn a_server_that_never_answers_does_not_hold_up_the_end() {
    let server = Server::start(|_| Reply::Never);
    let resources = follow(&server, KubernetesSource::Api);
    wait_until("a request", || !server.seen().is_empty());
    let begin = Instant::now();
    drop(resources);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_cannot_be_used_is_refused_at_the_start() {
    let (server, _watches) = api("10", vec![]);
    let refused = |change: fn(&mut KubernetesOptions)| {
        let mut chosen = options(&server, KubernetesSource::Api);
        change(&mut chosen.kubernetes);
        Resources::start(chosen).map(drop).unwrap_err().to_string()
    };
    assert!(
        refused(|o| o.token_file = "/nonexistent/token".into()).contains("cannot read the token in /nonexistent/token")
    );
    assert!(refused(|o| o.ca_file = "/etc/hostname".into()).contains("the cluster's certificates in /etc/hostname"));
    assert!(refused(|o| o.api_url = Some("kubernetes:443".into())).contains("write https://HOST:PORT"));
    assert!(refused(|o| o.api_url = Some("https://me:secret@host".into())).contains("no address"));
}

/// Whom `auto` asks is decided by the environment, which a test cannot change for itself: it runs as a process of its own.
#[test]
fn auto_asks_the_kubelet_where_the_api_server_refuses() {
    let (server, _watches) = api("10", vec![]);
    let refusing = Server::start(|_| refusal(403, "pods is forbidden"));
    let kubelet = Server::start(|seen| match seen.path.as_str() {
        "/pods" => list("", &[pod(1, "", &container(1))]),
        _ => refusal(404, "no such page"),
    });
    let child = |host: &str, environment: &[(&str, &str)]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kubernetes::auto_in_a_process_of_its_own", "--nocapture"]);
        command.env("TEST_API", host).env("TEST_KUBELET", &kubelet.url).env("TEST_TOKEN", &kubelet.token_file);
        // The tests may run in a pod themselves.
        for name in ["KUBERNETES_SERVICE_HOST", "NODE_NAME", "K8S_NODE_NAME"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        let out = command.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        text.lines().find_map(|line| line.split_once("answer: ")).expect("an answer").1.to_owned()
    };
    let in_cluster = ("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    assert_eq!(child(&refusing.url, &[in_cluster, ("NODE_NAME", "n")]), "kubelet shop-7d4b9c5f6d-x1 n");
    // Outside Kubernetes nobody is asked; without a node's name the kubelet is.
    assert_eq!(child(&server.url, &[("NODE_NAME", "n")]), "nobody");
    assert_eq!(child(&server.url, &[in_cluster]), "kubelet shop-7d4b9c5f6d-x1 ");
    assert!(server.seen().is_empty());
}

#[test]
fn auto_in_a_process_of_its_own() {
    let Ok(api_url) = std::env::var("TEST_API") else { return };
    let kubernetes = KubernetesOptions {
        api_url: Some(api_url),
        kubelet_url: Some(std::env::var("TEST_KUBELET").unwrap()),
        kubelet_insecure: true,
        ca_file: std::env::var("TEST_TOKEN").unwrap().replace("token", "ca.crt").into(),
        token_file: std::env::var("TEST_TOKEN").unwrap().into(),
        ..KubernetesOptions::default()
    };
    let resources = Resources::start(ResourceOptions { kubernetes, ..ResourceOptions::default() }).unwrap();
    let Some(_) = resources.stats().kubernetes else {
        println!("\nanswer: nobody");
        return;
    };
    wait_until("the pod", || knows(&resources, &container(1)));
    let node = resources.shared().text("k8s.node.name").unwrap_or_default().to_owned();
    let found = of(&resources, &container(1));
    println!("\nanswer: {} {} {node}", stats(&resources).source, found.text("k8s.pod.name").unwrap());
}

#[test]
fn the_token_stays_on_tls() {
    // A server without TLS sees the request, but not the token.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, _watches) = api("10", vec![]);
    let mut chosen = options(&server, KubernetesSource::Api);
    chosen.kubernetes.api_url = Some(format!("http://{}", listener.local_addr().unwrap()));
    let _resources = Resources::start(chosen).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = std::io::Read::read(&mut stream, &mut chunk).unwrap();
        assert!(count > 0);
        request.extend_from_slice(&chunk[..count]);
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("GET /api/v1/pods?"), "{request}");
    assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
}
