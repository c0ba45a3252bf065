//! What the paths of rules read and change at the cursor's place.

use std::borrow::Cow;

use opentelemetry_proto::tonic::profiles::v1development::ValueType;
use profiler_ottl::{Context, EvalError, Id, Key, Opaque, Time, Value, get_key, set_key};

use super::{Cursor, OF_PERIOD, OF_SAMPLES};
use crate::{
    any,
    paths::{Accessor, Field},
};

pub(super) fn wrong<T>(needed: &str, value: &Value<'_>) -> Result<T, EvalError> {
    Err(EvalError::new(format!("this is set to {needed}, not {}", value.kind())))
}

pub(super) fn text(value: Value<'static>) -> Result<String, EvalError> {
    match value {
        Value::Text(text) => Ok(text.into_owned()),
        other => wrong("a string", &other),
    }
}

pub(super) fn int(value: &Value<'_>) -> Result<i64, EvalError> {
    match value {
        Value::Int(number) => Ok(*number),
        other => wrong("an int", other),
    }
}

/// A count of 32 bits; what is larger is cut, as the language has it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn count(value: &Value<'_>) -> Result<u32, EvalError> {
    Ok(int(value)? as u32)
}

fn ints(value: &Value<'_>) -> Result<Vec<i64>, EvalError> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::List(list) => list.iter().map(int).collect(),
        other => wrong("a list of ints", other),
    }
}

#[allow(clippy::cast_possible_truncation)]
fn indices(value: &Value<'_>) -> Result<Vec<i32>, EvalError> {
    Ok(ints(value)?.into_iter().map(|index| index as i32).collect())
}

fn list(numbers: impl Iterator<Item = i64>) -> Value<'static> {
    Value::list(numbers.map(Value::Int).collect())
}

fn value_type(kind: &'static str, value: &Value<'_>) -> Result<ValueType, EvalError> {
    let index = |word: i64| i32::try_from(word).unwrap_or_default();
    match value {
        Value::Opaque(Opaque { kind: "a type of values", words: [_, of, unit] }) => {
            Ok(ValueType { type_strindex: index(*of), unit_strindex: index(*unit) })
        }
        other => wrong(kind, other),
    }
}

/// Nanoseconds since 1970 in 64 bits.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn nanos(value: &Value<'_>) -> Result<u64, EvalError> {
    match value {
        Value::Time(time) => Ok(time.nanos() as u64),
        other => wrong("a time", other),
    }
}

fn profile_id(bytes: &[u8]) -> Result<Vec<u8>, EvalError> {
    if bytes.len() != 16 || bytes.iter().all(|byte| *byte == 0) {
        return Err(EvalError::new("the id of a profile is 16 bytes that are not all 0"));
    }
    Ok(bytes.to_vec())
}

impl Context for Cursor {
    type Accessor = Accessor;

    fn get<'a>(&'a self, accessor: &'a Accessor, keys: &[Key<'_>]) -> Result<Value<'a>, EvalError> {
        let resource = || self.resource_profiles().resource.as_ref();
        let scope = || self.scope_profiles().scope.as_ref();
        let time = |nanos: u64| Value::Time(Time::from_nanos(i128::from(nanos.cast_signed())));
        Ok(match accessor {
            Accessor::Cache => return get_key(&self.cache, keys),
            Accessor::ResourceAttributes => {
                return any::attributes(resource().map_or(&[], |resource| &resource.attributes), keys, self.strings());
            }
            Accessor::ResourceDropped => {
                Value::Int(resource().map_or(0, |resource| resource.dropped_attributes_count.into()))
            }
            Accessor::ResourceSchema => Value::from(self.resource_profiles().schema_url.as_str()),
            Accessor::ScopeName => Value::from(scope().map_or("", |scope| &scope.name)),
            Accessor::ScopeVersion => Value::from(scope().map_or("", |scope| &scope.version)),
            Accessor::ScopeAttributes => {
                return any::attributes(scope().map_or(&[], |scope| &scope.attributes), keys, self.strings());
            }
            Accessor::ScopeDropped => Value::Int(scope().map_or(0, |scope| scope.dropped_attributes_count.into())),
            Accessor::ScopeSchema => Value::from(self.scope_profiles().schema_url.as_str()),
            Accessor::SampleType => self.opaque("a type of values", OF_SAMPLES, self.profile().sample_type),
            Accessor::PeriodType => self.opaque("a type of values", OF_PERIOD, self.profile().period_type),
            Accessor::SampleTypeType => {
                Value::from(self.string(self.profile().sample_type.unwrap_or_default().type_strindex)?)
            }
            Accessor::SampleTypeUnit => {
                Value::from(self.string(self.profile().sample_type.unwrap_or_default().unit_strindex)?)
            }
            Accessor::PeriodTypeType => {
                Value::from(self.string(self.profile().period_type.unwrap_or_default().type_strindex)?)
            }
            Accessor::PeriodTypeUnit => {
                Value::from(self.string(self.profile().period_type.unwrap_or_default().unit_strindex)?)
            }
            Accessor::Samples => Value::Opaque(Opaque { kind: "the samples", words: [0; 3] }),
            Accessor::TimeNanos => Value::Int(self.profile().time_unix_nano.cast_signed()),
            Accessor::Time => time(self.profile().time_unix_nano),
            Accessor::Duration => Value::Int(self.profile().duration_nano.cast_signed()),
            Accessor::Period => Value::Int(self.profile().period),
            Accessor::ProfileId | Accessor::ProfileIdText => {
                let id: [u8; 16] = self.profile().profile_id.as_slice().try_into().unwrap_or_default();
                if *accessor == Accessor::ProfileId {
                    Value::Id(Id::Profile(id))
                } else {
                    Value::text(id.map(|byte| format!("{byte:02x}")).concat())
                }
            }
            Accessor::ProfileIndices => list(self.profile().attribute_indices.iter().map(|index| i64::from(*index))),
            Accessor::ProfileAttributes => return self.read(&self.profile().attribute_indices, keys),
            Accessor::ProfileDropped => Value::Int(self.profile().dropped_attributes_count.into()),
            Accessor::PayloadFormat => Value::from(self.profile().original_payload_format.as_str()),
            Accessor::Payload => Value::Bytes(Cow::Borrowed(&self.profile().original_payload)),
            Accessor::Values => list(self.sample().values.iter().copied()),
            Accessor::SampleIndices => list(self.sample().attribute_indices.iter().map(|index| i64::from(*index))),
            Accessor::SampleAttributes => return self.read(&self.sample().attribute_indices, keys),
            Accessor::Link => Value::Int(self.sample().link_index.into()),
            Accessor::TimestampsNanos => {
                list(self.sample().timestamps_unix_nano.iter().map(|nanos| nanos.cast_signed()))
            }
            Accessor::Timestamps => {
                Value::list(self.sample().timestamps_unix_nano.iter().map(|nanos| time(*nanos)).collect())
            }
            Accessor::Depth | Accessor::DepthFromRoot => {
                Value::Int(i64::try_from(self.stack.frames.len()).unwrap_or(i64::MAX))
            }
            Accessor::Functions => {
                let names = self.stack.frames.iter().map(|frame| self.field(Some(frame), Field::Function));
                Value::list(names.map(|name| name.map(Value::into_owned)).collect::<Result<_, _>>()?)
            }
            Accessor::Leaf(field) => return self.field(self.stack.frames.first(), *field),
            Accessor::Root(field) => return self.field(self.stack.frames.last(), *field),
            Accessor::Frame(field) => return self.field(self.stack.frame(), *field),
            Accessor::FrameIndex => Value::Int(i64::try_from(self.stack.at).unwrap_or(i64::MAX)),
            Accessor::FrameDrop => Value::Bool(self.stack.frame().is_some_and(|frame| frame.drop)),
            Accessor::FrameCollapse => match self.stack.frame().and_then(|frame| frame.collapse.as_deref()) {
                Some(name) => Value::from(name),
                None => Value::Nil,
            },
        })
    }

    #[allow(clippy::too_many_lines)]
    fn set(&mut self, accessor: &Accessor, keys: &[Key<'_>], value: Value<'static>) -> Result<(), EvalError> {
        match accessor {
            Accessor::Cache => return set_key(&mut self.cache, keys, value),
            Accessor::ResourceAttributes => {
                let mut map = any::map(&self.resource_mut().attributes.clone(), self.strings());
                set_key(&mut map, keys, value)?;
                self.resource_mut().attributes = any::entries(map);
            }
            Accessor::ResourceDropped => self.resource_mut().dropped_attributes_count = count(&value)?,
            Accessor::ResourceSchema => self.resource_profiles_mut().schema_url = text(value)?,
            Accessor::ScopeName => self.scope_mut().name = text(value)?,
            Accessor::ScopeVersion => self.scope_mut().version = text(value)?,
            Accessor::ScopeAttributes => {
                let mut map = any::map(&self.scope_mut().attributes.clone(), self.strings());
                set_key(&mut map, keys, value)?;
                self.scope_mut().attributes = any::entries(map);
            }
            Accessor::ScopeDropped => self.scope_mut().dropped_attributes_count = count(&value)?,
            Accessor::ScopeSchema => self.scope_profiles_mut().schema_url = text(value)?,
            Accessor::SampleType => self.profile_mut().sample_type = Some(value_type("a type of values", &value)?),
            Accessor::PeriodType => self.profile_mut().period_type = Some(value_type("a type of values", &value)?),
            Accessor::SampleTypeType
            | Accessor::SampleTypeUnit
            | Accessor::PeriodTypeType
            | Accessor::PeriodTypeUnit => {
                let of_samples = matches!(accessor, Accessor::SampleTypeType | Accessor::SampleTypeUnit);
                let profile = self.profile();
                let mut known = if of_samples { profile.sample_type } else { profile.period_type }.unwrap_or_default();
                if matches!(accessor, Accessor::SampleTypeType | Accessor::PeriodTypeType) {
                    known.type_strindex = self.named(known.type_strindex, value)?;
                } else {
                    known.unit_strindex = self.named(known.unit_strindex, value)?;
                }
                let profile = self.profile_mut();
                *if of_samples { &mut profile.sample_type } else { &mut profile.period_type } = Some(known);
            }
            Accessor::Samples => match value {
                Value::Nil => self.profile_mut().samples.clear(),
                Value::Opaque(Opaque { kind: "the samples", .. }) => {}
                other => return wrong("samples", &other),
            },
            Accessor::TimeNanos => self.profile_mut().time_unix_nano = int(&value)?.cast_unsigned(),
            Accessor::Time => self.profile_mut().time_unix_nano = nanos(&value)?,
            Accessor::Duration => {
                let nanos = int(&value)?;
                let nanos = u64::try_from(nanos).map_err(|_| EvalError::new(format!("a duration is not {nanos}")))?;
                self.profile_mut().duration_nano = nanos;
            }
            Accessor::Period => self.profile_mut().period = int(&value)?,
            Accessor::ProfileId => {
                self.profile_mut().profile_id = match value {
                    Value::Id(id @ Id::Profile(_)) => profile_id(id.bytes())?,
                    other => return wrong("the id of a profile", &other),
                }
            }
            Accessor::ProfileIdText => {
                let text = text(value)?;
                let digits = text
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
                let bytes: Option<Vec<u8>> = digits.collect();
                let bytes = bytes.filter(|_| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
                self.profile_mut().profile_id = profile_id(&bytes.unwrap_or_default())?;
            }
            Accessor::ProfileIndices => self.profile_mut().attribute_indices = indices(&value)?,
            Accessor::ProfileAttributes => {
                let known = self.profile().attribute_indices.clone();
                self.profile_mut().attribute_indices = self.write(&known, keys, value)?;
            }
            Accessor::ProfileDropped => self.profile_mut().dropped_attributes_count = count(&value)?,
            Accessor::PayloadFormat => self.profile_mut().original_payload_format = text(value)?,
            Accessor::Payload => {
                self.profile_mut().original_payload = match value {
                    Value::Bytes(bytes) => bytes.into_owned(),
                    other => return wrong("bytes", &other),
                }
            }
            Accessor::Values => self.sample_mut().values = ints(&value)?,
            Accessor::SampleIndices => self.sample_mut().attribute_indices = indices(&value)?,
            Accessor::SampleAttributes => {
                let known = self.sample().attribute_indices.clone();
                self.sample_mut().attribute_indices = self.write(&known, keys, value)?;
            }
            Accessor::Link => {
                let index = int(&value)?;
                if index >= i64::from(i32::MAX) {
                    return Err(EvalError::new(format!("{index} is too large for the index of a link")));
                }
                self.sample_mut().link_index = indices(&list(std::iter::once(index)))?[0];
            }
            Accessor::TimestampsNanos => {
                self.sample_mut().timestamps_unix_nano = ints(&value)?.into_iter().map(i64::cast_unsigned).collect()
            }
            Accessor::Timestamps => {
                self.sample_mut().timestamps_unix_nano = match &value {
                    Value::Nil => Vec::new(),
                    Value::List(list) => list.iter().map(nanos).collect::<Result<_, _>>()?,
                    other => return wrong("a list of times", other),
                }
            }
            Accessor::Depth | Accessor::DepthFromRoot => {
                let depth = usize::try_from(int(&value)?).ok().filter(|depth| *depth > 0);
                let depth = depth.ok_or_else(|| EvalError::new("a stack has at least one frame"))?;
                self.truncate(depth, matches!(accessor, Accessor::DepthFromRoot))?;
            }
            Accessor::Frame(field) => self.set_field(*field, value)?,
            Accessor::FrameDrop => match value {
                Value::Bool(drop) => self.stack.change(|frame| frame.drop = drop),
                other => return wrong("a bool", &other),
            },
            Accessor::FrameCollapse => {
                let name = match value {
                    Value::Nil => String::new(),
                    other => text(other)?,
                };
                self.stack.change(|frame| frame.collapse = Some(name).filter(|name| !name.is_empty()));
            }
            Accessor::Leaf(_) | Accessor::Root(_) | Accessor::Functions | Accessor::FrameIndex => {
                return Err(EvalError::new("this cannot be changed"));
            }
        }
        Ok(())
    }
}
