//! Connection settings that are offered: accepted only when the server answered there.

use profiler_opamp::{
    client::{Event, Failure, SettingsError, Step},
    messages::{ConnectionSettingsStatuses, ServerToAgent},
};

use super::simulated::{SECOND, Simulated, all_of_a_server, answer, settings};

const HASH: &[u8] = &[1, 2];

fn status(report: &profiler_opamp::messages::AgentToServer) -> Option<(ConnectionSettingsStatuses, String)> {
    let status = report.connection_settings_status.as_ref()?;
    assert_eq!(status.last_connection_settings_hash, HASH);
    Some((status.status(), status.error_message.clone()))
}

/// Has left the old server and is on its way to the new one.
fn on_the_way(simulated: Simulated) -> Simulated {
    let (mut simulated, _) = simulated.answered();
    let new = settings("ws://new");
    assert_eq!(simulated.client.try_settings(simulated.now, HASH.to_vec(), new.clone()), Ok(()));
    assert_eq!(simulated.client.try_settings(simulated.now, vec![3], new), Err(SettingsError::Busy));
    let goodbye = simulated.sent();
    assert!(goodbye.agent_disconnect.is_some(), "the old connection ends before the new one begins");
    assert_eq!(status(&goodbye).map(|(status, _)| status), Some(ConnectionSettingsStatuses::Applying));
    if simulated.client.settings().endpoint.to_string().starts_with("ws") {
        simulated.closes();
    } else {
        simulated.answer(answer());
    }
    simulated
}

#[test]
fn settings_that_work_are_kept_and_reported_as_applied() {
    for simulated in [Simulated::websocket().full(), Simulated::http().full()] {
        let mut simulated = on_the_way(simulated);
        let Step::Connect(to) = simulated.client.poll(simulated.now) else { panic!() };
        assert_eq!(to.to_string(), "ws://new:80");
        simulated.client.connected(simulated.now);
        let first = simulated.sent();
        assert!(first.agent_description.is_some(), "another server knows nothing");
        assert_eq!(simulated.events(), []);
        simulated.answer(ServerToAgent { capabilities: all_of_a_server(), ..answer() });
        assert!(simulated.events().contains(&Event::SettingsApplied { hash: HASH.to_vec() }));
        let applied = (ConnectionSettingsStatuses::Applied, String::new());
        assert_eq!(status(&simulated.sent()), Some(applied));
        // They stay.
        simulated.pass(10 * SECOND);
        simulated.client.closed(simulated.now, "reset");
        let Step::Connect(to) = simulated.client.poll(simulated.now) else { panic!() };
        assert_eq!(to.to_string(), "ws://new:80");
    }
}

#[test]
fn settings_that_do_not_work_are_given_back_and_reported_as_failed() {
    let failures = [
        Failure::Connection("refused".into()),
        Failure::Status { code: 401, retry_after: None, location: None },
        Failure::Status { code: 503, retry_after: Some(99 * SECOND), location: None },
    ];
    for failure in failures {
        let mut simulated = on_the_way(Simulated::websocket().full());
        assert!(matches!(simulated.client.poll(simulated.now), Step::Connect(_)));
        simulated.client.failed(simulated.now, &failure);
        let events = simulated.events();
        assert!(matches!(&events[..], [Event::SettingsFailed { hash, reason }] if hash == HASH && !reason.is_empty()));
        let Step::Connect(to) = simulated.client.poll(simulated.now) else { panic!() };
        assert_eq!(to.to_string(), "ws://server:80");
        simulated.client.connected(simulated.now);
        let report = status(&simulated.sent()).unwrap();
        assert!(report.0 == ConnectionSettingsStatuses::Failed && !report.1.is_empty());
    }
}

#[test]
fn a_connection_without_an_answer_proves_nothing() {
    let mut simulated = on_the_way(Simulated::websocket().full());
    simulated.connect();
    simulated.sent();
    simulated.client.closed(simulated.now, "reset");
    assert!(matches!(&simulated.events()[..], [Event::SettingsFailed { .. }]));
    assert_eq!(simulated.client.settings().endpoint.to_string(), "ws://server:80");
}

#[test]
fn settings_may_be_refused_with_a_reason() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.client.refuse_settings(HASH, "insecure_skip_verify is not for a server to set");
    let refused = "insecure_skip_verify is not for a server to set".to_owned();
    assert_eq!(status(&simulated.sent()), Some((ConnectionSettingsStatuses::Failed, refused)));
}

#[test]
fn settings_are_tried_without_a_connection_too() {
    let mut simulated = Simulated::websocket().full();
    simulated.client.try_settings(simulated.now, HASH.to_vec(), settings("ws://new")).unwrap();
    let Step::Connect(to) = simulated.client.poll(simulated.now) else { panic!() };
    assert_eq!(to.to_string(), "ws://new:80");
    simulated.client.stop();
    let refused = simulated.client.try_settings(simulated.now, HASH.to_vec(), settings("ws://new"));
    assert_eq!(refused, Err(SettingsError::Stopped));
}
