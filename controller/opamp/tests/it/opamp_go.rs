//! Against opamp-go, the protocol's reference (`integration/opamp`): its server with our client, its client with our server, over both
//! transports. Both ends by one author could share a misreading; these do not.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::OnceLock,
    thread,
};

use profiler_opamp::{
    InstanceUid,
    client::{Client, Event},
    messages::{
        AgentConfigMap, AgentConfigObject, AgentRemoteConfig, ComponentHealth, CustomMessage, EffectiveConfig,
        RemoteConfigStatus, RemoteConfigStatuses,
    },
    server,
    transport::Server,
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use super::{
    simulated::{UID, settings},
    transports::{Agent, LIMIT, Running},
};

/// The program, built once; `None` where there is no Go.
fn program(test: &str) -> Option<&'static Path> {
    if !profiler_need::have_tools(test, &["go"]) {
        return None;
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(target).unwrap();
        let file = target.join(format!("opamp-go-{}", std::process::id()));
        let mut build = Command::new(profiler_need::find("go").unwrap());
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration/opamp");
        let built = build.arg("build").arg("-o").arg(&file).arg(".").current_dir(module).status().unwrap();
        assert!(built.success());
        // Renamed over the last one, which another run may be using: there is never more than one left.
        let last = target.join("opamp-go");
        fs::rename(file, &last).unwrap();
        last
    };
    Some(BUILT.get_or_init(build))
}

/// A program that runs, killed when dropped.
struct Go {
    child: Child,
    input: ChildStdin,
    told: mpsc::UnboundedReceiver<Value>,
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Go {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        let input = child.stdin.take().unwrap();
        Self { child, input, told }
    }

    fn says(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next thing of this kind for which `matches`; what comes before is passed over.
    async fn until(&mut self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                let mut told = self.told.recv().await.expect("it has ended");
                if let Some(value) = told.get_mut(kind).map(Value::take)
                    && matches(&value)
                {
                    return value;
                }
            }
        };
        timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("opamp-go did not tell {kind} in time"))
    }
}

/// Of a configuration, under the empty name.
fn body(map: Option<&AgentConfigMap>) -> &[u8] {
    &map.unwrap().config_map[""].body
}

fn config(body: &str) -> AgentConfigMap {
    let body = body.to_owned().into();
    let object = AgentConfigObject { body, content_type: "text/yaml".into(), ..Default::default() };
    AgentConfigMap { config_map: [(String::new(), object)].into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_is_understood_by_its_server() {
    let Some(program) = program("our_client_is_understood_by_its_server") else { return };
    let mut go = Go::start(program, &[]);
    let address = go.until("listening", |_| true).await.as_str().unwrap().to_owned();
    for (scheme, hash) in [("ws", "AQ=="), ("http", "Ag==")] {
        let mut agent = Agent::start(settings(&format!("{scheme}://{address}/v1/opamp")));
        let with = |order: fn(&mut Client)| agent.handle.with(order);
        with(|client| {
            client.set_custom_capabilities(["com.example.a".to_owned()]);
            client.set_health(ComponentHealth { healthy: true, status: "well".into(), ..Default::default() });
        });
        if scheme == "http" {
            assert_eq!(go.until("uid", |_| true).await, json!(UID.to_string()));
        }
        // Description, effective configuration; the health is there from the first or the second message on.
        let first = go.until("message", |message| !message["agentDescription"].is_null()).await;
        assert_eq!(first["instanceUid"], "BwcHBwcHBwcHBwcHBwcHBw==");
        let name = &first["agentDescription"]["identifyingAttributes"][0];
        assert_eq!((&name["key"], &name["value"]["stringValue"]), (&json!("service.name"), &json!("a")));
        assert!(first["effectiveConfig"]["configMap"]["configMap"][""]["body"].as_str().unwrap().len() > 1000);
        if first["health"].is_null() {
            let health = go.until("message", |message| !message["health"].is_null()).await;
            assert_eq!((&health["health"]["healthy"], &health["health"]["status"]), (&json!(true), &json!("well")));
        }
        agent.until(|event| *event == Event::Connected).await;

        // A configuration, which fails, and another, which is applied.
        for (hash, status) in [(hash, RemoteConfigStatuses::Failed), ("CQ==", RemoteConfigStatuses::Applied)] {
            // "rate: 9"
            let offer = json!({"configMap": {"": {"body": "cmF0ZTogOQ==", "contentType": "text/yaml"}}});
            go.says(&json!({"remoteConfig": {"config": offer, "configHash": hash}}).to_string());
            let event = agent.until(|event| matches!(event, Event::RemoteConfig(_))).await;
            let Event::RemoteConfig(offer) = event else { unreachable!() };
            assert_eq!(body(offer.config.as_ref()), b"rate: 9");
            let error = if status == RemoteConfigStatuses::Failed { "too low" } else { "" };
            let (map, reported) = (offer.config, offer.config_hash);
            agent.handle.with(move |client| {
                client.set_effective_config(EffectiveConfig { config_map: map });
                client.set_remote_config_status(RemoteConfigStatus {
                    last_remote_config_hash: reported,
                    status: status.into(),
                    error_message: error.into(),
                });
            });
            let report = go.until("message", |message| !message["remoteConfigStatus"].is_null()).await;
            let told = &report["remoteConfigStatus"];
            assert_eq!(told["lastRemoteConfigHash"], hash);
            assert_eq!(told["status"], json!(format!("RemoteConfigStatuses_{}", format!("{status:?}").to_uppercase())));
            if status == RemoteConfigStatuses::Failed {
                assert_eq!(told["errorMessage"], "too low");
                let running = &report["effectiveConfig"]["configMap"]["configMap"][""];
                assert_eq!((&running["body"], &running["contentType"]), (&json!("cmF0ZTogOQ=="), &json!("text/yaml")));
                // Unchanged, hence not there.
                assert!(report["agentDescription"].is_null());
            }
        }

        // Everything again, a custom message, a restart.
        go.says(&json!({"flags": "1"}).to_string());
        let all = go.until("message", |message| !message["agentDescription"].is_null()).await;
        assert!(!all["effectiveConfig"].is_null() && !all["remoteConfigStatus"].is_null() && !all["health"].is_null());
        go.says(&json!({"customMessage": {"capability": "com.example.a", "type": "t", "data": "AQ=="}}).to_string());
        let custom = CustomMessage { capability: "com.example.a".into(), r#type: "t".into(), data: vec![1] };
        agent.until(|event| *event == Event::Custom(custom.clone())).await;
        go.says(&json!({"command": {"type": "CommandType_Restart"}}).to_string());
        agent.until(|event| *event == Event::Restart).await;

        // A certain name, and the end.
        let new = InstanceUid::new([9; 16]);
        go.says(&json!({"agentIdentification": {"newInstanceUid": "CQkJCQkJCQkJCQkJCQkJCQ=="}}).to_string());
        agent.until(|event| *event == Event::NewIdentity(new)).await;
        go.until("message", |message| message["instanceUid"] == "CQkJCQkJCQkJCQkJCQkJCQ==").await;
        agent.stop().await;
        let last = go.until("message", |message| !message["agentDisconnect"].is_null()).await;
        assert_eq!(last["instanceUid"], "CQkJCQkJCQkJCQkJCQkJCQ==");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_client_is_understood_by_our_server() {
    let Some(program) = program("its_client_is_understood_by_our_server") else { return };
    let capabilities = profiler_opamp::messages::ServerCapabilities::DEFINED;
    let custom_capabilities = vec!["com.example.a".to_owned()];
    let options = server::Options { capabilities, custom_capabilities, ..server::Options::default() };
    let uid = InstanceUid::new([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    for scheme in ["ws", "http"] {
        let mut running = Running::with(options.clone(), None, None, None).await;
        let mut go = Go::start(program, &["--url", &format!("{scheme}://{}/v1/opamp", running.address)]);
        running.until(|event, _| *event == server::Event::Connected(uid)).await;
        go.until("connected", |_| true).await;
        let agent = |running: &Running| running.server.with(|registry| registry.agent(uid).unwrap().clone());
        let known = agent(&running);
        assert_eq!(known.sequence.map(|sequence| sequence < 100), Some(true));
        let name = known.description.unwrap();
        assert_eq!(
            name.identifying_attributes[0],
            profiler_opamp::messages::KeyValue::text("service.name", "opamp-go")
        );
        assert_eq!(known.health.map(|health| (health.healthy, health.status)), Some((true, "well".into())));
        assert_eq!(body(known.effective_config.unwrap().config_map.as_ref()), b"rate: 99");

        // One configuration fails and one is applied; each is told once.
        for (hash, text, status) in
            [(1, "bad: 1", RemoteConfigStatuses::Failed), (2, "rate: 9", RemoteConfigStatuses::Applied)]
        {
            let offer = AgentRemoteConfig { config: Some(config(text)), config_hash: vec![hash] };
            running.server.with(|registry| registry.offer(uid, |offers| offers.remote_config = Some(offer))).unwrap();
            assert_eq!(go.until("config", |_| true).await, json!(text));
            let reported = async {
                loop {
                    running.events.recv().await.unwrap();
                    let known = agent(&running).remote_config_status;
                    if let Some(known) = known.filter(|known| known.last_remote_config_hash == [hash]) {
                        break known;
                    }
                }
            };
            let reported = timeout(LIMIT, reported).await.unwrap();
            assert_eq!(reported.status(), status);
            assert_eq!(reported.error_message.is_empty(), status == RemoteConfigStatuses::Applied);
        }
        assert_eq!(body(agent(&running).effective_config.unwrap().config_map.as_ref()), b"rate: 9");

        go.says("unhealthy");
        let unhealthy = |_: &server::Event, server: &Server| {
            server.with(|registry| {
                let health = registry.agent(uid).and_then(|agent| agent.health.as_ref());
                health.is_some_and(|health| health.last_error == "the disk is full" && !health.healthy)
            })
        };
        running.until(unhealthy).await;
        running.server.with(|registry| registry.restart(uid)).unwrap();
        assert_eq!(go.until("command", |_| true).await, json!("CommandType_Restart"));
        let custom = CustomMessage { capability: "com.example.a".into(), r#type: "t".into(), data: vec![1] };
        running.server.with(|registry| registry.send_custom(uid, custom)).unwrap();
        assert_eq!(go.until("custom", |_| true).await, json!("t"));

        // All that was received, and nothing was lost: no full state was asked for after the first message.
        let before = agent(&running);
        running.server.with(|registry| registry.request_state(uid, false)).unwrap();
        let sequence = before.sequence.unwrap();
        running.until(|_, server| server.with(|registry| registry.agent(uid).unwrap().sequence > Some(sequence))).await;
        assert_eq!(agent(&running).description, before.description);

        if scheme == "ws" {
            go.says("stop");
            running.until(|event, _| *event == server::Event::Disconnected(uid)).await;
            go.until("stopped", |_| true).await;
        }
        running.server.stop();
    }
}
