//! Which system calls a process may make.
//!
//! One filter of two parts:
//!
//! 1. what is newer than the [`table`] is not there: `ENOSYS`, after which libraries take the older call that they know. So is `clone3`,
//!    whose flags a filter cannot read: threads are made by `clone` then, whose flags it can;
//! 2. what is in the table is allowed, the rest is refused with `EPERM`.
//!
//! Calls are refused, never punished with the process's end: a call that somebody forgot here costs what it was for.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompFilter, TargetArch, apply_filter, apply_filter_all_threads, sock_filter,
};

use crate::report::Force;
use crate::role::Calls;

/// Whom a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// All threads.
    Process,
    /// The calling thread, and those that it will start.
    Thread,
}

/// Refuses all calls but those of `calls` and those that every process makes.
pub(crate) fn install(calls: &BTreeSet<Calls>, whose: Whose) -> Force {
    let apply = match whose {
        Whose::Process => apply_filter_all_threads,
        Whose::Thread => apply_filter,
    };
    let (filter, count) = match filter(calls) {
        Ok(filter) => filter,
        Err(error) => return Force::None(error.to_string()),
    };
    match apply(&filter) {
        Ok(()) => Force::Full(format!("{count} system calls")),
        Err(error) => Force::None(reason(&error)),
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Prctl(error) | Error::Seccomp(error) => format!("seccomp: {error}"),
        Error::ThreadSync(thread) => format!("seccomp: thread {thread} has a filter of its own"),
        other => other.to_string(),
    }
}

/// The filter, and how many calls it allows.
fn filter(calls: &BTreeSet<Calls>) -> Result<(BpfProgram, usize), Error> {
    let rules: BTreeMap<_, _> = table::rules(calls)?;
    let count = rules.len();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let of_table: BpfProgram = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture()?)?.try_into()?;
    let mut filter = unknown();
    // Jumps are relative.
    filter.extend(of_table);
    Ok((filter, count))
}

fn architecture() -> Result<TargetArch, Error> {
    std::env::consts::ARCH.try_into().map_err(Error::Backend)
}

/// The first part, which the second follows: the library knows rules for single calls, and none for a range of them.
fn unknown() -> BpfProgram {
    // linux/bpf_common.h: load a word of `struct seccomp_data`, whose first is the call's number; compare; return.
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let no_such_call = u32::from(SeccompAction::Errno(libc::ENOSYS.unsigned_abs()));
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        instruction(LOAD, 0, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 1, 0, table::FIRST_UNKNOWN),
        instruction(JUMP_IF_EQUAL, 0, 1, table::CLONE3),
        instruction(RETURN, 0, 0, no_such_call),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first part's answer for the call `number`; none if it leaves it to the second.
    fn answer(number: u32) -> Option<u32> {
        let (program, mut at) = (unknown(), 0);
        while let Some(one) = program.get(at) {
            let holds = match one.code {
                0x20 => false,
                0x35 => number >= one.k,
                0x15 => number == one.k,
                0x06 => return Some(one.k),
                code => panic!("{code:#x}"),
            };
            at += 1 + usize::from(if holds { one.jt } else { one.jf });
        }
        assert_eq!(at, program.len(), "at the second part's beginning");
        None
    }

    #[test]
    fn what_is_newer_than_the_table_is_not_there_and_the_rest_is_left_to_it() {
        let no_such_call = Some(0x0005_0000 | 38);
        assert_eq!(answer(0), None);
        assert_eq!(answer(table::FIRST_UNKNOWN - 1), None);
        assert_eq!(answer(table::FIRST_UNKNOWN), no_such_call);
        assert_eq!(answer(table::CLONE3), no_such_call);
        // x32 calls on x86-64.
        assert_eq!(answer(0x4000_0000), no_such_call);
    }

    #[test]
    fn who_starts_nothing_signals_itself_alone_and_who_only_speaks_opens_nothing_for_writing() {
        let is_conditional = |calls: &[Calls], call| {
            let rules = table::rules(&calls.iter().copied().collect()).unwrap();
            rules.get(&call).map(|conditions| !conditions.is_empty())
        };
        for calls in [&[][..], &[Calls::Memory, Calls::Borrow], &[Calls::Sockets]] {
            assert_eq!(is_conditional(calls, libc::SYS_tgkill), Some(true), "{calls:?}");
        }
        assert_eq!(is_conditional(&[Calls::Start], libc::SYS_tgkill), Some(false), "its children have its filter");
        assert_eq!(is_conditional(&[Calls::Sockets], libc::SYS_openat), Some(true));
        assert_eq!(is_conditional(&[Calls::Sockets], libc::SYS_openat2), None);
        assert_eq!(is_conditional(&[Calls::Sockets, Calls::Write], libc::SYS_openat), Some(false));
        assert_eq!(is_conditional(&[Calls::Memory], libc::SYS_openat), Some(false));
    }

    #[test]
    fn every_set_of_calls_makes_a_filter() {
        let all = [
            Calls::Sample,
            Calls::Memory,
            Calls::Borrow,
            Calls::Write,
            Calls::Sockets,
            Calls::Local,
            Calls::Command,
            Calls::Start,
        ];
        for bits in 0..1_u32 << all.len() {
            let calls = all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, calls)| *calls).collect();
            let (program, count) = filter(&calls).unwrap();
            assert!(count > 100 && program.len() < 4096, "{calls:?}: {count} calls, {} instructions", program.len());
        }
    }
}
