//! What the next message has in it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Client, CloseCode, Event, Outgoing, Step, link::Link};
use crate::{
    endpoint::Transport,
    instance::InstanceUid,
    messages::{AgentCapabilities, AgentDisconnect, AgentToServer, AgentToServerFlags, CustomMessage},
    report::{Part, Parts, State},
    wire,
};

/// A message that was handed out.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) bytes: Bytes,
    pub(super) parts: Parts,
    pub(super) custom: Option<CustomMessage>,
    pub(super) uid: InstanceUid,
    pub(super) is_goodbye: bool,
}

impl Client {
    /// How long after the last message the next one goes out in any case; `None`: never.
    pub(super) fn interval(&self) -> Option<Duration> {
        let heartbeat = AgentCapabilities::ReportsHeartbeat.is_in(self.capabilities);
        let interval = match self.transport() {
            Transport::WebSocket if !heartbeat => return None,
            Transport::WebSocket => self.offered_interval.unwrap_or(self.options.heartbeat),
            // A server that wants no heartbeats is asked all the same: else it could never say anything again.
            Transport::Http => self.offered_interval.filter(|wait| !wait.is_zero()).unwrap_or(self.options.poll),
        };
        (!interval.is_zero()).then_some(interval)
    }

    /// What is to be sent and can be.
    pub(super) fn sendable(&self) -> Parts {
        let parts = self.dirty.without(self.withheld).iter();
        parts.filter(|&part| self.state.has(part) && part.is_spoken(self.capabilities, self.server)).collect()
    }

    /// Sends what there is to send, or says until when there is nothing.
    pub(super) fn send_if_due(&mut self, now: Instant) -> Step {
        if let Some(again) = self.again.take() {
            return self.hand_out(again, now);
        }
        if self.full_report_due.is_some_and(|due| due <= now) {
            self.full_report_due = None;
            self.full_report_sent = Some(now);
            self.dirty.join(Parts::all());
        }
        let heartbeat_due = self.interval().zip(self.last_sent).and_then(|(interval, last)| last.checked_add(interval));
        let is_due = self.connection.is_first
            || self.capabilities_changed
            || self.custom.is_some()
            || !self.sendable().is_empty()
            || heartbeat_due.is_some_and(|due| due <= now);
        if is_due {
            return self.send(now, false);
        }
        let answer_due = self.connection.answer_due(self.options.answer);
        if answer_due.is_some_and(|due| due <= now) {
            self.link = Link::Closing;
            self.connection.reason = Some(format!("no answer within {:?}", self.options.answer));
            return Step::Close(CloseCode::Normal);
        }
        Step::Wait([heartbeat_due, answer_due, self.full_report_due].into_iter().flatten().min())
    }

    /// The next message, with everything that is to be sent.
    pub(super) fn send(&mut self, now: Instant, is_goodbye: bool) -> Step {
        let mut parts = self.sendable();
        let mut message = AgentToServer {
            instance_uid: self.uid.to_wire(),
            sequence_num: self.sequence,
            capabilities: self.capabilities,
            flags: if self.requests_uid { AgentToServerFlags::RequestInstanceUid as u64 } else { 0 },
            agent_disconnect: is_goodbye.then_some(AgentDisconnect {}),
            custom_message: self.custom.take(),
            ..AgentToServer::default()
        };
        for part in parts.iter() {
            self.state.write(part, self.with_components, &mut message);
        }
        let bytes = self.within_limit(&mut message, &mut parts);
        self.dirty = self.dirty.without(parts);
        if parts.has(Part::AvailableComponents) {
            self.with_components = false;
        }
        self.capabilities_changed = false;
        self.sequence = self.sequence.wrapping_add(1);
        let custom = message.custom_message;
        self.hand_out(InFlight { bytes, parts, custom, uid: self.uid, is_goodbye }, now)
    }

    fn hand_out(&mut self, message: InFlight, now: Instant) -> Step {
        self.link = Link::Sending;
        self.last_sent = Some(now);
        self.connection.sent(now);
        let step = Step::Send(Outgoing { to: self.target(), uid: message.uid, bytes: message.bytes.clone() });
        self.in_flight = Some(message);
        step
    }

    /// `message` as bytes, without the parts and the custom message that would make it too large.
    fn within_limit(&mut self, message: &mut AgentToServer, parts: &mut Parts) -> Bytes {
        let limit = self.options.limits.send;
        let mut left_out = Vec::new();
        let mut large = Part::LARGE.into_iter().filter(|&part| parts.has(part)).collect::<Vec<_>>().into_iter();
        loop {
            let bytes = match self.transport() {
                Transport::WebSocket => wire::frame(message, limit),
                Transport::Http => wire::body(message, limit),
            };
            if let Ok(bytes) = bytes {
                if !left_out.is_empty() {
                    self.event(Event::TooLarge(left_out));
                }
                return bytes.into();
            }
            if message.custom_message.take().is_some() {
                continue;
            }
            // With none of them it is small, unless the description is large: then that goes, too.
            let Some(part) = large.next().or_else(|| parts.iter().next()) else {
                // A limit that not even a heartbeat keeps to.
                return Bytes::new();
            };
            State::erase(part, message);
            parts.remove(part);
            self.dirty.remove(part);
            self.withheld.add(part);
            left_out.push(part);
        }
    }

    /// The server would not take `message`, as it is too large: its large parts are not sent again, the others are.
    pub(super) fn too_large_for_server(&mut self, message: &InFlight) {
        let large: Parts = Part::LARGE.into_iter().filter(|&part| message.parts.has(part)).collect();
        // Without a large part it was one of the others.
        let left_out = if large.is_empty() { message.parts } else { large };
        self.withheld.join(left_out);
        self.dirty.join(message.parts.without(left_out));
        self.event(Event::TooLarge(left_out.iter().collect()));
    }
}
