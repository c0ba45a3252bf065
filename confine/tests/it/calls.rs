//! System calls.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use profiler_confine::{Calls, Force, Rights, Role, Wall};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use crate::{confined, status};

const ALL: [Role; 5] = [Role::Sampler, Role::Reader, Role::Network, Role::Sender, Role::Recorder];

#[test]
fn what_no_role_does_is_refused_and_ends_nothing() {
    confined(Rights::of(&ALL), |report| {
        assert!(matches!(report.force(Wall::Calls), Some(Force::Full(_))), "{report}");
        assert_eq!((status("Seccomp"), status("NoNewPrivs")), ("2".to_owned(), "1".to_owned()));
        // They would fail for another reason.
        assert_eq!(rustix::process::chroot("/no/such/folder"), Err(Errno::PERM));
        let device = rustix::fs::mknodat(rustix::fs::CWD, "/no/such/node", FileType::Fifo, Mode::RUSR, 0);
        assert_eq!(device, Err(Errno::PERM));
        for family in [AddressFamily::NETLINK, AddressFamily::PACKET] {
            assert_eq!(rustix::net::socket(family, SocketType::RAW, None).err(), Some(Errno::PERM), "{family:?}");
        }
        // Through a descriptor the kernel would send a signal to whomever it is set to.
        let (one, _other) = UnixStream::pair().expect("a pair");
        for (command, name) in [(libc::F_SETOWN, "F_SETOWN"), (10, "F_SETSIG"), (15, "F_SETOWN_EX")] {
            // SAFETY: whatever the argument is, it is refused before it is looked at; 0 is nobody, no signal, and no address.
            assert_eq!(unsafe { libc::fcntl(one.as_raw_fd(), command, 0) }, -1, "{name}");
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM), "{name}");
        }
    });
}

/// Who samples starts readers.
#[test]
fn only_the_sampler_starts_processes() {
    confined(Rights::of(&[Role::Reader, Role::Network, Role::Recorder]), |_| {
        let refused = Command::new("/bin/true").spawn().expect_err("no process is started");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert_eq!(rustix::process::chdir("/"), Err(Errno::PERM));
    });
    confined(Rights::of(&[Role::Sampler, Role::Reader]), |_| {
        assert!(Command::new("/bin/true").status().expect("it is started").success());
    });
}

#[test]
fn what_a_role_does_not_do_is_refused_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("a file");
    let path = file.clone();
    confined(Rights::of(&[Role::Reader]), move |_| {
        let refused = |result: std::io::Result<()>| result.expect_err("refused").kind() == ErrorKind::PermissionDenied;
        assert!(refused(UdpSocket::bind("127.0.0.1:0").map(drop)));
        assert!(refused(UnixStream::pair().map(drop)));
        assert!(refused(Command::new("/bin/true").spawn().map(drop)));
        assert!(refused(fs::rename(&path, path.with_extension("moved"))));
        assert!(refused(fs::remove_file(&path)));
        assert_eq!(fs::read(&path).expect("reading is its business"), b"x");
    });
    let path = file.clone();
    confined(Rights::of(&[Role::Sender]), move |_| {
        TcpListener::bind("127.0.0.1:0").expect("sockets are its business");
        let writing = [
            fs::rename(&path, path.with_extension("moved")),
            fs::remove_file(&path),
            fs::write(&path, "y"),
            fs::write(path.with_extension("new"), "y"),
            fs::OpenOptions::new().append(true).open(&path).map(drop),
        ];
        for refused in writing {
            assert_eq!(refused.expect_err("refused").kind(), ErrorKind::PermissionDenied);
        }
        assert_eq!(fs::read(&path).expect("without a Landlock domain"), b"x");
        // What listens there may do for root what root may do: a service manager, a container runtime.
        let refused = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
        assert_eq!(refused.err(), Some(Errno::PERM));
        // A datagram goes wherever its sender says.
        let flags = rustix::net::SocketFlags::empty();
        let datagrams = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        assert_eq!(datagrams.err(), Some(Errno::PERM));
        UnixStream::pair().expect("signals are taken by one");
        assert_eq!(Command::new("/bin/true").spawn().expect_err("refused").kind(), ErrorKind::PermissionDenied);
    });
    confined(Rights::of(&[Role::Reader]).call(Calls::Write), move |_| fs::remove_file(&file).expect("permitted"));
}

/// What std and the C library do for programs, by whatever calls this version of it prefers.
#[test]
fn what_programs_do_works() {
    confined(Rights::of(&[Role::Network]), |_| {
        // Threads, and what they wait with.
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let threads: Vec<_> = (0..4)
            .map(|at| {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name(format!("thread-{at}"));
                let work = move || {
                    std::thread::sleep(Duration::from_millis(2));
                    *shared.0.lock().unwrap() += 1;
                    shared.1.notify_all();
                    status("Seccomp")
                };
                thread.spawn(work).expect("a thread")
            })
            .collect();
        let all = shared.1.wait_while(shared.0.lock().unwrap(), |count| *count < 4).unwrap();
        assert_eq!(*all, 4);
        drop(all);
        for thread in threads {
            assert_eq!(thread.join().expect("a thread's end"), "2", "a thread inherits the filter");
        }
        // Memory, random numbers, time, limits.
        let mut large = vec![1_u8; 64 << 20];
        large.resize(80 << 20, 2);
        drop(large);
        assert_eq!(HashMap::from([(1, 2)]).get(&1), Some(&2));
        let _ = (std::time::SystemTime::now(), std::thread::available_parallelism(), std::env::current_dir());
        let _ = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        // Files.
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        fs::write(&one, "content").expect("written");
        fs::copy(&one, &two).expect("copied");
        fs::File::open(&two).and_then(|file| file.sync_all()).expect("on disk");
        fs::rename(&two, folder.path().join("three")).expect("renamed");
        fs::hard_link(&one, &two).expect("linked");
        fs::create_dir_all(folder.path().join("a/b")).expect("made");
        fs::remove_dir_all(folder.path().join("a")).expect("removed");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 3);
        // Names and sockets.
        assert!(("localhost", 1).to_socket_addrs().expect("a name").count() > 0);
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("its own");
        let client = std::thread::spawn(move || TcpStream::connect(address).and_then(|mut to| to.write_all(b"hello")));
        let mut heard = String::new();
        listener.accept().expect("a connection").0.read_to_string(&mut heard).expect("words");
        assert_eq!(heard, "hello");
        client.join().expect("a thread's end").expect("sent");
        UnixStream::pair().expect("a pair");
    });
}

#[test]
fn processes_are_started_by_who_starts_processes() {
    confined(Rights::of(&[]).call(Calls::Start), |_| {
        let output = Command::new("/bin/sh").args(["-c", "echo started"]).output().expect("a process");
        // The process has the filter of its parent, and does with it.
        assert_eq!(String::from_utf8_lossy(&output.stdout), "started\n");
    });
}
