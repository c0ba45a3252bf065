//! Ranges of a fixed array, given out first fit, taken back after a grace.

use std::collections::{BTreeMap, VecDeque};

/// Free ranges of `0..capacity`.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// First index and length; neighbours are merged.
    free: BTreeMap<u32, u32>,
    /// Released at a time: first index and length.
    resting: VecDeque<(u64, u32, u32)>,
}

impl Ranges {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { free: BTreeMap::from([(0, capacity)]), resting: VecDeque::new() }
    }

    /// A range of `length` indices; `None` if none is free.
    pub(crate) fn allocate(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let (&first, &free) = self.free.iter().find(|&(_, &free)| free >= length)?;
        self.free.remove(&first);
        if free > length {
            self.free.insert(first + length, free - length);
        }
        Some(first)
    }

    /// Takes a range back at time `now`; it rests until [`Self::free_before`] passes that time.
    pub(crate) fn release(&mut self, first: u32, length: u32, now: u64) {
        if length > 0 {
            self.resting.push_back((now, first, length));
        }
    }

    /// Makes the ranges released before `time` available.
    pub(crate) fn free_before(&mut self, time: u64) {
        while let Some(&(released, first, length)) = self.resting.front() {
            if released >= time {
                break;
            }
            self.resting.pop_front();
            self.free(first, length);
        }
    }

    /// Indices that can be given out now, in one piece or more.
    pub(crate) fn available(&self) -> u32 {
        self.free.values().sum()
    }

    /// Takes a range back that nobody reads any more.
    pub(crate) fn free(&mut self, mut first: u32, mut length: u32) {
        if length == 0 {
            return;
        }
        if let Some((&before, &free)) = self.free.range(..first).next_back()
            && before + free == first
        {
            self.free.remove(&before);
            first = before;
            length += free;
        }
        if let Some(after) = self.free.remove(&(first + length)) {
            length += after;
        }
        self.free.insert(first, length);
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn released_ranges_merge_and_are_used_again_after_their_rest() {
        let mut ranges = Ranges::new(10);
        let (a, b) = (ranges.allocate(4).unwrap(), ranges.allocate(4).unwrap());
        assert_eq!((a, b), (0, 4));
        assert_eq!(ranges.allocate(4), None);
        ranges.release(b, 4, 100);
        ranges.release(a, 4, 200);
        ranges.free_before(150);
        assert_eq!(ranges.allocate(6), Some(4), "b and the tail have merged, a still rests");
        ranges.free_before(201);
        assert_eq!(ranges.allocate(4), Some(0));
    }
}
