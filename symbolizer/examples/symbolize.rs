//! `symbolize FILE [--lines] < addresses`: what this crate makes of ELF addresses (hex, one a line), for comparison with other tools.

use profiler_address::ElfVaddr;
use profiler_symbolizer::{Object, ObjectKey, Options, Symbolizer};
use std::{fs::File, io::Read, sync::Arc, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: symbolize FILE [--lines] < addresses")?;
    let source_lines = arguments.next().is_some();
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let parse = |line: &str| u64::from_str_radix(line.trim().trim_start_matches("0x"), 16).map(ElfVaddr);
    let addresses = input.lines().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut symbolizer = Symbolizer::new(Options { source_lines, ..Options::default() });
    let object = Object {
        key: ObjectKey(path.as_str().into()),
        file: Arc::new(File::open(&path)?),
        path: std::fs::canonicalize(&path)?.display().to_string(),
        root: "/".into(),
        held: None,
    };
    let started = Instant::now();
    let first = addresses.get(..1).unwrap_or_default();
    symbolizer.native(&object, first);
    let first = started.elapsed();
    let found = symbolizer.native(&object, &addresses);
    let cold = started.elapsed() - first;
    let started = Instant::now();
    symbolizer.native(&object, &addresses);
    let warm = started.elapsed();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let rss = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    eprintln!(
        "first {first:?}, {} addresses cold {cold:?}, warm {warm:?}; {rss}; {:?}",
        addresses.len(),
        symbolizer.stats()
    );
    let mut out = String::new();
    for (address, symbolized) in addresses.iter().zip(found) {
        out += &format!("{:#x}\n", address.0);
        for f in symbolized.frames {
            let file = f.file.as_deref().unwrap_or("??");
            out += &format!("{}\t{}\t{file}:{}:{}\t{}\n", f.name, f.system_name, f.line, f.column, f.start_line);
        }
        out += "\n";
    }
    print!("{out}");
    Ok(())
}
