//! Where everything is that unwinding and naming need: taken from the tables, by what they have, or refused by what they lack.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use super::tables::{Field, Place, Tables};
use crate::memory::Memory;

/// What a HotSpot has not, though it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this JVM does not say where {0} is")]
pub struct Missing(pub String);

/// A number in a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Number {
    /// Offset.
    pub at: u16,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u8,
    /// Whether its highest bit is a sign.
    pub signed: bool,
}

impl Number {
    /// Its value in the structure at `base`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(self, memory: &dyn Memory, base: u64) -> io::Result<i64> {
        let address = base.wrapping_add(self.at.into());
        Ok(match (self.width, self.signed) {
            (1, _) => memory.byte(address)?.into(),
            (2, true) => memory.short(address)?.cast_signed().into(),
            (2, false) => memory.short(address)?.into(),
            (4, true) => memory.half(address)?.cast_signed().into(),
            (4, false) => memory.half(address)?.into(),
            _ => memory.word(address)?.cast_signed(),
        })
    }
}

/// How an address is found from a structure's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Begin {
    /// It is the pointer at this offset.
    Pointer(u16),
    /// So many bytes behind the structure's start.
    Behind(Number),
    /// So many bytes behind where a pointer at this offset points.
    Beyond(u16, Number),
}

impl Begin {
    /// The address, from the structure at `base`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(self, memory: &dyn Memory, base: u64) -> io::Result<u64> {
        match self {
            Self::Pointer(at) => memory.word(base.wrapping_add(at.into())),
            Self::Behind(number) => Ok(base.wrapping_add_signed(number.read(memory, base)?)),
            Self::Beyond(at, number) => {
                Ok(memory.word(base.wrapping_add(at.into()))?.wrapping_add_signed(number.read(memory, base)?))
            }
        }
    }
}

/// Where the code heaps are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum HeapList {
    /// JDK 8: one, to which this variable points.
    One(u64),
    /// A `GrowableArray`, to which this variable points.
    Many {
        /// The variable's address.
        variable: u64,
        /// Offset of its length.
        length_at: u16,
        /// Offset of the pointer to its elements.
        data_at: u16,
    },
}

/// How long a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SymbolLength {
    /// In a field of its own.
    Alone(u16),
    /// JDK 12 to 16: in the upper half of a field.
    Upper(u16),
}

/// Where a class's source file is named, as an index into its constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SourceFile {
    /// In the constant pool, from JDK 15 on.
    Pool(u16),
    /// In the class.
    Class(u16),
}

/// Offsets in HotSpot's structures and addresses of its variables, for one process.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[expect(missing_docs, reason = "the fields are named as HotSpot's are")]
pub struct Layout {
    /// Of the JDK: 8, 11, 17 ...
    pub version: u32,
    /// Variable that points to the class `java.lang.Object`.
    pub object_class: u64,
    pub heaps: HeapList,
    pub heap_memory: u16,
    pub heap_segmap: u16,
    pub heap_shift: u16,
    pub space_low: u16,
    pub space_high: u16,
    pub block_bytes: u16,
    pub block_length: Number,
    pub block_used: u16,
    pub blob_name: u16,
    pub blob_size: u16,
    pub frame_size: u16,
    pub frame_complete: Number,
    pub code_begin: Begin,
    pub code_end: Begin,
    pub nmethod_method: u16,
    pub compile_id: u16,
    pub compile_level: u16,
    pub orig_pc: u16,
    pub deopt_handler: Begin,
    pub scopes_data: Begin,
    pub scopes_pcs: Begin,
    pub scopes_pcs_end: Begin,
    pub metadata: Begin,
    pub method_const: u16,
    pub const_method_bytes: u16,
    pub const_constants: u16,
    pub const_code_size: u16,
    pub const_name_index: u16,
    pub const_flags: Number,
    pub line_table_bit: u32,
    pub pool_bytes: u16,
    pub pool_length: u16,
    pub pool_holder: u16,
    pub source_file: SourceFile,
    pub class_name: u16,
    pub class_methods: u16,
    pub methods_data: u16,
    pub symbol_length: SymbolLength,
    pub symbol_body: u16,
    /// Variable that points to the interpreter's `StubQueue`.
    pub interpreter: u64,
    pub queue_buffer: u16,
    pub queue_limit: u16,
    pub codelet_bytes: u16,
    pub codelet_size: u16,
    pub codelet_description: u16,
    /// Variable that holds where `call_stub` goes on after the call.
    pub call_stub_return: u64,
}

impl Layout {
    /// What the tables say, which are those of the process with `memory`.
    ///
    /// # Errors
    /// The first thing that they do not say.
    pub fn of(tables: &Tables, memory: &dyn Memory) -> Result<Self, Missing> {
        let t = Lookup(tables);
        let version = t.version(memory)?;
        let growable_length = t.first(&["GrowableArrayBase::_len", "GenericGrowableArray::_len"]);
        let heaps = match t.address("CodeCache::_heaps") {
            Ok(variable) => HeapList::Many {
                variable,
                length_at: growable_length?,
                data_at: t.offset("GrowableArray<int>::_data")?,
            },
            Err(_) => HeapList::One(t.address("CodeCache::_heap")?),
        };
        let relative = |name: &str| t.number(name).map(Begin::Behind);
        let immutable = t.offset("nmethod::_immutable_data");
        let scopes = |name: &str| match immutable {
            Ok(at) => Ok(Begin::Beyond(at, t.number(name)?)),
            Err(_) => relative(name),
        };
        Ok(Self {
            version,
            object_class: t
                .address("vmClasses::_klasses[static_cast<int>(vmClassID::Object_klass_knum)]")
                .or_else(|_| t.address("SystemDictionary::_well_known_klasses[SystemDictionary::Object_klass_knum]"))
                .or_else(|_| {
                    t.address(
                        "SystemDictionary::_well_known_klasses[static_cast<int>(SystemDictionary::Object_klass_knum)]",
                    )
                })?,
            heaps,
            heap_memory: t.offset("CodeHeap::_memory")?,
            heap_segmap: t.offset("CodeHeap::_segmap")?,
            heap_shift: t.offset("CodeHeap::_log2_segment_size")?,
            space_low: t.offset("VirtualSpace::_low_boundary")?,
            space_high: t.offset("VirtualSpace::_high_boundary")?,
            block_bytes: t.size("HeapBlock")?,
            block_length: t.number("HeapBlock::Header::_length")?,
            block_used: t.offset("HeapBlock::Header::_used")?,
            blob_name: t.offset("CodeBlob::_name")?,
            blob_size: t.offset("CodeBlob::_size")?,
            frame_size: t.offset("CodeBlob::_frame_size")?,
            frame_complete: t.number("CodeBlob::_frame_complete_offset")?,
            code_begin: match t.offset("CodeBlob::_code_begin") {
                Ok(at) => Begin::Pointer(at),
                Err(_) => relative("CodeBlob::_code_offset")?,
            },
            code_end: match t.offset("CodeBlob::_code_end") {
                Ok(at) => Begin::Pointer(at),
                Err(_) => relative("CodeBlob::_data_offset")?,
            },
            nmethod_method: t.first(&["nmethod::_method", "CompiledMethod::_method"])?,
            compile_id: t.offset("nmethod::_compile_id")?,
            compile_level: t.offset("nmethod::_comp_level")?,
            orig_pc: t.offset("nmethod::_orig_pc_offset")?,
            deopt_handler: match t.offset("CompiledMethod::_deopt_handler_begin") {
                Ok(at) => Begin::Pointer(at),
                Err(_) => relative("nmethod::_deopt_handler_entry_offset")
                    .or_else(|_| relative("nmethod::_deopt_handler_offset"))
                    .or_else(|_| relative("nmethod::_deoptimize_offset"))?,
            },
            scopes_data: match t.offset("CompiledMethod::_scopes_data_begin") {
                Ok(at) => Begin::Pointer(at),
                Err(_) => scopes("nmethod::_scopes_data_offset")?,
            },
            scopes_pcs: scopes("nmethod::_scopes_pcs_offset")?,
            scopes_pcs_end: match immutable {
                Ok(_) => scopes("nmethod::_scopes_data_offset")?,
                Err(_) => relative("nmethod::_dependencies_offset")?,
            },
            metadata: match (t.number("nmethod::_metadata_offset"), t.offset("CodeBlob::_mutable_data")) {
                // JDK 23 and 24: behind the data section, which is where the code ends
                (Ok(number), _) if number.width == 2 => {
                    return Err(Missing(format!("an nmethod's metadata in JDK {version} ({number:?})")));
                }
                (Ok(number), _) => Begin::Behind(number),
                (Err(_), Ok(at)) => Begin::Beyond(at, t.number("CodeBlob::_relocation_size")?),
                (Err(missing), Err(_)) => return Err(missing),
            },
            method_const: t.offset("Method::_constMethod")?,
            const_method_bytes: t.size("ConstMethod")?,
            const_constants: t.offset("ConstMethod::_constants")?,
            const_code_size: t.offset("ConstMethod::_code_size")?,
            const_name_index: t.offset("ConstMethod::_name_index")?,
            const_flags: t.number("ConstMethod::_flags").or_else(|_| t.number("ConstMethod::_flags._flags"))?,
            line_table_bit: t
                .int("ConstMethod::_has_linenumber_table")
                .or_else(|_| t.int("ConstMethodFlags::_misc_has_linenumber_table"))?,
            pool_bytes: t.size("ConstantPool")?,
            pool_length: t.offset("ConstantPool::_length")?,
            pool_holder: t.offset("ConstantPool::_pool_holder")?,
            source_file: match t.offset("ConstantPool::_source_file_name_index") {
                Ok(at) => SourceFile::Pool(at),
                Err(_) => SourceFile::Class(t.offset("InstanceKlass::_source_file_name_index")?),
            },
            class_name: t.offset("Klass::_name")?,
            class_methods: t.offset("InstanceKlass::_methods")?,
            methods_data: t.offset("Array<Method*>::_data")?,
            symbol_length: match t.offset("Symbol::_length") {
                Ok(at) => SymbolLength::Alone(at),
                Err(_) => SymbolLength::Upper(t.offset("Symbol::_length_and_refcount")?),
            },
            symbol_body: t.offset("Symbol::_body")?,
            interpreter: t.address("AbstractInterpreter::_code")?,
            queue_buffer: t.offset("StubQueue::_stub_buffer")?,
            queue_limit: t.offset("StubQueue::_buffer_limit")?,
            codelet_bytes: t.size("InterpreterCodelet")?,
            codelet_size: t.offset("InterpreterCodelet::_size")?,
            codelet_description: t.offset("InterpreterCodelet::_description")?,
            call_stub_return: t.address("StubRoutines::_call_stub_return_address")?,
        })
    }
}

struct Lookup<'a>(&'a Tables);

impl Lookup<'_> {
    fn field(&self, name: &str) -> Result<&Field, Missing> {
        self.0.field(name).ok_or_else(|| Missing(name.to_owned()))
    }

    fn offset(&self, name: &str) -> Result<u16, Missing> {
        match self.field(name)?.place {
            // What the kernel half reads of a structure lies within its first half KiB.
            Place::Offset(at @ 0..4096) => Ok(at as u16),
            other => Err(Missing(format!("{name}, which is no field at {other:?},"))),
        }
    }

    fn first(&self, names: &[&str]) -> Result<u16, Missing> {
        let mut found = names.iter().map(|name| self.offset(name));
        let first = found.next().unwrap_or_else(|| Err(Missing(String::new())));
        first.or_else(|missing| found.find_map(Result::ok).ok_or(missing))
    }

    fn address(&self, name: &str) -> Result<u64, Missing> {
        match self.field(name)?.place {
            Place::Static(address) => Ok(address),
            Place::Offset(_) => Err(Missing(format!("{name}, which is no variable,"))),
        }
    }

    fn number(&self, name: &str) -> Result<Number, Missing> {
        let (width, signed) = match &*self.field(name)?.kind {
            "int" | "jint" | "int32_t" => (4, true),
            "int16_t" | "short" | "jshort" => (2, true),
            "u4" | "uint32_t" | "uint" | "unsigned int" | "juint" => (4, false),
            "u2" | "uint16_t" | "jushort" | "unsigned short" => (2, false),
            "u1" | "uint8_t" | "bool" | "unsigned char" => (1, false),
            "size_t" | "uintptr_t" | "intptr_t" => (8, false),
            other => return Err(Missing(format!("{name}, which is a {other},"))),
        };
        Ok(Number { at: self.offset(name)?, width, signed })
    }

    fn size(&self, name: &str) -> Result<u16, Missing> {
        let size = self.0.size(name).ok_or_else(|| Missing(format!("the end of a {name}")))?;
        u16::try_from(size)
            .ok()
            .filter(|size| (1..4096).contains(size))
            .ok_or_else(|| Missing(format!("the end of a {name} of {size}")))
    }

    fn int(&self, name: &str) -> Result<u32, Missing> {
        self.0.int(name).map(i32::cast_unsigned).ok_or_else(|| Missing(name.to_owned()))
    }

    /// Of the JDK. Until 21 HotSpot has a structure for it; since 9 its own version is the same number.
    fn version(&self, memory: &dyn Memory) -> Result<u32, Missing> {
        let unreadable = |name: &str| Missing(format!("{name} (its memory cannot be read)"));
        let version = match (self.address("JDK_Version::_current"), self.offset("JDK_Version::_major")) {
            (Ok(current), Ok(major)) => memory.byte(current.wrapping_add(major.into())).map(u32::from),
            _ => memory.half(self.address("Abstract_VM_Version::_vm_major_version")?),
        };
        version.map_err(|_| unreadable("its version"))
    }
}
