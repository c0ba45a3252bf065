//! What a newcomer should read first: where, how long, how often, and what is missing.

use crate::{Loss, Profile};

/// The target of the recording, or what can be said without knowing it.
pub fn title(profile: &Profile) -> String {
    let origin = &profile.origin;
    let target = if origin.target.is_empty() { "CPU profile" } else { &origin.target };
    if origin.host_name.is_empty() { target.to_owned() } else { format!("{target} on {}", origin.host_name) }
}

/// Kernel, rate, duration, samples and losses in one line.
pub fn subtitle(profile: &Profile) -> String {
    let origin = &profile.origin;
    let mut parts = Vec::new();
    if !origin.kernel_release.is_empty() {
        parts.push(format!("Linux {} {}", origin.kernel_release, origin.arch).trim_end().to_owned());
    }
    if origin.cpus > 0 {
        parts.push(format!("{} CPUs", origin.cpus));
    }
    if origin.frequency > 0 {
        parts.push(format!("{} Hz", origin.frequency));
    }
    if profile.duration_nanos > 0 {
        parts.push(format!("{:.1} s", profile.duration_nanos as f64 / 1e9));
    }
    parts.push(format!("{} samples", profile.sample_count()));
    parts.push(losses(profile));
    parts.join(" · ")
}

/// All losses in one phrase.
pub fn losses(profile: &Profile) -> String {
    let losses = profile.losses.iter().filter(|loss| loss.count > 0);
    let texts: Vec<_> = losses.map(|Loss { reason, count }| format!("{count} {reason}")).collect();
    if texts.is_empty() { "nothing lost".to_owned() } else { format!("missing: {}", texts.join(", ")) }
}
