//! Where Debian's packages come from: what the machine's own apt has as its sources, so that a mirror of a company, or the one way out
//! of a closed network, serves here too.

use std::process::Command;
use std::time::Duration;

use profiler_integration::children;

use crate::error::Error;

/// Patience with apt, which only reads files.
const PATIENCE: Duration = Duration::from_secs(60);
/// What [`Archives::parse`] reads, a line an index.
const FORMAT: &str = "$(CREATED_BY)|$(LABEL)|$(REPO_URI)";

/// An archive of Debian's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// The releases and `sid`.
    Main,
    /// Security updates of the releases.
    Security,
}

/// The archives' addresses, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archives {
    /// Of [`Archive::Main`].
    pub main: Option<String>,
    /// Of [`Archive::Security`].
    pub security: Option<String>,
}

impl Archives {
    /// What is given, and for the rest what this machine's apt has.
    ///
    /// # Errors
    /// There is no apt.
    pub fn find(given: Self) -> Result<Self, Error> {
        if given.main.is_some() && given.security.is_some() {
            return Ok(given);
        }
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", FORMAT]);
        let configured = Self::parse(&children::run_well(&mut apt, PATIENCE)?.stdout);
        Ok(Self { main: given.main.or(configured.main), security: given.security.or(configured.security) })
    }

    /// The first of each in the order of the sources.
    fn parse(targets: &str) -> Self {
        let mut found = Self::default();
        for line in targets.lines() {
            let mut fields = line.splitn(3, '|');
            let (Some("Packages"), Some(label), Some(uri)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let uri = uri.trim_end_matches('/');
            // A source has a label from when its lists are here; until then, mirrors keep the names of the archives.
            let place = match (label, uri.rsplit('/').next()) {
                ("Debian", _) | ("", Some("debian")) => &mut found.main,
                ("Debian-Security", _) | ("", Some("debian-security")) => &mut found.security,
                _ => continue,
            };
            place.get_or_insert_with(|| uri.to_owned());
        }
        found
    }

    /// The address of `archive`.
    #[must_use]
    pub fn uri(&self, archive: Archive) -> Option<&str> {
        match archive {
            Archive::Main => self.main.as_deref(),
            Archive::Security => self.security.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_sources_are_taken_wherever_they_are() {
        let targets = "Packages|Google Cloud SDK|https://sdk.example/apt/\n\
                       DEP-11|Debian|https://wrong.example/debian/\n\
                       Packages|Debian|https://mirror.example:8443/deb/all/\n\
                       Packages|Debian|https://second.example/debian/\n\
                       Packages|Debian-Security|file:/srv/security/\n\
                       Packages|Debian Backports|https://backports.example/debian/\n";
        let archives = Archives::parse(targets);
        assert_eq!(archives.uri(Archive::Main), Some("https://mirror.example:8443/deb/all"));
        assert_eq!(archives.uri(Archive::Security), Some("file:/srv/security"));
    }

    #[test]
    fn without_lists_the_archives_names_tell() {
        let archives =
            Archives::parse("Packages||http://m.example/debian/\nPackages||http://m.example/debian-security\n");
        assert_eq!(archives.main.as_deref(), Some("http://m.example/debian"));
        assert_eq!(archives.security.as_deref(), Some("http://m.example/debian-security"));
    }

    #[test]
    fn a_machine_of_another_distribution_has_none() {
        let archives = Archives::parse("Packages|Ubuntu|http://u.example/ubuntu/\nE: nonsense\n");
        assert_eq!(archives, Archives::default());
    }

    #[test]
    fn what_is_given_goes_first() {
        let given = Archives { main: Some("http://a".into()), security: Some("http://b".into()) };
        assert_eq!(Archives::find(given.clone()).ok(), Some(given));
    }
}
