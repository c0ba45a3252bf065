//! The real profiler, on every kernel that is promised, with assertions on its stacks.
//!
//! Kernels are Debian's cloud kernels, in the versions that the machine's mirror of it has today ([`archives`],
//! [`packages`]). Each boots in qemu from an
//! initramfs ([`image`], [`machine`]) with the static `profiler`, programs that know the truth about themselves, and shell
//! scripts (`guest/init`, `guest/steps`) that record them. They print what was recorded on the serial console ([`transcript`]),
//! and it is judged ([`judge`]) as the tests of `profiler-integration` judge recordings of the host. The same steps run in
//! Vagrant's machines ([`bundle`]), where `kernel-check` judges.
//!
//! On arm64 a loader in C (`guest/arm64`) proves the kernel half alone.
//!
//! Not here: emulated hardware counters (qemu has none).
#![forbid(unsafe_code)]

pub mod archives;
pub mod bundle;
pub mod error;
pub mod favour;
pub mod guest;
pub mod image;
pub mod judge;
pub mod loaded;
pub mod machine;
pub mod packages;
pub mod rate;
pub mod table;
pub mod transcript;

pub use error::Error;
