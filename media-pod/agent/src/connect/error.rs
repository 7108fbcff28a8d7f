//! Why an agent can't be connected to, and what to do about it.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use thiserror::Error;

/// Why there is no agent on the line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The URL can't be used.
    #[error("the agent's URL is not usable: {0}")]
    Url(&'static str),
    /// The `HOST:PORT` can't be used.
    #[error("the agent's address is not usable: {0}")]
    Address(&'static str),
    /// A header that belongs to the handshake.
    #[error("header {0} is set by the WebSocket handshake: remove it from the headers Secret")]
    Header(HeaderName),
    /// No such name.
    #[error(
        "{target}: no address for the name {host:?}: check the agent's host and that its Service exists"
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
