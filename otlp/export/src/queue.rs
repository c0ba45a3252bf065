//! What waits in memory, and the counters that go with it.

use std::{collections::VecDeque, time::Instant};

use super::stats::ExportStats;
use crate::spool::Record;

/// Reason of what had to make room in memory.
pub(super) const QUEUE_FULL: &str = "queue full";
/// Reason of what had to make room on disk.
pub(super) const SPOOL_FULL: &str = "spool full";
/// Reason of what was still there when the time to shut down was over.
pub(super) const SHUTDOWN: &str = "shutdown";
/// Reason of what cannot be divided into requests that are small enough.
pub(super) const REQUEST_TOO_LARGE: &str = "request too large";

/// What happens to a record in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits to be written to the spool.
    ForSpool,
    /// It is being written to the spool.
    Writing,
    /// It waits to be sent.
    Ready,
    /// It is being sent.
    Sending,
}

/// A record in memory.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) id: u64,
    pub(super) record: Record,
    pub(super) since: Instant,
    pub(super) stage: Stage,
}

/// All that the exporter's threads and its owner share, under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    queue: VecDeque<Queued>,
    next_id: u64,
    pub(super) max_bytes: u64,
    pub(super) stats: ExportStats,
    /// Nothing more is accepted.
    pub(super) is_closing: bool,
}

impl State {
    /// Appends `record`; the oldest that can go makes room.
    pub(super) fn push(&mut self, record: Record, stage: Stage) {
        self.insert(self.queue.len(), record, Instant::now(), stage);
        while self.stats.queued_bytes > self.max_bytes {
            let oldest = self.queue.iter().position(|queued| matches!(queued.stage, Stage::ForSpool | Stage::Ready));
            let Some(gone) = oldest.and_then(|position| self.take_at(position)) else { break };
            self.stats.drop_samples(QUEUE_FULL, gone.record.samples);
        }
    }

    fn insert(&mut self, position: usize, record: Record, since: Instant, stage: Stage) {
        self.stats.queued_bytes += record.bytes.len() as u64;
        self.stats.queued_samples += record.samples;
        self.queue.insert(position, Queued { id: self.next_id, record, since, stage });
        self.next_id += 1;
    }

    fn take_at(&mut self, position: usize) -> Option<Queued> {
        let gone = self.queue.remove(position)?;
        self.stats.queued_bytes = self.stats.queued_bytes.saturating_sub(gone.record.bytes.len() as u64);
        self.stats.queued_samples = self.stats.queued_samples.saturating_sub(gone.record.samples);
        Some(gone)
    }

    /// Takes record `id` out; whoever does counts its samples elsewhere.
    pub(super) fn remove(&mut self, id: u64) -> Option<Queued> {
        let position = self.queue.iter().position(|queued| queued.id == id)?;
        self.take_at(position)
    }

    /// Puts `parts` in the place of record `id`.
    pub(super) fn replace(&mut self, id: u64, parts: Vec<Record>) {
        let Some(position) = self.queue.iter().position(|queued| queued.id == id) else { return };
        let Some(whole) = self.take_at(position) else { return };
        for part in parts.into_iter().rev() {
            self.insert(position, part, whole.since, Stage::Ready);
        }
    }

    /// Puts `record` before all others, ready to be sent.
    pub(super) fn push_front(&mut self, record: Record) {
        self.insert(0, record, Instant::now(), Stage::Ready);
    }

    /// Sets the stage of record `id`.
    pub(super) fn set_stage(&mut self, id: u64, stage: Stage) {
        if let Some(queued) = self.queue.iter_mut().find(|queued| queued.id == id) {
            queued.stage = stage;
        }
    }

    /// The oldest record in stage `from`, which goes to stage `to`.
    pub(super) fn advance(&mut self, from: Stage, to: Stage) -> Option<&Queued> {
        let queued = self.queue.iter_mut().find(|queued| queued.stage == from)?;
        queued.stage = to;
        Some(queued)
    }

    /// Whether nothing is in memory.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Gives up all that is in memory.
    pub(super) fn abandon(&mut self) {
        while let Some(gone) = self.take_at(0) {
            self.stats.drop_samples(SHUTDOWN, gone.record.samples);
        }
    }
}
