//! Rows of large executables against a plain gimli scan of the same `.eh_frame`, in one run.
//!
//! The scan evaluates every row of every function and keeps nothing. Ours must take at most half its time, sorting and interning
//! included, and 4 bytes a row.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindContext, UnwindSection};
use profiler_elf::ElfImage;
use profiler_unwinders::rows::{RuleDictionary, compile};

#[path = "../tests/it/rows/machine.rs"]
#[allow(dead_code)]
mod machine;

/// Evaluates all rows of `.eh_frame` and counts them.
fn gimli_scan(image: &ElfImage<'_>) -> usize {
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
fn best_times(image: &ElfImage<'_>) -> (Duration, Duration) {
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..RUNS {
        let start = thread_time();
        let _ = black_box(compile(image, &mut RuleDictionary::new()));
        let between = thread_time();
        black_box(gimli_scan(image));
        best.0 = best.0.min(between.saturating_sub(start));
        best.1 = best.1.min(thread_time().saturating_sub(between));
    }
    best
}

fn build(criterion: &mut Criterion) {
    let rust = machine::rust_library_folder();
    let mut paths = vec![
        "/lib/x86_64-linux-gnu/libc.so.6".to_owned(),
        "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1".to_owned(),
        "/usr/bin/node".to_owned(),
    ];
    paths.extend(machine::find(&[&rust], "libLLVM.so"));
    paths.extend(machine::find(&[&rust], "librustc_driver-"));
    let mut group = criterion.benchmark_group("rows");
    group.sample_size(10);
    for path in paths {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(image) = ElfImage::parse(&bytes) else { continue };
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let mut rules = RuleDictionary::new();
        let Ok(rows) = compile(&image, &mut rules) else { continue };
        println!(
            "{name}: {} functions, {} rows, {:.3} bytes a row, {} rules, {} bytes of .eh_frame; gimli evaluates {} rows",
            rows.stats.fdes,
            rows.rows.len(),
            rows.byte_size() as f64 / rows.rows.len() as f64,
            rules.len(),
            rows.stats.eh_frame_bytes,
            gimli_scan(&image)
        );
        let (ours, gimli) = best_times(&image);
        println!(
            "{name}: best of {RUNS} alternating runs: compile {:.2} ms ({:.1} M rows/s), gimli scan {:.2} ms: {:.2} of it",
            ours.as_secs_f64() * 1e3,
            rows.rows.len() as f64 / ours.as_secs_f64() / 1e6,
            gimli.as_secs_f64() * 1e3,
            ours.as_secs_f64() / gimli.as_secs_f64(),
        );
        group.throughput(Throughput::Elements(rows.rows.len() as u64));
        group.bench_with_input(BenchmarkId::new("compile", &name), &image, |bencher, image| {
            bencher.iter(|| compile(image, &mut RuleDictionary::new()));
        });
        group.bench_with_input(BenchmarkId::new("gimli scan", &name), &image, |bencher, image| {
            bencher.iter(|| gimli_scan(image));
        });
    }
    group.finish();
}

criterion_group!(benches, build);
criterion_main!(benches);
