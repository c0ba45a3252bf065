//! Whose a configuration is.
//!
//! Whoever writes it tells a root process what to read, where to send it and where to write. So it has to be root's, or of the user
//! that reads it, and nobody else's to write.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Who reads a configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    user: u32,
    group: u32,
    /// Who called sudo, and so may do as root.
    sudo: Option<u32>,
}

impl Reader {
    pub(super) fn this_process() -> Self {
        let user = rustix::process::geteuid();
        let sudo = std::env::var("SUDO_UID").ok().filter(|_| user.is_root()).and_then(|uid| uid.parse().ok());
        Self { user: user.as_raw(), group: rustix::process::getegid().as_raw(), sudo }
    }

    /// Whether nobody else may have written the file.
    ///
    /// # Errors
    /// Somebody may have; the text says who, and the way out.
    pub(super) fn check(self, file: &Metadata) -> io::Result<()> {
        let refused = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        let (owner, group) = (file.uid(), file.gid());
        if owner != 0 && owner != self.user && self.sudo != Some(owner) {
            return refused(format!(
                "it belongs to user {owner}, who would say what is done here as user {}: chown it to that user or root",
                self.user
            ));
        }
        if file.mode() & 0o002 != 0 {
            return refused("everybody may write to it: chmod o-w".to_owned());
        }
        if file.mode() & 0o020 != 0 && group != 0 && group != self.group {
            return refused(format!("its group {group} may write to it: chmod g-w"));
        }
        Ok(())
    }
}

/// Refuses what is not to be opened at all: to open a device may set it off.
///
/// # Errors
/// It is a device or a socket.
pub(super) fn check_kind(found: &Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let what = match kind {
        _ if kind.is_char_device() || kind.is_block_device() => "it is a device; a configuration is a file",
        _ if kind.is_socket() => "it is a socket; a configuration is a file",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn what_others_may_write_is_refused_with_the_way_out() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (own, group) =
            (file.as_file().metadata().expect("there").uid(), file.as_file().metadata().expect("there").gid());
        let reader = Reader { user: own, group, sudo: None };
        let check = |reader: Reader, mode| {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).expect("set");
            reader.check(&file.path().metadata().expect("there")).map_err(|error| error.to_string())
        };
        for mode in [0o600, 0o644, 0o664, 0o400] {
            assert_eq!(check(reader, mode), Ok(()), "{mode:o}");
        }
        assert!(check(reader, 0o666).is_err_and(|error| error.contains("chmod o-w")));
        if own != 0 {
            return;
        }
        chown(file.path(), Some(12345), Some(12346)).expect("given away");
        assert!(check(reader, 0o600).is_err_and(|error| error.contains("user 12345") && error.contains("chown")));
        assert_eq!(check(Reader { user: 12345, ..reader }, 0o600), Ok(()));
        assert_eq!(check(Reader { sudo: Some(12345), ..reader }, 0o600), Ok(()));
        chown(file.path(), Some(0), Some(12346)).expect("taken back");
        assert_eq!(check(Reader { user: 12345, ..reader }, 0o644), Ok(()));
        assert!(check(reader, 0o664).is_err_and(|error| error.contains("group 12346")));
        assert_eq!(check(Reader { group: 12346, ..reader }, 0o664), Ok(()));
    }
}
