//! Rules of the agent: they change while it runs, a wrong set changes nothing, and what they remove is nowhere.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::profiles::v1development::Sample;
use profiler_formats::otlp::ExportProfilesServiceRequest;
use profiler_integration::agent::{Agent, Configuration, Home, otlp_exporter};
use profiler_integration::children::{self, Running};
use profiler_integration::collector::Protocol;
use profiler_integration::environment::{have_root, have_tools, one_at_a_time};
use profiler_integration::programs;
use profiler_integration::proof::HERTZ;
use profiler_integration::receiver::Receiver;
use profiler_integration::recording::folder;
use profiler_integration::seen::{plain, seen};
use prost::Message;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(90);

fn load(program: &Path, ms: u32, service: &str) -> Running {
    let mut command = Command::new(program);
    command.args(["--ms", &ms.to_string()]).env("OTEL_SERVICE_NAME", service);
    command.env("OTEL_RESOURCE_ATTRIBUTES", format!("team=team-of-{service}"));
    children::start(&mut command).expect("it starts")
}

fn until(what: &str, agent: &Agent, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what} does not come:\n{}", agent.log());
        sleep(Duration::from_millis(100));
    }
}

/// What the resources of all samples say under `rules`, once each.
fn sets(request: &ExportProfilesServiceRequest) -> Vec<String> {
    let mut sets: Vec<_> = seen([request]).iter().map(|one| plain(&one.resource, "rules").to_owned()).collect();
    sets.dedup();
    sets.sort_unstable();
    sets.dedup();
    sets
}

#[test]
fn root_rules_change_live_and_a_wrong_set_changes_nothing() {
    let test = "root_rules_change_live_and_a_wrong_set_changes_nothing";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let rules = |set: &str, second: &str| {
        let mut configuration = Configuration::new(HERTZ.into(), &["shares"], String::new());
        configuration.more = format!(
            "limits: {{cpu: 100%}}\nprocessors:\n- transform:\n    profile_statements:\n    \
             - set(resource.attributes[\"rules\"], \"{set}\")\n    - {second}\n"
        );
        configuration
    };
    let fails = "set(profile.duration, -1)";
    let mut agent = Agent::start(&rules("1", fails)).unwrap();
    agent.wait("sampling", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.0).unwrap();
    let load = load(&programs::c("shares").build().unwrap(), 600_000, "shop");
    let has = |agent: &Agent, set: &str, more_than: usize| {
        let record = agent.home().record().unwrap();
        record.iter().filter(|request| sets(request).contains(&set.to_owned())).count() > more_than
    };
    until("the first set", &agent, || has(&agent, "1", 0));
    for set in ["2", "3", "4"] {
        agent.home().configure(&rules(set, fails)).unwrap();
        agent.signal(Signal::HUP);
        until("the next set", &agent, || has(&agent, set, 0));
    }
    let errors = [("processor", "transform"), ("rule", "profile_statements[1]")];
    agent.wait("errors", PATIENCE, |now| now.sum("profiler_rules_errors_total", &errors) > 0.0).unwrap();
    let ran = [("processor", "transform"), ("rule", "profile_statements[0]")];
    agent.wait("matches", PATIENCE, |now| now.sum("profiler_rules_matched_total", &ran) > 0.0).unwrap();
    assert!(agent.log().contains("A rule failed, and was passed over"), "{}", agent.log());

    // Told with its place and the nearest name; the set before it goes on.
    agent.home().configure(&rules("5", "set(profile.period, Nw())")).unwrap();
    agent.signal(Signal::HUP);
    until("a refusal", &agent, || agent.log().contains("the running one stays"));
    let log = agent.log();
    for words in ["agent.yaml:", "processors[0].transform.profile_statements[1]", "did you mean Now?", "column 21"] {
        assert!(log.contains(words), "no {words:?} in\n{log}");
    }
    let before = agent.home().record().unwrap().iter().filter(|request| sets(request) == ["4"]).count();
    until("windows after the refusal", &agent, || has(&agent, "4", before + 1));

    // What waits when it ends has some seconds, which are not the subject here.
    drop(load);
    until("what was sampled", &agent, || {
        let kept = seen(&agent.home().record().unwrap()).len();
        agent.metrics().is_ok_and(|now| now.sum("profiler_samples_total", &[]) <= kept as f64)
    });
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let record = home.record().unwrap();
    let mut last = "1".to_owned();
    for request in &record {
        // A window is of one set, and none is without.
        let [set] = sets(request).try_into().unwrap_or_else(|sets| panic!("a window is of {sets:?}"));
        assert!(set >= last && ["1", "2", "3", "4"].contains(&set.as_str()), "{set} after {last}");
        last = set;
    }
    let ended = log.lines().find(|line| line.contains("The agent has ended")).expect("it has ended");
    let taken = ended.split("samples=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    let kept = seen(&record).len();
    println!("{test}: {kept} samples in {} windows and parts", record.len());
    assert_eq!(Some(kept), taken, "{ended}");
}

/// The samples of all profiles of `requests`, which count samples.
fn counted(requests: &[ExportProfilesServiceRequest]) -> i64 {
    let resources = requests.iter().flat_map(|request| &request.resource_profiles);
    let profiles = resources.flat_map(|of| &of.scope_profiles).flat_map(|of| &of.profiles);
    let of_sample = |sample: &Sample| match sample.values.as_slice() {
        [] => sample.timestamps_unix_nano.len() as i64,
        values => values.iter().sum(),
    };
    profiles.flat_map(|profile| &profile.samples).map(of_sample).sum()
}

#[test]
fn root_what_is_aggregated_is_worth_what_was_sampled() {
    let test = "root_what_is_aggregated_is_worth_what_was_sampled";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let mut configuration = Configuration::new(HERTZ.into(), &["shares"], String::new());
    configuration.more = r#"limits: {cpu: 100%}
processors:
- transform:
    error_mode: propagate
    profile_statements:
    - keep_keys(resource.attributes, ["service.name"])
    - set(profilesample.attributes, {})
- aggregate: {drop_timestamps: true, other_below: 1%}
"#
    .to_owned();
    let mut agent = Agent::start(&configuration).unwrap();
    agent.wait("sampling", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.0).unwrap();
    let program = programs::c("shares").build().unwrap();
    let loads = [load(&program, 600_000, "shop"), load(&program, 600_000, "shop")];
    let merged = [("processor", "aggregate"), ("rule", "merged")];
    agent.wait("merges", PATIENCE, |now| now.sum("profiler_rules_matched_total", &merged) > 0.0).unwrap();
    until("windows", &agent, || agent.home().record().is_ok_and(|record| record.len() > 2));
    drop(loads);
    until("what was sampled", &agent, || {
        let kept = agent.home().record().map_or(0, |record| counted(&record));
        agent.metrics().is_ok_and(|now| now.sum("profiler_samples_total", &[]) <= kept as f64)
    });
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{status}\n{log}");
    let record = home.record().unwrap();
    let ended = log.lines().find(|line| line.contains("The agent has ended")).expect("it has ended");
    let taken = ended.split("samples=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok());
    assert_eq!(Some(counted(&record)), taken, "{ended}");
    for request in &record {
        // Two processes are one service, and nothing else tells samples apart but their stacks.
        assert!(request.resource_profiles.len() <= 1, "{:?}", sets(request));
        let profiles = request.resource_profiles.iter().flat_map(|of| &of.scope_profiles).flat_map(|of| &of.profiles);
        for profile in profiles {
            let mut stacks: Vec<_> = profile.samples.iter().map(|sample| sample.stack_index).collect();
            stacks.sort_unstable();
            stacks.dedup();
            assert_eq!(stacks.len(), profile.samples.len(), "a stack is there twice");
            assert!(profile.samples.iter().all(|sample| sample.timestamps_unix_nano.is_empty()));
        }
    }
    println!("{test}: {} samples in {} windows", counted(&record), record.len());
}

#[test]
fn root_frames_are_renamed_and_samples_go_by_their_frames() {
    let test = "root_frames_are_renamed_and_samples_go_by_their_frames";
    if !have_root(test) {
        return;
    }
    let _one = one_at_a_time();
    let mut configuration = Configuration::new(HERTZ.into(), &["shares"], String::new());
    configuration.more = r#"limits: {cpu: 100%}
processors:
- filter:
    error_mode: propagate
    sample_conditions: ['IsMatch(frame.function, "^hot_b")']
- transform:
    error_mode: propagate
    profile_statements:
    - set(frame.function, "renamed") where frame.function == "hot_a"
    - set(profilesample.attributes["tagged"], true) where frame.function == "hot_d"
    - set(stack.depth, 6)
"#
    .to_owned();
    let mut agent = Agent::start(&configuration).unwrap();
    agent.wait("sampling", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.0).unwrap();
    let load = load(&programs::c("shares").build().unwrap(), 600_000, "shop");
    let filtered = [("processor", "filter"), ("reason", "condition")];
    agent.wait("filtered samples", PATIENCE, |now| now.sum("profiler_filtered_total", &filtered) > 0.0).unwrap();
    let has = |request: &ExportProfilesServiceRequest, word: &str| {
        request.encode_to_vec().windows(word.len()).any(|bytes| bytes == word.as_bytes())
    };
    until("what rules made", &agent, || {
        let record = agent.home().record().unwrap_or_default();
        ["renamed", "tagged", "hot_c"].iter().all(|word| record.iter().any(|request| has(request, word)))
    });
    drop(load);
    let all = |agent: &Agent| {
        let kept = agent.home().record().map_or(0, |record| counted(&record)) as f64;
        agent
            .metrics()
            .is_ok_and(|now| now.sum("profiler_samples_total", &[]) <= kept + now.sum("profiler_filtered_total", &[]))
    };
    until("what was sampled", &agent, || all(&agent));
    let failed = agent.metrics().unwrap().sum("profiler_rules_errors_total", &[]);
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success() && failed == 0.0, "{failed} {status}\n{log}");
    for request in home.record().unwrap() {
        for gone in ["hot_a", "hot_b"] {
            assert!(!has(&request, gone), "{gone}");
        }
        let deepest =
            request.dictionary.iter().flat_map(|of| &of.stack_table).map(|stack| stack.location_indices.len());
        assert!(deepest.max() <= Some(7), "six frames and what says that others are cut");
    }
}

/// What is in `folder` and all below it, but for the configuration. Of the log, what is said of rules: what cannot be read of a process is said by its name.
fn bytes(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes(&path, into)?;
        } else if !path.to_string_lossy().contains("agent.yaml") {
            let mut bytes = fs::read(&path)?;
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = String::from_utf8_lossy(&bytes);
                bytes = log.lines().filter(|line| line.contains("A rule")).collect::<Vec<_>>().join("\n").into_bytes();
            }
            into.push((path.display().to_string(), bytes));
        }
    }
    Ok(())
}

/// Where everything is that leaves an agent.
const PLACES: [&str; 3] = ["/record/", "/spool/", "sent"];

/// What lies in the folder of an agent and what it has sent; none while something of it is being written.
fn traces(home: &Home, receiver: &Receiver) -> Option<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    bytes(home.path(), &mut all).ok()?;
    all.extend(receiver.requests().ok()?.iter().map(|request| ("sent".to_owned(), request.encode_to_vec())));
    Some(all)
}

/// Which of `traces` have `text`.
fn where_is(traces: &[(String, Vec<u8>)], text: &str) -> Vec<String> {
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    traces.iter().filter(|(_, bytes)| has(bytes)).map(|(path, _)| path.clone()).collect()
}

/// Everything that left an agent with `processors`, or lies in its folder, when each of `texts` was in all of [`PLACES`].
fn traces_with(test: &str, processors: &str, programs: &Path, texts: &[&str]) -> Vec<(String, Vec<u8>)> {
    let receiver = Receiver::start(Protocol::Http, "", None).unwrap();
    let home = Home::new().unwrap();
    let spool =
        format!("    compression: none\n    spool: {{directory: {}/spool, max_size: 64MiB}}\n", home.path().display());
    // Nobody listens at the second.
    let exporters = otlp_exporter("sent", &receiver.endpoint(), "http/protobuf", "    compression: none\n")
        + &otlp_exporter("kept", "http://127.0.0.1:1", "http/protobuf", &spool);
    let mut configuration = Configuration::new(HERTZ.into(), &["shares", "dropped-7f3a"], exporters);
    configuration.more = format!("limits: {{cpu: 100%}}\n{processors}");
    let mut agent = home.start(&configuration, &[]).unwrap();
    agent.wait("sampling", PATIENCE, |now| now.sum("profiler_sampling", &[]) > 0.0).unwrap();
    let loads = [("shares", "secret-7f3a"), ("dropped-7f3a", "other-7f3a")]
        .map(|(program, service)| load(&programs.join(program), 600_000, service));
    if !processors.is_empty() {
        // What is sampled before the rule was asked is dropped with its window, and nothing is sampled from then on.
        for reason in ["condition", "before unwinding"] {
            let filtered = [("processor", "filter"), ("reason", reason)];
            agent.wait(reason, PATIENCE, |now| now.sum("profiler_filtered_total", &filtered) > 0.0).unwrap();
        }
    }
    until("what is looked for", &agent, || {
        traces(agent.home(), &receiver).is_some_and(|traces| {
            texts.iter().all(|text| {
                let found = where_is(&traces, text);
                PLACES.iter().all(|place| found.iter().any(|path| path.contains(place)))
            })
        })
    });
    drop(loads);
    let (home, status, log) = agent.stop().unwrap();
    assert!(status.success(), "{test}: {status}\n{log}");
    let all = traces(&home, &receiver).expect("readable");
    if !processors.is_empty() {
        let told = all.iter().any(|(path, bytes)| path.contains(".log") && !bytes.is_empty());
        assert!(told, "{test}: nothing is said of rules\n{log}");
    }
    all
}

#[test]
fn root_what_rules_remove_is_nowhere() {
    let test = "root_what_rules_remove_is_nowhere";
    if !have_root(test) || !have_tools(test, &["go"]) {
        return;
    }
    let _one = one_at_a_time();
    let place = folder().unwrap();
    children::copy_program(&programs::c("shares").build().unwrap(), &place.path().join("shares")).unwrap();
    children::copy_program(&programs::c("crowd").build().unwrap(), &place.path().join("dropped-7f3a")).unwrap();
    let rules = r#"processors:
- filter:
    profile_conditions: ['IsMatch(resource.attributes["process.executable.name"], "^dropped")']
- transform:
    profile_statements:
    - context: resource
      conditions: ['IsMatch(attributes["service.name"], "^secret")']
      statements:
      - set(attributes["year"], Time(attributes["service.name"], "%Y"))
      - set(attributes["service.name"], "hidden")
      - delete_key(attributes, "team")
"#;
    let removed = ["secret-7f3a", "team-of-secret", "other-7f3a", "dropped-7f3a"];
    // Without rules it is everywhere.
    traces_with(test, "", place.path(), &removed);
    let with = traces_with(test, rules, place.path(), &["hidden"]);
    for text in removed {
        assert_eq!(where_is(&with, text), Vec::<String>::new(), "{test}: {text}");
    }
}
