//! Resources and scopes: the process, the machine and the recording.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
};
use profiler_model::{Loss, Measured, ProcessId, Profiles, Value, attribute};

fn text(value: &str) -> any_value::Value {
    any_value::Value::StringValue(value.to_owned())
}

fn number(value: u64) -> any_value::Value {
    any_value::Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// The resource of `process`, or of samples of no known process, as [`Profiles::resource`] has it; a process always has a service
/// name.
pub(super) fn resource(profile: &Profiles, process: Option<ProcessId>) -> Resource {
    let spelled = |value: &Value<'_>| match value {
        Value::Text(value) => text(value),
        Value::Integer(number) => any_value::Value::IntValue(*number),
        Value::Texts(texts) => {
            let values = texts.iter().map(|one| AnyValue { value: Some(text(one)) });
            any_value::Value::ArrayValue(ArrayValue { values: values.collect() })
        }
    };
    let said = profile.resource(process);
    let mut attributes: Vec<KeyValue> = said.iter().map(|(key, value)| pair(key, spelled(value))).collect();
    if let Some(process) = process.and_then(|id| profile.process(id))
        && said.iter().all(|(key, _)| *key != attribute::SERVICE_NAME)
    {
        let service = fallback_service(profile.string(process.executable), profile.string(process.name));
        if !service.is_empty() {
            attributes.push(pair(attribute::SERVICE_NAME, text(service)));
        }
    }
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
    let kind = &part.sample_types.get(index)?.kind;
    // Where several things are counted alike, the type does not tell them apart, but the name does.
    Some(if of_kind(&all, kind).count() == 1 { kind.clone() } else { shown.name().to_owned() })
}

/// Those of `all` whose samples have this type.
fn of_kind<'a>(all: &'a [Measured<'a>], kind: &'a str) -> impl Iterator<Item = &'a Measured<'a>> {
    all.iter().filter(move |measured| {
        let types = measured.parts().next().and_then(|(part, index)| part.sample_types.get(index));
        types.is_some_and(|own| own.kind == kind)
    })
}

/// Where in `profile` is what a file calls `name` as it says what is to be shown first, as [`default_sample_type`] calls it.
pub(super) fn shown_by_default(profile: &Profiles, name: &str) -> Option<usize> {
    let all = profile.measured();
    let mut alike = of_kind(&all, name);
    let first = alike.next().filter(|_| alike.next().is_none());
    let found = first.or_else(|| all.iter().find(|measured| measured.name() == name));
    let found = found.or_else(|| of_kind(&all, name).next());
    let found = found.or_else(|| all.iter().find(|measured| measured.source() == name))?;
    found.positions().next().map(|(position, _)| position)
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
