//! RFC 4475 sections 3.1.2 and 3.2.1: messages that are malformed. Most are refused with 400 and the reason in the phrase;
//! responses are dropped; what can only mean one thing is read.

use std::time::Instant;

use super::{failure, refusal, refused, request, rfc4475, with};
use ringwire_sip::message::{Message, ParseError};
use ringwire_sip::transaction::{Endpoint, EndpointConfig, Flow};

/// 3.1.2.1: parameters without a name are passed over, a `Via` value that is none is not. 400.
#[test]
fn badinv01_extraneous_separators_in_via_are_refused() {
    assert_eq!(
        refusal(&rfc4475!("badinv01")),
        (400, "Bad Via: no protocol".to_owned())
    );
}

/// 3.1.2.2: 400.
#[test]
fn clerr_a_content_length_beyond_the_datagram_is_refused() {
    let (error, reply) = refused(&rfc4475!("clerr"));
    assert_eq!((error, reply.status), (ParseError::BodyTruncated, 400));
    assert_eq!(reply.reason, "Body shorter than Content-Length");
}

/// 3.1.2.3: 400.
#[test]
fn ncl_a_negative_content_length_is_refused() {
    assert_eq!(
        refusal(&rfc4475!("ncl")),
        (400, "Bad Content-Length: not a number".to_owned())
    );
}

/// 3.1.2.4: 400 for the `CSeq`; an `Expires` too large for the type would only be cut to its largest value.
#[test]
fn scalar02_numbers_too_large_in_a_request_are_refused_or_bounded() {
    let bytes = rfc4475!("scalar02");
    assert_eq!(
        refusal(&bytes),
        (400, "Bad CSeq: number too large".to_owned())
    );
    let bounded = request(&with(&bytes, "36893488147419103232", "1"));
    assert_eq!(bounded.headers.expires(), Some(u32::MAX));
}

/// 3.1.2.5: dropped.
#[test]
fn scalarlg_numbers_too_large_in_a_response_drop_it() {
    assert_eq!(failure(&rfc4475!("scalarlg")).reply, None);
}

/// 3.1.2.6: 400.
#[test]
fn quotbal_an_unterminated_quote_is_refused() {
    assert_eq!(
        refusal(&rfc4475!("quotbal")),
        (400, "Bad To: unterminated quote".to_owned())
    );
}

/// 3.1.2.7: 400.
#[test]
fn ltgtruri_a_request_uri_in_brackets_is_refused() {
    let (error, reply) = refused(&rfc4475!("ltgtruri"));
    assert!(matches!(error, ParseError::Uri(_)));
    assert_eq!(reply.status, 400);
    assert!(reply.reason.starts_with("Bad URI: "), "{}", reply.reason);
}

/// 3.1.2.8: 400; so are other URIs that can't be used.
#[test]
fn lwsruri_white_space_inside_a_request_uri_is_refused() {
    let bytes = rfc4475!("lwsruri");
    for uri in [
        "sip:user@example.com; lr",
        "example.com",
        "sip:",
        "sip:user@",
        "sip:u@h:99999",
    ] {
        let (status, phrase) = refusal(&with(&bytes, "sip:user@example.com; lr", uri));
        assert_eq!(status, 400, "{uri}");
        assert!(phrase.starts_with("Bad URI: "), "{phrase}");
    }
}

/// 3.1.2.9: refusing is allowed, and so is to be liberal: there is only one way to read it. Used.
#[test]
fn lwsstart_several_spaces_in_the_start_line_are_read() {
    let invite = request(&rfc4475!("lwsstart"));
    assert_eq!(invite.uri.to_string(), "sip:user@example.com");
    assert!(
        invite
            .to_bytes()
            .starts_with(b"INVITE sip:user@example.com SIP/2.0\r\n"),
        "what is passed on is well-formed"
    );
}

/// 3.1.2.10: the same. Used.
#[test]
fn trws_trailing_spaces_in_the_start_line_are_read() {
    let options = request(&rfc4475!("trws"));
    assert_eq!(options.uri.to_string(), "sip:remote-target@example.com");
}

/// 3.1.2.11: read; the headers in the Request-URI are never applied to the message.
#[test]
fn escruri_headers_in_the_request_uri_are_not_applied() {
    let invite = request(&rfc4475!("escruri"));
    assert_eq!(
        invite.uri.headers.as_deref(),
        Some("Route=%3Csip:example.com%3E")
    );
    assert!(invite.headers.routes().is_empty());
}

/// 3.1.2.12: used; nothing here depends on the `Date`, which is passed on as it came.
#[test]
fn baddate_a_date_in_another_zone_is_no_reason_to_refuse() {
    let invite = request(&rfc4475!("baddate"));
    assert_eq!(
        invite.headers.get(&"Date".into()),
        Some("Fri, 01 Jan 2010 16:00:00 EST")
    );
}

/// 3.1.2.13: read as a URI with headers, which is what it can only mean.
#[test]
fn regbadct_a_bare_contact_with_headers_is_read() {
    let contact = request(&rfc4475!("regbadct"))
        .headers
        .contact()
        .unwrap()
        .unwrap();
    assert_eq!(
        contact.to_string(),
        "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>"
    );
}

/// 3.1.2.14: used.
#[test]
fn badaspec_spaces_inside_the_brackets_are_passed_over() {
    let to = request(&rfc4475!("badaspec")).headers.to().unwrap();
    assert_eq!(to.display.as_deref(), Some("Watson, Thomas"));
    assert_eq!(to.uri.to_string(), "sip:t.watson@example.org");
}

/// 3.1.2.15: used; what we write has the quotes.
#[test]
fn baddn_a_comma_in_an_unquoted_name_is_read() {
    let options = request(&rfc4475!("baddn"));
    let from = options.headers.from_().unwrap();
    assert_eq!(from.tag(), Some("43"));
    assert_eq!(
        from.to_string(),
        "\"Bell, Alexander\" <sip:a.g.bell@example.com>;tag=43"
    );
    let to = options.headers.to().unwrap();
    assert_eq!(to.display.as_deref(), Some("Watson, Thomas"));
}

/// 3.1.2.16: 505, though the `Via` is of that version too.
#[test]
fn badvers_an_unknown_version_gets_505() {
    let (error, reply) = refused(&rfc4475!("badvers"));
    assert_eq!(
        (error, reply.status, reply.reason.as_str()),
        (ParseError::Version, 505, "Version Not Supported")
    );
    assert_eq!(reply.headers.via().unwrap().branch(), Some("z9hG4bKkdjuw"));
}

/// 3.1.2.17: 400.
#[test]
fn mismatch01_a_cseq_with_another_method_is_refused() {
    let phrase = "Bad CSeq: method differs from the request's".to_owned();
    assert_eq!(refusal(&rfc4475!("mismatch01")), (400, phrase));
}

/// 3.1.2.18: 400; 501 for the unknown method would do as well.
#[test]
fn mismatch02_an_unknown_method_with_another_cseq_is_refused() {
    assert_eq!(refusal(&rfc4475!("mismatch02")).0, 400);
}

/// 3.1.2.19: dropped; so are other codes that are none.
#[test]
fn bigcode_an_overlarge_status_drops_the_response() {
    let bytes = rfc4475!("bigcode");
    for status in ["4294967301", "99", "700", "0200", "abc", ""] {
        let failure = failure(&with(&bytes, "4294967301", status));
        assert_eq!(failure.reply, None, "{status}");
        assert!(matches!(failure.error, ParseError::StartLine(_)));
    }
}

/// 3.2.1: a branch that is nothing but the magic cookie names no transaction; the rules of RFC 2543 do. Used.
#[test]
fn badbranch_a_branch_of_nothing_but_the_cookie_names_no_transaction() {
    let bytes = rfc4475!("badbranch");
    let other = with(&bytes, "CSeq: 8", "CSeq: 9");
    let mut endpoint = Endpoint::new(EndpointConfig::default(), 1);
    for bytes in [&bytes, &bytes, &other] {
        let flow = Flow::udp("192.0.2.1:5060".parse().unwrap());
        let message = Message::Request(request(bytes));
        endpoint.receive(message, flow, Instant::now());
    }
    assert_eq!(
        endpoint.counts().server,
        2,
        "the repeat is absorbed, the other request is not"
    );
}
