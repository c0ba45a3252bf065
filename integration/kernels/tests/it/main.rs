//! What of the kernel matrix can be proved on the running kernel.
#![forbid(unsafe_code)]

mod variants;
