//! OTLP profiles requests: whatever the bytes, they are a profile or refused; a profile is written in every format, keeps all of
//! profcheck's rules when written again, and reads back with all its samples.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_formats::{format::{self, Format}, otlp};

fuzz_target!(|data: &[u8]| {
    let _ = otlp::check(data);
    let Ok(profile) = otlp::decode(data) else { return };
    for format in Format::all() {
        format::write(&profile, format, std::io::sink()).expect("a sink takes whatever is written");
    }
    let written = otlp::encode(&profile);
    assert_eq!(otlp::check(&written), []);
    let back = otlp::decode(&written).expect("what we write we read");
    let timed = |profile: &profiler_model::Profiles| {
        profile.samples().filter(|(_, sample)| sample.time_unix_nanos.is_some()).count()
    };
    assert_eq!(timed(&profile), timed(&back));
});
