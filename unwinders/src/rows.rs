//! From an executable's unwind information to the rows that the BPF unwinder searches.
//!
//! ```text
//! .eh_frame ──┐                                            rows of one 64 KiB page of addresses
//! .debug_frame┤ frames ─> [start, end) of each function,    ┌───────────┬─────────┐
//! .gopclntab ─┘           sorted, overlaps cut   ─ evaluate ─> low 16 bits │ rule no. │─> RuleDictionary ─> Rule
//! known code ─┬ gaps: what no function covers    ─ decode   ─>            │         │
//! instructions┘                                            └───────────┴─────────┘
//! ```
//!
//! A row holds until the next row of its page; before the first row of a page, and where a rule is 0, nothing is known and the
//! unwinder guesses by the frame pointer. The caller of a frame is looked up at its return address minus one.
//!
//! Everything read is hostile: time and memory are linear in the size of the file, and bounded.

mod cfi;
mod cfi_common;
mod dictionary;
mod encoding;
mod expression;
mod flow;
mod foreign;
mod frames;
mod functions;
mod gaps;
mod go;
mod instructions;
mod known_code;
mod packed;
mod pages;
mod roots;
mod sources;
mod state;
mod step;
mod switches;

use profiler_address::ElfVaddr;
use profiler_bpf::abi::{ROW_PAGE_SHIFT, Row};

pub use dictionary::RuleDictionary;
pub use foreign::Foreign;
pub(crate) use gaps::{MAX_NAMES_BYTES, MAX_SYMBOLS_BYTES};
pub use step::{Registers, Step, step};

use functions::Functions;
use gaps::Gaps;
use packed::{PackedRule, RuleCache};
use pages::Pages;
use profiler_elf::{ElfParts, MACHINE_X86_64};
use sources::Sources;
use switches::Switch;

/// Between two functions, this many bytes and more get a row that says that nothing is known; less is padding.
const SMALLEST_GAP: u64 = 16;
/// Bytes of `.eh_frame` that give a row: at least, in large programs. Room is made by this.
const BYTES_A_ROW: usize = 5;

/// Why no rows could be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Code of another machine.
    #[error("unwind rows are built for x86-64 (ELF machine 62) only; this file is for machine {0}")]
    Machine(u16),
}

/// What was met while building; everything that was not understood is counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowStats {
    /// Bytes of `.eh_frame` read.
    pub eh_frame_bytes: u64,
    /// Functions described by `.eh_frame` or `.debug_frame` that rows were made for.
    pub fdes: u64,
    /// Functions described by Go's pc tables that rows were made for.
    pub go_functions: u64,
    /// Places recognised by their code alone: entry points and signal trampolines without unwind information.
    pub known_code: u64,
    /// Described functions that nothing calls, so that the stack ends with them.
    pub roots: u64,
    /// Places where a function is about to leave for another frame than its caller's.
    pub switches: u64,
    /// Functions without unwind information whose instructions were followed.
    pub decoded_functions: u64,
    /// Bytes of code read for them.
    pub decoded_bytes: u64,
    /// Entries that could not be read (lengths, encodings, instructions out of range); they give no rows from there on.
    pub malformed: u64,
    /// Functions that start inside another one, whose rows end where the inner one's start; or that start at the same address
    /// as another one, which is kept (the first in the file).
    pub overlapping: u64,
    /// Functions outside of all executable segments, as linkers leave them behind when they drop code; no rows.
    pub outside_code: u64,
    /// Rows whose CFA or return address can't be expressed: they have rule 0.
    pub unsupported: u64,
    /// Rows where the place of a saved frame pointer or rbx can't be expressed: they take it as unchanged.
    pub approximated: u64,
    /// Rows whose rule found no room in the dictionary and was made simpler or 0.
    pub dictionary_full: u64,
    /// Rows or functions beyond the limits on counts.
    pub over_limit: u64,
}

/// The rows of one executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnwindRows {
    /// First page with rows: ELF virtual address >> 16.
    pub first_page: u64,
    /// Where the rows of page `first_page + i` start in `rows`; one entry more than there are pages.
    pub page_starts: Vec<u32>,
    /// All rows, page by page.
    pub rows: Vec<Row>,
    /// What was met while building.
    pub stats: RowStats,
}

impl UnwindRows {
    /// The rule that holds at `address`; 0 where nothing is known.
    #[must_use]
    pub fn rule_at(&self, address: ElfVaddr) -> u16 {
        let find = || {
            let page = usize::try_from((address.0 >> ROW_PAGE_SHIFT).checked_sub(self.first_page)?).ok()?;
            let start = *self.page_starts.get(page)? as usize;
            let end = *self.page_starts.get(page.checked_add(1)?)? as usize;
            let rows = self.rows.get(start..end)?;
            let after = rows.partition_point(|row| row.address_low() <= address.0 as u16);
            Some(rows.get(after.checked_sub(1)?)?.rule())
        };
        find().unwrap_or(0)
    }

    /// Bytes of memory that the rows take.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        size_of_val(self.rows.as_slice()) + size_of_val(self.page_starts.as_slice())
    }
}

/// Builds the rows of `parts`, adding the rules that they need to `rules`.
///
/// A file without unwind information gives no rows and no error.
///
/// # Errors
/// When the file is for another machine than x86-64.
pub fn compile(parts: &ElfParts<'_>, rules: &mut RuleDictionary) -> Result<UnwindRows, Error> {
    if parts.machine() != MACHINE_X86_64 {
        return Err(Error::Machine(parts.machine()));
    }
    let mut stats = RowStats::default();
    let mut writer = Writer {
        rules,
        cache: RuleCache::new(),
        pages: Pages::default(),
        switches: Vec::new(),
        beneath: PackedRule::NONE,
        begun: false,
    };

    let mut functions = Functions::new(parts);
    let mut sources = Sources::default();
    sources.read(parts, &mut functions, &mut stats);
    functions.sort(&mut stats);

    writer.pages = Pages::with_capacity(stats.eh_frame_bytes as usize / BYTES_A_ROW);
    let mut gaps = Gaps::new(parts);
    let mut uncovered = 0;
    for index in 0..functions.len() {
        let Some((start, ticket)) = functions.get(index) else { break };
        let next = functions.get(index + 1).map_or(u64::MAX, |(next, _)| next);
        let limit = next.min(functions.segment_end(start).unwrap_or(start));
        let root = start != 0
            && (parts.entry_point() == Some(ElfVaddr(start))
                || roots::takes_its_stack_from_a_saved_register(start, parts) && sources.is_plain(ticket, parts));
        // Who returns to its first byte is looked up at the one before.
        let first = start - u64::from(root && roots::is_no_call_before(start, parts));
        if first.saturating_sub(uncovered) >= SMALLEST_GAP {
            fill_gap((uncovered, first), &functions, &mut gaps, parts, &mut writer, &mut stats);
        }
        if root {
            stats.roots += 1;
            writer.set(first, PackedRule::new(state::END), &mut stats);
            let end = sources.end(ticket, start, parts);
            stats.fdes += u64::from(end.is_some());
            stats.overlapping += u64::from(end.is_some_and(|end| end > limit));
            uncovered = end.unwrap_or(limit).min(limit);
            continue;
        }
        uncovered = sources.write_rows(ticket, (start, limit), parts, &mut writer, &mut stats);
    }
    fill_gap((uncovered, u64::MAX), &functions, &mut gaps, parts, &mut writer, &mut stats);

    stats.over_limit += writer.pages.refused();
    let (first_page, page_starts, rows) = writer.pages.finish();
    Ok(UnwindRows { first_page, page_starts, rows, stats })
}

/// Code of `parts` that no function covers and that [`compile`] looks at, as (start, end): what must be there of a file whose code was
/// left out.
pub(crate) fn uncovered(parts: &ElfParts<'_>) -> Vec<(u64, u64)> {
    let mut stats = RowStats::default();
    let mut functions = Functions::new(parts);
    let mut sources = Sources::default();
    sources.read(parts, &mut functions, &mut stats);
    functions.sort(&mut stats);
    let mut gaps = Vec::new();
    let mut left = gaps::MAX_DECODED_OF_DESCRIBED;
    let mut take = |start: u64, end: u64, code: &[(u64, u64)]| {
        let first = code.partition_point(|segment| segment.1 <= start);
        for &(code_start, code_end) in code.iter().skip(first).take_while(|segment| segment.0 < end) {
            let gap = (start.max(code_start), end.min(code_end));
            let size = gap.1.saturating_sub(gap.0);
            if (SMALLEST_GAP..=left).contains(&size) {
                left -= size;
                gaps.push(gap);
            }
        }
    };
    let mut covered = 0;
    for index in 0..functions.len() {
        let Some((start, ticket)) = functions.get(index) else { break };
        if start.saturating_sub(covered) >= SMALLEST_GAP {
            take(covered, start, functions.code());
        }
        let next = functions.get(index + 1).map_or(u64::MAX, |(next, _)| next);
        covered = sources.end(ticket, start, parts).unwrap_or(next).min(next);
    }
    take(covered, u64::MAX, functions.code());
    gaps
}

/// Between two functions nothing is known, except what the code itself tells.
fn fill_gap(
    (start, end): (u64, u64),
    functions: &Functions,
    gaps: &mut Gaps,
    parts: &ElfParts<'_>,
    writer: &mut Writer<'_>,
    stats: &mut RowStats,
) {
    if start != 0 {
        writer.pages.set(start, 0);
    }
    let code = functions.code();
    let first_segment = code.partition_point(|segment| segment.1 <= start);
    for &(code_start, code_end) in code.iter().skip(first_segment).take_while(|segment| segment.0 < end) {
        for part in parts.present((start.max(code_start), end.min(code_end))) {
            gaps.write_rows(part, parts, writer, stats);
        }
    }
}

/// Where rows go: rules are interned on the way.
struct Writer<'r> {
    rules: &'r mut RuleDictionary,
    cache: RuleCache,
    pages: Pages,
    /// Of the function that is written; next one last.
    switches: Vec<Switch>,
    /// What holds where none of them does.
    beneath: PackedRule,
    /// The next one holds already.
    begun: bool,
}

impl Writer<'_> {
    /// From `address` on, `rule` holds.
    #[inline]
    fn set(&mut self, address: u64, rule: PackedRule, stats: &mut RowStats) {
        if self.switches.is_empty() || self.is_uncovered(address, rule, stats) {
            self.put(address, rule, stats);
        }
    }

    /// What follows is of a function with these switches.
    fn begin(&mut self, mut switches: Vec<Switch>) {
        switches.reverse();
        (self.switches, self.beneath, self.begun) = (switches, PackedRule::NONE, false);
    }

    /// The function has ended.
    fn end(&mut self, stats: &mut RowStats) {
        while let Some(switch) = self.switches.last().copied() {
            self.is_uncovered(switch.past, self.beneath, stats);
        }
    }

    /// Whether no switch lies over a rule that holds from `address` on; those that begin or end before are written.
    #[cold]
    fn is_uncovered(&mut self, address: u64, rule: PackedRule, stats: &mut RowStats) -> bool {
        while let Some(switch) = self.switches.last().copied().filter(|switch| switch.first <= address) {
            if !std::mem::replace(&mut self.begun, true) {
                self.put(switch.first, switch.rule, stats);
            }
            if address < switch.past {
                self.beneath = rule;
                return false;
            }
            self.put(switch.past, self.beneath, stats);
            self.switches.pop();
            self.begun = false;
        }
        self.beneath = rule;
        true
    }

    #[inline]
    fn put(&mut self, address: u64, rule: PackedRule, stats: &mut RowStats) {
        let index = self.cache.index(rule, self.rules, stats);
        self.pages.set(address, index);
    }
}

#[cfg(test)]
mod tests;
