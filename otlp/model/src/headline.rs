//! What a newcomer should read first: where, how long, how often, and what is missing.

use crate::{Loss, Measured, Profiles, counts_samples};

/// What [`Measured::title`] says of CPU time.
pub(crate) const CPU_PROFILE: &str = "CPU profile";

/// What `shown` counts, where that is not CPU time, and the target of the recording, or what can be said without knowing it.
#[must_use]
pub fn title(profile: &Profiles, shown: &Measured<'_>) -> String {
    let origin = &profile.origin;
    let target = match (shown.title(), origin.target.as_str()) {
        (what, "") => what,
        (what, target) if what == CPU_PROFILE => target.to_owned(),
        (what, target) => format!("{what}: {target}"),
    };
    if origin.host_name.is_empty() { target } else { format!("{target} on {}", origin.host_name) }
}

/// Kernel, rate, duration, samples and losses in one line.
#[must_use]
pub fn subtitle(profile: &Profiles, shown: &Measured<'_>) -> String {
    let origin = &profile.origin;
    let mut parts = Vec::new();
    if !origin.kernel_release.is_empty() {
        parts.push(format!("Linux {} {}", origin.kernel_release, origin.arch).trim_end().to_owned());
    }
    if origin.cpus > 0 {
        parts.push(format!("{} CPUs", origin.cpus));
    }
    if origin.frequency > 0 && shown.title() == CPU_PROFILE {
        parts.push(format!("{} Hz", origin.frequency));
    }
    let (start, end) = profile.window();
    if end > start {
        parts.push(format!("{:.1} s", (end - start) as f64 / 1e9));
    }
    parts.push(amount(shown));
    parts.push(losses(profile));
    parts.join(" · ")
}

/// The sum of all values with its unit: `120 samples`, `17 page faults`, `4096 bytes`.
#[must_use]
pub fn amount(shown: &Measured<'_>) -> String {
    let kind = shown.sample_type();
    match kind.unit.as_str() {
        _ if counts_samples(&kind) => format!("{} samples", shown.total()),
        "count" => format!("{} {}", shown.total(), kind.kind.replace(['_', '-'], " ")),
        unit => format!("{} {unit}", shown.total()),
    }
}

/// All losses in one phrase.
#[must_use]
pub fn losses(profile: &Profiles) -> String {
    let losses = profile.losses.iter().filter(|loss| loss.count > 0);
    let texts: Vec<_> = losses.map(|Loss { reason, count }| format!("{count} {reason}")).collect();
    if texts.is_empty() { "nothing lost".to_owned() } else { format!("missing: {}", texts.join(", ")) }
}
