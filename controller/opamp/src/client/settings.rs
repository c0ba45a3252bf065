//! Connection settings that the server offers: tried by connecting, then kept or given back.

use std::time::Instant;

use super::{
    Client, Event, SettingsError,
    link::{Leaving, Link},
};
use crate::{
    endpoint::Settings,
    messages::{ConnectionSettingsStatus, ConnectionSettingsStatuses},
};

/// Settings that are being tried.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    hash: Vec<u8>,
    candidate: Settings,
    /// In use before, and again if the candidate fails.
    former: Settings,
}

impl Client {
    /// Tries `candidate`, of the offer with `hash`, by disconnecting and connecting with it: [`Event::SettingsApplied`] if the server
    /// answers there, otherwise [`Event::SettingsFailed`], and what was in use before is again. The server is told both. The caller keeps
    /// the candidate on disk first, and after a crash tries it again.
    ///
    /// # Errors
    /// Others are being tried, or the client has been stopped.
    pub fn try_settings(&mut self, now: Instant, hash: Vec<u8>, candidate: Settings) -> Result<(), SettingsError> {
        if self.leaving == Some(Leaving::Stop) || self.link == Link::Stopped {
            return Err(SettingsError::Stopped);
        }
        if self.trial.is_some() {
            return Err(SettingsError::Busy);
        }
        self.settings_status(&hash, ConnectionSettingsStatuses::Applying, String::new());
        self.trial = Some(Trial { hash, candidate, former: self.settings.clone() });
        match self.link {
            Link::Down { .. } => self.switch_settings(now),
            // What was going to wait does so no more: the new server has not asked for it.
            _ => self.leaving = Some(Leaving::Switch),
        }
        Ok(())
    }

    /// Says no to the offer with `hash`, and why.
    pub fn refuse_settings(&mut self, hash: &[u8], reason: impl Into<String>) {
        self.settings_status(hash, ConnectionSettingsStatuses::Failed, reason.into());
    }

    fn settings_status(&mut self, hash: &[u8], status: ConnectionSettingsStatuses, error_message: String) {
        self.settings_hash = Some(hash.to_vec());
        self.set_connection_settings_status(ConnectionSettingsStatus {
            last_connection_settings_hash: hash.to_vec(),
            status: status.into(),
            error_message,
        });
    }

    /// Disconnected from the old server: on to the new one.
    pub(super) fn switch_settings(&mut self, now: Instant) {
        if let Some(trial) = &self.trial {
            self.settings = trial.candidate.clone();
        }
        self.forget_server(now);
    }

    /// The server answered.
    pub(super) fn trial_succeeded(&mut self) {
        if self.leaving == Some(Leaving::Switch) {
            // It is still the old one.
            return;
        }
        if let Some(Trial { hash, .. }) = self.trial.take() {
            self.settings_status(&hash, ConnectionSettingsStatuses::Applied, String::new());
            self.event(Event::SettingsApplied { hash });
        }
    }

    /// There was no answer, or one that does not help.
    pub(super) fn trial_failed(&mut self, now: Instant, reason: String) {
        if self.leaving == Some(Leaving::Switch) {
            // The old server is lost; the candidate was not tried yet.
            self.leaving = None;
            self.switch_settings(now);
            return;
        }
        if let Some(Trial { hash, former, .. }) = self.trial.take() {
            self.settings = former;
            self.settings_status(&hash, ConnectionSettingsStatuses::Failed, reason.clone());
            self.event(Event::SettingsFailed { hash, reason });
            self.forget_server(now);
        }
    }

    /// Another server may know and be able to do less than the last one.
    fn forget_server(&mut self, now: Instant) {
        self.redirected = None;
        self.redirects = 0;
        self.server = None;
        self.server_custom.clear();
        self.dirty.join(crate::report::Parts::all());
        self.again = None;
        self.backoff.succeeded();
        self.link = Link::Down { until: Some(now) };
    }
}
