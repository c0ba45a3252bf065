//! File formats by name and extension.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    str::FromStr,
};

use profiler_model::{Measured, Profiles};
use profiler_page as html;

use crate::{error::Error as ReadError, firefox, folded, otlp, pprof, speedscope, svg, wire};

/// A format that a profile can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// Gzipped pprof.
    Pprof,
    /// One OTLP `ExportProfilesServiceRequest`, protobuf.
    Otlp,
    /// The same in JSON, on one line.
    OtlpJson,
    /// Folded stacks: one line a stack.
    Folded,
    /// Flame graph by inferno.
    Svg,
    /// Self-contained interactive page.
    Html,
    /// speedscope JSON.
    Speedscope,
    /// Firefox Profiler, gzipped JSON.
    Firefox,
}

/// Names (for `-f`) and file name endings.
const FORMATS: &[(Format, &str, &[&str])] = &[
    (Format::Pprof, "pprof", &[".pb.gz", ".pprof", ".pb"]),
    (Format::Otlp, "otlp", &[".otlp"]),
    (Format::OtlpJson, "otlp-json", &[".otlp.json"]),
    (Format::Folded, "folded", &[".folded"]),
    (Format::Svg, "svg", &[".svg"]),
    (Format::Html, "html", &[".html"]),
    (Format::Speedscope, "speedscope", &[".speedscope.json"]),
    (Format::Firefox, "firefox", &[".json.gz"]),
];

/// A format that is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file name ends in nothing that is known.
    #[error("cannot tell the format of {path:?} from its name; name it *{extensions}, or say -f FORMAT ({names})",
        extensions = known_extensions(), names = known_names())]
    UnknownExtension {
        /// The path as given.
        path: String,
    },
    /// No format has this name.
    #[error("there is no format {name:?}; known are {names}", names = known_names())]
    UnknownName {
        /// The name as given.
        name: String,
    },
}

fn known_extensions() -> String {
    let all: Vec<_> = FORMATS.iter().flat_map(|(_, _, extensions)| extensions.iter().copied()).collect();
    all.join(", *")
}

fn known_names() -> String {
    let all: Vec<_> = FORMATS.iter().map(|(_, name, _)| *name).collect();
    all.join(", ")
}

impl Format {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|(format, ..)| *format)
    }

    /// The format that the end of `path` names, upper or lower case.
    pub fn from_path(path: &Path) -> Result<Self, Error> {
        let text = path.to_string_lossy();
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        FORMATS
            .iter()
            .find(|(.., extensions)| extensions.iter().any(|extension| name.ends_with(extension)))
            .map(|(format, ..)| *format)
            .ok_or_else(|| Error::UnknownExtension { path: text.into_owned() })
    }

    /// The ending that files of this format usually have, with its dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        let found = FORMATS.iter().find(|(format, ..)| *format == self);
        found.and_then(|(.., extensions)| extensions.first()).copied().unwrap_or("")
    }

    /// Whether [`read`] can read it.
    #[must_use]
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Pprof | Self::Otlp | Self::OtlpJson)
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        FORMATS
            .iter()
            .find(|(_, known, _)| known.eq_ignore_ascii_case(name))
            .map(|(format, ..)| *format)
            .ok_or_else(|| Error::UnknownName { name: name.to_owned() })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = FORMATS.iter().find(|(format, ..)| format == self);
        f.write_str(found.map_or("", |(_, name, _)| name))
    }
}

/// What a format with room for one sample type shows of `profile` where nobody chooses.
pub(crate) fn shown_first(profile: &Profiles) -> Measured<'_> {
    // There is always one, even of a profile of nothing.
    let mut all = profile.measured();
    let first = profile.shown_first().min(all.len().saturating_sub(1));
    all.swap_remove(first)
}

/// Writes `profile` to `out` and flushes it; buffers on the way. The only errors are those of `out`, untouched.
pub fn write(profile: &Profiles, format: Format, out: impl Write) -> io::Result<()> {
    write_shown(profile, &shown_first(profile), format, out)
}

/// As [`write()`], with a choice of what is shown in formats that have room for one sample type, and opened first by speedscope.
pub fn write_shown(profile: &Profiles, shown: &Measured<'_>, format: Format, out: impl Write) -> io::Result<()> {
    let mut buffered = io::BufWriter::with_capacity(64 << 10, out);
    let out = &mut buffered;
    match format {
        Format::Pprof => pprof::encode(profile, out),
        Format::Otlp => otlp::encode_to(profile, out),
        Format::OtlpJson => otlp::encode_json_to(profile, out),
        Format::Folded => folded::encode_by(profile, shown, folded::Root::Process, out),
        Format::Svg => svg::encode_shown(profile, shown, out),
        Format::Html => html::encode(profile, out),
        Format::Speedscope => speedscope::encode_shown(profile, shown, out),
        Format::Firefox => firefox::encode_shown(profile, shown, out),
    }?;
    buffered.flush()
}

/// Reads a pprof or OTLP profile (protobuf or JSON), raw or gzipped; which of them, the bytes say.
pub fn read(bytes: &[u8]) -> Result<Profiles, ReadError> {
    let raw = wire::decompressed(bytes)?;
    // No protobuf begins like this: it would be a group, which none of the formats has.
    let text = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&raw).trim_ascii_start();
    if text.starts_with(b"{") && (text.len() == raw.len() || wire::fields(&raw, "profile").any(|field| field.is_err()))
    {
        return otlp::decode_json_raw(text);
    }
    // Both are protobuf. Every pprof file has a string table, field 6; an OTLP request has the fields 1 and 2.
    let (mut highest, mut any) = (0, false);
    for field in wire::fields(&raw, "profile") {
        let Ok((number, _)) = field else { return Err(ReadError::Unrecognized) };
        highest = highest.max(number);
        any = true;
    }
    match highest {
        1 | 2 => otlp::decode_raw(&raw),
        _ if any => pprof::decode_raw(&raw),
        _ => Err(ReadError::Unrecognized),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_name_formats() {
        let known = [
            ("a.pb.gz", Format::Pprof),
            ("dir.svg/a.pprof", Format::Pprof),
            ("a.PB", Format::Pprof),
            ("a.otlp", Format::Otlp),
            ("a.otlp.json", Format::OtlpJson),
            ("a.folded", Format::Folded),
            ("a.svg", Format::Svg),
            ("a.html", Format::Html),
            ("a.speedscope.json", Format::Speedscope),
            ("a.json.gz", Format::Firefox),
        ];
        for (path, format) in known {
            assert_eq!(Format::from_path(Path::new(path)), Ok(format), "{path}");
        }
    }

    #[test]
    fn an_unknown_extension_lists_the_known_ones() {
        for path in ["a.txt", "a", "", "a.json", "/"] {
            let error = Format::from_path(Path::new(path)).unwrap_err().to_string();
            for (_, name, extensions) in FORMATS {
                assert!(error.contains(name), "{error}");
                assert!(extensions.iter().all(|extension| error.contains(extension)), "{error}");
            }
        }
    }

    #[test]
    fn every_name_reads_back() {
        for format in Format::all() {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert_eq!(Format::from_path(Path::new(&format!("x{}", format.extension()))), Ok(format));
        }
        assert!("flamegraph".parse::<Format>().unwrap_err().to_string().contains("speedscope"));
    }

    #[test]
    fn what_is_no_profile_is_not_recognized() {
        for bytes in [&b""[..], b"hello world, not a profile", &[0x1f, 0x8b, 8, 0]] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
