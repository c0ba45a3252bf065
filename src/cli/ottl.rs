//! `profiler ottl`: rules on files, and what is said of them.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use profiler_config::Flags;
use profiler_formats::otlp::{self, Messages};
use profiler_ottl::{ErrorMode, Gates};
use profiler_rules::{Dialect, Done, Level, RefusedRule, Request, Rules, changes};
use prost::Message;

use crate::agent::{Explained, Processors};
use crate::output::human_bytes;
use crate::print::until_enough;
use crate::rules::{Early, KeyArgs, MAX_RULES, read_bounded, statements};
use crate::{exit, shown};

/// The largest profile, bytes.
const MAX_INPUT: u64 = 512 << 20;

const CHECK_HELP: &str = "\
A file of rules has a statement a line; empty lines and lines that begin with # are passed over.

Exit codes:
  0  all rules parse      2  one does not; each is named with its place and what was expected";

const EXPLAIN_HELP: &str = "\
Examples:
  profiler ottl explain /etc/profiler/agent.yaml
  profiler ottl explain --drop 'resource.attributes[\"service.name\"] == \"batch\"'

Exit codes:
  0  explained      2  a rule or the configuration is not right";

const RUN_HELP: &str = "\
Examples:
  profiler ottl run -s 'set(resource.attributes[\"team\"], \"web\")' in.otlp -o out.otlp
  profiler ottl run --drop 'profile.sample_type.type == \"alloc_space\"' in.otlp -o out.otlp
  profiler ottl run --where 'profilesample.attributes[\"thread.name\"] == \"main\"' in.otlp -o out.otlp

The context is that of the innermost prefix among the paths, or profile; paths are taken bare, too. What nothing refers to any more
is left out of the output's dictionary. Its format is that of its name: .json is JSON, all else protobuf. See docs/ottl.md.

Exit codes:
  0  written      1  a rule failed (under --error-mode propagate), or a file did      2  a rule does not parse, or wrong usage";

/// Check rules of the OpenTelemetry Transformation Language, or run them on OTLP profiles.
#[derive(Debug, Subcommand)]
pub(super) enum OttlCommand {
    /// Say whether statements parse.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// A file of statements; `-` is standard input.
        #[arg(required_unless_present = "statements", conflicts_with = "statements")]
        file: Option<PathBuf>,
        /// A statement; may be repeated.
        #[arg(short, long = "statement", value_name = "STATEMENT", allow_hyphen_values = true)]
        statements: Vec<String>,
        #[command(flatten)]
        language: LanguageArgs,
    },
    /// Say of each rule when it is decided: once a process, before any of its stacks is walked (by the agent, and by `record -a`), or on each window;
    /// and why.
    #[command(after_help = EXPLAIN_HELP)]
    Explain {
        /// A configuration of the agent, whose `processors` are explained.
        #[arg(required_unless_present_any = ["drop", "keep"], conflicts_with_all = ["drop", "keep"])]
        file: Option<PathBuf>,
        /// A condition as `profiler record --drop` has it; may be repeated.
        #[arg(long, value_name = "CONDITION", allow_hyphen_values = true)]
        drop: Vec<String>,
        /// A condition as `profiler record --where` has it; may be repeated.
        #[arg(long = "where", value_name = "CONDITION", allow_hyphen_values = true)]
        keep: Vec<String>,
    },
    /// Run statements on a file of OTLP profiles, or keep or drop what conditions hold for.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub(super) struct LanguageArgs {
    /// What rules run on, once each: resource, scope, profile, profilesample, stack or frame.
    #[arg(long, value_name = "CONTEXT")]
    context: Option<Level>,
    /// Feature gates, as the Collector has them: ottl.functions.enableLambda, -ottl.set.allowNil.
    #[arg(long, value_name = "GATES", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    feature_gates: Gates,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// A file of OTLP profiles, in protobuf or JSON, perhaps gzipped; `-` is standard input.
    input: PathBuf,
    /// The file to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE", required_unless_present = "diff")]
    output: Option<PathBuf>,
    /// A statement; may be repeated, and they run in order.
    #[arg(short, long = "statement", value_name = "STATEMENT", required_unless_present_any = ["drop", "keep"], allow_hyphen_values = true)]
    statements: Vec<String>,
    /// Drop what this condition holds for; may be repeated, and any counts.
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["statements", "keep"], allow_hyphen_values = true)]
    drop: Vec<String>,
    /// Keep what this condition holds for, and nothing else; may be repeated, and any counts.
    #[arg(long = "where", value_name = "CONDITION", conflicts_with = "statements", allow_hyphen_values = true)]
    keep: Vec<String>,
    /// Print what changed, to standard output, or to standard error if that has the profile.
    #[arg(long)]
    diff: bool,
    /// What becomes of a rule's error: propagate, ignore (it is told) or silent.
    #[arg(long, value_name = "MODE", default_value = "propagate")]
    error_mode: ErrorMode,
    #[command(flatten)]
    language: LanguageArgs,
}

impl LanguageArgs {
    fn dialect(&self) -> anyhow::Result<Dialect> {
        Ok(Dialect { gates: self.feature_gates, key: self.key.read()? })
    }
}

impl OttlCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check { file, statements, language } => check(file.as_deref(), statements, &language),
            Self::Explain { file: Some(file), .. } => explain_file(file),
            Self::Explain { drop, keep, .. } => explain(&drop, &keep),
            Self::Run(args) => run(&args),
        }
    }
}

fn check(file: Option<&Path>, given: Vec<String>, language: &LanguageArgs) -> anyhow::Result<ExitCode> {
    let rules: Vec<(String, String)> = match file {
        None => given.into_iter().enumerate().map(|(at, rule)| (format!("statement {}", at + 1), rule)).collect(),
        Some(path) => {
            let statements = statements(path, &read_bounded(path, MAX_RULES)?)?;
            statements.into_iter().map(|(line, rule)| (format!("{}:{line}", shown::path(path)), rule)).collect()
        }
    };
    let mut refused = Vec::new();
    let dialect = language.dialect()?;
    for (place, rule) in &rules {
        // Each by itself, so that all that is wrong is told.
        if let Err(RefusedRule { error, .. }) =
            Rules::statements(language.context, &[rule], ErrorMode::default(), dialect.clone())
        {
            refused.push(format!("{place}: {error}"));
        }
    }
    if !refused.is_empty() {
        return Err(exit::usage(refused.join("\n")).into());
    }
    eprintln!("{} {} right", rules.len(), if rules.len() == 1 { "rule is" } else { "rules are" });
    Ok(ExitCode::SUCCESS)
}

fn explain_file(file: PathBuf) -> anyhow::Result<ExitCode> {
    let mut flags = Flags::new(Some(file));
    // It may be for another host, where it is root's.
    flags.whosever = true;
    let loaded = profiler_config::load(&flags).map_err(exit::usage)?;
    let (_, explained) = Processors::explained(&loaded.config.processors)?;
    let lines = explained.into_iter().map(|Explained { processor, place, why }| (format!("{processor} {place}"), why));
    print_explained(lines, "")
}

fn explain(drop: &[String], keep: &[String]) -> anyhow::Result<ExitCode> {
    let mut early = Early::default();
    let mut lines = Vec::new();
    for (conditions, drops, flag) in [(drop, true, "--drop"), (keep, false, "--where")] {
        let rules = Rules::filter(None, conditions, drops, ErrorMode::Ignore, Gates::default()).map_err(exit::usage)?;
        let level = rules.level();
        let why = if drops { early.dropping(flag, level, conditions) } else { early.keeping(flag, level, conditions) };
        let why = why.map_err(exit::usage)?;
        let other = if drops { None } else { why.iter().position(Option::is_some) };
        for (at, (condition, why)) in conditions.iter().zip(why).enumerate() {
            let why = why.map(|why| why.to_string()).or_else(|| {
                other.map(|other| {
                    format!("number {} may keep something of a process that this one does not hold for", other + 1)
                })
            });
            lines.push((format!("{flag} {}: {}", at + 1, shown::one_line(condition)), why));
        }
    }
    print_explained(lines.into_iter(), " (by `profiler record -a`; with -p, --cgroup or a command alone, at the end)")
}

/// `where_so`: where that holds.
fn print_explained(lines: impl Iterator<Item = (String, Option<String>)>, where_so: &str) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let write = || {
        for (rule, why) in lines {
            match why {
                None => writeln!(out, "{rule}\n  before unwinding, once a process{where_so}")?,
                Some(why) => writeln!(out, "{rule}\n  on each window: {}", shown::one_line(&why))?,
            }
        }
        out.flush()
    };
    until_enough(write()).context("cannot print when rules are decided")?;
    Ok(ExitCode::SUCCESS)
}

fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let (context, dialect) = (args.language.context, args.language.dialect()?);
    let (is_filter, drop) = (args.statements.is_empty(), args.keep.is_empty());
    let rules = if is_filter {
        Rules::filter(context, if drop { &args.drop } else { &args.keep }, drop, args.error_mode, dialect)
    } else {
        Rules::statements(context, &args.statements, args.error_mode, dialect)
    };
    let rules = rules.map_err(exit::usage)?;
    let Messages { requests, .. } = otlp::messages(&read_bounded(&args.input, MAX_INPUT)?)
        .with_context(|| format!("cannot read {}", shown::path(&args.input)))?;
    let is_json = args.output.as_deref().is_some_and(|path| path.extension().is_some_and(|end| end == "json"));
    anyhow::ensure!(
        is_json || args.output.is_none() || requests.len() == 1,
        "{} has {} requests, and a file in protobuf has one; write to a file that ends in .json",
        shown::path(&args.input),
        requests.len()
    );
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    let mut out = Vec::new();
    let mut done = Done::default();
    for request in requests {
        let before = args.diff.then(|| request.clone());
        let (request, of_this) =
            rules.apply(request, |error| eprintln!("profiler: ignored: {}", shown::lines(&error.to_string())))?;
        done.contexts += of_this.contexts;
        done.dropped += of_this.dropped;
        if let Some(before) = before {
            print_changes(&before, &request, to_stdout)?;
        }
        if is_json {
            otlp::write_message_json(&request, &mut out)?;
        } else {
            request.encode(&mut out)?;
        }
    }
    let Some(path) = &args.output else { return Ok(ExitCode::SUCCESS) };
    let cannot = || format!("cannot write {}", shown::path(path));
    if to_stdout {
        std::io::stdout().write_all(&out).with_context(cannot)?;
    } else {
        std::fs::write(path, &out).with_context(cannot)?;
        let what = if is_filter { format!(", {} dropped", done.dropped) } else { String::new() };
        eprintln!(
            "Wrote {} ({}): {} x {}{what}",
            shown::path(path),
            human_bytes(out.len() as u64),
            done.contexts,
            rules.level()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_changes(before: &Request, after: &Request, to_stderr: bool) -> anyhow::Result<()> {
    let out: Box<dyn Write> =
        if to_stderr { Box::new(std::io::stderr().lock()) } else { Box::new(std::io::stdout().lock()) };
    let mut out = BufWriter::new(out);
    let mut result = Ok(());
    changes(before, after, |line| {
        if result.is_ok() {
            result = writeln!(out, "{}", shown::one_line(&line.to_string()));
        }
    });
    until_enough(result.and_then(|()| out.flush())).context("cannot print what changed")
}
