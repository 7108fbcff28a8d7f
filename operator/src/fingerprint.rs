//! Short forms of larger things, to see whether they changed.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::retry::Fingerprint;

/// The fingerprint of anything with a JSON form.
pub fn of<T: Serialize + ?Sized>(value: &T) -> Fingerprint {
    of_bytes(&serde_json::to_vec(value).unwrap_or_default())
}

/// The fingerprint of bytes.
pub fn of_bytes(bytes: &[u8]) -> Fingerprint {
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .take(8)
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}
