//! The interpreter of call frame instructions (DWARF 5, sections 6.4.2 and 7.24; GNU's extensions in the LSB).

use profiler_address::ElfVaddr;

use profiler_elf::{Cursor, ElfParts};

use super::cfi_common::{self, Outcome};
use super::encoding::{self, Bases};
use super::expression;
use super::frames::Cie;
use super::packed::PackedRule;
use super::state::{Cfa, Place, RSP, State};
use super::{RowStats, Writer};

/// States that a function may remember; compilers nest them once or twice.
pub(super) const MAX_REMEMBERED: usize = 64;

/// The factors that instructions leave out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alignment {
    pub(super) code: u64,
    pub(super) data: i64,
}

impl Alignment {
    /// A factored offset in bytes.
    #[inline]
    fn data(self, factored: i64) -> Option<i32> {
        i32::try_from(factored.checked_mul(self.data)?).ok()
    }
}

/// Runs programs; kept from one function to the next for its memory.
#[derive(Debug, Default)]
pub(super) struct Interpreter {
    remembered: Vec<State>,
    remembered_rules: Vec<PackedRule>,
}

/// What one instruction did.
enum Step {
    /// It changed the state, or nothing.
    Done,
    /// The location moved on to this address.
    Advance(u64),
}

/// A function's program and what it needs.
pub(super) struct Program<'p, 'a> {
    pub(super) code: &'p [u8],
    /// Offset of `code` in its section.
    pub(super) at: usize,
    pub(super) cie: &'p Cie,
    pub(super) bases: &'p Bases,
    pub(super) parts: &'p ElfParts<'a>,
}

/// The state after the initial instructions of a CIE.
pub(super) fn initial_state(
    code: &[u8],
    start: ElfVaddr,
    cie: &Cie,
    parts: &ElfParts<'_>,
    stats: &mut RowStats,
) -> Option<State> {
    let program = Program { code, at: 0, cie, bases: &Bases::default(), parts };
    let mut interpreter = Interpreter::default();
    let mut state = State::NEW;
    let mut cursor = Cursor::new(code);
    while !cursor.is_empty() {
        if !matches!(interpreter.step(&program, &mut cursor, &mut state, start.0), Some(Step::Done)) {
            stats.malformed += 1;
            return None;
        }
    }
    Some(state)
}

impl Interpreter {
    /// Writes the rows of the function at `start..end`.
    #[inline]
    pub(super) fn run(
        &mut self,
        program: &Program<'_, '_>,
        start: u64,
        end: u64,
        writer: &mut Writer<'_>,
        stats: &mut RowStats,
    ) {
        let cie = program.cie;
        let Some(initial) = cie.common else {
            self.remembered.clear();
            return self.run_from(Cursor::new(program.code), cie.initial, program, (start, end), writer, stats);
        };
        self.remembered_rules.clear();
        let outcome = cfi_common::run(program, initial, (start, end), &mut self.remembered_rules, writer, stats);
        if let Outcome::Uncommon(cursor, rule, location) = outcome {
            self.remembered.clear();
            self.remembered.extend(self.remembered_rules.iter().map(|rule| rule.state()));
            self.run_from(cursor, rule.state(), program, (location, end), writer, stats);
        }
    }

    /// Goes on at `start` with what `cursor` has left.
    fn run_from(
        &mut self,
        mut cursor: Cursor<'_>,
        mut state: State,
        program: &Program<'_, '_>,
        (start, end): (u64, u64),
        writer: &mut Writer<'_>,
        stats: &mut RowStats,
    ) {
        let signal = program.cie.signal;
        let mut written = None;
        let mut location = start;
        while !cursor.is_empty() {
            match self.step(program, &mut cursor, &mut state, location) {
                Some(Step::Done) => {}
                Some(Step::Advance(to)) if to >= location => {
                    if to == location {
                        continue;
                    }
                    if written != Some(state) {
                        writer.set(location, PackedRule::new(state.rule(signal, stats)), stats);
                        written = Some(state);
                    }
                    if to >= end {
                        return;
                    }
                    location = to;
                }
                _ => {
                    stats.malformed += 1;
                    writer.pages.set(location, 0);
                    return;
                }
            }
        }
        if written != Some(state) {
            writer.set(location, PackedRule::new(state.rule(signal, stats)), stats);
        }
    }

    /// Executes one instruction; `None` when it can't be read.
    fn step(
        &mut self,
        program: &Program<'_, '_>,
        cursor: &mut Cursor<'_>,
        state: &mut State,
        location: u64,
    ) -> Option<Step> {
        let alignment = program.cie.alignment;
        let advance = |delta: u64| Some(Step::Advance(location.checked_add(delta.checked_mul(alignment.code)?)?));
        let op = cursor.u8()?;
        let low = u64::from(op & 0x3f);
        match op {
            // advance_loc
            0x40..=0x7f => return advance(low),
            // offset
            0x80..=0xbf => {
                let factored = cursor.uleb()?;
                saved(state, low, alignment, i64::try_from(factored).ok());
            }
            // restore
            0xc0..=0xff => restore(state, low, &program.cie.initial),
            // nop
            0x00 => {}
            // def_cfa_offset
            0x0e => {
                let offset = i32::try_from(cursor.uleb()?).ok();
                set_offset(state, offset);
            }
            // advance_loc1, 2, 4
            0x02 => return advance(u64::from(cursor.u8()?)),
            0x03 => return advance(u64::from(cursor.u16()?)),
            0x04 => return advance(u64::from(cursor.u32()?)),
            // remember_state
            0x0a => {
                if self.remembered.len() >= MAX_REMEMBERED {
                    return None;
                }
                self.remembered.push(*state);
            }
            // restore_state
            0x0b => *state = self.remembered.pop()?,
            // def_cfa
            0x0c => {
                let (register, offset) = (cursor.uleb()?, cursor.uleb()?);
                state.cfa = cfa(register, i32::try_from(offset).ok());
            }
            // def_cfa_register
            0x0d => {
                let register = cursor.uleb()?;
                let offset = match state.cfa {
                    Cfa::Register { offset, .. } => Some(offset),
                    _ => None,
                };
                state.cfa = cfa(register, offset);
            }
            _ => return self.uncommon_step(op, program, cursor, state, location),
        }
        Some(Step::Done)
    }

    fn uncommon_step(
        &mut self,
        op: u8,
        program: &Program<'_, '_>,
        cursor: &mut Cursor<'_>,
        state: &mut State,
        location: u64,
    ) -> Option<Step> {
        let alignment = program.cie.alignment;
        match op {
            // set_loc
            0x01 => {
                let at = program.at + (program.code.len() - cursor.len());
                let to = encoding::pointer(cursor, at, program.cie.encoding, program.bases, program.parts)?;
                return Some(Step::Advance(to));
            }
            // MIPS_advance_loc8
            0x1d => {
                let delta = cursor.u64()?.checked_mul(alignment.code)?;
                return Some(Step::Advance(location.checked_add(delta)?));
            }
            // offset_extended, offset_extended_sf, GNU_negative_offset_extended
            0x05 => {
                let (register, factored) = (cursor.uleb()?, cursor.uleb()?);
                saved(state, register, alignment, i64::try_from(factored).ok());
            }
            0x11 => {
                let (register, factored) = (cursor.uleb()?, cursor.sleb()?);
                saved(state, register, alignment, Some(factored));
            }
            0x2f => {
                let (register, factored) = (cursor.uleb()?, cursor.uleb()?);
                saved(state, register, alignment, i64::try_from(factored).ok().map(i64::wrapping_neg));
            }
            // restore_extended
            0x06 => restore(state, cursor.uleb()?, &program.cie.initial),
            // undefined, same_value
            0x07 => put(state, cursor.uleb()?, Place::Undefined),
            0x08 => put(state, cursor.uleb()?, Place::Same),
            // register
            0x09 => {
                let (register, other) = (cursor.uleb()?, cursor.uleb()?);
                put(state, register, u8::try_from(other).map_or(Place::Unknown, Place::InRegister));
            }
            // def_cfa_expression
            0x0f => {
                let length = usize::try_from(cursor.uleb()?).ok()?;
                state.cfa = expression::cfa(cursor.take(length)?);
            }
            // expression
            0x10 => {
                let (register, length) = (cursor.uleb()?, usize::try_from(cursor.uleb()?).ok()?);
                put(state, register, expression::place(cursor.take(length)?));
            }
            // def_cfa_sf, def_cfa_offset_sf
            0x12 => {
                let (register, factored) = (cursor.uleb()?, cursor.sleb()?);
                state.cfa = cfa(register, alignment.data(factored));
            }
            0x13 => {
                let factored = cursor.sleb()?;
                set_offset(state, alignment.data(factored));
            }
            // val_offset, val_offset_sf: the value itself is `cfa + offset`
            0x14 => {
                let (register, _) = (cursor.uleb()?, cursor.uleb()?);
                put_value(state, register);
            }
            0x15 => {
                let (register, _) = (cursor.uleb()?, cursor.sleb()?);
                put_value(state, register);
            }
            // val_expression
            0x16 => {
                let (register, length) = (cursor.uleb()?, usize::try_from(cursor.uleb()?).ok()?);
                cursor.skip(length)?;
                put_value(state, register);
            }
            // GNU_args_size: how much the callee pops; the CFA already tells
            0x2e => {
                cursor.uleb()?;
            }
            _ => return None,
        }
        Some(Step::Done)
    }
}

#[inline]
fn cfa(register: u64, offset: Option<i32>) -> Cfa {
    match (u8::try_from(register), offset) {
        (Ok(register), Some(offset)) => Cfa::Register { register, offset },
        _ => Cfa::Unknown,
    }
}

#[inline]
fn set_offset(state: &mut State, to: Option<i32>) {
    match (&mut state.cfa, to) {
        (Cfa::Register { offset, .. }, Some(to)) => *offset = to,
        (cfa, _) => *cfa = Cfa::Unknown,
    }
}

#[inline]
fn put(state: &mut State, register: u64, place: Place) {
    if let Some(slot) = state.place(register) {
        *slot = place;
    }
}

#[inline]
fn saved(state: &mut State, register: u64, alignment: Alignment, factored: Option<i64>) {
    if let Some(slot) = state.place(register) {
        *slot = factored.and_then(|factored| alignment.data(factored)).map_or(Place::Unknown, Place::AtCfa);
    }
}

/// The register's value, not its place, is given. Of sp that says no more than the CFA does.
fn put_value(state: &mut State, register: u64) {
    if register != RSP {
        put(state, register, Place::Unknown);
    }
}

#[inline]
fn restore(state: &mut State, register: u64, initial: &State) {
    let mut initial = *initial;
    if let (Some(slot), Some(first)) = (state.place(register), initial.place(register)) {
        *slot = *first;
    }
}
