//! The unwinder's core on this side: the same C, over a copy of a stack.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use profiler_address::UserAddr;

use crate::abi::{Executable, Instance, Mapping, Row, RowPage, Rule, layout};
use crate::frame::Decoder;
use crate::record::{Continuation, MAX_USER_WORDS, NativeFrame, UnwindEnd, UserFrame};
use crate::tables::{InstanceTable, RowTables};

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
    version: u32,
    first_mapping: u32,
    mapping_count: u32,
    rule: u32,
    regs: [u64; 16],
    thread_pointer: u64,
    cursor: u64,
    unwinder: u32,
    depth: u32,
    begun: u8,
    inside: u8,
    pad: [u8; 6],
}
layout!(RawState, 240, { ip: 0, sp: 8, fp: 16, fp_at: 24, rbx: 32, rbx_at: 40, guessed: 48, leaf: 56, frames: 60, version: 64, first_mapping: 68, mapping_count: 72, rule: 76, regs: 80, thread_pointer: 208, cursor: 216, unwinder: 224, depth: 228, begun: 232, inside: 233 });

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
    instances: *const Instance,
    instance_count: u64,
}
layout!(RawTables, 96, {
    mappings: 0, mapping_count: 8, executables: 16, executable_count: 24, row_pages: 32, row_page_count: 40, slabs: 48,
    slab_count: 56, rules: 64, rule_count: 72, instances: 80, instance_count: 88,
});

/// Twin of `struct native_stack`.
#[repr(C)]
struct RawStack {
    copy: *const u8,
    start: u64,
    bytes: u64,
    ended: u64,
    read: Option<unsafe extern "C" fn(*mut c_void, u64, *mut u8, u64) -> i32>,
    memory: *mut c_void,
}
layout!(RawStack, 48, { copy: 0, start: 8, bytes: 16, ended: 24, read: 32, memory: 40 });

unsafe extern "C" {
    fn profiler_unwind_native(
        state: *mut RawState,
        tables: *const RawTables,
        stack: *mut RawStack,
        frames: *mut u64,
        capacity: u32,
    ) -> u32;
}

/// What a walk needs to follow the frames of runtimes: what is known of them, and the memory beside the stack.
pub struct Runtimes<'a> {
    /// What was published of runtimes.
    pub instances: &'a InstanceTable,
    /// Fills the bytes from an address of the target; false if that cannot be.
    pub read: &'a mut dyn FnMut(u64, &mut [u8]) -> bool,
}

/// [`Runtimes::read`], for the core.
///
/// # Safety
/// `memory` is a `Runtimes` that nobody else has, `bytes` has `length` bytes.
unsafe extern "C" fn read_memory(memory: *mut c_void, address: u64, bytes: *mut u8, length: u64) -> i32 {
    let Ok(length) = usize::try_from(length) else { return -1 };
    // SAFETY: as the caller promises; the core zeroes nothing, but these are plain bytes of its own that it has room for.
    let (runtimes, bytes) = unsafe {
        ptr::write_bytes(bytes, 0, length);
        (&mut *memory.cast::<Runtimes<'_>>(), std::slice::from_raw_parts_mut(bytes, length))
    };
    // A panic must not go through C.
    match catch_unwind(AssertUnwindSafe(|| (runtimes.read)(address, bytes))) {
        Ok(true) => 0,
        Ok(false) | Err(_) => -14,
    }
}

/// A walk over a copied stack that can be resumed when a missing table has come in.
#[derive(Clone, Debug)]
pub struct Walk {
    state: RawState,
}

impl Walk {
    /// Goes on where the kernel half stopped after `frames` words of user frames.
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
                frames: frames.min(MAX_USER_WORDS) as u32,
                version: 0,
                first_mapping: 0,
                mapping_count: 0,
                rule: 0,
                regs: from.regs,
                thread_pointer: from.thread_pointer,
                cursor: from.cursor,
                unwinder: 0,
                depth: u32::try_from(from.depth).unwrap_or(u32::MAX),
                begun: u8::from(from.begun != 0),
                inside: 0,
                pad: [0; 6],
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
    /// on; `mappings` are the process's, sorted. Without `runtimes` their code is taken for any other.
    ///
    /// [`UnwindEnd::NotLoaded`] and [`UnwindEnd::NoMapping`] leave the walk at [`Self::frame`], to be called again.
    pub fn run(
        &mut self,
        tables: &RowTables,
        mappings: &[Mapping],
        start: u64,
        stack: &[u8],
        mut runtimes: Option<Runtimes<'_>>,
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
            instances: runtimes.as_ref().map_or(ptr::null(), |runtimes| runtimes.instances.as_ptr()),
            instance_count: runtimes.as_ref().map_or(0, |runtimes| runtimes.instances.len() as u64),
        };
        let read =
            runtimes.as_ref().map(|_| read_memory as unsafe extern "C" fn(*mut c_void, u64, *mut u8, u64) -> i32);
        let memory = runtimes.as_mut().map_or(ptr::null_mut(), |runtimes| ptr::from_mut(runtimes).cast());
        let mut raw_stack = RawStack { copy: stack.as_ptr(), start, bytes: stack.len() as u64, ended: 0, read, memory };
        let before = self.state.frames as usize;
        let mut words = [0u64; MAX_USER_WORDS];
        self.state.first_mapping = 0;
        self.state.mapping_count = mappings.len() as u32;
        // SAFETY: all pointers are live for the call and their counts true; the core writes at most `capacity` words to
        // `words`, which has that many, and checks every index against the counts;
        // `memory` is this call's alone.
        let end = unsafe {
            profiler_unwind_native(
                ptr::from_mut(&mut self.state),
                &raw_tables,
                &mut raw_stack,
                words.as_mut_ptr(),
                MAX_USER_WORDS as u32,
            )
        };
        let after = (self.state.frames as usize).min(MAX_USER_WORDS);
        frames.extend(Decoder(words[before.min(after)..after].iter().copied()));
        UnwindEnd::from_raw(u8::try_from(end).unwrap_or(u8::MAX))
    }
}
