//! The page `/status`: what each process of the profiler may still do, by the kernel's own word and at the time of asking. What
//! changed on the host is added by whoever detects it.

use std::fmt::Write;

use crate::confinement::Confined;
use crate::shown;

pub(super) fn page(confined: &[Confined]) -> String {
    let mut page = format!("profiler {}\n\nConfinement\n", env!("CARGO_PKG_VERSION"));
    for Confined { name, of, pid, report } in confined {
        let of = of.as_ref().map(|of| format!(" of {}", shown::one_line(of))).unwrap_or_default();
        let who = pid.map_or("thread of the agent".to_owned(), |pid| format!("pid {pid}"));
        let _ = writeln!(page, "\n{name}{of}, {who}\n  given up after the start: {report}");
        for refused in report.refused() {
            let _ = writeln!(page, "  REFUSED by the kernel or the container: {refused}");
        }
        // Threads are told with their process.
        let Some(pid) = pid else { continue };
        match profiler_confine::threads(*pid) {
            Ok(groups) => {
                for group in groups {
                    let _ = writeln!(page, "  now, {}: {group}", group.names.join(", "));
                }
            }
            Err(error) => {
                let _ = writeln!(page, "  now: /proc/{pid}: {error}");
            }
        }
    }
    page
}
