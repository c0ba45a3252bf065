//! Takes out of a dictionary what nothing refers to any more.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    profiles::v1development::ProfilesDictionary,
};

use crate::Request;

/// The rows of a table that are referred to, and then their new places.
pub(crate) struct Table {
    pub used: Vec<bool>,
    pub places: Vec<i32>,
}

impl Table {
    /// Of `length` rows; the first, which stands for none, stays.
    fn new(length: usize) -> Self {
        let mut used = vec![false; length];
        if let Some(first) = used.first_mut() {
            *first = true;
        }
        Self { used, places: Vec::new() }
    }

    /// Marks a row; whether it was not marked before. Nothing if there is no such row.
    fn mark(&mut self, index: i32) -> Option<bool> {
        // Without a table 0 stands for none all the same.
        if index == 0 && self.used.is_empty() {
            return Some(false);
        }
        let used = self.used.get_mut(usize::try_from(index).ok()?)?;
        Some(!std::mem::replace(used, true))
    }

    fn settle(&mut self) {
        let mut next = 0;
        self.places = self
            .used
            .iter()
            .map(|used| {
                let place = next;
                next += i32::from(*used);
                place
            })
            .collect();
    }

    pub fn moved(&self, index: &mut i32) {
        if let Some(place) = usize::try_from(*index).ok().and_then(|at| self.places.get(at)) {
            *index = *place;
        }
    }

    fn keep<T>(&self, rows: &mut Vec<T>) {
        let mut used = self.used.iter();
        rows.retain(|_| used.next().copied().unwrap_or(true));
    }
}

pub(crate) struct Tables {
    pub strings: Table,
    pub attributes: Table,
    pub stacks: Table,
    pub locations: Table,
    pub mappings: Table,
    pub functions: Table,
    pub links: Table,
}

/// Leaves in the tables of `request` only what is referred to, in the order that it has. What equals is not merged.
///
/// Nothing is done if an index is in no table, as in a request that a rule gave such an index; whether it was done.
pub fn compact(request: &mut Request) -> bool {
    let Some(dictionary) = &request.dictionary else { return true };
    let mut tables = Tables {
        strings: Table::new(dictionary.string_table.len()),
        attributes: Table::new(dictionary.attribute_table.len()),
        stacks: Table::new(dictionary.stack_table.len()),
        locations: Table::new(dictionary.location_table.len()),
        mappings: Table::new(dictionary.mapping_table.len()),
        functions: Table::new(dictionary.function_table.len()),
        links: Table::new(dictionary.link_table.len()),
    };
    if tables.mark(request, dictionary).is_none() {
        return false;
    }
    for table in [
        &mut tables.strings,
        &mut tables.attributes,
        &mut tables.stacks,
        &mut tables.locations,
        &mut tables.mappings,
        &mut tables.functions,
        &mut tables.links,
    ] {
        table.settle();
    }
    tables.rewrite(request);
    true
}

impl Tables {
    /// Marks all that is referred to; nothing if an index is in no table.
    fn mark(&mut self, request: &Request, dictionary: &ProfilesDictionary) -> Option<()> {
        // The first rows stay, and so does what they refer to.
        if let Some(row) = dictionary.attribute_table.first() {
            self.strings.mark(row.key_strindex)?;
            self.strings.mark(row.unit_strindex)?;
            mark_any(row.value.as_ref(), &mut self.strings, 0)?;
        }
        for resource in &request.resource_profiles {
            if let Some(resource) = &resource.resource {
                mark_entries(&resource.attributes, &mut self.strings, 0)?;
            }
            for scope in &resource.scope_profiles {
                if let Some(scope) = &scope.scope {
                    mark_entries(&scope.attributes, &mut self.strings, 0)?;
                }
                for profile in &scope.profiles {
                    for value_type in [profile.sample_type, profile.period_type].into_iter().flatten() {
                        self.strings.mark(value_type.type_strindex)?;
                        self.strings.mark(value_type.unit_strindex)?;
                    }
                    self.mark_attributes(&profile.attribute_indices, dictionary)?;
                    for sample in &profile.samples {
                        self.mark_attributes(&sample.attribute_indices, dictionary)?;
                        self.links.mark(sample.link_index)?;
                        self.stacks.mark(sample.stack_index)?;
                    }
                }
            }
        }
        for (used, stack) in self.stacks.used.clone().into_iter().zip(&dictionary.stack_table) {
            for index in stack.location_indices.iter().filter(|_| used) {
                self.locations.mark(*index)?;
            }
        }
        for (used, location) in self.locations.used.clone().into_iter().zip(&dictionary.location_table) {
            if used {
                self.mappings.mark(location.mapping_index)?;
                self.mark_attributes(&location.attribute_indices, dictionary)?;
                for line in &location.lines {
                    self.functions.mark(line.function_index)?;
                }
            }
        }
        for (used, mapping) in self.mappings.used.clone().into_iter().zip(&dictionary.mapping_table) {
            if used {
                self.strings.mark(mapping.filename_strindex)?;
                self.mark_attributes(&mapping.attribute_indices, dictionary)?;
            }
        }
        for (used, function) in self.functions.used.iter().zip(&dictionary.function_table) {
            if *used {
                for index in [function.name_strindex, function.system_name_strindex, function.filename_strindex] {
                    self.strings.mark(index)?;
                }
            }
        }
        Some(())
    }

    fn mark_attributes(&mut self, indices: &[i32], dictionary: &ProfilesDictionary) -> Option<()> {
        for index in indices {
            if self.attributes.mark(*index)?
                && let Some(row) = usize::try_from(*index).ok().and_then(|at| dictionary.attribute_table.get(at))
            {
                self.strings.mark(row.key_strindex)?;
                self.strings.mark(row.unit_strindex)?;
                mark_any(row.value.as_ref(), &mut self.strings, 0)?;
            }
        }
        Some(())
    }

    /// Gives all rows their new places, and takes out those that are not used.
    pub fn rewrite(&self, request: &mut Request) {
        let all = |table: &Table, indices: &mut [i32]| indices.iter_mut().for_each(|index| table.moved(index));
        for resource in &mut request.resource_profiles {
            if let Some(resource) = &mut resource.resource {
                move_entries(&mut resource.attributes, &self.strings);
            }
            for scope in &mut resource.scope_profiles {
                if let Some(scope) = &mut scope.scope {
                    move_entries(&mut scope.attributes, &self.strings);
                }
                for profile in &mut scope.profiles {
                    for value_type in [&mut profile.sample_type, &mut profile.period_type].into_iter().flatten() {
                        self.strings.moved(&mut value_type.type_strindex);
                        self.strings.moved(&mut value_type.unit_strindex);
                    }
                    all(&self.attributes, &mut profile.attribute_indices);
                    for sample in &mut profile.samples {
                        all(&self.attributes, &mut sample.attribute_indices);
                        self.links.moved(&mut sample.link_index);
                        self.stacks.moved(&mut sample.stack_index);
                    }
                }
            }
        }
        let Some(dictionary) = &mut request.dictionary else { return };
        self.strings.keep(&mut dictionary.string_table);
        self.attributes.keep(&mut dictionary.attribute_table);
        self.stacks.keep(&mut dictionary.stack_table);
        self.locations.keep(&mut dictionary.location_table);
        self.mappings.keep(&mut dictionary.mapping_table);
        self.functions.keep(&mut dictionary.function_table);
        self.links.keep(&mut dictionary.link_table);
        for row in &mut dictionary.attribute_table {
            self.strings.moved(&mut row.key_strindex);
            self.strings.moved(&mut row.unit_strindex);
            move_any(row.value.as_mut(), &self.strings);
        }
        for stack in &mut dictionary.stack_table {
            all(&self.locations, &mut stack.location_indices);
        }
        for location in &mut dictionary.location_table {
            self.mappings.moved(&mut location.mapping_index);
            all(&self.attributes, &mut location.attribute_indices);
            for line in &mut location.lines {
                self.functions.moved(&mut line.function_index);
            }
        }
        for mapping in &mut dictionary.mapping_table {
            self.strings.moved(&mut mapping.filename_strindex);
            all(&self.attributes, &mut mapping.attribute_indices);
        }
        for function in &mut dictionary.function_table {
            for index in
                [&mut function.name_strindex, &mut function.system_name_strindex, &mut function.filename_strindex]
            {
                self.strings.moved(index);
            }
        }
    }
}

/// Deeper than protobuf can be read.
pub(crate) const MAX_DEPTH: usize = 128;

fn mark_entries(entries: &[KeyValue], strings: &mut Table, depth: usize) -> Option<()> {
    entries.iter().try_for_each(|entry| {
        strings.mark(entry.key_strindex)?;
        mark_any(entry.value.as_ref(), strings, depth + 1)
    })
}

fn mark_any(value: Option<&AnyValue>, strings: &mut Table, depth: usize) -> Option<()> {
    match value.and_then(|value| value.value.as_ref()) {
        _ if depth > MAX_DEPTH => None,
        Some(Any::StringValueStrindex(index)) => strings.mark(*index).map(|_| ()),
        Some(Any::ArrayValue(list)) => {
            list.values.iter().try_for_each(|value| mark_any(Some(value), strings, depth + 1))
        }
        Some(Any::KvlistValue(list)) => mark_entries(&list.values, strings, depth + 1),
        _ => Some(()),
    }
}

fn move_entries(entries: &mut [KeyValue], strings: &Table) {
    for entry in entries {
        strings.moved(&mut entry.key_strindex);
        move_any(entry.value.as_mut(), strings);
    }
}

fn move_any(value: Option<&mut AnyValue>, strings: &Table) {
    match value.and_then(|value| value.value.as_mut()) {
        Some(Any::StringValueStrindex(index)) => strings.moved(index),
        Some(Any::ArrayValue(list)) => list.values.iter_mut().for_each(|value| move_any(Some(value), strings)),
        Some(Any::KvlistValue(list)) => move_entries(&mut list.values, strings),
        _ => {}
    }
}
