//! Headers between our own registrars and media pods. They never reach a carrier, and a carrier's are removed before use.

use ringwire_sip::message::{HeaderName, Headers};

/// The SipProvider, `namespace/name`; for a call that takes another's place, all that it may be from, comma-separated.
pub const PROVIDER: &str = "X-Ringwire-Provider";
/// The PhoneNumber, `namespace/name`.
pub const NUMBER: &str = "X-Ringwire-Number";
/// The dialled number in E.164.
pub const CALLED: &str = "X-Ringwire-Called";
/// The VoiceAgent, `namespace/name`.
pub const AGENT: &str = "X-Ringwire-Agent";
/// The provider's codecs in order, comma-separated.
pub const CODECS: &str = "X-Ringwire-Codecs";
/// Whether media is encrypted, and how: as `spec.mediaEncryption` says; nothing: it is not.
pub const ENCRYPTION: &str = "X-Ringwire-Media-Encryption";
/// After how many seconds without packets the caller is asked whether he is still there; nothing: the default.
pub const MEDIA_TIMEOUT: &str = "X-Ringwire-Media-Timeout";
/// Where the request came from: `address:port`.
pub const SOURCE: &str = "X-Ringwire-Source";
/// The provider's networks and addresses, comma-separated: its media may come from there as well.
pub const MEDIA_SOURCES: &str = "X-Ringwire-Media-Sources";
/// There, too, if calls are counted by it: the IPv4 address, or the IPv6 network of 64 bits.
pub const COUNTED_SOURCE: &str = "X-Ringwire-Counted-Source";
/// The URI of our Contact towards the carrier, still without its user part.
pub const CONTACT: &str = "X-Ringwire-Contact";
/// The connection that a request came over, and that requests of the same dialog should go back over: `transport:number`.
pub const FLOW: &str = "X-Ringwire-Flow";
/// In a 503 between our own: another media pod may take the call.
pub const TRY_ANOTHER: &str = "X-Ringwire-Try-Another";

/// A private header's name.
pub fn name(text: &str) -> HeaderName {
    HeaderName::from(text)
}

/// Removes every private header.
pub fn strip(headers: &mut Headers) {
    let ours: Vec<HeaderName> = headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| {
            name.as_str().len() > 11 && name.as_str()[..11].eq_ignore_ascii_case("X-Ringwire-")
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_private_headers_whatever_their_case() {
        let mut headers = Headers::new();
        headers.push(HeaderName::from("x-ringwire-agent"), "a/b");
        headers.push(HeaderName::from("X-Ringwire-Unknown"), "1");
        headers.push(HeaderName::from("Subject"), "x");
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
