//! Capability sets of the calling thread.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use crate::report::Force;
use crate::role::Rights;

/// Names as the kernel's headers have them, `CAP_BPF, CAP_PERFMON`; `none` for none.
#[must_use]
pub fn names(set: CapabilitySet) -> String {
    let mut names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let unnamed = set.bits() & !CapabilitySet::all().iter_names().fold(0, |bits, (_, one)| bits | one.bits());
    names.extend((0..64).filter(|bit| unnamed >> bit & 1 == 1).map(|bit| bit.to_string()));
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Runs `work` with all capabilities in force that lie ready, and puts them back.
///
/// This guards against mistakes in what `work` is not, not against whoever executes code in this process.
pub fn raised<T>(work: impl FnOnce() -> T) -> T {
    /// Puts the sets back, in a panic too.
    struct Back(Option<CapabilitySets>);
    impl Drop for Back {
        fn drop(&mut self) {
            if let Some(before) = self.0 {
                // Giving up what is in force is always permitted.
                let _ = set_capabilities(None, before);
            }
        }
    }
    let before = capabilities(None).ok().filter(|sets| sets.effective != sets.permitted);
    let _back = Back(before);
    if let Some(sets) = before {
        // What is permitted may always be put in force; should it fail, `work` fails for want of a right, and says so.
        let _ = set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets });
    }
    work()
}

/// Runs `work`, which starts a process that is to have `kept`, of what the calling thread has. Without this only root's processes would keep any
/// when they execute a program: those of the user that a service manager gave capabilities to would have none.
///
/// Where a security bit forbids it, the process has none, and tells so when it confines itself.
pub fn handed_down<T>(kept: CapabilitySet, work: impl FnOnce() -> T) -> T {
    /// Puts the sets back, in a panic too.
    struct Back(CapabilitySets);
    impl Drop for Back {
        fn drop(&mut self) {
            // Less than before is always permitted.
            let _ = clear_ambient_capability_set();
            let _ = set_capabilities(None, self.0);
        }
    }
    let Ok(before) = capabilities(None) else { return work() };
    let _back = Back(before);
    let given = before.permitted & kept;
    if set_capabilities(None, CapabilitySets { inheritable: before.inheritable | given, ..before }).is_ok() {
        for bit in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(|one| given.contains(*one)) {
            let _ = configure_capability_in_ambient_set(bit, true);
        }
    }
    work()
}

/// Leaves the calling thread what `rights` have, of what it had.
pub(crate) fn reduce(rights: &Rights) -> Force {
    let kept = rights.kept();
    let before = match capabilities(None) {
        Ok(before) => before,
        Err(error) => return Force::None(format!("capget: {error}")),
    };
    // Of what an exec could give back. This asks for a capability itself, so it comes first.
    let left = reduce_bounding_set(kept);
    // Where this is refused, there are none.
    let _ = clear_ambient_capability_set();
    let after = CapabilitySets {
        effective: before.effective & rights.capabilities,
        permitted: before.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    if let Err(error) = set_capabilities(None, after) {
        return Force::None(format!("capset: {error}"));
    }
    let mut said = format!("in force {}", names(after.effective));
    if after.permitted != after.effective {
        said.push_str(&format!("; ready {}", names(after.permitted - after.effective)));
    }
    if !left.is_empty() {
        // Only exec would draw on it, which grants nothing with no_new_privs; so the wall stands all the same.
        said.push_str("; the bounding set stays, for want of CAP_SETPCAP");
    }
    Force::Full(said)
}

/// Takes out of the bounding set what is not `kept`; returns what stays all the same.
fn reduce_bounding_set(kept: CapabilitySet) -> CapabilitySet {
    let mut left = CapabilitySet::empty();
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // An error: the kernel has no more.
        match capability_is_in_bounding_set(one) {
            Ok(true) if !kept.contains(one) => {
                if remove_capability_from_bounding_set(one).is_err() {
                    left |= one;
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_names_of_the_kernels_headers() {
        assert_eq!(names(CapabilitySet::BPF | CapabilitySet::CHOWN), "CAP_CHOWN, CAP_BPF");
        assert_eq!(names(CapabilitySet::empty()), "none");
        assert_eq!(names(CapabilitySet::from_bits_retain(1 << 63)), "63");
    }
}
