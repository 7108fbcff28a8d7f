//! RFC 4475 section 3.3: messages that are well-formed, or nearly, and are for the layers above to judge. Where that is a
//! layer outside of this crate, the test shows what it has to judge by.

use std::time::{Duration, Instant};

use super::{refusal, refused, request, response, rfc4475};
use ringwire_sip::message::{
    HeaderName, Message, Method, NameAddr, ParseError, Request, Response, Scheme, Uri,
};
use ringwire_sip::sdp::{Capabilities, Codec, Encryption, LocalMedia};
use ringwire_sip::transaction::{Endpoint, EndpointConfig, Event, Flow};
use ringwire_sip::uas::{UasCall, UasParams};

/// The answer of a call that doesn't come about; `None` when it does.
fn call(invite: Request) -> Option<Response> {
    let params = UasParams {
        contact: NameAddr::new(Uri::sip(Some("ours"), "198.51.100.7", None)),
        local_tag: "ours".to_owned(),
        capabilities: Capabilities {
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            telephone_event: true,
            ptime_millis: 20,
            encryption: Encryption::None,
            ice: None,
        },
        local: LocalMedia {
            address: "198.51.100.7".parse().unwrap(),
            rtp_port: 20_000,
            session_id: 1,
            version: 1,
        },
        server: "test".to_owned(),
        t1: Duration::from_millis(500),
        t2: Duration::from_secs(4),
        reliable_provisionals: false,
    };
    UasCall::new(invite, params, Instant::now()).err()
}

/// 3.3.1: 400 that names the first header that is missing.
#[test]
fn insuf_missing_headers_are_named() {
    let bytes = rfc4475!("insuf");
    assert_eq!(refusal(&bytes), (400, "Missing From".to_owned()));
    let whole = rfc4475!("zeromf");
    for name in ["To", "From", "Call-ID", "CSeq"] {
        let text = String::from_utf8(whole.clone()).unwrap();
        let kept = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with(&format!("{name}:")));
        let (error, reply) = refused(kept.collect::<String>().as_bytes());
        assert_eq!(error, ParseError::Missing(name));
        assert_eq!(
            (reply.status, reply.reason),
            (400, format!("Missing {name}"))
        );
    }
    let text = String::from_utf8(whole).unwrap();
    let without_via = text.replace("Via", "X-Via");
    let failure = super::failure(without_via.as_bytes());
    assert_eq!(failure.reply, None, "without Via there is no way back");
}

/// 3.3.2: read; 416 is the business of the layer that routes.
#[test]
fn unkscm_an_unknown_scheme_is_kept() {
    let uri = request(&rfc4475!("unkscm")).uri;
    assert_eq!(
        uri.scheme,
        Scheme::Other("nobodyknowsthisscheme".to_owned())
    );
    assert_eq!(uri.user.as_deref(), Some("totallyopaquecontent"));
}

/// 3.3.3: the same for a scheme that looks like one of ours.
#[test]
fn novelsc_a_novel_scheme_is_kept() {
    let uri = request(&rfc4475!("novelsc")).uri;
    assert_eq!(uri.scheme, Scheme::Other("soap.beep".to_owned()));
    assert_eq!(uri.to_string(), "soap.beep://192.0.2.103:3002");
}

/// 3.3.4: read; a registrar refuses the `To`, no one trips over it.
#[test]
fn unksm2_unknown_schemes_in_headers_are_kept() {
    let headers = request(&rfc4475!("unksm2")).headers;
    assert_eq!(headers.to().unwrap().uri.to_string(), "isbn:2983792873");
    let from = headers.from_().unwrap();
    assert_eq!(
        (from.uri.to_string().as_str(), from.tag()),
        ("http://www.example.com", Some("3234233"))
    );
    let contact = headers.contact().unwrap().unwrap();
    assert_eq!(contact.uri.to_string(), "name:John_Smith");
}

/// 3.3.5: 420 with `Unsupported`; here of the call that would come of it.
#[test]
fn bext01_unknown_extensions_are_refused_and_named() {
    let mut invite = request(&rfc4475!("bext01"));
    assert!(
        invite
            .headers
            .lists(&HeaderName::ProxyRequire, "noProxiesSupportThis")
    );
    invite.method = Method::INVITE;
    invite.headers.set(HeaderName::CSeq, "8 INVITE");
    invite
        .headers
        .push(HeaderName::Contact, "<sip:caller@host.example.net>");
    let refusal = call(invite).unwrap();
    assert_eq!(refusal.status, 420);
    for tag in ["nothingSupportsThis", "nothingSupportsThisEither"] {
        assert!(refusal.headers.lists(&HeaderName::Unsupported, tag));
    }
}

/// 3.3.6: 415 with `Accept`.
#[test]
fn invut_an_unknown_content_type_is_refused() {
    let invite = request(&rfc4475!("invut"));
    assert_eq!(invite.body.len(), 40);
    let refusal = call(invite).unwrap();
    assert_eq!(refusal.status, 415);
    assert!(
        refusal
            .headers
            .lists(&HeaderName::Accept, "application/sdp")
    );
}

/// 3.3.7: read; credentials of a scheme that no one knows are as good as none.
#[test]
fn regaut01_an_unknown_authorization_scheme_is_kept() {
    let register = request(&rfc4475!("regaut01"));
    assert_eq!(
        register.headers.get(&HeaderName::Authorization),
        Some("NoOneKnowsThisScheme opaque-data=here")
    );
}

/// 3.3.8: 400; so is each of them alone.
#[test]
fn multi01_several_values_where_one_is_allowed_are_refused() {
    let (error, reply) = refused(&rfc4475!("multi01"));
    assert!(matches!(error, ParseError::Repeated(_)));
    assert_eq!(
        (reply.status, reply.reason.as_str()),
        (400, "Several Call-ID headers")
    );
    let whole = String::from_utf8(rfc4475!("zeromf")).unwrap();
    for extra in [
        "CSeq: 59 OPTIONS",
        "Call-ID: another",
        "t: <sip:b@example.com>",
        "f: <sip:b@x.example>;tag=1",
        "Max-Forwards: 5",
    ] {
        let text = whole.replace("Via:", &format!("{extra}\r\nVia:"));
        let (error, reply) = refused(text.as_bytes());
        assert!(matches!(error, ParseError::Repeated(_)), "{extra}");
        assert_eq!(reply.status, 400);
    }
}

/// 3.3.9: 400, unless they are the same.
#[test]
fn mcl01_content_lengths_that_differ_are_refused() {
    let bytes = rfc4475!("mcl01");
    assert_eq!(
        refusal(&bytes),
        (400, "Several Content-Length headers".to_owned())
    );
    let same = request(&super::with(
        &bytes,
        "Content-Length: 13",
        "Content-Length: 5",
    ));
    assert_eq!(same.body, b"There");
}

/// 3.3.10: read, and belongs to no one: nothing is sent to where the second `Via` points.
#[test]
fn bcast_a_response_with_a_broadcast_via_is_not_passed_on() {
    let answer = response(&rfc4475!("bcast"));
    assert_eq!(answer.headers.vias().unwrap().len(), 2);
    let mut endpoint = Endpoint::new(EndpointConfig::default(), 1);
    let flow = Flow::udp("192.0.2.1:5060".parse().unwrap());
    endpoint.receive(Message::Response(answer), flow, Instant::now());
    assert!(matches!(
        endpoint.poll_event(),
        Some(Event::StrayResponse { .. })
    ));
    assert_eq!(endpoint.poll_transmit(), None);
}

/// 3.3.11: read; 483 is the business of the layer that forwards, and a user agent answers as always.
#[test]
fn zeromf_no_hop_is_left() {
    let options = request(&rfc4475!("zeromf"));
    assert_eq!(options.headers.max_forwards(), Some(0));
}

/// 3.3.12: without brackets the parameter is the header's.
#[test]
fn cparam01_a_parameter_of_a_bare_contact_is_the_headers() {
    let contact = request(&rfc4475!("cparam01"))
        .headers
        .contact()
        .unwrap()
        .unwrap();
    assert!(contact.params.has("unknownparam") && contact.uri.params.is_empty());
}

/// 3.3.13: inside of the brackets it is the URI's.
#[test]
fn cparam02_a_parameter_in_brackets_is_the_uris() {
    let contact = request(&rfc4475!("cparam02"))
        .headers
        .contact()
        .unwrap()
        .unwrap();
    assert!(contact.uri.params.has("unknownparam") && contact.params.is_empty());
}

/// 3.3.14: kept as it is, escapes and all.
#[test]
fn regescrt_an_escaped_route_in_a_contact_is_kept() {
    let register = request(&rfc4475!("regescrt"));
    let contact = register.headers.contact().unwrap().unwrap();
    assert_eq!(
        contact.uri.to_string(),
        "sip:user@example.com?Route=%3Csip:sip.example.com%3E"
    );
    assert!(register.headers.routes().is_empty());
}

/// 3.3.15: 406 is allowed. We take the call: an answer is SDP as the offer is, whatever `Accept` says.
#[test]
fn sdp01_an_offer_of_sdp_is_answered_whatever_is_accepted() {
    let invite = request(&rfc4475!("sdp01"));
    assert_eq!(
        invite.headers.get(&HeaderName::Accept),
        Some("text/nobodyKnowsThis")
    );
    assert!(call(invite).is_none());
}
