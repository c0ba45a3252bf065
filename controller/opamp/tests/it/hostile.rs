//! Peers that send what they should not: judged by what is answered and what is taken.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use profiler_http::{Connection, Destination, Url, Version};
use profiler_opamp::{
    Limits,
    client::{Event, Problem},
    messages::{AgentRemoteConfig, AgentToServer, ServerErrorResponseType, ServerToAgent},
    server,
    transport::TransportOptions,
    wire::{self, WireError},
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use super::{
    simulated::{UID, all_of_a_server, description, settings},
    transports::{Agent, LIMIT, Running},
};

/// What a server here takes and sends at most.
const SMALL: usize = 10_000;

async fn small_server() -> Running {
    let limits = Limits { send: 1 << 20, receive: SMALL };
    let options = server::Options { capabilities: all_of_a_server(), limits, ..server::Options::default() };
    Running::with(options, None, None, None).await
}

pub async fn asked(address: SocketAddr, request: Request<Bytes>) -> (Response<()>, Bytes) {
    let url = Url::parse(&format!("http://{address}"), |_| 80).unwrap();
    let destination = Destination::new(url, Version::Http1, &Default::default()).unwrap();
    let mut connection = Connection::open(&destination, LIMIT).await.unwrap();
    let (head, mut body) = timeout(LIMIT, connection.send(request)).await.unwrap().unwrap().into_parts();
    let body = timeout(LIMIT, body.whole(1 << 20)).await.unwrap().unwrap();
    (Response::from_parts(head, ()), body)
}

pub fn post() -> http::request::Builder {
    Request::post("/v1/opamp").header(header::CONTENT_TYPE, "application/x-protobuf")
}

pub fn first() -> AgentToServer {
    AgentToServer {
        instance_uid: UID.to_wire(),
        agent_description: Some(description("a")),
        capabilities: 1,
        ..Default::default()
    }
}

pub async fn socket(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(format!("ws://{address}/v1/opamp"), stream).await.unwrap().0
}

pub async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    timeout(LIMIT, socket.next()).await.expect("nothing came").expect("the end came").unwrap()
}

fn answered(message: Message) -> ServerToAgent {
    let Message::Binary(bytes) = message else { panic!("{message:?}") };
    ServerToAgent::decode(wire::unframe(&bytes, 1 << 20).unwrap()).unwrap()
}

#[tokio::test]
async fn a_request_that_is_too_large_gets_413_also_when_it_was_small_before_it_was_unpacked() {
    let running = small_server().await;
    let large = AgentToServer { instance_uid: vec![0; SMALL], ..first() }.encode_to_vec();
    let bomb = wire::gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 256 << 10);
    let (answer, _) = asked(running.address, post().body(large.clone().into()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let nearly = wire::gzip(&large);
    assert!(nearly.len() < SMALL);
    for body in [nearly, wire::gzip(&vec![0; SMALL + 1])] {
        let request = post().header(header::CONTENT_ENCODING, "gzip").body(body.into()).unwrap();
        assert_eq!(asked(running.address, request).await.0.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(running.server.with(|registry| registry.agents().count()), 0);
}

#[tokio::test]
async fn requests_may_be_compressed_and_answers_are_where_they_may_be() {
    let running = small_server().await;
    let message = first().encode_to_vec();
    let plain = post().body(message.clone().into()).unwrap();
    let packed = post().header(header::CONTENT_ENCODING, "gzip").body(wire::gzip(&message).into()).unwrap();
    for request in [plain, packed] {
        let (answer, body) = asked(running.address, request).await;
        assert_eq!((answer.status(), answer.headers().get(header::CONTENT_ENCODING)), (StatusCode::OK, None));
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/x-protobuf");
        assert_eq!(ServerToAgent::decode(body).unwrap().instance_uid, UID.to_wire());
    }
    let config = AgentRemoteConfig { config_hash: vec![1; 5000], ..Default::default() };
    let accepts = AgentToServer { capabilities: 3, sequence_num: 1, ..first() }.encode_to_vec();
    asked(running.address, post().body(accepts.clone().into()).unwrap()).await;
    running.server.with(|registry| registry.offer(UID, |offers| offers.remote_config = Some(config.clone()))).unwrap();
    for (accepted, is_packed) in [("gzip", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false)] {
        // One that reports no status is told once a connection: each time anew.
        running.server.with(|registry| registry.expire(std::time::Instant::now() + LIMIT, Duration::ZERO));
        let request = post().header(header::ACCEPT_ENCODING, accepted).body(accepts.clone().into()).unwrap();
        let (answer, body) = asked(running.address, request).await;
        assert_eq!(answer.headers().get(header::CONTENT_ENCODING).is_some(), is_packed, "{accepted}");
        let body = if is_packed { wire::gunzip(&body, 1 << 20).unwrap() } else { body.into() };
        assert_eq!(ServerToAgent::decode(&*body).unwrap().remote_config, Some(config.clone()));
    }
}

#[tokio::test]
async fn what_is_no_request_of_opamp_gets_a_status_that_says_so() {
    let running = small_server().await;
    let get = |path: &str| Request::get(path).body(Bytes::new()).unwrap();
    for (request, status) in [
        (get("/"), 404),
        (get("/v1/opamp"), 426),
        (Request::put("/v1/opamp").header("content-type", "application/x-protobuf").body(Bytes::new()).unwrap(), 405),
        (Request::post("/v1/opamp").header("content-type", "application/json").body("{}".into()).unwrap(), 426),
        (post().header("content-encoding", "br").body("x".into()).unwrap(), 415),
    ] {
        let (answer, _) = asked(running.address, request).await;
        assert_eq!(answer.status(), status);
    }
    // No message, but a request: told in OpAMP's own way.
    let broken = post().header("content-encoding", "gzip").body("no gzip".into()).unwrap();
    for request in [post().body("\u{ff}\u{ff}".into()).unwrap(), broken] {
        let (answer, body) = asked(running.address, request).await;
        let error = ServerToAgent::decode(body).unwrap().error_response.unwrap();
        assert_eq!((answer.status(), error.r#type()), (StatusCode::OK, ServerErrorResponseType::BadRequest));
    }
}

#[tokio::test]
async fn a_websocket_message_that_is_too_large_closes_it_with_1009() {
    let running = small_server().await;
    let mut socket = socket(running.address).await;
    socket.send(Message::Binary(vec![0; SMALL + 1].into())).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Size);
}

#[tokio::test]
async fn websocket_messages_that_are_none_are_answered_as_bad_requests() {
    let running = small_server().await;
    let mut socket = socket(running.address).await;
    let framed = |message: &AgentToServer| Message::Binary(wire::frame(message, SMALL).unwrap().into());
    for message in [
        Message::Binary(vec![1, 0].into()),
        Message::Binary(Bytes::new()),
        Message::Text("hello".into()),
        Message::Binary(vec![0, 0xff].into()),
        framed(&AgentToServer::default()),
    ] {
        socket.send(message.clone()).await.unwrap();
        let error = answered(next(&mut socket).await).error_response.unwrap();
        assert_eq!(error.r#type(), ServerErrorResponseType::BadRequest, "{message:?}");
    }
    // And it goes on.
    socket.send(framed(&first())).await.unwrap();
    assert_eq!(answered(next(&mut socket).await).error_response, None);
}

/// A server of one request after another on any path, that answers with `answers` in turn.
async fn answering(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0; 4096];
            // The agent's first report is small: it is all there when its head is.
            while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(read @ 1..) => seen.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let _ = stream.write_all(&answer).await;
            // Until the client hangs up.
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        }
    });
    address
}

fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_too_large_are_not_processed_also_after_they_are_unpacked() {
    let large = ServerToAgent {
        remote_config: Some(AgentRemoteConfig { config_hash: vec![1; 2 * SMALL], ..Default::default() }),
        ..Default::default()
    };
    let large = large.encode_to_vec();
    let packed = wire::gzip(&large);
    assert!(packed.len() < SMALL);
    let answers = vec![
        ok("", &large),
        ok("content-encoding: gzip\r\n", &packed),
        ok("content-encoding: br\r\n", b"x"),
        ok("", b""),
    ];
    let address = answering(answers).await;
    let transport = TransportOptions { receive: SMALL, ..TransportOptions::default() };
    let mut agent = Agent::with(settings(&format!("http://{address}")), transport);
    for _ in 0..2 {
        let event = agent.until(|event| !matches!(event, Event::Disconnected { .. })).await;
        assert_eq!(event, Event::Malformed(Problem::Wire(WireError::TooLarge { limit: SMALL })));
    }
    let event = agent.until(|event| !matches!(event, Event::Disconnected { .. })).await;
    assert!(matches!(event, Event::Malformed(Problem::Transport(_))), "{event:?}");
    // An empty answer is one.
    let event = agent.until(|event| !matches!(event, Event::Disconnected { .. })).await;
    assert_eq!(event, Event::Connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_closes_a_websocket_on_which_too_much_came_with_1009() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let transport = TransportOptions { receive: SMALL, ..TransportOptions::default() };
    let mut agent = Agent::with(settings(&format!("ws://{address}")), transport);
    let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
    assert!(matches!(next(&mut socket).await, Message::Binary(_)));
    socket.send(Message::Text("x".into())).await.unwrap();
    socket.send(Message::Binary(vec![1, 2].into())).await.unwrap();
    socket.send(Message::Binary(vec![0; SMALL + 1].into())).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Size);
    let mut problems = Vec::new();
    while problems.len() < 3 {
        if let Event::Malformed(problem) = agent.until(|event| matches!(event, Event::Malformed(_))).await {
            problems.push(problem);
        }
    }
    assert!(matches!(problems[0], Problem::Transport(_)), "{problems:?}");
    assert_eq!(problems[1..], [WireError::Header, WireError::TooLarge { limit: SMALL }].map(Problem::Wire));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_in_a_circle_end() {
    let around =
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for scheme in ["http", "ws"] {
        let address = answering(vec![around.to_vec(); 100]).await;
        let mut agent = Agent::start(settings(&format!("{scheme}://{address}")));
        let mut redirects = 0;
        loop {
            match agent.until(|_| true).await {
                Event::Redirected { .. } => redirects += 1,
                Event::Disconnected { reason, .. } => break assert!(reason.contains("redirects"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(redirects, 5, "{scheme}");
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_given_up_and_left_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let short = Duration::from_millis(200);
    let transport = TransportOptions { connect: short, request: short, ..TransportOptions::default() };
    for scheme in ["ws", "http"] {
        let mut agent = Agent::with(settings(&format!("{scheme}://{address}")), transport);
        let event = agent.until(|event| matches!(event, Event::Disconnected { .. })).await;
        assert!(matches!(&event, Event::Disconnected { reason, .. } if reason.contains("within")), "{event:?}");
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_offers_no_websocket_is_told_as_such() {
    let address = answering(vec![b"SSH-2.0-x\r\n\r\n".to_vec(), ok("", b"hello")]).await;
    let mut agent = Agent::start(settings(&format!("ws://{address}")));
    for expected in ["WebSocket", "HTTP status 200"] {
        let event = agent.until(|event| matches!(event, Event::Disconnected { .. })).await;
        assert!(matches!(&event, Event::Disconnected { reason, .. } if reason.contains(expected)), "{event:?}");
    }
}
