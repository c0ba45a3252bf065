//! Runs the user's command so that it is sampled from its first instruction: a copy of ourselves stops before it becomes the
//! command, and goes on when the clocks run.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::{env, fs, io};

use anyhow::Context;
use profiler_confine::raised;
use rustix::process::{Gid, Pid, Signal, Uid, WaitOptions, getpid, kill_process, waitpid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::exit::{self, ExitError};

/// Name of the hidden subcommand.
pub const SUBCOMMAND: &str = "__launch";

/// Interpreters of interpreters that the kernel follows.
const MAX_INTERPRETERS: usize = 4;
/// Bytes of a script's first line that the kernel reads.
const MAX_LINE: u64 = 256;

/// A command that waits to be let go.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    pid: Pid,
    program: PathBuf,
    status: Option<ExitStatus>,
}

impl Launched {
    /// Starts `command`, stopped before its first instruction.
    pub fn stopped(command: &[OsString]) -> anyhow::Result<Self> {
        let program = command.first().context("no command")?;
        let program = program_of(check(program)?);
        let mut child = Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .arg("--")
            .args(command)
            .spawn()
            .context("cannot start a process")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("cannot start a process")?;
        match waitpid(Some(pid), WaitOptions::UNTRACED) {
            Ok(Some((_, status))) if status.stopped() => Ok(Self { child, pid, program, status: None }),
            Ok(_) => anyhow::bail!("the command ended before it started"),
            Err(error) => {
                let _ = child.kill();
                Err(error).context("cannot wait for the command")
            }
        }
    }

    /// Its pid.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The program that it is going to be; of a script, what interprets it.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Lets it go.
    pub fn go(&self) -> io::Result<()> {
        kill_process(self.pid, Signal::CONT).map_err(Into::into)
    }

    /// Passes a signal on; that it has ended meanwhile is no error.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // It may run as another user by now.
            let _ = raised(|| kill_process(self.pid, signal));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status.is_some())
    }

    /// Waits for its end and returns the exit code that is ours then.
    pub fn exit_code(&mut self) -> io::Result<u8> {
        let status = match self.status {
            Some(status) => status,
            None => self.child.wait()?,
        };
        self.status = Some(status);
        let code = status.code().or_else(|| status.signal().map(|signal| exit::SIGNAL_BASE + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILURE))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.status.is_none() && !self.has_ended().unwrap_or(false) {
            // Only when we fail before it was let go: a stopped command must not stay behind.
            let _ = raised(|| self.child.kill());
            let _ = self.child.wait();
        }
    }
}

/// Finds out before anything is set up whether `program` can be executed, and which file it is.
fn check(program: &OsStr) -> Result<PathBuf, ExitError> {
    let not_found =
        |what: &str| ExitError { code: exit::NOT_FOUND, message: format!("{}: {what}", program.to_string_lossy()) };
    let path = if program.as_bytes().contains(&b'/') {
        PathBuf::from(program)
    } else {
        on_path(program).ok_or_else(|| not_found("command not found"))?
    };
    let metadata = fs::metadata(&path).map_err(|error| not_found(&error.to_string()))?;
    if metadata.is_dir() || !is_executable(&path) {
        let what =
            if metadata.is_dir() { "is a directory" } else { "permission denied (chmod +x makes it executable)" };
        let message = format!("{}: {what}", path.display());
        return Err(ExitError { code: exit::NOT_EXECUTABLE, message });
    }
    Ok(path)
}

/// The first of `program` on the PATH that can be executed, else the first.
fn on_path(program: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> =
        env::split_paths(&path).map(|folder| folder.join(program)).filter(|path| path.is_file()).collect();
    let runnable = candidates.iter().find(|path| is_executable(path));
    runnable.or(candidates.first()).cloned()
}

/// What the kernel runs in the place of a script, through `env` too; the file itself if it is none.
fn program_of(mut file: PathBuf) -> PathBuf {
    for _ in 0..MAX_INTERPRETERS {
        let Some(interpreter) = interpreter(&file) else { break };
        file = interpreter;
    }
    file
}

/// What interprets `file`, if that is a script (execve(2)).
fn interpreter(file: &Path) -> Option<PathBuf> {
    // Of what is no file nothing is read, which might last.
    if !file.is_file() {
        return None;
    }
    let mut start = Vec::new();
    fs::File::open(file).ok()?.take(MAX_LINE).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let interpreter = Path::new(words.next()?);
    if interpreter.file_name() == Some(OsStr::new("env")) {
        // Its options, and what it sets, come before the program.
        return on_path(words.find(|word| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'='))?);
    }
    Some(interpreter.to_owned())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// In the copy: stops, and when it is let go becomes the command, as the user who called sudo. Returns only on failure.
pub fn become_command(command: &[OsString]) -> ExitError {
    let Some((program, arguments)) = command.split_first() else {
        return ExitError { code: exit::FAILURE, message: "no command".to_owned() };
    };
    if let Err(error) = kill_process(getpid(), Signal::STOP) {
        return ExitError { code: exit::FAILURE, message: format!("cannot stop to be sampled: {error}") };
    }
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(user) = SudoUser::of_environment() {
        if let Err(error) = user.become_it() {
            let message = format!("cannot become the user {} who called sudo: {error}", user.name);
            return ExitError { code: exit::FAILURE, message };
        }
        command.env("USER", &user.name).env("LOGNAME", &user.name);
        if let Some(home) = &user.home {
            command.env("HOME", home);
        }
    }
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE };
    ExitError { code, message: format!("{}: {error}", program.to_string_lossy()) }
}

/// What `/etc/passwd` has of a user.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    gid: u32,
    home: String,
}

impl Entry {
    fn of(passwd: &str, uid: u32) -> Option<Self> {
        let uid = uid.to_string();
        let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
        let mut fields = line.split(':').skip(3);
        let gid = fields.next()?.parse().ok()?;
        Some(Self { gid, home: fields.nth(1).unwrap_or_default().to_owned() })
    }
}

/// The user who called sudo.
#[derive(Debug)]
pub struct SudoUser {
    uid: u32,
    gid: u32,
    name: String,
    home: Option<String>,
}

impl SudoUser {
    /// As the environment has it; none if nobody did, or this is not root.
    #[must_use]
    pub fn of_environment() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let uid = number("SUDO_UID")?;
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = Entry::of(&passwd, uid);
        // Without a group the command must not stay root: the user's own, else one of the same number, as nobody has.
        let gid = number("SUDO_GID").or_else(|| entry.as_ref().map(|entry| entry.gid)).unwrap_or(uid);
        let name = env::var("SUDO_USER").unwrap_or_else(|_| uid.to_string());
        Some(Self { uid, gid, name, home: entry.map(|entry| entry.home) })
    }

    /// User and group.
    #[must_use]
    pub fn ids(&self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }

    /// Groups first: without root they could not be changed any more.
    fn become_it(&self) -> io::Result<()> {
        let (uid, gid) = self.ids();
        let mut groups = vec![gid];
        for line in fs::read_to_string("/etc/group").unwrap_or_default().lines() {
            let mut fields = line.split(':');
            let (Some(group), Some(members)) = (fields.nth(2), fields.next()) else { continue };
            if let Ok(group) = group.parse()
                && members.split(',').any(|member| member == self.name)
            {
                groups.push(Gid::from_raw(group));
            }
        }
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_script_the_program_is_what_interprets_it() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let shell = file("shell", "\x7fELF");
        let script = file("script", &format!("#! {} -e\necho", shell.display()));
        assert_eq!(program_of(file("of_script", &format!("#!{}", script.display()))), shell);
        let found = on_path(OsStr::new("sh")).unwrap();
        assert_eq!(program_of(file("env", "#!/usr/bin/env -S A=1 sh -e\n")), program_of(found));
        assert_eq!(program_of(shell.clone()), shell);
        // The kernel refuses it, and so does this come to an end.
        let own = file("own", &format!("#!{}\n", place.path().join("own").display()));
        assert_eq!(program_of(own.clone()), own);
        assert_eq!(interpreter(place.path()), None, "a folder");
    }

    #[test]
    fn a_users_group_and_home_are_those_of_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\njoe:x:1000:1001:Joe,,,:/home/joe:/bin/sh\nbad:x:7:x\n";
        assert_eq!(Entry::of(passwd, 1000), Some(Entry { gid: 1001, home: "/home/joe".to_owned() }));
        assert_eq!(Entry::of(passwd, 100), None);
        assert_eq!(Entry::of(passwd, 7), None);
    }
}
