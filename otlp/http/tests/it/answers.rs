//! What is sent, and what is taken of an answer.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use profiler_http::{Body, BodyError, Connection, Destination, Url, Version};
use profiler_receiver::TlsOptions;

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// A server that reads one request's head, answers with `answer` and closes; gives back what it read.
fn server(answer: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<String>) {
    let (listener, answer) = (TcpListener::bind("127.0.0.1:0").unwrap(), answer.into());
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.extend(byte);
        }
        // A client that has read enough hangs up.
        let _ = stream.write_all(&answer);
        String::from_utf8(head).unwrap()
    });
    (address, thread)
}

fn destination(url: &str) -> Destination {
    let url = Url::parse(url, |_| 80).unwrap();
    Destination::new(url, Version::Http1, &TlsOptions { insecure_skip_verify: true, ..TlsOptions::default() }).unwrap()
}

async fn get(address: SocketAddr) -> (Response<Body>, Connection) {
    let mut connection = Connection::open(&destination(&format!("http://{address}")), LIMIT).await.unwrap();
    let request = Request::get("/a?b=c").header("x-test", "1").body(Bytes::new()).unwrap();
    (connection.send(request).await.unwrap(), connection)
}

#[tokio::test]
async fn a_request_names_its_host_and_has_no_body_where_there_is_none() {
    let (address, seen) = server("HTTP/1.1 204 No Content\r\n\r\n");
    let (response, _connection) = get(address).await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.into_body().whole(0).await, Ok(Bytes::new()));
    let seen = seen.join().unwrap();
    let mut lines: Vec<_> = seen.trim_end().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["GET /a?b=c HTTP/1.1", &format!("host: {address}"), "x-test: 1"]);
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_and_what_came_before_stays() {
    let chunked = |chunks: &[&str]| {
        let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
    };
    let (address, _server) = server(chunked(&["0123456789", "abcdef", ""]));
    assert_eq!(get(address).await.0.into_body().whole(16).await, Ok("0123456789abcdef".into()));

    let (address, _server) = server(chunked(&["0123456789", "abcdef", ""]));
    let (response, _connection) = get(address).await;
    let mut body = response.into_body();
    assert_eq!(body.whole(15).await, Err(BodyError::TooLong { limit: 15 }));
    assert_eq!(body.taken(), "0123456789");

    // The end does not come.
    let (address, _server) = server(chunked(&["0123456789"]));
    let error = get(address).await.0.into_body().whole(16).await.unwrap_err();
    assert!(matches!(&error, BodyError::BrokenOff(text) if !text.is_empty()), "{error:?}");
}

#[tokio::test]
async fn lines_are_taken_one_by_one_and_none_is_longer_than_its_limit() {
    let chunks = "3\r\na\nb\r\n4\r\nc\n\nd\r\n2\r\n\ne\r\n0\r\n\r\n";
    let (address, _server) = server(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
    let (response, _connection) = get(address).await;
    let mut body = response.into_body();
    let mut lines = Vec::new();
    while let Some(line) = body.line(8).await.unwrap() {
        lines.push(line);
    }
    // What has no end is no line.
    assert_eq!(lines, ["a\n", "bc\n", "\n", "d\n"]);

    let long = "x".repeat(100);
    let (address, _server) = server(format!("HTTP/1.1 200 OK\r\ncontent-length: 102\r\n\r\na\n{long}"));
    let (response, _connection) = get(address).await;
    let error = response.into_body().line(50).await.unwrap_err();
    assert_eq!(error, BodyError::TooLong { limit: 50 });
}

#[tokio::test]
async fn what_shakes_no_hands_is_given_up_when_the_time_is_over() {
    // Accepts, by the kernel's backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    let error = Connection::open(&destination(&url), Duration::from_millis(300)).await.unwrap_err();
    assert!(error.contains("no connection to 127.0.0.1") && error.contains("within 300ms"), "{error}");
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test]
async fn another_protocol_is_told_from_a_failure() {
    let (address, _server) = server("SSH-2.0-x\r\n");
    let mut connection = Connection::open(&destination(&format!("http://{address}")), LIMIT).await.unwrap();
    let error = connection.send(Request::get("/").body(Bytes::new()).unwrap()).await.unwrap_err();
    assert!(error.is_no_http && error.was_sent, "{error:?}");
}
