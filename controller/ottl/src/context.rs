//! What a rule runs on.

use std::{borrow::Cow, fmt::Debug};

use crate::{
    error::EvalError,
    value::{Map, Value},
};

/// What a rule reads and changes.
///
/// A path is resolved once, when the rule is compiled, to an accessor; what is left for each run is `get` and `set`. [`get_key`] and [`set_key`] do
/// what the language says of keys.
///
/// ```
/// use profiler_ottl::{Context, EvalError, Key, Language, Map, PathError, Paths, Value, Written, get_key, set_key};
///
/// struct Service { name: String, attributes: Map }
///
/// #[derive(Clone, Debug)]
/// enum Field { Name, Attributes }
///
/// impl Context for Service {
///     type Accessor = Field;
///     fn get<'a>(&'a self, field: &'a Field, keys: &[Key<'_>]) -> Result<Value<'a>, EvalError> {
///         match field {
///             Field::Name => Ok(Value::from(self.name.as_str())),
///             Field::Attributes => get_key(&self.attributes, keys),
///         }
///     }
///     fn set(&mut self, field: &Field, keys: &[Key<'_>], value: Value<'static>) -> Result<(), EvalError> {
///         match field {
///             Field::Name => match value {
///                 Value::Text(name) => self.name = name.into_owned(),
///                 other => return Err(EvalError::new(format!("a name is a string, not {}", other.kind()))),
///             },
///             Field::Attributes => set_key(&mut self.attributes, keys, value)?,
///         }
///         Ok(())
///     }
/// }
///
/// struct Names;
///
/// impl Paths for Names {
///     type Accessor = Field;
///     fn resolve(&self, path: &Written<'_>) -> Result<Field, PathError> {
///         match path.names() {
///             ["name"] if !path.indexed() => Ok(Field::Name),
///             ["attributes"] => Ok(Field::Attributes),
///             _ => Err(PathError::unknown()),
///         }
///     }
///     fn known(&self) -> Vec<String> {
///         vec!["name".to_owned(), "attributes".to_owned()]
///     }
/// }
///
/// let rule = Language::new(&Names).statement::<Service>(r#"set(attributes["tier"], "web") where IsMatch(name, "^front")"#)?;
/// let mut service = Service { name: "frontend".to_owned(), attributes: Map::new() };
/// assert!(rule.execute(&mut service)?);
/// assert!(matches!(service.attributes.get("tier"), Some(Value::Text(tier)) if tier == "web"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Context {
    /// What a path is resolved to.
    type Accessor: Clone + Debug + Send + Sync + 'static;

    /// The value at `accessor`, or behind `keys` of it.
    ///
    /// # Errors
    ///
    /// A key that does not fit, an index out of bounds, what cannot be read.
    fn get<'a>(&'a self, accessor: &'a Self::Accessor, keys: &[Key<'_>]) -> Result<Value<'a>, EvalError>;

    /// Puts `value` there. Nil empties what can be empty.
    ///
    /// # Errors
    ///
    /// As [`Context::get`], and a value of the wrong kind.
    fn set(&mut self, accessor: &Self::Accessor, keys: &[Key<'_>], value: Value<'static>) -> Result<(), EvalError>;
}

/// The paths of a context.
pub trait Paths {
    /// What they are resolved to.
    type Accessor: Clone;

    /// The accessor of `path`.
    ///
    /// # Errors
    ///
    /// There is no such path, or it may not be indexed.
    fn resolve(&self, path: &Written<'_>) -> Result<Self::Accessor, PathError>;

    /// All paths, to name the nearest one where a rule has one that is none.
    fn known(&self) -> Vec<String>;

    /// The value of a symbol in capitals.
    fn symbol(&self, name: &str) -> Option<i64> {
        let _ = name;
        None
    }
}

/// A path as a rule has it.
#[derive(Debug)]
pub struct Written<'a> {
    pub(crate) names: Vec<&'a str>,
    pub(crate) indexed: bool,
    pub(crate) target: bool,
}

impl<'a> Written<'a> {
    /// The names between its dots.
    #[must_use]
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// Whether keys follow the last name. In front of it no keys are possible.
    #[must_use]
    pub fn indexed(&self) -> bool {
        self.indexed
    }

    /// Whether an editor changes what is there.
    #[must_use]
    pub fn is_target(&self) -> bool {
        self.target
    }
}

/// Why a path is none.
#[derive(Clone, Debug)]
pub struct PathError {
    pub(crate) message: Option<String>,
}

impl PathError {
    /// There is no such path.
    #[must_use]
    pub fn unknown() -> Self {
        Self { message: None }
    }

    /// There is one, and it is not used so.
    #[must_use]
    pub fn because(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()) }
    }
}

/// A key behind a path. One that failed to be found fails where it is needed.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// Of a map.
    Text(Cow<'a, str>),
    /// Of a list.
    Int(i64),
    /// Not to be had.
    Failed(EvalError),
}

/// The most values that a list grows to by an index beyond its end.
pub const MAX_LIST: usize = 65_536;

impl Key<'_> {
    /// The key of a map.
    ///
    /// # Errors
    ///
    /// It is an index, or failed.
    pub fn name(&self) -> Result<&str, EvalError> {
        match self {
            Self::Text(name) => Ok(name),
            Self::Int(index) => Err(EvalError::new(format!("a map has keys that are strings, not {index}"))),
            Self::Failed(error) => Err(error.clone()),
        }
    }

    /// The index into a list of `length`.
    ///
    /// # Errors
    ///
    /// It is a name, out of bounds, or failed.
    pub fn index(&self, length: usize) -> Result<usize, EvalError> {
        match self {
            Self::Int(index) => usize::try_from(*index)
                .ok()
                .filter(|index| *index < length)
                .ok_or_else(|| EvalError::new(format!("index {index} is out of bounds of a list of {length}"))),
            Self::Text(name) => Err(EvalError::new(format!("a list has keys that are ints, not {name:?}"))),
            Self::Failed(error) => Err(error.clone()),
        }
    }
}

/// The value behind `keys` in `map`, or the map itself without any. A key that is not there is nil.
///
/// # Errors
///
/// A key of the wrong kind; an index out of bounds; keys behind something that has none.
pub fn get_key<'a>(map: &'a Map, keys: &[Key<'_>]) -> Result<Value<'a>, EvalError> {
    let Some((first, rest)) = keys.split_first() else { return Ok(Value::Map(Cow::Borrowed(map))) };
    match map.get(first.name()?) {
        Some(value) => get_within(value, rest),
        None => Ok(Value::Nil),
    }
}

/// The value behind `keys` in `value`.
///
/// # Errors
///
/// As [`get_key`].
pub fn get_within<'a>(value: &'a Value<'static>, keys: &[Key<'_>]) -> Result<Value<'a>, EvalError> {
    let mut value = value;
    for key in keys {
        match value {
            Value::Map(map) => match map.get(key.name()?) {
                Some(next) => value = next,
                None => return Ok(Value::Nil),
            },
            Value::List(list) => value = &list[key.index(list.len())?],
            other => return Err(EvalError::new(format!("{} has no keys", other.kind()))),
        }
    }
    Ok(value.borrowed())
}

/// Puts `new` behind `keys` in `map`, or in its place without any. What is missing on the way is made.
///
/// # Errors
///
/// As [`get_key`], and a value that cannot be stored; `map` is then as it was.
pub fn set_key(map: &mut Map, keys: &[Key<'_>], new: Value<'static>) -> Result<(), EvalError> {
    new.storable()?;
    let Some((first, rest)) = keys.split_first() else {
        *map = match new {
            Value::Nil => Map::new(),
            Value::Map(new) => new.into_owned(),
            other => return Err(EvalError::new(format!("a map cannot be set to {}", other.kind()))),
        };
        return Ok(());
    };
    let name = first.name()?;
    if rest.is_empty() {
        *map.entry(name) = new;
        return Ok(());
    }
    let mut changed = map.get(name).cloned().unwrap_or_default();
    set_within(&mut changed, rest, new)?;
    *map.entry(name) = changed;
    Ok(())
}

/// Puts `new` behind `keys` in `value`.
///
/// # Errors
///
/// As [`set_key`]; what has been made on the way is left.
pub fn set_within(value: &mut Value<'static>, keys: &[Key<'_>], new: Value<'static>) -> Result<(), EvalError> {
    let mut value = value;
    for key in keys {
        if matches!(value, Value::Nil) {
            *value = match key {
                Key::Text(_) => Value::map(Map::new()),
                Key::Int(index) => {
                    // Below zero it is as if it were zero.
                    let length = usize::try_from((*index).max(0)).ok().filter(|length| *length < MAX_LIST);
                    let length = length.ok_or_else(|| {
                        EvalError::new(format!("index {index} would make a list of more than {MAX_LIST} values"))
                    })?;
                    *value = Value::list(vec![Value::Nil; length + 1]);
                    let Value::List(list) = value else { return Ok(()) };
                    value = &mut list.to_mut()[length];
                    continue;
                }
                Key::Failed(error) => return Err(error.clone()),
            };
        }
        value = match value {
            Value::Map(map) => map.to_mut().entry(key.name()?),
            Value::List(list) => {
                let index = key.index(list.len())?;
                &mut list.to_mut()[index]
            }
            other => return Err(EvalError::new(format!("{} has no keys", other.kind()))),
        };
    }
    *value = new;
    Ok(())
}
