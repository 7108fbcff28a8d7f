//! What a pod does with the API server: read its configuration, find the other pods, agree with the other registrars.
//!
//! Nothing here is needed by `ringwire run`, and nothing here stops a pod that already works: while the API server is away, the last
//! known state holds.

pub mod config;
pub mod control;
pub mod discovery;
pub mod links;
pub mod membership;
mod peers;
mod watching;

use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

/// Connecting to the API server may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence in an answer; a little more than a watch lasts ([`watching::WATCH_SECONDS`]).
const READ_TIMEOUT: Duration = Duration::from_secs(watching::WATCH_SECONDS as u64 + 6);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The pod's service account cannot be used.
    #[error("cannot read the pod's service account")]
    InCluster(#[from] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("cannot read the kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The client cannot be made of it.
    #[error("cannot make a client of the configuration")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the API server: by the kubeconfig that the environment variable `KUBECONFIG` names if it is set, else as the pod's
/// service account. A pod reaches the API server by `KUBERNETES_SERVICE_HOST`, which is an address, so nothing is looked up.
pub async fn client() -> Result<Client, ClientError> {
    let mut config = if std::env::var_os("KUBECONFIG").is_some()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_none()
    {
        Config::from_kubeconfig(&KubeConfigOptions::default()).await?
    } else {
        Config::incluster_env()?
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // A pooled connection's idle time must not count against the next answer.
    config.reset_reader_on_write = true;
    // Whoever asks here has a back-off of his own.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ClientError::Client(Box::new(error)))
}
