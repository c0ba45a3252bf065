//! OTLP profiles requests in JSON: whatever the text, it is a profile or refused; a profile keeps all of profcheck's rules when it is
//! written again, and reads back with all its samples.
#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_formats::otlp;

fuzz_target!(|data: &[u8]| {
    let Ok(profile) = otlp::decode_json(data) else { return };
    let mut written = Vec::new();
    otlp::encode_json_to(&profile, &mut written).expect("a vector takes whatever is written");
    let back = otlp::decode_json(&written).expect("what we write we read");
    let bytes = otlp::encode(&profile);
    assert_eq!(otlp::check(&bytes), []);
    assert_eq!(otlp::encode(&back), otlp::encode(&otlp::decode(&bytes).expect("what we write we read")));
});
