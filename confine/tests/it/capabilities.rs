//! Capability sets.

use std::fs;
use std::os::unix::fs::chown;

use profiler_confine::{CapabilitySet, Force, Rights, Role, Wall, raised, threads};
use profiler_need::have_root;

use crate::{confined, status};

fn bits(set: CapabilitySet) -> String {
    format!("{:016x}", set.bits())
}

#[test]
fn root_a_role_keeps_its_own_and_nothing_else() {
    if !have_root("root_a_role_keeps_its_own_and_nothing_else") {
        return;
    }
    let before = status("CapEff");
    for role in [Role::Sampler, Role::Reader, Role::Network, Role::Sender, Role::Recorder] {
        let rights = role.rights();
        let (effective, kept) = (bits(rights.capabilities), bits(rights.kept()));
        confined(rights, move |report| {
            assert!(matches!(report.force(Wall::Capabilities), Some(Force::Full(_))), "{report}");
            assert_eq!(status("CapEff"), effective, "{role:?}");
            assert_eq!(status("CapPrm"), kept, "{role:?}");
            assert_eq!(status("CapBnd"), kept, "{role:?}");
            assert_eq!(
                (status("CapInh"), status("CapAmb")),
                (bits(CapabilitySet::empty()), bits(CapabilitySet::empty()))
            );
        });
    }
    assert_eq!(status("CapEff"), before, "threads that nobody confined keep theirs");
}

#[test]
fn root_what_lies_ready_is_in_force_for_a_moment() {
    if !have_root("root_what_lies_ready_is_in_force_for_a_moment") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    chown(folder.path(), Some(65534), Some(65534)).expect("another user's");
    let file = folder.path().join("profile");
    confined(Role::Recorder.rights(), move |_| {
        let before = status("CapEff");
        assert!(fs::write(&file, "x").is_err(), "another user's folder");
        raised(|| fs::write(&file, "x")).expect("its right");
        let panicked = std::panic::catch_unwind(|| raised(|| panic!("in the middle")));
        assert!(panicked.is_err());
        assert_eq!(status("CapEff"), before);
        assert!(fs::remove_file(&file).is_err());
    });
}

/// A thread that was there before keeps what it had, and the report does not pass over it.
#[test]
fn root_threads_are_told_apart() {
    if !have_root("root_threads_are_told_apart") {
        return;
    }
    confined(Role::Network.rights(), |_| {
        let groups = threads(std::process::id()).expect("ours");
        let bare = groups.iter().filter(|group| group.effective.is_empty() && group.filters > 0 && group.no_new_privs);
        assert!(bare.count() >= 1, "{groups:?}");
        assert!(groups.iter().any(|group| group.effective.contains(CapabilitySet::SYS_ADMIN)), "{groups:?}");
    });
}

#[test]
fn who_has_no_rights_loses_none_and_is_not_refused() {
    let rights = Rights::of(&[]);
    confined(rights.clone(), move |_| {
        let again = profiler_confine::thread(&rights);
        assert_eq!(again.refused().count(), 0, "{again}");
    });
}
