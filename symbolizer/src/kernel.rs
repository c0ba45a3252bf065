//! Names of kernel code, from `/proc/kallsyms`.

mod kallsyms;

use crate::frame::{Frame, Language, Names, Symbolized};
use kallsyms::Table;
use profiler_address::KernelAddr;
use rustc_hash::FxHashMap;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Why kernel addresses have no names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// `kptr_restrict`, or a missing capability, turns all addresses into zeros.
    #[error(
        "the kernel hides its addresses: all of {path} is zero (kernel.kptr_restrict = {kptr_restrict}); kernel frames will have no \
         names. Run with CAP_SYSLOG, or allow it with: sysctl -w kernel.kptr_restrict=1 (0 for users without CAP_SYSLOG)"
    )]
    AddressesHidden {
        /// The file read.
        path: String,
        /// Value of the sysctl, or `unknown`.
        kptr_restrict: String,
    },
    /// The file is missing or may not be read.
    #[error(
        "cannot read {path}: {reason}; kernel frames will have no names. Is /proc mounted, and CONFIG_KALLSYMS set?"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}

/// Shortest time between two readings of the table: one costs about 50 ms.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// BPF programs come and go at the same addresses; a table older than this is not trusted for them.
const BPF_TABLE_LIFE: Duration = Duration::from_secs(30);

/// The kernel's symbols, read at the first lookup and again when an address is not among them.
pub(crate) struct Kernel {
    path: PathBuf,
    table: Table,
    status: Result<(), KernelError>,
    read_at: Option<Instant>,
    names: FxHashMap<u32, Names>,
    names_bytes: u64,
    modules: FxHashMap<u16, Arc<str>>,
    pub loads: u64,
}

impl Kernel {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            table: Table::default(),
            status: Ok(()),
            read_at: None,
            names: FxHashMap::default(),
            names_bytes: 0,
            modules: FxHashMap::default(),
            loads: 0,
        }
    }

    pub fn status(&mut self) -> Result<(), KernelError> {
        self.load_if(|read_at| read_at.is_none());
        self.status.clone()
    }

    pub fn bytes(&self) -> u64 {
        self.table.bytes() + self.names_bytes
    }

    pub fn symbolize(&mut self, address: KernelAddr) -> Symbolized {
        self.load_if(|read_at| read_at.is_none());
        let mut found = self.table.find(address.0);
        let stale = match found {
            None => Some(RELOAD_INTERVAL),
            Some(index) if self.table.module(index) == Some("bpf") => Some(BPF_TABLE_LIFE),
            Some(_) => None,
        };
        if let Some(life) = stale
            && self.load_if(|read_at| read_at.is_none_or(|at| at.elapsed() > life))
        {
            found = self.table.find(address.0);
        }
        let Some(index) = found else { return Symbolized::unknown(Language::Kernel) };
        let table = &self.table;
        let names = self.names.entry(index).or_insert_with(|| {
            let names = Names::demangled(table.name(index));
            self.names_bytes += names.bytes() + 48;
            names
        });
        let names = names.clone();
        let module = table.module_id(index).zip(table.module(index));
        let module = module.map(|(id, name)| self.modules.entry(id).or_insert_with(|| name.into()).clone());
        Symbolized { frames: vec![Frame::named(names)], language: Language::Kernel, module }
    }

    /// Reads the table if that holds of the time of the last reading; says whether it did.
    fn load_if(&mut self, condition: impl FnOnce(Option<Instant>) -> bool) -> bool {
        if !condition(self.read_at) {
            return false;
        }
        self.read_at = Some(Instant::now());
        self.loads += 1;
        match Table::read(&self.path) {
            Ok(table) if table.is_hidden() => {
                let kptr_restrict = std::fs::read_to_string("/proc/sys/kernel/kptr_restrict");
                self.status = Err(KernelError::AddressesHidden {
                    path: self.path.display().to_string(),
                    kptr_restrict: kptr_restrict.map_or("unknown".into(), |value| value.trim().into()),
                });
            }
            Ok(table) => {
                self.status = Ok(());
                self.table = table;
                self.names.clear();
                self.names_bytes = 0;
                self.modules.clear();
            }
            Err(error) => {
                self.status =
                    Err(KernelError::Unreadable { path: self.path.display().to_string(), reason: error.to_string() });
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(kallsyms: &str) -> (Kernel, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), kallsyms).unwrap();
        (Kernel::new(file.path().into()), file)
    }

    #[test]
    fn names_modules_and_bpf_programs() {
        let (mut kernel, _file) = kernel(
            "ffffffff81000000 T _text\nffffffff81000000 T startup\nffffffff81000100 t do_work\nffffffff81000200 D data\n\
             ffffffffc0000000 t open\t[nf_tables]\nffffffffc0000040 t bpf_prog_6deef7357e7b4530_count\t[bpf]\n",
        );
        let name = |kernel: &mut Kernel, address| {
            let s = kernel.symbolize(KernelAddr(address));
            (s.frames.first().map(|f| f.name.to_string()), s.module.map(|m| m.to_string()))
        };
        let some = |name: &str, module: Option<&str>| (Some(name.to_string()), module.map(str::to_string));
        assert_eq!(name(&mut kernel, 0xffffffff81000101), some("do_work", None));
        assert_eq!(name(&mut kernel, 0xffffffff81000010), some("startup", None));
        assert_eq!(name(&mut kernel, 0xffffffff81000201), (None, None));
        assert_eq!(name(&mut kernel, 0xffffffffc000003f), some("open", Some("nf_tables")));
        assert_eq!(name(&mut kernel, 0xffffffffc0000044), some("bpf_prog_6deef7357e7b4530_count", Some("bpf")));
        assert_eq!(name(&mut kernel, 5), (None, None));
        assert_eq!(kernel.status(), Ok(()));
    }

    #[test]
    fn hidden_addresses_say_how_to_show_them() {
        let (mut kernel, _file) = kernel("0000000000000000 T _text\n0000000000000000 t do_work\n");
        assert!(kernel.symbolize(KernelAddr(0xffffffff81000101)).frames.is_empty());
        assert!(kernel.status().unwrap_err().to_string().contains("sysctl -w kernel.kptr_restrict"));
        let mut missing = Kernel::new("/nonexistent/kallsyms".into());
        assert!(matches!(missing.status(), Err(KernelError::Unreadable { .. })));
    }

    #[test]
    fn a_module_loaded_later_is_found_but_not_by_reading_at_every_miss() {
        let (mut kernel, file) = kernel("ffffffff81000000 T a\nffffffff81000100 T _etext\n");
        assert!(kernel.symbolize(KernelAddr(0xffffffffc0000000)).frames.is_empty());
        std::fs::write(file.path(), "ffffffff81000000 T a\nffffffffc0000000 t init\t[m]\n").unwrap();
        for _ in 0..1000 {
            kernel.symbolize(KernelAddr(0xffffffffc0000000));
        }
        assert_eq!(kernel.loads, 1);
        kernel.read_at = Instant::now().checked_sub(RELOAD_INTERVAL * 2);
        assert_eq!(&*kernel.symbolize(KernelAddr(0xffffffffc0000000)).frames[0].name, "init");
        assert_eq!(kernel.loads, 2);
    }

    #[test]
    fn needs_proc_this_kernel_names_its_own_functions() {
        let mut kernel = Kernel::new("/proc/kallsyms".into());
        let status = kernel.status().map_err(|error| error.to_string()).err();
        let test = "needs_proc_this_kernel_names_its_own_functions";
        if !profiler_need::have(
            test,
            status.is_none(),
            &format!("the kernel's symbols: {}", status.unwrap_or_default()),
        ) {
            return;
        }
        let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
        let (mut checked, mut started) = (0, Instant::now());
        for line in text.lines().step_by(97) {
            let mut words = line.split_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let address = u64::from_str_radix(address, 16).unwrap();
            if !matches!(kind, "t" | "T") || name.starts_with("__pfx_") || words.next().is_some() {
                continue;
            }
            if checked == 0 {
                started = Instant::now();
            }
            let found = kernel.symbolize(KernelAddr(address));
            // Aliases share an address: the one given must be one of them.
            let found = found.frames.first().unwrap_or_else(|| panic!("no name for {line}")).system_name.to_string();
            let hex = format!("{address:016x}");
            assert!(
                found == name
                    || text.lines().any(|l| l.starts_with(&hex) && l.split_whitespace().nth(2) == Some(&found)),
                "{line}: {found}"
            );
            checked += 1;
        }
        println!("{checked} kernel names checked in {:?}; {} bytes", started.elapsed(), kernel.bytes());
        assert!(checked > 200);
    }
}
