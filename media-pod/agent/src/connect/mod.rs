//! Connects to an agent: name, address rule, TCP and what comes on top of it, all within one deadline.
//!
//! A WebSocket agent is ready when it has answered 101, one that is reached by TCP when it has accepted the connection. Names are
//! resolved here and not by the C library, so that a static binary finds Services by their short names; `/etc/hosts` and the search
//! domains of `/etc/resolv.conf` hold. Errors name the host and port and what to do, never the path, query or headers, where tokens
//! are kept.

mod error;
mod tcp;
mod web_socket;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use rustls::ClientConfig;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::address::AddressPolicy;

pub use error::ConnectError;
pub use tcp::TcpTarget;
pub use web_socket::{WebSocketTarget, public_tls};

/// An agent whose machine is gone is noticed after this time without a sign: what was sent is not acknowledged, or probes of an idle
/// connection are not.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// An idle connection is probed after this time, and this often.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long an answer, or its absence, is believed: pods and Services come and go.
const MAX_CACHED: Duration = Duration::from_secs(30);
const MAX_CACHED_NEGATIVE: Duration = Duration::from_secs(2);

/// Where an agent listens, and which of its addresses may be connected to.
#[derive(Debug, Clone)]
struct Endpoint {
    /// In front of the host in messages: empty, or a URL's scheme and `://`.
    scheme: &'static str,
    host: String,
    port: u16,
    allowed: AddressPolicy,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme, host, port, ..
        } = self;
        if host.contains(':') {
            write!(formatter, "{scheme}[{host}]:{port}")
        } else {
            write!(formatter, "{scheme}{host}:{port}")
        }
    }
}

impl Endpoint {
    fn timeout(&self, stage: &'static str) -> ConnectError {
        ConnectError::Timeout {
            target: self.to_string(),
            stage,
        }
    }

    fn name_not_found(&self) -> ConnectError {
        ConnectError::NameNotFound {
            target: self.to_string(),
            host: self.host.clone(),
        }
    }

    fn network_error(&self, address: SocketAddr, error: &io::Error) -> ConnectError {
        let target = self.to_string();
        if error.kind() == io::ErrorKind::ConnectionRefused {
            ConnectError::Refused { target, address }
        } else {
            ConnectError::Network {
                target,
                address,
                detail: error.to_string(),
            }
        }
    }

    /// The addresses that the policy lets through; the error if none is left.
    fn allowed(&self, found: &[IpAddr]) -> Result<Vec<SocketAddr>, ConnectError> {
        let usable: Vec<_> = found
            .iter()
            .filter(|address| self.allowed.refusal(**address).is_none())
            .map(|address| SocketAddr::new(*address, self.port))
            .collect();
        let refused = found
            .iter()
            .find_map(|address| Some((*address, self.allowed.refusal(*address)?)));
        match refused {
            Some((address, what)) if usable.is_empty() => Err(ConnectError::AddressNotAllowed {
                target: self.to_string(),
                address,
                what,
            }),
            _ => Ok(usable),
        }
    }

    /// A TCP connection to one of the addresses. Small messages go out at once, and an agent that is gone is noticed.
    async fn open(
        &self,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<TcpStream, ConnectError> {
        timeout_at(deadline, TcpStream::connect(address))
            .await
            .map_err(|_| self.timeout("connecting"))?
            .and_then(|stream| prepare(&stream).map(|()| stream))
            .map_err(|error| self.network_error(address, &error))
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(PROBE_EVERY)
        .with_interval(PROBE_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(GONE_AFTER))?;
    Ok(())
}

/// The stream on its own: whoever carries the call watches it.
fn unwatched(stream: TcpStream) -> io::Result<mio::net::TcpStream> {
    // It stays one that does not wait.
    Ok(mio::net::TcpStream::from_std(stream.into_std()?))
}

/// Makes connections; one per process or thread. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    resolver: TokioResolver,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// The system's resolver settings can't be used.
#[derive(Debug, Error)]
#[error("reading the name servers of /etc/resolv.conf failed: {0}")]
pub struct ResolverError(String);

/// A resolver with the system's name servers, search domains and `/etc/hosts`, read now. What is not there is asked for again soon,
/// whatever its zone says: people wait for the name that they have just made.
pub fn resolver() -> Result<TokioResolver, ResolverError> {
    let fail = |error: hickory_resolver::net::NetError| ResolverError(error.to_string());
    let mut builder = TokioResolver::builder_tokio().map_err(fail)?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.positive_max_ttl = Some(MAX_CACHED);
    options.negative_max_ttl = Some(MAX_CACHED_NEGATIVE);
    builder.build().map_err(fail)
}

impl Connector {
    /// With the system's name servers, search domains and `/etc/hosts`, read now.
    pub fn new(tls: Arc<ClientConfig>) -> Result<Self, ResolverError> {
        Ok(Self::with_resolver(resolver()?, tls))
    }

    /// With a resolver of the caller's.
    pub fn with_resolver(resolver: TokioResolver, tls: Arc<ClientConfig>) -> Self {
        Self { resolver, tls }
    }

    /// Tries every allowed address until one does, each with its share of the time until `deadline`.
    async fn try_each<T>(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        attempt: impl AsyncFn(SocketAddr, Instant) -> Result<T, ConnectError>,
    ) -> Result<T, ConnectError> {
        let found = timeout_at(deadline, self.resolve(endpoint)).await;
        let found = found.map_err(|_| endpoint.timeout("looking up its name"))??;
        let addresses = endpoint.allowed(&found)?;
        let mut last = None;
        let count = addresses.len() as u32;
        for (tried, address) in (0..count).zip(addresses) {
            let share = deadline.saturating_duration_since(Instant::now()) / (count - tried);
            match attempt(address, Instant::now() + share).await {
                // The agent has spoken; another of its addresses would say the same.
                Err(error @ (ConnectError::Status { .. } | ConnectError::NotWebSocket { .. })) => {
                    return Err(error);
                }
                Err(error) => last = Some(error),
                Ok(connected) => return Ok(connected),
            }
        }
        Err(last.unwrap_or_else(|| endpoint.name_not_found()))
    }

    async fn resolve(&self, endpoint: &Endpoint) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = endpoint.host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        match self.resolver.lookup_ip(endpoint.host.as_str()).await {
            Ok(found) => Ok(found.iter().take(MAX_ADDRESSES).collect()),
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
                Err(endpoint.name_not_found())
            }
            Err(error) => Err(ConnectError::Lookup {
                target: endpoint.to_string(),
                host: endpoint.host.clone(),
                detail: error.to_string(),
            }),
        }
    }
}
