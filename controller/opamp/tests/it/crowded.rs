//! Peers that come and say nothing, as many as there is room for.

use std::time::Duration;

use futures_util::SinkExt;
use profiler_opamp::{
    InstanceUid,
    messages::AgentToServer,
    server::{self, Event},
    transport::ServerOptions,
    wire,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{
    hostile::{asked, first, next, post, socket},
    simulated::{UID, all_of_a_server},
    transports::{LIMIT, Running},
};

const SHORT: Duration = Duration::from_secs(1);

async fn server(transport: ServerOptions) -> Running {
    let options = server::Options { capabilities: all_of_a_server(), ..server::Options::default() };
    Running::with_transport(options, transport, None, Some("Bearer t"), None).await
}

/// Until the other side has closed it; what came before.
async fn end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut all)).await.expect("it stays open");
    all
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed_and_one_that_has_asked_rests() {
    let running = server(ServerOptions { patience: SHORT, silence: 2 * LIMIT, ..ServerOptions::default() }).await;
    let mut rests = TcpStream::connect(running.address).await.unwrap();
    rests.write_all(b"GET /other/thing HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /other/thing HT").await.unwrap();
    assert_eq!((end(&mut silent).await, end(&mut slow).await), (Vec::new(), Vec::new()));
    // It came before those.
    rests.write_all(b"GET /other/again HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let answers = String::from_utf8(end(&mut rests).await).unwrap();
    assert!(answers.contains("thing") && answers.ends_with("again"), "{answers}");
}

#[tokio::test]
async fn a_websocket_on_which_no_agent_speaks_is_closed() {
    let options = server::Options { capabilities: all_of_a_server(), ..server::Options::default() };
    // Long enough for one that speaks at once, on a machine that stands still for a moment.
    let transport = ServerOptions { patience: 5 * SHORT, ping: LIMIT, ..ServerOptions::default() };
    let running = Running::with_transport(options, transport, None, None, None).await;
    let mut speaks = socket(running.address).await;
    let message = wire::frame(&first(), 10_000).unwrap();
    speaks.send(Message::Binary(message.into())).await.unwrap();
    assert!(matches!(next(&mut speaks).await, Message::Binary(_)));
    let mut mute = socket(running.address).await;
    let Message::Close(Some(frame)) = next(&mut mute).await else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Policy);
    // The other one came before, and stays.
    let message = wire::frame(&AgentToServer { sequence_num: 1, ..first() }, 10_000).unwrap();
    speaks.send(Message::Binary(message.into())).await.unwrap();
    assert!(matches!(next(&mut speaks).await, Message::Binary(_)));
}

#[tokio::test]
async fn who_is_gone_is_gone_also_while_there_is_no_place() {
    let transport = ServerOptions { connections: 1, silence: SHORT, patience: LIMIT, ..ServerOptions::default() };
    let options = server::Options { capabilities: all_of_a_server(), ..server::Options::default() };
    let mut running = Running::with_transport(options, transport, None, None, None).await;
    let (answer, _) = asked(running.address, post().body(first().encode_to_vec().into()).unwrap()).await;
    assert!(answer.status().is_success());
    // This one has the only place from now on.
    let mut socket = socket(running.address).await;
    let other = AgentToServer { instance_uid: InstanceUid::new([9; 16]).to_wire(), ..first() };
    socket.send(Message::Binary(wire::frame(&other, 10_000).unwrap().into())).await.unwrap();
    assert!(matches!(next(&mut socket).await, Message::Binary(_)));
    running.until(|event, _| *event == Event::Disconnected(UID)).await;
}

#[tokio::test]
async fn who_goes_on_with_what_is_not_taken_is_sent_away() {
    let options = server::Options { capabilities: all_of_a_server(), ..server::Options::default() };
    let running = Running::with(options, None, None, None).await;
    let mut socket = socket(running.address).await;
    let mut answers = 0;
    let frame = loop {
        // The last ones may find it closed.
        let _ = socket.send(Message::Text("hello".into())).await;
        match next(&mut socket).await {
            Message::Binary(_) => answers += 1,
            Message::Close(frame) => break frame,
            other => panic!("{other:?}"),
        }
        assert!(answers < 100);
    };
    assert_eq!((answers, frame.unwrap().code), (10, CloseCode::Policy));
}
