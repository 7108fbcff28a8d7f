//! Mutual TLS between the processes of one gateway.
//!
//! The operator issues one certificate authority per gateway; pods and operator prove by it that they belong together. The names in the
//! certificates do not matter, only the issuer does: pods come and go with their addresses, and a gateway trusts nobody else.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// ALPN name of SIP between registrars and media pods.
pub const ALPN_SIP: &[u8] = b"ringwire-sip/1";

/// ALPN name of the control port's HTTP.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// The name that every certificate of a gateway carries.
pub const SERVER_NAME: &str = "gateway.ringwire.internal";

/// Why the gateway's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key is missing in the Secret.
    #[error("key {0:?} is missing")]
    Missing(&'static str),
    /// A PEM text does not hold what it should.
    #[error("{0} is not a valid PEM file")]
    Pem(&'static str),
    /// The parts do not fit together.
    #[error("the certificates cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The certificate authority cannot be used.
    #[error("the certificate authority cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Name of the Secret with the certificates of the gateway called `gateway`.
pub fn secret_name(gateway: &str) -> String {
    format!("{gateway}-control")
}

/// Both directions' configuration, made from one Secret with the keys `ca.crt`, `tls.crt` and `tls.key`.
#[derive(Clone)]
pub struct GatewayTls {
    /// For accepting.
    pub server: Arc<ServerConfig>,
    /// For connecting, HTTP.
    pub client_http: Arc<ClientConfig>,
    /// For connecting, SIP.
    pub client_sip: Arc<ClientConfig>,
}

impl GatewayTls {
    /// Reads the PEM texts of `ca.crt`, `tls.crt` and `tls.key`.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(ca) {
            roots.add(root.map_err(|_| TlsError::Pem("ca.crt"))?)?;
        }
        if roots.is_empty() {
            return Err(TlsError::Pem("ca.crt"));
        }
        let roots = Arc::new(roots);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Pem("tls.crt"))?;
        if chain.is_empty() {
            return Err(TlsError::Pem("tls.crt"));
        }
        let key = || PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Pem("tls.key"));

        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)?;
        server.alpn_protocols = vec![ALPN_SIP.to_vec(), ALPN_HTTP.to_vec()];
        // Connections are few and long, and all servers carry the same name, so that a ticket would mostly meet another pod. Without
        // resumption every connection proves its certificate anew.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let client = |alpn: &[u8]| -> Result<Arc<ClientConfig>, TlsError> {
            let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(Arc::clone(&roots))
                .with_client_auth_cert(chain.clone(), key()?)?;
            client.alpn_protocols = vec![alpn.to_vec()];
            client.resumption = Resumption::disabled();
            Ok(Arc::new(client))
        };
        Ok(Self {
            server: Arc::new(server),
            client_http: client(ALPN_HTTP)?,
            client_sip: client(ALPN_SIP)?,
        })
    }
}
