//! The tables that the unwinder reads: memory that is shared with the kernel half, or, for tests, plain memory.
//!
//! Every table is an array that is only ever appended to or rewritten in ranges which nothing refers to; the kernel half
//! reads it at any moment. What publishes an entry (a process, an executable's page count) is written last.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

use crate::abi::{
    Executable, MAX_EXECUTABLES, MAX_MAPPINGS, MAX_ROW_PAGES, MAX_RULES, MAX_SLABS, Mapping, Process, Row, RowPage,
    Rule, SLAB_ROWS,
};
use crate::error::{Error, Result};

/// A fixed array of `T` that the kernel half may be reading.
#[derive(Debug)]
pub(crate) struct Region<T> {
    base: NonNull<T>,
    len: usize,
    _map: Option<OwnedFd>,
}

// SAFETY: the memory is owned by the region alone on this side, and `T` is plain integers.
unsafe impl<T: Send> Send for Region<T> {}

impl<T: Copy> Region<T> {
    /// Maps the whole of an array map.
    pub(crate) fn of_map(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let map = fd.try_clone_to_owned().map_err(|error| Error::io("duplicate a map's file descriptor", error))?;
        Self::mmap(Some(map), len)
    }

    /// Plain zeroed memory of the same shape.
    fn in_memory(len: usize) -> Result<Self> {
        Self::mmap(None, len)
    }

    fn mmap(map: Option<OwnedFd>, len: usize) -> Result<Self> {
        let bytes = len * size_of::<T>();
        let (flags, fd) = match &map {
            Some(map) => (libc::MAP_SHARED, map.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::io("map a table of the kernel half", io::Error::last_os_error()));
        }
        // SANITY: mmap returned neither MAP_FAILED nor, without MAP_FIXED, 0.
        let base = NonNull::new(base.cast()).expect("mmap gives an address");
        Ok(Self { base, len, _map: map })
    }

    pub(crate) fn as_ptr(&self) -> *const T {
        self.base.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entry at `index`, if there is one.
    pub(crate) fn read(&self, index: usize) -> Option<T> {
        // SAFETY: in bounds; the kernel half never writes to tables, and this side writes only through `&mut self`.
        (index < self.len).then(|| unsafe { ptr::read_volatile(self.base.as_ptr().add(index)) })
    }

    /// Writes `values` from `index` on; false if they don't fit.
    pub(crate) fn write(&mut self, index: usize, values: &[T]) -> bool {
        if index.checked_add(values.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        // SAFETY: in bounds, and `values` is not in this mapping, which nobody else has a reference into.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), self.base.as_ptr().add(index), values.len()) };
        true
    }
}

impl<T> Drop for Region<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping, and nothing outlives the region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

/// The kernel's side of the tables that user space changes by system call.
#[derive(Debug)]
struct Kernel {
    processes: MapHandle,
    slabs: MapHandle,
}

/// All tables of the unwinder.
#[derive(Debug)]
pub struct Tables {
    pub(crate) mappings: Region<Mapping>,
    pub(crate) executables: Region<Executable>,
    pub(crate) row_pages: Region<RowPage>,
    pub(crate) rules: Region<Rule>,
    pub(crate) slabs: Vec<Region<Row>>,
    kernel: Option<Kernel>,
}

impl Tables {
    /// Tables that no kernel half reads, for unwinding in user space alone.
    ///
    /// # Errors
    /// No memory.
    pub fn in_memory() -> Result<Self> {
        Ok(Self {
            mappings: Region::in_memory(MAX_MAPPINGS)?,
            executables: Region::in_memory(MAX_EXECUTABLES)?,
            row_pages: Region::in_memory(MAX_ROW_PAGES)?,
            rules: Region::in_memory(MAX_RULES as usize)?,
            slabs: Vec::new(),
            kernel: None,
        })
    }

    pub(crate) fn of_maps(maps: &crate::skeleton::ProfilerMaps<'_>) -> Result<Self> {
        let handle = |map: &libbpf_rs::MapMut<'_>, action| {
            MapHandle::try_from(map).map_err(|source| Error::Bpf { action, source, hint: String::new() })
        };
        Ok(Self {
            mappings: Region::of_map(maps.mappings.as_fd(), MAX_MAPPINGS)?,
            executables: Region::of_map(maps.executables.as_fd(), MAX_EXECUTABLES)?,
            row_pages: Region::of_map(maps.row_pages.as_fd(), MAX_ROW_PAGES)?,
            rules: Region::of_map(maps.rules.as_fd(), MAX_RULES as usize)?,
            slabs: Vec::new(),
            kernel: Some(Kernel {
                processes: handle(&maps.processes, "use the process table of")?,
                slabs: handle(&maps.slabs, "use the row slabs of")?,
            }),
        })
    }

    /// Writes mappings from `index` on.
    ///
    /// # Errors
    /// They do not fit.
    pub fn write_mappings(&mut self, index: usize, mappings: &[Mapping]) -> Result<()> {
        fits(self.mappings.write(index, mappings), "mapping", MAX_MAPPINGS)
    }

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
        let Some(kernel) = &self.kernel else {
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
        if kernel.slabs.update_batch(&keys, &values, count as u32, MapFlags::ANY, MapFlags::ANY).is_err() {
            // batches of maps of maps came with 5.14
            for (key, map) in (first as u32..).zip(&maps) {
                let fd = map.as_fd().as_raw_fd().to_ne_bytes();
                kernel.slabs.update(&key.to_ne_bytes(), &fd, MapFlags::ANY).map_err(bpf)?;
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

    /// Publishes a process's mappings.
    ///
    /// # Errors
    /// The table is full.
    pub fn set_process(&mut self, pid: u32, process: &Process) -> Result<()> {
        let Some(kernel) = &self.kernel else { return Ok(()) };
        let mut value = [0; 32];
        value[..8].copy_from_slice(&process.start_code.to_ne_bytes());
        value[8..16].copy_from_slice(&process.start_stack.to_ne_bytes());
        value[16..20].copy_from_slice(&process.serial.to_ne_bytes());
        value[20..24].copy_from_slice(&process.first.to_ne_bytes());
        value[24..28].copy_from_slice(&process.count.to_ne_bytes());
        kernel.processes.update(&pid.to_ne_bytes(), &value, MapFlags::ANY).map_err(|source| Error::Bpf {
            action: "add a process to",
            source,
            hint: String::new(),
        })
    }

    /// Forgets a process; nothing happens if it is not there.
    pub fn remove_process(&mut self, pid: u32) {
        if let Some(kernel) = &self.kernel {
            // Not being there is the wanted state.
            let _ = kernel.processes.delete(&pid.to_ne_bytes());
        }
    }

    /// Waits until no program of the kernel half is running that was running at the call: what it may have been reading can be
    /// rewritten. Some 10 ms.
    pub fn wait_for_readers(&self) {
        if self.kernel.is_none() {
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

    /// Processes that the kernel half knows now, counted there.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.kernel.as_ref().map_or(0, |kernel| kernel.processes.keys().count())
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

fn fits(written: bool, table: &'static str, capacity: usize) -> Result<()> {
    if written { Ok(()) } else { Err(Error::TableFull { table, capacity }) }
}
