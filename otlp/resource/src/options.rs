//! What a user can choose.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    attributes,
    environment::{RESOURCE_ATTRIBUTES, SERVICE_NAME},
};

/// Where attributes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceOptions {
    /// Variables that may be read from a process's environment; all others never leave it. `OTEL_SERVICE_NAME` and
    /// `OTEL_RESOURCE_ATTRIBUTES` are understood, any other becomes `process.environment_variable.NAME`. Default: those two.
    pub environment_variables: Vec<String>,
    /// Attributes of all resources, `cloud.region` for example, where a process says nothing else.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of all resources, whatever a process says.
    pub labels: BTreeMap<String, String>,
    /// Pods.
    pub kubernetes: KubernetesOptions,
    /// Bytes that what is known of processes may take; what was used longest ago goes first. Default: 4 MiB.
    pub max_bytes: usize,
}

impl Default for ResourceOptions {
    fn default() -> Self {
        Self {
            environment_variables: vec![SERVICE_NAME.to_owned(), RESOURCE_ATTRIBUTES.to_owned()],
            attributes: BTreeMap::new(),
            labels: BTreeMap::new(),
            kubernetes: KubernetesOptions::default(),
            max_bytes: 4 << 20,
        }
    }
}

/// Who knows the pods of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KubernetesSource {
    /// Nobody is asked.
    Off,
    /// Outside Kubernetes nobody; in a pod with a service account the API server if the node's name is known and else the
    /// kubelet, and the other one where the first refuses.
    #[default]
    Auto,
    /// The kubelet of this node is asked for its list of pods.
    Kubelet,
    /// The API server is asked for the pods of this node, and tells of changes.
    Api,
}

/// How to learn of the pods of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// Whom to ask.
    pub source: KubernetesSource,
    /// `https://HOST:10250` of the kubelet. Default: port 10250 of `NODE_IP` (environment), else of the node's name.
    pub kubelet_url: Option<String>,
    /// Accept any certificate of the kubelet: kubelets sign their own unless told otherwise. The token then goes to whoever answers
    /// at that address.
    pub kubelet_insecure: bool,
    /// `https://HOST:PORT` of the API server. Default: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` (environment).
    pub api_url: Option<String>,
    /// Name of this node. Default: `NODE_NAME` or `K8S_NODE_NAME` (environment).
    pub node_name: Option<String>,
    /// Certificates that the servers' are signed by, PEM. Default: the service account's.
    pub ca_file: PathBuf,
    /// The token to show, read again for each request since it is rotated. Default: the service account's.
    pub token_file: PathBuf,
    /// Labels of pods that become `k8s.pod.label.NAME`. Default: none.
    pub pod_labels: Vec<String>,
    /// Between two lists of the kubelet. Default: 60 s.
    pub poll_interval: Duration,
    /// Between two lists of the kubelet when a container is not known. Default: 5 s.
    pub min_poll_interval: Duration,
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        let account = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            source: KubernetesSource::Auto,
            kubelet_url: None,
            kubelet_insecure: false,
            api_url: None,
            node_name: None,
            ca_file: account.join("ca.crt"),
            token_file: account.join("token"),
            pod_labels: Vec::new(),
            poll_interval: Duration::from_secs(60),
            min_poll_interval: Duration::from_secs(5),
        }
    }
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of `attributes` or `labels` that is none.
    #[error("{key:?} cannot be the key of an attribute: use 1 to 128 printable ASCII characters without , = \" and \\")]
    Key {
        /// The key.
        key: String,
    },
    /// A value of `attributes` or `labels` that would be empty.
    #[error("the attribute {key:?} has no value: give it one, or leave it out")]
    Value {
        /// The key.
        key: String,
    },
    /// A variable's name that is none.
    #[error("{name:?} cannot be the name of an environment variable: use letters, digits and _")]
    Variable {
        /// The name.
        name: String,
    },
    /// An address that is none.
    #[error("{url:?} is no address of the {server}: write https://HOST:PORT, or http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
        /// `kubelet` or `API server`.
        server: &'static str,
    },
    /// Something that is neither given nor in the environment.
    #[error("{what} is not known: set {setting}, or {variable} in the environment of the agent")]
    Missing {
        /// What.
        what: &'static str,
        /// The option.
        setting: &'static str,
        /// The variable.
        variable: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {what} in {path}: {problem}; mount the service account, or give another file")]
    File {
        /// What is in it.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The thread that talks to Kubernetes could not be started.
    #[error("cannot start the thread that watches pods: {0}; raise the limit of threads (ulimit -u, pids.max)")]
    Thread(#[source] std::io::Error),
}

impl ResourceOptions {
    /// Refuses keys, values and names that cannot be used.
    pub(super) fn check(&self) -> Result<(), Error> {
        for (key, value) in self.attributes.iter().chain(&self.labels) {
            if !attributes::is_key(key) {
                return Err(Error::Key { key: key.clone() });
            }
            if attributes::clean(value).is_empty() {
                return Err(Error::Value { key: key.clone() });
            }
        }
        let is_name = |name: &str| {
            (1..=attributes::MAX_KEY).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        match self.environment_variables.iter().find(|name| !is_name(name)) {
            Some(name) => Err(Error::Variable { name: name.clone() }),
            None => Ok(()),
        }
    }
}
