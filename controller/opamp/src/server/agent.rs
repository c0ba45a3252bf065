//! One agent, as a server knows it.

use std::time::Instant;

use super::OfferError;
use crate::{
    endpoint::Endpoint,
    instance::InstanceUid,
    messages::{
        AgentCapabilities, AgentDescription, AgentRemoteConfig, AgentToServer, AvailableComponents, ComponentHealth,
        ConnectionSettingsOffers, ConnectionSettingsStatus, CustomCapabilities, CustomMessage, EffectiveConfig,
        PackageStatuses, PackagesAvailable, RemoteConfigStatus, ServerCapabilities,
    },
};

/// Bytes of an error that are kept of an agent that was [`super::Registry::release`]d, and of a hash that is none of an offer.
const ERROR_BYTES: usize = 2 << 10;
const HASH_BYTES: usize = 64;

/// What is known of an agent, as it last said.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Who it is.
    pub uid: InstanceUid,
    /// It has a connection, or has asked lately over HTTP.
    pub is_connected: bool,
    /// When it last said something.
    pub last_seen: Instant,
    /// The number of its last message.
    pub sequence: Option<u64>,
    /// Bits of [`AgentCapabilities`].
    pub capabilities: u64,
    /// Who and where it is.
    pub description: Option<AgentDescription>,
    /// How it is.
    pub health: Option<ComponentHealth>,
    /// What runs.
    pub effective_config: Option<EffectiveConfig>,
    /// What became of the configuration that it was offered.
    pub remote_config_status: Option<RemoteConfigStatus>,
    /// Its packages.
    pub package_statuses: Option<PackageStatuses>,
    /// The custom messages that it understands.
    pub custom_capabilities: Option<CustomCapabilities>,
    /// What it could run; without the components unless they were asked for.
    pub available_components: Option<AvailableComponents>,
    /// What became of the connection settings that it was offered.
    pub connection_settings_status: Option<ConnectionSettingsStatus>,
    /// What it is to have.
    pub offers: Offers,
    /// By whose credential it came last; see [`super::Connection::principal`].
    pub principal: u64,
    pub(super) connection: Option<u64>,
    pub(super) stays: bool,
    pub(super) pending: Pending,
    pub(super) sent: Sent,
}

/// What an agent is to have. Each is offered until the agent reports its hash.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offers {
    /// A configuration.
    pub remote_config: Option<AgentRemoteConfig>,
    /// How to connect, to here and to others.
    pub connection_settings: Option<ConnectionSettingsOffers>,
    /// Packages.
    pub packages: Option<PackagesAvailable>,
}

/// What is to be sent once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pending {
    pub(super) push: bool,
    pub(super) full_state: bool,
    pub(super) components: bool,
    pub(super) restart: bool,
    pub(super) custom: Option<CustomMessage>,
    pub(super) refusal: Option<String>,
}

/// What was sent on this connection: the hashes of offers, to agents that do not report what became of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sent {
    pub(super) greeting: bool,
    pub(super) remote_config: Option<Vec<u8>>,
    pub(super) connection_settings: Option<Vec<u8>>,
    pub(super) packages: Option<Vec<u8>>,
}

impl Agent {
    pub(super) fn new(uid: InstanceUid, now: Instant) -> Self {
        Self {
            uid,
            is_connected: false,
            last_seen: now,
            sequence: None,
            capabilities: 0,
            description: None,
            health: None,
            effective_config: None,
            remote_config_status: None,
            package_statuses: None,
            custom_capabilities: None,
            available_components: None,
            connection_settings_status: None,
            offers: Offers::default(),
            principal: 0,
            connection: None,
            stays: false,
            pending: Pending::default(),
            sent: Sent::default(),
        }
    }

    /// Takes what `message` has; what it leaves out is as before. What the server `accepts` not, it does not take.
    pub(super) fn update(&mut self, message: AgentToServer, accepts: u64) {
        fn take<T>(known: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *known = new;
            }
        }
        self.capabilities = message.capabilities;
        take(&mut self.description, message.agent_description);
        take(&mut self.health, message.health);
        if ServerCapabilities::AcceptsEffectiveConfig.is_in(accepts) {
            take(&mut self.effective_config, message.effective_config);
        }
        take(&mut self.remote_config_status, message.remote_config_status);
        if ServerCapabilities::AcceptsPackagesStatus.is_in(accepts) {
            take(&mut self.package_statuses, message.package_statuses);
        }
        take(&mut self.custom_capabilities, message.custom_capabilities);
        take(&mut self.connection_settings_status, message.connection_settings_status);
        if let Some(new) = message.available_components {
            // The hash alone says that what is known of it still holds.
            let known = self.available_components.take().filter(|known| known.hash == new.hash);
            self.available_components = Some(if new.components.is_empty() { known.unwrap_or(new) } else { new });
        }
    }

    pub(super) fn forget_sent(&mut self) {
        self.sent = Sent::default();
    }

    pub(super) fn has_something(&self) -> bool {
        self.pending != Pending::default()
    }

    /// The configuration to send, if the agent takes one and does not have it.
    pub(super) fn due_config(&self) -> Option<&AgentRemoteConfig> {
        let offer = self.offers.remote_config.as_ref()?;
        let reported = self.remote_config_status.as_ref().map(|status| &status.last_remote_config_hash);
        let reports = AgentCapabilities::ReportsRemoteConfig;
        let is_due = AgentCapabilities::AcceptsRemoteConfig.is_in(self.capabilities)
            && !self.is_known(reports, &offer.config_hash, reported, self.sent.remote_config.as_ref());
        is_due.then_some(offer)
    }

    pub(super) fn due_settings(&self) -> Option<ConnectionSettingsOffers> {
        let offer = self.offers.connection_settings.as_ref()?;
        let reported = self.connection_settings_status.as_ref().map(|status| &status.last_connection_settings_hash);
        let reports = AgentCapabilities::ReportsConnectionSettingsStatus;
        let sent = self.sent.connection_settings.as_ref();
        if self.is_known(reports, &offer.hash, reported, sent) {
            return None;
        }
        let can = |capability: AgentCapabilities| capability.is_in(self.capabilities);
        let mut offer = offer.clone();
        // Whoever reports heartbeats is told how often, also if it takes no other setting.
        offer.opamp = offer.opamp.filter(|_| {
            can(AgentCapabilities::AcceptsOpAmpConnectionSettings) || can(AgentCapabilities::ReportsHeartbeat)
        });
        offer.own_metrics = offer.own_metrics.filter(|_| can(AgentCapabilities::ReportsOwnMetrics));
        offer.own_traces = offer.own_traces.filter(|_| can(AgentCapabilities::ReportsOwnTraces));
        offer.own_logs = offer.own_logs.filter(|_| can(AgentCapabilities::ReportsOwnLogs));
        if !can(AgentCapabilities::AcceptsOtherConnectionSettings) {
            offer.other_connections.clear();
        }
        let empty = ConnectionSettingsOffers { hash: offer.hash.clone(), ..Default::default() };
        (offer != empty).then_some(offer)
    }

    pub(super) fn due_packages(&self) -> Option<&PackagesAvailable> {
        let offer = self.offers.packages.as_ref()?;
        let reported = self.package_statuses.as_ref().map(|status| &status.server_provided_all_packages_hash);
        let reports = AgentCapabilities::ReportsPackageStatuses;
        let is_due = AgentCapabilities::AcceptsPackages.is_in(self.capabilities)
            && !self.is_known(reports, &offer.all_packages_hash, reported, self.sent.packages.as_ref());
        is_due.then_some(offer)
    }

    /// Whether the agent has said that it has the offer with `hash`, or, if it never `reports` that, it was told.
    fn is_known(
        &self,
        reports: AgentCapabilities,
        hash: &Vec<u8>,
        reported: Option<&Vec<u8>>,
        sent: Option<&Vec<u8>>,
    ) -> bool {
        reported == Some(hash) || !reports.is_in(self.capabilities) && sent == Some(hash)
    }

    /// What decides nothing here any more: what is kept of it is the application's to say. Of the custom capabilities those remain that
    /// the server has, too, of errors a beginning, and of hashes those that can be one of an offer: the rest is as large as the agent
    /// likes.
    pub(super) fn release(&mut self, own_capabilities: &[String]) {
        (self.description, self.health, self.effective_config) = (None, None, None);
        let offers = &self.offers;
        if let Some(status) = &mut self.remote_config_status {
            let offered = offers.remote_config.as_ref().map(|offer| &offer.config_hash);
            (status.error_message, status.last_remote_config_hash) =
                (beginning(&status.error_message), kept_hash(&status.last_remote_config_hash, offered));
        }
        if let Some(status) = &mut self.connection_settings_status {
            let offered = offers.connection_settings.as_ref().map(|offer| &offer.hash);
            (status.error_message, status.last_connection_settings_hash) =
                (beginning(&status.error_message), kept_hash(&status.last_connection_settings_hash, offered));
        }
        let offered = offers.packages.as_ref().map(|offer| &offer.all_packages_hash);
        self.package_statuses = self.package_statuses.take().map(|statuses| PackageStatuses {
            server_provided_all_packages_hash: kept_hash(&statuses.server_provided_all_packages_hash, offered),
            ..PackageStatuses::default()
        });
        if let Some(custom) = &mut self.custom_capabilities {
            let its = &custom.capabilities;
            custom.capabilities = own_capabilities.iter().filter(|own| its.contains(own)).cloned().collect();
        }
        self.available_components = self.available_components.take().and_then(|components| {
            let hash = kept_hash(&components.hash, None);
            (!hash.is_empty()).then(|| AvailableComponents { hash, ..AvailableComponents::default() })
        });
    }

    /// The agent was started anew: what it does not say now, it does not have.
    pub(super) fn restarted(&mut self) {
        let former = std::mem::replace(self, Self::new(self.uid, self.last_seen));
        self.offers = former.offers;
        self.principal = former.principal;
        self.is_connected = former.is_connected;
        self.connection = former.connection;
        self.stays = former.stays;
    }
}

/// What is kept of an error that an agent reports.
fn beginning(text: &str) -> String {
    let end = (0..=ERROR_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// A hash that an agent reports, if it is one: that of an offer, or at most as long as hashes are.
fn kept_hash(hash: &Vec<u8>, offered: Option<&Vec<u8>>) -> Vec<u8> {
    if hash.len() <= HASH_BYTES || offered == Some(hash) { hash.clone() } else { Vec::new() }
}

impl Offers {
    /// Whether what is not as it was `before` may be offered.
    pub(super) fn check(&self, before: &Self, own: u64, its: u64) -> Result<(), OfferError> {
        if self.remote_config != before.remote_config
            && let Some(config) = &self.remote_config
        {
            let capability = ServerCapabilities::OffersRemoteConfig;
            if !capability.is_in(own) {
                return Err(OfferError::ServerCannot("OffersRemoteConfig"));
            }
            if !AgentCapabilities::AcceptsRemoteConfig.is_in(its) {
                return Err(OfferError::AgentCannot("AcceptsRemoteConfig"));
            }
            if config.config_hash.is_empty() {
                return Err(OfferError::Incomplete("config_hash"));
            }
        }
        if self.connection_settings != before.connection_settings
            && let Some(settings) = &self.connection_settings
        {
            if !ServerCapabilities::OffersConnectionSettings.is_in(own) {
                return Err(OfferError::ServerCannot("OffersConnectionSettings"));
            }
            if settings.hash.is_empty() {
                return Err(OfferError::Incomplete("hash"));
            }
            // A URL, and one of a server.
            if let Some(opamp) = &settings.opamp
                && Endpoint::parse(&opamp.destination_endpoint).is_err()
            {
                return Err(OfferError::Incomplete("destination_endpoint that is a WebSocket or HTTP URL"));
            }
        }
        if self.packages != before.packages
            && let Some(packages) = &self.packages
        {
            if !ServerCapabilities::OffersPackages.is_in(own) {
                return Err(OfferError::ServerCannot("OffersPackages"));
            }
            if !AgentCapabilities::AcceptsPackages.is_in(its) {
                return Err(OfferError::AgentCannot("AcceptsPackages"));
            }
            if packages.all_packages_hash.is_empty() {
                return Err(OfferError::Incomplete("all_packages_hash"));
            }
        }
        Ok(())
    }
}
