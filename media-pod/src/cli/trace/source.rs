//! Where the messages are: a socket on this machine, or the pods of a cluster.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Told;
use super::cluster;
use crate::cli::chain;
use crate::cli::get::client::{ClientError, Server};
use crate::trace::entry::{Line, Request};
use crate::trace::socket::path_in_pod;

/// Where `ringwire run` serves HTTP unless it is told otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// Options that say where to look.
#[derive(clap::Args)]
pub struct Whence {
    /// Follow the registrar in this pod.
    #[arg(long, conflicts_with = "cluster")]
    local: bool,
    /// Follow `ringwire run` with this HTTP address. Default: that of port 8080 on this machine, if it
    /// runs.
    #[arg(long, env = "RINGWIRE_SERVER", value_name = "URL")]
    server: Option<String>,
    /// Follow the registrar pods of the kubeconfig's cluster.
    #[arg(long)]
    cluster: bool,
    /// The namespace of the gateway in the cluster. Default: all.
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Where the messages are.
pub enum Source {
    /// A registrar's socket.
    Socket {
        /// Where it is.
        path: PathBuf,
        /// What it belongs to, for people.
        what: String,
    },
    /// A cluster's pods.
    Cluster {
        /// In this namespace only.
        namespace: Option<String>,
        /// By this context of the kubeconfig.
        context: Option<String>,
    },
}

impl Whence {
    /// What the options mean: without any, what is there to be followed.
    pub async fn choose(self) -> Result<Source, String> {
        let in_pod = || Source::Socket {
            path: path_in_pod(),
            what: "the registrar in this pod".to_owned(),
        };
        if self.local {
            return Ok(in_pod());
        }
        let cluster = Source::Cluster {
            namespace: self.namespace.clone(),
            context: self.context.clone(),
        };
        if self.cluster || self.namespace.is_some() || self.context.is_some() {
            return Ok(cluster);
        }
        if let Some(server) = &self.server {
            return embedded(server).await.map_err(|error| chain(&error));
        }
        if path_in_pod().exists() {
            return Ok(in_pod());
        }
        match embedded(DEFAULT_SERVER).await {
            Ok(source) => Ok(source),
            Err(ClientError::Refused(_)) if has_kubeconfig() => Ok(cluster),
            Err(error) => Err(chain(&error)),
        }
    }
}

fn has_kubeconfig() -> bool {
    std::env::var_os("KUBECONFIG").is_some()
        || std::env::var_os("HOME")
            .is_some_and(|home| Path::new(&home).join(".kube/config").is_file())
}

async fn embedded(server: &str) -> Result<Source, ClientError> {
    let path = Server::parse(server)?.trace_socket().await?;
    Ok(Source::Socket {
        path,
        what: server.to_owned(),
    })
}

impl Source {
    /// Tells what comes until it ends or nobody listens any more.
    pub async fn follow(self, request: Request, told: mpsc::Sender<Told>) {
        let end = match self {
            Self::Socket { path, what } => match socket(&path, &request, &told).await {
                Ok(()) => format!("{what} has stopped"),
                Err(error) => format!("cannot follow {what} at {}: {error}", path.display()),
            },
            Self::Cluster { namespace, context } => {
                cluster::follow(namespace, context, request, &told).await
            }
        };
        let _ = told.send(Told::End(end)).await;
    }
}

/// Why a socket cannot be followed.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it says {0:?}, which this version does not understand")]
    Line(String),
    #[error("{0}")]
    Refused(String),
}

async fn socket(
    path: &Path,
    request: &Request,
    told: &mpsc::Sender<Told>,
) -> Result<(), SocketError> {
    let stream = UnixStream::connect(path).await?;
    let (read, mut write) = stream.into_split();
    let mut asked = serde_json::to_vec(request).map_err(std::io::Error::from)?;
    asked.push(b'\n');
    write.write_all(&asked).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(text) = lines.next_line().await? {
        match serde_json::from_str(&text) {
            Ok(Line::Refused { reason }) => return Err(SocketError::Refused(reason)),
            Ok(line) => {
                if told.send(Told::Line(line)).await.is_err() {
                    break;
                }
            }
            Err(_) => return Err(SocketError::Line(text.chars().take(80).collect())),
        }
    }
    Ok(())
}
