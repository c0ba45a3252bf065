//! Resources of real processes: what their environment says, when it is believed, and what is known when they are gone.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use profiler_resource::{
    Attributes, KubernetesOptions, KubernetesSource, ProcessFacts, ResourceOptions, Resources, Value,
};

/// Nobody is asked about pods, wherever the tests run.
fn options() -> ResourceOptions {
    let kubernetes = KubernetesOptions { source: KubernetesSource::Off, ..KubernetesOptions::default() };
    ResourceOptions { kubernetes, ..ResourceOptions::default() }
}

fn start() -> Resources {
    Resources::start(options()).unwrap()
}

/// A shell that has been exec'ed with `variables` and waits for the end of its input.
struct Shell {
    child: Child,
}

impl Shell {
    fn new(variables: &[(&str, &str)]) -> Self {
        Self::of(
            Command::new("/bin/sh")
                .args(["-c", "echo ready; read line; echo done; exec cat"])
                .envs(variables.iter().copied()),
        )
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(Self::line(&mut child), "ready\n");
        Self { child }
    }

    fn line(child: &mut Child) -> String {
        let mut line = String::new();
        // Unbuffered beyond the line: the shell waits for input after each.
        BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    fn facts(&self) -> ProcessFacts<'static> {
        facts(self.child.id())
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As the sampler knows a process.
fn facts(pid: u32) -> ProcessFacts<'static> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap().into_os_string().into_encoded_bytes();
    ProcessFacts { pid, start_time_ns: ticks * 10_000_000, comm: "sh", exe: exe.leak(), ..ProcessFacts::default() }
}

fn text(attributes: &Attributes, key: &str) -> String {
    attributes.text(key).unwrap_or_default().to_owned()
}

#[test]
fn a_process_names_its_service_in_its_environment() {
    let shell = Shell::new(&[
        ("OTEL_SERVICE_NAME", "shop"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=other,service.namespace=eu%2Fwest,deployment.environment.name=prod,service.instance.id=i-1",
        ),
        ("SECRET_TOKEN", "hunter2"),
    ]);
    let resources = start();
    resources.learn(&shell.facts());
    let found = resources.attributes(&shell.facts());
    let expected = [
        ("service.name", "shop"),
        ("service.namespace", "eu/west"),
        ("deployment.environment.name", "prod"),
        ("service.instance.id", "i-1"),
    ];
    for (key, value) in expected {
        assert_eq!(text(&found, key), value, "{key}");
    }
    let uid = nix_uid();
    let owner = if uid == 0 { "root".to_owned() } else { text(&found, "process.owner") };
    assert_eq!(text(&found, "process.owner"), owner);
    assert!(found.iter().all(|(key, value)| !format!("{key}{value:?}").contains("hunter2")));
    assert_eq!(resources.stats().learned, 1);
}

fn nix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

#[test]
fn only_allowed_variables_are_read_and_a_narrower_list_holds_at_once() {
    let shell = Shell::new(&[("OTEL_SERVICE_NAME", "shop"), ("REGION", "eu\n"), ("SECRET_TOKEN", "hunter2")]);
    let mut chosen = options();
    chosen.environment_variables = vec!["REGION".to_owned(), "OTEL_SERVICE_NAME".to_owned()];
    let resources = Resources::start(chosen.clone()).unwrap();
    resources.learn(&shell.facts());
    let found = resources.attributes(&shell.facts());
    assert_eq!(text(&found, "process.environment_variable.REGION"), "eu");
    assert_eq!(text(&found, "service.name"), "shop");

    chosen.environment_variables = vec![];
    resources.reconfigure(chosen.clone()).unwrap();
    let found = resources.attributes(&shell.facts());
    assert_eq!(found.get("process.environment_variable.REGION"), None);
    assert_eq!(text(&found, "service.name"), program(&shell.facts()));

    chosen.environment_variables = vec!["OTEL_SERVICE_NAME".to_owned()];
    resources.reconfigure(chosen).unwrap();
    resources.learn(&shell.facts());
    assert_eq!(text(&resources.attributes(&shell.facts()), "service.name"), "shop");
    assert_eq!(resources.stats().processes, 1);
}

/// What a service is called that has no other name.
fn program(facts: &ProcessFacts<'_>) -> String {
    String::from_utf8_lossy(facts.exe.rsplit(|&byte| byte == b'/').next().unwrap()).into_owned()
}

#[test]
fn what_was_learnt_outlives_the_process() {
    let mut shell = Shell::new(&[("OTEL_SERVICE_NAME", "short")]);
    let (resources, facts) = (start(), shell.facts());
    resources.learn(&facts);
    let alive = resources.attributes(&facts);
    shell.end();
    resources.learn(&facts);
    assert_eq!(resources.attributes(&facts), alive);
    assert_eq!(text(&alive, "service.name"), "short");

    // And what was not learnt in time has the name of its program.
    let late = start();
    late.learn(&facts);
    assert_eq!(late.stats().gone, 1);
    assert_eq!(text(&late.attributes(&facts), "service.name"), program(&facts));
    // The id of the instance is the same whoever asks.
    assert_eq!(text(&late.attributes(&facts), "service.instance.id"), text(&alive, "service.instance.id"));
}

#[test]
fn another_process_under_the_same_pid_is_not_believed() {
    let shell = Shell::new(&[("OTEL_SERVICE_NAME", "impostor")]);
    let resources = start();
    let real = shell.facts();
    let earlier = ProcessFacts { start_time_ns: real.start_time_ns - 1_000_000_000, ..real };
    let other_program = ProcessFacts { exe: b"/usr/bin/other", image: 1, ..real };
    for facts in [&earlier, &other_program] {
        resources.learn(facts);
        assert_eq!(text(&resources.attributes(facts), "service.name"), program(facts));
    }
    assert_eq!((resources.stats().changed, resources.stats().learned), (2, 0));
    // Times from events are exact, those of /proc a tick.
    let exact = ProcessFacts { start_time_ns: real.start_time_ns + 9_999_999, ..real };
    resources.learn(&exact);
    assert_eq!(text(&resources.attributes(&exact), "service.name"), "impostor");
}

#[test]
fn an_exec_makes_another_image_with_another_environment() {
    let mut shell = Shell::of(
        Command::new("/bin/sh")
            .args(["-c", "echo ready; read line; OTEL_SERVICE_NAME=second exec sh -c 'echo again; read line'"])
            .env("OTEL_SERVICE_NAME", "first"),
    );
    let resources = start();
    let first = ProcessFacts { image: 1, ..shell.facts() };
    resources.learn(&first);
    shell.go_on();
    assert_eq!(Shell::line(&mut shell.child), "again\n");
    let second = ProcessFacts { image: 2, ..shell.facts() };
    assert_eq!(second.start_time_ns, first.start_time_ns, "an exec keeps pid and start");
    resources.learn(&second);
    assert_eq!(text(&resources.attributes(&first), "service.name"), "first");
    assert_eq!(text(&resources.attributes(&second), "service.name"), "second");
}

#[test]
fn claims_do_not_override_what_was_measured_or_set_for_all() {
    let claims = "process.pid=1,container.id=fake,host.name=fake,os.type=windows,process.executable.path=/fake,\
                  process.environment_variable.X=fake,k8s.node.name=fake,k8s.pod.name=fake,k8s.namespace.name=fake,\
                  container.name=fake,profiler.x=fake,process.owner=fake,team=fake,\
                  cloud.region=claimed,bad key=x,process.runtime.name=node";
    let shell = Shell::new(&[("OTEL_RESOURCE_ATTRIBUTES", claims)]);
    let mut chosen = options();
    chosen.labels = BTreeMap::from([("team".to_owned(), "infra".to_owned())]);
    chosen.attributes = BTreeMap::from([("cloud.region".to_owned(), "eu".to_owned())]);
    let resources = Resources::start(chosen).unwrap();
    let facts = ProcessFacts { container_id: Some("c0ffee"), ..shell.facts() };
    resources.learn(&facts);
    let found = resources.attributes(&facts);
    assert!(found.iter().all(|(_, value)| value != &Value::from("fake")), "{found:?}");
    assert_eq!((text(&found, "cloud.region"), text(&found, "process.runtime.name")), ("claimed".into(), "node".into()));
    assert_eq!(resources.stats().dropped_attributes, 1);
    assert_eq!(
        (text(&resources.shared(), "team"), text(&resources.shared(), "cloud.region")),
        ("infra".into(), "eu".into())
    );
}

#[test]
fn a_hostile_environment_is_bounded() {
    let long = format!("big={},", "x".repeat(60_000));
    let many: String = (0..500).map(|index| format!("k{index}=\u{1b}[31mred%0a,")).collect();
    let shell = Shell::new(&[
        ("PADDING_A", &"p".repeat(100_000)),
        ("PADDING_B", &"p".repeat(100_000)),
        ("PADDING_C", &"p".repeat(100_000)),
        ("OTEL_RESOURCE_ATTRIBUTES", &many),
        ("OTEL_SERVICE_NAME", &long),
    ]);
    let resources = start();
    resources.learn(&shell.facts());
    assert_eq!((resources.stats().learned, resources.stats().cut), (1, 1));
    let shell = Shell::new(&[("OTEL_RESOURCE_ATTRIBUTES", &many), ("OTEL_SERVICE_NAME", &long)]);
    resources.learn(&shell.facts());
    let found = resources.attributes(&shell.facts());
    assert_eq!(text(&found, "k0"), "[31mred");
    assert_eq!(text(&found, "service.name").len(), 1024);
    assert!(found.len() <= 128);
    assert!(resources.stats().dropped_attributes >= 400);
    assert!(resources.stats().bytes < 64 << 10);
}

#[test]
fn units_of_systemd_programs_and_control_groups() {
    let resources = start();
    let base = ProcessFacts { pid: 0, exe: b"/usr/sbin/sshd (deleted)", comm: "sshd", ..ProcessFacts::default() };
    let name = |facts: &ProcessFacts<'_>| text(&resources.attributes(facts), "service.name");
    let unit = Some("/system.slice/ssh.service");
    let service = ProcessFacts { systemd_unit: Some("ssh.service"), cgroup: unit, ..base };
    assert_eq!(name(&service), "ssh");
    assert_eq!(text(&resources.attributes(&service), "process.linux.cgroup"), "/system.slice/ssh.service");
    assert_eq!(name(&ProcessFacts { systemd_unit: Some("session-3.scope"), ..base }), "sshd");
    assert_eq!(name(&ProcessFacts { exe: b"", comm: "kworker/0:1", ..base }), "kworker/0:1");
    // Whoever knows less of it later need not say it again, even if the process could not be read.
    resources.learn(&ProcessFacts { pid: u32::MAX, ..service });
    let later = ProcessFacts { pid: u32::MAX, ..base };
    assert_eq!((resources.stats().gone, name(&later).as_str()), (1, "ssh"));
    assert_eq!(text(&resources.attributes(&later), "process.linux.cgroup"), "/system.slice/ssh.service");
    // The unit of a container is its runtime's.
    let container =
        ProcessFacts { container_id: Some("c0ffee"), systemd_unit: Some("docker.service"), cgroup: unit, ..base };
    assert_eq!(name(&container), "sshd");
    assert_eq!(resources.attributes(&container).get("process.linux.cgroup"), None);
    let built = ProcessFacts { build_id_gnu: Some("ab12"), ..base };
    assert_eq!(text(&resources.attributes(&built), "process.executable.build_id.gnu"), "ab12");
}

#[test]
fn the_machine_says_who_it_is() {
    let shared = start().shared();
    let uname = |flag: &str| {
        let out = Command::new("uname").arg(flag).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(text(&shared, "host.name"), uname("-n"));
    assert_eq!(text(&shared, "os.build_id"), uname("-r"));
    assert_eq!(text(&shared, "os.type"), "linux");
    let arch = if uname("-m") == "x86_64" { "amd64" } else { "arm64" };
    assert_eq!(text(&shared, "host.arch"), arch);
    // The shell reads os-release as its authors meant it to be read.
    let out =
        Command::new("/bin/sh").args(["-c", ". /etc/os-release; echo \"$NAME|$VERSION_ID|$PRETTY_NAME\""]).output();
    if let Ok(out) = out
        && fs::exists("/etc/os-release").unwrap()
    {
        let said = ["os.name", "os.version", "os.description"].map(|key| text(&shared, key));
        assert_eq!(said.join("|"), String::from_utf8(out.stdout).unwrap().trim());
    }
    if let Ok(id) = fs::read_to_string("/etc/machine-id") {
        assert_eq!(text(&shared, "host.id"), id.trim());
    }
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let bad = |change: fn(&mut ResourceOptions)| {
        let mut chosen = options();
        change(&mut chosen);
        Resources::start(chosen).map(drop).unwrap_err().to_string()
    };
    assert!(bad(|o| drop(o.labels.insert("a b".into(), "c".into()))).contains("\"a b\" cannot be the key"));
    assert!(bad(|o| drop(o.attributes.insert("a".into(), "\n".into()))).contains("\"a\" has no value"));
    assert!(bad(|o| o.environment_variables.push("A=B".into())).contains("\"A=B\" cannot be the name"));
}

#[test]
fn a_thousand_short_processes_stay_within_the_budget() {
    let mut chosen = options();
    chosen.max_bytes = 20_000;
    let resources = Resources::start(chosen).unwrap();
    let shell = Shell::new(&[("OTEL_SERVICE_NAME", "many")]);
    for image in 1..1000 {
        resources.learn(&ProcessFacts { image, ..shell.facts() });
    }
    let stats = resources.stats();
    assert!(stats.bytes <= 20_000 && stats.processes > 10, "{stats:?}");
    assert_eq!(stats.processes as u64 + stats.evicted, 999);
    assert_eq!(text(&resources.attributes(&ProcessFacts { image: 999, ..shell.facts() }), "service.name"), "many");
}

#[test]
fn a_process_without_environment_is_named_by_its_program() {
    let mut command = Command::new("/bin/sh");
    command.arg0("x".repeat(4096)).args(["-c", "echo ready; read line"]).env_clear();
    let shell = Shell::of(&mut command);
    let resources = start();
    resources.learn(&shell.facts());
    assert_eq!(resources.stats().learned, 1);
    assert_eq!(text(&resources.attributes(&shell.facts()), "service.name"), program(&shell.facts()));
}
