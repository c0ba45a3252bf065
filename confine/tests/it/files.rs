//! Landlock domains.

use std::fs;
use std::net::{TcpListener, TcpStream};

use profiler_confine::{Files, Force, Role, Wall};
use profiler_need::have;

use crate::confined;

#[test]
fn what_is_not_named_cannot_be_opened_even_by_root() {
    let test = "what_is_not_named_cannot_be_opened_even_by_root";
    let nothing = Role::Network.rights().within(Files::default());
    let probe = profiler_confine::probe(&nothing).expect("a thread");
    let force = probe.force(Wall::Files).cloned();
    if !have(test, !matches!(force, Some(Force::None(_))), "a kernel with Landlock") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["read", "write", "other"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
        fs::write(folder.path().join(name).join("file"), name).expect("a file");
    }
    let root = folder.path().to_owned();
    let files = Files { read: vec![root.join("read"), root.join("missing")], write: vec![root.join("write")] };
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("its own");
    confined(Role::Network.rights().within(files), move |report| {
        assert!(!matches!(report.force(Wall::Files), Some(Force::None(_) | Force::NotAsked)), "{report}");
        assert_eq!(fs::read(root.join("read/file")).expect("named"), b"read");
        assert!(fs::write(root.join("read/file"), "x").is_err());
        fs::write(root.join("write/new"), "x").expect("named");
        fs::rename(root.join("write/new"), root.join("write/moved")).expect("named");
        assert!(fs::read(root.join("other/file")).is_err());
        assert!(fs::read_dir("/proc/1").is_err() && fs::read("/etc/passwd").is_err());
        assert!(fs::rename(root.join("write/moved"), root.join("other/moved")).is_err());
        TcpStream::connect(address).expect("whoever names no port reaches all");
        if matches!(report.force(Wall::Files), Some(Force::Full(_))) {
            assert!(TcpListener::bind("127.0.0.1:0").is_err(), "nobody is listened to who was not before");
        }
    });
}

#[test]
fn ports_that_are_not_named_cannot_be_reached() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("an address"));
    let [one, other] = listeners.each_ref().map(|listener| listener.local_addr().expect("its own"));
    let rights = Role::Sender.rights().within(Files::default()).connect([one.port()]);
    let probe = profiler_confine::probe(&rights).expect("a thread");
    let force = probe.force(Wall::Files).cloned();
    let has_landlock = !matches!(force, Some(Force::None(_)));
    if !have("ports_that_are_not_named_cannot_be_reached", has_landlock, "a kernel with Landlock") {
        return;
    }
    let Some(Force::Full(said)) = force else {
        eprintln!("before Linux 6.10, and ports came with 6.7: {force:?}");
        return;
    };
    assert!(said.contains(&format!("TCP to {}", one.port())), "{said}");
    confined(rights, move |_| {
        TcpStream::connect(one).expect("named");
        assert!(TcpStream::connect(other).is_err());
    });
}
