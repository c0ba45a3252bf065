//! What people have the server do, by REST.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use profiler_control::client::{ClientError, encoded};
use profiler_control::core::MAX_TEXT;
use profiler_control::rollout::Step;
use serde_json::{Value, json};

use super::connection::ClientArgs;
use super::table;
use crate::rules::read_bounded;
use crate::{exit, shown};

/// What `rollouts start --wait` and `rollouts wait` end with if the rollout did not come to its end.
const STOPPED: u8 = 3;
/// How often a rollout is looked at by who waits for it.
const LOOK: Duration = Duration::from_millis(500);
/// How long a server that has answered may be away meanwhile.
const AWAY: Duration = Duration::from_secs(300);

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// The agents that the server knows.
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Configurations, saved as revisions.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Revisions on their way to agents, in steps.
    #[command(subcommand)]
    Rollouts(RolloutsCommand),
    /// Who may come, and what that allows.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Who did what, the newest first.
    Audit {
        /// So many entries at most.
        #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentsCommand {
    /// List them.
    List {
        /// Only those whose labels match: env=prod,region!=eu,zone in (a,b),!canary.
        #[arg(short = 'l', long, value_name = "SELECTOR")]
        selector: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one: its labels, health, what it is to have and what runs.
    Show {
        /// Its instance_uid.
        uid: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Forget one that is not connected.
    Forget {
        /// Its instance_uid.
        uid: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Save a file as a new revision. Nobody gets it by that: see `rollouts start`.
    Push {
        /// YAML with the keys of the agent's configuration; agents narrow their own by it, and never widen that. `-` is standard input.
        file: PathBuf,
        /// The configuration that it is a revision of. [default: the file's name without its extension]
        #[arg(long)]
        name: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
        /// Save it only if this is the newest revision of that name (0: if there is none yet), so that nobody's work is undone unseen.
        #[arg(long, value_name = "REVISION")]
        parent: Option<i64>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List revisions, the newest first.
    List {
        /// Only those of this configuration.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print the text of a revision.
    Show {
        /// Its number.
        revision: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Save a revision that agents have failed with anew, so that they may try it again.
    Retry {
        /// Its number.
        revision: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OnFailure {
    /// It stops where it is, and waits for somebody.
    Pause,
    /// Its agents get back what they had.
    Revert,
}

#[derive(Debug, Subcommand)]
pub(super) enum RolloutsCommand {
    /// Begin one.
    Start(StartArgs),
    /// List them, the newest first.
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one.
    Show {
        /// Its number.
        rollout: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Wait until one is done (0), or paused or reverted (3).
    Wait {
        /// Its number.
        rollout: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Stop one where it is.
    Pause(ChangeArgs),
    /// Have one that is paused go on.
    Resume(ChangeArgs),
    /// Give its agents back what they had, also when it is done.
    Revert(ChangeArgs),
}

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// The revision.
    revision: i64,
    /// Only agents whose labels match: env=prod,region!=eu,zone in (a,b),!canary. [default: all]
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Shares of these agents that have it, one after the other, and how long each step has to be well. At least one agent is in the
    /// first.
    #[arg(long, value_name = "SHARE:TIME,...", value_delimiter = ',', value_parser = step, default_value = "1%:10m,25%:10m,100%:10m")]
    steps: Vec<Step>,
    /// What becomes of it when more agents fail, are unhealthy or are lost than may be.
    #[arg(long, value_enum, default_value_t = OnFailure::Revert)]
    on_failure: OnFailure,
    /// Agents that may refuse it or give it back, or not apply it within --answer.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_failed: u32,
    /// Agents that may be unhealthy with it.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_unhealthy: u32,
    /// Agents that may be lost with it.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    max_lost: u32,
    /// An agent that is not connected for so long is lost.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "90s")]
    lost: u64,
    /// How long an agent may take to apply it, its own trial of it included.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "15m")]
    answer: u64,
    /// Wait until it is done (0), or paused or reverted (3).
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChangeArgs {
    /// Its number.
    rollout: i64,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Only if it has not changed since it had this version.
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Role {
    /// An agent: it reports and is managed.
    Agent,
    /// May look at everything but tokens.
    Viewer,
    /// May save configurations, and begin and end rollouts.
    Operator,
    /// May do everything.
    Admin,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokensCommand {
    /// Make one and print it. It is not shown again.
    Make {
        /// What it is for. Agents belong to the name of their token: make another one of the same name to replace it.
        name: String,
        /// What it allows.
        #[arg(long, value_enum)]
        role: Role,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List them, without their secrets.
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// End one; agents that came by it are disconnected.
    Revoke {
        /// Its number.
        token: i64,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// `25%:30m`.
fn step(text: &str) -> Result<Step, String> {
    let wrong = || format!("{text:?} is no step; write SHARE:TIME, like 25%:30m");
    let (weight, soak) = text.split_once(':').ok_or_else(wrong)?;
    let weight = weight.trim().trim_end_matches('%').parse().map_err(|_| wrong())?;
    Ok(Step { weight, soak_seconds: seconds(soak.trim())? })
}

fn seconds(text: &str) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let time = profiler_config::parse_time(&if is_number { format!("{text}s") } else { text.to_owned() })?;
    Ok(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl ClientCommand {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Agents(command) => command.run().await,
            Self::Config(command) => command.run().await,
            Self::Rollouts(command) => command.run().await,
            Self::Tokens(command) => command.run().await,
            Self::Audit { limit, client } => {
                let answer = client.ask(Method::GET, &format!("/api/v1/audit?limit={limit}"), None).await?;
                client.print(&answer, table::audit)
            }
        }
    }
}

impl AgentsCommand {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List { selector, client } => {
                let asked = client.client()?;
                let (mut all, mut after) = (Vec::new(), String::new());
                loop {
                    let selector = selector.as_deref().map_or_else(String::new, encoded);
                    let path = format!("/api/v1/agents?limit=1000&selector={selector}&after={}", encoded(&after));
                    let mut page = asked.ask(Method::GET, &path, None).await?;
                    if let Some(agents) = page.get_mut("agents").and_then(Value::as_array_mut) {
                        all.append(agents);
                    }
                    match page["next"].as_str() {
                        // Whatever a server says, it comes to an end.
                        Some(next) if *next > *after => after = next.to_owned(),
                        _ => break,
                    }
                }
                client.print(&json!({"agents": all}), table::agents)
            }
            Self::Show { uid, client } => {
                let answer = client.ask(Method::GET, &format!("/api/v1/agents/{}", encoded(&uid)), None).await?;
                client.print(&answer, table::agent)
            }
            Self::Forget { uid, client } => {
                let answer = client.ask(Method::DELETE, &format!("/api/v1/agents/{}", encoded(&uid)), None).await?;
                client.print(&answer, |_| format!("{} is forgotten\n", shown::one_line(&uid)))
            }
        }
    }
}

impl ConfigCommand {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Push { file, name, note, parent, client } => {
                let text = String::from_utf8(read_bounded(&file, MAX_TEXT as u64)?);
                let text = text.map_err(|_| exit::usage(format!("{} is no text in UTF-8", shown::path(&file))))?;
                let stem = file.file_stem().filter(|stem| *stem != "-").map(|stem| stem.to_string_lossy().into_owned());
                let name = name.or(stem).ok_or_else(|| exit::usage("name the configuration by --name"))?;
                let body = json!({"name": name, "text": text, "note": note, "parent": parent});
                let answer = client.ask(Method::POST, "/api/v1/revisions", Some(body)).await?;
                client.print(&answer, table::saved)
            }
            Self::List { name, client } => {
                let query = name.map_or_else(String::new, |name| format!("?name={}", encoded(&name)));
                let answer = client.ask(Method::GET, &format!("/api/v1/revisions{query}"), None).await?;
                client.print(&answer, table::revisions)
            }
            Self::Show { revision, client } => {
                let answer = client.ask(Method::GET, &format!("/api/v1/revisions/{revision}"), None).await?;
                client.print(&answer, table::revision)
            }
            Self::Retry { revision, client } => {
                let path = format!("/api/v1/revisions/{revision}/retry");
                let answer = client.ask(Method::POST, &path, None).await?;
                client.print(&answer, table::saved)
            }
        }
    }
}

impl RolloutsCommand {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Start(args) => args.run().await,
            Self::List { client } => {
                let answer = client.ask(Method::GET, "/api/v1/rollouts", None).await?;
                client.print(&answer, table::rollouts)
            }
            Self::Show { rollout, client } => {
                let answer = client.ask(Method::GET, &format!("/api/v1/rollouts/{rollout}"), None).await?;
                client.print(&answer, table::rollout)
            }
            Self::Wait { rollout, client } => wait(&client, rollout).await,
            Self::Pause(args) => args.run("pause").await,
            Self::Resume(args) => args.run("resume").await,
            Self::Revert(args) => args.run("revert").await,
        }
    }
}

impl StartArgs {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let gates = json!({"failed": self.max_failed, "unhealthy": self.max_unhealthy, "lost": self.max_lost,
                           "lost_seconds": self.lost, "answer_seconds": self.answer});
        let body = json!({"revision": self.revision, "selector": self.selector.unwrap_or_default(), "steps": self.steps,
                          "gates": gates, "on_failure": word(self.on_failure)});
        let answer = self.client.ask(Method::POST, "/api/v1/rollouts", Some(body)).await?;
        match answer["id"].as_i64().filter(|_| self.wait) {
            Some(id) => wait(&self.client, id).await,
            None => self.client.print(&answer, table::rollout),
        }
    }
}

fn is_away(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Connection(_)))
}

/// Says how a rollout gets on, to standard error, until it is at its end.
async fn wait(client: &ClientArgs, id: i64) -> anyhow::Result<ExitCode> {
    let mut before = String::new();
    let mut last = None::<Instant>;
    loop {
        let answer = match client.ask(Method::GET, &format!("/api/v1/rollouts/{id}"), None).await {
            // The server is being started anew, say: the rollout goes on when it is back.
            Err(error) if is_away(&error) && last.is_some_and(|last| last.elapsed() < AWAY) => {
                let line = format!("{error:#}; tried again");
                if line != before {
                    eprintln!("{line}");
                    before = line;
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            answer => answer?,
        };
        last = Some(Instant::now());
        let line = table::progress(&answer);
        if line != before {
            eprintln!("{line}");
            before = line;
        }
        match answer["phase"].as_str() {
            Some("running") => tokio::time::sleep(LOOK).await,
            phase => {
                let is_done = phase == Some("done");
                client.print(&answer, table::rollout)?;
                return Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(STOPPED) });
            }
        }
    }
}

impl ChangeArgs {
    async fn run(self, verb: &str) -> anyhow::Result<ExitCode> {
        let body = json!({"reason": self.reason, "version": self.version});
        let path = format!("/api/v1/rollouts/{}/{verb}", self.rollout);
        let answer = self.client.ask(Method::POST, &path, Some(body)).await?;
        self.client.print(&answer, table::rollout)
    }
}

impl TokensCommand {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Make { name, role, client } => {
                let body = json!({"name": name, "role": word(role)});
                let answer = client.ask(Method::POST, "/api/v1/tokens", Some(body)).await?;
                client.print(&answer, |answer| {
                    format!("{}\n", shown::one_line(answer["token"].as_str().unwrap_or_default()))
                })
            }
            Self::List { client } => {
                let answer = client.ask(Method::GET, "/api/v1/tokens", None).await?;
                client.print(&answer, table::tokens)
            }
            Self::Revoke { token, client } => {
                let answer = client.ask(Method::DELETE, &format!("/api/v1/tokens/{token}"), None).await?;
                client.print(&answer, |_| format!("token {token} is revoked\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_shares_and_times() {
        assert_eq!(step("25%:30m"), Ok(Step { weight: 25.0, soak_seconds: 1800 }));
        assert_eq!(step("0.5:90"), Ok(Step { weight: 0.5, soak_seconds: 90 }));
        assert_eq!(step("1% : 1500ms"), Ok(Step { weight: 1.0, soak_seconds: 2 }));
        for wrong in ["", "10%", "x:1m", "10%:x", ":"] {
            assert!(step(wrong).is_err(), "{wrong}");
        }
    }
}
