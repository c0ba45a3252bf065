//! Converters of times and durations.

use super::{Args, Function, Literals, Prepared, Takes, converter, may, needs};
use crate::{
    error::EvalError,
    time::{self, Civil, Place, Time, strptime},
    value::Value,
};

const TIME: &[super::Parameter] = &[needs("time", Takes::Time)];
const DURATION: &[super::Parameter] = &[needs("duration", Takes::Duration)];

pub(super) const ALL: &[Function] = &[
    converter("Day", TIME, "int", "The day of the month", |args| civil(args, |civil| civil.day)),
    converter("Duration", &[needs("duration", Takes::Text)], "duration", "A duration such as `1h30m` or `250ms`", |args| {
        let text = args.text(0)?;
        time::duration(&text).map(Value::Duration).ok_or_else(|| EvalError::new(format!("{text:?} is no duration")))
    }),
    converter("FormatTime", &[needs("time", Takes::Time), needs("format", Takes::LiteralText)], "string", "A time as a format with `%Y`, `%m`, ... has it", |args| {
        let time = args.time(0)?;
        match args.prepared {
            Prepared::Format(format) => Ok(Value::text(format.write(&time))),
            _ => Err(EvalError::new("no format")),
        }
    })
    .prepared(|literals| format(literals).map(Prepared::Format)),
    converter("Hour", TIME, "int", "The hour of the day", |args| civil(args, |civil| civil.hour)),
    converter("Hours", DURATION, "float", "A duration in hours", |args| parts(args, 3_600_000_000_000)),
    converter("Microseconds", DURATION, "int", "A duration in µs", |args| Ok(Value::Int(args.duration(0)? / 1_000))),
    converter("Milliseconds", DURATION, "int", "A duration in ms", |args| Ok(Value::Int(args.duration(0)? / 1_000_000))),
    converter("Minute", TIME, "int", "The minute of the hour", |args| civil(args, |civil| civil.minute)),
    converter("Minutes", DURATION, "float", "A duration in minutes", |args| parts(args, 60_000_000_000)),
    converter("Month", TIME, "int", "The month, from 1", |args| civil(args, |civil| civil.month)),
    converter("Nanosecond", TIME, "int", "The nanosecond of the second", |args| civil(args, |civil| civil.nano)),
    converter("Nanoseconds", DURATION, "int", "A duration in ns", |args| Ok(Value::Int(args.duration(0)?))),
    converter("Now", &[], "time", "The time now", |_| Ok(Value::Time(strptime::now()))),
    converter("Second", TIME, "int", "The second of the minute", |args| civil(args, |civil| civil.second)),
    converter("Seconds", DURATION, "float", "A duration in seconds", |args| parts(args, 1_000_000_000)),
    converter(
        "Time",
        &[needs("time", Takes::Text), needs("format", Takes::LiteralText), may("location", Takes::LiteralText), may("locale", Takes::LiteralText)],
        "time",
        "The time that text is in a format with `%Y`, `%m`, ...; without a zone in it, in that of `location`, of UTC if the format ends in `Z`, or of this machine",
        |args| {
            let text = args.text(0)?;
            match args.prepared {
                _ if text.is_empty() => Err(EvalError::new("an empty string is no time")),
                Prepared::Clock(format, place) => format.read(&text, place).map(Value::Time).map_err(EvalError::new),
                _ => Err(EvalError::new("no format")),
            }
        },
    )
    .prepared(clock),
    converter("TruncateTime", &[needs("time", Takes::Time), needs("duration", Takes::Duration)], "time", "A time rounded down to a multiple of a duration", |args| {
        Ok(Value::Time(args.time(0)?.truncated(args.duration(1)?)))
    }),
    converter("Unix", &[needs("seconds", Takes::Int), may("nanoseconds", Takes::Int)], "time", "The time so long after 1970 began", |args| {
        let nanos = if args.given(1) { args.int(1)? } else { 0 };
        let all = i128::from(args.int(0)?) * 1_000_000_000 + i128::from(nanos);
        Ok(Value::Time(Time::told_in(all, Place::local())))
    }),
    converter("UnixMicro", TIME, "int", "A time in µs since 1970 began", |args| Ok(Value::Int(args.time(0)?.since_epoch(1_000)))),
    converter("UnixMilli", TIME, "int", "A time in ms since 1970 began", |args| Ok(Value::Int(args.time(0)?.since_epoch(1_000_000)))),
    converter("UnixNano", TIME, "int", "A time in ns since 1970 began", |args| Ok(Value::Int(args.time(0)?.since_epoch(1)))),
    converter("UnixSeconds", TIME, "int", "A time in seconds since 1970 began", |args| Ok(Value::Int(args.time(0)?.since_epoch(1_000_000_000)))),
    converter("Weekday", TIME, "int", "The day of the week, from Sunday, which is 0", |args| civil(args, |civil| civil.weekday)),
    converter("Year", TIME, "int", "The year", |args| civil(args, |civil| civil.year)),
];

fn civil<'a>(args: &Args<'_, 'a>, part: fn(&Civil) -> i64) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(part(&args.time(0)?.civil())))
}

/// A duration in units of `unit` ns, whole units and the rest apart as Go has them.
#[allow(clippy::cast_precision_loss)]
fn parts<'a>(args: &Args<'_, 'a>, unit: i64) -> Result<Value<'a>, EvalError> {
    let nanos = args.duration(0)?;
    Ok(Value::Float((nanos / unit) as f64 + (nanos % unit) as f64 / unit as f64))
}

fn format(literals: &Literals<'_>) -> Result<strptime::Format, (usize, String)> {
    strptime::Format::new(literals.text(1).unwrap_or_default()).map_err(|message| (1, message))
}

fn clock(literals: &Literals<'_>) -> Result<Prepared, (usize, String)> {
    let format = format(literals)?;
    let place = match literals.text(2).filter(|name| !name.is_empty()) {
        Some(name) => Place::named(name).ok_or_else(|| (2, format!("{name:?} is no time zone")))?,
        None if format.zulu => Place::Utc,
        None => Place::local(),
    };
    // Months and days of other languages are not known here.
    if let Some(locale) = literals.text(3)
        && locale != "en"
        && !locale.starts_with("en-")
    {
        return Err((3, format!("of locales there is en, and not {locale:?}")));
    }
    Ok(Prepared::Clock(format, place))
}
