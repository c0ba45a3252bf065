//! Memory of a process for the length of one walk.

use rustc_hash::FxHashMap;

use crate::reading::Reading;

const PAGE: u64 = 4096;
/// Pages that one walk may ask for.
const MAX_PAGES: usize = 128;

/// What was read of a process, a page at a time.
#[derive(Debug)]
pub(super) struct Pages {
    pid: u32,
    /// None: cannot be read.
    known: FxHashMap<u64, Option<Vec<u8>>>,
}

impl Pages {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, known: FxHashMap::default() }
    }

    /// Fills `bytes` from `address`; false if that cannot be, or too much was asked for.
    pub(super) fn read(&mut self, reading: &mut dyn Reading, address: u64, bytes: &mut [u8]) -> bool {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = address.wrapping_add(done as u64);
            let Some(page) = self.page(reading, at / PAGE * PAGE) else { return false };
            let Some(from) = page.get((at % PAGE) as usize..).filter(|from| !from.is_empty()) else { return false };
            let length = from.len().min(rest.len());
            for (to, from) in rest.iter_mut().zip(from) {
                *to = *from;
            }
            done += length;
        }
        true
    }

    fn page(&mut self, reading: &mut dyn Reading, start: u64) -> Option<&[u8]> {
        if !self.known.contains_key(&start) {
            if self.known.len() >= MAX_PAGES {
                return None;
            }
            self.known.insert(start, reading.memory(self.pid, start, PAGE as usize));
        }
        self.known.get(&start)?.as_deref()
    }
}
