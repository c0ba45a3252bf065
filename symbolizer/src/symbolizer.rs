//! The front door: what is loaded, and within which budget.

use crate::{
    frame::{Language, Symbolized},
    jit::{Generation, Jit, JitProcess, MapRead},
    kernel::{Kernel, KernelError},
    native::Native,
    object::{Object, ObjectKey},
};
use profiler_address::{ElfVaddr, KernelAddr, UserAddr};
use profiler_elf::contain;
use rustc_hash::FxHashMap;
use std::path::PathBuf;

/// What is looked up, and with how much memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also give files, lines and inlined callees, from DWARF. Go programs have them either way: they cost nothing there.
    pub source_lines: bool,
    /// Directories for separate debug files, as gdb's `debug-file-directory`.
    pub debug_dirs: Vec<PathBuf>,
    /// Memory for everything kept, bytes. What was used longest ago goes first.
    pub budget_bytes: u64,
    /// Largest total of debug sections of one file that is looked into, bytes; files beyond it get symbol names only.
    pub dwarf_budget_bytes: u64,
}

impl Options {
    /// What one file may take of the memory for one purpose, bytes: a part of the budget, and at least `floor`, since a small budget still
    /// is to name ordinary files.
    pub(crate) fn share(&self, part: u64, floor: u64) -> u64 {
        (self.budget_bytes / part).max(floor)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source_lines: false,
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            budget_bytes: 128 << 20,
            dwarf_budget_bytes: 1 << 30,
        }
    }
}

/// What was done so far, and what could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Files looked into and not evicted since.
    pub objects: u64,
    /// Memory that they, the kernel's table and JIT tables take, bytes, estimated.
    pub bytes: u64,
    /// Addresses asked for.
    pub addresses: u64,
    /// Of these, the ones without a name.
    pub unknown: u64,
    /// Files that are not ELF or could not be read.
    pub unreadable_objects: u64,
    /// Files dropped to stay within the budget.
    pub evictions: u64,
    /// Symbol tables that were left alone, being larger than the memory budget allows.
    pub symbols_too_large: u64,
    /// Names and paths that were left out, since those of their file took too much of the memory budget.
    pub names_left_out: u64,
    /// Files whose debug info was left alone, being larger than `dwarf_budget_bytes` or, unpacked, than the memory budget allows; of split
    /// debug info each file.
    pub dwarf_too_large: u64,
    /// Lookups in debug info that were given up: malformed, or too much work.
    pub dwarf_failures: u64,
    /// Units whose split debug info (`.dwo` files, or a `.dwp` beside the program) was not found: no inlined callees there.
    pub dwo_missing: u64,
    /// Files whose common debug info (`.gnu_debugaltlink`, as `dwz -m` makes it) was not found: some inlined callees have no names.
    pub supplement_missing: u64,
    /// Perf maps and jitdumps that were refused: not a regular file, of another user, too large, malformed.
    pub jit_refused: u64,
    /// Entries of perf maps and jitdumps that were left out, the oldest of a process first, to stay within the budget.
    pub jit_left_out: u64,
    /// Panics of parsers of others' making that were caught.
    pub panics: u64,
    /// Readings of /proc/kallsyms.
    pub kernel_loads: u64,
    /// Addresses that nobody was asked for, where it is another process that looks names up: it was given up or could not be started, or the
    /// file could not be had. Counted by who asks.
    pub unasked: u64,
    /// Perf maps that were written anew, or read by another in the place of who is gone, or replaced more of what they said than is kept: what
    /// some of their addresses meant before is not told. Counted each time.
    pub jit_forgotten: u64,
}

impl Stats {
    /// How many numbers these are.
    pub const COUNT: usize = 18;

    /// All numbers, in their order.
    fn numbers(&mut self) -> [&mut u64; Self::COUNT] {
        // Exhaustive, so that none is forgotten.
        let Self {
            objects,
            bytes,
            addresses,
            unknown,
            unreadable_objects,
            evictions,
            symbols_too_large,
            names_left_out,
            dwarf_too_large,
            dwarf_failures,
            dwo_missing,
            supplement_missing,
            jit_refused,
            jit_left_out,
            panics,
            kernel_loads,
            unasked,
            jit_forgotten,
        } = self;
        [
            objects,
            bytes,
            addresses,
            unknown,
            unreadable_objects,
            evictions,
            symbols_too_large,
            names_left_out,
            dwarf_too_large,
            dwarf_failures,
            dwo_missing,
            supplement_missing,
            jit_refused,
            jit_left_out,
            panics,
            kernel_loads,
            unasked,
            jit_forgotten,
        ]
    }

    /// The numbers, for another process.
    #[must_use]
    pub fn to_array(mut self) -> [u64; Self::COUNT] {
        self.numbers().map(|number| *number)
    }

    /// What [`Self::to_array`] made numbers of.
    #[must_use]
    pub fn from_array(numbers: [u64; Self::COUNT]) -> Self {
        let mut stats = Self::default();
        stats.numbers().into_iter().zip(numbers).for_each(|(to, number)| *to = number);
        stats
    }

    /// Adds those of another symbolizer; numbers of another process may be anything.
    pub fn add(&mut self, more: &Self) {
        self.numbers().into_iter().zip(more.to_array()).for_each(|(to, number)| *to = to.saturating_add(number));
    }
}

/// One perf map or jitdump may take this part of the budget; all of them together, half of it.
const JIT_SHARE: u64 = 5;

struct Entry {
    native: Native,
    used: u64,
    /// What `native` held after its last use.
    bytes: u64,
}

/// Names for addresses. Everything is read at the first lookup and kept under [`Options::budget_bytes`].
pub struct Symbolizer {
    options: Options,
    objects: FxHashMap<ObjectKey, Entry>,
    objects_bytes: u64,
    kernel: Kernel,
    jit: Jit,
    clock: u64,
    stats: Stats,
}

impl Symbolizer {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            jit: Jit::new(options.budget_bytes / JIT_SHARE),
            options,
            objects: FxHashMap::default(),
            objects_bytes: 0,
            kernel: Kernel::new("/proc/kallsyms".into()),
            clock: 0,
            stats: Stats::default(),
        }
    }

    /// Names for addresses of one ELF file, in order. An address of a caller must already be that of the call (`pc - 1`).
    pub fn native(&mut self, object: &Object, addresses: &[ElfVaddr]) -> Vec<Symbolized> {
        self.clock += 1;
        let mut native = self.take(&object.key).map(|entry| entry.native);
        // A last belt, so that one file costs its own names only.
        let (stats, options) = (&mut self.stats, &self.options);
        let caught = contain::contain(|| {
            contain::fault("names");
            let native = native.get_or_insert_with(|| {
                Native::load(object, options, stats).unwrap_or_else(|error| {
                    tracing::debug!(path = object.path, %error, "no names from this file");
                    stats.unreadable_objects += 1;
                    Native::default()
                })
            });
            native.begin(options);
            // In order of address, so that what is read of a compilation unit serves all its addresses at once.
            let mut order: Vec<_> = addresses.iter().enumerate().collect();
            order.sort_unstable_by_key(|(_, address)| **address);
            let mut found = vec![Symbolized::default(); addresses.len()];
            for (index, address) in order {
                if let Some(place) = found.get_mut(index) {
                    *place = native.symbolize(*address, options, stats);
                }
            }
            stats.names_left_out += native.take_left_out();
            found
        });
        let found = caught.unwrap_or_else(|| {
            tracing::error!(path = object.path, "a parser panicked; no more names from this file");
            self.stats.panics += 1;
            native = None;
            vec![Symbolized::unknown(Language::Native); addresses.len()]
        });
        let native = native.unwrap_or_default();
        let entry = Entry { bytes: native.bytes() + 256, native, used: self.clock };
        self.objects_bytes += entry.bytes;
        self.objects.insert(object.key.clone(), entry);
        self.count(&found);
        self.shrink(Some(&object.key));
        found
    }

    /// Names for kernel addresses, in order.
    pub fn kernel(&mut self, addresses: &[KernelAddr]) -> Vec<Symbolized> {
        let kernel = &mut self.kernel;
        let found = contain::contain(|| addresses.iter().map(|address| kernel.symbolize(*address)).collect());
        let found: Vec<_> = found.unwrap_or_else(|| {
            self.stats.panics += 1;
            self.kernel = Kernel::new("/proc/kallsyms".into());
            vec![Symbolized::unknown(Language::Kernel); addresses.len()]
        });
        self.count(&found);
        found
    }

    /// Whether kernel addresses can be named, and if not what to do.
    ///
    /// # Errors
    /// `/proc/kallsyms` is missing, or shows no addresses to us.
    pub fn kernel_status(&mut self) -> Result<(), KernelError> {
        self.kernel.status()
    }

    /// Names for addresses in code that a JIT of the process made, in order, each as of a time (CLOCK_MONOTONIC, ns).
    pub fn jit(&mut self, process: &JitProcess, addresses: &[(UserAddr, u64)]) -> Vec<Symbolized> {
        let (jit, stats) = (&mut self.jit, &mut self.stats);
        let found = contain::contain(|| jit.symbolize(process, addresses, stats)).unwrap_or_else(|| {
            self.jit_panicked(process);
            vec![Symbolized::unknown(Language::Jit); addresses.len()]
        });
        self.count(&found);
        self.shrink(None);
        found
    }

    /// What addresses in code that a JIT of the process made have meant, in order, each up to which time (CLOCK_MONOTONIC, ns).
    pub fn jit_generations(&mut self, process: &JitProcess, addresses: &[UserAddr]) -> Vec<Vec<Generation>> {
        let (jit, stats) = (&mut self.jit, &mut self.stats);
        let found = contain::contain(|| jit.generations(process, addresses, stats)).unwrap_or_else(|| {
            self.jit_panicked(process);
            let unknown = Generation { until: u64::MAX, symbolized: Symbolized::unknown(Language::Jit) };
            vec![vec![unknown]; addresses.len()]
        });
        let last: Vec<_> = found.iter().filter_map(|found| found.last()).map(|last| last.symbolized.clone()).collect();
        self.count(&last);
        self.shrink(None);
        found
    }

    /// Reads what names a process's JIT code has by now. Call it when the first such frame is seen: the process may be gone
    /// by the time that names are asked for.
    pub fn jit_prefetch(&mut self, process: &JitProcess) {
        let (jit, stats) = (&mut self.jit, &mut self.stats);
        if contain::contain(|| jit.refresh(process, stats)).is_none() {
            self.jit_panicked(process);
        }
        self.shrink(None);
    }

    /// Tells how far another symbolizer, which is gone, had read the perf map of a process ([`Self::jit_so_far`]). Before it is read here.
    pub fn jit_resume(&mut self, process: &JitProcess, read: MapRead) {
        self.jit.resume(process, read);
    }

    /// How far the perf map of a process was read; none if there is none.
    #[must_use]
    pub fn jit_so_far(&self, process: &JitProcess) -> Option<MapRead> {
        self.jit.so_far(process)
    }

    fn jit_panicked(&mut self, process: &JitProcess) {
        tracing::error!(pid = process.pid, "a parser panicked; the names of JIT code are read anew");
        self.stats.panics += 1;
        self.jit = Jit::new(self.options.budget_bytes / JIT_SHARE);
    }

    /// Forgets a file.
    pub fn evict(&mut self, key: &ObjectKey) {
        self.take(key);
    }

    /// Forgets everything that was read; it is read again at the next lookup.
    pub fn forget(&mut self) {
        *self = Self { stats: self.stats, ..Self::new(self.options.clone()) };
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Entry> {
        let entry = self.objects.remove(key)?;
        self.objects_bytes = self.objects_bytes.saturating_sub(entry.bytes);
        Some(entry)
    }

    /// Counts since the start, and the memory in use.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { objects: self.objects.len() as u64, bytes: self.bytes(), kernel_loads: self.kernel.loads, ..self.stats }
    }

    fn bytes(&self) -> u64 {
        self.objects_bytes + self.kernel.bytes() + self.jit.bytes()
    }

    fn count(&mut self, found: &[Symbolized]) {
        self.stats.addresses += found.len() as u64;
        self.stats.unknown += found.iter().filter(|s| s.frames.is_empty()).count() as u64;
    }

    /// Drops what was used longest ago, files before JIT tables, until the budget holds; never what is in use.
    fn shrink(&mut self, in_use: Option<&ObjectKey>) {
        while self.jit.bytes() > self.options.budget_bytes / 2 && self.jit.drop_oldest() {
            self.stats.evictions += 1;
        }
        while self.bytes() > self.options.budget_bytes {
            let others = self.objects.iter().filter(|(key, _)| Some(*key) != in_use);
            match others.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) {
                Some(key) => self.evict(&key),
                None if self.jit.drop_oldest() => {}
                None => return,
            }
            self.stats.evictions += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_as_they_went_and_add_up() {
        let mut numbers = [0; Stats::COUNT];
        (1..).zip(&mut numbers).for_each(|(number, to)| *to = number);
        let mut stats = Stats::from_array(numbers);
        assert_eq!((stats.to_array(), stats.objects, stats.kernel_loads), (numbers, 1, 16));
        stats.add(&stats.clone());
        assert_eq!((stats.bytes, stats.panics), (4, 30));
        stats.add(&Stats::from_array([u64::MAX; Stats::COUNT]));
        assert_eq!(stats.jit_refused, u64::MAX);
    }
}
