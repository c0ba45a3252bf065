//! The tables that the unwinder reads: memory that is shared with the kernel half, or, for tests, plain memory.
//!
//! Every table is an array that is only ever appended to or rewritten in ranges which nothing refers to; the kernel half
//! reads it at any moment. What publishes an entry (a process, an executable's page count) is written last.

mod instances;
mod processes;
mod region;
mod rows;

use std::os::fd::AsFd;

use libbpf_rs::MapHandle;

pub use self::instances::InstanceTable;
pub use self::processes::ProcessTables;
pub(crate) use self::region::Region;
pub use self::rows::RowTables;
use crate::abi::{MAX_EXECUTABLES, MAX_INSTANCES, MAX_MAPPINGS, MAX_ROW_PAGES, MAX_RULES};
use crate::error::{Error, Result};

/// All tables of the unwinder, each part for its one owner: who publishes processes does not write rows.
#[derive(Debug)]
pub struct Tables {
    /// Which processes there are, and what they map.
    pub processes: ProcessTables,
    /// The native unwinder's.
    pub rows: RowTables,
    /// Runtimes'.
    pub instances: InstanceTable,
}

impl Tables {
    /// Tables that no kernel half reads, for unwinding in user space alone.
    ///
    /// # Errors
    /// No memory.
    pub fn in_memory() -> Result<Self> {
        Ok(Self {
            processes: ProcessTables { mappings: Region::in_memory(MAX_MAPPINGS)?, processes: None },
            rows: RowTables {
                executables: Region::in_memory(MAX_EXECUTABLES)?,
                row_pages: Region::in_memory(MAX_ROW_PAGES)?,
                rules: Region::in_memory(MAX_RULES as usize)?,
                slabs: Vec::new(),
                kernel_slabs: None,
                ordered: None,
                waited: 0,
            },
            instances: InstanceTable(Region::in_memory(MAX_INSTANCES)?),
        })
    }

    pub(crate) fn of_maps(maps: &crate::skeleton::ProfilerMaps<'_>) -> Result<Self> {
        let handle = |map: &libbpf_rs::MapMut<'_>, action| {
            MapHandle::try_from(map).map_err(|source| Error::Bpf { action, source, hint: String::new() })
        };
        Ok(Self {
            processes: ProcessTables {
                mappings: Region::of_map(maps.mappings.as_fd(), MAX_MAPPINGS)?,
                processes: Some(handle(&maps.processes, "use the process table of")?),
            },
            rows: RowTables {
                executables: Region::of_map(maps.executables.as_fd(), MAX_EXECUTABLES)?,
                row_pages: Region::of_map(maps.row_pages.as_fd(), MAX_ROW_PAGES)?,
                rules: Region::of_map(maps.rules.as_fd(), MAX_RULES as usize)?,
                slabs: Vec::new(),
                kernel_slabs: Some(handle(&maps.slabs, "use the row slabs of")?),
                ordered: None,
                waited: 0,
            },
            instances: InstanceTable(Region::of_map(maps.instances.as_fd(), MAX_INSTANCES)?),
        })
    }
}

fn fits(written: bool, table: &'static str, capacity: usize) -> Result<()> {
    if written { Ok(()) } else { Err(Error::TableFull { table, capacity }) }
}
