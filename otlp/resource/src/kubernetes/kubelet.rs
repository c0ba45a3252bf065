//! The kubelet of this node: its list of pods, now and then and when a container is not known.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{
    State,
    client::{Failure, Server},
    pod::Pod,
    watch::{LIST_TIME, MAX_LIST, parse_list},
};

/// When to ask whom.
#[derive(Debug)]
pub(super) struct Kubelet {
    server: Server,
    interval: Duration,
    min_interval: Duration,
}

impl Kubelet {
    pub(super) fn new(server: Server, interval: Duration, min_interval: Duration) -> Self {
        Self { server, interval, min_interval }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Follows the pods until something fails.
    pub(super) async fn run(&self, state: &State) -> Failure {
        loop {
            let asked = Instant::now();
            if let Err(failure) = self.list(state).await {
                return failure;
            }
            tokio::select! {
                () = sleep(self.interval) => {}
                () = state.wanted() => sleep(self.min_interval.saturating_sub(asked.elapsed())).await,
            }
        }
    }

    async fn list(&self, state: &State) -> Result<(), Failure> {
        state.asked();
        let list = async {
            let mut answer = self.server.get("/pods").await?;
            answer.body.whole(MAX_LIST).await.map_err(Failure::from)
        };
        let list = timeout(LIST_TIME, list).await.map_err(|_| Failure::other("the list took too long"))??;
        let pods = parse_list(&list)?.items.into_iter();
        state.replace(pods.filter_map(|pod| Pod::of(pod, state.labels())).collect());
        Ok(())
    }
}
