//! The kernel half at work: loaded, and attached to the events of every source on every CPU.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject};

use profiler_measure::source::{Event, Rate, Source};

use crate::abi::{RULE_LANES, Verdict};
use crate::counter::{Counter, Counters};
use crate::cpus::Presence;
use crate::error::{Error, Result};
use crate::perf;
#[cfg(feature = "feed")]
use crate::ring::Batch;
use crate::ring::SampleRing;
use crate::skeleton::{OpenProfilerMaps, ProfilerSkel, ProfilerSkelBuilder};
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
    /// What makes samples: at least one source, at most [`MAX_SOURCES`], each of another event.
    pub sources: Vec<Source>,
    /// Whom to sample.
    pub targets: Targets,
    /// Bytes of ring for samples, for each source; rounded up to a power of two.
    pub ring_bytes: u32,
    /// A BTF file of the kernel, for kernels that carry none.
    pub btf: Option<PathBuf>,
    /// Forces the fallback for kernels without `bpf_task_pt_regs`.
    pub without_task_pt_regs: bool,
}

/// The loaded kernel half.
pub struct Sampler {
    // Field order is drop order: first the attachments, then the programs.
    attached: Vec<Attached>,
    presence: Presence,
    _programs: Vec<Link>,
    skeleton: ProfilerSkel<'static>,
    /// As they are now.
    sources: Vec<Source>,
    /// One for each CPU and source, each of `scratch_words`; what user space reads and writes comes first.
    scratches: Region<u64>,
    scratch_words: usize,
    map_bytes: usize,
}

/// Sources that one kernel half can have.
pub const MAX_SOURCES: usize = 8;

/// Where a scratch has what user space writes, in words, behind the counters: a period, and the gap of what is counted.
const PERIOD: usize = Counter::ALL.len();
#[cfg(test)]
const BUSY: usize = PERIOD + 2;
/// Where it has what rules drop, by lane.
const RULED_OUT: usize = PERIOD + 3;

impl Sampler {
    /// Loads the programs; nothing is sampled until [`Self::follow_cpus`].
    ///
    /// # Errors
    /// A source or its rate is not allowed, or the kernel or its privileges don't permit the programs.
    pub fn load(options: Options) -> Result<Self> {
        check(&options.sources)?;
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
        let (sources, clocks) = (&options.sources, clocks(&options.sources));
        let note_ticks = clocks != 0 && clocks.count_ones() as usize != sources.len();
        let follow = matches!(options.targets, Targets::Processes(_));
        if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
            rodata.target_mode = match options.targets {
                Targets::All => 0,
                Targets::Processes(_) => 1,
                Targets::Cgroup(_) => 2,
                Targets::Rules => 3,
            };
            rodata.source_count = sources.len() as u32;
            rodata.clock_sources = clocks;
            rodata.note_ticks = u32::from(note_ticks);
            rodata.kernel_btf = u32::from(kernel_has_btf());
            rodata.use_task_pt_regs = u32::from(!options.without_task_pt_regs);
            // In this crate's tests nobody tells the kernel half of processes, and each sample would carry a copy of its stack.
            if cfg!(test) {
                rodata.copy_stacks = 0;
            }
        }
        let programs: Vec<String> = sources.iter().enumerate().map(|(at, source)| program(at, &source.event)).collect();
        for mut program in open.open_object_mut().progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            program.set_autoload(match name.as_str() {
                "follow_fork" | "forget_exit" => follow,
                "note_tick" => note_ticks,
                name => programs.iter().any(|wanted| wanted == name),
            });
        }
        let set = |result: libbpf_rs::Result<()>| result.map_err(|source| bpf_error("size the maps of", source));
        set(open.maps.scratches.set_max_entries((cpus * sources.len()) as u32))?;
        if !follow {
            set(open.maps.target_processes.set_max_entries(1))?;
        }
        if !matches!(options.targets, Targets::Rules) {
            set(open.maps.verdicts.set_max_entries(1))?;
        }
        let ring_bytes = options.ring_bytes.next_power_of_two().max(1 << 16);
        for (at, map) in rings(&mut open.maps).into_iter().enumerate() {
            if at < sources.len() {
                set(map.set_max_entries(ring_bytes))?;
            } else {
                set(map.set_autocreate(false))?;
            }
        }
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
        let mut attached = Vec::new();
        let own = [(&skeleton.progs.follow_fork, follow), (&skeleton.progs.forget_exit, follow)];
        for (program, used) in own.into_iter().chain([(&skeleton.progs.note_tick, note_ticks)]) {
            if used {
                attached.push(program.attach().map_err(|source| bpf_error("attach", source))?);
            }
        }

        let scratch_words = skeleton.maps.scratches.value_size() as usize / 8;
        let scratches = Region::of_map(skeleton.maps.scratches.as_fd(), scratch_words * cpus * sources.len())?;
        let map_bytes = skeleton
            .object()
            .maps()
            .filter(|map| map.map_type() != libbpf_rs::MapType::RingBuf)
            .map(|map| locked_bytes(map.as_fd()))
            .sum();
        Ok(Self {
            map_bytes,
            attached: (0..sources.len()).map(|_| Attached::default()).collect(),
            presence: Presence::default(),
            _programs: attached,
            skeleton,
            sources: options.sources,
            scratches,
            scratch_words,
        })
    }

    /// The reading ends of the rings, one for each source.
    ///
    /// # Errors
    /// A ring cannot be mapped.
    pub fn rings(&self) -> Result<Vec<SampleRing>> {
        let maps = &self.skeleton.maps;
        let all = [
            &maps.samples,
            &maps.samples_1,
            &maps.samples_2,
            &maps.samples_3,
            &maps.samples_4,
            &maps.samples_5,
            &maps.samples_6,
            &maps.samples_7,
        ];
        all.into_iter().take(self.sources.len()).map(SampleRing::of_map).collect()
    }

    /// What puts `records` into the ring of the first source, for tests and measurements; see [`crate::feed`].
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

    /// Starts the events of the CPUs that are online, and forgets those of CPUs that have gone. Call it again to follow CPUs as they
    /// come.
    ///
    /// # Errors
    /// An event is refused.
    pub fn follow_cpus(&mut self, online: &[u32]) -> Result<()> {
        let mut result = Ok(());
        let returned = self.presence.returned(online);
        for at in 0..self.sources.len() {
            let Some(source) = self.sources.get(at).cloned() else { continue };
            // A tracepoint has one attachment, on whatever CPU, and runs its program on all.
            let (cpus, words) = if source.event.is_tracepoint() {
                if self.attached.get(at).is_some_and(|attached| !attached.events.is_empty()) {
                    continue;
                }
                self.write_all(at, source.counted().unwrap_or_default());
                (online.get(..1).unwrap_or_default(), None)
            } else {
                (online, Some(source.counted().unwrap_or([source.clock_period(), 0])))
            };
            let name = program(at, &source.event);
            let Some(program) = self.skeleton.object().progs_mut().find(|program| *program.name() == *name) else {
                continue;
            };
            let Some(attached) = self.attached.get_mut(at) else { continue };
            attached.events.retain(|cpu, _| cpus.contains(cpu) && !returned.contains(cpu));
            for &cpu in cpus {
                if attached.events.contains_key(&cpu) {
                    continue;
                }
                // One that cannot be sampled keeps no other from it.
                let event = match perf::open_source(cpu, &source) {
                    Ok(event) => event,
                    Err(Error::CpuGone { .. }) => continue,
                    Err(error) => {
                        result = result.and(Err(error));
                        continue;
                    }
                };
                if let Some(words) = words {
                    let slot = (cpu as usize * self.sources.len() + at) * self.scratch_words;
                    self.scratches.write(slot + PERIOD, &words);
                }
                let copy = event.try_clone().map_err(|error| Error::io("duplicate a perf event", error))?;
                // The link owns the descriptor that it is given, and closes it.
                let link = program.attach_perf_event(copy.into_raw_fd());
                let link = link.map_err(|source| bpf_error("attach", source))?;
                attached.events.insert(cpu, Running { _link: link, event });
            }
        }
        result
    }

    /// Samples the same events at other rates, live: no event is opened anew, and each sample tells what it is worth. A CPU's clock
    /// begins a new period when it changes, so that on average half of an old one passes unsampled.
    ///
    /// # Errors
    /// A rate is not allowed, or these are other events or a rate of another kind (nothing has changed), or the kernel refuses it (that
    /// source goes on as before).
    pub fn set_sources(&mut self, wanted: Vec<Source>) -> Result<()> {
        check(&wanted)?;
        let live = wanted.len() == self.sources.len()
            && self.sources.iter().zip(&wanted).all(|(now, wanted)| now.changes_live_to(wanted));
        if !live {
            return Err(Error::OtherEvents);
        }
        let mut result = Ok(());
        for (at, source) in wanted.into_iter().enumerate() {
            let Some(before) = self.sources.get(at).filter(|before| **before != source).cloned() else { continue };
            match self.change(at, &source) {
                Ok(()) => {
                    if let Some(place) = self.sources.get_mut(at) {
                        *place = source;
                    }
                }
                Err(error) => {
                    // As before on every CPU, so that the next attempt is one.
                    let _ = self.change(at, &before);
                    result = result.and(Err(error));
                }
            }
        }
        result
    }

    /// Gives source number `at` the rate of `source`.
    fn change(&mut self, at: usize, source: &Source) -> Result<()> {
        if let Some(words) = source.counted() {
            self.write_all(at, words);
            return Ok(());
        }
        let (clock, count) = (source.event.is_clock(), self.sources.len());
        let value = match source.rate {
            _ if clock => source.clock_period(),
            Rate::Every(value) | Rate::Frequency(value) => value,
        };
        let mut result = Ok(());
        for (&cpu, running) in self.attached.get(at).into_iter().flat_map(|attached| &attached.events) {
            let slot = (cpu as usize * count + at) * self.scratch_words + PERIOD;
            let scratches = &mut self.scratches;
            let changed = perf::change_period(&running.event, value, || {
                if clock {
                    scratches.write(slot, &[value]);
                }
            });
            result = result.and(changed);
        }
        result
    }

    /// The same for one clock, `frequency` times a second, and for all others in proportion.
    ///
    /// # Errors
    /// As for [`Self::set_sources`].
    pub fn set_frequency(&mut self, frequency: u64) -> Result<()> {
        let now = self.sources.first().and_then(Source::frequency).unwrap_or(frequency);
        self.set_sources(self.sources.iter().map(|source| source.scaled(frequency, now)).collect())
    }

    fn write_all(&mut self, source: usize, words: [u64; 2]) {
        for slot in (source..self.scratches.len() / self.scratch_words).step_by(self.sources.len()) {
            self.scratches.write(slot * self.scratch_words + PERIOD, &words);
        }
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

    /// Stops all sources; samples that are in the rings stay there.
    pub fn stop(&mut self) {
        self.attached.iter_mut().for_each(|attached| attached.events.clear());
    }

    /// What makes samples, as it is now; a sample's `source` is an index into it.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Bytes of the rings of samples.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.skeleton.maps.samples.max_entries() as usize * self.sources.len()
    }

    /// Bytes of all maps but the rings of samples and the slabs of rows, as the kernel counts them.
    #[must_use]
    pub fn map_bytes(&self) -> usize {
        self.map_bytes
    }

    /// What the kernel half counted so far of each source, over all CPUs.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        let mut sums = vec![Counters::default(); self.sources.len()];
        for slot in 0..self.scratches.len() / self.scratch_words {
            let Some(sum) = sums.get_mut(slot % self.sources.len()) else { continue };
            for &counter in Counter::ALL {
                let count = self.scratches.read(slot * self.scratch_words + counter as usize);
                sum[counter] += count.unwrap_or_default();
            }
        }
        sums
    }

    /// What of [`Counter::RuledOut`] was counted in each lane, over all sources and CPUs.
    #[must_use]
    pub fn ruled_out(&self) -> [u64; RULE_LANES] {
        let mut sums = [0_u64; RULE_LANES];
        for slot in 0..self.scratches.len() / self.scratch_words {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let count = self.scratches.read(slot * self.scratch_words + RULED_OUT + lane);
                *sum = sum.wrapping_add(count.unwrap_or_default());
            }
        }
        sums
    }

    /// Makes the scratch memory of `source` look in use, or not.
    #[cfg(test)]
    fn hold(&mut self, source: usize, busy: bool) {
        for slot in (source..self.scratches.len() / self.scratch_words).step_by(self.sources.len()) {
            self.scratches.write(slot * self.scratch_words + BUSY, &[u64::from(busy)]);
        }
    }
}

/// What of a source runs.
#[derive(Default)]
struct Attached {
    /// By CPU.
    events: BTreeMap<u32, Running>,
}

/// An event of one CPU, attached.
struct Running {
    _link: Link,
    event: OwnedFd,
}

/// Whether the kernel half can have these sources.
fn check(sources: &[Source]) -> Result<()> {
    if sources.is_empty() || sources.len() > MAX_SOURCES {
        return Err(Error::Sources { count: sources.len(), limit: MAX_SOURCES });
    }
    let limit = perf::max_frequency();
    for (at, source) in sources.iter().enumerate() {
        // The kernel's shortest period of a clock is 10 us.
        let limit = if source.event.is_clock() { limit.min(100_000) } else { limit };
        if let Rate::Frequency(frequency) = source.rate
            && (frequency == 0 || frequency > limit)
        {
            return Err(Error::Frequency { frequency, limit });
        }
        if sources.iter().take(at).any(|before| before.event == source.event) {
            return Err(Error::SourceTwice { event: source.event.to_string() });
        }
    }
    Ok(())
}

/// A bit for each source that is a clock.
fn clocks(sources: &[Source]) -> u32 {
    sources.iter().enumerate().filter(|(_, source)| source.event.is_clock()).fold(0, |bits, (at, _)| bits | 1 << at)
}

/// The program that samples `event` as source number `at`.
fn program(at: usize, event: &Event) -> String {
    match (event.is_tracepoint(), at) {
        (true, _) => format!("sample_hit_{at}"),
        (false, 0) => "sample_cpu".to_owned(),
        (false, _) => format!("sample_event_{at}"),
    }
}

/// The maps of all rings, by source.
fn rings<'a, 'o>(maps: &'a mut OpenProfilerMaps<'o>) -> [&'a mut libbpf_rs::OpenMapMut<'o>; MAX_SOURCES] {
    [
        &mut maps.samples,
        &mut maps.samples_1,
        &mut maps.samples_2,
        &mut maps.samples_3,
        &mut maps.samples_4,
        &mut maps.samples_5,
        &mut maps.samples_6,
        &mut maps.samples_7,
    ]
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

pub(crate) fn bpf_error(action: &'static str, source: libbpf_rs::Error) -> Error {
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

#[cfg(test)]
mod tests;
