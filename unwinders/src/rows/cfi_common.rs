//! The interpreter's short cut: the instructions that nearly all functions consist of, on a rule in two words.
//!
//! It knows CFAs of the form register + offset, and saves at the CFA. At the first instruction beyond that it hands over to the
//! general interpreter, [`super::cfi`]; there is nothing that only this one understands.

use profiler_elf::Cursor;

use super::cfi::Program;
use super::packed::{PackedRule, Slot};
use super::state::{RBP, RBX, RETURN_ADDRESS};
use super::{RowStats, Writer};

/// Where the short cut ended.
pub(super) enum Outcome<'p> {
    /// At the end of the function.
    Done,
    /// Before an instruction that it doesn't know: the code from there on, the rule, its location.
    Uncommon(Cursor<'p>, PackedRule, u64),
}

/// The field for a register that unwinding needs.
#[inline]
const fn slot(register: u8) -> Option<Slot> {
    match register as u64 {
        RBX => Some(Slot::RBX),
        RBP => Some(Slot::FP),
        RETURN_ADDRESS => Some(Slot::RETURN_ADDRESS),
        _ => None,
    }
}

/// Writes the rows of the function at `start..end` as far as its program is ordinary. Code alignment must be 1, data alignment -8,
/// as they are for x86-64.
#[inline]
pub(super) fn run<'p>(
    program: &Program<'p, '_>,
    initial: PackedRule,
    (start, end): (u64, u64),
    remembered: &mut Vec<PackedRule>,
    writer: &mut Writer<'_>,
    stats: &mut RowStats,
) -> Outcome<'p> {
    let mut cursor = Cursor::new(program.code);
    let mut rule = initial;
    let mut written = PackedRule::INVALID;
    let mut location = start;
    loop {
        let before = cursor;
        let Some(op) = cursor.u8() else { break };
        let delta = match op {
            0x40..=0x7f => u64::from(op & 0x3f),
            0x80..=0xbf => {
                // Factored by -8, and rules count in eights.
                match (slot(op & 0x3f), cursor.uleb()) {
                    (Some(slot), Some(factored @ 0..=0x7fff)) => rule.set(slot, (factored as u16).wrapping_neg()),
                    (None, Some(_)) => {}
                    _ => return Outcome::Uncommon(before, rule, location),
                }
                continue;
            }
            0xc0..=0xff => {
                if let Some(slot) = slot(op & 0x3f) {
                    rule.copy(slot, initial);
                }
                continue;
            }
            0x00 => continue,
            0x0e => {
                match cursor.uleb() {
                    Some(offset @ 0..=0x7fff_ffff) => rule.set_cfa_offset(offset as u32),
                    _ => return Outcome::Uncommon(before, rule, location),
                }
                continue;
            }
            0x0c => {
                match (cursor.uleb(), cursor.uleb()) {
                    (Some(register @ 0..=0xff), Some(offset @ 0..=0x7fff_ffff)) => {
                        rule.set_cfa_register(register as u8);
                        rule.set_cfa_offset(offset as u32);
                    }
                    _ => return Outcome::Uncommon(before, rule, location),
                }
                continue;
            }
            0x0d => {
                match cursor.uleb() {
                    Some(register @ 0..=0xff) => rule.set_cfa_register(register as u8),
                    _ => return Outcome::Uncommon(before, rule, location),
                }
                continue;
            }
            0x02 => match cursor.u8() {
                Some(delta) => u64::from(delta),
                None => return Outcome::Uncommon(before, rule, location),
            },
            0x03 => match cursor.u16() {
                Some(delta) => u64::from(delta),
                None => return Outcome::Uncommon(before, rule, location),
            },
            0x0a if remembered.len() < super::cfi::MAX_REMEMBERED => {
                remembered.push(rule);
                continue;
            }
            0x0b => {
                match remembered.pop() {
                    Some(old) => rule = old,
                    None => return Outcome::Uncommon(before, rule, location),
                }
                continue;
            }
            _ => return Outcome::Uncommon(before, rule, location),
        };
        if rule != written {
            writer.set(location, rule, stats);
            written = rule;
        }
        location = location.saturating_add(delta);
        if location >= end {
            return Outcome::Done;
        }
        // Most often a new CFA offset follows; taking it here keeps that branch apart from the others.
        if let [0x0e, offset @ 0..=0x7f, rest @ ..] = cursor.rest() {
            rule.set_cfa_offset(u32::from(*offset));
            cursor = Cursor::new(rest);
        }
    }
    if rule != written {
        writer.set(location, rule, stats);
    }
    Outcome::Done
}
