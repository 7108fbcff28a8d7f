//! What session descriptions say of a DTLS handshake (RFC 5763, 8122, 4145): the certificate's fingerprint, and who begins.

use super::{Attribute, MediaDescription, SessionDescription};

/// Fingerprints that are looked at.
const MAX_FINGERPRINTS: usize = 8;

/// The hash of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, `sha-384` or `sha-512`.
    pub hash: &'static str,
    /// The value.
    pub value: Vec<u8>,
}

impl Fingerprint {
    /// Hashes that are strong enough, and their length. SHA-1 and older ones are not (RFC 8122 section 5).
    const HASHES: [(&'static str, usize); 3] = [("sha-256", 32), ("sha-384", 48), ("sha-512", 64)];

    fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.trim().split_once([' ', '\t'])?;
        let (hash, length) = Self::HASHES
            .into_iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        let bytes = value.trim().split(':').take(length + 1);
        let value: Option<Vec<u8>> = bytes
            .map(|byte| {
                let digits = byte.len() == 2 && byte.bytes().all(|byte| byte.is_ascii_hexdigit());
                u8::from_str_radix(byte, 16).ok().filter(|_| digits)
            })
            .collect();
        let value = value.filter(|value| value.len() == length)?;
        Some(Self { hash, value })
    }

    fn attribute(&self) -> Attribute {
        let bytes: Vec<_> = self
            .value
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        let text = format!("{} {}", self.hash, bytes.join(":"));
        ("fingerprint".to_owned(), Some(text))
    }
}

/// A handshake that was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsTerms {
    /// We begin, as its client.
    pub active: bool,
    /// The peer's certificate has one of them.
    pub fingerprints: Vec<Fingerprint>,
}

/// Reads what the peer says; nothing without a fingerprint that can be used.
pub(super) fn theirs(
    session: &SessionDescription,
    media: &MediaDescription,
    answers: bool,
) -> Option<DtlsTerms> {
    let own = fingerprints(&media.attributes);
    let fingerprints = if own.is_empty() {
        fingerprints(&session.attributes)
    } else {
        own
    };
    let setup = media
        .attribute("setup")
        .or_else(|| super::attribute(&session.attributes, "setup"));
    let active = match setup.map(str::to_ascii_lowercase).as_deref() {
        // Whoever begins shows where it can be reached, which may be behind a NAT: that is better the peer.
        Some("actpass") if !answers => false,
        Some("passive") => true,
        // The default of RFC 4145 section 4.
        Some("active") | None => false,
        Some(_) => return None,
    };
    (!fingerprints.is_empty()).then_some(DtlsTerms {
        active,
        fingerprints,
    })
}

fn fingerprints(attributes: &[Attribute]) -> Vec<Fingerprint> {
    attributes
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("fingerprint"))
        .filter_map(|(_, value)| Fingerprint::parse(value.as_deref()?))
        .take(MAX_FINGERPRINTS)
        .collect()
}

/// What we say in an answer, or in an offer.
pub(super) fn ours(fingerprint: &Fingerprint, setup: &str, muxed: bool) -> Vec<Attribute> {
    let mut attributes = vec![
        fingerprint.attribute(),
        ("setup".to_owned(), Some(setup.to_owned())),
    ];
    if muxed {
        attributes.push(("rtcp-mux".to_owned(), None));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_strictly() {
        let value = vec!["aB"; 32].join(":");
        let read = Fingerprint::parse(&format!("SHA-256  {value}")).unwrap();
        assert_eq!((read.hash, &read.value), ("sha-256", &vec![0xab; 32]));
        let (_, text) = read.attribute();
        assert_eq!(Fingerprint::parse(&text.unwrap()), Some(read));
        for bad in [
            format!("sha-1 {}", vec!["AB"; 20].join(":")),
            format!("md5 {}", vec!["AB"; 16].join(":")),
            format!("sha-256 {value}:AB"),
            format!("sha-384 {value}"),
            format!("sha-256 {}", value.replace("aB", "+B")),
            format!("sha-256 {}", "AB".repeat(32)),
            format!("sha-256{value}"),
            "sha-256 ".to_owned(),
            String::new(),
        ] {
            assert_eq!(Fingerprint::parse(&bad), None, "{bad}");
        }
    }
}
