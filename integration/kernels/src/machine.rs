//! A virtual machine that boots a kernel, prints to a file and powers itself off.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;

use crate::error::Error;

/// Patience with a guest, which needs about 50 s on two cores.
const PATIENCE: Duration = Duration::from_secs(400);

/// What to boot.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The kernel's image.
    pub kernel: &'a Path,
    /// Its only file system.
    pub initramfs: &'a Path,
    /// Added to the kernel's command line.
    pub parameters: &'a str,
    /// Where to write what the serial console prints.
    pub log: &'a Path,
}

/// Boots and waits for the end.
///
/// Always emulated: a `/dev/kvm` that answers but does not work exists, and qemu does not fall back from it.
///
/// # Errors
/// There is no qemu, or the guest does not end.
pub fn boot(boot: &Boot<'_>) -> Result<(), Error> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", boot.log.display()));
    // A panic reboots, which ends qemu. No lines of the kernel's shall come between those of the guest's script.
    qemu.arg("-append").arg(format!("console=ttyS0 panic=-1 quiet loglevel=4 {}", boot.parameters));
    qemu.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initramfs);
    match children::run_well(&mut qemu, PATIENCE) {
        Err(profiler_integration::Error::Timeout { seconds, .. }) => {
            Err(Error::Hangs { seconds, log: boot.log.into() })
        }
        result => Ok(result.map(drop)?),
    }
}
