//! Ids of profiles, traces and spans, and random ones.

use super::{Args, Function, Literal, Literals, Prepared, Takes, converter, needs, types};
use crate::{
    error::EvalError,
    text::{from_hex, hex},
    time::strptime::now,
    value::{Id, Value},
};

const TARGET: &[super::Parameter] = &[needs("target", Takes::BytesLike)];

pub(super) const ALL: &[Function] = &[
    converter("ProfileID", TARGET, "id", "The id of a profile: 16 bytes, or 32 hexadecimal digits", |args| {
        of(args, profile)
    })
    .prepared(|literals| prepare(literals, profile)),
    converter("SpanID", TARGET, "id", "The id of a span: 8 bytes, or 16 hexadecimal digits", |args| of(args, span))
        .prepared(|literals| prepare(literals, span)),
    converter("TraceID", TARGET, "id", "The id of a trace: 16 bytes, or 32 hexadecimal digits", |args| of(args, trace))
        .prepared(|literals| prepare(literals, trace)),
    converter("UUID", &[], "string", "A random UUID (version 4)", |_| {
        let mut bytes = random()?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        Ok(uuid(bytes))
    }),
    converter("UUIDv7", &[], "string", "A UUID that begins with the time (version 7)", |_| {
        let mut bytes = random()?;
        let millis = now().since_epoch(1_000_000).to_be_bytes();
        bytes[..6].copy_from_slice(&millis[2..]);
        bytes[6] = bytes[6] & 0x0f | 0x70;
        Ok(uuid(bytes))
    }),
];

type Make = fn(&[u8]) -> Option<Id>;

fn profile(bytes: &[u8]) -> Option<Id> {
    bytes.try_into().ok().map(Id::Profile)
}

fn trace(bytes: &[u8]) -> Option<Id> {
    bytes.try_into().ok().map(Id::Trace)
}

fn span(bytes: &[u8]) -> Option<Id> {
    bytes.try_into().ok().map(Id::Span)
}

fn id(bytes: &[u8], make: Make) -> Result<Id, String> {
    let spelled = || make(&from_hex(std::str::from_utf8(bytes).ok()?)?);
    make(bytes).or_else(spelled).ok_or_else(|| format!("{} bytes are no such id", bytes.len()))
}

fn prepare(literals: &Literals<'_>, make: Make) -> Result<Prepared, (usize, String)> {
    let Some(Literal::Value(value)) = literals.values.first() else { return Ok(Prepared::Nothing) };
    let bytes = types::to_bytes(value.borrowed()).map_err(|error| (0, error.to_string()))?.unwrap_or_default();
    id(&bytes, make).map(Prepared::Id).map_err(|message| (0, message))
}

fn of<'a>(args: &Args<'_, 'a>, make: Make) -> Result<Value<'a>, EvalError> {
    if let Prepared::Id(id) = args.prepared {
        return Ok(Value::Id(*id));
    }
    id(&args.bytes_like(0)?.unwrap_or_default(), make).map(Value::Id).map_err(EvalError::new)
}

fn random() -> Result<[u8; 16], EvalError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| EvalError::new(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

fn uuid(mut bytes: [u8; 16]) -> Value<'static> {
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
    Value::text(parts.map(hex).join("-"))
}
