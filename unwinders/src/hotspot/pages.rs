//! Memory by the page: tables of many small texts cost one read for many.

use std::cell::RefCell;
use std::io;

use rustc_hash::FxHashMap;

use crate::memory::Memory;

const PAGE: u64 = 4096;
/// Most that is kept.
const MAX_PAGES: usize = 1024;

/// Reads `memory` by the page, and each page once as long as there is room; for one pass over what does not change meanwhile.
#[derive(Debug)]
pub struct Pages<'a> {
    memory: &'a dyn Memory,
    pages: RefCell<FxHashMap<u64, Box<[u8]>>>,
}

impl<'a> Pages<'a> {
    /// Nothing read yet.
    #[must_use]
    pub fn of(memory: &'a dyn Memory) -> Self {
        Self { memory, pages: RefCell::default() }
    }
}

impl Memory for Pages<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = address & !(PAGE - 1);
        let within = (address - start) as usize;
        if within + bytes.len() > PAGE as usize {
            return self.memory.read(address, bytes);
        }
        let mut pages = self.pages.borrow_mut();
        if !pages.contains_key(&start) {
            let mut page = vec![0; PAGE as usize];
            if pages.len() >= MAX_PAGES || self.memory.read(start, &mut page).is_err() {
                return self.memory.read(address, bytes);
            }
            pages.insert(start, page.into_boxed_slice());
        }
        let there = pages.get(&start).and_then(|page| page.get(within..within + bytes.len()));
        bytes.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
