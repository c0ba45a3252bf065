//! Attributes of resources, through OTLP and back: types, what all processes share, and who wins.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use profiler_formats::{otlp, pprof};
use profiler_model::{AttributeValue, Process, Profiles, Sample, Thread, builder::ProfileBuilder};

/// Two processes with a sample each, attributes of all types, some shared.
fn profile() -> Profiles {
    let mut builder = crate::profiles::recording();
    let text = |builder: &mut ProfileBuilder, key: &str, value: &str| {
        (builder.string(key), AttributeValue::Text(builder.string(value)))
    };
    let stack = builder.stack(&[]);
    for pid in [7, 8] {
        let pod = text(&mut builder, "k8s.pod.name", &format!("web-{pid}"));
        let service = text(&mut builder, "service.name", "shop");
        let tags = (builder.string("container.image.tags"), vec![builder.string("1.2"), builder.string("latest")]);
        let restarts = (builder.string("k8s.container.restart_count"), AttributeValue::Integer(pid.into()));
        let attributes = vec![pod, service, (tags.0, AttributeValue::Texts(tags.1)), restarts];
        let process = builder.process(Process { pid: Some(pid), attributes, ..Process::default() });
        let thread = builder.thread(Thread { process, tid: pid, name: 0 });
        let sample =
            Sample { stack, thread: Some(thread), time_unix_nanos: Some(crate::profiles::START), ..Sample::default() };
        builder.profile_mut().samples.push(sample);
    }
    let shared = vec![
        text(&mut builder, "host.id", "3d1219c7c4c5404aaa1f6d2a48adfda4"),
        text(&mut builder, "os.name", "Debian GNU/Linux"),
        text(&mut builder, "os.version", "12"),
        text(&mut builder, "cloud.region", "eu-west-1"),
    ];
    builder.set_mut().resource_attributes = shared;
    builder.finish()
}

fn spelled(profile: &Profiles, attributes: &[(u32, AttributeValue)]) -> Vec<String> {
    let one = |(key, value): &(u32, AttributeValue)| match value {
        AttributeValue::Text(id) => format!("{}={:?}", profile.string(*key), profile.string(*id)),
        AttributeValue::Integer(number) => format!("{}={number}", profile.string(*key)),
        AttributeValue::Texts(ids) => {
            let texts: Vec<_> = ids.iter().map(|&id| profile.string(id)).collect();
            format!("{}={texts:?}", profile.string(*key))
        }
    };
    attributes.iter().map(one).collect()
}

#[test]
fn typed_and_shared_attributes_come_back_from_otlp() {
    let profile = profile();
    assert!(otlp::check(&otlp::encode(&profile)).is_empty());
    let again = otlp::decode(&otlp::encode(&profile)).unwrap();
    assert_eq!(
        spelled(&again, &again.resource_attributes),
        [
            r#"host.id="3d1219c7c4c5404aaa1f6d2a48adfda4""#,
            r#"os.name="Debian GNU/Linux""#,
            r#"os.version="12""#,
            r#"cloud.region="eu-west-1""#
        ]
    );
    assert_eq!((again.origin.host_name.as_str(), again.origin.kernel_release.as_str()), ("alder", "6.18.0"));
    for (process, pid) in again.processes.iter().zip([7, 8]) {
        assert_eq!(
            spelled(&again, &process.attributes),
            [
                format!(r#"k8s.pod.name="web-{pid}""#),
                r#"service.name="shop""#.to_owned(),
                r#"container.image.tags=["1.2", "latest"]"#.to_owned(),
                format!("k8s.container.restart_count={pid}")
            ]
        );
    }
    assert_eq!(otlp::encode(&again), otlp::encode(&profile));
}

#[test]
fn pprof_keeps_the_text_of_all_attributes() {
    let profile = profile();
    let mut bytes = Vec::new();
    pprof::encode(&profile, &mut bytes).unwrap();
    let again = pprof::decode(&bytes).unwrap();
    assert_eq!(spelled(&again, &again.resource_attributes), spelled(&profile, &profile.resource_attributes));
    assert_eq!(
        spelled(&again, &again.processes[0].attributes),
        [
            r#"k8s.pod.name="web-7""#,
            r#"service.name="shop""#,
            r#"container.image.tags="1.2,latest""#,
            r#"k8s.container.restart_count="7""#
        ]
    );
}

#[test]
fn a_resource_says_each_key_once_and_the_process_wins() {
    let mut profile = profile();
    let mut builder = ProfileBuilder::new();
    let own: Vec<_> = [("host.name", "fake"), ("cloud.region", "own"), ("process.pid", "1"), ("", "x"), ("empty", "")]
        .iter()
        .map(|(key, value)| (builder.string(key), builder.string(value)))
        .collect();
    let offset = profile.strings.len() as u32;
    profile.strings.extend(builder.finish().strings);
    profile.processes[0].attributes =
        own.iter().map(|&(key, value)| (key + offset, AttributeValue::Text(value + offset))).collect();
    let request = otlp::request(&profile);
    let attributes = &request.resource_profiles[0].resource.as_ref().unwrap().attributes;
    let value = |key: &str| -> Vec<_> {
        attributes.iter().filter(|pair| pair.key == key).map(|pair| pair.value.clone().unwrap().value).collect()
    };
    let text = |text: &str| Some(Value::StringValue(text.to_owned()));
    assert_eq!(value("host.name"), [text("fake")]);
    assert_eq!(value("cloud.region"), [text("own")]);
    assert_eq!(value("process.pid"), [Some(Value::IntValue(7))]);
    assert_eq!((value(""), value("empty")), (vec![], vec![]));
    // What differs from process to process stays with them.
    let again = otlp::decode(&otlp::encode(&profile)).unwrap();
    assert_eq!(again.origin.host_name, "fake");
    assert!(spelled(&again, &again.processes[1].attributes).contains(&r#"host.name="alder""#.to_owned()));
    assert!(spelled(&again, &again.processes[0].attributes).contains(&r#"cloud.region="own""#.to_owned()));
    assert_eq!(
        crate::profiles::samples(&otlp::decode(&otlp::encode(&again)).unwrap()),
        crate::profiles::samples(&again)
    );
}
