//! TLS on the SIP edge: carriers that connect to us, and carriers that we connect to.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringwire_config::gateway::{Certificate, ProviderTls, ServerTls};
use ringwire_config::state::CutOff;
use ringwire_sip::transaction::TransportError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tokio_util::sync::CancellationToken;

use super::connections::Carrier;
use super::edge::Peer;
use super::guard::Banned;

/// TLS has to be agreed on by then.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at a time, of all and of one address.
const MAX_HANDSHAKES: (usize, usize) = (256, 16);

/// A port that is taken is tried again after so long.
const TAKEN: Duration = Duration::from_secs(1);

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableTls {
    /// A PEM text does not hold what it should.
    #[error("not a valid PEM text")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The parts do not fit together.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(certificate: &Certificate) -> Result<Identity, UnusableTls> {
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
    let chain = chain.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.expose().as_bytes())?;
    Ok((chain, key))
}

fn server_config(certificate: &Certificate) -> Result<Arc<ServerConfig>, UnusableTls> {
    let (chain, key) = identity(certificate)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

fn client_config(tls: &ProviderTls) -> Result<Arc<ClientConfig>, UnusableTls> {
    let mut roots = RootCertStore::empty();
    match &tls.authorities {
        Some(authorities) => {
            for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
                roots.add(authority?)?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match &tls.certificate {
        Some(certificate) => {
            let (chain, key) = identity(certificate)?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    }))
}

/// What to say of a handshake that failed.
fn failure(error: &io::Error) -> TransportError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => TransportError::Untrusted(why.to_string()),
        Some(other) => TransportError::Tls(other.to_string()),
        None => TransportError::Tls(error.to_string()),
    }
}

/// How to connect, once for everybody whom the same authorities vouch for.
#[derive(Default)]
pub struct Clients {
    configs: HashMap<ProviderTls, Arc<ClientConfig>>,
}

/// More would mean that certificates change all the time; the ones in use are made again.
const MAX_CONFIGS: usize = 4_096;

impl Clients {
    /// How to connect to a carrier; without a known one, to whoever holds a certificate for `address`.
    pub fn client(
        &mut self,
        peer: Option<&Peer>,
        address: IpAddr,
    ) -> Result<Client, TransportError> {
        let default = ProviderTls::default();
        let (name, tls) = match peer {
            Some(peer) => (peer.name.clone(), &peer.tls),
            None => (address.to_string(), &default),
        };
        let unusable = |error: &dyn std::fmt::Display| TransportError::Tls(error.to_string());
        let name = ServerName::try_from(name).map_err(|error| unusable(&error))?;
        if let Some(config) = self.configs.get(tls) {
            let config = Arc::clone(config);
            return Ok(Client { config, name });
        }
        let config = client_config(tls).map_err(|error| unusable(&error))?;
        if self.configs.len() >= MAX_CONFIGS {
            self.configs.clear();
        }
        self.configs.insert(tls.clone(), Arc::clone(&config));
        Ok(Client { config, name })
    }
}

/// How to connect to one carrier.
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// How to connect to whoever holds a certificate for `name`, issued by these authorities (PEM) or the public ones.
    pub fn to(name: String, authorities: Option<String>) -> Result<Self, TransportError> {
        let peer = Peer {
            name,
            tls: ProviderTls {
                authorities,
                ..ProviderTls::default()
            },
        };
        Clients::default().client(Some(&peer), IpAddr::from([0; 4]))
    }

    /// Agrees on TLS over a connection that stands.
    pub async fn connect(
        self,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, TransportError> {
        let connecting = TlsConnector::from(self.config).connect(self.name, stream);
        connecting.await.map_err(|error| failure(&error))
    }
}

/// A connection that a carrier made, or why there is none.
pub type Accepted = (SocketAddr, Result<Carrier, CutOff>);

/// The port that carriers connect to.
pub struct Listener {
    address: SocketAddr,
    config: watch::Sender<Arc<ServerConfig>>,
    stop: CancellationToken,
}

impl Listener {
    /// Makes `listener` what the configuration asks for: opened, closed, moved, or with a new certificate for whoever connects from
    /// now on. A certificate that cannot be used changes nothing. Handshakes are worked on `elsewhere`.
    pub fn configure(
        listener: &mut Option<Self>,
        wanted: Option<&ServerTls>,
        bind: IpAddr,
        (banned, elsewhere): (&watch::Receiver<Banned>, &Handle),
        accepted: &mpsc::Sender<Accepted>,
    ) -> Result<(), UnusableTls> {
        let Some(wanted) = wanted else {
            *listener = None;
            return Ok(());
        };
        let fresh = server_config(&wanted.certificate)?;
        let address = SocketAddr::new(bind, wanted.port);
        match listener {
            Some(open) if open.address == address => drop(open.config.send_replace(fresh)),
            _ => {
                let (config, current) = watch::channel(fresh);
                let stop = CancellationToken::new();
                let around = (banned.clone(), accepted.clone(), elsewhere.clone());
                tokio::spawn(listen(address, current, around, stop.clone()));
                *listener = Some(Self {
                    address,
                    config,
                    stop,
                });
            }
        }
        Ok(())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Handshakes under way, by address.
type Pending = Arc<Mutex<HashMap<IpAddr, usize>>>;

async fn listen(
    address: SocketAddr,
    config: watch::Receiver<Arc<ServerConfig>>,
    (banned, accepted, elsewhere): (watch::Receiver<Banned>, mpsc::Sender<Accepted>, Handle),
    stop: CancellationToken,
) {
    let serving = async {
        let listener = bound(address).await;
        tracing::info!(%address, "listening for SIP over TLS");
        let pending = Pending::default();
        loop {
            let (stream, remote) = match listener.accept().await {
                Ok((stream, remote)) => (stream, remote),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for SIP over TLS");
                    // Out of descriptors, most likely: others need the time.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            if banned.borrow().holds(remote.ip()) {
                let _ = accepted.send((remote, Err(CutOff::SourceBanned))).await;
                continue;
            }
            let Some(slot) = Slot::take(&pending, remote.ip()) else {
                let _ = accepted.send((remote, Err(CutOff::TooMany))).await;
                continue;
            };
            let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
            let accepted = accepted.clone();
            elsewhere.spawn(async move {
                let _ = stream.set_nodelay(true);
                let agreed = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                let result = match agreed {
                    Ok(Ok(stream)) => Ok(Box::new(stream) as Carrier),
                    Ok(Err(error)) => {
                        tracing::debug!(source = %remote, %error, "no TLS");
                        Err(CutOff::TlsHandshake)
                    }
                    Err(_) => Err(CutOff::TlsHandshake),
                };
                drop(slot);
                let _ = accepted.send((remote, result)).await;
            });
        }
    };
    tokio::select! {
        () = serving => {}
        () = stop.cancelled() => {}
    }
}

/// A port may still be held by a predecessor on the same host.
async fn bound(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !told {
                    tracing::error!(%address, %error, "cannot listen for SIP over TLS yet");
                    told = true;
                }
                tokio::time::sleep(TAKEN).await;
            }
        }
    }
}

/// One handshake's place among those that may be under way.
struct Slot {
    pending: Pending,
    address: IpAddr,
}

impl Slot {
    fn take(pending: &Pending, address: IpAddr) -> Option<Self> {
        let mut counts = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let of_one = counts.entry(address).or_default();
        if all >= MAX_HANDSHAKES.0 || *of_one >= MAX_HANDSHAKES.1 {
            return None;
        }
        *of_one += 1;
        drop(counts);
        Some(Self {
            pending: Arc::clone(pending),
            address,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
