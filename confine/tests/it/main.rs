//! What a confined thread can and cannot do any more, against this machine's kernel.

mod calls;
mod capabilities;
mod files;

use profiler_confine::{Report, Rights};

/// What `work` makes of a thread that is confined to `rights`.
fn confined<T: Send + 'static>(rights: Rights, work: impl FnOnce(&Report) -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let report = profiler_confine::thread(&rights);
        work(&report)
    });
    thread.join().expect("the confined thread")
}

/// Of the calling thread, as the kernel has it.
fn status(key: &str) -> String {
    let text = std::fs::read_to_string("/proc/thread-self/status").expect("a status");
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
    value.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}
