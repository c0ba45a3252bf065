//! What the rules say of each process image, remembered here and told to the kernel half.

use profiler_bpf::Sampler;
use profiler_bpf::abi::Verdict;
use profiler_bpf::record::SampleHead;
use profiler_targets::{Facts, TargetRules};
use profiler_unwinders::process::Process;
use rustc_hash::FxHashMap;

/// Verdicts kept; beyond it each sample is judged anew.
const MAX_VERDICTS: usize = profiler_bpf::abi::MAX_PROCESSES;

/// The rules and their verdicts.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    rules: TargetRules,
    /// By pid, of its newest image that was sampled.
    verdicts: FxHashMap<u32, Verdict>,
}

impl Chosen {
    /// Whether there is nothing to decide.
    pub(super) fn all(&self) -> bool {
        self.rules.is_all()
    }

    /// Makes `rules` those that hold from now on.
    pub(super) fn set(&mut self, rules: TargetRules, sampler: &mut Sampler) {
        for pid in self.verdicts.drain().filter(|(_, verdict)| verdict.refused != 0).map(|(pid, _)| pid) {
            sampler.remove_verdict(pid);
        }
        sampler.set_rules(!rules.is_all(), rules.min_age);
        self.rules = rules;
    }

    /// The verdict on a sample's image, if it was judged before.
    pub(super) fn verdict(&self, head: &SampleHead) -> Option<bool> {
        let known = self.verdicts.get(&head.pid)?;
        let same = Verdict { refused: known.refused, ..identity(head) } == *known;
        same.then_some(known.refused == 0)
    }

    /// Whether the control group is another than when the process was judged last.
    pub(super) fn has_moved(&self, head: &SampleHead) -> bool {
        self.verdicts.get(&head.pid).is_none_or(|known| known.cgroup != head.cgroup)
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
        self.put(head.pid, Verdict { refused: u32::from(!allowed), ..identity(head) }, sampler);
        allowed
    }

    /// Judges a process again that has another name.
    pub(super) fn renamed(&mut self, process: &Process, sampler: &mut Sampler) {
        let Some(known) = self.verdicts.get(&process.pid).copied() else { return };
        let allowed = self.rules.allow(&facts(process.pid, known.cgroup, Some(process)));
        if allowed != (known.refused == 0) {
            self.put(process.pid, Verdict { refused: u32::from(!allowed), ..known }, sampler);
        }
    }

    /// Forgets a process that has ended.
    pub(super) fn forget(&mut self, pid: u32, sampler: &mut Sampler) {
        if self.verdicts.remove(&pid).is_some_and(|verdict| verdict.refused != 0) {
            sampler.remove_verdict(pid);
        }
    }

    /// Processes judged.
    pub(super) fn len(&self) -> usize {
        self.verdicts.len()
    }

    fn put(&mut self, pid: u32, verdict: Verdict, sampler: &mut Sampler) {
        if self.verdicts.len() >= MAX_VERDICTS && !self.verdicts.contains_key(&pid) {
            return;
        }
        let before = self.verdicts.insert(pid, verdict);
        // The kernel half samples whom it does not know: it needs to be told of those refused only.
        if verdict.refused != 0 {
            if let Err(error) = sampler.set_verdict(pid, &verdict) {
                tracing::debug!(pid, %error, "A process that is not to be sampled is filtered in user space.");
            }
        } else if before.is_some_and(|before| before.refused != 0) {
            sampler.remove_verdict(pid);
        }
    }
}

fn identity(head: &SampleHead) -> Verdict {
    Verdict {
        start_time: head.start_time,
        start_code: head.start_code,
        start_stack: head.start_stack,
        cgroup: head.cgroup,
        refused: 0,
        pad: 0,
    }
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
