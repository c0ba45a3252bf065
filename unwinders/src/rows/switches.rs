//! Where a function is about to leave for another frame than its caller's: GCC's unwinder, when an exception has found its handler.
//!
//! `_Unwind_RaiseException` and its like copy the handler's registers over those that they have saved of their caller, put the
//! handler's address onto the stack and go there (`__builtin_eh_return`). From the copying on, their unwind information leads to
//! a caller that is made of both: the return address and registers of the one, the stack pointer of the other.
//!
//! ```text
//! call uw_install_context_1       copies the registers
//! mov  ra(%rbp), %rsi             `context.ra`, for a debugger's hook
//! mov  cfa(%rbp), %rdi            `context.cfa`: the stack pointer of the handler's frame, 8 bytes below `ra`
//! ...                             puts ra to where it will return
//! mov  (%rbp), %rbp               of the handler's frame
//! ```
//!
//! So from the call to the end the frame that comes next is the handler's, at `context.cfa`; and where its registers are, the context has
//! pointers to, whatever is copied by then.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use profiler_address::ElfVaddr;
use profiler_bpf::abi::{CfaKind, RULE_FP_AT_FP, RULE_RBX_AT_FP, RULE_SAVED_AT_POINTERS, Rule};
use profiler_elf::ElfParts;

use super::packed::PackedRule;
use super::state;

/// Largest function that is looked at, bytes; those of GCC have under 1,000.
const LARGEST: u64 = 8192;
/// Functions of one executable that are looked at.
const MAX_FUNCTIONS: u32 = 64;
/// Instructions from the call to the two loads.
const NEAR: usize = 6;
/// Bytes of `struct _Unwind_Context` before `cfa`: 18 pointers to saved registers, by DWARF number.
const CFA_IN_CONTEXT: i32 = 18 * 8;
/// `DW_CFA_offset` of rax and of rdx, which only functions save that return by `__builtin_eh_return`.
const SAVES_RAX: u8 = 0x80;
const SAVES_RDX: u8 = 0x81;

/// From `first` up to `past`, `rule` holds, whatever the unwind information says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    pub(super) first: u64,
    pub(super) past: u64,
    pub(super) rule: PackedRule,
}

/// Finds them; bounded for one executable.
#[derive(Debug)]
pub(super) struct Switches {
    left: u32,
}

impl Default for Switches {
    fn default() -> Self {
        Self { left: MAX_FUNCTIONS }
    }
}

impl Switches {
    /// Those of the function from `start` to `end` that this program of call frame instructions describes, in the order of addresses.
    #[inline]
    pub(super) fn find(&mut self, program: &[u8], (start, end): (u64, u64), parts: &ElfParts<'_>) -> Vec<Switch> {
        if self.left == 0 || !program.contains(&SAVES_RAX) || !program.contains(&SAVES_RDX) {
            return Vec::new();
        }
        self.left -= 1;
        let size = end.saturating_sub(start);
        match parts.bytes_at(ElfVaddr(start), size.min(LARGEST) as usize) {
            Some(code) if size <= LARGEST => in_code(code, start),
            _ => Vec::new(),
        }
    }
}

fn in_code(code: &[u8], start: u64) -> Vec<Switch> {
    let instructions: Vec<Instruction> = Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter().collect();
    let mut found: Vec<Switch> = Vec::new();
    for (index, call) in instructions.iter().enumerate() {
        let after = instructions.get(index + 1..).unwrap_or_default();
        if call.flow_control() == FlowControl::Call
            && found.last().is_none_or(|last| last.past <= call.ip())
            && let Some(cfa) = handlers_cfa(after)
        {
            found.extend(switch(call, cfa, after));
        }
    }
    found
}

/// Where `context.cfa` is from rbp on, if `after` begins with the two loads.
fn handlers_cfa(after: &[Instruction]) -> Option<i32> {
    let (mut ra, mut cfa) = (None, None);
    for instruction in after.iter().take(NEAR) {
        if instruction.flow_control() != FlowControl::Next {
            break;
        }
        match (instruction.op0_register(), load(instruction)) {
            (Register::RSI, Some(at)) => ra = Some(at),
            (Register::RDI, Some(at)) => cfa = Some(at),
            _ => {}
        }
    }
    cfa.filter(|cfa| ra.is_some_and(|ra: i32| ra.checked_sub(*cfa) == Some(8)))
}

/// From the return address of `call` to where rbp is the handler's.
fn switch(call: &Instruction, cfa: i32, after: &[Instruction]) -> Option<Switch> {
    let eighth = |from_rbp: i32| i16::try_from(from_rbp / 8).ok().filter(|_| from_rbp % 8 == 0);
    let pointer_of = |register: u64| eighth(cfa - CFA_IN_CONTEXT + 8 * i32::try_from(register).ok()?);
    let rule = Rule {
        cfa_kind: CfaKind::Deref as u8,
        cfa_reg: state::RBP as u8,
        cfa_off: cfa,
        ra: -1,
        fp_off8: pointer_of(state::RBP)?,
        rbx_off8: pointer_of(state::RBX)?,
        flags: RULE_FP_AT_FP | RULE_RBX_AT_FP | RULE_SAVED_AT_POINTERS,
        ..Rule::NONE
    };
    let to_caller = |i: &&Instruction| matches!(i.flow_control(), FlowControl::Return | FlowControl::IndirectBranch);
    let takes_rbp = |i: &&Instruction| i.op0_register() == Register::RBP && load(i) == Some(0);
    let last = after.iter().find(|i| to_caller(i) || takes_rbp(i)).filter(takes_rbp)?;
    // A return address is looked up one byte before.
    let first = call.next_ip().saturating_sub(1);
    Some(Switch { first, past: last.next_ip(), rule: PackedRule::new(rule) })
}

/// `n` of `mov register, [rbp + n]`.
fn load(instruction: &Instruction) -> Option<i32> {
    let from_rbp = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op1_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RBP
        && instruction.memory_index() == Register::None;
    from_rbp.then(|| i32::try_from(instruction.memory_displacement64().cast_signed()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of `_Unwind_RaiseException` in libgcc 12, with the hook's call and without the shadow stack.
    const RAISE: &[u8] = &[
        0x48, 0x89, 0xde, // mov %rbx, %rsi
        0x4c, 0x89, 0xff, // mov %r15, %rdi
        0xe8, 0, 0, 0, 0, // call uw_install_context_1
        0x48, 0x8b, 0xb5, 0xe8, 0xfd, 0xff, 0xff, // mov -0x218(%rbp), %rsi
        0x48, 0x8b, 0xbd, 0xe0, 0xfd, 0xff, 0xff, // mov -0x220(%rbp), %rdi
        0x48, 0x89, 0xc2, // mov %rax, %rdx
        0xe8, 0, 0, 0, 0, // call _Unwind_DebugHook
        0x48, 0x89, 0xd1, // mov %rdx, %rcx
        0x48, 0x8b, 0x5d, 0xd8, // mov -0x28(%rbp), %rbx
        0x48, 0x8b, 0x6d, 0x00, // mov 0(%rbp), %rbp
        0x48, 0x89, 0xcc, // mov %rcx, %rsp
        0x59, // pop %rcx
        0xff, 0xe1, // jmp *%rcx
    ];

    #[test]
    fn the_handlers_frame_comes_next_from_the_copying_of_its_registers_on() {
        let found = in_code(RAISE, 0x1000);
        let rule = Rule {
            cfa_kind: CfaKind::Deref as u8,
            cfa_reg: 6,
            cfa_off: -0x220,
            ra: -1,
            fp_off8: -(0x220 + 144 - 6 * 8) / 8,
            rbx_off8: -(0x220 + 144 - 3 * 8) / 8,
            flags: RULE_FP_AT_FP | RULE_RBX_AT_FP | RULE_SAVED_AT_POINTERS,
            ..Rule::NONE
        };
        assert_eq!(found, [Switch { first: 0x100a, past: 0x1000 + 44, rule: PackedRule::new(rule) }]);
        // Loads of other words are some other function's arguments.
        let mut other = RAISE.to_vec();
        other[14] = 0xf0;
        assert_eq!(in_code(&other, 0x1000), []);
    }

    #[test]
    fn every_function_of_this_machines_gcc_that_goes_to_a_handler_is_found() {
        let test = "every_function_of_this_machines_gcc_that_goes_to_a_handler_is_found";
        let places = ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/libgcc_s.so.1", "/usr/lib/libgcc_s.so.1"];
        let path = places.into_iter().find(|path| std::path::Path::new(path).exists());
        if !profiler_need::have(test, path.is_some(), "libgcc_s.so.1") {
            return;
        }
        let path = path.unwrap_or_default();
        let bytes = std::fs::read(path).unwrap();
        let parts = ElfParts::parse(&bytes).unwrap();
        let rows = crate::rows::compile(&parts, &mut crate::rows::RuleDictionary::new()).unwrap();
        // RaiseException, ForcedUnwind, Resume, Resume_or_Rethrow.
        assert!((3..=6).contains(&rows.stats.switches), "{:?}", rows.stats);
    }
}
