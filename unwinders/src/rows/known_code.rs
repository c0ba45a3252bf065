//! Code without unwind information that is known by its bytes: how programs and threads start, and how signal handlers return.
//!
//! musl has no call frame instructions at all, so without these no stack of a program linked with it would end, or get past
//! a signal. Only what no function covers is searched, and a bounded amount of it.

use profiler_address::ElfVaddr;
use profiler_bpf::abi::{CfaKind, Rule};

use profiler_elf::ElfParts;

use super::go::GREGS_AFTER_UCONTEXT;
use super::state;

/// Bytes of code searched in a program or C library. musl has 600 kB; what is larger is data among the code, or code that an
/// optimiser left behind (BOLT), and not worth the time.
const MAX_SEARCHED: usize = 1 << 20;
/// The same for libraries without an entry point, which can have linkage stubs at most.
const MAX_SEARCHED_IN_LIBRARY: usize = 1 << 16;

/// `mov rax, 15; syscall`: `rt_sigreturn`, in musl, in Go and, should it come without call frame instructions, in glibc.
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `xor ebp, ebp; pop rdi; call r9`: the child's side of musl's `__clone`.
const CLONE_CHILD: [u8; 6] = [0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1];
/// From there to the end of `__clone`.
const CLONE_CHILD_SIZE: u64 = 16;
/// `_start` and, in musl, the C function that it calls and that stands behind it; neither returns.
const ENTRY_SIZE: u64 = 96;

pub(super) const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// Nothing but the return address has been pushed.
const AT_ENTRY: Rule = Rule { cfa_kind: CfaKind::Reg as u8, cfa_reg: state::RSP as u8, cfa_off: 8, ..Rule::NONE };

/// A place that was recognised: `rule` holds from `first` up to `past`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) first: u64,
    pub(super) past: u64,
    pub(super) rule: Rule,
}

/// Searches what lies between functions.
#[derive(Debug)]
pub(super) struct KnownCode {
    left: usize,
    /// Look for the roots of musl's threads?
    roots: bool,
    /// Smallest gap worth a search, bytes. What is sought stands alone only in programs and C libraries, which have an entry point;
    /// in other libraries there are whole sections of stubs.
    smallest: u64,
}

impl KnownCode {
    pub(super) fn new(parts: &ElfParts<'_>) -> Self {
        let (left, smallest) = match parts.entry() {
            ElfVaddr(0) => (MAX_SEARCHED_IN_LIBRARY, 256),
            _ => (MAX_SEARCHED, SIGNAL_RETURN.len() as u64),
        };
        Self { left, roots: is_musl(parts), smallest }
    }

    /// May this be musl?
    pub(super) const fn musl(&self) -> bool {
        self.roots
    }

    /// Finds what is known of `code`, which is loaded at `start` and described by no function; in the order of addresses.
    pub(super) fn find(&mut self, code: &[u8], start: u64, parts: &ElfParts<'_>, found: &mut Vec<Known>) {
        if (code.len() as u64) < self.smallest || self.left == 0 {
            return;
        }
        let end = start + code.len() as u64;
        let Some(code) = code.get(..code.len().min(self.left)) else { return };
        self.left -= code.len();
        let entry =
            parts.entry().0.checked_sub(start).filter(|&offset| is_start(code, offset)).map(|offset| offset as usize);
        let mut from = 0;
        loop {
            let candidates = [find_next(code, from), entry.filter(|&entry| entry >= from)];
            let Some(at) = candidates.into_iter().flatten().min() else { break };
            let rest = code.get(at..).unwrap_or_default();
            let address = start + at as u64;
            let (first, size, rule): (u64, u64, Rule) = if entry == Some(at) {
                (address, ENTRY_SIZE, state::END)
            } else if rest.starts_with(&SIGNAL_RETURN) {
                // A handler's return address is its first byte, and return addresses are looked up one byte before.
                let first = address.saturating_sub(1).max(start);
                (first, SIGNAL_RETURN.len() as u64 + 1, state::signal(GREGS_AFTER_UCONTEXT))
            } else if rest.starts_with(&CLONE_CHILD) {
                (address, CLONE_CHILD_SIZE, state::END)
            } else if let Some(size) = root_call(rest).filter(|_| self.roots) {
                (address, size, state::END)
            } else if let Some(size) = indirect_jump(rest).filter(|_| address.is_multiple_of(8)) {
                (address, size, AT_ENTRY)
            } else {
                from = at + 1;
                continue;
            };
            let past = (first + size).min(end);
            found.push(Known { first, past, rule });
            from = (past - start) as usize;
        }
    }
}

/// The size of the call in `exit(main(...))` and `pthread_exit(start(...))`, which are the roots of musl's threads: an indirect call,
/// and its result straight into the next one. As nothing returns to it but `main` or a thread's function, the stack ends here.
fn root_call(code: &[u8]) -> Option<u64> {
    let rest = code.strip_prefix(&[0x41]).unwrap_or(code);
    // call reg, call [reg]; not the forms of [rsp], [rip + n]
    let &[0xff, modrm, ref after @ ..] = rest else { return None };
    if !matches!(modrm & 0xf8, 0xd0 | 0x10) || modrm & 0xc0 == 0 && matches!(modrm & 7, 4 | 5) {
        return None;
    }
    let passed = match after {
        // mov edi, eax; call exit; and nothing but padding, as exit doesn't return
        [0x89, 0xc7, 0xe8, _, _, _, _, 0x66 | 0x0f | 0x90 | 0xcc | 0xf4, ..] => true,
        // mov rdi, rax (movsxd rdi, eax for C11 threads); call pthread_exit
        [0x48, 0x89, 0xc7, 0xe8, ..] | [0x48, 0x63, 0xf8, 0xe8, ..] => true,
        _ => false,
    };
    passed.then_some((code.len() - after.len()) as u64)
}

/// Is it musl, or a static program, which may contain it? Only they have roots without call frame instructions; code that runtimes bring
/// along (V8's builtins) must not be taken for one.
fn is_musl(parts: &ElfParts<'_>) -> bool {
    let interpreter = parts.interpreter();
    let musl = interpreter.is_none_or(|path| path.windows(4).any(|part| part == b"musl"));
    musl && parts.entry() != ElfVaddr(0) && !parts.is_go()
}

/// The size of a procedure linkage stub, `jmp [rip + n]` with or without `endbr64` and `bnd` before it. Static programs have some
/// without call frame instructions, for functions that are chosen at start-up.
fn indirect_jump(code: &[u8]) -> Option<u64> {
    let rest = code.strip_prefix(&ENDBR64).unwrap_or(code);
    let rest = rest.strip_prefix(&[0xf2]).unwrap_or(rest);
    (rest.starts_with(&[0xff, 0x25]) && rest.len() >= 6).then_some((code.len() - rest.len() + 6) as u64)
}

/// The next place at or after `from` where something known may start.
fn find_next(code: &[u8], from: usize) -> Option<usize> {
    let found = code.get(from..)?.windows(2).position(|pair| {
        matches!(pair, [0xf3, 0x0f] | [0xff, _] | [0xf2 | 0x41, 0xff] | [0x48, 0x31 | 0xc7] | [0x31, 0xed])
    })?;
    Some(from + found)
}

/// Is this how programs start: with rbp set to zero, as the ABI asks of the outermost frame; or, as glibc's ld.so does, with
/// `mov rdi, rsp; call`, which hands the kernel's arguments on?
fn is_start(code: &[u8], offset: u64) -> bool {
    let Some(code) = usize::try_from(offset).ok().and_then(|offset| code.get(offset..)) else { return false };
    let code = code.strip_prefix(&ENDBR64).unwrap_or(code);
    code.starts_with(&[0x31, 0xed])
        || code.starts_with(&[0x48, 0x31, 0xed])
        || code.starts_with(&[0x48, 0x89, 0xe7, 0xe8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_of_musl_are_known() {
        // musl 1.2.3: libc_start_main_stage2, start, start_c11
        assert_eq!(root_call(&[0xff, 0xd3, 0x89, 0xc7, 0xe8, 0xff, 0xfb, 0xff, 0xff, 0x66, 0x2e]), Some(2));
        assert_eq!(root_call(&[0xff, 0x13, 0x48, 0x89, 0xc7, 0xe8, 0x3a, 0xfd, 0xff, 0xff]), Some(2));
        assert_eq!(root_call(&[0xff, 0x10, 0x48, 0x63, 0xf8, 0xe8, 0x0b, 0xfd, 0xff, 0xff]), Some(2));
        assert_eq!(root_call(&[0x41, 0xff, 0xd4, 0x89, 0xc7, 0xe8, 0, 0, 0, 0, 0x90]), Some(3));
        // More follows: some other function of a callback's result.
        assert_eq!(root_call(&[0xff, 0xd3, 0x89, 0xc7, 0xe8, 0xff, 0xfb, 0xff, 0xff, 0x48, 0x89]), None);
        assert_eq!(root_call(&[0xff, 0x25, 0x89, 0xc7, 0xe8]), None);
    }

    #[test]
    fn linkage_stubs_have_three_forms() {
        assert_eq!(indirect_jump(&[0xff, 0x25, 0, 0, 0, 0, 0x66, 0x90]), Some(6));
        assert_eq!(indirect_jump(&[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0, 0, 0, 0]), Some(10));
        assert_eq!(indirect_jump(&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0, 0, 0, 0]), Some(11));
        assert_eq!(indirect_jump(&[0xff, 0x15, 0, 0, 0, 0]), None);
    }
}
