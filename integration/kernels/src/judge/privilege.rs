//! What a kernel that refuses something is told to say: one sentence, with the way out.

use profiler_integration::rows::total;
use profiler_integration::verdict::verdict;

use super::{COMPLETE, all_rows, in_the_kernel, recorded, require, step, ticks};
use crate::table::Column;
use crate::transcript::Steps;

pub(super) fn assertions(column: &mut Column, steps: &Steps) -> Result<(), String> {
    let [two, three] = paranoid(steps)?;
    column.fact("Without CAP_SYS_ADMIN, paranoid 2 / 3", format!("{two} / {three}"));
    column.fact("No BTF in the kernel", without_btf(steps)?);
    column.fact("The same with --btf", btf_file(steps)?);
    if steps.steps.contains_key("lockdown") {
        column.fact("lockdown=confidentiality", lockdown(steps)?);
    }
    Ok(())
}

/// Without CAP_SYS_ADMIN at paranoid 2 and 3: recorded, or refused in words that name the way out.
fn paranoid(steps: &Steps) -> Result<[&'static str; 2], String> {
    let mut results = [""; 2];
    for (result, name) in results.iter_mut().zip(["paranoid2", "paranoid3"]) {
        let step = step(steps, name)?;
        *result = if step.status == 0 {
            let samples = total(&all_rows(step, name)?);
            require(samples > 20, || format!("{name}: {samples} samples"))?;
            "records"
        } else {
            let says = ["kernel.perf_event_paranoid is 3", "CAP_SYS_ADMIN", "sysctl kernel.perf_event_paranoid=2"];
            require(name == "paranoid3" && says.iter().all(|words| step.stderr.contains(words)), || {
                format!("{name}: refused with {}, in these words: {}", step.status, step.stderr)
            })?;
            "refused, told why"
        };
    }
    Ok(results)
}

/// A kernel that shows no BTF: refused, in words that name what it lacks and what to give.
fn without_btf(steps: &Steps) -> Result<&'static str, String> {
    for (name, says) in [
        ("no_btf", ["CONFIG_DEBUG_INFO_BTF", "give a BTF file with --btf"]),
        ("no_btf_doctor", ["CONFIG_DEBUG_INFO_BTF", "profiler record --btf FILE"]),
    ] {
        let step = step(steps, name)?;
        let text = format!("{}{}", step.stdout, step.stderr);
        require(step.status != 0 && says.iter().all(|words| text.contains(words)), || {
            format!("{name}: status {}, in these words: {text}", step.status)
        })?;
    }
    Ok("refused, told why")
}

/// There, a file with the kernel's BTF does.
fn btf_file(steps: &Steps) -> Result<&'static str, String> {
    let (rows, mut truth) = recorded(steps, "btf_file")?;
    ticks("btf_file", &rows, &truth, 199)?;
    truth.is_partial = true;
    let found = verdict(&rows, &truth, 199, COMPLETE, |_| false);
    require(found.problems.is_empty() || found.is_noise_perhaps(), || {
        format!("btf_file: {}\n  {}", found.summary(), found.problems.join("\n  "))
    })?;
    in_the_kernel(&rows)?;
    Ok("records")
}

/// Locked down, the kernel lets no BPF program read its memory.
fn lockdown(steps: &Steps) -> Result<&'static str, String> {
    let level = step(steps, "lockdown")?;
    require(level.stdout.contains("[confidentiality]"), || format!("lockdown is {}", level.stdout))?;
    for name in ["lockdown_doctor", "lockdown_record", "lockdown_all"] {
        let step = step(steps, name)?;
        let text = format!("{}{}", step.stdout, step.stderr);
        require(
            step.status != 0 && ["confidentiality", "lockdown=integrity"].iter().all(|words| text.contains(words)),
            || format!("{name}: status {}, in these words: {text}", step.status),
        )?;
    }
    Ok("refused, told why")
}
