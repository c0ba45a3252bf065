//! Resources and scopes: the process, the machine and the recording.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
};
use profiler_model::{AttributeValue, Loss, Origin, Process, Profiles, StringId, attribute, rfc3339};

fn text(value: &str) -> any_value::Value {
    any_value::Value::StringValue(value.to_owned())
}

fn number(value: u64) -> any_value::Value {
    any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// Attributes of a resource: the first of a key counts; empty keys and values are left out.
#[derive(Default)]
struct Resources {
    attributes: Vec<KeyValue>,
}

impl Resources {
    fn put(&mut self, key: &str, value: any_value::Value) {
        let empty = match &value {
            any_value::Value::StringValue(text) => text.is_empty(),
            any_value::Value::ArrayValue(list) => list.values.is_empty(),
            _ => false,
        };
        if !empty && !key.is_empty() && !self.has(key) {
            self.attributes.push(pair(key, value));
        }
    }

    fn has(&self, key: &str) -> bool {
        self.attributes.iter().any(|known| known.key == key)
    }

    /// Puts what the model holds by key, but for what it has fields for.
    fn put_all(&mut self, profile: &Profiles, attributes: &[(StringId, AttributeValue)]) {
        for (key, value) in attributes {
            let key = profile.string(*key);
            if attribute::PROCESS.contains(&key) {
                continue;
            }
            let value = match value {
                AttributeValue::Text(id) => text(profile.string(*id)),
                AttributeValue::Integer(number) => any_value::Value::IntValue(*number),
                AttributeValue::Texts(ids) => {
                    let values = ids.iter().map(|&id| AnyValue { value: Some(text(profile.string(id))) });
                    any_value::Value::ArrayValue(ArrayValue { values: values.collect() })
                }
            };
            self.put(key, value);
        }
    }
}

/// The resource of `process`, or of samples of no known process. Keys are unique and never empty, values never empty. What is
/// said of the process comes before what is said of all, and that before the [`Origin`].
pub(super) fn resource(profile: &Profiles, process: Option<&Process>) -> Resource {
    let mut resource = Resources::default();
    if let Some(process) = process {
        resource.put(attribute::PROCESS_PID, number(process.pid.into()));
        if process.start_unix_nanos != 0 {
            resource.put(attribute::PROCESS_CREATION_TIME, text(&rfc3339::format(process.start_unix_nanos)));
        }
        resource.put(attribute::PROCESS_EXECUTABLE_NAME, text(profile.string(process.name)));
        resource.put(attribute::PROCESS_EXECUTABLE_PATH, text(profile.string(process.executable)));
        resource.put(attribute::CONTAINER_ID, text(profile.string(process.container_id)));
        resource.put_all(profile, &process.attributes);
    }
    resource.put_all(profile, &profile.resource_attributes);
    let Origin { host_name, arch, kernel_release, .. } = &profile.origin;
    resource.put(attribute::HOST_NAME, text(host_name));
    resource.put(attribute::HOST_ARCH, text(arch));
    if !kernel_release.is_empty() {
        resource.put(attribute::OS_TYPE, text("linux"));
        resource.put(attribute::OS_BUILD_ID, text(kernel_release));
    }
    if let Some(process) = process {
        let service = fallback_service(profile.string(process.executable), profile.string(process.name));
        resource.put(attribute::SERVICE_NAME, text(service));
    }
    Resource { attributes: resource.attributes, ..Resource::default() }
}

/// The service name of a process that has none: the name of its executable file, else its own.
pub(super) fn fallback_service<'a>(executable: &'a str, name: &'a str) -> &'a str {
    match executable.rsplit('/').next() {
        Some(file) if !file.is_empty() => file,
        _ => name,
    }
}

/// The scope: who recorded, how, and what was lost.
pub(super) fn scope(profile: &Profiles) -> InstrumentationScope {
    let origin = &profile.origin;
    let (name, version) = match origin.producer.as_str() {
        "" => ("profiler", env!("CARGO_PKG_VERSION")),
        producer => producer.rsplit_once(' ').filter(|(name, _)| !name.is_empty()).unwrap_or((producer, "")),
    };
    let mut attributes = Vec::new();
    for (key, value) in [(attribute::CPUS, origin.cpus), (attribute::FREQUENCY, origin.frequency)] {
        if value != 0 {
            attributes.push(pair(key, number(value.into())));
        }
    }
    if !origin.target.is_empty() {
        attributes.push(pair(attribute::TARGET, text(&origin.target)));
    }
    if let Some(shown) = default_sample_type(profile) {
        attributes.push(pair(attribute::DEFAULT_SAMPLE_TYPE, text(&shown)));
    }
    for Loss { reason, count } in &profile.losses {
        attributes.push(pair(&format!("{}{reason}", attribute::LOSS), number(*count)));
    }
    InstrumentationScope { name: name.to_owned(), version: version.to_owned(), attributes, dropped_attributes_count: 0 }
}

/// The type that is shown first, where it is not the only one.
fn default_sample_type(profile: &Profiles) -> Option<String> {
    let all = profile.measured();
    let shown = all.get(profile.shown_first()).filter(|_| all.len() > 1)?;
    let (part, index) = shown.parts().next()?;
    part.sample_types.get(index).map(|kind| kind.kind.clone())
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
