//! A virtual machine that boots a kernel, prints to a file and powers itself off.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use profiler_integration::children;

use crate::error::Error;
use crate::favour;
use crate::packages::Processor;

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
    /// What to emulate.
    pub processor: Processor,
    /// How long at most.
    pub patience: Duration,
}

/// Boots and waits for the end.
///
/// Always emulated: a `/dev/kvm` that answers but does not work exists, and qemu does not fall back from it.
///
/// # Errors
/// There is no qemu, or the guest does not end.
pub fn boot(boot: &Boot<'_>) -> Result<(), Error> {
    let (program, machine, console) = match boot.processor {
        Processor::X86 => ("qemu-system-x86_64", &["-cpu", "max", "-m", "2048"][..], "ttyS0"),
        // Signs return addresses, in a way that is cheap to emulate.
        Processor::Arm64 => {
            ("qemu-system-aarch64", &["-M", "virt", "-cpu", "max,pauth-impdef=on", "-m", "1024"][..], "ttyAMA0")
        }
    };
    let mut qemu = Command::new(program);
    qemu.args(["-accel", "tcg", "-smp", "2"]).args(machine);
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    qemu.arg("-serial").arg(format!("file:{}", boot.log.display()));
    // A panic reboots, which ends qemu. No lines of the kernel's shall come between those of the guest's script.
    qemu.arg("-append").arg(format!("console={console} panic=-1 quiet loglevel=4 {}", boot.parameters));
    qemu.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initramfs);
    let running = match boot.processor {
        // A guest that does not get its CPUs in time misses ticks of its clock, which looks as if the profiler lost samples.
        Processor::X86 => favour::start(&qemu)?,
        // Its samples are not counted against time.
        Processor::Arm64 => children::start(&mut qemu)?,
    };
    match running.wait(boot.patience) {
        Ok(finished) if finished.status.success() => Ok(()),
        Ok(finished) => Err(Error::Emulator { status: finished.status.to_string(), output: finished.stderr }),
        Err(profiler_integration::Error::Timeout { seconds, .. }) => {
            Err(Error::Hangs { seconds, log: boot.log.into() })
        }
        Err(error) => Err(error.into()),
    }
}
