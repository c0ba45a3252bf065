//! What is written reads back, whatever it is; what is damaged is refused without harm.

use std::io::{Read, Write};

use crate::profiles::{first, head, profile, samples};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use profiler_formats::{
    format::{self, Format},
    otlp, pprof,
};
use profiler_model::{Function, Line, Location, Sample, builder::ProfileBuilder};
use proptest::prelude::*;
use serde_json::Value;

/// What the page says at most in one number: what a JavaScript number holds exactly.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// The sum of what is shown first in the data of a page: the layout is `otlp/page/src/pack.rs`'s.
fn sum_of_page(page: &str) -> u64 {
    let block = page.split("id=\"profile\">").nth(1).unwrap().split('<').next().unwrap();
    let packed = BASE64_STANDARD.decode(block).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    let (length, rest) = bytes.split_first_chunk::<4>().unwrap();
    let (header, columns) = rest.split_at(u32::from_le_bytes(*length) as usize);
    let header: Value = serde_json::from_slice(header).unwrap();
    let mut numbers = vec![0_u64];
    let mut shift = 0;
    for byte in columns {
        *numbers.last_mut().unwrap() |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(0);
            shift = 0;
        }
    }
    let count = |of: &str| header["counts"][of].as_u64().unwrap() as usize;
    let before = 4 * count("functions") + 2 * count("frames") + 5 * count("places") + 2 * count("nodes");
    let rows = count("rows");
    let shown = before + (3 + header["shown"].as_u64().unwrap() as usize) * rows;
    numbers[shown..shown + rows].iter().sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn pprof_reads_back(profile in profile()) {
        let mut bytes = Vec::new();
        pprof::encode(&profile, &mut bytes).unwrap();
        let back = format::read(&bytes).unwrap();
        prop_assert_eq!(samples(&profile), samples(&back));
        prop_assert_eq!(head(&profile), head(&back));
        prop_assert!(profile.sample_entries() == 0 || first(&profile) == first(&back));
    }

    #[test]
    fn otlp_reads_back_and_keeps_all_rules(profile in profile()) {
        let bytes = otlp::encode(&profile);
        prop_assert_eq!(otlp::check(&bytes), vec![]);
        prop_assert_eq!(otlp::check_message(&otlp::request(&profile)), vec![]);
        let back = format::read(&bytes).unwrap();
        prop_assert_eq!(samples(&profile), samples(&back));
        prop_assert_eq!(head(&profile), head(&back));
        prop_assert!(profile.sample_entries() == 0 || first(&profile) == first(&back));
    }

    #[test]
    fn every_format_is_written_for_every_profile(profile in profile()) {
        for format in Format::all() {
            let mut bytes = Vec::new();
            format::write(&profile, format, &mut bytes).unwrap();
            let text = || String::from_utf8(bytes.clone()).unwrap();
            let shown = profile.shown(None).unwrap();
            let total = shown.samples().fold(0, |sum: u64, (_, value)| sum.saturating_add(value));
            match format {
                Format::Pprof | Format::Otlp | Format::OtlpJson => {
                    prop_assert_eq!(samples(&profile), samples(&format::read(&bytes).unwrap()));
                }
                Format::Folded => {
                    let text = text();
                    let counts = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
                    prop_assert_eq!(counts.sum::<u64>(), total);
                }
                Format::Svg => {
                    let text = text();
                    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
                    let document = roxmltree::Document::parse_with_options(&text, options).unwrap();
                    prop_assert_eq!(document.root_element().tag_name().name(), "svg");
                    // The widest frame says how much all are. What has more than 62 bits is drawn to a scale.
                    let titles = document.descendants().filter(|node| node.has_tag_name("title"));
                    let all = titles.filter_map(|title| title.text()?.strip_prefix("all (")?.split_once(' '));
                    let mut all = all.map(|(count, _)| count.replace(',', ""));
                    prop_assert!(all.any(|count| count == total.max(1).to_string()) || total >> 62 > 0);
                }
                Format::Html => {
                    let text = text();
                    prop_assert!(text.starts_with("<!doctype html>\n") && text.ends_with("</html>\n"));
                    let sum = sum_of_page(&text);
                    prop_assert!(sum == total || total > MAX_SAFE, "{sum} of {total}");
                }
                Format::Speedscope => {
                    let file: Value = serde_json::from_slice(&bytes).unwrap();
                    let active = file["activeProfileIndex"].as_u64().unwrap() as usize;
                    let weights = file["profiles"][active]["weights"].as_array().unwrap().iter();
                    let sum = weights.fold(0, |sum: u64, weight| sum.saturating_add(weight.as_u64().unwrap()));
                    let weight = u64::try_from(shown.weight().0).unwrap_or(1);
                    let values = shown.samples().map(|(_, value)| value.saturating_mul(weight));
                    prop_assert_eq!(sum, values.fold(0, u64::saturating_add));
                    prop_assert_eq!(&file["profiles"][active]["endValue"], sum);
                }
                Format::Firefox => {
                    let file: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&bytes[..])).unwrap();
                    let tables = file["threads"].as_array().unwrap().iter().map(|thread| &thread["samples"]["length"]);
                    let drawn = tables.map(|length| length.as_u64().unwrap()).sum::<u64>();
                    prop_assert_eq!(drawn as usize, shown.samples().filter(|(_, value)| *value > 0).count());
                }
                other => prop_assert!(false, "say here what {other:?} has to be"),
            }
        }
    }

    #[test]
    fn damaged_profiles_are_read_without_panic(
        profile in profile(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packed = Vec::new();
        pprof::encode(&profile, &mut packed).unwrap();
        let mut raw = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut raw).unwrap();
        let mut json = Vec::new();
        otlp::encode_json_to(&profile, &mut json).unwrap();
        for mut bytes in [packed, raw, otlp::encode(&profile), json] {
            for (index, byte) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            for read in [pprof::decode(&bytes), otlp::decode(&bytes), otlp::decode_json(&bytes), format::read(&bytes)].into_iter().flatten() {
                for format in Format::all() {
                    format::write(&read, format, std::io::sink()).unwrap();
                }
                prop_assert!(profiler_model::summary(&read).samples < u64::MAX);
            }
            let _ = otlp::check(&bytes);
        }
    }
}

#[test]
fn otlp_that_was_gzipped_is_recognized() {
    let profile = crate::profiles::recording().finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&otlp::encode(&profile)).unwrap();
    let back = format::read(&gzip.finish().unwrap()).unwrap();
    assert_eq!(head(&profile), head(&back));
}

#[test]
fn an_error_of_the_output_comes_back_untouched() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::from_raw_os_error(28));
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut builder = crate::profiles::recording();
    let stack = builder.stack(&[]);
    builder.profile_mut().samples.push(Sample { stack, ..Default::default() });
    let profile = builder.finish();
    for format in Format::all() {
        for room in [0, 10] {
            let error = format::write(&profile, format, Full(room)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(28), "{format} {room}: {error}");
        }
    }
}

#[test]
fn a_file_without_processes_is_given_none() {
    let mut b = ProfileBuilder::new();
    let name = b.string("work");
    let function = b.function(Function { name, ..Function::default() });
    let location = b.location(Location { lines: vec![Line { function, line: 0, column: 0 }], ..Location::default() });
    let stack = b.stack(&[location]);
    b.profile_mut().samples.push(Sample { stack, ..Sample::default() });
    let profile = b.finish();
    let mut lines = Vec::new();
    format::write(&profile, Format::Folded, &mut lines).unwrap();
    assert_eq!(String::from_utf8(lines).unwrap(), "work 1\n");
    let mut file = Vec::new();
    pprof::encode(&profile, &mut file).unwrap();
    for format in [Format::Svg, Format::Speedscope, Format::Firefox, Format::Html] {
        let mut out = Vec::new();
        format::write(&pprof::decode(&file).unwrap(), format, &mut out).unwrap();
        let text = String::from_utf8_lossy(&out);
        assert!(!text.contains("[no process]") && !text.contains("[pid 0]"), "{format}");
    }
}
