//! Receivers that behave as told: a gRPC server by tonic and a raw HTTP/1.1 server, both on ports of their own.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
    profiles_service_server::{ProfilesService, ProfilesServiceServer},
};
use profiler_export::{ExportStats, Exporter, ExporterOptions, RetryOptions};
use prost::Message;
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding,
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

/// Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Options for a test: retries are quick.
pub fn options(endpoint: impl Into<String>) -> ExporterOptions {
    ExporterOptions {
        endpoint: endpoint.into(),
        timeout: Duration::from_secs(30),
        retry: RetryOptions {
            initial_interval: Duration::from_millis(20),
            max_interval: Duration::from_millis(200),
            ..RetryOptions::default()
        },
        ..ExporterOptions::default()
    }
}

/// Waits until nothing is in the queue or the spool, and holds the counts against one another.
pub fn drained(exporter: &Exporter) -> ExportStats {
    wait_for("the queue to be empty", || {
        let stats = exporter.stats();
        assert_eq!(stats.unaccounted_samples(), 0, "{stats:?}");
        (stats.queued_samples == 0 && stats.spooled_samples() == 0).then_some(stats)
    })
}

/// Requests that a receiver has accepted.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<ExportProfilesServiceRequest>>>);

impl Inbox {
    pub fn push(&self, request: ExportProfilesServiceRequest) {
        assert_eq!(profiler_formats::otlp::check_message(&request), []);
        self.0.lock().unwrap().push(request);
    }

    pub fn take(&self) -> Vec<ExportProfilesServiceRequest> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Samples with a time in all that was accepted.
    pub fn samples(&self) -> u64 {
        let requests = self.0.lock().unwrap();
        let profiles = requests
            .iter()
            .flat_map(|request| &request.resource_profiles)
            .flat_map(|resource| &resource.scope_profiles)
            .flat_map(|scope| &scope.profiles);
        profiles.flat_map(|profile| &profile.samples).map(|sample| sample.timestamps_unix_nano.len() as u64).sum()
    }

    pub fn requests(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// What a gRPC receiver does with a request.
pub enum Reply {
    Accept,
    Partial(i64, &'static str),
    Fail(Status),
    /// Answers only after this.
    Slow(Duration),
}

pub fn fail(code: Code, message: &str) -> Reply {
    Reply::Fail(Status::new(code, message))
}

/// RESOURCE_EXHAUSTED or another code with `RetryInfo` of that many seconds.
pub fn fail_with_delay(code: Code, seconds: i64) -> Reply {
    #[derive(Clone, PartialEq, Message)]
    struct Number {
        #[prost(int64, tag = "1")]
        seconds: i64,
    }
    #[derive(Clone, PartialEq, Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Number>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let retry = RetryInfo { retry_delay: Some(Number { seconds }) };
    let other = Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: vec![1, 2, 3] };
    let retry = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: retry.encode_to_vec() };
    let status = RpcStatus { code: code as i32, message: "wait".to_owned(), details: vec![other, retry] };
    Reply::Fail(Status::with_details(code, "wait", status.encode_to_vec().into()))
}

/// A gRPC receiver; ends when it is dropped.
pub struct GrpcReceiver {
    pub address: SocketAddr,
    pub inbox: Inbox,
    /// Calls, accepted or not.
    pub calls: Arc<AtomicU64>,
    /// Metadata `authorization` of the calls.
    pub authorizations: Arc<Mutex<Vec<String>>>,
    /// When each call came.
    pub times: Arc<Mutex<Vec<Instant>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Clone)]
struct Service {
    inbox: Inbox,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    calls: Arc<AtomicU64>,
    authorizations: Arc<Mutex<Vec<String>>>,
    times: Arc<Mutex<Vec<Instant>>>,
}

#[tonic::async_trait]
impl ProfilesService for Service {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.times.lock().unwrap().push(Instant::now());
        if let Some(value) = request.metadata().get("authorization") {
            self.authorizations.lock().unwrap().push(value.to_str().unwrap().to_owned());
        }
        let reply = self.replies.lock().unwrap().pop_front().unwrap_or(Reply::Accept);
        let mut response = ExportProfilesServiceResponse::default();
        match reply {
            Reply::Accept => {}
            Reply::Partial(rejected_profiles, message) => {
                let partial = response.partial_success.get_or_insert_default();
                partial.rejected_profiles = rejected_profiles;
                partial.error_message = message.to_owned();
            }
            Reply::Fail(status) => return Err(status),
            Reply::Slow(delay) => tokio::time::sleep(delay).await,
        }
        self.inbox.push(request.into_inner());
        Ok(Response::new(response))
    }
}

pub struct GrpcOptions {
    pub address: SocketAddr,
    pub replies: Vec<Reply>,
    pub tls: Option<ServerTlsConfig>,
    /// Bytes of a message that are accepted.
    pub max_message: usize,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self { address: "127.0.0.1:0".parse().unwrap(), replies: Vec::new(), tls: None, max_message: 64 << 20 }
    }
}

impl GrpcReceiver {
    pub fn new(replies: Vec<Reply>) -> Self {
        Self::start(GrpcOptions { replies, ..GrpcOptions::default() })
    }

    pub fn start(options: GrpcOptions) -> Self {
        let service = Service {
            inbox: Inbox::default(),
            replies: Arc::new(Mutex::new(options.replies.into())),
            calls: Arc::default(),
            authorizations: Arc::default(),
            times: Arc::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // A port that a receiver had before may take a moment to be free.
        let listener = wait_for("the address to be free", || TcpListener::bind(options.address).ok());
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = ProfilesServiceServer::new(service.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(options.max_message);
        let mut builder = Server::builder();
        if let Some(tls) = options.tls {
            builder = builder.tls_config(tls).unwrap();
        }
        let router = builder.add_service(server);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        let Service { inbox, calls, authorizations, times, .. } = service;
        Self { address, inbox, calls, authorizations, times, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Ends it with all its connections; returns its address.
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

impl Drop for GrpcReceiver {
    fn drop(&mut self) {
        self.end();
    }
}

/// A request as it came over HTTP/1.1.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Method and path.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub time: Instant,
}

impl HttpRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body, decompressed by other means than those that compressed it.
    pub fn raw(&self) -> Vec<u8> {
        match self.header("content-encoding") {
            Some("gzip") => {
                let mut raw = Vec::new();
                flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut raw).unwrap();
                raw
            }
            Some("zstd") => zstd::decode_all(&self.body[..]).unwrap(),
            None => self.body.clone(),
            Some(other) => panic!("{other}"),
        }
    }
}

/// What an HTTP receiver does with a request.
pub enum HttpReply {
    /// Accepts: 200 and an empty message.
    Accept,
    /// Sends these bytes as they are, and closes the connection.
    Raw(Vec<u8>),
    /// Resets the connection after this many bytes of the body.
    Reset(usize),
    /// Says nothing for this long, then closes the connection.
    Silent(Duration),
}

/// An answer with a status line, headers and a body.
pub fn http(status: &str, headers: &str, body: &[u8]) -> HttpReply {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len())
            .into_bytes();
    bytes.extend_from_slice(body);
    HttpReply::Raw(bytes)
}

/// A receiver of HTTP/1.1 by hand.
pub struct HttpReceiver {
    pub address: SocketAddr,
    pub inbox: Inbox,
    pub seen: Arc<Mutex<Vec<HttpRequest>>>,
}

impl HttpReceiver {
    /// Answers the first requests by `replies`, and accepts all others.
    pub fn new(replies: Vec<HttpReply>) -> Self {
        let replies = Mutex::new(VecDeque::from(replies));
        Self::with(move |_| replies.lock().unwrap().pop_front().unwrap_or(HttpReply::Accept))
    }

    /// Answers as `reply` says. Its thread ends with the test.
    pub fn with(reply: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (inbox, seen) = (Inbox::default(), Arc::new(Mutex::new(Vec::new())));
        let reply = Arc::new(reply);
        let shared = (inbox.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (reply, shared) = (Arc::clone(&reply), shared.clone());
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while serve(&mut stream, &*reply, &shared.0, &shared.1).is_some() {}
                });
            }
        });
        Self { address, inbox, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<HttpRequest> {
        self.seen.lock().unwrap().clone()
    }
}

/// Serves one request; `None` when the connection is at its end.
fn serve(
    stream: &mut TcpStream,
    reply: &(impl Fn(&HttpRequest) -> HttpReply + ?Sized),
    inbox: &Inbox,
    seen: &Mutex<Vec<HttpRequest>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let mut request = HttpRequest { line, headers, body: Vec::new(), time: Instant::now() };
    let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let action = reply(&request);
    if let HttpReply::Reset(bytes) = action {
        let mut part = vec![0; bytes.min(length)];
        let _ = stream.read_exact(&mut part);
        seen.lock().unwrap().push(request);
        // Closing with bytes unread resets the connection.
        return None;
    }
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).ok()?;
    seen.lock().unwrap().push(request.clone());
    match action {
        HttpReply::Accept => {
            inbox.push(ExportProfilesServiceRequest::decode(&request.raw()[..]).unwrap());
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).ok()
        }
        HttpReply::Raw(bytes) => {
            let _ = stream.write_all(&bytes);
            None
        }
        HttpReply::Silent(time) => {
            thread::sleep(time);
            None
        }
        HttpReply::Reset(_) => None,
    }
}

/// Passes connections on to `target`, but resets the first `resets` of them after some bytes.
pub fn resetting_proxy(target: SocketAddr, resets: u64, after: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let mut client = stream.unwrap();
            if (index as u64) < resets {
                thread::spawn(move || drop(client.read_exact(&mut vec![0; after])));
                continue;
            }
            let mut server = TcpStream::connect(target).unwrap();
            let (mut client_in, mut server_out) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut client_in, &mut server_out)));
            thread::spawn(move || drop(std::io::copy(&mut server, &mut client)));
        }
    });
    address
}
