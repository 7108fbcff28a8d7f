//! Encrypted RTP and RTCP (SRTP, RFC 3711): packets are made unreadable and unforgeable, and back, in place.
//!
//! One context for each direction: [`Protect`] for our stream, [`Unprotect`] for those of the peer, [`Guard`] for both of a call. Ciphers
//! are AES in counter mode with HMAC-SHA1 (RFC 3711, RFC 6188) and AES-GCM (RFC 7714). Nothing here allocates once a context is made.
//! How keys are agreed on is signalling's matter.
//!
//! Not here: master key identifiers, key derivation rates and unencrypted SRTCP, which no offer with them is agreed to.

mod cipher;
mod guard;
mod receive;
mod send;

use std::fmt;

use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

pub use guard::Guard;
pub use receive::Unprotect;
pub use send::Protect;

use crate::rtp::HEADER_BYTES;

/// Most bytes by which protection makes a packet longer: the tag of AES-GCM, and the index of SRTCP.
pub const OVERHEAD: usize = 16 + INDEX_BYTES;

/// The E flag and the index of SRTCP.
const INDEX_BYTES: usize = 4;
/// The part of an RTCP packet that is not encrypted.
const RTCP_HEADER_BYTES: usize = 8;

/// Cipher and authentication, by the names that SDP has for them (RFC 4568, 6188, 7714).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// `AES_CM_128_HMAC_SHA1_80`
    Aes128Sha1_80,
    /// `AES_CM_128_HMAC_SHA1_32`: its RTCP has 80 bits all the same.
    Aes128Sha1_32,
    /// `AES_256_CM_HMAC_SHA1_80`
    Aes256Sha1_80,
    /// `AES_256_CM_HMAC_SHA1_32`
    Aes256Sha1_32,
    /// `AEAD_AES_128_GCM`
    Aes128Gcm,
    /// `AEAD_AES_256_GCM`
    Aes256Gcm,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Aes128Sha1_80,
        Self::Aes128Sha1_32,
        Self::Aes256Sha1_80,
        Self::Aes256Sha1_32,
        Self::Aes128Gcm,
        Self::Aes256Gcm,
    ];

    /// Bytes of the master key.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Sha1_80 | Self::Aes128Sha1_32 | Self::Aes128Gcm => 16,
            Self::Aes256Sha1_80 | Self::Aes256Sha1_32 | Self::Aes256Gcm => 32,
        }
    }

    /// Bytes of the master salt.
    pub fn salt_bytes(self) -> usize {
        if self.is_gcm() { 12 } else { 14 }
    }

    fn is_gcm(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes256Gcm)
    }

    fn rtp_tag_bytes(self) -> usize {
        match self {
            Self::Aes128Sha1_80 | Self::Aes256Sha1_80 => 10,
            Self::Aes128Sha1_32 | Self::Aes256Sha1_32 => 4,
            Self::Aes128Gcm | Self::Aes256Gcm => 16,
        }
    }

    fn rtcp_tag_bytes(self) -> usize {
        if self.is_gcm() { 16 } else { 10 }
    }
}

/// A master key with its salt. Not shown, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    profile: Profile,
    bytes: Zeroizing<Vec<u8>>,
}

impl MasterKey {
    /// From the key and the salt after it; `None` if they don't have the profile's length.
    pub fn new(profile: Profile, key_and_salt: &[u8]) -> Option<Self> {
        let length = profile.key_bytes() + profile.salt_bytes();
        (key_and_salt.len() == length).then(|| Self {
            profile,
            bytes: Zeroizing::new(key_and_salt.to_vec()),
        })
    }

    /// What it is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at(self.profile.key_bytes())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Why a packet is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a packet of that kind, or too short to be protected.
    #[error("not a protected packet")]
    Malformed,
    /// It was there before, or is older than the window.
    #[error("replayed or too old")]
    Replayed,
    /// It was not made with the key.
    #[error("not authentic")]
    Forged,
    /// The key has protected as many packets as it may, or there is no room for the tag.
    #[error("the key is used up")]
    Exhausted,
}

impl From<Unspecified> for Refused {
    fn from(_: Unspecified) -> Self {
        Self::Forged
    }
}

/// The length of an RTP header with its CSRCs and extension; nothing if the packet is none or shorter.
fn header_bytes(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let mut length = HEADER_BYTES + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let words = packet.get(length + 2..length + 4)?;
        length += 4 + usize::from(u16::from_be_bytes([words[0], words[1]])) * 4;
    }
    (length <= packet.len()).then_some(length)
}

fn word(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn sequence(packet: &[u8]) -> Option<u16> {
    Some((word(packet, 0)? & 0xffff) as u16)
}

#[cfg(test)]
mod tests;
