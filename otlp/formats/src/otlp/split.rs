//! Requests that a receiver takes: a profile in as few parts as a limit of bytes allows.

use bytes::Bytes;
use profiler_model::Profiles;

use super::encode::{OfProcess, Taken, by_process, encode_part, windows};
use crate::wire::{Value, fields};

/// One `ExportProfilesServiceRequest`, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The message, not compressed.
    pub bytes: Bytes,
    /// Samples that it holds, counted as entries of samples.
    pub samples: u64,
    /// Start of the window, ns since the Unix epoch.
    pub start_unix_nanos: u64,
    /// End of the window, ns since the Unix epoch.
    pub end_unix_nanos: u64,
}

/// A profile in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The parts; none if there is no sample.
    pub requests: Vec<Request>,
    /// Samples that are in no part, since each alone makes a request that is too large.
    pub oversized_samples: u64,
}

/// `profile` as requests of at most `max_bytes` each (before compression): whole if it fits, else by processes, and the samples of
/// one process by stack. Each part has a dictionary of its own with what it refers to and no more, and says the window of the
/// whole.
#[must_use]
pub fn split(profile: &Profiles, max_bytes: usize) -> Split {
    let mut split = Split::default();
    if profile.sample_entries() == 0 {
        return split;
    }
    let windows = windows(profile);
    let start = windows.iter().map(|window| window.0).min().unwrap_or(0);
    let end = windows.iter().map(|window| window.0.saturating_add(window.1)).max().unwrap_or(0);
    let mut waiting = vec![by_process(profile)];
    while let Some(part) = waiting.pop() {
        let bytes = encode_part(profile, &windows, &part);
        let samples = part.iter().map(|(_, samples)| samples.len()).sum::<usize>();
        if bytes.len() <= max_bytes {
            split.requests.push(Request {
                bytes: bytes.into(),
                samples: samples as u64,
                start_unix_nanos: start,
                end_unix_nanos: end,
            });
        } else if samples < 2 || is_hopeless(profile, &windows, &part, max_bytes) {
            split.oversized_samples += samples as u64;
        } else {
            // A little more than seems to be needed, since what the parts share is in each of them.
            let pieces = (bytes.len() + bytes.len() / 8) / max_bytes.max(1) + 1;
            waiting.extend(divided(part, samples, pieces.clamp(2, samples)).into_iter().rev());
        }
    }
    split
}

/// Whether the resource of a process is too large even without samples, so that there is no use in dividing them.
fn is_hopeless<'a>(profile: &'a Profiles, windows: &[(u64, u64)], part: &[OfProcess<'a>], max_bytes: usize) -> bool {
    match part {
        [(process, _)] => encode_part(profile, windows, &[(*process, Vec::new())]).len() > max_bytes,
        _ => false,
    }
}

/// `part` of `samples` samples, two at least, in `pieces`, two at least and more or less.
fn divided<'a>(part: Vec<OfProcess<'a>>, samples: usize, pieces: usize) -> Vec<Vec<OfProcess<'a>>> {
    let share = samples.div_ceil(pieces).max(1);
    if let [(process, of_process)] = part.as_slice() {
        let mut by_stack = of_process.clone();
        // Samples of one stack stay together where they can, and with them what only they refer to.
        by_stack.sort_by_key(|(_, sample): &Taken<'_>| sample.stack);
        return by_stack.chunks(share).map(|chunk| vec![(*process, chunk.to_vec())]).collect();
    }
    let mut all = Vec::new();
    let mut piece = Vec::new();
    let mut count = 0;
    for (process, of_process) in part {
        if !piece.is_empty() && count + of_process.len() > share {
            all.push(std::mem::take(&mut piece));
            count = 0;
        }
        count += of_process.len();
        piece.push((process, of_process));
    }
    all.push(piece);
    all
}

/// The number of Profile messages in `request`; 0 if it is damaged.
pub fn count_profiles(request: &[u8]) -> u64 {
    let mut count = 0;
    let inner = |bytes, number: u64| {
        fields(bytes, "OTLP request").filter_map(move |field| match field {
            Ok((found, Value::Bytes(bytes))) if found == number => Some(bytes),
            _ => None,
        })
    };
    for resource in inner(request, 1) {
        for scope in inner(resource, 2) {
            count += inner(scope, 2).count() as u64;
        }
    }
    count
}
