//! What a configuration means, and what is said of one that means nothing.

mod documents;
mod keys;
mod layers;
mod processors;
mod refusals;
mod remote;
mod secrets;

use std::path::Path;

use super::{ConfigErrors, Flags, Loaded, load_text};

/// Loads `text` as the file `c.yaml`.
fn loaded(flags: &Flags, variables: &[(&str, &str)], text: &str) -> Result<Loaded, ConfigErrors> {
    let env = |name: &str| variables.iter().find(|(there, _)| *there == name).map(|(_, value)| (*value).to_owned());
    load_text(flags, &env, Some((Path::new("c.yaml"), text)))
}

/// Loads `text` alone, which is right.
fn file(text: &str) -> Loaded {
    loaded(&Flags::default(), &[], text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// What is said of `text`, which is wrong.
fn refusal(text: &str) -> String {
    match loaded(&Flags::default(), &[], text) {
        Ok(loaded) => panic!("taken:\n{text}\n{}", loaded.describe()),
        Err(errors) => errors.to_string(),
    }
}

fn flags(values: &[(&str, &str, &str)]) -> Flags {
    let mut flags = Flags::default();
    for (flag, path, value) in values {
        flags.set(flag, path, value);
    }
    flags
}
