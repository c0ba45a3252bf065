//! Messages to agents.

use std::time::Duration;

use prost::Message;

use super::{Event, Registry};
use crate::{
    instance::InstanceUid,
    messages::{
        AgentIdentification, CommandType, CustomCapabilities, RetryInfo, ServerErrorResponse, ServerErrorResponseType,
        ServerToAgent, ServerToAgentCommand, ServerToAgentFlags, server_error_response,
    },
};

pub(super) fn bad_request(uid: Vec<u8>, text: &str) -> ServerToAgent {
    error(uid, ServerErrorResponseType::BadRequest, text, None)
}

/// An error, and nothing else.
pub(super) fn error(uid: Vec<u8>, kind: ServerErrorResponseType, text: &str, wait: Option<Duration>) -> ServerToAgent {
    let details = wait.map(|wait| {
        let retry_after_nanoseconds = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        server_error_response::Details::RetryInfo(RetryInfo { retry_after_nanoseconds })
    });
    let error = ServerErrorResponse { r#type: kind.into(), error_message: text.to_owned(), details };
    ServerToAgent { instance_uid: uid, error_response: Some(error), ..ServerToAgent::default() }
}

impl Registry {
    /// What the agent `known_as` is to be told now, addressed to `uid`, the name that it used.
    pub(super) fn message(
        &mut self,
        uid: InstanceUid,
        known_as: InstanceUid,
        new_uid: Option<InstanceUid>,
    ) -> ServerToAgent {
        let Some(agent) = self.agents.get_mut(&known_as) else {
            return error(uid.to_wire(), ServerErrorResponseType::Unknown, "the agent is not known", None);
        };
        let bare = ServerToAgent {
            instance_uid: uid.to_wire(),
            capabilities: self.options.capabilities,
            agent_identification: new_uid.map(|uid| AgentIdentification { new_instance_uid: uid.to_wire() }),
            ..ServerToAgent::default()
        };
        agent.pending.push = false;
        if let Some(reason) = agent.pending.refusal.take() {
            agent.pending.push = agent.has_something();
            return bad_request(uid.to_wire(), &reason);
        }
        // A command is alone in its message. What it is about is not lost: the rest comes after it.
        if new_uid.is_none() && std::mem::take(&mut agent.pending.restart) {
            return ServerToAgent {
                command: Some(ServerToAgentCommand { r#type: CommandType::Restart.into() }),
                ..bare
            };
        }
        let mut message = bare.clone();
        let mut flags = 0;
        if std::mem::take(&mut agent.pending.full_state) {
            flags |= ServerToAgentFlags::ReportFullState as u64;
        }
        if std::mem::take(&mut agent.pending.components) {
            flags |= ServerToAgentFlags::ReportAvailableComponents as u64;
        }
        message.flags = flags;
        message.custom_message = agent.pending.custom.take();
        if !std::mem::replace(&mut agent.sent.greeting, true) && !self.options.custom_capabilities.is_empty() {
            let capabilities = self.options.custom_capabilities.clone();
            message.custom_capabilities = Some(CustomCapabilities { capabilities });
        }
        if agent.is_connected {
            message.remote_config = agent.due_config().cloned();
            message.connection_settings = agent.due_settings();
            message.packages_available = agent.due_packages().cloned();
        }
        let bytes = message.encoded_len();
        // With the header of a WebSocket message.
        if bytes >= self.options.limits.send {
            self.events.push_back(Event::TooLarge { to: known_as, bytes });
            return ServerToAgent { flags, ..bare };
        }
        let hash = |hash: Option<&Vec<u8>>, sent: &mut Option<Vec<u8>>| {
            if let Some(hash) = hash {
                *sent = Some(hash.clone());
            }
        };
        hash(message.remote_config.as_ref().map(|offer| &offer.config_hash), &mut agent.sent.remote_config);
        hash(message.connection_settings.as_ref().map(|offer| &offer.hash), &mut agent.sent.connection_settings);
        hash(message.packages_available.as_ref().map(|offer| &offer.all_packages_hash), &mut agent.sent.packages);
        message
    }
}
