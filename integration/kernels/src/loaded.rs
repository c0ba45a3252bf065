//! What the kernel says of BPF programs that are loaded: how much of them its verifier walked through, and which helpers they
//! call after it has cut away what this kernel lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};

use crate::error::Error;

/// The programs of the profiler, by the names that the kernel has for them.
pub const PROGRAMS: &[&str] = &["sample_cpu", "follow_fork", "forget_exit"];

/// Patience with a recording that begins.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);

/// A loaded program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked through; none before kernel 5.16, which does not tell.
    pub verified: Option<u32>,
    /// Helpers that it calls, by their names in the kernel.
    pub helpers: BTreeSet<String>,
}

impl Loaded {
    /// One line, which [`Self::parse`] reads.
    #[must_use]
    pub fn line(&self) -> String {
        let helpers: Vec<&str> = self.helpers.iter().map(String::as_str).collect();
        format!("{} {} {}", self.name, self.verified.unwrap_or(0), helpers.join(","))
    }

    /// What [`Self::line`] wrote.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = words.next().filter(|name| PROGRAMS.contains(name))?.to_owned();
        let verified = words.next()?.parse().ok().filter(|&count| count > 0);
        let helpers = words.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Self { name, verified, helpers })
    }
}

/// All loaded programs whose names are [`PROGRAMS`]; those of other profilers on the machine too.
///
/// # Errors
/// The kernel's symbols are hidden, or nothing of that name is loaded.
pub fn loaded() -> Result<Vec<Loaded>, Error> {
    told(of_the_profiler())
}

/// As [`loaded`], once there are any: an emulated machine takes its time to load them.
///
/// # Errors
/// The kernel's symbols are hidden, or nothing of that name is loaded within a minute.
pub fn once_loaded() -> Result<Vec<Loaded>, Error> {
    let until = Instant::now() + PATIENCE;
    let mut before = 0;
    loop {
        let programs = of_the_profiler();
        // They are loaded one after the other.
        if before > 0 && programs.len() == before || Instant::now() > until {
            return told(programs);
        }
        before = programs.len();
        sleep(STEP);
    }
}

/// What the kernel's symbols make of `programs`.
fn told(programs: Vec<Program>) -> Result<Vec<Loaded>, Error> {
    if programs.is_empty() {
        return Err(Error::Loaded("no program of the profiler is loaded"));
    }
    let symbols = fs::read_to_string("/proc/kallsyms").map_err(Error::file("read", "/proc/kallsyms"))?;
    let functions = functions(&symbols);
    let base = symbols.lines().find_map(|line| symbol(line).filter(|&(_, name)| name == "__bpf_call_base"));
    let Some((base, _)) = base.filter(|&(address, _)| address != 0) else {
        return Err(Error::Loaded("/proc/kallsyms hides the kernel's addresses (kernel.kptr_restrict, CAP_SYSLOG)"));
    };
    let told = |(name, verified, instructions): Program| {
        let helpers = called(&instructions, base).filter_map(|at| functions.get(&at).cloned()).collect();
        Loaded { name, verified: Some(verified).filter(|&count| count > 0), helpers }
    };
    Ok(programs.into_iter().map(told).collect())
}

/// Name, verified instructions and code of a loaded program.
type Program = (String, u32, Vec<u8>);

/// Each whose name is one of [`PROGRAMS`].
fn of_the_profiler() -> Vec<Program> {
    let options = ProgInfoQueryOptions::default().include_xlated_prog_insns(true);
    ProgInfoIter::with_query_opts(options)
        .map(|program| (program.name.to_string_lossy().into_owned(), program.verified_insns, program.xlated_prog_insns))
        .filter(|(name, ..)| PROGRAMS.contains(&name.as_str()))
        .collect()
}

/// Address and name in a line of kallsyms.
fn symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    Some((address, words.nth(1)?))
}

/// Those of the kernel itself that may be helpers.
fn functions(symbols: &str) -> BTreeMap<u64, String> {
    let helper = |name: &str| name.starts_with("bpf_") || name.contains("_map_") || name.starts_with("____bpf_");
    symbols
        .lines()
        .filter_map(symbol)
        .filter(|(_, name)| helper(name))
        .map(|(at, name)| (at, name.to_owned()))
        .collect()
}

/// Addresses that `instructions` (struct bpf_insn, in the form in which the kernel keeps them) call as helpers.
fn called(instructions: &[u8], base: u64) -> impl Iterator<Item = u64> {
    const CALL: u8 = 0x85;
    // The upper half of the registers says what kind of call: 0 is a helper's.
    let calls = instructions.as_chunks::<8>().0.iter().filter(|code| code[0] == CALL && code[1] >> 4 == 0);
    calls.map(move |&[.., a, b, c, d]| base.wrapping_add_signed(i64::from(i32::from_ne_bytes([a, b, c, d]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_told_from_other_calls() {
        let helper = [0x85, 0, 0, 0, 0x10, 0, 0, 0];
        let function = [0x85, 0x10, 0, 0, 0x20, 0, 0, 0];
        let other = [0xb7, 0, 0, 0, 0x30, 0, 0, 0];
        let before = [0x85, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff];
        let all = [helper, function, other, before].concat();
        assert_eq!(called(&all, 0x1000).collect::<Vec<_>>(), [0x1010, 0xff0]);
    }

    #[test]
    fn a_line_comes_back() {
        let helpers = ["bpf_get_stack", "bpf_task_pt_regs"].map(str::to_owned).into();
        let loaded = Loaded { name: "sample_cpu".into(), verified: Some(10_748), helpers };
        assert_eq!(Loaded::parse(&loaded.line()), Some(loaded));
        assert_eq!(Loaded::parse("anything else 7"), None);
        assert_eq!(symbol("ffffffff81000000 T bpf_get_stack"), Some((0xffff_ffff_8100_0000, "bpf_get_stack")));
    }
}
