//! Which files a thread may open, and which ports it may connect to: a Landlock domain.

use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};

use crate::report::Force;
use crate::role::{Files, Rights};

/// What is asked for; kernels that know less of it enforce less, and the report says so.
const ABI_ASKED: ABI = ABI::V5;

/// Confines the calling thread to the files and ports of `rights`, and those that it will start.
pub(crate) fn restrict(rights: &Rights) -> Force {
    let Some(files) = &rights.files else { return Force::NotAsked };
    match enforce(files, rights) {
        Ok(RulesetStatus::FullyEnforced) => {
            let mut said = format!("{} to read, {} to write", files.read.len(), files.write.len());
            if let Some(ports) = &rights.ports {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                said.push_str(&format!(
                    ", TCP to {}",
                    if ports.is_empty() { "nobody".to_owned() } else { ports.join(" and ") }
                ));
            }
            Force::Full(said)
        }
        Ok(RulesetStatus::PartiallyEnforced) => {
            Force::Part("this kernel's Landlock is older than Linux 6.10's, and leaves some accesses open".to_owned())
        }
        Ok(_) => Force::None("this kernel has no Landlock, or it is switched off".to_owned()),
        Err(error) => Force::None(error.to_string()),
    }
}

fn enforce(files: &Files, rights: &Rights) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(ABI_ASKED);
    // Programs are not executed, but libraries of the name service may be loaded.
    let read = AccessFs::from_read(ABI_ASKED);
    // Whoever serves has bound its socket before.
    let ruleset = Ruleset::default().handle_access(all)?.handle_access(AccessNet::BindTcp)?;
    let ruleset = match &rights.ports {
        Some(_) => ruleset.handle_access(AccessNet::ConnectTcp)?,
        None => ruleset,
    };
    let ports =
        rights.ports.iter().flatten().map(|&port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp)));
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(&files.read, read))?
        .add_rules(path_beneath_rules(&files.write, all))?
        .add_rules(ports)?
        .restrict_self()?;
    Ok(status.ruleset)
}
