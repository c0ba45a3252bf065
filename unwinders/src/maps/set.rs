//! The mappings of one address space, sorted and without overlap.

use profiler_address::UserAddr;

use super::{Backing, Mapping};

/// Mappings kept of one process. Beyond it new ones are refused, and [`MappingSet::refused`] counts them.
pub const MAX_MAPPINGS: usize = 1 << 17;

/// The mappings of one address space; no two overlap.
#[derive(Clone, Debug, Default)]
pub struct MappingSet {
    mappings: Vec<Mapping>,
    refused: u64,
}

impl PartialEq for MappingSet {
    /// Sets are equal when their mappings are.
    fn eq(&self, other: &Self) -> bool {
        self.mappings == other.mappings
    }
}
impl Eq for MappingSet {}

impl FromIterator<Mapping> for MappingSet {
    /// In any order; where two overlap the later one wins.
    fn from_iter<I: IntoIterator<Item = Mapping>>(mappings: I) -> Self {
        let mut set = Self::default();
        for mapping in mappings {
            set.insert(mapping);
        }
        set
    }
}

impl<'a> IntoIterator for &'a MappingSet {
    type Item = &'a Mapping;
    type IntoIter = std::slice::Iter<'a, Mapping>;
    fn into_iter(self) -> Self::IntoIter {
        self.mappings.iter()
    }
}

impl MappingSet {
    /// The mapping that `address` is in.
    #[must_use]
    pub fn find(&self, address: UserAddr) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|mapping| mapping.contains(address))
    }

    /// Whether any mapping has an address in `start..end`.
    #[must_use]
    pub fn overlaps(&self, start: UserAddr, end: UserAddr) -> bool {
        let after = self.mappings.partition_point(|mapping| mapping.end <= start);
        self.mappings.get(after).is_some_and(|mapping| mapping.start < end)
    }

    /// The mappings by rising address.
    #[must_use]
    pub fn as_slice(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The mappings by rising address.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.mappings.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Mappings that were not taken since [`MAX_MAPPINGS`] were there.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Adds `new`, which replaces what it overlaps: older mappings are trimmed, split or removed, as `mmap(MAP_FIXED)` does.
    ///
    /// Anonymous memory is one mapping with anonymous memory that it touches: a JIT that grows page by page stays one mapping.
    /// Returns whether the set is another than before.
    pub fn insert(&mut self, new: Mapping) -> bool {
        if new.start >= new.end {
            return false;
        }
        if let Some(last) = self.mappings.last()
            && last.end < new.start
        {
            return self.append(new);
        }
        let mut new = new;
        let mut first = self.mappings.partition_point(|old| old.end <= new.start);
        let mut last = self.mappings.partition_point(|old| old.start < new.end).max(first);
        if new.backing == Backing::Anonymous {
            let joins = |index: Option<usize>| {
                index.and_then(|i| self.mappings.get(i)).filter(|old| old.backing == Backing::Anonymous)
            };
            if let Some(before) = joins(first.checked_sub(1)).filter(|before| before.end == new.start) {
                new.start = before.start;
                first -= 1;
            }
            if let Some(after) = joins(Some(last)).filter(|after| after.start == new.end) {
                new.end = after.end;
                last += 1;
            }
        }
        let mut left = None;
        let mut right = None;
        if let Some(old) = self.mappings.get(first..last).and_then(<[Mapping]>::first)
            && old.start < new.start
        {
            if old.backing == Backing::Anonymous && new.backing == Backing::Anonymous {
                new.start = old.start;
            } else {
                left = Some(Mapping { end: new.start, ..old.clone() });
            }
        }
        if let Some(old) = self.mappings.get(first..last).and_then(<[Mapping]>::last)
            && old.end > new.end
        {
            if old.backing == Backing::Anonymous && new.backing == Backing::Anonymous {
                new.end = old.end;
            } else {
                let skipped = new.end.0 - old.start.0;
                let offset = match old.backing {
                    Backing::File(..) | Backing::Vdso => old.offset.plus(skipped),
                    Backing::Vsyscall | Backing::Anonymous | Backing::Replaced(_) => old.offset,
                };
                right = Some(Mapping { start: new.end, offset, ..old.clone() });
            }
        }
        if let [same] = self.mappings.get(first..last).unwrap_or_default()
            && *same == new
        {
            return false;
        }
        let added = 1 + usize::from(left.is_some()) + usize::from(right.is_some());
        if self.mappings.len() - (last - first) + added > MAX_MAPPINGS {
            self.refused += 1;
            return false;
        }
        self.mappings.splice(first..last, left.into_iter().chain([new]).chain(right));
        true
    }

    fn append(&mut self, new: Mapping) -> bool {
        if self.mappings.len() >= MAX_MAPPINGS {
            self.refused += 1;
            return false;
        }
        self.mappings.push(new);
        true
    }
}
