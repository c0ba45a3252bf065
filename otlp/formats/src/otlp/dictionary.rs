//! The dictionary of a request, read into a profile's tables.

use opentelemetry_proto::tonic::{common::v1::any_value, profiles::v1development as proto};
use profiler_model::{
    FrameKind, Function, FunctionId, LabelValue, Line, Link, LinkId, Location, LocationId, Mapping, MappingId,
    Profiles, StackId, StringId, Tier, attribute, builder::ProfileBuilder,
};
use rustc_hash::FxHashMap;

use super::resource::stand_in_htlhash;
use crate::{
    error::Error,
    labels::unescaped,
    texts::{self, Texts},
    wire::{MAX_ENTRIES, MAX_FRAMES, Value, check_count, fields, message},
};

/// Bytes of text that an attribute with structure may become.
const MAX_TEXT: usize = 64 << 10;

/// An attribute: one value, or those of a list.
#[derive(Default)]
pub(super) struct Attribute {
    pub(super) key: StringId,
    /// The key of the label that it becomes where it has no other meaning.
    pub(super) label: StringId,
    pub(super) values: Vec<LabelValue>,
}

/// Where each entry of the request's tables is in the profile.
#[derive(Default)]
pub(super) struct Dictionary {
    texts: Texts,
    /// Stand-ins for hashes of files, by what they stand in for.
    stand_ins: FxHashMap<StringId, String>,
    attributes: Vec<Attribute>,
    mappings: Vec<MappingId>,
    functions: Vec<FunctionId>,
    locations: Vec<LocationId>,
    stacks: Vec<StackId>,
    links: Vec<LinkId>,
    /// Without any frame, for index 0.
    empty_stack: StackId,
}

/// The entry `index` of `table`.
fn entry<'a, T>(table: &'a [T], what: &'static str, index: i32) -> Result<&'a T, Error> {
    usize::try_from(index).ok().and_then(|index| table.get(index)).ok_or_else(|| Error::dangling(what, index))
}

impl Dictionary {
    /// Reads the dictionary of `request` into `builder`; `before` is that of the request before, with which it shares its budgets.
    pub(super) fn read(request: &[u8], builder: &mut ProfileBuilder, before: Self) -> Result<Self, Error> {
        let mut tables: [Vec<&[u8]>; 8] = Default::default();
        for field in fields(request, "OTLP request") {
            let (2, Value::Bytes(dictionary)) = field? else { continue };
            for field in fields(dictionary, "OTLP dictionary") {
                let (number, Value::Bytes(bytes)) = field? else { continue };
                if let Some(table) = usize::try_from(number).ok().and_then(|number| tables.get_mut(number)) {
                    check_count(table.len(), MAX_ENTRIES, "entries in one table")?;
                    table.push(bytes);
                }
            }
        }
        let [_, mappings, locations, functions, links, strings, attributes, stacks] = tables;
        let texts = before.texts.next();
        let mut dictionary = Self { texts, empty_stack: builder.stack(&[]), ..Self::default() };
        for text in strings {
            dictionary.texts.push(text, builder)?;
        }
        for link in links {
            let link: proto::Link = message(link, "OTLP link")?;
            // What is no id of a trace and a span, as the null entry, is no link.
            let ids = link.trace_id.as_slice().try_into().ok().zip(link.span_id.as_slice().try_into().ok());
            let link = ids.map_or_else(Link::default, |(trace_id, span_id)| Link { trace_id, span_id });
            dictionary.links.push(builder.link(link));
        }
        for attribute in attributes {
            let attribute = dictionary.read_attribute(&message(attribute, "OTLP attribute")?, builder)?;
            dictionary.attributes.push(attribute);
        }
        for mapping in mappings {
            let mapping = dictionary.read_mapping(&message(mapping, "OTLP mapping")?, builder)?;
            dictionary.mappings.push(builder.mapping(mapping));
        }
        for function in functions {
            let function: proto::Function = message(function, "OTLP function")?;
            let function = Function {
                name: dictionary.string("a function's name", function.name_strindex)?,
                system_name: dictionary.string("a function's system name", function.system_name_strindex)?,
                file: dictionary.string("a function's file", function.filename_strindex)?,
                start_line: narrowed(function.start_line),
            };
            dictionary.functions.push(builder.function(function));
        }
        for location in locations {
            let location = dictionary.read_location(&message(location, "OTLP location")?, builder)?;
            dictionary.locations.push(builder.location(location));
        }
        for stack in stacks {
            let stack: proto::Stack = message(stack, "OTLP stack")?;
            if stack.location_indices.len() > MAX_FRAMES {
                return Err(Error::TooLarge { what: "frames in one stack", limit: MAX_FRAMES });
            }
            let frames = stack.location_indices.iter();
            let frames = frames.map(|&index| entry(&dictionary.locations, "a stack's location", index).copied());
            let frames: Vec<LocationId> = frames.collect::<Result<_, _>>()?;
            dictionary.stacks.push(builder.stack(&frames));
        }
        Ok(dictionary)
    }

    pub(super) fn string(&self, what: &'static str, index: i32) -> Result<StringId, Error> {
        self.texts.get(what, index.into())
    }

    pub(super) fn attribute(&self, what: &'static str, index: i32) -> Result<&Attribute, Error> {
        entry(&self.attributes, what, index)
    }

    pub(super) fn stack(&self, index: i32) -> Result<StackId, Error> {
        if index == 0 { Ok(self.empty_stack) } else { entry(&self.stacks, "a sample's stack", index).copied() }
    }

    pub(super) fn link(&self, index: i32) -> Result<LinkId, Error> {
        if index == 0 { Ok(0) } else { entry(&self.links, "a sample's link", index).copied() }
    }

    /// A copy of the string `id`; the bytes of all copies are bounded.
    pub(super) fn copy(&mut self, id: StringId, builder: &mut ProfileBuilder) -> Result<String, Error> {
        self.texts.copy(id, builder)
    }

    /// `value` as text: scalars as they are, structure as JSON would have it.
    pub(super) fn text(&mut self, value: &any_value::Value, builder: &mut ProfileBuilder) -> Result<StringId, Error> {
        match value {
            any_value::Value::StringValue(text) => Ok(texts::intern(text.as_bytes(), builder)),
            any_value::Value::StringValueStrindex(index) => self.string("an attribute's text", *index),
            other => {
                let mut text = String::new();
                put_value(&mut text, Some(other), &self.texts, builder.set_mut());
                if matches!(other, any_value::Value::ArrayValue(_) | any_value::Value::KvlistValue(_)) {
                    self.texts.spend(text.len())?;
                }
                Ok(texts::intern(text.as_bytes(), builder))
            }
        }
    }

    fn read_attribute(
        &mut self,
        pair: &proto::KeyValueAndUnit,
        builder: &mut ProfileBuilder,
    ) -> Result<Attribute, Error> {
        let key = self.string("an attribute's key", pair.key_strindex)?;
        let unit = self.string("an attribute's unit", pair.unit_strindex)?;
        let label = self.texts.derived(key, builder, |key| unescaped(key).to_owned());
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let mut scalar = |value: &any_value::Value| match value {
            any_value::Value::IntValue(number) => Ok(LabelValue::Number(*number, unit)),
            other => self.text(other, builder).map(LabelValue::Text),
        };
        let values = match value {
            None => Vec::new(),
            Some(any_value::Value::ArrayValue(list)) => {
                let values = list.values.iter().filter_map(|value| value.value.as_ref());
                values.map(scalar).collect::<Result<_, _>>()?
            }
            Some(value) => vec![scalar(value)?],
        };
        Ok(Attribute { key, label, values })
    }

    fn read_mapping(&mut self, mapping: &proto::Mapping, builder: &mut ProfileBuilder) -> Result<Mapping, Error> {
        let mut model = Mapping {
            start: mapping.memory_start,
            end: mapping.memory_limit,
            file_offset: mapping.file_offset,
            file: self.string("a mapping's file", mapping.filename_strindex)?,
            ..Mapping::default()
        };
        for &index in &mapping.attribute_indices {
            let found = self.attribute("a mapping", index)?;
            if let Some(LabelValue::Text(text)) = found.values.first() {
                match builder.set().string(found.key) {
                    attribute::BUILD_ID_GNU => model.build_id_gnu = *text,
                    attribute::BUILD_ID_GO => model.build_id_go = *text,
                    attribute::BUILD_ID_HTLHASH => model.build_id_htlhash = *text,
                    _ => {}
                }
            }
        }
        if model.build_id_htlhash != 0 {
            let profile = builder.set_mut();
            let identity = if model.build_id_gnu == 0 { model.file } else { model.build_id_gnu };
            let stand_in = self.stand_ins.entry(identity).or_insert_with(|| stand_in_htlhash(profile.string(identity)));
            if profile.string(model.build_id_htlhash) == *stand_in {
                model.build_id_htlhash = 0;
            }
        }
        Ok(model)
    }

    fn read_location(&self, location: &proto::Location, builder: &mut ProfileBuilder) -> Result<Location, Error> {
        let mapping = match location.mapping_index {
            0 => None,
            index => Some(*entry(&self.mappings, "a location's mapping", index)?),
        };
        let mut lines = Vec::with_capacity(location.lines.len());
        for line in &location.lines {
            let function = match line.function_index {
                0 => builder.function(Function::default()),
                index => *entry(&self.functions, "a line's function", index)?,
            };
            lines.push(Line { function, line: narrowed(line.line), column: narrowed(line.column) });
        }
        let mut model = Location { mapping, address: location.address, lines, ..Location::default() };
        let mut jit = false;
        for &index in &location.attribute_indices {
            let found = self.attribute("a location", index)?;
            let Some(LabelValue::Text(text)) = found.values.first() else { continue };
            let profile = builder.set_mut();
            match (profile.string(found.key), profile.string(*text)) {
                (attribute::FRAME_TYPE, "") => {}
                (attribute::FRAME_TYPE, kind) => {
                    model.kind = FrameKind::of_otlp(kind).unwrap_or(FrameKind::Other(*text));
                }
                (attribute::FRAME_JIT, "true") => jit = true,
                (attribute::FRAME_GUESSED, "true") => model.guessed = true,
                (attribute::FRAME_TIER, tier) => model.tier = Tier::of_value(tier),
                _ => {}
            }
        }
        if jit && model.kind == FrameKind::Native {
            model.kind = FrameKind::Jit;
        }
        Ok(model)
    }
}

/// A line or column; out of range is unknown.
fn narrowed(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Appends `value` to `text` until that is [`MAX_TEXT`] bytes long. Recursion ends where prost refuses to decode deeper messages
/// (100 levels).
fn put_value(text: &mut String, value: Option<&any_value::Value>, texts: &Texts, profile: &Profiles) {
    let string = |index: i32| texts.get("", index.into()).map_or("", |id| profile.string(id));
    let put = |text: &mut String, part: &str| {
        let room = MAX_TEXT.saturating_sub(text.len());
        let end = (0..=room.min(part.len())).rev().find(|&end| part.is_char_boundary(end));
        text.push_str(part.get(..end.unwrap_or(0)).unwrap_or(""));
    };
    match value {
        None => {}
        Some(any_value::Value::StringValue(value)) => put(text, value),
        Some(any_value::Value::StringValueStrindex(index)) => put(text, string(*index)),
        Some(any_value::Value::BoolValue(value)) => put(text, &value.to_string()),
        Some(any_value::Value::IntValue(value)) => put(text, &value.to_string()),
        Some(any_value::Value::DoubleValue(value)) => put(text, &value.to_string()),
        Some(any_value::Value::BytesValue(bytes)) => {
            bytes.iter().take(MAX_TEXT / 2).for_each(|byte| put(text, &format!("{byte:02x}")));
        }
        Some(any_value::Value::ArrayValue(list)) => {
            put(text, "[");
            for (index, value) in list.values.iter().enumerate().take(MAX_TEXT) {
                put(text, if index == 0 { "" } else { "," });
                put_value(text, value.value.as_ref(), texts, profile);
            }
            put(text, "]");
        }
        Some(any_value::Value::KvlistValue(list)) => {
            put(text, "{");
            for (index, pair) in list.values.iter().enumerate().take(MAX_TEXT) {
                put(text, if index == 0 { "" } else { "," });
                put(text, if pair.key_strindex == 0 { &pair.key } else { string(pair.key_strindex) });
                put(text, ":");
                put_value(text, pair.value.as_ref().and_then(|value| value.value.as_ref()), texts, profile);
            }
            put(text, "}");
        }
    }
}
