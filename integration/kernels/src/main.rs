//! `cargo xtask kernels`: the real profiler, on every kernel that is promised, with assertions on its stacks.
//!
//! Kernels are Debian's cloud kernels, in the versions that its mirrors have today ([`packages`]). Each boots in qemu from an
//! initramfs ([`image`], [`machine`]) with the static `profiler`, programs that know the truth about themselves, and a shell
//! script (`guest/init`) that records them. The script prints what was recorded on the serial console ([`transcript`]), and
//! it is judged here ([`judge`]) as the tests of `profiler-integration` judge recordings of the host.
//!
//! Not here: emulated hardware counters (qemu has none), other distributions' kernels, other architectures.
#![forbid(unsafe_code)]

mod error;
mod guest;
mod image;
mod judge;
mod machine;
mod packages;
mod table;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use profiler_integration::environment::{repository, target_folder};

use crate::error::Error;
use crate::packages::{RELEASES, Release};
use crate::table::Line;

/// Tasks of the repository that are more than a script.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Boot the promised kernels in qemu and prove the profiler's stacks on each
    Kernels(Kernels),
}

#[derive(Args)]
struct Kernels {
    /// Only this kernel (5.10, 6.1, 6.12, sid); may be repeated
    #[arg(long, value_name = "KERNEL")]
    only: Vec<String>,
    /// Keep the logs of kernels that passed too
    #[arg(long)]
    keep_log: bool,
    /// The static profiler to test; see scripts/build
    #[arg(long, value_name = "FILE", env = "PROFILER_BIN")]
    profiler: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Task::Kernels(options) = Cli::parse().task;
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernels: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if every kernel passed.
fn run(options: &Kernels) -> Result<bool, Error> {
    let known: Vec<&str> = RELEASES.iter().map(|release| release.name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !known.contains(&only.as_str())) {
        return Err(Error::UnknownKernel { name: unknown.clone(), known: known.join(", ") });
    }
    let profiler = options.profiler.clone().unwrap_or_else(|| repository().join("target/release/profiler"));
    let folder = target_folder().join("kernels");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let initramfs = folder.join("initramfs.cpio");
    image::write(&initramfs, &guest::files(&folder, &profiler)?)?;

    let mut lines = Vec::new();
    for release in RELEASES {
        if options.only.is_empty() || options.only.iter().any(|only| only == release.name) {
            let line = prove(release, &folder, &initramfs, options.keep_log)
                .unwrap_or_else(|error| Line::failed(release.name, &error));
            eprintln!("{}", line.verdict());
            lines.push(line);
        }
    }
    print!("{}", table::markdown(&lines));
    Ok(lines.iter().all(|line| line.failure.is_none()))
}

/// Boots one kernel and judges what it printed.
fn prove(release: &Release, folder: &Path, initramfs: &Path, keep_log: bool) -> Result<Line, Error> {
    let kernel = packages::kernel(folder, release)?;
    eprintln!("{}: booting {}", release.name, kernel.version);
    let log = folder.join(format!("{}.log", release.name));
    machine::boot(&kernel.image, initramfs, &log)?;
    let results = folder.join("results").join(release.name);
    let steps = transcript::read(&log, &results)?;
    let mut line = judge::judge(release.name, &kernel.version, &steps);
    if line.failure.is_some() || keep_log {
        line.log = Some(log);
    } else {
        fs::remove_file(&log).map_err(Error::file("remove", &log))?;
    }
    Ok(line)
}
