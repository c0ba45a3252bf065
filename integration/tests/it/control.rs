//! `profiler control` with real agents: they appear, a rollout changes them by the canary first, what they refuse stops it, and a server
//! that is killed goes on where it was.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::agent::{Agent, Configuration, Home};
use profiler_integration::children::{self, Killed};
use profiler_integration::environment::{have_root, have_tools, one_at_a_time, profiler};
use profiler_integration::opamp_go::OpampGo;
use profiler_integration::programs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Generous: the machine may be busy, and agents try a configuration before they say that it works.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an agent watches a configuration.
const SOAK: &str = "2s";

/// The server, which may have several lives at one address.
struct Server {
    folder: PathBuf,
    child: Option<Killed>,
    address: String,
    lives: u32,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut server = Self { folder: folder.to_owned(), child: None, address: "127.0.0.1:0".to_owned(), lives: 0 };
        server.begin();
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("server-{}.log", self.lives))).unwrap_or_default()
    }

    fn begin(&mut self) {
        self.begin_with(&[]);
    }

    fn begin_with(&mut self, more: &[&str]) {
        self.lives += 1;
        let log = File::create(self.folder.join(format!("server-{}.log", self.lives))).unwrap();
        let mut command = Command::new(profiler());
        command.args(["control", "serve", "--listen", &self.address, "--data"]).arg(self.folder.join("control"));
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env_remove("RUST_LOG");
        let mut child = Killed(command.spawn().unwrap());
        self.address = until("the server listens", || {
            if let Some(status) = child.0.try_wait().unwrap() {
                panic!("the server has ended: {status}\n{}", self.log());
            }
            let log = self.log();
            let (_, after) = log.split_once("Serving at http://")?;
            Some(after.split_once(',')?.0.to_owned())
        });
        self.child = Some(child);
    }

    fn end(&mut self, signal: Signal) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child.0), signal).unwrap();
        let status = child.0.wait().unwrap();
        assert!(status.success() || signal == Signal::KILL, "{status}\n{}", self.log());
    }

    /// What `profiler control` of a person does here.
    fn control(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(profiler());
        command.arg("control").args(arguments).env_remove("RUST_LOG").env_remove("PROFILER_CONTROL_TOKEN");
        command.env("PROFILER_CONTROL_URL", format!("http://{}", self.address));
        command.env("PROFILER_CONTROL_TOKEN_FILE", self.folder.join("control/admin.token"));
        command.stdin(Stdio::null());
        command
    }

    /// As JSON, of a command that works.
    fn told(&self, arguments: &[&str]) -> Value {
        let output = self.control(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}\n{}", self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A token for agents.
    fn make_token(&self) -> String {
        let token = self.control(&["tokens", "make", "fleet", "--role", "agent"]);
        let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
        assert!(token.starts_with("profctl_"), "{token}");
        token
    }

    /// Saves a configuration; its number.
    fn push(&self, text: &str) -> Value {
        let path = self.folder.join("pushed.yaml");
        std::fs::write(&path, text).unwrap();
        self.told(&["config", "push", path.to_str().unwrap(), "--note", "less"])["id"].clone()
    }

    fn agents(&self) -> Vec<Value> {
        self.told(&["agents", "list"])["agents"].as_array().cloned().unwrap()
    }

    fn until_all(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        until(what, || {
            let agents = self.agents();
            (agents.len() == 2 && agents.iter().all(&holds)).then_some(agents)
        })
    }

    /// What became of a rollout, as its audit log has it, the oldest first.
    fn moves(&self, rollout: &Value) -> Vec<String> {
        let object = format!("rollout {}", rollout["id"]);
        let audit = self.told(&["audit", "--limit", "1000"]);
        let entries = audit["entries"].as_array().unwrap().iter().rev().filter(|entry| entry["object"] == *object);
        entries
            .map(|entry| format!("{} {}", entry["action"].as_str().unwrap(), entry["detail"].as_str().unwrap()))
            .collect()
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// Waits until agents sample so often.
fn until_rates(agents: &[Agent], wanted: [f64; 2]) {
    let rate = |agent: &Agent| agent.metrics().map_or(0.0, |metrics| metrics.sum("profiler_rate_hertz", &[]));
    until(&format!("rates of {wanted:?}"), || {
        let mut rates: Vec<f64> = agents.iter().map(rate).collect();
        rates.sort_by(f64::total_cmp);
        (rates == wanted).then_some(())
    });
}

#[test]
fn root_a_control_server_brings_a_configuration_to_real_agents_in_steps() {
    let test = "root_a_control_server_brings_a_configuration_to_real_agents_in_steps";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let token = server.make_token();

    let mut load = Command::new(programs::c("shares").build().unwrap());
    let _load = children::start(load.args(["--ms", "600000", "--depth", "5"])).unwrap();
    let agents: Vec<Agent> = (0..2)
        .map(|_| {
            let home = Home::new().unwrap();
            let mut configuration = Configuration::new(99, &["shares"], String::new());
            configuration.more = format!(
                "limits: {{cpu: off, memory: off}}\nopamp: {{endpoint: 'ws://{}', headers: {{authorization: 'Bearer {token}'}}, \
                 directory: {}/opamp, accept_config: true, soak: {SOAK}}}\n",
                server.address,
                home.path().display()
            );
            home.start(&configuration, &[]).unwrap()
        })
        .collect();
    let is_healthy = |agent: &Value| agent["connected"] == true && agent["healthy"] == true;
    let known = server.until_all("both agents are there and well", is_healthy);
    let uids: Vec<_> = known.iter().map(|agent| agent["uid"].clone()).collect();
    assert!(
        known.iter().all(|agent| agent["labels"]["service.name"].is_string() && agent["wanted"].is_null()),
        "{known:?}"
    );

    // A configuration is saved, and goes to the canary alone for as long as that soaks.
    let saved = server.push("rate: 49\n");
    let good = saved.to_string();
    let slow = server.told(&["rollouts", "start", &good, "--steps", "50%:1h,100%:1h"]);
    let slow_id = slow["id"].to_string();
    let counts = |server: &Server, key: &str| server.told(&["rollouts", "show", &slow_id])["agents"][key].clone();
    until("the canary is well", || (counts(&server, "well") == 1).then_some(()));
    until_rates(&agents, [49.0, 99.0]);

    // Somebody waits for its end.
    let said = folder.path().join("wait.log");
    let mut command = server.command(&["rollouts", "wait", &slow_id]);
    let mut waits = Killed(command.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap());
    let says = |what: &str| std::fs::read_to_string(&said).unwrap().contains(what).then_some(());
    until("it is waited for", || says("running"));

    // The server is killed meanwhile, and has lost nothing.
    server.end(Signal::KILL);
    until("who waits goes on", || says("tried again"));
    server.begin();
    let back = server.until_all("both agents are back", is_healthy);
    assert_eq!(back.iter().map(|agent| agent["uid"].clone()).collect::<Vec<_>>(), uids);
    let after = server.told(&["rollouts", "show", &slow_id]);
    assert_eq!(
        (&after["phase"], &after["step"], &after["agents"]["assigned"]),
        (&"running".into(), &0.into(), &1.into()),
        "{after}"
    );
    until_rates(&agents, [49.0, 99.0]);
    // Somebody takes it back: the canary has its own configuration again.
    server.told(&["rollouts", "revert", &slow_id, "--reason", "too slow"]);
    until_rates(&agents, [99.0, 99.0]);
    assert_eq!(waits.0.wait().unwrap().code(), Some(3), "whoever waited is told");

    // With steps that end, all have it.
    let output = server.control(&["rollouts", "start", &good, "--steps", "50%:1s,100%:1s", "--wait"]);
    assert!(output.status.success(), "{output:?}\n{}", server.log());
    until_rates(&agents, [49.0, 49.0]);
    let says = |agent: &Value| agent["status"].as_str().is_some_and(|does| does.starts_with("sampling at 49 Hz"));
    server.until_all("both say their rate", says);
    let done = server.told(&["rollouts", "list"])["rollouts"][0].clone();
    let wanted = ["start revision 1", "assign step 1: 1 more", "advance step 2", "assign step 2: 1 more", "done"];
    let moves = server.moves(&done);
    let is_so = moves.len() == wanted.len()
        && moves.iter().zip(wanted).all(|(is, want)| is.starts_with(&format!("rollout.{want}")));
    assert!(is_so, "{moves:?}");

    // Agents refuse what would widen: the canary says FAILED, nobody else gets it, and both are as they were.
    server.end(Signal::TERM);
    server.begin();
    server.until_all("both agents are back", is_healthy);
    let bad = server.push("rate: 19\nopamp: {accept_config: true}\n").to_string();
    let output = server.control(&["rollouts", "start", &bad, "--steps", "50%:1s,100%:1s", "--wait"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}\n{}", server.log());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("reverted") && said.contains("FAILED") && said.contains("opamp"), "{said}");
    let reverted = server.told(&["rollouts", "list"])["rollouts"][0].clone();
    let moves = server.moves(&reverted);
    assert_eq!(moves.iter().filter(|step| step.starts_with("rollout.assign")).count(), 1, "{moves:?}");
    server.until_all("both have the revision before", |agent| {
        agent["wanted"]["revision"] == saved
            && agent["config"]["hash"] == agent["wanted"]["hash"]
            && agent["config"]["status"] == "APPLIED"
    });
    until_rates(&agents, [49.0, 49.0]);
    let refused = server.control(&["rollouts", "start", &bad]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("config retry"), "{refused:?}");

    // Whose token is revoked is sent away, and profiles on.
    server.told(&["tokens", "revoke", "2"]);
    server.until_all("both are gone", |agent| agent["connected"] == false);
    let mut tried = 0;
    for agent in agents {
        let (_, status, log) = agent.stop().unwrap();
        tried += log.matches("A configuration from the server runs, and is watched").count();
        assert!(status.success() && !log.contains(&token), "{log}");
    }
    assert_eq!(tried, 4, "the canary's twice, its own, and the other's: what works is not tried anew");
    server.end(Signal::TERM);
    assert!(!server.log().contains(&token), "{}", server.log());
}

/// opamp-go's client, of both transports, is led as ours is: what this server says is understood by what somebody else has written.
#[test]
fn agents_of_opamp_go_are_led_by_a_control_server() {
    if !have_tools("agents_of_opamp_go_are_led_by_a_control_server", &["go"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let token = server.make_token();
    let agent = |scheme: &str, uid: &str, token: &str| {
        let url = format!("{scheme}://{}/v1/opamp", server.address);
        OpampGo::start(&["-url", &url, "-uid", uid, "-token", token], PATIENCE)
    };
    let mut stranger = agent("ws", "0102030405060708090a0b0c0d0e0f12", "profctl_2_00");
    stranger.until("failed", |_| true);
    drop(stranger);
    let entries = server.told(&["audit"])["entries"].clone();
    let is_refusal = |entry: &Value| entry["action"] == "unauthorized" && entry["outcome"] == "refused";
    assert!(entries.as_array().unwrap().iter().any(is_refusal), "{entries}");
    let uids = ["0102030405060708090a0b0c0d0e0f10", "0102030405060708090a0b0c0d0e0f11"];
    let mut agents = [agent("ws", uids[0], &token), agent("http", uids[1], &token)];
    let is_there = |agent: &Value| {
        agent["connected"] == true && agent["healthy"] == true && agent["labels"]["service.name"] == "opamp-go"
    };
    server.until_all("both agents are there and well", is_there);

    // A configuration reaches both, in steps, and both say that they have it.
    let good = server.push("rate: 49\n");
    let output = server.control(&["rollouts", "start", &good.to_string(), "--steps", "50%:1s,100%:1s", "--wait"]);
    assert!(output.status.success(), "{output:?}\n{}", server.log());
    for agent in &mut agents {
        assert_eq!(agent.until("config", |_| true), "rate: 49\n");
    }
    let has_it = |agent: &Value| {
        let (config, wanted) = (&agent["config"], &agent["wanted"]);
        wanted["revision"] == good && config["hash"] == wanted["hash"] && config["status"] == "APPLIED"
    };
    for agent in server.until_all("both say APPLIED", has_it) {
        let shown = server.told(&["agents", "show", agent["uid"].as_str().unwrap()]);
        assert_eq!(shown["effective_config"], "rate: 49\n", "{shown}");
    }

    // The server is killed: both come back, and are not given again what they have.
    server.end(Signal::KILL);
    server.begin();
    server.until_all("both agents are back", |agent| is_there(agent) && has_it(agent));

    // One that the canary says FAILED of goes no further, and the canary is given the one before.
    let bad = server.push("bad: 1\n");
    let output = server.control(&["rollouts", "start", &bad.to_string(), "--steps", "50%:1s,100%:1s", "--wait"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}\n{}", server.log());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("reverted") && said.contains("FAILED: it is bad"), "{said}");
    server.until_all("both have the one before", has_it);

    // One that is unhealthy with a configuration has it taken back, the other never had it.
    let third = server.push("rate: 19\n").to_string();
    let started = server.told(&["rollouts", "start", &third, "--steps", "50%:1h,100%:1h"])["id"].to_string();
    let shown = |server: &Server| server.told(&["rollouts", "show", &started]);
    until("the canary is well", || (shown(&server)["agents"]["well"] == 1).then_some(()));
    agents.iter_mut().for_each(|agent| agent.says("unhealthy"));
    let ended = until("it is reverted", || Some(shown(&server)).filter(|rollout| rollout["phase"] == "reverted"));
    assert!(ended["reason"].as_str().unwrap().contains("unhealthy: the disk is full"), "{ended}");
    server.until_all("both have the one before again", has_it);

    // Of the two that went wrong each had one agent. They say goodbye.
    let mut given = Vec::new();
    for agent in &mut agents {
        agent.says("stop");
        agent.each_until("stopped", |told| given.extend(told["config"].as_str().map(str::to_owned)));
    }
    for text in ["bad: 1\n", "rate: 19\n"] {
        assert_eq!(given.iter().filter(|given| *given == text).count(), 1, "{given:?}");
    }
    until("who said goodbye is gone", || server.agents().iter().any(|agent| agent["connected"] == false).then_some(()));
}

#[test]
fn a_control_server_says_what_is_wrong_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(profiler())
            .arg("control")
            .args(arguments)
            .env_remove("PROFILER_CONTROL_TOKEN")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let data = folder.path().join("other").to_str().unwrap().to_owned();
    let (code, said) = run(&["serve", "--data", &data, "--listen", "0.0.0.0:0"]);
    assert!(code == Some(1) && said.contains("--tls-cert") && !Path::new(&data).exists(), "{said}");
    let missing = folder.path().join("none").to_str().unwrap().to_owned();
    let (code, said) = run(&["agents", "list", "--token-file", &missing]);
    assert!(code == Some(1) && said.contains("PROFILER_CONTROL_TOKEN_FILE"), "{said}");
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "profctl_1_00\n").unwrap();
    let wrong = wrong.to_str().unwrap().to_owned();
    let (code, said) = run(&["agents", "list", "--token-file", &wrong, "--server", "http://127.0.0.1:1"]);
    assert!(code == Some(1) && said.contains("does `profiler control serve` run there?"), "{said}");

    let mut server = Server::start(folder.path());
    let url = format!("http://{}", server.address);
    let (code, said) = run(&["agents", "list", "--token-file", &wrong, "--server", &url]);
    assert!(code == Some(1) && said.contains("no token, or none that is good"), "{said}");
    let control = folder.path().join("control").to_str().unwrap().to_owned();
    let (code, said) = run(&["serve", "--data", &control, "--listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && said.contains("another `profiler control serve` has it"), "{said}");
    // Roles: a viewer looks, and does no more.
    let viewer = String::from_utf8(server.control(&["tokens", "make", "eyes", "--role", "viewer"]).stdout).unwrap();
    std::fs::write(folder.path().join("wrong"), viewer).unwrap();
    let (code, said) = run(&["audit", "--token-file", &wrong, "--server", &url]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["tokens", "list", "--token-file", &wrong, "--server", &url]);
    assert!(code == Some(1) && said.contains("this needs the role admin"), "{said}");
    // Nobody else may read what is kept.
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(folder.path().join("control")).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", entry.path());
    }
    // The token was lost: whoever owns the folder has another one made.
    std::fs::remove_file(folder.path().join("control/admin.token")).unwrap();
    server.end(Signal::TERM);
    server.begin_with(&["--new-admin-token"]);
    server.end(Signal::KILL);
    server.begin();
    assert_eq!(server.told(&["tokens", "list"])["tokens"].as_array().map(Vec::len), Some(3));
}
