//! The ciphers, and the keys that they get from the master key (RFC 3711 section 4, RFC 6188, RFC 7714).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{INDEX_BYTES, MasterKey, RTCP_HEADER_BYTES, Refused};

/// Salts are this long when they enter the counter; shorter ones have zeros behind.
const SALT_BYTES: usize = 14;
const AUTH_BYTES: usize = 20;
const GCM_TAG_BYTES: usize = 16;
/// Says that an SRTCP packet is encrypted.
const ENCRYPTED: u32 = 0x8000_0000;

/// What the session keys are for: the labels of RFC 3711 section 4.3.
#[derive(Clone, Copy)]
pub enum Usage {
    Rtp,
    Rtcp,
}

/// The session keys of RTP or RTCP.
pub struct Cipher {
    kind: Kind,
    salt: [u8; SALT_BYTES],
}

enum Kind {
    /// Counter mode, and a tag behind.
    Counter {
        key: Box<EncryptingKey>,
        auth: Box<Auth>,
    },
    Gcm(Box<LessSafeKey>),
}

/// Tags by HMAC-SHA1, of which the first bytes are sent (section 4.2.1).
struct Auth {
    key: hmac::Key,
    tag_bytes: usize,
}

impl Auth {
    /// Writes the tag of what is authenticated.
    fn sign(&self, authenticated: &[u8]) -> [u8; AUTH_BYTES] {
        let mut tag = [0; AUTH_BYTES];
        tag.copy_from_slice(hmac::sign(&self.key, authenticated).as_ref());
        tag
    }

    /// Whether a tag that came is that of what is authenticated.
    fn verify(&self, authenticated: &[u8], tag: &[u8]) -> Result<(), Unspecified> {
        verify_slices_are_equal(&self.sign(authenticated)[..self.tag_bytes], tag)
    }
}

impl Cipher {
    /// Derives the session keys. The key derivation rate is zero, so they stay the same.
    pub fn derive(master: &MasterKey, usage: Usage) -> Result<Self, Unspecified> {
        let profile = master.profile();
        let (key, salt) = master.parts();
        let (first_label, tag_bytes) = match usage {
            Usage::Rtp => (0, profile.rtp_tag_bytes()),
            Usage::Rtcp => (3, profile.rtcp_tag_bytes()),
        };
        let mut session_key = Zeroizing::new([0; 32]);
        let session_key = &mut session_key[..key.len()];
        derive(key, salt, first_label, session_key)?;
        let mut session_salt = [0; SALT_BYTES];
        derive(
            key,
            salt,
            first_label + 2,
            &mut session_salt[..profile.salt_bytes()],
        )?;
        if profile.is_gcm() {
            return Self::gcm(session_key, session_salt);
        }
        let mut auth = Zeroizing::new([0; AUTH_BYTES]);
        derive(key, salt, first_label + 1, &mut *auth)?;
        Self::counter(session_key, session_salt, &*auth, tag_bytes)
    }

    pub(super) fn counter(
        key: &[u8],
        salt: [u8; SALT_BYTES],
        auth: &[u8],
        tag_bytes: usize,
    ) -> Result<Self, Unspecified> {
        let auth = Auth {
            key: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth),
            tag_bytes,
        };
        Ok(Self {
            kind: Kind::Counter {
                key: Box::new(counter_key(key)?),
                auth: Box::new(auth),
            },
            salt,
        })
    }

    pub(super) fn gcm(key: &[u8], salt: [u8; SALT_BYTES]) -> Result<Self, Unspecified> {
        let algorithm = if key.len() == 16 {
            &AES_128_GCM
        } else {
            &AES_256_GCM
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key)?);
        Ok(Self {
            kind: Kind::Gcm(Box::new(key)),
            salt,
        })
    }

    /// How much longer a packet gets, but for the index of SRTCP.
    pub fn tag_bytes(&self) -> usize {
        match &self.kind {
            Kind::Counter { auth, .. } => auth.tag_bytes,
            Kind::Gcm(_) => GCM_TAG_BYTES,
        }
    }

    /// The counter's start: salt, SSRC and the packet's index (section 4.1.1).
    fn counter_start(&self, ssrc: u32, index: u64) -> EncryptionContext {
        let mut start = [0; 16];
        start[..SALT_BYTES].copy_from_slice(&self.salt);
        xor(&mut start[4..8], &ssrc.to_be_bytes());
        xor(&mut start[8..14], &index.to_be_bytes()[2..]);
        EncryptionContext::Iv128(start.into())
    }

    /// The same for AES-GCM (RFC 7714 sections 8.1 and 9.1).
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.salt[..12]);
        xor(&mut nonce[2..6], &ssrc.to_be_bytes());
        xor(&mut nonce[6..], &index.to_be_bytes()[2..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Protects the RTP packet of `length` bytes whose header has `header` of them; `buffer` has room for the tag. Gives the new length.
    pub fn seal_rtp(
        &self,
        buffer: &mut [u8],
        header: usize,
        length: usize,
        (ssrc, index): (u32, u64),
    ) -> Result<usize, Refused> {
        let total = length + self.tag_bytes();
        let packet = buffer.get_mut(..total).ok_or(Refused::Exhausted)?;
        match &self.kind {
            Kind::Counter { key, auth } => {
                let start = self.counter_start(ssrc, index);
                key.less_safe_encrypt(&mut packet[header..length], start)?;
                // What is authenticated ends with the roll-over counter, which is not sent.
                packet[length..length + 4].copy_from_slice(&rollovers(index));
                let tag = auth.sign(&packet[..length + 4]);
                packet[length..].copy_from_slice(&tag[..auth.tag_bytes]);
            }
            Kind::Gcm(key) => {
                let (head, rest) = packet.split_at_mut(header);
                let (body, tag) = rest.split_at_mut(length - header);
                let nonce = self.nonce(ssrc, index);
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body)?;
                tag.copy_from_slice(made.as_ref());
            }
        }
        Ok(total)
    }

    /// Takes the protection off an RTP packet. Gives the length that is left. One that is refused is not to be read any more.
    pub fn open_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        (ssrc, index): (u32, u64),
    ) -> Result<usize, Refused> {
        let length = packet.len().checked_sub(self.tag_bytes());
        let length = length
            .filter(|length| *length >= header)
            .ok_or(Refused::Malformed)?;
        match &self.kind {
            Kind::Counter { key, auth } => {
                let mut tag = [0; AUTH_BYTES];
                let tag = &mut tag[..auth.tag_bytes];
                tag.copy_from_slice(&packet[length..]);
                packet[length..length + 4].copy_from_slice(&rollovers(index));
                let same = auth.verify(&packet[..length + 4], tag);
                // As it came, for another key to be tried.
                packet[length..].copy_from_slice(tag);
                same?;
                let start = self.counter_start(ssrc, index);
                key.less_safe_encrypt(&mut packet[header..length], start)?;
            }
            Kind::Gcm(key) => {
                let (head, rest) = packet.split_at_mut(header);
                key.open_in_place(self.nonce(ssrc, index), Aad::from(&*head), rest)?;
            }
        }
        Ok(length)
    }

    /// Protects the RTCP packet of `length` bytes. Gives the new length.
    pub fn seal_rtcp(
        &self,
        buffer: &mut [u8],
        length: usize,
        (ssrc, index): (u32, u32),
    ) -> Result<usize, Refused> {
        let total = length + self.tag_bytes() + INDEX_BYTES;
        let packet = buffer.get_mut(..total).ok_or(Refused::Exhausted)?;
        let trailer = (ENCRYPTED | index).to_be_bytes();
        match &self.kind {
            Kind::Counter { key, auth } => {
                let start = self.counter_start(ssrc, index.into());
                key.less_safe_encrypt(&mut packet[RTCP_HEADER_BYTES..length], start)?;
                let end = length + INDEX_BYTES;
                packet[length..end].copy_from_slice(&trailer);
                let tag = auth.sign(&packet[..end]);
                packet[end..].copy_from_slice(&tag[..auth.tag_bytes]);
            }
            Kind::Gcm(key) => {
                let (head, rest) = packet.split_at_mut(RTCP_HEADER_BYTES);
                let (body, rest) = rest.split_at_mut(length - RTCP_HEADER_BYTES);
                let aad = rtcp_aad(head, trailer);
                let nonce = self.nonce(ssrc, index.into());
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body)?;
                rest[..GCM_TAG_BYTES].copy_from_slice(made.as_ref());
                rest[GCM_TAG_BYTES..].copy_from_slice(&trailer);
            }
        }
        Ok(total)
    }

    /// The index that an SRTCP packet says it has. One that is not encrypted is refused: nothing like that is agreed on.
    pub fn rtcp_index(&self, packet: &[u8]) -> Result<u32, Refused> {
        let tag = match &self.kind {
            Kind::Counter { auth, .. } => auth.tag_bytes,
            // Its tag is part of what is encrypted.
            Kind::Gcm(_) => 0,
        };
        let at = packet
            .len()
            .checked_sub(tag + INDEX_BYTES)
            .filter(|at| *at >= RTCP_HEADER_BYTES);
        let trailer = at
            .and_then(|at| super::word(packet, at))
            .ok_or(Refused::Malformed)?;
        if trailer & ENCRYPTED == 0 {
            return Err(Refused::Forged);
        }
        Ok(trailer & !ENCRYPTED)
    }

    /// Takes the protection off an RTCP packet whose index was read. Gives the length that is left.
    pub fn open_rtcp(
        &self,
        packet: &mut [u8],
        (ssrc, index): (u32, u32),
    ) -> Result<usize, Refused> {
        let length = packet.len().checked_sub(self.tag_bytes() + INDEX_BYTES);
        let length = length
            .filter(|length| *length >= RTCP_HEADER_BYTES)
            .ok_or(Refused::Malformed)?;
        match &self.kind {
            Kind::Counter { key, auth } => {
                let (body, tag) = packet.split_at_mut(length + INDEX_BYTES);
                auth.verify(body, tag)?;
                let start = self.counter_start(ssrc, index.into());
                key.less_safe_encrypt(&mut body[RTCP_HEADER_BYTES..length], start)?;
            }
            Kind::Gcm(key) => {
                let (head, rest) = packet.split_at_mut(RTCP_HEADER_BYTES);
                let (body, trailer) = rest.split_at_mut(rest.len() - INDEX_BYTES);
                let aad = rtcp_aad(head, [trailer[0], trailer[1], trailer[2], trailer[3]]);
                key.open_in_place(self.nonce(ssrc, index.into()), Aad::from(aad), body)?;
            }
        }
        Ok(length)
    }
}

/// Header, E flag and index are authenticated, not encrypted (RFC 7714 section 9.2).
fn rtcp_aad(head: &[u8], trailer: [u8; INDEX_BYTES]) -> [u8; RTCP_HEADER_BYTES + INDEX_BYTES] {
    let mut aad = [0; RTCP_HEADER_BYTES + INDEX_BYTES];
    aad[..RTCP_HEADER_BYTES].copy_from_slice(head);
    aad[RTCP_HEADER_BYTES..].copy_from_slice(&trailer);
    aad
}

fn rollovers(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (byte, with) in into.iter_mut().zip(with) {
        *byte ^= with;
    }
}

fn counter_key(key: &[u8]) -> Result<EncryptingKey, Unspecified> {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key)?)
}

/// A session key: the master key's stream from where salt and label start it (RFC 3711 section 4.3.1).
pub(super) fn derive(
    key: &[u8],
    salt: &[u8],
    label: u8,
    out: &mut [u8],
) -> Result<(), Unspecified> {
    let mut start = [0; 16];
    start[..salt.len()].copy_from_slice(salt);
    start[7] ^= label;
    out.fill(0);
    let context = EncryptionContext::Iv128(start.into());
    counter_key(key)?.less_safe_encrypt(out, context)?;
    Ok(())
}
