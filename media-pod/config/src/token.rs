//! Signed tokens that lead an in-dialog request to the media pod that holds the dialog.
//!
//! The user part of our Contact (and the start of our tag, for carriers that mangle Contacts) is a token of 40 lower-case base32
//! characters: key id (1 byte), incarnation of the media pod (8 bytes), HMAC-SHA-256 over both, cut to 16 bytes. Any registrar of the
//! gateway can check and read it, also one that started after the call. Old keys stay valid as long as a call may last
//! ([`crate::rotation`]).

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// Length of a token in characters.
pub const TOKEN_LENGTH: usize = 40;

const MAC_BYTES: usize = 16;

/// One run of a media pod: a new one after every restart, so that calls of the old are known to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text was not 16 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an incarnation is 16 hexadecimal digits")]
pub struct NotAnIncarnation;

impl FromStr for Incarnation {
    type Err = NotAnIncarnation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 16 {
            return Err(NotAnIncarnation);
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NotAnIncarnation)
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A gateway's signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Which key it is; part of each token.
    pub id: u8,
    /// 64 hexadecimal digits.
    pub key: Secret,
}

impl TokenKey {
    /// A key of 32 random bytes.
    pub fn from_bytes(id: u8, bytes: [u8; 32]) -> Self {
        Self {
            id,
            key: Secret::new(HEXLOWER.encode(&bytes)),
        }
    }

    fn mac(&self) -> Hmac<Sha256> {
        // The text is keyed as it stands: any text is a valid HMAC key, so a malformed key cannot stop a pod.
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        Hmac::new_from_slice(self.key.expose().as_bytes()).expect("HMAC takes keys of every length")
    }

    /// A stable secret text for `purpose` and `subject`, 26 lower-case base32 characters: used for contact users.
    pub fn derive(&self, purpose: &str, subject: &str) -> String {
        let mut mac = self.mac();
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(subject.as_bytes());
        BASE32_NOPAD
            .encode(&mac.finalize().into_bytes()[..MAC_BYTES])
            .to_ascii_lowercase()
    }

    /// Whether `text` is what [`Self::derive`] gives; takes the same time wherever it differs.
    pub fn derives(&self, purpose: &str, subject: &str, text: &str) -> bool {
        let derived = self.derive(purpose, subject);
        derived.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// The token of a media pod's incarnation.
    pub fn sign(&self, incarnation: Incarnation) -> String {
        let mut bytes = Vec::with_capacity(25);
        bytes.push(self.id);
        bytes.extend_from_slice(&incarnation.0.to_be_bytes());
        let mut mac = self.mac();
        mac.update(b"contact\0");
        mac.update(&bytes);
        bytes.extend_from_slice(&mac.finalize().into_bytes()[..MAC_BYTES]);
        BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
    }
}

/// All keys of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayKeys {
    /// Makes contact users ([`TokenKey::derive`]). It is not replaced: every trunk would have to register anew.
    pub contacts: TokenKey,
    /// Make tokens: the first one signs, all are accepted.
    pub tokens: Vec<TokenKey>,
}

impl GatewayKeys {
    /// One key for all.
    pub fn single(key: TokenKey) -> Self {
        Self {
            contacts: key.clone(),
            tokens: vec![key],
        }
    }
}

/// Reads the token at the start of `text` (a Contact's user part or a tag) if one of `keys` signed it.
pub fn verify(keys: &[TokenKey], text: &str) -> Option<Incarnation> {
    let token = text.get(..TOKEN_LENGTH)?.to_ascii_uppercase();
    let bytes = BASE32_NOPAD.decode(token.as_bytes()).ok()?;
    let (signed, signature) = bytes.split_at_checked(9)?;
    let key = keys.iter().find(|key| key.id == signed[0])?;
    let mut mac = key.mac();
    mac.update(b"contact\0");
    mac.update(signed);
    mac.verify_truncated_left(signature).ok()?;
    Some(Incarnation(u64::from_be_bytes(
        signed[1..9].try_into().ok()?,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u8) -> TokenKey {
        TokenKey::from_bytes(id, [id; 32])
    }

    #[test]
    fn reads_a_token_of_any_known_key() {
        let token = key(1).sign(Incarnation(77));
        assert_eq!(token.len(), TOKEN_LENGTH);
        assert_eq!(verify(&[key(2), key(1)], &token), Some(Incarnation(77)));
        assert_eq!(
            verify(&[key(1)], &format!("{token}.x9")),
            Some(Incarnation(77)),
            "as the start of a tag"
        );
        assert_eq!(
            verify(&[key(1)], &token.to_uppercase()),
            Some(Incarnation(77)),
            "carriers change the case"
        );
    }

    #[test]
    fn refuses_forged_and_foreign_tokens() {
        let token = key(1).sign(Incarnation(77));
        assert_eq!(verify(&[key(2)], &token), None);
        let mut forged = token.into_bytes();
        forged[5] = if forged[5] == b'a' { b'b' } else { b'a' };
        assert_eq!(
            verify(&[key(1)], std::str::from_utf8(&forged).unwrap()),
            None
        );
        for text in ["", "short", "ééééééééééééééééééééééééééééééééééééééééé"]
        {
            assert_eq!(verify(&[key(1)], text), None, "{text}");
        }
    }

    #[test]
    fn derives_the_same_text_for_the_same_subject_only() {
        assert_eq!(
            key(1).derive("contact-user", "a"),
            key(1).derive("contact-user", "a")
        );
        assert_ne!(
            key(1).derive("contact-user", "a"),
            key(1).derive("contact-user", "b")
        );
    }
}
