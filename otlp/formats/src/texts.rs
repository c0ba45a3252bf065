//! Texts of a file under reading, with bounds.
//!
//! A few bytes can refer to a long string any number of times. So nothing here copies a string once per reference: strings are
//! cut at a length no name reaches, what is derived from one is derived once, and what must be copied counts against a budget.

use profiler_model::{StringId, builder::ProfileBuilder};
use rustc_hash::FxHashMap;

use crate::error::Error;

/// Bytes that a string may have; the rest is cut off.
const MAX_LENGTH: usize = 64 << 10;
/// Bytes of text that may be copied out of the string table.
const MAX_COPIED: usize = 16 << 20;

/// The strings of one file.
#[derive(Default)]
pub(crate) struct Texts {
    ids: Vec<StringId>,
    derived: FxHashMap<StringId, StringId>,
    copied: usize,
}

impl Texts {
    /// No strings yet, of a table that stands behind this one in the same file.
    pub(crate) fn next(self) -> Self {
        Self { ids: Vec::new(), ..self }
    }

    /// Adds the next entry of the file's string table.
    pub(crate) fn push(&mut self, bytes: &[u8], builder: &mut ProfileBuilder) -> Result<(), Error> {
        crate::wire::check_count(self.ids.len(), crate::wire::MAX_ENTRIES, "strings")?;
        self.ids.push(intern(bytes, builder));
        Ok(())
    }

    /// The string at `index` of the file's table; `what` refers to it.
    pub(crate) fn get(&self, what: &'static str, index: i64) -> Result<StringId, Error> {
        let known = usize::try_from(index).ok().and_then(|index| self.ids.get(index));
        match known {
            Some(&id) => Ok(id),
            // A file without any string may refer to "".
            None if index == 0 => Ok(0),
            None => Err(Error::dangling(what, index)),
        }
    }

    /// A copy of the string `id`.
    pub(crate) fn copy(&mut self, id: StringId, builder: &mut ProfileBuilder) -> Result<String, Error> {
        let text = builder.set().string(id).to_owned();
        self.spend(text.len() + size_of::<String>())?;
        Ok(text)
    }

    /// Counts `bytes` against what may be copied.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.copied = self.copied.saturating_add(bytes);
        if self.copied > MAX_COPIED {
            return Err(Error::TooLarge {
                what: "bytes of comments, types and structured attributes",
                limit: MAX_COPIED,
            });
        }
        Ok(())
    }

    /// What `derive` makes of the string `id`, which must always be the same for the same string.
    pub(crate) fn derived(
        &mut self,
        id: StringId,
        builder: &mut ProfileBuilder,
        derive: impl FnOnce(&str) -> String,
    ) -> StringId {
        *self.derived.entry(id).or_insert_with(|| {
            let text = derive(builder.set().string(id));
            builder.string(&text)
        })
    }
}

/// `bytes` as a string of `builder`: what is not UTF-8 replaced, what is too long cut off.
pub(crate) fn intern(bytes: &[u8], builder: &mut ProfileBuilder) -> StringId {
    let text = String::from_utf8_lossy(bytes.get(..MAX_LENGTH).unwrap_or(bytes));
    builder.string(&text)
}
