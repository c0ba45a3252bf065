//! The stack pointer, followed along the paths through code that nothing describes.
//!
//! ```text
//! function starts        forwards       push rbx            cfa = rsp + 8      before
//! (cfa = rsp + 8)          │            sub rsp, 16         cfa = rsp + 16
//!                          ▼            ...  jmp [table]    cfa = rsp + 32
//!                          ▲       case: call f             ?   reached by no jump that can be read:
//!                          │            add rsp, 16         ?   from the return backwards,
//! returns                  │            pop rbx             ?   each instruction undone
//! (cfa = rsp + 8)      backwards        ret                 cfa = rsp + 8
//! ```
//!
//! A call may be one that never returns, so what is found across calls gives way to what is found without.

use profiler_bpf::abi::{CfaKind, Rule, SAVED_SAME};

use rustc_hash::{FxHashMap, FxHashSet};

use super::instructions::{Effect, Instruction, OUTSIDE, Saved};
use super::state::{RBP, RSP};

/// Not known.
pub(super) const UNKNOWN: i32 = i32::MIN;
/// Stack of one function, bytes: more is no function.
const DEEPEST: i32 = 1 << 26;
/// A function of which at least one in so many calls is the last instruction of its caller doesn't return.
const LAST_OF: u32 = 16;
/// Disagreements that count like one such call: they may have other causes.
const SUSPECTED: u32 = 8;
/// Rounds of forwards and backwards; each solves one more nesting of jump tables.
const ROUNDS: usize = 4;

/// What is known before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// `cfa - rsp`, bytes
    pub(super) depth: i32,
    /// `cfa - rbp`, bytes, while rbp is a frame pointer of this function.
    pub(super) fp: i32,
    /// The caller's rbp is at `cfa - saved_fp`; 0: still in rbp.
    saved_fp: i32,
    /// The same for rbx.
    saved_rbx: i32,
}

impl Frame {
    /// Where a function starts, and before it returns: nothing but the return address is on the stack.
    pub(super) const BARE: Self = Self { depth: 8, fp: UNKNOWN, saved_fp: 0, saved_rbx: 0 };

    fn checked(self) -> Option<Self> {
        let good = |n: i32| n == UNKNOWN || (0..DEEPEST).contains(&n);
        let some = self.depth != UNKNOWN || self.fp != UNKNOWN;
        (some && good(self.depth) && good(self.fp)).then_some(self)
    }

    /// What both know, where they agree: backwards from a return less is seen than forwards from the start.
    fn merged(self, other: Self) -> Self {
        let either = |one: i32, other: i32, none: i32| if one == none { other } else { one };
        Self {
            depth: either(self.depth, other.depth, UNKNOWN),
            fp: either(self.fp, other.fp, UNKNOWN),
            saved_fp: either(self.saved_fp, other.saved_fp, 0),
            saved_rbx: either(self.saved_rbx, other.saved_rbx, 0),
        }
    }

    fn place(&mut self, register: Saved) -> Option<&mut i32> {
        match register {
            Saved::Fp => Some(&mut self.saved_fp),
            Saved::Rbx => Some(&mut self.saved_rbx),
            Saved::Other => None,
        }
    }

    /// What is known after an instruction, if anything is.
    fn after(mut self, effect: Effect) -> Option<Self> {
        match effect {
            Effect::Push(register) => {
                self.depth = add(self.depth, 8);
                self.save(register, self.depth);
            }
            Effect::Pop(register) => {
                self.restore(register, self.depth);
                self.depth = add(self.depth, -8);
            }
            Effect::Grow(n) => self.depth = add(self.depth, n),
            Effect::SetFp(n) => self.fp = add(self.depth, n.checked_neg()?),
            Effect::SpFromFp(n) => self.depth = add(self.fp, n.checked_neg()?),
            Effect::Leave => {
                self.depth = self.fp;
                self.restore(Saved::Fp, self.depth);
                self.depth = add(self.depth, -8);
            }
            Effect::LoseSp => self.depth = UNKNOWN,
            Effect::LoseFp => self.fp = UNKNOWN,
            Effect::Store(register, n) => self.save(register, add(self.depth, n.checked_neg()?)),
            Effect::Load(register, n) => self.restore(register, add(self.depth, n.checked_neg()?)),
            _ => {}
        }
        self.checked()
    }

    fn save(&mut self, register: Saved, at: i32) {
        // Below rbp as this function's frame pointer is nothing of the caller's.
        if register == Saved::Fp && self.fp != UNKNOWN {
            return;
        }
        if let Some(place) = self.place(register).filter(|place| **place == 0 && at > 8) {
            *place = at;
        }
    }

    fn restore(&mut self, register: Saved, at: i32) {
        if let Some(place) = self.place(register).filter(|place| **place == at) {
            *place = 0;
        }
        if register == Saved::Fp {
            self.fp = UNKNOWN;
        }
    }

    /// What must have been known before an instruction for this to hold after it.
    fn before(mut self, effect: Effect) -> Option<Self> {
        match effect {
            Effect::Push(register) => {
                let at = self.depth;
                if let Some(place) = self.place(register).filter(|place| **place == at) {
                    *place = 0;
                }
                self.depth = add(self.depth, -8);
            }
            Effect::Pop(register) => {
                self.depth = add(self.depth, 8);
                self.unrestore(register, self.depth);
            }
            Effect::Grow(n) => self.depth = add(self.depth, n.checked_neg()?),
            Effect::SetFp(n) => {
                self.depth = if self.depth == UNKNOWN { add(self.fp, n) } else { self.depth };
                self.fp = UNKNOWN;
            }
            Effect::SpFromFp(n) => {
                self.fp = if self.depth == UNKNOWN { self.fp } else { add(self.depth, n) };
                self.depth = UNKNOWN;
            }
            Effect::Leave => {
                self.fp = add(self.depth, 8);
                self.unrestore(Saved::Fp, self.fp);
                self.depth = UNKNOWN;
            }
            Effect::LoseSp => self.depth = UNKNOWN,
            Effect::LoseFp => self.fp = UNKNOWN,
            Effect::Store(register, n) => {
                let at = add(self.depth, n.checked_neg()?);
                if let Some(place) = self.place(register).filter(|place| **place == at) {
                    *place = 0;
                }
            }
            Effect::Load(register, n) => self.unrestore(register, add(self.depth, n.checked_neg()?)),
            _ => {}
        }
        self.checked()
    }

    fn unrestore(&mut self, register: Saved, at: i32) {
        if let Some(place) = self.place(register).filter(|place| **place == 0 && at > 8) {
            *place = at;
        }
    }

    /// The rule that says the same; none where it can't be said.
    pub(super) fn rule(&self) -> Option<Rule> {
        let framed = self.fp != UNKNOWN && (self.depth == UNKNOWN || self.fp == self.saved_fp);
        let (register, offset) = if framed { (RBP, self.fp) } else { (RSP, self.depth) };
        let eighth = |at: i32| match at {
            0 => Some(SAVED_SAME),
            _ if at & 7 == 0 => i16::try_from(-(at >> 3)).ok(),
            _ => None,
        };
        (offset >= 8).then_some(Rule {
            cfa_kind: CfaKind::Reg as u8,
            cfa_reg: register as u8,
            cfa_off: offset,
            fp_off8: eighth(self.saved_fp)?,
            rbx_off8: eighth(self.saved_rbx)?,
            ..Rule::NONE
        })
    }
}

fn add(known: i32, n: i32) -> i32 {
    if known == UNKNOWN { UNKNOWN } else { known.saturating_add(n) }
}

/// How well something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// This is where a function starts.
    Start,
    /// Without a call between.
    Sure,
    /// Across a call.
    Likely,
    /// Two paths disagree.
    Contradiction,
}

/// Code, and what is known before each instruction.
#[derive(Debug)]
pub(super) struct Flow<'i> {
    instructions: &'i [Instruction],
    frames: Vec<Option<(Frame, Trust)>>,
    work: Vec<usize>,
    /// Calls reached, and not passed yet.
    calls: Vec<usize>,
    /// Targets of calls that don't return.
    final_calls: FxHashSet<u32>,
    /// Per target of calls that disagreed with what follows, how often.
    suspects: FxHashMap<u32, u32>,
}

impl<'i> Flow<'i> {
    /// Follows all paths from `starts` (sorted offsets), and to returns.
    pub(super) fn solve(instructions: &'i [Instruction], starts: &[u32]) -> Self {
        let (calls, final_calls) = final_calls(instructions, starts);
        let known = final_calls.len();
        let mut flow = Self::solve_with(instructions, starts, final_calls);
        let is_final = |target: &u32, count: u32| is_final(calls.get(target).copied().unwrap_or(0), count);
        let found = flow
            .suspects
            .iter()
            .filter(|&(target, &count)| is_final(target, count / SUSPECTED))
            .map(|(target, _)| *target);
        let mut final_calls = std::mem::take(&mut flow.final_calls);
        final_calls.extend(found);
        if final_calls.len() == known { flow } else { Self::solve_with(instructions, starts, final_calls) }
    }

    fn solve_with(instructions: &'i [Instruction], starts: &[u32], final_calls: FxHashSet<u32>) -> Self {
        let frames = vec![None; instructions.len()];
        let (work, calls, suspects) = (Vec::new(), Vec::new(), FxHashMap::default());
        let mut flow = Self { instructions, frames, work, calls, final_calls, suspects };
        for &start in starts {
            if let Some(index) = flow.index(start) {
                flow.reach(index, Frame::BARE, Trust::Start);
            }
        }
        flow.forwards(false);
        for _ in 0..ROUNDS {
            if !flow.backwards(false) {
                break;
            }
            flow.forwards(false);
        }
        for _ in 0..ROUNDS {
            flow.work.append(&mut flow.calls);
            flow.forwards(true);
            if !flow.backwards(true) {
                break;
            }
        }
        flow
    }

    /// What is known before the instruction of this index.
    pub(super) fn frame(&self, index: usize) -> Option<Frame> {
        let (frame, trust) = (*self.frames.get(index)?)?;
        (trust != Trust::Contradiction).then_some(frame)
    }

    fn index(&self, offset: u32) -> Option<usize> {
        if offset == OUTSIDE {
            return None;
        }
        self.instructions.binary_search_by_key(&offset, |instruction| instruction.offset).ok()
    }

    fn effect(&self, index: usize) -> Effect {
        self.instructions.get(index).map_or(Effect::Bad, |instruction| instruction.effect)
    }

    /// Notes what is known at an instruction; false if something else was known already.
    fn reach(&mut self, index: usize, frame: Frame, trust: Trust) -> bool {
        match self.frames.get_mut(index) {
            Some(slot @ None) => {
                *slot = Some((frame, trust));
                self.work.push(index);
                true
            }
            Some(Some((known, known_trust))) => {
                if *known_trust == Trust::Contradiction || !agree(*known, frame) {
                    return *known_trust == Trust::Contradiction;
                }
                let merged = known.merged(frame);
                if merged != *known && *known_trust != Trust::Start {
                    *known = merged;
                    self.work.push(index);
                }
                true
            }
            None => true,
        }
    }

    fn forwards(&mut self, across_calls: bool) {
        while let Some(index) = self.work.pop() {
            let Some(Some((frame, trust))) = self.frames.get(index).copied() else { continue };
            let effect = self.effect(index);
            let mut trust = if trust == Trust::Start { Trust::Sure } else { trust };
            if trust == Trust::Contradiction {
                continue;
            }
            if let Effect::Call(target) = effect {
                if !across_calls {
                    self.calls.push(index);
                    continue;
                }
                if self.final_calls.contains(&target) {
                    continue;
                }
                trust = Trust::Likely;
            }
            let Some(after) = frame.after(effect) else { continue };
            if let Effect::Branch(target) | Effect::Jump(target) = effect
                && let Some(target) = self.index(target)
                && !self.reach(target, after, trust)
            {
                self.contradict(index);
                if target <= index && trust == Trust::Sure {
                    self.contradict_loop(target, index);
                }
                continue;
            }
            if effect == Effect::Return && after.depth != 8 {
                self.contradict(index);
            }
            if effect.ends() || !self.is_next(index) || self.reach(index + 1, after, trust) {
                continue;
            }
            match effect {
                // It seems that it doesn't return.
                Effect::Call(OUTSIDE) => {}
                Effect::Call(target) => *self.suspects.entry(target).or_default() += 1,
                _ => self.contradict(index),
            }
        }
    }

    /// Does the next instruction follow at once?
    fn is_next(&self, index: usize) -> bool {
        self.instructions.get(index + 1).is_some_and(|next| next.offset == self.end(index))
    }

    /// A loop that moves the stack pointer, as those that touch each page of a large frame do.
    fn contradict_loop(&mut self, first: usize, last: usize) {
        for slot in self.frames.get_mut(first..=last).unwrap_or_default() {
            if let Some((_, trust @ (Trust::Sure | Trust::Likely))) = slot {
                *trust = Trust::Contradiction;
            }
        }
    }

    fn end(&self, index: usize) -> u32 {
        self.instructions.get(index).map_or(OUTSIDE, Instruction::end)
    }

    /// The path that led here is not what it seemed, since the last call.
    fn contradict(&mut self, index: usize) {
        for at in (0..=index).rev() {
            let effect = self.effect(at);
            if at != index && (effect.ends() || matches!(effect, Effect::Call(_))) {
                break;
            }
            match self.frames.get_mut(at) {
                Some(Some((_, trust @ Trust::Likely))) => *trust = Trust::Contradiction,
                Some(Some((_, Trust::Contradiction))) => {}
                _ => break,
            }
        }
    }

    /// From what is known after an instruction to what was before it; tells whether anything was found.
    fn backwards(&mut self, across_calls: bool) -> bool {
        let mut found = false;
        for index in (0..self.instructions.len()).rev() {
            if self.frames.get(index).is_none_or(Option::is_some) {
                continue;
            }
            let effect = self.effect(index);
            let at_target = match effect {
                Effect::Branch(target) | Effect::Jump(target) => self.index(target).and_then(|t| self.known(t)),
                _ => None,
            };
            let before = match effect {
                Effect::Return => Some((Frame::BARE, Trust::Sure)),
                Effect::Padding | Effect::Bad => None,
                _ if at_target.is_some() => at_target,
                _ if effect.ends() => None,
                Effect::Call(target) if self.final_calls.contains(&target) => None,
                Effect::Call(_) if !across_calls || self.effect(index + 1) == Effect::Padding => None,
                _ => self.known(index + 1).filter(|&(_, trust)| trust != Trust::Start || !is_call(effect)),
            };
            let Some((frame, trust)) = before else { continue };
            let trust = if trust == Trust::Likely || is_call(effect) { Trust::Likely } else { Trust::Sure };
            if let Some(frame) = frame.before(effect) {
                self.reach(index, frame, trust);
                found = true;
            }
        }
        found
    }

    fn known(&self, index: usize) -> Option<(Frame, Trust)> {
        (*self.frames.get(index)?).filter(|&(_, trust)| trust != Trust::Contradiction)
    }
}

/// How often each target is called, and those behind whose calls, sometimes, comes nothing or another function.
fn final_calls(instructions: &[Instruction], starts: &[u32]) -> (FxHashMap<u32, u32>, FxHashSet<u32>) {
    let mut calls: FxHashMap<u32, u32> = FxHashMap::default();
    let mut last: FxHashMap<u32, u32> = FxHashMap::default();
    let mut called = None;
    for instruction in instructions {
        let ended = instruction.effect == Effect::Stop || starts.binary_search(&instruction.offset).is_ok();
        if let Some(target) = called.filter(|_| ended) {
            *last.entry(target).or_default() += 1;
        }
        called = match instruction.effect {
            Effect::Call(target) if target != OUTSIDE => {
                *calls.entry(target).or_default() += 1;
                Some(target)
            }
            Effect::Padding => called,
            _ => None,
        };
    }
    let of = |target: &u32| calls.get(target).copied().unwrap_or(0);
    let found = last.iter().filter(|&(target, &last)| is_final(of(target), last)).map(|(target, _)| *target).collect();
    (calls, found)
}

/// Is a target that is called so often, so often as the last thing, one that doesn't return?
const fn is_final(calls: u32, last: u32) -> bool {
    last > 0 && last.saturating_mul(LAST_OF) >= calls
}

const fn is_call(effect: Effect) -> bool {
    matches!(effect, Effect::Call(_))
}

/// Do both lead to the same CFA, as far as can be told?
fn agree(one: Frame, other: Frame) -> bool {
    if one.depth != UNKNOWN && other.depth != UNKNOWN {
        return one.depth == other.depth;
    }
    if one.fp != UNKNOWN && other.fp != UNKNOWN {
        return one.fp == other.fp;
    }
    true
}
