//! What the owner of an exporter, its sender and its spooler share.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{Notify, watch};
use tracing::{error, warn};

use super::{
    options::Compression,
    queue::{SPOOL_FULL, Stage, State},
    quiet::Quiet,
    settings::Settings,
};
use crate::spool::{self, Record, RecordId, Spool};

/// Reason of records of the spool that are not what was written.
pub(super) const DAMAGED: &str = "damaged spool record";

/// See the [module](self). Where both locks are needed, the spool's is taken first.
pub(super) struct Shared {
    pub(super) name: String,
    state: Mutex<State>,
    spool: Option<Mutex<Spool>>,
    /// New limit of the spool.
    pub(super) spool_max_bytes: AtomicU64,
    /// Limit of a request, which a receiver can lower.
    pub(super) max_request_bytes: AtomicUsize,
    pub(super) compression: Mutex<Compression>,
    /// Settings that the sender has not taken up yet.
    pub(super) pending: Mutex<Option<Settings>>,
    /// There is something for the sender.
    pub(super) wake: Notify,
    /// There is something for the spooler.
    pub(super) spooler: Condvar,
    /// When the exporter has to be at its end.
    pub(super) closing: watch::Sender<Option<Instant>>,
}

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Memory(u64),
    Spool(RecordId),
}

/// A record that is being sent.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) source: Source,
    pub(super) record: Record,
    /// Since when it waits; `None` in the spool, where age does not count.
    pub(super) since: Option<Instant>,
}

/// What there is to do.
pub(super) enum Next {
    Send(Item),
    /// The spool's next record cannot be read just now; it waits.
    Unreadable(RecordId, spool::Error),
    Wait,
    /// Nothing, and nothing will come.
    End,
}

/// `mutex`, locked. A thread that panicked did not leave half a change: all are of a few plain assignments.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(settings: &Settings, spool: Option<Spool>) -> Self {
        let options = &settings.options;
        let mut state = State::default();
        state.max_bytes = options.queue_bytes;
        state.stats.spool = spool.as_ref().map(|spool| spool.stats().clone());
        state.stats.restored_samples = spool.as_ref().map_or(0, |spool| spool.stats().restored_samples);
        Self {
            name: options.name.clone(),
            state: Mutex::new(state),
            spool: spool.map(Mutex::new),
            spool_max_bytes: AtomicU64::new(options.spool.as_ref().map_or(0, |spool| spool.max_bytes)),
            max_request_bytes: AtomicUsize::new(options.max_request_bytes),
            compression: Mutex::new(options.compression),
            pending: Mutex::new(None),
            wake: Notify::new(),
            spooler: Condvar::new(),
            closing: watch::Sender::new(None),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// The stage of what comes in.
    pub(super) fn first_stage(&self) -> Stage {
        if self.has_spool() { Stage::ForSpool } else { Stage::Ready }
    }

    /// What the sender is to do next: the spool first, since it has what is oldest, unless it is to be `passed_over`. If its record
    /// `hopeless` still cannot be read, it is given up.
    pub(super) fn next(&self, passed_over: bool, hopeless: Option<RecordId>) -> Next {
        if let Some(spool) = self.spool.as_ref().filter(|_| !passed_over) {
            let mut spool = lock(spool);
            while let Some((id, record)) = spool.take() {
                match record {
                    Ok(record) => return Next::Send(Item { source: Source::Spool(id), record, since: None }),
                    Err(error) if error.is_damage() || hopeless == Some(id) => {
                        self.give_up_unreadable(&mut spool, id, &error);
                    }
                    Err(error) => {
                        // Nobody took its segment meanwhile: the spool was locked all the time.
                        spool.put_back(id);
                        return Next::Unreadable(id, error);
                    }
                }
            }
        }
        let mut state = self.state();
        if let Some(queued) = state.advance(Stage::Ready, Stage::Sending) {
            let (id, record) = (queued.id, queued.record.clone());
            return Next::Send(Item { source: Source::Memory(id), record, since: Some(queued.since) });
        }
        if state.is_closing && state.is_empty() { Next::End } else { Next::Wait }
    }

    fn give_up_unreadable(&self, spool: &mut Spool, id: RecordId, error: &spool::Error) {
        error!(exporter = self.name, %error, "A record of the spool cannot be read and is lost");
        let before = spool.stats().samples;
        spool.finish(id);
        let mut state = self.state();
        state.stats.drop_samples(DAMAGED, before.saturating_sub(spool.stats().samples));
        state.stats.spool = Some(spool.stats().clone());
    }

    /// `item` has come to its end, which `count` notes.
    pub(super) fn finish(&self, item: &Item, count: impl FnOnce(&mut State)) {
        match (item.source, &self.spool) {
            (Source::Spool(id), Some(spool)) => {
                let mut spool = lock(spool);
                spool.finish(id);
                let mut state = self.state();
                state.stats.spool = Some(spool.stats().clone());
                count(&mut state);
            }
            (Source::Memory(id), _) => {
                let mut state = self.state();
                // Nobody else takes out what is being sent.
                if state.remove(id).is_some() {
                    count(&mut state);
                }
            }
            (Source::Spool(_), None) => {}
        }
    }

    /// `item` waits again.
    pub(super) fn put_back(&self, item: &Item) {
        match (item.source, &self.spool) {
            (Source::Spool(id), Some(spool)) => {
                let mut spool = lock(spool);
                let gone = spool.put_back(id);
                let mut state = self.state();
                state.stats.drop_samples(SPOOL_FULL, gone);
                state.stats.spool = Some(spool.stats().clone());
            }
            (Source::Memory(id), _) => self.state().set_stage(id, Stage::Ready),
            (Source::Spool(_), None) => {}
        }
    }

    /// `parts` take the place of `item`; `count` notes what is in none of them.
    pub(super) fn replace(&self, item: &Item, parts: Vec<Record>, count: impl FnOnce(&mut State)) {
        match (item.source, &self.spool) {
            (Source::Spool(id), Some(spool)) => {
                let mut spool = lock(spool);
                let mut discarded = 0;
                let mut left = Vec::new();
                for part in parts {
                    match spool.append(&part) {
                        Ok(samples) => discarded += samples,
                        Err(_) => left.push(part),
                    }
                }
                spool.finish(id);
                let mut state = self.state();
                state.stats.drop_samples(SPOOL_FULL, discarded);
                state.stats.spool = Some(spool.stats().clone());
                left.into_iter().rev().for_each(|part| state.push_front(part));
                count(&mut state);
            }
            (Source::Memory(id), _) => {
                let mut state = self.state();
                state.replace(id, parts);
                count(&mut state);
            }
            (Source::Spool(_), None) => {}
        }
    }

    /// The spooler's thread: writes what comes in to the spool, until the exporter closes.
    pub(super) fn write_spool(self: &Arc<Self>) {
        let Some(spool) = &self.spool else { return };
        let mut quiet = Quiet::default();
        loop {
            let (id, record) = {
                let mut state = self.state();
                loop {
                    if let Some(queued) = state.advance(Stage::ForSpool, Stage::Writing) {
                        break (queued.id, queued.record.clone());
                    }
                    if state.is_closing {
                        return;
                    }
                    state = self.spooler.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let mut spool = lock(spool);
            spool.set_max_bytes(self.spool_max_bytes.load(Ordering::Relaxed));
            let appended = spool.append(&record);
            let mut state = self.state();
            state.stats.spool = Some(spool.stats().clone());
            match appended {
                Ok(discarded) => {
                    state.remove(id);
                    state.stats.drop_samples(SPOOL_FULL, discarded);
                    quiet.end();
                }
                Err(error) => {
                    state.set_stage(id, Stage::Ready);
                    if let Some(unsaid) = quiet.speak(Instant::now()) {
                        warn!(exporter = self.name, %error, unsaid, "The spool takes nothing; profiles wait in memory alone");
                    }
                }
            }
            drop(state);
            drop(spool);
            self.wake.notify_one();
        }
    }
}
