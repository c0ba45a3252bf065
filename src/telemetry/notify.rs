//! Talking to systemd: readiness, reloads, status, watchdog (sd_notify(3)).
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names, a path or an abstract name. Nothing here blocks, and what systemd does
//! not take is no failure of the agent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use profiler_unwinders::process::Clock;

/// The way to systemd, or nowhere when it did not start the process.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Distance between signs of life that systemd asks for, halved.
    watchdog: Option<Duration>,
    last_ping: Option<Instant>,
    last_status: String,
}

impl Notifier {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` tell.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` is set to what is no Unix socket's address, or no socket can be made.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name| std::env::var_os(name);
        Self::new(
            variable("NOTIFY_SOCKET").as_deref(),
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
        )
    }

    fn new(socket: Option<&OsStr>, watchdog_usec: Option<&OsStr>, watchdog_pid: Option<&OsStr>) -> io::Result<Self> {
        let socket = socket.filter(|name| !name.is_empty()).map(connect).transpose()?;
        // The variable is for one process; a child that inherits it is not meant.
        let meant =
            watchdog_pid.is_none_or(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id()));
        let usec = watchdog_usec.and_then(|usec| usec.to_str()?.parse::<u64>().ok()).filter(|&usec| usec > 0);
        let watchdog = usec.filter(|_| meant && socket.is_some()).map(|usec| Duration::from_micros(usec) / 2);
        Ok(Self { socket, watchdog, last_ping: None, last_status: String::new() })
    }

    /// The agent does its work: at the end of its start, and of a reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read anew; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let usec = Clock::monotonic_now() / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The agent ends itself.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`; sent when it differs from the last.
    pub fn status(&mut self, text: &str) {
        if text != self.last_status {
            text.clone_into(&mut self.last_status);
            // A line feed would begin another assignment.
            self.send(&format!("STATUS={}", text.replace(['\n', '\r'], " ")));
        }
    }

    /// To be called by the sampling loop at each step: tells systemd that it lives, as often as systemd wants to know. A loop that
    /// hangs tells nothing, and is restarted.
    pub fn step(&mut self) {
        let Some(distance) = self.watchdog else { return };
        let now = Instant::now();
        if self.last_ping.is_none_or(|last| now.duration_since(last) >= distance) {
            self.last_ping = Some(now);
            self.send("WATCHDOG=1");
        }
    }

    /// The distance between signs of life, if systemd wants them: [`Self::step`] must be called more often.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, message, "systemd did not take a message.");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let wrong = |problem: &dyn std::fmt::Display| {
        let name = name.to_string_lossy();
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("cannot notify systemd: NOTIFY_SOCKET={name}: {problem}; unset it to run without systemd"),
        )
    };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return Err(wrong(&"neither an absolute path nor an abstract name (@...)")),
    };
    let address = address.map_err(|error| wrong(&error))?;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn nothing_more(socket: &UnixDatagram) -> bool {
        socket.set_nonblocking(true).unwrap();
        let result = socket.recv(&mut [0; 16]);
        socket.set_nonblocking(false).unwrap();
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn a_life_as_systemd_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(Some(path.as_os_str()), None, None).unwrap();
        notifier.ready();
        assert_eq!(received(&systemd), "READY=1");
        notifier.status("Sampling\n at 99 Hz");
        notifier.status("Sampling\n at 99 Hz");
        assert_eq!(received(&systemd), "STATUS=Sampling  at 99 Hz");
        let before = Clock::monotonic_now();
        notifier.reloading();
        let message = received(&systemd);
        let usec: u64 = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before / 1000..=Clock::monotonic_now() / 1000).contains(&usec), "{message}");
        notifier.stopping();
        assert_eq!(received(&systemd), "STOPPING=1");
        // Without WATCHDOG_USEC nobody wants signs of life.
        notifier.step();
        assert!(nothing_more(&systemd));
    }

    #[test]
    fn an_abstract_socket_and_the_watchdog() {
        let name = format!("profiler-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let socket = format!("@{name}");
        let pid = std::process::id().to_string();
        let own = |usec: &str, pid: &str| {
            Notifier::new(Some(socket.as_ref()), Some(usec.as_ref()), Some(pid.as_ref())).unwrap()
        };
        let mut notifier = own("40000", &pid);
        assert_eq!(notifier.watchdog(), Some(Duration::from_millis(20)));
        notifier.step();
        assert_eq!(received(&systemd), "WATCHDOG=1");
        std::thread::sleep(Duration::from_millis(25));
        notifier.step();
        assert_eq!(received(&systemd), "WATCHDOG=1");
        // An hour later at the earliest.
        let mut notifier = own("7200000000", &pid);
        notifier.step();
        notifier.step();
        assert_eq!(received(&systemd), "WATCHDOG=1");
        assert!(nothing_more(&systemd));
        assert_eq!(own("40000", "1").watchdog(), None);
        assert_eq!(own("0", &pid).watchdog(), None);
        assert_eq!(own("nonsense", &pid).watchdog(), None);
    }

    #[test]
    fn without_systemd_nothing_happens() {
        let mut notifier = Notifier::new(None, Some("1000000".as_ref()), None).unwrap();
        notifier.ready();
        notifier.step();
        assert_eq!(notifier.watchdog(), None);
        let error = Notifier::new(Some("vsock:2:1234".as_ref()), None, None).unwrap_err().to_string();
        assert!(error.contains("NOTIFY_SOCKET=vsock:2:1234"), "{error}");
        // systemd is gone: no failure.
        Notifier::new(Some("/nonexistent/notify".as_ref()), None, None).unwrap().ready();
    }
}
