//! The governor: from what the agent uses to what it may do.
//!
//! ```text
//!  over budget      rate ─> lower ... ─> 9 Hz ─> symbol caches ─> row caches ─> pause      (CPU: from 9 Hz straight to pause,
//!  under 80 %       rate <─ higher ... <─ 9 Hz <─ symbol caches <─ row caches <─ pause         empty caches cost CPU time)
//! ```
//!
//! What is over is judged slowly, so that a burst costs nobody his samples; that it is over no more, by the last seconds alone, so
//! that the rate is back some seconds after the pressure has ended. A step up leads to 80 % of the budget by what the agent uses now,
//! as if all of it were proportional to the rate: where cost is at most that, it never leads over it, and nothing flaps. Where it does
//! all the same, each such failure doubles the wait before the next attempt.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Decision, Limits, Reason, Shed, Usage};

/// The lowest rate that the governor goes down to before it gives up anything else, Hz.
pub const FLOOR_HZ: u64 = 9;
/// Between a change and a restriction at least.
pub const MIN_DWELL: Duration = Duration::from_secs(10);
/// Under this share of the budget there is room.
pub const CALM_SHARE: f64 = 0.8;
/// How long there must be room before something is given back, at first; and twice as long before sampling itself is.
pub const RECOVERY: Duration = Duration::from_secs(2);
/// ... and at most, after attempts that failed.
const MAX_RECOVERY: Duration = Duration::from_secs(16 * 60);
/// A restriction so soon after something was given back shows that it was too early.
const RELAPSE: Duration = Duration::from_secs(60);
/// The rate is raised by this factor at most: the last seconds are not all that can happen ...
const MAX_STEP: f64 = 16.0;
/// ... and by this one where there is no budget of CPU time to foresee it by.
const BLIND_STEP: f64 = 4.0;
/// What is over the budget of CPU time is judged over this time at most ...
const CPU_WINDOW: Duration = Duration::from_secs(10);
/// ... and at least.
const MIN_CPU_WINDOW: Duration = Duration::from_secs(5);
/// Memory that is over by this factor is not to be brought back by small steps.
const FAR_OVER: f64 = 1.25;
/// Looks remembered.
const MAX_LOOKS: usize = 64;

/// Keeps the agent within [`Limits`].
#[derive(Clone, Debug)]
pub struct Governor {
    limits: Limits,
    /// The highest rate allowed, Hz.
    cap: Option<u64>,
    shed: Option<Shed>,
    /// What was shed before sampling was.
    before_pause: Option<Shed>,
    reason: Option<Reason>,
    /// Looks at the CPU time since the last change.
    looks: VecDeque<(Instant, f64)>,
    last_change: Option<Instant>,
    calm_since: Option<Instant>,
    recovery: Duration,
    last_relaxed: Option<Instant>,
    last_rate: Option<u64>,
}

impl Governor {
    /// Nothing is restricted yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            cap: None,
            shed: None,
            before_pause: None,
            reason: None,
            looks: VecDeque::new(),
            last_change: None,
            calm_since: None,
            recovery: RECOVERY,
            last_relaxed: None,
            last_rate: None,
        }
    }

    /// Other budgets from now on. What is restricted stays so until there is room.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.calm_since = None;
    }

    /// What the agent may do, by what it uses; to be called about once a second.
    pub fn observe(&mut self, usage: &Usage) -> Decision {
        let before = (self.cap, self.shed);
        // The first seconds are no measure: processes are read, libraries loaded.
        let last_change = *self.last_change.get_or_insert(usage.now);
        let settled = usage.now.saturating_duration_since(last_change) >= MIN_DWELL;
        self.look(usage);
        match self.pressure(usage) {
            Pressure::Over(reason, factor) => {
                self.calm_since = None;
                if settled {
                    self.restrict(usage, reason, factor);
                }
            }
            Pressure::Calm(since) => {
                let since = *self.calm_since.get_or_insert(since);
                // A pause looks calm whatever it is for.
                let patience = if self.shed == Some(Shed::Sampling) { self.recovery * 2 } else { self.recovery };
                if usage.now.saturating_duration_since(since) >= patience {
                    self.relax(usage, since);
                }
            }
            Pressure::Tight => self.calm_since = None,
            Pressure::Unknown => {}
        }
        if before != (self.cap, self.shed) {
            self.last_change = Some(usage.now);
            self.calm_since = None;
            self.looks.clear();
            self.look(usage);
        }
        let rate = self.rate(usage.asked_rate);
        let changed = before != (self.cap, self.shed) || self.last_rate.is_some_and(|last| last != rate);
        self.last_rate = Some(rate);
        let reason = self.reason.filter(|_| self.cap.is_some() || self.shed.is_some());
        Decision { cap: self.cap, rate, shed: self.shed, reason, changed }
    }

    fn rate(&self, asked: u64) -> u64 {
        self.cap.map_or(asked, |cap| cap.min(asked))
    }

    fn look(&mut self, usage: &Usage) {
        // CPU time only grows; a reading that failed is no reading.
        if self.looks.back().is_some_and(|&(time, cpu)| usage.now < time || usage.cpu_seconds < cpu) {
            return;
        }
        self.looks.push_back((usage.now, usage.cpu_seconds));
        // The window begins with the youngest look that is old enough.
        let old = |look: Option<&(Instant, f64)>| {
            look.is_some_and(|&(time, _)| usage.now.saturating_duration_since(time) >= CPU_WINDOW)
        };
        while old(self.looks.get(1)) || self.looks.len() > MAX_LOOKS {
            self.looks.pop_front();
        }
    }

    /// Share of the host's CPU time since the look `since`, and how long that is.
    fn cpu_share(&self, usage: &Usage, since: Option<&(Instant, f64)>) -> Option<(f64, Duration)> {
        let &(since, cpu) = since?;
        let passed = usage.now.saturating_duration_since(since);
        let share = (usage.cpu_seconds - cpu) / (passed.as_secs_f64() * f64::from(usage.cpus.max(1)));
        share.is_finite().then_some((share, passed))
    }

    /// The look that the last seconds begin with, if there were so many since the last change.
    fn recent(&self, usage: &Usage) -> Option<&(Instant, f64)> {
        self.looks.iter().rev().find(|(time, _)| usage.now.saturating_duration_since(*time) >= RECOVERY)
    }

    fn pressure(&self, usage: &Usage) -> Pressure {
        let mut since = usage.now;
        let mut worst = None;
        // Of the last seconds; none if that is not known yet.
        let mut recent = Some(0.0);
        if let Some(limit) = self.limits.memory_bytes {
            let factor = usage.memory_bytes as f64 / limit.max(1) as f64;
            worst = Some((factor, Reason::Memory { used: usage.memory_bytes, limit }));
            recent = Some(factor);
        }
        if let Some(limit) = self.limits.cpu_fraction {
            let budget = limit.max(f64::MIN_POSITIVE);
            let look = self.recent(usage);
            recent = recent.zip(self.cpu_share(usage, look)).map(|(memory, (used, _))| memory.max(used / budget));
            since = look.map_or(usage.now, |(time, _)| *time);
            if let Some((used, passed)) = self.cpu_share(usage, self.looks.front())
                && passed >= MIN_CPU_WINDOW
                && worst.is_none_or(|(other, _)| used / budget > other)
            {
                worst = Some((used / budget, Reason::Cpu { used, limit }));
            }
        }
        match (worst, recent) {
            // Over, and not only before.
            (Some((factor, reason)), recent) if factor > 1.0 && recent.is_none_or(|recent| recent >= CALM_SHARE) => {
                Pressure::Over(reason, factor)
            }
            (_, Some(recent)) if recent < CALM_SHARE => Pressure::Calm(since),
            (_, Some(_)) => Pressure::Tight,
            (_, None) => Pressure::Unknown,
        }
    }

    /// Takes something away.
    fn restrict(&mut self, usage: &Usage, reason: Reason, factor: f64) {
        let rate = self.rate(usage.asked_rate);
        let floor = FLOOR_HZ.min(usage.asked_rate);
        let memory = matches!(reason, Reason::Memory { .. });
        if rate > floor {
            let lower =
                if memory && factor > FAR_OVER { floor } else { (rate as f64 * (0.9 / factor).min(0.75)) as u64 };
            self.cap = Some(lower.max(floor));
        } else {
            let next = match self.shed {
                None if memory => Shed::SymbolCaches,
                Some(Shed::SymbolCaches) if memory => Shed::RowCaches,
                Some(Shed::Sampling) => return,
                _ => {
                    self.before_pause = self.shed;
                    Shed::Sampling
                }
            };
            self.shed = Some(next);
        }
        self.reason = Some(reason);
        // Giving back was too early: the next time is later.
        let relaxed = self.last_relaxed.take();
        let relapse = RELAPSE.max(self.recovery * 2);
        if relaxed.is_some_and(|at| usage.now.saturating_duration_since(at) < relapse) {
            self.recovery = (self.recovery * 2).min(MAX_RECOVERY);
        } else if relaxed.is_some() {
            self.recovery = RECOVERY;
        }
    }

    /// Gives something back, by what was used since the calm began.
    fn relax(&mut self, usage: &Usage, calm_since: Instant) {
        if let Some(shed) = self.shed {
            self.shed = match shed {
                Shed::Sampling => self.before_pause.take(),
                Shed::RowCaches => Some(Shed::SymbolCaches),
                Shed::SymbolCaches => None,
            };
        } else if let Some(cap) = self.cap {
            let step = self.step_up(usage, calm_since);
            let higher = ((cap as f64 * step) as u64).max(cap.saturating_add(1));
            self.cap = Some(higher).filter(|&higher| higher < usage.asked_rate);
        } else {
            return;
        }
        self.last_relaxed = Some(usage.now);
    }

    /// The factor by which the rate may rise.
    fn step_up(&self, usage: &Usage, calm_since: Instant) -> f64 {
        let Some(limit) = self.limits.cpu_fraction else { return BLIND_STEP };
        let calm = self.looks.iter().find(|(time, _)| *time >= calm_since);
        let used = self.cpu_share(usage, calm).map_or(f64::INFINITY, |(share, _)| share.max(f64::MIN_POSITIVE));
        (CALM_SHARE * limit / used).clamp(1.0, MAX_STEP)
    }
}

enum Pressure {
    Over(Reason, f64),
    /// Between calm and over.
    Tight,
    /// Since then at least.
    Calm(Instant),
    /// Not measured yet since the last change.
    Unknown,
}

#[cfg(test)]
mod tests;
