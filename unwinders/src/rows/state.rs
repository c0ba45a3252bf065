//! Where the caller's registers are, as DWARF's virtual machine tracks it, and as a [`Rule`].

use profiler_bpf::abi::{CfaKind, RULE_FP_AT_FP, RULE_RBX_AT_FP, RaKind, Rule, SAVED_SAME};

use super::RowStats;

/// DWARF register numbers of x86-64 (System V psABI, figure 3.36).
pub(super) const RBX: u64 = 3;
pub(super) const RBP: u64 = 6;
pub(super) const RSP: u64 = 7;
pub(super) const RETURN_ADDRESS: u64 = 16;

/// In `ucontext.uc_mcontext.gregs`, rsp is the 16th register and rip the 17th (glibc's `REG_RSP`, `REG_RIP`; the kernel's
/// `struct sigcontext_64`).
const GREGS_RSP: i32 = 15 * 8;

/// The outermost frame.
pub(super) const END: Rule = Rule { cfa_kind: CfaKind::End as u8, ..Rule::NONE };

/// `cfa = fp + 16`, `ip = *(cfa - 8)`, `fp = *(cfa - 16)`.
pub(super) const FRAME_POINTER: Rule =
    Rule { cfa_kind: CfaKind::FramePointer as u8, cfa_reg: RBP as u8, cfa_off: 16, fp_off8: -2, ..Rule::NONE };

/// The signal trampoline whose `gregs` are at `sp + offset`.
pub(super) const fn signal(offset: i32) -> Rule {
    Rule { cfa_kind: CfaKind::Signal as u8, cfa_reg: RSP as u8, cfa_off: offset, ..Rule::NONE }
}

/// How the canonical frame address is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cfa {
    /// No definition yet, or one that no rule expresses.
    Unknown,
    /// `reg + offset`
    Register { register: u8, offset: i32 },
    /// `*(reg + offset) + offset2`
    Deref { register: u8, offset: i32, offset2: i16 },
    /// `sp + offset + ((ip & 15) >= pushed_at ? 8 : 0)`
    Plt { offset: i32, pushed_at: u8 },
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Still in the register.
    Same,
    /// `*(cfa + offset)`
    AtCfa(i32),
    /// `*(reg + offset)`
    AtRegister { register: u8, offset: i32 },
    /// In another register.
    InRegister(u8),
    /// It has none: for the return address, the stack ends here.
    Undefined,
    /// Somewhere that no rule expresses.
    Unknown,
}

/// One row of the table that call frame instructions describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) cfa: Cfa,
    pub(super) fp: Place,
    pub(super) rbx: Place,
    pub(super) ra: Place,
}

impl State {
    pub(super) const NEW: Self = Self { cfa: Cfa::Unknown, fp: Place::Same, rbx: Place::Same, ra: Place::Same };

    /// The place of a register that unwinding needs, by its DWARF number.
    #[inline]
    pub(super) const fn place(&mut self, register: u64) -> Option<&mut Place> {
        match register {
            RBX => Some(&mut self.rbx),
            RBP => Some(&mut self.fp),
            RETURN_ADDRESS => Some(&mut self.ra),
            _ => None,
        }
    }

    /// The rule for this state; what it can't express is counted.
    pub(super) fn rule(&self, in_signal_frame: bool, stats: &mut RowStats) -> Rule {
        self.common_rule().unwrap_or_else(|| self.uncommon_rule(in_signal_frame, stats))
    }

    /// The rule, if the CFA is at a constant distance of a register and everything saved at constant distances of the CFA.
    pub(super) fn common_rule(&self) -> Option<Rule> {
        let (Cfa::Register { register, offset }, Place::AtCfa(ra)) = (self.cfa, self.ra) else { return None };
        Some(Rule {
            cfa_kind: CfaKind::Reg as u8,
            cfa_reg: register,
            cfa_off: offset,
            ra: eighth(ra)?,
            fp_off8: simple(self.fp)?,
            rbx_off8: simple(self.rbx)?,
            ..Rule::NONE
        })
    }

    #[cold]
    fn uncommon_rule(&self, in_signal_frame: bool, stats: &mut RowStats) -> Rule {
        if self.ra == Place::Undefined {
            return END;
        }
        if in_signal_frame && let Some(rule) = self.signal_rule() {
            return rule;
        }
        let mut rule = Rule::NONE;
        match self.cfa {
            Cfa::Register { register, offset } => {
                (rule.cfa_kind, rule.cfa_reg, rule.cfa_off) = (CfaKind::Reg as u8, register, offset);
            }
            Cfa::Deref { register, offset, offset2 } => {
                (rule.cfa_kind, rule.cfa_reg, rule.cfa_off) = (CfaKind::Deref as u8, register, offset);
                rule.cfa_off2 = offset2;
            }
            Cfa::Plt { offset, pushed_at } => {
                (rule.cfa_kind, rule.cfa_reg, rule.cfa_off) = (CfaKind::Plt as u8, RSP as u8, offset);
                rule.cfa_off2 = i16::from(pushed_at);
            }
            Cfa::Unknown => {
                stats.unsupported += 1;
                return Rule::NONE;
            }
        }
        match (self.ra, self.offset_from_cfa(self.ra).and_then(eighth)) {
            (_, Some(ra)) => rule.ra = ra,
            (Place::InRegister(register), _) => {
                (rule.ra_kind, rule.ra) = (RaKind::Register as u8, i16::from(register));
            }
            _ => {
                stats.unsupported += 1;
                return Rule::NONE;
            }
        }
        let mut known = true;
        rule.fp_off8 = self.saved(self.fp, RULE_FP_AT_FP, &mut rule.flags, &mut known);
        rule.rbx_off8 = self.saved(self.rbx, RULE_RBX_AT_FP, &mut rule.flags, &mut known);
        stats.approximated += u64::from(!known);
        rule
    }

    /// `fp_off8` or `rbx_off8` for a place, with the flag set that tells what it is relative to.
    fn saved(&self, place: Place, at_fp: u8, flags: &mut u8, known: &mut bool) -> i16 {
        match place {
            Place::Same | Place::Undefined => return SAVED_SAME,
            _ => {}
        }
        if let Some(offset) = self.offset_from_cfa(place).and_then(eighth) {
            return offset;
        }
        if let Place::AtRegister { register, offset } = place
            && u64::from(register) == RBP
            && let Some(offset) = eighth(offset)
        {
            *flags |= at_fp;
            return offset;
        }
        *known = false;
        SAVED_SAME
    }

    /// The distance of a place on the stack from the CFA, where it is constant.
    fn offset_from_cfa(&self, place: Place) -> Option<i32> {
        match (place, self.cfa) {
            (Place::AtCfa(offset), _) => Some(offset),
            (Place::AtRegister { register, offset }, Cfa::Register { register: base, offset: base_offset })
                if register == base =>
            {
                offset.checked_sub(base_offset)
            }
            _ => None,
        }
    }

    /// The trampoline of a C library: sp and ip are in the kernel's `gregs`, which start at one distance from sp.
    fn signal_rule(&self) -> Option<Rule> {
        let Cfa::Deref { register: 7, offset, offset2: 0 } = self.cfa else { return None };
        let Place::AtRegister { register: 7, offset: ra } = self.ra else { return None };
        (ra == offset.checked_add(8)?).then_some(signal(offset.checked_sub(GREGS_RSP)?))
    }
}

/// The offset of the two common places.
#[inline]
fn simple(place: Place) -> Option<i16> {
    match place {
        Place::Same => Some(SAVED_SAME),
        Place::AtCfa(offset) => eighth(offset),
        _ => None,
    }
}

/// A stack offset in units of eight bytes; [`SAVED_SAME`] is not one.
#[inline]
fn eighth(offset: i32) -> Option<i16> {
    if offset & 7 != 0 {
        return None;
    }
    i16::try_from(offset >> 3).ok().filter(|&eighth| eighth != SAVED_SAME)
}
