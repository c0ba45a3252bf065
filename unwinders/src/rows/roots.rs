//! Functions that nothing calls, whatever their unwind information says: the stack ends with them.
//!
//! The kernel enters a program at its entry point; a compiler that is not told so describes it like any other function
//! (Zig's `_start`). A coroutine's first function returns to a function that was never called either, at its first byte (glibc's
//! `__start_context`): such a one takes its stack from a register that its callers would have to have kept for themselves. Of a
//! return address the byte before is looked up, which is none of its own.

use profiler_address::ElfVaddr;
use profiler_elf::ElfParts;

use super::known_code::ENDBR64;

/// Whether the function that starts at `start` can only be a root by what it does first: `mov rsp, rbx`, or `r12` to `r15`.
/// That is also how a part of a function may start that the compiler put elsewhere; those say so in their unwind information.
pub(super) fn takes_its_stack_from_a_saved_register(start: u64, parts: &ElfParts<'_>) -> bool {
    let Some(code) = parts.bytes_from(ElfVaddr(start)) else { return false };
    let code = code.strip_prefix(&ENDBR64).unwrap_or(code);
    matches!(
        code,
        [0x48, 0x89, 0xdc, ..]
            | [0x4c, 0x89, 0xe4 | 0xec | 0xf4 | 0xfc, ..]
            | [0x48, 0x8b, 0xe3, ..]
            | [0x49, 0x8b, 0xe4..=0xe7, ..]
    )
}

/// Whether a return address `start` can't be that of a call, whose last byte would be the one before.
pub(super) fn is_no_call_before(start: u64, parts: &ElfParts<'_>) -> bool {
    let before = |bytes: u64| parts.bytes_at(ElfVaddr(start.wrapping_sub(bytes)), bytes as usize);
    let is_call = |code: &[u8]| match *code {
        [0xe8, _, _, _, _] => true,
        // call r/m64, with its SIB byte and displacement.
        [0xff, modrm, ref rest @ ..] if (modrm >> 3) & 7 == 2 => {
            let sib = modrm >> 6 != 3 && modrm & 7 == 4;
            let displacement = match (modrm >> 6, modrm & 7) {
                (0, 5) => 4,
                (0, 4) if rest.first().is_some_and(|sib| sib & 7 == 5) => 4,
                (0 | 3, _) => 0,
                (1, _) => 1,
                _ => 4,
            };
            rest.len() == usize::from(sib) + displacement
        }
        _ => false,
    };
    // What was not read may be a call.
    before(1).is_some() && !(2..=7).any(|bytes| before(bytes).is_some_and(is_call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{RuleDictionary, compile};
    use profiler_bpf::abi::CfaKind;

    /// A program of this assembly, linked with nothing.
    fn built(name: &str, assembly: &str) -> Option<Vec<u8>> {
        if !profiler_need::have_tools(name, &["gcc"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("a.s"), folder.path().join(name));
        std::fs::write(&source, assembly).unwrap();
        let mut gcc = std::process::Command::new("gcc");
        gcc.args(["-nostdlib", "-static", "-o"]).arg(&program).arg(&source);
        assert!(gcc.status().unwrap().success());
        Some(std::fs::read(&program).unwrap())
    }

    #[test]
    fn every_kind_of_call_is_seen_before_an_address() {
        let Some(program) = built(
            "calls",
            "
            .text
            .globl _start
            _start: nop
            call _start
            a: call *%rax
            b: call *8(%rax)
            c: call *0x1000(%rbx)
            d: call *8(%rax,%rcx,8)
            e: call *0x1000(,%rcx,8)
            f: call *a(%rip)
            g: call *(%r12)
            h: call *%r13
            i: mov %rax, %rbx
            j: nop
            ",
        ) else {
            return;
        };
        let parts = ElfParts::parse(&program).unwrap();
        let start = parts.entry().0;
        // The ends of the instructions, by their lengths.
        let mut at = start + 1;
        for length in [5, 2, 3, 6, 4, 7, 6, 4, 3] {
            at += length;
            assert!(!is_no_call_before(at, &parts), "{:#x}", at - start);
        }
        assert!(is_no_call_before(at + 3, &parts), "a move");
        assert!(!is_no_call_before(start.wrapping_sub(1 << 20), &parts), "not read");
    }

    /// The entry point says nothing of an undefined return address, nor does the function to which a coroutine returns.
    const ROOTS: &str = "
        .text
        .globl _start
        .type _start, @function
        before:
            .cfi_startproc
            ret
            .cfi_endproc
        .p2align 4
        _start:
            .cfi_startproc
            xor %ebp, %ebp
            mov %rsp, %rdi
            and $-16, %rsp
            call before
            hlt
            .cfi_endproc
        .p2align 4
        between:
            .cfi_startproc
            ret
            .cfi_endproc
        .p2align 4
        context:
            .cfi_startproc
            mov %rbx, %rsp
            mov (%rsp), %rdi
            call before
            hlt
            .cfi_endproc
        .p2align 4
        tail:
            .cfi_startproc
            call before
            .cfi_endproc
        adjacent:
            .cfi_startproc
            mov %r12, %rsp
            hlt
            .cfi_endproc
        .p2align 4
        cold:
            .cfi_startproc
            .cfi_def_cfa rbp, 16
            mov %rbx, %rsp
            hlt
            .cfi_endproc
        .p2align 4
        plain:
            .cfi_startproc
            mov %rsp, %rbx
            ret
            .cfi_endproc
        .section places,\"a\",@progbits
            .quad before, _start, context, adjacent, cold, plain
        .section .note.GNU-stack,\"\",@progbits
    ";

    #[test]
    fn what_nothing_calls_ends_the_stack_from_the_byte_before_it_on() {
        let Some(bytes) = built("roots", ROOTS) else { return };
        let parts = ElfParts::parse(&bytes).unwrap();
        let mut rules = RuleDictionary::new();
        let rows = compile(&parts, &mut rules).unwrap();
        let ends =
            |address: u64| rules.rules()[usize::from(rows.rule_at(ElfVaddr(address)))].cfa_kind == CfaKind::End as u8;
        let places = parts.section("places").unwrap();
        let places = parts.bytes_at(places.address, 48).unwrap().as_chunks::<8>().0;
        let names = ["before", "_start", "context", "adjacent", "cold", "plain"];
        let of = |name| u64::from_le_bytes(places[names.iter().position(|known| *known == name).unwrap()]);
        assert_eq!(parts.entry().0, of("_start"));
        for (name, size) in [("_start", 14), ("context", 13)] {
            assert!(!ends(of(name) - 2), "{name}");
            for offset in 0..=size {
                assert!(ends(of(name) - 1 + offset), "{name} + {offset} - 1");
            }
        }
        assert!(ends(of("adjacent")) && !ends(of("adjacent") - 1), "a call may be what returns there");
        assert!(!ends(of("cold")), "its unwind information knows better");
        assert!(!ends(of("plain")) && !ends(of("before")));
    }
}
