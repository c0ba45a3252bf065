//! Resources and scopes: the process, the machine and the recording.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
};

use super::attribute;
use crate::{
    model::{Loss, Process, Profile},
    rfc3339,
};

fn text(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn number(key: &str, value: u64) -> KeyValue {
    let value = any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// The resource of `process`, or of samples of no known process. Keys are unique and never empty, values never empty.
pub(super) fn resource(profile: &Profile, process: Option<&Process>) -> Resource {
    let mut attributes = Vec::new();
    if let Some(process) = process {
        attributes.push(number(attribute::PROCESS_PID, process.pid.into()));
        if process.start_unix_nanos != 0 {
            attributes.push(text(attribute::PROCESS_CREATION_TIME, &rfc3339::format(process.start_unix_nanos)));
        }
        attributes.push(text(attribute::PROCESS_EXECUTABLE_NAME, profile.string(process.name)));
        attributes.push(text(attribute::PROCESS_EXECUTABLE_PATH, profile.string(process.executable)));
        attributes.push(text(attribute::CONTAINER_ID, profile.string(process.container_id)));
    }
    let origin = &profile.origin;
    attributes.push(text(attribute::HOST_NAME, &origin.host_name));
    attributes.push(text(attribute::HOST_ARCH, &origin.arch));
    if !origin.kernel_release.is_empty() {
        attributes.push(text(attribute::OS_TYPE, "linux"));
        attributes.push(text(attribute::OS_VERSION, &origin.kernel_release));
    }
    for &(key, value) in process.iter().flat_map(|process| &process.attributes) {
        let key = profile.string(key);
        if !key.is_empty()
            && !attribute::RESOURCE.contains(&key)
            && attributes.iter().all(|known: &KeyValue| known.key != key)
        {
            attributes.push(text(key, profile.string(value)));
        }
    }
    if let Some(process) = process
        && attributes.iter().all(|known| known.key != attribute::SERVICE_NAME)
    {
        let service = fallback_service(profile.string(process.executable), profile.string(process.name));
        attributes.push(text(attribute::SERVICE_NAME, service));
    }
    let empty = Some(AnyValue { value: Some(any_value::Value::StringValue(String::new())) });
    attributes.retain(|attribute| attribute.value != empty);
    Resource { attributes, ..Resource::default() }
}

/// The service name of a process that has none: the name of its executable file, else its own.
pub(super) fn fallback_service<'a>(executable: &'a str, name: &'a str) -> &'a str {
    match executable.rsplit('/').next() {
        Some(file) if !file.is_empty() => file,
        _ => name,
    }
}

/// The scope: who recorded, how, and what was lost.
pub(super) fn scope(profile: &Profile) -> InstrumentationScope {
    let origin = &profile.origin;
    let (name, version) = match origin.producer.as_str() {
        "" => ("profiler", env!("CARGO_PKG_VERSION")),
        producer => producer.rsplit_once(' ').filter(|(name, _)| !name.is_empty()).unwrap_or((producer, "")),
    };
    let mut attributes = Vec::new();
    for (key, value) in [(attribute::CPUS, origin.cpus), (attribute::FREQUENCY, origin.frequency)] {
        if value != 0 {
            attributes.push(number(key, value.into()));
        }
    }
    if !origin.target.is_empty() {
        attributes.push(text(attribute::TARGET, &origin.target));
    }
    for Loss { reason, count } in &profile.losses {
        attributes.push(number(&format!("{}{reason}", attribute::LOSS), *count));
    }
    InstrumentationScope { name: name.to_owned(), version: version.to_owned(), attributes, dropped_attributes_count: 0 }
}

/// What stands in for the hash of a mapping whose file nobody can hash, such as the kernel's or a JIT's: receivers want one on
/// every mapping. As OpenTelemetry's profiler does for the kernel, the FNV-1a hash (128 bits) of what identifies
/// it: the GNU build id, or the name if it has none.
pub(super) fn stand_in_htlhash(identity: &str) -> String {
    let hash = identity.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}")
}
