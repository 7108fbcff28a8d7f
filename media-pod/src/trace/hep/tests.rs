//! From the tap to a collector, which here is a socket: what it gets is judged by the packets' own tests, and end to end by Kamailio.

use std::net::{IpAddr, Ipv4Addr};

use ringwire_config::fixture;
use ringwire_config::gateway::RegistrarConfig;
use ringwire_sip::transaction::{Flow, Transport};

use super::super::filter::Filter;
use super::super::known::Ours;
use super::super::tap::Tap;
use super::super::tracer::open;
use super::*;

const OURS: Ours = Ours {
    address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
    udp: 5060,
    tcp: 5060,
    tls: 5061,
};

fn config(hep: Option<Hep>) -> Arc<RegistrarConfig> {
    Arc::new(RegistrarConfig {
        hep,
        ..fixture::registrar([])
    })
}

fn hep(host: Host, port: u16) -> Hep {
    Hep {
        host,
        port,
        capture_id: 1,
        password: None,
    }
}

fn start() -> (Tap, Hub, Exported) {
    let (tap, hub) = open("registrar-0");
    let exported = Exported::default();
    let resolver = ringwire_agent::connect::resolver().unwrap();
    hub.export(resolver, exported.clone());
    (tap, hub, exported)
}

async fn collector() -> (UdpSocket, Hep) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let hep = hep(Host::Address(address.ip()), address.port());
    (socket, hep)
}

fn carrier() -> Flow {
    Flow::udp("203.0.113.5:5062".parse().unwrap())
}

fn message(call: &str) -> Vec<u8> {
    format!("BYE sip:x@h SIP/2.0\r\nCall-ID: {call}\r\nCSeq: 2 BYE\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\n\r\n").into_bytes()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within 5 s"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let polling = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    within(what, polling).await;
}

/// The next packet, as text.
async fn next(socket: &UdpSocket) -> String {
    let mut buffer = [0; 2_000];
    let length = within("a packet", socket.recv(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn carriers_messages_go_to_the_collector_and_others_do_not() {
    let (mut tap, _hub, exported) = start();
    let (socket, hep) = collector().await;
    tap.configured(&config(Some(hep)), OURS);
    until("the tap opens", || tap.is_open()).await;
    let link = Flow::open(Transport::Tcp, ([0, 0, 0, 0], 0).into(), 7);
    tap.link(&link, "media-0");
    tap.sent(&link, &message("between-our-own"));
    tap.received(&carrier(), b"not SIP\r\n\r\n");
    tap.received(&carrier(), &message("from-a-carrier"));
    tap.turn();
    let packet = next(&socket).await;
    assert!(packet.contains("from-a-carrier"), "{packet:?}");
    assert!(packet.contains("registrar-0"), "{packet:?}");
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    until("it is counted", || load(&exported.sent) == 1).await;
    assert_eq!(load(&exported.dropped), 0);
}

#[tokio::test]
async fn the_tap_closes_when_the_collector_is_taken_away() {
    let (mut tap, hub, _) = start();
    let (socket, hep) = collector().await;
    tap.configured(&config(Some(hep)), OURS);
    until("the tap opens", || tap.is_open()).await;
    tap.configured(&config(None), OURS);
    // The exporter has to see it, and the tracer that nobody is there any more.
    until("the tap closes", || {
        tap.received(&carrier(), &message("a"));
        tap.turn();
        !tap.is_open()
    })
    .await;
    assert!(hub.listen(Filter::default()).is_some());
    let (other, hep) = collector().await;
    tap.configured(&config(Some(hep)), OURS);
    until("the tap opens again", || tap.is_open()).await;
    tap.received(&carrier(), &message("for-the-other"));
    tap.turn();
    while !next(&other).await.contains("for-the-other") {}
    drop(socket);
}

#[tokio::test]
async fn what_waits_for_a_collector_that_is_not_found_is_bounded_and_counted() {
    let (mut tap, _hub, exported) = start();
    let nowhere = hep(Host::Name("collector.invalid".into()), 9060);
    tap.configured(&config(Some(nowhere)), OURS);
    until("the tap opens", || tap.is_open()).await;
    for _ in 0..2_100 {
        tap.received(&carrier(), &message("a"));
        tap.turn();
        // The tracer takes it, so that nothing is lost before.
        tokio::task::yield_now().await;
    }
    let dropped = || exported.dropped.load(Ordering::Relaxed);
    until("what finds no room is counted", || dropped() >= 52).await;
    assert_eq!((dropped(), exported.sent.load(Ordering::Relaxed)), (52, 0));
}

#[tokio::test]
async fn a_message_is_summarised_for_people_only() {
    let (mut tap, hub) = open("registrar-0");
    let mut messages = hub.carriers(&Exported::default());
    let nowhere = hep(Host::Address(Ipv4Addr::LOCALHOST.into()), 9);
    tap.configured(&config(Some(nowhere)), OURS);
    let other = Filter {
        call: Some("b".to_owned()),
        ..Filter::default()
    };
    let _listening = hub.listen(other).unwrap();
    for (call, method) in [("a", ""), ("b", "BYE")] {
        tap.received(&carrier(), &message(call));
        tap.turn();
        let traced = within("a message", messages.recv()).await.unwrap();
        assert_eq!(traced.entry.call_id, call);
        assert_eq!(traced.entry.method, method);
        assert!(traced.masked.starts_with(b"BYE "));
    }
}

#[tokio::test]
async fn a_collector_that_nobody_runs_holds_up_nothing() {
    let (mut tap, _hub, exported) = start();
    let (socket, hep) = collector().await;
    drop(socket);
    tap.configured(&config(Some(hep)), OURS);
    until("the tap opens", || tap.is_open()).await;
    let dropped = || exported.dropped.load(Ordering::Relaxed);
    until("the kernel tells", || {
        tap.received(&carrier(), &message("a"));
        tap.turn();
        dropped() > 0
    })
    .await;
}

#[tokio::test]
async fn a_collector_takes_no_place_of_people() {
    let (tap, hub, _) = start();
    let (_socket, hep) = collector().await;
    tap.configured(&config(Some(hep)), OURS);
    until("the tap opens", || tap.is_open()).await;
    let people: Vec<_> = std::iter::from_fn(|| hub.listen(Filter::default()))
        .take(100)
        .collect();
    assert_eq!(people.len(), 16);
}
