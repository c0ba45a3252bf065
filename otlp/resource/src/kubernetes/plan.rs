//! Whom to ask, by what options say and what a pod's environment offers.

use super::{client::Server, kubelet::Kubelet, watch::Watch};
use crate::options::{Error, KubernetesOptions, KubernetesSource};

/// Port of the kubelet's API.
const KUBELET_PORT: u16 = 10250;

/// Somebody who knows pods.
#[derive(Debug)]
pub(super) enum Source {
    Api(Watch),
    Kubelet(Kubelet),
}

impl Source {
    pub(super) fn server(&self) -> &Server {
        match self {
            Self::Api(watch) => watch.server(),
            Self::Kubelet(kubelet) => kubelet.server(),
        }
    }
}

/// Whom to ask, in order, and what this node is called.
#[derive(Debug)]
pub(super) struct Plan {
    pub sources: Vec<Source>,
    pub node: Option<String>,
}

/// `None` if nobody is to be asked.
pub(super) fn plan(
    options: &KubernetesOptions,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Plan>, Error> {
    let environment = |name: &str| environment(name).filter(|value| !value.is_empty());
    let node = options.node_name.clone().or_else(|| environment("NODE_NAME").or_else(|| environment("K8S_NODE_NAME")));
    let in_pod = environment("KUBERNETES_SERVICE_HOST").is_some() && options.token_file.exists();
    let sources = match options.source {
        KubernetesSource::Off => return Ok(None),
        KubernetesSource::Auto if !in_pod => return Ok(None),
        KubernetesSource::Auto => {
            let mut sources = Vec::new();
            if node.is_some() {
                sources.push(api(options, &environment, node.as_deref())?);
            }
            match kubelet(options, &environment, node.as_deref()) {
                Ok(kubelet) => sources.push(kubelet),
                Err(error @ Error::Missing { .. }) if sources.is_empty() => {
                    tracing::warn!("no names of pods and deployments: {error}");
                    return Ok(None);
                }
                Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            sources
        }
        KubernetesSource::Api => {
            let api = api(options, &environment, node.as_deref())?;
            api.server().check()?;
            vec![api]
        }
        KubernetesSource::Kubelet => {
            let kubelet = kubelet(options, &environment, node.as_deref())?;
            kubelet.server().check()?;
            vec![kubelet]
        }
    };
    Ok(Some(Plan { sources, node }))
}

fn api(
    options: &KubernetesOptions,
    environment: &impl Fn(&str) -> Option<String>,
    node: Option<&str>,
) -> Result<Source, Error> {
    let missing = |what, setting, variable| Error::Missing { what, setting, variable };
    let node = node.ok_or_else(|| {
        missing("the name of this node", "resource.kubernetes.node_name", "NODE_NAME (fieldRef spec.nodeName)")
    })?;
    let in_cluster = || {
        let port = environment("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        Some(format!("https://{}:{port}", bracketed(&environment("KUBERNETES_SERVICE_HOST")?)))
    };
    let url = options.api_url.clone().or_else(in_cluster).ok_or_else(|| {
        missing("the address of the API server", "resource.kubernetes.api_url", "KUBERNETES_SERVICE_HOST")
    })?;
    Ok(Source::Api(Watch::new(Server::new("API server", &url, false, options)?, node.to_owned())))
}

fn kubelet(
    options: &KubernetesOptions,
    environment: &impl Fn(&str) -> Option<String>,
    node: Option<&str>,
) -> Result<Source, Error> {
    let host = || environment("NODE_IP").or_else(|| environment("HOST_IP")).or_else(|| node.map(str::to_owned));
    let url = options.kubelet_url.clone();
    let url = url.or_else(|| Some(format!("https://{}:{KUBELET_PORT}", bracketed(&host()?))));
    let url = url.ok_or(Error::Missing {
        what: "the address of the kubelet",
        setting: "resource.kubernetes.kubelet_url",
        variable: "NODE_IP (fieldRef status.hostIP)",
    })?;
    let server = Server::new("kubelet", &url, options.kubelet_insecure, options)?;
    Ok(Source::Kubelet(Kubelet::new(server, options.poll_interval, options.min_poll_interval)))
}

/// An IPv6 address as URLs have it.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}
