//! What is asked for, and what is answered. Both sides take what they get as foreign input.

pub(crate) mod names;

use std::sync::Arc;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use profiler_address::{FileOffset, UserAddr};
use profiler_bpf::abi::{Row, Rule};
use profiler_confine::Report;
use profiler_environ::{MAX_VARIABLE, Said, Trouble};
use profiler_unwinders::executable::{Executables, Known, Mapper};
use profiler_unwinders::maps::{Backing, FileId, MAX_MAPPINGS, Mapping};
use profiler_unwinders::process::procfs::{Place, Scan, Stat};
use profiler_unwinders::process::{AddressSpace, Cgroup, Comm, ScanError};
use profiler_unwinders::reading::Compiled;
use profiler_unwinders::rows::{RuleDictionary, UnwindRows};
use profiler_unwinders::runtime::{AttachError, Attached, FrameName, MAX_NAME, MAX_NAMES, MAX_REASON, Named, Tier};
use rustc_hash::FxHashMap;

/// Longest text of an error or path that is taken in, bytes.
const MAX_TEXT: usize = 8192;
/// Bytes of a variable's value: one that is no UTF-8 becomes longer.
const MAX_VALUE: usize = 3 * MAX_VARIABLE;
/// Bytes of a row, and of where a page starts.
const WORD: usize = 4;

/// What is asked for.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Request {
    /// What was known before, and the last id that was given.
    Begin {
        last: u32,
        known: Vec<Known>,
        /// How to name frames, for who is to.
        naming: Option<names::Symbols>,
    },
    Scan {
        pid: u32,
    },
    Stat {
        pid: u32,
    },
    Place {
        pid: u32,
    },
    Open {
        process: Process,
        mappings: Mappings,
    },
    IsMadeCode {
        process: Process,
        mappings: Mappings,
    },
    Rows {
        id: u32,
        limit: u32,
    },
    Bytes {
        id: u32,
        offset: u64,
        length: u32,
    },
    /// The runtime that an executable is, in a process.
    Attach {
        process: Process,
        id: u32,
        mappings: Mappings,
    },
    /// Names of a runtime's frames: object, position, cookie.
    Names {
        pid: u32,
        kind: u8,
        opaque: Vec<u8>,
        frames: Vec<(u64, u32, u32)>,
    },
    Memory {
        pid: u32,
        address: u64,
        length: u32,
    },
    /// What a process says of itself in `wanted` variables.
    Environment {
        pid: u32,
        start_ticks: u64,
        exe: Vec<u8>,
        wanted: Vec<String>,
    },
    /// All that is known of an executable.
    Tell {
        id: u32,
    },
    /// The same the other way.
    Adopt {
        known: Known,
    },
    /// To hold a file open for who names frames.
    Lend {
        id: u32,
    },
    Close {
        ids: Vec<u32>,
    },
    /// To hold them open for who names frames no longer.
    Return {
        ids: Vec<u32>,
    },
    /// Names of addresses in a file, of which nothing is to be kept if it is to be forgotten.
    Symbols {
        file: names::NamedFile,
        addresses: Vec<u64>,
        /// Most bytes of them.
        room: u32,
        forget: bool,
    },
    /// What addresses in code that a JIT made have meant.
    Generations {
        code: names::JitCode,
        addresses: Vec<u64>,
        /// Most bytes of that.
        room: u32,
    },
    /// To read what names that code has by now.
    Prefetch {
        code: names::JitCode,
    },
    /// To forget all names.
    Forget,
}

/// What is answered.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Answer {
    Done,
    /// What the reader gave up.
    Begun(Confinement),
    Scan(Result<Scanned, Failure>),
    Stat(Result<StatFields, Failure>),
    Place(Result<(Option<String>, u32), Failure>),
    Opened(Vec<Found>),
    IsMadeCode(bool),
    /// The rows follow.
    Rows(Result<RowsHead, String>),
    Bytes(Result<Vec<u8>, String>),
    Attached(Result<AttachedFields, NotAttached>),
    Names(NamesFields),
    Memory(Option<Vec<u8>>),
    Environment(Result<SaidFields, Unsaid>),
    Known(Option<Known>),
    /// None if it cannot be opened.
    Lent(Option<LentFields>),
    /// Counts so far; whether there are names, which follow; how far the perf map of whom it was about was read.
    Named {
        stats: [u64; profiler_symbolizer::Stats::COUNT],
        found: bool,
        read: Option<names::ReadFields>,
    },
    /// An id that is not known.
    Unknown,
}

/// What is lent of a file: descriptor, device and inode of each.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct LentFields {
    pub file: (i32, u64, u64),
    pub root: Option<(i32, u64, u64)>,
}

/// [`Report`], in parts.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Confinement(Vec<(u8, u8, String)>);

impl Confinement {
    pub(crate) fn of(report: &Report) -> Self {
        Self(report.to_parts())
    }

    /// `None` if it is none.
    pub(crate) fn take(self) -> Option<Report> {
        Report::from_parts(self.0)
    }
}

/// What a mapping maps.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Found {
    /// As was told before.
    Known(u32),
    New(Box<Known>),
    Nothing(String),
    /// Not for now.
    NotNow(String),
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Process {
    pub pid: u32,
    pub alive: bool,
    pub exe: Vec<u8>,
    pub parent: u32,
}

impl Process {
    pub(crate) fn of(mapper: &Mapper<'_>) -> Self {
        Self { pid: mapper.pid, alive: mapper.alive, exe: mapper.exe.to_vec(), parent: mapper.parent }
    }

    pub(crate) fn mapper(&self) -> Mapper<'_> {
        Mapper { pid: self.pid, alive: self.alive, exe: &self.exe, parent: self.parent }
    }
}

/// Mappings, which name their paths by number.
#[derive(Debug, Default, BorshSerialize, BorshDeserialize)]
pub(crate) struct Mappings {
    paths: Vec<Vec<u8>>,
    mappings: Vec<Piece>,
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct Piece {
    start: u64,
    end: u64,
    offset: u64,
    behind: Behind,
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
enum Behind {
    File(FileName),
    Vdso,
    Vsyscall,
    Anonymous,
    Replaced { start: u64, end: u64, offset: u64, file: FileName },
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct FileName {
    major: u32,
    minor: u32,
    inode: u64,
    path: u32,
}

impl Mappings {
    pub(crate) fn of<'a>(all: impl Iterator<Item = &'a Mapping>) -> Self {
        let mut found = Self::default();
        for mapping in all {
            let behind = match &mapping.backing {
                Backing::File(id, path) => Behind::File(found.name(*id, path)),
                Backing::Vdso => Behind::Vdso,
                Backing::Vsyscall => Behind::Vsyscall,
                Backing::Anonymous => Behind::Anonymous,
                Backing::Replaced(of) => match of.file() {
                    Some((id, path)) => Behind::Replaced {
                        start: of.start.0,
                        end: of.end.0,
                        offset: of.offset.0,
                        file: found.name(id, path),
                    },
                    None => Behind::Anonymous,
                },
            };
            let (start, end, offset) = (mapping.start.0, mapping.end.0, mapping.offset.0);
            found.mappings.push(Piece { start, end, offset, behind });
        }
        found
    }

    fn name(&mut self, id: FileId, path: &[u8]) -> FileName {
        // Neighbours mostly map the same; of all others a path is told again.
        if self.paths.last().is_none_or(|last| last != path) {
            self.paths.push(path.to_vec());
        }
        let path = self.paths.len().saturating_sub(1) as u32;
        FileName { major: id.major, minor: id.minor, inode: id.inode, path }
    }

    /// The mappings; `None` if there are too many, or one names no path.
    pub(crate) fn take(self) -> Option<Vec<Mapping>> {
        let Self { paths, mappings } = self;
        if mappings.len() > MAX_MAPPINGS || paths.iter().any(|path| path.len() > MAX_TEXT) {
            return None;
        }
        let paths: Vec<Arc<[u8]>> = paths.into_iter().map(Arc::from).collect();
        let file = |file: FileName| {
            let id = FileId { major: file.major, minor: file.minor, inode: file.inode };
            Some(Backing::File(id, Arc::clone(paths.get(file.path as usize)?)))
        };
        let mapping = |start, end, offset, backing| Mapping {
            start: UserAddr(start),
            end: UserAddr(end),
            offset: FileOffset(offset),
            backing,
        };
        let piece = |piece: Piece| {
            let backing = match piece.behind {
                Behind::File(name) => file(name)?,
                Behind::Vdso => Backing::Vdso,
                Behind::Vsyscall => Backing::Vsyscall,
                Behind::Anonymous => Backing::Anonymous,
                Behind::Replaced { start, end, offset, file: name } => {
                    Backing::Replaced(Arc::new(mapping(start, end, offset, file(name)?)))
                }
            };
            Some(mapping(piece.start, piece.end, piece.offset, backing))
        };
        mappings.into_iter().map(piece).collect()
    }
}

/// [`Stat`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct StatFields {
    comm: [u8; 16],
    state: u8,
    parent: u32,
    kthread: bool,
    threads: u32,
    start_time_ns: u64,
    start_code: u64,
    start_stack: u64,
}

impl StatFields {
    pub(crate) fn of(stat: &Stat) -> Self {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(stat.comm.as_bytes()) {
            *to = *from;
        }
        Self {
            comm,
            state: stat.state,
            parent: stat.parent,
            kthread: stat.kthread,
            threads: stat.threads,
            start_time_ns: stat.start_time_ns,
            start_code: stat.address_space.start_code,
            start_stack: stat.address_space.start_stack,
        }
    }

    pub(crate) fn stat(&self) -> Stat {
        Stat {
            comm: Comm::new(&self.comm),
            state: self.state,
            parent: self.parent,
            kthread: self.kthread,
            threads: self.threads,
            start_time_ns: self.start_time_ns,
            address_space: AddressSpace { start_code: self.start_code, start_stack: self.start_stack },
        }
    }
}

/// [`Said`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct SaidFields {
    variables: Vec<(String, String)>,
    uid: Option<u32>,
    start_ticks: u64,
    cut: bool,
}

impl SaidFields {
    pub(crate) fn of(said: Said) -> Self {
        let Said { variables, uid, start_ticks, cut } = said;
        Self { variables, uid, start_ticks, cut }
    }

    /// `None` if it says what was not `wanted`, or more than there can be.
    pub(crate) fn take(self, wanted: &[String]) -> Option<Said> {
        let Self { variables, uid, start_ticks, cut } = self;
        let is_wanted = |(name, value): &(String, String)| wanted.contains(name) && value.len() <= MAX_VALUE;
        let fits = variables.len() <= wanted.len() && variables.iter().all(is_wanted);
        fits.then_some(Said { variables, uid, start_ticks, cut })
    }
}

/// [`Trouble`], but for that which only who asks can have.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Unsaid {
    Gone,
    Changed,
    Denied,
}

impl Unsaid {
    pub(crate) fn of(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Gone | Trouble::SetAside => Self::Gone,
            Trouble::Changed => Self::Changed,
            Trouble::Denied => Self::Denied,
        }
    }

    pub(crate) fn trouble(self) -> Trouble {
        match self {
            Self::Gone => Trouble::Gone,
            Self::Changed => Trouble::Changed,
            Self::Denied => Trouble::Denied,
        }
    }
}

/// [`Scan`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Scanned {
    stat: StatFields,
    mappings: Mappings,
    truncated: bool,
    exe: Vec<u8>,
    cgroup: Option<String>,
    namespace_pid: u32,
}

impl Scanned {
    pub(crate) fn of(scan: &Scan) -> Self {
        Self {
            stat: StatFields::of(&scan.stat),
            mappings: Mappings::of(scan.mappings.iter()),
            truncated: scan.truncated,
            exe: scan.exe.clone(),
            cgroup: scan.cgroup.as_ref().map(|cgroup| cgroup.path.to_string()),
            namespace_pid: scan.namespace_pid,
        }
    }

    pub(crate) fn take(self) -> Option<Scan> {
        if self.exe.len() > MAX_TEXT {
            return None;
        }
        Some(Scan {
            stat: self.stat.stat(),
            mappings: self.mappings.take()?,
            truncated: self.truncated,
            exe: self.exe,
            cgroup: cgroup(self.cgroup)?,
            namespace_pid: self.namespace_pid,
        })
    }
}

fn cgroup(path: Option<String>) -> Option<Option<Cgroup>> {
    match path {
        Some(path) if path.len() > MAX_TEXT => None,
        path => Some(path.map(|path| Cgroup::of_path(&path))),
    }
}

pub(crate) fn place((path, namespace_pid): (Option<String>, u32)) -> Option<Place> {
    Some(Place { cgroup: cgroup(path)?, namespace_pid })
}

/// [`ScanError`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum Failure {
    Gone,
    Executing,
    Denied(String),
    Other(String),
}

impl Failure {
    pub(crate) fn of(error: ScanError) -> Self {
        match error {
            ScanError::Gone { .. } => Self::Gone,
            ScanError::Executing { .. } => Self::Executing,
            ScanError::Denied { path } => Self::Denied(path),
            other => Self::Other(other.to_string()),
        }
    }

    pub(crate) fn error(self, pid: u32) -> ScanError {
        match self {
            Self::Gone => ScanError::Gone { pid },
            Self::Executing => ScanError::Executing { pid },
            Self::Denied(path) => ScanError::Denied { path: cut(path) },
            Self::Other(text) => {
                ScanError::Read { path: format!("/proc/{pid}"), source: std::io::Error::other(cut(text)) }
            }
        }
    }
}

/// A text as short as it may be.
pub(crate) fn cut(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    text.truncate(end);
    text
}

/// [`Attached`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct AttachedFields {
    instance: Vec<u8>,
    pieces: Vec<(u64, u64)>,
    opaque: Vec<u8>,
    grows: bool,
    about: String,
}

/// [`AttachError`].
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) enum NotAttached {
    /// And for how many ms.
    NotReady(String, u32),
    Unsupported(String),
}

/// A runtime that is not ready is asked again after this time at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl AttachedFields {
    pub(crate) fn of(attached: Attached) -> Self {
        let Attached { instance, pieces, opaque, grows, about } = attached;
        Self { instance, pieces, opaque, grows, about }
    }

    /// What was told, whose lengths whoever publishes it checks.
    pub(crate) fn take(self) -> Attached {
        let Self { instance, pieces, opaque, grows, about } = self;
        Attached { instance, pieces, opaque, grows, about: reason(about) }
    }
}

impl NotAttached {
    pub(crate) fn of(error: AttachError) -> Self {
        match error {
            AttachError::NotReady(why, pause) => {
                Self::NotReady(why, u32::try_from(pause.min(LONGEST_PAUSE).as_millis()).unwrap_or(u32::MAX))
            }
            AttachError::Unsupported(why) => Self::Unsupported(why),
        }
    }

    pub(crate) fn error(self) -> AttachError {
        match self {
            Self::NotReady(why, ms) => {
                AttachError::NotReady(reason(why), Duration::from_millis(ms.into()).min(LONGEST_PAUSE))
            }
            Self::Unsupported(why) => AttachError::Unsupported(reason(why)),
        }
    }
}

/// A text of one short line.
fn reason(text: String) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=MAX_REASON.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    text.truncate(end);
    text
}

/// [`Named`] of many frames, which share their texts.
#[derive(Debug, Default, BorshSerialize, BorshDeserialize)]
pub(crate) struct NamesFields {
    texts: Vec<String>,
    frames: Vec<NamedFields>,
}

#[derive(Debug, BorshSerialize, BorshDeserialize)]
enum NamedFields {
    Names(Vec<NameFields>),
    Not(u32),
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct NameFields {
    function: u32,
    file: u32,
    line: u32,
    start_line: u32,
    /// One more than a place in [`TIERS`]; 0: none.
    tier: u8,
}

/// Tiers by their number.
const TIERS: [Tier; 6] = [Tier::Interpreted, Tier::C1, Tier::C2, Tier::Sparkplug, Tier::Maglev, Tier::Turbofan];

/// As much of a name as is taken: a longer one would make the whole answer malformed.
fn bounded(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
    name.get(..end.unwrap_or_default()).unwrap_or_default()
}

fn tier_number(tier: Option<Tier>) -> u8 {
    let place = tier.and_then(|tier| TIERS.iter().position(|of| *of == tier));
    place.map_or(0, |place| place as u8 + 1)
}

impl NamesFields {
    pub(crate) fn of(names: &[Named]) -> Self {
        let mut found = Self::default();
        let mut known: FxHashMap<Arc<str>, u32> = FxHashMap::default();
        for named in names {
            let mut text = |text: &Arc<str>| {
                *known.entry(Arc::clone(text)).or_insert_with(|| {
                    found.texts.push(bounded(text).to_owned());
                    found.texts.len() as u32 - 1
                })
            };
            let named = match named {
                Ok(names) => NamedFields::Names(
                    names
                        .iter()
                        .map(|name| NameFields {
                            function: text(&name.function),
                            file: text(&name.file),
                            line: name.line,
                            start_line: name.start_line,
                            tier: tier_number(name.tier),
                        })
                        .collect(),
                ),
                Err(why) => NamedFields::Not(text(why)),
            };
            found.frames.push(named);
        }
        found
    }

    /// The names of `count` frames; `None` if there are more or fewer, or one is too long.
    pub(crate) fn take(self, count: usize) -> Option<Vec<Named>> {
        if self.frames.len() != count || self.texts.iter().any(|text| text.len() > MAX_NAME) {
            return None;
        }
        let texts: Vec<Arc<str>> = self.texts.into_iter().map(Arc::from).collect();
        let text = |place: u32| texts.get(place as usize).map(Arc::clone);
        let name = |name: NameFields| {
            Some(FrameName {
                function: text(name.function)?,
                file: text(name.file)?,
                line: name.line,
                start_line: name.start_line,
                tier: match name.tier {
                    0 => None,
                    number => Some(*TIERS.get(usize::from(number) - 1)?),
                },
            })
        };
        let named = |named: NamedFields| {
            Some(match named {
                NamedFields::Names(names) if names.len() <= MAX_NAMES => {
                    Ok(names.into_iter().map(name).collect::<Option<Vec<_>>>()?)
                }
                NamedFields::Names(_) => return None,
                NamedFields::Not(why) => Err(Arc::from(reason(text(why)?.to_string()))),
            })
        };
        self.frames.into_iter().map(named).collect()
    }
}

/// What is known of rows before they come: `pages + 1` starts of pages, then `rows` rows.
#[derive(Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct RowsHead {
    first_page: u64,
    starts: u32,
    rows: u32,
    rules: Vec<RuleFields>,
}

#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct RuleFields {
    cfa_kind: u8,
    cfa_reg: u8,
    ra_kind: u8,
    flags: u8,
    cfa_off: i32,
    cfa_off2: i16,
    ra: i16,
    fp_off8: i16,
    rbx_off8: i16,
}

/// Most bytes that `limit` rows take.
pub(crate) fn rows_bytes(limit: usize) -> usize {
    limit.saturating_add(profiler_bpf::abi::MAX_ROW_PAGES + 1).saturating_mul(WORD)
}

impl RowsHead {
    /// The head, and the bytes that follow it.
    pub(crate) fn of(compiled: &Compiled) -> (Self, Vec<u8>) {
        let rows = &compiled.rows;
        let words = rows.page_starts.iter().copied().chain(rows.rows.iter().map(|row| row.0));
        let bytes = words.flat_map(u32::to_le_bytes).collect();
        let rule = |rule: &Rule| RuleFields {
            cfa_kind: rule.cfa_kind,
            cfa_reg: rule.cfa_reg,
            ra_kind: rule.ra_kind,
            flags: rule.flags,
            cfa_off: rule.cfa_off,
            cfa_off2: rule.cfa_off2,
            ra: rule.ra,
            fp_off8: rule.fp_off8,
            rbx_off8: rule.rbx_off8,
        };
        let head = Self {
            first_page: rows.first_page,
            starts: rows.page_starts.len() as u32,
            rows: rows.rows.len() as u32,
            rules: compiled.rules.iter().map(rule).collect(),
        };
        (head, bytes)
    }

    /// What was sent, still to be [adopted](Compiled::adopt); `None` if there are more or fewer bytes than it says.
    pub(crate) fn take(self, bytes: &[u8]) -> Option<Compiled> {
        let (words, rest) = bytes.as_chunks::<WORD>();
        let (starts, rows) = words.split_at_checked(self.starts as usize)?;
        if !rest.is_empty() || rows.len() != self.rows as usize {
            return None;
        }
        let rule = |rule: RuleFields| Rule {
            cfa_kind: rule.cfa_kind,
            cfa_reg: rule.cfa_reg,
            ra_kind: rule.ra_kind,
            flags: rule.flags,
            cfa_off: rule.cfa_off,
            cfa_off2: rule.cfa_off2,
            ra: rule.ra,
            fp_off8: rule.fp_off8,
            rbx_off8: rule.rbx_off8,
        };
        let rows = UnwindRows {
            first_page: self.first_page,
            page_starts: starts.iter().map(|word| u32::from_le_bytes(*word)).collect(),
            rows: rows.iter().map(|word| Row(u32::from_le_bytes(*word))).collect(),
            ..UnwindRows::default()
        };
        Some(Compiled { rows, rules: self.rules.into_iter().map(rule).collect() })
    }
}

impl Request {
    /// What it asks for, in a word.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "starting",
            Self::Scan { .. } => "reading its mappings",
            Self::Stat { .. } | Self::Place { .. } => "reading its state",
            Self::Open { .. } | Self::IsMadeCode { .. } => "opening its files",
            Self::Rows { .. } => "compiling its unwind rows",
            Self::Bytes { .. } => "reading it",
            Self::Attach { .. } => "reading its runtime",
            Self::Names { .. } => "reading names of its frames",
            Self::Memory { .. } => "reading its memory",
            Self::Environment { .. } => "reading its environment",
            Self::Tell { .. } | Self::Adopt { .. } => "telling of it",
            Self::Lend { .. } => "opening it",
            Self::Close { .. } | Self::Return { .. } => "closing files",
            Self::Symbols { .. } => "naming its functions",
            Self::Generations { .. } | Self::Prefetch { .. } => "reading its perf map or jitdump",
            Self::Forget => "forgetting names",
        }
    }

    pub(crate) fn fuzz(bytes: &[u8]) {
        match borsh::from_slice(bytes) {
            Ok(Self::Open { mappings, .. } | Self::IsMadeCode { mappings, .. } | Self::Attach { mappings, .. }) => {
                mappings.take();
            }
            Ok(Self::Begin { known, .. }) => {
                let mut registry = Executables::new();
                for known in known {
                    registry.adopt(known);
                }
            }
            _ => {}
        }
    }
}

impl Answer {
    pub(crate) fn fuzz(bytes: &[u8]) {
        // The rest follows the body.
        let (mut body, whole) = (bytes, bytes);
        match Self::deserialize(&mut body) {
            Ok(Self::Begun(confinement)) => {
                let _ = confinement.take();
            }
            Ok(Self::Scan(Ok(scan))) => {
                scan.take();
            }
            Ok(Self::Rows(Ok(head))) => {
                let rest = whole.get(whole.len() - body.len()..).unwrap_or_default();
                let _ = head.take(rest).map(|compiled| compiled.adopt(&mut RuleDictionary::new()));
            }
            Ok(Self::Environment(Ok(said))) => {
                let wanted: Vec<String> = said.variables.iter().map(|(name, _)| name.clone()).collect();
                said.take(&wanted);
            }
            Ok(Self::Attached(Ok(attached))) => {
                attached.take();
            }
            Ok(Self::Attached(Err(not))) => {
                not.error();
            }
            Ok(Self::Names(names)) => {
                let count = names.frames.len();
                names.take(count);
            }
            Ok(Self::Named { found: true, .. }) => {
                let rest = whole.get(whole.len() - body.len()..).unwrap_or_default();
                for several in [false, true] {
                    let Ok(named) = borsh::from_slice::<names::Named>(rest) else { break };
                    let count = named.len();
                    if several {
                        let _ = named.take_generations(count);
                    } else {
                        let _ = named.take(count);
                    }
                }
            }
            Ok(Self::Known(Some(known))) => {
                let _ = known.executable();
            }
            Ok(Self::Opened(found)) => {
                for found in found {
                    if let Found::New(known) = found {
                        let _ = known.executable();
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scan_comes_as_it_went() {
        let mut scan = Scan::read(std::process::id()).unwrap();
        let file = scan.mappings.iter().find(|mapping| mapping.file().is_some()).unwrap().clone();
        scan.mappings.push(Mapping { backing: Backing::Replaced(Arc::new(file.clone())), ..file });
        let bytes = borsh::to_vec(&Answer::Scan(Ok(Scanned::of(&scan)))).unwrap();
        let Ok(Answer::Scan(Ok(scanned))) = borsh::from_slice(&bytes) else { panic!() };
        assert_eq!(scanned.take().unwrap(), scan);
    }

    #[test]
    fn rows_come_as_they_went_and_not_in_part() {
        let rows = UnwindRows {
            first_page: 3,
            page_starts: vec![0, 2],
            rows: vec![Row::new(1, 0), Row::new(2, 1)],
            ..UnwindRows::default()
        };
        let compiled = Compiled { rows, rules: vec![Rule::NONE, Rule { cfa_off: -8, ..Rule::NONE }] };
        let (head, bytes) = RowsHead::of(&compiled);
        assert_eq!(bytes.len(), 16);
        assert_eq!(head.take(&bytes), Some(compiled.clone()));
        for length in (0..16).chain([17, 20]) {
            let mut cut = bytes.clone();
            cut.resize(length, 0);
            assert_eq!(RowsHead::of(&compiled).0.take(&cut), None, "{length}");
        }
    }

    #[test]
    fn a_mapping_that_names_no_path_is_refused() {
        let file = FileName { major: 0, minor: 0, inode: 1, path: 1 };
        let mappings = Mappings {
            paths: vec![vec![]],
            mappings: vec![Piece { start: 0, end: 1, offset: 0, behind: Behind::File(file) }],
        };
        assert_eq!(mappings.take(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..24) {
            let mut bytes = bytes;
            bytes.insert(0, kind);
            Answer::fuzz(&bytes);
            Request::fuzz(&bytes);
        }
    }

    #[test]
    fn a_name_of_any_length_is_no_malformed_answer() {
        let long: Arc<str> = "ä".repeat(MAX_NAME).into();
        let (function, tier) = (Arc::clone(&long), Some(Tier::Turbofan));
        let name = FrameName { function, file: Arc::from("a"), line: 1, start_line: 1, tier };
        let taken = NamesFields::of(&[Ok(vec![name]), Err(long)]).take(2).expect("an answer");
        let function = &taken[0].as_ref().unwrap()[0].function;
        assert!(function.len() <= MAX_NAME && function.len() > MAX_NAME - 2 && function.starts_with("ää"));
    }

    #[test]
    fn tiers_come_as_they_went_and_one_that_is_none_makes_an_answer_malformed() {
        let name = |tier| FrameName { function: "f".into(), file: "a".into(), line: 1, start_line: 1, tier };
        let all: Vec<Named> = TIERS.iter().copied().map(Some).chain([None]).map(|tier| Ok(vec![name(tier)])).collect();
        assert_eq!(NamesFields::of(&all).take(all.len()).as_ref(), Some(&all));
        let mut wrong = NamesFields::of(&all);
        if let Some(NamedFields::Names(names)) = wrong.frames.first_mut() {
            names[0].tier = TIERS.len() as u8 + 1;
        }
        assert_eq!(wrong.take(all.len()), None);
    }
}
