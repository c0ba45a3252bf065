//! What of the kernel matrix can be proved on the running kernel, and runtimes of the archive that it takes kernels from.
#![forbid(unsafe_code)]

mod runtimes;
mod variants;
