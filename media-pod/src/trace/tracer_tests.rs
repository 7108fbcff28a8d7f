//! From the tap to a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringwire_config::ObjectRef;
use ringwire_sip::transaction::{Flow, Transport};

use super::entry::Peer;
use super::filter::Filter;
use super::tap::Tap;
use super::tracer::{Hub, Listening, Traced, open};
use crate::private;

const CARRIER: &str = "203.0.113.5:5060";

fn carrier() -> Flow {
    Flow::udp(CARRIER.parse().unwrap())
}

/// A tap with a media pod called `media-0`, and the link to it.
fn start() -> (Tap, Hub, Flow) {
    let (mut tap, hub) = open("registrar-0");
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let link = Flow::open(Transport::Tcp, nowhere, 7);
    tap.link(&link, "media-0");
    (tap, hub, link)
}

fn request(method: &str, call: &str, more: &str) -> Vec<u8> {
    format!(
        "{method} sip:+34911234567@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bK1\r\n\
         From: <sip:600111222@h>;tag=1\r\nTo: <sip:+34911234567@h>\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n{more}\r\n"
    )
    .into_bytes()
}

/// What the registrar adds on the way to a media pod.
fn decided(provider: &str) -> String {
    format!(
        "{}: {provider}\r\n{}: default/sales\r\n{}: +34911234567\r\n",
        private::PROVIDER,
        private::NUMBER,
        private::CALLED
    )
}

fn filter(provider: Option<&str>, number: Option<&str>, call: Option<&str>) -> Filter {
    let [provider, number, call] = [provider, number, call].map(|part| part.map(str::to_owned));
    Filter {
        call,
        provider,
        number,
    }
}

async fn next(listening: &mut Listening) -> Arc<Traced> {
    tokio::time::timeout(Duration::from_secs(5), listening.messages.recv())
        .await
        .expect("a message within 5 s")
        .unwrap()
}

#[tokio::test]
async fn shows_who_says_what_to_whom() {
    let (mut tap, hub, link) = start();
    let mut listening = hub.listen(Filter::default()).unwrap();
    tap.received(&carrier(), &request("INVITE", "a", ""));
    tap.sent(&link, &request("INVITE", "a", &decided("default/netelip")));
    tap.received(&link, b"SIP/2.0 180 Ringing\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK2\r\nFrom: <sip:2@h>;tag=1\r\nTo: <sip:1@h>;tag=2\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n\r\n");
    tap.turn();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let entry = next(&mut listening).await.entry.clone();
        assert_eq!(
            entry.provider,
            Some(ObjectRef::new("default", "netelip")),
            "{entry:?}"
        );
        assert_eq!(entry.number.as_deref(), Some("+34911234567"));
        seen.push((
            entry.from,
            entry.to,
            entry.peer,
            entry.transport,
            entry.method,
            entry.status,
        ));
    }
    let line = |from: &str, to: &str, peer, transport: &str, status| {
        (
            from.to_owned(),
            to.to_owned(),
            peer,
            transport.to_owned(),
            "INVITE".to_owned(),
            status,
        )
    };
    assert_eq!(
        seen,
        [
            line(CARRIER, "registrar-0", Peer::Outside, "UDP", None),
            line("registrar-0", "media-0", Peer::MediaPod, "link", None),
            line("media-0", "registrar-0", Peer::MediaPod, "link", Some(180)),
        ]
    );
}

#[tokio::test]
async fn a_filter_knows_whose_call_it_is_from_its_invite_on() {
    let (mut tap, hub, link) = start();
    let mut listening = hub
        .listen(filter(Some("netelip"), Some("911 234 567"), None))
        .unwrap();
    for (call, provider) in [("a", "default/netelip"), ("b", "default/zadarma")] {
        tap.received(&carrier(), &request("INVITE", call, ""));
        tap.sent(&link, &request("INVITE", call, &decided(provider)));
        tap.turn();
    }
    for call in ["b", "a"] {
        tap.received(&carrier(), &request("BYE", call, ""));
        tap.turn();
    }
    for method in ["INVITE", "INVITE", "BYE"] {
        let traced = next(&mut listening).await;
        assert_eq!(
            (traced.entry.call_id.as_str(), traced.entry.method.as_str()),
            ("a", method)
        );
    }
    assert!(listening.messages.try_recv().is_err());
}

#[tokio::test]
async fn a_refused_call_belongs_to_the_provider_that_refused_it() {
    let (mut tap, hub, _) = start();
    let mut listening = hub
        .listen(filter(Some("default/netelip"), None, None))
        .unwrap();
    tap.received(&carrier(), &request("INVITE", "a", ""));
    tap.refused("a", Some(&ObjectRef::new("default", "netelip")), None);
    tap.turn();
    assert_eq!(next(&mut listening).await.entry.method, "INVITE");
}

#[tokio::test]
async fn a_stranger_cannot_say_whose_call_it_is() {
    let (mut tap, hub, _) = start();
    let mut listening = hub.listen(Filter::default()).unwrap();
    tap.received(
        &carrier(),
        &request("INVITE", "a", &decided("default/netelip")),
    );
    tap.turn();
    assert_eq!(next(&mut listening).await.entry.provider, None);
}

#[tokio::test]
async fn secrets_do_not_get_as_far_as_a_listener() {
    let (mut tap, hub, _) = start();
    let mut listening = hub.listen(Filter::default()).unwrap();
    tap.sent(
        &carrier(),
        &request(
            "REGISTER",
            "a",
            "Authorization: Digest username=\"u\", response=\"5f1c\"\r\n",
        ),
    );
    tap.sent(&carrier(), b"not SIP\r\nAuthorization: 5f1c\r\n");
    tap.turn();
    for shown in ["Digest ***", ""] {
        let traced = next(&mut listening).await;
        let all = format!(
            "{:?} {}",
            traced.entry,
            String::from_utf8_lossy(&traced.masked)
        );
        assert!(!all.contains("5f1c"), "{all}");
        assert_eq!(
            traced
                .entry
                .headers
                .get("Authorization")
                .map_or("", String::as_str),
            shown
        );
    }
}

#[tokio::test]
async fn a_repeat_is_told_from_the_first() {
    let (mut tap, hub, _) = start();
    let mut listening = hub.listen(Filter::default()).unwrap();
    for call in ["a", "a", "b"] {
        tap.received(&carrier(), &request("INVITE", call, ""));
    }
    tap.turn();
    for again in [false, true, false] {
        assert_eq!(next(&mut listening).await.entry.again, again);
    }
}

#[tokio::test]
async fn a_slow_listener_loses_messages_and_learns_how_many_while_others_get_all() {
    let (mut tap, hub, _) = start();
    let slow = hub.listen(Filter::default()).unwrap();
    let mut quick = hub.listen(Filter::default()).unwrap();
    let message = request("OPTIONS", "a", "");
    for _ in 0..700 {
        tap.received(&carrier(), &message);
        tap.turn();
        next(&mut quick).await;
    }
    assert_eq!(quick.lost(), 0);
    assert_eq!(slow.messages.len() as u64 + slow.lost(), 700);
    assert_eq!(slow.lost(), 0, "each loss is told once");
}

#[tokio::test]
async fn what_finds_no_room_is_counted_for_everybody() {
    let (mut tap, hub, _) = start();
    let mut listening = hub.listen(Filter::default()).unwrap();
    // Without a pause for the task in between: a single thread runs both.
    let message = request("OPTIONS", "a", "");
    for _ in 0..10_000 {
        tap.received(&carrier(), &message);
    }
    tap.turn();
    let mut seen = 0;
    while tokio::time::timeout(Duration::from_millis(200), listening.messages.recv())
        .await
        .is_ok()
    {
        seen += 1;
    }
    tap.received(&carrier(), &message);
    tap.turn();
    next(&mut listening).await;
    assert_eq!(seen + listening.lost(), 10_000);
}

#[tokio::test]
async fn nothing_is_kept_while_nobody_listens() {
    let (mut tap, hub, _) = start();
    tap.received(&carrier(), &request("OPTIONS", "before", ""));
    tap.turn();
    let listening = hub.listen(Filter::default()).unwrap();
    drop(listening);
    // The first message finds out that nobody is there any more.
    tap.received(&carrier(), &request("OPTIONS", "closing", ""));
    tap.turn();
    tokio::time::timeout(Duration::from_secs(5), async {
        while tap.is_open() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the tap closes");
    tap.received(&carrier(), &request("OPTIONS", "unheard", ""));
    let mut listening = hub.listen(Filter::default()).unwrap();
    tap.received(&carrier(), &request("OPTIONS", "heard", ""));
    tap.turn();
    assert_eq!(next(&mut listening).await.entry.call_id, "heard");
}

#[tokio::test]
async fn there_are_only_so_many_listeners() {
    let (_tap, hub, _) = start();
    let mut all: Vec<Listening> = std::iter::from_fn(|| hub.listen(Filter::default()))
        .take(100)
        .collect();
    assert_eq!(all.len(), 16);
    all.pop();
    assert!(hub.listen(Filter::default()).is_some());
}
