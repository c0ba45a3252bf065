//! What the Resource of a process is made of, as the session knows it.

use profiler_resource::ProcessFacts;

use super::aggregate::Image;
use super::images::ImageFacts;

/// A process image that was just sampled for the first time; `comm` is its name as text.
#[must_use]
pub fn process_facts<'a>(image: &'a ImageFacts, comm: &'a str) -> ProcessFacts<'a> {
    ProcessFacts {
        pid: image.pid,
        start_time_ns: image.start_time_ns,
        image: image.serial,
        comm,
        exe: &image.exe,
        container_id: image.container_id.as_deref(),
        systemd_unit: image.systemd_unit.as_deref(),
        cgroup: image.cgroup.as_deref(),
        ..ProcessFacts::default()
    }
}

/// A process image of an aggregate, which may have ended since.
#[must_use]
pub fn sampled_facts<'a>(image: &'a Image, comm: &'a str) -> ProcessFacts<'a> {
    let executable = image.executable.as_deref();
    ProcessFacts {
        pid: image.pid,
        start_time_ns: image.start_time_ns,
        image: image.serial,
        comm,
        exe: &image.exe,
        container_id: image.container_id.as_deref(),
        cgroup: image.cgroup.as_deref(),
        build_id_gnu: executable.and_then(|executable| executable.build_id_gnu.as_deref()),
        build_id_go: executable.and_then(|executable| executable.build_id_go.as_deref()),
        build_id_htlhash: executable.and_then(|executable| executable.build_id_htlhash()),
        ..ProcessFacts::default()
    }
}
