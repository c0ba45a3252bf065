//! A place in a request, which rules read and change.

mod context;
mod stack;

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    profiles::v1development::{
        KeyValueAndUnit, Profile, ProfilesDictionary, ResourceProfiles, Sample, ScopeProfiles, ValueType,
    },
    resource::v1::Resource,
};
use profiler_ottl::{EvalError, Key, Map, Opaque, Value, set_within};
use prost::Message;

use self::stack::Stack;
pub(crate) use self::stack::{Frame, Row};
use crate::{Request, any, paths::Level};

/// The place of a resource, scope, profile or sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub resource: usize,
    pub scope: usize,
    pub profile: usize,
    pub sample: usize,
}

/// A request, and where in it a rule is.
#[derive(Debug, Default)]
pub struct Cursor {
    request: Request,
    place: Place,
    cache: Map,
    /// The stack of the sample that it is at, taken apart.
    stack: Stack,
    strings: Option<HashMap<String, i32>>,
    /// Rows by their bytes, each from when one is first looked for.
    attributes: Rows,
    functions: Rows,
    mappings: Rows,
    locations: Rows,
    stacks: Rows,
}

/// The indices of a table's rows by their bytes.
#[derive(Debug, Default)]
struct Rows(Option<HashMap<Vec<u8>, i32>>);

impl Rows {
    /// The index of `row` in `table`, where it is added if it is not there. The first row stands for none.
    fn index<T: Message + Default>(&mut self, table: &mut Vec<T>, row: T) -> Result<i32, EvalError> {
        if table.is_empty() {
            table.push(T::default());
        }
        let known = self.0.get_or_insert_with(|| {
            let mut known = HashMap::with_capacity(table.len());
            for (at, row) in (0_i32..).zip(table.iter()) {
                known.entry(row.encode_to_vec()).or_insert(at);
            }
            known
        });
        let bytes = row.encode_to_vec();
        if let Some(index) = known.get(&bytes) {
            return Ok(*index);
        }
        let index = i32::try_from(table.len()).map_err(|_| EvalError::new("a table of the dictionary is full"))?;
        table.push(row);
        known.insert(bytes, index);
        Ok(index)
    }
}

/// The values of `Opaque::words` that tell a sample's type from a period's.
const OF_SAMPLES: i64 = 1;
const OF_PERIOD: i64 = 2;

impl Cursor {
    pub(crate) fn new(request: Request) -> Self {
        Self { request, ..Self::default() }
    }

    pub(crate) fn into_request(self) -> Request {
        self.request
    }

    /// Goes to `place`, with an empty cache.
    pub(crate) fn go(&mut self, place: Place) {
        self.place = place;
        if !self.cache.is_empty() {
            self.cache = Map::new();
        }
    }

    /// How many of `level` there are within the place so far.
    pub(crate) fn count(&self, level: Level, place: Place) -> usize {
        let resource = self.request.resource_profiles.get(place.resource);
        let scope = resource.and_then(|resource| resource.scope_profiles.get(place.scope));
        match level {
            Level::Resource => self.request.resource_profiles.len(),
            Level::Scope => resource.map_or(0, |resource| resource.scope_profiles.len()),
            Level::Profile => scope.map_or(0, |scope| scope.profiles.len()),
            Level::Sample => {
                scope.and_then(|scope| scope.profiles.get(place.profile)).map_or(0, |profile| profile.samples.len())
            }
            Level::Stack | Level::Frame => 0,
        }
    }

    /// The samples of the context of `level` here: what counts samples says how many, else each time or entry is one.
    pub(crate) fn samples(&self, level: Level) -> u64 {
        let of_all = |profiles: &mut dyn Iterator<Item = &Profile>| {
            profiles.map(|profile| self.of_samples(profile, &profile.samples)).fold(0, u64::saturating_add)
        };
        match level {
            Level::Resource => {
                of_all(&mut self.resource_profiles().scope_profiles.iter().flat_map(|scope| &scope.profiles))
            }
            Level::Scope => of_all(&mut self.scope_profiles().profiles.iter()),
            Level::Profile => of_all(&mut std::iter::once(self.profile())),
            Level::Sample | Level::Stack | Level::Frame => {
                self.of_samples(self.profile(), std::slice::from_ref(self.sample()))
            }
        }
    }

    fn of_samples(&self, profile: &Profile, samples: &[Sample]) -> u64 {
        let kind = profile.sample_type.unwrap_or_default();
        let is = |index, text| self.string(index).is_ok_and(|found| found == text);
        let counts = is(kind.type_strindex, "samples") && is(kind.unit_strindex, "count");
        let of_sample = |sample: &Sample| match sample.values.as_slice() {
            values @ [_, ..] if counts => {
                values.iter().map(|value| (*value).max(0).unsigned_abs()).fold(0, u64::saturating_add)
            }
            _ => sample.timestamps_unix_nano.len().max(1) as u64,
        };
        samples.iter().map(of_sample).fold(0, u64::saturating_add)
    }

    fn resource_profiles(&self) -> &ResourceProfiles {
        &self.request.resource_profiles[self.place.resource]
    }

    fn scope_profiles(&self) -> &ScopeProfiles {
        &self.resource_profiles().scope_profiles[self.place.scope]
    }

    fn profile(&self) -> &Profile {
        &self.scope_profiles().profiles[self.place.profile]
    }

    fn sample(&self) -> &Sample {
        &self.profile().samples[self.place.sample]
    }

    fn resource_profiles_mut(&mut self) -> &mut ResourceProfiles {
        &mut self.request.resource_profiles[self.place.resource]
    }

    fn resource_mut(&mut self) -> &mut Resource {
        self.resource_profiles_mut().resource.get_or_insert_default()
    }

    fn scope_profiles_mut(&mut self) -> &mut ScopeProfiles {
        let at = self.place.scope;
        &mut self.resource_profiles_mut().scope_profiles[at]
    }

    fn scope_mut(&mut self) -> &mut InstrumentationScope {
        self.scope_profiles_mut().scope.get_or_insert_default()
    }

    fn profile_mut(&mut self) -> &mut Profile {
        let at = self.place.profile;
        &mut self.scope_profiles_mut().profiles[at]
    }

    fn sample_mut(&mut self) -> &mut Sample {
        let at = self.place.sample;
        &mut self.profile_mut().samples[at]
    }

    fn strings(&self) -> &[String] {
        self.request.dictionary.as_ref().map_or(&[], |dictionary| &dictionary.string_table)
    }

    fn dictionary_mut(&mut self) -> &mut ProfilesDictionary {
        let dictionary = self.request.dictionary.get_or_insert_default();
        // The first entry of a table stands for none.
        if dictionary.string_table.is_empty() {
            dictionary.string_table.push(String::new());
        }
        dictionary
    }

    fn string(&self, index: i32) -> Result<&str, EvalError> {
        let found = usize::try_from(index).ok().and_then(|index| self.strings().get(index));
        found
            .map(String::as_str)
            .ok_or_else(|| EvalError::new(format!("string {index} is not in the table of {}", self.strings().len())))
    }

    /// The index of `text`, which is added if it is not there.
    fn intern(&mut self, text: &str) -> Result<i32, EvalError> {
        self.dictionary_mut();
        let Self { request, strings, .. } = self;
        let table = &mut request.dictionary.get_or_insert_default().string_table;
        let known = strings.get_or_insert_with(|| {
            let mut known = HashMap::with_capacity(table.len());
            for (at, text) in (0_i32..).zip(table.iter()) {
                known.entry(text.clone()).or_insert(at);
            }
            known
        });
        if let Some(index) = known.get(text) {
            return Ok(*index);
        }
        let index = i32::try_from(table.len()).map_err(|_| EvalError::new("the table of strings is full"))?;
        table.push(text.to_owned());
        known.insert(text.to_owned(), index);
        Ok(index)
    }

    /// The index of a row of attributes, which is added if it is not there.
    fn row(&mut self, row: KeyValueAndUnit) -> Result<i32, EvalError> {
        let table = &mut self.request.dictionary.get_or_insert_default().attribute_table;
        self.attributes.index(table, row)
    }

    fn attribute(&self, index: i32) -> Result<(&str, &KeyValueAndUnit), EvalError> {
        let table = self.request.dictionary.as_ref().map_or(&[][..], |dictionary| &dictionary.attribute_table);
        let row = usize::try_from(index).ok().and_then(|index| table.get(index));
        let row =
            row.ok_or_else(|| EvalError::new(format!("attribute {index} is not in the table of {}", table.len())))?;
        Ok((self.string(row.key_strindex)?, row))
    }

    /// The attributes at `indices`; of equal keys the last counts.
    fn read<'a>(&'a self, indices: &[i32], keys: &[Key<'_>]) -> Result<Value<'a>, EvalError> {
        let Some((first, rest)) = keys.split_first() else {
            let mut map = Map::new();
            for index in indices {
                let (key, row) = self.attribute(*index)?;
                map.insert(key, any::value(row.value.as_ref(), self.strings()).into_owned());
            }
            return Ok(Value::map(map));
        };
        let mut found = None;
        for index in indices {
            let (key, row) = self.attribute(*index)?;
            // A key that fails is needed to tell.
            if key == first.name()? {
                found = Some(row);
            }
        }
        first.name()?;
        found.map_or(Ok(Value::Nil), |row| any::within(row.value.as_ref(), rest, self.strings()))
    }

    /// What `indices` are when `value` is at `keys` of their attributes. A row that takes another's place keeps its unit.
    fn write(&mut self, indices: &[i32], keys: &[Key<'_>], value: Value<'static>) -> Result<Vec<i32>, EvalError> {
        value.storable()?;
        let mut units = HashMap::new();
        for index in indices {
            let (key, row) = self.attribute(*index)?;
            units.entry(key.to_owned()).or_insert(row.unit_strindex);
        }
        let Some((first, rest)) = keys.split_first() else {
            let map = match value {
                Value::Nil => Map::new(),
                Value::Map(map) => map.into_owned(),
                other => return Err(EvalError::new(format!("attributes cannot be set to {}", other.kind()))),
            };
            let mut written = Vec::with_capacity(map.len());
            for (key, value) in map.into_entries() {
                let unit_strindex = units.get(&key).copied().unwrap_or_default();
                let key_strindex = self.intern(&key)?;
                written.push(self.row(KeyValueAndUnit {
                    key_strindex,
                    value: Some(any::any(value)),
                    unit_strindex,
                })?);
            }
            return Ok(written);
        };
        let name = first.name()?;
        let mut at = None;
        let mut changed = Value::Nil;
        for (position, index) in indices.iter().enumerate() {
            let (key, row) = self.attribute(*index)?;
            if key == name {
                changed = any::value(row.value.as_ref(), self.strings()).into_owned();
                at = Some(position);
                break;
            }
        }
        set_within(&mut changed, rest, value)?;
        let unit_strindex = units.get(name).copied().unwrap_or_default();
        let key_strindex = self.intern(name)?;
        let row = self.row(KeyValueAndUnit { key_strindex, value: Some(any::any(changed)), unit_strindex })?;
        let mut written = indices.to_vec();
        match at {
            _ if written.contains(&row) => {}
            Some(at) => written[at] = row,
            None => written.push(row),
        }
        Ok(written)
    }

    fn opaque(&self, kind: &'static str, of: i64, value: Option<ValueType>) -> Value<'_> {
        let value = value.unwrap_or_default();
        Value::Opaque(Opaque { kind, words: [of, value.type_strindex.into(), value.unit_strindex.into()] })
    }

    /// A string of the type of samples or the period.
    fn named(&mut self, current: i32, value: Value<'static>) -> Result<i32, EvalError> {
        let text = context::text(value)?;
        if current != 0 && self.string(current).is_ok_and(|known| known == text) {
            return Ok(current);
        }
        self.intern(&text)
    }
}
