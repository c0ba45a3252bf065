//! The BPF build of the unwinder on chosen input (`BPF_PROG_TEST_RUN`), for tests on every kernel.

use std::mem::MaybeUninit;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput};

use crate::abi::layout;
use crate::error::{Error, Result};
use crate::frame::Decoder;
use crate::record::{Continuation, UnwindEnd, UserFrame};
use crate::skeleton::{ProfilerSkel, ProfilerSkelBuilder};
use crate::tables::Tables;

/// Offset of the frames in `struct scratch`; the C side asserts it.
const SCRATCH_BODY: usize = 36_056;

/// Twin of `struct test_input`.
#[repr(C)]
struct TestInput {
    ip: u64,
    sp: u64,
    fp: u64,
    rbx: u64,
    version: u32,
    first_mapping: u32,
    mapping_count: u32,
    end: u32,
    frames: u32,
    pad: u32,
    thread_pointer: u64,
    regs: [u64; 16],
}
layout!(TestInput, 192, {
    ip: 0, sp: 8, fp: 16, rbx: 24, version: 32, first_mapping: 36, mapping_count: 40, end: 44, frames: 48,
    thread_pointer: 56, regs: 64,
});

/// The loaded test entry.
pub struct ProgTest {
    skeleton: ProfilerSkel<'static>,
}

impl ProgTest {
    /// Loads only the test entry; needs the privileges of BPF, no perf events.
    ///
    /// # Errors
    /// The kernel or its privileges don't permit it, or the kernel is older than 5.14 (no syscall programs).
    pub fn load() -> Result<Self> {
        let bpf = |source| Error::Bpf { action: "load the test entry of", source, hint: String::new() };
        let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = ProfilerSkelBuilder::default().open(storage).map_err(bpf)?;
        for mut program in open.open_object_mut().progs_mut() {
            let wanted = program.name() == "test_unwind";
            program.set_autoload(wanted);
        }
        Ok(Self { skeleton: open.load().map_err(bpf)? })
    }

    /// The tables that the entry reads.
    ///
    /// # Errors
    /// The maps cannot be mapped.
    pub fn tables(&self) -> Result<Tables> {
        Tables::of_maps(&self.skeleton.maps)
    }

    /// Unwinds from `registers` through the memory of this process, with `mapping_count` mappings from `first_mapping` on.
    /// `version` names the version of the tables: another one for other tables.
    ///
    /// # Errors
    /// The program does not run.
    pub fn run(
        &self,
        registers: &Continuation,
        version: u32,
        first_mapping: u32,
        mapping_count: u32,
    ) -> Result<(Vec<UserFrame>, UnwindEnd)> {
        let bpf = |source| Error::Bpf { action: "run the test entry of", source, hint: String::new() };
        let mut input = TestInput {
            ip: registers.ip,
            sp: registers.sp,
            fp: registers.fp,
            rbx: registers.rbx,
            version,
            first_mapping,
            mapping_count,
            end: 0,
            frames: 0,
            pad: 0,
            thread_pointer: registers.thread_pointer,
            regs: registers.regs,
        };
        // SAFETY: `input` is plain integers, and the slice covers it exactly, for as long as the call.
        let context = unsafe { std::slice::from_raw_parts_mut((&raw mut input).cast::<u8>(), size_of::<TestInput>()) };
        let run = ProgramInput { context_in: Some(context), ..Default::default() };
        self.skeleton.progs.test_unwind.test_run(run).map_err(bpf)?;
        let scratch = self.skeleton.maps.scratches.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(bpf)?;
        let body = scratch.as_deref().and_then(|scratch| scratch.get(SCRATCH_BODY..)).unwrap_or_default();
        let words = body.as_chunks::<8>().0.iter().take(input.frames as usize);
        let frames = Decoder(words.map(|word| u64::from_ne_bytes(*word))).collect();
        Ok((frames, UnwindEnd::from_raw(u8::try_from(input.end).unwrap_or(u8::MAX))))
    }
}
