//! A call whose peer finds its way by ICE.

use super::*;
use crate::ice::{Component, Terms};
use crate::jitter::Delay;
use crate::rtcp::REPORT_BYTES;
use crate::stun::tests::{answered, check, message};

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBtab";
const SDP: &str = "192.0.2.1:4000";
const HOME: &str = "203.0.113.7:5000";
const AWAY: &str = "198.51.100.4:6000";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn terms(ufrag: &str, muxed: bool) -> Terms {
    Terms {
        ufrag: ufrag.to_owned(),
        password: PASSWORD.to_owned().into(),
        muxed,
    }
}

struct Bench {
    stream: RtpStream,
    now: Instant,
    sent: u16,
}

impl Bench {
    fn new(muxed: bool) -> Self {
        let now = Instant::now();
        let session = Session {
            remote_rtcp: Some(address("192.0.2.1:4001")),
            ..Session::new(Codec::Pcmu, 0, Some(address(SDP)))
        };
        let config = StreamConfig {
            delay: Delay::Fixed(0),
            ice: Some(terms("ours1234", muxed)),
            ..StreamConfig::new(session, (77, 1, 1))
        };
        let mut stream = RtpStream::new(config, now);
        stream.start(now);
        let sent = 0;
        Self { stream, now, sent }
    }

    /// The code of the answer to a check.
    fn check(&mut self, datagram: &[u8], from: &str, component: Component) -> Option<u16> {
        let checked = self
            .stream
            .take_check(datagram, address(from), component, self.now);
        let code = checked.reply.map(|reply| answered(&reply).0);
        assert_eq!(checked.good, code == Some(200));
        code
    }

    fn nominate(&mut self, ufrag: &str, from: &str) -> Option<u16> {
        self.check(&check(ufrag, PASSWORD, true, 1), from, Component::Rtp)
    }

    /// Where the next packet goes, if there is one.
    fn tick(&mut self) -> Option<SocketAddr> {
        self.stream.handle_timeout(self.now);
        self.now += TICK;
        let mut out = [0; PACKET_BYTES];
        Some(self.stream.poll_transmit(&mut out)?.1)
    }

    /// Whether sound from there is heard.
    fn hears(&mut self, from: &str) -> bool {
        let packet = Packet {
            marker: false,
            payload_type: 0,
            sequence: self.sent,
            timestamp: u32::from(self.sent) * 160,
            ssrc: 5,
            payload: &[0; 160],
        };
        let mut buffer = [0; 200];
        let length = packet.write(&mut buffer).unwrap();
        self.sent += 1;
        let before = self.stream.stats().packets_received;
        self.stream
            .take(&mut buffer[..length], address(from), self.now);
        self.stream.stats().packets_received > before
    }

    fn moves(&mut self) -> Vec<StreamEvent> {
        let events = std::iter::from_fn(|| self.stream.poll_event());
        let moved = |event: &StreamEvent| matches!(event, StreamEvent::SourceMoved { .. });
        events.filter(moved).collect()
    }

    fn report(&mut self) -> Option<SocketAddr> {
        self.now += Duration::from_secs(10);
        let mut out = [0; REPORT_BYTES];
        Some(self.stream.poll_report(&mut out, self.now)?.1)
    }
}

#[test]
fn nothing_is_sent_before_there_was_a_check() {
    let mut bench = Bench::new(true);
    assert_eq!((bench.tick(), bench.report()), (None, None));
    let forged = check("ours1234", "guess", true, 1);
    assert_eq!(bench.check(&forged, HOME, Component::Rtp), Some(401));
    assert_eq!(bench.nominate("theirs12", HOME), None);
    assert_eq!(bench.tick(), None);
    assert_eq!(bench.nominate("ours1234", HOME), Some(200));
    assert_eq!(bench.tick(), Some(address(HOME)));
    assert_eq!(bench.report(), Some(address(HOME)));
    assert!(bench.hears(HOME) && !bench.hears(SDP) && !bench.hears(AWAY));
    assert!(bench.moves().is_empty());
}

#[test]
fn a_device_that_only_lets_ice_through_is_heard_and_answered() {
    let mut bench = Bench::new(true);
    assert!(bench.hears(SDP) && !bench.hears(HOME));
    assert_eq!(bench.tick(), Some(address(SDP)));
}

#[test]
fn a_peer_that_changes_its_network_is_followed() {
    let mut bench = Bench::new(true);
    bench.nominate("ours1234", HOME);
    assert!(bench.hears(HOME));
    bench.nominate("ours1234", AWAY);
    let (from, to) = (address(HOME), address(AWAY));
    assert_eq!(bench.moves(), [StreamEvent::SourceMoved { from, to }]);
    assert_eq!(bench.tick(), Some(to));
    assert!(bench.hears(AWAY));
}

#[test]
fn a_restart_goes_on_as_before_until_it_has_found_something() {
    let mut bench = Bench::new(true);
    bench.nominate("ours1234", HOME);
    assert!(bench.hears(HOME));
    bench
        .stream
        .set_ice(Some(&terms("ours1234", true)), bench.now);
    assert_eq!(
        bench.nominate("ours1234", HOME),
        Some(200),
        "nothing is new"
    );
    bench
        .stream
        .set_ice(Some(&terms("anew1234", true)), bench.now);
    assert_eq!(bench.nominate("ours1234", AWAY), None);
    assert_eq!(bench.tick(), Some(address(HOME)));
    assert!(bench.hears(HOME) && !bench.hears(AWAY));
    assert_eq!(bench.nominate("anew1234", AWAY), Some(200));
    assert_eq!(bench.tick(), Some(address(AWAY)));
    assert!(bench.hears(AWAY) && !bench.hears(HOME));
}

#[test]
fn reports_have_a_way_of_their_own() {
    let mut bench = Bench::new(false);
    bench.nominate("ours1234", HOME);
    assert_eq!(bench.report(), None);
    let good = check("ours1234", PASSWORD, true, 1);
    assert_eq!(bench.check(&good, AWAY, Component::Reports), Some(200));
    assert_eq!(bench.report(), Some(address(AWAY)));
    assert_eq!(bench.tick(), Some(address(HOME)));
}

#[test]
fn what_only_keeps_the_way_open_is_no_fault() {
    let mut bench = Bench::new(true);
    bench.nominate("ours1234", HOME);
    let mut indication = message(0x0011, &[], None, true);
    let now = bench.now;
    bench.stream.take(&mut indication, address(HOME), now);
    let mut indication = message(0x0011, &[], None, true);
    bench
        .stream
        .take_report(&mut indication, address(HOME), now);
    let stats = bench.stream.stats();
    assert_eq!((stats.malformed, stats.not_authentic), (0, 0));
}
