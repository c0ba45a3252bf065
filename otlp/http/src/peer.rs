//! Who listens on this host.
//!
//! A port above 1023 is anybody's who takes it first. What is sent to a port of this host that nobody chose goes only to whom this
//! process trusts with everything: root, and its own user.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpStream;

/// State of a socket that listens (`TCP_LISTEN` of net/tcp_states.h).
const LISTEN: &str = "0A";
/// Bytes read of a table: those who listen stand first.
const MAX_TABLE: u64 = 4 << 20;

/// Whether `stream` leads to a port of this host on which root or this process's user listens.
///
/// # Errors
/// It does not, or that cannot be known; the text says so.
pub(super) fn check(stream: &TcpStream) -> Result<(), String> {
    let peer = stream.peer_addr().map_err(|error| format!("nobody knows who listens: {error}"))?;
    let us = rustix::process::geteuid().as_raw();
    let mut listeners = Vec::new();
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        // Without IPv6 there is no second one.
        if let Ok(file) = File::open(table) {
            listeners.extend(owners(BufReader::new(file.take(MAX_TABLE)), peer));
        }
    }
    match listeners.iter().find(|uid| **uid != 0 && **uid != us) {
        _ if !peer.ip().is_loopback() => Err(format!("{peer} is not on this host")),
        Some(uid) => Err(format!("user {uid} listens on {peer}")),
        None if listeners.is_empty() => Err(format!("nobody knows who listens on {peer}")),
        None => Ok(()),
    }
}

/// The users whose sockets listen where `to` leads, by a table of `/proc/net` (Documentation/networking/proc_net_tcp.rst).
fn owners(table: impl BufRead, to: SocketAddr) -> Vec<u32> {
    let mut found = Vec::new();
    for line in table.lines().skip(1).map_while(Result::ok) {
        let mut fields = line.split_ascii_whitespace();
        let (local, state, uid) = (fields.nth(1), fields.nth(1), fields.nth(3));
        if state != Some(LISTEN) {
            break;
        }
        let Some(((address, port), uid)) = local.and_then(endpoint).zip(uid.and_then(|uid| uid.parse().ok())) else {
            continue;
        };
        let address = address.to_canonical();
        if port == to.port() && (address == to.ip().to_canonical() || address.is_unspecified()) {
            found.push(uid);
        }
    }
    found
}

/// `0100007F:10DD`: words of 32 bits of an address in network order, each printed as a number of this machine.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut octets = Vec::with_capacity(16);
    for word in address.as_bytes().chunks(8) {
        octets.extend(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes());
    }
    let address = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn row(local: &str, state: &str, uid: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:>5}        0 123 1 0 100\n"
        )
    }

    fn word(octets: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(octets))
    }

    #[test]
    fn those_who_listen_where_it_leads_are_found() {
        let (local, other) = (word([127, 0, 0, 1]), word([10, 0, 0, 1]));
        let table = [
            HEAD.to_owned(),
            row(&format!("{local}:10DD"), LISTEN, 1),
            row(&format!("{local}:10DE"), LISTEN, 2),
            row(&format!("{other}:10DD"), LISTEN, 3),
            row("00000000:10DD", LISTEN, 4),
            row(&format!("{local}:10DD"), "01", 5),
        ]
        .concat();
        assert_eq!(owners(table.as_bytes(), "127.0.0.1:4317".parse().unwrap()), [1, 4]);
        let zero = "00000000".repeat(3);
        let table = [
            HEAD.to_owned(),
            row(&format!("{zero}{}:10DD", word([0, 0, 0, 1])), LISTEN, 6),
            row(&format!("{zero}00000000:10DD"), LISTEN, 7),
            row(&format!("0000000000000000{}{local}:10DD", word([0, 0, 255, 255])), LISTEN, 8),
            "nonsense\n".to_owned(),
        ]
        .concat();
        assert_eq!(owners(table.as_bytes(), "[::1]:4317".parse().unwrap()), [6, 7]);
        assert_eq!(owners(table.as_bytes(), "127.0.0.1:4317".parse().unwrap()), [7, 8]);
        assert_eq!(owners(&b""[..], "127.0.0.1:4317".parse().unwrap()), [0; 0]);
    }
}
