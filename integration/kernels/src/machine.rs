//! A virtual machine that boots a kernel, prints to a file and powers itself off.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;

use crate::error::Error;

/// Patience with a guest, which needs about 40 s on two cores.
const PATIENCE: Duration = Duration::from_secs(400);

/// Boots `kernel` with `initramfs` and writes what the serial console prints to `log`.
///
/// Always emulated: a `/dev/kvm` that answers but does not work exists, and qemu does not fall back from it.
pub fn boot(kernel: &Path, initramfs: &Path, log: &Path) -> Result<(), Error> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", log.display()));
    // A panic reboots, which ends qemu. No lines of the kernel's shall come between those of the guest's script.
    qemu.args(["-append", "console=ttyS0 panic=-1 quiet loglevel=4"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    match children::run_well(&mut qemu, PATIENCE) {
        Err(profiler_integration::Error::Timeout { seconds, .. }) => Err(Error::Hangs { seconds, log: log.into() }),
        result => Ok(result.map(drop)?),
    }
}
