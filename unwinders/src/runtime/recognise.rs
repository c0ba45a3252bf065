//! Which runtime an executable is.

use profiler_bpf::abi::FrameKind;
use profiler_elf::Elf;

use super::{Symbols, all};

/// The runtime that `elf` is, by the symbol that it defines and exports.
pub(crate) fn recognise(elf: &Elf) -> Option<FrameKind> {
    let marks: Vec<&str> = all().iter().map(|runtime| runtime.mark()).collect();
    let found = Symbols::exported(elf, &marks);
    all().iter().find(|runtime| found.get(runtime.mark()).is_some()).map(|runtime| runtime.kind())
}
