//! Process images that are sampled for the first time, for those who must look at them while they live.

use std::sync::Arc;

use profiler_unwinders::process::{Comm, Process};
use rustc_hash::FxHashSet;

/// Images that nobody has asked for yet; beyond it the oldest are not told of.
const MAX_WAITING: usize = 16_384;

/// What is known of a process image when it is sampled first.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    /// Process id, in the profiler's pid namespace.
    pub pid: u32,
    /// The session's name for the image: `Image::serial` of its samples.
    pub serial: u32,
    /// `CLOCK_BOOTTIME`, ns; 0 if unknown.
    pub start_time_ns: u64,
    /// ns since the Unix epoch; 0 if unknown.
    pub start_unix_ns: u64,
    /// Name of the main thread.
    pub comm: Comm,
    /// Path of the program in its own mount namespace; empty if unknown.
    pub exe: Arc<[u8]>,
    /// Container id.
    pub container_id: Option<Arc<str>>,
    /// systemd unit.
    pub systemd_unit: Option<Arc<str>>,
    /// Path of its control group.
    pub cgroup: Option<Arc<str>>,
    /// Pid in its innermost pid namespace.
    pub namespace_pid: u32,
}

/// Which images were sampled since they appeared.
#[derive(Debug, Default)]
pub(super) struct Images {
    seen: FxHashSet<u32>,
    new: std::collections::VecDeque<ImageFacts>,
}

impl Images {
    pub(super) fn sampled(&mut self, process: &Process) {
        if !self.seen.insert(process.serial) {
            return;
        }
        if self.new.len() >= MAX_WAITING {
            self.new.pop_front();
        }
        let cgroup = process.cgroup.as_ref();
        self.new.push_back(ImageFacts {
            pid: process.pid,
            serial: process.serial,
            start_time_ns: process.start_time_ns,
            start_unix_ns: process.start_unix_ns,
            comm: process.comm,
            exe: Arc::clone(&process.exe),
            container_id: process.container_id.clone(),
            systemd_unit: cgroup.and_then(|cgroup| cgroup.systemd_unit.clone()),
            cgroup: cgroup.map(|cgroup| Arc::clone(&cgroup.path)),
            namespace_pid: process.namespace_pid,
        });
    }

    /// The image has left the process table.
    pub(super) fn retired(&mut self, serial: u32) {
        self.seen.remove(&serial);
    }

    /// All are new again.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    pub(super) fn take(&mut self) -> Vec<ImageFacts> {
        std::mem::take(&mut self.new).into()
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}
