//! Where a thread keeps its `PyThreadState`: `PyGILState_GetThisThreadState` knows, and is followed up to where it asks for it.
//!
//! Up to 3.14 that is under a key of `pthread_getspecific`, which holds while the thread has released the interpreter's lock; later in a
//! variable of the thread.

use std::time::Duration;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use profiler_elf::{Bytes, Elf};

use super::layout::read;
use crate::maps::Backing;
use crate::memory::Memory;
use crate::runtime::{AttachError, Symbols, Target};

/// Instructions followed.
const MAX_STEPS: usize = 32;
/// Bytes of a function that are read, if it has no size.
const MAX_BYTES: u64 = 256;

/// Where, by the file alone. Addresses are ELF addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Under the key in the `Py_tss_t` there.
    Key { at: u64 },
    /// At this distance from the thread pointer.
    Fixed { distance: i64 },
    /// At the distance that the word there says.
    Slot { at: u64 },
    /// In the block of the module, and at the distance in it, that the two words there say, and so much further.
    Module { at: u64, further: i64 },
}

/// `enum python_thread`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    KeyGlibc = 0,
    KeyMusl = 1,
    Fixed = 2,
    Module = 3,
}

/// Where, in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub kind: Kind,
    pub key: u64,
    pub slots: i64,
    pub more_slots: i64,
}

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Unknown,
    /// A number or an ELF address.
    Number(u64),
    /// What is in memory at an ELF address.
    Word(u64),
    /// `_PyRuntime` and so much.
    Runtime(u64),
    /// What is at a distance from the thread pointer.
    OfThread(Place),
}

/// Finds it in `elf`.
pub(super) fn find(elf: &Elf, symbols: &Symbols) -> Result<Place, String> {
    let function =
        symbols.get("PyGILState_GetThisThreadState").ok_or("it does not say where a thread has its state")?;
    let runtime = symbols.get("_PyRuntime").ok_or("it has no _PyRuntime")?;
    let length = if function.size == 0 { MAX_BYTES } else { function.size.min(MAX_BYTES) };
    let bytes = read(elf, function.address.0, length)?;
    let runtime = (runtime.address.0, runtime.address.0.saturating_add(runtime.size));
    follow(&bytes, function.address.0, runtime)
        .ok_or_else(|| "where a thread has its state is not understood".to_owned())
}

struct Machine {
    registers: [Value; 16],
    runtime: (u64, u64),
}

fn follow(bytes: &[u8], address: u64, runtime: (u64, u64)) -> Option<Place> {
    let mut machine = Machine { registers: [Value::Unknown; 16], runtime };
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let mut module = None;
    for _ in 0..MAX_STEPS {
        if !decoder.can_decode() {
            return None;
        }
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        // After the call of __tls_get_addr: where in the block.
        if let Some(at) = module {
            if instruction.mnemonic() == Mnemonic::Mov && instruction.memory_base() == Register::RAX {
                return Some(Place::Module { at, further: instruction.memory_displacement64() as i64 });
            }
            return None;
        }
        match instruction.flow_control() {
            FlowControl::Next => machine.step(&instruction),
            FlowControl::ConditionalBranch => {}
            FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::IndirectCall => {
                match machine.key() {
                    Some(place) => return Some(place),
                    // The block of a module: in a library, `lea pair(%rip), %rdi`.
                    None => match machine.get(Register::RDI) {
                        Value::Number(at) => module = Some(at),
                        _ => return None,
                    },
                }
            }
            FlowControl::Return => match machine.get(Register::RAX) {
                Value::OfThread(place) => return Some(place),
                _ => return None,
            },
            _ => return None,
        }
    }
    None
}

fn number(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}

impl Machine {
    fn get(&self, register: Register) -> Value {
        number(register).and_then(|number| self.registers.get(number)).copied().unwrap_or(Value::Unknown)
    }

    fn set(&mut self, register: Register, value: Value) {
        if let Some(slot) = number(register).and_then(|number| self.registers.get_mut(number)) {
            *slot = value;
        }
    }

    fn in_runtime(&self, address: u64) -> bool {
        (self.runtime.0..self.runtime.1).contains(&address)
    }

    /// What the first argument says, if it is a key or points to one.
    fn key(&self) -> Option<Place> {
        let at = match self.get(Register::RDI) {
            Value::Runtime(offset) => self.runtime.0.checked_add(offset)?,
            // The key itself: it comes second in its struct.
            Value::Word(at) => at.checked_sub(4)?,
            Value::Number(at) => at,
            Value::Unknown | Value::OfThread(_) => return None,
        };
        (self.in_runtime(at) && at % 4 == 0).then_some(Place::Key { at })
    }

    /// What is in memory where the operand says.
    fn load(&self, instruction: &Instruction) -> Value {
        let displacement = instruction.memory_displacement64();
        if instruction.memory_segment() == Register::FS {
            let place = match (instruction.memory_base(), instruction.memory_index()) {
                (Register::None, Register::None) => Some(Place::Fixed { distance: displacement as i64 }),
                (base, Register::None) if displacement == 0 => match self.get(base) {
                    Value::Word(at) => Some(Place::Slot { at }),
                    Value::Number(distance) => Some(Place::Fixed { distance: distance as i64 }),
                    _ => None,
                },
                _ => None,
            };
            return place.map_or(Value::Unknown, Value::OfThread);
        }
        match self.address(instruction) {
            Value::Number(at) => Value::Word(at),
            Value::Runtime(offset) => Value::Word(self.runtime.0.wrapping_add(offset)),
            _ => Value::Unknown,
        }
    }

    /// The address that the operand stands for.
    fn address(&self, instruction: &Instruction) -> Value {
        let displacement = instruction.memory_displacement64();
        if instruction.is_ip_rel_memory_operand() {
            return Value::Number(instruction.ip_rel_memory_address());
        }
        if instruction.memory_index() != Register::None {
            return Value::Unknown;
        }
        match (instruction.memory_base(), self.get(instruction.memory_base())) {
            (Register::None, _) => Value::Number(displacement),
            (_, value) => self.plus(value, displacement),
        }
    }

    fn plus(&self, value: Value, more: u64) -> Value {
        match value {
            Value::Number(number) => Value::Number(number.wrapping_add(more)),
            Value::Runtime(offset) => Value::Runtime(offset.wrapping_add(more)),
            // A pointer from the table of addresses: of the one object that the function is about.
            Value::Word(at) if !self.in_runtime(at) => Value::Runtime(more),
            _ => Value::Unknown,
        }
    }

    fn step(&mut self, instruction: &Instruction) {
        let target = instruction.op0_register();
        if instruction.op0_kind() != OpKind::Register {
            return;
        }
        let value = match (instruction.mnemonic(), instruction.op1_kind()) {
            (Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push, _) => return,
            (Mnemonic::Lea, _) => self.address(instruction),
            (Mnemonic::Mov, OpKind::Register) => self.get(instruction.op1_register()),
            (Mnemonic::Mov, OpKind::Memory) => self.load(instruction),
            (Mnemonic::Mov, _) => Value::Number(instruction.immediate(1)),
            (Mnemonic::Add, OpKind::Memory) => match (self.get(target), self.load(instruction)) {
                (Value::Number(number), loaded @ Value::Word(_)) => self.plus(loaded, number),
                _ => Value::Unknown,
            },
            (Mnemonic::Add, OpKind::Register) => match (self.get(target), self.get(instruction.op1_register())) {
                (Value::Number(number), other) | (other, Value::Number(number)) => self.plus(other, number),
                _ => Value::Unknown,
            },
            (Mnemonic::Add, _) => self.plus(self.get(target), instruction.immediate(1)),
            (Mnemonic::Xor, OpKind::Register) if target == instruction.op1_register() => Value::Number(0),
            _ => Value::Unknown,
        };
        self.set(target, value);
    }
}

/// A program that starts is relocated within this time.
const RELOCATING: Duration = Duration::from_millis(20);

/// The distance from the thread pointer that a slot holds, once the dynamic linker has written it: a program's variables lie below.
fn distance(memory: &dyn Memory, slot: u64) -> Result<i64, AttachError> {
    let not_yet = |why: String| AttachError::NotReady(format!("where a thread has its state: {why}"), RELOCATING);
    let distance = memory.word(slot).map_err(|error| not_yet(error.to_string()))? as i64;
    if distance >= 0 {
        return Err(not_yet("the program is not relocated yet".to_owned()));
    }
    Ok(distance)
}

/// Of a process.
pub(super) fn resolve(place: &Place, target: &mut Target<'_>) -> Result<Resolved, AttachError> {
    let bias = target.bias;
    let of = |kind, key: u64, slots, more_slots| Resolved { kind, key: key.wrapping_add(bias), slots, more_slots };
    match *place {
        Place::Fixed { distance } => Ok(of(Kind::Fixed, 0, distance, 0)),
        Place::Slot { at } => {
            let distance = distance(target.memory, at.wrapping_add(bias))?;
            Ok(of(Kind::Fixed, at, distance, 0))
        }
        // The thread's table of blocks is the second word that its pointer leads to.
        Place::Module { at, further } => Ok(of(Kind::Module, at, 8, further)),
        Place::Key { at } => {
            let slots = slots(target);
            match slots {
                Slots::Glibc(first) => Ok(of(Kind::KeyGlibc, at, first, first + 32 * 16)),
                Slots::Musl(pointer) => Ok(of(Kind::KeyMusl, at, pointer, 0)),
            }
        }
    }
}

/// Where a C library keeps what `pthread_getspecific` returns, from the thread pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slots {
    /// The first of the slots of 16 bytes; the value is the second word.
    Glibc(i64),
    /// The pointer to words.
    Musl(i64),
}

/// glibc 2.17 to 2.43, and musl 1.2, as they are where their code is not understood.
const GLIBC: Slots = Slots::Glibc(0x310);
const MUSL: Slots = Slots::Musl(0x80);

fn slots(target: &mut Target<'_>) -> Slots {
    let mut musl = false;
    for mapping in target.mappings {
        let Backing::File(_, path) = &mapping.backing else { continue };
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        musl |= name.starts_with(b"ld-musl") || name.starts_with(b"libc.musl");
        if !(name.starts_with(b"libc.") || name.starts_with(b"libc-") || name.starts_with(b"ld-musl")) {
            continue;
        }
        let found = target.executables.open_of(&target.process, mapping).ok().and_then(|library| {
            let file = target.executables.file(&library).ok()?;
            let elf = Elf::parse(Bytes::File { file, len: library.size }).ok()?;
            let symbol = Symbols::exported(&elf, &["pthread_getspecific"]).get("pthread_getspecific")?;
            slots_of(&read(&elf, symbol.address.0, symbol.size.clamp(1, MAX_BYTES)).ok()?)
        });
        if let Some(found) = found {
            return found;
        }
    }
    if musl { MUSL } else { GLIBC }
}

/// As `pthread_getspecific` finds them.
fn slots_of(code: &[u8]) -> Option<Slots> {
    let (mut added, mut pointer) = (None, None);
    for instruction in Decoder::new(64, code, DecoderOptions::NONE).iter().take(MAX_STEPS) {
        match (instruction.code(), instruction.mnemonic()) {
            // index + n, shifted by 4: the slots begin at n * 16.
            (Code::Add_rm64_imm8 | Code::Add_rm32_imm8, _) => added = Some(instruction.immediate(1)),
            (_, Mnemonic::Shl) if instruction.immediate(1) == 4 => {
                return added.and_then(|added| i64::try_from(added << 4).ok()).map(Slots::Glibc);
            }
            // The thread's struct, its pointer to words, the word.
            (_, Mnemonic::Mov) if instruction.op1_kind() == OpKind::Memory => {
                let displacement = instruction.memory_displacement64() as i64;
                if instruction.memory_index_scale() == 8 && instruction.memory_index() != Register::None {
                    return pointer.map(Slots::Musl);
                }
                if instruction.memory_segment() != Register::FS && instruction.memory_base() != Register::None {
                    pointer = Some(displacement);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNTIME: (u64, u64) = (0x37_2e00, 0x37_2e00 + 0x5b8);

    #[test]
    fn a_key_is_found_as_compilers_write_it() {
        // mov got(%rip),%rax; cmpq $0,0x568(%rax); je; lea 0x570(%rax),%rdi; jmp
        let library = [
            0x48, 0x8b, 0x05, 0xc1, 0x86, 0x16, 0x00, 0x48, 0x83, 0xb8, 0x68, 0x05, 0x00, 0x00, 0x00, 0x74, 0x0f, 0x48,
            0x8d, 0xb8, 0x70, 0x05, 0x00, 0x00, 0xe9, 0, 0, 0, 0,
        ];
        assert_eq!(follow(&library, 0x1b_25b0, RUNTIME), Some(Place::Key { at: RUNTIME.0 + 0x570 }));
        // mov runtime+0x574(%rip),%edi; jmp
        let at = 0x10_0000_u64;
        let distance = (RUNTIME.0 + 0x574 - (at + 6)) as u32;
        let program = [&[0x8b, 0x3d], &distance.to_le_bytes()[..], &[0xe9, 0, 0, 0, 0]].concat();
        assert_eq!(follow(&program, at, RUNTIME), Some(Place::Key { at: RUNTIME.0 + 0x570 }));
        // Outside of what it should be in.
        assert_eq!(follow(&program, at + 0x1000, RUNTIME), None);
    }

    #[test]
    fn a_variable_of_the_thread_is_found() {
        // endbr64; mov %fs:-0x28,%rax; ret
        let fixed = [0xf3, 0x0f, 0x1e, 0xfa, 0x64, 0x48, 0x8b, 0x04, 0x25, 0xd8, 0xff, 0xff, 0xff, 0xc3];
        assert_eq!(follow(&fixed, 0x1000, RUNTIME), Some(Place::Fixed { distance: -0x28 }));
        // mov got(%rip),%rax; mov %fs:(%rax),%rax; ret
        let slot = [0x48, 0x8b, 0x05, 0xf9, 0x0f, 0, 0, 0x64, 0x48, 0x8b, 0x00, 0xc3];
        assert_eq!(follow(&slot, 0x1000, RUNTIME), Some(Place::Slot { at: 0x2000 }));
        // lea pair(%rip),%rdi; call; mov 0x10(%rax),%rax
        let module = [0x48, 0x8d, 0x3d, 0xf9, 0x0f, 0, 0, 0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x40, 0x10, 0xc3];
        assert_eq!(follow(&module, 0x1000, RUNTIME), Some(Place::Module { at: 0x2000, further: 0x10 }));
    }

    #[test]
    fn a_slot_is_believed_when_the_dynamic_linker_has_written_it() {
        let memory = crate::memory::ProcessMemory::open(std::process::id()).unwrap();
        let slots: [i64; 3] = [0, 0x28, -0x28];
        let [unwritten, addend, written] = std::array::from_fn(|i| distance(&memory, &raw const slots[i] as u64));
        for early in [unwritten, addend, distance(&memory, 8)] {
            assert!(matches!(early, Err(AttachError::NotReady(..))), "{early:?}");
        }
        assert_eq!(written, Ok(-0x28));
    }

    #[test]
    fn slots_are_found_as_libraries_look_them_up() {
        // mov %edi,%eax; add $0x31,%rax; shl $4,%rax; add %fs:0x10,%rax
        let glibc =
            [0x89, 0xf8, 0x48, 0x83, 0xc0, 0x31, 0x48, 0xc1, 0xe0, 0x04, 0x64, 0x48, 0x03, 0x04, 0x25, 0x10, 0, 0, 0];
        assert_eq!(slots_of(&glibc), Some(GLIBC));
        // mov %fs:0,%rax; mov 0x80(%rax),%rax; mov %edi,%edi; mov (%rax,%rdi,8),%rax; ret
        let musl = [
            0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x48, 0x8b, 0x80, 0x80, 0, 0, 0, 0x89, 0xff, 0x48, 0x8b, 0x04,
            0xf8, 0xc3,
        ];
        assert_eq!(slots_of(&musl), Some(MUSL));
        assert_eq!(slots_of(&[0xc3]), None);
    }
}
