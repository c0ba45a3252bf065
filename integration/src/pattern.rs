//! Known call chains, and whether a row shows them.
//!
//! A chain is written as the ground-truth programs print it, innermost function first: `name`, `name*N` for N frames in a
//! row, `...` for any number of frames. It holds the function of the group that it belongs to. From there outwards every
//! frame must be there, in order, with nothing between them. Inwards of the group's function a chain may say more than a
//! sample shows, since a sample may be taken before the inner call.

use crate::rows::{Row, is_function};

/// One element of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// So many frames of a function.
    Frames(String, usize),
    /// Any frames.
    Gap,
}

/// A known call chain of the group `group`.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Functions inside of the group's, from it inwards.
    inner: Vec<String>,
    /// From the group's function outwards.
    outer: Vec<Step>,
    group: String,
}

impl Chain {
    /// The chain that `written` spells for `group`. `None` if the group's function is not in it.
    #[must_use]
    pub fn parse(group: &str, written: &[String]) -> Option<Self> {
        let at = written.iter().position(|element| element == group)?;
        let (inner, outer) = written.split_at_checked(at)?;
        let step = |element: &String| match element.rsplit_once('*') {
            _ if element == "..." => Step::Gap,
            Some((name, count)) if count.parse::<usize>().is_ok() => {
                Step::Frames(name.into(), count.parse().unwrap_or(1))
            }
            _ => Step::Frames(element.clone(), 1),
        };
        Some(Self {
            inner: inner.iter().rev().cloned().collect(),
            outer: outer.iter().map(step).collect(),
            group: group.into(),
        })
    }

    /// What is wrong with `row`, which holds the group's function; `None` if nothing is.
    #[must_use]
    pub fn problem(&self, row: &Row) -> Option<String> {
        let names = named(row);
        let Some(at) = names.iter().position(|name| is_function(name, &self.group)) else {
            return Some(format!("{} is not in it", self.group));
        };
        for (distance, wanted) in self.inner.iter().enumerate() {
            // Further in than the sample goes. The innermost frame itself may be a stub on the way (a PLT entry).
            let Some(index) = at.checked_sub(distance + 1) else { break };
            let name = names.get(index).map_or("", String::as_str);
            if index != 0 && !is_function(name, wanted) {
                return Some(format!("inside of {}: {name} where {wanted} must be", self.group));
            }
        }
        outwards(&self.outer, names.get(at..).unwrap_or_default()).err()
    }
}

/// The names of all user frames, innermost first, inlined ones included; a frame without a name has its file's.
fn named(row: &Row) -> Vec<String> {
    let mut names = Vec::new();
    for frame in row.user_frames() {
        if frame.functions.is_empty() {
            names.push(format!("[{}+{:#x}]", frame.file, frame.address));
        }
        names.extend(frame.functions.iter().cloned());
    }
    names
}

fn outwards(steps: &[Step], names: &[String]) -> Result<(), String> {
    let Some((step, later)) = steps.split_first() else { return Ok(()) };
    match step {
        Step::Frames(function, count) => {
            let found = names.iter().take(*count).take_while(|name| is_function(name, function)).count();
            if found < *count {
                let instead = names.get(found).map_or("the end of the stack", String::as_str);
                return Err(format!("{instead} where frame {} of {count} of {function} must be", found + 1));
            }
            outwards(later, names.get(*count..).unwrap_or_default())
        }
        Step::Gap => {
            let mut first = None;
            for skip in 0..=names.len() {
                match outwards(later, names.get(skip..).unwrap_or_default()) {
                    Ok(()) => return Ok(()),
                    Err(problem) => first = Some(first.unwrap_or(problem)),
                }
            }
            Err(format!("behind a gap: {}", first.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::FrameKind;

    use super::*;
    use crate::rows::Frame;

    fn row(names: &[&str]) -> Row {
        let frame = |name: &&str| Frame {
            kind: FrameKind::Native,
            functions: vec![(*name).to_owned()],
            address: 1,
            file: "x".into(),
            guessed: false,
            tier: None,
        };
        Row {
            count: 1,
            pid: 1,
            process: "x".into(),
            tid: 1,
            thread: "x".into(),
            frames: names.iter().map(frame).collect(),
        }
    }

    fn chain(written: &[&str]) -> Chain {
        let written: Vec<String> = written.iter().map(|&element| element.into()).collect();
        Chain::parse("hot", &written).expect("hot is in it")
    }

    #[test]
    fn a_chain_is_matched_frame_by_frame() {
        let chain = chain(&["hot", "down*3", "main"]);
        assert_eq!(chain.problem(&row(&["callee", "hot", "down", "down", "down", "main", "_start"])), None);
        assert!(chain.problem(&row(&["hot", "down", "down", "main", "_start"])).is_some());
        assert!(chain.problem(&row(&["hot", "down", "down", "down", "down", "main"])).is_some());
        assert!(chain.problem(&row(&["hot", "down", "down", "down"])).is_some());
    }

    #[test]
    fn a_gap_takes_any_frames_but_not_the_rest() {
        let chain = chain(&["hot", "...", "worker", "main"]);
        assert_eq!(chain.problem(&row(&["hot", "worker", "main"])), None);
        assert_eq!(chain.problem(&row(&["hot", "a", "worker", "b", "worker", "main"])), None);
        assert!(chain.problem(&row(&["hot", "a", "b", "main"])).is_some());
    }

    #[test]
    fn a_sample_before_the_inner_call_matches() {
        let chain = chain(&["leaf", "middle", "hot", "main"]);
        for names in [
            &["hot", "main"][..],
            &["middle", "hot", "main"],
            &["leaf", "middle", "hot", "main"],
            &["plt", "hot", "main"],
        ] {
            assert_eq!(chain.problem(&row(names)), None, "{names:?}");
        }
        assert!(chain.problem(&row(&["leaf", "other", "hot", "main"])).is_some());
    }
}
