//! The control port: state stream, health and metrics over HTTPS, and SIP from registrars, all on one port.
//!
//! One port, because a media pod on the host's network shares its node's ports with other pods: it takes the first free of a few, and
//! whoever looks for it has one port to find. ALPN tells SIP and HTTP apart. Both ways by mutual TLS ([`crate::tls`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::report::Reporter;
use crate::tls::{ALPN_SIP, GatewayTls};

/// First control port that a pod tries.
pub const CONTROL_PORT: u16 = 7443;

/// How many control ports a pod tries, and whoever looks for it.
pub const CONTROL_PORTS: u16 = 8;

/// Connections that are open at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 256;

/// A TLS handshake has to be over by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Binds the first free control port at `address`.
pub async fn bind(address: IpAddr) -> std::io::Result<TcpListener> {
    let mut last = None;
    for port in CONTROL_PORT..CONTROL_PORT + CONTROL_PORTS {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}

/// Serves the control port until `stop`. Streams that speak SIP go to `sip`, if there is one; the certificates in `tls` may change at
/// any time and hold from the next connection.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ArcSwap<GatewayTls>>,
    reporter: Reporter,
    sip: Option<mpsc::Sender<TlsStream<TcpStream>>>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.load().server));
        let (reporter, sip, stop) = (reporter.clone(), sip.clone(), stop.clone());
        tokio::spawn(async move {
            let _slot = slot;
            // SIP messages are small and must not wait for each other.
            let _ = stream.set_nodelay(true);
            let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "control connection refused");
                    return;
                }
                Err(_) => return,
            };
            if stream.get_ref().1.alpn_protocol() == Some(ALPN_SIP) {
                match sip {
                    Some(sip) => drop(sip.send(stream).await),
                    None => tracing::debug!(%peer, "this pod takes no SIP from registrars"),
                }
            } else {
                http::serve(stream, reporter, stop).await;
            }
        });
    }
}
