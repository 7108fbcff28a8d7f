//! Session descriptions as they are seen on the wire, and what offer and answer come to.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ice;
mod offers;

use ringwire_sip::sdp::{
    Capabilities, Codec, Encryption, LocalMedia, Negotiated, OfferError, SessionDescription, answer,
};

/// The session's part of an offer.
const HEAD: &str = "v=0\no=- 1 1 IN IP4 203.0.113.5\ns=-\nc=IN IP4 203.0.113.5\nt=0 0\n";

fn caps() -> Capabilities {
    Capabilities {
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        telephone_event: true,
        ptime_millis: 20,
        encryption: Encryption::None,
        ice: None,
    }
}

fn local() -> LocalMedia {
    LocalMedia {
        address: "192.0.2.9".parse().unwrap(),
        rtp_port: 20_000,
        session_id: 7,
        version: 1,
    }
}

fn parse(text: &str) -> SessionDescription {
    SessionDescription::parse(text.as_bytes()).unwrap()
}

/// The answer of one who can do that, and what it comes to.
fn respond(text: &str, caps: &Capabilities) -> Result<(String, Negotiated), OfferError> {
    answer(&parse(text), caps, &local())
        .map(|(answer, negotiated)| (answer.to_string(), negotiated))
}
