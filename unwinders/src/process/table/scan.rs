//! What `/proc` says, brought into the table.

use std::sync::Arc;

use super::{Changes, MAX_MAPPINGS_WHEN_CROWDED, ProcessTable, SAME_START_NS};
use crate::maps::{Backing, Mapping, MappingSet};
use crate::process::procfs::{Place, Scan, ScanError, Stat};
use crate::process::{AddressSpace, Cgroup, Process};

/// Different control groups remembered.
const MAX_CGROUPS: usize = 4096;

impl Process {
    /// What was read of it; a process that ends shows none, and what is known of it stays.
    fn take_cgroup(&mut self, read: Option<Arc<Cgroup>>) {
        if read.is_some() || self.cgroup.is_none() {
            self.container_id = read.as_ref().and_then(|cgroup| cgroup.container_id.clone());
            self.cgroup = read;
            self.container_inherited = false;
        }
    }
}

impl ProcessTable {
    /// Reads what `/proc` says of `pid` now, at `now` (`CLOCK_MONOTONIC`, ns; taken before the call). Events that are older change
    /// nothing any more.
    ///
    /// # Errors
    /// If the process has ended (then it has ended in the table too) or may not be read.
    pub fn scan(&mut self, pid: u32, now: u64) -> Result<Changes, ScanError> {
        self.take_scan(pid, now, Scan::read(pid))
    }

    /// [`Self::scan`], where somebody else has read it.
    ///
    /// # Errors
    /// As it was read.
    pub fn take_scan(&mut self, pid: u32, now: u64, read: Result<Scan, ScanError>) -> Result<Changes, ScanError> {
        match read {
            Ok(read) => Ok(self.scanned(pid, now, read)),
            // It stays as wanted as it was.
            Err(error @ ScanError::SetAside { .. }) => Err(error),
            Err(error) => {
                if let Some(slot) = self.slots.get_mut(&pid) {
                    slot.current.wants_scan = false;
                    if matches!(error, ScanError::Gone { .. }) && slot.current.ended.is_none() {
                        self.end(pid, now);
                    }
                }
                Err(error)
            }
        }
    }

    fn scanned(&mut self, pid: u32, now: u64, scan: Scan) -> Changes {
        let mut changes = Changes { pid, ..Changes::default() };
        let Scan { stat, mappings, truncated, exe, cgroup, namespace_pid } = scan;
        let cgroup = cgroup.map(|cgroup| self.intern_cgroup(cgroup));
        let exe = self.paths.intern(&exe);
        let mappings = self.intern_mappings(mappings, truncated);
        let dead = stat.is_zombie() && stat.threads <= 1;
        let space = stat.image();
        let known = self.slots.get(&pid).is_some_and(|slot| {
            let known = slot.current.start_time_ns;
            known == 0 || known.abs_diff(stat.start_time_ns) < SAME_START_NS
        });
        if !known {
            let mut process = self.blank();
            process.pid = pid;
            process.start_time_ns = stat.start_time_ns;
            process.start_unix_ns = self.clock.unix_from_boot(stat.start_time_ns);
            changes.created = true;
            self.install(process, now, &mut changes);
        }
        let fresh_serial = self.next_serial();
        let start_unix_ns = self.clock.unix_from_boot(stat.start_time_ns);
        let Some(slot) = self.slots.get_mut(&pid) else { return changes };
        let other_image = match (slot.current.address_space, space) {
            (Some(old), Some(new)) => old != new,
            (None, Some(_)) => !slot.current.exe.is_empty() && !exe.is_empty() && slot.current.exe != exe,
            _ => false,
        };
        let mut before = None;
        if other_image {
            before = Some(Process { ended: Some(now), ..slot.current.clone() });
            slot.split_by_scan = true;
            slot.current.serial = fresh_serial;
            slot.current.image_start = now;
            slot.current.mappings_version = 0;
            changes.new_image = true;
        }
        let process = &mut slot.current;
        if process.start_time_ns == 0 {
            process.start_time_ns = stat.start_time_ns;
            process.start_unix_ns = start_unix_ns;
        }
        if process.comm != stat.comm {
            process.comm = stat.comm;
            changes.name = true;
        }
        process.parent = stat.parent;
        process.kthread = stat.kthread;
        process.take_cgroup(cgroup);
        process.namespace_pid = namespace_pid;
        process.live_threads = Some(stat.threads);
        process.scanned_at = now;
        process.wants_scan = false;
        if let Some(space) = space {
            process.address_space = Some(space);
        }
        // A zombie has no memory any more, but its last samples are still to be resolved.
        if !dead {
            process.ended = None;
            if !exe.is_empty() {
                process.exe = exe;
            }
            if other_image || *process.mappings != *mappings {
                process.mappings = mappings;
                process.mappings_version = process.mappings_version.wrapping_add(1);
                changes.mappings = true;
            }
        }
        if let Some(before) = before {
            self.bury(before, now);
        }
        if dead && self.get(pid).is_some_and(|process| process.ended.is_none()) {
            self.end(pid, now);
            changes.ended = true;
        }
        changes
    }

    fn intern_mappings(&mut self, mut mappings: Vec<Mapping>, truncated: bool) -> Arc<MappingSet> {
        if self.crowded && mappings.len() > MAX_MAPPINGS_WHEN_CROWDED {
            self.refused_mappings += (mappings.len() - MAX_MAPPINGS_WHEN_CROWDED) as u64;
            mappings.truncate(MAX_MAPPINGS_WHEN_CROWDED);
        }
        // How many more there are is not known.
        self.refused_mappings += u64::from(truncated);
        self.mapped_since_count += mappings.len();
        for mapping in &mut mappings {
            if let Backing::File(_, path) = &mut mapping.backing {
                *path = self.paths.intern(path);
            }
        }
        Arc::new(mappings.into_iter().collect())
    }

    /// Reads only what identifies the image in memory, after an exec that events told of: far cheaper than a scan.
    ///
    /// # Errors
    /// If the process is not known, has ended or may not be read.
    pub fn read_address_space(&mut self, pid: u32) -> Result<AddressSpace, ScanError> {
        self.take_address_space(pid, Stat::read(pid))
    }

    /// [`Self::read_address_space`], where somebody else has read it.
    ///
    /// # Errors
    /// As it was read, and if the process is not known or has ended.
    pub fn take_address_space(&mut self, pid: u32, read: Result<Stat, ScanError>) -> Result<AddressSpace, ScanError> {
        let stat = read?;
        let start_unix_ns = self.clock.unix_from_boot(stat.start_time_ns);
        let process = match self.slots.get_mut(&pid) {
            Some(slot) if slot.current.ended.is_none() && !stat.is_zombie() => &mut slot.current,
            _ => return Err(ScanError::Gone { pid }),
        };
        if process.start_time_ns == 0 {
            process.start_time_ns = stat.start_time_ns;
            process.start_unix_ns = start_unix_ns;
        } else if process.start_time_ns.abs_diff(stat.start_time_ns) >= SAME_START_NS {
            process.wants_scan = true;
            self.queue(pid);
            return Err(ScanError::Gone { pid });
        }
        let space = stat.image().ok_or(ScanError::Executing { pid })?;
        process.address_space = Some(space);
        Ok(space)
    }

    /// Notes what identifies the image in memory when another source than `/proc` told it (a sample's own record).
    pub fn set_address_space(&mut self, pid: u32, space: AddressSpace) {
        if let Some(slot) = self.slots.get_mut(&pid) {
            slot.current.address_space = Some(space);
        }
    }

    /// Reads the control group and the pid in its own namespace of a process that only events have told of.
    ///
    /// # Errors
    /// If the process has ended or may not be read; what it inherited from its parent stays.
    pub fn read_container(&mut self, pid: u32) -> Result<(), ScanError> {
        self.take_container(pid, Place::read(pid))
    }

    /// [`Self::read_container`], where somebody else has read it.
    ///
    /// # Errors
    /// As it was read.
    pub fn take_container(&mut self, pid: u32, read: Result<Place, ScanError>) -> Result<(), ScanError> {
        let Place { cgroup, namespace_pid } = read?;
        let cgroup = cgroup.map(|cgroup| self.intern_cgroup(cgroup));
        if let Some(slot) = self.slots.get_mut(&pid).filter(|slot| slot.current.ended.is_none()) {
            slot.current.take_cgroup(cgroup);
            slot.current.namespace_pid = namespace_pid;
        }
        Ok(())
    }

    fn intern_cgroup(&mut self, cgroup: Cgroup) -> Arc<Cgroup> {
        if let Some(known) = self.cgroups.get(&cgroup.path) {
            return Arc::clone(known);
        }
        if self.cgroups.len() >= MAX_CGROUPS {
            self.cgroups.clear();
        }
        let cgroup = Arc::new(cgroup);
        self.cgroups.insert(Arc::clone(&cgroup.path), Arc::clone(&cgroup));
        cgroup
    }
}
