//! The stack of a sample, taken apart into frames and put together again.
//!
//! Rows are shared, so that none is changed: a frame that a rule has changed is in a location of its own, and a stack of such frames in a stack of its own.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value as Any},
    profiles::v1development::{Function, KeyValueAndUnit, Line, Location, Mapping, Stack as StackRow},
};
use profiler_ottl::{EvalError, Value};

use super::{Cursor, context};
use crate::{any, paths::Field};

const FRAME_TYPE: &str = "profile.frame.type";
/// Of a frame that is no code, and says why the stack ends there.
const MARKER: &str = "abort-marker";
/// The marker of a stack that was cut.
const TRUNCATED: &str = "[truncated]";
/// The attributes of a mapping that say which executable it is, the first that is there.
const BUILD_IDS: [&str; 3] =
    ["process.executable.build_id.gnu", "process.executable.build_id.go", "process.executable.build_id.htlhash"];

/// The row of a location, and which of its lines.
pub(crate) type Row = (i32, usize);

/// A frame: a line of a location, or a location without lines.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Which location of its stack it came in, from the leaf; none: it was made.
    within: Option<usize>,
    /// What it was before any rule.
    row: Row,
    mapping: i32,
    address: u64,
    attributes: Vec<i32>,
    line: Option<Line>,
    /// It goes.
    pub(super) drop: bool,
    /// Neighbours with this name become one frame that is called so.
    pub(super) collapse: Option<String>,
}

/// The frames of a stack from the leaf, and at which a rule is.
#[derive(Debug, Default)]
pub(super) struct Stack {
    pub frames: Vec<Frame>,
    pub at: usize,
    is_changed: bool,
}

impl Stack {
    pub fn frame(&self) -> Option<&Frame> {
        self.frames.get(self.at)
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Frame)) {
        if let Some(frame) = self.frames.get_mut(self.at) {
            change(frame);
            self.is_changed = true;
        }
    }
}

fn entry<T>(table: &[T], index: i32) -> Option<&T> {
    usize::try_from(index).ok().and_then(|at| table.get(at))
}

/// A frame in a location of its own, which has nothing of another.
fn alone(line: Line, mapping: i32, attributes: Vec<i32>) -> Frame {
    let line = Some(line);
    Frame { within: None, row: (0, 0), mapping, address: 0, attributes, line, drop: false, collapse: None }
}

impl Cursor {
    /// The row of the sample's stack.
    pub(crate) fn stack_index(&self) -> i32 {
        self.sample().stack_index
    }

    /// Gives the sample another stack.
    pub(crate) fn set_stack_index(&mut self, index: i32) {
        self.sample_mut().stack_index = index;
    }

    /// Takes the sample's stack apart; says how many frames it has. One of which a row is in no table has none.
    pub(crate) fn open(&mut self) -> usize {
        let mut frames = Vec::new();
        if let Some(dictionary) = &self.request.dictionary {
            let rows = entry(&dictionary.stack_table, self.sample().stack_index);
            for (within, index) in rows.map_or(&[][..], |stack| &stack.location_indices).iter().enumerate() {
                let Some(location) = entry(&dictionary.location_table, *index) else {
                    frames.clear();
                    break;
                };
                let lines: Vec<Option<Line>> = match location.lines.as_slice() {
                    [] => vec![None],
                    lines => lines.iter().map(|line| Some(*line)).collect(),
                };
                frames.extend(lines.into_iter().enumerate().map(|(at, line)| Frame {
                    within: Some(within),
                    row: (*index, at),
                    mapping: location.mapping_index,
                    address: location.address,
                    attributes: location.attribute_indices.clone(),
                    line,
                    drop: false,
                    collapse: None,
                }));
            }
        }
        self.stack = Stack { frames, at: 0, is_changed: false };
        self.stack.frames.len()
    }

    /// Goes to frame `at`, with an empty cache, and says which row it is.
    pub(crate) fn go_to_frame(&mut self, at: usize) -> Row {
        self.go(self.place);
        self.stack.at = at;
        self.stack.frame().map_or((0, 0), |frame| frame.row)
    }

    /// The frame that it is at.
    pub(crate) fn frame(&self) -> Option<&Frame> {
        self.stack.frame()
    }

    /// Puts `became` in the place of the frame that it is at, which is of the same row.
    pub(crate) fn set_frame(&mut self, became: &Frame) {
        self.stack.change(|frame| *frame = Frame { within: frame.within, ..became.clone() });
    }

    /// Gives the sample the stack that rules have made, and says which row that is.
    pub(crate) fn store(&mut self) -> Result<i32, EvalError> {
        if !std::mem::take(&mut self.stack.is_changed) {
            return Ok(self.stack_index());
        }
        let frames = std::mem::take(&mut self.stack.frames);
        let frames = self.collapsed(frames)?;
        let mut location_indices = Vec::with_capacity(frames.len());
        let mut frames = frames.into_iter().peekable();
        while let Some(first) = frames.next() {
            let mut lines: Vec<Line> = first.line.into_iter().collect();
            // Frames that are inlined into each other stay one location, unless a rule has put them into different ones.
            let is_one = |next: &Frame| {
                first.within.is_some()
                    && (next.within, next.mapping, next.address) == (first.within, first.mapping, first.address)
                    && next.attributes == first.attributes
            };
            while let Some(next) = frames.next_if(is_one) {
                lines.extend(next.line);
            }
            let location = Location {
                mapping_index: first.mapping,
                address: first.address,
                lines,
                attribute_indices: first.attributes,
            };
            let table = &mut self.request.dictionary.get_or_insert_default().location_table;
            location_indices.push(self.locations.index(table, location)?);
        }
        let table = &mut self.request.dictionary.get_or_insert_default().stack_table;
        let index = self.stacks.index(table, StackRow { location_indices })?;
        self.set_stack_index(index);
        Ok(index)
    }

    /// `frames` without those that go, and with one in the place of neighbours that collapse.
    fn collapsed(&mut self, frames: Vec<Frame>) -> Result<Vec<Frame>, EvalError> {
        let mut left: Vec<Frame> = Vec::with_capacity(frames.len());
        for frame in frames.into_iter().filter(|frame| !frame.drop) {
            let Some(name) = frame.collapse.as_deref() else {
                left.push(frame);
                continue;
            };
            if left.last().is_some_and(|last| last.collapse.as_deref() == Some(name)) {
                continue;
            }
            let name_strindex = self.intern(name)?;
            let function_index = self.function(Function { name_strindex, ..Function::default() })?;
            let kind = |index: &&i32| self.attribute(**index).is_ok_and(|(key, _)| key == FRAME_TYPE);
            let kinds = frame.attributes.iter().filter(kind).copied().collect();
            let line = Line { function_index, ..Line::default() };
            left.push(Frame { collapse: frame.collapse, ..alone(line, frame.mapping, kinds) });
        }
        Ok(left)
    }

    /// Leaves `depth` frames at the leaf, or at the root, and a marker in the place of the others.
    pub(super) fn truncate(&mut self, depth: usize, from_root: bool) -> Result<(), EvalError> {
        let frames = self.stack.frames.len();
        if frames <= depth {
            return Ok(());
        }
        let name_strindex = self.intern(TRUNCATED)?;
        let function_index = self.function(Function { name_strindex, ..Function::default() })?;
        let key_strindex = self.intern(FRAME_TYPE)?;
        let value = Some(AnyValue { value: Some(Any::StringValue(MARKER.to_owned())) });
        let kind = self.row(KeyValueAndUnit { key_strindex, value, unit_strindex: 0 })?;
        let marker = alone(Line { function_index, ..Line::default() }, 0, vec![kind]);
        if from_root {
            self.stack.frames.splice(..frames - depth, [marker]);
        } else {
            self.stack.frames.splice(depth.., [marker]);
        }
        self.stack.is_changed = true;
        Ok(())
    }

    fn function(&mut self, row: Function) -> Result<i32, EvalError> {
        let table = &mut self.request.dictionary.get_or_insert_default().function_table;
        self.functions.index(table, row)
    }

    /// The function of a line; none without one.
    fn function_of(&self, line: Option<&Line>) -> Result<Option<&Function>, EvalError> {
        let Some(line) = line.filter(|line| line.function_index != 0) else { return Ok(None) };
        let table = self.request.dictionary.as_ref().map_or(&[][..], |dictionary| &dictionary.function_table);
        entry(table, line.function_index)
            .map(Some)
            .ok_or_else(|| EvalError::new(format!("function {} is not in the table", line.function_index)))
    }

    fn mapping_of(&self, index: i32) -> Result<Option<&Mapping>, EvalError> {
        let table = self.request.dictionary.as_ref().map_or(&[][..], |dictionary| &dictionary.mapping_table);
        match entry(table, index) {
            _ if index == 0 => Ok(None),
            Some(mapping) => Ok(Some(mapping)),
            None => Err(EvalError::new(format!("mapping {index} is not in the table"))),
        }
    }

    /// What is known of a frame; text that is not known is empty, and what is known of no frame is nil.
    pub(super) fn field<'a>(&'a self, frame: Option<&'a Frame>, field: Field) -> Result<Value<'a>, EvalError> {
        let Some(frame) = frame else { return Ok(Value::Nil) };
        let text = |index: Option<i32>| self.string(index.unwrap_or_default()).map(Value::from);
        match field {
            Field::Function => text(self.function_of(frame.line.as_ref())?.map(|function| function.name_strindex)),
            Field::File => text(self.function_of(frame.line.as_ref())?.map(|function| function.filename_strindex)),
            Field::Line => Ok(Value::Int(frame.line.map_or(0, |line| line.line))),
            Field::Module => text(self.mapping_of(frame.mapping)?.map(|mapping| mapping.filename_strindex)),
            Field::Address => Ok(Value::Int(frame.address.cast_signed())),
            Field::Type => Ok(self.named_first(&frame.attributes, &[FRAME_TYPE])?.unwrap_or_else(|| Value::from(""))),
            Field::BuildId => {
                let of = self.mapping_of(frame.mapping)?.map_or(&[][..], |mapping| &mapping.attribute_indices);
                Ok(self.named_first(of, &BUILD_IDS)?.unwrap_or_else(|| Value::from("")))
            }
        }
    }

    /// The value of the first of `keys` that is among the attributes at `indices`.
    fn named_first<'a>(&'a self, indices: &[i32], keys: &[&str]) -> Result<Option<Value<'a>>, EvalError> {
        for wanted in keys {
            for index in indices {
                let (key, row) = self.attribute(*index)?;
                if key == *wanted {
                    return Ok(Some(any::value(row.value.as_ref(), self.strings())));
                }
            }
        }
        Ok(None)
    }

    /// Changes what is known of the frame that it is at, and of none that is inlined into it or that it is inlined into.
    pub(super) fn set_field(&mut self, field: Field, value: Value<'static>) -> Result<(), EvalError> {
        let Some(frame) = self.stack.frame() else { return Err(EvalError::new("there is no frame here")) };
        let (line, mapping) = (frame.line, frame.mapping);
        match field {
            Field::Function => {
                let name = context::text(value)?;
                if name.is_empty() {
                    return Err(EvalError::new("a frame has a name: give it one such as [redacted], or drop it"));
                }
                // The name of the symbol would tell the old one.
                let of = self.function_of(line.as_ref())?.copied().unwrap_or_default();
                let name_strindex = self.intern(&name)?;
                let function_index = self.function(Function { name_strindex, system_name_strindex: 0, ..of })?;
                self.stack.change(|frame| frame.line = Some(Line { function_index, ..line.unwrap_or_default() }));
            }
            Field::File => {
                let file = context::text(value)?;
                let Some(of) = self.function_of(line.as_ref())?.copied() else {
                    return if file.is_empty() {
                        Ok(())
                    } else {
                        Err(EvalError::new("a frame without a function has no file"))
                    };
                };
                let filename_strindex = self.intern(&file)?;
                let function_index = self.function(Function { filename_strindex, ..of })?;
                // What has nothing left is no function.
                let line = line.filter(|_| function_index != 0).map(|line| Line { function_index, ..line });
                self.stack.change(|frame| frame.line = line);
            }
            Field::Line => {
                let number = context::int(&value)?;
                if line.is_none() && number != 0 {
                    return Err(EvalError::new("a frame without a function has no line"));
                }
                if number < 0 {
                    return Err(EvalError::new(format!("a line is not {number}")));
                }
                self.stack.change(|frame| {
                    frame.line = line.map(|line| Line { line: number, column: 0, ..line });
                });
            }
            Field::Module => {
                let file = context::text(value)?;
                let of = self.mapping_of(mapping)?.cloned();
                if of.is_none() && file.is_empty() {
                    return Ok(());
                }
                let filename_strindex = self.intern(&file)?;
                self.set_mapping(Mapping { filename_strindex, ..of.unwrap_or_default() })?;
            }
            Field::BuildId => {
                if !matches!(&value, Value::Nil) && !matches!(&value, Value::Text(text) if text.is_empty()) {
                    return Err(EvalError::new("a build id can be emptied, and is not set to another"));
                }
                let Some(mut of) = self.mapping_of(mapping)?.cloned() else { return Ok(()) };
                let mut kept = Vec::with_capacity(of.attribute_indices.len());
                for index in &of.attribute_indices {
                    if !BUILD_IDS.contains(&self.attribute(*index)?.0) {
                        kept.push(*index);
                    }
                }
                of.attribute_indices = kept;
                self.set_mapping(of)?;
            }
            Field::Address => {
                let address = context::int(&value)?.cast_unsigned();
                self.stack.change(|frame| frame.address = address);
            }
            Field::Type => return Err(EvalError::new("the type of a frame cannot be changed")),
        }
        Ok(())
    }

    fn set_mapping(&mut self, row: Mapping) -> Result<(), EvalError> {
        let table = &mut self.request.dictionary.get_or_insert_default().mapping_table;
        let mapping = self.mappings.index(table, row)?;
        self.stack.change(|frame| frame.mapping = mapping);
        Ok(())
    }
}
