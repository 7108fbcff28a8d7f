//! What holds for every input, whoever sent it: the fuzz targets and `tests/properties.rs` both check it.
//!
//! Each function takes bytes as they came from the network and panics where a promise of the crate is broken. What it
//! means for a particular message to be read rightly is for the other tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ringwire_sip::message::limits::{MAX_HEADER_BYTES, MAX_HEADERS};
use ringwire_sip::message::{
    HeaderName, Message, ParseFailure, Response, StreamItem, StreamParser, Uri, parse_datagram,
};
use ringwire_sip::sdp::{
    Capabilities, Codec, Encryption, LocalMedia, Secret, SessionDescription, answer, apply_answer,
    offer,
};
use ringwire_sip::transaction::{Endpoint, EndpointConfig, Event, Flow};

const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 5060);

/// A datagram: what is read prints stably and one header a line; a transaction made from it ends.
pub fn message(bytes: &[u8]) {
    match parse_datagram(bytes) {
        Ok(message) => {
            check_printed(&message);
            read_everything(&message);
            check_transaction(message);
        }
        Err(failure) => check_failure(&failure),
    }
}

/// A session description: what is read prints stably; if it can be answered, the answer fits the offer.
pub fn sdp(bytes: &[u8]) {
    let (caps, local) = own_media();
    let Ok(theirs) = SessionDescription::parse(bytes) else {
        return;
    };
    let printed = theirs.to_string();
    let again = SessionDescription::parse(printed.as_bytes()).expect("what is printed can be read");
    assert_eq!(again.to_string(), printed);
    assert_eq!(again.media.len(), theirs.media.len());
    if let Ok((reply, agreed)) = answer(&theirs, &caps, &local) {
        assert_eq!(reply.media.len(), theirs.media.len());
        assert_eq!(
            reply.media.iter().filter(|media| media.port != 0).count(),
            1
        );
        assert_eq!(agreed.receive_codecs.len(), 1);
    }
    let _ = apply_answer(&offer(&caps, &local), &theirs, &caps);
}

/// A stream: what it gives doesn't depend on how it was cut. The first byte says how.
pub fn stream(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read_stream(bytes, bytes.len().max(1));
    assert_eq!(whole, read_stream(bytes, usize::from(cut % 61) + 1));
    for item in &whole {
        match item {
            Ok(StreamItem::Message(message)) => check_printed(message),
            Ok(_) => {}
            Err(failure) => check_failure(failure),
        }
    }
}

/// Printing keeps every header, each on a line of its own, and what was printed is read the same.
fn check_printed(message: &Message) {
    let printed = message.to_bytes();
    check_lines(&printed, message.headers().len(), message.body());
    if message.headers().len() >= MAX_HEADERS || printed.len() > MAX_HEADER_BYTES {
        // With the Content-Length, or a compact name in full, it may be too large for a reader such as ours.
        return;
    }
    let again = parse_datagram(&printed).expect("what is printed can be read");
    assert_eq!(again.headers(), message.headers());
    assert_eq!(again.body(), message.body());
    assert_eq!(again.to_bytes(), printed);
}

/// The start line, the headers, `Content-Length` and the empty line, and no line end anywhere else.
fn check_lines(printed: &[u8], headers: usize, body: &[u8]) {
    let head = &printed[..printed.len() - body.len()];
    let line_ends = head.split(|byte| *byte == b'\n').count() - 1;
    let returns = head.split(|byte| *byte == b'\r').count() - 1;
    assert_eq!((line_ends, returns), (headers + 3, headers + 3));
}

fn check_failure(failure: &ParseFailure) {
    if let Some(reply) = &failure.reply {
        let mut reply = reply.clone();
        reply.headers.note_source(PEER);
        let printed = reply.to_bytes();
        assert!(
            printed.starts_with(b"SIP/2.0 ") && reply.status >= 400 && !reply.reason.is_empty()
        );
        check_lines(&printed, reply.headers.len(), &reply.body);
    }
}

/// Every reader of a value; what they can read, prints stably.
fn read_everything(message: &Message) {
    let headers = message.headers();
    for (name, value) in headers.iter() {
        let _ = headers.values(name).count();
        for address in headers.readable(name) {
            let printed = address.uri.to_string();
            let again = Uri::parse(&printed).expect("a URI that is printed can be read");
            assert_eq!(again.to_string(), printed);
            assert!(address.uri.equivalent(&address.uri));
        }
        assert!(!value.contains(['\r', '\n']));
    }
    let _ = (
        headers.contacts(),
        headers.is_contact_star(),
        headers.expires(),
        headers.min_expires(),
    );
    let _ = (
        headers.retry_after(),
        headers.content_type(),
        headers.content_type_param("boundary"),
    );
    let _ = (
        headers.option_tags(&HeaderName::Require),
        headers.max_forwards(),
    );
}

/// A request that is received twice is told once; once answered, every transaction ends and nothing is due any more.
fn check_transaction(message: Message) {
    let start = Instant::now();
    let mut endpoint = Endpoint::new(EndpointConfig::default(), 1);
    endpoint.receive(message.clone(), Flow::udp(PEER), start);
    endpoint.receive(message, Flow::udp(PEER), start);
    let mut requests = 0;
    while let Some(event) = endpoint.poll_event() {
        if let Event::Request { id, request, .. } = event {
            requests += 1;
            let mut response = Response::to_request(&request, 404, None);
            response.set_to_tag("ours");
            endpoint.respond(id, response, start);
        }
    }
    assert!(requests <= 1, "a retransmission was told");
    while let Some(transmit) = endpoint.poll_transmit() {
        assert!(transmit.bytes.starts_with(b"SIP/2.0 "));
    }
    let end = start + Duration::from_secs(120);
    let mut timers = 0;
    while let Some(at) = endpoint.poll_timeout().filter(|at| *at <= end) {
        endpoint.handle_timeout(at);
        timers += 1;
        assert!(timers < 100, "time-outs that lead nowhere");
    }
    assert_eq!(endpoint.counts().server, 0);
}

/// The messages and failures of a stream that arrives in pieces of that many bytes, up to the point where it can't be
/// followed. Keep-alives are left out: a ping that is cut in two counts as two pongs.
fn read_stream(bytes: &[u8], piece: usize) -> Vec<Result<StreamItem, ParseFailure>> {
    let mut parser = StreamParser::new();
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        parser.push(piece);
        loop {
            match parser.next() {
                Ok(None) => break,
                Ok(Some(StreamItem::Ping | StreamItem::Pong)) => {}
                Ok(Some(item)) => items.push(Ok(item)),
                Err(failure) => {
                    let lost = failure.framing_lost;
                    items.push(Err(failure));
                    if lost {
                        return items;
                    }
                }
            }
        }
    }
    items
}

fn own_media() -> (Capabilities, LocalMedia) {
    let caps = Capabilities {
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        telephone_event: true,
        ptime_millis: 20,
        encryption: Encryption::Sdes {
            required: false,
            secret: Secret::new([7; 32]),
        },
        ice: Some(Secret::new([8; 32])),
    };
    let local = LocalMedia {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
        rtp_port: 20_000,
        session_id: 7,
        version: 1,
    };
    (caps, local)
}
