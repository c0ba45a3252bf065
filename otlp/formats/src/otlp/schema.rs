//! The messages of a profiles request: what their fields are called in JSON, what their numbers and types are in protobuf.
//!
//! From `opentelemetry/proto/profiles/v1development/profiles.proto` (1.10 and 1.11 agree) and the stable messages that it refers to.
//! The package has no version of its own on the wire, and three of its releases gave numbers a new meaning. So a request is held
//! against this table before it is read: where it does not fit it was written by another version, and reading on would give other
//! values than were written.

use crate::{
    error::Error,
    wire::{Value, fields},
};

/// A message.
pub(super) struct Message {
    pub(super) name: &'static str,
    /// Whether a field that is not in the table may change the meaning of those that are. In stable messages it may not.
    is_unstable: bool,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u32,
    /// In JSON.
    pub(super) name: &'static str,
    pub(super) is_list: bool,
    pub(super) kind: Kind,
}

/// The type of a field, or of the entries of a list.
pub(super) enum Kind {
    Message(&'static Message),
    Text,
    /// Bytes that OTLP's JSON has in hexadecimal: ids of traces, spans and profiles.
    Hex,
    /// Bytes that JSON has in base64.
    Bytes,
    Bool,
    Double,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Fixed64,
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, is_list: false, kind }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, is_list: true, kind }
}

const fn unstable(name: &'static str, fields: &'static [Field]) -> Message {
    Message { name, is_unstable: true, fields }
}

const fn stable(name: &'static str, fields: &'static [Field]) -> Message {
    Message { name, is_unstable: false, fields }
}

/// `ExportProfilesServiceRequest`, and `ProfilesData`, which is the same.
pub(super) static REQUEST: Message = unstable(
    "ProfilesData",
    &[list(1, "resourceProfiles", Kind::Message(&RESOURCE_PROFILES)), one(2, "dictionary", Kind::Message(&DICTIONARY))],
);

pub(super) static DICTIONARY: Message = unstable(
    "ProfilesDictionary",
    &[
        list(1, "mappingTable", Kind::Message(&MAPPING)),
        list(2, "locationTable", Kind::Message(&LOCATION)),
        list(3, "functionTable", Kind::Message(&FUNCTION)),
        list(4, "linkTable", Kind::Message(&LINK)),
        list(5, "stringTable", Kind::Text),
        list(6, "attributeTable", Kind::Message(&KEY_VALUE_AND_UNIT)),
        list(7, "stackTable", Kind::Message(&STACK)),
    ],
);

pub(super) static RESOURCE_PROFILES: Message = unstable(
    "ResourceProfiles",
    &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        list(2, "scopeProfiles", Kind::Message(&SCOPE_PROFILES)),
        one(3, "schemaUrl", Kind::Text),
    ],
);

static SCOPE_PROFILES: Message = unstable(
    "ScopeProfiles",
    &[
        one(1, "scope", Kind::Message(&SCOPE)),
        list(2, "profiles", Kind::Message(&PROFILE)),
        one(3, "schemaUrl", Kind::Text),
    ],
);

static PROFILE: Message = unstable(
    "Profile",
    &[
        one(1, "sampleType", Kind::Message(&VALUE_TYPE)),
        list(2, "samples", Kind::Message(&SAMPLE)),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "durationNano", Kind::Uint64),
        one(5, "periodType", Kind::Message(&VALUE_TYPE)),
        one(6, "period", Kind::Int64),
        one(7, "profileId", Kind::Hex),
        one(8, "droppedAttributesCount", Kind::Uint32),
        one(9, "originalPayloadFormat", Kind::Text),
        one(10, "originalPayload", Kind::Bytes),
        list(11, "attributeIndices", Kind::Int32),
    ],
);

static SAMPLE: Message = unstable(
    "Sample",
    &[
        one(1, "stackIndex", Kind::Int32),
        list(2, "attributeIndices", Kind::Int32),
        one(3, "linkIndex", Kind::Int32),
        list(4, "values", Kind::Int64),
        list(5, "timestampsUnixNano", Kind::Fixed64),
    ],
);

static VALUE_TYPE: Message =
    unstable("ValueType", &[one(1, "typeStrindex", Kind::Int32), one(2, "unitStrindex", Kind::Int32)]);

static MAPPING: Message = unstable(
    "Mapping",
    &[
        one(1, "memoryStart", Kind::Uint64),
        one(2, "memoryLimit", Kind::Uint64),
        one(3, "fileOffset", Kind::Uint64),
        one(4, "filenameStrindex", Kind::Int32),
        list(5, "attributeIndices", Kind::Int32),
    ],
);

static LOCATION: Message = unstable(
    "Location",
    &[
        one(1, "mappingIndex", Kind::Int32),
        one(2, "address", Kind::Uint64),
        list(3, "lines", Kind::Message(&LINE)),
        list(4, "attributeIndices", Kind::Int32),
    ],
);

static LINE: Message = unstable(
    "Line",
    &[one(1, "functionIndex", Kind::Int32), one(2, "line", Kind::Int64), one(3, "column", Kind::Int64)],
);

static FUNCTION: Message = unstable(
    "Function",
    &[
        one(1, "nameStrindex", Kind::Int32),
        one(2, "systemNameStrindex", Kind::Int32),
        one(3, "filenameStrindex", Kind::Int32),
        one(4, "startLine", Kind::Int64),
    ],
);

static STACK: Message = unstable("Stack", &[list(1, "locationIndices", Kind::Int32)]);

static LINK: Message = unstable("Link", &[one(1, "traceId", Kind::Hex), one(2, "spanId", Kind::Hex)]);

static KEY_VALUE_AND_UNIT: Message = unstable(
    "KeyValueAndUnit",
    &[
        one(1, "keyStrindex", Kind::Int32),
        one(2, "value", Kind::Message(&ANY_VALUE)),
        one(3, "unitStrindex", Kind::Int32),
    ],
);

static RESOURCE: Message = stable(
    "Resource",
    &[list(1, "attributes", Kind::Message(&KEY_VALUE)), one(2, "droppedAttributesCount", Kind::Uint32)],
);

static SCOPE: Message = stable(
    "InstrumentationScope",
    &[
        one(1, "name", Kind::Text),
        one(2, "version", Kind::Text),
        list(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Kind::Uint32),
    ],
);

static KEY_VALUE: Message = stable(
    "KeyValue",
    &[one(1, "key", Kind::Text), one(2, "value", Kind::Message(&ANY_VALUE)), one(3, "keyStrindex", Kind::Int32)],
);

static ANY_VALUE: Message = stable(
    "AnyValue",
    &[
        one(1, "stringValue", Kind::Text),
        one(2, "boolValue", Kind::Bool),
        one(3, "intValue", Kind::Int64),
        one(4, "doubleValue", Kind::Double),
        one(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
        one(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
        one(7, "bytesValue", Kind::Bytes),
        one(8, "stringValueStrindex", Kind::Int32),
    ],
);

static ARRAY_VALUE: Message = stable("ArrayValue", &[list(1, "values", Kind::Message(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message = stable("KeyValueList", &[list(1, "values", Kind::Message(&KEY_VALUE))]);

impl Message {
    /// The field with this number.
    pub(super) fn field(&self, number: u64) -> Option<&'static Field> {
        self.fields.iter().find(|field| u64::from(field.number) == number)
    }

    /// The field that JSON calls `name`: in camel case, as OTLP writes it, or as the definition has it, which protobuf's JSON allows.
    pub(super) fn named(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name || is_snake_case_of(name, field.name))
    }

    /// What is to be said of a field that is not in the table; nothing if it may be skipped.
    pub(super) fn unknown(&self, field: &str) -> Option<Error> {
        if self.name == REQUEST.name {
            return Some(Error::Unrecognized);
        }
        self.is_unstable.then(|| Error::Version { what: format!("the field {field} of a {}", self.name) })
    }

    /// Refuses a message that was written by a version of the definitions with other fields. Deep only as the table is.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        for field in fields(bytes, "OTLP profiles") {
            let (number, value) = field?;
            let Some(known) = self.field(number) else {
                match self.unknown(&number.to_string()) {
                    Some(error) => return Err(error),
                    None => continue,
                }
            };
            match (&known.kind, value) {
                (Kind::Message(message), Value::Bytes(bytes)) if message.is_unstable => message.check(bytes)?,
                (Kind::Message(_) | Kind::Text | Kind::Hex | Kind::Bytes, Value::Bytes(_)) => {}
                (Kind::Bool | Kind::Int32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64, Value::Varint(_))
                    if !known.is_list => {}
                (Kind::Fixed64 | Kind::Double, Value::Fixed64(_)) => {}
                // Lists of numbers are packed. Single ones would be allowed, but nobody writes them, and the links of samples of
                // 1.9 look like that.
                (kind, Value::Bytes(_)) if known.is_list && !matches!(kind, Kind::Message(_)) => {}
                _ => {
                    let what = format!("the field {number} of a {}, there {},", self.name, known.name);
                    return Err(Error::Version { what });
                }
            }
        }
        Ok(())
    }
}

/// Whether `snake`, with underscores, is `camel`, without.
fn is_snake_case_of(snake: &str, camel: &str) -> bool {
    let mut expected = camel.chars().flat_map(|c| {
        let underscore = c.is_ascii_uppercase().then_some('_');
        underscore.into_iter().chain(std::iter::once(c.to_ascii_lowercase()))
    });
    snake.chars().all(|c| expected.next() == Some(c)) && expected.next().is_none()
}
