//! What a process says of itself in `/proc`, read while it lives.
//!
//! Reading an environment takes the lock of the process's address space, which the process can hold for as long as it likes: this belongs into a
//! process that can be given up.
#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    time::Duration,
};

/// Bytes of an environment that are read.
pub const MAX_ENVIRONMENT: u64 = 256 << 10;
/// Bytes of one variable that are taken.
pub const MAX_VARIABLE: usize = 16 << 10;
/// How often, and how long after each other, who is in the midst of an exec is looked at again.
const EXEC_LOOKS: usize = 20;
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// Whose environment is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Process id in the caller's pid namespace.
    pub pid: u32,
    /// When it was forked, ticks since boot; 0 if unknown.
    pub start_ticks: u64,
    /// Path of its program; empty if unknown.
    pub exe: &'a [u8],
}

/// What a process says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The variables that were wanted, name and value; the first of each name, as for `getenv`.
    pub variables: Vec<(String, String)>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// When it was forked, ticks since boot.
    pub start_ticks: u64,
    /// The environment is longer than what was read.
    pub cut: bool,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process has ended.
    Gone,
    /// The pid or the program is another's by now.
    Changed,
    /// The kernel refuses to show it.
    Denied,
    /// Nobody could read it now: who was to was held by it, or by others of its user.
    SetAside,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Gone,
        }
    }
}

/// Reads those variables of a process that are `wanted`, and makes sure that it was this process all the time.
///
/// # Errors
/// It has ended or changed, or may not be read.
pub fn read(asked: Asked<'_>, wanted: &[String]) -> Result<Said, Trouble> {
    let before = settled(asked.pid)?;
    if asked.start_ticks != 0 && before.start_ticks.abs_diff(asked.start_ticks) > 1 {
        return Err(Trouble::Changed);
    }
    if !asked.exe.is_empty()
        && let Ok(exe) = fs::read_link(format!("/proc/{}/exe", asked.pid))
        && file_name(exe.as_os_str().as_encoded_bytes()) != file_name(asked.exe)
    {
        return Err(Trouble::Changed);
    }
    let mut environ = Vec::new();
    if !wanted.is_empty() {
        let file = File::open(format!("/proc/{}/environ", asked.pid))?;
        file.take(MAX_ENVIRONMENT).read_to_end(&mut environ)?;
    }
    // The folder, unlike what is in it, is the effective user's even where he may not look into the process. The text of `status` costs ten times as much.
    let uid = fs::metadata(format!("/proc/{}", asked.pid)).ok().map(|folder| folder.uid());
    if stat(asked.pid)? != before {
        return Err(Trouble::Changed);
    }
    let cut = environ.len() as u64 == MAX_ENVIRONMENT;
    Ok(Said { variables: variables(&environ, wanted), uid, start_ticks: before.start_ticks, cut })
}

/// Those of the variables in `environ`, the text of `/proc/PID/environ`, that are `wanted`. As for `getenv`, the first of a name counts.
#[must_use]
pub fn variables(environ: &[u8], wanted: &[String]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in environ.split(|&byte| byte == 0) {
        let Some(equals) = entry.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = entry.split_at(equals);
        let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) else { continue };
        if found.iter().any(|(known, _)| known == name) {
            continue;
        }
        let value = value.get(1..).unwrap_or_default();
        let value = value.get(..MAX_VARIABLE).unwrap_or(value);
        found.push((name.clone(), String::from_utf8_lossy(value).into_owned()));
        if found.len() == wanted.len() {
            break;
        }
    }
    found
}

/// The last part of a path, without the kernel's note that the file is gone.
#[must_use]
pub fn file_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// The first `limit` bytes of a file.
///
/// # Errors
/// It cannot be opened or read.
pub fn read_bounded(path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What `/proc` says of a process once its exec is over: in its midst the process has its program already, and no environment yet.
fn settled(pid: u32) -> Result<Stat, Trouble> {
    let mut found = stat(pid)?;
    // Kernel threads and the dead have no program, and of others' memory that we must not read this says nothing.
    let is_in_exec = |found: &Stat| {
        let file = |name: &str| format!("/proc/{pid}/{name}");
        found.environment == (0, 0) && fs::read_link(file("exe")).is_ok() && File::open(file("environ")).is_ok()
    };
    for _ in 0..EXEC_LOOKS {
        if !is_in_exec(&found) {
            break;
        }
        std::thread::sleep(EXEC_PAUSE);
        found = stat(pid)?;
    }
    Ok(found)
}

/// What stays the same in `/proc/PID/stat` until the next exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    start_ticks: u64,
    /// Where the environment is; moves with each exec. 0 without the right to read memory.
    environment: (u64, u64),
}

fn stat(pid: u32) -> Result<Stat, Trouble> {
    parse_stat(&read_bounded(&format!("/proc/{pid}/stat"), 4 << 10)?).ok_or(Trouble::Gone)
}

/// Fields 22, 50 and 51 (proc_pid_stat(5)), counted from behind the name, which can hold anything.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let behind = text.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(text.get(behind..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    let environment = (field(50).unwrap_or(0), field(51).unwrap_or(0));
    Some(Stat { start_ticks: field(22)?, environment })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn only_what_is_wanted_leaves_the_environment() {
        let environ = b"SECRET=hunter2\0SERVICE=shop\0SERVICE_=no\0XSERVICE=no\0SERVICE=second\0A=b=c\0";
        let found = variables(environ, &wanted(&["A", "SERVICE", "MISSING"]));
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("SERVICE", "shop"), ("A", "b=c")]);
    }

    #[test]
    fn an_environment_overwritten_by_its_process_is_harmless() {
        assert_eq!(variables(b"nginx: worker process\0\0\0=\0==\xff\xfe", &wanted(&["A"])), []);
        assert_eq!(variables(b"", &wanted(&["A"])), []);
        assert_eq!(variables(b"A=\xff", &wanted(&["A"])), [("A".to_owned(), "\u{fffd}".to_owned())]);
        let long = [b"A=".as_slice(), &[b'x'; MAX_VARIABLE * 2]].concat();
        assert_eq!(variables(&long, &wanted(&["A"])).first().map(|(_, value)| value.len()), Some(MAX_VARIABLE));
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let numbers: String = (4..=52).map(|number| format!(" {number}")).collect();
        let text = format!("17 (a) R 1 (b)) R{numbers}\n");
        assert_eq!(parse_stat(text.as_bytes()), Some(Stat { start_ticks: 22, environment: (50, 51) }));
        assert_eq!(parse_stat(b"17 (a) R 1 2"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_name(b"/usr/bin/cat (deleted)"), b"cat");
        assert_eq!(file_name(b"cat"), b"cat");
        assert_eq!(file_name(b""), b"");
    }

    #[test]
    fn who_has_ended_or_is_another_is_not_read() {
        assert_eq!(read(Asked { pid: u32::MAX, ..Asked::default() }, &[]), Err(Trouble::Gone));
        let pid = std::process::id();
        assert_eq!(read(Asked { pid, exe: b"/bin/another", ..Asked::default() }, &[]), Err(Trouble::Changed));
        assert_eq!(read(Asked { pid, start_ticks: 1, ..Asked::default() }, &[]), Err(Trouble::Changed));
        let said = read(Asked { pid, ..Asked::default() }, &wanted(&["PATH"])).expect("it is this process");
        assert_eq!(said.variables, [("PATH".to_owned(), std::env::var("PATH").expect("set"))]);
    }
}
