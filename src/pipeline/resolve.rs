//! From a sample to a stack of frames in the aggregate.

use std::sync::Arc;

use profiler_address::UserAddr;
use profiler_bpf::native::Walk;
use profiler_bpf::record::{Continuation, NativeFrame, RuntimeFrame, Sample, UnwindEnd, UserFrame, comm_bytes};
use profiler_unwinders::executable::{Executable, Mapper};
use profiler_unwinders::process::{AddressSpace, Comm, Process};
use profiler_unwinders::publish::{Located, Publisher};
use profiler_unwinders::reading::Reading;
use profiler_unwinders::runtime::{self, Named};
use rustc_hash::FxHashMap;

use super::aggregate::{Frame, FrameId, Image, ImageId, RawSample, StackId, Thread};
use super::fold::{self, Part};
use super::session::{Session, process_at};
use super::totals::Tally;
use super::window::RawKey;

/// A process whose mappings do not explain a stack is scanned again at most this often, ns.
const RESCAN_NS: u64 = 200_000_000;
/// Processes whose last scan is remembered.
const MAX_RESCANS: usize = 16_384;

impl Session {
    pub(super) fn sample(&mut self, sample: &Sample<'_>, now: u64) {
        let head = &sample.head;
        let known = process_at(&self.processes, head.pid, head.time);
        let ended = known.is_some_and(|process| process.ended.is_some_and(|ended| ended < head.time));
        if known.is_none_or(Process::wants_scan) || ended {
            self.scan(head.pid, now);
        }
        let fate = if self.launcher == Some(head.pid) || !self.chosen.all() && !self.is_chosen(sample) {
            Tally::Filtered
        } else if self.full.get(usize::from(head.source)).is_none_or(|&full| full) {
            Tally::OverBudget
        } else {
            Tally::Kept
        };
        if let Some(tallies) = self.tallies.get_mut(usize::from(head.source)) {
            tallies[fate] += 1;
        }
        if fate != Tally::Kept {
            return;
        }
        self.note_address_space(sample);
        let content = self.window.aggregate.content_bytes();

        // What user space has yet to finish is never the same twice.
        let key = if sample.continuation.is_none() { self.raw_key(sample) } else { None };
        let stack = key.as_ref().and_then(|key| self.window.known(key));
        let end;
        let stack = match stack {
            Some(stack) => {
                end = sample.end();
                stack
            }
            None => {
                let Resolved { stack, end: finished, is_final } = self.resolve(sample, now);
                end = finished;
                if let Some(key) = key.filter(|_| is_final) {
                    self.window.remember(key, stack, self.budgets.raw_stacks);
                }
                stack
            }
        };
        if !end.is_complete() {
            *self.totals.incomplete.entry(end.reason()).or_default() += 1;
        }
        let image = self.image_of((head.pid, head.time), &head.comm, now);
        let aggregate = &mut self.window.aggregate;
        let thread = aggregate.thread(Thread { image, tid: head.tid, comm: head.comm });
        let Some(source) = self.sources.get(usize::from(head.source)) else { return };
        let counted = RawSample::new(head.time, stack, thread, head.cpu, source.count(head.value));
        let period = source.period(head.value);
        self.window.add(head.source, period, counted, || source.measure(period));
        self.window.charge(head.source, content);
    }

    /// Whether the rules want this sample's process; judged at its first sample and when anything about it changes.
    fn is_chosen(&mut self, sample: &Sample<'_>) -> bool {
        let head = &sample.head;
        if let Some(chosen) = self.chosen.verdict(head) {
            return chosen;
        }
        let inherited =
            process_at(&self.processes, head.pid, head.time).is_some_and(|process| process.container_inherited);
        if inherited || self.chosen.has_moved(head) {
            // If the process is gone, what was known of its control group is what we know.
            self.read_container(head.pid);
        }
        let boot_time = self.processes.clock().boot_from_monotonic(head.time);
        let process = process_at(&self.processes, head.pid, head.time);
        self.chosen.judge(head, boot_time, process, &mut self.sampler)
    }

    /// A sample of the current image knows best where its code and stack start: what was read in the middle of an exec, or what an
    /// earlier sample met there, is not what the kernel half will find.
    fn note_address_space(&mut self, sample: &Sample<'_>) {
        let head = &sample.head;
        if head.start_stack == 0 || head.start_code == 0 {
            return;
        }
        let space = AddressSpace { start_code: head.start_code, start_stack: head.start_stack };
        if self.processes.get(head.pid).is_some_and(|process| process.address_space != Some(space))
            && self.is_current(head.pid, head.time)
        {
            self.processes.set_address_space(head.pid, space);
        }
    }

    fn is_current(&self, pid: u32, time: u64) -> bool {
        self.processes.get(pid).is_some_and(|process| process.image_start <= time && process.ended.is_none())
    }

    fn raw_key(&self, sample: &Sample<'_>) -> Option<RawKey> {
        let process = process_at(&self.processes, sample.head.pid, sample.head.time)?;
        let kernel = sample.kernel_frames().map(|frame| frame.0);
        let user = sample.user_words();
        Some(RawKey {
            serial: process.serial,
            version: process.mappings_version,
            end: sample.end(),
            kernel: u32::from(sample.head.kernel_frames),
            words: kernel.chain(user).collect(),
        })
    }

    /// Finishes the stack if the kernel half could not, and says what each frame is.
    fn resolve(&mut self, sample: &Sample<'_>, now: u64) -> Resolved {
        let head = &sample.head;
        let mut user: Vec<UserFrame> = sample.user_frames().collect();
        let mut end = sample.end();
        self.publish_at(head.pid, head.time, now);
        if let Some((continuation, stack)) = &sample.continuation {
            self.totals.continued += 1;
            let mut walk = Walk::new(continuation, sample.user_words().len());
            let from = (continuation, *stack);
            end = self.walk(head.pid, head.time, &mut walk, from, &mut user);
            if end == UnwindEnd::NoMapping && self.is_current(head.pid, head.time) {
                // Mapped since we looked, e.g. by code that runs before the side band was read.
                if self.scan(head.pid, now) {
                    self.publish(head.pid, now);
                    end = self.walk(head.pid, head.time, &mut walk, from, &mut user);
                }
            }
            if end == UnwindEnd::NoMapping && walk.frame().is_instruction_pointer() {
                // Where it was interrupted is true whatever maps it.
                user.push(UserFrame::Native(walk.frame()));
            }
        }

        let mut frames: Vec<FrameId> = Vec::with_capacity(user.len() + usize::from(head.kernel_frames) + 1);
        for (depth, address) in sample.kernel_frames().enumerate() {
            let address = if depth == 0 { address } else { address.call_site() };
            frames.push(self.window.aggregate.frame(Frame::Kernel { address }));
        }
        let image = self.image_of((head.pid, head.time), &head.comm, now);
        let of_loop = |frame: &NativeFrame| self.publisher.eval_loop(head.pid, frame.lookup_address());
        let user = match sample.continuation {
            Some(_) => fold::marked(user, of_loop),
            None => fold::restitched(user, of_loop),
        };
        frames.extend(self.user_frames((head.pid, head.time), image, user, now));
        let aggregate = &mut self.window.aggregate;
        let is_final = frames.iter().all(|frame| !aggregate.may_be_named(*frame));
        if !end.is_complete() {
            tracing::debug!(
                pid = head.pid,
                comm = %String::from_utf8_lossy(comm_bytes(&head.comm)),
                reason = end.reason(),
                continued = sample.continuation.is_some(),
                frames = frames.len(),
                last = %frames.last().map(|&last| aggregate.describe(last)).unwrap_or_default(),
                "A stack is not finished."
            );
            frames.push(aggregate.frame(Frame::Marker(end)));
        }
        Resolved { stack: aggregate.stack(&frames), end, is_final }
    }

    /// What each of `user` is; those of a runtime are named where they are new.
    fn user_frames(&mut self, (pid, time): (u32, u64), image: ImageId, user: Vec<UserFrame>, now: u64) -> Vec<FrameId> {
        let new = |frame: &UserFrame| match frame {
            UserFrame::Runtime(frame) if !self.window.aggregate.knows(image, *frame) => Some(*frame),
            _ => None,
        };
        let mut new: Vec<RuntimeFrame> = user.iter().filter_map(new).collect();
        let mut names: FxHashMap<RuntimeFrame, Named> = FxHashMap::default();
        if !new.is_empty() {
            new.sort_unstable_by_key(|frame| (frame.kind, frame.object.0, frame.position, frame.cookie));
            new.dedup();
            let named = self.publisher.names(pid, &new, self.reading.as_mut());
            names.extend(new.into_iter().zip(named));
        }
        let mut found = Vec::with_capacity(user.len());
        for frame in user {
            found.push(match frame {
                UserFrame::Native(frame) => {
                    let address = frame.lookup_address();
                    let frame = self.native_frame((pid, time), image, frame, now);
                    let aggregate = &mut self.window.aggregate;
                    let part = match frame {
                        Frame::Native { executable, .. } => {
                            let runtime = aggregate.executables.get(&executable).and_then(|of| of.runtime);
                            runtime.and_then(runtime::eval_loop).map_or(Part::Other, |_| Part::Interpreter)
                        }
                        Frame::Jit { .. } => runtime::eval_loop(self.publisher.unwinder(pid, address))
                            .map_or(Part::Other, |_| Part::Trampoline),
                        _ => Part::Other,
                    };
                    (aggregate.frame(frame), part)
                }
                UserFrame::Runtime(frame) => {
                    let aggregate = &mut self.window.aggregate;
                    let id = match names.remove(&frame) {
                        Some(named) => aggregate.runtime_frame(image, frame, || named),
                        // It is known, or was further up.
                        None => aggregate.frame(Frame::Runtime { image, frame }),
                    };
                    let is_interpreted = runtime::eval_loop(frame.kind).is_some();
                    (id, if is_interpreted { Part::Function } else { Part::Other })
                }
            });
        }
        if !self.all_runtime_frames {
            fold::fold(&mut found);
        }
        found.into_iter().map(|(id, _)| id).collect()
    }

    /// Makes the image that ran at `time` the one that the unwinder knows.
    fn publish_at(&mut self, pid: u32, time: u64, now: u64) {
        if let Some(process) = process_at(&self.processes, pid, time)
            && !process.kthread
        {
            self.publisher.publish(process, self.reading.as_mut(), now);
        }
    }

    fn walk(
        &mut self,
        pid: u32,
        time: u64,
        walk: &mut Walk,
        from: (&Continuation, &[u8]),
        frames: &mut Vec<UserFrame>,
    ) -> UnwindEnd {
        match process_at(&self.processes, pid, time) {
            Some(process) => self.publisher.walk(process, self.reading.as_mut(), walk, from, frames),
            None => UnwindEnd::UnknownProcess,
        }
    }

    fn native_frame(&mut self, (pid, time): (u32, u64), image: ImageId, frame: NativeFrame, now: u64) -> Frame {
        let address = frame.lookup_address();
        let guessed = frame.is_guessed();
        let window = &mut self.window;
        match self.publisher.locate(pid, address, now) {
            Located::Executable(executable, vaddr) => {
                let id = executable.id;
                window.aggregate.executables.entry(id).or_insert(executable);
                Frame::Native { executable: id, address: vaddr, guessed }
            }
            Located::Other => {
                let process = process_at(&self.processes, pid, time);
                let mapping = process.and_then(|process| Some((process, process.mappings.find(address)?)));
                if let Some((process, mapping)) = mapping
                    && let Some((_, path)) = mapping.file()
                    && let Some(offset) = mapping.file_offset(address)
                    && !*window
                        .made_code
                        .entry((image, mapping.start.0))
                        .or_insert_with(|| self.reading.is_made_code(&Mapper::of(process), mapping))
                {
                    let path = window.aggregate.path(path);
                    return Frame::Unopened { path, offset, guessed };
                }
                if !window.jit_images.contains(&image) {
                    window.jit_images.push(image);
                }
                Frame::Jit { image, address, guessed }
            }
            Located::Nowhere => Frame::Unmapped { address },
        }
    }

    /// Reads what `/proc` says of a process now, unless that was done a moment ago; false if it was or the process is gone.
    fn scan(&mut self, pid: u32, now: u64) -> bool {
        self.due_for_scan(pid, now) && self.read_process(pid)
    }

    fn due_for_scan(&mut self, pid: u32, now: u64) -> bool {
        if self.rescans.len() >= MAX_RESCANS {
            self.forget_rescans(now);
        }
        let last = self.rescans.entry(pid).or_default();
        let due = now.saturating_sub(*last) >= RESCAN_NS;
        if due {
            *last = now;
        }
        due
    }

    /// Those that are due anyway.
    pub(super) fn forget_rescans(&mut self, now: u64) {
        self.rescans.retain(|_, last| now.saturating_sub(*last) < RESCAN_NS);
    }

    /// The image that `pid` was at `time`, added to the aggregate when it is sampled for the first time.
    fn image_of(&mut self, (pid, time): (u32, u64), comm: &[u8; 16], now: u64) -> ImageId {
        if let Some(process) = process_at(&self.processes, pid, time) {
            let aggregate = &mut self.window.aggregate;
            if let Some(id) = aggregate.known_image(process.serial) {
                // Nothing is known of it yet at a sample in the midst of an exec.
                if let Some(known) = aggregate.images.get_mut(id as usize)
                    && known.executable.is_none()
                {
                    known.executable = program(&mut self.publisher, self.reading.as_mut(), process, now);
                }
                return id;
            }
            if process.container_inherited {
                // A runtime forks in its own control group. If the process is gone, its parent's is what we know.
                self.read_container(pid);
            }
        }
        let aggregate = &mut self.window.aggregate;
        if let Some(process) = process_at(&self.processes, pid, time) {
            self.images.sampled(process);
            let executable = program(&mut self.publisher, self.reading.as_mut(), process, now);
            return aggregate.image(Image { executable, ..image(process) });
        }
        // Nothing is known but what the sample says.
        let serial = u32::MAX - pid;
        aggregate.known_image(serial).unwrap_or_else(|| {
            aggregate.image(Image {
                pid,
                serial,
                start_unix_ns: 0,
                start_time_ns: 0,
                comm: Comm::new(comm_bytes(comm)),
                exe: Arc::default(),
                executable: None,
                container_id: None,
                cgroup: None,
                namespace_pid: pid,
            })
        })
    }
}

/// What a sample's stack is.
struct Resolved {
    stack: StackId,
    end: UnwindEnd,
    /// All that can be told of its frames was told: the same stack need not be looked at again.
    is_final: bool,
}

/// The file in which the program's code starts; a library is none.
pub(super) fn program(
    publisher: &mut Publisher,
    reading: &mut dyn Reading,
    process: &Process,
    now: u64,
) -> Option<Arc<Executable>> {
    let code = UserAddr(process.address_space?.start_code);
    publisher.publish(process, reading, now);
    match publisher.locate(process.pid, code, now) {
        Located::Executable(executable, _) => Some(executable),
        Located::Other | Located::Nowhere => None,
    }
}

/// What the process table knows of an image.
pub(super) fn image(process: &Process) -> Image {
    Image {
        pid: process.pid,
        serial: process.serial,
        start_unix_ns: process.start_unix_ns,
        start_time_ns: process.start_time_ns,
        comm: process.comm,
        exe: Arc::clone(&process.exe),
        executable: None,
        container_id: process.container_id.clone(),
        cgroup: process.cgroup.as_ref().map(|cgroup| Arc::clone(&cgroup.path)),
        namespace_pid: process.namespace_pid,
    }
}
