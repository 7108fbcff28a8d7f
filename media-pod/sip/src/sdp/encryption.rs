//! Whether media is encrypted, and how that is agreed on: RTP/SAVP, or RTP/AVP with keys beside it where either will do (RFC 8643).

use super::crypto::{self, Crypto, SdesKeys, Secret};
use super::dtls::{self, DtlsTerms, Fingerprint};
use super::{Attribute, MediaDescription, OfferError, SessionDescription};

/// Which encryption we take and offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// None.
    #[default]
    None,
    /// Keys in the description (SDES, RFC 4568).
    Sdes {
        /// Without it there is no call; else it is taken where it is offered.
        required: bool,
        /// What our keys are made of.
        secret: Secret,
    },
    /// Keys from a handshake beside the media (DTLS-SRTP, RFC 5763).
    Dtls {
        /// As above.
        required: bool,
        /// That of our certificate.
        fingerprint: Fingerprint,
    },
}

/// How the media of a call is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// With these keys.
    Sdes(SdesKeys),
    /// With those of this handshake.
    Dtls(DtlsTerms),
}

impl Security {
    /// The name of what encrypts, as far as signalling knows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sdes(keys) => keys.suite.name(),
            Self::Dtls(_) => "DTLS",
        }
    }
}

/// What an offered stream comes to, and what our answer says about it.
pub(super) type Accepted = Option<(Security, Vec<Attribute>)>;

impl Encryption {
    fn is_required(&self) -> bool {
        match self {
            Self::None => false,
            Self::Sdes { required, .. } | Self::Dtls { required, .. } => *required,
        }
    }

    /// What becomes of an offered stream. The peer's order decides between its lines (RFC 4568 section 5.1.2).
    pub(super) fn accept(
        &self,
        offer: &SessionDescription,
        media: &MediaDescription,
    ) -> Result<Accepted, OfferError> {
        let encrypted = is_encrypted_rtp(&media.protocol);
        if !encrypted && !is_plain_rtp(&media.protocol) {
            return Err(OfferError::NoAudio);
        }
        match self {
            Self::None if encrypted => return Err(OfferError::EncryptionRequired),
            Self::None => {}
            Self::Sdes { secret, .. } => {
                if let Some(theirs) = crypto::lines(media).next().filter(|_| !is_tls(media)) {
                    let ours = Crypto::ours(theirs.tag, theirs.suite, secret);
                    let attribute = ours.attribute();
                    return Ok(Some((keys(ours, theirs), vec![attribute])));
                }
            }
            Self::Dtls { fingerprint, .. } => {
                if let Some(terms) = dtls::theirs(offer, media, false) {
                    let setup = if terms.active { "active" } else { "passive" };
                    let attributes = dtls::ours(fingerprint, setup, is_muxed(media));
                    return Ok(Some((Security::Dtls(terms), attributes)));
                }
            }
        }
        self.in_the_clear(media)
    }

    /// The stream has no keys that can be used.
    fn in_the_clear<T>(&self, media: &MediaDescription) -> Result<Option<T>, OfferError> {
        let says = |name| media.attribute(name).is_some();
        if is_encrypted_rtp(&media.protocol) || says("crypto") || says("fingerprint") {
            // Optional keys that can't be used are passed over.
            if is_encrypted_rtp(&media.protocol) || self.is_required() {
                return Err(OfferError::NoCommonEncryption {
                    offered: if is_tls(media) || says("fingerprint") {
                        "DTLS".to_owned()
                    } else {
                        crypto::names(media)
                    },
                });
            }
        } else if self.is_required() {
            return Err(OfferError::InTheClear);
        }
        Ok(None)
    }

    /// What an offer of ours says: the protocol, and the keys.
    pub(super) fn offer(&self) -> (&'static str, Vec<Attribute>) {
        match self {
            Self::None => ("RTP/AVP", Vec::new()),
            Self::Sdes { required, secret } => {
                let protocol = if *required { "RTP/SAVP" } else { "RTP/AVP" };
                (protocol, crypto::offered(secret).collect())
            }
            Self::Dtls {
                required,
                fingerprint,
            } => {
                let protocol = if *required {
                    "UDP/TLS/RTP/SAVP"
                } else {
                    "RTP/AVP"
                };
                (protocol, dtls::ours(fingerprint, "actpass", true))
            }
        }
    }

    /// What the answer to an offer of ours comes to. It takes one of our lines, by tag and suite (RFC 4568 section 5.1.3).
    pub(super) fn agree(
        &self,
        ours: &MediaDescription,
        session: &SessionDescription,
        answer: &MediaDescription,
    ) -> Result<Option<Security>, OfferError> {
        let taken = crypto::lines(answer).find_map(|theirs| {
            let ours = crypto::lines(ours)
                .find(|ours| ours.tag == theirs.tag && ours.suite == theirs.suite)?;
            Some(keys(ours, theirs))
        });
        match self {
            Self::None if is_encrypted_rtp(&answer.protocol) => Err(OfferError::EncryptionRequired),
            Self::None => Ok(None),
            Self::Sdes { .. } if taken.is_some() && !is_tls(answer) => Ok(taken),
            Self::Sdes { .. } => self.in_the_clear(answer),
            // An answer in the clear to an offer of both may still repeat what it does not understand, but not have its own.
            Self::Dtls { .. } => match dtls::theirs(session, answer, true) {
                Some(terms) => Ok(Some(Security::Dtls(terms))),
                None => self.in_the_clear(answer),
            },
        }
    }
}

/// The attributes of what we said that have to do with encryption: said again, they are the same.
pub(super) fn said(media: &MediaDescription) -> impl Iterator<Item = Attribute> {
    media
        .attributes
        .iter()
        .filter_map(|(name, value)| match name.as_str() {
            // In an offer the peer has the choice again (RFC 5763 section 5).
            "setup" => Some((name.clone(), Some("actpass".to_owned()))),
            "crypto" | "fingerprint" | "rtcp-mux" => Some((name.clone(), value.clone())),
            _ => None,
        })
}

/// Whether RTCP goes where RTP does (RFC 5761).
pub(super) fn is_muxed(media: &MediaDescription) -> bool {
    media.attribute("rtcp-mux").is_some()
}

fn keys(ours: Crypto, theirs: Crypto) -> Security {
    Security::Sdes(SdesKeys {
        suite: ours.suite,
        send: ours.key,
        receive: theirs.key,
    })
}

fn is_plain_rtp(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("RTP/AVP") || protocol.eq_ignore_ascii_case("RTP/AVPF")
}

fn is_encrypted_rtp(protocol: &str) -> bool {
    let protocol = protocol.to_ascii_uppercase();
    protocol.ends_with("RTP/SAVP") || protocol.ends_with("RTP/SAVPF")
}

/// Keys from DTLS (RFC 5764).
fn is_tls(media: &MediaDescription) -> bool {
    media.protocol.to_ascii_uppercase().contains("TLS/")
}
