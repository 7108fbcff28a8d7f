//! From what offer and answer agreed on to what the RTP stream is told: the SIP and the media crate know nothing of each other.

use ringwire_media::stream::{self, TelephoneEvent};
use ringwire_sip::sdp::{Codec, Negotiated};

/// The RTP session that was agreed on.
pub fn session(negotiated: &Negotiated) -> stream::Session {
    stream::Session {
        codec: match negotiated.codec {
            Codec::Pcmu => stream::Codec::Pcmu,
            Codec::Pcma => stream::Codec::Pcma,
        },
        send_payload_type: negotiated.payload_type,
        receive_payload_type: negotiated.receive_payload_type,
        telephone_event: negotiated
            .telephone_event
            .map(|(send, receive)| TelephoneEvent { send, receive }),
        remote: negotiated.remote,
        remote_rtcp: negotiated.remote_rtcp,
        send: negotiated.local_direction.sends(),
        receive: negotiated.local_direction.receives(),
    }
}
