//! RFC 4475 section 3.4: elements that are older than RFC 3261.

use super::{request, rfc4475};
use ringwire_sip::sdp::SessionDescription;

/// 3.4.1: no branch, no tag, no `Max-Forwards`, no `Contact`, no `Content-Length`. Read and used.
#[test]
fn inv2543_an_invite_of_rfc_2543_is_read() {
    let invite = request(&rfc4475!("inv2543"));
    let headers = &invite.headers;
    assert_eq!(headers.via().unwrap().branch(), None);
    assert_eq!(headers.from_().unwrap().tag(), None);
    assert_eq!(headers.to().unwrap().params.get("user"), Some("phone"));
    assert_eq!(
        (headers.max_forwards(), headers.contact()),
        (None, Ok(None))
    );
    let sdp = SessionDescription::parse(&invite.body).unwrap();
    assert_eq!(sdp.media.len(), 1);
}
