//! Builds a [`Profile`] with every table interned.

use rustc_hash::FxHashMap;

use super::{
    Function, FunctionId, Location, LocationId, Mapping, MappingId, Process, ProcessId, Profile, StackId, StringId,
    Thread, ThreadId,
};

/// A [`Profile`] under construction.
#[derive(Debug)]
pub struct ProfileBuilder {
    profile: Profile,
    strings: FxHashMap<String, StringId>,
    mappings: FxHashMap<Mapping, MappingId>,
    functions: FxHashMap<Function, FunctionId>,
    locations: FxHashMap<Location, LocationId>,
    stacks: FxHashMap<Vec<LocationId>, StackId>,
    processes: FxHashMap<Process, ProcessId>,
    threads: FxHashMap<Thread, ThreadId>,
}

impl Default for ProfileBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// The index of `value` in `table`, added if it is new.
fn intern<T: Clone + Eq + std::hash::Hash>(table: &mut Vec<T>, ids: &mut FxHashMap<T, u32>, value: T) -> u32 {
    if let Some(&id) = ids.get(&value) {
        return id;
    }
    let id = table.len() as u32;
    table.push(value.clone());
    ids.insert(value, id);
    id
}

impl ProfileBuilder {
    /// An empty profile; string 0 is "".
    #[must_use]
    pub fn new() -> Self {
        let mut builder = Self {
            profile: Profile::default(),
            strings: FxHashMap::default(),
            mappings: FxHashMap::default(),
            functions: FxHashMap::default(),
            locations: FxHashMap::default(),
            stacks: FxHashMap::default(),
            processes: FxHashMap::default(),
            threads: FxHashMap::default(),
        };
        builder.string("");
        builder
    }

    /// The id of `text`.
    pub fn string(&mut self, text: &str) -> StringId {
        if let Some(&id) = self.strings.get(text) {
            return id;
        }
        intern(&mut self.profile.strings, &mut self.strings, text.to_owned())
    }

    /// The id of `mapping`.
    pub fn mapping(&mut self, mapping: Mapping) -> MappingId {
        intern(&mut self.profile.mappings, &mut self.mappings, mapping)
    }

    /// The id of `function`.
    pub fn function(&mut self, function: Function) -> FunctionId {
        intern(&mut self.profile.functions, &mut self.functions, function)
    }

    /// The id of `location`.
    pub fn location(&mut self, location: Location) -> LocationId {
        intern(&mut self.profile.locations, &mut self.locations, location)
    }

    /// The id of the stack `locations`, leaf first.
    pub fn stack(&mut self, locations: &[LocationId]) -> StackId {
        if let Some(&id) = self.stacks.get(locations) {
            return id;
        }
        intern(&mut self.profile.stacks, &mut self.stacks, locations.to_vec())
    }

    /// The id of `process`.
    pub fn process(&mut self, process: Process) -> ProcessId {
        intern(&mut self.profile.processes, &mut self.processes, process)
    }

    /// The id of `thread`.
    pub fn thread(&mut self, thread: Thread) -> ThreadId {
        intern(&mut self.profile.threads, &mut self.threads, thread)
    }

    /// The profile so far.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The profile so far, for the fields that are not tables.
    pub fn profile_mut(&mut self) -> &mut Profile {
        &mut self.profile
    }

    /// The finished profile.
    #[must_use]
    pub fn finish(self) -> Profile {
        self.profile
    }
}
