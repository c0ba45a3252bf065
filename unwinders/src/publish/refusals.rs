//! Runtimes that have no part in a process, and why: remembered, so that a process is not asked for ever, and counted.

use std::collections::BTreeMap;
use std::time::Duration;

use profiler_bpf::abi::FrameKind;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::executable::{Executable, ExecutableId};
use crate::runtime::{RuntimeError, of_kind};

/// A process is not asked again sooner, whatever is said of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Until a place may have become free.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Asked in vain so often, a runtime is asked half as often: it may never be ready.
const PATIENCE: u32 = 16;
/// It is counted as one that is not there when it was asked in vain so often: one that starts takes a few.
const NEVER_READY: u32 = 50;
/// Longest explanation that is logged, characters.
const MAX_WHY: usize = 200;
/// Pauses double up to this power.
const MAX_DOUBLINGS: u32 = 6;

/// Processes' runtimes that were refused, by name of the runtime and reason.
pub type Refused = BTreeMap<(&'static str, &'static str), u64>;

/// Those of one image of a process.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    asked: FxHashMap<(ExecutableId, FrameKind), Asked>,
    unfollowed: FxHashSet<ExecutableId>,
}

#[derive(Debug, Default)]
struct Asked {
    times: u32,
    for_good: bool,
    counted: Option<&'static str>,
}

impl Refusals {
    /// Whether nobody need ask any more.
    pub(super) fn is_for_good(&self, id: ExecutableId, kind: FrameKind) -> bool {
        self.asked.get(&(id, kind)).is_some_and(|asked| asked.for_good)
    }

    /// Takes in that a runtime was refused, and says after which pause it is to be asked again.
    pub(super) fn refuse(
        &mut self,
        id: ExecutableId,
        kind: FrameKind,
        error: &RuntimeError,
        counts: &mut Refused,
    ) -> Option<Duration> {
        if kind == FrameKind::NATIVE {
            return None;
        }
        let name = name_of(kind);
        let asked = self.asked.entry((id, kind)).or_default();
        asked.times = asked.times.saturating_add(1);
        let doubled = 1 << (asked.times / PATIENCE).min(MAX_DOUBLINGS);
        let (pause, reason) = match error {
            RuntimeError::NotReady(_, pause) => {
                let pause = (*pause).max(SHORTEST_PAUSE).saturating_mul(doubled);
                (Some(pause), (asked.times >= NEVER_READY).then_some("not ready"))
            }
            RuntimeError::TableFull(_) => (Some(FULL_PAUSE), Some("table full")),
            RuntimeError::Unsupported(_) => (None, Some("not supported")),
        };
        asked.for_good = pause.is_none();
        if let Some(reason) = reason {
            asked.count(name, reason, &error.to_string(), counts);
        }
        pause
    }

    /// There are more of a kind than a process may have.
    pub(super) fn too_many(&mut self, id: ExecutableId, kind: FrameKind, counts: &mut Refused) {
        let asked = self.asked.entry((id, kind)).or_default();
        asked.count(name_of(kind), "too many in one process", "no more of a kind have names in one process", counts);
    }

    /// It was there after all.
    pub(super) fn forget(&mut self, id: ExecutableId, kind: FrameKind) {
        self.asked.remove(&(id, kind));
    }

    /// One that is known, and not followed.
    pub(super) fn note(&mut self, executable: &Executable, counts: &mut Refused) {
        if let Some(unfollowed) = executable.unfollowed
            && self.unfollowed.insert(executable.id)
        {
            add(counts, unfollowed.name(), "not followed", unfollowed.why());
        }
    }

    /// Bytes that it takes, to within some per cent.
    pub(super) fn memory_bytes(&self) -> usize {
        self.asked.capacity() * (size_of::<((ExecutableId, FrameKind), Asked)>() + 1)
            + self.unfollowed.capacity() * (size_of::<ExecutableId>() + 1)
    }

    /// Those of executables that are not mapped any more are forgotten.
    pub(super) fn keep(&mut self, is_mapped: impl Fn(ExecutableId) -> bool) {
        self.asked.retain(|(id, _), _| is_mapped(*id));
        self.unfollowed.retain(|id| is_mapped(*id));
    }
}

fn name_of(kind: FrameKind) -> &'static str {
    of_kind(kind).map_or("another", |runtime| runtime.name())
}

impl Asked {
    /// Once for each reason that comes to be.
    fn count(&mut self, name: &'static str, reason: &'static str, why: &str, counts: &mut Refused) {
        if self.counted != Some(reason) {
            self.counted = Some(reason);
            add(counts, name, reason, why);
        }
    }
}

/// The first process of each kind is told: `profiler doctor -p PID` says the same of any.
fn add(counts: &mut Refused, name: &'static str, reason: &'static str, why: &str) {
    let count = counts.entry((name, reason)).or_default();
    *count += 1;
    if *count == 1 {
        let why: String = why.chars().take(MAX_WHY).flat_map(char::escape_debug).collect();
        tracing::info!(runtime = name, reason, %why, "Functions of a runtime have no names in some processes.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ExecutableId = ExecutableId(1);

    #[test]
    fn what_is_not_supported_is_counted_once_and_not_asked_again() {
        let (mut refusals, mut counts) = (Refusals::default(), Refused::new());
        let error = RuntimeError::Unsupported("CPython 3.7".to_owned());
        assert!(!refusals.is_for_good(ID, FrameKind::CPYTHON));
        for _ in 0..3 {
            assert_eq!(refusals.refuse(ID, FrameKind::CPYTHON, &error, &mut counts), None);
        }
        assert!(refusals.is_for_good(ID, FrameKind::CPYTHON) && !refusals.is_for_good(ID, FrameKind::V8));
        assert_eq!(counts, [(("CPython", "not supported"), 1)].into());
        refusals.keep(|_| false);
        assert!(!refusals.is_for_good(ID, FrameKind::CPYTHON));
    }

    #[test]
    fn what_is_never_ready_is_asked_less_and_less_and_counted() {
        let (mut refusals, mut counts) = (Refusals::default(), Refused::new());
        let error = RuntimeError::NotReady("it starts".to_owned(), Duration::from_millis(20));
        let mut pauses = Vec::new();
        for _ in 0..200 {
            pauses.extend(refusals.refuse(ID, FrameKind::HOTSPOT, &error, &mut counts));
        }
        assert_eq!((pauses.len(), pauses[0]), (200, SHORTEST_PAUSE));
        assert!(pauses.is_sorted() && pauses[199] == SHORTEST_PAUSE * 64, "{:?}", pauses[199]);
        assert_eq!(counts, [(("HotSpot", "not ready"), 1)].into());
        refusals.forget(ID, FrameKind::HOTSPOT);
        assert_eq!(refusals.refuse(ID, FrameKind::HOTSPOT, &error, &mut counts), Some(SHORTEST_PAUSE));
    }
}
