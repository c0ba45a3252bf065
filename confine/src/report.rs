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

/// By number, as [`Report::to_parts`] counts them.
const WALLS: [Wall; 4] = [Wall::Capabilities, Wall::NoNewPrivileges, Wall::Calls, Wall::Files];
/// Bytes of a text that [`Report::from_parts`] takes.
const MAX_TEXT: usize = 4096;

impl Report {
    /// Number of the wall, number of its force, and text of each entry: for who tells it to another process.
    #[must_use]
    pub fn to_parts(&self) -> Vec<(u8, u8, String)> {
        let part = |Entry { wall, force }: &Entry| {
            let wall = WALLS.iter().position(|known| known == wall)?;
            let (number, text) = match force {
                Force::Full(text) => (0, text.clone()),
                Force::Part(text) => (1, text.clone()),
                Force::None(text) => (2, text.clone()),
                Force::NotAsked => (3, String::new()),
            };
            Some((u8::try_from(wall).ok()?, number, text))
        };
        self.entries.iter().filter_map(part).collect()
    }

    /// What [`Self::to_parts`] gave; `None` for what it cannot have given. Texts are cut.
    #[must_use]
    pub fn from_parts(parts: Vec<(u8, u8, String)>) -> Option<Self> {
        if parts.len() > WALLS.len() {
            return None;
        }
        let entry = |(wall, force, mut text): (u8, u8, String)| {
            let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
            text.truncate(end);
            let force = match force {
                0 => Force::Full(text),
                1 => Force::Part(text),
                2 => Force::None(text),
                3 => Force::NotAsked,
                _ => return None,
            };
            Some(Entry { wall: *WALLS.get(usize::from(wall))?, force })
        };
        Some(Self { entries: parts.into_iter().map(entry).collect::<Option<_>>()? })
    }

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

    #[test]
    fn a_report_is_told_to_another_process_and_what_is_none_is_refused() {
        let forces = [Force::Full("a".into()), Force::Part("b".into()), Force::None("c".into()), Force::NotAsked];
        let entries = WALLS.into_iter().zip(forces).map(|(wall, force)| Entry { wall, force }).collect();
        let report = Report { entries };
        assert_eq!(Report::from_parts(report.to_parts()), Some(report));
        for refused in [vec![(4, 0, String::new())], vec![(0, 4, String::new())], vec![(0, 0, String::new()); 5]] {
            assert_eq!(Report::from_parts(refused), None);
        }
        let long = Report::from_parts(vec![(0, 0, "ä".repeat(MAX_TEXT))]).expect("a report");
        assert!(matches!(long.force(Wall::Capabilities), Some(Force::Full(text)) if text.len() == MAX_TEXT));
    }
}
