//! The calls that are allowed. Each set holds what glibc, musl and Rust's std make of it, in any version: with the calls that newer ones
//! prefer, and those that they fall back to.

use std::collections::{BTreeMap, BTreeSet};

use libc::c_long;
use seccompiler::{BackendError, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition, SeccompRule};

use crate::role::Calls;

/// The first number that nobody has looked at: `listns` of Linux 6.19. Numbers from 424 on are the same on all architectures.
pub(super) const FIRST_UNKNOWN: u32 = 470;
/// `clone3`.
pub(super) const CLONE3: u32 = 435;

/// Memory, threads, signals, time, own identity, reading files, waiting for descriptors, and giving up more.
#[rustfmt::skip]
const EVERY: &[c_long] = &[
    // memory; mmap and mprotect are below
    libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_mincore, libc::SYS_msync, libc::SYS_membarrier,
    libc::SYS_memfd_create, libc::SYS_mseal, MAP_SHADOW_STACK,
    // threads; clone is below
    libc::SYS_futex, libc::SYS_futex_waitv, FUTEX_WAKE, FUTEX_WAIT, FUTEX_REQUEUE, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_set_tid_address, libc::SYS_rseq, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam, libc::SYS_sched_getscheduler, libc::SYS_getcpu, libc::SYS_restart_syscall,
    // signals, to itself
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending, libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_tgkill,
    // time
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep, libc::SYS_gettimeofday,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    // itself and its host
    libc::SYS_getpid, libc::SYS_gettid, libc::SYS_getppid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid,
    libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_getpgid, libc::SYS_getsid, libc::SYS_uname,
    libc::SYS_sysinfo, libc::SYS_getrusage, libc::SYS_times, libc::SYS_getrandom, libc::SYS_getpriority, libc::SYS_capget,
    // descriptors, and sockets that are there already: signals are taken by a pair of them; ioctl and fcntl are below
    libc::SYS_read, libc::SYS_readv, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_write, libc::SYS_writev,
    libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_lseek, libc::SYS_close, libc::SYS_close_range, libc::SYS_dup,
    libc::SYS_dup3, libc::SYS_flock, libc::SYS_pipe2, libc::SYS_eventfd2, libc::SYS_epoll_create1, libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_ppoll, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_pselect6, libc::SYS_fadvise64, libc::SYS_readahead,
    // reading files; what is opened for writing is a matter of the file
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs,
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_umask,
    // giving up more
    libc::SYS_prctl, libc::SYS_capset, libc::SYS_seccomp, libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// What older libraries, and x86-64's, make instead.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const EVERY_OLD: &[c_long] = &[
    libc::SYS_arch_prctl, libc::SYS_time, libc::SYS_getpgrp, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_eventfd, libc::SYS_epoll_create,
    libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_select, libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access,
    libc::SYS_readlink, libc::SYS_getdents, libc::SYS_pause, libc::SYS_alarm,
];
#[cfg(not(target_arch = "x86_64"))]
const EVERY_OLD: &[c_long] = &[];

#[rustfmt::skip]
const WRITE: &[c_long] = &[
    libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_unlinkat, libc::SYS_mkdirat, libc::SYS_linkat, libc::SYS_fchmod, libc::SYS_fchmodat, FCHMODAT2,
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_copy_file_range, libc::SYS_sendfile, libc::SYS_splice,
];
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const WRITE_OLD: &[c_long] = &[
    libc::SYS_creat, libc::SYS_rename, libc::SYS_unlink, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_link, libc::SYS_chmod,
];
#[cfg(not(target_arch = "x86_64"))]
const WRITE_OLD: &[c_long] = &[];

/// Beside `socket` and `socketpair`.
#[rustfmt::skip]
const SOCKETS: &[c_long] = &[
    libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_sendmsg, libc::SYS_sendmmsg, libc::SYS_recvmsg,
    libc::SYS_recvmmsg, libc::SYS_shutdown, libc::SYS_setsockopt, libc::SYS_getsockopt,
];

const SAMPLE: &[c_long] = &[libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_setpriority];

const COMMAND: &[c_long] =
    &[libc::SYS_kill, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal];

#[rustfmt::skip]
const START: &[c_long] = &[
    libc::SYS_clone, libc::SYS_execve, libc::SYS_execveat, libc::SYS_kill, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_chdir, libc::SYS_setpgid, libc::SYS_setsid, libc::SYS_socketpair,
];
#[cfg(target_arch = "x86_64")]
const START_OLD: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const START_OLD: &[c_long] = &[];

// Numbers that not every version of the libc crate names.
const FCHMODAT2: c_long = 452;
const MAP_SHADOW_STACK: c_long = 453;
const FUTEX_WAKE: c_long = 454;
const FUTEX_WAIT: c_long = 455;
const FUTEX_REQUEUE: c_long = 456;

/// Calls by number; those without rules are allowed whatever their arguments, others if one of their rules holds.
pub(super) fn rules(calls: &BTreeSet<Calls>) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let mut rules = conditional()?;
    let mut allow = |list: &[c_long]| rules.extend(list.iter().map(|&call| (call, Vec::new())));
    allow(EVERY);
    allow(EVERY_OLD);
    for calls in calls {
        match calls {
            Calls::Sample => allow(SAMPLE),
            Calls::Memory => allow(&[libc::SYS_process_vm_readv]),
            Calls::Borrow => allow(&[libc::SYS_pidfd_open, libc::SYS_pidfd_getfd]),
            Calls::Write => {
                allow(WRITE);
                allow(WRITE_OLD);
            }
            Calls::Sockets | Calls::Local => allow(SOCKETS),
            Calls::Command => allow(COMMAND),
            Calls::Start => {
                allow(START);
                allow(START_OLD);
            }
        }
    }
    let starts = calls.contains(&Calls::Start);
    if !starts {
        // Signals to itself alone. Who starts processes leaves them its filter, and they are others.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![rule(&[(0, Width::Dword, Op::Eq, own)])?]);
    }
    let (internet, local) = (calls.contains(&Calls::Sockets), calls.contains(&Calls::Local));
    if internet && !starts && !calls.contains(&Calls::Write) {
        // Who speaks to others and writes no file opens none for writing, whatever its user may. What is opened by a structure in memory is
        // not to be seen by a filter.
        let writes = bits(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC);
        rules.insert(libc::SYS_openat, vec![rule(&[(2, Width::Dword, Op::MaskedEq(writes), 0)])?]);
        rules.remove(&libc::SYS_openat2);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, vec![rule(&[(1, Width::Dword, Op::MaskedEq(writes), 0)])?]);
    }
    if internet || local {
        // Neither packets nor netlink. A name service that asks for the host's addresses does without an answer, and one that is asked by a socket
        // of this host (nscd, nss-resolve) is passed over.
        let all = [(libc::AF_UNIX, local), (libc::AF_INET, internet), (libc::AF_INET6, internet)];
        let families: Vec<_> = all.into_iter().filter_map(|(family, allowed)| allowed.then_some(family)).collect();
        let family = |&family: &i32| rule(&[(0, Width::Dword, Op::Eq, u64::from(family.unsigned_abs()))]);
        rules.insert(libc::SYS_socket, families.iter().map(family).collect::<Result<_, _>>()?);
        // Streams alone, whose ends cannot be sent elsewhere.
        let streams = (1, Width::Dword, Op::MaskedEq(0xf), bits(libc::SOCK_STREAM));
        let pair = (0, Width::Dword, Op::Eq, bits(libc::AF_UNIX));
        rules.insert(libc::SYS_socketpair, vec![if local { rule(&[pair])? } else { rule(&[pair, streams])? }]);
    }
    Ok(rules)
}

/// Requests of ioctl(2) and fcntl(2) that libc has no names for.
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;

/// Flags, as a filter compares them.
fn bits(value: i32) -> u64 {
    u64::from(value.unsigned_abs())
}

/// Calls of every process that are allowed with some arguments only.
fn conditional() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> {
    let (write, execute) = (bits(libc::PROT_WRITE), bits(libc::PROT_EXEC));
    // Memory that can be written, or executed, or neither.
    let protection = || {
        let one = |value| rule(&[(2, Width::Dword, Op::MaskedEq(write | execute), value)]);
        [0, write, execute].into_iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let thread = bits(libc::CLONE_THREAD);
    // What types into a terminal; what has the kernel send a signal of one's choice to anybody of the same user (asm-generic/sockios.h).
    let types =
        [libc::TIOCSTI, libc::TIOCLINUX, FIOSETOWN, SIOCSPGRP].map(|request| (1, Width::Dword, Op::Ne, request));
    let owns = [libc::F_SETOWN, F_SETOWN_EX, F_SETSIG].map(|command| (1, Width::Dword, Op::Ne, bits(command)));
    // Nobody else's limits.
    let own = [(0, Width::Dword, Op::Eq, 0)];
    let mut rules = BTreeMap::from([
        (libc::SYS_mmap, protection()?),
        (libc::SYS_mprotect, protection()?),
        (libc::SYS_clone, vec![rule(&[(0, Width::Qword, Op::MaskedEq(thread), thread)])?]),
        (libc::SYS_ioctl, vec![rule(&types)?]),
        (libc::SYS_fcntl, vec![rule(&owns)?]),
        (libc::SYS_prlimit64, vec![rule(&own)?]),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.extend([(libc::SYS_getrlimit, Vec::new()), (libc::SYS_setrlimit, Vec::new())]);
    Ok(rules)
}

/// A rule that holds if all of `conditions` do: place of the argument, its width, how it is compared, with what.
fn rule(conditions: &[(u8, Width, Op, u64)]) -> Result<SeccompRule, BackendError> {
    let each =
        conditions.iter().map(|(at, width, op, value)| SeccompCondition::new(*at, width.clone(), op.clone(), *value));
    SeccompRule::new(each.collect::<Result<_, _>>()?)
}
