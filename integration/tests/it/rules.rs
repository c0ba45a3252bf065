//! Rules: what is said of them, and what they make of recordings and files.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    profiles::v1development::{
        KeyValueAndUnit, Profile, ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles, ValueType,
    },
    resource::v1::Resource,
};
use profiler_integration::children::{self, Finished};
use profiler_integration::environment::{have_root, one_at_a_time, profiler};
use profiler_integration::recording::folder;
use prost::Message;

const PATIENCE: Duration = Duration::from_secs(120);

/// `profiler ARGUMENTS` in `place`, which ends with `code`.
fn says(place: &Path, arguments: &[&str], code: i32) -> Finished {
    let mut command = Command::new(profiler());
    command.env_remove("SUDO_UID").env_remove("SUDO_GID").current_dir(place).args(arguments);
    let finished = children::run(&mut command, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(finished.status.code(), Some(code), "{arguments:?}\n{}\n{}", finished.stderr, finished.stdout);
    finished
}

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) })
}

/// Two resources, `shop` and `cart`; each has two samples, of the threads `main` and `worker`.
fn request() -> ExportProfilesServiceRequest {
    let strings = ["", "samples", "count", "thread.name"].map(str::to_owned);
    let row = |value| KeyValueAndUnit { key_strindex: 3, value: text(value), unit_strindex: 0 };
    let sample = |attribute| Sample { attribute_indices: vec![attribute], values: vec![3], ..Sample::default() };
    let resource = |name: &str| ResourceProfiles {
        resource: Some(Resource {
            attributes: vec![KeyValue { key: "service.name".to_owned(), value: text(name), ..KeyValue::default() }],
            ..Resource::default()
        }),
        scope_profiles: vec![ScopeProfiles {
            profiles: vec![Profile {
                sample_type: Some(ValueType { type_strindex: 1, unit_strindex: 2 }),
                samples: vec![sample(1), sample(2)],
                time_unix_nano: 1_700_000_000_000_000_000,
                duration_nano: 1_000_000_000,
                profile_id: vec![7; 16],
                ..Profile::default()
            }],
            ..ScopeProfiles::default()
        }],
        ..ResourceProfiles::default()
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![resource("shop"), resource("cart")],
        dictionary: Some(ProfilesDictionary {
            mapping_table: vec![Default::default()],
            location_table: vec![Default::default()],
            function_table: vec![Default::default()],
            link_table: vec![Default::default()],
            stack_table: vec![Default::default()],
            string_table: strings.into(),
            attribute_table: vec![KeyValueAndUnit::default(), row("main"), row("worker")],
        }),
    }
}

fn read(path: &Path) -> ExportProfilesServiceRequest {
    ExportProfilesServiceRequest::decode(fs::read(path).expect("written").as_slice()).expect("a request")
}

fn samples(request: &ExportProfilesServiceRequest) -> usize {
    let profiles = request.resource_profiles.iter().flat_map(|all| &all.scope_profiles).flat_map(|all| &all.profiles);
    profiles.map(|profile| profile.samples.len()).sum()
}

#[test]
fn rules_are_checked_with_their_places() {
    let place = folder().expect("a folder");
    let place = place.path();
    says(place, &["ottl", "check", "-s", r#"set(attributes["a"], 1)"#, "-s", "set(profilesample.values, [1])"], 0);
    let wrong = says(place, &["ottl", "check", "-s", r#"set(attributes["a"], 1)"#, "-s", "set(name."], 2);
    assert!(wrong.stderr.contains("statement 2:") && wrong.stderr.contains("column 10"), "{}", wrong.stderr);
    fs::write(place.join("rules"), "# what is ours\nset(period, 1)\n\nset(perod, 1)\nset(period, Nw())\n")
        .expect("written");
    let wrong = says(place, &["ottl", "check", "rules"], 2);
    for words in ["rules:4:", "did you mean `period`?", "rules:5:", "did you mean Now?"] {
        assert!(wrong.stderr.contains(words), "no {words:?} in {}", wrong.stderr);
    }
    // A path of an inner context, and what is on trial.
    says(place, &["ottl", "check", "--context", "resource", "-s", "set(profile.period, 1)"], 2);
    let lambda = "set(attributes[\"a\"], Any([1], (_, v) => v == 1))";
    says(place, &["ottl", "check", "-s", lambda], 2);
    says(place, &["ottl", "check", "--feature-gates", "ottl.functions.enableLambda", "-s", lambda], 0);
    says(place, &["ottl", "check", "--context", "frame", "-s", "set(period, 1)"], 2);
    says(place, &["ottl", "check"], 2);
}

#[test]
fn it_is_said_when_rules_are_decided() {
    let place = folder().expect("a folder");
    let place = place.path();
    let text = r#"
exporters: [{name: kept, files: {directory: /nowhere}}]
processors:
- filter:
    profile_conditions: ['resource.attributes["service.name"] == "batch"']
    sample_conditions: ['attributes["thread.name"] == "x"', 'UUID() == resource.attributes["a"]']
- transform:
    profile_statements: ['set(resource.attributes["team"], "web")']
- name: late
  filter:
    profile_conditions: ['resource.attributes["team"] == "web"']
"#;
    fs::write(place.join("agent.yaml"), text).expect("written");
    let said = says(place, &["ottl", "explain", "agent.yaml"], 0).stdout;
    let early = "\n  before unwinding, once a process\n";
    assert!(said.contains(&format!("filter profile_conditions[0]{early}")), "{said}");
    assert_eq!(said.matches(early).count(), 1, "{said}");
    for words in [
        "filter sample_conditions[0]\n  on each window: it reads attributes,",
        "filter sample_conditions[1]\n  on each window: it calls UUID,",
        "transform profile_statements[0]\n  on each window: it changes",
        "late profile_conditions[0]\n  on each window: transform, which runs before it,",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let shop = r#"resource.attributes["service.name"] == "shop""#;
    let said = says(place, &["ottl", "explain", "--drop", shop, "--drop", "profile.period == 1"], 0).stdout;
    // What a recording of one process decides at its end all the same.
    let early = "\n  before unwinding, once a process (by `profiler record -a`; with -p, --cgroup or a command alone, at the end)\n";
    assert_eq!(said.matches(early).count(), 1, "{said}");
    // What one of them keeps, another one must not refuse.
    let said = says(place, &["ottl", "explain", "--where", shop, "--where", "profile.period == 1"], 0).stdout;
    assert!(!said.contains("before unwinding") && said.contains("number 2 may keep something"), "{said}");
    says(place, &["ottl", "explain", "--drop", "perod == 1"], 2);
    says(place, &["ottl", "explain"], 2);
    fs::write(place.join("agent.yaml"), text.replace("UUID", "UID")).expect("written");
    says(place, &["ottl", "explain", "agent.yaml"], 2);
}

#[test]
fn rules_run_on_a_file() {
    let place = folder().expect("a folder");
    let place = place.path();
    fs::write(place.join("in.otlp"), request().encode_to_vec()).expect("written");
    let run = |arguments: &[&str], code: i32| {
        let _ = fs::remove_file(place.join("out.otlp"));
        let mut all = vec!["ottl", "run", "in.otlp", "-o", "out.otlp"];
        all.extend(arguments);
        says(place, &all, code)
    };
    let out = || read(&place.join("out.otlp"));

    // Bare or with the context's prefix.
    for path in ["attributes", "resource.attributes"] {
        run(
            &[
                "--context",
                "resource",
                "-s",
                &format!(r#"set({path}["team"], "web") where {path}["service.name"] == "shop""#),
            ],
            0,
        );
        let counts: Vec<_> =
            out().resource_profiles.iter().map(|all| all.resource.as_ref().expect("one").attributes.len()).collect();
        assert_eq!(counts, [2, 1], "{path}");
    }
    let drop = run(&["--drop", r#"profilesample.attributes["thread.name"] == "worker""#], 0);
    assert!(drop.stderr.contains("4 x profilesample, 2 dropped"), "{}", drop.stderr);
    assert_eq!(samples(&out()), 2);
    assert!(!fs::read(place.join("out.otlp")).expect("written").windows(6).any(|bytes| bytes == b"worker"));
    run(&["--where", r#"resource.attributes["service.name"] == "shop""#], 0);
    assert_eq!((out().resource_profiles.len(), samples(&out())), (1, 2));

    // What fails is an error, is told, or is nothing; nothing is written where it is an error.
    let fails = ["-s", "set(profile.duration, -1)", "-s", "set(profile.period, 5)"];
    let failed = run(&fails, 1);
    assert!(failed.stderr.contains("set(profile.duration, -1)"), "{}", failed.stderr);
    assert!(!place.join("out.otlp").exists());
    let ignored = run(&[&fails[..], &["--error-mode", "ignore"]].concat(), 0);
    assert_eq!(ignored.stderr.matches("ignored: ").count(), 2, "{}", ignored.stderr);
    let silent = run(&[&fails[..], &["--error-mode", "silent"]].concat(), 0);
    assert_eq!(silent.stderr.matches("ignored: ").count(), 0, "{}", silent.stderr);
    assert_eq!(out().resource_profiles[1].scope_profiles[0].profiles[0].period, 5);

    run(&["-s", "set(profile.period"], 2);
    run(&["--drop", r#"attributes["x"]"#], 2);
    run(&["--drop", "true", "--where", "true"], 2);
    run(&[], 2);
    says(place, &["ottl", "run", "nothing.otlp", "-o", "out.otlp", "--drop", "true"], 1);
    fs::write(place.join("broken"), [0xff; 40]).expect("written");
    says(place, &["ottl", "run", "broken", "-o", "out.otlp", "--drop", "true"], 1);
}

#[test]
fn what_rules_change_is_shown() {
    let place = folder().expect("a folder");
    let place = place.path();
    fs::write(place.join("in.otlp"), request().encode_to_vec()).expect("written");
    let set = r#"set(profilesample.attributes["thread.name"], "pool\u202e") where profilesample.attributes["thread.name"] == "main""#;
    let shown = says(place, &["ottl", "run", "in.otlp", "--diff", "-s", set], 0).stdout;
    let one = "resource 1, scope 0, profile 0, sample 0\n\
               - attributes[\"thread.name\"] = \"main\"\n+ attributes[\"thread.name\"] = \"pool\\u{202e}\"\n";
    assert!(shown.contains(one), "{shown}");
    assert_eq!(shown.lines().count(), 6, "{shown}");
    let drop = [
        "ottl",
        "run",
        "in.otlp",
        "--diff",
        "--drop",
        r#"profilesample.attributes["thread.name"] == "main" or resource.attributes["service.name"] == "cart""#,
    ];
    let shown = says(place, &drop, 0).stdout;
    assert!(shown.contains("resource 0, scope 0, profile 0, sample 0 is gone\n- values = [3]\n"), "{shown}");
    assert!(shown.contains("resource 1 is gone\n- attributes[\"service.name\"] = \"cart\"\n"), "{shown}");
    assert!(!shown.contains("sample 1"), "{shown}");
    let unchanged = says(place, &["ottl", "run", "in.otlp", "--diff", "--drop", "false"], 0);
    assert_eq!(unchanged.stdout, "");
}

#[test]
fn root_rules_run_on_a_recording() {
    if !have_root("root_rules_run_on_a_recording") {
        return;
    }
    let _one = one_at_a_time();
    let place = folder().expect("a folder");
    let place = place.path();
    let record = ["record", "-q", "-F", "499", "-o", "in.otlp", "--", "sh", "-c"];
    let command = "sha256sum /proc/self/exe > /dev/null; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    says(place, &[&record[..], &[command]].concat(), 0);
    let recorded = read(&place.join("in.otlp"));
    assert!(samples(&recorded) > 0);
    let run = |rules: &[&str]| {
        says(place, &[&["ottl", "run", "in.otlp", "-o", "out.otlp"], rules].concat(), 0);
        read(&place.join("out.otlp"))
    };
    // What says nothing changes nothing that is referred to.
    let same = run(&["--drop", "false"]);
    assert_eq!(same.resource_profiles, recorded.resource_profiles);
    let named = run(&[
        "-s",
        r#"set(resource.attributes["service.name"], "taken away") where resource.attributes["process.pid"] > 0"#,
    ]);
    assert_eq!(samples(&named), samples(&recorded));
    let without = run(&["--where", r#"resource.attributes["process.executable.name"] != "sh""#]);
    assert!(samples(&without) < samples(&recorded), "{} of {}", samples(&without), samples(&recorded));
}

/// What is in `bytes`, or in a file of them that is compressed or holds them in another way.
fn has(place: &Path, file: &str, words: &str) -> bool {
    if !file.ends_with(".otlp") {
        says(place, &["convert", file, "-o", "looked-into.otlp"], 0);
        return has(place, "looked-into.otlp", words);
    }
    fs::read(place.join(file)).expect("written").windows(words.len()).any(|bytes| bytes == words.as_bytes())
}

#[test]
fn a_conversion_keeps_what_rules_leave() {
    let place = folder().expect("a folder");
    let place = place.path();
    fs::write(place.join("in.otlp"), request().encode_to_vec()).expect("written");
    let shop = r#"resource.attributes["service.name"] == "shop""#;
    for out in ["out.pb.gz", "out.otlp", "out.folded"] {
        let told = says(place, &["convert", "in.otlp", "-o", out, "--where", shop], 0).stderr;
        assert!(told.contains("Filtered by rules: 6 samples."), "{out}: {told}");
    }
    for out in ["out.pb.gz", "out.otlp"] {
        assert!(has(place, out, "shop") && has(place, out, "profiler.loss.filtered"), "{out}");
        assert!(has(place, out, "main") && has(place, out, "worker") && !has(place, out, "cart"), "{out}");
    }
    let folded = fs::read_to_string(place.join("out.folded")).expect("written");
    assert!(folded.contains("shop") && !folded.contains("cart"), "{folded}");

    // All in one, of which the conditions come first.
    fs::write(place.join("rules"), "# who\nset(resource.attributes[\"service.name\"], \"store\")\n").expect("written");
    let drop = r#"profilesample.attributes["thread.name"] == "worker""#;
    let told =
        says(place, &["convert", "in.otlp", "-o", "out.pb.gz", "--rules", "rules", "--where", shop, "--drop", drop], 0);
    assert!(told.stderr.contains("Filtered by rules: 9 samples."), "{}", told.stderr);
    assert!(has(place, "out.pb.gz", "store") && has(place, "out.pb.gz", "main"));
    assert!(!["shop", "cart", "worker"].iter().any(|word| has(place, "out.pb.gz", word)));

    // What says nothing changes nothing.
    says(place, &["convert", "in.otlp", "-o", "without.otlp"], 0);
    let told = says(place, &["convert", "in.otlp", "-o", "with.otlp", "--drop", "false"], 0);
    assert!(!told.stderr.contains("Filtered"), "{}", told.stderr);
    assert_eq!(read(&place.join("with.otlp")), read(&place.join("without.otlp")));
}

#[test]
fn a_conversion_runs_the_steps_of_an_agent() {
    let place = folder().unwrap();
    fs::write(place.path().join("in.otlp"), request().encode_to_vec()).unwrap();
    let steps = r#"processors:
- transform:
    profile_statements: ['delete_key(resource.attributes, "service.name")']
- filter:
    sample_conditions: ['attributes["thread.name"] == "worker"']
- aggregate: {drop_timestamps: true}
"#;
    fs::write(place.path().join("steps.yaml"), steps).unwrap();
    says(place.path(), &["convert", "in.otlp", "-o", "out.otlp", "--rules", "steps.yaml"], 0);
    let written = read(&place.path().join("out.otlp"));
    let profiles: Vec<_> =
        written.resource_profiles.iter().flat_map(|of| &of.scope_profiles).flat_map(|of| &of.profiles).collect();
    let values: Vec<_> = profiles.iter().flat_map(|profile| &profile.samples).map(|sample| &sample.values).collect();
    assert_eq!((profiles.len(), values), (1, vec![&vec![6]]));
    assert!(!has(place.path(), "out.otlp", "worker") && !has(place.path(), "out.otlp", "cart"));

    fs::write(place.path().join("steps.yaml"), "processors:\n- agregate: {}\n").unwrap();
    let refused = says(place.path(), &["convert", "in.otlp", "-o", "none.otlp", "--rules", "steps.yaml"], 2);
    assert!(refused.stderr.contains("did you mean aggregate?"), "{}", refused.stderr);
    assert!(!place.path().join("none.otlp").exists());
}

#[test]
fn wrong_rules_are_refused_before_anything_is_done() {
    let place = folder().expect("a folder");
    let place = place.path();
    fs::write(place.join("in.otlp"), request().encode_to_vec()).expect("written");
    fs::write(place.join("rules"), "set(profile.period, 1)\nset(profile.period, Nw())\n").expect("written");
    let wrong: [(&[&str], &[&str]); 3] = [
        (
            &["--where", r#"resource.atributes["a"] == 1"#],
            &["--where:", "column 1", "did you mean `resource.attributes`?"],
        ),
        (&["--drop", r#"resource.attributes["a"]"#], &["--drop:", "column"]),
        (&["--rules", "rules"], &["rules:2:", "did you mean Now?", "column 21"]),
    ];
    for (rules, words) in wrong {
        // A recording of an hour.
        let record = ["record", "-a", "-d", "1h", "-o", "out.otlp"];
        let convert = ["convert", "in.otlp", "-o", "out.otlp"];
        for command in [&record[..], &convert[..]] {
            let told = says(place, &[command, rules].concat(), 2).stderr;
            for word in words {
                assert!(told.contains(word), "no {word:?} in {told}");
            }
            assert!(!place.join("out.otlp").exists());
        }
    }
}

#[test]
fn root_a_recording_keeps_the_service_that_is_asked_for() {
    if !have_root("root_a_recording_keeps_the_service_that_is_asked_for") {
        return;
    }
    let _one = one_at_a_time();
    let place = folder().expect("a folder");
    let place = place.path();
    let services = ["shop-that-is-kept", "cart-that-is-not"];
    let _running = services.map(|service| {
        let mut command = Command::new("sh");
        command.env("OTEL_SERVICE_NAME", service).args(["-c", "while :; do :; done"]);
        children::start(&mut command).unwrap_or_else(|error| panic!("{error}"))
    });
    let keep = format!(r#"resource.attributes["service.name"] == "{}""#, services[0]);
    let told = says(
        place,
        &["record", "-a", "-F", "499", "-d", "2s", "-o", "out.otlp", "-o", "out.pb.gz", "--where", &keep],
        0,
    );
    let told = told.stderr;
    assert!(told.contains("Filtered by rules: "), "{told}");
    let recorded = read(&place.join("out.otlp"));
    assert!(samples(&recorded) > 0, "{told}");
    for resource in &recorded.resource_profiles {
        let attributes = &resource.resource.as_ref().expect("one").attributes;
        let service = attributes.iter().find(|attribute| attribute.key == "service.name").expect("a name");
        assert_eq!(service.value, text(services[0]));
    }
    for file in ["out.otlp", "out.pb.gz"] {
        assert!(has(place, file, services[0]) && !has(place, file, services[1]), "{file}");
        assert!(has(place, file, "profiler.loss.filtered"), "{file}");
    }
}
