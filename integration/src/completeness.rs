//! Whether stacks reach the root of their process or thread.

use profiler_model::FrameKind;

use crate::rows::{Frame, Row, is_function};

/// Functions that a thread's life begins in. What libc starts threads with has no name in a stripped libc; see [`is_root`].
const ROOTS: &[&str] = &[
    "_start",
    "_start_c",
    "__libc_start_main",
    // musl: main is called from here, by a jump out of __libc_start_main.
    "libc_start_main_stage2",
    "_dl_start_user",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "thread_start",
    "__thread_start",
    "__start_context",
    "runtime.goexit",
    "runtime.goexit.abi0",
    "runtime.goexit0",
    "runtime.mstart",
    "runtime.mstart.abi0",
    "runtime.rt0_go",
    "runtime.rt0_go.abi0",
    "runtime.mcall",
    // Runs on the thread's own stack, for a goroutine that needs a larger one; what follows belongs to the scheduler.
    "runtime.morestack",
    "runtime.morestack.abi0",
    "_rt0_amd64",
    "_rt0_amd64_linux",
];

/// Kernel functions of a process that has no user stack: just made, in exec, or exiting.
const WITHOUT_USER_STACK: &[&str] =
    &["do_exit", "do_group_exit", "ret_from_fork", "ret_from_fork_asm", "bprm_execve", "load_elf_binary"];

/// Counts of samples.
#[derive(Debug, Default)]
pub struct Completeness {
    /// Reach the root.
    pub complete: u64,
    /// Have no user stack, and cannot.
    pub kernel_only: u64,
    /// End too early, with a line for each row.
    pub incomplete: u64,
    /// The incomplete rows, described.
    pub evidence: Vec<String>,
}

impl Completeness {
    /// The complete share of what has a user stack; 1 if nothing has.
    #[must_use]
    pub fn share(&self) -> f64 {
        let all = self.complete + self.incomplete;
        if all == 0 { 1.0 } else { self.complete as f64 / all as f64 }
    }
}

/// True if `frame`, the outermost, is where a thread begins.
#[must_use]
pub fn is_root(frame: &Frame) -> bool {
    if frame.functions.iter().any(|name| ROOTS.iter().any(|root| is_function(name, root))) {
        return true;
    }
    // Debian's libc has no names for the two functions that all its threads start in, nor has its loader for its entry.
    let file = frame.file.rsplit('/').next().unwrap_or_default();
    frame.functions.is_empty()
        && (file.starts_with("libc.so") || file.starts_with("ld-linux") || file.starts_with("ld-musl"))
}

/// True if `row` has no whole stack of user space, and cannot have one: its process is just made, in exec, or exiting.
#[must_use]
pub fn is_kernel_only(row: &Row) -> bool {
    row.user_frames().next_back().is_none_or(|root| root.kind == FrameKind::Marker)
        && row
            .frames
            .iter()
            .flat_map(|frame| &frame.functions)
            .any(|name| WITHOUT_USER_STACK.iter().any(|function| is_function(name, function)))
}

/// Judges `rows`. `is_entry` tells the entry code of executables that have no symbols.
pub fn completeness<'a>(rows: impl IntoIterator<Item = &'a Row>, is_entry: impl Fn(&Frame) -> bool) -> Completeness {
    let mut result = Completeness::default();
    for row in rows {
        let root = row.user_frames().next_back();
        let is_whole = root.is_some_and(|root| is_root(root) || is_entry(root)) && row.marker().is_none();
        if is_whole {
            result.complete += row.count;
        } else if is_kernel_only(row) {
            result.kernel_only += row.count;
        } else {
            result.incomplete += row.count;
            result.evidence.push(row.describe());
        }
    }
    result
}
