//! The machine and the recording, as text for people.

use profiler_model::Origin;
use profiler_unwinders::process::host;

/// This host, sampled at `frequency` Hz; `target` says in words what was sampled.
#[must_use]
pub fn origin(frequency: u64, target: String) -> Origin {
    Origin {
        host_name: host::hostname(),
        kernel_release: host::kernel_release(),
        arch: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        cpus: profiler_bpf::online_cpus().map_or(0, |cpus| cpus.len() as u32),
        frequency: u32::try_from(frequency).unwrap_or(u32::MAX),
        target,
        producer: concat!("profiler ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
