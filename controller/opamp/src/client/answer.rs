//! What a server's message makes the client do.

use std::time::{Duration, Instant};

use super::{Client, Event, Problem, link::Link};
use crate::{
    endpoint::Transport,
    instance::InstanceUid,
    messages::{
        AgentCapabilities, AgentIdentification, CommandType, ConnectionSettingsOffers, ServerCapabilities,
        ServerErrorResponse, ServerErrorResponseType, ServerToAgent, ServerToAgentFlags, server_error_response,
    },
    report::{Part, Parts},
    wire,
};

/// The longest interval between heartbeats that is a time, and not no time at all.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3600);

impl Client {
    /// A message came: the protobuf bytes, after the header of a WebSocket message and after decompression.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        if !matches!(self.link, Link::Up | Link::Sending | Link::Closing) {
            return;
        }
        if bytes.len() > self.options.limits.receive {
            let limit = self.options.limits.receive;
            self.malformed(now, Problem::Wire(wire::WireError::TooLarge { limit }));
            return;
        }
        let message = match wire::decode::<ServerToAgent>(bytes) {
            Ok(message) => message,
            Err(problem) => return self.malformed(now, problem.into()),
        };
        if !self.is_for_us(&message.instance_uid) {
            return self.malformed(now, Problem::OtherInstance);
        }
        let unavailable =
            message.error_response.as_ref().filter(|error| error.r#type() == ServerErrorResponseType::Unavailable);
        if let Some(error) = unavailable {
            let error = error.clone();
            self.event(Event::ServerError(error.clone()));
            self.unavailable(now, &error);
            return;
        }
        self.answered(now);
        if self.link == Link::Stopped {
            return;
        }
        match message.error_response {
            // What it could not make sense of is not sent again; nothing else in the message counts.
            Some(error) => self.event(Event::ServerError(error)),
            None => self.take(now, message),
        }
    }

    /// A message without a uid is for whoever gets it; the former one is right for what was sent before the new one was.
    fn is_for_us(&self, uid: &[u8]) -> bool {
        uid.is_empty()
            || uid == self.uid.as_bytes()
            || self.former_uid.as_ref().is_some_and(|former| uid == former.as_bytes())
    }

    /// The server is there and answers.
    fn answered(&mut self, now: Instant) {
        let is_first = !self.connection.is_answered;
        self.connection.answered();
        self.unanswered = Parts::default();
        self.backoff.succeeded();
        self.redirects = 0;
        if is_first {
            self.event(Event::Connected);
        }
        self.trial_succeeded();
        if self.transport() == Transport::Http && self.link == Link::Sending {
            self.link = Link::Up;
            if self.in_flight.take().is_some_and(|message| message.is_goodbye) {
                self.goodbye_answered(now);
            }
        }
    }

    /// Too much to do: what it did not process is sent again, later.
    fn unavailable(&mut self, now: Instant, error: &ServerErrorResponse) {
        let asked = error
            .details
            .map(|server_error_response::Details::RetryInfo(info)| Duration::from_nanos(info.retry_after_nanoseconds));
        let reason = format!("the server is unavailable: {}", profiler_http::excerpt(error.error_message.as_bytes()));
        if self.transport() == Transport::Http {
            let message = self.in_flight.take();
            if message.as_ref().is_some_and(|message| message.is_goodbye) {
                self.link = Link::Up;
                self.goodbye_answered(now);
                return;
            }
            self.again = message;
        }
        self.throttled(now, asked, reason);
    }

    fn take(&mut self, now: Instant, message: ServerToAgent) {
        let ServerToAgent {
            remote_config,
            connection_settings,
            packages_available,
            flags,
            capabilities,
            agent_identification,
            command,
            custom_capabilities,
            custom_message,
            ..
        } = message;
        if capabilities != 0 {
            self.server = Some(capabilities);
        }
        let can = |capability: AgentCapabilities| capability.is_in(self.capabilities);
        if can(AgentCapabilities::AcceptsRestartCommand)
            && command.is_some_and(|command| command.r#type == i32::from(CommandType::Restart))
        {
            self.event(Event::Restart);
            return;
        }
        if let Some(AgentIdentification { new_instance_uid }) = agent_identification
            && !new_instance_uid.is_empty()
        {
            self.rename(now, &new_instance_uid);
        }
        if let Some(custom) = custom_capabilities {
            self.server_custom = custom.capabilities.into_iter().collect();
        }
        let can = |capability: AgentCapabilities| capability.is_in(self.capabilities);
        if let Some(config) = remote_config.filter(|_| can(AgentCapabilities::AcceptsRemoteConfig)) {
            let known = self.state.remote_config_status.as_ref();
            if known.is_none_or(|status| status.last_remote_config_hash != config.config_hash) {
                self.event(Event::RemoteConfig(config));
            }
        }
        let can = |capability: AgentCapabilities| capability.is_in(self.capabilities);
        if let Some(packages) = packages_available.filter(|_| can(AgentCapabilities::AcceptsPackages)) {
            let known = self.state.package_statuses.as_ref();
            if known.is_none_or(|known| known.server_provided_all_packages_hash != packages.all_packages_hash) {
                self.event(Event::Packages(packages));
            }
        }
        if let Some(offers) = connection_settings {
            self.offered_settings(offers);
        }
        if let Some(custom) = custom_message {
            let own = self.state.custom_capabilities.as_ref();
            if own.is_some_and(|own| own.capabilities.contains(&custom.capability)) {
                self.event(Event::Custom(custom));
            }
        }
        if ServerToAgentFlags::ReportAvailableComponents.is_in(flags) {
            self.with_components = true;
            self.report_all(now, Part::AvailableComponents);
        }
        if ServerToAgentFlags::ReportFullState.is_in(flags) {
            self.report_all(now, Part::Description);
        }
    }

    /// The server asked for `part`, or, by the description, for everything. Not more often than is reasonable, whatever it says.
    fn report_all(&mut self, now: Instant, part: Part) {
        let next = self.full_report_sent.and_then(|last| last.checked_add(self.options.full_report));
        let is_too_soon = next.is_some_and(|next| next > now);
        if is_too_soon || part == Part::Description {
            self.full_report_due.get_or_insert(next.unwrap_or(now).max(now));
        } else {
            self.full_report_sent = Some(now);
            self.dirty.add(part);
        }
    }

    /// Another identity, from now on.
    fn rename(&mut self, now: Instant, new: &[u8]) {
        let Ok(new) = InstanceUid::from_wire(new) else {
            self.event(Event::Malformed(Problem::NewIdentity));
            return;
        };
        self.requests_uid = false;
        if new != self.uid {
            self.former_uid = Some(std::mem::replace(&mut self.uid, new));
            self.event(Event::NewIdentity(new));
            // Under its new name the server knows nothing of it.
            self.report_all(now, Part::Description);
        }
    }

    fn offered_settings(&mut self, mut offers: ConnectionSettingsOffers) {
        let can = |capability: AgentCapabilities| capability.is_in(self.capabilities);
        if let Some(opamp) = &offers.opamp
            && (can(AgentCapabilities::ReportsHeartbeat) || self.transport() == Transport::Http)
        {
            let interval = Duration::from_secs(opamp.heartbeat_interval_seconds).min(LONGEST_INTERVAL);
            self.offered_interval = Some(interval);
        }
        let is_told = can(AgentCapabilities::AcceptsOpAmpConnectionSettings);
        // An interval alone is no place to connect to.
        offers.opamp = offers.opamp.filter(|opamp| is_told && !opamp.destination_endpoint.is_empty());
        offers.own_metrics = offers.own_metrics.filter(|_| can(AgentCapabilities::ReportsOwnMetrics));
        offers.own_traces = offers.own_traces.filter(|_| can(AgentCapabilities::ReportsOwnTraces));
        offers.own_logs = offers.own_logs.filter(|_| can(AgentCapabilities::ReportsOwnLogs));
        if !can(AgentCapabilities::AcceptsOtherConnectionSettings) {
            offers.other_connections.clear();
        }
        let is_empty = ConnectionSettingsOffers { hash: offers.hash.clone(), ..Default::default() } == offers;
        let status = self.state.connection_settings_status.as_ref();
        let is_known = status.is_some_and(|status| status.last_connection_settings_hash == offers.hash)
            || self.settings_hash.as_ref() == Some(&offers.hash);
        if !is_empty && !is_known {
            self.settings_hash = Some(offers.hash.clone());
            self.event(Event::ConnectionSettings(Box::new(offers)));
        }
    }

    /// Whether the server can be asked for what `capability` says.
    #[must_use]
    pub fn server_can(&self, capability: ServerCapabilities) -> bool {
        self.server.is_some_and(|server| capability.is_in(server))
    }
}
