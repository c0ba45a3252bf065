//! The heap of a process, read for one request: pages are kept for its length, and all that is read is bounded.

use std::cell::{Cell, RefCell};

use profiler_elf::le;
use rustc_hash::FxHashMap;

use crate::memory::Memory;

const PAGE: usize = 4096;
/// Pages that one request may read: 32 MiB.
const MAX_PAGES: u32 = 8192;
/// Pages that are kept of them: 8 MiB.
const MAX_KEPT: usize = 2048;
/// Bytes that one request may look at, those of pages that are kept too; a look counts as some bytes more.
const MAX_WORK: u64 = 128 << 20;
const A_LOOK: u64 = 16;

/// A tagged word of V8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Word(pub u64);

impl Word {
    /// The address of the object that it points to, strongly or weakly.
    pub(super) const fn object(self) -> Option<u64> {
        if self.0 & 1 == 1 { Some(self.0 & !3) } else { None }
    }

    /// The small integer that it is.
    pub(super) const fn small(self) -> Option<i32> {
        if self.0 & 1 == 0 { Some((self.0 >> 32) as i32) } else { None }
    }

    /// It points to the object at `address`.
    pub(super) const fn to(address: u64) -> Self {
        Self(address | 1)
    }
}

/// The heap, as it is while a request is answered.
#[derive(Debug)]
pub(super) struct Heap<'a> {
    memory: &'a dyn Memory,
    pages: RefCell<FxHashMap<u64, Option<Box<[u8]>>>>,
    left: Cell<u32>,
    work: Cell<u64>,
}

impl<'a> Heap<'a> {
    pub(super) fn new(memory: &'a dyn Memory) -> Self {
        Self { memory, pages: RefCell::default(), left: Cell::new(MAX_PAGES), work: Cell::new(MAX_WORK) }
    }

    /// Fills `bytes` from `address`; none if it cannot be read, or too much was.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        self.work.set(self.work.get().checked_sub(A_LOOK + bytes.len() as u64)?);
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            let offset = (at % PAGE as u64) as usize;
            let (piece, after) = rest.split_at_mut(rest.len().min(PAGE - offset));
            self.of_page(at - offset as u64, offset, piece)?;
            at = at.checked_add(piece.len() as u64)?;
            rest = after;
        }
        Some(())
    }

    fn of_page(&self, page: u64, offset: usize, bytes: &mut [u8]) -> Option<()> {
        let mut pages = self.pages.borrow_mut();
        if !pages.contains_key(&page) {
            self.left.set(self.left.get().checked_sub(1)?);
            if pages.len() >= MAX_KEPT {
                pages.clear();
            }
            let mut content = vec![0; PAGE].into_boxed_slice();
            let read = self.memory.read(page, &mut content).ok().map(|()| content);
            pages.insert(page, read);
        }
        bytes.copy_from_slice(pages.get(&page)?.as_ref()?.get(offset..offset + bytes.len())?);
        Some(())
    }

    /// `length` bytes from `address`, no more than `limit`.
    pub(super) fn bytes(&self, address: u64, length: usize, limit: usize) -> Option<Vec<u8>> {
        if length > limit {
            return None;
        }
        let mut bytes = vec![0; length];
        self.read(address, &mut bytes)?;
        Some(bytes)
    }

    pub(super) fn word(&self, address: u64) -> Option<Word> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(Word(u64::from_le_bytes(bytes)))
    }

    pub(super) fn half(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    /// The word at an offset of an object.
    pub(super) fn field(&self, object: Word, offset: u16) -> Option<Word> {
        self.word(object.object()?.checked_add(offset.into())?)
    }

    /// The 32 bits at an offset of an object.
    pub(super) fn half_field(&self, object: Word, offset: u16) -> Option<u32> {
        self.half(object.object()?.checked_add(offset.into())?)
    }

    /// The instance type of an object: it is in the map that every object begins with.
    pub(super) fn kind(&self, object: Word) -> Option<u16> {
        let map = self.field(object, 0)?.object()?;
        let mut bytes = [0; 2];
        self.read(map.checked_add(12)?, &mut bytes)?;
        Some(u16::from_le_bytes(bytes))
    }

    /// `object`, if it is of this type.
    pub(super) fn expect(&self, object: Word, kind: u16) -> Option<Word> {
        (self.kind(object)? == kind).then_some(object)
    }

    /// The length that arrays of all kinds have after their map.
    pub(super) fn length(&self, array: Word) -> Option<u32> {
        u32::try_from(self.field(array, 8)?.small()?).ok()
    }

    /// An element of an array of words.
    pub(super) fn element(&self, array: Word, index: u32) -> Option<Word> {
        if index >= self.length(array)? {
            return None;
        }
        self.word(array.object()?.checked_add(ELEMENTS + u64::from(index) * 8)?)
    }

    /// The content of an array of bytes.
    pub(super) fn byte_array(&self, array: Word, limit: usize) -> Option<Vec<u8>> {
        let length = usize::try_from(self.length(array)?).ok()?;
        self.bytes(array.object()?.checked_add(ELEMENTS)?, length, limit)
    }
}

/// Where arrays' elements begin.
const ELEMENTS: u64 = 16;

/// The words of `bytes`.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = Word> + '_ {
    bytes.chunks_exact(8).map(|bytes| Word(le::u64_in(bytes, 0)))
}
