//! RFC 4475 section 3.1.1: messages that are valid, however they look. All are read and used.

use super::{request, response, rfc4475, wire};
use ringwire_sip::message::{
    HeaderName, Host, Message, Method, Request, StreamItem, StreamParser, parse_datagram,
};
use ringwire_sip::sdp::SessionDescription;

fn check_tortuous(invite: &Request) {
    assert_eq!(invite.method, Method::INVITE);
    assert!(invite.uri.params.has("unknownparam"));
    let headers = &invite.headers;
    let to = headers.to().unwrap();
    assert_eq!(
        (to.uri.to_string().as_str(), to.tag()),
        ("sip:vivekg@chair-dnrc.example.com", Some("1918181833n"))
    );
    let from = headers.from_().unwrap();
    assert_eq!(from.display.as_deref(), Some(r#"J Rosenberg \""#));
    assert_eq!(from.tag(), Some("98asjd8"));
    assert_eq!(headers.max_forwards(), Some(68));
    assert_eq!(headers.call_id().unwrap(), "wsinv.ndaksdj@192.0.2.1");
    assert_eq!(headers.cseq().unwrap(), (9, Method::INVITE));
    let vias = headers.vias().unwrap();
    let seen: Vec<_> = vias
        .iter()
        .map(|via| {
            (
                via.transport.as_str(),
                via.host.to_string(),
                via.branch().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("UDP", "192.0.2.2".to_owned(), "390skdjuw"),
            ("TCP", "spindle.example.com".to_owned(), "z9hG4bK9ikj8"),
            ("UDP", "192.168.255.111".to_owned(), "z9hG4bK30239"),
        ]
    );
    assert!(vias[0].wants_rport() && !vias[0].has_magic_branch() && vias[1].has_magic_branch());
    assert_eq!(headers.get(&HeaderName::from("Subject")), Some(""));
    assert_eq!(
        headers.get(&HeaderName::from("newfangledheader")),
        Some("newfangled value continued newfangled value")
    );
    assert_eq!(
        headers.get(&HeaderName::from("UnknownHeaderWithUnusualValue")),
        Some(";;,,;;,;")
    );
    let routes = headers.routes();
    assert!(
        routes.len() == 1
            && routes[0].uri.is_loose_router()
            && routes[0].uri.params.has("unknown-no-value")
    );
    let contact = headers.contact().unwrap().unwrap();
    assert_eq!(contact.display.as_deref(), Some(r#"Quoted string """#));
    assert_eq!(contact.params.get("newparam"), Some("newvalue"));
    assert_eq!(contact.params.get("q"), Some("0.33"));
    let sdp = SessionDescription::parse(&invite.body).unwrap();
    assert_eq!(sdp.media.len(), 2);
}

/// 3.1.1.1
#[test]
fn wsinv_a_short_tortuous_invite_is_read() {
    check_tortuous(&request(&rfc4475!("wsinv")));
}

/// 3.1.1.1 over TCP
#[test]
fn wsinv_is_read_from_a_stream_byte_by_byte() {
    let mut stream = StreamParser::new();
    let mut items = Vec::new();
    for byte in rfc4475!("wsinv") {
        stream.push(&[byte]);
        items.extend(stream.next().unwrap());
    }
    let [StreamItem::Message(Message::Request(invite))] = items.as_slice() else {
        panic!("{items:?}")
    };
    check_tortuous(invite);
    assert!(!stream.is_inside_message());
}

/// 3.1.1.2
#[test]
fn intmeth_the_wide_range_of_valid_characters_is_read() {
    let request = request(&rfc4475!("intmeth"));
    assert_eq!(
        request.method,
        Method::Other("!interesting-Method0123456789_*+`.%indeed'~".to_owned())
    );
    assert_eq!(
        request.uri.user.as_deref(),
        Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*")
    );
    assert_eq!(
        request.uri.password.as_deref(),
        Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
    );
    assert_eq!(request.uri.host, Host::Name("example.com".to_owned()));
    let headers = &request.headers;
    assert_eq!(
        headers.to().unwrap().display.as_deref(),
        Some("BEL:\x07 NUL:\x00 DEL:\x7F")
    );
    let from = headers.from_().unwrap();
    assert_eq!(
        from.display.as_deref(),
        Some("token1~` token2'+_ token3*%!.-")
    );
    assert_eq!(from.params.get("fromparam''~+*_!.-%"), Some("работающий"));
    assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
    assert_eq!(
        headers.call_id().unwrap(),
        "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    );
    assert_eq!(
        headers.get(&HeaderName::from("extensionHeader-!.%*+_`'~")),
        Some("\u{feff}大停電")
    );
}

/// 3.1.1.3
#[test]
fn esc01_percent_escapes_in_uris_are_kept_and_can_be_undone() {
    let request = request(&rfc4475!("esc01"));
    assert_eq!(
        request.uri.user.as_deref(),
        Some("sips%3Auser%40example.com")
    );
    assert_eq!(
        request.uri.user_unescaped().as_deref(),
        Some("sips:user@example.com")
    );
    assert_eq!(request.uri.host, Host::Name("example.net".to_owned()));
    let to = request.headers.to().unwrap();
    assert!(to.uri.equivalent(&"sip:user@example.com".parse().unwrap()));
    assert_eq!(
        request
            .headers
            .from_()
            .unwrap()
            .uri
            .user_unescaped()
            .as_deref(),
        Some("I have spaces")
    );
    let contact = request.headers.contact().unwrap().unwrap();
    assert_eq!(contact.uri.params.get("n%61me"), Some("v%61lue%25%34%31"));
}

/// 3.1.1.4
#[test]
fn escnull_an_escaped_nul_stays_escaped() {
    let register = request(&rfc4475!("escnull"));
    let contacts = register.headers.contacts().unwrap();
    assert_eq!(contacts.len(), 2);
    assert!(!contacts[0].uri.equivalent(&contacts[1].uri));
}

/// 3.1.1.5
#[test]
fn esc02_a_percent_sign_in_a_method_or_a_header_name_is_no_escape() {
    let request = request(&rfc4475!("esc02"));
    assert_eq!(request.method, Method::Other("RE%47IST%45R".to_owned()));
    assert_eq!(request.headers.contacts().unwrap().len(), 2);
    assert_eq!(
        request.headers.to().unwrap().display.as_deref(),
        Some("%Z%45")
    );
}

/// 3.1.1.6
#[test]
fn lwsdisp_no_white_space_is_needed_before_an_angle_bracket() {
    let options = request(&rfc4475!("lwsdisp"));
    assert_eq!(
        options.headers.from_().unwrap().display.as_deref(),
        Some("caller")
    );
}

/// 3.1.1.7
#[test]
fn longreq_long_values_are_read() {
    let bytes = rfc4475!("longreq");
    let invite = request(&bytes);
    let headers = &invite.headers;
    let hosts: Vec<_> = headers
        .vias()
        .unwrap()
        .into_iter()
        .map(|via| via.host.to_string())
        .collect();
    assert_eq!(hosts.len(), 34);
    assert_eq!(
        (hosts[0].as_str(), hosts[33].as_str()),
        ("sip33.example.com", "host.example.com")
    );
    let to = headers.to().unwrap();
    assert!(to.display.unwrap().ends_with("extreme proportion"));
    assert_eq!((to.uri.port, to.uri.params.iter().count()), (Some(6000), 3));
    let from = headers.from_().unwrap();
    assert_eq!(
        (from.tag().unwrap().len(), from.params.iter().count()),
        (204, 3)
    );
    // Compact names become full ones; nothing else is lost on the way through.
    assert_eq!(
        parse_datagram(&invite.to_bytes()),
        Ok(Message::Request(invite))
    );
}

/// 3.1.1.8
#[test]
fn dblreq_what_follows_the_content_length_in_a_datagram_is_discarded() {
    let register = request(&rfc4475!("dblreq"));
    assert_eq!(
        (register.method, register.body.len()),
        (Method::REGISTER, 0)
    );
}

/// 3.1.1.8 over TCP, where the second message is one
#[test]
fn dblreq_on_a_stream_is_two_messages() {
    let mut stream = StreamParser::new();
    stream.push(&rfc4475!("dblreq"));
    let mut methods = Vec::new();
    while let Some(item) = stream.next().unwrap() {
        if let StreamItem::Message(Message::Request(request)) = item {
            methods.push(request.method);
        }
    }
    assert_eq!(methods, [Method::REGISTER, Method::INVITE]);
}

/// 3.1.1.9
#[test]
fn semiuri_a_semicolon_in_the_user_part_belongs_to_the_user() {
    let options = request(&rfc4475!("semiuri"));
    assert_eq!(
        options.uri.user.as_deref(),
        Some("user;par=u%40example.net")
    );
    assert!(options.uri.params.is_empty());
    assert_eq!(options.headers.values(&HeaderName::Accept).count(), 6);
}

/// 3.1.1.10
#[test]
fn transports_any_transport_may_stand_in_a_via() {
    let options = request(&rfc4475!("transports"));
    let transports: Vec<_> = options
        .headers
        .vias()
        .unwrap()
        .into_iter()
        .map(|via| via.transport)
        .collect();
    assert_eq!(transports, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
}

/// 3.1.1.11: the body is passed on as it is. Its signature is replaced by octets that no text contains.
#[test]
fn mpart01_a_multipart_body_with_binary_parts_is_kept() {
    let signature: Vec<u8> = (0..=255).chain(0..88).collect();
    let part = "--7a9cbec02ceef655\nContent-Type: ";
    let text = format!("{part}text/plain\nContent-Transfer-Encoding: binary\n\nHello\n");
    let binary = format!("{part}application/octet-stream\nContent-Transfer-Encoding: binary\n\n");
    let body = [
        wire(text.as_bytes()),
        wire(binary.as_bytes()),
        signature,
        b"\r\n--7a9cbec02ceef655--".to_vec(),
    ]
    .concat();
    let message = request(&[rfc4475!("mpart01"), body.clone()].concat());
    assert_eq!(body.len(), 553, "as its Content-Length says");
    assert!(message.body == body);
    let headers = &message.headers;
    assert_eq!(headers.content_type().as_deref(), Some("multipart/mixed"));
    assert_eq!(
        headers.content_type_param("boundary").as_deref(),
        Some("7a9cbec02ceef655")
    );
}

/// 3.1.1.12
#[test]
fn unreason_an_unusual_reason_phrase_is_kept() {
    let answer = response(&rfc4475!("unreason"));
    assert_eq!(
        answer.reason,
        "= 2**3 * 5**2 но сто девяносто девять - простое"
    );
}

/// 3.1.1.13; the space behind the status is left out by some.
#[test]
fn noreason_the_reason_phrase_may_be_empty() {
    let bytes = rfc4475!("noreason");
    for line in ["SIP/2.0 100 \r\n", "SIP/2.0 100\r\n"] {
        let answer = response(&super::with(&bytes, "SIP/2.0 100 \r\n", line));
        assert_eq!((answer.status, answer.reason.as_str()), (100, ""));
    }
}
