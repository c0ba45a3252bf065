//! The kernel half at work: loaded, attached to every CPU's clock, its samples drained.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject, RingBuffer, RingBufferBuilder};

use crate::abi::Verdict;
use crate::error::{Error, Result};
use crate::perf;
use crate::record::Sample;
use crate::skeleton::{ProfilerSkel, ProfilerSkelBuilder};
use crate::tables::{Region, Tables};

/// The first two bytes of a BTF file.
const BTF_MAGIC: u16 = 0xeb9f;

/// Whom to sample.
#[derive(Debug)]
pub enum Targets {
    /// Every process.
    All,
    /// These processes (by pid in the root pid namespace), and the children they fork from now on.
    Processes(Vec<u32>),
    /// The processes of this cgroup (v2 directory, opened) and below.
    Cgroup(OwnedFd),
    /// Every process until [`Sampler::set_rules`], then those that no [`Sampler::set_verdict`] refuses.
    Rules,
}

/// How to load the kernel half.
#[derive(Debug)]
pub struct Options {
    /// Samples a second of CPU time, Hz.
    pub frequency: u64,
    /// Whom to sample.
    pub targets: Targets,
    /// Bytes of ring for samples; rounded up to a power of two.
    pub ring_bytes: u32,
    /// A BTF file of the kernel, for kernels that carry none.
    pub btf: Option<PathBuf>,
    /// Forces the fallback for kernels without `bpf_task_pt_regs`.
    pub without_task_pt_regs: bool,
}

/// What the kernel half counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Samples that reached the ring.
    pub samples: u64,
    /// Samples lost because the ring was full.
    pub ring_full: u64,
    /// Kernel stacks that could not be taken.
    pub kernel_stack_failed: u64,
    /// Ticks that met a process which the rules refuse.
    pub filtered: u64,
}

/// The loaded kernel half.
pub struct Sampler {
    // Field order is drop order: first the attachments, then the programs.
    clocks: BTreeMap<u32, Clock>,
    _tracepoints: Vec<Link>,
    skeleton: ProfilerSkel<'static>,
    period: u64,
    /// The CPUs' scratch memory, each of `scratch_words`; the counters come first.
    scratches: Region<u64>,
    scratch_words: usize,
    map_bytes: usize,
}

/// The clock of one CPU, attached.
struct Clock {
    _link: Link,
    event: OwnedFd,
}

/// Where a CPU's scratch has its counters, and the period of its clock behind them: words.
const COUNTERS: usize = 8;

/// The reading end of the ring of samples; may live on another thread than the [`Sampler`].
pub struct SampleRing {
    ring: RingBuffer<'static>,
    inbox: Arc<Mutex<Inbox>>,
}

/// Records as they come out of the ring, end to end, and where each ends.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Sampler {
    /// Loads the programs; nothing is sampled until [`Self::follow_cpus`].
    ///
    /// # Errors
    /// The rate is not allowed, or the kernel or its privileges don't permit the programs.
    pub fn load(options: Options) -> Result<Self> {
        let limit = perf::max_frequency();
        if options.frequency == 0 || options.frequency > limit {
            return Err(Error::Frequency { frequency: options.frequency, limit });
        }
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, print)));
        // The kernel half lives as long as the process; the storage that its skeleton borrows is never freed.
        let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut builder = ProfilerSkelBuilder::default();
        if let Some(btf) = &options.btf {
            // libbpf tells neither that a file is missing nor that it is no BTF.
            let mut magic = [0; 2];
            File::open(btf)
                .and_then(|mut file| file.read_exact(&mut magic))
                .map_err(|source| Error::io(format!("read the BTF file {}", btf.display()), source))?;
            if u16::from_ne_bytes(magic) != BTF_MAGIC && magic != *b"\x7fE" {
                return Err(Error::NotBtf { path: btf.clone() });
            }
            builder.obj_builder.btf_custom_path(btf).map_err(|source| bpf_error("open", source))?;
        }
        let mut open = builder.open(storage).map_err(|source| bpf_error("open", source))?;

        let cpus = libbpf_rs::num_possible_cpus().map_err(|source| bpf_error("count the CPUs for", source))?;
        let period = 1_000_000_000 / options.frequency;
        let follow = matches!(options.targets, Targets::Processes(_));
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.target_mode = match options.targets {
                Targets::All => 0,
                Targets::Processes(_) => 1,
                Targets::Cgroup(_) => 2,
                Targets::Rules => 3,
            };
            rodata.kernel_btf = u32::from(kernel_has_btf());
            rodata.use_task_pt_regs = u32::from(!options.without_task_pt_regs);
        }
        open.progs.follow_fork.set_autoload(follow);
        open.progs.forget_exit.set_autoload(follow);
        open.progs.test_unwind.set_autoload(false);
        let set = |result: libbpf_rs::Result<()>| result.map_err(|source| bpf_error("size the maps of", source));
        set(open.maps.scratches.set_max_entries(cpus as u32))?;
        if !follow {
            set(open.maps.target_processes.set_max_entries(1))?;
        }
        if !matches!(options.targets, Targets::Rules) {
            set(open.maps.verdicts.set_max_entries(1))?;
        }
        let ring_bytes = options.ring_bytes.next_power_of_two().max(1 << 16);
        set(open.maps.samples.set_max_entries(ring_bytes))?;
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.ring_wake_bytes = ring_bytes / 4;
        }
        let skeleton = open.load().map_err(|source| bpf_error("load", source))?;

        match &options.targets {
            Targets::All | Targets::Rules => {}
            Targets::Processes(pids) => {
                for pid in pids {
                    let one = 1u32.to_ne_bytes();
                    let chosen = skeleton.maps.target_processes.update(&pid.to_ne_bytes(), &one, MapFlags::ANY);
                    chosen.map_err(|source| bpf_error("choose a process in", source))?;
                }
            }
            Targets::Cgroup(cgroup) => {
                let fd = cgroup.as_raw_fd().to_ne_bytes();
                let chosen = skeleton.maps.target_cgroup.update(&0u32.to_ne_bytes(), &fd, MapFlags::ANY);
                chosen.map_err(|source| bpf_error("choose a cgroup (v2 only) in", source))?;
            }
        }
        let mut tracepoints = Vec::new();
        if follow {
            for program in [&skeleton.progs.follow_fork, &skeleton.progs.forget_exit] {
                tracepoints.push(program.attach().map_err(|source| bpf_error("attach", source))?);
            }
        }

        let scratch_words = skeleton.maps.scratches.value_size() as usize / 8;
        let scratches = Region::of_map(skeleton.maps.scratches.as_fd(), scratch_words * cpus)?;
        let map_bytes = skeleton
            .object()
            .maps()
            .filter(|map| map.map_type() != libbpf_rs::MapType::RingBuf)
            .map(|map| locked_bytes(map.as_fd()))
            .sum();
        Ok(Self {
            map_bytes,
            clocks: BTreeMap::new(),
            _tracepoints: tracepoints,
            skeleton,
            period,
            scratches,
            scratch_words,
        })
    }

    /// The reading end of the ring.
    ///
    /// # Errors
    /// The ring cannot be mapped.
    pub fn ring(&self) -> Result<SampleRing> {
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let sink = Arc::clone(&inbox);
        let mut builder = RingBufferBuilder::new();
        let added = builder.add(&self.skeleton.maps.samples, move |record| {
            let mut inbox = sink.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.bytes.extend_from_slice(record);
            let end = inbox.bytes.len();
            inbox.ends.push(end);
            0
        });
        added.map_err(|source| bpf_error("read the ring of", source))?;
        let ring = builder.build().map_err(|source| bpf_error("read the ring of", source))?;
        Ok(SampleRing { ring, inbox })
    }

    /// What puts `records` into the ring of this kernel half, for tests and measurements; see [`crate::feed`].
    ///
    /// # Errors
    /// A record is too long, or the kernel does not permit it.
    #[cfg(feature = "feed")]
    pub fn feed(&self, records: &Batch, wake: bool) -> Result<crate::feed::Feed> {
        let wake_bytes = if wake { self.skeleton.maps.samples.max_entries() / 4 } else { u32::MAX };
        crate::feed::Feed::load(self.skeleton.maps.samples.as_fd(), wake_bytes, records)
    }

    /// The tables of the unwinder, shared with the kernel half.
    ///
    /// # Errors
    /// The maps cannot be mapped.
    pub fn tables(&self) -> Result<Tables> {
        Tables::of_maps(&self.skeleton.maps)
    }

    /// Starts the clocks of the CPUs that are online, and forgets those of CPUs that have gone. Call it again to follow
    /// CPUs as they come.
    ///
    /// # Errors
    /// A perf event is refused.
    pub fn follow_cpus(&mut self, online: &[u32]) -> Result<()> {
        self.clocks.retain(|cpu, _| online.contains(cpu));
        for &cpu in online {
            if self.clocks.contains_key(&cpu) {
                continue;
            }
            let event = perf::open_clock(cpu, self.period)?;
            self.scratches.write(cpu as usize * self.scratch_words + COUNTERS, &[self.period]);
            let copy = event.try_clone().map_err(|error| Error::io("duplicate a perf event", error))?;
            // The link owns the descriptor that it is given, and closes it.
            let link = self.skeleton.progs.sample_cpu.attach_perf_event(copy.into_raw_fd());
            let link = link.map_err(|source| bpf_error("attach", source))?;
            self.clocks.insert(cpu, Clock { _link: link, event });
        }
        Ok(())
    }

    /// Changes the rate of all clocks, live: no event is opened anew, and each sample carries the period that made it. A CPU's
    /// clock begins a new period when it changes, so that on average half of an old one passes unsampled.
    ///
    /// # Errors
    /// The rate is not allowed (nothing has changed), or the kernel refuses it on some CPU (which goes on as before).
    pub fn set_frequency(&mut self, frequency: u64) -> Result<()> {
        let limit = perf::max_frequency();
        if frequency == 0 || frequency > limit {
            return Err(Error::Frequency { frequency, limit });
        }
        let period = 1_000_000_000 / frequency;
        if period == self.period {
            return Ok(());
        }
        self.period = period;
        let mut result = Ok(());
        for (&cpu, clock) in &self.clocks {
            let slot = cpu as usize * self.scratch_words + COUNTERS;
            let scratches = &mut self.scratches;
            let changed = perf::change_period(&clock.event, period, || {
                scratches.write(slot, &[period]);
            });
            result = result.and(changed);
        }
        result
    }

    /// Whether verdicts hold ([`Targets::Rules`] only), and how long after its start a process is sampled first.
    pub fn set_rules(&mut self, active: bool, min_age: Duration) {
        if let Some(bss) = self.skeleton.maps.bss_data.as_deref_mut() {
            bss.min_age = u64::try_from(min_age.as_nanos()).unwrap_or(u64::MAX);
            bss.rules_active = u32::from(active);
        }
    }

    /// Says whether the process image that `verdict` describes is to be sampled.
    ///
    /// # Errors
    /// The table is full.
    pub fn set_verdict(&mut self, pid: u32, verdict: &Verdict) -> Result<()> {
        let mut value = [0; size_of::<Verdict>()];
        let words = [verdict.start_time, verdict.start_code, verdict.start_stack, verdict.cgroup];
        for (place, word) in value.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        value[32..36].copy_from_slice(&verdict.refused.to_ne_bytes());
        let set = self.skeleton.maps.verdicts.update(&pid.to_ne_bytes(), &value, MapFlags::ANY);
        set.map_err(|source| bpf_error("refuse a process in", source))
    }

    /// Takes a verdict back; nothing happens if there is none.
    pub fn remove_verdict(&mut self, pid: u32) {
        // Not being there is the wanted state.
        let _ = self.skeleton.maps.verdicts.delete(&pid.to_ne_bytes());
    }

    /// Stops all clocks; samples that are in the ring stay there.
    pub fn stop(&mut self) {
        self.clocks.clear();
    }

    /// The distance between samples, ns of CPU time.
    #[must_use]
    pub const fn period(&self) -> u64 {
        self.period
    }

    /// Bytes of the ring of samples.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.skeleton.maps.samples.max_entries() as usize
    }

    /// Bytes of all maps but the ring of samples and the slabs of rows, as the kernel counts them.
    #[must_use]
    pub fn map_bytes(&self) -> usize {
        self.map_bytes
    }

    /// What the kernel half counted so far, over all CPUs.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = [0u64; 4];
        for cpu in 0..self.scratches.len() / self.scratch_words {
            for (index, sum) in sum.iter_mut().enumerate() {
                *sum += self.scratches.read(cpu * self.scratch_words + index).unwrap_or_default();
            }
        }
        Counters { samples: sum[0], ring_full: sum[1], kernel_stack_failed: sum[2], filtered: sum[3] }
    }
}

impl SampleRing {
    /// Waits until the kernel half asks for attention, since a process or library is new to it or the ring is a quarter full, or for
    /// `timeout` at most. Ordinary samples wake nobody.
    ///
    /// # Errors
    /// The ring cannot be polled.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        match self.ring.poll(timeout) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::Interrupted => {
                Err(bpf_error("poll the ring of", error))
            }
            _ => Ok(()),
        }
    }

    /// What becomes readable when the kernel half asks for attention, as in [`Self::wait`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: libbpf closes the descriptor with the ring, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }

    /// Takes what is in the ring and returns it as one batch.
    ///
    /// # Errors
    /// The ring cannot be read.
    pub fn take(&mut self) -> Result<Batch> {
        self.ring.consume().map_err(|source| bpf_error("read the ring of", source))?;
        // A call that was heard stays in the kernel's list until it is looked at again with the ring empty: else the next ordinary
        // sample would pass for another call.
        self.wait(Duration::ZERO)?;
        let inbox = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Batch { bytes: inbox.bytes, ends: inbox.ends })
    }
}

/// Records taken from the ring.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Adds a record as the kernel half lays it out (`abi.h`), to replay what was recorded or made.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// The samples, in the order of the ring.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| Sample::parse(self.bytes.get(start..end)?))
    }

    /// The same samples without their copies of stacks: what only those could finish stays unfinished.
    #[must_use]
    pub fn without_copies(&self) -> Self {
        let mut slim = Self::default();
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        for (start, &end) in starts.zip(&self.ends) {
            let Some(record) = self.bytes.get(start..end) else { continue };
            let Some((length, field)) = Sample::parse(record).map(|sample| sample.extent_without_copy()) else {
                continue;
            };
            let first = slim.bytes.len();
            slim.push(record.get(..length).unwrap_or(record));
            if let Some(bytes) = slim.bytes.get_mut(first..).and_then(|record| record.get_mut(field)) {
                bytes.fill(0);
            }
        }
        slim
    }

    /// The records as they came.
    #[cfg(feature = "feed")]
    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| self.bytes.get(start..end))
    }

    /// Bytes of all records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Bytes of kernel memory that a map takes (`memlock` in its `/proc/self/fdinfo`); 0 if the kernel does not tell.
fn locked_bytes(map: BorrowedFd<'_>) -> usize {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}

fn print(level: libbpf_rs::PrintLevel, message: String) {
    let message = message.trim_end();
    match level {
        libbpf_rs::PrintLevel::Warn => tracing::debug!(target: "libbpf", "{message}"),
        _ => tracing::trace!(target: "libbpf", "{message}"),
    }
}

fn bpf_error(action: &'static str, source: libbpf_rs::Error) -> Error {
    let is = |error: i32| source.to_string().contains(&format!("os error {error})"));
    let hint = match source.kind() {
        _ if action == "load" && is_locked_down() => {
            "\n  the kernel is locked down (confidentiality), so that BPF may not read memory: boot with lockdown=integrity, or without"
        }
        // libbpf's word for it
        _ if is(libc::ESRCH) && !kernel_has_btf() => {
            "\n  this kernel carries no BTF (CONFIG_DEBUG_INFO_BTF): give a BTF file with --btf"
        }
        // EPERM is a lack of privilege; EACCES comes from the verifier.
        libbpf_rs::ErrorKind::PermissionDenied if is(libc::EACCES) && action == "load" => {
            "\n  this kernel's verifier refuses them: please report it with the output of `profiler -vv record -d 1`"
        }
        libbpf_rs::ErrorKind::PermissionDenied => {
            "\n  BPF needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN): run as root (sudo); `profiler doctor` tells what is missing"
        }
        _ => "",
    };
    Error::Bpf { action, source, hint: hint.to_owned() }
}

fn is_locked_down() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|levels| levels.contains("[confidentiality]"))
}

/// Without, its verifier knows none of its types, whatever BTF file we are given.
fn kernel_has_btf() -> bool {
    std::path::Path::new("/sys/kernel/btf/vmlinux").exists()
}
