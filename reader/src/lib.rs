//! The reader: a process of its own that opens and parses what belongs to targets.
//!
//! ```text
//!  sampling thread                                 reader (the same binary, `__reader`)
//!  Reader: Reading ── request ── socket ──────────> serve: /proc texts, Executables, rows
//!     │            <─ answer, checked ────────────
//!     └ no answer while it stands still: killed, left behind, never waited for; its target is set aside; another is started
//! ```
//!
//! A file may be on a file system that its owner serves: opening, reading and even closing it can last as long as the owner likes, in
//! a sleep that no signal ends. A file may be made to cost memory. So whoever samples asks ([`Reader`]), and what is asked
//! for is done by somebody who can be given up. What a reader was doing when it stood still or died names the target that did it:
//! that target is not asked for again for a while, which is longer each time, and all others go on with another reader.
//!
//! What a reader knew of executables, its client knows too, and tells the next one; files are opened anew where they are needed.
//!
//! Answers are foreign input: lengths are bounded before anything is allocated, numbers and orders are checked before use.
//!
//! Names of frames are looked up by a second one ([`Namer`]), whom who publishes asks: slow naming delays nobody's rows. It has no files of its
//! own: it borrows those that the first one has open (`pidfd_getfd`), so that the profiler itself never has a descriptor that may be slow to close.
#![forbid(unsafe_code)]

mod channel;
mod client;
mod namer;
mod patience;
mod process;
mod role;
mod wire;

pub use client::{Options, Reader, Stats, user_of};
pub use namer::{Allowance, Namer, Object, Seen};
pub use role::{SUBCOMMAND, serve};

#[doc(hidden)]
pub mod fuzzing {
    //! For the fuzz targets.

    /// Decodes `bytes` as an answer, and takes in what it says.
    pub fn answer(bytes: &[u8]) {
        crate::wire::Answer::fuzz(bytes);
    }

    /// Decodes `bytes` as a request.
    pub fn request(bytes: &[u8]) {
        crate::wire::Request::fuzz(bytes);
    }
}
