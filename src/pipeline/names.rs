//! Names of frames: asked for once, kept as long as the budget allows.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use profiler_address::{ElfVaddr, KernelAddr, UserAddr};
use profiler_reader::{Allowance, Namer};
use profiler_symbolizer::{Generation, JitProcess, Object, ObjectKey, Symbolized, Symbolizer};
use profiler_unwinders::executable::{Executable, ExecutableId};
use profiler_unwinders::reading::{Lent, Reading, Troubles};
use rustc_hash::FxHashMap;

use super::aggregate::{Aggregate, Frame, FrameId, Image, ImageId};
use super::tap::{self, Unnamed};

/// The open files of the executables of one aggregate: those of who reads, as a rule.
pub type Files = FxHashMap<ExecutableId, Lent>;

/// The files of all executables in `aggregate`, opened again where they were closed; without those that are gone.
#[must_use]
pub fn files(aggregate: &Aggregate, reading: &mut dyn Reading) -> Files {
    let wanted: Vec<Arc<Executable>> = aggregate.executables.values().map(Arc::clone).collect();
    reading.lend(&wanted)
}

/// A place, and what it is called.
#[derive(Clone, Debug)]
pub struct Named {
    /// Where.
    pub place: tap::Place,
    /// The function; of what has no name, the file.
    pub name: Arc<str>,
    /// The file that its code is of, with its build id, for people.
    pub file: Option<Arc<str>>,
}

/// For how long one window, or what detection wants named, is named; of what is not reached by then, names are missing. A recording's end has all
/// the time that it takes.
const NAMING: Duration = Duration::from_secs(120);
/// For how long names of JIT code are read ahead: windows wait meanwhile.
const READING_AHEAD: Duration = Duration::from_secs(10);
/// Bytes of names in a recording.
const RECORDED: usize = 512 << 20;

/// Where names come from.
pub struct Names {
    /// Of the kernel's code; of all code where there is no namer.
    symbolizer: Symbolizer,
    /// Of what belongs to targets.
    namer: Option<Namer>,
    known: Known,
    once: bool,
    /// For one window.
    allowance: Allowance,
    /// Process at which reading ahead goes on.
    ahead: usize,
}

impl Names {
    /// Names by `symbolizer`, for one profile: what was read of a file is dropped when its names are known.
    #[must_use]
    pub fn once(symbolizer: Symbolizer) -> Self {
        let allowance = Allowance { time: Duration::MAX, bytes: RECORDED };
        Self { symbolizer, namer: None, known: Known::new(usize::MAX), once: true, allowance, ahead: 0 }
    }

    /// Names by `symbolizer` for one profile after the other; up to `budget` bytes of them are kept from one to the next, and one has up to three times as many that are new.
    #[must_use]
    pub fn kept(symbolizer: Symbolizer, budget: usize) -> Self {
        let allowance = allowance(budget);
        Self { symbolizer, namer: None, known: Known::new(budget), once: false, allowance, ahead: 0 }
    }

    /// All names of what belongs to targets are asked of `namer`; this process opens nothing of theirs.
    #[must_use]
    pub fn by(mut self, namer: Namer) -> Self {
        self.namer = Some(namer);
        self
    }

    /// Nobody samples any more: names may take their time.
    pub fn be_patient(&mut self) {
        self.namer.iter_mut().for_each(Namer::be_patient);
    }

    /// Names are looked up in another way from now on, and up to `budget` bytes of them are kept.
    pub fn set(&mut self, options: profiler_symbolizer::Options, namer: profiler_reader::Options, budget: usize) {
        self.known = Known::new(budget);
        self.allowance = allowance(budget);
        match &mut self.namer {
            Some(running) => running.set(namer, options),
            None => self.symbolizer = Symbolizer::new(options),
        }
    }

    /// Reads what names JIT code of `images` now, since the processes may be gone later; as far as the time for it goes, and the others first
    /// when it is asked for next.
    pub fn prefetch(&mut self, images: &[Image]) {
        if let Some(namer) = &mut self.namer {
            namer.begin(Allowance { time: READING_AHEAD, ..self.allowance }, images.len());
        }
        for image in in_turn(images, self.ahead) {
            let process = jit_process(image);
            match &mut self.namer {
                Some(namer) if namer.is_over() => break,
                Some(namer) => namer.prefetch(&process),
                None => self.symbolizer.jit_prefetch(&process),
            }
            self.ahead = (self.ahead + 1) % images.len();
        }
    }

    /// Why kernel frames will have no names, if that is so.
    pub fn kernel_trouble(&mut self) -> Option<String> {
        self.symbolizer.kernel_status().err().map(|error| error.to_string())
    }

    /// Bytes of names and of what they are looked up in, estimated.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes(&self.stats(), &self.known)
    }

    /// What was looked up so far.
    #[must_use]
    pub fn stats(&self) -> profiler_symbolizer::Stats {
        let mut stats = self.symbolizer.stats();
        self.namer.iter().for_each(|namer| stats.add(&namer.stats()));
        stats
    }

    /// What went wrong with who names.
    #[must_use]
    pub fn troubles(&self) -> Troubles {
        self.namer.as_ref().map(|namer| namer.seen().stats().troubles).unwrap_or_default()
    }

    /// Forgets all names, to be asked for anew.
    pub fn forget(&mut self) {
        self.known.clear();
        self.symbolizer.forget();
        if let Some(namer) = &mut self.namer {
            namer.forget();
        }
    }

    /// The name of each of `unnamed`: the function, the innermost where others are inlined.
    pub fn places(&mut self, unnamed: &Unnamed, files: &Files) -> Vec<Named> {
        let (symbols, _) = self.of(&unnamed.aggregate, files);
        let mut texts: FxHashMap<ExecutableId, (Arc<str>, Arc<str>)> = FxHashMap::default();
        let named = unnamed.places.iter().zip(&symbols).map(|(place, symbolized)| {
            let function = symbolized.as_ref().and_then(|symbolized| symbolized.frames.first());
            let (fallback, file): (Arc<str>, _) = match place {
                tap::Place::Native(id, _) => {
                    let (name, file) =
                        texts.entry(*id).or_insert_with(|| of_file(unnamed.aggregate.executables.get(id)));
                    (Arc::clone(name), Some(Arc::clone(file)))
                }
                tap::Place::Kernel(_) => ("[kernel]".into(), None),
                _ => ("[JIT]".into(), None),
            };
            let name = function.map_or(fallback, |function| Arc::clone(&function.name));
            Named { place: *place, name, file }
        });
        named.collect()
    }

    /// What the symbolizer says of each frame, by frame id; and of the frames in JIT code that meant one thing after another, what and
    /// up to when. Asks once for all addresses of a file, a process or the kernel: one file
    /// is parsed at a time.
    pub(super) fn of(&mut self, aggregate: &Aggregate, files: &Files) -> (Vec<Option<Symbolized>>, Generations) {
        let mut generations = Generations::default();
        let mut symbols: Vec<Option<Symbolized>> = vec![None; aggregate.frames.len()];
        let mut native: FxHashMap<ExecutableId, Vec<(usize, ElfVaddr)>> = FxHashMap::default();
        let mut jit: FxHashMap<ImageId, Vec<(usize, UserAddr)>> = FxHashMap::default();
        let mut kernel: Vec<(usize, KernelAddr)> = Vec::new();
        for (index, (frame, slot)) in aggregate.frames.iter().zip(&mut symbols).enumerate() {
            match *frame {
                Frame::Native { executable, address, .. } => match self.known.get((executable, address)) {
                    Some(known) => *slot = Some(known),
                    None => native.entry(executable).or_default().push((index, address)),
                },
                Frame::Jit { image, address, .. } => jit.entry(image).or_default().push((index, address)),
                Frame::Kernel { address } => kernel.push((index, address)),
                Frame::Runtime { .. } | Frame::Unopened { .. } | Frame::Unmapped { .. } | Frame::Marker(_) => {}
            }
        }
        let mut fill = |indices: Vec<usize>, answers: Vec<Option<Symbolized>>| {
            for (index, answer) in indices.into_iter().zip(answers) {
                if let Some(slot) = symbols.get_mut(index) {
                    *slot = answer;
                }
            }
        };
        // Where debug files of a program are first looked for: as its own process would. Of a library nobody knows whose root is its.
        let programs = aggregate.images.iter().filter_map(|image| Some((image.executable.as_ref()?.id, image.pid)));
        let programs: FxHashMap<ExecutableId, u32> = programs.collect();
        // Who costs little comes first, in time and in names: what others cost is then their own names.
        let mut native: Vec<_> = native
            .into_iter()
            .filter_map(|(id, frames)| Some((aggregate.executables.get(&id)?, frames)))
            .map(|(executable, frames)| {
                (self.namer.as_ref().map_or(0.0, |namer| namer.cost(executable)), frames, executable)
            })
            .collect();
        native.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.len().cmp(&b.1.len())));
        let mut jit: Vec<_> = jit
            .into_iter()
            .filter_map(|(id, frames)| Some((jit_process(aggregate.images.get(id as usize)?), frames)))
            .map(|(process, frames)| {
                (self.namer.as_ref().map_or(0.0, |namer| namer.cost_of_code(&process)), frames, process)
            })
            .collect();
        jit.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.len().cmp(&b.1.len())));
        if let Some(namer) = &mut self.namer {
            namer.begin(self.allowance, native.len() + jit.len());
        }
        for (_, frames, executable) in native {
            let id = executable.id;
            let (indices, addresses): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
            let answers = self.native(executable, files.get(&id), programs.get(&id).copied(), &addresses);
            if !self.once {
                for (&address, answer) in addresses.iter().zip(&answers) {
                    // What could not be asked for is asked for again.
                    if let Some(answer) = answer {
                        self.known.insert((id, address), answer.clone());
                    }
                }
            }
            fill(indices, answers);
        }
        for (_, frames, process) in jit {
            let (indices, addresses): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
            let answers = match &mut self.namer {
                Some(namer) => namer.generations(&process, &addresses),
                None => Some(self.symbolizer.jit_generations(&process, &addresses)),
            };
            let Some(answers) = answers else { continue };
            let last = answers.iter().map(|of| of.last().map(|last| last.symbolized.clone()));
            fill(indices.clone(), last.collect());
            let several = indices.into_iter().zip(answers).filter(|(_, of)| of.len() > 1);
            generations.extend(several.map(|(index, of)| (index as FrameId, of)));
        }
        let (indices, addresses): (Vec<_>, Vec<_>) = kernel.into_iter().unzip();
        fill(indices, self.symbolizer.kernel(&addresses).into_iter().map(Some).collect());
        (symbols, generations)
    }

    /// Names of addresses of one file; none of those that could not be asked for.
    fn native(
        &mut self,
        executable: &Executable,
        lent: Option<&Lent>,
        program_of: Option<u32>,
        addresses: &[ElfVaddr],
    ) -> Vec<Option<Symbolized>> {
        if let Some(namer) = &mut self.namer {
            let object = profiler_reader::Object { executable, lent, program_of };
            return namer.native(&object, addresses, self.once);
        }
        let root = program_of.map_or_else(|| PathBuf::from("/"), |pid| format!("/proc/{pid}/root").into());
        let Some(object) = object(executable, lent, root) else { return vec![None; addresses.len()] };
        let answers = self.symbolizer.native(&object, addresses);
        if self.once {
            self.symbolizer.evict(&object.key);
        }
        answers.into_iter().map(Some).collect()
    }
}

/// The symbolizer's and what is kept here. A namer's number may be anything.
fn bytes(stats: &profiler_symbolizer::Stats, known: &Known) -> u64 {
    stats.bytes.saturating_add(known.bytes() as u64)
}

/// For a window, where `budget` bytes are kept.
fn allowance(budget: usize) -> Allowance {
    Allowance { time: NAMING, bytes: budget.saturating_mul(3) }
}

/// All of them, those from the place `first` on before the others.
fn in_turn<T>(all: &[T], first: usize) -> impl Iterator<Item = &T> {
    let (before, from) = all.split_at(first.min(all.len()));
    from.iter().chain(before)
}

/// What frames in JIT code have meant one after the other.
pub(super) type Generations = FxHashMap<FrameId, Vec<Generation>>;

/// A place in an executable.
type Place = (ExecutableId, ElfVaddr);

/// Names of places, in two generations: what was not asked for during a whole generation goes.
struct Known {
    young: FxHashMap<Place, Symbolized>,
    young_bytes: usize,
    old: FxHashMap<Place, Symbolized>,
    old_bytes: usize,
    budget: usize,
}

impl Known {
    fn new(budget: usize) -> Self {
        Self { young: FxHashMap::default(), young_bytes: 0, old: FxHashMap::default(), old_bytes: 0, budget }
    }

    fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }

    fn clear(&mut self) {
        *self = Self::new(self.budget);
    }

    fn get(&mut self, place: Place) -> Option<Symbolized> {
        if let Some(known) = self.young.get(&place) {
            return Some(known.clone());
        }
        let known = self.old.remove(&place)?;
        self.old_bytes -= size(&known);
        self.insert(place, known.clone());
        Some(known)
    }

    fn insert(&mut self, place: Place, symbolized: Symbolized) {
        let bytes = size(&symbolized);
        if self.young_bytes + bytes > self.budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(place, symbolized) {
            self.young_bytes -= size(&before);
        }
    }
}

/// Bytes of an entry, with its share of names that several entries have.
fn size(symbolized: &Symbolized) -> usize {
    let entry = size_of::<(Place, Symbolized)>() + 16;
    let frames = symbolized.frames.iter().map(|frame| size_of_val(frame) + frame.name.len() + frame.system_name.len());
    entry + frames.sum::<usize>()
}

fn object(executable: &Executable, lent: Option<&Lent>, root: PathBuf) -> Option<Object> {
    let file = match executable.bytes() {
        Some(bytes) => Arc::new(memory_file(bytes).ok()?),
        None => Arc::clone(lent?.file.as_ref()?),
    };
    // Ids and hashes of the ends are claims; the registry's id stands for the whole content.
    Some(Object {
        key: ObjectKey(format!("{:?}: {}", executable.id, executable.htlhash).into()),
        file,
        path: executable.path_text().into_owned(),
        root,
        held: None,
    })
}

/// What has no file, the vDSO, becomes one.
fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// What stands for functions without a name in `executable`, and what its file is.
fn of_file(executable: Option<&Arc<Executable>>) -> (Arc<str>, Arc<str>) {
    let Some(executable) = executable else { return ("[unknown]".into(), "".into()) };
    let path = executable.path_text();
    let name = path.rsplit('/').next().unwrap_or_default();
    let build_id = executable.build_id_gnu.as_deref().or(executable.build_id_go.as_deref());
    let build_id = build_id.map(|id| format!(", build id {id}")).unwrap_or_default();
    (format!("[{name}]").into(), format!("{path}{build_id}").into())
}

fn jit_process(image: &Image) -> JitProcess {
    JitProcess {
        pid: image.pid,
        start_time: image.start_time_ns,
        root: PathBuf::from(format!("/proc/{}/root", image.pid)),
        namespace_pid: image.namespace_pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_ahead_goes_on_where_it_ended() {
        let all = |first| in_turn(&[1, 2, 3], first).copied().collect::<Vec<_>>();
        assert_eq!([all(0), all(2), all(3)], [vec![1, 2, 3], vec![3, 1, 2], vec![1, 2, 3]]);
        assert_eq!(in_turn::<u8>(&[], 2).count(), 0);
    }

    #[test]
    fn whatever_number_a_namer_tells_the_sum_is_one() {
        let mut known = Known::new(1 << 20);
        known.insert((ExecutableId(1), ElfVaddr(1)), Symbolized::default());
        let mut stats = profiler_symbolizer::Stats::default();
        for (told, sum) in [(0, known.bytes() as u64), (u64::MAX, u64::MAX)] {
            stats.bytes = told;
            assert_eq!(bytes(&stats, &known), sum);
        }
    }

    #[test]
    fn names_stay_within_their_budget_and_what_is_in_use_stays() {
        let entry = size(&Symbolized::default());
        let mut known = Known::new(entry * 100);
        let place = |n| (ExecutableId(1), ElfVaddr(n));
        for n in 0..10_000 {
            known.insert(place(n), Symbolized::default());
            assert!(known.get(place(0)).is_some(), "asked for all the time, gone at {n}");
            assert!(known.bytes() <= entry * 100);
        }
        assert!(known.get(place(5)).is_none());
        assert!(known.get(place(9_999)).is_some());
    }
}
