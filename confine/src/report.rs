//! What is in force, and what was refused.

use std::fmt;

use crate::role::Rights;
use crate::status::{self, Threads};

/// One of the walls around a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wall {
    /// Capability sets.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// A seccomp filter.
    Calls,
    /// A Landlock domain.
    Files,
}

impl Wall {
    /// As metrics and pages name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no_new_privs",
            Self::Calls => "seccomp",
            Self::Files => "landlock",
        }
    }
}

/// How far a wall stands. The text says what is kept, or why it does not stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Force {
    /// As the role has it.
    Full(String),
    /// Less than the role has it: the kernel or the container refused the rest.
    Part(String),
    /// The kernel or the container refuses it.
    None(String),
    /// The role asks for none.
    NotAsked,
}

/// A wall, and how far it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub wall: Wall,
    /// How far.
    pub force: Force,
}

/// What became of confining a process or a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which the walls went up, each once.
    pub entries: Vec<Entry>,
}

impl Report {
    pub(crate) fn add(&mut self, wall: Wall, force: Force) {
        self.entries.push(Entry { wall, force });
    }

    /// How far `wall` stands.
    #[must_use]
    pub fn force(&self, wall: Wall) -> Option<&Force> {
        self.entries.iter().find(|entry| entry.wall == wall).map(|entry| &entry.force)
    }

    /// What was refused, a sentence each; empty if all is as the role has it.
    pub fn refused(&self) -> impl Iterator<Item = String> {
        self.entries.iter().filter_map(|Entry { wall, force }| match force {
            Force::Part(why) => Some(format!("{} in part: {why}", wall.name())),
            Force::None(why) => Some(format!("{} not at all: {why}", wall.name())),
            Force::Full(_) | Force::NotAsked => None,
        })
    }

    /// Threads that were there before keep what they had: the kernel's own word on all of them.
    pub(crate) fn look_at_threads(&mut self, rights: &Rights) {
        let Ok(threads) = status::threads(std::process::id()) else { return };
        let more = |group: &&Threads| !rights.capabilities.contains(group.effective);
        let names: Vec<_> = threads.iter().filter(more).flat_map(|group| group.names.iter().cloned()).collect();
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.wall == Wall::Capabilities)
            && matches!(entry.force, Force::Full(_))
            && !names.is_empty()
        {
            entry.force = Force::Part(format!("threads that were there before kept theirs: {}", names.join(", ")));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = self.entries.iter().filter(|entry| entry.force != Force::NotAsked).peekable();
        while let Some(Entry { wall, force }) = parts.next() {
            match force {
                Force::Full(what) => write!(f, "{} ({what})", wall.name())?,
                Force::Part(why) => write!(f, "{} in part ({why})", wall.name())?,
                Force::None(why) => write!(f, "{} not at all ({why})", wall.name())?,
                Force::NotAsked => {}
            }
            if parts.peek().is_some() {
                f.write_str(", ")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_and_what_nobody_asked_for_is_not() {
        let mut report = Report::default();
        report.add(Wall::NoNewPrivileges, Force::Full("execve grants nothing".to_owned()));
        report.add(Wall::Files, Force::NotAsked);
        report.add(Wall::Calls, Force::None("Function not implemented".to_owned()));
        assert_eq!(report.refused().collect::<Vec<_>>(), ["seccomp not at all: Function not implemented"]);
        assert_eq!(
            report.to_string(),
            "no_new_privs (execve grants nothing), seccomp not at all (Function not implemented)"
        );
        assert_eq!(report.force(Wall::Files), Some(&Force::NotAsked));
    }
}
