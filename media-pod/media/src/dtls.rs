//! Keys for SRTP from a handshake beside the media (DTLS-SRTP, RFC 5763 and 5764): our certificate, the peer's fingerprint, and the handshake
//! of one call. DTLS 1.2 itself is rtc-dtls's; [`inlet`] says what of a datagram it gets to see, and why.

mod inlet;
mod records;

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::BytesMut;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::{Certificate, CryptoPrivateKey};
use rtc_dtls::crypto_provider::default_provider;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_dtls::state::State;
use rustls_pki_types::CertificateDer;

use crate::srtp::{MasterKey, Profile};

use inlet::Inlet;

/// The handshake is over by then, or has failed: a caller does not wait longer in silence.
const LIMIT: Duration = Duration::from_secs(15);
/// After how many milliseconds a flight that is not answered is sent again, each time. The library gives up when it is asked once more.
const REPEATS: [u64; 7] = [500, 1_000, 2_000, 2_500, 2_500, 2_500, 2_500];
/// Datagrams that wait to be sent: a flight has fewer.
const MAX_WAITING: usize = 16;
const NO_ANSWER: &str = "no answer to the DTLS handshake";
const ANOTHER: &str = "the peer's certificate is not the one of its a=fingerprint";
/// One association has one peer, whose address is none of its business.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);
/// RFC 5764 section 4.2.
const LABEL: &str = "EXTRACTOR-dtls_srtp";

/// Both kinds of certificates that peers have, with ciphers that RFC 7525 section 4.2 leaves.
const SUITES: [CipherSuiteId; 4] = [
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_ChaCha20_Poly1305_Sha256,
];

/// In the order that we offer them.
const PROFILES: [(SrtpProtectionProfile, Profile); 4] = [
    (
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
        Profile::Aes256Gcm,
    ),
    (
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        Profile::Aes128Gcm,
    ),
    (
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        Profile::Aes128Sha1_80,
    ),
    (
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32,
        Profile::Aes128Sha1_32,
    ),
];

/// A hash for fingerprints that is strong enough (RFC 8122 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

/// The hash of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which.
    pub hash: Hash,
    /// The value.
    pub value: Vec<u8>,
}

impl Fingerprint {
    /// That of a certificate (DER).
    pub fn of(hash: Hash, certificate: &[u8]) -> Self {
        let algorithm = match hash {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        };
        let value = digest::digest(algorithm, certificate).as_ref().to_vec();
        Self { hash, value }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It could not be made.
    #[error("a certificate for DTLS could not be made")]
    Certificate(#[from] rcgen::Error),
    /// DTLS cannot be set up.
    #[error("DTLS cannot be set up: {0}")]
    Setup(String),
}

/// Who we are in handshakes: a certificate that nobody vouches for, since its fingerprint is told in the session description.
pub struct Identity {
    certificate: Vec<u8>,
    /// What all its handshakes have in common.
    config: ConfigBuilder,
}

impl Identity {
    /// A new one: ECDSA with P-256.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::default();
        let mut name = rcgen::DistinguishedName::new();
        // Nothing that tells who or where we are.
        name.push(rcgen::DnType::CommonName, "media");
        parameters.distinguished_name = name;
        let certificate = parameters.self_signed(&key)?;
        let setup = |error: &dyn fmt::Display| IdentityError::Setup(error.to_string());
        let provider = default_provider().map_err(|error| setup(&error))?;
        let private_key = CryptoPrivateKey::from_key_pair(&key, provider.crypto())
            .map_err(|error| setup(&error))?;
        // No authority vouches for either side: the peer's certificate is held against its fingerprint ([`Self::config`]).
        let config = ConfigBuilder::default()
            .with_crypto_provider(provider)
            .with_certificates(vec![Certificate {
                certificate: vec![certificate.der().clone()],
                private_key,
            }])
            .with_cipher_suites(SUITES.to_vec())
            .with_srtp_protection_profiles(PROFILES.map(|(profile, _)| profile).to_vec())
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_insecure_skip_verify(true)
            .with_server_name("media".to_owned())
            .with_flight_interval(Duration::from_millis(REPEATS[0]));
        let identity = Self {
            certificate: certificate.der().to_vec(),
            config,
        };
        identity.config(true, &[])?;
        identity.config(false, &[])?;
        Ok(identity)
    }

    /// For a handshake with a peer that has told these.
    fn config(
        &self,
        active: bool,
        fingerprints: &[Fingerprint],
    ) -> Result<Arc<HandshakeConfig>, IdentityError> {
        let told = fingerprints.to_vec();
        let verify = move |chain: &[Vec<u8>], _: &[CertificateDer<'static>]| {
            if is_told(&told, chain.first()) {
                return Ok(());
            }
            Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied).into())
        };
        let config = self.config.clone();
        let config = config.with_verify_peer_certificate(Some(Arc::new(verify)));
        match config.build(active, None) {
            Ok(config) => Ok(Arc::new(config)),
            Err(error) => Err(IdentityError::Setup(error.to_string())),
        }
    }

    /// What the peer is told of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(Hash::Sha256, &self.certificate)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// What the session descriptions say of a handshake.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// We begin it (`setup:active`), as its client.
    pub active: bool,
    /// Those of the peer's certificate: one has to fit.
    pub fingerprints: Vec<Fingerprint>,
}

/// How far a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Both sides have the keys.
    Connected,
    /// The peer has closed it: nothing of it is answered any more.
    Closed,
    Failed,
}

/// A call's handshake. It stays for as long as the call, for the peer may have missed its last packets.
pub struct Handshake {
    endpoint: Endpoint,
    active: bool,
    fingerprints: Vec<Fingerprint>,
    deadline: Instant,
    peer: Option<SocketAddr>,
    stage: Stage,
    material: Option<(MasterKey, MasterKey)>,
    failure: Option<String>,
    inlet: Inlet,
    /// For associations that begin anew.
    server: Option<Arc<HandshakeConfig>>,
    /// When what was said last is said again, and how often it was.
    repeat: Option<(Instant, usize)>,
    waiting: VecDeque<Vec<u8>>,
}

impl Handshake {
    /// Begins one, or waits for the peer to.
    pub fn new(terms: &Terms, now: Instant) -> Self {
        let Terms {
            identity,
            active,
            fingerprints,
        } = terms;
        let mut handshake = Self {
            endpoint: endpoint(),
            active: *active,
            fingerprints: fingerprints.clone(),
            deadline: now + LIMIT,
            peer: None,
            stage: Stage::Running,
            material: None,
            failure: None,
            inlet: Inlet::new(*active),
            server: None,
            repeat: None,
            waiting: VecDeque::new(),
        };
        match identity.config(*active, fingerprints) {
            Ok(config) => handshake.begin(config, now),
            Err(error) => handshake.fail(error.to_string()),
        }
        handshake
    }

    /// Whether it was with that peer.
    pub fn is_with(&self, terms: &Terms) -> bool {
        self.fingerprints == terms.fingerprints && self.stage != Stage::Failed
    }

    /// Whether a datagram belongs to a handshake (RFC 7983).
    pub fn is_meant(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(20..=63))
    }

    /// The client's first flight; a server waits for it.
    fn begin(&mut self, config: Arc<HandshakeConfig>, now: Instant) {
        if !self.active {
            self.endpoint.set_server_config(Some(Arc::clone(&config)));
            self.server = Some(config);
            return;
        }
        if let Err(error) = self.endpoint.connect(now, PEER, config, None) {
            return self.fail(format!("the DTLS handshake failed: {error}"));
        }
        self.collect(now);
    }

    /// Takes a datagram.
    pub fn take(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        if matches!(self.stage, Stage::Closed | Stage::Failed) {
            return;
        }
        let brought = self.inlet.take(datagram);
        if let (Stage::Running, Some(refusal)) = (self.stage, brought.refusal) {
            return self.fail(refusal);
        }
        if brought.records.is_empty() {
            return;
        }
        if brought.anew {
            self.endpoint = endpoint();
            self.endpoint.set_server_config(self.server.clone());
        }
        self.peer = Some(from);
        let records = BytesMut::from(&brought.records[..]);
        let events = self.endpoint.read(now, PEER, None, records);
        self.collect(now);
        let has = |wanted: fn(&EndpointEvent) -> bool| {
            events
                .as_ref()
                .is_ok_and(|events| events.iter().any(wanted))
        };
        let complete = has(|event| matches!(event, EndpointEvent::HandshakeComplete));
        let closed = has(|event| matches!(event, EndpointEvent::PeerClosed));
        // What comes behind the handshake is nothing to us but its end, or a repeated last flight, which was answered above.
        if self.stage == Stage::Running {
            match events {
                Ok(_) if complete => self.complete(),
                Ok(_) if closed => self.fail("the peer ended the DTLS handshake".to_owned()),
                Ok(_) => {}
                Err(error) => self.fail(self.why(&error.to_string())),
            }
        }
        if self.stage == Stage::Connected && closed {
            self.stage = Stage::Closed;
            self.forget();
        }
    }

    fn why(&self, error: &str) -> String {
        let state = self.endpoint.get_connection_state(PEER);
        let theirs = state.and_then(|state| state.peer_certificates.first());
        if theirs.is_some() && !is_told(&self.fingerprints, theirs) {
            return ANOTHER.to_owned();
        }
        format!("the DTLS handshake failed: {error}")
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stage != Stage::Running {
            return None;
        }
        let repeat = self.repeat.map(|(at, _)| at);
        Some(repeat.map_or(self.deadline, |at| at.min(self.deadline)))
    }

    /// Repeats what was not answered, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stage != Stage::Running {
            return;
        }
        if now >= self.deadline {
            return self.fail(NO_ANSWER.to_owned());
        }
        let Some((_, count)) = self.repeat.filter(|(at, _)| *at <= now) else {
            return;
        };
        // What was not sent yet, for there was nowhere to, is of no use any more.
        self.waiting.clear();
        if let Err(error) = self.endpoint.handle_timeout(PEER, now) {
            return self.fail(self.why(&error.to_string()));
        }
        self.collect(now);
        self.repeat = next_repeat(now, count + 1);
    }

    /// Takes what is to be sent. A packet for which there is no room is lost, as the network might lose it.
    fn collect(&mut self, now: Instant) {
        let running = self.stage == Stage::Running;
        let packets = std::iter::from_fn(|| self.endpoint.poll_transmit());
        // In a handshake that has not failed an alert of ours would only end it at the peer's: it is about something that we do not understand yet.
        let packets: Vec<Vec<u8>> = packets
            .map(|packet| packet.message.to_vec())
            .filter(|packet| !running || packet.first() != Some(&records::ALERT))
            .collect();
        let room = MAX_WAITING.saturating_sub(self.waiting.len());
        self.waiting.extend(packets.iter().take(room).cloned());
        if running {
            if self.endpoint.poll_timeout(&PEER).is_none() {
                self.repeat = None;
            } else if !packets.is_empty() {
                self.repeat = next_repeat(now, 0);
            }
        }
    }

    /// The peer has shown that it has the key of its certificate: whether that is the one of its session description.
    fn complete(&mut self) {
        let Some(state) = self.endpoint.get_connection_state(PEER) else {
            return;
        };
        if !is_told(&self.fingerprints, state.peer_certificates.first()) {
            return self.fail(ANOTHER.to_owned());
        }
        match keys(state, self.active) {
            Some(keys) => {
                self.material = Some(keys);
                self.stage = Stage::Connected;
                self.inlet.close();
            }
            None => self.fail("the peer takes no SRTP profile of ours (use_srtp)".to_owned()),
        }
    }

    fn fail(&mut self, detail: String) {
        self.stage = Stage::Failed;
        self.failure = Some(detail);
        self.material = None;
        self.waiting.clear();
        self.forget();
    }

    /// Nothing of it is needed any more.
    fn forget(&mut self) {
        self.endpoint = endpoint();
        self.inlet = Inlet::new(self.active);
        self.server = None;
    }

    /// Our key and the peer's, once the handshake is over and the peer is who it should be.
    pub fn take_keys(&mut self) -> Option<(MasterKey, MasterKey)> {
        self.material.take()
    }

    /// Why it failed, once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// The next datagram to send, and where the peer's own came from.
    pub fn poll_transmit(&mut self) -> Option<(Vec<u8>, Option<SocketAddr>)> {
        Some((self.waiting.pop_front()?, self.peer))
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("active", &self.active)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// When a flight that was said again so often is next.
fn next_repeat(now: Instant, count: usize) -> Option<(Instant, usize)> {
    let millis = REPEATS.get(count)?;
    Some((now + Duration::from_millis(*millis), count))
}

/// One that has no association yet.
#[expect(
    clippy::default_trait_access,
    reason = "the type of UDP is of a crate that rtc-dtls doesn't show"
)]
fn endpoint() -> Endpoint {
    Endpoint::new(PEER, Default::default(), None)
}

/// Whether a certificate is one that the session description has told.
fn is_told(fingerprints: &[Fingerprint], certificate: Option<&Vec<u8>>) -> bool {
    let fits = |told: &Fingerprint| {
        certificate.is_some_and(|theirs| Fingerprint::of(told.hash, theirs) == *told)
    };
    fingerprints.iter().any(fits)
}

/// Our key and the peer's: both keys, the client's first, then both salts (RFC 5764 section 4.2).
fn keys(state: &State, active: bool) -> Option<(MasterKey, MasterKey)> {
    let agreed = state.srtp_protection_profile();
    let (_, profile) = PROFILES.into_iter().find(|(theirs, _)| *theirs == agreed)?;
    let (key, salt) = (profile.key_bytes(), profile.salt_bytes());
    let material = state
        .export_keying_material(LABEL, &[], 2 * (key + salt))
        .ok()?;
    let (keys, salts) = material.as_ref().split_at_checked(2 * key)?;
    let side = |number: usize| {
        let key = keys.get(number * key..)?.get(..key)?;
        let salt = salts.get(number * salt..)?.get(..salt)?;
        MasterKey::new(profile, &[key, salt].concat())
    };
    let (client, server) = side(0).zip(side(1))?;
    Some(if active {
        (client, server)
    } else {
        (server, client)
    })
}

#[cfg(test)]
mod tests;
