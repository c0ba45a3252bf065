//! Files of this machine, and registers and memory made up.

use std::path::Path;

/// The word at an address of a memory that has a different one everywhere.
#[allow(clippy::unnecessary_wraps)]
pub fn memory(address: u64) -> Option<u64> {
    let mixed = (address ^ 0x5bd1_e995_9d1b_54a3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

/// Registers by DWARF number, all different, with this ip.
pub fn registers(ip: u64) -> [u64; 17] {
    let mut registers = std::array::from_fn(|n| 0x7f00_0000_0000 + n as u64 * 0x10_0000_0000);
    registers[16] = ip;
    registers
}

/// Files below `folders` whose names start with `name`, symbolic links not followed.
pub fn find(folders: &[&str], name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        walk(Path::new(folder), name, 0, &mut found);
    }
    found.sort();
    found
}

fn walk(folder: &Path, name: &str, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < 6 {
            walk(&entry.path(), name, depth + 1, found);
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with(name) {
            found.push(entry.path().to_string_lossy().into_owned());
        }
    }
}

/// Node, which has the largest `.eh_frame` of what tests need anyhow.
pub fn node() -> String {
    let path = profiler_need::find("node");
    path.map_or_else(|| "/usr/bin/node".to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Where the libraries of the compiler that built this are.
pub fn rust_library_folder() -> String {
    let rustc = std::process::Command::new("rustc").args(["--print", "sysroot"]).output();
    let root = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{root}/lib")
}
