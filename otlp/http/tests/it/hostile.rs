//! Servers that send without end what is no answer, judged by how much of it is taken; and who may be connected to.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use profiler_http::{Connection, Destination, Url, Version};
use profiler_need::have_root;
use profiler_receiver::TlsOptions;

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);
/// What a server sends at most, bytes: a client without a bound takes all of it.
const ALL: usize = 64 << 20;
/// What the buffers of two sockets and of a client may hold beyond what the client has looked at.
const SOME: usize = 20 << 20;

/// A server that, once it has been asked, sends `begin` and then `piece` again and again, and gives back how many bytes were taken.
fn endless(begin: &'static [u8], piece: Vec<u8>) -> (SocketAddr, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reading = stream.try_clone().unwrap();
        // A client to whom somebody talks before it has asked gives up for that, whatever is said.
        reading.read_exact(&mut [0]).unwrap();
        // Whatever is said to it is taken, so that nobody waits for it.
        let reader = thread::spawn(move || while reading.read(&mut [0; 65536]).is_ok_and(|read| read > 0) {});
        let pieces = piece.repeat((64 << 10) / piece.len());
        let mut sent = 0;
        if stream.write_all(begin).is_ok() {
            while sent < ALL && stream.write_all(&pieces).is_ok() {
                sent += pieces.len();
            }
        }
        drop(stream.shutdown(std::net::Shutdown::Both));
        reader.join().unwrap();
        sent
    });
    (address, thread)
}

fn destination(address: SocketAddr, version: Version) -> Destination {
    let url = Url::parse(&format!("http://{address}"), |_| 80).unwrap();
    Destination::new(url, version, &TlsOptions::default()).unwrap()
}

/// The error that a request to a server of such pieces ends with; little of what it sends was taken.
async fn given_up(version: Version, begin: &'static [u8], piece: Vec<u8>) -> String {
    let (address, server) = endless(begin, piece);
    let error = tokio::time::timeout(LIMIT, async {
        let mut connection = Connection::open(&destination(address, version), LIMIT).await?;
        let request = Request::post("/").body(Bytes::from_static(b"x")).unwrap();
        let mut body = match connection.send(request).await {
            Ok(response) => response.into_body(),
            Err(error) => return Err(error.to_string()),
        };
        body.whole(1 << 20).await.map_err(|error| error.to_string())
    });
    let error = error.await.expect("an end").expect_err("no answer");
    let sent = tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
    println!("{sent} bytes were sent, and then: {error}");
    assert!(sent < SOME, "{sent} of {ALL} bytes were taken");
    error
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An empty SETTINGS, with which a server begins.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn endless_interim_responses_are_given_up() {
    let piece = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec();
    let error = given_up(Version::Http1, b"", piece).await;
    assert!(error.contains("no part of an answer"), "{error}");
}

#[tokio::test]
async fn endless_pings_are_given_up() {
    let error = given_up(Version::Http2, SETTINGS, frame(6, 0, 0, b"pingpong")).await;
    assert!(error.contains("no part of an answer"), "{error}");
}

#[tokio::test]
async fn endless_settings_are_given_up() {
    let error = given_up(Version::Http2, SETTINGS, frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])).await;
    assert!(error.contains("no part of an answer"), "{error}");
}

#[tokio::test]
async fn endless_chunk_extensions_are_given_up() {
    let begin = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    given_up(Version::Http1, begin, b"1;extension=of_a_chunk_that_says_nothing_at_all_but_costs\r\n".to_vec()).await;
}

#[tokio::test]
async fn what_nobody_chose_is_sent_only_to_whom_is_trusted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let trusted = destination(address, Version::Http1).only_trusted(true);
    Connection::open(&trusted, LIMIT).await.expect("our own user listens");
    // Only root can have another user listen.
    if !have_root("what_nobody_chose_is_sent_only_to_whom_is_trusted") {
        return;
    }
    // As if nobody had made it.
    rustix::fs::fchown(&listener, Some(rustix::fs::Uid::from_raw(65534)), None).unwrap();
    let error = Connection::open(&trusted, LIMIT).await.unwrap_err();
    assert!(error.contains("user 65534 listens on 127.0.0.1"), "{error}");
    Connection::open(&destination(address, Version::Http1), LIMIT).await.expect("whoever was chosen is trusted");
}
