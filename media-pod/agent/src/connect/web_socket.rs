//! WebSocket agents: TLS and the upgrade.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::tungstenite::{
    client::IntoClientRequest,
    handshake::{
        client::{Request, Response, generate_request},
        derive_accept_key,
        machine::TryParse,
    },
};

use super::{ConnectError, Connector, Endpoint, unwatched};
use crate::{
    address::AddressPolicy, socket::AgentSocket, stream::AgentStream, transport::Transport,
};

/// Longest header of an agent's answer.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// A WebSocket agent, checked and ready to be connected to.
#[derive(Clone)]
pub struct WebSocketTarget {
    uri: Uri,
    endpoint: Endpoint,
    tls: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
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
        self.endpoint.fmt(formatter)
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
            endpoint: Endpoint {
                scheme: if tls { "wss://" } else { "ws://" },
                host,
                port,
                allowed,
            },
            tls,
            headers: marked,
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

/// What is upgraded: TCP or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl WebSocketTarget {
    /// The opening handshake (RFC 6455 section 4.1). Gives what came right behind the agent's answer.
    async fn upgrade(
        &self,
        stream: &mut dyn Stream,
        address: SocketAddr,
    ) -> Result<Vec<u8>, ConnectError> {
        let lost = |error: io::Error| self.endpoint.network_error(address, &error);
        let not_web_socket = |detail: String| ConnectError::NotWebSocket {
            target: self.to_string(),
            detail,
        };
        let unusable = |_| ConnectError::Url("it can't be requested");
        let (request, key) = generate_request(self.request()?).map_err(unusable)?;
        stream.write_all(&request).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut answer = Vec::with_capacity(1024);
        let (length, response) = loop {
            if stream.read_buf(&mut answer).await.map_err(lost)? == 0 {
                let detail = "it closed the connection without an answer";
                return Err(not_web_socket(detail.to_owned()));
            }
            match Response::try_parse(&answer) {
                Ok(Some(parsed)) => break parsed,
                Ok(None) if answer.len() < MAX_ANSWER_BYTES => {}
                Ok(None) => return Err(not_web_socket("its answer has no end".to_owned())),
                Err(error) => return Err(not_web_socket(error.to_string())),
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ConnectError::Status {
                target: self.to_string(),
                status: response.status().as_u16(),
            });
        }
        self.check(&response, &key)
            .map_err(|detail| not_web_socket(detail.to_owned()))?;
        Ok(answer.split_off(length))
    }

    /// Whether the agent has agreed to what was asked (RFC 6455 section 4.1, what the client must check).
    fn check(&self, response: &Response, key: &str) -> Result<(), &'static str> {
        let says = |name, what: &str| {
            let mut values = response.headers().get_all(name).iter();
            values.any(|value| parts(value).any(|part| part.eq_ignore_ascii_case(what)))
        };
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if !says(header::UPGRADE, "websocket") || !says(header::CONNECTION, "upgrade") {
            return Err("its answer 101 does not say Upgrade: websocket");
        }
        if accept.is_none_or(|accept| accept != &derive_accept_key(key.as_bytes())) {
            return Err("its answer's Sec-WebSocket-Accept is wrong");
        }
        if (response.headers()).contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err("its answer names an extension, and none was offered");
        }
        let asked = |protocol: &HeaderValue| {
            let mut headers = self.headers.iter();
            headers.any(|(name, value)| {
                name == header::SEC_WEBSOCKET_PROTOCOL && parts(value).any(|part| part == protocol)
            })
        };
        let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
        if protocol.is_some_and(|protocol| !asked(protocol)) {
            return Err("its answer names a subprotocol that was not asked for");
        }
        Ok(())
    }
}

/// The members of a list in a header.
fn parts(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or_default();
    text.split(',').map(str::trim)
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

impl Connector {
    /// Connects and upgrades; done when the agent's 101 is there. Every allowed address is tried, each with its share of
    /// the time until `deadline`.
    pub async fn connect(
        &self,
        target: &WebSocketTarget,
        deadline: Instant,
    ) -> Result<AgentSocket, ConnectError> {
        self.try_each(&target.endpoint, deadline, async |address, deadline| {
            self.upgrade(target, address, deadline).await
        })
        .await
    }

    async fn upgrade(
        &self,
        target: &WebSocketTarget,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<AgentSocket, ConnectError> {
        let endpoint = &target.endpoint;
        let stream = endpoint.open(address, deadline).await?;
        let lost = |error: io::Error| endpoint.network_error(address, &error);
        let upgrade = |stream| timeout_at(deadline, target.upgrade(stream, address));
        let late = |_| endpoint.timeout("waiting for 101 Switching Protocols");
        let (transport, first) = if target.tls {
            let tls = timeout_at(deadline, self.start_tls(target, stream));
            let mut stream = tls
                .await
                .map_err(|_| endpoint.timeout("negotiating TLS"))??;
            let first = upgrade(&mut stream as &mut dyn Stream)
                .await
                .map_err(late)??;
            let (stream, connection) = stream.into_inner();
            let stream = unwatched(stream).map_err(lost)?;
            (Transport::tls(stream, connection), first)
        } else {
            let mut stream = stream;
            let first = upgrade(&mut stream as &mut dyn Stream)
                .await
                .map_err(late)??;
            (Transport::Plain(unwatched(stream).map_err(lost)?), first)
        };
        Ok(AgentSocket::new(AgentStream::new(transport), first))
    }

    async fn start_tls(
        &self,
        target: &WebSocketTarget,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let name = ServerName::try_from(target.endpoint.host.clone())
            .map_err(|_| ConnectError::Url("its host is no valid TLS server name"))?;
        match TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(stream),
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
