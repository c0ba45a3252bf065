//! Makes one of the rows of a dictionary that are equal.

use std::collections::HashMap;
use std::hash::Hash;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    profiles::v1development::KeyValueAndUnit,
};
use prost::Message;

use crate::{
    Request,
    compact::{MAX_DEPTH, Table, Tables},
};

/// Makes one of the rows of each table of `request` that say the same; an index that leads nowhere stays one.
pub(crate) fn merge_rows(request: &mut Request) {
    let Some(dictionary) = &request.dictionary else { return };
    let strings = Table::merged(dictionary.string_table.iter());
    let text = |index: i32| strings.place(index);
    let attributes = Table::merged(dictionary.attribute_table.iter().map(|row| {
        let mut value = row.value.clone();
        if let Some(value) = &mut value {
            spell_value(value, &dictionary.string_table, 0);
        }
        let row =
            KeyValueAndUnit { key_strindex: text(row.key_strindex), value, unit_strindex: text(row.unit_strindex) };
        row.encode_to_vec()
    }));
    let all = |table: &Table, indices: &[i32]| indices.iter().map(|index| table.place(*index)).collect::<Vec<_>>();
    let set = |indices: &[i32]| {
        let mut set = all(&attributes, indices);
        set.sort_unstable();
        set
    };
    let mappings = Table::merged(dictionary.mapping_table.iter().map(|row| {
        let of = &row.attribute_indices;
        (row.memory_start, row.memory_limit, row.file_offset, text(row.filename_strindex), set(of))
    }));
    let functions = Table::merged(dictionary.function_table.iter().map(|row| {
        let texts = [row.name_strindex, row.system_name_strindex, row.filename_strindex].map(text);
        (texts, row.start_line)
    }));
    let locations = Table::merged(dictionary.location_table.iter().map(|row| {
        let lines = row.lines.iter().map(|line| (functions.place(line.function_index), line.line, line.column));
        (mappings.place(row.mapping_index), row.address, lines.collect::<Vec<_>>(), set(&row.attribute_indices))
    }));
    let stacks = Table::merged(dictionary.stack_table.iter().map(|row| all(&locations, &row.location_indices)));
    let links = Table::merged(dictionary.link_table.iter().map(|row| (&row.trace_id, &row.span_id)));
    Tables { strings, attributes, stacks, locations, mappings, functions, links }.rewrite(request);
}

impl Table {
    /// Of rows with these keys: of those that are equal the first stays, and is the place of all.
    fn merged<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> Self {
        let (mut used, mut places) = (Vec::new(), Vec::new());
        let mut known: HashMap<K, i32> = HashMap::new();
        let mut next = 0;
        for key in keys {
            let place = *known.entry(key).or_insert(next);
            used.push(place == next);
            places.push(place);
            next += i32::from(place == next);
        }
        Self { used, places }
    }

    /// Where the row at `index` goes.
    fn place(&self, index: i32) -> i32 {
        let mut index = index;
        self.moved(&mut index);
        index
    }
}

/// Puts the texts of an attribute in the place of their indices.
pub(crate) fn spell(attribute: &mut KeyValue, strings: &[String]) {
    spell_entry(attribute, strings, 0);
}

fn text(index: i32, strings: &[String]) -> Option<&String> {
    usize::try_from(index).ok().and_then(|at| strings.get(at))
}

fn spell_entry(entry: &mut KeyValue, strings: &[String], depth: usize) {
    if entry.key_strindex != 0
        && let Some(text) = text(entry.key_strindex, strings)
    {
        entry.key.clone_from(text);
        entry.key_strindex = 0;
    }
    if let Some(value) = &mut entry.value {
        spell_value(value, strings, depth + 1);
    }
}

fn spell_value(value: &mut AnyValue, strings: &[String], depth: usize) {
    match &mut value.value {
        _ if depth > MAX_DEPTH => {}
        Some(Any::StringValueStrindex(index)) => {
            if let Some(text) = text(*index, strings) {
                value.value = Some(Any::StringValue(text.clone()));
            }
        }
        Some(Any::ArrayValue(list)) => list.values.iter_mut().for_each(|value| spell_value(value, strings, depth + 1)),
        Some(Any::KvlistValue(list)) => list.values.iter_mut().for_each(|entry| spell_entry(entry, strings, depth + 1)),
        _ => {}
    }
}
