//! A profile in memory: what a recording, a pprof file and an OTLP request have in common.
//!
//! Tables are plain vectors and an id is an index into one of them. Nothing is merged that differs in any field: a
//! [`Location`] carries its whole identity (kind, mapping, address, lines), and two stacks are one only when all their
//! locations are. [`ProfileBuilder`](builder::ProfileBuilder) interns each table.
//!
//! Beside the model: [`summary`], the names of [`frames`], what every format says of a profile at its [head](headline), and the
//! names of [attributes](attribute). Not here: formats, the network, who a
//! process is, and rules, which run on the message (`profiler-rules`).
#![forbid(unsafe_code)]

mod access;
pub mod attribute;
pub mod builder;
pub mod frames;
pub mod headline;
mod kind;
mod measured;
mod resource;
pub mod rfc3339;
mod summary;
mod tier;

pub use kind::{Family, FrameKind, KindNames};
pub use measured::{Measured, UnknownSampleType, counts_samples};
pub use profiler_measure::{Measure, ValueType};
pub use resource::Value;
pub use summary::{FunctionCount, ProcessCount, Summary, summary, summary_of};
pub use tier::Tier;

/// Index into [`Profiles::strings`]; 0 is the empty string.
pub type StringId = u32;
/// Index into [`Profiles::mappings`].
pub type MappingId = u32;
/// Index into [`Profiles::functions`].
pub type FunctionId = u32;
/// Index into [`Profiles::locations`].
pub type LocationId = u32;
/// Index into [`Profiles::stacks`].
pub type StackId = u32;
/// Index into [`Profiles::processes`].
pub type ProcessId = u32;
/// Index into [`Profiles::threads`].
pub type ThreadId = u32;

/// Index into [`Profiles::links`]; 0 is no link.
pub type LinkId = u32;

/// Everything that one recording, window or file holds: profiles, and the tables that they share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiles {
    /// The profiles, one for each [`Measure`] and period of it.
    pub profiles: Vec<Profile>,
    /// The machine and the recording, as text for people.
    pub origin: Origin,
    /// What was lost or could not be finished, by reason; shown to the user in every format that has a place for it.
    pub losses: Vec<Loss>,
    /// Interned strings; `[0]` is "".
    pub strings: Vec<String>,
    /// Interned mappings.
    pub mappings: Vec<Mapping>,
    /// Interned functions.
    pub functions: Vec<Function>,
    /// Interned locations.
    pub locations: Vec<Location>,
    /// Interned stacks, each leaf first.
    pub stacks: Vec<Vec<LocationId>>,
    /// What the resources of all processes say beside [`Self::origin`]: host, operating system, cloud, what the agent was told.
    /// Where a process has an attribute of the same key, that one counts.
    pub resource_attributes: Vec<(StringId, AttributeValue)>,
    /// Processes that samples belong to.
    pub processes: Vec<Process>,
    /// Threads that samples belong to.
    pub threads: Vec<Thread>,
    /// Spans that samples belong to, from files that have them; `[0]` is none.
    pub links: Vec<Link>,
    /// Free text of a pprof file, or of the recording.
    pub comments: Vec<String>,
}

/// Samples of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Start, ns since the Unix epoch.
    pub start_unix_nanos: u64,
    /// Length, ns. Every sample's time is in `[start, start + duration)`.
    pub duration_nanos: u64,
    /// The event that makes samples ([`Measure::source`]); "" where a file does not say.
    pub source: String,
    /// What each of a sample's values counts; several only in files of others (pprof), where each sample has as many values.
    pub sample_types: Vec<ValueType>,
    /// Index into [`Self::sample_types`]: what is to be shown first, where the file says so.
    pub default_sample_type: Option<usize>,
    /// What [`Self::period`] counts; for CPU samples `cpu`/`nanoseconds`.
    pub period_type: ValueType,
    /// Distance between samples in units of `period_type`; 0 if it is unknown or differs from sample to sample.
    pub period: i64,
    /// The samples, in no promised order.
    pub samples: Vec<Sample>,
}

impl Profile {
    /// No samples of nothing.
    pub(crate) const NOTHING: Self = Self {
        start_unix_nanos: 0,
        duration_nanos: 0,
        source: String::new(),
        sample_types: Vec::new(),
        default_sample_type: None,
        period_type: ValueType { kind: String::new(), unit: String::new() },
        period: 0,
        samples: Vec::new(),
    };

    /// A profile of `measure` without samples and time.
    #[must_use]
    pub fn of(measure: &Measure) -> Self {
        Self {
            source: measure.source.clone(),
            sample_types: vec![measure.sample_type.clone()],
            period_type: measure.period_type.clone(),
            period: i64::try_from(measure.period).unwrap_or(i64::MAX),
            ..Self::default()
        }
    }
}

/// A span of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// Id of the trace.
    pub trace_id: [u8; 16],
    /// Id of the span.
    pub span_id: [u8; 8],
}

/// Where a profile comes from, for its reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Host name; "" if unknown.
    pub host_name: String,
    /// Kernel release (`uname -r`).
    pub kernel_release: String,
    /// Machine architecture as OTLP spells it (`amd64`, `arm64`).
    pub arch: String,
    /// Number of CPUs online at the start.
    pub cpus: u32,
    /// Sampling rate, Hz; 0 if unknown.
    pub frequency: u32,
    /// What was recorded, in words (`all processes`, `pid 17`, `command: make -j2`).
    pub target: String,
    /// The profiler and its version.
    pub producer: String,
}

/// A count of samples or events that are missing or damaged, under a stable reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Stable text such as `lost: ring full` or `unwind: no mapping`.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A mapped executable. Addresses are ELF virtual addresses for files, so one executable is one mapping on a whole host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// First address (ELF virtual for files, as mapped otherwise).
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// File offset of `start`, bytes.
    pub file_offset: u64,
    /// Path as the process sees it, or `[vdso]`, `[kernel.kallsyms]`, `[module]`, `//anon`.
    pub file: StringId,
    /// GNU build id, lower-case hex; "" if the file has none.
    pub build_id_gnu: StringId,
    /// htlhash (semantic conventions `process.executable.build_id.htlhash`), hex; "" if unknown.
    pub build_id_htlhash: StringId,
    /// Go build id; "" if none.
    pub build_id_go: StringId,
}

/// A function or, for what has no function, a name that stands in for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// Demangled name.
    pub name: StringId,
    /// Name as in the symbol table; "" if the same as `name` or unknown.
    pub system_name: StringId,
    /// Source file; "" if unknown.
    pub file: StringId,
    /// First line; 0 if unknown.
    pub start_line: u32,
}

/// One place in code, with its inlined callees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// What runs here.
    pub kind: FrameKind,
    /// The mapping that holds it.
    pub mapping: Option<MappingId>,
    /// Address in the space of `mapping`; for a caller's frame the return address minus one. 0 if there is none.
    pub address: u64,
    /// Functions at this address, innermost inlined callee first; empty if unsymbolized.
    pub lines: Vec<Line>,
    /// The frame was found by following the frame pointer where no unwind row existed: likely but not certain.
    pub guessed: bool,
    /// How its runtime runs it, of runtimes that have several ways and say which; those that are inlined run as what they are in.
    pub tier: Option<Tier>,
}

/// A function and a line in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// Line; 0 if unknown.
    pub line: u32,
    /// Column, from 1; 0 if unknown.
    pub column: u32,
}

/// A process, identified by pid and start time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Process id in the profiler's pid namespace; none where a file does not say. 0 is the idle process.
    pub pid: Option<u32>,
    /// Start, ns since the Unix epoch; 0 if unknown.
    pub start_unix_nanos: u64,
    /// Name: the kernel's comm of the main thread.
    pub name: StringId,
    /// Path of the executable; "" if unknown.
    pub executable: StringId,
    /// Container id (64 hex digits); "" outside containers.
    pub container_id: StringId,
    /// Further resource attributes, by key; a key occurs once.
    pub attributes: Vec<(StringId, AttributeValue)>,
}

/// The value of a resource attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttributeValue {
    /// Text.
    Text(StringId),
    /// A number.
    Integer(i64),
    /// A list of texts.
    Texts(Vec<StringId>),
}

/// A thread of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Thread {
    /// The process.
    pub process: ProcessId,
    /// Thread id in the profiler's pid namespace.
    pub tid: u32,
    /// The kernel's comm of the thread.
    pub name: StringId,
}

/// One sample, or several of the same stack when it has no time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The stack.
    pub stack: StackId,
    /// The thread; `None` in files that do not say.
    pub thread: Option<ThreadId>,
    /// Logical CPU number.
    pub cpu: Option<u32>,
    /// Time, ns since the Unix epoch.
    pub time_unix_nanos: Option<u64>,
    /// The span that was running.
    pub link: LinkId,
    /// One value for each of [`Profile::sample_types`].
    pub values: Values,
    /// Labels that are not one of the fields above; boxed since a recording has none.
    pub labels: Option<Box<Vec<Label>>>,
}

/// A sample's values; inline for the one value that a recording has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// One value.
    One(i64),
    /// As many as there are sample types.
    Many(Box<[i64]>),
}

impl Default for Values {
    fn default() -> Self {
        Self::One(1)
    }
}

impl Values {
    /// The values in the order of [`Profile::sample_types`].
    #[must_use]
    pub fn as_slice(&self) -> &[i64] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// A label of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// Key.
    pub key: StringId,
    /// Value.
    pub value: LabelValue,
}

/// The value of a [`Label`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LabelValue {
    /// Text.
    Text(StringId),
    /// A number and its unit (0: none).
    Number(i64, StringId),
}
