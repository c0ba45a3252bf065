//! An API server or kubelet that says what a test wants, on a port of its own, over TLS.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, sync::oneshot};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// The header `authorization`.
    pub authorization: Option<String>,
}

impl Seen {
    /// Whether it asks for changes, not for a list.
    pub fn is_watch(&self) -> bool {
        self.path.contains("&watch=1")
    }

    /// The parameter `name`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// What a test answers.
pub enum Reply {
    /// A status and a whole body.
    Whole(u16, Vec<u8>),
    /// 200 and chunks, as they come; ends when the sender is dropped, breaks off with an empty chunk.
    Stream(mpsc::UnboundedReceiver<Vec<u8>>),
    /// No answer as long as the server lives.
    Never,
}

/// The sending half of a stream.
pub type Events = mpsc::UnboundedSender<Vec<u8>>;

/// A list of pods as the API has it.
pub fn list(version: &str, pods: &[Value]) -> Reply {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": pods});
    Reply::Whole(200, list.to_string().into_bytes())
}

/// A refusal as the API has it.
pub fn refusal(code: u16, message: &str) -> Reply {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "message": message});
    Reply::Whole(code, status.to_string().into_bytes())
}

/// A line of a watch.
pub fn event(kind: &str, object: &Value) -> Vec<u8> {
    format!("{}\n", json!({"type": kind, "object": object})).into_bytes()
}

/// The server.
pub struct Server {
    pub url: String,
    pub ca_file: PathBuf,
    pub token_file: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    _files: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

impl Server {
    /// Answers each request with what `handler` says.
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (ca_file, token_file) = (files.path().join("ca.crt"), files.path().join("token"));
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        fs::write(&ca_file, certified.cert.pem()).unwrap();
        fs::write(&token_file, "first\n").unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (address, stop) = serve(TlsAcceptor::from(Arc::new(config)), Arc::clone(&seen), Arc::new(handler));
        Self { url: format!("https://{address}"), ca_file, token_file, seen, _files: files, _stop: stop }
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(
    acceptor: TlsAcceptor,
    seen: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Handler>,
) -> (SocketAddr, oneshot::Sender<()>) {
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, seen, handler) = (acceptor.clone(), Arc::clone(&seen), Arc::clone(&handler));
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let service = service_fn(|request| answer(request, &seen, &*handler));
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            };
            tokio::select! {
                () = accept => {}
                _ = stopped => {}
            }
        });
    });
    (told.recv().unwrap(), stop)
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(
    request: Request<hyper::body::Incoming>,
    seen: &Mutex<Vec<Seen>>,
    handler: &Handler,
) -> Result<Response<Body>, std::io::Error> {
    let header = request.headers().get("authorization");
    let arrived =
        Seen { path: request.uri().to_string(), authorization: header.map(|value| value.to_str().unwrap().to_owned()) };
    seen.lock().unwrap().push(arrived.clone());
    match handler(&arrived) {
        Reply::Whole(status, body) => {
            let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        }
        Reply::Stream(chunks) => {
            let frames = UnboundedReceiverStream::new(chunks).map(|chunk| match chunk.is_empty() {
                true => Err(std::io::Error::other("broken off")),
                false => Ok(Frame::data(Bytes::from(chunk))),
            });
            Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
        }
        Reply::Never => std::future::pending().await,
    }
}

/// Waits until `holds`; a loaded machine may take its time.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(600), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
