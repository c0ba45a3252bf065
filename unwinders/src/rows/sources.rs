//! All that can say how a function is unwound, and which comes first where several do.

use profiler_elf::ElfParts;

use super::cfi::{Interpreter, Program};
use super::frames::{LastCie, Section};
use super::functions::Functions;
use super::go::GoFunctions;
use super::switches::Switches;
use super::{RowStats, Writer};

/// Largest `.debug_frame` that is decompressed, bytes.
const LARGEST_DEBUG_FRAME: u64 = 128 << 20;
/// Bytes of `.eh_frame` that describe a function: at least, in large programs. Room is made by this.
const BYTES_A_FUNCTION: usize = 36;

/// The sources of one executable, in the order of their tickets: for one address, the earlier wins.
#[derive(Debug, Default)]
pub(super) struct Sources<'a> {
    frames: Vec<Frames<'a>>,
    go: Option<(GoFunctions<'a>, u32)>,
    interpreter: Interpreter,
    switches: Switches,
}

#[derive(Debug)]
struct Frames<'a> {
    section: Section<'a>,
    first_ticket: u32,
    last_cie: LastCie,
}

impl<'a> Sources<'a> {
    /// Finds all sources of `parts` and adds their functions.
    pub(super) fn read(&mut self, parts: &ElfParts<'a>, functions: &mut Functions, stats: &mut RowStats) {
        let mut next_ticket = 0;
        if let Some(found) = parts.eh_frame() {
            stats.eh_frame_bytes = found.bytes.len() as u64;
            functions.reserve(found.bytes.len() / BYTES_A_FUNCTION);
            let section = Section::eh_frame(parts, found);
            self.read_frames(section, &mut next_ticket, parts, functions, stats);
        }
        if let Some(go) = GoFunctions::find(parts) {
            go.read(next_ticket, functions, stats);
            let first_ticket = next_ticket;
            next_ticket = next_ticket.saturating_add(go.len());
            self.go = Some((go, first_ticket));
        }
        if let Some(content) = parts.section_content(".debug_frame", LARGEST_DEBUG_FRAME) {
            self.read_frames(Section::debug_frame(content), &mut next_ticket, parts, functions, stats);
        }
    }

    fn read_frames(
        &mut self,
        mut section: Section<'a>,
        next_ticket: &mut u32,
        parts: &ElfParts<'_>,
        functions: &mut Functions,
        stats: &mut RowStats,
    ) {
        let first_ticket = *next_ticket;
        section.read(first_ticket, parts, functions, stats);
        *next_ticket = first_ticket.saturating_add(u32::try_from(section.bytes.len()).unwrap_or(u32::MAX));
        self.frames.push(Frames { section, first_ticket, last_cie: LastCie::default() });
    }

    /// Writes the rows of the function with this ticket, which starts at `start` and can't reach beyond `limit`; gives its end.
    #[inline]
    pub(super) fn write_rows(
        &mut self,
        ticket: u32,
        (start, limit): (u64, u64),
        parts: &ElfParts<'_>,
        writer: &mut Writer<'_>,
        stats: &mut RowStats,
    ) -> u64 {
        if let Some((go, first_ticket)) = &mut self.go
            && let Some(index) = ticket.checked_sub(*first_ticket).filter(|&index| index < go.len())
        {
            return go.write_rows(index, (start, limit), parts, writer, stats);
        }
        for frames in self.frames.iter_mut().rev() {
            let Some(at) = ticket.checked_sub(frames.first_ticket) else { continue };
            let Some(function) = frames.section.function(at as usize, &mut frames.last_cie, parts) else { break };
            let whole = start.saturating_add(function.length);
            stats.overlapping += u64::from(whole > limit);
            stats.fdes += 1;
            let end = whole.min(limit);
            let bases = &frames.section.bases;
            let program = Program { code: function.code, at: function.at, cie: function.cie, bases, parts };
            let switches = self.switches.find(function.code, (start, end), parts);
            stats.switches += switches.len() as u64;
            writer.begin(switches);
            self.interpreter.run(&program, start, end, writer, stats);
            writer.end(stats);
            return end;
        }
        stats.malformed += 1;
        start
    }

    /// Whether the function with this ticket is described as one that never moves the stack pointer.
    pub(super) fn is_plain(&mut self, ticket: u32, parts: &ElfParts<'_>) -> bool {
        let frames = self.frames.iter_mut().rev().find(|frames| ticket >= frames.first_ticket);
        let function = frames.and_then(|frames| {
            frames.section.function((ticket - frames.first_ticket) as usize, &mut frames.last_cie, parts)
        });
        // DW_CFA_nop
        function.is_some_and(|function| function.code.iter().all(|&byte| byte == 0))
    }

    /// Where the function with this ticket ends; `None` where its source can't tell.
    pub(super) fn end(&mut self, ticket: u32, start: u64, parts: &ElfParts<'_>) -> Option<u64> {
        if let Some((go, first_ticket)) = &self.go
            && ticket.checked_sub(*first_ticket).is_some_and(|index| index < go.len())
        {
            return None;
        }
        let mut frames = self.frames.iter_mut().rev();
        let frames = frames.find(|frames| ticket >= frames.first_ticket)?;
        let at = (ticket - frames.first_ticket) as usize;
        let function = frames.section.function(at, &mut frames.last_cie, parts)?;
        Some(start.saturating_add(function.length))
    }
}
