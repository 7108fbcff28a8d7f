//! WebSocket agents: TLS and the upgrade.

use std::{fmt, net::SocketAddr, sync::Arc};

use http::{HeaderName, HeaderValue, Uri};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, handshake::client::Request},
};

use super::{ConnectError, Connector, Endpoint};
use crate::{
    address::AddressPolicy,
    socket::{AgentSocket, Transport, config},
};

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
        let transport = if target.tls {
            timeout_at(deadline, self.start_tls(target, stream))
                .await
                .map_err(|_| endpoint.timeout("negotiating TLS"))??
        } else {
            Transport::Plain(stream)
        };
        let upgrade = client_async_with_config(target.request()?, transport, Some(config()));
        match timeout_at(deadline, upgrade)
            .await
            .map_err(|_| endpoint.timeout("waiting for 101 Switching Protocols"))?
        {
            Ok((stream, _)) => Ok(AgentSocket::new(stream)),
            Err(tungstenite::Error::Http(response)) => Err(ConnectError::Status {
                target: target.to_string(),
                status: response.status().as_u16(),
            }),
            Err(tungstenite::Error::Io(error)) => Err(endpoint.network_error(address, &error)),
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
        let name = ServerName::try_from(target.endpoint.host.clone())
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
