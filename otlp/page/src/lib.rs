//! A profile as one HTML file: an interactive viewer and the data it shows, with nothing to fetch.
//!
//! The page is the viewer of `otlp/page/viewer` (script and style sheet, checked in as built) around one block of data: the
//! profile as a prefix tree of frames (`tree`), packed into columns (`pack`), compressed with gzip and written as
//! base64. No name of the profile is ever written as HTML: the alphabet of base64 has no character that HTML knows, and
//! the viewer puts text on the page as text. The page's content security policy, which names the two blocks it may run
//! by their hashes and forbids every other source, holds even where that were to fail.
#![forbid(unsafe_code)]

mod pack;
mod tree;

use std::io::{self, Write};

use base64::engine::general_purpose::STANDARD;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use base64::write::EncoderWriter;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use profiler_model::Profiles;

const SCRIPT: &str = include_str!("../viewer/dist/viewer.js");
const STYLE: &str = include_str!("../viewer/dist/viewer.css");
const ICON: &str = concat!(
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' ",
    "rx='3' fill='%23243b6b'/%3E%3Crect x='2' y='3' width='12' height='2.6' fill='%237fa8ee'/%3E%3Crect x='2' y='6.7' ",
    "width='8.5' height='2.6' fill='%23f2a65a'/%3E%3Crect x='2' y='10.4' width='4' height='2.6' fill='%23ee7d62'/%3E%3C/svg%3E"
);

/// Writes `profile` as one self-contained HTML page.
///
/// The same profile gives the same bytes. The page needs a browser of 2023 or newer and no network.
///
/// # Errors
///
/// Those of `out`; [`io::ErrorKind::InvalidData`] if the profile refers to entries of its tables that are not there, or has
/// more than `u32::MAX` distinct frames.
pub fn encode(profile: &Profiles, mut out: impl Write) -> io::Result<()> {
    let script = format!("\n{SCRIPT}");
    let style = format!("\n{STYLE}");
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src '{}'; style-src '{}'; \
         img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>Profiles</title>\n<link rel=\"icon\" href=\"{ICON}\">\n<style>{style}</style>\n</head>\n<body>\n\
         <div id=\"app\"><p class=\"opening\" role=\"status\">Opening the profile…</p></div>\n\
         <noscript>This profile is drawn by the script inside this file; allow JavaScript for it to see it.</noscript>\n\
         <script type=\"application/octet-stream\" id=\"profile\">",
        source_hash(&script),
        source_hash(&style),
    )?;
    let mut encoder = EncoderWriter::new(&mut out, &STANDARD);
    // Level 6 costs half the time of 9 and gains all but one or two percent of it.
    let mut gzip = GzEncoder::new(&mut encoder, Compression::new(6));
    pack::write(profile, &mut gzip)?;
    gzip.finish()?;
    encoder.finish()?;
    drop(encoder);
    write!(out, "</script>\n<script>{script}</script>\n</body>\n</html>\n")?;
    out.flush()
}

/// The hash of an inline script or style sheet as a content security policy writes it.
fn source_hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[cfg(test)]
mod tests;
