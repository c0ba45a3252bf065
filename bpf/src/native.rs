//! The unwinder's core on this side: the same C, over a copy of a stack.

use std::ptr;

use profiler_address::UserAddr;

use crate::abi::{Executable, Mapping, Row, RowPage, Rule, layout};
use crate::record::{Continuation, MAX_USER_FRAMES, NativeFrame, UnwindEnd, UserFrame};
use crate::tables::RowTables;

/// Twin of `struct unwind_state`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct RawState {
    ip: u64,
    sp: u64,
    fp: u64,
    fp_at: u64,
    rbx: u64,
    rbx_at: u64,
    guessed: u64,
    leaf: u32,
    frames: u32,
    serial: u32,
    first_mapping: u32,
    mapping_count: u32,
    rule: u32,
    regs: [u64; 16],
}
layout!(RawState, 208, { ip: 0, sp: 8, fp: 16, fp_at: 24, rbx: 32, rbx_at: 40, guessed: 48, leaf: 56, frames: 60, serial: 64, first_mapping: 68, mapping_count: 72, rule: 76, regs: 80 });

/// Twin of `struct native_tables`.
#[repr(C)]
struct RawTables {
    mappings: *const Mapping,
    mapping_count: u64,
    executables: *const Executable,
    executable_count: u64,
    row_pages: *const RowPage,
    row_page_count: u64,
    slabs: *const *const Row,
    slab_count: u64,
    rules: *const Rule,
    rule_count: u64,
}
layout!(RawTables, 80, {
    mappings: 0, mapping_count: 8, executables: 16, executable_count: 24, row_pages: 32, row_page_count: 40, slabs: 48,
    slab_count: 56, rules: 64, rule_count: 72,
});

/// Twin of `struct native_stack`.
#[repr(C)]
struct RawStack {
    copy: *const u8,
    start: u64,
    bytes: u64,
    ended: u64,
}
layout!(RawStack, 32, { copy: 0, start: 8, bytes: 16, ended: 24 });

unsafe extern "C" {
    fn profiler_unwind_native(
        state: *mut RawState,
        tables: *const RawTables,
        stack: *mut RawStack,
        frames: *mut u64,
        capacity: u32,
    ) -> u32;
}

/// A walk over a copied stack that can be resumed when a missing table has come in.
#[derive(Clone, Debug)]
pub struct Walk {
    state: RawState,
}

impl Walk {
    /// Goes on where the kernel half stopped after `frames` user frames.
    #[must_use]
    pub fn new(from: &Continuation, frames: usize) -> Self {
        Self {
            state: RawState {
                ip: from.ip,
                sp: from.sp,
                fp: from.fp,
                fp_at: 0,
                rbx: from.rbx,
                rbx_at: 0,
                guessed: from.guessed,
                leaf: u32::from(from.leaf != 0),
                frames: frames.min(MAX_USER_FRAMES) as u32,
                serial: 0,
                first_mapping: 0,
                mapping_count: 0,
                rule: 0,
                regs: from.regs,
            },
        }
    }

    /// The address to look up of the frame at which the walk stands.
    #[must_use]
    pub const fn lookup_address(&self) -> UserAddr {
        self.frame().lookup_address()
    }

    /// The frame at which the walk stands; not among its frames yet when a table was missing.
    #[must_use]
    pub const fn frame(&self) -> NativeFrame {
        let flags = self.state.guessed | if self.state.leaf != 0 { 1 << 63 } else { 0 };
        NativeFrame(self.state.ip & ((1 << 56) - 1) | flags)
    }

    /// Walks until the stack ends or a table is missing, and appends to `frames`. `stack` is the target's memory from `start`
    /// on; `mappings` are the process's, sorted.
    ///
    /// [`UnwindEnd::NotLoaded`] and [`UnwindEnd::NoMapping`] leave the walk at [`Self::frame`], to be called again.
    pub fn run(
        &mut self,
        tables: &RowTables,
        mappings: &[Mapping],
        start: u64,
        stack: &[u8],
        frames: &mut Vec<UserFrame>,
    ) -> UnwindEnd {
        let slabs: Vec<*const Row> = tables.slabs.iter().map(|slab| slab.as_ptr()).collect();
        let raw_tables = RawTables {
            mappings: mappings.as_ptr(),
            mapping_count: mappings.len() as u64,
            executables: tables.executables.as_ptr(),
            executable_count: tables.executables.len() as u64,
            row_pages: tables.row_pages.as_ptr(),
            row_page_count: tables.row_pages.len() as u64,
            slabs: slabs.as_ptr(),
            slab_count: slabs.len() as u64,
            rules: tables.rules.as_ptr(),
            rule_count: tables.rules.len() as u64,
        };
        let mut raw_stack = RawStack { copy: stack.as_ptr(), start, bytes: stack.len() as u64, ended: 0 };
        let before = self.state.frames as usize;
        let mut words = [0u64; MAX_USER_FRAMES];
        self.state.first_mapping = 0;
        self.state.mapping_count = mappings.len() as u32;
        // SAFETY: all pointers are live for the call and their counts true; the core writes at most `capacity` words to
        // `words`, which has that many, and checks every index against the counts.
        let end = unsafe {
            profiler_unwind_native(
                ptr::from_mut(&mut self.state),
                &raw_tables,
                &mut raw_stack,
                words.as_mut_ptr(),
                MAX_USER_FRAMES as u32,
            )
        };
        let after = (self.state.frames as usize).min(MAX_USER_FRAMES);
        frames.extend(words[before.min(after)..after].iter().map(|&word| UserFrame::Native(NativeFrame(word))));
        UnwindEnd::from_raw(u8::try_from(end).unwrap_or(u8::MAX))
    }
}
