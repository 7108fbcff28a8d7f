//! RFC 5118 section 4: IPv6 addresses in SIP and SDP.

use std::net::IpAddr;

use super::{refusal, request, rfc5118, with};
use ringwire_sip::message::Host;
use ringwire_sip::sdp::SessionDescription;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// 4.1
#[test]
fn ipv6_good_a_reference_in_brackets_is_read() {
    let register = request(&rfc5118!("ipv6-good"));
    let headers = &register.headers;
    assert_eq!(
        (register.uri.host.ip(), register.uri.port),
        (Some(ip("2001:db8::10")), None)
    );
    assert_eq!(headers.via().unwrap().host.ip(), Some(ip("2001:db8::9:1")));
    let contact = headers.contact().unwrap().unwrap();
    assert_eq!(contact.uri.host.ip(), Some(ip("2001:db8::1")));
    assert_eq!(contact.to_string(), "\"Caller\" <sip:caller@[2001:db8::1]>");
}

/// 4.2: without brackets it can't be told where the address ends. 400.
#[test]
fn ipv6_bad_a_reference_without_brackets_is_refused() {
    assert_eq!(
        refusal(&rfc5118!("ipv6-bad")),
        (400, "Bad URI: IPv6 address without brackets".to_owned())
    );
}

/// 4.3: well-formed; what was meant as the port is part of the address.
#[test]
fn port_ambiguous_a_port_inside_the_brackets_belongs_to_the_address() {
    let register = request(&rfc5118!("port-ambiguous"));
    assert_eq!(
        (register.uri.host.ip(), register.uri.port),
        (Some(ip("2001:db8::10:5070")), None)
    );
}

/// 4.4
#[test]
fn port_unambiguous_a_port_behind_the_brackets_is_the_port() {
    let register = request(&rfc5118!("port-unambiguous"));
    assert_eq!(
        (register.uri.host.ip(), register.uri.port),
        (Some(ip("2001:db8::10")), Some(5070))
    );
    assert_eq!(register.uri.to_string(), "sip:[2001:db8::10]:5070");
}

/// 4.5, first message: against the grammar, read nevertheless.
#[test]
fn via_received_param_with_delim_is_read() {
    let bye = request(&rfc5118!("via-received-param-with-delim"));
    let via = bye.headers.via().unwrap();
    assert_eq!(via.received(), Some(ip("2001:db8::9:255")));
}

/// 4.5, second message. What we write ourselves is this form.
#[test]
fn via_received_param_no_delim_is_read_and_written() {
    let mut options = request(&rfc5118!("via-received-param-no-delim"));
    let via = options.headers.via().unwrap();
    assert_eq!(via.received(), Some(ip("2001:db8::9:255")));
    options
        .headers
        .note_source("[2001:db8::9:254]:5060".parse().unwrap());
    let via = options.headers.via().unwrap();
    assert_eq!(via.params.get("received"), Some("2001:db8::9:254"));
    assert_eq!(via.received(), Some(ip("2001:db8::9:254")));
}

/// 4.6: in SDP there are no brackets.
#[test]
fn ipv6_in_sdp_the_address_of_the_media_is_read() {
    let bytes = rfc5118!("ipv6-in-sdp");
    let sdp = SessionDescription::parse(&request(&bytes).body).unwrap();
    assert_eq!(sdp.connection, Some(ip("2001:db8::20")));
    assert_eq!((sdp.media.len(), sdp.media[0].port), (2, 6000));
    assert_eq!(sdp.origin.address, "2001:db8::20");
    // The length as the RFC has it promises more than there is.
    let printed = with(&bytes, "Content-Length: 251", "Content-Length: 268");
    assert_eq!(
        refusal(&printed),
        (400, "Body shorter than Content-Length".to_owned())
    );
}

/// 4.7
#[test]
fn mult_ip_in_header_both_families_may_stand_in_the_vias() {
    let vias = request(&rfc5118!("mult-ip-in-header"))
        .headers
        .vias()
        .unwrap();
    let seen: Vec<_> = vias
        .iter()
        .map(|via| (via.host.ip().unwrap(), via.port, via.received()))
        .collect();
    assert_eq!(
        seen,
        [
            (ip("2001:db8::9:1"), Some(6050), None),
            (ip("192.0.2.1"), None, None),
            (ip("2001:db8::9:255"), None, Some(ip("192.0.2.200"))),
        ]
    );
}

/// 4.8
#[test]
fn mult_ip_in_sdp_each_stream_has_its_own_family() {
    let invite = request(&rfc5118!("mult-ip-in-sdp"));
    let sdp = SessionDescription::parse(&invite.body).unwrap();
    let connections: Vec<_> = sdp.media.iter().map(|media| media.connection).collect();
    assert_eq!(
        connections,
        [Some(ip("192.0.2.1")), Some(ip("2001:db8::1"))]
    );
    assert_eq!(sdp.connection, None);
}

/// 4.9
#[test]
fn ipv4_mapped_ipv6_addresses_are_read() {
    let invite = request(&rfc5118!("ipv4-mapped-ipv6"));
    let vias = invite.headers.vias().unwrap();
    assert_eq!(
        (vias[0].host.ip(), vias[0].port, vias[1].host.ip()),
        (
            Some(ip("::ffff:192.0.2.10")),
            Some(19823),
            Some(ip("::ffff:192.0.2.2"))
        )
    );
    let contact = invite.headers.contact().unwrap().unwrap();
    assert_eq!(contact.uri.host, Host::Ip(ip("::ffff:192.0.2.2")));
    assert_eq!(
        contact.uri.to_string(),
        "sip:ted@[::ffff:192.0.2.2]",
        "as it came"
    );
    let sdp = SessionDescription::parse(&invite.body).unwrap();
    assert_eq!(sdp.connection, Some(ip("::ffff:192.0.2.2")));
}

/// 4.10, first message: the third colon comes from the grammar of RFC 3261. It is read, and not passed on.
#[test]
fn ipv6_bug_abnf_3_colons_is_read_as_two() {
    let options = request(&rfc5118!("ipv6-bug-abnf-3-colons"));
    assert_eq!(options.uri.host.ip(), Some(ip("2001:db8::192.0.2.1")));
    assert_eq!(options.uri.to_string(), "sip:user@[2001:db8::c000:201]");
}

/// 4.10, second message
#[test]
fn ipv6_correct_abnf_2_colons_is_read() {
    let options = request(&rfc5118!("ipv6-correct-abnf-2-colons"));
    assert_eq!(options.uri.host.ip(), Some(ip("2001:db8::192.0.2.1")));
}
