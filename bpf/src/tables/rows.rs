//! Executables and their unwind rows.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

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
    /// What another thread makes.
    pub(super) ordered: Option<Receiver<Result<Vec<Region<Row>>>>>,
    pub(super) waited: u64,
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

    /// Adds `count` empty slabs in one step; waits for those that are ordered first.
    ///
    /// # Errors
    /// There are [`MAX_SLABS`] already, or the kernel refuses.
    pub fn add_slabs(&mut self, count: usize) -> Result<()> {
        // What was refused there was not asked for here.
        let _ = self.take_ordered(true);
        self.waited += u64::from(self.kernel_slabs.is_some());
        let slabs = make_slabs(self.kernel_slabs.as_ref(), self.slabs.len(), count)?;
        self.slabs.extend(slabs);
        Ok(())
    }

    /// Has `count` empty slabs made by another thread: what makes one waits for an RCU grace period, which takes from ten milliseconds to
    /// half a second, and meanwhile the stacks that are to be unwound by its rows would have to be finished in user space, after the fact.
    /// Nothing happens if some are being made.
    pub fn order_slabs(&mut self, count: usize) {
        if self.ordered.is_some() || count == 0 {
            return;
        }
        let first = self.slabs.len();
        let (sender, ordered) = channel();
        let Some(kernel_slabs) = &self.kernel_slabs else {
            // Plain memory is there at once.
            let _ = sender.send(make_slabs(None, first, count));
            self.ordered = Some(ordered);
            return;
        };
        // Without another descriptor or thread they are made when they are needed.
        let Ok(kernel_slabs) = MapHandle::try_from(kernel_slabs) else { return };
        let make = move || {
            // The receiver is gone only when the tables are.
            let _ = sender.send(make_slabs(Some(&kernel_slabs), first, count));
        };
        if std::thread::Builder::new().name("slabs".to_owned()).spawn(make).is_ok() {
            self.ordered = Some(ordered);
        }
    }

    /// Takes in the slabs that were ordered, if they are made; with `wait` it waits for them. Returns whether some still are being made.
    ///
    /// # Errors
    /// The kernel refused them.
    pub fn take_ordered(&mut self, wait: bool) -> Result<bool> {
        let Some(ordered) = &self.ordered else { return Ok(false) };
        let made = match ordered.try_recv() {
            Err(TryRecvError::Empty) if !wait => return Ok(true),
            Err(TryRecvError::Empty) => {
                self.waited += 1;
                ordered.recv().ok()
            }
            made => made.ok(),
        };
        self.ordered = None;
        // Without an answer its thread has died, and they are made when they are needed.
        if let Some(made) = made {
            self.slabs.extend(made?);
        }
        Ok(false)
    }

    /// Times that whoever called had to wait for slabs, since the start.
    #[must_use]
    pub fn waited(&self) -> u64 {
        self.waited
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

/// `count` empty slabs, of which the kernel half (if there is one) knows the first as its `first`. Each update of the outer map waits for an
/// RCU grace period, a batch for one.
fn make_slabs(kernel_slabs: Option<&MapHandle>, first: usize, count: usize) -> Result<Vec<Region<Row>>> {
    if first + count > MAX_SLABS {
        return Err(Error::TableFull { table: "slab", capacity: MAX_SLABS });
    }
    let Some(kernel_slabs) = kernel_slabs else {
        return (0..count).map(|_| Region::in_memory(SLAB_ROWS as usize)).collect();
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
    maps.iter().map(|map| Region::of_map(map.as_fd(), SLAB_ROWS as usize)).collect()
}
