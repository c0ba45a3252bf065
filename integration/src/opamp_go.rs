//! A server or an agent of opamp-go, the protocol's reference (`integration/opamp`): by another author than ours, so that both ends cannot
//! share a misreading.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::children::Killed;
use crate::collector::go_program;

/// The program: says what comes, and does what it is told.
#[derive(Debug)]
pub struct OpampGo {
    _child: Killed,
    input: ChildStdin,
    told: Receiver<Value>,
    patience: Duration,
}

impl OpampGo {
    /// Starts it: an agent of the server at `-url`, otherwise a server. What it is to say within `patience` it has to.
    ///
    /// # Panics
    /// It cannot be built or started.
    #[must_use]
    pub fn start(arguments: &[&str], patience: Duration) -> Self {
        let mut command = Command::new(go_program("integration/opamp").expect("opamp-go is built"));
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Killed(command.spawn().expect("opamp-go starts"));
        let (output, input) = (child.0.stdout.take().expect("its output"), child.0.stdin.take().expect("its input"));
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { _child: child, input, told, patience }
    }

    /// Gives it a line.
    ///
    /// # Panics
    /// It has ended.
    pub fn says(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("opamp-go runs");
    }

    /// The next thing of this kind for which `matches`; what comes before is passed over.
    ///
    /// # Panics
    /// It does not come in time.
    pub fn until(&mut self, kind: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + self.patience;
        loop {
            let mut told = self.next(kind, end);
            if let Some(value) = told.get_mut(kind).map(Value::take)
                && matches(&value)
            {
                return value;
            }
        }
    }

    /// Looks at all that comes before the next thing of this kind.
    ///
    /// # Panics
    /// It does not come in time.
    pub fn each_until(&mut self, kind: &str, mut look: impl FnMut(&Value)) {
        let end = Instant::now() + self.patience;
        loop {
            let told = self.next(kind, end);
            if told.get(kind).is_some() {
                return;
            }
            look(&told);
        }
    }

    fn next(&self, kind: &str, end: Instant) -> Value {
        let left = end.saturating_duration_since(Instant::now());
        self.told.recv_timeout(left).unwrap_or_else(|_| panic!("no {kind} in time"))
    }
}
