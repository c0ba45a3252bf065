//! What an agent says, and when.

use profiler_opamp::{
    Limits, Part,
    client::{CustomError, Event, Options, Step},
    messages::{
        AgentCapabilities, AgentConfigMap, AgentConfigObject, AgentToServer, AgentToServerFlags,
        ConnectionSettingsRequest, CustomCapabilities, CustomMessage, EffectiveConfig, PackageStatus, PackageStatuses,
        RemoteConfigStatus, ServerCapabilities, ServerToAgent, ServerToAgentFlags,
    },
};

use super::simulated::{
    SECOND, Simulated, UID, all_capabilities, all_of_a_server, answer, description, exact, healthy,
};

/// Whether a report has only what each must have.
fn is_bare(message: &AgentToServer) -> bool {
    let AgentToServer { instance_uid, sequence_num, capabilities, .. } = message.clone();
    *message == AgentToServer { instance_uid, sequence_num, capabilities, ..Default::default() }
}

fn config(bytes: usize) -> EffectiveConfig {
    let object = AgentConfigObject { body: vec![b'x'; bytes].into(), ..Default::default() };
    EffectiveConfig { config_map: Some(AgentConfigMap { config_map: [(String::new(), object)].into() }) }
}

fn both() -> [Simulated; 2] {
    [Simulated::websocket().full(), Simulated::http().full()]
}

#[test]
fn the_first_message_is_a_whole_status_report() {
    for simulated in both() {
        let (mut simulated, first) = simulated.answered();
        assert_eq!(first.instance_uid, UID.to_wire());
        assert_eq!(first.sequence_num, 0);
        assert_eq!(first.capabilities, all_capabilities());
        assert_eq!(first.agent_description, Some(description("a")));
        assert_eq!(first.health, Some(healthy()));
        assert!(first.effective_config.is_some() && first.remote_config_status.is_some());
        assert!(first.package_statuses.is_some() && first.custom_capabilities.is_some());
        assert!(first.connection_settings_status.is_some());
        assert_eq!(simulated.sends(), None);
    }
}

#[test]
fn capabilities_are_in_every_message_and_only_bits_that_are_defined() {
    let options = Options { capabilities: u64::MAX - 1, ..exact() };
    let (mut simulated, first) = Simulated::new("ws://s", options).full().answered();
    assert_eq!(first.capabilities, all_capabilities());
    simulated.pass(30 * SECOND);
    let heartbeat = simulated.sent();
    assert!(is_bare(&heartbeat) && heartbeat.capabilities == all_capabilities());

    // They may change at any time, and the server is told.
    simulated.client.set_capabilities(0);
    let changed = simulated.sent();
    assert_eq!(changed.capabilities, AgentCapabilities::ReportsStatus.bit());
}

#[test]
fn the_sequence_goes_up_by_one_with_each_message_also_across_connections() {
    let (mut simulated, first) = Simulated::websocket().full().answered();
    let mut numbers = vec![first.sequence_num];
    for name in ["b", "c"] {
        simulated.client.set_description(description(name));
        numbers.push(simulated.sent().sequence_num);
    }
    simulated.client.closed(simulated.now, "reset");
    simulated.pass(10 * SECOND);
    simulated.connect();
    numbers.push(simulated.sent().sequence_num);
    assert_eq!(numbers, [0, 1, 2, 3]);
}

#[test]
fn what_has_not_changed_is_left_out_and_what_has_is_whole() {
    for simulated in both() {
        let (mut simulated, _) = simulated.answered();
        simulated.client.set_description(description("a"));
        simulated.client.set_health(healthy());
        assert_eq!(simulated.sends(), None, "nothing has changed");

        let health = profiler_opamp::messages::ComponentHealth { last_error: "x".into(), ..healthy() };
        simulated.client.set_health(health.clone());
        let report = simulated.sent();
        assert_eq!(report.health, Some(health));
        assert!(is_bare(&AgentToServer { health: None, ..report }));
    }
}

#[test]
fn an_answer_that_changes_nothing_is_not_answered() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    for _ in 0..3 {
        simulated.answer(ServerToAgent { capabilities: all_of_a_server(), ..answer() });
        assert_eq!(simulated.sends(), None);
    }
}

#[test]
fn all_is_reported_again_when_the_server_asks_but_not_without_end() {
    for simulated in both() {
        let (mut simulated, first) = simulated.answered();
        let asks = ServerToAgent { flags: ServerToAgentFlags::ReportFullState as u64, ..answer() };
        simulated.pass(5 * SECOND);
        if simulated.client.settings().endpoint.transport == profiler_opamp::Transport::Http {
            simulated.pass(25 * SECOND);
            simulated.sent();
        }
        simulated.answer(asks.clone());
        let mut again = simulated.sent();
        assert!(again.sequence_num > first.sequence_num);
        again.sequence_num = first.sequence_num;
        assert_eq!(again, first);

        // A server that asks each time gets no more than one a second.
        let begun = simulated.now;
        let mut reports = 0;
        while simulated.now - begun < 10 * SECOND {
            simulated.answer(asks.clone());
            match simulated.sends() {
                Some(report) => reports += u32::from(report.agent_description.is_some()),
                None => {
                    let wait = simulated.waits().unwrap();
                    simulated.pass(wait);
                }
            }
        }
        assert!((9..=11).contains(&reports), "{reports}");
    }
}

#[test]
fn only_what_both_sides_are_capable_of_is_reported() {
    let none = Options { capabilities: 0, ..exact() };
    let (_, first) = Simulated::new("ws://s", none).full().answered();
    assert!(first.agent_description.is_some() && first.health.is_none() && first.effective_config.is_none());
    assert!(first.remote_config_status.is_none() && first.package_statuses.is_none());
    assert!(first.available_components.is_none() && first.connection_settings_status.is_none());

    let mut simulated = Simulated::websocket().full();
    simulated.connect();
    simulated.sent();
    simulated.answer(ServerToAgent { capabilities: ServerCapabilities::AcceptsStatus.bit(), ..answer() });
    simulated.client.set_effective_config(config(1));
    simulated.client.set_package_statuses(PackageStatuses { error_message: "x".into(), ..Default::default() });
    simulated.client.set_remote_config_status(RemoteConfigStatus { status: 3, ..Default::default() });
    assert_eq!(simulated.sends(), None);
    // Without capabilities in a message they are as before; with others, what was held back goes out.
    simulated.answer(answer());
    assert_eq!(simulated.sends(), None);
    simulated.answer(ServerToAgent { capabilities: all_of_a_server(), ..answer() });
    let report = simulated.sent();
    assert!(report.effective_config.is_some() && report.package_statuses.is_some());
    assert_eq!(report.remote_config_status.map(|status| status.status), Some(3));
}

#[test]
fn a_certificate_is_asked_for_once_and_only_where_it_can_be_had() {
    let mut simulated = Simulated::websocket().full();
    simulated.client.request_connection_settings(ConnectionSettingsRequest::default());
    simulated.connect();
    assert_eq!(simulated.sent().connection_settings_request, None, "before it is known what the server can");
    simulated.answer(ServerToAgent { capabilities: all_of_a_server(), ..answer() });
    assert!(simulated.sent().connection_settings_request.is_some());
    // Its answer was lost.
    simulated.client.closed(simulated.now, "reset");
    simulated.pass(10 * SECOND);
    simulated.connect();
    assert!(simulated.sent().connection_settings_request.is_some());
    simulated.answer(answer());
    simulated.answer(ServerToAgent { flags: ServerToAgentFlags::ReportFullState as u64, ..answer() });
    assert_eq!(simulated.sent().connection_settings_request, None);
}

#[test]
fn of_the_components_the_hash_is_told_and_the_rest_when_the_server_asks() {
    let (mut simulated, first) = Simulated::websocket().full().answered();
    let components = first.available_components.unwrap();
    assert!(components.hash == [9] && components.components.is_empty());
    simulated.answer(ServerToAgent { flags: ServerToAgentFlags::ReportAvailableComponents as u64, ..answer() });
    let whole = simulated.sent().available_components.unwrap();
    assert!(whole.hash == [9] && whole.components.contains_key("exporter"));
    simulated.answer(ServerToAgent { flags: ServerToAgentFlags::ReportFullState as u64, ..answer() });
    simulated.pass(SECOND);
    assert!(simulated.sent().available_components.unwrap().components.is_empty());
}

#[test]
fn a_package_goes_under_its_key() {
    let mut simulated = Simulated::websocket();
    let package = PackageStatus { name: "other".into(), ..Default::default() };
    simulated.client.set_package_statuses(PackageStatuses {
        packages: [("agent".to_owned(), package)].into(),
        ..Default::default()
    });
    let (_, first) = simulated.answered();
    assert_eq!(first.package_statuses.unwrap().packages["agent"].name, "agent");
}

#[test]
fn an_identity_is_asked_for_until_it_is_given() {
    let asks = AgentToServerFlags::RequestInstanceUid as u64;
    let options = Options { request_uid: true, ..exact() };
    let (mut simulated, first) = Simulated::new("ws://s", options).full().answered();
    assert_eq!(first.flags, asks);
    simulated.client.set_description(description("b"));
    assert_eq!(simulated.sent().flags, asks);
    let new_instance_uid = vec![8; 16];
    let named = profiler_opamp::messages::AgentIdentification { new_instance_uid: new_instance_uid.clone() };
    simulated.answer(ServerToAgent { agent_identification: Some(named), ..answer() });
    let report = simulated.sent();
    assert_eq!((report.flags, report.instance_uid), (0, new_instance_uid));
}

#[test]
fn custom_messages_go_where_both_sides_understand_them_one_at_a_time() {
    let message = |capability: &str| CustomMessage { capability: capability.into(), r#type: "t".into(), data: vec![1] };
    let (mut simulated, first) = Simulated::websocket().full().answered();
    assert_eq!(first.custom_capabilities.unwrap().capabilities, ["com.example.a"]);
    let client = &mut simulated.client;
    assert_eq!(client.send_custom(message("b")), Err(CustomError::NotOurs("b".into())));
    assert!(matches!(client.send_custom(message("com.example.a")), Err(CustomError::NotTheServers(_))));
    let theirs = CustomCapabilities { capabilities: vec!["com.example.a".into()] };
    simulated.answer(ServerToAgent { custom_capabilities: Some(theirs), ..answer() });
    assert_eq!(simulated.client.send_custom(message("com.example.a")), Ok(()));
    assert_eq!(simulated.client.send_custom(message("com.example.a")), Err(CustomError::Pending));
    let report = simulated.sent();
    assert_eq!(report.custom_message, Some(message("com.example.a")));
    assert_eq!(report.custom_capabilities, None);
    assert_eq!(simulated.sends(), None);

    // Received, too, only what is understood.
    for capability in ["com.example.b", "com.example.a"] {
        simulated.answer(ServerToAgent { custom_message: Some(message(capability)), ..answer() });
    }
    assert_eq!(simulated.events(), [Event::Custom(message("com.example.a"))]);
}

#[test]
fn what_is_too_large_is_not_sent_and_the_rest_is() {
    for url in ["ws://s", "http://s"] {
        let options = Options { limits: Limits { send: 1000, ..Limits::default() }, ..exact() };
        let mut simulated = Simulated::new(url, options).full();
        simulated.client.set_effective_config(config(1000));
        simulated.connect();
        let first = simulated.sent();
        assert!(first.effective_config.is_none() && first.agent_description.is_some() && first.health.is_some());
        simulated.answer(ServerToAgent { capabilities: all_of_a_server(), ..answer() });
        let events = simulated.events();
        assert!(events.contains(&Event::TooLarge(vec![Part::EffectiveConfig])), "{events:?}");
        assert_eq!(simulated.sends(), None, "not again as it is");
        // It is smaller now.
        simulated.client.set_effective_config(config(10));
        assert!(simulated.sent().effective_config.is_some());
    }
}

#[test]
fn a_message_of_exactly_the_limit_goes_out() {
    let mut simulated = Simulated::websocket().full();
    simulated.connect();
    let Step::Send(message) = simulated.client.poll(simulated.now) else { panic!() };
    let length = message.bytes.len();
    for (send, fits) in [(length, true), (length - 1, false)] {
        let options = Options { limits: Limits { send, ..Limits::default() }, ..exact() };
        let mut simulated = Simulated::new("ws://server/v1/opamp", options).full();
        simulated.connect();
        let Step::Send(message) = simulated.client.poll(simulated.now) else { panic!() };
        assert_eq!(message.bytes.len() == length, fits);
        assert!(message.bytes.len() <= send);
    }
}
