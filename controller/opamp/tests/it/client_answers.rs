//! What a server's messages make an agent do.

use profiler_opamp::{
    InstanceUid,
    client::{Event, Options, Problem, Step},
    messages::{
        AgentCapabilities, AgentConfigMap, AgentConfigObject, AgentIdentification, AgentRemoteConfig,
        ConnectionSettingsOffers, OpAmpConnectionSettings, OtherConnectionSettings, PackageStatuses, PackagesAvailable,
        RemoteConfigStatus, RemoteConfigStatuses, ServerErrorResponse, ServerErrorResponseType, ServerToAgent,
        ServerToAgentCommand, TelemetryConnectionSettings,
    },
};

use super::simulated::{SECOND, Simulated, UID, answer, description, exact};

fn offer(hash: &[u8]) -> AgentRemoteConfig {
    let body = b"rate: 9".as_slice().into();
    let object = AgentConfigObject { body, content_type: "text/yaml".into(), ..Default::default() };
    let config = AgentConfigMap { config_map: [(String::new(), object)].into() };
    AgentRemoteConfig { config: Some(config), config_hash: hash.to_vec() }
}

fn offers(hash: &[u8]) -> ServerToAgent {
    ServerToAgent { remote_config: Some(offer(hash)), ..answer() }
}

#[test]
fn a_configuration_is_handed_out_and_its_status_reported_whole() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.answer(offers(&[1]));
    assert_eq!(simulated.events(), [Event::RemoteConfig(offer(&[1]))]);
    assert_eq!(simulated.sends(), None, "receiving alone changes nothing");
    for status in [RemoteConfigStatuses::Applying, RemoteConfigStatuses::Failed] {
        let status = RemoteConfigStatus {
            last_remote_config_hash: vec![1],
            status: status.into(),
            error_message: "rate is too high".into(),
        };
        simulated.client.set_remote_config_status(status.clone());
        assert_eq!(simulated.sent().remote_config_status, Some(status));
    }
}

#[test]
fn a_configuration_whose_hash_has_a_status_is_not_handed_out_again() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    for status in [RemoteConfigStatuses::Applied, RemoteConfigStatuses::Applying, RemoteConfigStatuses::Failed] {
        let status =
            RemoteConfigStatus { last_remote_config_hash: vec![1], status: status.into(), ..Default::default() };
        simulated.client.set_remote_config_status(status);
        simulated.answer(offers(&[1]));
        assert_eq!(simulated.events(), []);
    }
    simulated.answer(offers(&[2]));
    assert_eq!(simulated.events(), [Event::RemoteConfig(offer(&[2]))]);
}

#[test]
fn what_the_agent_cannot_do_is_ignored() {
    let options = Options { capabilities: 0, ..exact() };
    let (mut simulated, _) = Simulated::new("ws://s", options).full().answered();
    let telemetry = Some(TelemetryConnectionSettings::default());
    let opamp = OpAmpConnectionSettings { destination_endpoint: "ws://evil".into(), ..Default::default() };
    simulated.answer(ServerToAgent {
        remote_config: Some(offer(&[1])),
        packages_available: Some(PackagesAvailable { all_packages_hash: vec![1], ..Default::default() }),
        connection_settings: Some(ConnectionSettingsOffers {
            hash: vec![1],
            opamp: Some(opamp),
            own_metrics: telemetry.clone(),
            own_traces: telemetry.clone(),
            own_logs: telemetry,
            other_connections: [("x".to_owned(), OtherConnectionSettings::default())].into(),
        }),
        command: Some(ServerToAgentCommand::default()),
        ..answer()
    });
    assert_eq!(simulated.events(), []);
    assert_eq!(simulated.sends(), None);

    // It learns to.
    simulated.client.set_capabilities(AgentCapabilities::AcceptsRemoteConfig.bit());
    simulated.sent();
    simulated.answer(offers(&[1]));
    assert_eq!(simulated.events(), [Event::RemoteConfig(offer(&[1]))]);
}

#[test]
fn of_connection_settings_that_is_handed_out_which_the_agent_can_use() {
    let capabilities = AgentCapabilities::ReportsOwnMetrics.bit();
    let (mut simulated, _) = Simulated::new("ws://s", Options { capabilities, ..exact() }).full().answered();
    let telemetry = TelemetryConnectionSettings { destination_endpoint: "https://h/m".into(), ..Default::default() };
    let all = ConnectionSettingsOffers {
        hash: vec![1],
        own_metrics: Some(telemetry.clone()),
        own_logs: Some(telemetry.clone()),
        ..Default::default()
    };
    let message = ServerToAgent { connection_settings: Some(all.clone()), ..answer() };
    simulated.answer(message.clone());
    let usable = ConnectionSettingsOffers { own_logs: None, ..all };
    assert_eq!(simulated.events(), [Event::ConnectionSettings(Box::new(usable))]);
    simulated.answer(message);
    assert_eq!(simulated.events(), [], "its hash is known");
}

#[test]
fn packages_are_handed_out_unless_all_are_known() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    let packages = PackagesAvailable { all_packages_hash: vec![1], ..Default::default() };
    let message = ServerToAgent { packages_available: Some(packages.clone()), ..answer() };
    simulated.answer(message.clone());
    assert_eq!(simulated.events(), [Event::Packages(packages)]);
    simulated
        .client
        .set_package_statuses(PackageStatuses { server_provided_all_packages_hash: vec![1], ..Default::default() });
    simulated.answer(message);
    assert_eq!(simulated.events(), []);
}

#[test]
fn a_restart_is_alone_in_its_message() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    let named = AgentIdentification { new_instance_uid: vec![8; 16] };
    simulated.answer(ServerToAgent {
        command: Some(ServerToAgentCommand::default()),
        agent_identification: Some(named),
        ..offers(&[1])
    });
    assert_eq!(simulated.events(), [Event::Restart]);
    assert_eq!(simulated.client.uid(), UID);
    // A command that this version does not know.
    simulated.answer(ServerToAgent { command: Some(ServerToAgentCommand { r#type: 77 }), ..answer() });
    assert_eq!(simulated.events(), []);
}

#[test]
fn beside_an_error_nothing_counts_and_the_message_is_not_sent_again() {
    for simulated in [Simulated::websocket().full(), Simulated::http().full()] {
        let (mut simulated, _) = simulated.answered();
        simulated.client.set_description(description("b"));
        assert!(simulated.sent().agent_description.is_some());
        let error = ServerErrorResponse {
            r#type: ServerErrorResponseType::BadRequest.into(),
            error_message: "no".into(),
            details: None,
        };
        simulated.answer(ServerToAgent { error_response: Some(error.clone()), ..offers(&[1]) });
        assert_eq!(simulated.events(), [Event::ServerError(error)]);
        assert_eq!(simulated.sends(), None);
        simulated.pass(30 * SECOND);
        assert_eq!(simulated.sent().agent_description, None);
    }
}

#[test]
fn a_new_identity_is_used_for_everything_after_and_all_is_reported_under_it() {
    for simulated in [Simulated::websocket().full(), Simulated::http().full()] {
        let (mut simulated, first) = simulated.answered();
        if first.instance_uid == UID.to_wire() && simulated.client.settings().endpoint.to_string().starts_with("http") {
            simulated.pass(30 * SECOND);
            simulated.sent();
        }
        let new = InstanceUid::new([8; 16]);
        let named = AgentIdentification { new_instance_uid: new.to_wire() };
        let message = ServerToAgent { agent_identification: Some(named), ..answer() };
        simulated.answer(message.clone());
        assert_eq!(simulated.events(), [Event::NewIdentity(new)]);
        assert_eq!(simulated.client.uid(), new);
        let Step::Send(outgoing) = simulated.client.poll(simulated.now) else { panic!() };
        assert_eq!(outgoing.uid, new);
        let report = super::simulated::decoded(&outgoing.bytes, outgoing.to.transport);
        assert!(report.instance_uid == new.to_wire() && report.agent_description.is_some());
        simulated.client.sent(simulated.now);
        // The server may still have sent that to the old name, and repeats itself.
        simulated.answer(message);
        assert_eq!(simulated.events(), []);
        simulated.answer(ServerToAgent { instance_uid: new.to_wire(), ..answer() });
        assert_eq!(simulated.events(), []);
    }
}

#[test]
fn a_new_identity_has_16_bytes_or_is_none() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    for wrong in [vec![1; 15], vec![1; 17], vec![0; 16]] {
        let named = AgentIdentification { new_instance_uid: wrong };
        simulated.answer(ServerToAgent { agent_identification: Some(named), ..answer() });
        assert_eq!(simulated.events(), [Event::Malformed(Problem::NewIdentity)]);
        assert_eq!(simulated.client.uid(), UID);
    }
}

#[test]
fn what_is_for_another_agent_is_not_processed() {
    let (mut simulated, _) = Simulated::websocket().full().answered();
    simulated.answer(ServerToAgent { instance_uid: vec![1; 16], ..offers(&[1]) });
    assert_eq!(simulated.events(), [Event::Malformed(Problem::OtherInstance)]);
    // Without an address it is for whoever gets it.
    simulated.answer(ServerToAgent { instance_uid: Vec::new(), ..offers(&[1]) });
    assert_eq!(simulated.events(), [Event::RemoteConfig(offer(&[1]))]);
}
