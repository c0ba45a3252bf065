//! A context of one map, `attributes`.

use profiler_ottl::{
    CompileError, Context, EvalError, Gates, Key, Language, Map, PathError, Paths, Statement, Value, Written, get_key,
    set_key,
};

#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub map: Map,
}

pub struct Names;

impl Context for Attributes {
    type Accessor = ();

    fn get<'a>(&'a self, (): &'a (), keys: &[Key<'_>]) -> Result<Value<'a>, EvalError> {
        get_key(&self.map, keys)
    }

    fn set(&mut self, (): &(), keys: &[Key<'_>], value: Value<'static>) -> Result<(), EvalError> {
        set_key(&mut self.map, keys, value)
    }
}

impl Paths for Names {
    type Accessor = ();

    fn resolve(&self, path: &Written<'_>) -> Result<(), PathError> {
        match path.names() {
            ["attributes"] => Ok(()),
            _ => Err(PathError::unknown()),
        }
    }

    fn known(&self) -> Vec<String> {
        vec!["attributes".to_owned()]
    }
}

/// The language with lambdas.
pub fn language() -> Language<'static, Names> {
    Language::new(&Names).with_gates(Gates { lambda: true, ..Gates::default() })
}

pub fn statement(rule: &str) -> Result<Statement<Attributes>, CompileError> {
    language().statement(rule)
}
