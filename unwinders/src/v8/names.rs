//! Names of frames.

use std::rc::Rc;
use std::sync::Arc;

use profiler_bpf::record::RuntimeFrame;
use rustc_hash::FxHashMap;

use super::Naming;
use super::code::{self, Scope};
use super::function::{self, COOKIE, Function};
use super::heap::{Heap, Word};
use super::layout::Layout;
use super::script::{self, Script};
use crate::memory::Memory;
use crate::runtime::{FrameName, Named, Tier};

// What a frame's position is: the two highest bits of its cookie, as in `v8.h`.
const IN_BYTECODE: u32 = 1;
const IN_CODE: u32 = 2;

/// Names the frames of one request.
pub(super) struct Names<'a> {
    naming: &'a Naming,
    heap: Heap<'a>,
    functions: FxHashMap<(Word, u32), Option<Rc<Function>>>,
    scripts: FxHashMap<Word, Option<Rc<Script>>>,
    codes: FxHashMap<u64, Option<code::Code>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(naming: &'a Naming, memory: &'a dyn Memory) -> Self {
        Self {
            naming,
            heap: Heap::new(memory),
            functions: FxHashMap::default(),
            scripts: FxHashMap::default(),
            codes: FxHashMap::default(),
        }
    }

    const fn layout(&self) -> &'a Layout {
        &self.naming.layout
    }

    /// What `frame` stands for, or why that cannot be told.
    pub(super) fn name(&mut self, frame: &RuntimeFrame) -> Named {
        let shared = match frame.object.0 {
            // Interrupted at its end, where nothing but the code tells whose it is.
            0 => self.owner(frame.position).ok_or_else(|| Arc::from("v8: function at its end"))?,
            address => Word::to(address),
        };
        let function = self.function(shared, frame.cookie & COOKIE).ok_or_else(|| Arc::from("v8: function gone"))?;
        let (tier, scopes) = match frame.cookie >> 30 {
            IN_BYTECODE => {
                let scope = Scope { shared, place: self.of_bytecode(shared, frame.position) };
                (Some(Tier::Interpreted), vec![scope])
            }
            IN_CODE => self.scopes(shared, frame.position).unwrap_or_default(),
            _ => (None, Vec::new()),
        };
        if scopes.is_empty() {
            return Ok(vec![self.frame_name(&function, None, tier)]);
        }
        let mut names = Vec::with_capacity(scopes.len());
        for scope in scopes {
            if scope.shared == shared {
                names.push(self.frame_name(&function, scope.place, tier));
            } else if let Some(inlined) = self.function(scope.shared, 0) {
                names.push(self.frame_name(&inlined, scope.place, tier));
            }
        }
        Ok(names)
    }

    fn function(&mut self, shared: Word, cookie: u32) -> Option<Rc<Function>> {
        if let Some(known) = self.functions.get(&(shared, cookie)) {
            return known.clone();
        }
        let function = function::read(&self.heap, self.layout(), shared, cookie).map(Rc::new);
        self.functions.insert((shared, cookie), function.clone());
        function
    }

    fn script(&mut self, script: Word) -> Option<Rc<Script>> {
        if let Some(known) = self.scripts.get(&script) {
            return known.clone();
        }
        let read = script::read(&self.heap, self.layout(), script).map(Rc::new);
        self.scripts.insert(script, read.clone());
        read
    }

    /// A function at a place; where that is unknown, where it begins.
    fn frame_name(&mut self, function: &Function, place: Option<u32>, tier: Option<Tier>) -> FrameName {
        let script = self.script(function.script);
        let line = |place: Option<u32>| script.as_ref()?.line(&self.heap, place?);
        let start_line = line(function.start).unwrap_or(0);
        FrameName {
            function: Arc::clone(&function.name),
            file: script.as_ref().map_or_else(|| Arc::from(""), |script| Arc::clone(&script.name)),
            line: line(place).unwrap_or(start_line),
            start_line,
            tier,
        }
    }

    /// The place of a bytecode, which is counted from the beginning of the object that holds it, tag included.
    fn of_bytecode(&self, shared: Word, position: u32) -> Option<u32> {
        let offset = position.checked_sub(u32::from(self.layout().bytecode_first) - 1)?;
        let bytecode = function::bytecode(&self.heap, self.layout(), shared)?;
        code::of_bytecode_at(&self.heap, self.layout(), bytecode, offset)
    }

    /// The functions at an address of machine code, of which only the lower half is told, and how that was made.
    fn scopes(&mut self, shared: Word, position: u32) -> Option<(Option<Tier>, Vec<Scope>)> {
        self.in_code(position, |names, code, address| {
            let scopes = code.scopes(&names.heap, names.layout(), address, shared)?;
            Some((code.tier(names.layout()), scopes))
        })
    }

    /// The function that machine code was made of.
    fn owner(&mut self, position: u32) -> Option<Word> {
        self.in_code(position, |names, code, _| code.owner(&names.heap, names.layout()))
    }

    /// What `look` finds in the code at an address, which may be in any of several ranges.
    fn in_code<T>(&mut self, position: u32, look: impl Fn(&Self, code::Code, u64) -> Option<T>) -> Option<T> {
        for high in &self.naming.high {
            let address = u64::from(*high) << 32 | u64::from(position);
            let known = self.codes.get(&address).copied();
            let found = known.unwrap_or_else(|| code::find(&self.heap, self.layout(), address));
            self.codes.insert(address, found);
            let seen = found.and_then(|code| look(self, code, address));
            if seen.is_some() {
                return seen;
            }
        }
        None
    }
}
