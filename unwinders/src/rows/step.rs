//! What a [`Rule`] means, in Rust: one step from a frame to its caller.
//!
//! The unwinder proper is the BPF program; this is its meaning without a kernel, for stacks that reach user space as a copy, and
//! for tests.

use profiler_bpf::abi::{CfaKind, RULE_FP_AT_FP, RULE_RBX_AT_FP, RULE_SAVED_AT_POINTERS, RaKind, Rule, SAVED_SAME};

const RBX: usize = 3;
const FP: usize = 6;
const SP: usize = 7;
const IP: usize = 16;

/// For each register in the order of DWARF numbers, its index in the kernel's `gregs`.
const GREGS: [u64; 17] = [13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16];

/// The registers of a frame, those that are known. Indices are DWARF numbers: 0 rax, 1 rdx, 2 rcx, 3 rbx, 4 rsi, 5 rdi, 6 rbp,
/// 7 rsp, 8-15 r8-r15, 16 rip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    values: [u64; 17],
    known: u32,
}

impl Registers {
    /// All registers of an interrupted thread.
    #[must_use]
    pub const fn leaf(values: [u64; 17]) -> Self {
        Self { values, known: 0x1_ffff }
    }

    /// The registers that every frame has: ip, sp, fp and rbx.
    #[must_use]
    pub const fn frame(ip: u64, sp: u64, fp: u64, rbx: u64) -> Self {
        let mut values = [0; 17];
        (values[IP], values[SP], values[FP], values[RBX]) = (ip, sp, fp, rbx);
        Self { values, known: 1 << IP | 1 << SP | 1 << FP | 1 << RBX }
    }

    /// The value of a register by its DWARF number, if it is known.
    #[must_use]
    pub fn get(&self, register: usize) -> Option<u64> {
        self.values.get(register).copied().filter(|_| self.known >> register & 1 != 0)
    }

    /// Instruction pointer: of a caller, the return address.
    #[must_use]
    pub const fn ip(&self) -> u64 {
        self.values[IP]
    }

    /// Stack pointer.
    #[must_use]
    pub const fn sp(&self) -> u64 {
        self.values[SP]
    }

    /// Frame pointer, rbp.
    #[must_use]
    pub const fn fp(&self) -> u64 {
        self.values[FP]
    }

    /// rbx
    #[must_use]
    pub const fn rbx(&self) -> u64 {
        self.values[RBX]
    }
}

/// Where a step led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the caller, whose ip is a return address.
    Caller(Registers),
    /// To code that a signal interrupted, whose ip is exact and whose registers are all known.
    Interrupted(Registers),
    /// This was the outermost frame.
    End,
    /// A register that the rule needs is unknown here, or memory could not be read.
    Failed,
}

/// Steps from the frame with `registers` by `rule`, reading 64-bit words of its memory through `read`.
pub fn step(rule: &Rule, registers: &Registers, mut read: impl FnMut(u64) -> Option<u64>) -> Step {
    if rule.cfa_kind == CfaKind::End as u8 {
        return Step::End;
    }
    if rule.cfa_kind == CfaKind::Signal as u8 {
        return interrupted(rule, registers, &mut read).map_or(Step::Failed, Step::Interrupted);
    }
    caller(rule, registers, &mut read).map_or(Step::Failed, Step::Caller)
}

fn interrupted(rule: &Rule, registers: &Registers, read: &mut impl FnMut(u64) -> Option<u64>) -> Option<Registers> {
    let gregs = registers.sp().wrapping_add_signed(i64::from(rule.cfa_off));
    let mut values = [0; 17];
    for (value, index) in values.iter_mut().zip(GREGS) {
        *value = read(gregs.wrapping_add(8 * index))?;
    }
    Some(Registers::leaf(values))
}

fn caller(rule: &Rule, registers: &Registers, read: &mut impl FnMut(u64) -> Option<u64>) -> Option<Registers> {
    let base = || registers.get(usize::from(rule.cfa_reg));
    let offset = i64::from(rule.cfa_off);
    let kind = rule.cfa_kind;
    let cfa = if kind == CfaKind::Reg as u8 {
        base()?.wrapping_add_signed(offset)
    } else if kind == CfaKind::Deref as u8 {
        read(base()?.wrapping_add_signed(offset))?.wrapping_add_signed(i64::from(rule.cfa_off2))
    } else if kind == CfaKind::Plt as u8 {
        let pushed = registers.ip() & 15 >= u64::from(rule.cfa_off2.cast_unsigned());
        registers.sp().wrapping_add_signed(offset).wrapping_add(if pushed { 8 } else { 0 })
    } else {
        // CfaKind::FramePointer, and the guess where nothing is known.
        registers.fp().wrapping_add(16)
    };
    let by_fp = kind == CfaKind::FramePointer as u8 || kind == CfaKind::None as u8;
    let mut saved = |offset8: i16, same: u64, at_fp: bool| match offset8 {
        SAVED_SAME => Some(same),
        _ => {
            let base = if at_fp { registers.fp() } else { cfa };
            let at = base.wrapping_add_signed(8 * i64::from(offset8));
            let at = if rule.flags & RULE_SAVED_AT_POINTERS != 0 { read(at)? } else { at };
            read(at)
        }
    };
    let fp = saved(if by_fp { -2 } else { rule.fp_off8 }, registers.fp(), rule.flags & RULE_FP_AT_FP != 0)?;
    let rbx = saved(rule.rbx_off8, registers.rbx(), rule.flags & RULE_RBX_AT_FP != 0)?;
    let ip = if rule.ra_kind == RaKind::Register as u8 {
        registers.get(usize::try_from(rule.ra).ok()?)?
    } else {
        read(cfa.wrapping_add_signed(8 * i64::from(rule.ra)))?
    };
    Some(Registers::frame(ip, cfa, fp, rbx))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_frame_gives_its_caller() {
        let rule = Rule { cfa_kind: CfaKind::Reg as u8, cfa_reg: 7, cfa_off: 32, fp_off8: -2, ..Rule::NONE };
        let step = step(&rule, &Registers::frame(1, 1000, 2, 3), |address| Some(address * 10));
        assert_eq!(step, Step::Caller(Registers::frame(10_240, 1032, 10_160, 3)));
    }

    #[test]
    fn only_a_leaf_knows_the_other_registers() {
        let rule = Rule { cfa_kind: CfaKind::Reg as u8, cfa_reg: 10, ..Rule::NONE };
        assert_eq!(step(&rule, &Registers::frame(1, 2, 3, 4), Some), Step::Failed);
        assert!(matches!(step(&rule, &Registers::leaf([64; 17]), Some), Step::Caller(_)));
    }

    #[test]
    fn a_signal_frame_gives_all_registers_of_what_it_interrupted() {
        let rule = Rule { cfa_kind: CfaKind::Signal as u8, cfa_off: 40, ..Rule::NONE };
        let Step::Interrupted(found) = step(&rule, &Registers::frame(1, 1000, 3, 4), Some) else { panic!() };
        assert_eq!((found.ip(), found.sp(), found.fp(), found.rbx()), (1168, 1160, 1120, 1128));
        assert_eq!(
            (found.get(8), found.get(15), found.get(5), found.get(0)),
            (Some(1040), Some(1096), Some(1104), Some(1144))
        );
    }
}
