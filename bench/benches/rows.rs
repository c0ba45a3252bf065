//! Rows of large executables against a plain gimli scan of the same `.eh_frame`, in one run.
//!
//! The scan evaluates every row of every function and keeps nothing. Ours must take at most half its time, sorting and interning
//! included, and 4 bytes a row.

use std::hint::black_box;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use divan::Bencher;
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindContext, UnwindSection};
use profiler_elf::ElfParts;
use profiler_unwinders::rows::{self as unwinders, RuleDictionary};

/// Evaluates all rows of `.eh_frame` and counts them.
fn scan(image: &ElfParts<'_>) -> usize {
    let Some(found) = image.eh_frame() else { return 0 };
    let bases = BaseAddresses::default().set_eh_frame(found.address.0);
    let eh_frame = EhFrame::new(found.bytes, LittleEndian);
    let mut context = UnwindContext::new();
    let mut entries = eh_frame.entries(&bases);
    let mut rows = 0;
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        let Ok(mut table) = fde.rows(&eh_frame, &bases, &mut context) else { continue };
        while let Ok(Some(row)) = table.next_row() {
            black_box(row);
            rows += 1;
        }
    }
    rows
}

const RUNS: usize = 40;

/// CPU time of this thread.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The shortest CPU time of each over runs that alternate, so that a busy machine is busy for both.
fn best_times(image: &ElfParts<'_>) -> (Duration, Duration) {
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        let start = thread_time();
        let _ = black_box(unwinders::compile(image, &mut RuleDictionary::new()));
        let between = thread_time();
        black_box(scan(image));
        best.0 = best.0.min(between.saturating_sub(start));
        best.1 = best.1.min(thread_time().saturating_sub(between));
    }
    best
}

/// Executables of this machine, the larger the better.
fn paths() -> &'static [String] {
    static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut paths =
            ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1", "/usr/bin/node"]
                .map(str::to_owned)
                .to_vec();
        // The libraries of the compiler that built this.
        let rustc = Command::new("rustc").args(["--print", "sysroot"]).output();
        let root = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let entries = std::fs::read_dir(format!("{root}/lib")).into_iter().flatten().flatten();
        let own = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libLLVM.so") || name.starts_with("librustc_driver-")
        });
        paths.extend(own.map(|entry| entry.path().to_string_lossy().into_owned()));
        paths.retain(|path| std::fs::read(path).is_ok_and(|bytes| ElfParts::parse(&bytes).is_ok()));
        paths
    });
    &PATHS
}

fn main() {
    for path in paths() {
        let Ok(bytes) = std::fs::read(path) else { continue };
        let Ok(image) = ElfParts::parse(&bytes) else { continue };
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut rules = RuleDictionary::new();
        let Ok(rows) = unwinders::compile(&image, &mut rules) else { continue };
        println!(
            "{name}: {} functions, {} rows, {:.3} bytes a row, {} rules, {} bytes of .eh_frame; gimli evaluates {} rows",
            rows.stats.fdes,
            rows.rows.len(),
            rows.byte_size() as f64 / rows.rows.len() as f64,
            rules.len(),
            rows.stats.eh_frame_bytes,
            scan(&image)
        );
        let (ours, gimli) = best_times(&image);
        println!(
            "{name}: best of {RUNS} alternating runs: compile {:.2} ms ({:.1} M rows/s), gimli scan {:.2} ms: {:.2} of it",
            ours.as_secs_f64() * 1e3,
            rows.rows.len() as f64 / ours.as_secs_f64() / 1e6,
            gimli.as_secs_f64() * 1e3,
            ours.as_secs_f64() / gimli.as_secs_f64(),
        );
    }
    divan::main();
}

#[divan::bench(args = paths().iter().map(String::as_str), sample_count = 10, sample_size = 1)]
fn compile(bencher: Bencher, path: &str) {
    let bytes = std::fs::read(path).expect("it was read before");
    let image = ElfParts::parse(&bytes).expect("it was parsed before");
    bencher.bench_local(|| unwinders::compile(&image, &mut RuleDictionary::new()).map(|rows| rows.rows.len()));
}

#[divan::bench(args = paths().iter().map(String::as_str), sample_count = 10, sample_size = 1)]
fn gimli_scan(bencher: Bencher, path: &str) {
    let bytes = std::fs::read(path).expect("it was read before");
    let image = ElfParts::parse(&bytes).expect("it was parsed before");
    bencher.bench_local(|| scan(&image));
}
