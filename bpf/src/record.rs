//! Samples as the kernel half sends them (twin of `struct sample` in `abi.h`).

use std::mem::offset_of;
use std::ops::Range;
use std::ptr;

use profiler_address::KernelAddr;

use crate::abi::layout;
use crate::frame;
pub use crate::frame::{NativeFrame, RuntimeFrame, UserFrame};

/// Frames that one user stack can have.
pub const MAX_USER_FRAMES: usize = 1024;
/// Their words: a runtime's frame has two.
pub const MAX_USER_WORDS: usize = 2048;

/// How a user stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UnwindEnd {
    /// The outermost frame was reached.
    Complete = 0,
    /// Frame pointers were followed until one was 0, as the ABI marks the outermost frame.
    FramePointerZero = 1,
    /// The stack has more than [`MAX_USER_FRAMES`] frames.
    TooDeep = 2,
    /// An instruction pointer is in no executable mapping that is known.
    NoMapping = 3,
    /// The executable's rows are not loaded yet.
    NotLoaded = 4,
    /// The stack's memory could not be read.
    ReadFailed = 5,
    /// The frame address did not rise.
    BadFrame = 6,
    /// A rule needs a register that only the interrupted frame has.
    Unsupported = 7,
    /// The process's mappings are not known yet.
    UnknownProcess = 8,
    /// A 32-bit process: not unwound.
    Compat = 9,
    /// A kernel thread: there is no user stack.
    NoUserStack = 10,
    /// The stack goes on above the part that was copied; only the first samples of a process or library are unwound from a
    /// copy.
    CopyTooShort = 11,
    /// The code has no unwind row, and what should be a frame pointer is none.
    NoRow = 12,
}

impl UnwindEnd {
    /// From the byte in a record; what is unknown is a bad frame.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Complete,
            1 => Self::FramePointerZero,
            2 => Self::TooDeep,
            3 => Self::NoMapping,
            4 => Self::NotLoaded,
            5 => Self::ReadFailed,
            7 => Self::Unsupported,
            8 => Self::UnknownProcess,
            9 => Self::Compat,
            10 => Self::NoUserStack,
            11 => Self::CopyTooShort,
            12 => Self::NoRow,
            _ => Self::BadFrame,
        }
    }

    /// Whether the stack is whole.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        matches!(self, Self::Complete | Self::FramePointerZero | Self::NoUserStack)
    }

    /// The reason, as users read it in an unfinished stack's last frame and in the loss table.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Complete | Self::FramePointerZero => "complete",
            Self::TooDeep => "unwind: more than 1024 frames",
            Self::NoMapping => "unwind: no mapping",
            Self::NotLoaded => "unwind: tables not loaded",
            Self::ReadFailed => "unwind: stack not readable",
            Self::BadFrame => "unwind: frame does not rise",
            Self::Unsupported => "unwind: rule needs a lost register",
            Self::UnknownProcess => "unwind: process gone before it was known",
            Self::Compat => "unwind: 32-bit process",
            Self::NoUserStack => "no user stack",
            Self::NoRow => "unwind: code without unwind information",
            Self::CopyTooShort => "unwind: stack longer than the copy",
        }
    }
}

/// The fixed head of a record; `struct sample`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SampleHead {
    /// `CLOCK_MONOTONIC`, ns.
    pub time: u64,
    /// Start of the process, `CLOCK_BOOTTIME`, ns.
    pub start_time: u64,
    /// `mm->start_code` of its address space.
    pub start_code: u64,
    /// `mm->start_stack` of its address space.
    pub start_stack: u64,
    /// What the sample stands for: ns of CPU time if a clock made it, else events.
    pub value: u64,
    /// Id of its v2 control group, the inode of its folder; 0 unless targets are rules.
    pub cgroup: u64,
    /// Thread group id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Thread group id of the real parent.
    pub parent_pid: u32,
    /// Logical CPU.
    pub cpu: u32,
    /// Serial of the mappings it was unwound with; 0: none.
    pub version: u32,
    /// Bytes of stack that follow the continuation; 0: no continuation.
    pub stack_bytes: u32,
    /// Kernel frames that follow.
    pub kernel_frames: u16,
    /// Words of user frames that follow.
    pub user_frames: u16,
    /// [`UnwindEnd`]
    pub end: u8,
    /// Which of the sources made it; see [`crate::Sampler::sources`].
    pub source: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// The thread's comm, NUL padded.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<SampleHead>() == 96);
const _: () = assert!(
    offset_of!(SampleHead, time) == 0
        && offset_of!(SampleHead, start_time) == 8
        && offset_of!(SampleHead, start_code) == 16
        && offset_of!(SampleHead, start_stack) == 24
        && offset_of!(SampleHead, value) == 32
        && offset_of!(SampleHead, cgroup) == 40
        && offset_of!(SampleHead, pid) == 48
        && offset_of!(SampleHead, tid) == 52
        && offset_of!(SampleHead, parent_pid) == 56
        && offset_of!(SampleHead, cpu) == 60
        && offset_of!(SampleHead, version) == 64
        && offset_of!(SampleHead, stack_bytes) == 68
        && offset_of!(SampleHead, kernel_frames) == 72
        && offset_of!(SampleHead, user_frames) == 74
        && offset_of!(SampleHead, end) == 76
        && offset_of!(SampleHead, source) == 77
        && offset_of!(SampleHead, comm) == 80
);

impl SampleHead {
    /// A record as the kernel half lays it out, with these frames (leaf first, the user's as [`UserFrame::words`]) and no copy of the
    /// stack: to replay or to feed.
    #[must_use]
    pub fn record(&self, kernel: &[u64], user: &[u64]) -> Vec<u8> {
        let count = |frames: &[u64]| u16::try_from(frames.len()).unwrap_or(u16::MAX);
        let head = Self { kernel_frames: count(kernel), user_frames: count(user), stack_bytes: 0, ..*self };
        // SAFETY: the head is integers without gaps between them, and the slice covers it exactly, for as long as `head` lives.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const head).cast::<u8>(), size_of::<Self>()) };
        let mut record = bytes.to_vec();
        for frames in [kernel, user] {
            record.extend(frames.iter().take(usize::from(u16::MAX)).flat_map(|frame| frame.to_ne_bytes()));
        }
        record
    }
}

/// Where the kernel half stopped: `struct continuation`. The frame at `ip` is not among the frames yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Continuation {
    /// Instruction pointer or return address.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// rbx.
    pub rbx: u64,
    /// 1 if this frame was interrupted, so that `regs` hold.
    pub leaf: u64,
    /// The guessed bit of the frame at `ip`.
    pub guessed: u64,
    /// The thread's; 0 if unknown.
    pub thread_pointer: u64,
    /// Of a runtime that keeps a stack of its own: its next frame.
    pub cursor: u64,
    /// 1 if `cursor` holds.
    pub begun: u64,
    /// User frames so far.
    pub depth: u64,
    /// Registers by DWARF number.
    pub regs: [u64; 16],
}
layout!(Continuation, 208, {
    ip: 0, sp: 8, fp: 16, rbx: 24, leaf: 32, guessed: 40, thread_pointer: 48, cursor: 56, begun: 64, depth: 72, regs: 80,
});

/// A sample, borrowed from the ring.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The fixed head.
    pub head: SampleHead,
    kernel: &'a [u8],
    user: &'a [u8],
    /// Where to go on, and the target's stack from `continuation.sp` on.
    pub continuation: Option<(Continuation, &'a [u8])>,
}

impl<'a> Sample<'a> {
    /// Reads one record; `None` if it, or a frame in it, is not whole, which only a bug can cause.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let (head, rest) = split::<SampleHead>(record)?;
        let (kernel, rest) = rest.split_at_checked(usize::from(head.kernel_frames) * 8)?;
        let (user, rest) = rest.split_at_checked(usize::from(head.user_frames) * 8)?;
        if !frame::are_whole(words(user)) {
            return None;
        }
        let continuation = if head.stack_bytes > 0 {
            let (continuation, stack) = split::<Continuation>(rest)?;
            Some((continuation, stack.get(..head.stack_bytes as usize)?))
        } else {
            None
        };
        Some(Self { head, kernel, user, continuation })
    }

    /// Kernel frames, leaf first; all but the first are return addresses.
    pub fn kernel_frames(&self) -> impl ExactSizeIterator<Item = KernelAddr> + 'a {
        words(self.kernel).map(KernelAddr)
    }

    /// User frames, leaf first.
    pub fn user_frames(&self) -> impl Iterator<Item = UserFrame> + 'a {
        frame::Decoder(self.user_words())
    }

    /// The words of the user frames.
    pub fn user_words(&self) -> impl ExactSizeIterator<Item = u64> + 'a {
        words(self.user)
    }

    /// Bytes of the record with no more than `most` bytes of the copy, where in it the length of the copy is, and that length then.
    pub(crate) fn extent_with_copy_of(&self, most: u32) -> (usize, Range<usize>, u32) {
        let field = offset_of!(SampleHead, stack_bytes);
        let frames = size_of::<SampleHead>() + self.kernel.len() + self.user.len();
        let kept = self.head.stack_bytes.min(most);
        let copy = if kept > 0 { size_of::<Continuation>() + kept as usize } else { 0 };
        (frames + copy, field..field + size_of::<u32>(), kept)
    }

    /// How the user stack ended.
    #[must_use]
    pub const fn end(&self) -> UnwindEnd {
        UnwindEnd::from_raw(self.head.end)
    }
}

/// The thread's name in `comm`, up to its first NUL.
#[must_use]
pub fn comm_bytes(comm: &[u8; 16]) -> &[u8] {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    &comm[..end]
}

fn words(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> + Clone + '_ {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word))
}

/// Plain old data of the ABI: any bytes are a valid value.
trait Plain: Copy {}
impl Plain for SampleHead {}
impl Plain for Continuation {}

fn split<T: Plain>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: `head` has the size of `T`, and `T` is `Plain`: integers only, valid for all bytes; the read is unaligned.
    Some((unsafe { ptr::read_unaligned(head.as_ptr().cast()) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Batch;

    /// A record of `kernel` and `user` frames, with a copy of `stack` bytes if that is not 0.
    fn record(kernel: u16, user: u16, stack: u32) -> Vec<u8> {
        let mut record = vec![7u8; 48];
        for word in [1, 2, 3, 0, 5, stack] {
            record.extend(u32::to_ne_bytes(word));
        }
        record.extend(kernel.to_ne_bytes());
        record.extend(user.to_ne_bytes());
        record.extend([4, 0, 0, 0]);
        record.extend([b'c'; 16]);
        record.resize(record.len() + 8 * usize::from(kernel + user), 0x80);
        if stack > 0 {
            record.resize(record.len() + size_of::<Continuation>() + stack as usize, 8);
        }
        record
    }

    #[test]
    fn with_a_short_copy_a_sample_is_the_same_otherwise() {
        let mut batch = Batch::default();
        for (kernel, user, stack) in [(3, 5, 0), (0, 2, 4096), (2, 0, 17), (0, 0, 0)] {
            batch.push(&record(kernel, user, stack));
        }
        let slim = batch.with_short_copies();
        assert_eq!(slim.len(), 4);
        assert!(slim.bytes() < 700 + 2 * 208 + 17 + 256 && batch.bytes() > 4096);
        for (before, after) in batch.samples().zip(slim.samples()) {
            let kept = before.head.stack_bytes.min(256);
            assert_eq!(after.head, SampleHead { stack_bytes: kept, ..before.head });
            let (before_copy, after_copy) = (before.continuation, after.continuation);
            assert_eq!(after_copy.map(|(registers, _)| registers), before_copy.map(|(registers, _)| registers));
            assert_eq!(after_copy.map(|(_, stack)| stack), before_copy.map(|(_, stack)| &stack[..kept as usize]));
            assert!(before.user_frames().eq(after.user_frames()) && before.kernel_frames().eq(after.kernel_frames()));
            assert_eq!(before.end(), UnwindEnd::NotLoaded);
        }
    }

    #[test]
    fn a_made_record_reads_as_it_was_made() {
        let made = SampleHead {
            time: 1,
            value: 2,
            pid: 3,
            cpu: 4,
            end: 1,
            comm: *b"made\0\0\0\0\0\0\0\0\0\0\0\0",
            ..SampleHead::default()
        };
        let record = made.record(&[7, 8], &[frame::FRAME_IS_IP | 9, 10, 11]);
        let read = Sample::parse(&record).unwrap();
        assert_eq!(read.head, SampleHead { kernel_frames: 2, user_frames: 3, ..made });
        assert!(read.kernel_frames().map(|frame| frame.0).eq([7, 8]));
        assert!(read.user_words().eq([frame::FRAME_IS_IP | 9, 10, 11]));
        assert!(read.continuation.is_none() && record.len() == 96 + 5 * 8);
    }

    #[test]
    fn a_record_whose_last_frame_lacks_its_second_word_is_none() {
        let runtime = UserFrame::Runtime(RuntimeFrame {
            kind: crate::abi::FrameKind::new(5).unwrap(),
            object: profiler_address::UserAddr(0x7f00_0000),
            position: 3,
            cookie: 4,
        });
        let mut user: Vec<u64> = vec![frame::FRAME_IS_IP | 9];
        user.extend(runtime.words());
        let made = SampleHead::default().record(&[], &user);
        assert_eq!(Sample::parse(&made).unwrap().user_frames().last(), Some(runtime));
        assert!(Sample::parse(&SampleHead::default().record(&[], &user[..2])).is_none());
    }

    #[test]
    fn a_record_cut_anywhere_is_none() {
        let whole = record(2, 3, 64);
        assert!(Sample::parse(&whole).is_some());
        for length in 0..whole.len() {
            assert!(Sample::parse(&whole[..length]).is_none(), "{length}");
        }
    }
}
