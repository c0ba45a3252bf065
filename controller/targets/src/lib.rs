//! Which processes are sampled, by rules over what is known of a process.
//!
//! ```
//! use profiler_targets::{Facts, Rule, TargetRules};
//!
//! let nginx = Rule { comms: vec!["nginx*".to_owned()], ..Rule::default() };
//! let rules = TargetRules { include: vec![nginx], ..TargetRules::default() };
//! assert!(rules.allow(&Facts { comm: b"nginx", ..Facts::default() }));
//! assert!(!rules.allow(&Facts { comm: b"sshd", ..Facts::default() }));
//! ```
#![forbid(unsafe_code)]

use std::time::Duration;

/// Rules that choose processes: those that any `include` rule matches and no `exclude` rule does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRules {
    /// A process that one of these matches is sampled; without any, all are.
    pub include: Vec<Rule>,
    /// A process that one of these matches is not sampled, whatever includes it.
    pub exclude: Vec<Rule>,
    /// Time from a process's start to its first sample. An exec is no start.
    pub min_age: Duration,
}

/// A rule matches a process if each list that is not empty has a pattern that matches; a rule of empty lists matches all.
///
/// In patterns `*` stands for any bytes, `/` too; all others stand for themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Process ids, in the profiler's pid namespace.
    pub pids: Vec<u32>,
    /// Patterns of control groups' paths, as `/proc/PID/cgroup` names them behind `0::`: of the process's group or one above it.
    pub cgroups: Vec<String>,
    /// Ids of v2 control groups (the inodes of their folders): of the process's own group.
    pub cgroup_ids: Vec<u64>,
    /// Patterns of container ids; 12 digits or more stand for all ids that begin with them.
    pub containers: Vec<String>,
    /// Patterns of the main thread's name, at most 15 bytes.
    pub comms: Vec<String>,
    /// Patterns of the program's path in its own mount namespace; without a `/`, of its file name.
    pub executables: Vec<String>,
}

/// What rules are held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// Process id.
    pub pid: u32,
    /// Path of its control group.
    pub cgroup: Option<&'a str>,
    /// Id of its v2 control group; 0 if unknown.
    pub cgroup_id: u64,
    /// Its container.
    pub container: Option<&'a str>,
    /// Name of its main thread.
    pub comm: &'a [u8],
    /// Path of its program.
    pub executable: &'a [u8],
}

impl TargetRules {
    /// Whether there is nothing to decide.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty() && self.min_age.is_zero()
    }

    /// Whether a process of these facts is to be sampled, once it is old enough.
    #[must_use]
    pub fn allow(&self, facts: &Facts<'_>) -> bool {
        (self.include.is_empty() || self.include.iter().any(|rule| rule.matches(facts)))
            && !self.exclude.iter().any(|rule| rule.matches(facts))
    }
}

impl Rule {
    /// Whether all that is given matches.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let any = |patterns: &[String], matches: &dyn Fn(&str) -> bool| {
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern))
        };
        (self.pids.is_empty() || self.pids.contains(&facts.pid))
            && (self.cgroup_ids.is_empty() || facts.cgroup_id != 0 && self.cgroup_ids.contains(&facts.cgroup_id))
            && any(&self.cgroups, &|pattern| facts.cgroup.is_some_and(|path| matches_group(pattern, path)))
            && any(&self.containers, &|pattern| facts.container.is_some_and(|id| matches_container(pattern, id)))
            && any(&self.comms, &|pattern| matches_glob(pattern.as_bytes(), facts.comm))
            && any(&self.executables, &|pattern| matches_executable(pattern, facts.executable))
    }
}

fn matches_group(pattern: &str, path: &str) -> bool {
    let pattern = pattern.strip_prefix("/sys/fs/cgroup").unwrap_or(pattern);
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern).as_bytes();
    let path = path.strip_suffix('/').unwrap_or(path).as_bytes();
    let ends = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    ends.chain([path.len()]).filter_map(|end| path.get(..end)).any(|group| matches_glob(pattern, group))
}

fn matches_container(pattern: &str, id: &str) -> bool {
    matches_glob(pattern.as_bytes(), id.as_bytes())
        || pattern.len() >= 12 && !pattern.contains('*') && id.starts_with(pattern)
}

fn matches_executable(pattern: &str, path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    matches_glob(pattern.as_bytes(), if pattern.contains('/') { path } else { name })
}

/// Whether all of `text` is what `pattern` says. At worst the product of their lengths in time.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Behind the last `*`, and where in the text what it stands for ends.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(wanted) if wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((behind, end)) = star else { return false };
                (p, t) = (behind, end + 1);
                star = Some((behind, t));
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    fn facts() -> Facts<'static> {
        Facts {
            pid: 17,
            cgroup: Some("/kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope"),
            cgroup_id: 99,
            container: Some("0f54a8cf1b1ba1f4bd5c2a1a4e8b2a34f5e1a6d07ab53a24a2e1e7d2d1e6a0b9"),
            comm: b"nginx",
            executable: b"/usr/sbin/nginx",
        }
    }

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("a*", "a", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*ab", "aab", true),
            ("a**b", "ab", true),
            ("?", "a", false),
        ] {
            assert_eq!(matches_glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let (pattern, text) = ("*a".repeat(200), "a".repeat(4096) + "b");
        assert!(!matches_glob(pattern.as_bytes(), text.as_bytes()), "ends in good time");
    }

    #[test]
    fn all_that_a_rule_gives_must_match() {
        let rule = Rule { comms: strings(&["redis*", "ng*"]), executables: strings(&["nginx"]), ..Rule::default() };
        assert!(rule.matches(&facts()));
        assert!(!Rule { executables: strings(&["/usr/bin/*"]), ..rule.clone() }.matches(&facts()));
        assert!(Rule { pids: vec![1, 17], cgroup_ids: vec![99], ..rule.clone() }.matches(&facts()));
        assert!(!Rule { pids: vec![1], ..rule.clone() }.matches(&facts()));
        assert!(!Rule { cgroup_ids: vec![0], ..rule }.matches(&Facts { cgroup_id: 0, ..facts() }));
        assert!(Rule::default().matches(&Facts::default()));
    }

    #[test]
    fn a_control_group_has_what_is_below_it() {
        for (pattern, expected) in [
            ("/kubepods.slice", true),
            ("/kubepods.slice/", true),
            ("/sys/fs/cgroup/kubepods.slice", true),
            ("/kubepods", false),
            ("/kubepods*", true),
            ("/kubepods.slice/*/cri-*", true),
            ("*pod1.slice", true),
            ("/system.slice", false),
            ("/", true),
        ] {
            let rule = Rule { cgroups: strings(&[pattern]), ..Rule::default() };
            assert_eq!(rule.matches(&facts()), expected, "{pattern}");
            assert!(!rule.matches(&Facts { cgroup: None, ..facts() }));
        }
    }

    #[test]
    fn containers_by_the_ids_that_people_see() {
        for (pattern, expected) in
            [("0f54a8cf1b1b", true), ("0f54", false), ("0f54*", true), ("1f54a8cf1b1b", false), ("*", true)]
        {
            let rule = Rule { containers: strings(&[pattern]), ..Rule::default() };
            assert_eq!(rule.matches(&facts()), expected, "{pattern}");
        }
        assert!(!Rule { containers: strings(&["*"]), ..Rule::default() }.matches(&Facts::default()));
    }

    #[test]
    fn what_is_excluded_stays_so() {
        let nginx = Rule { comms: strings(&["nginx"]), ..Rule::default() };
        let all = TargetRules::default();
        assert!(all.is_all() && all.allow(&facts()));
        let only = TargetRules { include: vec![nginx.clone()], ..all.clone() };
        assert!(only.allow(&facts()) && !only.allow(&Facts { comm: b"sh", ..facts() }));
        let both = TargetRules { exclude: vec![nginx], ..only };
        assert!(!both.allow(&facts()) && !both.allow(&Facts { comm: b"sh", ..facts() }));
    }
}
