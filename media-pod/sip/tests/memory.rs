//! What hostile input may cost: memory stays in proportion to what was sent, or under a cap; and what is over, is given
//! back.

use std::time::Instant;

use proptest::prelude::*;
use ringwire_sip::message::limits::{MAX_BODY, MAX_DATAGRAM, MAX_HEADER_BYTES, MAX_STREAM_BUFFER};
use ringwire_sip::message::{Message, Response, StreamParser, parse_datagram};
use ringwire_sip::sdp::SessionDescription;
use ringwire_sip::transaction::{Endpoint, EndpointConfig, Event, Flow};
use ringwire_sip_allocations::{held, peak};

/// What reading costs whatever the size: tables of headers and parameters.
const BASE: usize = 24 * 1024;
/// What reading a message costs for each of its bytes: Latin-1 becomes two bytes, and is put together before it is
/// shared.
const TIMES: usize = 5;

const START: &[u8] = b"INVITE sip:a@b SIP/2.0\r\n";
const WHOLE: &[u8] = b"Via: SIP/2.0/UDP b;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n";

fn check_message(bytes: &[u8]) {
    let (_, peak) = peak(|| parse_datagram(bytes).is_ok());
    let most = BASE + TIMES * bytes.len();
    assert!(peak <= most, "{peak} bytes for {}", bytes.len());
}

fn check_description(bytes: &[u8]) {
    let (_, peak) = peak(|| SessionDescription::parse(bytes).is_ok());
    // 16 lines of 128 formats and 512 attributes, however short, take this much.
    let most = 192 * 1024 + 4 * bytes.len();
    assert!(peak <= most, "{peak} bytes for {}", bytes.len());
}

/// A datagram of the largest size that is nothing but this, over and over.
fn full_of(start: &[u8], piece: &[u8]) -> Vec<u8> {
    let room = MAX_DATAGRAM - start.len();
    let rest = piece.iter().copied().cycle().take(room);
    start.iter().copied().chain(rest).collect()
}

#[test]
fn reading_a_message_costs_a_multiple_of_its_size() {
    let start = [START, WHOLE].concat();
    let pieces: [&[u8]; 16] = [
        b"x",
        b"a\n",
        b"\xff\n",
        b"\xff",
        b"a:\n",
        b"X-A: b\r\n",
        b" \n",
        b"v: SIP/2.0/UDP a\n",
        b"v:SIP/2.0/UDP a,SIP/2.0/UDP b,SIP/2.0/UDP c\n",
        b"v: a,b,c,d,e,f,g,",
        b"m: <sip:a@b>,",
        b";a;b=\"c\"",
        b"\"",
        b"\\\"",
        b"\r",
        b"\0",
    ];
    for piece in pieces {
        for start in [
            &start[..],
            START,
            b"",
            b"OPTIONS sip:a@b",
            b"OPTIONS sip:a@b;c",
            b"SIP/2.0 200 ",
            b"INVITE ",
        ] {
            let bytes = full_of(start, piece);
            check_message(&bytes);
            check_message(&bytes[..2000]);
        }
    }
    check_message(&full_of(&[&start[..], b"\r\n"].concat(), b"body"));
}

#[test]
fn reading_a_description_is_capped() {
    for piece in [
        "a=b\n",
        "b=c\n",
        "m=audio 1 RTP/AVP 0 0 0 0\n",
        "m=audio 1 a 0\na=b\n",
        " 0",
        "c=IN IP4 1.2.3.4\n",
        "=\n",
    ] {
        for start in ["", "m=audio 1 RTP/AVP", "v=0\nm=audio 1 RTP/AVP 0\n"] {
            check_description(&full_of(start.as_bytes(), piece.as_bytes()));
        }
    }
    let formats = format!("m=audio 1 RTP/AVP{}", " 0".repeat(129));
    assert!(SessionDescription::parse(formats.as_bytes()).is_err());
}

#[test]
fn a_stream_holds_no_more_than_its_cap() {
    let head = [START, WHOLE, b"Content-Length: 65536\r\n\r\n"].concat();
    for (start, piece) in [
        (&b""[..], &b"x"[..]),
        (START, b"a: b\r\n"),
        (&head, b"body"),
        (b"", b"\r\n"),
        (&head, START),
    ] {
        let bytes = full_of(start, piece);
        let ((), peak) = peak(|| {
            let mut stream = StreamParser::new();
            for _ in 0..10 {
                for piece in bytes.chunks(4096) {
                    stream.push(piece);
                    // One that doesn't read what it has pushed must not cost more either.
                    if piece.len() % 2 == 0 && start.is_empty() {
                        continue;
                    }
                    while let Ok(Some(_)) = stream.next() {}
                }
            }
        });
        // A buffer grows by doubling.
        let most = 2 * MAX_STREAM_BUFFER + TIMES * (MAX_HEADER_BYTES + MAX_BODY) + BASE;
        assert!(peak <= most, "{peak} bytes");
    }
}

#[test]
fn an_endpoint_gives_back_what_ended_transactions_have_taken() {
    let flow = Flow::udp("192.0.2.1:5060".parse().unwrap());
    let mut endpoint = Endpoint::new(EndpointConfig::default(), 1);
    let mut now = Instant::now();
    let before = held();
    for number in 0..2000 {
        let text = String::from_utf8([START, WHOLE, b"\r\n"].concat()).unwrap();
        let text = text.replace("z9hG4bK1", &format!("z9hG4bK{number}"));
        let text = text.replace("Call-ID: x", &format!("Call-ID: {number}"));
        let message = parse_datagram(text.as_bytes()).unwrap();
        endpoint.receive(message, flow.clone(), now);
        while let Some(event) = endpoint.poll_event() {
            if let Event::Request { id, request, .. } = event {
                endpoint.respond(id, Response::to_request(&request, 486, None), now);
                endpoint.request(request, flow.clone(), &"192.0.2.9".into(), 5060, now);
            }
        }
        while endpoint.poll_transmit().is_some() {}
    }
    assert_eq!(endpoint.counts().server, 2000);
    let full = held() - before;
    while let Some(at) = endpoint.poll_timeout() {
        now = at;
        endpoint.handle_timeout(now);
        while endpoint.poll_event().is_some() {}
        while endpoint.poll_transmit().is_some() {}
    }
    // Small tables and queues keep their room.
    let left = held() - before;
    assert!(left < 640 * 1024, "{left} of {full} bytes are left");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn reading_noise_costs_a_multiple_of_its_size(
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[a-zA-Z]{1,12}: [ -~]{0,60}\r\n".prop_map(String::into_bytes),
            "(;[a-z]{0,3}(=[a-z\"]{0,3})?){0,70}".prop_map(String::into_bytes),
        ], 0..150),
    ) {
        check_message(&[START, WHOLE, &pieces.concat()].concat());
        check_description(&pieces.concat());
    }

    #[test]
    fn copies_of_a_message_share_its_head(count in 1..50_usize) {
        let bytes = [START, WHOLE, &b"X-Long: ".repeat(2000), b"\r\n\r\n"].concat();
        let message = parse_datagram(&bytes).unwrap();
        let before = held();
        let copies: Vec<Message> = vec![message; count];
        let each = (held() - before) as usize / copies.len();
        prop_assert!(each < 4096, "{each} bytes for a copy");
    }
}
