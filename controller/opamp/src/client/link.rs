//! The connection: made, lost, left, made again.

use std::time::{Duration, Instant};

use super::{Client, CloseCode, Event, Failure, Problem, Step};
use crate::{
    endpoint::{Endpoint, Transport},
    report::Parts,
    wire::WireError,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing is tried before this time.
    Down {
        until: Option<Instant>,
    },
    Connecting,
    /// A WebSocket is open; over HTTP, the server may be asked.
    Up,
    /// A message is being written; over HTTP, its answer is waited for, too.
    Sending,
    Closing,
    Stopped,
}

/// Why a connection is given up on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// The agent ends.
    Stop,
    /// To come back by other settings.
    Switch,
    /// To come back later, as the server asked.
    Later(Instant),
}

/// What is known of this connection; over HTTP, since the last failure.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// Nothing was sent on it.
    pub(super) is_first: bool,
    since: Option<Instant>,
    /// The first message that has no answer.
    asked: Option<Instant>,
    pub(super) is_answered: bool,
    said_goodbye: bool,
    /// Why it is being closed.
    pub(super) reason: Option<String>,
}

impl ConnectionState {
    fn new(now: Instant) -> Self {
        Self { is_first: true, since: Some(now), ..Self::default() }
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.is_first = false;
        self.asked.get_or_insert(now);
    }

    pub(super) fn answered(&mut self) {
        self.asked = None;
        self.is_answered = true;
    }

    pub(super) fn answer_due(&self, limit: Duration) -> Option<Instant> {
        self.asked?.checked_add(limit)
    }
}

impl Client {
    /// What to do at `now`.
    pub fn poll(&mut self, now: Instant) -> Step {
        if let Link::Down { until } = self.link {
            if self.leaving == Some(Leaving::Stop) {
                self.link = Link::Stopped;
            } else if let Some(until) = until.filter(|&until| until > now) {
                return Step::Wait(Some(until));
            } else {
                return self.connect(now);
            }
        }
        if let Some(code) = self.pending_close.take()
            && matches!(self.link, Link::Up | Link::Sending)
        {
            self.link = Link::Closing;
            return Step::Close(code);
        }
        match self.link {
            Link::Up => match self.leaving {
                None => self.send_if_due(now),
                Some(_) if !self.connection.said_goodbye && self.again.is_none() => self.send(now, true),
                Some(_) => self.leave(now),
            },
            Link::Stopped => Step::Stopped,
            Link::Down { .. } | Link::Connecting | Link::Sending | Link::Closing => Step::Wait(None),
        }
    }

    fn connect(&mut self, now: Instant) -> Step {
        match self.transport() {
            Transport::WebSocket => {
                self.link = Link::Connecting;
                Step::Connect(self.target())
            }
            Transport::Http => {
                self.link = Link::Up;
                // What a server must be told first is told to each, and not again after a mere failure.
                self.connection = ConnectionState { is_first: self.again.is_none(), ..ConnectionState::new(now) };
                self.poll(now)
            }
        }
    }

    /// Where to, after redirects.
    pub(super) fn target(&self) -> Endpoint {
        self.redirected.clone().unwrap_or_else(|| self.settings.endpoint.clone())
    }

    /// The goodbye is said; over HTTP that is all.
    fn leave(&mut self, now: Instant) -> Step {
        match self.transport() {
            Transport::WebSocket => {
                self.link = Link::Closing;
                Step::Close(CloseCode::Normal)
            }
            Transport::Http => {
                self.left(now);
                self.poll(now)
            }
        }
    }

    /// A connection has ended on purpose.
    fn left(&mut self, now: Instant) {
        self.in_flight = None;
        self.dirty.join(std::mem::take(&mut self.unanswered));
        match self.leaving.take() {
            Some(Leaving::Stop) => {
                self.leaving = Some(Leaving::Stop);
                self.link = Link::Stopped;
            }
            Some(Leaving::Switch) => self.switch_settings(now),
            Some(Leaving::Later(until)) => self.link = Link::Down { until: Some(until) },
            None => self.lost(now, "closed".to_owned()),
        }
    }

    /// Over HTTP, the server knows that the agent leaves.
    pub(super) fn goodbye_answered(&mut self, now: Instant) {
        self.left(now);
    }

    /// A WebSocket is open.
    pub fn connected(&mut self, now: Instant) {
        if self.link == Link::Connecting {
            self.link = Link::Up;
            self.connection = ConnectionState::new(now);
        }
    }

    /// The message was written to the WebSocket.
    pub fn sent(&mut self, _now: Instant) {
        if self.link != Link::Sending {
            return;
        }
        self.link = Link::Up;
        if let Some(message) = self.in_flight.take() {
            self.unanswered.join(message.parts);
            self.connection.said_goodbye |= message.is_goodbye;
        }
    }

    /// The WebSocket has ended: was closed by either side, or broke, for `reason`.
    pub fn closed(&mut self, now: Instant, reason: &str) {
        if matches!(self.link, Link::Stopped | Link::Down { .. }) {
            return;
        }
        // What was only half written has not arrived.
        self.take_back();
        if self.leaving.is_some() {
            self.left(now);
        } else {
            let reason = self.connection.reason.take().unwrap_or_else(|| reason.to_owned());
            self.lost(now, reason);
        }
    }

    /// What was in flight is to be sent anew, in a new message: its number is used up, which tells the server.
    fn take_back(&mut self) {
        if let Some(message) = self.in_flight.take() {
            self.dirty.join(message.parts);
            if self.custom.is_none() {
                self.custom = message.custom;
            }
        }
    }

    /// A connection that was to stay has ended.
    pub(super) fn lost(&mut self, now: Instant, reason: String) {
        self.dirty.join(std::mem::take(&mut self.unanswered));
        self.redirected = None;
        if self.trial.is_some() {
            self.trial_failed(now, reason);
            return;
        }
        // At once if it was a good one; a server that hangs up on everyone who asks is not asked without end.
        let lived = self.connection.since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        let was_good = self.connection.is_answered && lived >= self.options.backoff.initial;
        let wait =
            if was_good { Duration::ZERO } else { self.backoff.failed(&self.options.backoff, &mut *self.random) };
        self.down(now, wait, reason);
    }

    fn down(&mut self, now: Instant, wait: Duration, reason: String) {
        self.connection = ConnectionState::default();
        self.link = Link::Down { until: now.checked_add(wait) };
        self.event(Event::Disconnected { reason, again_in: wait });
    }

    /// A connection could not be made, or a request got no answer that is one.
    pub fn failed(&mut self, now: Instant, failure: &Failure) {
        if !matches!(self.link, Link::Connecting | Link::Sending) {
            return;
        }
        let message = self.in_flight.take();
        if message.as_ref().is_some_and(|message| message.is_goodbye) {
            // It was tried; whoever leaves does not stay for this.
            self.left(now);
            return;
        }
        match failure {
            Failure::Status { code: 301 | 302 | 307 | 308, location: Some(location), .. } => {
                self.again = message;
                self.redirect(now, location);
            }
            Failure::Status { code: code @ (429 | 503), retry_after, .. } => {
                self.again = message;
                self.throttled(now, *retry_after, format!("HTTP status {code}"));
            }
            Failure::Status { code: 413, .. } if message.is_some() => {
                if let Some(message) = message {
                    self.too_large_for_server(&message);
                }
                self.lost(now, "the server finds the message too large (HTTP status 413)".to_owned());
            }
            Failure::Status { code: 400, .. } if message.is_some() => {
                self.lost(now, "the server finds the message malformed (HTTP status 400)".to_owned());
            }
            Failure::Status { code, .. } => {
                self.again = message;
                let hint = match code {
                    401 | 403 => "; are the headers and certificates right?",
                    404 => "; is the path right?",
                    _ => "",
                };
                self.lost(now, format!("HTTP status {code}{hint}"));
            }
            Failure::Connection(reason) => {
                self.again = message;
                self.lost(now, reason.clone());
            }
        }
        if self.leaving == Some(Leaving::Stop) {
            self.link = Link::Stopped;
        }
    }

    fn redirect(&mut self, now: Instant, location: &str) {
        self.redirects += 1;
        if self.redirects > self.options.redirects {
            self.redirects = 0;
            self.lost(now, format!("more than {} redirects, one after another", self.options.redirects));
            return;
        }
        match self.target().redirected(location) {
            Ok(to) => {
                self.event(Event::Redirected { to: to.to_string() });
                self.redirected = Some(to);
                self.link = Link::Down { until: None };
            }
            Err(error) => self.lost(now, format!("a redirect that is not followed: {error}")),
        }
    }

    /// The server wants less load: nothing is sent until then, no heartbeat either.
    pub(super) fn throttled(&mut self, now: Instant, asked: Option<Duration>, reason: String) {
        if self.trial.is_some() {
            self.trial_failed(now, reason);
            return;
        }
        let wait = self.backoff.throttled(asked, &self.options.backoff, &mut *self.random);
        let until = now.checked_add(wait);
        if self.transport() == Transport::WebSocket && self.link != Link::Connecting {
            self.leaving.get_or_insert(Leaving::Later(until.unwrap_or(now)));
            self.dirty.join(std::mem::take(&mut self.unanswered));
            self.event(Event::Disconnected { reason, again_in: wait });
        } else {
            self.down(now, wait, reason);
        }
    }

    /// What came was no message of OpAMP: too large, no protobuf. A WebSocket is closed for the former; over HTTP the request has failed.
    pub fn malformed(&mut self, now: Instant, problem: Problem) {
        let is_too_large = matches!(problem, Problem::Wire(WireError::TooLarge { .. }));
        let reason = problem.to_string();
        self.event(Event::Malformed(problem));
        match self.transport() {
            Transport::Http if self.link == Link::Sending => {
                self.failed(now, &Failure::Connection(format!("an answer that is none: {reason}")));
            }
            Transport::WebSocket if is_too_large && matches!(self.link, Link::Up | Link::Sending) => {
                self.connection.reason = Some(reason);
                self.connection.is_answered = false;
                self.connection.said_goodbye = true;
                self.close_now(CloseCode::TooLarge);
            }
            _ => {}
        }
    }

    fn close_now(&mut self, code: CloseCode) {
        self.take_back();
        self.pending_close = Some(code);
    }

    /// Whether parts of the state are still to be told to the server.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.sendable() == Parts::default() && self.in_flight.is_none() && self.again.is_none()
    }
}
