//! `${env:NAME}` and `${file:PATH}` in the values of the file.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::errors::quoted;

/// The longest text that a file may stand for, bytes.
const MAX_FILE: u64 = 64 * 1024;
/// The longest value that comes of it, bytes.
const MAX_VALUE: usize = 256 * 1024;
const RIGHT: &str = "write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}, and $$ for a dollar sign";

/// What was made of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Substituted {
    /// The value.
    pub(super) text: String,
    /// Whether anything was put in; such a value may be secret.
    pub(super) changed: bool,
    /// The files that were read.
    pub(super) files: Vec<PathBuf>,
}

/// Puts in what `${...}` stands for, once: what is put in is not looked at again.
///
/// # Errors
///
/// Says what is not set or cannot be read; never holds what was put in.
pub(super) fn substitute(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Substituted, String> {
    let mut result = Substituted { text: String::with_capacity(text.len()), changed: false, files: Vec::new() };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            result.text.push('$');
            rest = after;
            continue;
        }
        let Some(after) = after.strip_prefix('{') else {
            result.text.push('$');
            rest = after;
            continue;
        };
        let Some((name, after)) = after.split_once('}') else {
            return Err(format!("${{ has no }}: {RIGHT}"));
        };
        let value = match name.split_once(':') {
            Some(("env", name)) => variable(name, env)?,
            Some(("file", path)) => {
                let path = PathBuf::from(path);
                let value = contents(&path)?;
                result.files.push(path);
                value
            }
            Some((scheme, _)) => return Err(format!("there is no source {}: {RIGHT}", quoted(scheme))),
            None => return Err(format!("${{{}}} does not say where from: {RIGHT}", name.escape_debug())),
        };
        result.text.push_str(&value);
        result.changed = true;
        if result.text.len() > MAX_VALUE {
            return Err(format!("becomes longer than {MAX_VALUE} bytes"));
        }
        rest = after;
    }
    result.text.push_str(rest);
    Ok(result)
}

fn variable(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!("{} is no name of a variable: {RIGHT}", quoted(name)));
    }
    match (env(name), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment variable {name} is not set: set it, or write ${{env:{name}:-default}}"))
        }
    }
}

fn contents(path: &Path) -> Result<String, String> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", quoted(&path.to_string_lossy()));
    // Not to wait for the other end of a pipe.
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| cannot(&error))?;
    // A device might never end; what a secret lies in is a file.
    if !file.metadata().map_err(|error| cannot(&error))?.is_file() {
        return Err(cannot(&"not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > MAX_FILE {
        return Err(cannot(&format!("larger than {MAX_FILE} bytes")));
    }
    // Editors and `echo` end a file with a newline that is not part of the secret.
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "s3$${env:TOKEN}cret".to_owned())
    }

    fn text(input: &str) -> Result<String, String> {
        substitute(input, &env).map(|result| result.text)
    }

    #[test]
    fn variables_are_put_in_once() {
        assert_eq!(text("Bearer ${env:TOKEN}!").as_deref(), Ok("Bearer s3$${env:TOKEN}cret!"));
        assert_eq!(text("${env:NONE:-x:y}").as_deref(), Ok("x:y"));
        assert_eq!(text("5$ $$ $${env:TOKEN}").as_deref(), Ok("5$ $ ${env:TOKEN}"));
        assert!(!substitute("$$", &env).expect("right").changed);
    }

    #[test]
    fn files_are_put_in_without_their_last_line_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "geheim\n").expect("written");
        let result = substitute(&format!("<${{file:{}}}>", path.display()), &env).expect("read");
        assert_eq!((result.text.as_str(), result.files), ("<geheim>", vec![path]));
        for wrong in ["/nonexistent/token", "/dev/zero", "/"] {
            let error = substitute(&format!("${{file:{wrong}}}"), &env).expect_err("refused");
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        for (wrong, words) in [
            ("${env:NONE}", "NONE is not set"),
            ("${NONE}", "${env:NAME}"),
            ("${http:x}", "no source"),
            ("${env:TOKEN", "no }"),
            ("${env:}", "no name"),
        ] {
            let error = text(wrong).expect_err("refused");
            assert!(error.contains(words), "{wrong}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(input in "[${}:a-z-]{0,40}") {
            let _ = substitute(&input, &|_| None);
        }
    }
}
