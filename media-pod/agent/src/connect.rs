//! Connects to a WebSocket agent: name, address rule, TCP, TLS, upgrade, all within one deadline.
//!
//! Ready means that the agent answered 101. Names are resolved here and not by the C library, so that a static binary
//! finds Services by their short names; `/etc/hosts` and the search domains of `/etc/resolv.conf` hold. Errors name the
//! host and port and what to do, never the path, query or headers, where tokens are kept.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use http::{HeaderName, HeaderValue, Uri};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, handshake::client::Request},
};

use crate::{
    address::AddressPolicy,
    socket::{AgentSocket, Transport, config},
};

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

/// Why there is no agent on the line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The URL can't be used.
    #[error("the agent's URL is not usable: {0}")]
    Url(&'static str),
    /// A header that belongs to the handshake.
    #[error("header {0} is set by the WebSocket handshake: remove it from the headers Secret")]
    Header(HeaderName),
    /// No such name.
    #[error(
        "{target}: no address for the name {host:?}: check the host in the agent's URL and that its Service exists"
    )]
    NameNotFound {
        /// The agent.
        target: String,
        /// The name looked up.
        host: String,
    },
    /// The name servers did not answer.
    #[error("{target}: looking up {host:?} failed: {detail}")]
    Lookup {
        /// The agent.
        target: String,
        /// The name looked up.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// The gateway does not allow the address.
    #[error("{target}: {address} is {what}, which is not allowed for agents")]
    AddressNotAllowed {
        /// The agent.
        target: String,
        /// The first refused address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// Nobody listens.
    #[error(
        "{target}: connection refused by {address}: is the agent running and is the port right?"
    )]
    Refused {
        /// The agent.
        target: String,
        /// The last address tried.
        address: SocketAddr,
    },
    /// Another failure of the network.
    #[error("{target}: connecting to {address} failed: {detail}")]
    Network {
        /// The agent.
        target: String,
        /// The last address tried.
        address: SocketAddr,
        /// What the system said.
        detail: String,
    },
    /// The certificate is not trusted.
    #[error(
        "{target}: the agent's certificate is not trusted ({detail}): use a certificate of a public authority for this host name"
    )]
    TlsUntrusted {
        /// The agent.
        target: String,
        /// What rustls said.
        detail: String,
    },
    /// TLS failed otherwise.
    #[error(
        "{target}: TLS failed ({detail}): does the agent speak TLS on this port? Else use ws://"
    )]
    Tls {
        /// The agent.
        target: String,
        /// What rustls said.
        detail: String,
    },
    /// The agent answered, but not 101.
    #[error("{target}: the agent answered {status} instead of 101 Switching Protocols: {}", advice(*.status))]
    Status {
        /// The agent.
        target: String,
        /// The HTTP status.
        status: u16,
    },
    /// What answers is no WebSocket server.
    #[error("{target}: not a WebSocket server ({detail}): check the URL's port and scheme")]
    NotWebSocket {
        /// The agent.
        target: String,
        /// What was wrong.
        detail: String,
    },
    /// The deadline passed.
    #[error(
        "{target}: no answer within the time allowed, while {stage}: firewall, overloaded agent, or connectTimeoutSeconds too short?"
    )]
    Timeout {
        /// The agent.
        target: String,
        /// What was under way.
        stage: &'static str,
    },
}

impl ConnectError {
    /// The stable reason for conditions, logs and call records.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "AgentTimeout",
            _ => "AgentUnreachable",
        }
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "check the headers Secret or the token in the URL",
        404 => "check the path in the agent's URL",
        301 | 302 | 307 | 308 => "redirects are not followed, use the final URL",
        400 | 426 => "does this path serve WebSockets?",
        429 | 503 => "the agent is overloaded or not ready",
        500.. => "see the agent's log",
        _ => "check the agent's URL",
    }
}

/// A WebSocket agent, checked and ready to be connected to.
#[derive(Clone)]
pub struct WebSocketTarget {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    allowed: AddressPolicy,
}

/// Shows neither path nor headers.
impl fmt::Debug for WebSocketTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WebSocketTarget({self})")
    }
}

/// Scheme, host and port.
impl fmt::Display for WebSocketTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        if self.host.contains(':') {
            write!(formatter, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl WebSocketTarget {
    /// Checks a URL (`ws://` or `wss://`) and the extra headers, whose values are treated as secret.
    pub fn new(
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        allowed: AddressPolicy,
    ) -> Result<Self, ConnectError> {
        let uri: Uri = url
            .parse()
            .map_err(|_| ConnectError::Url("it does not parse"))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(ConnectError::Url("it must start with ws:// or wss://")),
        };
        let authority = uri.authority().ok_or(ConnectError::Url("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(ConnectError::Url(
                "it has a user name: put credentials into the headers Secret",
            ));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(ConnectError::Url("it has no host"));
        }
        // A port out of range reads as none, which must not mean the default.
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(ConnectError::Url("its port is not 1 to 65535"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let mut marked = Vec::with_capacity(headers.len());
        for (name, mut value) in headers {
            if is_handshake_header(&name) {
                return Err(ConnectError::Header(name));
            }
            value.set_sensitive(true);
            marked.push((name, value));
        }
        Ok(Self {
            uri,
            host,
            port,
            tls,
            headers: marked,
            allowed,
        })
    }

    fn request(&self) -> Result<Request, ConnectError> {
        let mut request = (&self.uri)
            .into_client_request()
            .map_err(|_| ConnectError::Url("it can't be requested"))?;
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        Ok(request)
    }
}

fn is_handshake_header(name: &HeaderName) -> bool {
    [
        "host",
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
    ]
    .contains(&name.as_str())
        || (name.as_str().starts_with("sec-websocket-")
            && name != http::header::SEC_WEBSOCKET_PROTOCOL)
}

/// Small messages go out at once, and an agent that is gone is noticed.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
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

    /// Connects and upgrades; done when the agent's 101 is there. Every allowed address is tried, each with its share of
    /// the time until `deadline`.
    pub async fn connect(
        &self,
        target: &WebSocketTarget,
        deadline: Instant,
    ) -> Result<AgentSocket, ConnectError> {
        let addresses = match timeout_at(deadline, self.resolve(target)).await {
            Ok(found) => allowed(target, &found?)?,
            Err(_) => {
                return Err(ConnectError::Timeout {
                    target: target.to_string(),
                    stage: "looking up its name",
                });
            }
        };
        let mut last = None;
        let count = addresses.len() as u32;
        for (tried, address) in (0..count).zip(addresses) {
            let share = deadline.saturating_duration_since(Instant::now()) / (count - tried);
            match self
                .try_address(target, address, Instant::now() + share)
                .await
            {
                // The agent has spoken; another of its addresses would say the same.
                Err(error @ (ConnectError::Status { .. } | ConnectError::NotWebSocket { .. })) => {
                    return Err(error);
                }
                Err(error) => last = Some(error),
                Ok(socket) => return Ok(socket),
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::NameNotFound {
            target: target.to_string(),
            host: target.host.clone(),
        }))
    }

    async fn resolve(&self, target: &WebSocketTarget) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = target.host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        match self.resolver.lookup_ip(target.host.as_str()).await {
            Ok(found) => Ok(found.iter().take(MAX_ADDRESSES).collect()),
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
                Err(ConnectError::NameNotFound {
                    target: target.to_string(),
                    host: target.host.clone(),
                })
            }
            Err(error) => Err(ConnectError::Lookup {
                target: target.to_string(),
                host: target.host.clone(),
                detail: error.to_string(),
            }),
        }
    }

    async fn try_address(
        &self,
        target: &WebSocketTarget,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<AgentSocket, ConnectError> {
        let timeout = |stage| ConnectError::Timeout {
            target: target.to_string(),
            stage,
        };
        let stream = timeout_at(deadline, TcpStream::connect(address))
            .await
            .map_err(|_| timeout("connecting"))?
            .and_then(|stream| prepare(&stream).map(|()| stream))
            .map_err(|error| network_error(target, address, &error))?;
        let transport = if target.tls {
            timeout_at(deadline, self.start_tls(target, stream))
                .await
                .map_err(|_| timeout("negotiating TLS"))??
        } else {
            Transport::Plain(stream)
        };
        let upgrade = client_async_with_config(target.request()?, transport, Some(config()));
        match timeout_at(deadline, upgrade)
            .await
            .map_err(|_| timeout("waiting for 101 Switching Protocols"))?
        {
            Ok((stream, _)) => Ok(AgentSocket::new(stream)),
            Err(tungstenite::Error::Http(response)) => Err(ConnectError::Status {
                target: target.to_string(),
                status: response.status().as_u16(),
            }),
            Err(tungstenite::Error::Io(error)) => Err(network_error(target, address, &error)),
            Err(error) => Err(ConnectError::NotWebSocket {
                target: target.to_string(),
                detail: error.to_string(),
            }),
        }
    }

    async fn start_tls(
        &self,
        target: &WebSocketTarget,
        stream: TcpStream,
    ) -> Result<Transport, ConnectError> {
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| ConnectError::Url("its host is no valid TLS server name"))?;
        match TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(Transport::Tls(Box::new(stream))),
            Err(error) => {
                let detail = error.to_string();
                let inner = error
                    .into_inner()
                    .and_then(|inner| inner.downcast::<rustls::Error>().ok());
                Err(match inner.as_deref() {
                    Some(rustls::Error::InvalidCertificate(_)) => ConnectError::TlsUntrusted {
                        target: target.to_string(),
                        detail,
                    },
                    _ => ConnectError::Tls {
                        target: target.to_string(),
                        detail,
                    },
                })
            }
        }
    }
}

/// The addresses that the policy lets through; the error if none is left.
fn allowed(target: &WebSocketTarget, found: &[IpAddr]) -> Result<Vec<SocketAddr>, ConnectError> {
    let usable: Vec<_> = found
        .iter()
        .filter(|address| target.allowed.refusal(**address).is_none())
        .map(|address| SocketAddr::new(*address, target.port))
        .collect();
    let refused = found
        .iter()
        .find_map(|address| Some((*address, target.allowed.refusal(*address)?)));
    match refused {
        Some((address, what)) if usable.is_empty() => Err(ConnectError::AddressNotAllowed {
            target: target.to_string(),
            address,
            what,
        }),
        _ => Ok(usable),
    }
}

fn network_error(target: &WebSocketTarget, address: SocketAddr, error: &io::Error) -> ConnectError {
    let target = target.to_string();
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

/// TLS as a client with the public authorities (webpki roots) and aws-lc-rs, TLS 1.2 and 1.3.
pub fn public_tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
