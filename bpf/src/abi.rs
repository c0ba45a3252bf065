//! The layouts that the kernel half (C, `bpf/src/bpf/abi.h`) and user space share, written once a side.
//!
//! Every struct here has its twin in `abi.h`; sizes and offsets are asserted on both sides. Integers are native-endian: both
//! sides run on the same machine.

/// Asserts a twin's size and where its fields are; the C side asserts the same.
macro_rules! layout {
    ($type:ty, $size:literal, { $($field:ident: $offset:literal),* $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(std::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use layout;

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
/// Flag: `fp_off8` and `rbx_off8` are where pointers to the saved values are; only together with both other flags.
pub const RULE_SAVED_AT_POINTERS: u8 = 4;

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
    /// [`RULE_FP_AT_FP`], [`RULE_RBX_AT_FP`], [`RULE_SAVED_AT_POINTERS`]
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
layout!(Rule, 16, { cfa_kind: 0, cfa_reg: 1, ra_kind: 2, flags: 3, cfa_off: 4, cfa_off2: 8, ra: 10, fp_off8: 12, rbx_off8: 14 });

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

/// Executable mappings, over all processes.
pub const MAX_MAPPINGS: usize = 65_536;
/// Executables with rows.
pub const MAX_EXECUTABLES: usize = 8_192;
/// 64 KiB pages of row tables, over all executables.
pub const MAX_ROW_PAGES: usize = 65_536;
/// Slabs of rows.
pub const MAX_SLABS: usize = 1_024;
/// Runtimes in processes.
pub const MAX_INSTANCES: usize = 4_096;
/// Bytes that the kernel half has for one.
pub const INSTANCE_BYTES: usize = 256;
/// Processes with known mappings.
pub const MAX_PROCESSES: usize = 16_384;
/// In [`Mapping::executable`]: code without rows, followed by frame pointer.
pub const NO_EXECUTABLE: u32 = u32::MAX;

/// Whose code a mapping is, and whose frame a word of a stack is: `enum frame_kind`, six bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKind(u8);

/// The kinds that there are: a constant of each, and a list of all.
macro_rules! frame_kinds {
    ($($(#[$about:meta])* $name:ident = $number:literal,)*) => {
        impl FrameKind {
            $($(#[$about])* pub const $name: Self = Self($number);)*
            /// The kinds that there are, each with its name in `enum frame_kind`, behind `FRAME_`.
            pub const NAMED: &[(&str, Self)] = &[$((stringify!($name), Self::$name),)*];
        }
    };
}

frame_kinds! {
    /// Machine code, stepped over by unwind rows or frame pointers; its frames are addresses.
    NATIVE = 0,
    /// Python's functions, of CPython.
    CPYTHON = 1,
    /// Methods of HotSpot, the virtual machine of OpenJDK.
    HOTSPOT = 2,
    /// Functions of V8, the engine of Node.js.
    V8 = 3,
}

impl FrameKind {
    /// Kinds that there can be.
    pub const COUNT: u8 = 64;

    /// The kind of this number, if it has six bits.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// [`Mapping::unwinder`]: a kind, and the index of the instance that knows the way.
#[must_use]
pub const fn unwinder_word(kind: FrameKind, instance: u32) -> u32 {
    kind.0 as u32 | instance << 8
}

/// `struct instance`: what was found out of a runtime in one address space, laid out as its own C struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Instance(pub [u8; INSTANCE_BYTES]);
const _: () = assert!(size_of::<Instance>() == INSTANCE_BYTES);

/// `struct mapping`: one executable mapping of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Mapping {
    /// First address in the process.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Address in the process minus ELF virtual address.
    pub bias: u64,
    /// Index into the executables, or [`NO_EXECUTABLE`].
    pub executable: u32,
    /// Who unwinds the code there: see [`unwinder_word`]. Rows of the executable still hold where that one hands over to them.
    pub unwinder: u32,
}
layout!(Mapping, 32, { start: 0, end: 8, bias: 16, executable: 24, unwinder: 28 });

/// `struct executable`: where an executable's row pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Executable {
    /// ELF virtual address >> 16 of the first page.
    pub first_page: u32,
    /// Number of pages; 0: not loaded.
    pub page_count: u32,
    /// Index of the first page in the row pages.
    pub page_base: u32,
    /// Zero.
    pub pad: u32,
}
layout!(Executable, 16, { first_page: 0, page_count: 4, page_base: 8 });

/// `struct row_page`: the rows of 64 KiB of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct RowPage {
    /// Slab << 16 | first row in it.
    pub first: u32,
    /// Number of rows; they do not straddle slabs.
    pub count: u32,
}
layout!(RowPage, 8, { first: 0, count: 4 });

/// [`Verdict::refused`]: it is sampled.
pub const REFUSED_NOT: u32 = 0;
/// [`Verdict::refused`]: it is no target, counted in [`Counter::Filtered`](crate::Counter::Filtered).
pub const REFUSED_BY_TARGETS: u32 = 1;
/// [`Verdict::refused`]: a rule drops all its samples, counted in [`Counter::RuledOut`](crate::Counter::RuledOut) and in the lane that the number is
/// above this one.
pub const REFUSED_BY_RULE: u32 = 2;
/// Lanes in which what rules drop is counted.
pub const RULE_LANES: usize = 8;

/// `struct verdict`: what is decided of one process image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Verdict {
    /// Start of the process, `CLOCK_BOOTTIME`, ns.
    pub start_time: u64,
    /// `mm->start_code`
    pub start_code: u64,
    /// `mm->start_stack`
    pub start_stack: u64,
    /// Id of its v2 control group.
    pub cgroup: u64,
    /// [`REFUSED_NOT`], [`REFUSED_BY_TARGETS`], or [`REFUSED_BY_RULE`] and above.
    pub refused: u32,
    /// Zero.
    pub pad: u32,
}
layout!(Verdict, 40, { start_time: 0, start_code: 8, start_stack: 16, cgroup: 24, refused: 32 });

/// `struct process`: whose mappings are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Process {
    /// `mm->start_code`
    pub start_code: u64,
    /// `mm->start_stack`
    pub start_stack: u64,
    /// New for each version of the mappings; never 0.
    pub version: u32,
    /// First of its mappings.
    pub first: u32,
    /// Number of its mappings.
    pub count: u32,
    /// Zero.
    pub pad: u32,
}
layout!(Process, 32, { start_code: 0, start_stack: 8, version: 16, first: 20, count: 24 });

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::frame::{FRAME_GUESSED, FRAME_IS_IP};
    use crate::record::{MAX_USER_FRAMES, MAX_USER_WORDS, UnwindEnd};
    use crate::sampler::MAX_SOURCES;

    const HEADER: &str = include_str!("bpf/abi.h");

    /// A number as C writes it.
    fn number(text: &str) -> Option<i64> {
        let text = text.trim_matches(['(', ')']);
        if let Some((one, shift)) = text.split_once("ull << ") {
            return Some((one.parse::<u64>().ok()? << shift.parse::<u32>().ok()?).cast_signed());
        }
        let text = text.trim_end_matches('u');
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| i64::from_str_radix(digits, 16).ok())
    }

    /// The numbers that abi.h defines, by name.
    fn defined() -> BTreeMap<&'static str, i64> {
        let lines = HEADER.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' '));
        lines.filter_map(|(name, rest)| Some((name, number(rest.split(" /*").next()?.trim())?))).collect()
    }

    /// The names of `enum NAME`, without their prefix, and their numbers.
    fn names_of(name: &str, prefix: &str) -> Vec<(&'static str, i64)> {
        let body = HEADER.split_once(&format!("enum {name} {{")).and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
        let lines = body.lines().filter_map(|line| line.trim().strip_prefix(prefix)?.split_once(" = "));
        lines.map(|(name, rest)| (name, number(rest.split(',').next().unwrap()).unwrap())).collect()
    }

    /// `FramePointer` is `FRAME_POINTER`.
    fn as_c(name: impl std::fmt::Debug) -> String {
        let mut out = String::new();
        for (at, letter) in format!("{name:?}").char_indices() {
            if at > 0 && letter.is_uppercase() {
                out.push('_');
            }
            out.push(letter.to_ascii_uppercase());
        }
        out
    }

    #[test]
    fn both_sides_have_the_same_constants() {
        let mut header = defined();
        #[rustfmt::skip]
        let ours = [
            ("MAX_USER_FRAMES", MAX_USER_FRAMES as i64), ("MAX_USER_WORDS", MAX_USER_WORDS as i64),
            ("MAX_SOURCES", MAX_SOURCES as i64), ("RULE_LANES", RULE_LANES as i64), ("MAX_PROCESSES", MAX_PROCESSES as i64),
            ("MAX_MAPPINGS", MAX_MAPPINGS as i64), ("MAX_EXECUTABLES", MAX_EXECUTABLES as i64),
            ("MAX_ROW_PAGES", MAX_ROW_PAGES as i64), ("MAX_SLABS", MAX_SLABS as i64), ("MAX_RULES", i64::from(MAX_RULES)),
            ("MAX_INSTANCES", MAX_INSTANCES as i64), ("INSTANCE_BYTES", INSTANCE_BYTES as i64),
            ("SLAB_ROWS", i64::from(SLAB_ROWS)), ("SLAB_ROWS_SHIFT", i64::from(SLAB_ROWS.ilog2())),
            ("ROW_PAGE_SHIFT", i64::from(ROW_PAGE_SHIFT)), ("SAVED_SAME", i64::from(SAVED_SAME)),
            ("RULE_FP_AT_FP", i64::from(RULE_FP_AT_FP)), ("RULE_RBX_AT_FP", i64::from(RULE_RBX_AT_FP)),
            ("RULE_SAVED_AT_POINTERS", i64::from(RULE_SAVED_AT_POINTERS)), ("NO_EXECUTABLE", i64::from(NO_EXECUTABLE)),
            ("FRAME_IS_IP", FRAME_IS_IP.cast_signed()), ("FRAME_GUESSED", FRAME_GUESSED.cast_signed()),
        ];
        for (name, value) in ours {
            assert_eq!(header.remove(name), Some(value), "{name}");
        }
        // Those that no code in Rust knows. A new one has to be put here, or above.
        let rest: Vec<_> = header.into_keys().collect();
        #[rustfmt::skip]
        let alone = [
            "FRAMES_A_CALL", "MAX_FRAMES", "MAX_KERNEL_FRAMES", "NO_OBJECT", "PAGE_BYTES", "PC_CACHE_SLOTS", "RUNTIME_WORDS",
            "STACK_COPY_PAGES", "UNWINDER_KIND_BITS",
        ];
        assert_eq!(rest, alone);
    }

    #[test]
    fn both_sides_have_the_same_names_and_numbers() {
        let cfa = [
            CfaKind::None,
            CfaKind::Reg,
            CfaKind::Deref,
            CfaKind::Plt,
            CfaKind::End,
            CfaKind::Signal,
            CfaKind::FramePointer,
        ];
        let cfa: Vec<_> = cfa.iter().map(|kind| (as_c(kind), *kind as i64)).collect();
        let ra = [RaKind::CfaOffset, RaKind::Register].map(|kind| (as_c(kind), kind as i64));
        let kinds: Vec<_> =
            FrameKind::NAMED.iter().map(|(name, kind)| ((*name).to_owned(), i64::from(kind.0))).collect();
        // All that the record's byte can be; what is none of them is a bad frame.
        let ends = (0..=u8::MAX).map(|raw| (raw, UnwindEnd::from_raw(raw)));
        let ends: Vec<_> =
            ends.filter(|(raw, end)| *end as u8 == *raw).map(|(raw, end)| (as_c(end), raw.into())).collect();
        let refusals = [("NOT", REFUSED_NOT), ("BY_TARGETS", REFUSED_BY_TARGETS), ("BY_RULE", REFUSED_BY_RULE)];
        let refusals = refusals.map(|(name, number)| (name.to_owned(), i64::from(number)));
        let same = |of: &str, prefix: &str, ours: &[(String, i64)], more: &[(&str, i64)]| {
            let ours: Vec<_> = ours.iter().map(|(name, number)| (name.as_str(), *number)).collect();
            assert_eq!(names_of(of, prefix), [&ours, more].concat(), "enum {of}");
        };
        same("cfa_kind", "CFA_", &cfa, &[]);
        same("ra_kind", "RA_", &ra, &[]);
        same("frame_kind", "FRAME_", &kinds, &[("KINDS", FrameKind::COUNT.into())]);
        // That it goes on is no end, and in no record.
        same("unwind_end", "END_", &ends, &[("RUNNING", 255)]);
        same("refusal", "REFUSED_", &refusals, &[]);
    }
}
