//! Who names frames: a reader of its own, so that slow naming delays nobody's rows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use profiler_address::{ElfVaddr, UserAddr};
use profiler_confine::Report;
use profiler_symbolizer::{Generation, JitProcess, MapRead, Options as Symbols, Stats as NameStats, Symbolized};
use profiler_unwinders::executable::Executable;
use profiler_unwinders::reading::Lent;
use rustc_hash::FxHashMap;

use crate::client::{Client, Options, Reader, Stats};
use crate::patience::Target;
use crate::wire::names::{self, Content, HeldRoot, JitCode, MAX_ADDRESSES, MAX_NAMES, Named, NamedFile, ReadFields};
use crate::wire::{Answer, Request};

/// A file whose addresses are named.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Which.
    pub executable: &'a Executable,
    /// Its file; none if it has none, or if it could not be opened any more.
    pub lent: Option<&'a Lent>,
    /// A process that runs it as its program, in whose root directory debug files are looked for first.
    pub program_of: Option<u32>,
}

/// Names frames in a process of its own, which is given up where a target holds it. That target's frames have no names then.
#[derive(Debug)]
pub struct Namer {
    client: Client,
    /// Who holds files open.
    lenders: Option<Reader>,
    /// Of namers that are gone.
    past: NameStats,
    /// Of the one that runs.
    present: NameStats,
    /// Frames for which answers had no room.
    left_out: u64,
    /// Addresses that nobody could be asked for.
    unasked: u64,
    /// How far perf maps were read, for the next namer: which of their lines held when is known to whoever saw them come.
    maps: Maps,
    left: Left,
    seen: Seen,
}

/// How far perf maps were read, by process (pid and start).
#[derive(Debug, Default)]
struct Maps {
    read: FxHashMap<(u32, u64), (MapRead, u64)>,
    uses: u64,
}

impl Maps {
    fn get(&self, of: &JitProcess) -> Option<&MapRead> {
        self.read.get(&(of.pid, of.start_time)).map(|(read, _)| read)
    }

    fn insert(&mut self, of: &JitProcess, read: MapRead) {
        let key = (of.pid, of.start_time);
        self.uses += 1;
        if self.read.len() >= MAX_MAPS && !self.read.contains_key(&key) {
            // The process that was asked about longest ago has ended, as a rule.
            let oldest = self.read.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.read.remove(&oldest));
        }
        self.read.insert(key, (read, self.uses));
    }
}

/// Whoever was asked was given up, or is not asked for now.
struct NoNames;

/// Bytes of names that one file or process may have at once: whose names are all of the longest gets some of them.
const MAX_OF_ONE: usize = 4 * MAX_NAMES;

/// Perf maps remembered.
const MAX_MAPS: usize = 4096;

/// What naming may take for one purpose: a window, a reading ahead.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Time. Whoever has no names by then has none.
    pub time: Duration,
    /// Bytes of names: all who ask have a share, and what some do not need is there for those who come later.
    pub bytes: usize,
}

/// What is left of an [`Allowance`].
#[derive(Debug)]
struct Left {
    until: Option<Instant>,
    bytes: usize,
    /// Who has not asked yet.
    askers: usize,
}

impl Left {
    const ALL: Self = Self { until: None, bytes: usize::MAX, askers: 1 };

    /// Bytes for who asks now.
    fn share(&mut self) -> usize {
        let share = self.bytes / self.askers.max(1);
        self.askers = self.askers.saturating_sub(1);
        share
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Addresses, some at a time: fewer, where their names do not fit into an answer.
struct Portions<'a, T> {
    left: &'a [T],
    at_once: usize,
    bytes: usize,
    /// Most bytes.
    most: usize,
}

impl<'a, T> Portions<'a, T> {
    /// Of all answers no more than `share` bytes, and [`MAX_OF_ONE`].
    fn of(addresses: &'a [T], share: usize) -> Self {
        Self { left: addresses, at_once: MAX_ADDRESSES, bytes: 0, most: share.min(MAX_OF_ONE) }
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.most
    }

    /// Bytes that the next answer may have.
    fn room(&self) -> usize {
        self.most.saturating_sub(self.bytes).min(MAX_NAMES)
    }

    /// What is to be asked for now; none once all is answered, or as much as there may be.
    fn next(&self) -> Option<&'a [T]> {
        let portion = self.left.get(..self.left.len().min(self.at_once))?;
        (!portion.is_empty() && !self.is_full()).then_some(portion)
    }

    fn is_last(&self) -> bool {
        self.left.len() <= self.at_once
    }

    /// It was answered, with so many bytes and so many frames that had no room; whether the answer is taken.
    fn take(&mut self, portion: &[T], bytes: usize, left_out: u64) -> bool {
        // What has no room since there is no more for it is left out for good.
        if left_out > 0 && portion.len() > 1 && self.room() == MAX_NAMES {
            self.at_once = portion.len() / 2;
            return false;
        }
        self.bytes += bytes;
        self.left = self.left.get(portion.len()..).unwrap_or_default();
        true
    }
}

/// An answer, its bytes, and how many frames had no room in it.
type Taken<T> = (T, usize, u64);

/// What others may look at while the namer is being waited for.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<(Stats, Report)>>);

impl Seen {
    /// What namers did.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// What the namer that runs, or ran last, may do no more.
    #[must_use]
    pub fn confined(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl Namer {
    /// A namer by `symbols`, whose process is started when something is asked for.
    #[must_use]
    pub fn new(options: Options, symbols: Symbols) -> Self {
        let client = Client::new(options, Some(names::Symbols::of(&symbols)));
        let (past, present) = (NameStats::default(), NameStats::default());
        Self {
            client,
            lenders: None,
            past,
            present,
            left_out: 0,
            unasked: 0,
            maps: Maps::default(),
            left: Left::ALL,
            seen: Seen::default(),
        }
    }

    /// Asks `lenders` for files once more, where those who held them open are gone.
    #[must_use]
    pub fn with_lenders(mut self, lenders: Reader) -> Self {
        self.lenders = Some(lenders);
        self
    }

    /// From now on `askers` files and processes are asked about, for all of which there is `allowance`; the others that there were for before
    /// have ended. In the order in which they are to be asked: those that cost least first.
    pub fn begin(&mut self, allowance: Allowance, askers: usize) {
        let until = Instant::now().checked_add(allowance.time);
        self.left = Left { until, bytes: allowance.bytes, askers };
    }

    /// Whether the time that there was is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left.is_over()
    }

    /// What a file has cost of late (s).
    #[must_use]
    pub fn cost(&self, executable: &Executable) -> f64 {
        self.client.cost(Target::Executable(executable.id))
    }

    /// What a process has cost of late (s), for its JIT code.
    #[must_use]
    pub fn cost_of_code(&self, process: &JitProcess) -> f64 {
        self.client.cost(Target::Process(process.pid))
    }

    /// Nobody samples any more: what is asked for from now on may take minutes of CPU time.
    pub fn be_patient(&mut self) {
        self.client.be_patient();
    }

    /// For who must not wait.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Names in another way from now on; what was read is read anew.
    pub fn set(&mut self, options: Options, symbols: Symbols) {
        self.client.options = options;
        self.client.naming = Some(names::Symbols::of(&symbols));
        self.client.restart();
        self.look();
    }

    /// Names of `addresses` in a file, in order; none of those that could not be asked for. With `forget` nothing of it is kept.
    pub fn native(&mut self, object: &Object<'_>, addresses: &[ElfVaddr], forget: bool) -> Vec<Option<Symbolized>> {
        let share = self.left.share();
        let content = match (object.executable.bytes(), object.lent) {
            (Some(bytes), _) => Content::Bytes(bytes.to_vec()),
            (None, Some(lent)) => Content::of(lent),
            (None, None) => {
                self.unasked += addresses.len() as u64;
                return vec![None; addresses.len()];
            }
        };
        let executable = object.executable;
        let mut file = NamedFile {
            // Ids and hashes of the ends are claims; the registry's id stands for the whole content.
            key: format!("{:?}: {}", executable.id, executable.htlhash),
            path: executable.path_text().into_owned(),
            root: object.program_of,
            held: object.lent.and_then(HeldRoot::of),
            content,
        };
        let total = addresses.len();
        // Who uses it pays for it: whoever mapped it first may have used up his share.
        let users: &[u32] = object.lent.map(|lent| &*lent.users).unwrap_or_default();
        let mut found = Vec::with_capacity(total);
        let mut portions = Portions::of(addresses, share);
        while let Some(portion) = portions.next().filter(|_| !self.left.is_over()) {
            let addresses: Vec<u64> = portion.iter().map(|address| address.0).collect();
            let room = portions.room();
            let forget = forget && portions.is_last();
            let answer = match self.names_of(executable, users, &mut file, (&addresses, room), forget) {
                // Whoever held it open is gone; another may open it once more.
                Ok(None) => match self.lenders.as_mut().and_then(|lenders| lenders.lend_again(executable)) {
                    Some(lent) => {
                        (file.content, file.held) = (Content::of(&lent), HeldRoot::of(&lent));
                        self.names_of(executable, users, &mut file, (&addresses, room), forget).ok().flatten()
                    }
                    None => None,
                },
                answer => answer.ok().flatten(),
            };
            // The next would be refused, too.
            let Some((answer, bytes, left_out)) = answer else { break };
            if portions.take(portion, bytes, left_out) {
                self.left_out += left_out;
                found.extend(answer);
            }
        }
        let unanswered = portions.left.len() as u64;
        self.left.bytes = self.left.bytes.saturating_sub(portions.bytes);
        if portions.is_full() {
            self.left_out += unanswered;
        } else {
            self.unasked += unanswered;
        }
        found.resize(total, None);
        found
    }

    /// Names; `Ok(None)`: the file cannot be had.
    fn names_of(
        &mut self,
        executable: &Executable,
        users: &[u32],
        file: &mut NamedFile,
        (addresses, room): (&[u64], usize),
        forget: bool,
    ) -> Result<Option<Taken<Vec<Option<Symbolized>>>>, NoNames> {
        let count = addresses.len();
        let owner = file.root.and_then(|pid| self.client.owner_of(pid));
        let mut ask = |target, users: &[u32], file: &NamedFile| {
            let request =
                Request::Symbols { file: file.clone(), addresses: addresses.to_vec(), room: room as u32, forget };
            self.ask((target, users), None, &request, |named| {
                let (bytes, left_out) = (named.bytes(), named.left_out);
                Some((named.take(count)?, bytes, left_out))
            })
        };
        if let Some(pid) = file.root {
            // Of one that has ended nobody knows whose it was, but for who ran it.
            match ask(Target::Process(pid), owner.as_ref().map_or(users, std::slice::from_ref), file) {
                // What a process has in its root directory is its own doing, and others may run the same file.
                Err(NoNames) => file.root = None,
                answer => return answer,
            }
        }
        ask(Target::Executable(executable.id), users, file)
    }

    /// What addresses in code that a JIT made have meant; none if that could not be asked for.
    pub fn generations(&mut self, process: &JitProcess, addresses: &[UserAddr]) -> Option<Vec<Vec<Generation>>> {
        let total = addresses.len();
        let mut found = Vec::with_capacity(total);
        let mut portions = Portions::of(addresses, self.left.share());
        while let Some(portion) = portions.next() {
            if self.left.is_over() {
                self.unasked += total as u64;
                return None;
            }
            let addresses: Vec<u64> = portion.iter().map(|address| address.0).collect();
            let room = portions.room() as u32;
            let request = Request::Generations { code: JitCode::of(process, self.maps.get(process)), addresses, room };
            let owner = self.client.owner_of(process.pid);
            let answer = self.ask((Target::Process(process.pid), owner.as_slice()), Some(process), &request, |named| {
                let (bytes, left_out) = (named.bytes(), named.left_out);
                Some((named.take_generations(portion.len())?, bytes, left_out))
            });
            let Some((answer, bytes, left_out)) = answer.ok().flatten() else {
                self.unasked += total as u64;
                return None;
            };
            if portions.take(portion, bytes, left_out) {
                self.left_out += left_out;
                found.extend(answer);
            }
        }
        self.left.bytes = self.left.bytes.saturating_sub(portions.bytes);
        // No place is without a meaning.
        self.left_out += portions.left.len() as u64;
        let none = || vec![Generation { until: u64::MAX, symbolized: Symbolized::default() }];
        found.resize_with(total, none);
        Some(found)
    }

    /// Reads what names a process's JIT code has by now, if there is time for it.
    pub fn prefetch(&mut self, process: &JitProcess) {
        if self.left.is_over() {
            return;
        }
        let owner = self.client.owner_of(process.pid);
        let code = JitCode::of(process, self.maps.get(process));
        self.told((Target::Process(process.pid), owner.as_slice()), Some(process), &Request::Prefetch { code });
    }

    /// Forgets all that was read.
    pub fn forget(&mut self) {
        if self.client.is_running() {
            self.told((Target::Nobody, &[]), None, &Request::Forget);
        }
    }

    /// What was looked up so far, by all namers.
    #[must_use]
    pub fn stats(&self) -> NameStats {
        let mut stats = self.past;
        stats.add(&self.present);
        stats.names_left_out = stats.names_left_out.saturating_add(self.left_out);
        stats.unasked = stats.unasked.saturating_add(self.unasked);
        stats
    }

    fn told(&mut self, target: (Target, &[u32]), of: Option<&JitProcess>, request: &Request) {
        let answer = self.client.ask(target, request, 0);
        self.look();
        match answer {
            Ok((Answer::Named { stats, read, .. }, _)) => self.take_in(stats, of, read),
            Ok(_) => {
                self.client.malformed(target.0, request);
                self.look();
            }
            Err(_) => {}
        }
    }

    /// Takes in what an answer says beside names.
    fn take_in(&mut self, stats: [u64; NameStats::COUNT], of: Option<&JitProcess>, read: Option<ReadFields>) {
        self.present = NameStats::from_array(stats);
        if let (Some(of), Some(read)) = (of, read.and_then(ReadFields::take)) {
            self.maps.insert(of, read);
        }
    }

    /// `Ok(None)`: there was nothing to name by.
    fn ask<T>(
        &mut self,
        target: (Target, &[u32]),
        of: Option<&JitProcess>,
        request: &Request,
        take: impl FnOnce(Named) -> Option<T>,
    ) -> Result<Option<T>, NoNames> {
        let answer = self.client.ask(target, request, MAX_NAMES);
        self.look();
        let taken = match answer {
            Ok((Answer::Named { stats, found, read }, rest)) => {
                self.take_in(stats, of, read);
                if !found {
                    return Ok(None);
                }
                borsh::from_slice(&rest).ok().and_then(take)
            }
            Ok(_) => None,
            Err(_) => return Err(NoNames),
        };
        if taken.is_none() {
            self.client.malformed(target.0, request);
            self.look();
        }
        taken.map(Some).ok_or(NoNames)
    }

    /// Shows what there is to be seen; what a namer that is gone has counted stays counted.
    fn look(&mut self) {
        let stats = self.client.stats();
        let mut seen = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.pid != stats.pid {
            // What it held is gone with it.
            let mut gone = std::mem::take(&mut self.present);
            (gone.objects, gone.bytes) = (0, 0);
            self.past.add(&gone);
        }
        *seen = (stats, self.client.confined.clone());
    }
}

#[cfg(test)]
mod tests {
    use profiler_unwinders::executable::Known;

    use super::*;

    /// Asks for all, where `fit` names of `bytes` each fit into an answer; gives how many were asked for each time, and taken.
    fn asked(count: usize, fit: usize, bytes: usize, share: usize) -> (Vec<usize>, usize) {
        let addresses = vec![0; count];
        let mut portions = Portions::of(&addresses, share);
        let (mut asked, mut taken) = (Vec::new(), 0);
        while let Some(portion) = portions.next() {
            asked.push(portion.len());
            let named = portion.len().min(fit);
            if portions.take(portion, named * bytes, (portion.len() - named) as u64) {
                taken += portion.len();
            }
        }
        (asked, taken)
    }

    const ALL: usize = usize::MAX;

    fn process(pid: u32) -> JitProcess {
        JitProcess { pid, start_time: 1, root: "/".into(), namespace_pid: pid }
    }

    #[test]
    fn how_far_maps_were_read_is_remembered_of_so_many() {
        let mut maps = Maps::default();
        let read = |seen| MapRead { seen, ..MapRead::default() };
        for pid in 0..MAX_MAPS as u32 + 10 {
            maps.insert(&process(pid), read(1));
            maps.insert(&process(0), read(u64::from(pid)));
        }
        assert_eq!(maps.read.len(), MAX_MAPS);
        assert_eq!(maps.get(&process(0)), Some(&read(MAX_MAPS as u64 + 9)));
        assert_eq!(maps.get(&process(5)), None);
        let again = JitProcess { start_time: 2, ..process(0) };
        assert_eq!(maps.get(&again), None, "another process of the same pid");
    }

    #[test]
    fn names_that_nobody_could_be_asked_for_are_counted() {
        let options = Options::of_program("/no/such/program".into(), 1 << 30).for_names();
        let mut namer = Namer::new(options, Symbols::default());
        assert_eq!(namer.generations(&process(1), &[UserAddr(1), UserAddr(2)]), None);
        let known = |id, bytes: Option<Vec<u8>>| {
            let format = if bytes.is_some() { 2 } else { 0 };
            let htlhash = "0".repeat(32);
            let (path, segments, keys, mappers) = (b"/a".to_vec(), Vec::new(), Vec::new(), Vec::new());
            let (size, runtime, unfollowed) = (64, 0, 0);
            let (build_id_gnu, build_id_go, interpreter, digest) = (None, None, None, None);
            let known = Known {
                id,
                format,
                path,
                size,
                build_id_gnu,
                build_id_go,
                htlhash,
                segments,
                interpreter,
                runtime,
                unfollowed,
                bytes,
                keys,
                digest,
                mappers,
            };
            known.executable().unwrap()
        };
        let (gone, vdso) = (known(1, None), known(2, Some(vec![0; 64])));
        for executable in [&gone, &vdso] {
            let object = Object { executable, lent: None, program_of: None };
            assert_eq!(namer.native(&object, &[ElfVaddr(1); 3], false), vec![None; 3]);
        }
        assert_eq!(namer.stats().unasked, 2 + 3 + 3);
    }

    #[test]
    fn fewer_are_asked_for_where_names_have_no_room_and_no_more_than_one_may_have() {
        assert_eq!(asked(0, 1, 1, ALL), (vec![], 0));
        assert_eq!(asked(5000, 5000, 100, ALL), (vec![4096, 904], 5000));
        assert_eq!(asked(10, 3, 1 << 20, ALL), (vec![10, 5, 2, 2, 2, 2, 2], 10));
        assert_eq!(asked(2, 0, 0, ALL), (vec![2, 1, 1], 2), "one that never fits is not asked for without end");
        let (_, taken) = asked(4096, 8, 1 << 20, ALL);
        assert_eq!(taken, MAX_OF_ONE >> 20, "of names of 1 MiB each");
        // Of a share that is smaller than an answer, what fits, and no more requests.
        assert_eq!(asked(4096, 3, 1 << 20, 3 << 20), (vec![4096], 4096));
        assert_eq!(asked(8192, 5000, 100, 100 << 10), (vec![4096], 4096));
    }

    #[test]
    fn who_needs_much_leaves_the_others_their_share_and_who_needs_little_leaves_it_to_them() {
        let mut left = Left { until: None, bytes: 1000, askers: 4 };
        for (wants, gets) in [(10, 10), (1000, 330), (100, 100), (1000, 560)] {
            let used = left.share().min(wants);
            left.bytes -= used;
            assert_eq!(used, gets);
        }
        assert_eq!((left.bytes, left.share()), (0, 0), "one more than was said");
    }

    #[test]
    fn when_the_time_is_over_nobody_is_asked() {
        let options = Options::of_program("/no/such/program".into(), 1 << 30).for_names();
        let mut namer = Namer::new(options, Symbols::default());
        namer.begin(Allowance { time: Duration::ZERO, bytes: 1 << 20 }, 1);
        assert!(namer.is_over());
        namer.prefetch(&process(1));
        assert_eq!(namer.generations(&process(1), &[UserAddr(1)]), None);
        assert_eq!((namer.stats().unasked, namer.client.failed_starts()), (1, 0));
        namer.begin(Allowance { time: Duration::from_secs(600), bytes: 1 << 20 }, 1);
        namer.prefetch(&process(1));
        assert_eq!(namer.client.failed_starts(), 1);
    }
}
