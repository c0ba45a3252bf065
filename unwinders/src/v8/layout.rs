//! Where V8 keeps what: by what the program publishes of itself (`v8dbg_*`, for post-mortem debuggers), and by a table of versions for
//! what it does not.
//!
//! A version whose table is not here is refused: a layout that is nearly right names frames wrongly. What is right of it is seen again with
//! each object that is read, which must be of the type that the program publishes for it.

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_address::ElfVaddr;
use profiler_elf::{Elf, le};

use crate::runtime::Symbols;

/// Offsets are bytes from where an object begins, indices count slots.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Layout {
    /// Major and minor version of V8.
    pub version: (u32, u32),
    /// Instance types.
    pub types: Types,
    /// Of `JSFunction`: what all closures of a function share.
    pub function_shared: u16,
    /// Of `SharedFunctionInfo`: name, or scope information.
    pub shared_name: u16,
    /// Where it is from.
    pub shared_script: u16,
    /// Its length, parameters and place of its token: 48 bits.
    pub shared_numbers: u16,
    /// Its flags; its number within the script follows.
    pub shared_flags: u16,
    /// Bytes from the beginning of what holds instructions to them.
    pub stream_header: u16,
    /// What holds instructions is the `Code` itself (up to 10).
    pub stream_is_code: bool,
    /// Of `Code`: bytes of instructions.
    pub code_size: u16,
    /// Flags, whose lowest four bits are its kind.
    pub code_flags: u16,
    /// What is needed to leave it, or the bytecode that it was made from.
    pub code_origin: u16,
    /// Positions in the source, or in the bytecode.
    pub code_positions: u16,
    /// The kind of what Sparkplug makes; optimizing compilers' are above.
    pub kind_baseline: u32,
    /// Of `BytecodeArray`: positions in the source.
    pub bytecode_positions: u16,
    /// Its first instruction.
    pub bytecode_first: u16,
    /// Of `ScopeInfo`: the slot that comes after those of all.
    pub scope_first: u16,
    /// The slots of all hold first and last position in the source (from 13 on).
    pub scope_has_range: bool,
    /// Of the data of optimized code: literals, functions inlined among them.
    pub inlined_literals: u16,
    /// The function itself; in a wrapper from 13 on.
    pub inlined_self: u16,
    /// Where inlined functions were called.
    pub inlined_positions: u16,
    /// Bytes of each bytecode: plain, wide, extra wide, one after the other. Empty: unknown.
    pub bytecode_sizes: Vec<u8>,
}

/// Types of objects, of this build.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Types {
    /// `Code`
    pub code: u16,
    /// `BytecodeArray`
    pub bytecode: u16,
    /// `InterpreterData`
    pub interpreter: u16,
    /// `SharedFunctionInfo`
    pub shared: u16,
    /// `ScopeInfo`
    pub scope: u16,
    /// `Script`
    pub script: u16,
    /// `FixedArray`
    pub array: u16,
}

/// `SharedFunctionInfo::function_data`, or that part of it which is trusted.
pub(super) const SHARED_DATA: u16 = 8;
/// `Code::instruction_start`, where it is not part of the instructions' object.
pub(super) const CODE_START: u16 = 40;
/// Largest table of the sizes of bytecodes, bytes.
const MAX_SIZES: u64 = 768;

/// Versions that are known.
const KNOWN: [(u32, u32); 5] = [(10, 2), (11, 3), (12, 4), (13, 6), (14, 6)];
const VERSION: [&str; 2] = ["_ZN2v88internal7Version6major_E", "_ZN2v88internal7Version6minor_E"];
pub(super) const SIZES: &str = "_ZN2v88internal11interpreter9Bytecodes14kBytecodeSizesE";

// For each value the names that it has had.
const FUNCTION_SHARED: &[&str] = &["v8dbg_class_JSFunction__shared__SharedFunctionInfo"];
const SHARED_NAME: &[&str] = &[
    "v8dbg_class_SharedFunctionInfo__name_or_scope_info__Object",
    "v8dbg_class_SharedFunctionInfo__name_or_scope_info__Tagged_Object_",
    "v8dbg_class_SharedFunctionInfo__name_or_scope_info__Tagged_NameOrScopeInfoT_",
];
const SHARED_SCRIPT: &[&str] = &[
    "v8dbg_class_SharedFunctionInfo__script_or_debug_info__HeapObject",
    "v8dbg_class_SharedFunctionInfo__script__Tagged_HeapObject_",
];
const SHARED_NUMBERS: &[&str] = &["v8dbg_class_SharedFunctionInfo__length__uint16_t"];
const SHARED_FLAGS: &[&str] = &["v8dbg_class_SharedFunctionInfo__flags__int"];
const CODE_SIZE: &[&str] = &["v8dbg_class_Code__instruction_size__int"];
const CODE_FLAGS: &[&str] = &["v8dbg_class_Code__flags__uint32_t"];
const KIND_BASELINE: &[&str] = &["v8dbg_CodeKindBaseline"];
const BYTECODE_FIRST: &[&str] = &["v8dbg_class_BytecodeArray__data__uintptr_t"];
const SCOPE_FIRST: &[&str] = &["v8dbg_scopeinfo_idx_first_vars"];
const INLINED_LITERALS: &[&str] = &["v8dbg_DeoptimizationDataLiteralArrayIndex"];
const INLINED_SELF: &[&str] =
    &["v8dbg_DeoptimizationDataSharedFunctionInfoIndex", "v8dbg_DeoptimizationDataWrappedSharedFunctionInfoIndex"];
const INLINED_POSITIONS: &[&str] = &["v8dbg_DeoptimizationDataInliningPositionsIndex"];
const TYPES: [&str; 7] = [
    "v8dbg_type_Code__CODE_TYPE",
    "v8dbg_type_BytecodeArray__BYTECODE_ARRAY_TYPE",
    "v8dbg_type_InterpreterData__INTERPRETER_DATA_TYPE",
    "v8dbg_type_SharedFunctionInfo__SHARED_FUNCTION_INFO_TYPE",
    "v8dbg_type_ScopeInfo__SCOPE_INFO_TYPE",
    "v8dbg_type_Script__SCRIPT_TYPE",
    "v8dbg_type_FixedArray__FIXED_ARRAY_TYPE",
];

/// All exported symbols that tell a layout.
pub(super) fn symbols() -> impl Iterator<Item = &'static str> {
    let values = [
        FUNCTION_SHARED,
        SHARED_NAME,
        SHARED_SCRIPT,
        SHARED_NUMBERS,
        SHARED_FLAGS,
        CODE_SIZE,
        CODE_FLAGS,
        KIND_BASELINE,
        BYTECODE_FIRST,
        SCOPE_FIRST,
        INLINED_LITERALS,
        INLINED_SELF,
        INLINED_POSITIONS,
    ];
    values.into_iter().flatten().copied().chain(TYPES).chain(VERSION)
}

impl Layout {
    /// That of the program in `elf`, which exports `symbols` and defines `all`.
    ///
    /// # Errors
    /// It is none that is known, in words.
    pub(super) fn of(elf: &Elf, symbols: &Symbols, all: &Symbols) -> Result<Self, String> {
        let value = |name: &str| number(elf, symbols.get(name)?.address);
        let [major, minor] = VERSION.map(value);
        let version = major.zip(minor).ok_or("its version is not to be found")?;
        let mut layout = Self::known(version).ok_or_else(|| {
            format!(
                "V8 {}.{} is none of those that are known, 10.2, 11.3, 12.4, 13.6 and 14.6 (of Node.js 18, 20, 22, 24 and 26)",
                version.0, version.1
            )
        })?;
        let first = |names: &[&str]| names.iter().find_map(|name| u16::try_from(value(name)?).ok());
        for (place, names) in [
            (&mut layout.function_shared, FUNCTION_SHARED),
            (&mut layout.shared_name, SHARED_NAME),
            (&mut layout.shared_script, SHARED_SCRIPT),
            (&mut layout.shared_numbers, SHARED_NUMBERS),
            (&mut layout.shared_flags, SHARED_FLAGS),
            (&mut layout.code_size, CODE_SIZE),
            (&mut layout.code_flags, CODE_FLAGS),
            (&mut layout.bytecode_first, BYTECODE_FIRST),
            (&mut layout.scope_first, SCOPE_FIRST),
            (&mut layout.inlined_literals, INLINED_LITERALS),
            (&mut layout.inlined_self, INLINED_SELF),
            (&mut layout.inlined_positions, INLINED_POSITIONS),
        ] {
            *place = first(names).unwrap_or(*place);
        }
        layout.kind_baseline = first(KIND_BASELINE).map_or(layout.kind_baseline, u32::from);
        let types: Vec<u16> = TYPES.iter().filter_map(|name| u16::try_from(value(name)?).ok()).collect();
        let &[code, bytecode, interpreter, shared, scope, script, array] = types.as_slice() else {
            return Err("it does not say which types its objects have (v8dbg_type_*)".to_owned());
        };
        layout.types = Types { code, bytecode, interpreter, shared, scope, script, array };
        layout.bytecode_sizes = sizes(elf, all).unwrap_or_default();
        layout.check()?;
        Ok(layout)
    }

    /// What the kernel half reads of a function is read at once, and must lie together.
    fn check(&self) -> Result<(), String> {
        let within = |at: u16| at.is_multiple_of(8) && (SHARED_DATA..SHARED_DATA + 56).contains(&at);
        if within(self.shared_numbers) && within(self.shared_flags) && self.function_shared < 256 {
            Ok(())
        } else {
            Err("its functions are laid out in no way that is known".to_owned())
        }
    }

    /// What versions have, where they do not say it themselves.
    fn known(version: (u32, u32)) -> Option<Self> {
        let common = Self {
            version,
            types: Types { code: 0, bytecode: 0, interpreter: 0, shared: 0, scope: 0, script: 0, array: 0 },
            function_shared: 32,
            shared_name: 16,
            shared_script: 32,
            shared_numbers: 40,
            shared_flags: 48,
            stream_header: 32,
            stream_is_code: false,
            code_size: 56,
            code_flags: 52,
            code_origin: 8,
            code_positions: 16,
            kind_baseline: 10,
            bytecode_positions: 24,
            bytecode_first: 64,
            scope_first: 3,
            scope_has_range: false,
            inlined_literals: 2,
            inlined_self: 6,
            inlined_positions: 7,
            bytecode_sizes: Vec::new(),
        };
        let up_to_11 = || Self {
            function_shared: 24,
            code_flags: 48,
            code_origin: 16,
            code_positions: 24,
            kind_baseline: 11,
            bytecode_positions: 32,
            ..common.clone()
        };
        let from_13 = || Self {
            shared_name: 24,
            shared_script: 40,
            shared_numbers: 48,
            shared_flags: 56,
            scope_first: 5,
            scope_has_range: true,
            inlined_literals: 3,
            inlined_self: 7,
            inlined_positions: 8,
            ..common.clone()
        };
        Some(match version {
            (10, 2) => {
                Self { stream_header: 128, stream_is_code: true, code_size: 40, bytecode_first: 56, ..up_to_11() }
            }
            (11, 3) => Self { stream_header: 16, bytecode_first: 54, ..up_to_11() },
            (12, 4) => Self { code_size: 52, code_flags: 48, ..common },
            (13, 6) => from_13(),
            (14, 6) => Self { kind_baseline: 11, ..from_13() },
            _ => return None,
        })
    }

    /// One of those that are known, with the types of V8 11.3.
    pub(super) fn any(number: usize) -> Self {
        let types =
            Types { code: 245, bytecode: 191, interpreter: 159, shared: 262, scope: 261, script: 167, array: 175 };
        let bytecode_sizes = vec![2; 600];
        let version = KNOWN[number % KNOWN.len()];
        Self { types, bytecode_sizes, ..Self::known(version).unwrap_or_else(|| unreachable!("it is known")) }
    }

    /// As V8 11.3 has it, of Node.js 20.
    #[cfg(test)]
    pub(super) fn of_node_20() -> Self {
        Self::any(1)
    }
}

/// The 32-bit number at `address` of the file.
fn number(elf: &Elf, address: ElfVaddr) -> Option<u32> {
    Some(le::u32_in(&elf.bytes.read_vec(elf.file_offset(address)?.0, 4).ok()?, 0))
}

fn sizes(elf: &Elf, symbols: &Symbols) -> Option<Vec<u8>> {
    let symbol = symbols.get(SIZES)?;
    if symbol.size == 0 || symbol.size > MAX_SIZES || symbol.size % 3 != 0 {
        return None;
    }
    elf.bytes.read_vec(elf.file_offset(symbol.address)?.0, symbol.size).ok()
}
