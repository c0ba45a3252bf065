//! Names of attributes: OpenTelemetry's semantic conventions (1.44), and our own under `profiler.`.

/// Process id.
pub const PROCESS_PID: &str = "process.pid";
/// Start of the process, RFC 3339.
pub const PROCESS_CREATION_TIME: &str = "process.creation.time";
/// Name in `/proc/PID/status`.
pub const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
/// Path of the executable.
pub const PROCESS_EXECUTABLE_PATH: &str = "process.executable.path";
/// GNU build id of a mapping, hex.
pub const BUILD_ID_GNU: &str = "process.executable.build_id.gnu";
/// Go build id of a mapping.
pub const BUILD_ID_GO: &str = "process.executable.build_id.go";
/// Hash of head, tail and length of a mapping's file, hex.
pub const BUILD_ID_HTLHASH: &str = "process.executable.build_id.htlhash";
/// Container id.
pub const CONTAINER_ID: &str = "container.id";
/// Name of the service.
pub const SERVICE_NAME: &str = "service.name";
/// Host name.
pub const HOST_NAME: &str = "host.name";
/// Architecture.
pub const HOST_ARCH: &str = "host.arch";
/// `linux`.
pub const OS_TYPE: &str = "os.type";
/// Kernel release.
pub const OS_BUILD_ID: &str = "os.build_id";
/// Thread id.
pub const THREAD_ID: &str = "thread.id";
/// Thread name.
pub const THREAD_NAME: &str = "thread.name";
/// Logical CPU.
pub const CPU: &str = "cpu.logical_number";
/// Kind of frame.
pub const FRAME_TYPE: &str = "profile.frame.type";
/// Comments of a pprof file.
pub const COMMENT: &str = "pprof.profile.comment";
/// `true` on frames of run-time generated code, which the conventions have no kind for.
pub const FRAME_JIT: &str = "profiler.frame.jit";
/// `true` on frames that were found without unwind information.
pub const FRAME_GUESSED: &str = "profiler.frame.guessed";
/// How its runtime runs a frame's code: [`Tier`](crate::Tier).
pub const FRAME_TIER: &str = "profiler.frame.tier";
/// The event that makes samples, on a profile.
pub const SOURCE: &str = "profiler.source";
/// What is shown first, on the scope: the type as a pprof file names it.
pub const DEFAULT_SAMPLE_TYPE: &str = "pprof.scope.default_sample_type";
/// CPUs online, on the scope.
pub const CPUS: &str = "profiler.cpus";
/// Sampling rate in Hz, on the scope.
pub const FREQUENCY: &str = "profiler.frequency";
/// What was recorded, on the scope.
pub const TARGET: &str = "profiler.target";
/// Prefix of the losses, on the scope: the reason follows, the value is the count.
pub const LOSS: &str = "profiler.loss.";

/// What a resource says in fields of [`Process`](crate::Process).
pub const PROCESS: &[&str] =
    &[PROCESS_PID, PROCESS_CREATION_TIME, PROCESS_EXECUTABLE_NAME, PROCESS_EXECUTABLE_PATH, CONTAINER_ID];

/// Whether the attribute `key` describes the machine, so that all processes have it.
pub fn is_of_host(key: &str) -> bool {
    ["host.", "os.", "cloud.", "k8s.node.", "k8s.cluster."].iter().any(|prefix| key.starts_with(prefix))
}

/// What a sample says in fields of the model.
pub const SAMPLE: &[&str] = &[THREAD_ID, THREAD_NAME, CPU];
