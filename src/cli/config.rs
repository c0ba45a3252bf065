//! `profiler config`, and the flags that the agent is configured by.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use profiler_config::{self as config, Flags};

use crate::exit;
use crate::print::print;
use crate::telemetry::log;

/// Flags of the agent; each goes before the environment and the file.
#[derive(Debug, Default, Args)]
pub(super) struct ConfigArgs {
    /// URL of an OTLP receiver: http://HOST:PORT, or https:// for TLS. Meant is the exporter named otlp, else the file's first.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// What is spoken there: grpc or http/protobuf.
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Samples a second and CPU, Hz. [default: 99]
    #[arg(short = 'F', long = "freq", visible_alias = "rate", short_alias = 'r', value_name = "HZ")]
    rate: Option<String>,
    /// How long one profile is: 10s, 1m. [default: 10s]
    #[arg(long, value_name = "TIME")]
    window: Option<String>,
    /// Where /metrics, /healthz and /readyz are served, or off. [default: 127.0.0.1:9464]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// A configuration from elsewhere. It narrows all others, as docs/configuration.md says of each key, and never widens them. It
    /// may be missing, and is read again when it changes.
    #[arg(long, value_name = "FILE")]
    remote: Option<PathBuf>,
    /// Any other key by its path, such as limits.memory=64MiB or labels.team=web; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    values: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, like limits.memory=64MiB".to_owned()),
    }
}

impl ConfigArgs {
    /// As the configuration has them. `verbose` is how often `-v` was given.
    pub(super) fn flags(self, file: Option<PathBuf>, verbose: u8) -> Flags {
        let mut flags = Flags::new(file);
        flags.remote = self.remote;
        let mut set = |flag: &str, key: &str, value: Option<&str>| {
            if let Some(value) = value {
                flags.set(flag, key, value);
            }
        };
        let level = match verbose {
            0 => None,
            1 => Some("debug"),
            _ => Some("trace"),
        };
        set("-v", "log.level", level);
        set("--rate", "rate", self.rate.as_deref());
        set("--window", "window", self.window.as_deref());
        set("--listen", "telemetry.listen", self.listen.as_deref());
        for (key, value) in &self.values {
            flags.set("--set", key, value);
        }
        for (flag, key, value) in [("--endpoint", "endpoint", self.endpoint), ("--protocol", "protocol", self.protocol)]
        {
            if let Some(value) = value {
                flags.otlp(flag, key, &value);
            }
        }
        flags
    }
}

const CHECK_HELP: &str = "\
The effective configuration goes to standard output, each value with where it came from: remote, flag, environment
variable, file with line and column, or default. Secrets are hidden, and so is what ${env:...} and ${file:...}
stand for. Certificates, receivers and directories are not tried: the file may be for another host.

Exit codes:
  0  the configuration is right      2  it is not; every problem is named with its place and the right way";

/// Check a configuration file, or print the schema of all keys.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a configuration is right, and print the effective one with where each value came from.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The file; without it the environment, flags and defaults alone.
        file: Option<PathBuf>,
        #[command(flatten)]
        args: ConfigArgs,
    },
    /// Print the JSON Schema of the configuration file, for editors and pipelines.
    Schema,
}

impl ConfigCommand {
    pub(super) fn run(self, verbose: u8) -> anyhow::Result<ExitCode> {
        let text = match self {
            Self::Check { file, args } => {
                let mut flags = args.flags(file, verbose);
                // It may be for another host, where it is root's.
                flags.whosever = true;
                let loaded = config::load(&flags).map_err(exit::usage)?;
                if let Some(errors) = &loaded.refused {
                    return Err(exit::usage(format!("the remote configuration is refused: {errors}")).into());
                }
                let mut text = loaded.describe();
                if let Some(level) = log::forced_level() {
                    // A comment: what it says may be more than a level, and the file cannot say it.
                    text += &format!("# RUST_LOG={} is set here, and goes before log.level\n", level.escape_debug());
                }
                text
            }
            Self::Schema => format!("{:#}\n", config::schema()),
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
