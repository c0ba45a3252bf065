//! `cargo xtask`: tasks of the repository that are more than a script. See [`profiler_kernels`].
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use profiler_integration::environment::{repository, target_folder};
use profiler_kernels::machine::{self, Boot};
use profiler_kernels::packages::{self, RELEASES, Release};
use profiler_kernels::table::{self, Column};
use profiler_kernels::{Error, bundle, guest, image, judge, transcript};

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
    /// Lay out in target/kernels/bundle what the machines of vagrant/ need
    Bundle(Bundle),
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

#[derive(Args)]
struct Bundle {
    /// The static profiler to test; see scripts/build
    #[arg(long, value_name = "FILE", env = "PROFILER_BIN")]
    profiler: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Kernels(options) => kernels(&options),
        Task::Bundle(options) => lay_out(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::from(2)
        }
    }
}

/// Where everything of the matrix is, and the profiler to test.
fn places(profiler: Option<&PathBuf>) -> Result<(PathBuf, PathBuf), Error> {
    let folder = target_folder().join("kernels");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    Ok((folder, profiler.cloned().unwrap_or_else(|| repository().join("target/release/profiler"))))
}

fn lay_out(options: &Bundle) -> Result<bool, Error> {
    let (folder, profiler) = places(options.profiler.as_ref())?;
    let bundle = folder.join("bundle");
    bundle::write(&bundle, &guest::files(&folder, &profiler)?)?;
    println!("{}", bundle.display());
    Ok(true)
}

/// True if every kernel passed.
fn kernels(options: &Kernels) -> Result<bool, Error> {
    let known: Vec<&str> = RELEASES.iter().map(|release| release.name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !known.contains(&only.as_str())) {
        return Err(Error::UnknownKernel { name: unknown.clone(), known: known.join(", ") });
    }
    let (folder, profiler) = places(options.profiler.as_ref())?;
    let initramfs = folder.join("initramfs.cpio");
    image::write(&initramfs, &guest::files(&folder, &profiler)?)?;

    let mut columns = Vec::new();
    for release in RELEASES {
        if options.only.is_empty() || options.only.iter().any(|only| only == release.name) {
            let column = prove(release, &folder, &initramfs, options.keep_log)
                .unwrap_or_else(|error| Column::failed(release.name, &error));
            eprintln!("{}", column.verdict());
            columns.push(column);
        }
    }
    print!("{}", table::markdown(&columns.iter().collect::<Vec<_>>()));
    Ok(columns.iter().all(|column| column.failure.is_none()))
}

/// Boots one kernel, as it is and locked down, and judges what it printed.
fn prove(release: &Release, folder: &Path, initramfs: &Path, keep_log: bool) -> Result<Column, Error> {
    let kernel = packages::kernel(folder, release)?;
    eprintln!("{}: booting {}", release.name, kernel.version);
    let log = |boot: &str| folder.join(format!("{}{boot}.log", release.name));
    let results = |boot: &str| folder.join("results").join(format!("{}{boot}", release.name));
    let boot = |suffix: &str, parameters: &str| {
        let log = log(suffix);
        machine::boot(&Boot { kernel: &kernel.image, initramfs, parameters, log: &log })?;
        transcript::read(&log, &results(suffix))
    };
    let mut steps = boot("", "steps=all")?;
    steps.add(boot("-lockdown", "steps=lockdown lockdown=confidentiality")?);
    let mut column = judge::judge(release.name, &kernel.version, &steps);
    if column.failure.is_some() || keep_log {
        column.log = Some(log(""));
    } else {
        for log in [log(""), log("-lockdown")] {
            fs::remove_file(&log).map_err(Error::file("remove", &log))?;
        }
    }
    Ok(column)
}
