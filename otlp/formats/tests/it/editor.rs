//! What an editor removes is in no format.

use std::io::Read;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use profiler_formats::{
    format::{self, Format},
    otlp, pprof,
};
use profiler_model::{
    DROPPED, Editor, Function, LabelValue, Line, Location, Process, Profiles, Sample, Thread, Value, attribute,
    builder::ProfileBuilder,
};
use proptest::{prelude::*, sample::select};

use crate::profiles::{recording, samples};

const SECRET: &str = "secret-7d1f-of-the-target";
const PID: u32 = 777_123_456;

/// Two processes with all that one can have, a shared attribute, a sample each.
fn built() -> ProfileBuilder {
    let mut b = recording();
    let secret = b.string(SECRET);
    for pid in [PID, 5] {
        let name = b.string(if pid == 5 { "other" } else { SECRET });
        let owner = (b.string("process.owner"), profiler_model::AttributeValue::Texts(vec![secret]));
        let process = b.process(Process {
            pid: Some(pid),
            start_unix_nanos: 1_234_567_890_123_456_789,
            name,
            executable: name,
            container_id: name,
            attributes: if pid == 5 { Vec::new() } else { vec![owner] },
        });
        let thread = b.thread(Thread { process, tid: 9, name: 0 });
        let function = b.function(Function { name, ..Function::default() });
        let lines = vec![Line { function, line: 1, column: 0 }];
        let location = b.location(Location { lines, address: u64::from(pid), ..Location::default() });
        let stack = b.stack(&[location]);
        b.profile_mut().samples.push(Sample { stack, thread: Some(thread), ..Sample::default() });
    }
    b
}

/// What a file of each format says, inflated where it is compressed; of the page what its data says.
fn bytes(profile: &Profiles) -> Vec<(Format, Vec<u8>)> {
    let inflated = |bytes: &[u8]| {
        let mut raw = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut raw).unwrap();
        raw
    };
    let one = |format| {
        let mut out = Vec::new();
        format::write(profile, format, &mut out).unwrap();
        match format {
            Format::Html => {
                let page = String::from_utf8(out).unwrap();
                let block = page.split("id=\"profile\">").nth(1).unwrap().split('<').next().unwrap();
                (format, inflated(&BASE64_STANDARD.decode(block).unwrap()))
            }
            _ if out.starts_with(&[0x1f, 0x8b]) => (format, inflated(&out)),
            _ => (format, out),
        }
    };
    Format::all().map(one).collect()
}

/// The formats that say `text`.
fn holding(profile: &Profiles, text: &str) -> Vec<Format> {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    bytes(profile).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(format, _)| format).collect()
}

/// Whether `text` is in the profile or in any format.
fn holds(profile: &Profiles, text: &str) -> bool {
    format!("{profile:?}").contains(text) || !holding(profile, text).is_empty()
}

fn value(profile: &Profiles, process: u32, key: &str) -> Option<String> {
    let resource = profile.resource(Some(process));
    resource.into_iter().find(|(known, _)| *known == key).map(|(_, value)| format!("{value:?}"))
}

#[test]
fn what_is_removed_or_replaced_is_gone_from_every_format() {
    let untouched = Editor::new(built()).finish();
    // It can be seen in each format, so that it would be seen where it was left.
    assert_eq!(holding(&untouched, SECRET), Format::all().collect::<Vec<_>>());
    assert!(holds(&untouched, &PID.to_string()));
    let mut editor = Editor::new(built());
    editor.remove_attribute(Some(0), attribute::PROCESS_PID);
    editor.remove_attribute(Some(0), attribute::CONTAINER_ID);
    editor.remove_attribute(Some(0), "process.owner");
    editor.set_attribute(Some(0), attribute::PROCESS_EXECUTABLE_PATH, &"/bin/x".into());
    editor.set_attribute(Some(0), attribute::PROCESS_EXECUTABLE_NAME, &"x".into());
    editor.rename_function(0, "hidden");
    let edited = editor.finish();
    assert!(!holds(&edited, SECRET));
    assert_eq!(value(&edited, 0, attribute::PROCESS_PID), None);
    assert_eq!(edited.process(0).unwrap().pid, None);
    assert_eq!(otlp::check(&otlp::encode(&edited)), []);
    let again = otlp::decode(&otlp::encode(&edited)).unwrap();
    assert_eq!(samples(&again), samples(&edited));
    assert_eq!(value(&edited, 1, attribute::PROCESS_PID), value(&untouched, 1, attribute::PROCESS_PID));
}

#[test]
fn a_field_takes_what_it_has_no_type_for() {
    let mut editor = Editor::new(built());
    editor.set_attribute(Some(0), attribute::PROCESS_PID, &"none of your business".into());
    editor.set_attribute(Some(0), attribute::CONTAINER_ID, &Value::Integer(4));
    let edited = editor.finish();
    assert_eq!(value(&edited, 0, attribute::PROCESS_PID).unwrap(), r#"Text("none of your business")"#);
    assert_eq!(value(&edited, 0, attribute::CONTAINER_ID).unwrap(), "Integer(4)");
    let request = otlp::request(&edited);
    let resource = request.resource_profiles[0].resource.as_ref().unwrap();
    assert_eq!(resource.attributes.iter().filter(|pair| pair.key == attribute::PROCESS_PID).count(), 1);
}

#[test]
fn what_is_shared_is_kept_by_the_others() {
    let mut editor = Editor::new(built());
    editor.set_attribute(None, "cloud.region", &"eu-west-1".into());
    editor.remove_attribute(Some(0), "cloud.region");
    editor.remove_attribute(Some(0), attribute::HOST_NAME);
    let edited = editor.finish();
    for key in ["cloud.region", attribute::HOST_NAME] {
        assert_eq!(value(&edited, 0, key), None, "{key}");
        assert!(value(&edited, 1, key).is_some(), "{key}");
    }
    let mut editor = Editor::new(built());
    editor.remove_attribute(None, attribute::HOST_NAME);
    assert!(!holds(&editor.finish(), "alder"));
}

#[test]
fn dropped_samples_are_a_loss_of_the_rules_name_and_leave_nothing() {
    let mut editor = Editor::new(built());
    editor.retain("no secrets", |set, _, sample| {
        let process = set.process_of(sample).and_then(|id| set.process(id));
        process.is_none_or(|process| set.string(process.name) != SECRET)
    });
    let edited = editor.finish();
    assert_eq!(edited.sample_entries(), 1);
    assert!(!holds(&edited, SECRET) && !holds(&edited, &PID.to_string()));
    let loss = edited.losses.iter().find(|loss| loss.reason == format!("{DROPPED}no secrets"));
    assert_eq!(loss.map(|loss| loss.count), Some(1));
}

#[test]
fn labels_are_set_and_removed() {
    let mut editor = Editor::new(built());
    let text = editor.string(SECRET);
    editor.set_label(0, 1, "tenant", LabelValue::Text(text));
    editor.set_label(0, 1, "depth", LabelValue::Number(3, 0));
    editor.remove_label(0, 1, "tenant");
    let edited = editor.finish();
    let labels = edited.profiles[0].samples[1].labels.as_ref().unwrap();
    assert_eq!((labels.len(), edited.string(labels[0].key)), (1, "depth"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_edit_of_nothing_changes_nothing(profile in crate::profiles::profile()) {
        let edited = Editor::of(profile.clone()).finish();
        prop_assert_eq!(samples(&profile), samples(&edited));
        prop_assert_eq!(crate::profiles::head(&profile), crate::profiles::head(&edited));
    }

    #[test]
    fn any_attribute_that_is_set_reads_back_and_then_goes(
        profile in crate::profiles::profile(),
        key in select(vec![
            attribute::PROCESS_PID, attribute::PROCESS_EXECUTABLE_NAME, attribute::PROCESS_EXECUTABLE_PATH,
            attribute::CONTAINER_ID, attribute::HOST_NAME, attribute::OS_BUILD_ID, "service.name", "team",
        ]),
        one in any::<bool>(),
    ) {
        let process = (one && !profile.processes.is_empty()).then_some(0);
        let mut editor = Editor::of(profile);
        editor.set_attribute(process, key, &SECRET.into());
        let set = editor.set().resource(process);
        prop_assert!(set.iter().any(|(known, value)| *known == key && *value == SECRET.into()));
        editor.remove_attribute(process, key);
        prop_assert!(editor.set().resource(process).iter().all(|(known, _)| *known != key));
        let edited = editor.finish();
        let debug = format!("{edited:?}");
        prop_assert!(!debug.contains(SECRET));
        prop_assert_eq!(otlp::check(&otlp::encode(&edited)), vec![]);
    }
}

#[test]
fn a_file_without_processes_is_given_none() {
    let mut b = ProfileBuilder::new();
    let name = b.string("work");
    let function = b.function(Function { name, ..Function::default() });
    let location = b.location(Location { lines: vec![Line { function, line: 0, column: 0 }], ..Location::default() });
    let stack = b.stack(&[location]);
    b.profile_mut().samples.push(Sample { stack, ..Sample::default() });
    let profile = b.finish();
    let mut lines = Vec::new();
    format::write(&profile, Format::Folded, &mut lines).unwrap();
    assert_eq!(String::from_utf8(lines).unwrap(), "work 1\n");
    let mut file = Vec::new();
    pprof::encode(&profile, &mut file).unwrap();
    for format in [Format::Svg, Format::Speedscope, Format::Firefox, Format::Html] {
        let mut out = Vec::new();
        format::write(&pprof::decode(&file).unwrap(), format, &mut out).unwrap();
        let text = String::from_utf8_lossy(&out);
        assert!(!text.contains("[no process]") && !text.contains("[pid 0]"), "{format}");
    }
}
