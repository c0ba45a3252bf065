//! Which files a thread may open: a Landlock domain.

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};

use crate::report::Force;
use crate::role::Files;

/// What is asked for; kernels that know less of it enforce less, and the report says so.
const ABI_ASKED: ABI = ABI::V5;

/// Confines the calling thread to `files`, and those that it will start.
pub(crate) fn restrict(files: Option<&Files>) -> Force {
    let Some(files) = files else { return Force::NotAsked };
    match enforce(files) {
        Ok(RulesetStatus::FullyEnforced) => {
            Force::Full(format!("{} to read, {} to write", files.read.len(), files.write.len()))
        }
        Ok(RulesetStatus::PartiallyEnforced) => {
            Force::Part("this kernel's Landlock is older than Linux 6.10's, and leaves some accesses open".to_owned())
        }
        Ok(_) => Force::None("this kernel has no Landlock, or it is switched off".to_owned()),
        Err(error) => Force::None(error.to_string()),
    }
}

fn enforce(files: &Files) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(ABI_ASKED);
    // Programs are not executed, but libraries of the name service may be loaded.
    let read = AccessFs::from_read(ABI_ASKED);
    let status = Ruleset::default()
        .handle_access(all)?
        // Whoever serves has bound its socket before.
        .handle_access(AccessNet::BindTcp)?
        .create()?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(&files.write, all))?
        .restrict_self()?;
    Ok(status.ruleset)
}
