//! Which server is spoken to, by whom, and how its answers are printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use http::Method;
use profiler_control::client::Client;
use profiler_receiver::{Secret, TlsOptions};
use serde_json::Value;

use super::FOLDER;
use crate::print::print;
use crate::rules::read_bounded;
use crate::{exit, shown};

/// Which server, and who asks.
#[derive(Clone, Debug, Args)]
pub(super) struct ClientArgs {
    /// The control server. [env: PROFILER_CONTROL_URL] [default: http://127.0.0.1:4320]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The file of the token. [env: PROFILER_CONTROL_TOKEN_FILE, or the token itself: PROFILER_CONTROL_TOKEN] [default:
    /// /var/lib/profiler/control/admin.token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the certificate authorities to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send the token without TLS also to a server on another host.
    #[arg(long)]
    allow_plain_text: bool,
    /// Print what the server says, JSON, in place of text.
    #[arg(long)]
    json: bool,
}

impl ClientArgs {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let url = self.server.clone().or_else(|| variable("PROFILER_CONTROL_URL"));
        let url = url.unwrap_or_else(|| "http://127.0.0.1:4320".to_owned());
        let tls = TlsOptions { ca_file: self.ca_file.clone(), ..TlsOptions::default() };
        Ok(Client::new(&url, tls, self.token()?, self.allow_plain_text).map_err(exit::usage)?)
    }

    fn token(&self) -> anyhow::Result<Secret> {
        if self.token_file.is_none()
            && let Some(token) = variable("PROFILER_CONTROL_TOKEN")
        {
            return Ok(Secret::new(token.trim()));
        }
        let given = self.token_file.clone().or_else(|| variable("PROFILER_CONTROL_TOKEN_FILE").map(PathBuf::from));
        let path = given.unwrap_or_else(|| Path::new(FOLDER).join("admin.token"));
        let text = read_bounded(&path, 4096).with_context(|| {
            "there is no token: name its file by --token-file or PROFILER_CONTROL_TOKEN_FILE. `profiler control serve` writes the first \
             to admin.token in its folder"
        })?;
        Ok(Secret::new(String::from_utf8_lossy(&text).trim()))
    }

    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        Ok(self.client()?.ask(method, path, body.as_ref()).await?)
    }

    /// Prints an answer, as text by `show`, or as the server has it.
    pub(super) fn print(&self, answer: &Value, show: impl FnOnce(&Value) -> String) -> anyhow::Result<ExitCode> {
        let text = if self.json { format!("{}\n", shown::json(&answer.to_string())) } else { show(answer) };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}
