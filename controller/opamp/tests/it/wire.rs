//! Bytes: headers, compression, sizes, identities, times; from facts of the specification, not from what this crate writes.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use profiler_opamp::{
    Endpoint, InstanceUid, Transport, WrongUid,
    messages::{
        AgentConfigMap, AgentConfigObject, AgentToServer, ComponentHealth, EffectiveConfig, KeyValue, ServerToAgent,
    },
    retry_after,
    wire::{self, WireError},
};
use proptest::prelude::*;
use prost::Message;

#[test]
fn a_websocket_message_begins_with_a_header_of_0() {
    assert_eq!(wire::frame(&ServerToAgent::default(), 1), Ok(vec![0]));
    let message = AgentToServer { instance_uid: vec![7; 16], sequence_num: 3, ..Default::default() };
    let mut bytes = vec![0, 0x0a, 16];
    bytes.extend([7; 16]);
    bytes.extend([0x10, 3]);
    assert_eq!(wire::frame(&message, 21), Ok(bytes));
    assert_eq!(wire::frame(&message, 20), Err(WireError::TooLarge { limit: 20 }));
}

#[test]
fn a_header_is_a_varint_however_it_is_written_and_is_0() {
    let empty: &[u8] = &[];
    assert_eq!(wire::unframe(&[0], 10), Ok(empty), "an empty message is one");
    assert_eq!(wire::unframe(&[0x80, 0, 1], 10), Ok(&[1_u8][..]));
    assert_eq!(wire::unframe(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0], 10), Ok(empty));
    for malformed in [&[][..], &[1], &[0x80], &[0x80, 1], &[0x80; 11], &[0x0a, 0]] {
        assert_eq!(wire::unframe(malformed, 100), Err(WireError::Header), "{malformed:?}");
    }
    assert_eq!(wire::unframe(&[0, 1, 2], 2), Err(WireError::TooLarge { limit: 2 }));
}

#[test]
fn what_is_unpacked_is_bounded() {
    let packed = wire::gzip(&vec![0; 1 << 20]);
    assert!(packed.len() < 64 << 10);
    assert_eq!(wire::gunzip(&packed, 1 << 20).map(|bytes| bytes.len()), Ok(1 << 20));
    assert_eq!(wire::gunzip(&packed, (1 << 20) - 1), Err(WireError::TooLarge { limit: (1 << 20) - 1 }));
    assert!(matches!(wire::gunzip(b"no gzip", 100), Err(WireError::Gzip(_))));
    assert!(matches!(wire::gunzip(&packed[..packed.len() - 9], 2 << 20), Err(WireError::Gzip(_))));
}

#[test]
fn fields_have_the_numbers_of_version_0_20() {
    // Tag = number << 3 | wire type.
    let object = AgentConfigObject { body: b"b".as_slice().into(), content_type: "c".into(), role: "r".into() };
    assert_eq!(object.encode_to_vec(), b"\x0a\x01b\x12\x01c\x1a\x01r");
    let map = AgentConfigMap { config_map: [(String::new(), AgentConfigObject::default())].into() };
    let config = EffectiveConfig { config_map: Some(map) };
    let message = AgentToServer { effective_config: Some(config), ..Default::default() };
    assert_eq!(message.encode_to_vec()[..2], [6 << 3 | 2, 4]);
    let health =
        ComponentHealth { attributes: vec![KeyValue::text("k", "v")], start_time_unix_nano: 1, ..Default::default() };
    let bytes = health.encode_to_vec();
    assert_eq!(bytes[..9], [2 << 3 | 1, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[9], 7 << 3 | 2);
}

#[test]
fn an_identity_is_16_bytes_and_a_uuid_of_version_7() {
    let uid = InstanceUid::generate(Duration::from_millis(0x0192_b4d4_5e3b), &mut || u64::MAX);
    assert_eq!(uid.to_string(), "0192b4d4-5e3b-7fff-bfff-ffffffffffff");
    let later = InstanceUid::generate(Duration::from_millis(0x0192_b4d4_5e3c), &mut || 0);
    assert_eq!(later.to_string(), "0192b4d4-5e3c-7000-8000-000000000000");
    assert!(later > uid, "in the order of time");
    assert_eq!(uid.to_string().parse(), Ok(uid));
    assert_eq!(InstanceUid::from_wire(&uid.to_wire()), Ok(uid));
    assert_eq!(InstanceUid::from_wire(&[1; 15]), Err(WrongUid::Length(15)));
    assert_eq!(InstanceUid::from_wire(&[0; 16]), Err(WrongUid::Nil));
    for wrong in ["", "x", "0192b4d45e3b7fffbfffffffffffffff", "0192b4d4-5e3b-7fff-bfff-fffffffffff+", "ä"] {
        assert!(matches!(wrong.parse::<InstanceUid>(), Err(WrongUid::Text(_))), "{wrong}");
    }
}

#[test]
fn an_endpoint_has_the_path_of_the_specification_by_default() {
    let endpoint = Endpoint::parse("wss://h:4320").unwrap();
    assert!(endpoint.transport == Transport::WebSocket && endpoint.url.tls && endpoint.url.path == "/v1/opamp");
    assert_eq!(Endpoint::parse("http://[::1]:1/x").unwrap().to_string(), "http://[::1]:1");
    for (text, problem) in [("h:4320", "no scheme"), ("ftp://h", "scheme"), ("ws://u:secret@h", "user"), ("ws://", "")]
    {
        let error = Endpoint::parse(text).unwrap_err().to_string();
        assert!(error.contains(problem) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let parsed = |after: &str, date: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(header::DATE, date.parse().unwrap());
        }
        // Wed, 21 Oct 2015 07:28:00 GMT
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480))
    };
    assert_eq!(parsed("120", None), Some(Duration::from_secs(120)));
    assert_eq!(parsed("Wed, 21 Oct 2015 07:29:00 GMT", None), Some(Duration::from_secs(60)));
    let date = Some("Wed, 21 Oct 2015 07:28:50 GMT");
    assert_eq!(parsed("Wed, 21 Oct 2015 07:29:00 GMT", date), Some(Duration::from_secs(10)), "by the server's clock");
    assert_eq!(parsed("Wed, 21 Oct 2015 07:00:00 GMT", None), None);
    assert_eq!(parsed("soon", None), None);
    assert_eq!(parsed("-1", None), None);
}

proptest! {
    #[test]
    fn no_bytes_make_anything_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = wire::unframe(&bytes, 200);
        let _ = wire::gunzip(&bytes, 1 << 16);
        let _ = wire::decode::<AgentToServer>(&bytes);
        let _ = wire::decode::<ServerToAgent>(&bytes);
    }

    #[test]
    fn a_framed_message_is_the_message(uid in prop::collection::vec(any::<u8>(), 0..40), sequence_num in any::<u64>()) {
        let message = AgentToServer { instance_uid: uid, sequence_num, ..Default::default() };
        let framed = wire::frame(&message, 1000).unwrap();
        prop_assert_eq!(wire::decode::<AgentToServer>(wire::unframe(&framed, 1000).unwrap()).unwrap(), message);
    }
}
