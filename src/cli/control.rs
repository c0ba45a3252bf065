//! `profiler control`: the control server, and what people have it do.

mod client;
mod connection;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use profiler_control::Options;

use crate::agent::{Signals, raise_open_files};
use crate::{shown, telemetry};

/// Where the server keeps what it knows, and clients on its host find the first token.
const FOLDER: &str = "/var/lib/profiler/control";

const HELP: &str = "\
Examples:
  profiler control serve --data ./control                          a server for this host; the admin's token is in ./control/admin.token
  export PROFILER_CONTROL_TOKEN_FILE=./control/admin.token
  profiler control tokens make fleet --role agent                  the token that agents come with
  profiler control agents list -l host.arch=amd64
  profiler control config push slow.yaml                           saves a revision; nobody gets it by that
  profiler control rollouts start 1 --steps 1%:10m,25%:30m,100%:10m --on-failure revert --wait

docs/control.md has the whole.";

/// Run the control server of a fleet of agents, or tell it what to do.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ControlArgs {
    #[command(subcommand)]
    command: ControlCommand,
}

#[derive(Debug, Subcommand)]
enum ControlCommand {
    /// Serve agents (OpAMP) and people (REST) until SIGTERM or SIGINT.
    Serve(ServeArgs),
    #[command(flatten)]
    Client(client::ClientCommand),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder of what it keeps; made if it is not there.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    data: PathBuf,
    /// Where it listens, for agents and for people.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4320")]
    listen: SocketAddr,
    /// PEM file of its certificate chain. It is read when the server starts.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen without TLS also where other hosts reach it: behind a proxy that has TLS, say.
    #[arg(long)]
    allow_plain_text: bool,
    /// Let agents in that come without a token.
    #[arg(long)]
    allow_any_agent: bool,
    /// Write another token of an admin to admin.token: the one before was lost.
    #[arg(long)]
    new_admin_token: bool,
}

impl ControlArgs {
    /// Whether it runs until it is told to end, and logs as such.
    pub(super) fn is_server(&self) -> bool {
        matches!(self.command, ControlCommand::Serve(_))
    }

    pub(super) fn run(self, verbose: u8) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start")?;
        match self.command {
            ControlCommand::Serve(args) => runtime.block_on(serve(args, verbose)),
            ControlCommand::Client(command) => runtime.block_on(command.run()),
        }
    }
}

async fn serve(args: ServeArgs, verbose: u8) -> anyhow::Result<ExitCode> {
    let level = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    telemetry::log::init(level, telemetry::log::Format::Text)?;
    // A connection is a descriptor.
    raise_open_files();
    let signals = Signals::install()?;
    let options = Options {
        folder: args.data,
        listen: args.listen,
        tls: args.tls_cert.zip(args.tls_key),
        allow_plain_text: args.allow_plain_text,
        allow_any_agent: args.allow_any_agent,
        new_admin_token: args.new_admin_token,
    };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let started = |address: SocketAddr, token: Option<&Path>| {
        if let Some(token) = token {
            tracing::info!("The admin's token is in {}.", shown::path(token));
        }
        tracing::info!("Serving at {scheme}://{address}, agents at /v1/opamp.");
    };
    let end = async {
        while !signals.stop() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    profiler_control::serve(&options, started, end).await?;
    Ok(ExitCode::SUCCESS)
}
