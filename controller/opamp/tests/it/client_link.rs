//! Connecting, heartbeats, waiting after failures, redirects, leaving.

use std::time::Duration;

use profiler_opamp::{
    Limits,
    client::{Client, CloseCode, Event, Failure, Options, Problem, Step},
    messages::{
        AgentCapabilities, ConnectionSettingsOffers, OpAmpConnectionSettings, RetryInfo, ServerErrorResponse,
        ServerErrorResponseType, ServerToAgent, server_error_response::Details,
    },
    wire::WireError,
};
use prost::Message;

use super::simulated::{SECOND, Simulated, UID, answer, description, exact, settings};

fn heartbeat_offer(seconds: u64) -> ServerToAgent {
    let opamp = OpAmpConnectionSettings { heartbeat_interval_seconds: seconds, ..Default::default() };
    let offers = ConnectionSettingsOffers { hash: vec![1], opamp: Some(opamp), ..Default::default() };
    ServerToAgent { connection_settings: Some(offers), ..answer() }
}

fn unavailable(wait: Option<Duration>) -> ServerToAgent {
    let retry_after = |wait: Duration| RetryInfo { retry_after_nanoseconds: wait.as_nanos() as u64 };
    let error = ServerErrorResponse {
        r#type: ServerErrorResponseType::Unavailable.into(),
        error_message: "busy".into(),
        details: wait.map(retry_after).map(Details::RetryInfo),
    };
    ServerToAgent { error_response: Some(error), ..answer() }
}

#[test]
fn heartbeats_are_counted_from_the_last_message() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    assert_eq!(simulated.waits(), Some(30 * SECOND));
    simulated.pass(20 * SECOND);
    simulated.client.set_description(description("b"));
    simulated.sent();
    simulated.answer(answer());
    assert_eq!(simulated.waits(), Some(30 * SECOND));
    simulated.pass(30 * SECOND);
    let heartbeat = simulated.sent();
    assert!(heartbeat.instance_uid == UID.to_wire() && heartbeat.agent_description.is_none());
    simulated.answer(answer());
    assert_eq!(simulated.waits(), Some(30 * SECOND));
}

#[test]
fn the_server_says_how_often_and_may_want_none() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.answer(heartbeat_offer(5));
    assert_eq!(simulated.waits(), Some(5 * SECOND));
    simulated.answer(heartbeat_offer(0));
    assert_eq!(simulated.waits(), None);
    // A time that is none.
    simulated.answer(heartbeat_offer(u64::MAX));
    assert!(simulated.waits().unwrap() > 24 * 3600 * SECOND);
}

#[test]
fn without_the_capability_there_are_no_heartbeats() {
    let capabilities = 0;
    let (mut simulated, _) = Simulated::new("ws://s", Options { capabilities, ..exact() }).full().answered();
    assert_eq!(simulated.waits(), None);
    simulated.answer(heartbeat_offer(5));
    assert_eq!(simulated.waits(), None);
}

#[test]
fn over_http_the_server_is_asked_as_often_as_it_said_and_by_default_every_30_s() {
    let (mut simulated, first) = Simulated::http().full().answered();
    assert_eq!(simulated.waits(), Some(30 * SECOND));
    simulated.pass(30 * SECOND);
    let poll = simulated.sent();
    assert!(poll.sequence_num == first.sequence_num + 1 && poll.agent_description.is_none());
    simulated.answer(heartbeat_offer(7));
    assert_eq!(simulated.waits(), Some(7 * SECOND));
    simulated.pass(7 * SECOND);
    simulated.sent();
    // No heartbeats: asked all the same, or the server could never change its mind.
    simulated.answer(heartbeat_offer(0));
    assert_eq!(simulated.waits(), Some(30 * SECOND));
}

#[test]
fn over_http_there_is_one_request_at_a_time_and_the_next_follows_at_once() {
    let mut simulated = Simulated::http().full();
    simulated.sent();
    simulated.client.set_description(description("b"));
    assert_eq!(simulated.waits(), None);
    simulated.answer(answer());
    assert_eq!(simulated.sent().agent_description, Some(description("b")));
}

#[test]
fn a_connection_that_was_good_is_made_again_at_once_and_then_with_longer_and_longer_waits() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.pass(60 * SECOND);
    simulated.client.closed(simulated.now, "reset");
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert!(matches!(simulated.client.poll(simulated.now), Step::Connect(_)));
        simulated.client.failed(simulated.now, &Failure::Connection("refused".into()));
        let wait = simulated.waits().unwrap();
        waits.push(wait.as_secs());
        simulated.pass(wait);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    // An answer, not a connection, is what ends them.
    simulated.connect();
    simulated.sent();
    simulated.client.closed(simulated.now, "reset");
    assert_eq!(simulated.waits(), Some(300 * SECOND));
    simulated.pass(300 * SECOND);
    simulated.connect();
    simulated.sent();
    simulated.answer(answer());
    simulated.client.closed(simulated.now, "reset");
    assert_eq!(simulated.waits(), Some(SECOND), "it was too short to be good");
}

#[test]
fn waits_are_spread() {
    let mut waits: Vec<_> = (0..64_u64)
        .map(|index| {
            let random = move || index << 58;
            let mut client = Client::with_random(Options::default(), UID, settings("ws://s"), Box::new(random));
            let now = std::time::Instant::now();
            client.poll(now);
            client.failed(now, &Failure::Connection("refused".into()));
            let Step::Wait(Some(until)) = client.poll(now) else { panic!() };
            until - now
        })
        .collect();
    assert!(waits.iter().all(|wait| (0.5..=1.5).contains(&wait.as_secs_f64())), "{waits:?}");
    waits.dedup();
    assert_eq!(waits.len(), 64);
}

#[test]
fn a_server_that_says_when_is_not_asked_before() {
    for code in [429, 503] {
        for url in ["ws://s", "http://s"] {
            let mut simulated = Simulated::new(url, exact()).full();
            let step = simulated.client.poll(simulated.now);
            assert!(matches!(step, Step::Connect(_) | Step::Send(_)));
            let failure = Failure::Status { code, retry_after: Some(90 * SECOND), location: None };
            simulated.client.failed(simulated.now, &failure);
            let wait = simulated.waits().unwrap();
            assert!((90.0..=99.0).contains(&wait.as_secs_f64()), "{wait:?}");
            // Nothing goes out meanwhile, no heartbeat either.
            simulated.pass(89 * SECOND);
            simulated.client.set_description(description("b"));
            assert_eq!(simulated.sends(), None);
        }
    }
    // It does not say when: 30 s. It says never: an hour.
    for (retry_after, from, to) in [(None, 30.0, 33.0), (Some(Duration::MAX), 3600.0, 3960.0)] {
        let mut simulated = Simulated::http();
        simulated.client.poll(simulated.now);
        simulated.client.failed(simulated.now, &Failure::Status { code: 503, retry_after, location: None });
        let wait = simulated.waits().unwrap().as_secs_f64();
        assert!((from..=to).contains(&wait), "{wait}");
    }
}

#[test]
fn an_unavailable_server_is_left_and_what_it_did_not_process_is_sent_again() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.client.set_description(description("b"));
    simulated.sent();
    simulated.answer(unavailable(Some(60 * SECOND)));
    // Disconnects as it should, and waits.
    assert!(simulated.sent().agent_disconnect.is_some());
    simulated.closes();
    let wait = simulated.waits().unwrap();
    assert!((60.0..=66.0).contains(&wait.as_secs_f64()), "{wait:?}");
    simulated.pass(wait);
    simulated.connect();
    assert_eq!(simulated.sent().agent_description, Some(description("b")));

    let (mut simulated, _) = Simulated::http().full().answered();
    simulated.client.set_description(description("b"));
    let report = simulated.sent();
    simulated.answer(unavailable(None));
    let wait = simulated.waits().unwrap();
    assert!((30.0..=33.0).contains(&wait.as_secs_f64()), "{wait:?}");
    simulated.pass(wait);
    assert_eq!(simulated.sent(), report);
}

#[test]
fn a_request_that_failed_is_made_again_as_it_was() {
    for code in [500, 502, 401, 404] {
        let mut simulated = Simulated::http().full();
        let first = simulated.sent();
        simulated.client.set_description(description("b"));
        simulated.fails(code);
        assert_eq!(simulated.waits(), Some(SECOND));
        simulated.pass(SECOND);
        assert_eq!(simulated.sent(), first, "the same bytes under the same number");
        simulated.answer(answer());
        let next = simulated.sent();
        assert_eq!((next.sequence_num, next.agent_description), (1, Some(description("b"))));
    }
}

#[test]
fn a_request_that_is_too_large_or_malformed_is_not_made_again() {
    let mut simulated = Simulated::http().full();
    assert!(simulated.sent().effective_config.is_some());
    simulated.fails(413);
    assert!(simulated.events().iter().any(|event| matches!(event, Event::TooLarge(parts) if !parts.is_empty())));
    let wait = simulated.waits().unwrap();
    simulated.pass(wait);
    let next = simulated.sent();
    assert_eq!(next.sequence_num, 1);
    assert!(next.agent_description.is_some() && next.effective_config.is_none() && next.health.is_none());
    simulated.answer(answer());
    simulated.client.set_health(Default::default());
    assert!(simulated.sent().health.is_some(), "it has changed");

    simulated.fails(400);
    let wait = simulated.waits().unwrap();
    simulated.pass(wait);
    assert_eq!(simulated.sent().health, None);
}

#[test]
fn what_a_websocket_lost_is_sent_again_under_a_new_number() {
    let (mut simulated, first) = Simulated::websocket().full().answered();
    simulated.pass(10 * SECOND);
    simulated.client.set_description(description("b"));
    // Half written.
    let Step::Send(_) = simulated.client.poll(simulated.now) else { panic!() };
    simulated.client.closed(simulated.now, "reset");
    simulated.connect();
    let report = simulated.sent();
    assert_eq!(report.agent_description, Some(description("b")));
    assert_eq!(report.sequence_num, first.sequence_num + 2, "so that the server sees that one is missing");
    assert_eq!(report.health, None, "unchanged since the last connection");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let mut simulated = Simulated::websocket().full();
    simulated.connect();
    simulated.sent();
    assert_eq!(simulated.waits(), Some(30 * SECOND));
    simulated.pass(30 * SECOND);
    while simulated.sends().is_some() {}
    let closed = simulated.events();
    assert_eq!(closed, []);
    simulated.client.closed(simulated.now, "");
    let events = simulated.events();
    assert!(matches!(&events[..], [Event::Disconnected { reason, .. }] if reason.contains("no answer")), "{events:?}");
}

#[test]
fn redirects_are_followed_a_few_times_and_never_out_of_tls_nor_with_credentials_to_others() {
    let redirected = |simulated: &mut Simulated, location: &str| {
        let location = Some(location.to_owned());
        simulated.client.failed(simulated.now, &Failure::Status { code: 307, retry_after: None, location });
        simulated.client.poll(simulated.now)
    };
    let mut simulated = Simulated::new("wss://s:4320", exact());
    simulated.client.poll(simulated.now);
    let Step::Connect(to) = redirected(&mut simulated, "/other?x") else { panic!() };
    assert!(to.to_string() == "wss://s:4320" && to.url.path == "/other?x" && to.is_trusted);
    let Step::Connect(to) = redirected(&mut simulated, "https://t/v1/opamp") else { panic!() };
    assert!(to.to_string() == "wss://t:443" && !to.is_trusted);
    // Back again: whoever sent it there is not trusted to.
    let Step::Connect(to) = redirected(&mut simulated, "wss://s:4320/") else { panic!() };
    assert!(!to.is_trusted);
    let Step::Wait(_) = redirected(&mut simulated, "http://s:4320/v1/opamp") else { panic!("out of TLS") };
    let wait = simulated.waits().unwrap();
    simulated.pass(wait);
    let Step::Connect(to) = simulated.client.poll(simulated.now) else { panic!() };
    assert!(to.is_trusted, "from the beginning");

    let mut simulated = Simulated::http().full();
    let first = simulated.sent();
    let mut redirects = 0;
    loop {
        match redirected(&mut simulated, &format!("/{redirects}")) {
            Step::Send(message) => {
                assert_eq!(super::simulated::decoded(&message.bytes, message.to.transport), first);
                redirects += 1;
            }
            Step::Wait(until) => break assert_eq!(until, Some(simulated.now + SECOND)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(redirects, 5);
}

#[test]
fn who_leaves_says_so_in_the_last_message_and_closes() {
    let (mut simulated, first) = Simulated::websocket().full().answered();
    simulated.client.set_description(description("b"));
    simulated.client.stop();
    let last = simulated.sent();
    assert!(last.agent_disconnect.is_some() && last.agent_description.is_some());
    assert_eq!(last.sequence_num, first.sequence_num + 1);
    simulated.closes();
    assert_eq!(simulated.client.poll(simulated.now), Step::Stopped);

    let mut simulated = Simulated::http().full();
    simulated.sent();
    simulated.client.stop();
    assert_eq!(simulated.waits(), None, "one request at a time");
    simulated.answer(answer());
    assert!(simulated.sent().agent_disconnect.is_some());
    // Whatever becomes of it.
    simulated.fails(503);
    assert_eq!(simulated.client.poll(simulated.now), Step::Stopped);
}

#[test]
fn who_was_not_connected_leaves_in_silence() {
    let mut simulated = Simulated::websocket();
    simulated.client.poll(simulated.now);
    simulated.client.stop();
    assert_eq!(simulated.client.poll(simulated.now), Step::Stopped);
    let mut simulated = Simulated::http();
    simulated.sent();
    simulated.fails(503);
    simulated.client.stop();
    assert_eq!(simulated.client.poll(simulated.now), Step::Stopped);
}

#[test]
fn a_message_that_is_too_large_closes_a_websocket_with_1009_and_fails_a_request() {
    let options = Options { limits: Limits { receive: 100, ..Limits::default() }, ..exact() };
    let mut simulated = Simulated::new("ws://s", options).full();
    simulated.connect();
    simulated.sent();
    simulated.answer(ServerToAgent { instance_uid: vec![1; 200], ..answer() });
    let problem = Problem::Wire(WireError::TooLarge { limit: 100 });
    assert_eq!(simulated.events(), [Event::Malformed(problem.clone())]);
    assert_eq!(simulated.client.poll(simulated.now), Step::Close(CloseCode::TooLarge));
    simulated.client.closed(simulated.now, "");
    assert_eq!(simulated.waits(), Some(SECOND), "not at once: it would do so again");

    let mut simulated = Simulated::new("http://s", options).full();
    simulated.sent();
    simulated.answer(ServerToAgent { instance_uid: vec![1; 200], ..answer() });
    assert_eq!(simulated.events()[0], Event::Malformed(problem));
    assert_eq!(simulated.waits(), Some(SECOND));
}

#[test]
fn what_is_no_message_is_told_and_changes_nothing() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.client.received(simulated.now, b"\xff\xff\xff");
    let events = simulated.events();
    assert!(matches!(&events[..], [Event::Malformed(Problem::Wire(WireError::Decode(_)))]), "{events:?}");
    assert_eq!(simulated.waits(), Some(30 * SECOND));
    // An empty message is one.
    simulated.client.received(simulated.now, &ServerToAgent::default().encode_to_vec());
    assert_eq!(simulated.events(), []);
}

#[test]
fn the_capability_of_reporting_status_is_always_there() {
    let simulated = Simulated::new("ws://s", Options { capabilities: 0, ..exact() });
    assert_eq!(simulated.client.capabilities(), AgentCapabilities::ReportsStatus.bit());
}
