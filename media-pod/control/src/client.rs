//! Finding a pod's control port, and following its state.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ringwire_config::state::{self, HEARTBEAT, PodState};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::socket;
use crate::tls::{ALPN_SIP, SERVER_NAME};

/// How long connecting may take, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a control port could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP or TLS failed.
    #[error("cannot connect to {address}")]
    Io {
        /// Where to.
        address: SocketAddr,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no answer from {0} within 3 s")]
    Timeout(SocketAddr),
    /// The other side does not speak SIP there.
    #[error("no SIP at {0}")]
    NotSip(SocketAddr),
    /// HTTP failed.
    #[error("no state stream from {0}")]
    Http(SocketAddr),
    /// None of the ports a pod may use belongs to it.
    #[error("pod {pod} has no control port at {address}")]
    NotFound {
        /// Whom we looked for.
        pod: String,
        /// Where.
        address: IpAddr,
    },
}

/// Connects to a control port for SIP; `config` is [`GatewayTls::client_sip`](crate::GatewayTls::client_sip).
pub async fn connect_sip(
    address: IpAddr,
    port: u16,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let stream = connect(address, port, config).await?;
    if stream.get_ref().1.alpn_protocol() == Some(ALPN_SIP) {
        Ok(stream)
    } else {
        Err(ConnectError::NotSip(SocketAddr::new(address, port)))
    }
}

/// Connects to a control port.
pub async fn connect(
    address: IpAddr,
    port: u16,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let address = SocketAddr::new(address, port);
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        socket::prepare(&stream)?;
        #[expect(clippy::expect_used, reason = "the name is a constant of ours")]
        let name = ServerName::try_from(SERVER_NAME).expect("a valid DNS name");
        TlsConnector::from(config).connect(name, stream).await
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|source| ConnectError::Io { address, source }),
        Err(_) => Err(ConnectError::Timeout(address)),
    }
}

/// A pod's state stream.
pub struct StateStream {
    /// Which control port it is.
    pub port: u16,
    body: Incoming,
    buffer: Vec<u8>,
    /// How much of `buffer` holds no line end: a long first line comes in many pieces.
    searched: usize,
    value: Value,
    last: Option<PodState>,
}

/// Longest line that is read: a pod with 10,000 registrations needs about 5 MB.
const MAX_LINE: usize = 64 << 20;

impl StateStream {
    /// Opens the state stream of the pod at `address` that is called `pod`, looking for its port if several pods share the address.
    /// Returns the stream and its first state. `config` is [`GatewayTls::client_http`](crate::GatewayTls::client_http).
    pub async fn open(
        address: IpAddr,
        ports: std::ops::Range<u16>,
        pod: &str,
        config: &Arc<ClientConfig>,
    ) -> Result<(Self, PodState), ConnectError> {
        // All at once: a pod that hangs must not hide the next one.
        let mut attempts: FuturesUnordered<_> = ports
            .map(|port| Self::open_port(address, port, config))
            .collect();
        let mut first = None;
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok((stream, state)) if state.pod == pod => return Ok((stream, state)),
                Ok(_) => {}
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| ConnectError::NotFound {
            pod: pod.to_owned(),
            address,
        }))
    }

    async fn open_port(
        address: IpAddr,
        port: u16,
        config: &Arc<ClientConfig>,
    ) -> Result<(Self, PodState), ConnectError> {
        let peer = SocketAddr::new(address, port);
        let stream = connect(address, port, Arc::clone(config)).await?;
        let opening = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .ok()?;
            // Ends with the body: dropping the stream closes the connection.
            tokio::spawn(connection);
            let request = hyper::Request::get("/state")
                .header(http::header::HOST, SERVER_NAME)
                .body(Empty::<Bytes>::new())
                .ok()?;
            let response = sender.send_request(request).await.ok()?;
            if !response.status().is_success() {
                return None;
            }
            let mut stream = Self {
                port,
                body: response.into_body(),
                buffer: Vec::new(),
                searched: 0,
                value: Value::Null,
                last: None,
            };
            let state = stream.next().await?;
            Some((stream, state))
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => Err(ConnectError::Http(peer)),
            Err(_) => Err(ConnectError::Timeout(peer)),
        }
    }

    /// The next state; `None` when the stream has ended, was silent for three heartbeats, or is not understood. May be dropped while it
    /// waits: nothing is lost.
    pub async fn next(&mut self) -> Option<PodState> {
        loop {
            let fresh = &self.buffer[self.searched..];
            if let Some(end) = fresh.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + end).collect();
                self.searched = 0;
                let patch: Value = serde_json::from_slice(&line).ok()?;
                state::apply(&mut self.value, patch.clone());
                let state = match &self.last {
                    None => serde_json::from_value(self.value.clone()),
                    Some(last) => last.patched(&patch, &self.value),
                };
                self.last = Some(state.ok()?);
                return self.last.clone();
            }
            self.searched = self.buffer.len();
            let frame = tokio::time::timeout(HEARTBEAT * 3, self.body.frame())
                .await
                .ok()??
                .ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
                if self.buffer.len() > MAX_LINE {
                    return None;
                }
            }
        }
    }
}
