//! What is decided of each process image, by targets and by rules on who it is, remembered here and told to the kernel half.

use profiler_bpf::Sampler;
use profiler_bpf::abi::{REFUSED_BY_RULE, REFUSED_BY_TARGETS, REFUSED_NOT, Verdict};
use profiler_bpf::record::SampleHead;
use profiler_targets::{Facts, TargetRules};
use profiler_unwinders::process::Process;
use rustc_hash::FxHashMap;

/// Verdicts kept; beyond it each sample is judged anew.
const MAX_VERDICTS: usize = profiler_bpf::abi::MAX_PROCESSES;

/// The targets, and the verdicts.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    rules: TargetRules,
    /// Whether there are rules on processes, too.
    has_rules: bool,
    /// By pid, of its newest image that was sampled.
    verdicts: FxHashMap<u32, Judged>,
}

#[derive(Clone, Copy, Debug)]
struct Judged {
    verdict: Verdict,
    /// The process table's serial of the image; 0 if it is not in there.
    serial: u32,
}

impl Chosen {
    /// Whether there is nothing to decide.
    pub(super) fn all(&self) -> bool {
        self.rules.is_all() && !self.has_rules
    }

    /// Makes `rules` those that hold from now on. All is decided anew, what rules on processes said, too.
    pub(super) fn set(&mut self, rules: TargetRules, sampler: &mut Sampler) {
        self.rules = rules;
        self.begin_anew(sampler);
    }

    /// Says whether there are rules on processes, which are others than before.
    pub(super) fn set_has_rules(&mut self, has_rules: bool, sampler: &mut Sampler) {
        self.has_rules = has_rules;
        self.begin_anew(sampler);
    }

    fn begin_anew(&mut self, sampler: &mut Sampler) {
        let refused = self.verdicts.drain().filter(|(_, judged)| judged.verdict.refused != REFUSED_NOT);
        refused.for_each(|(pid, _)| sampler.remove_verdict(pid));
        sampler.set_rules(!self.all(), self.rules.min_age);
    }

    /// Refuses the image of `pid` with this `serial`, of which a rule drops all samples, to be counted in `lane`; false if it is not the image that was
    /// sampled last, or no target.
    pub(super) fn rule_out(&mut self, (pid, serial): (u32, u32), lane: usize, sampler: &mut Sampler) -> bool {
        let Some(Judged { verdict, .. }) = self.verdicts.get(&pid).copied().filter(|judged| judged.serial == serial)
        else {
            return false;
        };
        let refused = REFUSED_BY_RULE + u32::try_from(lane).unwrap_or_default();
        if verdict.refused == REFUSED_BY_TARGETS {
            return false;
        }
        if verdict.refused != refused {
            self.put(pid, Judged { verdict: Verdict { refused, ..verdict }, serial }, sampler);
        }
        true
    }

    /// Has the image of `pid` with this `serial` sampled again, if a rule was against it.
    pub(super) fn let_in(&mut self, (pid, serial): (u32, u32), sampler: &mut Sampler) {
        let Some(Judged { verdict, .. }) = self.verdicts.get(&pid).copied().filter(|judged| judged.serial == serial)
        else {
            return;
        };
        if verdict.refused >= REFUSED_BY_RULE {
            self.put(pid, Judged { verdict: Verdict { refused: REFUSED_NOT, ..verdict }, serial }, sampler);
        }
    }

    /// Whether a sample's image is a target, if it was judged before. What was sampled before the kernel half knew that a rule is against it is kept: the
    /// rule drops it.
    pub(super) fn verdict(&self, head: &SampleHead) -> Option<bool> {
        let known = self.verdicts.get(&head.pid)?.verdict;
        let same = Verdict { refused: known.refused, ..identity(head, Some(&known)) } == known;
        same.then_some(known.refused != REFUSED_BY_TARGETS)
    }

    /// Whether the control group is another than when the process was judged last.
    pub(super) fn has_moved(&self, head: &SampleHead) -> bool {
        self.verdicts.get(&head.pid).is_none_or(|known| known.verdict.cgroup != head.cgroup)
    }

    /// Whether the image of this sample, which `process` describes as far as it is known, is to be sampled.
    pub(super) fn judge(
        &mut self,
        head: &SampleHead,
        boot_time: u64,
        process: Option<&Process>,
        sampler: &mut Sampler,
    ) -> bool {
        // Taken before the kernel half knew of the age.
        let age = u128::from(boot_time.saturating_sub(head.start_time));
        if age < self.rules.min_age.as_nanos() {
            return false;
        }
        let allowed = self.rules.allow(&facts(head.pid, head.cgroup, process));
        let serial = process.map_or(0, |process| process.serial);
        let known = self.verdicts.get(&head.pid).map(|judged| judged.verdict);
        let verdict = Verdict { refused: by_targets(allowed), ..identity(head, known.as_ref()) };
        self.put(head.pid, Judged { verdict, serial }, sampler);
        allowed
    }

    /// Judges a process again that has another name; what a rule said of it holds no longer.
    pub(super) fn renamed(&mut self, process: &Process, sampler: &mut Sampler) {
        let Some(Judged { verdict, serial }) = self.verdicts.get(&process.pid).copied() else { return };
        let allowed = self.rules.allow(&facts(process.pid, verdict.cgroup, Some(process)));
        let refused = by_targets(allowed);
        if refused != verdict.refused {
            self.put(process.pid, Judged { verdict: Verdict { refused, ..verdict }, serial }, sampler);
        }
    }

    /// Forgets a process that has ended.
    pub(super) fn forget(&mut self, pid: u32, sampler: &mut Sampler) {
        if self.verdicts.remove(&pid).is_some_and(|judged| judged.verdict.refused != REFUSED_NOT) {
            sampler.remove_verdict(pid);
        }
    }

    /// Processes judged.
    pub(super) fn len(&self) -> usize {
        self.verdicts.len()
    }

    fn put(&mut self, pid: u32, judged: Judged, sampler: &mut Sampler) {
        if self.verdicts.len() >= MAX_VERDICTS && !self.verdicts.contains_key(&pid) {
            return;
        }
        let before = self.verdicts.insert(pid, judged);
        // The kernel half samples whom it does not know: it needs to be told of those refused only.
        if judged.verdict.refused != REFUSED_NOT {
            if let Err(error) = sampler.set_verdict(pid, &judged.verdict) {
                tracing::debug!(pid, %error, "A process that is not to be sampled is filtered in user space.");
            }
        } else if before.is_some_and(|before| before.verdict.refused != REFUSED_NOT) {
            sampler.remove_verdict(pid);
        }
    }
}

/// Of which image a sample is. A thread that exits has no address space any more: it is of the image that is known, if that is of its process.
fn identity(head: &SampleHead, known: Option<&Verdict>) -> Verdict {
    let own = (head.start_code, head.start_stack);
    let of_process = known.filter(|known| own == (0, 0) && known.start_time == head.start_time);
    let (start_code, start_stack) = of_process.map_or(own, |known| (known.start_code, known.start_stack));
    Verdict { start_time: head.start_time, start_code, start_stack, cgroup: head.cgroup, refused: REFUSED_NOT, pad: 0 }
}

const fn by_targets(allowed: bool) -> u32 {
    if allowed { REFUSED_NOT } else { REFUSED_BY_TARGETS }
}

fn facts(pid: u32, cgroup_id: u64, process: Option<&Process>) -> Facts<'_> {
    let Some(process) = process else { return Facts { pid, cgroup_id, ..Facts::default() } };
    Facts {
        pid,
        cgroup: process.cgroup.as_ref().map(|cgroup| &*cgroup.path),
        cgroup_id,
        container: process.container_id.as_deref(),
        comm: process.comm.as_bytes(),
        executable: &process.exe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(start_time: u64, space: (u64, u64)) -> SampleHead {
        SampleHead { start_time, start_code: space.0, start_stack: space.1, cgroup: 9, ..SampleHead::default() }
    }

    #[test]
    fn a_thread_that_exits_is_of_the_image_that_was_judged() {
        let judged = identity(&head(5, (100, 200)), None);
        // It has given its address space back.
        assert_eq!(identity(&head(5, (0, 0)), Some(&judged)), judged);
        assert_ne!(identity(&head(5, (100, 300)), Some(&judged)), judged, "after an exec");
        assert_ne!(identity(&head(6, (0, 0)), Some(&judged)), judged, "another process of that pid");
        let of_kernel = identity(&head(6, (0, 0)), None);
        assert_eq!(identity(&head(6, (0, 0)), Some(&of_kernel)), of_kernel, "a thread of the kernel's");
    }
}
