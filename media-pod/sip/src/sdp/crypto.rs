//! Keys in session descriptions (SDES, RFC 4568; suites of RFC 6188 and RFC 7714).
//!
//! A line that asks for what is not done here is passed over, never half understood: keys with an identifier (MKI), several keys in one
//! line, a key derivation rate, packets without encryption or authentication.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::{Attribute, MediaDescription};

/// Lines that are looked at in one stream.
const MAX_LINES: usize = 32;
/// Longest line that is read: 46 bytes of key and salt are 64 characters.
const MAX_VALUE: usize = 256;

/// Peers with and without padding are understood.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Cipher and authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-128 in counter mode, tags of 80 bits.
    Aes128Sha1_80,
    /// AES-128 in counter mode, tags of 32 bits.
    Aes128Sha1_32,
    /// AES-256 in counter mode, tags of 80 bits.
    Aes256Sha1_80,
    /// AES-256 in counter mode, tags of 32 bits.
    Aes256Sha1_32,
    /// AES-128 in Galois/counter mode.
    Aes128Gcm,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Aes128Sha1_80,
        Self::Aes128Sha1_32,
        Self::Aes256Sha1_80,
        Self::Aes256Sha1_32,
        Self::Aes128Gcm,
        Self::Aes256Gcm,
    ];

    /// What we offer, the best first. Every peer has the last one (RFC 3711 section 5).
    const OFFERED: [Self; 3] = [Self::Aes256Gcm, Self::Aes256Sha1_80, Self::Aes128Sha1_80];

    /// Its name in a description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Sha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Aes128Sha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::Aes256Sha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::Aes256Sha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Self::Aes128Gcm => "AEAD_AES_128_GCM",
            Self::Aes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// Bytes of the master key and the salt behind it.
    pub fn keying_bytes(self) -> usize {
        match self {
            Self::Aes128Sha1_80 | Self::Aes128Sha1_32 => 16 + 14,
            Self::Aes256Sha1_80 | Self::Aes256Sha1_32 => 32 + 14,
            Self::Aes128Gcm => 16 + 12,
            Self::Aes256Gcm => 32 + 12,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.name().eq_ignore_ascii_case(name))
    }
}

/// A master key with the salt behind it. Not shown, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Keying(Zeroizing<Vec<u8>>);

impl Keying {
    /// The bytes: key, then salt.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Keying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keying(…)")
    }
}

/// What the keys of one call are made of: random, and drawn anew for each. Not shown, and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// From random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// For what else a call keeps to itself.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// Our key for a suite: the same as long as the call lasts, so that what is said twice is the same.
    fn key(&self, suite: Suite) -> Keying {
        let mut hash = Sha512::new();
        hash.update(&self.0[..]);
        hash.update(suite.name());
        let mut bytes = Zeroizing::new(hash.finalize().to_vec());
        bytes.truncate(suite.keying_bytes());
        Keying(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The keys that were agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdesKeys {
    /// The same both ways.
    pub suite: Suite,
    /// Ours.
    pub send: Keying,
    /// The peer's.
    pub receive: Keying,
}

/// A line that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crypto {
    pub tag: u32,
    pub suite: Suite,
    pub key: Keying,
}

impl Crypto {
    /// Ours.
    pub fn ours(tag: u32, suite: Suite, secret: &Secret) -> Self {
        let key = secret.key(suite);
        Self { tag, suite, key }
    }

    /// As it stands in a description.
    pub fn attribute(&self) -> Attribute {
        let Self { tag, suite, key } = self;
        let key = Zeroizing::new(BASE64.encode(key.bytes()));
        let value = format!("{tag} {} inline:{}", suite.name(), *key);
        ("crypto".to_owned(), Some(value))
    }

    /// Reads one line; nothing if it can't be used as it is.
    fn parse(value: &str) -> Option<Self> {
        if value.len() > MAX_VALUE {
            return None;
        }
        let mut parts = value.split_ascii_whitespace();
        let (tag, suite, keys) = (parts.next()?, parts.next()?, parts.next()?);
        let digits = (1..=9).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_digit());
        let tag = digits.then(|| tag.parse().ok()).flatten()?;
        let suite = Suite::from_name(suite)?;
        let (method, keys) = keys.split_once(':')?;
        if !method.eq_ignore_ascii_case("inline") || !parts.all(is_harmless) {
            return None;
        }
        let mut info = keys.split('|');
        let bytes = BASE64.decode(info.next()?).map(Zeroizing::new).ok()?;
        // What follows is the lifetime; an identifier has a colon.
        let limits = info.next().is_none_or(is_lifetime) && info.next().is_none();
        (bytes.len() == suite.keying_bytes() && limits).then(|| Self {
            tag,
            suite,
            key: Keying(bytes),
        })
    }
}

/// A session parameter that changes nothing here: a hint on the window, or an extension that may be ignored (section 6.3).
fn is_harmless(parameter: &str) -> bool {
    let window = parameter.strip_prefix("WSH=");
    parameter.starts_with('-')
        || window.is_some_and(|size| !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit()))
}

/// `2^20`, or a number of packets. It binds who sends with the key.
fn is_lifetime(text: &str) -> bool {
    match text.strip_prefix("2^") {
        Some(power) => power.parse::<u8>().is_ok_and(|power| power <= 48),
        None => text.parse::<u64>().is_ok_and(|packets| packets > 0),
    }
}

/// The lines of a stream that can be used, in its order.
pub(super) fn lines(media: &MediaDescription) -> impl Iterator<Item = Crypto> {
    values(media).filter_map(Crypto::parse)
}

fn values(media: &MediaDescription) -> impl Iterator<Item = &str> {
    media
        .attributes
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("crypto"))
        .filter_map(|(_, value)| value.as_deref())
        .take(MAX_LINES)
}

/// The suites of a stream, for a message to people: without keys, short and printable.
pub(super) fn names(media: &MediaDescription) -> String {
    let names = values(media).filter_map(|value| value.split_ascii_whitespace().nth(1));
    let printable = |name: &str| -> String {
        let kept = name.chars().take(32);
        kept.filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let names: Vec<_> = names.take(8).map(printable).collect();
    if names.is_empty() {
        return "no a=crypto".to_owned();
    }
    names.join(", ")
}

/// The lines of an offer of ours.
pub(super) fn offered(secret: &Secret) -> impl Iterator<Item = Attribute> {
    (1..)
        .zip(Suite::OFFERED)
        .map(|(tag, suite)| Crypto::ours(tag, suite, secret).attribute())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e";

    #[test]
    fn lines_of_carriers_are_read() {
        for rest in ["", "|2^20", "|2^31", "|1048576", "|2^48 WSH=128", " -X=1"] {
            let line = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}{rest}");
            let crypto = Crypto::parse(&line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((crypto.tag, crypto.suite), (1, Suite::Aes128Sha1_80));
            assert_eq!(crypto.key.bytes(), (1..=30).collect::<Vec<u8>>());
        }
        let padded = "7 aead_aes_128_gcm INLINE:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHA";
        for padding in ["", "=="] {
            let crypto = Crypto::parse(&format!("{padded}{padding}")).unwrap();
            assert_eq!((crypto.tag, crypto.suite), (7, Suite::Aes128Gcm));
        }
    }

    #[test]
    fn what_is_not_done_here_is_passed_over() {
        let good = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
        assert!(Crypto::parse(&good).is_some());
        for bad in [
            format!("{good}|2^20|1:4"),
            format!("{good}|1:4"),
            format!("{good}|2^49"),
            format!("{good}|0"),
            format!("{good}|"),
            format!("{good};inline:{KEY}"),
            format!("{good} KDR=1"),
            format!("{good} UNENCRYPTED_SRTP"),
            format!("{good} UNENCRYPTED_SRTCP"),
            format!("{good} UNAUTHENTICATED_SRTP"),
            format!("{good} WSH="),
            format!("{good} UNKNOWN"),
            format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}AAAA"),
            format!("1 AES_256_CM_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("-1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1234567890 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"),
            format!("1 AES_CM_128_HMAC_SHA1_80 uri:{KEY}"),
            "1 AES_CM_128_HMAC_SHA1_80 inline:".to_owned(),
            "1 AES_CM_128_HMAC_SHA1_80".to_owned(),
            String::new(),
            format!("{good} -{}", "x".repeat(MAX_VALUE)),
        ] {
            assert_eq!(Crypto::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn our_keys_differ_by_suite_and_call_and_stay() {
        let (secret, other) = (Secret::new([1; 32]), Secret::new([2; 32]));
        let mut seen = Vec::new();
        for suite in Suite::ALL {
            for secret in [&secret, &other] {
                let ours = Crypto::ours(3, suite, secret);
                let (_, value) = ours.attribute();
                assert_eq!(Crypto::parse(&value.unwrap()), Some(ours.clone()));
                assert_eq!(ours, Crypto::ours(3, suite, secret));
                let start = ours.key.bytes()[..16].to_vec();
                assert!(!seen.contains(&start));
                seen.push(start);
            }
        }
        let shown = format!(
            "{secret:?} {:?}",
            Crypto::ours(1, Suite::Aes128Gcm, &secret)
        );
        assert!(!shown.contains('['), "{shown}");
    }
}
