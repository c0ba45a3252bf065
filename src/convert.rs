//! `profiler convert`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use profiler_formats::format::{self, Format};
use profiler_model::Profiles;

use crate::output::{Named, Output, human_bytes};
use crate::rules::Edits;
use crate::{exit, shown};

/// Larger inputs are refused: no profile that a person made is larger, and it has to fit memory.
const MAX_INPUT: u64 = 2 << 30;

/// The profile in the file at `input`, of any format that can be read.
pub fn read(input: &Path) -> anyhow::Result<Profiles> {
    let cannot = || format!("cannot read {}", shown::path(input));
    let mut bytes = Vec::new();
    File::open(input).and_then(|file| file.take(MAX_INPUT + 1).read_to_end(&mut bytes)).with_context(cannot)?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_INPUT, "{}: it has more than {}", cannot(), human_bytes(MAX_INPUT));
    format::read(&bytes).with_context(cannot)
}

/// Reads `input`, edits it by `rules` and writes it to each of `outputs`; `sample_type` names what formats with room for one show.
pub fn run(
    input: &Path,
    outputs: &[PathBuf],
    format: Option<Format>,
    sample_type: Option<&str>,
    rules: &Edits,
) -> anyhow::Result<()> {
    let prepared =
        outputs.iter().map(|path| Output::prepare(path, format, Named::ByUser)).collect::<anyhow::Result<Vec<_>>>()?;
    let profile = rules.apply(read(input)?)?;
    let shown = profile.shown(sample_type).map_err(exit::usage)?;
    for output in prepared {
        // Ctrl-C ends this process.
        let written = output.write(&profile, &shown, &|| false)?;
        written.tell();
    }
    rules.tell_filtered(&profile);
    Ok(())
}
