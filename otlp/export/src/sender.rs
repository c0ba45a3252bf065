//! The thread that sends: one request at a time, until each has come to an end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use profiler_formats::otlp;
use profiler_network::Network;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{
    apart::Signal,
    backoff::Backoff,
    client::Client,
    outcome::{Outcome, PartialSuccess},
    payload,
    queue::REQUEST_TOO_LARGE,
    quiet::Quiet,
    settings::Settings,
    shared::{DAMAGED, Item, Next, Shared, Source, lock},
};
use crate::spool::{self, Record, RecordId};

/// Bytes below which a request is not divided any more: a receiver that refuses even this refuses for another reason.
const LEAST_REQUEST: usize = 16 << 10;

/// Reason of what failed for longer than [`RetryOptions::max_elapsed`](super::RetryOptions::max_elapsed).
const TOO_OLD: &str = "retries exhausted";

/// How long a record of the spool is tried whose file opens but whose bytes cannot be had: one bad sector must not hold up the rest
/// for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// A spool whose next record cannot be read just now: no descriptor is free, a network file system is away.
#[derive(Default)]
struct Unreadable {
    /// It is not tried before.
    until: Option<Instant>,
    /// The record whose bytes cannot be had, and since when.
    record: Option<(RecordId, Instant)>,
    backoff: Backoff,
    quiet: Quiet,
}

pub(super) struct Sender {
    shared: Arc<Shared>,
    client: Client,
    /// Who speaks to the receiver in our place.
    network: Option<Network>,
    backoff: Backoff,
    closing: watch::Receiver<Option<Instant>>,
    /// When the receiver first failed, if it does.
    failing_since: Option<Instant>,
    unreachable: Quiet,
    lost: Quiet,
    partial: Quiet,
    divided: Quiet,
    unreadable: Unreadable,
}

/// Returns when the time to shut down is over.
async fn deadline(closing: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match closing.wait_for(Option::is_some).await {
        Ok(found) => *found,
        // The exporter is gone.
        Err(_) => return,
    };
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// Returns at `instant`, if there is one.
async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, settings: Settings, network: Option<Network>) -> Self {
        let closing = shared.closing.subscribe();
        Self {
            shared,
            client: Client::by(settings, Signal::Profiles, network.as_ref()),
            network,
            backoff: Backoff::default(),
            closing,
            failing_since: None,
            unreachable: Quiet::default(),
            lost: Quiet::default(),
            partial: Quiet::default(),
            divided: Quiet::default(),
            unreadable: Unreadable::default(),
        }
    }

    /// Sends until the exporter closes and nothing is left, or its time is over.
    pub(super) async fn run(mut self) {
        let mut closing = self.closing.clone();
        tokio::select! {
            () = self.client.prepare() => {}
            // Whoever has nothing to send does not wait for it.
            _ = closing.wait_for(Option::is_some) => {}
        }
        loop {
            self.adopt();
            let now = Instant::now();
            let again = self.unreadable.until.filter(|until| now < *until);
            let hopeless = self.unreadable.record.filter(|(_, since)| now.duration_since(*since) >= PATIENCE);
            let item = match self.shared.next(again.is_some(), hopeless.map(|(id, _)| id)) {
                Next::Send(item) => {
                    if matches!(item.source, Source::Spool(_)) {
                        self.unreadable = Unreadable::default();
                    }
                    item
                }
                Next::Unreadable(id, error) => {
                    self.cannot_read(id, &error);
                    continue;
                }
                Next::End => return,
                Next::Wait => {
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        () = sleep_until(again) => {}
                        () = deadline(&mut closing) => return,
                    }
                    continue;
                }
            };
            let outcome = tokio::select! {
                outcome = self.attempt(&item.record) => outcome,
                () = deadline(&mut closing) => return self.shared.put_back(&item),
            };
            if !self.settle(&item, outcome).await {
                return;
            }
        }
    }

    /// Takes up new settings.
    fn adopt(&mut self) {
        let Some(settings) = lock(&self.shared.pending).take() else { return };
        self.client = Client::by(settings, Signal::Profiles, self.network.as_ref());
        self.backoff.succeeded();
        self.unreachable.end();
    }

    /// The spool's record `id` cannot be read now: the spool is passed over for a while.
    fn cannot_read(&mut self, id: RecordId, error: &spool::Error) {
        let now = Instant::now();
        let unreadable = &mut self.unreadable;
        unreadable.until = Some(now + unreadable.backoff.failed(&self.client.settings.options.retry));
        let known = unreadable.record.filter(|(known, _)| *known == id);
        unreadable.record = error.is_of_reading().then(|| known.unwrap_or((id, now)));
        if let Some(unsaid) = unreadable.quiet.speak(now) {
            let exporter = &self.shared.name;
            warn!(exporter, %error, unsaid, "The spool cannot be read; what is in it waits and is tried again");
        }
        self.shared.state().stats.last_error = Some((SystemTime::now(), error.to_string()));
    }

    async fn attempt(&mut self, record: &Record) -> Outcome {
        let Ok(record) = payload::recompressed(record, self.client.settings.options.compression) else {
            return Outcome::Refused {
                reason: DAMAGED,
                error: "a record of the spool cannot be decompressed".to_owned(),
            };
        };
        let begun = Instant::now();
        let outcome = self.client.attempt(&record).await;
        let stats = &mut self.shared.state().stats;
        stats.latency.record(begun.elapsed());
        stats.retries += std::mem::take(&mut self.client.repeated);
        outcome
    }

    /// Does with `item` what `outcome` says. Returns whether to go on.
    async fn settle(&mut self, item: &Item, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Delivered(partial) => {
                self.is_well();
                self.delivered(item, partial);
            }
            Outcome::TooLarge { reason, error } => {
                self.is_well();
                self.divide(item, reason, error);
            }
            Outcome::Refused { reason, error } => {
                self.is_well();
                self.refused(item, reason, error);
            }
            Outcome::Retry { error, after } => return self.failed(item, error, after).await,
        }
        true
    }

    /// The receiver answered.
    fn is_well(&mut self) {
        self.backoff.succeeded();
        self.unreachable.end();
        self.shared.state().stats.failures_in_a_row = 0;
        if let Some(since) = self.failing_since.take() {
            let waiting = self.shared.state().stats.queued_samples;
            let (endpoint, seconds) = (self.client.settings.destination.url.shown(), since.elapsed().as_secs());
            info!(
                exporter = self.shared.name,
                endpoint, seconds, waiting, "The receiver answers again; what waited is being sent"
            );
        }
    }

    fn delivered(&mut self, item: &Item, partial: Option<PartialSuccess>) {
        let record = &item.record;
        let rejected = match &partial {
            Some(partial) if partial.rejected_profiles > 0 => rejected_samples(record, partial.rejected_profiles),
            _ => 0,
        };
        self.shared.finish(item, |state| {
            let stats = &mut state.stats;
            stats.sent_samples += record.samples - rejected;
            stats.rejected_samples += rejected;
            stats.sent_requests += 1;
            stats.sent_raw_bytes += record.raw_bytes;
            stats.sent_wire_bytes += record.bytes.len() as u64;
            stats.last_success = Some(SystemTime::now());
            if let Some(PartialSuccess { rejected_profiles: 1.., message }) = &partial {
                stats.last_error = Some((SystemTime::now(), format!("partial success: {message}")));
            }
        });
        let Some(PartialSuccess { rejected_profiles, message }) = partial else { return };
        if let Some(unsaid) = self.partial.speak(Instant::now()) {
            let exporter = &self.shared.name;
            if rejected_profiles > 0 {
                error!(
                    exporter,
                    rejected_profiles,
                    samples = rejected,
                    message,
                    unsaid,
                    "The receiver refused profiles of a request"
                );
            } else {
                warn!(exporter, message, unsaid, "The receiver took a request with a warning");
            }
        }
    }

    fn refused(&mut self, item: &Item, reason: &'static str, error: String) {
        let samples = item.record.samples;
        if let Some(unsaid) = self.lost.speak(Instant::now()) {
            let endpoint = self.client.settings.destination.url.shown();
            error!(
                exporter = self.shared.name,
                endpoint, error, samples, unsaid, "The receiver refused a request, which is lost"
            );
        }
        self.shared.finish(item, |state| {
            state.stats.drop_samples(reason, samples);
            state.stats.last_error = Some((SystemTime::now(), error));
        });
    }

    /// Sends in parts what the receiver finds too large, and makes all later requests as small.
    fn divide(&mut self, item: &Item, reason: &'static str, error: String) {
        let record = &item.record;
        let limit = usize::try_from(record.raw_bytes / 2).unwrap_or(usize::MAX);
        let profile = payload::decompress(record).ok().and_then(|raw| otlp::decode(&raw).ok());
        let Some(profile) = profile.filter(|_| limit >= LEAST_REQUEST) else {
            return self.refused(item, if limit < LEAST_REQUEST { reason } else { REQUEST_TOO_LARGE }, error);
        };
        let split = otlp::split(&profile, limit);
        let compression = self.client.settings.options.compression;
        let mut parts: Vec<Record> = split.requests.iter().map(|part| payload::pack(part, compression)).collect();
        let lost = settle_counts(&mut parts, split.oversized_samples, record.samples);
        self.shared.max_request_bytes.fetch_min(limit, Ordering::Relaxed);
        if let Some(unsaid) = self.divided.speak(Instant::now()) {
            let exporter = &self.shared.name;
            warn!(
                exporter,
                error,
                parts = parts.len(),
                limit,
                unsaid,
                "A request was too large for the receiver and is sent in parts"
            );
        }
        self.shared.replace(item, parts, |state| {
            state.stats.divided_requests += 1;
            state.stats.drop_samples(REQUEST_TOO_LARGE, lost);
            state.stats.last_error = Some((SystemTime::now(), error));
        });
    }

    /// Waits before `item` is sent again, or gives it up. Returns whether to go on.
    async fn failed(&mut self, item: &Item, error: String, after: Option<Duration>) -> bool {
        let failing_since = *self.failing_since.get_or_insert_with(Instant::now);
        let endpoint = self.client.settings.destination.url.shown();
        if let Some(unsaid) = self.unreachable.speak(Instant::now()) {
            let (exporter, seconds) = (&self.shared.name, failing_since.elapsed().as_secs());
            warn!(
                exporter,
                endpoint, error, seconds, unsaid, "A request failed; it and what comes wait and are tried again"
            );
        }
        let max_elapsed = self.client.settings.options.retry.max_elapsed;
        let is_too_old = !max_elapsed.is_zero() && item.since.is_some_and(|since| since.elapsed() >= max_elapsed);
        if is_too_old {
            if let Some(unsaid) = self.lost.speak(Instant::now()) {
                let (exporter, samples) = (&self.shared.name, item.record.samples);
                error!(exporter, endpoint, samples, unsaid, "A request failed for too long and is lost");
            }
            self.shared.finish(item, |state| state.stats.drop_samples(TOO_OLD, item.record.samples));
        } else {
            self.shared.put_back(item);
        }
        {
            let stats = &mut self.shared.state().stats;
            stats.last_error = Some((SystemTime::now(), error));
            stats.failures_in_a_row += 1;
            stats.retries += u64::from(!is_too_old);
        }
        if is_too_old && after.is_none() {
            // The rest is as old, or has its own wait after its own failure.
            return true;
        }
        let is_closing = self.closing.borrow().is_some();
        if is_closing && matches!(item.source, Source::Spool(_)) {
            // The spool keeps it for the next process.
            return false;
        }
        // The receiver can ask for patience, not for haste: 0 s, or a date that a clock has passed, would mean at once.
        let own = self.backoff.failed(&self.client.settings.options.retry);
        let wait = after.map_or(own, |after| after.max(own));
        self.wait(wait, is_closing).await
    }

    /// Waits, less if there are new settings or certificates or the exporter closes. Returns whether to go on.
    async fn wait(&mut self, wait: Duration, was_closing: bool) -> bool {
        let until = Instant::now() + wait;
        let mut closing = self.closing.clone();
        loop {
            let now = Instant::now();
            if now >= until
                || lock(&self.shared.pending).is_some()
                || !was_closing && closing.borrow().is_some()
                || self.client.settings.wants_refresh()
            {
                return true;
            }
            // Certificates are looked at once a second.
            let slice = (until - now).min(Duration::from_secs(1));
            tokio::select! {
                () = tokio::time::sleep(slice) => {}
                () = self.shared.wake.notified() => {}
                () = deadline(&mut closing) => return false,
            }
        }
    }
}

/// The samples that stand behind `profiles` of those in `record`: a receiver counts profiles and does not say which.
fn rejected_samples(record: &Record, profiles: u64) -> u64 {
    let all = payload::decompress(record).map_or(1, |raw| otlp::count_profiles(&raw)).max(1);
    let share = u128::from(record.samples) * u128::from(profiles.min(all));
    u64::try_from(share.div_ceil(u128::from(all))).unwrap_or(record.samples).min(record.samples)
}

/// Makes the samples of `parts` add up to `total` less the `lost`, which are returned: reading a request merges samples that have
/// no time and are equal.
fn settle_counts(parts: &mut [Record], lost: u64, total: u64) -> u64 {
    let lost = lost.min(total);
    let mut left = total - lost;
    for part in parts.iter_mut() {
        part.samples = part.samples.min(left);
        left -= part.samples;
    }
    match parts.first_mut() {
        Some(first) => {
            first.samples += left;
            lost
        }
        None => total,
    }
}
