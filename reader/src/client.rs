//! The side that asks: keeps a reader, gives it up, and remembers what it knew.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use profiler_bpf::abi::FrameKind;
use profiler_bpf::record::RuntimeFrame;
use profiler_confine::Report;
use profiler_environ::{Asked, Said, Trouble};
use profiler_unwinders::executable::{Executable, ExecutableId, Known, Mapper, OpenError};
use profiler_unwinders::maps::Mapping;
use profiler_unwinders::process::procfs::{Place, Scan, Stat};
use profiler_unwinders::process::{Clock, ScanError};
use profiler_unwinders::reading::{
    Compiled, InHand, Lent, LentRoot, MAX_BYTES, MAX_MEMORY, Opened, Reading, RowsError, Troubles,
};
use profiler_unwinders::runtime::{AttachError, Attached, Named};
use rustc_hash::FxHashMap;
use rustix::process::{Resource, getrlimit};

use crate::patience::{CHEAP, Patience, Target};
use crate::process::{Failed, Limits, Process, reap};
use crate::wire::names::Symbols;
use crate::wire::{self, Answer, Found, LentFields, Mappings, Request, Scanned};

/// Executables remembered; beyond it those go that nobody else holds, the least recently used first.
const MAX_EXECUTABLES: usize = 8192;
/// Processes remembered for each, through which its file can be opened again.
const MAX_MAPPERS: usize = 4;
/// Users remembered for each, who pay for what is read of it.
const MAX_USERS_OF_A_FILE: usize = 16;
/// Mappings opened by one request.
const OPENED_AT_ONCE: usize = 128;
/// Files that one process's mappings may take to open, at once: the others are opened when it is published next.
const OPENING: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
/// Files lent, and for how long: some windows wait to be named, each with the files of what ran in it. Beyond it the longest lent go.
const MAX_LENT: usize = 2048;
const LENT_FOR: Duration = Duration::from_secs(180);
/// Of the files that a reader may have open, no more than this part are lent: it opens others, too.
const LENT_PART: u64 = 4;
/// Until what was not opened is asked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// Readers that may fail to start before it is left alone for a while, and how long.
const FAILED_STARTS: u32 = 3;
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// How a reader is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program: this one, as a rule.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Most files that it holds open for who names frames, and for how long.
    pub lending: (usize, Duration),
}

impl Options {
    /// This program, as a reader of at most `memory` bytes.
    #[must_use]
    pub fn of_this_program(memory: u64) -> Self {
        Self::of_program(PathBuf::from("/proc/self/exe"), memory)
    }

    /// This program, as one that names frames, of at most `memory` bytes.
    #[must_use]
    pub fn of_names(memory: u64) -> Self {
        Self::of_this_program(memory).for_names()
    }

    /// As one that names frames.
    #[must_use]
    pub fn for_names(mut self) -> Self {
        self.arguments.push("--names".into());
        self
    }

    /// The profiler at `program`.
    #[must_use]
    pub fn of_program(program: PathBuf, memory: u64) -> Self {
        let arguments = [crate::SUBCOMMAND.into(), "--memory".into(), memory.to_string().into()];
        // Readers have the limit of who starts them.
        let open = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) / LENT_PART;
        let most = usize::try_from(open).unwrap_or(MAX_LENT).clamp(1, MAX_LENT);
        Self { program, arguments: arguments.into(), lending: (most, LENT_FOR) }
    }
}

/// What readers did, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Readers started.
    pub started: u64,
    /// Requests that have ended, answered or not.
    pub ended: u64,
    /// What went wrong, and what was therefore not read.
    pub troubles: Troubles,
    /// Readers that were killed and have not ended yet.
    pub left_behind: usize,
    /// Targets that are set aside now.
    pub set_aside: usize,
    /// The reader that runs now.
    pub pid: Option<u32>,
}

/// What asks readers; clones share them.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Mutex<Client>>);

impl Reader {
    /// Starts a reader.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let mut client = Client::new(options, None);
        client.run().map_err(|error| std::io::Error::other(format!("the reader cannot be started: {error}")))?;
        Ok(Self(Arc::new(Mutex::new(client))))
    }

    /// What readers did.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.lock().stats()
    }

    /// Takes on `options`, another limit of memory say, by another reader; nothing is asked for twice.
    pub fn set_options(&self, options: Options) {
        let mut client = self.lock();
        client.options = options;
        client.restart();
    }

    /// What the reader that runs, or ran last, may do no more.
    #[must_use]
    pub fn confined(&self) -> Report {
        self.lock().confined.clone()
    }

    /// What a process says of itself in `wanted` variables.
    ///
    /// # Errors
    /// It has ended, changed, or may not be read (for now).
    pub fn environment(&self, asked: Asked<'_>, wanted: &[String]) -> Result<Said, Trouble> {
        let Asked { pid, start_ticks, exe } = asked;
        let mut client = self.lock();
        let request = Request::Environment { pid, start_ticks, exe: exe.to_vec(), wanted: wanted.to_vec() };
        match client.ask_of_process(pid, &request, 0) {
            Ok((Answer::Environment(Ok(said)), _)) => said.take(wanted).ok_or_else(|| {
                client.malformed(Target::Process(pid), &request);
                Trouble::SetAside
            }),
            Ok((Answer::Environment(Err(unsaid)), _)) => Err(unsaid.trouble()),
            Ok(_) => {
                client.malformed(Target::Process(pid), &request);
                Err(Trouble::SetAside)
            }
            Err(_) => Err(Trouble::SetAside),
        }
    }

    /// The file of `executable`, opened anew where who had it open is gone.
    pub(crate) fn lend_again(&mut self, executable: &Executable) -> Option<Lent> {
        self.lock().lend(executable)
    }

    fn lock(&self) -> MutexGuard<'_, Client> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) options: Options,
    /// How frames are named, for who is asked for names.
    pub(crate) naming: Option<Symbols>,
    limits: Limits,
    process: Option<Process>,
    /// Killed, and not ended yet.
    left: Vec<Child>,
    mirror: FxHashMap<ExecutableId, Mirrored>,
    /// What the reader that runs holds open for who names frames, and since when.
    lent: FxHashMap<ExecutableId, Instant>,
    last_id: u32,
    patience: Patience,
    stats: Stats,
    uses: u64,
    failed_starts: u32,
    alone_until: Option<Instant>,
    /// What the last reader gave up.
    pub(crate) confined: Report,
}

/// An executable as readers know it.
#[derive(Debug)]
struct Mirrored {
    executable: Arc<Executable>,
    known: Known,
    /// As in [`Known`], of which those are not kept up to date.
    mappers: Vec<(u32, u64, u64)>,
    /// Whose processes mapped it.
    users: Users,
    is_open: bool,
    last_use: u64,
}

impl Mirrored {
    fn known(&self) -> Known {
        Known { mappers: self.mappers.clone(), ..self.known.clone() }
    }
}

/// The users whose processes map a file: the first of them, and root, who pays for nothing.
#[derive(Debug, Default)]
struct Users(Vec<u32>);

impl Users {
    fn add(&mut self, user: u32) {
        let has_room = self.0.len() < MAX_USERS_OF_A_FILE || user == 0;
        if has_room && !self.0.contains(&user) {
            self.0.push(user);
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("whoever reads stood still or died at it, or at others of its user; it is tried again")]
    SetAside(Instant),
    #[error("whoever was to read it was given up: {0}")]
    GivenUp(String),
    #[error("nobody can read now: {0}")]
    Nobody(String),
}

impl NoAnswer {
    fn again(&self) -> Duration {
        match self {
            Self::SetAside(until) => until.saturating_duration_since(Instant::now()),
            _ => Duration::from_secs(1),
        }
    }
}

impl Client {
    /// No reader runs yet.
    pub(crate) fn new(options: Options, naming: Option<Symbols>) -> Self {
        let (limits, patience) = match naming {
            None => (Limits::ROWS, Patience::with_rows()),
            Some(_) => (Limits::NAMES, Patience::with_names()),
        };
        Self {
            options,
            naming,
            limits,
            process: None,
            left: Vec::new(),
            mirror: FxHashMap::default(),
            lent: FxHashMap::default(),
            last_id: 0,
            patience,
            stats: Stats::default(),
            uses: 0,
            failed_starts: 0,
            alone_until: None,
            confined: Report::default(),
        }
    }

    /// Nobody but who asked for it waits from now on.
    pub(crate) fn be_patient(&mut self) {
        self.limits = Limits::PATIENT;
        self.patience.be_patient();
        self.process.iter_mut().for_each(|process| process.limits = Limits::PATIENT);
    }

    /// What `target` has cost of late (s).
    pub(crate) fn cost(&self, target: Target) -> f64 {
        self.patience.cost(target, Instant::now())
    }

    #[cfg(test)]
    pub(crate) fn failed_starts(&self) -> u32 {
        self.failed_starts
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the reader that runs; another is started when something is asked for.
    pub(crate) fn restart(&mut self) {
        self.left.extend(self.process.take().map(Process::give_up));
    }

    pub(crate) fn stats(&mut self) -> Stats {
        reap(&mut self.left);
        Stats {
            left_behind: self.left.len(),
            set_aside: self.patience.set_aside(Instant::now()),
            pid: self.process.as_ref().map(Process::pid),
            ..self.stats
        }
    }

    /// Makes sure that a reader runs which knows what the last one knew.
    fn run(&mut self) -> Result<&mut Process, NoAnswer> {
        // Nobody's things have to do with it.
        if let Some(gone) = self.process.take_if(|process| process.is_gone()) {
            tracing::warn!("The {} has died while nobody asked it for anything, and another takes over.", self.name());
            self.stats.troubles.died += 1;
            self.left.push(gone.give_up());
        }
        if self.process.is_none() {
            reap(&mut self.left);
            if let Some(until) = self.alone_until.filter(|until| *until > Instant::now()) {
                return Err(NoAnswer::SetAside(until));
            }
            let known: Vec<Known> = self.mirror.values().map(Mirrored::known).collect();
            self.mirror.values_mut().for_each(|mirrored| mirrored.is_open = false);
            self.lent.clear();
            let begin =
                borsh::to_vec(&(false, Request::Begin { last: self.last_id, known, naming: self.naming.clone() }));
            let started = begin.and_then(|begin| {
                let mut process = Process::start(&self.options.program, &self.options.arguments, self.limits)?;
                let begun = process.ask(&begin, 0).and_then(|(body, _)| match borsh::from_slice(&body) {
                    Ok(Answer::Begun(confinement)) => confinement.take().ok_or(Failed::Malformed),
                    _ => Err(Failed::Malformed),
                });
                match begun {
                    Ok(report) => Ok((process, report)),
                    Err(error) => {
                        self.left.push(process.give_up());
                        Err(std::io::Error::other(error))
                    }
                }
            });
            match started {
                Ok((process, report)) => {
                    self.confine(report);
                    self.stats.started += 1;
                    self.failed_starts = 0;
                    self.process = Some(process);
                }
                Err(error) => {
                    self.failed_starts += 1;
                    if self.failed_starts >= FAILED_STARTS {
                        self.alone_until = Some(Instant::now() + LEFT_ALONE);
                    }
                    let lost = if self.naming.is_some() { "names" } else { "names and no unwind rows" };
                    tracing::error!(%error, "The {} cannot be started; what is new has no {lost}.", self.name());
                    return Err(NoAnswer::Nobody(error.to_string()));
                }
            }
        }
        self.process.as_mut().ok_or_else(|| NoAnswer::Nobody(String::new()))
    }

    /// Tells what is refused, once and whenever it is something else.
    fn confine(&mut self, report: Report) {
        if report == self.confined {
            return;
        }
        let name = self.name();
        tracing::debug!("The {name} is confined: {report}.");
        for refused in report.refused() {
            tracing::warn!(
                "The kernel or the container refuses a part of the {name}'s confinement, and it goes on without: {refused}."
            );
        }
        self.confined = report;
    }

    /// Asks for something of `target`, for `users` who pay for it; if none are known, its owner does.
    pub(crate) fn ask(
        &mut self,
        (target, users): (Target, &[u32]),
        request: &Request,
        max_rest: usize,
    ) -> Result<(Answer, Vec<u8>), NoAnswer> {
        let begun = Instant::now();
        if let Err(until) = self.patience.may(target, users, begun) {
            self.stats.troubles.refused += 1;
            return Err(NoAnswer::SetAside(until));
        }
        reap(&mut self.left);
        // Not of a target at which a reader stood still before; and who was left behind may have memory that only his end gives back.
        let may_restore = self.left.is_empty() && !self.patience.has_struck(target, begun);
        let body = borsh::to_vec(&(may_restore, request)).map_err(|error| NoAnswer::Nobody(error.to_string()))?;
        // Before it has ended, perhaps.
        let owner = if users.is_empty() { owner(target) } else { None };
        let mut asked = self.run()?.ask(&body, max_rest);
        if matches!(asked, Err(Failed::Died)) {
            // Somebody may have killed it: only who does that to the next one too is to blame.
            self.give_up(Target::Nobody, request, &Failed::Died);
            asked = self.run()?.ask(&body, max_rest);
        }
        let answer = asked.and_then(|(body, rest)| match borsh::from_slice(&body) {
            Ok(answer) => Ok((answer, rest)),
            Err(_) => Err(Failed::Malformed),
        });
        self.stats.ended += 1;
        let (now, took) = (Instant::now(), begun.elapsed());
        self.patience.charge_target(target, took, now);
        if took >= CHEAP {
            match users {
                [] => self.patience.charge(owner.as_slice(), took, now),
                users => self.patience.charge(users, took, now),
            }
        }
        answer.map_err(|failed| self.give_up(target, request, &failed))
    }

    /// Leaves the reader behind, and its target aside.
    fn give_up(&mut self, target: Target, request: &Request, why: &Failed) -> NoAnswer {
        if let Some(process) = self.process.take() {
            self.left.push(process.give_up());
        }
        match why {
            Failed::Died | Failed::Malformed => self.stats.troubles.died += 1,
            Failed::Still(_) | Failed::TooMuchWork(_) | Failed::Io(_) => self.stats.troubles.given_up += 1,
        }
        let pause = self.patience.strike(target, Instant::now());
        let (name, what) = (self.name(), self.describe(target, request));
        let (doing, pause) = (request.name(), pause.as_secs());
        if target == Target::Nobody {
            tracing::warn!(doing, "The {name} was given up, and another takes over: {why}.");
        } else {
            tracing::warn!(
                doing,
                "The {name} was given up, and another takes over: {why}. {what} is set aside for {pause} s."
            );
        }
        NoAnswer::GivenUp(why.to_string())
    }

    fn name(&self) -> &'static str {
        if self.naming.is_some() { "namer" } else { "reader" }
    }

    fn describe(&self, target: Target, request: &Request) -> String {
        match (target, request) {
            (Target::Process(pid), _) => format!("Process {pid}"),
            // What a target has chosen must not forge a line.
            (Target::Executable(_), Request::Symbols { file, .. }) => format!("The file {:?}", file.path),
            (Target::Executable(id), _) => {
                let path = self.mirror.get(&id).map(|mirrored| mirrored.executable.path_text().into_owned());
                format!("The file {:?}", path.unwrap_or_default())
            }
            (Target::Nobody, _) => "Nobody".to_owned(),
        }
    }

    /// An answer of another kind is none.
    pub(crate) fn malformed(&mut self, target: Target, request: &Request) -> NoAnswer {
        self.give_up(target, request, &Failed::Malformed)
    }

    /// Whose a process is, as far as it matters: of most requests nobody asks that.
    pub(crate) fn owner_of(&self, pid: u32) -> Option<u32> {
        if self.patience.counts_users() { user_of(pid) } else { None }
    }

    /// Something of a process, at its owner's cost.
    pub(crate) fn ask_of_process(
        &mut self,
        pid: u32,
        request: &Request,
        max_rest: usize,
    ) -> Result<(Answer, Vec<u8>), NoAnswer> {
        let owner = self.owner_of(pid);
        self.ask((Target::Process(pid), owner.as_slice()), request, max_rest)
    }

    /// Who pays for what is read of a file.
    fn users_of(&self, id: ExecutableId) -> Vec<u32> {
        self.mirror.get(&id).map(|mirrored| mirrored.users.0.clone()).unwrap_or_default()
    }

    /// Something of a file: if the reader does not know it, it is told and asked again.
    fn ask_of(
        &mut self,
        executable: &Executable,
        request: &Request,
        max_rest: usize,
    ) -> Result<(Answer, Vec<u8>), NoAnswer> {
        let users = self.users_of(executable.id);
        self.ask_of_file((Target::Executable(executable.id), &users), executable, request, max_rest)
    }

    /// The same, at the cost of `target`: of what is asked of a process that maps the file, the work is the process's doing.
    fn ask_of_file(
        &mut self,
        target: (Target, &[u32]),
        executable: &Executable,
        request: &Request,
        max_rest: usize,
    ) -> Result<(Answer, Vec<u8>), NoAnswer> {
        self.uses += 1;
        let known = self.mirror.get_mut(&executable.id).map(|mirrored| {
            (mirrored.last_use, mirrored.is_open) = (self.uses, true);
            mirrored.known()
        });
        let answer = self.ask(target, request, max_rest)?;
        match (&answer.0, known) {
            (Answer::Unknown, Some(known)) => {
                self.ask(target, &Request::Adopt { known }, 0)?;
                self.ask(target, request, max_rest)
            }
            _ => Ok(answer),
        }
    }

    /// Takes in what a reader found.
    fn learn(
        &mut self,
        found: Found,
        (pid, user): (u32, Option<u32>),
        mapping: &Mapping,
    ) -> Result<Arc<Executable>, OpenError> {
        self.uses += 1;
        let mapper = (pid, mapping.start.0, mapping.end.0);
        let id = match found {
            Found::Nothing(problem) | Found::NotNow(problem) => return Err(OpenError::Elsewhere(wire::cut(problem))),
            Found::Known(id) if self.mirror.contains_key(&ExecutableId(id)) => ExecutableId(id),
            // We have forgotten it.
            Found::Known(id) => {
                let request = Request::Tell { id };
                match self.ask((Target::Process(pid), user.as_slice()), &request, 0) {
                    Ok((Answer::Known(Some(known)), _)) if known.id == id => self.remember(known)?,
                    Ok(_) => return Err(OpenError::Elsewhere("the reader knows it no more".to_owned())),
                    Err(error) => return Err(OpenError::Elsewhere(error.to_string())),
                }
            }
            Found::New(known) => self.remember(*known)?,
        };
        let uses = self.uses;
        let Some(mirrored) = self.mirror.get_mut(&id) else {
            return Err(OpenError::Elsewhere("it was forgotten at once".to_owned()));
        };
        (mirrored.last_use, mirrored.is_open) = (uses, true);
        user.into_iter().for_each(|user| mirrored.users.add(user));
        if !mirrored.mappers.contains(&mapper) {
            if mirrored.mappers.len() >= MAX_MAPPERS {
                mirrored.mappers.remove(0);
            }
            mirrored.mappers.push(mapper);
        }
        Ok(Arc::clone(&mirrored.executable))
    }

    fn remember(&mut self, known: Known) -> Result<ExecutableId, OpenError> {
        let id = ExecutableId(known.id);
        if let Some(mirrored) = self.mirror.get_mut(&id) {
            // What it is stays; its file may be another by now.
            (mirrored.known.keys, mirrored.known.digest) = (known.keys, known.digest);
            return Ok(id);
        }
        let executable = known.executable().ok_or_else(|| OpenError::Elsewhere("it is no executable".to_owned()))?;
        if self.mirror.len() >= MAX_EXECUTABLES {
            self.make_room();
        }
        self.last_id = self.last_id.max(id.0);
        let (executable, mappers) = (Arc::new(executable), Vec::new());
        let mirrored =
            Mirrored { executable, known, mappers, users: Users::default(), is_open: true, last_use: self.uses };
        self.mirror.insert(id, mirrored);
        Ok(id)
    }

    fn make_room(&mut self) {
        let unused = self.mirror.iter().filter(|(_, mirrored)| Arc::strong_count(&mirrored.executable) == 1);
        let mut unused: Vec<_> = unused.map(|(id, mirrored)| (mirrored.last_use, *id)).collect();
        unused.sort_unstable();
        for (_, id) in unused.into_iter().take(MAX_EXECUTABLES / 8) {
            self.mirror.remove(&id);
        }
    }

    fn open(&mut self, process: &Mapper<'_>, mappings: &[&Mapping]) -> Opened {
        let begun = Instant::now();
        let user = user_of(process.pid);
        let (mut opened, mut again, mut put_off) = (Opened::default(), None, false);
        for chunk in mappings.chunks(OPENED_AT_ONCE) {
            let refused = if begun.elapsed() > OPENING {
                self.stats.troubles.refused += 1;
                Some(("its files take too long to open".to_owned(), AGAIN))
            } else {
                let target = Target::Process(process.pid);
                let mappings = Mappings::of(chunk.iter().copied());
                let request = Request::Open { process: wire::Process::of(process), mappings };
                match self.ask((target, user.as_slice()), &request, 0) {
                    Ok((Answer::Opened(found), _)) if found.len() == chunk.len() => {
                        put_off |= found.iter().any(|found| matches!(found, Found::NotNow(_)));
                        for (found, mapping) in found.into_iter().zip(chunk) {
                            let learnt = self.learn(found, (process.pid, user), mapping);
                            opened.executables.push(learnt);
                        }
                        None
                    }
                    Ok(_) => {
                        let error = self.malformed(target, &request);
                        Some((error.to_string(), error.again()))
                    }
                    Err(error) => Some((error.to_string(), error.again())),
                }
            };
            if let Some((problem, after)) = refused {
                again = Some(again.unwrap_or(after).min(after));
                let each = chunk.iter().map(|_| Err(OpenError::Elsewhere(problem.clone())));
                opened.executables.extend(each);
            }
        }
        if put_off {
            // A file whose server made somebody wait, or at a moment at which somebody who waits was left behind.
            let after = self.patience.put_off(Target::Process(process.pid));
            again = Some(again.unwrap_or(after).min(after));
        } else if again.is_none() {
            self.patience.is_read(Target::Process(process.pid));
        }
        let ns = |after: Duration| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        opened.again_at = again.map(|after| Clock::monotonic_now().saturating_add(ns(after)));
        opened
    }

    fn rows(&mut self, executable: &Executable, limit: usize) -> Result<Compiled, RowsError> {
        let limit = limit.min(u32::MAX as usize);
        let request = Request::Rows { id: executable.id.0, limit: limit as u32 };
        let asked = self.ask_of(executable, &request, wire::rows_bytes(limit));
        match asked {
            Ok((Answer::Rows(Ok(head)), rest)) => match head.take(&rest) {
                Some(compiled) => Ok(compiled),
                None => Err(self.malformed_rows(executable, &request)),
            },
            Ok((Answer::Rows(Err(problem)), _)) => Err(RowsError::None(wire::cut(problem))),
            Ok((Answer::Unknown, _)) => Err(RowsError::NotNow("it is not known any more".to_owned())),
            Ok(_) => Err(self.malformed_rows(executable, &request)),
            Err(error) => Err(RowsError::NotNow(error.to_string())),
        }
    }

    fn malformed_rows(&mut self, executable: &Executable, request: &Request) -> RowsError {
        RowsError::NotNow(self.malformed(Target::Executable(executable.id), request).to_string())
    }

    fn lend(&mut self, executable: &Executable) -> Option<Lent> {
        let (most, _) = self.options.lending;
        if self.lent.len() >= most && !self.lent.contains_key(&executable.id) {
            let mut since: Vec<Instant> = self.lent.values().copied().collect();
            since.sort_unstable();
            // An eighth goes.
            let until = since.get(most.div_ceil(8)).copied();
            self.take_back(until.unwrap_or_else(Instant::now));
        }
        let request = Request::Lend { id: executable.id.0 };
        match self.ask_of(executable, &request, 0) {
            Ok((Answer::Lent(lent), _)) => {
                let LentFields { file: (descriptor, device, inode), root } = lent?;
                let root = root.map(|(descriptor, device, inode)| LentRoot { descriptor, device, inode });
                let pid = self.process.as_ref()?.pid();
                let users = self.users_of(executable.id).into();
                self.lent.insert(executable.id, Instant::now());
                Some(Lent { pid, descriptor, device, inode, root, users, file: None })
            }
            Ok((Answer::Unknown, _)) | Err(_) => None,
            Ok(_) => {
                self.malformed(Target::Executable(executable.id), &request);
                None
            }
        }
    }

    /// Has closed what was lent before `until`.
    fn take_back(&mut self, until: Instant) {
        let due = |since: &Instant| *since < until;
        let ids: Vec<u32> = self.lent.iter().filter(|(_, since)| due(since)).map(|(id, _)| id.0).collect();
        if ids.is_empty() {
            return;
        }
        self.lent.retain(|_, since| !due(since));
        // As with orphans: one that does not close them in time is given up, and no target is to blame.
        let _ = self.ask((Target::Nobody, &[]), &Request::Return { ids }, 0);
    }

    /// What `/proc` says of `pid`.
    fn of_process<T>(
        &mut self,
        pid: u32,
        request: &Request,
        take: impl FnOnce(Answer) -> Option<Result<T, wire::Failure>>,
    ) -> Result<T, ScanError> {
        let problem = match self.ask_of_process(pid, request, 0) {
            Ok((answer, _)) => match take(answer) {
                Some(read) => return read.map_err(|failure| failure.error(pid)),
                None => self.malformed(Target::Process(pid), request).to_string(),
            },
            Err(error) => error.to_string(),
        };
        Err(ScanError::SetAside { pid, problem })
    }
}

impl Reading for Reader {
    fn scan(&mut self, pid: u32) -> Result<Scan, ScanError> {
        self.lock().of_process(pid, &Request::Scan { pid }, |answer| match answer {
            Answer::Scan(Ok(scanned)) => Scanned::take(scanned).map(Ok),
            Answer::Scan(Err(failure)) => Some(Err(failure)),
            _ => None,
        })
    }

    fn stat(&mut self, pid: u32) -> Result<Stat, ScanError> {
        self.lock().of_process(pid, &Request::Stat { pid }, |answer| match answer {
            Answer::Stat(read) => Some(read.map(|fields| fields.stat())),
            _ => None,
        })
    }

    fn place(&mut self, pid: u32) -> Result<Place, ScanError> {
        self.lock().of_process(pid, &Request::Place { pid }, |answer| match answer {
            Answer::Place(Ok(place)) => wire::place(place).map(Ok),
            Answer::Place(Err(failure)) => Some(Err(failure)),
            _ => None,
        })
    }

    fn open(&mut self, process: &Mapper<'_>, mappings: &[&Mapping]) -> Opened {
        self.lock().open(process, mappings)
    }

    fn is_made_code(&mut self, process: &Mapper<'_>, mapping: &Mapping) -> bool {
        let mut client = self.lock();
        let mappings = Mappings::of([mapping].into_iter());
        let request = Request::IsMadeCode { process: wire::Process::of(process), mappings };
        match client.ask_of_process(process.pid, &request, 0) {
            Ok((Answer::IsMadeCode(made), _)) => made,
            Ok(_) => {
                client.malformed(Target::Process(process.pid), &request);
                false
            }
            Err(_) => false,
        }
    }

    fn rows(&mut self, executable: &Executable, limit: usize) -> Result<Compiled, RowsError> {
        self.lock().rows(executable, limit)
    }

    fn bytes(&mut self, executable: &Executable, offset: u64, length: usize) -> Result<Vec<u8>, OpenError> {
        let mut client = self.lock();
        let length = length.min(MAX_BYTES);
        let request = Request::Bytes { id: executable.id.0, offset, length: length as u32 };
        match client.ask_of(executable, &request, 0) {
            Ok((Answer::Bytes(Ok(bytes)), _)) if bytes.len() <= length => Ok(bytes),
            Ok((Answer::Bytes(Err(problem)), _)) => Err(OpenError::Elsewhere(wire::cut(problem))),
            Ok((Answer::Unknown, _)) => Err(OpenError::Elsewhere("it is not known any more".to_owned())),
            Ok(_) => {
                let error = client.malformed(Target::Executable(executable.id), &request);
                Err(OpenError::Elsewhere(error.to_string()))
            }
            Err(error) => Err(OpenError::Elsewhere(error.to_string())),
        }
    }

    fn attach(
        &mut self,
        process: &Mapper<'_>,
        executable: &Executable,
        mappings: &[&Mapping],
    ) -> Result<Attached, AttachError> {
        let mut client = self.lock();
        let request = Request::Attach {
            process: wire::Process::of(process),
            id: executable.id.0,
            mappings: Mappings::of(mappings.iter().copied()),
        };
        let later = |error: NoAnswer| AttachError::NotReady(error.to_string(), error.again());
        let owner = client.owner_of(process.pid);
        match client.ask_of_file((Target::Process(process.pid), owner.as_slice()), executable, &request, 0) {
            Ok((Answer::Attached(Ok(attached)), _)) => Ok(attached.take()),
            Ok((Answer::Attached(Err(not)), _)) => Err(not.error()),
            Ok((Answer::Unknown, _)) => Err(AttachError::NotReady("it is not known any more".to_owned(), AGAIN)),
            Ok(_) => Err(later(client.malformed(Target::Process(process.pid), &request))),
            Err(error) => Err(later(error)),
        }
    }

    fn names(&mut self, pid: u32, kind: FrameKind, opaque: &[u8], frames: &[RuntimeFrame]) -> Vec<Named> {
        let mut client = self.lock();
        let frame = |frame: &RuntimeFrame| (frame.object.0, frame.position, frame.cookie);
        let request = Request::Names {
            pid,
            kind: kind.number(),
            opaque: opaque.to_vec(),
            frames: frames.iter().map(frame).collect(),
        };
        let nobody = || vec![Err(Arc::from("runtime: names not read")); frames.len()];
        match client.ask_of_process(pid, &request, 0) {
            Ok((Answer::Names(names), _)) => names.take(frames.len()).unwrap_or_else(|| {
                client.malformed(Target::Process(pid), &request);
                nobody()
            }),
            Ok(_) => {
                client.malformed(Target::Process(pid), &request);
                nobody()
            }
            Err(_) => nobody(),
        }
    }

    fn memory(&mut self, pid: u32, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut client = self.lock();
        let length = length.min(MAX_MEMORY);
        let request = Request::Memory { pid, address, length: length as u32 };
        match client.ask_of_process(pid, &request, 0) {
            Ok((Answer::Memory(bytes), _)) => bytes.filter(|bytes| bytes.len() == length),
            Ok(_) => {
                client.malformed(Target::Process(pid), &request);
                None
            }
            Err(_) => None,
        }
    }

    fn lend(&mut self, wanted: &[Arc<Executable>]) -> FxHashMap<ExecutableId, Lent> {
        let mut client = self.lock();
        // One after the other, so that one that cannot be opened any more costs no other its names.
        let with_file = wanted.iter().filter(|executable| executable.bytes().is_none());
        with_file.filter_map(|executable| Some((executable.id, client.lend(executable)?))).collect()
    }

    fn close_orphans(&mut self, living: &dyn Fn(u32) -> bool, needed: &dyn Fn(ExecutableId) -> bool) -> usize {
        let mut client = self.lock();
        if let Some(until) = Instant::now().checked_sub(client.options.lending.1) {
            client.take_back(until);
        }
        let orphan = |(id, mirrored): &(&ExecutableId, &mut Mirrored)| {
            mirrored.is_open && !needed(**id) && !mirrored.mappers.iter().any(|(pid, ..)| living(*pid))
        };
        let orphans = client.mirror.iter_mut().filter(orphan);
        let ids: Vec<u32> = orphans
            .map(|(id, mirrored)| {
                mirrored.is_open = false;
                id.0
            })
            .collect();
        if !ids.is_empty() {
            // One that does not close them in time is given up, and its files with it.
            let count = ids.len();
            let _ = client.ask((Target::Nobody, &[]), &Request::Close { ids }, 0);
            return count;
        }
        0
    }

    fn in_hand(&self) -> InHand {
        let client = self.lock();
        let bytes = |mirrored: &Mirrored| {
            size_of::<(ExecutableId, Mirrored)>()
                + size_of::<Executable>()
                + 2 * (mirrored.known.path.len() + mirrored.known.htlhash.len())
                + (mirrored.known.segments.len() + mirrored.executable.segments.len()) * 40
                + mirrored.known.keys.len() * 56
                + mirrored.mappers.len() * 24
        };
        InHand {
            executables: client.mirror.len(),
            open_files: client.mirror.values().filter(|mirrored| mirrored.is_open).count(),
            memory_bytes: client.mirror.values().map(bytes).sum(),
        }
    }

    fn troubles(&self) -> Troubles {
        self.lock().stats.troubles
    }
}

impl Drop for Client {
    /// A killed reader ends at once, unless a target holds it; then it is whoever adopts it who reaps it.
    fn drop(&mut self) {
        self.left.extend(self.process.take().map(Process::give_up));
        let until = Instant::now() + Duration::from_millis(200);
        loop {
            reap(&mut self.left);
            if self.left.is_empty() || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn owner(target: Target) -> Option<u32> {
    match target {
        Target::Process(pid) => user_of(pid),
        Target::Executable(_) | Target::Nobody => None,
    }
}

/// Whose a process is, by the owner of its folder in `/proc`, which nobody can make us wait for; none if it has ended.
#[must_use]
pub fn user_of(pid: u32) -> Option<u32> {
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_file_are_the_first_of_them_and_root() {
        let mut users = Users::default();
        (1..1000).chain(1..1000).chain([0, 0]).for_each(|user| users.add(user));
        assert!(users.0.iter().copied().eq((1..=MAX_USERS_OF_A_FILE as u32).chain([0])), "{users:?}");
    }
}
