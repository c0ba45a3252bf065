//! `cargo xtask`: tasks of the repository that are more than a script. See [`profiler_kernels`].
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use profiler_integration::environment::{repository, target_folder};
use profiler_kernels::archives::Archives;
use profiler_kernels::machine::{self, Boot};
use profiler_kernels::packages::{Kernel, Packages, Processor, RELEASES, Release};
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
    #[command(flatten)]
    sources: Sources,
    /// Only this kernel (5.10, 6.1, 6.12, sid, or one of these with -arm64); may be repeated
    #[arg(long, value_name = "KERNEL")]
    only: Vec<String>,
    /// Keep the logs of kernels that passed too
    #[arg(long)]
    keep_log: bool,
    /// For all kernels together
    #[arg(long, value_name = "N", default_value_t = 20)]
    minutes: u64,
    /// The static profiler to test; see scripts/build
    #[arg(long, value_name = "FILE", env = "PROFILER_BIN")]
    profiler: Option<PathBuf>,
}

/// Where packages come from; by default, where this machine's apt has them from.
#[derive(Args)]
struct Sources {
    /// The archive of Debian
    #[arg(long, value_name = "URI", env = "DEBIAN_ARCHIVE")]
    archive: Option<String>,
    /// The archive of Debian's security updates
    #[arg(long, value_name = "URI", env = "DEBIAN_SECURITY_ARCHIVE")]
    security_archive: Option<String>,
}

#[derive(Args)]
struct Bundle {
    #[command(flatten)]
    sources: Sources,
    /// The static profiler to test; see scripts/build
    #[arg(long, value_name = "FILE", env = "PROFILER_BIN")]
    profiler: Option<PathBuf>,
}

/// Exit code: packages could not be had, so that some kernels were not tried; all others passed.
const UNREACHABLE: u8 = 3;
/// Patience with one guest, which needs about a minute on two cores.
const PATIENCE: Duration = Duration::from_secs(400);

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Kernels(options) => kernels(&options),
        Task::Bundle(options) => lay_out(&options),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error}");
            ExitCode::from(if error.is_of_packages() { UNREACHABLE } else { 2 })
        }
    }
}

/// Packages, with the folder of everything that the matrix has, and the profiler to test.
fn places(sources: &Sources, profiler: Option<&PathBuf>) -> Result<(Packages, PathBuf), Error> {
    let folder = target_folder().join("kernels");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let given = Archives { main: sources.archive.clone(), security: sources.security_archive.clone() };
    let packages = Packages::new(&folder, Archives::find(given)?);
    Ok((packages, profiler.cloned().unwrap_or_else(|| repository().join("target/release/profiler"))))
}

fn lay_out(options: &Bundle) -> Result<ExitCode, Error> {
    let (packages, profiler) = places(&options.sources, options.profiler.as_ref())?;
    let bundle = packages.folder().join("bundle");
    let mut files = guest::files(&packages, &profiler)?;
    files.push(image::File { path: "profiler-matrix".into(), from: repository().join("vagrant/profiler-matrix") });
    bundle::write(&bundle, &files)?;
    println!("{}", bundle.display());
    Ok(ExitCode::SUCCESS)
}

fn kernels(options: &Kernels) -> Result<ExitCode, Error> {
    let known: Vec<&str> = RELEASES.iter().map(|release| release.name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !known.contains(&only.as_str())) {
        return Err(Error::UnknownKernel { name: unknown.clone(), known: known.join(", ") });
    }
    let (packages, profiler) = places(&options.sources, options.profiler.as_ref())?;
    let wanted = |release: &&Release| options.only.is_empty() || options.only.iter().any(|only| only == release.name);
    let mut guests = Vec::new();
    for processor in [Processor::X86, Processor::Arm64] {
        let releases: Vec<&Release> =
            RELEASES.iter().filter(wanted).filter(|release| release.processor == processor).collect();
        if !releases.is_empty() {
            guests.push((releases, initramfs(processor, &packages, &profiler)?));
        }
    }
    let until = Instant::now() + Duration::from_secs(options.minutes * 60);
    let packages = &packages;
    let matrix =
        |initramfs| Matrix { packages, initramfs, keep_log: options.keep_log, until, minutes: options.minutes };
    // The processors side by side: guests whose samples are counted go before the others (see `machine`), which take what those leave.
    let tables: Vec<Vec<Tried>> = thread::scope(|scope| {
        let running: Vec<_> = guests
            .iter()
            .map(|(releases, initramfs)| scope.spawn(move || matrix(initramfs).prove_all(releases)))
            .collect();
        running.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    for columns in &tables {
        println!("{}", table::markdown(&columns.iter().map(|tried| &tried.column).collect::<Vec<_>>()));
    }
    let failed = tables.iter().flatten().filter(|tried| tried.column.failure.is_some()).count();
    let unreachable = tables.iter().flatten().filter(|tried| tried.is_unreachable).count();
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ if failed == unreachable => ExitCode::from(UNREACHABLE),
        _ => ExitCode::FAILURE,
    })
}

fn initramfs(processor: Processor, packages: &Packages, profiler: &Path) -> Result<PathBuf, Error> {
    let (name, files) = match processor {
        Processor::X86 => ("initramfs.cpio", guest::files(packages, profiler)?),
        Processor::Arm64 => ("initramfs-arm64.cpio", guest::arm64_files(packages)?),
    };
    let path = packages.folder().join(name);
    image::write(&path, &files)?;
    Ok(path)
}

/// What came of a kernel.
struct Tried {
    column: Column,
    /// Its packages could not be had.
    is_unreachable: bool,
}

/// What all kernels of a processor share.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    packages: &'a Packages,
    initramfs: &'a Path,
    keep_log: bool,
    until: Instant,
    minutes: u64,
}

impl Matrix<'_> {
    /// Tries one after the other; while one runs, the next ones are fetched.
    fn prove_all(&self, releases: &[&Release]) -> Vec<Tried> {
        thread::scope(|scope| {
            let (fetched, kernels) = mpsc::channel();
            scope.spawn(move || {
                for release in releases {
                    let _ = fetched.send(self.packages.kernel(release));
                }
            });
            let prove = |(release, kernel): (&&Release, Result<Kernel, Error>)| {
                let column = kernel.and_then(|kernel| self.prove(release, &kernel));
                let is_unreachable = column.as_ref().is_err_and(Error::is_of_packages);
                let column = column.unwrap_or_else(|error| Column::failed(release.name, &error));
                eprintln!("{}", column.verdict());
                Tried { column, is_unreachable }
            };
            releases.iter().zip(kernels).map(prove).collect()
        })
    }

    /// Tries one kernel, a second time if it failed: what disturbs a host for a moment passes, a fault stays.
    fn prove(&self, release: &Release, kernel: &Kernel) -> Result<Column, Error> {
        let mut column = Column::default();
        for attempt in 1..=2 {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return if attempt == 1 { Err(Error::NoTimeLeft { minutes: self.minutes }) } else { Ok(column) };
            }
            eprintln!("{}: booting {}", release.name, kernel.version);
            column = self.attempt(release, kernel, left.min(PATIENCE))?;
            match &column.failure {
                Some(failure) if attempt == 1 => eprintln!("{}: again, for: {failure}", release.name),
                _ => break,
            }
        }
        Ok(column)
    }

    /// Boots a kernel and judges what it printed.
    fn attempt(&self, release: &Release, kernel: &Kernel, patience: Duration) -> Result<Column, Error> {
        let log = self.packages.folder().join(format!("{}.log", release.name));
        let results = self.packages.folder().join("results").join(release.name);
        let processor = release.processor;
        let parameters = match processor {
            Processor::X86 => "steps=all,lockdown",
            Processor::Arm64 => "steps=arm64",
        };
        machine::boot(&Boot {
            kernel: &kernel.image,
            initramfs: self.initramfs,
            parameters,
            log: &log,
            processor,
            patience,
        })?;
        let steps = transcript::read(&log, &results)?;
        let mut column = match processor {
            Processor::X86 => judge::judge(release.name, &kernel.version, &steps),
            Processor::Arm64 => judge::judge_arm64(release.name, &kernel.version, &steps),
        };
        if column.failure.is_some() || self.keep_log {
            column.log = Some(log);
        } else {
            fs::remove_file(&log).map_err(Error::file("remove", &log))?;
        }
        Ok(column)
    }
}
