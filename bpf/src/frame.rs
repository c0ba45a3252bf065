//! Frames of user stacks, as words of a record.
//!
//! ```text
//! 63              62        61 .. 56     55 .. 0                 second word, if the kind is not 0
//! ip, not return  guessed   0: native    address
//! 0               0         kind         object                  cookie << 32 | position
//! ```

use std::fmt;

use profiler_address::UserAddr;

use crate::abi::FrameKind;

/// An instruction pointer (interrupted here), not a return address.
pub(crate) const FRAME_IS_IP: u64 = 1 << 63;
/// Found through a frame pointer for want of an unwind row.
pub(crate) const FRAME_GUESSED: u64 = 1 << 62;
const KIND_SHIFT: u32 = 56;
const ADDRESS_BITS: u64 = (1 << KIND_SHIFT) - 1;

/// One user frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserFrame {
    /// Machine code.
    Native(NativeFrame),
    /// A function of an interpreter or a JIT compiler.
    Runtime(RuntimeFrame),
}

/// A frame that is an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct NativeFrame(pub u64);

impl NativeFrame {
    /// Instruction pointer or return address.
    #[must_use]
    pub const fn address(self) -> UserAddr {
        UserAddr(self.0 & ADDRESS_BITS)
    }
    /// Whether it is an instruction pointer rather than a return address.
    #[must_use]
    pub const fn is_instruction_pointer(self) -> bool {
        self.0 & FRAME_IS_IP != 0
    }
    /// The address to look up: the instruction itself, or the call before a return address.
    #[must_use]
    pub const fn lookup_address(self) -> UserAddr {
        if self.is_instruction_pointer() { self.address() } else { self.address().call_site() }
    }
    /// Whether a frame pointer was followed for want of a row.
    #[must_use]
    pub const fn is_guessed(self) -> bool {
        self.0 & FRAME_GUESSED != 0
    }
}

impl fmt::Debug for NativeFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeFrame({:#x})", self.0)
    }
}

/// A frame that only its runtime can tell the meaning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuntimeFrame {
    /// Whose it is; never [`FrameKind::NATIVE`].
    pub kind: FrameKind,
    /// What runs: the address of its code object, method or function.
    pub object: UserAddr,
    /// Where in it, as its runtime counts.
    pub position: u32,
    /// Tells the object from another at the same address.
    pub cookie: u32,
}

impl UserFrame {
    /// The words of a record that say this.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let (first, second) = match *self {
            Self::Native(frame) => (frame.0, None),
            Self::Runtime(frame) => {
                let kind = u64::from(frame.kind.number()) << KIND_SHIFT;
                let second = u64::from(frame.cookie) << 32 | u64::from(frame.position);
                (frame.object.0 & ADDRESS_BITS | kind, Some(second))
            }
        };
        [Some(first), second].into_iter().flatten()
    }
}

/// The frames that words stand for; a word that lacks its second ends them.
#[derive(Clone, Debug)]
pub(crate) struct Decoder<I>(pub(crate) I);

impl<I: Iterator<Item = u64>> Iterator for Decoder<I> {
    type Item = UserFrame;

    fn next(&mut self) -> Option<UserFrame> {
        let word = self.0.next()?;
        let kind = FrameKind::new((word >> KIND_SHIFT) as u8 & (FrameKind::COUNT - 1))?;
        if kind == FrameKind::NATIVE {
            return Some(UserFrame::Native(NativeFrame(word)));
        }
        let second = self.0.next()?;
        Some(UserFrame::Runtime(RuntimeFrame {
            kind,
            object: UserAddr(word & ADDRESS_BITS),
            position: second as u32,
            cookie: (second >> 32) as u32,
        }))
    }
}

/// Whether every frame has all its words.
pub(crate) fn are_whole(words: impl Iterator<Item = u64> + Clone) -> bool {
    let frames = Decoder(words.clone());
    frames.map(|frame| frame.words().count()).sum::<usize>() == words.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_kind_read_as_they_were_written() {
        let mut frames = vec![UserFrame::Native(NativeFrame(FRAME_IS_IP | 0x40_1000))];
        for number in 1..FrameKind::COUNT {
            frames.push(UserFrame::Runtime(RuntimeFrame {
                kind: FrameKind::new(number).unwrap(),
                object: UserAddr(ADDRESS_BITS - u64::from(number)),
                position: u32::MAX - u32::from(number),
                cookie: 1 << 31 | u32::from(number),
            }));
            frames.push(UserFrame::Native(NativeFrame(FRAME_GUESSED | ADDRESS_BITS)));
        }
        let words: Vec<u64> = frames.iter().flat_map(UserFrame::words).collect();
        assert_eq!(words.len(), 1 + 63 * 3);
        assert!(Decoder(words.iter().copied()).eq(frames.iter().copied()));
        assert!(are_whole(words.iter().copied()));
        // Cut anywhere, what is whole is read and what is not is told.
        for length in 0..words.len() {
            let cut = &words[..length];
            let read: Vec<UserFrame> = Decoder(cut.iter().copied()).collect();
            assert_eq!(read, frames[..read.len()]);
            assert_eq!(are_whole(cut.iter().copied()), length % 3 != 2 || length == 0, "{length}");
        }
    }

    #[test]
    fn any_words_are_read_within_their_bounds() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for length in 0..200 {
            let mut words = Vec::new();
            for _ in 0..length {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                words.push(random);
            }
            let frames: Vec<UserFrame> = Decoder(words.iter().copied()).collect();
            assert!(frames.len() <= words.len());
            let used: usize = frames.iter().map(|frame| frame.words().count()).sum();
            assert!(words.len() - used <= 1);
            assert_eq!(are_whole(words.iter().copied()), used == words.len());
        }
    }
}
