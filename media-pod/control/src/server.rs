//! The control port: state stream, health and metrics over HTTPS, and SIP from registrars, all on one port.
//!
//! One port, because a media pod on the host's network shares its node's ports with other pods: it takes the first free of a few, and
//! whoever looks for it has one port to find. ALPN tells SIP and HTTP apart. Both ways by mutual TLS ([`crate::tls`]).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::report::Reporter;
use crate::tls::{ALPN_SIP, GatewayTls};
use crate::{http, socket};

/// First control port that a pod tries.
pub const CONTROL_PORT: u16 = 7443;

/// How many control ports a pod tries, and whoever looks for it.
pub const CONTROL_PORTS: u16 = 8;

/// State streams that are open at once; more are closed after the handshake.
const MAX_HTTP: usize = 256;

/// Handshakes that run at once; more wait in the backlog.
const MAX_HANDSHAKES: usize = 256;

/// Handshakes that run at once from one address; more are closed. The port may be reachable for strangers, and one of them must not
/// take all the places.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 32;

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

/// Serves the control port until `stop`. Streams that speak SIP go to `sip`, if there is one, and outlive `stop`; the certificates in
/// `tls` may change at any time and hold from the next connection.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ArcSwap<GatewayTls>>,
    reporter: Reporter,
    sip: Option<mpsc::Sender<TlsStream<TcpStream>>>,
    stop: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let streams = Arc::new(Semaphore::new(MAX_HTTP));
    let sources = Sources::default();
    loop {
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
        let Some(place) = sources.enter(peer.ip()) else {
            tracing::debug!(%peer, "too many unfinished control connections from this address");
            continue;
        };
        let slot = tokio::select! {
            () = stop.cancelled() => return,
            slot = Arc::clone(&handshakes).acquire_owned() => slot,
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.load().server));
        let (reporter, sip, streams, stop) = (
            reporter.clone(),
            sip.clone(),
            Arc::clone(&streams),
            stop.clone(),
        );
        tokio::spawn(async move {
            let stream = match handshake(stream, acceptor).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%peer, %error, "control connection refused");
                    return;
                }
            };
            // From here on it is one of us.
            drop((slot, place));
            if stream.get_ref().1.alpn_protocol() == Some(ALPN_SIP) {
                if let Some(sip) = sip {
                    drop(sip.send(stream).await);
                } else {
                    tracing::debug!(%peer, "this pod takes no SIP from registrars");
                }
            } else if let Ok(_slot) = streams.try_acquire() {
                http::serve(stream, reporter, stop).await;
            } else {
                tracing::warn!(%peer, limit = MAX_HTTP, "too many state streams");
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
) -> std::io::Result<TlsStream<TcpStream>> {
    socket::prepare(&stream)?;
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(accepted) => accepted,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Unfinished handshakes by address.
#[derive(Clone, Default)]
struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Sources {
    /// Counts one more from `address`, until the place is dropped; `None` if there are too many.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Place {
            sources: self.clone(),
            address,
        })
    }
}

/// One unfinished handshake.
struct Place {
    sources: Sources,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .sources
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_the_places() {
        let sources = Sources::default();
        let (stranger, registrar) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut places: Vec<_> = (0..MAX_HANDSHAKES_PER_ADDRESS)
            .map(|_| sources.enter(stranger).unwrap())
            .collect();
        assert!(sources.enter(stranger).is_none());
        assert!(sources.enter(registrar).is_some());
        places.pop();
        assert!(sources.enter(stranger).is_some());
        places.clear();
        assert!(
            sources.0.lock().unwrap().is_empty(),
            "nothing is kept of addresses that are gone"
        );
    }
}
