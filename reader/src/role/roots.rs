//! Root directories that programs run in, where they are not our own: debug files that lie in them are looked for once a window is over, and
//! the process may have ended by then.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use profiler_unwinders::executable::ExecutableId;
use rustc_hash::FxHashMap;
use rustix::fs::{Mode, OFlags};

use super::names::identity_of;

/// Programs whose root directory is held.
const MAX_ROOTS: usize = 256;
/// How long one is held after its process was seen to have ended: the time for which files are lent. The file system of a container that
/// is gone stays in use for so long.
const KEPT: Duration = Duration::from_secs(180);
/// How often it is looked who has ended.
const LOOK: Duration = Duration::from_secs(10);

type Identity = (u64, u64);

/// By program, the root directory of a process that runs it.
#[derive(Debug, Default)]
pub(super) struct Roots {
    held: FxHashMap<ExecutableId, Root>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Root {
    directory: Arc<OwnedFd>,
    identity: Identity,
    pid: u32,
    /// Since when the process has not been there any more.
    gone: Option<Instant>,
}

impl Roots {
    /// Takes the root directory of `pid`, which runs the program `id`, unless one is held already whose process lives.
    pub fn take(&mut self, id: ExecutableId, pid: u32) {
        if self.held.get(&id).is_some_and(|root| root.gone.is_none()) {
            return;
        }
        let Ok((directory, identity)) = of_process(pid) else { return };
        if of("/").is_ok_and(|(_, ours)| ours == identity) {
            return;
        }
        self.hold(id, pid, directory, identity);
    }

    fn hold(&mut self, id: ExecutableId, pid: u32, directory: OwnedFd, identity: Identity) {
        if self.held.len() >= MAX_ROOTS && !self.held.contains_key(&id) {
            // The oldest, of those whose process has ended if there are any.
            let oldest = self.held.iter().min_by_key(|(id, root)| (root.gone.is_none(), id.0)).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.held.remove(&oldest));
        }
        let same = self.held.values().find(|root| root.identity == identity);
        let directory = same.map_or_else(|| Arc::new(directory), |root| Arc::clone(&root.directory));
        self.held.insert(id, Root { directory, identity, pid, gone: None });
    }

    /// The one of a program.
    pub fn get(&self, id: ExecutableId) -> Option<(Arc<OwnedFd>, Identity)> {
        self.held.get(&id).map(|root| (Arc::clone(&root.directory), root.identity))
    }

    /// Lets go of those whose processes have ended some time ago.
    pub fn look(&mut self) {
        self.look_at(Instant::now());
    }

    fn look_at(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        self.looked = Some(now);
        self.held.retain(|_, root| {
            // Another process that has the number by now and lives in the same directory will do.
            let is_there = of_process(root.pid).is_ok_and(|(_, identity)| identity == root.identity);
            root.gone = (!is_there).then(|| root.gone.unwrap_or(now));
            root.gone.is_none_or(|gone| now < gone + KEPT)
        });
    }
}

fn of_process(pid: u32) -> io::Result<(OwnedFd, Identity)> {
    of(&format!("/proc/{pid}/root"))
}

fn of(path: &str) -> io::Result<(OwnedFd, Identity)> {
    let directory = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let (identity, _) = identity_of(&directory)?;
    Ok((directory, identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_root_is_not_held() {
        let mut roots = Roots::default();
        roots.take(ExecutableId(1), std::process::id());
        roots.take(ExecutableId(1), u32::MAX);
        assert!(roots.held.is_empty() && roots.get(ExecutableId(1)).is_none());
    }

    #[test]
    fn roots_of_who_has_ended_are_held_for_some_time_and_are_not_too_many() {
        let now = Instant::now();
        let (directory, identity) = of("/proc").unwrap();
        let directory = Arc::new(directory);
        let root = |gone| Root { directory: Arc::clone(&directory), identity, pid: u32::MAX, gone };
        let mut roots = Roots::default();
        roots.held.insert(ExecutableId(1), root(None));
        let held = |roots: &mut Roots, after: Duration| {
            roots.look_at(now + after);
            roots.get(ExecutableId(1)).is_some()
        };
        assert!(held(&mut roots, Duration::ZERO) && roots.held[&ExecutableId(1)].gone == Some(now));
        assert!(held(&mut roots, KEPT - Duration::from_secs(1)) && held(&mut roots, KEPT));
        assert!(!held(&mut roots, KEPT + LOOK));
        // Who has ended makes room first.
        roots.held.extend((1..=MAX_ROOTS as u32).map(|id| (ExecutableId(id), root((id == 7).then_some(now)))));
        let (own, own_identity) = of("/").unwrap();
        roots.hold(ExecutableId(9999), 1, own, own_identity);
        assert!(roots.get(ExecutableId(7)).is_none() && roots.held.len() == MAX_ROOTS);
        assert_eq!(roots.get(ExecutableId(9999)).map(|(_, identity)| identity), Some(own_identity));
        // One directory is open once.
        let before = roots.get(ExecutableId(1)).unwrap().0;
        roots.hold(ExecutableId(9998), 1, of("/proc").unwrap().0, identity);
        assert!(Arc::ptr_eq(&before, &roots.get(ExecutableId(9998)).unwrap().0));
    }
}
