//! What the guest gets: the profiler, a shell, the script and the programs that it records.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;
use profiler_integration::programs::{self, Linking};

use crate::error::Error;
use crate::image::File;
use crate::packages;

/// All files of the initramfs; what is built is built below `folder`.
pub fn files(folder: &Path, profiler: &Path) -> Result<Vec<File>, Error> {
    check_static(profiler)?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let without = folder.join("without_sys_admin");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-o"]).arg(&without).arg(here.join("without_sys_admin.c"));
    children::run_well(&mut gcc, Duration::from_secs(60))?;
    // The guest has no libraries.
    let c = programs::c("shares").linking(Linking::Static).build()?;
    let cpp = programs::cpp("shares").linking(Linking::Static).flags(&["-std=c++17"]).build()?;
    let syscalls = programs::c("syscalls").linking(Linking::Static).build()?;
    let go = programs::go("shares").build()?;
    let files = [
        ("init", here.join("init")),
        ("bin/busybox", packages::busybox(folder)?),
        ("bin/profiler", profiler.to_owned()),
        ("bin/without_sys_admin", without),
        ("programs/c", c),
        ("programs/cpp", cpp),
        ("programs/syscalls", syscalls),
        ("programs/go", go),
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
