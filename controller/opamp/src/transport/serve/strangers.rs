//! Connections on which nobody has said yet who it is: however many there are, those who do have room.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::locked;

/// All of a server.
pub(super) struct Strangers {
    most: usize,
    grace: Duration,
    /// By their order, since when each is here.
    waiting: Mutex<BTreeMap<u64, (Instant, Arc<Notify>)>>,
}

impl Strangers {
    /// `most` may stay. Of more, those are sent away that had longer than `grace`: who has something to say has said it by then.
    pub(super) fn new(most: usize, grace: Duration) -> Arc<Self> {
        Arc::new(Self { most, grace, waiting: Mutex::default() })
    }

    /// One more.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Stranger {
        let bell = Arc::new(Notify::new());
        let number = {
            let mut waiting = locked(&self.waiting);
            let number = waiting.last_key_value().map_or(0, |(last, _)| last + 1);
            waiting.insert(number, (now, Arc::clone(&bell)));
            number
        };
        self.thin(now);
        Stranger { all: Arc::clone(self), number, bell }
    }

    /// Sends those away that are too many.
    pub(super) fn thin(&self, now: Instant) {
        let mut waiting = locked(&self.waiting);
        while waiting.len() > self.most
            && let Some(first) = waiting.first_entry()
            && now.saturating_duration_since(first.get().0) > self.grace
        {
            first.remove().1.notify_one();
        }
    }
}

/// One of them.
pub(super) struct Stranger {
    all: Arc<Strangers>,
    number: u64,
    bell: Arc<Notify>,
}

impl Stranger {
    /// It is none any more.
    pub(super) fn becomes_known(&self) {
        let mut waiting = locked(&self.all.waiting);
        // Its number may be another's by now.
        if waiting.get(&self.number).is_some_and(|(_, bell)| Arc::ptr_eq(bell, &self.bell)) {
            waiting.remove(&self.number);
        }
    }

    /// Waits until it has to leave.
    pub(super) async fn sent_away(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.becomes_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_too_many_those_leave_that_have_waited_longest_and_those_that_are_known_stay() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let strangers = Strangers::new(2, 5 * second);
        let all: Vec<_> = (0..5).map(|number| strangers.enter(start + number * second)).collect();
        let left = |which: usize| locked(&strangers.waiting).get(&(which as u64)).is_none();
        let gone = || (0..5).map(left).collect::<Vec<_>>();
        assert_eq!(gone(), [false; 5], "each has some time");
        all[1].becomes_known();
        strangers.thin(start + 30 * second);
        assert_eq!(gone(), [true, true, true, false, false]);
        for sent in [0, 2] {
            tokio::time::timeout(60 * second, all[sent].sent_away()).await.unwrap();
        }
        drop(all);
        assert!(locked(&strangers.waiting).is_empty());
    }
}
