//! pprof, raw or gzipped: whatever the bytes, they are a profile or refused; a profile is written in every format, its OTLP
//! keeps all of profcheck's rules, and what pprof can say reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_formats::{format::{self, Format}, otlp, pprof};

fuzz_target!(|data: &[u8]| {
    let Ok(profile) = pprof::decode(data) else { return };
    for format in Format::all() {
        format::write(&profile, format, std::io::sink()).expect("a sink takes whatever is written");
    }
    assert_eq!(otlp::check(&otlp::encode(&profile)), []);

    let mut written = Vec::new();
    pprof::encode(&profile, &mut written).expect("a vector takes whatever is written");
    let back = pprof::decode(&written).expect("what we write we read");
    let sum = |profile: &profiler_model::Profiles| {
        profile.measured().iter().fold(0_u64, |sum, measured| sum.saturating_add(measured.total()))
    };
    // Adding up samples that agree can make a count saturate or negative ones cancel out; else none is lost.
    if profile.samples().all(|(_, sample)| sample.values.as_slice().iter().all(|value| (0..1 << 32).contains(value))) {
        assert_eq!(sum(&profile), sum(&back));
    }
    assert_eq!(profile.origin, back.origin);
    assert_eq!(profile.losses, back.losses);
});
