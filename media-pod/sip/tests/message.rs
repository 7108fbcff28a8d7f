//! Messages as carriers send them, hostile input, and what may never happen when one is written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use ringwire_sip::message::{
    HeaderName, Headers, Host, Message, Method, NameAddr, Params, ParseError, Request, Response,
    Scheme, StreamItem, StreamParser, Uri, Via, limits, parse_datagram,
};

const INVITE: &str = "INVITE sip:+34911234567@198.51.100.7:5060;transport=udp SIP/2.0\r\n\
    v: SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bK776;rport\r\n\
    Record-Route: <sip:p1.example.com;lr>, \"Edge, inner\" <sip:p2.example.com;lr>\r\n\
    f: \"Bob \\\"<the, first>\\\"\" <tel:+34600111222;phone-context=example.com>;tag=a1\r\n\
    t: <sip:+34911234567@198.51.100.7>\r\ni: abc@host\r\nCSEQ: 1 INVITE\r\nMax-Forwards: 70\r\n\
    m: <sip:bob@[2001:db8::1]:5070;ob>;expires=60\r\nX-Two: one\r\nx-two: two\r\nk: timer, 100rel\r\n\
    c: Application/SDP;charset=utf-8\r\n\r\nv=0\r\n";

fn invite() -> Request {
    match parse_datagram(INVITE.as_bytes()).unwrap() {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a response"),
    }
}

#[test]
fn reads_compact_names_ipv6_tel_uris_and_quoted_names() {
    let invite = invite();
    let headers = &invite.headers;
    let via = headers.via().unwrap();
    assert_eq!(
        (via.host, via.port),
        (Host::from("2001:db8::1"), Some(5070))
    );
    let from = headers.from_().unwrap();
    assert_eq!(from.display.as_deref(), Some("Bob \"<the, first>\""));
    assert_eq!(
        (from.uri.scheme.clone(), from.uri.user.as_deref()),
        (Scheme::Tel, Some("+34600111222"))
    );
    assert_eq!(
        from.uri.to_string(),
        "tel:+34600111222;phone-context=example.com"
    );
    assert_eq!(headers.record_routes().len(), 2);
    assert_eq!(
        headers
            .get_all(&HeaderName::from("X-TWO"))
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert!(headers.lists(&HeaderName::Supported, "100REL"));
    assert_eq!(headers.content_type().as_deref(), Some("application/sdp"));
    assert_eq!(
        invite.body, b"v=0\r\n",
        "without Content-Length the body is the rest of the datagram"
    );
}

#[test]
fn header_bytes_that_are_no_utf8_are_read_as_latin1() {
    let mut bytes = b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP b;branch=z9hG4bK1\r\nFrom: \"Jos\xe9\" <sip:a@b>;tag=1\r\n".to_vec();
    bytes.extend_from_slice(
        "To: \"José\" <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n".as_bytes(),
    );
    let message = parse_datagram(&bytes).unwrap();
    assert_eq!(
        message.headers().from_().unwrap().display.as_deref(),
        Some("José")
    );
    assert_eq!(
        message.headers().to().unwrap().display.as_deref(),
        Some("José")
    );
}

#[test]
fn a_response_takes_over_what_identifies_the_request() {
    let mut response = Response::to_request(&invite(), 180, None);
    response.set_to_tag("z");
    response.set_to_tag("other");
    let text = String::from_utf8(response.to_bytes()).unwrap();
    assert_eq!(
        text,
        "SIP/2.0 180 Ringing\r\nVia: SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bK776;rport\r\n\
         From: \"Bob \\\"<the, first>\\\"\" <tel:+34600111222;phone-context=example.com>;tag=a1\r\n\
         To: <sip:+34911234567@198.51.100.7>;tag=z\r\nCall-ID: abc@host\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn the_source_is_noted_in_the_topmost_via_only() {
    let mut headers = invite().headers;
    headers.push(
        HeaderName::Via,
        "SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK2",
    );
    headers.note_source("203.0.113.9:1024".parse().unwrap());
    let vias = headers.vias().unwrap();
    assert_eq!(
        (vias[0].received(), vias[0].rport()),
        (Some("203.0.113.9".parse().unwrap()), Some(1024))
    );
    assert_eq!((vias[1].received(), vias[1].rport()), (None, None));
    let mut forged = Headers::new();
    forged.push(
        HeaderName::Via,
        "SIP/2.0/UDP 192.0.2.1:5060;received=198.51.100.1;branch=z9hG4bK2",
    );
    forged.note_source("192.0.2.1:5060".parse().unwrap());
    assert_eq!(
        forged.via().unwrap().received(),
        None,
        "a received that the sender wrote itself is not believed"
    );
}

#[test]
fn values_can_be_taken_from_and_put_into_comma_lists() {
    let mut headers = invite().headers;
    let unsplit = HeaderName::Contact;
    headers.set(unsplit.clone(), "\"a,b\" <sip:a@b,c>, <sip:d@e>");
    assert_eq!(headers.values(&unsplit).count(), 2);
    assert_eq!(
        headers.pop_first(&unsplit).as_deref(),
        Some("\"a,b\" <sip:a@b,c>")
    );
    headers.replace_first(&unsplit, "<sip:x@y>");
    assert_eq!(headers.pop_first(&unsplit).as_deref(), Some("<sip:x@y>"));
    assert_eq!(headers.pop_first(&unsplit), None);
    let order: Vec<_> = headers
        .iter()
        .map(|(name, _)| name.clone())
        .take(3)
        .collect();
    assert_eq!(
        order,
        [
            HeaderName::Via,
            HeaderName::RecordRoute,
            HeaderName::RecordRoute
        ]
    );
}

#[test]
fn set_keeps_the_place_of_the_first_and_drops_the_others() {
    let mut headers = invite().headers;
    let two = HeaderName::Other("X-Two".to_owned());
    let before = headers.iter().position(|(name, _)| *name == two).unwrap();
    headers.set(two.clone(), "only");
    assert_eq!(headers.get_all(&two).collect::<Vec<_>>(), ["only"]);
    assert_eq!(
        headers.iter().position(|(name, _)| *name == two).unwrap(),
        before
    );
}

#[test]
fn uris_are_compared_by_rfc_3261_section_19_1_4() {
    let same = [
        (
            "sip:%61lice@atlanta.com;transport=TCP",
            "sip:alice@AtlanTa.CoM;Transport=tcp",
        ),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        (
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;newparam=5",
        ),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("tel:+1-201-555-0123", "tel:+12015550123"),
    ];
    let different = [
        (
            "SIP:ALICE@AtLanTa.CoM;Transport=udp",
            "sip:alice@AtLanTa.CoM;Transport=UDP",
        ),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        (
            "sip:bob@biloxi.com",
            "sip:bob@biloxi.com:6000;transport=tcp",
        ),
        (
            "sip:carol@chicago.com",
            "sip:carol@chicago.com?Subject=next%20meeting",
        ),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        (
            "sip:carol@chicago.com;security=on",
            "sip:carol@chicago.com;security=off",
        ),
        ("sip:a@b", "sips:a@b"),
    ];
    let check = |(a, b): (&str, &str)| {
        let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
        assert_eq!(a.equivalent(&b), b.equivalent(&a));
        a.equivalent(&b)
    };
    for pair in same {
        assert!(check(pair), "{pair:?}");
    }
    for pair in different {
        assert!(!check(pair), "{pair:?}");
    }
}

#[test]
fn a_uri_with_a_parameter_twice_is_equivalent_to_itself() {
    let uri = Uri::parse("sip:a@b;user=x;USER=phone").unwrap();
    assert!(uri.equivalent(&uri));
    assert!(!uri.equivalent(&Uri::parse("sip:a@b;user=ip").unwrap()));
}

#[test]
fn a_built_user_part_is_escaped() {
    let uri = Uri::sip(Some("a b@c:d>"), "2001:db8::5", Some(5080));
    assert_eq!(uri.to_string(), "sip:a%20b%40c%3Ad%3E@[2001:db8::5]:5080");
    assert_eq!(
        Uri::parse(&uri.to_string())
            .unwrap()
            .user_unescaped()
            .as_deref(),
        Some("a b@c:d>")
    );
}

#[test]
fn a_uri_without_a_host_keeps_its_text() {
    for text in ["urn:service:sos%2", "tel:%2", "mailto:a@b", "tel:*21#"] {
        assert_eq!(Uri::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn line_ends_never_start_a_header() {
    let mut request = Request::new(
        Method::Other("OP\r\nX: y".to_owned()),
        Uri::sip(Some("a"), "b", None),
    );
    request.uri.user = Some("a\r\nEvil: 1".to_owned());
    request.uri.params.set("p\r\nEvil: 2", Some("v\r\nEvil: 3"));
    request.uri.host = Host::Name("h\r\nEvil: 4".to_owned());
    let mut to = NameAddr::new(Uri::tel("1\r\nEvil: 5"));
    to.display = Some("d\r\nEvil: 6".to_owned());
    to.set_tag("t\r\nEvil: 7");
    request.headers.push(HeaderName::To, to.to_string());
    request
        .headers
        .push(HeaderName::from("X"), "x\r\nEvil: 8\nEvil: 9\rEvil: 10");
    request
        .headers
        .push(HeaderName::Other("Y\r\nEvil".to_owned()), "11");
    request
        .headers
        .insert_first(HeaderName::ContentLength, "99");
    let text = String::from_utf8(request.to_bytes()).unwrap();
    assert!(
        !text
            .split(['\r', '\n'])
            .any(|line| line.starts_with("Evil")),
        "{text}"
    );
    assert_eq!(text.matches("Content-Length").count(), 1);
    let mut response = Response::to_request(&request, 200, Some("x\r\nEvil: 1"));
    response.set_to_tag("t\r\nEvil: 2");
    let text = String::from_utf8(response.to_bytes()).unwrap();
    assert!(
        !text
            .split(['\r', '\n'])
            .any(|line| line.starts_with("Evil")),
        "{text}"
    );
}

#[test]
fn noise_is_dropped_without_an_answer() {
    for bytes in [&b"\r\n\r\n"[..], b"", b"\0\0\0\0"] {
        assert_eq!(
            parse_datagram(bytes).unwrap_err().error,
            ParseError::KeepAlive
        );
    }
    for bytes in [
        &b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"[..],
        b"GET / HTTP/1.1\r\nVia: SIP/2.0/UDP a;branch=1\r\n\r\n",
    ] {
        let failure = parse_datagram(bytes).unwrap_err();
        assert_eq!((failure.error, failure.reply), (ParseError::NotSip, None));
    }
}

#[test]
fn a_faulty_ack_is_never_answered() {
    let text = INVITE
        .replace("INVITE", "ACK")
        .replace("CSEQ: 1", "CSEQ: x");
    assert!(parse_datagram(text.as_bytes()).unwrap_err().reply.is_none());
}

#[test]
fn too_many_or_too_large_headers_are_answered_with_513() {
    let many = INVITE.replacen("X-Two: one", &"X: 1\r\n".repeat(limits::MAX_HEADERS), 1);
    let large = INVITE.replacen(
        "X-Two: one",
        &format!("X: {}", "y".repeat(limits::MAX_HEADER_BYTES)),
        1,
    );
    let vias = INVITE.replacen(
        "X-Two: one",
        &format!("v: {}", ["SIP/2.0/UDP a"; 200].join(",")),
        1,
    );
    for text in [many, large, vias] {
        let failure = parse_datagram(text.as_bytes()).unwrap_err();
        assert_eq!(failure.error, ParseError::HeadersTooLarge);
        assert_eq!(failure.reply.unwrap().status, 513);
    }
}

#[test]
fn a_stream_gives_messages_and_keep_alives_in_order() {
    let sized = INVITE.replace("\r\n\r\nv=0", "\r\nl: 5\r\n\r\nv=0");
    let mut stream = StreamParser::new();
    stream.push(format!("\r\n\r\n{sized}{sized}\r\n").as_bytes());
    assert_eq!(stream.next().unwrap(), Some(StreamItem::Ping));
    for _ in 0..2 {
        assert_eq!(
            stream.next().unwrap(),
            Some(StreamItem::Message(invite().into()))
        );
    }
    assert_eq!(stream.next().unwrap(), Some(StreamItem::Pong));
    assert_eq!(stream.next().unwrap(), None);
}

#[test]
fn a_faulty_message_in_a_stream_is_skipped() {
    let sized = INVITE.replace("\r\n\r\nv=0", "\r\nl: 5\r\n\r\nv=0");
    let mut stream = StreamParser::new();
    stream.push(sized.replace("CSEQ: 1", "CSEQ: x").as_bytes());
    stream.push(sized.as_bytes());
    let failure = stream.next().unwrap_err();
    assert!(!failure.framing_lost && failure.reply.unwrap().status == 400);
    assert!(matches!(
        stream.next().unwrap(),
        Some(StreamItem::Message(_))
    ));
}

#[test]
fn a_stream_without_a_way_to_go_on_fails_for_good() {
    let endless = format!(
        "OPTIONS sip:a@b SIP/2.0\r\nX: {}",
        "x".repeat(limits::MAX_HEADER_BYTES)
    );
    let too_long = INVITE.replace("\r\n\r\nv=0", "\r\nl: 9999999\r\n\r\nv=0");
    for text in [INVITE, &endless, &too_long, "GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = StreamParser::new();
        stream.push(text.as_bytes());
        assert!(stream.next().unwrap_err().framing_lost);
        stream.push(INVITE.as_bytes());
        assert!(stream.next().unwrap_err().framing_lost);
    }
}

#[test]
fn a_stream_never_holds_more_than_its_bound() {
    let mut stream = StreamParser::new();
    for _ in 0..1000 {
        stream.push(&[b'x'; 4096]);
    }
    assert_eq!(
        stream.next().unwrap_err().error,
        ParseError::HeadersTooLarge
    );
}

proptest! {
    #[test]
    fn no_datagram_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse_datagram(&bytes);
    }

    #[test]
    fn no_damaged_message_panics_and_what_is_read_is_stable(
        changes in prop::collection::vec((0..INVITE.len(), any::<u8>()), 0..8),
        cut in 0..INVITE.len(),
    ) {
        let mut bytes = INVITE.as_bytes().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(cut);
        }
        match parse_datagram(&bytes) {
            Ok(message) => {
                let printed = message.to_bytes();
                let again = parse_datagram(&printed).unwrap();
                prop_assert_eq!(again.to_bytes(), printed);
                prop_assert_eq!(again.headers(), message.headers());
                prop_assert_eq!(again.body(), message.body());
            }
            Err(failure) => {
                if let Some(reply) = failure.reply {
                    prop_assert!(reply.to_bytes().starts_with(b"SIP/2.0 "));
                }
            }
        }
        let mut stream = StreamParser::new();
        for piece in bytes.chunks(7) {
            stream.push(piece);
            let _ = stream.next();
        }
    }

    #[test]
    fn values_that_are_written_read_the_same(text in "\\PC{0,60}", tag in "\\PC{1,20}", name in "[a-z]{1,8}") {
        let mut address = NameAddr::new(Uri::sip(Some(&text), "example.com", None));
        address.display = Some(text.clone());
        address.params.set(&name, Some(&tag));
        let again = NameAddr::parse(&address.to_string()).unwrap();
        prop_assert_eq!(&again, &address);
        prop_assert_eq!(again.uri.user_unescaped(), (!text.is_empty()).then_some(text));
    }

    #[test]
    fn parsed_values_print_stably(text in "[a-z@:;,<>\"\\\\?=% \\[\\]/0-9.é]{0,40}") {
        for text in [text.clone(), format!("sip:{text}"), format!("\"x\" <sip:a@b>;{text}"), format!("<sip:{text}>")] {
            if let Ok(address) = NameAddr::parse(&text) {
                let printed = address.to_string();
                prop_assert_eq!(NameAddr::parse(&printed).unwrap().to_string(), printed);
            }
            if let Ok(uri) = Uri::parse(&text) {
                let printed = uri.to_string();
                prop_assert_eq!(Uri::parse(&printed).unwrap().to_string(), printed);
            }
        }
        if let Ok(via) = Via::parse(&format!("SIP/2.0/UDP {text}")) {
            let printed = via.to_string();
            prop_assert_eq!(Via::parse(&printed).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn headers_that_are_pushed_stay_one_line(value in "(?s).{0,80}", name in "(?s).{0,20}") {
        let mut request = invite();
        request.body.clear();
        request.headers.push(HeaderName::from(name.as_str()), value);
        let printed = request.to_bytes();
        let lines = printed.split(|byte| *byte == b'\n').count();
        prop_assert!(lines == request.headers.len() + 4 || lines == request.headers.len() + 3);
    }
}

#[test]
fn parameters_are_found_whatever_their_case() {
    let params: Params = [("Tag", Some("a")), ("lr", None)].into_iter().collect();
    assert_eq!(
        (params.get("tag"), params.get("LR"), params.get("x")),
        (Some("a"), Some(""), None)
    );
    assert_eq!(params.to_string(), ";Tag=a;lr");
}

#[test]
fn what_was_just_small_enough_still_is_with_our_own_headers() {
    use limits::HeaderLimits;
    let head = "OPTIONS sip:a@x SIP/2.0\r\nVia: SIP/2.0/TCP x;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\n\
                To: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n";
    let with = |fields: usize| format!("{head}{}\r\n", "X: 1\r\n".repeat(fields - 5));
    let read = |limits: HeaderLimits, text: &str| {
        let mut parser = StreamParser::with_limits(limits);
        parser.push(text.as_bytes());
        parser.next().map(drop).map_err(|failure| failure.error)
    };
    let (full, over) = (with(limits::MAX_HEADERS), with(limits::MAX_HEADERS + 20));
    assert_eq!(read(HeaderLimits::STRANGERS, &full), Ok(()));
    let refused = Err(ParseError::HeadersTooLarge);
    assert_eq!(read(HeaderLimits::STRANGERS, &over), refused);
    assert_eq!(read(HeaderLimits::OWN, &over), Ok(()));
}
