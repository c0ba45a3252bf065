//! Which processes the unwinder knows, and what they map.

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::fits;
use super::region::Region;
use crate::abi::{MAX_MAPPINGS, Mapping, Process};
use crate::error::{Error, Result};

/// Processes and their mappings.
#[derive(Debug)]
pub struct ProcessTables {
    pub(super) mappings: Region<Mapping>,
    /// The kernel's side of what user space changes by system call.
    pub(super) processes: Option<MapHandle>,
}

impl ProcessTables {
    /// Writes mappings from `index` on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn write_mappings(&mut self, index: usize, mappings: &[Mapping]) -> Result<()> {
        fits(self.mappings.write(index, mappings), "mapping", MAX_MAPPINGS)
    }

    /// Publishes a process's mappings.
    ///
    /// # Errors
    /// The table is full.
    pub fn set_process(&mut self, pid: u32, process: &Process) -> Result<()> {
        let Some(processes) = &self.processes else { return Ok(()) };
        let mut value = [0; 32];
        value[..8].copy_from_slice(&process.start_code.to_ne_bytes());
        value[8..16].copy_from_slice(&process.start_stack.to_ne_bytes());
        value[16..20].copy_from_slice(&process.version.to_ne_bytes());
        value[20..24].copy_from_slice(&process.first.to_ne_bytes());
        value[24..28].copy_from_slice(&process.count.to_ne_bytes());
        processes.update(&pid.to_ne_bytes(), &value, MapFlags::ANY).map_err(|source| Error::Bpf {
            action: "add a process to",
            source,
            hint: String::new(),
        })
    }

    /// Forgets a process; nothing happens if it is not there.
    pub fn remove_process(&mut self, pid: u32) {
        if let Some(processes) = &self.processes {
            // Not being there is the wanted state.
            let _ = processes.delete(&pid.to_ne_bytes());
        }
    }

    /// Processes that the kernel half knows now, counted there.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.processes.as_ref().map_or(0, |processes| processes.keys().count())
    }
}
