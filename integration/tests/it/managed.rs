//! A real agent, managed by a server of opamp-go (`integration/opamp`).

use std::process::Command;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use profiler_integration::agent::{Configuration, Home};
use profiler_integration::children;
use profiler_integration::environment::{have_root, have_tools, one_at_a_time};
use profiler_integration::opamp_go::OpampGo;
use profiler_integration::programs;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
/// How long a configuration is watched. Long enough to end the agent meanwhile.
const SOAK: &str = "3s";

/// The server: says what agents report, and sends what it is told.
struct Server {
    go: OpampGo,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut go = OpampGo::start(&[], PATIENCE);
        let address = go.until("listening", |_| true).as_str().unwrap().to_owned();
        Self { go, address }
    }

    fn until(&mut self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        self.go.until(kind, matches)
    }

    fn offer(&mut self, hash: &[u8], text: &str) {
        let config = json!({"configMap": {"": {"body": BASE64.encode(text)}}});
        let offer = json!({"remoteConfig": {"config": config, "configHash": BASE64.encode(hash)}});
        self.go.says(&offer.to_string());
    }

    /// The status of the configuration with this hash, once it is `status`, and why.
    fn status(&mut self, hash: &[u8], status: &str) -> String {
        let (hash, status) = (BASE64.encode(hash), format!("RemoteConfigStatuses_{status}"));
        let report = self.until("message", |message| {
            let told = &message["remoteConfigStatus"];
            told["lastRemoteConfigHash"] == json!(hash) && told["status"] == json!(status)
        });
        report["remoteConfigStatus"]["errorMessage"].as_str().unwrap_or_default().to_owned()
    }
}

fn effective(message: &Value) -> Option<String> {
    let body = message["effectiveConfig"]["configMap"]["configMap"][""]["body"].as_str()?;
    Some(String::from_utf8(BASE64.decode(body).unwrap()).unwrap())
}

fn configuration(server: &Server, home: &Home) -> Configuration {
    // Without budgets: a busy machine would have a good configuration given back.
    let mut configuration = Configuration::new(99, &["shares"], String::new());
    configuration.more = format!(
        "limits: {{cpu: off, memory: off}}\nopamp: {{endpoint: 'ws://{}/v1/opamp', headers: {{authorization: geheim}}, \
         directory: {}/opamp, accept_config: true, soak: {SOAK}}}\n",
        server.address,
        home.path().display()
    );
    configuration
}

#[test]
fn root_a_server_manages_an_agent() {
    let test = "root_a_server_manages_an_agent";
    if !have_root(test) || !have_tools(test, &["go"]) {
        return;
    }
    let _one = one_at_a_time();
    let mut server = Server::start();
    let mut load = Command::new(programs::c("shares").build().unwrap());
    let _load = children::start(load.args(["--ms", "600000", "--depth", "5"])).unwrap();
    let home = Home::new().unwrap();
    let configuration = configuration(&server, &home);
    let mut agent = home.start(&configuration, &[]).unwrap();

    // Who it is, how it is, and what runs, without secrets.
    let first = server.until("message", |message| !message["agentDescription"].is_null());
    let uid = first["instanceUid"].clone();
    let has = |part: &str, key: &str| {
        let attributes = first["agentDescription"][part].as_array().cloned().unwrap_or_default();
        attributes.iter().any(|attribute| attribute["key"] == key && attribute["value"]["stringValue"] != "")
    };
    for key in ["service.name", "service.version", "service.instance.id"] {
        assert!(has("identifyingAttributes", key), "{key}: {first}");
    }
    for key in ["os.type", "os.version", "host.name", "host.arch", "profiler.cgroup.mode"] {
        assert!(has("nonIdentifyingAttributes", key), "{key}: {first}");
    }
    let running = effective(&first).unwrap();
    assert!(running.contains("rate: 99") && running.contains("[hidden]") && !running.contains("geheim"), "{running}");
    let is_healthy = |message: &Value| message["health"]["healthy"] == true;
    let health = if is_healthy(&first) { first } else { server.until("message", is_healthy) };
    assert!(!health["health"]["componentHealthMap"]["exporter/record"].is_null(), "{health}");
    agent.wait("samples", PATIENCE, |metrics| metrics.sum("profiler_samples_total", &[]) > 50.0).unwrap();

    // One that narrows is applied, after its soak.
    server.offer(&[1], "rate: 49\n");
    server.status(&[1], "APPLYING");
    server.status(&[1], "APPLIED");
    agent.wait("49 Hz", PATIENCE, |metrics| metrics.sum("profiler_rate_hertz", &[]) == 49.0).unwrap();

    // One that widens is refused whole, one that drops everything is given back, and neither is tried again.
    server.offer(&[2], "rate: 98\nopamp: {accept_config: true}\n");
    let reason = server.status(&[2], "FAILED");
    assert!(reason.contains("would widen") || reason.contains("is the host's own"), "{reason}");
    // A second one is held against what was before the first.
    for hash in [[3], [33]] {
        server.offer(&hash, &format!("targets: {{exclude: [{{comms: ['*']}}]}} # {hash:?}\n"));
        server.status(&hash, "APPLYING");
        let reason = server.status(&hash, "FAILED");
        assert!(reason.contains("no samples"), "{reason}");
    }
    let before = agent.metrics().unwrap().sum("profiler_samples_total", &[]);
    agent
        .wait("samples again", PATIENCE, |metrics| metrics.sum("profiler_samples_total", &[]) > before + 20.0)
        .unwrap();
    server.offer(&[2], "rate: 9\n");
    assert!(!server.status(&[2], "FAILED").is_empty(), "its hash has failed, whatever it says now");

    // While one is tried that drops everything, the host's own file breaks: it is not kept, and what works is back when that can be read.
    server.offer(&[6], "targets: {exclude: [{comms: ['*']}]}\n");
    server.status(&[6], "APPLYING");
    agent.home().write_configuration("rate: {").unwrap();
    let reason = server.status(&[6], "FAILED");
    assert!(reason.contains("no samples"), "{reason}");
    let before = agent.metrics().unwrap().sum("profiler_samples_total", &[]);
    agent.home().configure(&configuration).unwrap();
    agent
        .wait("samples again", PATIENCE, |metrics| metrics.sum("profiler_samples_total", &[]) > before + 20.0)
        .unwrap();
    // The host's own becomes narrower than one that is tried.
    server.offer(&[7], "rate: 40\n");
    server.status(&[7], "APPLYING");
    agent.home().configure(&Configuration { rate: 30, ..configuration.clone() }).unwrap();
    let reason = server.status(&[7], "FAILED");
    assert!(reason.contains("the host's own configuration has changed") && reason.contains("rate"), "{reason}");
    agent.home().configure(&configuration).unwrap();
    agent.wait("49 Hz again", PATIENCE, |metrics| metrics.sum("profiler_rate_hertz", &[]) == 49.0).unwrap();

    // Killed while one is tried: the one that works is there, and the other one is tried once more.
    server.offer(&[4], "rate: 19\n");
    server.status(&[4], "APPLYING");
    let agent = agent.kill().unwrap().start(&configuration, &[]).unwrap();
    let again = server.until("message", |message| !message["agentDescription"].is_null());
    assert_eq!(again["instanceUid"], uid, "it is the same agent");
    let running = effective(&again).unwrap();
    assert!(running.contains("rate: 49  # remote opamp:1:7"), "{running}");
    assert_ne!(again["remoteConfigStatus"]["lastRemoteConfigHash"], BASE64.encode([4]), "nothing is known of it");
    server.offer(&[4], "rate: 19\n");
    server.status(&[4], "APPLIED");

    // Killed when it works: it stays.
    let agent = agent.kill().unwrap().start(&configuration, &[]).unwrap();
    let again = server.until("message", |message| !message["agentDescription"].is_null());
    assert!(effective(&again).unwrap().contains("rate: 19  # remote opamp:1:7"));
    assert_eq!(again["remoteConfigStatus"]["lastRemoteConfigHash"], BASE64.encode([4]));
    // Twice while another one is tried: it is not tried a third time.
    let mut agent = agent;
    for _ in 0..2 {
        server.offer(&[5], "rate: 18\n");
        server.status(&[5], "APPLYING");
        agent = agent.kill().unwrap().start(&configuration, &[]).unwrap();
        server.until("message", |message| !message["agentDescription"].is_null());
    }
    server.offer(&[5], "rate: 18\n");
    let reason = server.status(&[5], "FAILED");
    assert!(reason.contains("ended 2 times"), "{reason}");

    let (_home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{log}");
    assert!(!log.contains("geheim"), "{log}");
    server.until("message", |message| !message["agentDisconnect"].is_null());
}
