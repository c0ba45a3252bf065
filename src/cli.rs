//! The command line: what it looks like, and the way from arguments to an exit code.

mod config;
mod control;
mod diff;
mod ottl;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use profiler_config::{Choice, Symbols};
use profiler_formats::format::Format;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::{self, ExitError};
use crate::output::Named;
use crate::rules::RulesArgs;
use crate::{agent, convert, detect, doctor, events, launch, record, shown, telemetry};

/// Profiles every process of a Linux host with eBPF: no restart, no frame pointers, one binary.
#[derive(Debug, Parser)]
#[command(name = "profiler", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// Log what happens to stderr; twice for more. RUST_LOG is honoured.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record where the CPU time goes, and write it as flame graph, pprof, OTLP, ...
    Record(RecordArgs),
    /// Tell what this kernel and these privileges allow, and the command for what is missing.
    Doctor(DoctorArgs),
    /// Convert a pprof or OTLP profile to any format.
    Convert(ConvertArgs),
    /// Tell what differs between two profiles, how sure that is, and draw it.
    Diff(diff::DiffArgs),
    /// Tell what changed in series of values or in a folder of profiles, and how sure that is.
    Detect(DetectArgs),
    /// Sample for as long as it runs, and stream OTLP profiles of all processes to a receiver.
    Agent(AgentArgs),
    /// Check the agent's configuration, or print its schema.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Run the control server of a fleet of agents, or tell it what to do.
    Control(control::ControlArgs),
    /// Check rules of the OpenTelemetry Transformation Language, or run them on OTLP profiles.
    #[command(subcommand)]
    Ottl(ottl::OttlCommand),
    /// Opens and parses what belongs to targets, for the process that started it.
    #[command(name = profiler_reader::SUBCOMMAND, hide = true)]
    Reader {
        /// Bytes that it may take.
        #[arg(long)]
        memory: Option<u64>,
        /// To name frames.
        #[arg(long)]
        names: bool,
    },
    /// Speaks to one receiver, for the process that started it.
    #[command(name = profiler_network::SUBCOMMAND, hide = true)]
    Network,
    /// Waits stopped until it is sampled, then becomes the command.
    #[command(name = launch::SUBCOMMAND, hide = true)]
    Launch {
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

const RECORD_HELP: &str = "\
Examples:
  sudo profiler record -d 10                     all processes, 10 s; writes profile.pb.gz and profile.html
  sudo profiler record -p 1234 -o flame.svg      one process until Ctrl-C
  sudo profiler record -o out.otlp -- make -j2   a command and its children, from the first instruction

Formats, by extension or -f:
  pprof (.pb.gz, .pprof, .pb)  otlp (.otlp)  otlp-json (.otlp.json)  folded (.folded)
  svg (.svg)  html (.html)  speedscope (.speedscope.json)  firefox (.json.gz)

Exit codes:
  0    recorded and written           1    something failed; the message says what and the way out
  2    wrong usage                    126  the command cannot be executed
  127  there is no such command       otherwise with -- CMD: its own, or 128 + the signal that ended it";

/// What is shown of an interpreter's own C functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuntimeFrames {
    Folded,
    All,
}

impl Choice for RuntimeFrames {
    const WORDS: &'static [(&'static str, Self)] = &[("folded", Self::Folded), ("all", Self::All)];
}

#[derive(Debug, Args)]
#[command(after_help = RECORD_HELP)]
struct RecordArgs {
    /// All processes of the host; the default when nothing is chosen.
    #[arg(short, long, conflicts_with = "pids")]
    all: bool,
    /// Only these processes, and the children they fork from now on. The id of a thread means its process.
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Only processes in this cgroup (v2) and below: a path under /sys/fs/cgroup, absolute or relative to it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["all", "pids", "command"])]
    cgroup: Option<PathBuf>,
    /// Samples a second and CPU, Hz, of events that say no rate of their own.
    #[arg(
        short = 'F',
        long = "freq",
        visible_alias = "rate",
        short_alias = 'r',
        value_name = "HZ",
        default_value_t = 99
    )]
    frequency: u64,
    /// What to sample: EVENT, EVENT@N (every N events) or EVENT@N Hz; may be repeated. `help` lists what works here. Default: cpu-clock.
    #[arg(short, long = "event", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
    /// How long: 10s, 2min, 1m30s, 1h, 500ms; a number alone is seconds. Without it until Ctrl-C or the command's end.
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Write to this file, for you alone to read; may be repeated. `-` is standard output (with -f). Default: profile.pb.gz and
    /// profile.html.
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,
    /// Format of all outputs, whatever their names.
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
    /// What to show in formats that have room for one sample type (folded, svg, firefox) and open first in speedscope: a name as
    /// "page-faults" or "inuse_space". Default: the first event.
    #[arg(long, value_name = "NAME")]
    sample_type: Option<String>,
    /// What to look up: names, or also files, lines and inlined functions.
    #[arg(long, value_parser = choice::<Symbols>(), default_value = "lines")]
    symbols: Symbols,
    /// Of an interpreter's own C functions, its evaluation loop among them, those between its functions too (all), or none of them (folded).
    #[arg(long, value_parser = choice::<RuntimeFrames>(), default_value = "folded")]
    runtime_frames: RuntimeFrames,
    /// BTF of the running kernel, for kernels that carry none.
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
    /// Print nothing but errors.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    rules: RulesArgs,
    /// A command to run and profile, with its children.
    #[arg(last = true, value_name = "CMD", conflicts_with = "pids")]
    command: Vec<OsString>,
}

const AGENT_HELP: &str = "\
Examples:
  sudo profiler agent --endpoint http://localhost:4317          OTLP/gRPC to a Collector on this host
  sudo profiler agent --config /etc/profiler/config.yaml        everything as the file says; SIGHUP reads it again

Each value comes from a flag, else an environment variable (OTEL_*, PROFILER_*), else the file, else its default;
`profiler config check FILE` prints the outcome. Metrics and health: http://127.0.0.1:9464/.

Exit codes:
  0  ended by SIGTERM or SIGINT      1  something failed; the message says what and the way out
  2  wrong usage or configuration";

#[derive(Debug, Args)]
#[command(after_help = AGENT_HELP)]
struct AgentArgs {
    /// The configuration, YAML; docs/configuration.md has all keys. [env: PROFILER_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    values: config::ConfigArgs,
}

impl AgentArgs {
    fn flags(self, verbose: u8) -> profiler_config::Flags {
        let variable = || std::env::var_os("PROFILER_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.values.flags(self.config.or_else(variable), verbose)
    }
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// Tell what this process is (runtime, version, build), what of it works and what is missing.
    #[arg(short, long, value_name = "PID", conflicts_with = "btf", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// BTF of the running kernel, for kernels that carry none.
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ConvertArgs {
    /// A pprof or OTLP profile.
    input: PathBuf,
    /// Write to this file; may be repeated. `-` is standard output (with -f).
    #[arg(short, long, value_name = "FILE", required = true)]
    output: Vec<PathBuf>,
    /// Format of all outputs, whatever their names.
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
    /// What to show in formats that have room for one sample type (folded, svg, firefox) and open first in speedscope: a name as
    /// "page-faults" or "inuse_space". Default: the file's own.
    #[arg(long, value_name = "NAME")]
    sample_type: Option<String>,
    #[command(flatten)]
    rules: RulesArgs,
}

const DETECT_HELP: &str = "\
Examples:
  profiler detect latency.csv                          time,value; a line for each change, to standard output
  profiler detect profiles/ -o changes.svg             shares of functions, from all pprof and OTLP files of a folder
  profiler detect profiles/ --by total --of checkout   ... of one service, with what the functions call
  profiler detect day.csv -d holt-winters,season=288 -d cusum,threshold=20
  profiler detect -d help                              all detectors and their keys

CSV: with a header, columns are time (seconds, ms, us or ns since 1970, or 2026-11-26T21:05:00Z), value (with variance) or samples
and total, and series if there are several; without one, time,value[,total]. A value of a total is a share of so many samples.

Exit codes:
  0  all was read, whatever changed      1  something failed; the message says what and the way out
  2  wrong usage                         3  with --exit-code: something changed";

#[derive(Debug, Args)]
#[command(after_help = DETECT_HELP)]
struct DetectArgs {
    /// CSV files (*.csv, *.tsv, *.txt), profiles, or folders of profiles.
    #[arg(required_unless_present = "detectors", value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// A detector, NAME[,KEY=VALUE...]; may be repeated. `help` lists them. Default: cusum.
    #[arg(short, long = "detector", value_name = "DETECTOR")]
    detectors: Vec<String>,
    /// What profiles are shares of.
    #[arg(long, value_enum, default_value = "function")]
    by: detect::By,
    /// Of profiles, only the samples of this service or process; shares are of it.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// The time of one observation, where the samples of a profile have times; where not, a profile is one.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s")]
    every: Duration,
    /// Which samples of profiles; they must be counts. Default: the first that are.
    #[arg(long, value_name = "NAME")]
    sample_type: Option<String>,
    /// One JSON object a line, in place of text.
    #[arg(long)]
    json: bool,
    /// Write a plot to this file, SVG; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// End with 3 if something changed.
    #[arg(long)]
    exit_code: bool,
}

fn detect(args: DetectArgs) -> anyhow::Result<ExitCode> {
    if args.detectors.iter().any(|detector| detector == "help") {
        return detect::print_help().map(|()| ExitCode::SUCCESS);
    }
    if args.inputs.is_empty() {
        return Err(exit::usage("detect needs a file: CSV, a profile, or a folder of profiles").into());
    }
    let DetectArgs { inputs, detectors, by, of, every, sample_type, json, output, exit_code } = args;
    let options = detect::Options { inputs, detectors, by, of, every, sample_type, json, output, exit_code };
    detect::run(&options, &mut std::io::stdout())
}

/// A time as everywhere; a number alone is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let with_unit = if is_number { format!("{text}s") } else { text.to_owned() };
    let duration = profiler_config::parse_time(&with_unit)?;
    if duration.is_zero() {
        return Err("a recording of no time has no samples".to_owned());
    }
    Ok(duration)
}

/// One of the words of `T`, as the configuration has them.
fn choice<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let words = PossibleValuesParser::new(T::WORDS.iter().map(|(word, _)| *word));
    words.try_map(|text| {
        let found = T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or("none of the words")
    })
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    profiler_elf::contain::end_process_on_panic();
    profiler_bpf::memory::return_large_blocks();
    profiler_bpf::resolver::resolve_by_files_and_dns();
    // A file that may not grow (ulimit -f) is an error of its writer, who tells it and cleans up, and no end of the process. An
    // ignored signal would stay so for commands that are started; a handler does not.
    if let Err(error) = signal_hook::flag::register(libc::SIGXFSZ, Arc::default()) {
        eprintln!("profiler: SIGXFSZ cannot be taken, and a limit on the size of files may end the process: {error}");
    }
    let cli = Cli::parse();
    // The agent logs as its configuration says, and the control server what people do.
    let logs_itself = match &cli.command {
        Command::Agent(_) => true,
        Command::Control(args) => args.is_server(),
        _ => false,
    };
    if !logs_itself {
        log(cli.verbose);
    }
    let result = match cli.command {
        Command::Agent(args) => agent::run(args.flags(cli.verbose)),
        Command::Record(args) if args.events.iter().any(|event| event == "help") => {
            events::print_all().map(|()| ExitCode::SUCCESS)
        }
        Command::Record(args) => record_options(args).and_then(|options| record::run(&options)),
        Command::Doctor(DoctorArgs { pid: Some(pid), .. }) => doctor::of_process(pid).map(ExitCode::from),
        Command::Doctor(args) => doctor::run(args.btf.as_deref()).map(ExitCode::from),
        Command::Convert(ConvertArgs { input, output, format, sample_type, rules }) => rules
            .compile()
            .and_then(|rules| convert::run(&input, &output, format, sample_type.as_deref(), &rules))
            .map(|()| ExitCode::SUCCESS),
        Command::Diff(args) => args.run(),
        Command::Detect(args) => detect(args),
        Command::Config(command) => command.run(cli.verbose),
        Command::Control(args) => args.run(cli.verbose),
        Command::Ottl(command) => command.run(),
        Command::Reader { memory, names } => {
            profiler_reader::serve(memory, names).map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
        Command::Network => profiler_export::serve().map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from),
        Command::Launch { command } => Err(launch::become_command(&command).into()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("profiler: {}", shown::lines(&message(&error)));
        let code = error.downcast_ref::<ExitError>().map_or(exit::FAILURE, |error| error.code);
        ExitCode::from(code)
    })
}

/// The error with its causes; a cause that the error's own text already gives is not said twice.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Whoever failed for it, here is what to do.
    if text.contains("(os error 24)") && !text.contains("ulimit") {
        text.push_str("; allow this process more with ulimit -n");
    }
    text
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let level = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok()).unwrap_or(level);
    telemetry::log::init_for_command(level);
}

/// Arguments become the values that the recording runs by.
fn record_options(args: RecordArgs) -> anyhow::Result<record::Options> {
    let target = match (&args.cgroup, args.command.is_empty(), args.pids.is_empty()) {
        (Some(path), ..) => record::Target::Cgroup(path.clone()),
        (None, false, _) => record::Target::Command { command: args.command, all: args.all },
        (None, true, false) => record::Target::Processes(args.pids),
        (None, true, true) => record::Target::All,
    };
    let named = if args.output.is_empty() { Named::ByDefault } else { Named::ByUser };
    let outputs = if args.output.is_empty() {
        match args.format {
            Some(format) => vec![PathBuf::from(format!("profile{}", format.extension()))],
            None => vec![PathBuf::from("profile.pb.gz"), PathBuf::from("profile.html")],
        }
    } else {
        args.output
    };
    Ok(record::Options {
        target,
        sources: events::sources(&args.events, args.frequency)?,
        duration: args.duration,
        outputs,
        named,
        format: args.format,
        sample_type: args.sample_type,
        lines: args.symbols == Symbols::Lines,
        all_runtime_frames: args.runtime_frames == RuntimeFrames::All,
        btf: args.btf,
        quiet: args.quiet,
        rules: args.rules.compile()?,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("1m30").is_err_and(|error| error.contains("perhaps 1m30s")));
        assert!(parse_duration("0").is_err());
        assert!(parse_duration("").is_err());
        assert!(parse_duration("10x").is_err());
        assert!(parse_duration("-1").is_err());
        assert!(parse_duration("1e400h").is_err());
    }
}
