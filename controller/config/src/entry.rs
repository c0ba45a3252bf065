//! What was read, key by key: the source of the effective configuration, of the schema and of the reference.

use serde_json::Value as Json;

use super::kind::Items;
use super::origin::Origin;

/// One key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) doc: &'static str,
    pub(super) required: bool,
    pub(super) content: Content,
}

/// What stands behind a key.
#[derive(Debug)]
pub(super) enum Content {
    /// One value.
    Scalar {
        /// None: not set, and there is no default.
        value: Option<Shown>,
        default: Option<String>,
        about: About,
    },
    /// A list of values.
    List { values: Vec<Shown>, origin: Origin, default: Vec<String>, about: About },
    /// Values under names that the user chooses.
    Map { values: Vec<(String, Shown)>, about: About },
    /// Further keys.
    Section { present: bool, entries: Vec<Entry>, exactly_one: &'static [&'static str] },
    /// A list of groups of keys. One that has nothing but an item of the list `short` may be that item alone.
    Sections {
        items: Vec<Vec<Entry>>,
        exactly_one: &'static [&'static str],
        remote: Items,
        short: Option<&'static str>,
    },
}

/// A value as it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What a value may be.
#[derive(Debug)]
pub(super) struct About {
    pub(super) schema: Json,
    pub(super) what: String,
    /// What a remote configuration may make of it; empty: nothing.
    pub(super) remote: &'static str,
    /// The environment variable that sets it.
    pub(super) variable: Option<String>,
}
