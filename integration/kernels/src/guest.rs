//! What every machine of the matrix gets: the profiler, a shell, the steps and the programs that it records.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;
use profiler_integration::environment::{repository, target_folder};
use profiler_integration::programs::{self, Linking};

use crate::error::Error;
use crate::image::File;
use crate::packages::{Packages, Processor};

/// Patience with cargo, which builds the whole profiler where nothing is built yet.
const PATIENCE: Duration = Duration::from_secs(1200);

/// All files of a machine.
///
/// # Errors
/// A program cannot be built, or the profiler is not static.
pub fn files(packages: &Packages, profiler: &Path) -> Result<Vec<File>, Error> {
    check_static(profiler)?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let without = packages.folder().join("without_sys_admin");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-o"]).arg(&without).arg(here.join("without_sys_admin.c"));
    children::run_well(&mut gcc, Duration::from_secs(60))?;
    // The guest has no libraries.
    let c = programs::c("shares").linking(Linking::Static).build()?;
    let cpp = programs::cpp("shares").linking(Linking::Static).flags(&["-std=c++17"]).build()?;
    let rust = programs::rust("shares").flags(&["-C", "target-feature=+crt-static"]).build()?;
    let syscalls = programs::c("syscalls").linking(Linking::Static).build()?;
    let go = programs::go("shares").build()?;
    let files = [
        ("init", here.join("init")),
        ("steps", here.join("steps")),
        ("bin/busybox", packages.busybox(Processor::X86)?),
        ("bin/profiler", profiler.to_owned()),
        ("bin/kernel-check", kernel_check()?),
        ("bin/without_sys_admin", without),
        ("programs/c", c),
        ("programs/cpp", cpp),
        ("programs/rust", rust),
        ("programs/syscalls", syscalls),
        ("programs/go", go),
    ];
    Ok(files.into_iter().map(|(path, from): (&str, PathBuf)| File { path: path.into(), from }).collect())
}

/// All files of an arm64 guest: the BPF object and a loader of its own, in C, since the profiler itself is x86-64's.
///
/// # Errors
/// The loader cannot be built.
pub fn arm64_files(packages: &Packages) -> Result<Vec<File>, Error> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let object = packages.folder().join("profiler_arm64.o");
    fs::write(&object, profiler_bpf::OBJECT_ARM64).map_err(Error::file("write", &object))?;
    let walk = packages.folder().join("walk");
    let mut gcc = Command::new("aarch64-linux-gnu-gcc");
    gcc.args(["-O2", "-Wall", "-Werror", "-fno-omit-frame-pointer", "-mbranch-protection=pac-ret", "-static"]);
    gcc.arg("-I").arg(packages.tool(Processor::Arm64, "libbpf-dev")?.join("usr/include"));
    gcc.arg("-I").arg(repository().join("bpf/src/bpf")).arg(here.join("arm64/walk.c")).arg("-o").arg(&walk);
    for (package, library) in [("libbpf-dev", "libbpf.a"), ("libelf-dev", "libelf.a"), ("zlib1g-dev", "libz.a")] {
        let tree = packages.tool(Processor::Arm64, package)?;
        gcc.arg(tree.join("usr/lib/aarch64-linux-gnu").join(library));
    }
    children::run_well(&mut gcc, Duration::from_secs(60))?;
    let files = [
        ("init", here.join("init")),
        ("steps", here.join("steps")),
        ("bin/busybox", packages.busybox(Processor::Arm64)?),
        ("bin/walk", walk),
        ("profiler.o", object),
    ];
    Ok(files.into_iter().map(|(path, from): (&str, PathBuf)| File { path: path.into(), from }).collect())
}

/// A program that asks for a dynamic linker does not even start in the guest.
fn check_static(profiler: &Path) -> Result<(), Error> {
    let remedy = "scripts/build makes the static one";
    let guest = |problem| Error::Guest { path: profiler.into(), problem, remedy };
    let bytes = fs::read(profiler).map_err(|_| guest("cannot be read"))?;
    // The path of the linker stands near the file's start, in PT_INTERP.
    let head = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    if head.windows(8).any(|window| window == b"ld-linux") {
        return Err(guest("is dynamically linked"));
    }
    Ok(())
}

/// The static kernel-check, built as `scripts/build` builds the profiler: with the same flags, so that it shares what that
/// has built.
fn kernel_check() -> Result<PathBuf, Error> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut flags = "-C target-feature=+crt-static".to_owned();
    // Some distributions build libelf with zstd.
    let libelf =
        children::run_well(Command::new("gcc").arg("-print-file-name=libelf.a"), Duration::from_secs(30))?.stdout;
    let symbols = children::run_well(Command::new("nm").arg(libelf.trim()), Duration::from_secs(30))?.stdout;
    if symbols.contains(" U ZSTD_") {
        flags.push_str(" -C link-arg=-lzstd");
    }
    eprintln!("building kernel-check");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--quiet", "-p", "profiler-kernels", "--bin", "kernel-check"]);
    cargo.args(["--features", "static", "--target", &triple]).current_dir(repository());
    cargo.env("RUSTFLAGS", format!("{} {flags}", std::env::var("RUSTFLAGS").unwrap_or_default()));
    children::run_well(&mut cargo, PATIENCE)?;
    Ok(target_folder().join(triple).join("release/kernel-check"))
}
