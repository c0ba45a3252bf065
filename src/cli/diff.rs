//! The command line of `profiler diff`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{detect, diff, exit};

const HELP: &str = "\
Examples:
  profiler diff monday.pb.gz tuesday.pb.gz                       functions whose share of the samples is another
  profiler diff old.otlp new.otlp --of checkout -o diff.svg      ... of one service, and a differential flame graph
  profiler diff old.otlp new.otlp --exit-code                    ends with 3 if something differs, for CI

Shares are told with their standard errors, and only where they differ by --sigma of these or more: among
1,000 functions chance alone makes one differ by 4 once in 16 comparisons, and three by 3 each time.

Exit codes:
  0  done      1  a file cannot be read or written      2  wrong usage      3  with --exit-code: something differs";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct DiffArgs {
    /// A pprof or OTLP profile to compare with.
    before: PathBuf,
    /// The pprof or OTLP profile that is compared.
    after: PathBuf,
    /// What shares are of.
    #[arg(long, value_enum, default_value = "function")]
    by: detect::By,
    /// Only the samples of this service or process; shares are of it.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Which samples; they must be counts. Default: the first that are.
    #[arg(long, value_name = "NAME")]
    sample_type: Option<String>,
    /// Tell differences of at least so many standard errors.
    #[arg(long, value_name = "NUMBER", default_value_t = 4.0)]
    sigma: f64,
    /// At most so many lines, the surest first; 0: all.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
    /// One JSON object a line, in place of text.
    #[arg(long)]
    json: bool,
    /// Write a differential flame graph (*.svg) or folded stacks with two counts (*.folded), of all samples; may be repeated.
    #[arg(short, long, value_name = "FILE")]
    output: Vec<PathBuf>,
    /// In these, compare amounts and not shares.
    #[arg(long, requires = "output")]
    absolute: bool,
    /// End with 3 if something differs.
    #[arg(long)]
    exit_code: bool,
}

impl DiffArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { before, after, by, of, sample_type, sigma, lines, json, output, absolute, exit_code } = self;
        if !(sigma.is_finite() && sigma >= 0.0) {
            return Err(exit::usage(format!("--sigma {sigma}: it must be 0 or more")).into());
        }
        let options = diff::Options {
            before,
            after,
            by,
            of,
            sample_type,
            sigma,
            lines,
            json,
            outputs: output,
            is_absolute: absolute,
            exit_code,
        };
        diff::run(&options, &mut std::io::stdout())
    }
}
