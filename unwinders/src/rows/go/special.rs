//! Functions of Go's runtime that end a stack or leave it.

/// `abi.FuncFlagTopFrame`: stack walks end here.
const TOP_FRAME: u8 = 1;
/// `abi.FuncFlagSPWrite`: sp is set to something that pcsp can't say.
const SP_WRITE: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// Nothing called it.
    End,
    /// The signal trampoline.
    SignalReturn,
    /// Goes to another stack and back, and keeps its frame pointer meanwhile.
    Switches,
    /// Goes to the scheduler's stack for good.
    LeavesForGood,
}

/// What the function of this name, with these flags (`abi.FuncFlag`), does.
pub(super) fn of(name: &[u8], flags: u8) -> Option<Special> {
    match name {
        b"runtime.goexit" | b"runtime.mstart" | b"runtime.rt0_go" | b"_rt0_amd64" | b"_rt0_amd64_linux" => {
            return Some(Special::End);
        }
        b"runtime.sigreturn" | b"runtime.sigreturn__sigaction" => return Some(Special::SignalReturn),
        b"runtime.mcall" | b"runtime.morestack" => return Some(Special::LeavesForGood),
        b"runtime.systemstack" | b"runtime.asmcgocall" | b"runtime.asmcgocall.abi0" | b"runtime.systemstack.abi0" => {
            return Some(Special::Switches);
        }
        // Called by the kernel, with a return address that leads on to what the signal interrupted. Go's own walker stops here.
        b"runtime.sigtramp" | b"runtime.cgoSigtramp" => return None,
        // Leaves the thread's stack for the goroutine's, where it makes a frame of the same size.
        b"runtime.cgocallback" => return None,
        _ => {}
    }
    match flags {
        flags if flags & TOP_FRAME != 0 => Some(Special::End),
        flags if flags & SP_WRITE != 0 => Some(Special::Switches),
        _ => None,
    }
}

/// Offset past the first instruction that sets sp from memory, from another register, or by rounding.
pub(super) fn stack_switch(code: &[u8]) -> Option<u64> {
    // The switch is near the start; the runtime's largest such function has 700 bytes.
    let code = code.get(..1024).unwrap_or(code);
    for (at, window) in code.windows(4).enumerate() {
        let length = match *window {
            // mov rsp, [reg + disp8] and [reg + disp32]; [reg]
            [0x48 | 0x49, 0x8b, modrm, _] if modrm & 0x38 == 0x20 && modrm & 7 != 4 => match modrm >> 6 {
                1 => 4,
                2 => 7,
                0 if modrm & 7 != 5 => 3,
                _ => continue,
            },
            // mov rsp, reg
            [0x48 | 0x4c, 0x89, modrm, _] if modrm & 0xc7 == 0xc4 => 3,
            [0x48 | 0x49, 0x8b, modrm, _] if modrm & 0xf8 == 0xe0 => 3,
            // and rsp, imm8
            [0x48, 0x83, 0xe4, _] => 4,
            _ => continue,
        };
        return Some((at + length) as u64);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::stack_switch;

    #[test]
    fn the_switch_is_found_in_every_form_that_go_uses() {
        assert_eq!(stack_switch(&[0x90, 0x48, 0x8b, 0x62, 0x38, 0xc3]), Some(5)); // mov rsp, [rdx+0x38]
        assert_eq!(stack_switch(&[0x49, 0x8b, 0x66, 0x38]), Some(4)); // mov rsp, [r14+0x38]
        assert_eq!(stack_switch(&[0x48, 0x89, 0xfc, 0xc3]), Some(3)); // mov rsp, rdi
        assert_eq!(stack_switch(&[0x90, 0x48, 0x83, 0xe4, 0xf0]), Some(5)); // and rsp, -16
        assert_eq!(stack_switch(&[0x48, 0x8b, 0x44, 0x24, 0x08, 0xc3]), None); // mov rax, [rsp+8]
    }
}
