//! The machine, the recording and its losses as comments: readable in `go tool pprof -comments`, and by us.

use profiler_model::{AttributeValue, Loss, Origin, Profiles, builder::ProfileBuilder};

const HOST: &str = "profiler.host: ";
const KERNEL: &str = "profiler.kernel: ";
const ARCH: &str = "profiler.arch: ";
const CPUS: &str = "profiler.cpus: ";
const RATE: &str = "profiler.rate_hz: ";
const TARGET: &str = "profiler.target: ";
const PRODUCER: &str = "profiler.producer: ";
const LOSS: &str = "profiler.loss: ";
const RESOURCE: &str = "profiler.resource: ";

/// The comments that say what `profile` knows of its origin and its losses, then its own.
pub(super) fn comments(profile: &Profiles) -> Vec<String> {
    let Origin { host_name, kernel_release, arch, cpus, frequency, target, producer } = &profile.origin;
    let number = |value: u32| if value == 0 { String::new() } else { value.to_string() };
    let (cpus, rate) = (number(*cpus), number(*frequency));
    let texts = [
        (HOST, host_name),
        (KERNEL, kernel_release),
        (ARCH, arch),
        (CPUS, &cpus),
        (RATE, &rate),
        (TARGET, target),
        (PRODUCER, producer),
    ]
    .into_iter()
    .filter(|(_, text)| !text.is_empty())
    .map(|(key, text)| format!("{key}{text}"));
    let losses = profile.losses.iter().map(|Loss { reason, count }| format!("{LOSS}{count} {reason}"));
    let shared = profile
        .resource_attributes
        .iter()
        .map(|(key, value)| format!("{RESOURCE}{}={}", profile.string(*key), profile.attribute_text(value)));
    texts.chain(losses).chain(shared).chain(profile.comments.iter().cloned()).collect()
}

/// Puts `comment` where it belongs in the profile.
pub(super) fn read_comment(builder: &mut ProfileBuilder, comment: &str) {
    if let Some((key, value)) = comment.strip_prefix(RESOURCE).and_then(|pair| pair.split_once('=')) {
        let pair = (builder.string(key), AttributeValue::Text(builder.string(value)));
        builder.set_mut().resource_attributes.push(pair);
        return;
    }
    let profile = builder.set_mut();
    let origin = &mut profile.origin;
    let texts = [
        (HOST, &mut origin.host_name),
        (KERNEL, &mut origin.kernel_release),
        (ARCH, &mut origin.arch),
        (TARGET, &mut origin.target),
        (PRODUCER, &mut origin.producer),
    ];
    for (key, field) in texts {
        if let Some(text) = comment.strip_prefix(key) {
            text.clone_into(field);
            return;
        }
    }
    for (key, field) in [(CPUS, &mut origin.cpus), (RATE, &mut origin.frequency)] {
        if let Some(Ok(number)) = comment.strip_prefix(key).map(str::parse) {
            *field = number;
            return;
        }
    }
    let loss = comment.strip_prefix(LOSS).and_then(|text| text.split_once(' '));
    if let Some((Ok(count), reason)) = loss.map(|(count, reason)| (count.parse(), reason)) {
        profile.losses.push(Loss { reason: reason.to_owned(), count });
    } else {
        profile.comments.push(comment.to_owned());
    }
}
