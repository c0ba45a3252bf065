//! Comparison and arithmetic.
//!
//! Comparing never fails: of two kinds that have nothing in common only `!=` holds. Arithmetic does.

use std::cmp::Ordering;

use crate::{
    error::EvalError,
    syntax::{Comparison, Operator},
    value::{Map, Value},
};

/// Whether `left` compares to `right` so.
///
/// ```
/// use profiler_ottl::{Comparison, Value, compare};
///
/// assert!(compare(&Value::Int(1), Comparison::Equal, &Value::Float(1.0)));
/// assert!(!compare(&Value::Int(1), Comparison::Less, &Value::from("2")));
/// assert!(compare(&Value::Nil, Comparison::LessEqual, &Value::Nil));
/// ```
#[must_use]
pub fn compare(left: &Value<'_>, comparison: Comparison, right: &Value<'_>) -> bool {
    use Value::{Bool, Bytes, Duration, Float, Int, List, Map, Nil, Text, Time};
    let ordering = match (left, right) {
        (Nil, Nil) => Some(Ordering::Equal),
        (Bool(left), Bool(right)) => Some(left.cmp(right)),
        (Int(left), Int(right)) => Some(left.cmp(right)),
        (Text(left), Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Bytes(left), Bytes(right)) => Some(left.cmp(right)),
        (Duration(left), Duration(right)) => Some(left.cmp(right)),
        (Time(left), Time(right)) => Some(left.nanos().cmp(&right.nanos())),
        (Int(_) | Float(_), Int(_) | Float(_)) => return floats(number(left), comparison, number(right)),
        (List(_), List(_)) | (Map(_), Map(_)) | (Value::Id(_), Value::Id(_)) | (Value::Opaque(_), Value::Opaque(_)) => {
            return match comparison {
                Comparison::Equal => same(left, right),
                Comparison::NotEqual => !same(left, right),
                _ => false,
            };
        }
        _ => None,
    };
    match ordering {
        None => comparison == Comparison::NotEqual,
        Some(ordering) => match comparison {
            Comparison::Equal => ordering.is_eq(),
            Comparison::NotEqual => ordering.is_ne(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessEqual => ordering.is_le(),
            Comparison::GreaterEqual => ordering.is_ge(),
            Comparison::Greater => ordering.is_gt(),
        },
    }
}

#[allow(clippy::cast_precision_loss)]
fn number(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(number) => *number as f64,
        Value::Float(number) => *number,
        _ => f64::NAN,
    }
}

#[allow(clippy::float_cmp)]
fn floats(left: f64, comparison: Comparison, right: f64) -> bool {
    match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => left < right,
        Comparison::LessEqual => left <= right,
        Comparison::GreaterEqual => left >= right,
        Comparison::Greater => left > right,
    }
}

/// Whether two values are the same within a list or map, where a whole number is no floating-point one.
#[allow(clippy::float_cmp)]
fn same(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) | (Value::Duration(left), Value::Duration(right)) => left == right,
        (Value::Float(left), Value::Float(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::Bytes(left), Value::Bytes(right)) => left == right,
        (Value::Time(left), Value::Time(right)) => left.nanos() == right.nanos(),
        (Value::Id(left), Value::Id(right)) => left == right,
        (Value::Opaque(left), Value::Opaque(right)) => left == right,
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| same(left, right))
        }
        (Value::Map(left), Value::Map(right)) => same_maps(left, right),
        _ => false,
    }
}

fn same_maps(left: &Map, right: &Map) -> bool {
    left.len() == right.len() && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
}

/// What `left` and `right` come to.
///
/// Whole numbers wrap; a whole and a floating-point number make a floating-point one; times and durations add up and subtract as they do in life.
///
/// # Errors
///
/// A division by zero; operands that the operator has no meaning for.
pub fn calculate(left: &Value<'_>, operator: Operator, right: &Value<'_>) -> Result<Value<'static>, EvalError> {
    use Value::{Duration, Float, Int, Time};
    Ok(match (left, operator, right) {
        (Int(left), operator, Int(right)) => Int(match operator {
            Operator::Add => left.wrapping_add(*right),
            Operator::Subtract => left.wrapping_sub(*right),
            Operator::Multiply => left.wrapping_mul(*right),
            Operator::Divide if *right == 0 => return Err(divided()),
            Operator::Divide => left.wrapping_div(*right),
        }),
        (Int(_) | Float(_), operator, Int(_) | Float(_)) => {
            let (left, right) = (number(left), number(right));
            Float(match operator {
                Operator::Add => left + right,
                Operator::Subtract => left - right,
                Operator::Multiply => left * right,
                Operator::Divide if right == 0.0 => return Err(divided()),
                Operator::Divide => left / right,
            })
        }
        (Time(left), Operator::Add, Duration(right)) => Time(left.plus(i128::from(*right))),
        (Duration(left), Operator::Add, Time(right)) => Time(right.plus(i128::from(*left))),
        (Time(left), Operator::Subtract, Duration(right)) => Time(left.plus(-i128::from(*right))),
        (Time(left), Operator::Subtract, Time(right)) => Duration(clamp(left.nanos() - right.nanos())),
        (Duration(left), Operator::Add, Duration(right)) => Duration(left.wrapping_add(*right)),
        (Duration(left), Operator::Subtract, Duration(right)) => Duration(left.wrapping_sub(*right)),
        _ => {
            let word = match operator {
                Operator::Add => "+",
                Operator::Subtract => "-",
                Operator::Multiply => "*",
                Operator::Divide => "/",
            };
            return Err(EvalError::new(format!(
                "`{word}` has no meaning between {} and {}",
                left.kind(),
                right.kind()
            )));
        }
    })
}

fn clamp(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn divided() -> EvalError {
    EvalError::new("division by zero")
}

/// `-value`.
///
/// # Errors
///
/// It is no number.
pub(crate) fn negate(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match value {
        Value::Int(number) => Ok(Value::Int(number.wrapping_neg())),
        Value::Float(number) => Ok(Value::Float(-number)),
        _ => Err(EvalError::new(format!("`-` has no meaning before {}", value.kind()))),
    }
}
