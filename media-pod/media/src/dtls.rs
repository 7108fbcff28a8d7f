//! Keys for SRTP from a handshake beside the media (DTLS-SRTP, RFC 5763 and 5764): our certificate, the peer's fingerprint, and the handshake
//! of one call. DTLS itself is dimpl's.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{
    CertificateError, Config, Dtls, DtlsCertificate, Error, Output, SecurityError, SrtpProfile,
    TimeoutError,
};

use crate::srtp::{MasterKey, Profile};

/// The handshake is over by then, or has failed: a caller does not wait longer in silence.
const LIMIT: Duration = Duration::from_secs(15);
/// Datagrams that wait to be sent: a flight has fewer.
const MAX_WAITING: usize = 16;
const NO_ANSWER: &str = "no answer to the DTLS handshake";
/// More than a datagram of the handshake has.
const BUFFER: usize = 2048;

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
    #[error("DTLS cannot be set up")]
    Setup(#[from] Error),
}

/// Who we are in handshakes: a certificate that nobody vouches for, since its fingerprint is told in the session description.
pub struct Identity {
    certificate: DtlsCertificate,
    config: Arc<Config>,
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
        // A cookie keeps no state for addresses that are made up; here there is one handshake for each call, and a known peer.
        let config = Config::builder()
            .use_server_cookie(false)
            .flight_start_rto(Duration::from_millis(500))
            .handshake_timeout(LIMIT)
            .build()?;
        Ok(Self {
            certificate: DtlsCertificate {
                certificate: certificate.der().to_vec(),
                private_key: key.serialize_der(),
            },
            config: Arc::new(config),
        })
    }

    /// What the peer is told of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(Hash::Sha256, &self.certificate.certificate)
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

/// A call's handshake. It stays for as long as the call, for the peer may have missed its last packets.
pub struct Handshake {
    dtls: Dtls,
    active: bool,
    fingerprints: Vec<Fingerprint>,
    deadline: Instant,
    peer: Option<SocketAddr>,
    verified: bool,
    connected: bool,
    material: Option<(MasterKey, MasterKey)>,
    failure: Option<String>,
    failed: bool,
    next: Option<Instant>,
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
        let config = Arc::clone(&identity.config);
        let mut dtls = Dtls::new_12(config, identity.certificate.clone(), now);
        dtls.set_active(*active);
        let mut handshake = Self {
            dtls,
            active: *active,
            fingerprints: fingerprints.clone(),
            deadline: now + LIMIT,
            peer: None,
            verified: false,
            connected: false,
            material: None,
            failure: None,
            failed: false,
            next: None,
            waiting: VecDeque::new(),
        };
        handshake.handle_timeout(now);
        handshake
    }

    /// Whether it was with that peer.
    pub fn is_with(&self, terms: &Terms) -> bool {
        self.fingerprints == terms.fingerprints && !self.failed
    }

    /// Whether a datagram belongs to a handshake (RFC 7983).
    pub fn is_meant(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(20..=63))
    }

    /// Takes a datagram.
    pub fn take(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) {
        if self.failed {
            return;
        }
        self.peer = Some(from);
        let done = self
            .dtls
            .handle_timeout(now)
            .and_then(|()| self.dtls.handle_packet(datagram));
        self.go_on(done);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.connected || self.failed {
            return None;
        }
        Some(
            self.next
                .map_or(self.deadline, |next| next.min(self.deadline)),
        )
    }

    /// Repeats what was not answered, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.connected || self.failed {
            return;
        }
        let done = self.dtls.handle_timeout(now);
        self.go_on(done);
        // Never at once again.
        self.next = self
            .next
            .map(|next| next.max(now + Duration::from_millis(10)));
        if now >= self.deadline && !self.connected {
            self.fail(NO_ANSWER.to_owned());
        }
    }

    fn go_on(&mut self, done: Result<(), Error>) {
        if let Err(error) = done {
            return self.fail(why(&error));
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let room = buffer.len();
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) if self.waiting.len() < MAX_WAITING => {
                    self.waiting.push_back(packet.to_vec());
                }
                Output::PeerCert(certificate) => {
                    let fits = |own: &Fingerprint| Fingerprint::of(own.hash, certificate) == *own;
                    self.verified = self.fingerprints.iter().any(fits);
                    if !self.verified {
                        let detail = "the peer's certificate is not the one of its a=fingerprint";
                        return self.fail(detail.to_owned());
                    }
                }
                Output::KeyingMaterial(material, profile) => {
                    self.material = keys(&material, profile, self.active);
                }
                Output::Connected => self.connected = true,
                Output::Timeout(at) => {
                    self.next = Some(at);
                    return;
                }
                Output::BufferTooSmall { needed } if needed > room => {
                    buffer.resize(needed, 0);
                }
                Output::BufferTooSmall { .. } => return,
                // Data and its end: nothing here has to do with media.
                // A packet for which there is no room is lost, as the network might lose it.
                _ => {}
            }
        }
    }

    fn fail(&mut self, detail: String) {
        self.failed = true;
        self.failure = Some(detail);
        self.material = None;
        self.waiting.clear();
    }

    /// Our key and the peer's, once the handshake is over and the peer is who it should be.
    pub fn take_keys(&mut self) -> Option<(MasterKey, MasterKey)> {
        if self.connected && self.verified {
            return self.material.take();
        }
        None
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
            .field("connected", &self.connected)
            .finish_non_exhaustive()
    }
}

/// What people are told of a handshake that failed.
fn why(error: &Error) -> String {
    /// The alert of a peer that shares no cipher suite with us (RFC 5246 section 7.2.2): all of ours need an ECDSA certificate.
    const HANDSHAKE_FAILURE: u8 = 40;
    const RSA: &str = "an RSA certificate is not understood";
    match error {
        Error::SecurityError(SecurityError::FatalAlert {
            description: HANDSHAKE_FAILURE,
        }) => {
            format!(
                "the peer refused the DTLS handshake (alert 40, handshake_failure); {RSA}, if it has one"
            )
        }
        Error::SecurityError(SecurityError::FatalAlert { description }) => {
            format!("the peer refused the DTLS handshake (alert {description})")
        }
        Error::CertificateError(CertificateError::NoClientCertificateReceived) => {
            format!(
                "the peer has no certificate for the DTLS handshake with ECDSA (P-256 or P-384); {RSA}"
            )
        }
        Error::Timeout(TimeoutError::Handshake) => NO_ANSWER.to_owned(),
        error => format!("the DTLS handshake failed: {error}"),
    }
}

/// Our key and the peer's: both keys, the client's first, then both salts (RFC 5764 section 4.2).
fn keys(material: &[u8], profile: SrtpProfile, active: bool) -> Option<(MasterKey, MasterKey)> {
    let profile = match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128Sha1_80,
        SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
        _ => return None,
    };
    let (key, salt) = (profile.key_bytes(), profile.salt_bytes());
    let (keys, salts) = material.split_at_checked(2 * key)?;
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
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn pair(
        client_expects: &Fingerprint,
        server_expects: &Fingerprint,
        identities: &[Arc<Identity>; 2],
    ) -> [Handshake; 2] {
        let now = Instant::now();
        let terms = |index: usize, expects: &Fingerprint| Terms {
            identity: Arc::clone(&identities[index]),
            active: index == 0,
            fingerprints: vec![expects.clone()],
        };
        [
            Handshake::new(&terms(0, client_expects), now),
            Handshake::new(&terms(1, server_expects), now),
        ]
    }

    fn identities() -> [Arc<Identity>; 2] {
        [(), ()].map(|()| Arc::new(Identity::generate().unwrap()))
    }

    /// Carries datagrams to and fro; every `lose`th is lost.
    fn shake(pair: &mut [Handshake; 2], lose: usize) {
        let mut now = Instant::now();
        let mut carried = 0;
        for _ in 0..200 {
            for at in 0..2 {
                while let Some((datagram, _)) = pair[at].poll_transmit() {
                    assert!(Handshake::is_meant(&datagram));
                    carried += 1;
                    if carried % lose != 0 {
                        pair[1 - at].take(&datagram, address(at as u16), now);
                    }
                }
            }
            now += Duration::from_millis(100);
            for one in pair.iter_mut() {
                if one.poll_timeout().is_some_and(|due| due <= now) {
                    one.handle_timeout(now);
                }
            }
        }
    }

    #[test]
    fn both_sides_get_the_same_keys_though_datagrams_are_lost() {
        for lose in [usize::MAX, 3, 4] {
            let identities = identities();
            let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
            let mut pair = pair(&server, &client, &identities);
            shake(&mut pair, lose);
            let [(client_send, client_receive), (server_send, server_receive)] =
                pair.each_mut().map(|one| one.take_keys().unwrap());
            assert!(client_send == server_receive && client_receive == server_send);
            assert!(client_send != client_receive);
            assert!(pair.iter().all(|one| one.poll_timeout().is_none()));
        }
    }

    #[test]
    fn another_certificate_than_the_one_told_gives_no_keys() {
        let identities = identities();
        let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
        for (client_expects, server_expects, who) in [(&client, &client, 0), (&server, &server, 1)]
        {
            let mut pair = pair(client_expects, server_expects, &identities);
            shake(&mut pair, usize::MAX);
            assert!(pair[who].take_keys().is_none());
            assert!(pair[who].take_failure().unwrap().contains("fingerprint"));
            assert!(pair[1 - who].take_keys().is_none() || who == 1);
        }
    }

    #[test]
    fn nobody_there_is_a_failure_after_a_while() {
        let identities = identities();
        let nobody = identities[1].fingerprint();
        for active in [true, false] {
            let mut now = Instant::now();
            let terms = Terms {
                identity: Arc::clone(&identities[0]),
                active,
                fingerprints: vec![nobody.clone()],
            };
            let mut handshake = Handshake::new(&terms, now);
            let (start, mut sent) = (now, 0);
            while let Some(due) = handshake.poll_timeout() {
                now = due;
                handshake.handle_timeout(now);
                sent += std::iter::from_fn(|| handshake.poll_transmit()).count();
                assert!(now - start < Duration::from_secs(20));
            }
            assert!(handshake.take_failure().is_some());
            assert_eq!(active, sent > 1, "{sent}");
        }
    }

    #[test]
    fn junk_does_not_end_a_handshake() {
        let identities = identities();
        let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
        let mut pair = pair(&server, &client, &identities);
        let now = Instant::now();
        for length in [1, 12, 13, 25, 60, 1400] {
            for first in [20, 21, 22, 23, 25, 63] {
                let mut junk = vec![0xff; length];
                junk[0] = first;
                for one in &mut pair {
                    one.take(&junk, address(9), now);
                }
            }
        }
        shake(&mut pair, usize::MAX);
        assert!(pair.iter_mut().all(|one| one.take_keys().is_some()));
    }
}
