//! The dictionary of a request under construction: only what is referred to, and nothing twice.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, any_value},
    profiles::v1development as proto,
};
use profiler_model::{FrameKind, FunctionId, LinkId, LocationId, MappingId, Profiles, StackId, ValueType, attribute};
use rustc_hash::FxHashMap;

use super::resource::stand_in_htlhash;

/// The value of an attribute that goes into the dictionary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<Self>),
}

impl From<Attribute> for AnyValue {
    fn from(attribute: Attribute) -> Self {
        let scalar = |attribute| match attribute {
            Attribute::Text(text) => any_value::Value::StringValue(text),
            Attribute::Int(number) => any_value::Value::IntValue(number),
            Attribute::Bool(flag) => any_value::Value::BoolValue(flag),
            // Lists are built from labels, which are scalars.
            Attribute::List(_) => any_value::Value::ArrayValue(ArrayValue::default()),
        };
        let value = match attribute {
            Attribute::List(values) => {
                let values = values.into_iter().map(|value| Self { value: Some(scalar(value)) }).collect();
                any_value::Value::ArrayValue(ArrayValue { values })
            }
            other => scalar(other),
        };
        Self { value: Some(value) }
    }
}

/// A table whose entries are unique; index 0 is the null entry.
struct Table<T, K = T> {
    entries: Vec<T>,
    ids: FxHashMap<K, i32>,
}

impl<T: Default, K: Eq + std::hash::Hash> Table<T, K> {
    fn new(null: K) -> Self {
        Self { entries: vec![T::default()], ids: FxHashMap::from_iter([(null, 0)]) }
    }

    fn intern(&mut self, key: K, entry: impl FnOnce(&K) -> T) -> i32 {
        if let Some(&id) = self.ids.get(&key) {
            return id;
        }
        // The model's ids are 32 bits wide, and as many entries as OTLP cannot count do not fit into memory.
        let id = i32::try_from(self.entries.len()).unwrap_or(0);
        self.entries.push(entry(&key));
        self.ids.insert(key, id);
        id
    }
}

/// The identity of a location; the message itself cannot be hashed.
#[derive(PartialEq, Eq, Hash)]
struct LocationKey {
    mapping: i32,
    address: u64,
    lines: Vec<proto::Line>,
    attributes: Vec<i32>,
}

/// All seven tables.
pub(super) struct Tables<'a> {
    profile: &'a Profiles,
    strings: Table<String>,
    attributes: Table<proto::KeyValueAndUnit, (i32, Option<Attribute>, i32)>,
    mappings: Table<proto::Mapping>,
    functions: Table<proto::Function>,
    locations: Table<proto::Location, LocationKey>,
    stacks: Table<proto::Stack>,
    /// The null link is an empty one; the form filled with zeros is refused by Parca and profcheck.
    links: Table<proto::Link, LinkId>,
    /// Where entries of the model have gone; -1: nowhere yet.
    of_mapping: Vec<i32>,
    of_function: Vec<i32>,
    of_location: Vec<i32>,
    of_stack: Vec<i32>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(profile: &'a Profiles) -> Self {
        let null_location = LocationKey { mapping: 0, address: 0, lines: Vec::new(), attributes: Vec::new() };
        Self {
            profile,
            strings: Table::new(String::new()),
            attributes: Table::new((0, None, 0)),
            mappings: Table::new(proto::Mapping::default()),
            functions: Table::new(proto::Function::default()),
            locations: Table::new(null_location),
            stacks: Table::new(proto::Stack::default()),
            links: Table::new(0),
            of_mapping: vec![-1; profile.mappings.len()],
            of_function: vec![-1; profile.functions.len()],
            of_location: vec![-1; profile.locations.len()],
            of_stack: vec![-1; profile.stacks.len()],
        }
    }

    /// The finished dictionary.
    pub(super) fn finish(self) -> proto::ProfilesDictionary {
        proto::ProfilesDictionary {
            mapping_table: self.mappings.entries,
            location_table: self.locations.entries,
            function_table: self.functions.entries,
            link_table: self.links.entries,
            string_table: self.strings.entries,
            attribute_table: self.attributes.entries,
            stack_table: self.stacks.entries,
        }
    }

    pub(super) fn string(&mut self, text: &str) -> i32 {
        if let Some(&id) = self.strings.ids.get(text) {
            return id;
        }
        self.strings.intern(text.to_owned(), Clone::clone)
    }

    pub(super) fn value_type(&mut self, kind: &ValueType) -> proto::ValueType {
        proto::ValueType { type_strindex: self.string(&kind.kind), unit_strindex: self.string(&kind.unit) }
    }

    pub(super) fn attribute(&mut self, key: &str, value: Attribute, unit: &str) -> i32 {
        let (key_strindex, unit_strindex) = (self.string(key), self.string(unit));
        self.attributes.intern((key_strindex, Some(value), unit_strindex), |(_, value, _)| proto::KeyValueAndUnit {
            key_strindex,
            value: value.clone().map(AnyValue::from),
            unit_strindex,
        })
    }

    /// Gives the model's link `id` an entry, if there is one and it has none.
    pub(super) fn add_link(&mut self, id: LinkId) {
        if id != 0
            && let Some(link) = self.profile.links.get(id as usize)
        {
            let of = |_: &LinkId| proto::Link { trace_id: link.trace_id.to_vec(), span_id: link.span_id.to_vec() };
            self.links.intern(id, of);
        }
    }

    /// The entry of the model's link `id`; 0 if it has none.
    pub(super) fn link(&self, id: LinkId) -> i32 {
        self.links.ids.get(&id).copied().unwrap_or(0)
    }

    /// The entry for the model's stack `id`; the null stack has no frames.
    pub(super) fn stack(&mut self, id: StackId) -> i32 {
        match self.of_stack.get(id as usize) {
            None => return 0,
            Some(&known) if known >= 0 => return known,
            Some(_) => {}
        }
        let profile = self.profile;
        let location_indices = profile.stack(id).iter().map(|&location| self.location(location)).collect();
        let index = self.stacks.intern(proto::Stack { location_indices }, Clone::clone);
        if let Some(slot) = self.of_stack.get_mut(id as usize) {
            *slot = index;
        }
        index
    }

    fn location(&mut self, id: LocationId) -> i32 {
        let profile = self.profile;
        let Some(location) = profile.location(id) else { return 0 };
        if let Some(&known) = self.of_location.get(id as usize).filter(|&&known| known >= 0) {
            return known;
        }
        let kind = match (location.kind, location.kind.names()) {
            (FrameKind::Other(name), _) => profile.string(name),
            (_, names) => names.and_then(|names| names.otlp).unwrap_or("native"),
        };
        let mut attributes = vec![self.attribute(attribute::FRAME_TYPE, Attribute::Text(kind.to_owned()), "")];
        if location.kind == FrameKind::Jit {
            attributes.push(self.attribute(attribute::FRAME_JIT, Attribute::Bool(true), ""));
        }
        if location.guessed {
            attributes.push(self.attribute(attribute::FRAME_GUESSED, Attribute::Bool(true), ""));
        }
        if let Some(tier) = location.tier {
            attributes.push(self.attribute(attribute::FRAME_TIER, Attribute::Text(tier.value().to_owned()), ""));
        }
        let lines = location.lines.iter().map(|line| proto::Line {
            function_index: self.function(line.function),
            line: line.line.into(),
            column: line.column.into(),
        });
        let lines = lines.collect();
        let mapping = location.mapping.map_or(0, |mapping| self.mapping(mapping));
        let key = LocationKey { mapping, address: location.address, lines, attributes };
        let index = self.locations.intern(key, |key| proto::Location {
            mapping_index: key.mapping,
            address: key.address,
            lines: key.lines.clone(),
            attribute_indices: key.attributes.clone(),
        });
        if let Some(slot) = self.of_location.get_mut(id as usize) {
            *slot = index;
        }
        index
    }

    fn function(&mut self, id: FunctionId) -> i32 {
        let profile = self.profile;
        let Some(function) = profile.function(id) else { return 0 };
        if let Some(&known) = self.of_function.get(id as usize).filter(|&&known| known >= 0) {
            return known;
        }
        let entry = proto::Function {
            name_strindex: self.string(profile.string(function.name)),
            system_name_strindex: self.string(profile.string(function.system_name)),
            filename_strindex: self.string(profile.string(function.file)),
            start_line: function.start_line.into(),
        };
        let index = self.functions.intern(entry, Clone::clone);
        if let Some(slot) = self.of_function.get_mut(id as usize) {
            *slot = index;
        }
        index
    }

    fn mapping(&mut self, id: MappingId) -> i32 {
        let profile = self.profile;
        let Some(mapping) = profile.mappings.get(id as usize) else { return 0 };
        if let Some(&known) = self.of_mapping.get(id as usize).filter(|&&known| known >= 0) {
            return known;
        }
        let [file, gnu, go, htlhash] =
            [mapping.file, mapping.build_id_gnu, mapping.build_id_go, mapping.build_id_htlhash]
                .map(|id| profile.string(id));
        let stand_in = htlhash.is_empty().then(|| stand_in_htlhash(if gnu.is_empty() { file } else { gnu }));
        let ids = [
            (attribute::BUILD_ID_GNU, gnu),
            (attribute::BUILD_ID_GO, go),
            (attribute::BUILD_ID_HTLHASH, stand_in.as_deref().unwrap_or(htlhash)),
        ];
        let given = ids.into_iter().filter(|(_, id)| !id.is_empty());
        let attribute_indices =
            given.map(|(key, id)| self.attribute(key, Attribute::Text(id.to_owned()), "")).collect();
        // A range that ends before it starts is no range; receivers refuse it.
        let (start, end) = if mapping.start < mapping.end { (mapping.start, mapping.end) } else { (0, 0) };
        let entry = proto::Mapping {
            memory_start: start,
            memory_limit: end,
            file_offset: mapping.file_offset,
            filename_strindex: self.string(file),
            attribute_indices,
        };
        let index = self.mappings.intern(entry, Clone::clone);
        if let Some(slot) = self.of_mapping.get_mut(id as usize) {
            *slot = index;
        }
        index
    }
}
