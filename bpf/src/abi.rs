//! The layouts that the kernel half (C, `bpf/src/bpf/abi.h`) and user space share, written once a side.
//!
//! Every struct here has its twin in `abi.h`; sizes and offsets are asserted on both sides. Integers are native-endian: both
//! sides run on the same machine.

/// Unwind rows describe pages of this many bytes of ELF address space.
pub const ROW_PAGE_SHIFT: u32 = 16;
/// Rows in one slab: one inner map of 256 KiB.
pub const SLAB_ROWS: u32 = 65_536;
/// Rules that the one global table holds. Rule 0 means that there is no row: fall back to the frame pointer.
pub const MAX_RULES: u32 = 32_768;

/// One unwind row: the low 16 bits of the ELF address at which a rule starts to hold, and the rule's index in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Row(pub u32);

impl Row {
    /// A row that starts at ELF address `..address_low` and names rule `rule`.
    #[must_use]
    pub const fn new(address_low: u16, rule: u16) -> Self {
        Self(address_low as u32 | (rule as u32) << 16)
    }
    /// Low 16 bits of the ELF virtual address.
    #[must_use]
    pub const fn address_low(self) -> u16 {
        self.0 as u16
    }
    /// Index into the rule table.
    #[must_use]
    pub const fn rule(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// How the canonical frame address (CFA: the stack pointer before the call) is computed. `unwind_rule::cfa_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CfaKind {
    /// Nothing is known: `cfa = fp + 16` as a guess, and the frame says so.
    None = 0,
    /// `cfa = reg + cfa_off`
    Reg = 1,
    /// `cfa = *(reg + cfa_off) + cfa_off2`
    Deref = 2,
    /// `cfa = sp + cfa_off + ((ip & 15) >= cfa_off2 ? 8 : 0)`: the expression of every PLT.
    Plt = 3,
    /// The outermost frame: its return address is undefined, so the stack is complete.
    End = 4,
    /// A signal trampoline: all registers come from the `mcontext` of the `rt_sigframe` at `sp + cfa_off` (x86-64: the
    /// address of `ucontext.uc_mcontext.gregs`).
    Signal = 5,
    /// `cfa = fp + 16`, by design and not as a guess (code whose only unwind contract is the frame pointer).
    FramePointer = 6,
}

/// Where the return address is. `unwind_rule::ra_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RaKind {
    /// `ip = *(cfa + 8 * ra)`; on x86-64 `ra` is -1 in all ordinary frames.
    CfaOffset = 0,
    /// `ip = reg(ra)`, `ra` a DWARF register number: leaf frames only (vfork keeps it in a register).
    Register = 1,
}

/// `fp_off8` / `rbx_off8`: the register has its caller's value still.
pub const SAVED_SAME: i16 = i16::MIN;

/// In `flags`: the saved frame pointer is at `fp + 8 * fp_off8`, not `cfa + ...` (GCC's realigned frames).
pub const RULE_FP_AT_FP: u8 = 1;
/// In `flags`: the saved rbx is at `fp + 8 * rbx_off8`.
pub const RULE_RBX_AT_FP: u8 = 2;

/// One way to get from a frame to its caller; 16 bytes, shared by all executables of the host.
///
/// Registers are DWARF numbers (x86-64: 3 rbx, 5 rdi, 6 rbp, 7 rsp, 10 r10, ...). sp, fp and rbx are known in every frame;
/// others only in a leaf frame (the interrupted one, and one interrupted by a signal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// [`CfaKind`]
    pub cfa_kind: u8,
    /// DWARF number of the register that the CFA is computed from.
    pub cfa_reg: u8,
    /// [`RaKind`]
    pub ra_kind: u8,
    /// [`RULE_FP_AT_FP`], [`RULE_RBX_AT_FP`]
    pub flags: u8,
    /// Bytes; see [`CfaKind`].
    pub cfa_off: i32,
    /// Bytes; see [`CfaKind`].
    pub cfa_off2: i16,
    /// See [`RaKind`].
    pub ra: i16,
    /// Where the caller's frame pointer is saved: `cfa + 8 * fp_off8`, or [`SAVED_SAME`].
    pub fp_off8: i16,
    /// Where the caller's rbx is saved: `cfa + 8 * rbx_off8`, or [`SAVED_SAME`].
    pub rbx_off8: i16,
}
const _: () = assert!(size_of::<Rule>() == 16);

impl Rule {
    /// Rule 0: nothing is known.
    pub const NONE: Self = Self {
        cfa_kind: CfaKind::None as u8,
        cfa_reg: 0,
        ra_kind: RaKind::CfaOffset as u8,
        flags: 0,
        cfa_off: 0,
        cfa_off2: 0,
        ra: -1,
        fp_off8: SAVED_SAME,
        rbx_off8: SAVED_SAME,
    };
}
