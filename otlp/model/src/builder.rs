//! Builds [`Profiles`] with every table interned.

use rustc_hash::FxHashMap;

use super::{
    Function, FunctionId, Link, LinkId, Location, LocationId, Mapping, MappingId, Process, ProcessId, Profile,
    Profiles, StackId, StringId, Thread, ThreadId,
};

/// [`Profiles`] under construction.
#[derive(Debug)]
pub struct ProfileBuilder {
    set: Profiles,
    strings: FxHashMap<String, StringId>,
    mappings: FxHashMap<Mapping, MappingId>,
    functions: FxHashMap<Function, FunctionId>,
    locations: FxHashMap<Location, LocationId>,
    stacks: FxHashMap<Vec<LocationId>, StackId>,
    processes: FxHashMap<Process, ProcessId>,
    threads: FxHashMap<Thread, ThreadId>,
    links: FxHashMap<Link, LinkId>,
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
    /// No profile; string 0 is "", link 0 none.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = Self {
            set: Profiles::default(),
            strings: FxHashMap::default(),
            mappings: FxHashMap::default(),
            functions: FxHashMap::default(),
            locations: FxHashMap::default(),
            stacks: FxHashMap::default(),
            processes: FxHashMap::default(),
            threads: FxHashMap::default(),
            links: FxHashMap::default(),
        };
        builder.string("");
        builder.link(Link::default());
        builder
    }

    /// A builder that goes on with `set`: of its tables, texts are known again, and further rows are new ones.
    #[must_use]
    pub fn of(set: Profiles) -> Self {
        let mut builder = Self::new();
        let strings = set.strings.iter().enumerate();
        builder.strings = strings.map(|(id, text)| (text.clone(), id as StringId)).collect();
        builder.links.clear();
        builder.set = set;
        if builder.set.strings.is_empty() {
            builder.string("");
        }
        builder
    }

    /// The id of `text`.
    pub fn string(&mut self, text: &str) -> StringId {
        if let Some(&id) = self.strings.get(text) {
            return id;
        }
        intern(&mut self.set.strings, &mut self.strings, text.to_owned())
    }

    /// The id of `mapping`.
    pub fn mapping(&mut self, mapping: Mapping) -> MappingId {
        intern(&mut self.set.mappings, &mut self.mappings, mapping)
    }

    /// The id of `function`.
    pub fn function(&mut self, function: Function) -> FunctionId {
        intern(&mut self.set.functions, &mut self.functions, function)
    }

    /// The id of `location`.
    pub fn location(&mut self, location: Location) -> LocationId {
        intern(&mut self.set.locations, &mut self.locations, location)
    }

    /// The id of the stack `locations`, leaf first.
    pub fn stack(&mut self, locations: &[LocationId]) -> StackId {
        if let Some(&id) = self.stacks.get(locations) {
            return id;
        }
        intern(&mut self.set.stacks, &mut self.stacks, locations.to_vec())
    }

    /// The id of `process`.
    pub fn process(&mut self, process: Process) -> ProcessId {
        intern(&mut self.set.processes, &mut self.processes, process)
    }

    /// The id of `thread`.
    pub fn thread(&mut self, thread: Thread) -> ThreadId {
        intern(&mut self.set.threads, &mut self.threads, thread)
    }

    /// The id of `link`.
    pub fn link(&mut self, link: Link) -> LinkId {
        intern(&mut self.set.links, &mut self.links, link)
    }

    /// Begins another profile; returns its index.
    pub fn begin(&mut self, profile: Profile) -> usize {
        self.set.profiles.push(profile);
        self.set.profiles.len() - 1
    }

    /// The profile that was begun last; begins one if there is none.
    pub fn profile_mut(&mut self) -> &mut Profile {
        if self.set.profiles.is_empty() {
            self.begin(Profile::default());
        }
        let last = self.set.profiles.len() - 1;
        &mut self.set.profiles[last]
    }

    /// All so far.
    #[must_use]
    pub fn set(&self) -> &Profiles {
        &self.set
    }

    /// All so far, for the fields that are not tables.
    pub fn set_mut(&mut self) -> &mut Profiles {
        &mut self.set
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> Profiles {
        self.set
    }
}
