//! Events as users write them, and what of them works on this host.

use std::fmt::Write;

use profiler_bpf::{Error, MAX_SOURCES, Source, probe};
use profiler_config::nearest;
use profiler_measure::source::{NAMED, SourceError, event_names};

use crate::exit;
use crate::print::print;

/// The sources that `texts` name, `frequency` times a second where they say no rate; without any, the CPU's clock.
///
/// # Errors
/// There is no such event, an event is given twice, or there are too many.
pub fn sources(texts: &[String], frequency: u64) -> anyhow::Result<Vec<Source>> {
    if texts.is_empty() {
        return Ok(vec![Source::cpu_clock(frequency)]);
    }
    let mut sources: Vec<Source> = Vec::new();
    for text in texts {
        let source = Source::parse(text, frequency).map_err(|error| exit::usage(told(&error)))?;
        if sources.iter().any(|other| other.event == source.event) {
            return Err(exit::usage(Error::SourceTwice { event: source.event.to_string() }).into());
        }
        sources.push(source);
    }
    if sources.len() > MAX_SOURCES {
        return Err(exit::usage(Error::Sources { count: sources.len(), limit: MAX_SOURCES }).into());
    }
    Ok(sources)
}

/// The error with the way out.
fn told(error: &SourceError) -> String {
    let SourceError::Unknown(name) = error else { return error.to_string() };
    match nearest(name, event_names()) {
        Some(near) => format!("{error}; did you mean {near}? (`profiler record -e help` lists what works here)"),
        None => format!("{error}; `profiler record -e help` lists what works here"),
    }
}

/// Tries each event on this host and prints which work, and why others do not.
///
/// # Errors
/// Standard output takes nothing.
pub fn print_all() -> anyhow::Result<()> {
    let mut text =
        String::from("Write EVENT, EVENT@N for every N events, or EVENT@NHz for N samples a second and CPU.\n\n");
    let examples = [
        ("r003c@1000000", "a hardware event by its number, hexadecimal, as in the CPU's manual"),
        ("tracepoint:sched:sched_switch@1", "a tracepoint of the kernel, GROUP:NAME"),
    ];
    let named = NAMED.iter().map(|named| (named.name, named.meaning));
    for (name, meaning) in named.chain(examples) {
        // SANITY: all of these are read by a test.
        let Ok(source) = Source::parse(name, 1) else { continue };
        let (mark, why) = match probe(&source) {
            Ok(()) => ("ok     ", String::new()),
            Err(error) => ("MISSING", format!("\n           {}", cause(&error).replace('\n', "\n         "))),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{mark}  {name:<32} {meaning}{why}");
    }
    Ok(print(&text)?)
}

/// Why an event cannot be sampled, without saying again which.
fn cause(error: &Error) -> String {
    match error {
        Error::Event { source, hint, .. } => format!("{source}{hint}"),
        Error::Tracepoint { hint, .. } => hint.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(texts: &[&str]) -> String {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let error = sources(&texts, 99).unwrap_err();
        assert_eq!(error.downcast_ref::<exit::ExitError>().map(|error| error.code), Some(exit::USAGE));
        error.to_string()
    }

    #[test]
    fn a_slip_is_told_with_the_nearest_name() {
        assert!(wrong(&["page-fault"]).contains("did you mean page-faults?"));
        assert!(wrong(&["pagefaults@1"]).contains("did you mean page-faults?"));
        assert!(wrong(&["zzzzzzzz"]).contains("-e help"));
        assert!(wrong(&["page-faults", "page-faults@1"]).contains("twice"));
        assert!(wrong(&["page-faults@x"]).contains("EVENT@N"));
        let many: Vec<String> = (0..9).map(|at| format!("r{at}")).collect();
        assert!(wrong(&many.iter().map(String::as_str).collect::<Vec<_>>()).contains("1 to 8"));
    }

    #[test]
    fn without_an_event_it_is_the_clock() {
        assert_eq!(sources(&[], 49).unwrap(), [Source::cpu_clock(49)]);
    }
}
