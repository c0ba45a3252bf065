//! What an agent reports, and which parts of it are to be sent.

use super::messages::{
    AgentCapabilities, AgentDescription, AgentToServer, AvailableComponents, ComponentHealth,
    ConnectionSettingsRequest, ConnectionSettingsStatus, CustomCapabilities, EffectiveConfig, PackageStatuses,
    RemoteConfigStatus, ServerCapabilities,
};

/// A part of a report, which is sent whole or, if it is as it was last sent, not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Who the agent is.
    Description,
    /// How it is.
    Health,
    /// The configuration that runs.
    EffectiveConfig,
    /// What became of the offered configuration.
    RemoteConfigStatus,
    /// The packages that it has or was offered.
    PackageStatuses,
    /// The custom messages that it understands.
    CustomCapabilities,
    /// What it could run.
    AvailableComponents,
    /// What became of the offered connection settings.
    ConnectionSettingsStatus,
    /// A request for a certificate.
    ConnectionSettingsRequest,
}

impl Part {
    pub(crate) const ALL: [Self; 9] = [
        Self::Description,
        Self::Health,
        Self::EffectiveConfig,
        Self::RemoteConfigStatus,
        Self::PackageStatuses,
        Self::CustomCapabilities,
        Self::AvailableComponents,
        Self::ConnectionSettingsStatus,
        Self::ConnectionSettingsRequest,
    ];

    /// Those that may be large, largest first as a rule, and that a server can do without for the rest.
    pub(crate) const LARGE: [Self; 5] = [
        Self::EffectiveConfig,
        Self::AvailableComponents,
        Self::PackageStatuses,
        Self::Health,
        Self::CustomCapabilities,
    ];

    /// Whether an agent with `agent` capabilities reports it to a server with `server` ones; what a server can is not known before its
    /// first answer.
    pub(crate) fn is_spoken(self, agent: u64, server: Option<u64>) -> bool {
        let server_has = |capability: ServerCapabilities| server.is_none_or(|server| capability.is_in(server));
        match self {
            Self::Description | Self::CustomCapabilities => true,
            Self::Health => AgentCapabilities::ReportsHealth.is_in(agent),
            Self::EffectiveConfig => {
                AgentCapabilities::ReportsEffectiveConfig.is_in(agent)
                    && server_has(ServerCapabilities::AcceptsEffectiveConfig)
            }
            Self::RemoteConfigStatus => {
                AgentCapabilities::ReportsRemoteConfig.is_in(agent)
                    && server_has(ServerCapabilities::OffersRemoteConfig)
            }
            Self::PackageStatuses => {
                AgentCapabilities::ReportsPackageStatuses.is_in(agent)
                    && server_has(ServerCapabilities::AcceptsPackagesStatus)
            }
            Self::AvailableComponents => AgentCapabilities::ReportsAvailableComponents.is_in(agent),
            Self::ConnectionSettingsStatus => {
                AgentCapabilities::ReportsConnectionSettingsStatus.is_in(agent)
                    && server_has(ServerCapabilities::OffersConnectionSettings)
            }
            // Not tried before it is known to be understood: nobody would answer it.
            Self::ConnectionSettingsRequest => {
                server.is_some_and(|server| ServerCapabilities::AcceptsConnectionSettingsRequest.is_in(server))
            }
        }
    }
}

/// A set of [`Part`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts(u16);

impl Parts {
    pub(crate) fn all() -> Self {
        // A request is made once, and is no state.
        Part::ALL.into_iter().filter(|&part| part != Part::ConnectionSettingsRequest).collect()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, part: Part) -> bool {
        self.0 & 1 << part as u16 != 0
    }

    pub(crate) fn add(&mut self, part: Part) {
        self.0 |= 1 << part as u16;
    }

    pub(crate) fn remove(&mut self, part: Part) {
        self.0 &= !(1 << part as u16);
    }

    pub(crate) fn join(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |&part| self.has(part))
    }
}

impl FromIterator<Part> for Parts {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        let mut set = Self::default();
        parts.into_iter().for_each(|part| set.add(part));
        set
    }
}

/// An agent's state, whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) description: Option<AgentDescription>,
    pub(crate) health: Option<ComponentHealth>,
    pub(crate) effective_config: Option<EffectiveConfig>,
    pub(crate) remote_config_status: Option<RemoteConfigStatus>,
    pub(crate) package_statuses: Option<PackageStatuses>,
    pub(crate) custom_capabilities: Option<CustomCapabilities>,
    pub(crate) available_components: Option<AvailableComponents>,
    pub(crate) connection_settings_status: Option<ConnectionSettingsStatus>,
    pub(crate) connection_settings_request: Option<ConnectionSettingsRequest>,
}

impl State {
    /// Whether there is anything to say of `part`.
    pub(crate) fn has(&self, part: Part) -> bool {
        match part {
            Part::Description => self.description.is_some(),
            Part::Health => self.health.is_some(),
            Part::EffectiveConfig => self.effective_config.is_some(),
            Part::RemoteConfigStatus => self.remote_config_status.is_some(),
            Part::PackageStatuses => self.package_statuses.is_some(),
            Part::CustomCapabilities => self.custom_capabilities.is_some(),
            Part::AvailableComponents => self.available_components.is_some(),
            Part::ConnectionSettingsStatus => self.connection_settings_status.is_some(),
            Part::ConnectionSettingsRequest => self.connection_settings_request.is_some(),
        }
    }

    /// Puts `part` into `message`, whole; of the components only the hash, unless `with_components`.
    pub(crate) fn write(&self, part: Part, with_components: bool, message: &mut AgentToServer) {
        match part {
            Part::Description => message.agent_description.clone_from(&self.description),
            Part::Health => message.health.clone_from(&self.health),
            Part::EffectiveConfig => message.effective_config.clone_from(&self.effective_config),
            Part::RemoteConfigStatus => message.remote_config_status.clone_from(&self.remote_config_status),
            Part::PackageStatuses => message.package_statuses.clone_from(&self.package_statuses),
            Part::CustomCapabilities => message.custom_capabilities.clone_from(&self.custom_capabilities),
            Part::AvailableComponents => {
                message.available_components = self.available_components.as_ref().map(|all| AvailableComponents {
                    hash: all.hash.clone(),
                    components: if with_components { all.components.clone() } else { Default::default() },
                });
            }
            Part::ConnectionSettingsStatus => {
                message.connection_settings_status.clone_from(&self.connection_settings_status);
            }
            Part::ConnectionSettingsRequest => {
                message.connection_settings_request.clone_from(&self.connection_settings_request);
            }
        }
    }

    /// Takes `part` out of `message`.
    pub(crate) fn erase(part: Part, message: &mut AgentToServer) {
        Self::default().write(part, false, message);
    }
}
