//! Executables and their unwind rows.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{Ordering, fence};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use super::fits;
use super::region::Region;
use crate::abi::{Executable, MAX_EXECUTABLES, MAX_ROW_PAGES, MAX_RULES, MAX_SLABS, Row, RowPage, Rule, SLAB_ROWS};
use crate::error::{Error, Result};

/// What the native unwinder reads: executables, their row pages, rows and rules.
#[derive(Debug)]
pub struct RowTables {
    pub(crate) executables: Region<Executable>,
    pub(crate) row_pages: Region<RowPage>,
    pub(crate) rules: Region<Rule>,
    pub(crate) slabs: Vec<Region<Row>>,
    /// The kernel's side of what user space changes by system call.
    pub(super) kernel_slabs: Option<MapHandle>,
}

impl RowTables {
    /// Writes an executable's entry; this publishes its pages.
    ///
    /// # Errors
    /// There is no such index.
    pub fn write_executable(&mut self, index: usize, executable: Executable) -> Result<()> {
        fence(Ordering::Release);
        fits(self.executables.write(index, &[executable]), "executable", MAX_EXECUTABLES)
    }

    /// Writes row pages from `index` on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn write_row_pages(&mut self, index: usize, pages: &[RowPage]) -> Result<()> {
        fits(self.row_pages.write(index, pages), "row page", MAX_ROW_PAGES)
    }

    /// Writes rules from `index` on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn write_rules(&mut self, index: usize, rules: &[Rule]) -> Result<()> {
        fits(self.rules.write(index, rules), "rule", MAX_RULES as usize)
    }

    /// The number of slabs so far.
    #[must_use]
    pub fn slab_count(&self) -> usize {
        self.slabs.len()
    }

    /// Adds `count` empty slabs in one step: each update of the outer map waits for an RCU grace period, a batch for one.
    ///
    /// # Errors
    /// There are [`MAX_SLABS`] already, or the kernel refuses.
    pub fn add_slabs(&mut self, count: usize) -> Result<()> {
        let first = self.slabs.len();
        if first + count > MAX_SLABS {
            return Err(Error::TableFull { table: "slab", capacity: MAX_SLABS });
        }
        let Some(kernel_slabs) = &self.kernel_slabs else {
            for _ in 0..count {
                self.slabs.push(Region::in_memory(SLAB_ROWS as usize)?);
            }
            return Ok(());
        };
        let bpf = |source| Error::Bpf { action: "add rows to", source, hint: String::new() };
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: libbpf_sys::BPF_F_MMAPABLE,
            ..Default::default()
        };
        let mut maps = Vec::with_capacity(count);
        for _ in 0..count {
            maps.push(MapHandle::create(MapType::Array, Some("slab"), 4, 8, SLAB_ROWS / 2, &options).map_err(bpf)?);
        }
        let keys: Vec<u8> = (first as u32..(first + count) as u32).flat_map(u32::to_ne_bytes).collect();
        let values: Vec<u8> = maps.iter().flat_map(|map| map.as_fd().as_raw_fd().to_ne_bytes()).collect();
        if kernel_slabs.update_batch(&keys, &values, count as u32, MapFlags::ANY, MapFlags::ANY).is_err() {
            // batches of maps of maps came with 5.14
            for (key, map) in (first as u32..).zip(&maps) {
                let fd = map.as_fd().as_raw_fd().to_ne_bytes();
                kernel_slabs.update(&key.to_ne_bytes(), &fd, MapFlags::ANY).map_err(bpf)?;
            }
        }
        for map in &maps {
            self.slabs.push(Region::of_map(map.as_fd(), SLAB_ROWS as usize)?);
        }
        Ok(())
    }

    /// Writes rows into slab `slab` from `index` on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn write_rows(&mut self, slab: usize, index: usize, rows: &[Row]) -> Result<()> {
        let written = self.slabs.get_mut(slab).is_some_and(|region| region.write(index, rows));
        fits(written, "row", SLAB_ROWS as usize)
    }

    /// Waits until no program of the kernel half is running that was running at the call: what it may have been reading can be
    /// rewritten. Some 10 ms.
    pub fn wait_for_readers(&self) {
        if self.kernel_slabs.is_none() {
            return;
        }
        // Global barriers wait for an RCU grace period, and the programs run in RCU's read side (kernel/sched/membarrier.c).
        const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
        // SAFETY: a system call with three integers.
        if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } < 0 {
            // Not there with CONFIG_MEMBARRIER=n or nohz_full. A program runs for less than a millisecond, without interruption.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// A row page's entry.
    #[must_use]
    pub fn row_page(&self, index: usize) -> Option<RowPage> {
        self.row_pages.read(index)
    }

    /// A row.
    #[must_use]
    pub fn row(&self, slab: usize, index: usize) -> Option<Row> {
        self.slabs.get(slab)?.read(index)
    }

    /// An executable's entry.
    #[must_use]
    pub fn executable(&self, index: usize) -> Option<Executable> {
        self.executables.read(index)
    }
}
