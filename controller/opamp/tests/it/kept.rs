//! What a server keeps of agents, whatever they say.

use std::time::{Duration, Instant};

use profiler_opamp::{
    InstanceUid,
    messages::{
        AgentConfigMap, AgentRemoteConfig, AgentToServer, AvailableComponents, ComponentDetails,
        ConnectionSettingsStatus, CustomCapabilities, PackageStatuses, RemoteConfigStatus, ServerErrorResponseType,
        ServerToAgent,
    },
    server::{Agent, Connection, Options, Refusal, Registry},
};
use prost::Message;

use super::simulated::{UID, all_capabilities, all_of_a_server};

const OWN: &str = "com.example.a";

fn registry(agents: usize) -> Registry {
    let custom_capabilities = vec![OWN.into()];
    Registry::new(Options { capabilities: all_of_a_server(), custom_capabilities, agents, ..Options::default() })
}

/// One message by plain HTTP.
fn posted(
    registry: &mut Registry,
    id: u64,
    message: &AgentToServer,
    may_speak: impl FnMut(InstanceUid) -> Result<(), Refusal>,
) -> ServerToAgent {
    let connection = Connection { id, stays: false, principal: 0 };
    let unix_time = Duration::from_secs(1_700_000_000);
    let received = registry.received_if(Instant::now(), unix_time, connection, &message.encode_to_vec(), may_speak);
    let answer = registry.answer(received);
    while registry.next_event().is_some() {}
    answer
}

fn named(sequence_num: u64) -> AgentToServer {
    AgentToServer {
        instance_uid: UID.to_wire(),
        sequence_num,
        capabilities: all_capabilities(),
        ..AgentToServer::default()
    }
}

fn is_busy(answer: &ServerToAgent) -> bool {
    answer.error_response.as_ref().is_some_and(|error| error.r#type() == ServerErrorResponseType::Unavailable)
}

/// Bytes of what is kept of an agent that it can make as large as it likes.
fn bytes(agent: &Agent) -> usize {
    let config = agent.remote_config_status.as_ref();
    let settings = agent.connection_settings_status.as_ref();
    let custom = agent.custom_capabilities.as_ref();
    let packages = agent.package_statuses.as_ref();
    [
        config.map_or(0, |status| status.error_message.capacity() + status.last_remote_config_hash.capacity()),
        settings.map_or(0, |status| status.error_message.capacity() + status.last_connection_settings_hash.capacity()),
        custom.map_or(0, |custom| custom.capabilities.capacity() * size_of::<String>()),
        agent.available_components.as_ref().map_or(0, |all| all.hash.capacity() + all.components.len()),
        packages.map_or(0, |all| all.server_provided_all_packages_hash.capacity() + all.packages.len()),
    ]
    .iter()
    .sum()
}

#[test]
fn of_what_is_released_nothing_large_stays() {
    let mut registry = registry(10);
    let long = || "\u{e4}".repeat(200_000);
    let mut capabilities = vec![String::new(); 1 << 20];
    capabilities.push(OWN.to_owned());
    let message = AgentToServer {
        remote_config_status: Some(RemoteConfigStatus {
            last_remote_config_hash: vec![1; 1 << 20],
            status: 3,
            error_message: long(),
        }),
        connection_settings_status: Some(ConnectionSettingsStatus {
            last_connection_settings_hash: vec![1; 1 << 20],
            error_message: long(),
            ..Default::default()
        }),
        custom_capabilities: Some(CustomCapabilities { capabilities }),
        available_components: Some(AvailableComponents {
            components: [("a".to_owned(), ComponentDetails::default())].into(),
            hash: vec![1; 1 << 20],
        }),
        package_statuses: Some(PackageStatuses {
            server_provided_all_packages_hash: vec![1; 1 << 20],
            ..Default::default()
        }),
        ..named(0)
    };
    posted(&mut registry, 1, &message, |_| Ok(()));
    assert!(bytes(registry.agent(UID).unwrap()) > 4 << 20);
    registry.release(UID);
    let agent = registry.agent(UID).unwrap();
    assert!(bytes(agent) < 8 << 10, "{}", bytes(agent));
    assert_eq!(agent.custom_capabilities.as_ref().unwrap().capabilities, [OWN]);
    let status = agent.remote_config_status.as_ref().unwrap();
    assert!(status.error_message.starts_with('\u{e4}') && status.error_message.len() <= 2 << 10);

    // What it says of an offer is still known, however long the hash is.
    let offer = AgentRemoteConfig { config: Some(AgentConfigMap::default()), config_hash: vec![2; 100] };
    registry.offer(UID, |offers| offers.remote_config = Some(offer.clone())).unwrap();
    let status = RemoteConfigStatus { last_remote_config_hash: vec![2; 100], status: 1, ..Default::default() };
    posted(&mut registry, 2, &AgentToServer { remote_config_status: Some(status), ..named(1) }, |_| Ok(()));
    registry.release(UID);
    assert_eq!(posted(&mut registry, 3, &named(2), |_| Ok(())).remote_config, None);
}

#[test]
fn the_others_of_a_name_have_no_more_room_than_other_agents() {
    let mut registry = registry(10);
    posted(&mut registry, 1, &named(1 << 60), |_| Ok(()));
    let busy = (2..1002).filter(|&id| is_busy(&posted(&mut registry, id, &named(2), |_| Ok(())))).count();
    assert_eq!((registry.agents().count(), busy), (10, 991));
}

#[test]
fn the_application_is_asked_for_the_new_name_too() {
    let mut registry = registry(10);
    posted(&mut registry, 1, &named(9), |_| Ok(()));
    let refuse = |uid| if uid == UID { Ok(()) } else { Err(Refusal::Busy(Duration::from_secs(9))) };
    assert!(is_busy(&posted(&mut registry, 2, &named(2), refuse)), "another of this name");
    assert!(is_busy(&posted(&mut registry, 3, &AgentToServer { flags: 1, ..named(10) }, refuse)), "it asks for a name");
    assert_eq!(registry.agents().map(|agent| agent.uid).collect::<Vec<_>>(), [UID]);
    assert!(!is_busy(&posted(&mut registry, 4, &named(10), refuse)), "nothing has changed");
}
