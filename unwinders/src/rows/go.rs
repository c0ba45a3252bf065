//! Rows of functions that Go compiled: they have no call frame instructions, but tables that Go's own stack walker uses.
//!
//! `pcsp` tells for each instruction by how many bytes sp is below its value at entry, so `cfa = sp + delta + 8`. A frame's first
//! push is rbp, so once there is a delta the caller's is at `cfa - 16`. The few functions that switch stacks keep the frame pointer of
//! the stack that they left (or none, where they mean the chain to end), which is followed from the switch on.

mod special;

use profiler_address::ElfVaddr;
use profiler_bpf::abi::{CfaKind, Rule, SAVED_SAME};
use profiler_elf::ElfParts;
use profiler_elf::go::{Function, Header, Program, Table};

use super::functions::Functions;
use super::packed::PackedRule;
use super::state::{self, RSP};
use super::{RowStats, Writer};
use special::Special;

/// Steps through pcsp tables for one executable. Each function's table can be anywhere, so a hostile file could have us read
/// the same bytes for each of its functions.
const MAX_STEPS: u64 = 1 << 26;
/// Longer than the names of the functions that are known by them.
const LONGEST_NAME: u64 = 64;
/// glibc, musl and Go leave sp at the `ucontext` when they return from a signal; its `gregs` are 40 bytes on.
pub(super) const GREGS_AFTER_UCONTEXT: i32 = 40;

/// Go's functions in one executable.
#[derive(Debug)]
pub(super) struct GoFunctions<'a> {
    table: Table<&'a [u8]>,
    steps: u64,
}

impl<'a> GoFunctions<'a> {
    /// Finds Go's tables in `parts`.
    pub(super) fn find(parts: &ElfParts<'a>) -> Option<Self> {
        let program = Program::find(parts, parts)?;
        let (offset, len) = program.place();
        // Of a table of which a part is not there, what is there.
        let bytes = parts.file_bytes(offset.0, len)?;
        let header = Header::read(&bytes).filter(|header| header.quantum() == 1)?;
        Some(Self { table: Table::new(bytes, header, program.text()), steps: 0 })
    }

    /// How many tickets these functions take.
    pub(super) const fn len(&self) -> u32 {
        self.table.len()
    }

    /// Adds all functions. Their tickets are their places in the table plus `first_ticket`.
    pub(super) fn read(&self, first_ticket: u32, functions: &mut Functions, stats: &mut RowStats) {
        for index in 0..self.len() {
            match self.table.start(index) {
                Ok(start) => functions.add(start, first_ticket.saturating_add(index), stats),
                Err(_) => stats.malformed += 1,
            }
        }
    }

    /// Writes the rows of function number `index`, which starts at `start` and can't reach beyond `limit`; gives its end.
    pub(super) fn write_rows(
        &mut self,
        index: u32,
        (start, limit): (u64, u64),
        parts: &ElfParts<'_>,
        writer: &mut Writer<'_>,
        stats: &mut RowStats,
    ) -> u64 {
        let end = self.table.start(index + 1).map_or(limit, |next| next.clamp(start, limit));
        let Ok(function) = self.table.function(index) else {
            stats.malformed += 1;
            writer.pages.set(start, 0);
            return end;
        };
        stats.go_functions += 1;
        let name = self.table.name(function.name, LONGEST_NAME).ok().flatten().unwrap_or_default();
        let special = special::of(&name, function.flags);
        match special {
            Some(Special::End) => {
                writer.set(start, PackedRule::new(state::END), stats);
                return end;
            }
            Some(Special::SignalReturn) => {
                // It is never called: the kernel put its first instruction where a return address should be, and return
                // addresses are looked up one byte before.
                writer.set(start.saturating_sub(1), PackedRule::new(state::signal(GREGS_AFTER_UCONTEXT)), stats);
                return end;
            }
            _ => {}
        }
        let code = usize::try_from(end - start).ok().and_then(|size| parts.bytes_at(ElfVaddr(start), size));
        let code = code.unwrap_or_default();
        // Compiled functions always save rbp; in assembly it may be the programmer who moves sp.
        let saves_fp = !function.is_assembly() || code.first() == Some(&0x55);
        let frame = Frame { special, saves_fp, switch: special.and_then(|_| special::stack_switch(code)) };
        self.write_frames(&function, &frame, (start, end), writer, stats);
        end
    }

    fn write_frames(
        &mut self,
        function: &Function,
        frame: &Frame,
        (start, end): (u64, u64),
        writer: &mut Writer<'_>,
        stats: &mut RowStats,
    ) {
        let mut location = start;
        let mut deltas = self.table.stack_deltas(function);
        while location < end {
            self.steps += 1;
            let run = deltas.next().and_then(Result::ok).filter(|_| self.steps <= MAX_STEPS);
            let Some((delta, length)) = run.filter(|(delta, length)| *delta >= 0 && *length != 0) else {
                // Functions without a table (Go has none for those that never return) and what a damaged one leaves.
                writer.set(location, PackedRule::new(state::FRAME_POINTER), stats);
                stats.over_limit += u64::from(self.steps > MAX_STEPS);
                return;
            };
            let past = location.saturating_add(length).min(end);
            let switch = frame.switch.map_or(end, |offset| start.saturating_add(offset)).clamp(location, past);
            if location < switch {
                writer.set(location, PackedRule::new(frame.rule(delta)), stats);
            }
            if switch < past {
                writer.set(switch, PackedRule::new(frame.rule_after_switch(delta)), stats);
            }
            location = past;
        }
    }
}

/// What the rules of one function depend on, besides the delta.
struct Frame {
    special: Option<Special>,
    saves_fp: bool,
    /// Bytes from the start to where sp is on another stack.
    switch: Option<u64>,
}

impl Frame {
    fn rule(&self, delta: i32) -> Rule {
        Rule {
            cfa_kind: CfaKind::Reg as u8,
            cfa_reg: RSP as u8,
            cfa_off: delta.saturating_add(8),
            fp_off8: if delta > 0 && self.saves_fp { -2 } else { SAVED_SAME },
            ..Rule::NONE
        }
    }

    fn rule_after_switch(&self, delta: i32) -> Rule {
        match self.special {
            Some(Special::LeavesForGood) => state::END,
            // Back from the other stack, the frame is popped: rbp is the caller's again.
            _ if delta == 0 => self.rule(delta),
            _ => state::FRAME_POINTER,
        }
    }
}
