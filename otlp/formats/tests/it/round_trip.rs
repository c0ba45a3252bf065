//! What is written reads back, whatever it is; what is damaged is refused without harm.

use std::io::Write;

use crate::profiles::{first, head, profile, samples};
use profiler_formats::{
    format::{self, Format},
    otlp, pprof,
};
use proptest::prelude::*;
use serde_json::Value;

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
                }
                Format::Html => {
                    let text = text();
                    prop_assert!(text.starts_with("<!doctype html>\n") && text.ends_with("</html>\n"));
                }
                Format::Speedscope => {
                    let file: Value = serde_json::from_slice(&bytes).unwrap();
                    let profiles = file["profiles"].as_array().unwrap().iter();
                    let weights = profiles.flat_map(|one| one["weights"].as_array().unwrap());
                    let weighed = weights.map(|weight| weight.as_u64().unwrap()).any(|weight| weight > 0);
                    prop_assert!(weighed || total == 0);
                }
                Format::Firefox => {
                    let file: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&bytes[..])).unwrap();
                    let tables = file["threads"].as_array().unwrap().iter().map(|thread| &thread["samples"]["length"]);
                    let drawn = tables.map(|length| length.as_u64().unwrap()).sum::<u64>();
                    prop_assert!(drawn > 0 || total == 0);
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
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut raw).unwrap();
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
    builder.profile_mut().samples.push(profiler_model::Sample { stack, ..Default::default() });
    let profile = builder.finish();
    for format in Format::all() {
        for room in [0, 10] {
            let error = format::write(&profile, format, Full(room)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(28), "{format} {room}: {error}");
        }
    }
}
