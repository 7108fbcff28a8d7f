//! What it costs to take an INVITE from a carrier and send it on: parse, both transactions, new `Via`, one hop less, print.
//!
//! `cargo bench -p ringwire-sip --bench forward`. Fails when more is allocated than the goal; the time is only printed, since it
//! depends on the machine and on what else it does.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringwire_sip::message::{HeaderName, Host, Message, Response, Uri, parse_datagram};
use ringwire_sip::transaction::{Endpoint, EndpointConfig, Event, Flow, ServerId};
use ringwire_sip_allocations as allocations;

/// Most allocations for one INVITE.
const GOAL: f64 = 40.0;
/// INVITEs between two pauses in which all transactions end, outside of the measurement.
const BATCH: u32 = 500;
const BATCHES: u32 = 200;

/// As a carrier's session border controller sends it, 900 bytes and more.
fn invite(number: u32) -> Vec<u8> {
    let body = "v=0\r\no=- 1718293847 1718293847 IN IP4 203.0.113.21\r\ns=SBC call\r\nc=IN IP4 203.0.113.21\r\nt=0 0\r\n\
        m=audio 24680 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
        a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";
    format!(
        "INVITE sip:k3v9q2@198.51.100.7:5060;transport=udp SIP/2.0\r\n\
         Via: SIP/2.0/UDP 203.0.113.20:5060;branch=z9hG4bK0cBf{number:08x}b1c2d3e4f5;rport\r\n\
         Max-Forwards: 69\r\n\
         From: \"+34600111222\" <sip:+34600111222@sip.carrier.example;user=phone>;tag=gK0c{number:08x}\r\n\
         To: <sip:+34911234567@198.51.100.7;user=phone>\r\n\
         Call-ID: {number:08x}-1718293847-129384@203.0.113.20\r\n\
         CSeq: 82731 INVITE\r\n\
         Contact: <sip:+34600111222@203.0.113.20:5060;transport=udp>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, REGISTER, REFER, INFO, SUBSCRIBE, NOTIFY, PRACK, UPDATE, OPTIONS\r\n\
         Supported: timer, 100rel, precondition\r\n\
         Session-Expires: 1800\r\n\
         Min-SE: 90\r\n\
         P-Asserted-Identity: <sip:+34600111222@sip.carrier.example;user=phone>\r\n\
         User-Agent: Carrier SBC 9.2.1\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// From the datagram that came to the one that goes.
fn forward(
    endpoint: &mut Endpoint,
    datagram: &[u8],
    from: SocketAddr,
    to: SocketAddr,
    now: Instant,
) -> ServerId {
    let message = parse_datagram(datagram).unwrap();
    endpoint.receive(message, Flow::udp(from), now);
    let Some(Event::Request {
        id, mut request, ..
    }) = endpoint.poll_event()
    else {
        panic!("the INVITE was not told")
    };
    let hops = request.headers.max_forwards().unwrap();
    request
        .headers
        .set(HeaderName::MaxForwards, (hops - 1).to_string());
    request.uri = Uri::sip(Some("+34911234567"), Host::from(to.ip()), Some(to.port()));
    let via = Host::Ip("198.51.100.7".parse().unwrap());
    endpoint.request(request, Flow::udp(to), &via, 5060, now);
    // The 100 and the INVITE.
    while let Some(sent) = endpoint.poll_transmit() {
        black_box(&sent.bytes);
    }
    id
}

/// Refuses every call and lets every transaction end.
fn settle(
    endpoint: &mut Endpoint,
    calls: Vec<ServerId>,
    datagrams: &[Vec<u8>],
    mut now: Instant,
) -> Instant {
    for (id, datagram) in calls.into_iter().zip(datagrams) {
        let Ok(Message::Request(request)) = parse_datagram(datagram) else {
            panic!("no request")
        };
        endpoint.respond(id, Response::to_request(&request, 503, None), now);
    }
    while let Some(at) = endpoint.poll_timeout() {
        now = at;
        endpoint.handle_timeout(at);
        while endpoint.poll_event().is_some() {}
        while endpoint.poll_transmit().is_some() {}
    }
    assert_eq!(endpoint.counts().server, 0);
    now
}

fn main() {
    // `cargo test` runs this too, for the allocations.
    let batches = if std::env::args().any(|arg| arg == "--bench") {
        BATCHES
    } else {
        1
    };
    let from = "203.0.113.20:5060".parse().unwrap();
    let to = "10.0.0.9:5060".parse().unwrap();
    // As the edge has it.
    let config = EndpointConfig {
        trying_at_once: true,
        ..EndpointConfig::default()
    };
    let mut endpoint = Endpoint::new(config, 7);
    let mut now = Instant::now();
    let mut times = Vec::new();
    let (mut allocated, mut bytes) = (0, 0);
    for batch in 0..=batches {
        let datagrams: Vec<_> = (0..BATCH)
            .map(|number| invite(batch * BATCH + number))
            .collect();
        let before = allocations::count();
        let bytes_before = allocations::bytes();
        let begun = Instant::now();
        let calls: Vec<_> = datagrams
            .iter()
            .map(|datagram| forward(&mut endpoint, datagram, from, to, now))
            .collect();
        let elapsed = begun.elapsed();
        // The first one warms up.
        if batch > 0 {
            times.push(elapsed);
            allocated += allocations::count() - before;
            bytes += allocations::bytes() - bytes_before;
        }
        now = settle(&mut endpoint, calls, &datagrams, now);
    }
    let runs = f64::from(batches * BATCH);
    let each = allocated as f64 / runs;
    times.sort_unstable();
    let nanos = |time: Duration| time.as_nanos() / u128::from(BATCH);
    println!(
        "parse + route + forward of an INVITE of {} bytes: {} ns (median of {batches} batches; best {} ns), \
         {each:.1} allocations, {:.0} bytes",
        invite(0).len(),
        nanos(times[times.len() / 2]),
        nanos(times[0]),
        bytes as f64 / runs,
    );
    assert!(each <= GOAL, "more than {GOAL} allocations");
}
