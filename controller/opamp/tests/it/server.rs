//! What a server knows of agents and answers them, without a network.

use std::time::{Duration, Instant};

use profiler_opamp::{
    InstanceUid, Limits,
    messages::{
        AgentCapabilities, AgentConfigMap, AgentDisconnect, AgentRemoteConfig, AgentToServer, AgentToServerFlags,
        AvailableComponents, ComponentDetails, ConnectionSettingsOffers, ConnectionSettingsRequest, CustomCapabilities,
        CustomMessage, EffectiveConfig, OpAmpConnectionSettings, PackagesAvailable, RemoteConfigStatus,
        ServerCapabilities, ServerErrorResponseType, ServerToAgent, ServerToAgentFlags, TelemetryConnectionSettings,
        server_error_response::Details,
    },
    server::{Connection, Event, OfferError, Options, Outgoing, Refusal, Registry},
    wire::WireError,
};
use prost::Message;

use super::simulated::{SECOND, UID, all_capabilities, all_of_a_server, description, healthy};

const SOCKET: Connection = Connection { id: 1, stays: true, principal: 0 };
const OTHER: Connection = Connection { id: 2, stays: true, principal: 0 };
const UNIX_TIME: Duration = Duration::from_secs(1_700_000_000);

struct Simulated {
    registry: Registry,
    now: Instant,
    requests: u64,
}

fn options() -> Options {
    Options { capabilities: all_of_a_server(), custom_capabilities: vec!["com.example.a".into()], ..Options::default() }
}

impl Simulated {
    fn new(options: Options) -> Self {
        let mut bits = 0_u64;
        let random = move || {
            bits += 1;
            bits
        };
        Self { registry: Registry::with_random(options, Box::new(random)), now: Instant::now(), requests: 1000 }
    }

    fn says(&mut self, connection: Connection, message: &AgentToServer) -> ServerToAgent {
        let received = self.registry.received(self.now, UNIX_TIME, connection, &message.encode_to_vec());
        self.registry.answer(received)
    }

    /// By plain HTTP.
    fn posts(&mut self, message: &AgentToServer) -> ServerToAgent {
        self.requests += 1;
        self.says(Connection { id: self.requests, stays: false, principal: 0 }, message)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.registry.next_event()).collect()
    }

    fn pushed(&mut self, connection: Connection) -> Vec<ServerToAgent> {
        assert!(self.registry.woken().contains(&connection.id));
        match self.registry.outgoing(connection) {
            Outgoing::Send(messages) => messages,
            Outgoing::Close => panic!("to be closed"),
        }
    }
}

/// With an agent that has reported everything on [`SOCKET`].
fn connected() -> Simulated {
    let mut simulated = Simulated::new(options());
    let answer = simulated.says(SOCKET, &first());
    assert_eq!(answer.flags, 0);
    simulated.events();
    simulated
}

fn first() -> AgentToServer {
    AgentToServer {
        agent_description: Some(description("a")),
        health: Some(healthy()),
        effective_config: Some(EffectiveConfig::default()),
        custom_capabilities: Some(CustomCapabilities { capabilities: vec!["com.example.a".into()] }),
        ..report(0)
    }
}

fn report(sequence_num: u64) -> AgentToServer {
    AgentToServer { instance_uid: UID.to_wire(), sequence_num, capabilities: all_capabilities(), ..Default::default() }
}

fn config(hash: &[u8]) -> AgentRemoteConfig {
    AgentRemoteConfig { config: Some(AgentConfigMap::default()), config_hash: hash.to_vec() }
}

fn error(answer: &ServerToAgent) -> (ServerErrorResponseType, String) {
    let error = answer.error_response.clone().expect("an error");
    let alone = ServerToAgent {
        instance_uid: answer.instance_uid.clone(),
        error_response: answer.error_response.clone(),
        ..Default::default()
    };
    assert_eq!(*answer, alone, "an error is alone");
    (error.r#type(), error.error_message)
}

fn asks_for_all(answer: &ServerToAgent) -> bool {
    ServerToAgentFlags::ReportFullState.is_in(answer.flags)
}

#[test]
fn every_message_is_answered_to_its_agent_with_the_servers_capabilities() {
    let mut simulated = Simulated::new(Options { capabilities: u64::MAX, ..options() });
    let answer = simulated.says(SOCKET, &first());
    assert_eq!(answer.instance_uid, UID.to_wire());
    assert_eq!(answer.capabilities, all_of_a_server(), "no bits that are not defined");
    assert_eq!(answer.custom_capabilities.unwrap().capabilities, ["com.example.a"]);
    assert_eq!(simulated.events(), [Event::Connected(UID), Event::Reported(UID)]);
    for sequence in 1..4 {
        let answer = simulated.says(SOCKET, &report(sequence));
        let nothing =
            ServerToAgent { capabilities: all_of_a_server(), instance_uid: UID.to_wire(), ..Default::default() };
        assert_eq!(answer, nothing);
    }
    let none = Simulated::new(Options { capabilities: 0, ..options() }).says(SOCKET, &first());
    assert_eq!(none.capabilities, ServerCapabilities::AcceptsStatus.bit());
}

#[test]
fn what_a_report_leaves_out_is_as_it_was() {
    let mut simulated = connected();
    let error = profiler_opamp::messages::ComponentHealth { last_error: "x".into(), ..Default::default() };
    simulated.says(SOCKET, &AgentToServer { health: Some(error.clone()), ..report(1) });
    let agent = simulated.registry.agent(UID).unwrap();
    assert_eq!((&agent.health, &agent.description), (&Some(error), &Some(description("a"))));
    assert!(agent.is_connected && agent.effective_config.is_some());
}

#[test]
fn what_the_server_does_not_accept_it_does_not_take() {
    let mut simulated = Simulated::new(Options { capabilities: 0, ..options() });
    let packages = Some(Default::default());
    let request = Some(ConnectionSettingsRequest::default());
    simulated
        .says(SOCKET, &AgentToServer { package_statuses: packages, connection_settings_request: request, ..first() });
    let agent = simulated.registry.agent(UID).unwrap();
    assert!(agent.effective_config.is_none() && agent.package_statuses.is_none());
    assert_eq!(simulated.events(), [Event::Connected(UID), Event::Reported(UID)]);
}

#[test]
fn after_a_gap_all_is_asked_for() {
    for sequence in [2, 100, 0, u64::MAX] {
        let mut simulated = connected();
        assert!(asks_for_all(&simulated.says(SOCKET, &report(sequence))), "{sequence}");
        // Once.
        assert!(!asks_for_all(&simulated.says(SOCKET, &report(sequence.wrapping_add(1)))));
    }
    // Also after the same message twice, and both are answered.
    let mut simulated = connected();
    assert!(!asks_for_all(&simulated.says(SOCKET, &report(1))));
    assert!(asks_for_all(&simulated.says(SOCKET, &report(1))));
    // Around the end of numbers there is none.
    let mut simulated = Simulated::new(options());
    simulated.says(SOCKET, &AgentToServer { sequence_num: u64::MAX, ..first() });
    assert!(!asks_for_all(&simulated.says(SOCKET, &report(0))));
}

#[test]
fn an_agent_of_which_nothing_is_known_is_asked_for_all() {
    // The server was started anew.
    let mut simulated = Simulated::new(options());
    assert!(asks_for_all(&simulated.says(SOCKET, &report(5))));
    assert!(!asks_for_all(&simulated.says(SOCKET, &AgentToServer { sequence_num: 6, ..first() })));
}

#[test]
fn what_is_no_message_is_a_bad_request() {
    let mut simulated = Simulated::new(options());
    let mut said = |bytes: &[u8]| {
        let received = simulated.registry.received(Instant::now(), UNIX_TIME, SOCKET, bytes);
        assert_eq!(received.from(), None);
        simulated.registry.answer(received)
    };
    for wrong in [vec![], vec![1; 15], vec![1; 17], vec![0; 16], vec![1; 1000]] {
        let message = AgentToServer { instance_uid: wrong, ..first() };
        let (kind, text) = error(&said(&message.encode_to_vec()));
        assert!(kind == ServerErrorResponseType::BadRequest && text.contains("instance_uid"), "{text}");
    }
    let (kind, text) = error(&said(b"\xff\xff"));
    assert!(kind == ServerErrorResponseType::BadRequest && text.contains("cannot be decoded"), "{text}");
    assert_eq!(simulated.registry.agents().count(), 0);
    let malformed = simulated.registry.malformed(&WireError::Header);
    assert_eq!(error(&simulated.registry.answer(malformed)).0, ServerErrorResponseType::BadRequest);
}

#[test]
fn a_configuration_is_offered_until_its_hash_is_reported_also_as_failed() {
    let mut simulated = connected();
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    assert_eq!(simulated.pushed(SOCKET)[0].remote_config, Some(config(&[1])), "at once");
    assert_eq!(simulated.says(SOCKET, &report(1)).remote_config, Some(config(&[1])));
    for status in [2, 3, 1] {
        let status = RemoteConfigStatus { last_remote_config_hash: vec![1], status, ..Default::default() };
        let answer = simulated.says(SOCKET, &AgentToServer { remote_config_status: Some(status), ..report(2) });
        assert_eq!(answer.remote_config, None);
    }
    // It says that it has another one.
    let status = RemoteConfigStatus { last_remote_config_hash: vec![9], ..Default::default() };
    let answer = simulated.says(SOCKET, &AgentToServer { remote_config_status: Some(status), ..report(5) });
    assert_eq!(answer.remote_config, Some(config(&[1])));
}

#[test]
fn an_agent_that_reports_no_status_is_offered_a_configuration_once() {
    let mut simulated = connected();
    let capabilities = AgentCapabilities::AcceptsRemoteConfig.bit();
    simulated.says(SOCKET, &AgentToServer { capabilities, ..report(1) });
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    let mut answered = |sequence, hash: &[u8]| {
        simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(hash))).unwrap();
        simulated.says(SOCKET, &AgentToServer { capabilities, ..report(sequence) }).remote_config
    };
    assert_eq!(answered(2, &[1]), Some(config(&[1])));
    assert_eq!(answered(3, &[1]), None);
    assert_eq!(answered(4, &[2]), Some(config(&[2])));
}

#[test]
fn nobody_is_offered_what_either_side_cannot_do() {
    let offers: [fn(&mut profiler_opamp::server::Offers); 3] = [
        |offers| offers.remote_config = Some(config(&[1])),
        |offers| offers.packages = Some(PackagesAvailable { all_packages_hash: vec![1], ..Default::default() }),
        |offers| {
            let opamp = Some(OpAmpConnectionSettings { destination_endpoint: "wss://h".into(), ..Default::default() });
            offers.connection_settings = Some(ConnectionSettingsOffers { hash: vec![1], opamp, ..Default::default() });
        },
    ];
    let mut simulated = Simulated::new(Options { capabilities: 0, ..options() });
    simulated.says(SOCKET, &first());
    for offer in offers {
        assert!(matches!(simulated.registry.offer(UID, offer), Err(OfferError::ServerCannot(_))));
        assert!(matches!(simulated.registry.offer(InstanceUid::new([1; 16]), offer), Err(OfferError::Unknown(_))));
    }

    // The agent stops being able to.
    let mut simulated = connected();
    for offer in offers {
        simulated.registry.offer(UID, offer).unwrap();
    }
    let answer = simulated.says(SOCKET, &report(1));
    assert!(
        answer.remote_config.is_some() && answer.packages_available.is_some() && answer.connection_settings.is_some()
    );
    let capabilities = AgentCapabilities::ReportsStatus.bit();
    let answer = simulated.says(SOCKET, &AgentToServer { capabilities, ..report(2) });
    assert!(
        answer.remote_config.is_none() && answer.packages_available.is_none() && answer.connection_settings.is_none()
    );
    for offer in [offers[0], offers[1]] {
        simulated.registry.offer(UID, |offers| *offers = Default::default()).unwrap();
        assert!(matches!(simulated.registry.offer(UID, offer), Err(OfferError::AgentCannot(_))));
    }
    assert!(matches!(simulated.registry.restart(UID), Err(OfferError::AgentCannot(_))));
}

#[test]
fn of_connection_settings_that_is_offered_which_the_agent_can_use() {
    let mut simulated = connected();
    let telemetry = Some(TelemetryConnectionSettings::default());
    let all = ConnectionSettingsOffers {
        hash: vec![1],
        own_metrics: telemetry.clone(),
        own_traces: telemetry.clone(),
        own_logs: telemetry,
        ..Default::default()
    };
    simulated.registry.offer(UID, |offers| offers.connection_settings = Some(all.clone())).unwrap();
    let capabilities = AgentCapabilities::ReportsOwnLogs.bit();
    let answer = simulated.says(SOCKET, &AgentToServer { capabilities, ..report(1) });
    let usable = ConnectionSettingsOffers { own_metrics: None, own_traces: None, ..all };
    assert_eq!(answer.connection_settings, Some(usable));
    let capabilities = AgentCapabilities::ReportsStatus.bit();
    assert_eq!(simulated.says(SOCKET, &AgentToServer { capabilities, ..report(2) }).connection_settings, None);
}

#[test]
fn an_offer_has_what_it_must_have() {
    let mut simulated = connected();
    let registry = &mut simulated.registry;
    let without_hash = registry.offer(UID, |offers| offers.remote_config = Some(config(&[])));
    assert_eq!(without_hash, Err(OfferError::Incomplete("config_hash")));
    let without_hash = registry.offer(UID, |offers| offers.packages = Some(PackagesAvailable::default()));
    assert_eq!(without_hash, Err(OfferError::Incomplete("all_packages_hash")));
    for endpoint in ["", "host:4320", "ftp://host"] {
        let opamp = OpAmpConnectionSettings { destination_endpoint: endpoint.into(), ..Default::default() };
        let offer = ConnectionSettingsOffers { hash: vec![1], opamp: Some(opamp), ..Default::default() };
        let offered = registry.offer(UID, |offers| offers.connection_settings = Some(offer));
        assert!(matches!(offered, Err(OfferError::Incomplete(_))), "{endpoint}");
    }
    assert_eq!(registry.agent(UID).unwrap().offers, Default::default());
}

#[test]
fn a_restart_is_alone_and_what_else_there_is_follows() {
    let mut simulated = connected();
    simulated.registry.restart(UID).unwrap();
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    let mut pushed = simulated.pushed(SOCKET).remove(0);
    assert!(pushed.command.take().is_some());
    let bare = ServerToAgent { instance_uid: UID.to_wire(), capabilities: all_of_a_server(), ..Default::default() };
    assert_eq!(pushed, bare);
    let next = simulated.says(SOCKET, &report(1));
    assert!(next.command.is_none() && next.remote_config.is_some());
}

#[test]
fn custom_messages_go_where_both_sides_understand_them() {
    let message = |capability: &str| CustomMessage { capability: capability.into(), ..Default::default() };
    let mut simulated = connected();
    let refused = simulated.registry.send_custom(UID, message("com.example.b"));
    assert_eq!(refused, Err(OfferError::Custom("com.example.b".into())));
    simulated.registry.send_custom(UID, message("com.example.a")).unwrap();
    assert_eq!(simulated.registry.send_custom(UID, message("com.example.a")), Err(OfferError::Pending));
    let pushed = simulated.pushed(SOCKET).remove(0);
    assert_eq!(pushed.custom_message, Some(message("com.example.a")));
    assert_eq!(pushed.custom_capabilities, None, "they have not changed");

    for (sequence, capability) in [(1, "com.example.b"), (2, "com.example.a")] {
        simulated.says(SOCKET, &AgentToServer { custom_message: Some(message(capability)), ..report(sequence) });
    }
    let custom = Event::Custom { from: UID, message: message("com.example.a") };
    assert_eq!(simulated.events(), [Event::Reported(UID), Event::Reported(UID), custom]);
}

#[test]
fn the_components_are_asked_for_and_kept_while_their_hash_is_the_same() {
    let mut simulated = connected();
    let hash_alone = AvailableComponents { hash: vec![1], ..Default::default() };
    let components = [("a".to_owned(), ComponentDetails::default())].into();
    let whole = AvailableComponents { hash: vec![1], components };
    simulated.registry.request_state(UID, true).unwrap();
    let asked = simulated.says(SOCKET, &AgentToServer { available_components: Some(hash_alone.clone()), ..report(1) });
    assert!(ServerToAgentFlags::ReportAvailableComponents.is_in(asked.flags) && asks_for_all(&asked));
    simulated.says(SOCKET, &AgentToServer { available_components: Some(whole.clone()), ..report(2) });
    simulated.says(SOCKET, &AgentToServer { available_components: Some(hash_alone), ..report(3) });
    assert_eq!(simulated.registry.agent(UID).unwrap().available_components, Some(whole));
    let another = AvailableComponents { hash: vec![2], ..Default::default() };
    simulated.says(SOCKET, &AgentToServer { available_components: Some(another.clone()), ..report(4) });
    assert_eq!(simulated.registry.agent(UID).unwrap().available_components, Some(another));
}

#[test]
fn who_asks_for_an_identity_gets_one() {
    let mut simulated = Simulated::new(options());
    let flags = AgentToServerFlags::RequestInstanceUid as u64;
    let answer = simulated.says(SOCKET, &AgentToServer { flags, ..first() });
    assert_eq!(answer.instance_uid, UID.to_wire(), "to the name that it used");
    let new = InstanceUid::from_wire(&answer.agent_identification.unwrap().new_instance_uid).unwrap();
    assert_eq!(new.to_string().as_bytes()[14], b'7', "a UUID of version 7");
    assert!(simulated.registry.agent(UID).is_none());
    assert_eq!(simulated.registry.agent(new).unwrap().description, Some(description("a")));
    let renamed = Event::Renamed { from: UID, to: new, is_double: false };
    assert_eq!(simulated.events(), [renamed, Event::Connected(new), Event::Reported(new)]);
    let answer = simulated.says(SOCKET, &AgentToServer { instance_uid: new.to_wire(), ..report(1) });
    assert!(answer.flags == 0 && answer.agent_identification.is_none());
}

#[test]
fn two_agents_of_one_name_are_told_apart_by_their_numbers() {
    // A machine was cloned with the identity of its agent. The clone starts, which looks like a restart.
    let mut simulated = connected();
    simulated.says(SOCKET, &report(1));
    for sequence in 2..5 {
        simulated.says(SOCKET, &report(sequence));
    }
    simulated.says(OTHER, &first());
    // Then the original comes back, and the clone.
    simulated.registry.closed(SOCKET);
    let third = Connection { id: 3, stays: true, principal: 0 };
    simulated.says(third, &report(5));
    simulated.registry.closed(OTHER);
    simulated.events();
    let answer = simulated.says(Connection { id: 4, stays: true, principal: 0 }, &report(2));
    let new = InstanceUid::from_wire(&answer.agent_identification.as_ref().unwrap().new_instance_uid).unwrap();
    assert_eq!(answer.instance_uid, UID.to_wire());
    let events = simulated.events();
    assert!(events.contains(&Event::Renamed { from: UID, to: new, is_double: true }), "{events:?}");
    assert!(simulated.registry.agent(UID).unwrap().is_connected, "the original has its name");
    assert!(asks_for_all(&answer), "nothing is known of the other one");
    assert_eq!(simulated.says(third, &report(6)).agent_identification, None);

    // By plain HTTP.
    let mut simulated = Simulated::new(options());
    for sequence in 0..9 {
        simulated.posts(&AgentToServer { sequence_num: sequence, ..first() });
    }
    assert!(simulated.posts(&report(4)).agent_identification.is_some());
    assert!(simulated.posts(&report(9)).agent_identification.is_none());
}

#[test]
fn an_agent_that_restarts_keeps_its_name() {
    let mut simulated = connected();
    for sequence in 1..9 {
        simulated.says(SOCKET, &report(sequence));
    }
    for start in [0, 1] {
        let answer = simulated.says(OTHER, &AgentToServer { sequence_num: start, ..first() });
        assert_eq!(answer.agent_identification, None);
    }
    assert_eq!(simulated.registry.agents().count(), 1);
}

#[test]
fn what_an_agent_had_before_it_restarted_it_may_have_lost() {
    let mut simulated = connected();
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    let status = RemoteConfigStatus { last_remote_config_hash: vec![1], status: 1, ..Default::default() };
    let applied = AgentToServer { remote_config_status: Some(status), ..report(1) };
    assert_eq!(simulated.says(SOCKET, &applied).remote_config, None);
    simulated.registry.closed(SOCKET);
    let answer = simulated.says(OTHER, &first());
    assert!(asks_for_all(&answer) && answer.remote_config == Some(config(&[1])));
}

#[test]
fn an_agent_has_one_connection_the_last() {
    let mut simulated = connected();
    simulated.says(OTHER, &report(1));
    assert!(simulated.registry.woken().contains(&SOCKET.id));
    assert_eq!(simulated.registry.outgoing(SOCKET), Outgoing::Close);
    // What still comes on the old one is answered, and changes nothing.
    assert_eq!(error(&simulated.says(SOCKET, &report(2))).0, ServerErrorResponseType::Unknown);
    simulated.events();
    simulated.registry.closed(SOCKET);
    assert_eq!(simulated.events(), []);
    assert!(simulated.registry.agent(UID).unwrap().is_connected);
    assert_eq!(simulated.says(OTHER, &report(2)).flags, 0);
}

#[test]
fn several_agents_may_speak_on_one_connection() {
    let mut simulated = connected();
    let second = InstanceUid::new([2; 16]);
    simulated.says(SOCKET, &AgentToServer { instance_uid: second.to_wire(), ..first() });
    simulated.registry.offer(second, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    let pushed = simulated.pushed(SOCKET);
    assert!(pushed.len() == 1 && pushed[0].instance_uid == second.to_wire());
    // One of them gets a connection of its own.
    simulated.says(OTHER, &report(1));
    assert!(matches!(simulated.registry.outgoing(SOCKET), Outgoing::Send(_)));
    simulated.events();
    simulated.registry.closed(SOCKET);
    assert_eq!(simulated.events(), [Event::Disconnected(second)]);
}

#[test]
fn who_leaves_is_gone_at_once_with_a_goodbye_and_otherwise_with_the_connection() {
    let mut simulated = connected();
    let goodbye = AgentToServer { agent_disconnect: Some(AgentDisconnect {}), ..report(1) };
    let answer = simulated.says(SOCKET, &goodbye);
    assert_eq!(answer.instance_uid, UID.to_wire(), "it is answered");
    assert_eq!(simulated.events(), [Event::Reported(UID), Event::Disconnected(UID)]);
    simulated.registry.closed(SOCKET);
    assert_eq!(simulated.events(), []);
    assert!(!simulated.registry.agent(UID).unwrap().is_connected);

    let mut simulated = connected();
    simulated.registry.closed(SOCKET);
    assert_eq!(simulated.events(), [Event::Disconnected(UID)]);

    // By plain HTTP: with a goodbye, or by silence.
    let mut simulated = Simulated::new(options());
    simulated.posts(&first());
    simulated.posts(&goodbye);
    assert!(!simulated.registry.agent(UID).unwrap().is_connected);
    simulated.posts(&report(2));
    simulated.events();
    simulated.now += 60 * SECOND;
    simulated.registry.expire(simulated.now, 60 * SECOND);
    assert_eq!(simulated.events(), []);
    simulated.now += SECOND;
    simulated.registry.expire(simulated.now, 60 * SECOND);
    assert_eq!(simulated.events(), [Event::Disconnected(UID)]);
}

#[test]
fn a_request_for_a_certificate_is_handed_out_and_may_be_refused() {
    let mut simulated = connected();
    let request = ConnectionSettingsRequest::default();
    let message = AgentToServer { connection_settings_request: Some(request.clone()), ..report(1) };
    let received = simulated.registry.received(simulated.now, UNIX_TIME, SOCKET, &message.encode_to_vec());
    assert_eq!(simulated.events(), [Event::Reported(UID), Event::ConnectionSettingsRequest { from: UID, request }]);
    simulated.registry.refuse_request(UID, "the certificate would be for another agent").unwrap();
    let answer = simulated.registry.answer(received);
    let text = "the certificate would be for another agent".to_owned();
    assert_eq!(error(&answer), (ServerErrorResponseType::BadRequest, text));
    assert_eq!(simulated.says(SOCKET, &report(2)).error_response, None, "once");
}

#[test]
fn what_a_report_makes_the_server_offer_is_in_its_answer() {
    let mut simulated = Simulated::new(options());
    let request = Connection { id: 9, stays: false, principal: 0 };
    let received = simulated.registry.received(simulated.now, UNIX_TIME, request, &first().encode_to_vec());
    assert_eq!(received.from(), Some(UID));
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    assert_eq!(simulated.registry.answer(received).remote_config, Some(config(&[1])));
}

#[test]
fn a_message_that_is_too_large_is_not_sent_and_told() {
    let limits = Limits { send: 1000, receive: 500 };
    let mut simulated = Simulated::new(Options { limits, ..options() });
    simulated.says(SOCKET, &first());
    simulated.events();
    let large = AgentRemoteConfig { config_hash: vec![1; 1000], ..Default::default() };
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(large)).unwrap();
    let answer = simulated.says(SOCKET, &report(1));
    assert!(answer.remote_config.is_none() && answer.instance_uid == UID.to_wire(), "an answer all the same");
    let events = simulated.events();
    assert!(matches!(events[1], Event::TooLarge { to: UID, bytes: 1000.. }), "{events:?}");

    // And one that came is malformed.
    let error = error(&simulated.posts(&AgentToServer { instance_uid: vec![1; 600], ..report(2) }));
    assert!(error.0 == ServerErrorResponseType::BadRequest && error.1.contains("500 bytes"), "{error:?}");
}

#[test]
fn there_is_room_for_so_many_agents_and_others_are_told_to_come_later() {
    let named = |byte: u8| AgentToServer { instance_uid: vec![byte; 16], ..first() };
    let mut simulated = Simulated::new(Options { agents: 2, ..options() });
    simulated.says(SOCKET, &named(1));
    simulated.says(OTHER, &named(2));
    let third = Connection { id: 3, stays: true, principal: 0 };
    let answer = simulated.says(third, &named(3));
    assert_eq!(error(&answer).0, ServerErrorResponseType::Unavailable);
    let Some(Details::RetryInfo(info)) = answer.error_response.unwrap().details else { panic!() };
    assert_eq!(info.retry_after_nanoseconds, 30_000_000_000);
    // One leaves, and is forgotten for another.
    simulated.registry.closed(SOCKET);
    assert_eq!(simulated.says(third, &named(3)).error_response, None);
    let known: Vec<_> = simulated.registry.agents().map(|agent| agent.uid).collect();
    assert_eq!(known, [InstanceUid::new([2; 16]), InstanceUid::new([3; 16])]);
}

#[test]
fn a_message_that_the_application_refuses_changes_nothing() {
    let mut simulated = connected();
    let say = |simulated: &mut Simulated, connection, refusal| {
        let bytes = report(2).encode_to_vec();
        let received = simulated.registry.received_if(simulated.now, UNIX_TIME, connection, &bytes, |uid| {
            assert_eq!(uid, UID);
            Err(Refusal::clone(&refusal))
        });
        assert_eq!(received.from(), None);
        error(&simulated.registry.answer(received))
    };
    let before = simulated.registry.agent(UID).cloned().unwrap();
    let stranger = Connection { id: 2, stays: true, principal: 9 };
    let answer = say(&mut simulated, stranger, Refusal::NotAdmitted("not yours"));
    assert_eq!(answer, (ServerErrorResponseType::BadRequest, "not yours".to_owned()));
    let (kind, _) = say(&mut simulated, stranger, Refusal::Busy(SECOND));
    assert_eq!(kind, ServerErrorResponseType::Unavailable);
    assert_eq!(simulated.registry.agent(UID), Some(&before));
    assert!(simulated.events().is_empty() && simulated.registry.woken().is_empty());
}

#[test]
fn what_the_application_has_no_need_of_is_forgotten_and_offers_go_on() {
    let mut simulated = connected();
    simulated.registry.release(UID);
    let agent = simulated.registry.agent(UID).unwrap();
    assert!(agent.description.is_none() && agent.health.is_none() && agent.effective_config.is_none());
    simulated.registry.offer(UID, |offers| offers.remote_config = Some(config(&[1]))).unwrap();
    let pushed = simulated.pushed(SOCKET);
    assert_eq!(pushed[0].remote_config, Some(config(&[1])));
    assert!(!asks_for_all(&simulated.says(SOCKET, &report(1))), "it has said all");
}

#[test]
fn an_agent_is_forgotten_when_it_is_gone() {
    let mut simulated = connected();
    assert!(!simulated.registry.forget(UID), "it is connected");
    simulated.registry.closed(SOCKET);
    assert!(simulated.registry.forget(UID) && simulated.registry.agent(UID).is_none());
    assert!(!simulated.registry.forget(UID));
}
