//! What was learnt of processes, within a budget: what was used longest ago goes first.

use rustc_hash::FxHashMap;

use super::{
    environment::{RESOURCE_ATTRIBUTES, SERVICE_NAME},
    process::{Identity, Learned},
};

/// What an entry takes beside its texts, bytes.
const ENTRY: usize = size_of::<Identity>() + size_of::<Entry>() + 32;

/// The generation of what was not read.
const UNREAD: u64 = u64::MAX;

#[derive(Debug)]
struct Entry {
    learned: Learned,
    /// Of which choice of variables.
    generation: u64,
    used: u64,
    bytes: usize,
}

/// Processes by identity.
#[derive(Debug)]
pub(super) struct Cache {
    entries: FxHashMap<Identity, Entry>,
    max_bytes: usize,
    bytes: usize,
    /// Counts uses.
    clock: u64,
    evicted: u64,
}

impl Cache {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { entries: FxHashMap::default(), max_bytes, bytes: 0, clock: 0, evicted: 0 }
    }

    /// What is known of `identity`.
    pub(super) fn get(&mut self, identity: Identity) -> Option<&Learned> {
        self.clock += 1;
        let entry = self.entries.get_mut(&identity)?;
        entry.used = self.clock;
        Some(&entry.learned)
    }

    /// Whether `identity` was learnt with the choice of variables `generation`.
    pub(super) fn knows(&mut self, identity: Identity, generation: u64) -> bool {
        self.clock += 1;
        let Some(entry) = self.entries.get_mut(&identity) else { return false };
        entry.used = self.clock;
        entry.generation == generation
    }

    /// Takes in what is known of a process that could not be read; what was read before stays.
    pub(super) fn insert_unread(&mut self, identity: Identity, told: Learned) {
        if !self.entries.contains_key(&identity) {
            self.insert(identity, UNREAD, told);
        }
    }

    /// Takes in what was read with the choice of variables `generation`.
    pub(super) fn insert(&mut self, identity: Identity, generation: u64, learned: Learned) {
        self.clock += 1;
        let texts = learned.claims.iter().chain(&learned.variables);
        let texts = texts.map(|(name, value)| name.capacity() + value.capacity() + size_of::<(String, String)>());
        let told = [&learned.systemd_unit, &learned.cgroup].into_iter().flatten().map(|text| text.len());
        let bytes = ENTRY
            + told.sum::<usize>()
            + learned.service_name.as_ref().map_or(0, String::capacity)
            + texts.sum::<usize>();
        let entry = Entry { learned, generation, used: self.clock, bytes };
        self.bytes += bytes;
        if let Some(before) = self.entries.insert(identity, entry) {
            self.bytes -= before.bytes;
        }
        self.shrink();
    }

    /// Forgets the values of all variables that are not `wanted`.
    pub(super) fn keep_variables(&mut self, wanted: &[String]) {
        let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == name);
        for Entry { learned, .. } in self.entries.values_mut() {
            learned.variables.retain(|(name, _)| is_wanted(name));
            if !is_wanted(SERVICE_NAME) {
                learned.service_name = None;
            }
            if !is_wanted(RESOURCE_ATTRIBUTES) {
                learned.claims.clear();
            }
        }
    }

    /// Takes on another budget.
    pub(super) fn resize(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
        self.shrink();
    }

    /// Down to seven eighths of the budget at once, so that the search for what is oldest is rare.
    fn shrink(&mut self) {
        if self.bytes <= self.max_bytes {
            return;
        }
        let mut by_use: Vec<(u64, Identity)> = self.entries.iter().map(|(id, entry)| (entry.used, *id)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, identity) in by_use {
            if self.bytes <= self.max_bytes / 8 * 7 {
                break;
            }
            if let Some(entry) = self.entries.remove(&identity) {
                self.bytes -= entry.bytes;
                self.evicted += 1;
            }
        }
    }

    /// Processes, their bytes, and how many were given up for others.
    pub(super) fn size(&self) -> (usize, usize, u64) {
        (self.entries.len(), self.bytes, self.evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcessFacts;

    fn identity(pid: u32) -> Identity {
        ProcessFacts { pid, start_time_ns: 5, ..ProcessFacts::default() }.identity()
    }

    fn learned(text: &str) -> Learned {
        Learned { claims: vec![("A".to_owned(), text.to_owned())], ..Learned::default() }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_the_budget_holds() {
        let mut cache = Cache::new(100_000);
        for pid in 0..1000 {
            cache.insert(identity(pid), 0, learned(&"x".repeat(900)));
            assert!(cache.get(identity(0)).is_some(), "used all the time");
            let (count, bytes, evicted) = cache.size();
            assert!(bytes <= 100_000);
            assert_eq!(count as u64 + evicted, u64::from(pid) + 1);
        }
        assert!(cache.get(identity(999)).is_some());
        assert!(cache.get(identity(1)).is_none());
        cache.resize(0);
        assert_eq!(cache.size(), (0, 0, 1000));
    }

    #[test]
    fn a_process_learnt_again_counts_once() {
        let mut cache = Cache::new(1 << 20);
        cache.insert(identity(1), 0, learned("a"));
        let size = cache.size();
        assert!(cache.knows(identity(1), 0));
        assert!(!cache.knows(identity(1), 1));
        cache.insert(identity(1), 1, learned("b"));
        assert_eq!(cache.size(), size);
        assert_eq!(cache.get(identity(1)), Some(&learned("b")));
    }
}
