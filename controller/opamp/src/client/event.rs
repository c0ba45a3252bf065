//! What a client tells its agent, and what it is told of failures.

use std::time::Duration;

use crate::{
    instance::InstanceUid,
    messages::{AgentRemoteConfig, ConnectionSettingsOffers, CustomMessage, PackagesAvailable, ServerErrorResponse},
    report::Part,
    wire::WireError,
};

/// Something that concerns the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The server has answered for the first time on this connection.
    Connected,
    /// The connection was lost, or could not be made.
    Disconnected {
        /// Why, in one line.
        reason: String,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A configuration, whose hash is not that of the last status. Tell what becomes of it by
    /// [`super::Client::set_remote_config_status`], with its hash also if it failed.
    RemoteConfig(AgentRemoteConfig),
    /// Packages. Tell what becomes of them by [`super::Client::set_package_statuses`].
    Packages(PackagesAvailable),
    /// Connection settings, without those that the agent's capabilities leave out, whose hash is new. `opamp` is to be checked (a host that
    /// is not allowed, weaker TLS, ...), kept as a candidate, and tried by [`super::Client::try_settings`], or refused by
    /// [`super::Client::refuse_settings`].
    ConnectionSettings(Box<ConnectionSettingsOffers>),
    /// The tried settings work and are in use. The old ones may be forgotten.
    SettingsApplied {
        /// Of the offer.
        hash: Vec<u8>,
    },
    /// The tried settings do not work; the old ones are in use again.
    SettingsFailed {
        /// Of the offer.
        hash: Vec<u8>,
        /// In one line.
        reason: String,
    },
    /// The agent is to restart.
    Restart,
    /// The server has named the agent anew. It is to be kept: the agent is this one from now on.
    NewIdentity(InstanceUid),
    /// A custom message of one of the agent's capabilities.
    Custom(CustomMessage),
    /// The server could not do what it was told.
    ServerError(ServerErrorResponse),
    /// What came was no message, or not for this agent.
    Malformed(Problem),
    /// Parts were too large to be sent, and are left out until they change.
    TooLarge(Vec<Part>),
    /// The server sent the client elsewhere.
    Redirected {
        /// Scheme, host and port.
        to: String,
    },
}

/// What is wrong with what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is for another agent.
    #[error("the message is for another instance_uid")]
    OtherInstance,
    /// The new instance uid is none.
    #[error("the new instance_uid is none")]
    NewIdentity,
    /// A text message, say.
    #[error("{0}")]
    Transport(String),
}

/// Why a connection or a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no answer.
    Connection(String),
    /// An answer that is no upgrade, over HTTP none of 200.
    Status {
        /// HTTP's.
        code: u16,
        /// As [`crate::retry_after`] reads it.
        retry_after: Option<Duration>,
        /// Of a redirect.
        location: Option<String>,
    },
}

/// Why a custom message is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomError {
    /// See [`super::Client::set_custom_capabilities`].
    #[error("{0:?} is not among this agent's custom capabilities")]
    NotOurs(String),
    /// The server would ignore it.
    #[error("{0:?} is not among the server's custom capabilities")]
    NotTheServers(String),
    /// The one before has not gone out.
    #[error("another custom message is still to be sent")]
    Pending,
}

/// Why settings are not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Others are being tried.
    #[error("other connection settings are being tried")]
    Busy,
    /// The client has been stopped.
    #[error("the client has been stopped")]
    Stopped,
}
