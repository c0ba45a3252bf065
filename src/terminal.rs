//! What a recording shows on the terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use profiler_model::{FrameKind, Loss, Profiles, Summary, headline, summary};

use crate::output::{Written, human_bytes};
use crate::pipeline::{Totals, losses};
use crate::rules::{self, FILTERED};
use crate::shown;

/// Functions listed at the end.
const TOP: usize = 10;

/// The terminal while a recording runs.
#[derive(Debug)]
pub struct Terminal {
    bar: ProgressBar,
    quiet: bool,
}

impl Terminal {
    /// Says what is happening; a bar follows when the length is known, unless a command owns the terminal.
    pub fn start(what: &str, duration: Option<Duration>, has_command: bool, quiet: bool) -> Self {
        let show = !quiet && !has_command && std::io::stderr().is_terminal();
        let target = if show { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
        let (length, template) = match duration {
            Some(duration) => (Some(duration.as_millis() as u64), "{bar:30.cyan} {elapsed} / {prefix}  {msg}"),
            None => (None, "{spinner:.cyan} {elapsed}  {msg}"),
        };
        let bar = ProgressBar::with_draw_target(length, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if let Some(duration) = duration {
            bar.set_prefix(format!("{duration:?}"));
        }
        if !quiet {
            eprintln!("{}", shown::one_line(what));
        }
        Self { bar, quiet }
    }

    /// Brings the bar up to date.
    pub fn update(&self, elapsed: Duration, totals: &Totals) {
        self.bar.set_position(elapsed.as_millis() as u64);
        self.bar.set_message(format!(
            "{} samples, {} lost, {} incomplete",
            totals.samples(),
            losses::lost(totals).values().sum::<u64>(),
            totals.incomplete()
        ));
    }

    /// Says something beside the bar.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{}", shown::lines(text)));
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Where the time went, what was lost, and the files.
    pub fn report(&self, profile: &Profiles, written: &[Written]) {
        for written in written {
            if let Some((wanted, error)) = &written.instead_of {
                eprintln!("profiler: cannot write {}: {error}", shown::path(wanted));
                eprintln!("  The profile is in {} instead.", shown::path(&written.path));
            }
        }
        if self.quiet {
            return;
        }
        let summary = summary(profile);
        let share = |part: u64| 100.0 * part as f64 / summary.samples.max(1) as f64;
        if summary.samples == 0 {
            eprintln!("No samples: what was chosen did nothing that is sampled, or that was lost.");
        } else {
            let what = profile.shown(None).map(|shown| headline::amount(&shown)).unwrap_or_default();
            eprintln!(
                "{what}, {:.1} % with a complete stack, {:.0} % in the kernel",
                100.0 * summary.complete_share(),
                share(summary.kernel)
            );
        }
        // What else was counted; the figures are those of what is shown first.
        for (nth, measured) in profile.measured().iter().enumerate() {
            if nth != profile.shown_first() {
                eprintln!("{}", headline::amount(measured));
            }
        }
        // Losses are samples of all events, whatever each is worth.
        if let Some(overload) = overload(profile.sample_entries() as u64, &summary.losses) {
            eprintln!("{overload}");
        }
        self.top(&summary);
        // What was not wanted is no loss to whoever did not want it.
        let (filtered, losses): (Vec<_>, Vec<_>) = summary.losses.iter().partition(|loss| loss.reason == FILTERED);
        for loss in filtered {
            eprintln!("{}", rules::filtered(loss));
        }
        if losses.is_empty() {
            eprintln!("Nothing was lost.");
        } else {
            eprintln!("Lost or incomplete:");
            for loss in losses {
                eprintln!("  {:>8}  {}", loss.count, shown::one_line(&loss.reason));
            }
        }
        for written in written {
            if written.bytes > 0 {
                eprintln!("Wrote {} ({})", shown::path(&written.path), human_bytes(written.bytes));
            }
        }
    }

    fn top(&self, summary: &Summary) {
        if summary.functions.iter().all(|function| function.own == 0) {
            return;
        }
        eprintln!("   self   total  function");
        let share = |part: u64| 100.0 * part as f64 / summary.samples.max(1) as f64;
        for function in summary.functions.iter().filter(|function| function.own > 0).take(TOP) {
            let place = match (function.kind, function.file.as_str()) {
                (FrameKind::Kernel, "" | "[kernel.kallsyms]") => " [kernel]".to_owned(),
                (_, "") => String::new(),
                (_, file) => format!(" ({})", shown::one_line(file)),
            };
            let name: String = shown::one_line(&function.name).chars().take(80).collect();
            eprintln!("{:>6.1}% {:>6.1}%  {name}{place}", share(function.own), share(function.total));
        }
    }
}

/// What to say where more samples came than could be kept: then shares are those of what was kept, and that is less than it seems.
fn overload(kept: u64, losses: &[Loss]) -> Option<String> {
    // As `losses.rs` has them; where there are several events, each has its name behind.
    let reasons = ["lost: ring full", "lost: more than could be worked off", "lost: over the memory budget"];
    let is_sample = |loss: &&Loss| reasons.iter().any(|reason| loss.reason.starts_with(reason));
    let lost: u64 = losses.iter().filter(is_sample).map(|loss| loss.count).sum();
    let all = kept.saturating_add(lost);
    // A hiccup is no overload.
    (lost > all / 20).then(|| {
        format!(
            "Overload: of {all} samples {kept} could be kept, and the first of each process may lack its frames. Lower the rate (-F) or \
             choose processes (-p, --cgroup)."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_is_called_that_and_a_hiccup_is_not() {
        let loss = |reason: &str, count| Loss { reason: reason.to_owned(), count };
        let of = |losses: &[Loss]| overload(5000, losses);
        let said =
            of(&[loss("lost: ring full", 700_000), loss("lost: more than could be worked off (page-faults)", 5000)]);
        assert!(said.is_some_and(|said| said.contains("of 710000 samples 5000 could be kept")));
        assert_eq!(of(&[loss("lost: ring full", 100), loss("unwind: no mapping", 5000)]), None);
        assert_eq!(of(&[]), None);
        assert_eq!(overload(0, &[]), None);
    }
}
