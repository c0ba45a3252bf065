//! What is left to a sender: the files that the C library's name service reads, and its receiver's port.

use std::path::PathBuf;

use profiler_confine::{CapabilitySet, Files, Rights, Role};

/// Port to which a resolver connects when an answer does not fit into a datagram.
const NAME_SERVER: u16 = 53;

/// Files of the name service. They are replaced rather than written, and what takes their place is another file: whoever changes one of them
/// has to start senders anew.
const FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
];

/// Folders in which some of them are on some hosts, the libraries of the name service, and what a process reads of itself: who listens on
/// this host is in its own `net`.
const FOLDERS: &[&str] = &[
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/run/connman",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/nix/store",
    "/proc/self",
    "/dev/null",
    "/dev/urandom",
];

/// The files of the name service that matter when they change.
pub fn name_service() -> impl Iterator<Item = PathBuf> {
    FILES.iter().map(PathBuf::from)
}

/// What a sender keeps that speaks to `port`: sockets, and what resolving a name takes.
#[must_use]
pub fn rights(port: u16) -> Rights {
    let read = FILES.iter().chain(FOLDERS).map(PathBuf::from).collect();
    Role::Sender.rights().within(Files { read, write: Vec::new() }).connect([port, NAME_SERVER])
}

/// What is left to a thread that speaks to the network by itself, in a process that has more: sockets to `ports` (none: to all), and files as
/// they are, to be read, with the right to read those of every user, which certificates may be.
///
/// A wall between threads is worth less than one between processes: memory is shared. It holds against mistakes, and against who has a file opened or a
/// connection made; not against who executes code.
#[must_use]
pub fn thread_rights(ports: Option<Vec<u16>>) -> Rights {
    let files = Files { read: vec!["/".into()], write: Vec::new() };
    let rights = Role::Sender.rights().keep(CapabilitySet::DAC_READ_SEARCH).within(files);
    match ports {
        Some(ports) => rights.connect(ports.into_iter().chain([NAME_SERVER])),
        None => rights,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};

    use profiler_confine::{Force, Wall};

    use super::*;

    #[test]
    fn a_sender_resolves_names_and_reaches_its_receiver_and_nothing_else() {
        assert_eq!(rights(1).kept(), CapabilitySet::empty());
        let (to, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (to, other) =
            (to.local_addr().map(|at| (to, at)).unwrap(), other.local_addr().map(|at| (other, at)).unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let (port, place) = (to.1.port(), file.path().to_owned());
        let confined = std::thread::spawn(move || {
            let report = profiler_confine::thread(&super::rights(port));
            assert!(("localhost", 1).to_socket_addrs().unwrap().count() > 0);
            TcpStream::connect(to.1).expect("its receiver");
            let refused = std::process::Command::new("/bin/true").spawn().expect_err("no program");
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
            assert!(fs::remove_file(&place).is_err() && fs::rename(&place, "/tmp/moved").is_err());
            if matches!(report.force(Wall::Files), Some(Force::None(_))) {
                eprintln!("this kernel has no Landlock: {report}");
                return;
            }
            for closed in ["/etc/passwd", "/etc/shadow", "/proc/1/environ", "/root"] {
                assert!(fs::File::open(closed).is_err(), "{closed}");
            }
            assert!(fs::read("/etc/hosts").is_ok() || !fs::exists("/etc/hosts").unwrap_or(false));
            assert!(fs::File::open(&place).is_err() && fs::write(&place, "x").is_err());
            if matches!(report.force(Wall::Files), Some(Force::Full(_))) {
                assert!(TcpStream::connect(other.1).is_err(), "a port that is not its receiver's");
                assert!(TcpListener::bind("127.0.0.1:0").is_err());
            }
        });
        confined.join().unwrap();
    }
}
