//! What was sampled with one period, and the memory of raw stacks that spares most samples their resolution.

use profiler_bpf::record::UnwindEnd;
use rustc_hash::FxHashMap;

use super::aggregate::{Aggregate, ImageId, StackId};

/// A raw stack of one version of one image's mappings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RawKey {
    pub(super) serial: u32,
    pub(super) version: u32,
    pub(super) end: UnwindEnd,
    pub(super) words: Box<[u64]>,
    pub(super) kernel: u32,
}

/// Bytes of a remembered stack besides its words: the key, the id, the table's byte, the allocator's word, and the free eighth.
const RAW_OVERHEAD: usize = 72;

/// Samples of one period.
#[derive(Debug)]
pub(super) struct Window {
    /// ns of CPU time a sample.
    pub(super) period: u64,
    pub(super) aggregate: Aggregate,
    /// Images that run code from anonymous memory.
    pub(super) jit_images: Vec<ImageId>,
    raw_stacks: FxHashMap<RawKey, StackId>,
    raw_bytes: usize,
}

impl Window {
    pub(super) fn new(period: u64) -> Self {
        Self {
            period,
            aggregate: Aggregate::default(),
            jit_images: Vec::new(),
            raw_stacks: FxHashMap::default(),
            raw_bytes: 0,
        }
    }

    /// What a raw stack was found to be.
    pub(super) fn known(&self, key: &RawKey) -> Option<StackId> {
        self.raw_stacks.get(key).copied()
    }

    /// Remembers what a raw stack is, within `budget` bytes of them.
    pub(super) fn remember(&mut self, key: RawKey, stack: StackId, budget: usize) {
        let bytes = key.words.len() * 8 + RAW_OVERHEAD;
        if self.raw_bytes + bytes > budget {
            self.raw_stacks.clear();
            self.raw_bytes = 0;
        }
        if bytes <= budget {
            self.raw_bytes += bytes;
            self.raw_stacks.insert(key, stack);
        }
    }

    /// Bytes of raw stacks.
    pub(super) fn raw_bytes(&self) -> usize {
        self.raw_bytes.max(self.raw_stacks.capacity() * (RAW_OVERHEAD - 8))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.aggregate.samples.is_empty()
    }
}

/// The windows of all periods since they were taken last, of which the newest is at hand.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) now: Window,
    others: Vec<Window>,
}

impl Windows {
    pub(super) fn new(period: u64) -> Self {
        Self { now: Window::new(period), others: Vec::new() }
    }

    /// Makes the window of `period` the one at hand.
    pub(super) fn turn_to(&mut self, period: u64) {
        if self.now.period == period {
            return;
        }
        let found = self.others.iter().position(|window| window.period == period);
        let window = found.map_or_else(|| Window::new(period), |index| self.others.swap_remove(index));
        let before = std::mem::replace(&mut self.now, window);
        if !before.is_empty() {
            self.others.push(before);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Window> {
        self.others.iter().chain([&self.now])
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Window> {
        self.others.iter_mut().chain([&mut self.now])
    }

    /// All that have samples; empty ones stay.
    pub(super) fn take(&mut self) -> Vec<(u64, Aggregate)> {
        let period = self.now.period;
        let now = std::mem::replace(&mut self.now, Window::new(period));
        let taken = std::mem::take(&mut self.others).into_iter().chain([now]);
        taken.filter(|window| !window.is_empty()).map(|window| (window.period, window.aggregate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::aggregate::RawSample;

    fn sample(windows: &mut Windows, period: u64) {
        windows.turn_to(period);
        windows.now.aggregate.samples.push(RawSample { time: 0, stack: 0, thread: 0, cpu: 0 });
    }

    #[test]
    fn each_period_has_a_window_of_its_own() {
        let mut windows = Windows::new(10);
        for period in [10, 100, 10, 100, 1, 10] {
            sample(&mut windows, period);
        }
        windows.turn_to(7);
        let mut taken: Vec<_> =
            windows.take().into_iter().map(|(period, aggregate)| (period, aggregate.samples.len())).collect();
        taken.sort_unstable();
        assert_eq!(taken, [(1, 1), (10, 3), (100, 2)]);
        assert!(windows.take().is_empty());
    }

    #[test]
    fn raw_stacks_stay_within_their_budget() {
        let mut window = Window::new(1);
        let key = |serial, words: usize| RawKey {
            serial,
            version: 0,
            end: UnwindEnd::Complete,
            words: vec![0; words].into(),
            kernel: 0,
        };
        for serial in 0..100 {
            window.remember(key(serial, 10), 5, 1000);
            assert!(window.raw_bytes <= 1000);
            assert_eq!(window.known(&key(serial, 10)), Some(5));
        }
        window.remember(key(0, 1000), 6, 1000);
        assert_eq!(window.known(&key(0, 1000)), None, "larger than the budget");
    }
}
