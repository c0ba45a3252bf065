//! What a session takes and may take.

/// Bytes that the parts of a session may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Unwind rows, which kernel and user space share; what was used least recently makes room.
    pub rows: usize,
    /// Samples that were not taken yet ([`super::Session::take_aggregate`]); those beyond are dropped and counted. `usize::MAX`
    /// for what is kept to its end: 24 bytes a sample, and each stack once.
    pub aggregate: usize,
    /// Stacks remembered by their raw words.
    pub raw_stacks: usize,
    /// Samples that wait to be worked off. Beyond half of it they lose their copies of stacks, so that those of processes that are
    /// new stay unfinished; beyond all of it they are dropped and counted.
    pub waiting: usize,
}

impl Default for Budgets {
    /// Fit for a daemon.
    fn default() -> Self {
        Self { rows: 32 << 20, aggregate: 32 << 20, raw_stacks: 4 << 20, waiting: 16 << 20 }
    }
}

/// Bytes that the parts of a session take, to within some per cent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Unwind rows: memory that kernel and user space share.
    pub rows: usize,
    /// What the unwinder knows of processes and executables, besides.
    pub unwinder: usize,
    /// Executables.
    pub executables: usize,
    /// Processes.
    pub processes: usize,
    /// Samples that were not taken yet.
    pub aggregate: usize,
    /// Stacks remembered by their raw words.
    pub raw_stacks: usize,
    /// Samples that wait to be worked off.
    pub waiting: usize,
    /// The ring of samples, in the kernel.
    pub ring: usize,
    /// The rings of process events, in the kernel.
    pub sideband: usize,
    /// All other BPF maps, in the kernel.
    pub kernel_maps: usize,
}

impl MemoryUse {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.rows
            + self.unwinder
            + self.executables
            + self.processes
            + self.aggregate
            + self.raw_stacks
            + self.waiting
            + self.ring
            + self.sideband
            + self.kernel_maps
    }
}

/// How many entries the tables have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableUse {
    /// The tables that the kernel half reads.
    pub kernel: profiler_unwinders::publish::TableUse,
    /// Process images: living, ended and replaced.
    pub images: usize,
    /// Those of them that were sampled.
    pub sampled_images: usize,
    /// Executables.
    pub executables: usize,
    /// Files that are open for them.
    pub open_files: usize,
    /// Processes that the rules were held against.
    pub verdicts: usize,
}
