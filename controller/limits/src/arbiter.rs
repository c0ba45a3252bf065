//! The one owner of the sampling rate.
//!
//! ```text
//!  configured  99 Hz ─┐
//!  remote      49 Hz ─┤
//!  governed    19 Hz ─┼─ minimum ─> 19 Hz
//!  decided       ─   ─┘
//! ```
//!
//! What is configured is always there; the others ask and release. Who asks knows nothing of the others, and nobody else writes the
//! rate.

use std::fmt;

/// Who asks for a rate. Where several ask for the same, the first in this order is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// The host's own configuration.
    Configured,
    /// A configuration from elsewhere.
    Remote,
    /// The governor, for the profiler's budgets.
    Governed,
    /// A detector.
    Decided,
}

impl Client {
    /// The word for it in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Remote => "remote",
            Self::Governed => "governed",
            Self::Decided => "decided",
        }
    }
}

/// Clients that may ask for less than what is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cap {
    /// [`Client::Remote`].
    Remote,
    /// [`Client::Governed`].
    Governed,
    /// [`Client::Decided`].
    Decided,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Samples a second and CPU, Hz; at least 1.
    pub hz: u64,
    /// Why, for people.
    pub reason: String,
}

impl Request {
    /// Not to sample at all is no rate, but somebody else's decision: less than 1 Hz becomes 1 Hz.
    fn new(hz: u64, reason: String) -> Self {
        Self { hz: hz.max(1), reason }
    }
}

/// Keeps what the clients ask for; the rate is the lowest of it.
///
/// ```
/// use profiler_limits::{Arbiter, Cap, Client};
///
/// let mut arbiter = Arbiter::new(99, "default");
/// arbiter.cap(Cap::Governed, 19, "memory");
/// arbiter.cap(Cap::Remote, 49, "rollout 7");
/// assert_eq!((arbiter.rate(), arbiter.ruled_by()), (19, Client::Governed));
/// arbiter.release(Cap::Governed);
/// assert_eq!(arbiter.to_string(), "49 Hz (remote: 49 Hz, rollout 7; configured: 99 Hz, default)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arbiter {
    configured: Request,
    remote: Option<Request>,
    governed: Option<Request>,
    decided: Option<Request>,
}

impl Arbiter {
    /// Only what is configured, Hz.
    #[must_use]
    pub fn new(hz: u64, reason: impl Into<String>) -> Self {
        Self { configured: Request::new(hz, reason.into()), remote: None, governed: None, decided: None }
    }

    /// Another configured rate, Hz; what the others ask for stays.
    pub fn configure(&mut self, hz: u64, reason: impl Into<String>) {
        self.configured = Request::new(hz, reason.into());
    }

    /// The rate is not to be above `hz`; in place of what this client asked for before.
    pub fn cap(&mut self, client: Cap, hz: u64, reason: impl Into<String>) {
        *self.slot(client) = Some(Request::new(hz, reason.into()));
    }

    /// This client asks for nothing more.
    pub fn release(&mut self, client: Cap) {
        *self.slot(client) = None;
    }

    fn slot(&mut self, client: Cap) -> &mut Option<Request> {
        match client {
            Cap::Remote => &mut self.remote,
            Cap::Governed => &mut self.governed,
            Cap::Decided => &mut self.decided,
        }
    }

    /// What is asked for, by whom.
    pub fn requests(&self) -> impl Iterator<Item = (Client, &Request)> {
        let configured = (Client::Configured, Some(&self.configured));
        let remote = (Client::Remote, self.remote.as_ref());
        let governed = (Client::Governed, self.governed.as_ref());
        let decided = (Client::Decided, self.decided.as_ref());
        [configured, remote, governed, decided]
            .into_iter()
            .filter_map(|(client, request)| request.map(|request| (client, request)))
    }

    /// The configured rate, Hz.
    #[must_use]
    pub fn configured(&self) -> u64 {
        self.configured.hz
    }

    /// The rate to sample at, Hz.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.requests().fold(self.configured.hz, |lowest, (_, request)| lowest.min(request.hz))
    }

    /// Whose request that is.
    #[must_use]
    pub fn ruled_by(&self) -> Client {
        let rate = self.rate();
        self.requests().find(|(_, request)| request.hz == rate).map_or(Client::Configured, |(client, _)| client)
    }

    /// The rate if `client` asked for nothing, Hz.
    #[must_use]
    pub fn rate_without(&self, client: Cap) -> u64 {
        let mut others = self.clone();
        others.release(client);
        others.rate()
    }
}

impl fmt::Display for Arbiter {
    /// The rate and who asks for what, whose request counts first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ruler = self.ruled_by();
        write!(f, "{} Hz (", self.rate())?;
        let others = self.requests().filter(|(client, _)| *client != ruler);
        for (index, (client, Request { hz, reason })) in
            self.requests().filter(|(client, _)| *client == ruler).chain(others).enumerate()
        {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {hz} Hz, {reason}", client.name())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_counts_and_who_asked_is_named() {
        let mut arbiter = Arbiter::new(99, "c.yaml:1:7");
        assert_eq!((arbiter.rate(), arbiter.ruled_by()), (99, Client::Configured));
        arbiter.cap(Cap::Decided, 49, "quiet");
        arbiter.cap(Cap::Remote, 49, "rollout");
        assert_eq!((arbiter.rate(), arbiter.ruled_by()), (49, Client::Remote));
        arbiter.cap(Cap::Governed, 9, "memory");
        assert_eq!((arbiter.rate(), arbiter.rate_without(Cap::Governed)), (9, 49));
        assert_eq!(
            arbiter.to_string(),
            "9 Hz (governed: 9 Hz, memory; configured: 99 Hz, c.yaml:1:7; remote: 49 Hz, rollout; decided: 49 Hz, quiet)"
        );
        // More than what is configured is no use to ask for.
        arbiter.cap(Cap::Governed, 1000, "room");
        assert_eq!(arbiter.rate(), 49);
    }

    #[test]
    fn less_than_one_hertz_is_no_rate() {
        let mut arbiter = Arbiter::new(0, "");
        assert_eq!(arbiter.rate(), 1);
        arbiter.configure(99, "");
        arbiter.cap(Cap::Decided, 0, "");
        assert_eq!(arbiter.rate(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Configure(u64),
        Cap(Cap, u64),
        Release(Cap),
    }

    fn step() -> impl Strategy<Value = Step> {
        let client = || prop_oneof![Just(Cap::Remote), Just(Cap::Governed), Just(Cap::Decided)];
        prop_oneof![
            (1_u64..2000).prop_map(Step::Configure),
            (client(), 1_u64..2000).prop_map(|(client, hz)| Step::Cap(client, hz)),
            client().prop_map(Step::Release),
        ]
    }

    fn run(steps: &[Step]) -> Arbiter {
        let mut arbiter = Arbiter::new(99, "");
        for step in steps {
            match *step {
                Step::Configure(hz) => arbiter.configure(hz, ""),
                Step::Cap(client, hz) => arbiter.cap(client, hz, ""),
                Step::Release(client) => arbiter.release(client),
            }
        }
        arbiter
    }

    /// What this client asked for last, if it has not released it.
    fn last(steps: &[Step], of: Cap) -> Option<u64> {
        steps.iter().rev().find_map(|step| match *step {
            Step::Cap(client, hz) if client == of => Some(Some(hz)),
            Step::Release(client) if client == of => Some(None),
            _ => None,
        })?
    }

    proptest! {
        #[test]
        fn never_above_what_anybody_asks_and_never_lower_than_needed(steps in prop::collection::vec(step(), 0..40)) {
            let arbiter = run(&steps);
            let configured = steps.iter().rev().find_map(|step| match *step {
                Step::Configure(hz) => Some(hz),
                _ => None,
            });
            let asked: Vec<u64> = [Cap::Remote, Cap::Governed, Cap::Decided]
                .into_iter()
                .filter_map(|client| last(&steps, client))
                .chain([configured.unwrap_or(99)])
                .collect();
            prop_assert!(asked.iter().all(|hz| arbiter.rate() <= *hz));
            prop_assert!(asked.contains(&arbiter.rate()));
            let ruler = arbiter.ruled_by();
            let request = arbiter.requests().find(|(client, _)| *client == ruler).map(|(_, request)| request.hz);
            prop_assert_eq!(request, Some(arbiter.rate()));
        }

        #[test]
        fn who_releases_leaves_no_trace(
            steps in prop::collection::vec(step(), 0..20),
            hz in 1_u64..2000,
        ) {
            for client in [Cap::Remote, Cap::Governed, Cap::Decided] {
                let mut without = run(&steps);
                without.release(client);
                let mut again = without.clone();
                again.cap(client, hz, "for a while");
                prop_assert!(again.rate() <= without.rate());
                prop_assert_eq!(again.rate_without(client), without.rate());
                again.release(client);
                prop_assert_eq!(again, without);
            }
        }

        /// What counts is what each client said last, not in which order they spoke.
        #[test]
        fn the_order_of_the_clients_does_not_count(rates in prop::array::uniform4(1_u64..2000)) {
            let [configured, remote, governed, decided] = rates;
            let steps = [
                Step::Configure(configured),
                Step::Cap(Cap::Remote, remote),
                Step::Cap(Cap::Governed, governed),
                Step::Cap(Cap::Decided, decided),
            ];
            let mut turned = steps.clone();
            turned.reverse();
            prop_assert_eq!(run(&steps), run(&turned));
            prop_assert_eq!(Some(run(&steps).rate()), rates.into_iter().min());
        }
    }
}
