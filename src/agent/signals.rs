//! What the agent is told by signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// SIGTERM and SIGINT end the agent, SIGHUP makes it read its configuration again.
#[derive(Debug)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Takes the signals from now on. A second one that ends the agent does so at once.
    pub fn install() -> anyhow::Result<Self> {
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [libc::SIGTERM, libc::SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .context("cannot take signals")?;
        }
        signal_hook::flag::register(libc::SIGHUP, Arc::clone(&reload)).context("cannot take SIGHUP")?;
        Ok(Self { stop, reload })
    }

    /// Whether to end.
    #[must_use]
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether to read the configuration again; said once for each time.
    #[must_use]
    pub fn reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
