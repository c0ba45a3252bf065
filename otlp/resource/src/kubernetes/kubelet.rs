//! The kubelet of this node: its list of pods, now and then and when a container is not known.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{
    State,
    client::{Failure, Server},
    list::List,
    pods::MAX_PODS,
    watch::{LIST_TIME, MAX_LIST},
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
        let list = List::parse(&list, state.labels(), MAX_PODS)?;
        state.replace(list.pods, list.left_out);
        Ok(())
    }
}
