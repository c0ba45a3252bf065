//! What a machine instruction does to the stack, and where it leads.

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

/// A place outside of the code that is looked at.
pub(super) const OUTSIDE: u32 = u32::MAX;

/// Registers whose caller's value unwinding needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Fp,
    Rbx,
    Other,
}

/// What one instruction does. Targets are offsets in the code that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing that matters.
    None,
    /// `nop`, `int3`: what stands between functions, too.
    Padding,
    /// `endbr64`
    Landing,
    Push(Saved),
    Pop(Saved),
    /// `rsp -= n`
    Grow(i32),
    /// `rbp = rsp + n`
    SetFp(i32),
    /// `rsp = rbp + n`
    SpFromFp(i32),
    /// `rsp = rbp; pop rbp`
    Leave,
    /// rsp becomes something that nobody knows.
    LoseSp,
    /// rbp does.
    LoseFp,
    /// `*(rsp + n) = register`
    Store(Saved, i32),
    /// `register = *(rsp + n)`
    Load(Saved, i32),
    Call(u32),
    Branch(u32),
    Jump(u32),
    /// A jump through memory or a register; whether it is one of a linkage stub, `jmp [rip + n]`.
    IndirectJump(bool),
    Return,
    /// Control never gets past it.
    Stop,
    /// No instruction.
    Bad,
}

impl Effect {
    /// Does control never reach the instruction behind by this one?
    pub(super) const fn ends(self) -> bool {
        matches!(self, Self::Jump(_) | Self::IndirectJump(_) | Self::Return | Self::Stop | Self::Bad)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction {
    /// Where it starts in the code that is looked at.
    pub(super) offset: u32,
    pub(super) size: u8,
    pub(super) effect: Effect,
}

impl Instruction {
    pub(super) const fn end(&self) -> u32 {
        self.offset + self.size as u32
    }
}

/// Reads all instructions of `code`, which is less than 4 GiB, one after the other; at each of `starts` (sorted offsets) afresh.
pub(super) fn read(code: &[u8], starts: &[u32], mut take: impl FnMut(Instruction)) {
    let mut factory = InstructionInfoFactory::new();
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut instruction = iced_x86::Instruction::default();
    let mut starts = starts.iter().copied().peekable();
    let mut at = 0;
    while at < code.len() {
        while starts.next_if(|&start| start as usize <= at).is_some() {}
        let next_start = starts.peek().map_or(code.len(), |&start| start as usize);
        let offset = at as u32;
        let effect = if code.get(at..at + 2).is_none_or(|bytes| bytes == [0, 0]) && code.get(at) == Some(&0) {
            // `add [rax], al`: nothing that was compiled, but bytes that were left out, or data.
            Effect::Bad
        } else if decoder.set_position(at).is_ok() {
            decoder.set_ip(u64::from(offset));
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() { Effect::Bad } else { effect(&instruction, code.len(), &mut factory) }
        } else {
            Effect::Bad
        };
        let after = match effect {
            // Compilers align what comes next; data ends where something starts.
            Effect::Bad => past_data(code, at).min(next_start),
            // Across a start: one of the two is wrong, and it isn't the start.
            _ if at + instruction.len() > next_start => {
                take(Instruction { offset, size: 1, effect: Effect::Bad });
                at = next_start;
                continue;
            }
            _ => at + instruction.len(),
        };
        let size = (after - at).min(255) as u8;
        take(Instruction { offset, size, effect });
        at = after;
    }
}

/// The next multiple of 16, zeros skipped.
fn past_data(code: &[u8], at: usize) -> usize {
    let zeros = code.get(at..).unwrap_or_default().iter().take_while(|&&byte| byte == 0).count();
    let next = (at + zeros) & !15;
    if next > at { next } else { (at | 15) + 1 }
}

fn saved(register: Register) -> Saved {
    match register {
        Register::RBP => Saved::Fp,
        Register::RBX => Saved::Rbx,
        _ => Saved::Other,
    }
}

fn effect(i: &iced_x86::Instruction, length: usize, factory: &mut InstructionInfoFactory) -> Effect {
    let target = || match i.op0_kind() {
        OpKind::NearBranch64 => u32::try_from(i.near_branch64()).ok().filter(|&t| (t as usize) < length),
        _ => None,
    };
    let target = || target().unwrap_or(OUTSIDE);
    match (i.mnemonic(), i.flow_control()) {
        (Mnemonic::Nop | Mnemonic::Int3, _) => return Effect::Padding,
        (Mnemonic::Endbr64, _) => return Effect::Landing,
        (Mnemonic::Hlt, _) => return Effect::Stop,
        (Mnemonic::Syscall | Mnemonic::Sysenter | Mnemonic::Int, _) => return Effect::None,
        (_, FlowControl::Call) if i.op0_kind() == OpKind::NearBranch64 && i.near_branch64() == i.next_ip() => {
            // Position independent code of old: it pushes its own address.
            return Effect::Push(Saved::Other);
        }
        // Also beyond the code: which calls have the same target is of use.
        (_, FlowControl::Call) => return Effect::Call(i.near_branch64() as u32),
        (_, FlowControl::IndirectCall) => return Effect::Call(OUTSIDE),
        (_, FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend) => return Effect::Branch(target()),
        (_, FlowControl::UnconditionalBranch) => return Effect::Jump(target()),
        (_, FlowControl::IndirectBranch) => return Effect::IndirectJump(i.is_ip_rel_memory_operand()),
        (Mnemonic::Ret, _) => return Effect::Return,
        (_, FlowControl::Return | FlowControl::Exception | FlowControl::Interrupt) => return Effect::Stop,
        (Mnemonic::Leave, _) => return Effect::Leave,
        _ => {}
    }
    let increment = i.stack_pointer_increment();
    let (to, from) = (i.op0_register(), i.op1_register());
    match (i.mnemonic(), increment) {
        (Mnemonic::Push, -8) => return Effect::Push(saved(to)),
        (Mnemonic::Pop, 8) if to != Register::RSP => return Effect::Pop(saved(to)),
        (Mnemonic::Pushfq, -8) => return Effect::Push(Saved::Other),
        (Mnemonic::Popfq, 8) => return Effect::Pop(Saved::Other),
        (_, 0) => {}
        _ => return Effect::LoseSp,
    }
    if !uses_frame(i) {
        return Effect::None;
    }
    known_move(i, to, from).unwrap_or_else(|| {
        let mut effect = Effect::None;
        for used in factory.info(i).used_registers() {
            let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
            match used.register().full_register() {
                Register::RSP if writes => return Effect::LoseSp,
                Register::RBP if writes => effect = Effect::LoseFp,
                _ => {}
            }
        }
        effect
    })
}

/// Does rsp or rbp appear among the operands?
fn uses_frame(i: &iced_x86::Instruction) -> bool {
    let is_frame = |register: Register| matches!(register.full_register(), Register::RSP | Register::RBP);
    is_frame(i.op0_register())
        || is_frame(i.op1_register())
        || is_frame(i.op2_register())
        || is_frame(i.op3_register())
        || matches!(i.memory_base(), Register::RSP)
}

fn known_move(i: &iced_x86::Instruction, to: Register, from: Register) -> Option<Effect> {
    let displacement = || i32::try_from(i.memory_displacement64().cast_signed()).ok();
    let immediate = || match i.op1_kind() {
        OpKind::Immediate8to64 | OpKind::Immediate32to64 => i32::try_from(i.immediate(1).cast_signed()).ok(),
        _ => None,
    };
    // [register + n], nothing else
    let simple = |register| i.memory_base() == register && i.memory_index() == Register::None;
    let whole = |register| matches!(register, Register::RBP | Register::RBX);
    match i.mnemonic() {
        Mnemonic::Add if to == Register::RSP => immediate()?.checked_neg().map(Effect::Grow),
        Mnemonic::Sub if to == Register::RSP => immediate().map(Effect::Grow),
        Mnemonic::Lea if to == Register::RSP && simple(Register::RSP) => {
            displacement()?.checked_neg().map(Effect::Grow)
        }
        Mnemonic::Lea if to == Register::RSP && simple(Register::RBP) => displacement().map(Effect::SpFromFp),
        Mnemonic::Lea if to == Register::RBP && simple(Register::RSP) => displacement().map(Effect::SetFp),
        Mnemonic::Mov if (to, from) == (Register::RSP, Register::RBP) => Some(Effect::SpFromFp(0)),
        Mnemonic::Mov if (to, from) == (Register::RBP, Register::RSP) => Some(Effect::SetFp(0)),
        Mnemonic::Mov if i.op0_kind() == OpKind::Memory && whole(from) && simple(Register::RSP) => {
            displacement().map(|n| Effect::Store(saved(from), n))
        }
        Mnemonic::Mov if i.op1_kind() == OpKind::Memory && whole(to) && simple(Register::RSP) => {
            displacement().map(|n| Effect::Load(saved(to), n))
        }
        _ => None,
    }
}
