//! Which runtime an executable is.

use profiler_bpf::abi::FrameKind;
use profiler_elf::Elf;

use super::{Symbols, Unfollowed, all};

/// The runtime that `elf` is, by the symbol that it defines and exports; or the one that it is and that is not followed.
pub(crate) fn recognise(elf: &Elf) -> (Option<FrameKind>, Option<Unfollowed>) {
    let marks: Vec<&str> = all().iter().map(|runtime| runtime.mark()).collect();
    let found = Symbols::exported(elf, &marks);
    match all().iter().find(|runtime| found.get(runtime.mark()).is_some()) {
        Some(runtime) => (Some(runtime.kind()), None),
        None => (None, Unfollowed::of(elf)),
    }
}
