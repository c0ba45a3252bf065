//! Processes that go before other load of the host: what is measured against time must get its CPUs in time.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use profiler_integration::children::{self, Running};
use rustix::process::{Pid, setpriority_process};

use crate::error::Error;

const PRIORITY: i32 = -15;
/// Patience with `setsid`, which has yet to run when its child's pid is known.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts `command` in a session of its own that goes before others. Without the right to that it runs like any other.
///
/// # Errors
/// It cannot be started.
pub fn start(command: &Command) -> Result<Running, Error> {
    // Where sessions share the CPUs (autogroup), a nice value weighs only within one, and the session has a value of its own.
    let mut alone = Command::new("setsid");
    alone.arg(command.get_program()).args(command.get_args());
    let running = children::start(&mut alone)?;
    let pid = running.pid();
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = setpriority_process(Some(pid), PRIORITY);
    }
    let group = |pid: &str| fs::read_to_string(format!("/proc/{pid}/autogroup")).unwrap_or_default();
    let ours = group("self");
    let until = Instant::now() + PATIENCE;
    while !ours.is_empty() && group(&pid.to_string()) == ours && Instant::now() < until {
        sleep(Duration::from_millis(5));
    }
    if group(&pid.to_string()) != ours {
        let _ = fs::write(format!("/proc/{pid}/autogroup"), PRIORITY.to_string());
    }
    Ok(running)
}
