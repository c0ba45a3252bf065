//! The entries of `.eh_frame` (Linux Standard Base 5.0, section 10.6) and `.debug_frame` (DWARF 5, section 6.4.1).

use std::borrow::Cow;

use profiler_address::ElfVaddr;
use rustc_hash::FxHashMap;

use profiler_elf::{Cursor, EhFrame, ElfParts};

use super::RowStats;
use super::cfi::{self, Alignment};
use super::encoding::{self, Bases};
use super::functions::Functions;
use super::packed::PackedRule;
use super::state::{RETURN_ADDRESS, State};

/// Common entries of one section; real files have up to a few thousand (one for each object file that went in).
const MAX_CIES: usize = 1 << 18;
/// Longest augmentation string, bytes; real ones have up to six.
const LONGEST_AUGMENTATION: usize = 32;
/// Longest initial program of a common entry, bytes. Many CIEs can overlap, so each must be short for the sum to be linear.
const LONGEST_INITIAL_PROGRAM: usize = 1024;

/// Which of the two sections: they differ in how an entry names its CIE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    EhFrame,
    DebugFrame,
}

/// A section of frames, and the common entries met in it so far.
#[derive(Debug)]
pub(super) struct Section<'a> {
    kind: Kind,
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) bases: Bases,
    /// The bytes end where the section does; otherwise the first zero terminator ends it.
    exact: bool,
    cies: Vec<Cie>,
    cie_at: FxHashMap<usize, Option<usize>>,
}

/// What functions have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cie {
    pub(super) alignment: Alignment,
    pub(super) encoding: u8,
    /// Augmentation 'z': each function has augmentation data with its length before it.
    augmented: bool,
    /// Augmentation 'S'.
    pub(super) signal: bool,
    /// After the initial instructions.
    pub(super) initial: State,
    /// The same, for the short cut; none where that can't be taken.
    pub(super) common: Option<PackedRule>,
}

/// One function as its entry describes it.
pub(super) struct Function<'s> {
    /// Bytes of code.
    pub(super) length: u64,
    pub(super) cie: &'s Cie,
    /// Its program.
    pub(super) code: &'s [u8],
    /// Offset of the program in the section.
    pub(super) at: usize,
}

/// The CIE of the function before: the same for long stretches.
#[derive(Debug, Default)]
pub(super) struct LastCie {
    at: Option<usize>,
    index: usize,
}

/// One entry's extent.
struct Entry<'a> {
    /// After the length.
    body: Cursor<'a>,
    /// Offset of the CIE id.
    id_at: usize,
    wide: bool,
}

impl<'a> Section<'a> {
    pub(super) fn eh_frame(parts: &ElfParts<'_>, found: EhFrame<'a>) -> Self {
        let address = |name| parts.section(name).map_or(0, |section| section.address.0);
        let bases = Bases { section: found.address.0, text: address(".text"), data: address(".got") };
        Self::new(Kind::EhFrame, Cow::Borrowed(found.bytes), bases, found.exact)
    }

    pub(super) fn debug_frame(bytes: Cow<'a, [u8]>) -> Self {
        Self::new(Kind::DebugFrame, bytes, Bases::default(), true)
    }

    fn new(kind: Kind, bytes: Cow<'a, [u8]>, bases: Bases, exact: bool) -> Self {
        Self { kind, bytes, bases, exact, cies: Vec::new(), cie_at: FxHashMap::default() }
    }

    /// Adds all functions of the section to `functions`. Their tickets are the offsets of their entries plus `first_ticket`.
    pub(super) fn read(
        &mut self,
        first_ticket: u32,
        parts: &ElfParts<'_>,
        functions: &mut Functions,
        stats: &mut RowStats,
    ) {
        let bytes = std::mem::take(&mut self.bytes);
        // Tickets have 32 bits.
        let readable = bytes.get(..(u32::MAX - first_ticket) as usize).unwrap_or(&bytes);
        let mut next = 0;
        let mut last_cie = None;
        while next < readable.len() {
            let at = next;
            let Some((entry, end)) = Entry::at(self.kind, readable, at) else {
                // Without its length there is no next entry.
                stats.malformed += 1;
                break;
            };
            next = end;
            let Some(mut entry) = entry else {
                // A terminator. In a whole section it may stand in the middle, where an object file brought its own.
                if self.exact { continue } else { break }
            };
            let cie_at = match entry.cie_offset(self.kind) {
                Some(Some(cie_at)) => cie_at,
                Some(None) => continue,
                None => {
                    stats.malformed += 1;
                    continue;
                }
            };
            let index = match last_cie {
                Some((offset, index)) if offset == cie_at => Some(index),
                _ => self.intern_cie(readable, cie_at, parts, stats),
            };
            last_cie = index.map(|index| (cie_at, index));
            let range = index.and_then(|index| entry.range(self.cies.get(index)?, &self.bases, parts));
            match range {
                Some((_, 0)) => {}
                Some((start, _)) => functions.add(start, first_ticket + at as u32, stats),
                None => stats.malformed += 1,
            }
        }
        self.bytes = bytes;
    }

    /// The function whose entry is at offset `at`, as [`Self::read`] found it.
    #[inline]
    pub(super) fn function<'s>(&'s self, at: usize, last: &mut LastCie, parts: &ElfParts<'_>) -> Option<Function<'s>> {
        let (Some(mut entry), end) = Entry::at(self.kind, &self.bytes, at)? else { return None };
        let cie_at = entry.cie_offset(self.kind)??;
        if last.at != Some(cie_at) {
            *last = LastCie { at: Some(cie_at), index: (*self.cie_at.get(&cie_at)?)? };
        }
        let cie = self.cies.get(last.index)?;
        let (_, length) = entry.range(cie, &self.bases, parts)?;
        if cie.augmented {
            let skip = usize::try_from(entry.body.uleb()?).ok()?;
            entry.body.skip(skip)?;
        }
        let code = entry.body.rest();
        Some(Function { length, cie, code, at: end - code.len() })
    }

    fn intern_cie(&mut self, bytes: &[u8], at: usize, parts: &ElfParts<'_>, stats: &mut RowStats) -> Option<usize> {
        if let Some(&known) = self.cie_at.get(&at) {
            return known;
        }
        if self.cie_at.len() >= MAX_CIES {
            stats.over_limit += 1;
            return None;
        }
        let index = Cie::read(self.kind, bytes, at, parts, stats).map(|cie| {
            self.cies.push(cie);
            self.cies.len() - 1
        });
        if index.is_none() {
            stats.malformed += 1;
        }
        self.cie_at.insert(at, index);
        index
    }
}

impl<'a> Entry<'a> {
    /// The entry at offset `at`, and where the next one starts; no entry when this is a terminator.
    #[inline]
    fn at(kind: Kind, bytes: &'a [u8], at: usize) -> Option<(Option<Self>, usize)> {
        let mut cursor = Cursor::new(bytes.get(at..)?);
        let mut header = 4;
        let mut wide = false;
        let mut length = u64::from(cursor.u32()?);
        if length == 0 {
            return Some((None, at + 4));
        }
        if length == 0xffff_ffff {
            length = cursor.u64()?;
            header = 12;
            // .eh_frame has 4-byte CIE ids always.
            wide = kind == Kind::DebugFrame;
        }
        let length = usize::try_from(length).ok()?;
        let body = Cursor::new(cursor.rest().get(..length)?);
        Some((Some(Self { body, id_at: at + header, wide }), at + header + length))
    }

    /// Offset of the CIE of this function; `Some(None)` when the entry is a CIE itself.
    #[inline]
    fn cie_offset(&mut self, kind: Kind) -> Option<Option<usize>> {
        let id = if self.wide { self.body.u64()? } else { u64::from(self.body.u32()?) };
        let is_cie = match kind {
            Kind::EhFrame => id == 0,
            Kind::DebugFrame => id == if self.wide { u64::MAX } else { 0xffff_ffff },
        };
        if is_cie {
            return Some(None);
        }
        let id = usize::try_from(id).ok()?;
        match kind {
            Kind::EhFrame => self.id_at.checked_sub(id).map(Some),
            Kind::DebugFrame => Some(Some(id)),
        }
    }

    /// Start and length of the function.
    #[inline]
    fn range(&mut self, cie: &Cie, bases: &Bases, parts: &ElfParts<'_>) -> Option<(u64, u64)> {
        let pointer_at = self.id_at + if self.wide { 8 } else { 4 };
        let start = encoding::pointer(&mut self.body, pointer_at, cie.encoding, bases, parts)?;
        Some((start, encoding::length(&mut self.body, cie.encoding)?))
    }
}

impl Cie {
    fn read(kind: Kind, bytes: &[u8], at: usize, parts: &ElfParts<'_>, stats: &mut RowStats) -> Option<Self> {
        let (Some(mut entry), _) = Entry::at(kind, bytes, at)? else { return None };
        if entry.cie_offset(kind)?.is_some() {
            return None;
        }
        let mut cursor = entry.body;
        let version = cursor.u8()?;
        if !matches!((kind, version), (Kind::EhFrame, 1 | 3) | (_, 1 | 3 | 4)) {
            return None;
        }
        let augmentation = cursor.c_string(LONGEST_AUGMENTATION)?;
        if augmentation == b"eh" {
            // GCC 2: a pointer to exception data.
            cursor.u64()?;
        }
        if version == 4 {
            let (address_size, segment_size) = (cursor.u8()?, cursor.u8()?);
            if (address_size, segment_size) != (8, 0) {
                return None;
            }
        }
        let code = cursor.uleb()?;
        let data = cursor.sleb()?;
        let return_address = if version == 1 { u64::from(cursor.u8()?) } else { cursor.uleb()? };
        if return_address != RETURN_ADDRESS {
            return None;
        }
        let mut cie = Self {
            alignment: Alignment { code, data },
            encoding: encoding::ABSOLUTE,
            augmented: false,
            signal: false,
            initial: State::NEW,
            common: None,
        };
        cie.read_augmentation(augmentation, &mut cursor)?;
        if cie.encoding == encoding::OMIT {
            return None;
        }
        let program = cursor.rest();
        if program.len() > LONGEST_INITIAL_PROGRAM {
            return None;
        }
        let start = ElfVaddr(0);
        cie.initial = cfi::initial_state(program, start, &cie, parts, stats)?;
        if (code, data, cie.signal) == (1, -8, false) {
            cie.common = PackedRule::of_state(&cie.initial);
        }
        Some(cie)
    }

    fn read_augmentation(&mut self, augmentation: &[u8], cursor: &mut Cursor<'_>) -> Option<()> {
        let Some(letters) = augmentation.strip_prefix(b"z") else {
            // Data of unknown letters can't be skipped without its length.
            return matches!(augmentation, b"" | b"eh").then_some(());
        };
        self.augmented = true;
        let length = usize::try_from(cursor.uleb()?).ok()?;
        let mut data = Cursor::new(cursor.take(length)?);
        for letter in letters {
            match letter {
                b'L' => data.skip(1)?,
                b'R' => self.encoding = data.u8()?,
                b'P' => {
                    let encoding = data.u8()?;
                    if encoding == 0x50 {
                        // Its padding depends on the place; the linkers of x86-64 don't write it.
                        return None;
                    }
                    encoding::value(&mut data, encoding)?;
                }
                b'S' => self.signal = true,
                b'B' | b'G' => {}
                // What follows is of no use without knowing this letter, but its length is known.
                _ => break,
            }
        }
        Some(())
    }
}
