//! Firefox Profiler (<https://profiler.firefox.com>): its processed profile format, gzipped.
//!
//! Frames that have an address in a file refer to that file and its build id, so that the viewer can say which library they are
//! in; names come from symbol tables made of the profile's own. Inlined functions, which the format's library cannot attach to
//! an address, are frames of their own, told apart by their category.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use fxprof_processed_profile::{
    CategoryColor, CategoryPairHandle, CpuDelta, Frame as Place, FrameFlags, FrameHandle, FrameInfo, LibraryHandle,
    LibraryInfo, Profile as Firefox, ReferenceTimestamp, SamplingInterval, StackHandle, Symbol, SymbolTable,
    ThreadHandle, Timestamp, debugid,
};
use rustc_hash::FxHashMap;

use profiler_model::{
    Family, FrameKind, Location, Mapping, MappingId, Measured, ProcessId, Profiles, Sample, StackId, ThreadId, Tier,
    frames::{Frame, Frames, file_name},
    headline::{losses, title},
};

use crate::format::shown_first;

/// As [`encode_shown`], of what `profile` shows first.
pub fn encode(profile: &Profiles, out: impl Write) -> io::Result<()> {
    encode_shown(profile, &shown_first(profile), out)
}

/// Writes `shown`, a part of `profile`, to `out` for the Firefox Profiler.
pub fn encode_shown(profile: &Profiles, shown: &Measured<'_>, out: impl Write) -> io::Result<()> {
    let firefox = Converter::new(profile, shown).convert();
    let mut gzip = io::BufWriter::new(GzEncoder::new(out, Compression::new(4)));
    serde_json::to_writer(&mut gzip, &firefox)?;
    gzip.into_inner()?.finish()?.flush()
}

struct Converter<'a> {
    /// What one sample is worth in values of `shown`: 1, or the shortest period where values are worth periods.
    each: u64,
    profile: &'a Profiles,
    shown: &'a Measured<'a>,
    /// Start of the profile, ns since the Unix epoch.
    begun: u64,
    frames: Frames<'a>,
    firefox: Firefox,
    /// Of functions that the compiler put into their callers.
    inlined: CategoryPairHandle,
    /// By kind of frame; what its runtime runs it by is a subcategory.
    categories: FxHashMap<(FrameKind, Option<Tier>), CategoryPairHandle>,
    /// What each frame is in the format; as [`Frames::all`].
    places: Vec<FrameInfo>,
}

impl<'a> Converter<'a> {
    fn new(profile: &'a Profiles, shown: &'a Measured<'a>) -> Self {
        let (weight, unit) = shown.weight();
        let each = shown.positions().map(|(position, _)| shown.scale(position)).min().unwrap_or(1).max(1);
        let (begun, _) = profile.window();
        let nanos = u64::try_from(weight).ok().filter(|weight| unit == "nanoseconds" && *weight > 0);
        let nanos = nanos.map(|nanos| nanos.saturating_mul(each));
        let rate = u64::from(profile.origin.frequency.max(1));
        let interval = SamplingInterval::from_nanos(nanos.unwrap_or(1_000_000_000 / rate));
        let start = ReferenceTimestamp::from_duration_since_unix_epoch(Duration::from_nanos(begun));
        let product = format!("{} ({})", title(profile, shown), losses(profile));
        let mut firefox = Firefox::new(&product, start, interval);
        if !profile.origin.kernel_release.is_empty() {
            firefox.set_os_name(&format!("Linux {}", profile.origin.kernel_release));
        }
        // The names are already in the file.
        firefox.set_symbolicated(true);
        let inlined = firefox.add_category("Inlined", CategoryColor::LightBlue).into();
        let of = |location: &Location| (shared(location.kind), location.tier);
        let mut kinds: Vec<_> = profile.locations.iter().map(of).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut categories = FxHashMap::default();
        for same in kinds.chunk_by(|(kind, _), (next, _)| kind == next) {
            let Some((kind, _)) = same.first() else { continue };
            let category = firefox.add_category(profile.kind_name(*kind), color(kind.family()));
            for &(kind, tier) in same {
                let pair = match tier {
                    Some(tier) => firefox.add_subcategory(category, tier.name()),
                    None => category.into(),
                };
                categories.insert((kind, tier), pair);
            }
        }
        let frames = Frames::new(profile);
        Self { each, profile, shown, begun, frames, firefox, inlined, categories, places: Vec::new() }
    }

    fn convert(mut self) -> Firefox {
        let libraries = self.libraries();
        let all = self.frames.all().to_vec();
        self.places = all.iter().map(|frame| self.place(frame, &libraries)).collect();
        let mut threads: FxHashMap<_, Vec<(&Sample, u64)>> = FxHashMap::default();
        for (sample, value) in self.shown.samples().filter(|(_, value)| *value > 0) {
            threads.entry((self.profile.process_of(sample), sample.thread)).or_default().push((sample, value));
        }
        let mut threads: Vec<_> = threads.into_iter().collect();
        threads.sort_unstable_by_key(|(key, _)| *key);
        let mut processes = FxHashMap::default();
        for ((process, thread), samples) in threads {
            let handle = *processes.entry(process).or_insert_with(|| self.process(process));
            let handle = self.thread(handle, process, thread);
            self.samples(handle, samples);
        }
        self.firefox
    }

    /// The time of `nanos` since the epoch, from the start of the profile.
    fn since_start(&self, nanos: u64) -> Timestamp {
        Timestamp::from_nanos_since_reference(nanos.saturating_sub(self.begun))
    }

    fn process(&mut self, process: Option<ProcessId>) -> fxprof_processed_profile::ProcessHandle {
        let process = process.and_then(|id| self.profile.process(id));
        let (name, pid) =
            process.map_or(("", 0), |process| (self.profile.process_label(process), process.pid.unwrap_or(0)));
        let start = self.since_start(process.map_or(0, |process| process.start_unix_nanos));
        // The format has no thread without a process: what nothing is known of is called by what the file is.
        let what = self.shown.title();
        self.firefox.add_process(if name.is_empty() { &what } else { name }, pid, start)
    }

    fn thread(
        &mut self,
        handle: fxprof_processed_profile::ProcessHandle,
        process: Option<ProcessId>,
        thread: Option<ThreadId>,
    ) -> ThreadHandle {
        let process = process.and_then(|id| self.profile.process(id));
        let thread = thread.and_then(|id| self.profile.threads.get(id as usize));
        let (name, tid) = thread.map_or(("", 0), |thread| (self.profile.string(thread.name), thread.tid));
        let is_main = process.is_none_or(|process| process.pid.is_none_or(|pid| pid == tid));
        let start = self.since_start(0);
        let handle = self.firefox.add_thread(handle, tid, start, is_main);
        self.firefox.set_thread_name(handle, name);
        handle
    }

    fn samples(&mut self, thread: ThreadHandle, mut samples: Vec<(&Sample, u64)>) {
        samples.sort_by_key(|(sample, _)| sample.time_unix_nanos);
        let (weight, unit) = self.shown.weight();
        let nanos = if unit == "nanoseconds" { u64::try_from(weight).unwrap_or(0) } else { 0 };
        let mut stacks: FxHashMap<StackId, Option<StackHandle>> = FxHashMap::default();
        let mut handles: FxHashMap<usize, FrameHandle> = FxHashMap::default();
        // What is no whole sample goes to the next one, so that sums stay true.
        let mut rest = 0_u64;
        for (sample, count) in samples {
            let stack = *stacks.entry(sample.stack).or_insert_with(|| {
                let mut stack = None;
                for &location in self.profile.stack(sample.stack).iter().rev() {
                    for position in self.frames.positions(location).rev() {
                        let Some(place) = self.places.get(position) else { continue };
                        let frame = handles.entry(position);
                        let frame = *frame.or_insert_with(|| self.firefox.intern_frame(thread, place.clone()));
                        stack = Some(self.firefox.intern_stack(thread, stack, frame));
                    }
                }
                stack
            });
            let time = self.since_start(sample.time_unix_nanos.unwrap_or(self.begun));
            let cpu = CpuDelta::from_nanos(count.saturating_mul(nanos));
            rest = rest.saturating_add(count);
            let weight = rest / self.each;
            rest %= self.each;
            self.firefox.add_sample(thread, time, stack, cpu, i32::try_from(weight).unwrap_or(i32::MAX));
        }
    }

    /// What `frame` is in the format: an address in a library if it is a function of its own, else its name.
    fn place(&mut self, frame: &Frame, libraries: &FxHashMap<MappingId, (LibraryHandle, u64)>) -> FrameInfo {
        let location = self.profile.location(frame.location);
        let tier = location.and_then(|location| location.tier);
        let of_kind = self.categories.get(&(shared(frame.kind), tier)).copied().unwrap_or(self.inlined);
        let is_inlined = frame.inlined && frame.kind.family() == Family::Native;
        let category_pair = if is_inlined { self.inlined } else { of_kind };
        let address = location.filter(|_| !frame.inlined).and_then(|location| {
            let (library, base) = libraries.get(&location.mapping?)?;
            Some((*library, u32::try_from(location.address.checked_sub(*base)?).ok()?))
        });
        let place = match address {
            // Callers' addresses were adjusted when they were recorded, and the viewer has the names already.
            Some((library, address)) => Place::RelativeAddressFromInstructionPointer(library, address),
            None => Place::Label(self.firefox.intern_string(self.frames.name(frame))),
        };
        FrameInfo { frame: place, category_pair, flags: FrameFlags::empty() }
    }

    /// A library for each mapping, with its base address and the names of all functions that the profile has in it.
    fn libraries(&mut self) -> FxHashMap<MappingId, (LibraryHandle, u64)> {
        let profile = self.profile;
        let mut symbols: FxHashMap<MappingId, Vec<Symbol>> = FxHashMap::default();
        for (index, location) in profile.locations.iter().enumerate() {
            let Some(id) = location.mapping else { continue };
            let Some(mapping) = profile.mappings.get(id as usize) else { continue };
            let symbols = symbols.entry(id).or_default();
            let outermost = self.frames.location(index as u32).last();
            let address = location.address.checked_sub(base(mapping)).and_then(|address| u32::try_from(address).ok());
            if let (Some(address), Some(frame)) = (address, outermost) {
                symbols.push(Symbol { address, size: Some(1), name: self.frames.name(frame).to_owned() });
            }
        }
        let mut symbols: Vec<_> = symbols.into_iter().collect();
        symbols.sort_unstable_by_key(|(id, _)| *id);
        let mut libraries = FxHashMap::default();
        for (id, symbols) in symbols {
            if let Some(mapping) = profile.mappings.get(id as usize) {
                let library = self.firefox.add_lib(library(profile, mapping, SymbolTable::new(symbols)));
                libraries.insert(id, (library, base(mapping)));
            }
        }
        libraries
    }
}

/// The kind whose category `kind` has: the format counts categories in 16 bits, so all that are not known share one.
fn shared(kind: FrameKind) -> FrameKind {
    if kind.names().is_some() { kind } else { FrameKind::Other(0) }
}

fn color(family: Family) -> CategoryColor {
    match family {
        Family::Native => CategoryColor::Blue,
        Family::Kernel => CategoryColor::Orange,
        Family::Go => CategoryColor::Purple,
        Family::Generated => CategoryColor::Green,
        Family::Interpreted => CategoryColor::Yellow,
        Family::Marker => CategoryColor::Gray,
        Family::Other => CategoryColor::Magenta,
    }
}

/// The ELF address of a file's first byte, as far as one mapping tells: linkers keep address and offset in step.
fn base(mapping: &Mapping) -> u64 {
    mapping.start.saturating_sub(mapping.file_offset)
}

fn library(profile: &Profiles, mapping: &Mapping, symbols: SymbolTable) -> LibraryInfo {
    let path = profile.string(mapping.file);
    let name = file_name(path).to_owned();
    let build_id = profile.string(mapping.build_id_gnu);
    LibraryInfo {
        debug_name: name.clone(),
        name,
        path: path.to_owned(),
        debug_path: path.to_owned(),
        debug_id: debug_id(build_id),
        code_id: (!build_id.is_empty()).then(|| build_id.to_owned()),
        arch: (!profile.origin.arch.is_empty()).then(|| profile.origin.arch.clone()),
        symbol_table: Some(Arc::new(symbols)),
    }
}

/// Breakpad's id of an ELF file: the first 16 bytes of the build id as a little-endian GUID.
fn debug_id(build_id: &str) -> debugid::DebugId {
    let mut bytes = [0; 16];
    for (byte, digits) in bytes.iter_mut().zip(build_id.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok();
        *byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0);
    }
    debugid::DebugId::from_guid_age(&bytes, 0).unwrap_or_else(|_| debugid::DebugId::nil())
}
