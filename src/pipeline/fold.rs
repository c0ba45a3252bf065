//! What of an interpreter's own C functions is shown between the functions that it interprets.

use profiler_address::UserAddr;
use profiler_bpf::record::{NativeFrame, RuntimeFrame, UserFrame};
use profiler_unwinders::runtime::EvalLoop;

/// What a frame is to its interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A function that is interpreted.
    Function,
    /// The interpreter's own code.
    Interpreter,
    /// What it has made to call a function by, which is shown itself.
    Trampoline,
    /// Anything else.
    Other,
}

/// Leaves out, of a stack that is leaf first, the interpreter's code between two of its functions, and the evaluation loop below the
/// function that it runs. What the innermost function called is shown, and what the outermost was called by.
pub(super) fn fold<T>(stack: &mut Vec<(T, Part)>) {
    let is_function = |(_, part): &(T, Part)| *part == Part::Function;
    let Some(first) = stack.iter().position(is_function) else { return };
    let last = stack.iter().rposition(is_function).unwrap_or(first);
    let mut place = 0;
    stack.retain(|(_, part)| {
        let here = place;
        place += 1;
        // The loop stands right before what it runs.
        *part != Part::Trampoline && !(*part == Part::Interpreter && here + 1 >= first && here < last)
    });
}

/// The frames with each run of interpreted functions at the loop that runs it.
///
/// A loop that has just been entered, or is about to return, runs nothing: then the innermost has got the run of the next, that one the one
/// after, and nothing was left for the outermost.
pub(super) fn restitched(frames: Vec<UserFrame>, of_loop: impl Fn(&NativeFrame) -> Option<EvalLoop>) -> Vec<UserFrame> {
    let loops: Vec<usize> = (0..frames.len())
        .filter(|&at| matches!(frames.get(at), Some(UserFrame::Native(frame)) if of_loop(frame).is_some()))
        .collect();
    let run = |at: usize| {
        let rest = frames.get(at + 1..).unwrap_or_default();
        let length = rest.iter().take_while(|frame| matches!(frame, UserFrame::Runtime(_))).count();
        rest.get(..length).unwrap_or_default()
    };
    let runs: Vec<&[UserFrame]> = loops.iter().map(|&at| run(at)).collect();
    let is_short = match runs.split_last() {
        Some((last, before)) => last.is_empty() && !before.is_empty() && before.iter().all(|run| !run.is_empty()),
        None => false,
    };
    if !is_short {
        return frames;
    }
    let mut found = Vec::with_capacity(frames.len());
    let mut before = None;
    for (at, frame) in frames.iter().enumerate() {
        if matches!(frame, UserFrame::Runtime(_)) {
            continue;
        }
        found.push(*frame);
        if let Ok(number) = loops.binary_search(&at) {
            if let Some(run) = before {
                found.extend_from_slice(run);
            }
            before = runs.get(number).copied();
        }
    }
    found
}

/// The frames of a stack that user space finished, with one that says so where functions are missing: at the innermost loop without any.
pub(super) fn marked(mut frames: Vec<UserFrame>, of_loop: impl Fn(&NativeFrame) -> Option<EvalLoop>) -> Vec<UserFrame> {
    let lacks = |at: usize| match (frames.get(at), frames.get(at + 1)) {
        (Some(UserFrame::Native(_)), Some(UserFrame::Runtime(_))) => None,
        (Some(UserFrame::Native(frame)), _) => Some((at, of_loop(frame)?)),
        _ => None,
    };
    if let Some((at, EvalLoop { kind, too_early })) = (0..frames.len()).find_map(lacks) {
        let (object, position) = (UserAddr(0), too_early);
        frames.insert(at + 1, UserFrame::Runtime(RuntimeFrame { kind, object, position, cookie: 0 }));
    }
    frames
}

#[cfg(test)]
mod tests {
    use profiler_bpf::abi::FrameKind;

    use super::Part::{Function, Interpreter, Other, Trampoline};
    use super::{NativeFrame, Part, RuntimeFrame, UserAddr, UserFrame, fold, marked, restitched};

    fn folded(parts: &[Part]) -> Vec<usize> {
        let mut stack: Vec<(usize, Part)> = parts.iter().copied().enumerate().collect();
        fold(&mut stack);
        stack.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn only_what_lies_between_functions_is_folded() {
        // libc, the interpreter's sort, its loop, two functions, glue, an extension, glue, its loop, a function, what started it
        let stack = [
            Other,
            Interpreter,
            Interpreter,
            Function,
            Function,
            Interpreter,
            Other,
            Interpreter,
            Interpreter,
            Function,
            Interpreter,
            Other,
        ];
        assert_eq!(folded(&stack), [0, 1, 3, 4, 6, 9, 10, 11]);
        assert_eq!(folded(&[Interpreter, Other, Interpreter]), [0, 1, 2], "no function");
        assert_eq!(folded(&[Function]), [0]);
        assert_eq!(folded(&[Interpreter, Function, Trampoline, Interpreter, Function, Trampoline, Other]), [1, 4, 6]);
    }

    fn native(address: u64) -> UserFrame {
        UserFrame::Native(NativeFrame(address))
    }

    fn python(object: u64) -> UserFrame {
        let kind = FrameKind::CPYTHON;
        UserFrame::Runtime(RuntimeFrame { kind, object: UserAddr(object), position: 0, cookie: 0 })
    }

    #[test]
    fn a_loop_that_runs_nothing_yet_takes_no_run_from_others() {
        let of_loop =
            |frame: &NativeFrame| profiler_unwinders::runtime::eval_loop(FrameKind::CPYTHON).filter(|_| frame.0 < 10);
        let entered =
            vec![native(1), python(100), python(101), native(50), native(2), python(102), native(51), native(3)];
        let right = [native(1), native(50), native(2), python(100), python(101), native(51), native(3), python(102)];
        assert_eq!(restitched(entered.clone(), of_loop), right);
        let told = marked(entered.clone(), of_loop);
        assert_eq!(told.len(), entered.len() + 1);
        assert!(
            matches!(told.last(), Some(UserFrame::Runtime(frame)) if frame.position == 3 && frame.kind == FrameKind::CPYTHON)
        );
        let whole = vec![native(60), native(1), python(100), native(50), native(2), python(102), native(70)];
        assert_eq!(restitched(whole.clone(), of_loop), whole);
        assert_eq!(marked(whole.clone(), of_loop), whole);
        for alone in [vec![native(1)], vec![native(50)], vec![]] {
            assert_eq!(restitched(alone.clone(), of_loop), alone);
        }
    }
}
