//! The words that an endpoint and its owner share.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::message::{Request, Response};

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// Datagrams: what gets lost is sent again by the transaction.
    Udp,
    /// A TCP connection.
    Tcp,
    /// A TLS connection over TCP.
    Tls,
}

impl Transport {
    /// Whether the transport itself repeats what is lost.
    pub fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// The name in a `Via`: `UDP`, `TCP`, `TLS`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a message came from or goes to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// How it travels.
    pub transport: Transport,
    /// The other side.
    pub remote: SocketAddr,
    /// A stream of the owner's; `None` over UDP, or where the owner has yet to open one.
    pub connection: Option<u64>,
    /// Who the other side of a TLS connection that is yet to be opened has to prove to be, as the owner numbers them: connections that
    /// were opened for one are not used for another. 0: it does not matter, as for an open connection.
    pub peer: u32,
}

impl Flow {
    /// A UDP flow to that address.
    pub fn udp(remote: SocketAddr) -> Self {
        Self {
            transport: Transport::Udp,
            remote,
            connection: None,
            peer: 0,
        }
    }

    /// An open connection of the owner's.
    pub fn open(transport: Transport, remote: SocketAddr, connection: u64) -> Self {
        Self {
            transport,
            remote,
            connection: Some(connection),
            peer: 0,
        }
    }
}

/// A client transaction: a request of ours. Never used twice in one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub(super) u64);

/// A server transaction: a request that came to us. Never used twice in one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(pub(super) u64);

#[cfg(test)]
impl ServerId {
    pub(crate) fn for_test(number: u64) -> Self {
        Self(number)
    }
}

/// What an endpoint is told once.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// T1, the round-trip estimate (default 500 ms).
    pub t1: Duration,
    /// T2, the longest interval between two repeats (default 4 s).
    pub t2: Duration,
    /// T4, how long a message may stay in the network (default 5 s).
    pub t4: Duration,
    /// Most server transactions at a time. Beyond it new requests get a stateless 503; requests inside dialogs have a
    /// quarter more, so that running calls can still be ended.
    pub max_transactions: usize,
    /// Answer each INVITE with 100 at once, instead of after 200 ms without another response.
    pub trying_at_once: bool,
    /// Text after the magic cookie of each branch of ours: tells apart the endpoints of one host. Lower-case token.
    pub branch_prefix: String,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            max_transactions: 100_000,
            trying_at_once: false,
            branch_prefix: String::new(),
        }
    }
}

/// Bytes to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub flow: Flow,
    /// One whole message.
    pub bytes: Vec<u8>,
    /// Where a response goes over a connection to be opened if that of the flow has closed (RFC 3261 section 18.2.2).
    pub otherwise: Option<SocketAddr>,
}

/// Why a flow can't carry messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The connection was refused (TCP reset, ICMP port unreachable).
    #[error("connection refused")]
    Refused,
    /// No route to the host or network.
    #[error("host unreachable")]
    Unreachable,
    /// The connection was closed by the other side.
    #[error("connection closed")]
    Closed,
    /// The connection could not be opened in time.
    #[error("connection timed out")]
    TimedOut,
    /// The other side's certificate does not prove that it is who it should be.
    #[error("certificate not trusted: {0}")]
    Untrusted(String),
    /// No TLS came about, for another reason than the certificate.
    #[error("no TLS: {0}")]
    Tls(String),
    /// Anything else, as the system words it.
    #[error("{0}")]
    Other(String),
}

/// Why a client transaction ended without a final response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No final response in time (timers B and F, or 64*T1 after a CANCEL).
    #[error("no response in time")]
    Timeout,
    /// The flow failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What the owner has to know or to decide.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new request; never ACK or CANCEL. To be answered with [`Endpoint::respond`](super::Endpoint::respond).
    Request {
        /// The transaction to answer.
        id: ServerId,
        /// The request, `received` and `rport` filled in.
        request: Request,
        /// Where it came from.
        flow: Flow,
    },
    /// An ACK for a 2xx: belongs to a dialog, or is proxied.
    Ack {
        /// The ACK.
        request: Request,
        /// Where it came from.
        flow: Flow,
    },
    /// A CANCEL for a pending INVITE. The CANCEL itself is answered already; the INVITE is still to be answered.
    Cancelled {
        /// The INVITE's transaction.
        id: ServerId,
        /// The CANCEL, for its `Reason`.
        request: Request,
    },
    /// A response: each provisional (100 too), the first final, and every 2xx to an INVITE (repeats and forks too).
    Response {
        /// The request's transaction.
        id: ClientId,
        /// The response; its top `Via` is still ours.
        response: Response,
        /// Where it came from.
        flow: Flow,
    },
    /// A response that matches no transaction of ours.
    StrayResponse {
        /// The response.
        response: Response,
        /// Where it came from.
        flow: Flow,
    },
    /// A request of ours was sent again, because nothing came back.
    Retransmitted {
        /// The request's transaction.
        id: ClientId,
        /// How often it was sent, the first time counted.
        sends: u32,
        /// Time since it was sent first.
        elapsed: Duration,
    },
    /// No final response will come. Followed by [`Event::ClientEnded`].
    Failed {
        /// The request's transaction.
        id: ClientId,
        /// Why.
        error: ClientError,
    },
    /// No ACK came for our refusal of an INVITE (timer H). Followed by [`Event::Ended`].
    AckTimeout {
        /// The INVITE's transaction.
        id: ServerId,
    },
    /// The last event of a server transaction.
    Ended {
        /// The transaction.
        id: ServerId,
    },
    /// The last event of a client transaction.
    ClientEnded {
        /// The transaction.
        id: ClientId,
    },
}

/// How many transactions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of ours, CANCELs that wait for a provisional included.
    pub client: usize,
    /// Requests that came to us.
    pub server: usize,
    /// Requests refused so far because [`EndpointConfig::max_transactions`] was reached.
    pub refused: u64,
}
