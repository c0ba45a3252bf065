//! The page `/status`: what each process of the profiler may still do, by the kernel's own word and at the time of asking. What
//! changed on the host is added by whoever detects it.

use std::fmt::Write;

use crate::confinement::Confined;

pub(super) fn page(confined: &[Confined]) -> String {
    let mut page = format!("profiler {}\n\nConfinement\n", env!("CARGO_PKG_VERSION"));
    for Confined { name, pid, report } in confined {
        let _ = writeln!(page, "\n{name}, pid {pid}\n  given up after the start: {report}");
        for refused in report.refused() {
            let _ = writeln!(page, "  REFUSED by the kernel or the container: {refused}");
        }
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
