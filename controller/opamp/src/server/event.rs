//! What a server tells whoever runs it.

use std::time::Duration;

use crate::{
    instance::InstanceUid,
    messages::{ConnectionSettingsRequest, CustomMessage},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An agent has come.
    Connected(InstanceUid),
    /// It has said something; see [`super::Registry::agent`].
    Reported(InstanceUid),
    /// It has left.
    Disconnected(InstanceUid),
    /// An agent was named anew: it had asked for a name, or another one has the same.
    Renamed {
        /// Its name until now.
        from: InstanceUid,
        /// From now on.
        to: InstanceUid,
        /// There are two with the former name.
        is_double: bool,
    },
    /// A custom message of one of the server's capabilities.
    Custom {
        /// Whose.
        from: InstanceUid,
        /// The message.
        message: CustomMessage,
    },
    /// An agent asks for connection settings: to be answered by an offer, or by [`super::Registry::refuse_request`]. A certificate request
    /// that names an instance uid must name `from`.
    ConnectionSettingsRequest {
        /// Whose.
        from: InstanceUid,
        /// The request.
        request: ConnectionSettingsRequest,
    },
    /// What there was to send was too large, and was not sent.
    TooLarge {
        /// Whom it was for.
        to: InstanceUid,
        /// Its size, bytes.
        bytes: usize,
    },
}

/// Why an agent is not offered something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// No such agent.
    #[error("no agent {0} is known")]
    Unknown(InstanceUid),
    /// The agent lacks the capability.
    #[error("the agent does not have the capability {0}")]
    AgentCannot(&'static str),
    /// The server lacks the capability.
    #[error("this server does not have the capability {0}; see server::Options")]
    ServerCannot(&'static str),
    /// An offer without what it has to have.
    #[error("the offer has no {0}")]
    Incomplete(&'static str),
    /// A custom capability.
    #[error("server and agent do not both have the custom capability {0:?}")]
    Custom(String),
    /// One at a time.
    #[error("another custom message is still to be sent")]
    Pending,
}

/// Why an application does not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Who sent it may not speak, or not in this name; the agent is told why.
    NotAdmitted(&'static str),
    /// Too much of it came; it may come again after this time.
    Busy(Duration),
}
