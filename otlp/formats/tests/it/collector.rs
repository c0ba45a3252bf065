//! OTLP files through the OpenTelemetry Collector's own data model (`integration/pdata`).

use std::{path::PathBuf, process::Command};

use profiler_formats::{format, otlp};
use profiler_model::{FrameKind, Label, LabelValue, Link, Profile, Profiles, Sample, Values};
use profiler_need::{find, have_tools};
use serde_json::{Value, json};

use crate::profiles::{head, samples};

/// What the Collector's data model prints of a request, a file of this name; `None` without Go.
fn pdata(name: &str, request: &[u8], arguments: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, request).unwrap();
    let module = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../integration/pdata");
    if !have_tools("the Collector's data model", &["go"]) {
        return None;
    }
    let go = find("go").unwrap();
    let mut command = Command::new(go);
    let output = command.args(["run", "."]).args(arguments).arg(&file).current_dir(module).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// What the Collector sees in `request`.
fn seen(name: &str, request: &[u8]) -> Option<Vec<Value>> {
    let printed: Value = serde_json::from_slice(&pdata(name, request, &[])?).unwrap();
    Some(printed.as_array().unwrap().clone())
}

/// What the Collector sees in `profile`; `None` without Go.
fn collector(profile: &Profiles) -> Option<Vec<Value>> {
    seen("profile.otlp", &otlp::encode(profile))
}

/// A profile with all that a request can say: links, labels with units, comments, several measures.
fn rich() -> Profiles {
    let mut profile = crate::profiles::small(40);
    let mut string = |text: &str| {
        profile.strings.push(text.to_owned());
        u32::try_from(profile.strings.len() - 1).unwrap()
    };
    let label = Label { key: string("wait"), value: LabelValue::Number(-5, string("ns")) };
    profile.profiles[0].samples[3].labels.get_or_insert_default().push(label);
    profile.links = vec![Link::default(), Link { trace_id: [0xab; 16], span_id: [0x1c; 8] }];
    profile.profiles[0].samples[7].link = 1;
    profile.comments = vec!["made \"for\" a test\u{1}\u{2028}".to_owned()];
    let sample = Sample { values: Values::One(1 << 60), ..profile.profiles[0].samples[0].clone() };
    let (start_unix_nanos, duration_nanos) = (crate::profiles::START, crate::profiles::DURATION);
    let faults = Profile::of(&crate::profiles::page_faults());
    let faults = Profile { samples: vec![sample], start_unix_nanos, duration_nanos, ..faults };
    profile.profiles.push(faults);
    profile
}

#[test]
fn the_collectors_json_is_read_and_ours_is_read_by_it() {
    let profile = rich();
    let protobuf = otlp::encode(&profile);
    let Some(theirs) = pdata("profile.otlp", &protobuf, &["-json"]) else { return };
    let read = format::read(&theirs).unwrap();
    assert_eq!(samples(&read), samples(&profile));
    assert_eq!(head(&read), head(&profile));
    assert_eq!(otlp::encode(&read), otlp::encode(&otlp::decode(&protobuf).unwrap()), "links and all else");

    let mut ours = Vec::new();
    otlp::encode_json_to(&profile, &mut ours).unwrap();
    assert_eq!(seen("profile.json", &ours), seen("profile.otlp", &protobuf));
    // Written again by the Collector they are the same to the byte.
    assert_eq!(pdata("profile.json", &ours, &["-json"]).unwrap(), theirs);
}

/// A sample of the model as the Go program prints it.
fn expected(profile: &Profiles, sample: &Sample) -> Value {
    let thread = &profile.threads[sample.thread.unwrap() as usize];
    let mut frames = Vec::new();
    for &id in profile.stack(sample.stack) {
        let location = profile.location(id).unwrap();
        let mapping = location.mapping.map(|id| &profile.mappings[id as usize]);
        let mut ids = json!({});
        if let Some(mapping) = mapping {
            let gnu = profile.string(mapping.build_id_gnu);
            if !gnu.is_empty() {
                ids["process.executable.build_id.gnu"] = gnu.into();
                ids["process.executable.build_id.htlhash"] = profile.string(mapping.build_id_htlhash).into();
            }
        }
        let kind = match location.kind {
            FrameKind::Kernel => "kernel",
            FrameKind::Marker => "abort-marker",
            _ => "native",
        };
        let mut attributes = json!({ "profile.frame.type": kind });
        if location.kind == FrameKind::Jit {
            attributes["profiler.frame.jit"] = true.into();
        }
        let frame = |function: &str, file: &str, line: u32| {
            json!({
                "function": function,
                "file": file,
                "line": line,
                "address": location.address,
                "mapping": mapping.map_or("", |mapping| profile.string(mapping.file)),
                "mapping_ids": ids,
                "attributes": attributes,
            })
        };
        if location.lines.is_empty() {
            frames.push(frame("", "", 0));
        }
        for line in &location.lines {
            let function = profile.function(line.function).unwrap();
            frames.push(frame(profile.string(function.name), profile.string(function.file), line.line));
        }
    }
    json!({
        "frames": frames,
        "attributes": {
            "thread.id": thread.tid,
            "thread.name": profile.string(thread.name),
            "cpu.logical_number": sample.cpu.unwrap(),
        },
        "time": sample.time_unix_nanos.unwrap(),
        "value": 1,
    })
}

#[test]
fn the_collector_sees_every_sample() {
    let profile = crate::profiles::small(1200);
    let Some(mut resources) = collector(&profile) else { return };
    assert_eq!(resources.len(), 2);
    resources.sort_by_key(|resource| resource["attributes"]["process.pid"].as_u64());
    for (resource, pid) in resources.iter_mut().zip([100, 200]) {
        let of_process = |sample: &&Sample| {
            let process = profile.process_of(sample).unwrap();
            profile.process(process).unwrap().pid == Some(pid)
        };
        let mut expected: Vec<String> = profile.profiles[0]
            .samples
            .iter()
            .filter(of_process)
            .map(|sample| expected(&profile, sample).to_string())
            .collect();
        let mut found = Vec::new();
        for sample in resource["samples"].as_array_mut().unwrap() {
            // A stand-in identifies the mapping that has no build id.
            for frame in sample["frames"].as_array_mut().unwrap() {
                if frame["mapping"] == "//anon" {
                    let ids = frame["mapping_ids"].as_object_mut().unwrap();
                    assert_eq!(ids.remove("process.executable.build_id.htlhash").unwrap().as_str().unwrap().len(), 32);
                }
            }
            found.push(sample.to_string());
        }
        expected.sort();
        found.sort();
        assert_eq!(expected, found);
        assert_eq!(resource["sample_type"], "samples/count");
        assert_eq!(resource["period_type"], "cpu/nanoseconds");
        assert_eq!(resource["period"], profile.profiles[0].period);
        assert_eq!(resource["time"], profile.profiles[0].start_unix_nanos);
        assert_eq!(resource["duration"], profile.profiles[0].duration_nanos);
        assert_eq!(resource["scope"], "profiler 0.1.0");
        assert_eq!(
            resource["scope_attributes"],
            json!({
                "profiler.cpus": 2,
                "profiler.frequency": 99,
                "profiler.target": "all processes",
                "profiler.loss.lost: ring full": 3,
            })
        );
    }
    assert_eq!(
        resources[0]["attributes"],
        json!({
            "process.pid": 100,
            "process.creation.time": "2026-11-23T12:46:54.999999995Z",
            "process.executable.name": "server",
            "process.executable.path": "/usr/bin/server",
            "container.id": "f".repeat(64),
            "service.name": "server",
            "host.name": "alder",
            "host.arch": "amd64",
            "os.type": "linux",
            "os.build_id": "6.18.0",
        })
    );
    assert_eq!(resources[1]["attributes"]["service.name"], "sh");
}
