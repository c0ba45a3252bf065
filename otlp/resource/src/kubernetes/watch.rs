//! The API server: a list of this node's pods, then every change of it
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>).

use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use tokio::time::timeout;

use super::{
    State,
    client::{Failure, Server},
    json::{ErrorEvent, Event, EventKind},
    list::List,
    pod::Pod,
    pods::MAX_PODS,
};

/// Bytes of a page of a list.
pub(super) const MAX_LIST: usize = 32 << 20;
/// Bytes of an event; the API server takes no object of more than 3 MiB.
const MAX_EVENT: usize = 4 << 20;
/// Pods in a page, and pages in a list.
const PAGE: usize = 250;
const MAX_PAGES: usize = 64;
/// Until a whole list is there.
pub(super) const LIST_TIME: Duration = Duration::from_secs(60);
/// How long the server is asked to keep a watch open: then a new one begins, with the token of that time.
const WATCH_SECONDS: u64 = 290;
/// A watch that ends sooner has failed.
const SHORT: Duration = Duration::from_secs(1);

/// How far this node's pods are known.
#[derive(Debug)]
pub(super) struct Watch {
    server: Server,
    node: String,
    /// Of the last list or event; `None` if all must be listed again.
    version: Option<String>,
    /// An answer of a cache was too old: list what is certain.
    exact: bool,
}

impl Watch {
    pub(super) fn new(server: Server, node: String) -> Self {
        Self { server, node, version: None, exact: false }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Follows the pods until something fails; called again, goes on from there.
    pub(super) async fn run(&mut self, state: &State) -> Failure {
        loop {
            let result = match self.version.clone() {
                None => self.list(state).await,
                Some(version) => {
                    let begin = Instant::now();
                    let result = self.watch(state, version).await;
                    let short = begin.elapsed() < SHORT;
                    result.and_then(|()| if short { Err(Failure::other("the watch ended at once")) } else { Ok(()) })
                }
            };
            if let Err(failure) = result {
                if failure == Failure::Gone {
                    (self.version, self.exact) = (None, true);
                    state.relisted();
                }
                return failure;
            }
        }
    }

    fn path(&self) -> String {
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", escaped(&self.node))
    }

    async fn list(&mut self, state: &State) -> Result<(), Failure> {
        let (mut pods, mut left_out) = (Vec::new(), 0);
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let mut path = format!("{}&limit={PAGE}", self.path());
            if !next.is_empty() {
                path = format!("{path}&continue={}", escaped(&next));
            } else if !self.exact {
                // What the server has at hand will do: changes since then follow.
                path.push_str("&resourceVersion=0");
            }
            state.asked();
            let page = async {
                let mut answer = self.server.get(&path).await?;
                answer.body.whole(MAX_LIST).await.map_err(Failure::from)
            };
            let page = timeout(LIST_TIME, page).await.map_err(|_| Failure::other("the list took too long"))??;
            let page = List::parse(&page, state.labels(), MAX_PODS.saturating_sub(pods.len()))?;
            pods.extend(page.pods);
            left_out += page.left_out;
            next = page.metadata.next;
            if next.is_empty() {
                state.replace(pods, left_out);
                (self.version, self.exact) = (Some(page.metadata.resource_version), false);
                return Ok(());
            }
        }
        Err(Failure::other(format!("the list has more than {MAX_PAGES} pages")))
    }

    async fn watch(&mut self, state: &State, version: String) -> Result<(), Failure> {
        let path = format!(
            "{}&watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            self.path(),
            escaped(&version)
        );
        state.asked();
        let follow = async {
            let mut answer = self.server.get(&path).await?;
            state.reached();
            while let Some(line) = answer.body.line(MAX_EVENT).await? {
                if !line.iter().all(u8::is_ascii_whitespace) {
                    self.event(state, &line)?;
                }
            }
            Ok(())
        };
        match timeout(Duration::from_secs(WATCH_SECONDS + 30), follow).await {
            Ok(result) => result,
            Err(_) => Err(Failure::other("the watch was not ended by the server")),
        }
    }

    fn event(&mut self, state: &State, line: &[u8]) -> Result<(), Failure> {
        let result = self.read_event(state, line);
        if let Err(Failure::Other(_)) = &result {
            // What cannot be read now could not be read the next time either: a list says the same.
            self.version = None;
        }
        result
    }

    fn read_event(&mut self, state: &State, line: &[u8]) -> Result<(), Failure> {
        let wrong = |error| Failure::other(format!("an event cannot be read: {error}"));
        let kind: EventKind = serde_json::from_slice(line).map_err(wrong)?;
        match kind.kind.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" => {
                let Event { object } = serde_json::from_slice(line).map_err(wrong)?;
                if !object.metadata.resource_version.is_empty() {
                    self.version = Some(object.metadata.resource_version.clone());
                }
                state.event();
                match kind.kind.as_str() {
                    "DELETED" => state.remove(&object.metadata.uid),
                    "BOOKMARK" => {}
                    _ => state.put(Pod::of(object, state.labels())),
                }
                Ok(())
            }
            "ERROR" => {
                let ErrorEvent { object } = serde_json::from_slice(line).map_err(wrong)?;
                Err(Failure::refused(object.code, &object.message))
            }
            // Of an API newer than this.
            _ => Ok(()),
        }
    }
}

/// `text` as a value in a query.
fn escaped(text: &str) -> PercentEncode<'_> {
    /// All that RFC 3986 does not call unreserved.
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED)
}
