//! The agent within its means: budgets of memory and CPU, the kill switch, and the one owner of the sampling rate.
//!
//! Pure decisions: somebody else measures and acts.
#![forbid(unsafe_code)]

mod arbiter;
mod governor;
mod kill_switch;

use std::fmt;
use std::time::Instant;

pub use arbiter::{Arbiter, Cap, Client, Request};
pub use governor::{CALM_SHARE, FLOOR_HZ, Governor, MIN_DWELL, RECOVERY};
pub use kill_switch::KillSwitch;

/// Budgets of the agent itself, its kernel half included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Share of the CPU time of all CPUs of the host: 0.02 on 8 CPUs is 0.16 of one CPU.
    pub cpu_fraction: Option<f64>,
}

/// What the agent uses at one time.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Bytes of memory, kernel maps included.
    pub memory_bytes: u64,
    /// CPU time since the start, BPF programs included, s.
    pub cpu_seconds: f64,
    /// CPUs that the host has online.
    pub cpus: u32,
    /// When that was.
    pub now: Instant,
    /// The rate that all others ask for, Hz: see [`Arbiter::rate_without`].
    pub asked_rate: u64,
}

/// What is given up beyond the rate, each with all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shed {
    /// Caches of names: emptied, and read again when needed.
    SymbolCaches,
    /// Unwind rows of executables that are not needed now, too.
    RowCaches,
    /// Sampling itself, until there is room again.
    Sampling,
}

impl Shed {
    /// 1 to 3, as the metric `profiler.shed.level` has it; 0 is nothing.
    #[must_use]
    pub const fn level(self) -> u64 {
        match self {
            Self::SymbolCaches => 1,
            Self::RowCaches => 2,
            Self::Sampling => 3,
        }
    }
}

/// Which budget, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// Bytes used and allowed.
    Memory {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Shares of the host's CPU time used and allowed.
    Cpu {
        /// Share in use over the last seconds.
        used: f64,
        /// Share allowed.
        limit: f64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Memory { used, limit } => {
                let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
                write!(f, "{:.1} MiB of memory, {:.1} MiB allowed", mib(used), mib(limit))
            }
            Self::Cpu { used, limit } => {
                write!(f, "{:.2} % of the host's CPU time, {:.2} % allowed", used * 100.0, limit * 100.0)
            }
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// What the governor asks for, Hz; none: it asks for nothing.
    pub cap: Option<u64>,
    /// The rate that comes of it, Hz; never above what all others ask for.
    pub rate: u64,
    /// What is to be given up; [`Shed::Sampling`] means to pause, whatever the rate.
    pub shed: Option<Shed>,
    /// The budget that the last restriction was for; none while nothing is restricted.
    pub reason: Option<Reason>,
    /// Whether this differs from the last decision: then it is to be acted upon, and said.
    pub changed: bool,
}

impl fmt::Display for Decision {
    /// A sentence for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            None => write!(f, "within budget: sampling at {} Hz", self.rate)?,
            Some(reason) => {
                write!(f, "for its budget ({reason} when it was last exceeded) the profiler ")?;
                match self.shed {
                    None => write!(f, "samples at {} Hz", self.rate)?,
                    Some(Shed::SymbolCaches) => write!(f, "samples at {} Hz and keeps no names", self.rate)?,
                    Some(Shed::RowCaches) => {
                        write!(f, "samples at {} Hz and keeps neither names nor idle unwind rows", self.rate)?
                    }
                    Some(Shed::Sampling) => f.write_str("does not sample")?,
                }
            }
        }
        Ok(())
    }
}
