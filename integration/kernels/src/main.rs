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
    let mut unreachable = 0;
    let mut tables = Vec::new();
    thread::scope(|scope| {
        // While one kernel runs, the next ones are fetched, in the same order.
        let order: Vec<&Release> = guests.iter().flat_map(|(releases, _)| releases.iter().copied()).collect();
        let (fetched, kernels) = mpsc::channel();
        let packages = &packages;
        scope.spawn(move || {
            for release in order {
                let _ = fetched.send(packages.kernel(release));
            }
        });
        for (releases, initramfs) in &guests {
            let mut columns = Vec::new();
            for (release, kernel) in releases.iter().zip(&kernels) {
                let matrix = Matrix { folder: packages.folder(), initramfs, keep_log: options.keep_log };
                let column = kernel.and_then(|kernel| matrix.prove(release, &kernel, until, options.minutes));
                let column = column.unwrap_or_else(|error| {
                    unreachable += usize::from(error.is_of_packages());
                    Column::failed(release.name, &error)
                });
                eprintln!("{}", column.verdict());
                columns.push(column);
            }
            tables.push(columns);
        }
    });
    for columns in &tables {
        println!("{}", table::markdown(&columns.iter().collect::<Vec<_>>()));
    }
    let failed = tables.iter().flatten().filter(|column| column.failure.is_some()).count();
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

/// What all kernels of a processor share.
struct Matrix<'a> {
    folder: &'a Path,
    initramfs: &'a Path,
    keep_log: bool,
}

impl Matrix<'_> {
    /// Tries one kernel, a second time if it failed: what disturbs a host for a moment passes, a fault stays.
    fn prove(&self, release: &Release, kernel: &Kernel, until: Instant, minutes: u64) -> Result<Column, Error> {
        let mut column = Column::default();
        for attempt in 1..=2 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return if attempt == 1 { Err(Error::NoTimeLeft { minutes }) } else { Ok(column) };
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

    /// Boots a kernel, as it is and locked down, and judges what it printed.
    fn attempt(&self, release: &Release, kernel: &Kernel, patience: Duration) -> Result<Column, Error> {
        let log = |boot: &str| self.folder.join(format!("{}{boot}.log", release.name));
        let results = |boot: &str| self.folder.join("results").join(format!("{}{boot}", release.name));
        let boot = |suffix: &str, parameters: &str| {
            let (log, processor) = (log(suffix), release.processor);
            let initramfs = self.initramfs;
            machine::boot(&Boot { kernel: &kernel.image, initramfs, parameters, log: &log, processor, patience })?;
            transcript::read(&log, &results(suffix))
        };
        let mut logs = vec![log("")];
        let mut column = match release.processor {
            Processor::X86 => {
                let mut steps = boot("", "steps=all")?;
                steps.add(boot("-lockdown", "steps=lockdown lockdown=confidentiality")?);
                logs.push(log("-lockdown"));
                judge::judge(release.name, &kernel.version, &steps)
            }
            Processor::Arm64 => judge::judge_arm64(release.name, &kernel.version, &boot("", "steps=arm64")?),
        };
        if column.failure.is_some() || self.keep_log {
            column.log = Some(log(""));
        } else {
            for log in logs {
                fs::remove_file(&log).map_err(Error::file("remove", &log))?;
            }
        }
        Ok(column)
    }
}
