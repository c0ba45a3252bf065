//! What was sampled since it was taken last, and the memory of raw stacks that spares most samples their resolution.

use profiler_bpf::record::UnwindEnd;
use profiler_measure::Measure;
use rustc_hash::FxHashMap;

use super::aggregate::{Aggregate, ImageId, RawSample, Series, StackId};

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

/// What was sampled since the last time that it was taken.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) aggregate: Aggregate,
    /// Images that run code from anonymous memory.
    pub(super) jit_images: Vec<ImageId>,
    /// Whether a mapping with the name of a file is memory that a program wrote its code to: by image and start.
    pub(super) made_code: FxHashMap<(ImageId, u64), bool>,
    /// Source and period of each series of the aggregate.
    keys: Vec<(u8, u64)>,
    raw_stacks: FxHashMap<RawKey, StackId>,
    raw_bytes: usize,
    /// Bytes that each source brought.
    brought: Vec<usize>,
}

impl Window {
    /// Adds a sample to the series of its source and period; `measure` says what that is a series of.
    pub(super) fn add(&mut self, source: u8, period: u64, sample: RawSample, measure: impl FnOnce() -> Measure) {
        let key = (source, period);
        let known = self.keys.iter().position(|known| *known == key);
        let at = known.unwrap_or_else(|| {
            self.keys.push(key);
            self.aggregate.series.push(Series { measure: measure(), samples: Vec::new() });
            self.keys.len() - 1
        });
        if let Some(series) = self.aggregate.series.get_mut(at) {
            series.samples.push(sample);
        }
    }

    /// A sample of `source` was added when the aggregate had `before` bytes of content.
    pub(super) fn charge(&mut self, source: u8, before: usize) {
        let source = usize::from(source);
        if self.brought.len() <= source {
            self.brought.resize(source + 1, 0);
        }
        if let Some(brought) = self.brought.get_mut(source) {
            // Vectors grow by the half of what they hold, on average.
            let grown = self.aggregate.content_bytes().saturating_sub(before) + size_of::<RawSample>();
            *brought += grown * 3 / 2;
        }
    }

    /// Bytes that `source` brought: its samples, and each stack that it was the first to have.
    pub(super) fn brought(&self, source: usize) -> usize {
        self.brought.get(source).copied().unwrap_or_default()
    }

    /// All of it; it begins anew.
    pub(super) fn take(&mut self) -> Aggregate {
        let Self { mut aggregate, keys, .. } = std::mem::take(self);
        // In the order in which the sources were given, whichever was sampled first.
        let mut series: Vec<_> = keys.into_iter().zip(std::mem::take(&mut aggregate.series)).collect();
        series.sort_by_key(|((source, _), _)| *source);
        aggregate.series = series.into_iter().map(|(_, series)| series).collect();
        aggregate
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(window: &mut Window, source: u8, period: u64) {
        window.add(source, period, RawSample::new(0, 0, 0, 0, 1), || Measure::cpu_clock(period));
        window.charge(source, window.aggregate.content_bytes());
    }

    #[test]
    fn each_source_and_period_is_a_series_of_its_own() {
        let mut window = Window::default();
        for (source, period) in [(0, 10), (0, 100), (1, 10), (0, 10), (0, 100), (0, 10)] {
            sample(&mut window, source, period);
        }
        assert!(window.brought(0) == 5 * window.brought(1) && window.brought(1) >= size_of::<RawSample>());
        let taken = window.take();
        let counts: Vec<_> = taken.series.iter().map(|series| (series.measure.period, series.samples.len())).collect();
        assert_eq!(counts, [(10, 3), (100, 2), (10, 1)]);
        assert_eq!((taken.sample_count(), window.brought(0)), (6, 0));
        assert!(window.take().is_empty());
    }

    #[test]
    fn a_value_has_48_bits() {
        for value in [0, 1, u64::from(u32::MAX) + 7, (1 << 48) - 1] {
            let sample = RawSample::new(1, 2, 3, 4, value);
            assert_eq!((sample.value(), sample.cpu()), (value, 4));
        }
    }

    #[test]
    fn raw_stacks_stay_within_their_budget() {
        let mut window = Window::default();
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
