//! The kernel half of the profiler: BPF programs, their loader, perf events, and the layouts both sides share.
pub mod abi;
pub mod sideband;
