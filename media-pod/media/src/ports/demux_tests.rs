use super::*;
use crate::networks::Networks;
use crate::source::Verdict;

const MILLI: Duration = Duration::from_millis(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Line {
    source: SourceFilter,
    door: Door,
    shakes_hands: bool,
    reports: Option<SocketAddr>,
    /// The key of those who are encrypted.
    key: u8,
    version: u32,
}

#[derive(Default)]
struct Lines {
    all: Vec<Option<Line>>,
    /// With which key the packet was made.
    made_with: u8,
    at: Option<(Sight, Instant)>,
    trials: usize,
}

impl Peers for Lines {
    fn peer(&self, call: usize) -> Option<Peer<'_>> {
        let line = self.all.get(call)?.as_ref()?;
        Some(Peer {
            source: &line.source,
            door: line.door,
            shakes_hands: line.shakes_hands,
            reports: line.reports,
        })
    }
}

impl Trial for Lines {
    fn prove(&mut self, call: usize) -> bool {
        self.trials += 1;
        let (sight, now) = self.at.unwrap();
        let line = self.all[call].as_mut().unwrap();
        let fits = line.key == self.made_with;
        if fits {
            let Sight {
                from,
                ssrc,
                sequence,
            } = sight;
            line.source.check_authentic(from, ssrc, sequence, now);
        }
        fits
    }
}

/// A port with calls, as a thread has it.
struct Port {
    demux: Demux,
    lines: Lines,
    now: Instant,
}

/// What became of a packet.
#[derive(Debug, PartialEq)]
enum Fate {
    /// The call heard it.
    Heard(usize),
    /// The call wants to see another one.
    Pending(usize),
    /// The call did not want it.
    Refused(usize),
    Nobody(Why),
}
use Fate::{Heard, Nobody, Pending, Refused};

impl Port {
    fn new() -> Self {
        Self {
            demux: Demux::default(),
            lines: Lines::default(),
            now: Instant::now(),
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    /// A call whose SDP and signalling say this.
    fn call(&mut self, sdp: &str, signalling: &str) -> usize {
        self.call_of(sdp, signalling, &[])
    }

    /// The same of a provider with these networks.
    fn call_of(&mut self, sdp: &str, signalling: &str, networks: &[&str]) -> usize {
        let signalling = signalling.parse().ok();
        let networks = networks.iter().map(|network| network.parse().unwrap());
        let source =
            SourceFilter::new(Some(address(sdp)), signalling).or_from(Networks::new(networks));
        let call = self.lines.all.len();
        self.demux.open(call, &source, self.now);
        self.lines.all.push(Some(Line {
            version: source.version(),
            source,
            door: Door::Open,
            shakes_hands: false,
            reports: None,
            key: 0,
        }));
        call
    }

    /// The same with a key.
    fn encrypted(&mut self, sdp: &str, signalling: &str, key: u8) -> usize {
        let call = self.call(sdp, signalling);
        let line = self.line(call);
        (line.door, line.key) = (Door::Locked, key);
        call
    }

    fn line(&mut self, call: usize) -> &mut Line {
        self.lines.all[call].as_mut().unwrap()
    }

    fn end(&mut self, call: usize) {
        self.lines.all[call] = None;
        self.demux.close(call, self.now);
    }

    fn reinvite(&mut self, call: usize, sdp: &str) {
        self.line(call).source.set_remote(Some(address(sdp)));
        self.follow();
    }

    fn follow(&mut self) {
        for (call, line) in self.lines.all.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            if line.version != line.source.version() {
                line.version = line.source.version();
                self.demux.follow(call, &line.source, self.now);
            }
        }
    }

    /// A packet comes in.
    fn take(&mut self, from: &str, ssrc: u32, sequence: u16) -> Fate {
        let sight = Sight {
            from: address(from),
            ssrc,
            sequence,
        };
        self.lines.at = Some((sight, self.now));
        let fate = match self.demux.route(sight, self.now, &mut self.lines) {
            Route::Nobody(why) => Nobody(why),
            Route::Proved(call) => Heard(call),
            Route::Check(call) => panic!("an RTP packet is no check of {call}"),
            Route::Call(call) => {
                let now = self.now;
                let source = &mut self.line(call).source;
                match source.check(sight.from, ssrc, sequence, now) {
                    Verdict::Accepted | Verdict::Moved { .. } => Heard(call),
                    Verdict::Pending => Pending(call),
                    Verdict::Rejected => Refused(call),
                }
            }
        };
        self.follow();
        fate
    }

    fn reports(&self, from: &str, sender: u32) -> Route {
        self.demux.reports(address(from), Some(sender), &self.lines)
    }

    fn moves(&self) -> u64 {
        let lines = self.lines.all.iter().flatten();
        lines.map(|line| line.source.moves()).sum()
    }
}

const CARRIER: &str = "198.51.100.9";

#[test]
fn calls_of_one_carrier_are_told_apart_by_exactly_what_their_sdp_says() {
    let mut port = Port::new();
    let calls: Vec<usize> = (0..50)
        .map(|call| port.call(&format!("198.51.100.9:{}", 4000 + 2 * call), CARRIER))
        .collect();
    for (turn, call) in calls.iter().enumerate().rev() {
        let from = format!("198.51.100.9:{}", 4000 + 2 * turn);
        assert_eq!(port.take(&from, 7, 1), Heard(*call));
        assert_eq!(port.take(&from, 7, 2), Heard(*call));
    }
}

#[test]
fn a_nat_that_changes_the_port_is_found_out_by_two_consecutive_packets() {
    let mut port = Port::new();
    let call = port.call("10.0.0.5:4000", "203.0.113.4");
    let natted = "203.0.113.4:61000";
    assert_eq!(port.take(natted, 1, 9), Pending(call));
    assert_eq!(port.take(natted, 2, 10), Pending(call), "another stream");
    assert_eq!(port.take(natted, 2, 12), Pending(call), "not the next");
    assert_eq!(port.take(natted, 2, 13), Heard(call));
    assert_eq!(port.demux.known(address(natted)), Some(call));
}

#[test]
fn symmetric_nat_leaves_two_calls_of_one_place_apart_once_one_is_known() {
    let mut port = Port::new();
    let first = port.call("10.0.0.5:4000", "203.0.113.4");
    let second = port.call("10.0.0.6:4000", "203.0.113.4");
    // It could be either's.
    assert_eq!(port.take("203.0.113.4:61000", 1, 1), Nobody(Why::Ambiguous));
    assert_eq!(port.take("203.0.113.4:61001", 2, 1), Nobody(Why::Ambiguous));
    // One of them has no NAT: then the rest is the other's.
    assert_eq!(port.take("10.0.0.5:4000", 3, 1), Heard(first));
    assert_eq!(port.take("203.0.113.4:61001", 2, 2), Pending(second));
    assert_eq!(port.take("203.0.113.4:61001", 2, 3), Heard(second));
}

#[test]
fn a_call_that_never_sends_does_not_stand_in_the_way_of_others_for_long() {
    let mut port = Port::new();
    let mute = port.call("10.0.0.5:4000", "203.0.113.4");
    port.wait(4_999 * MILLI);
    let other = port.call("10.0.0.6:4000", "203.0.113.4");
    assert_eq!(port.take("203.0.113.4:61000", 1, 1), Nobody(Why::Ambiguous));
    port.wait(MILLI);
    assert_eq!(port.take("203.0.113.4:61000", 1, 2), Pending(other));
    assert_eq!(port.take("203.0.113.4:61000", 1, 3), Heard(other));
    // And the mute one is heard from where its SDP says whenever it speaks, from elsewhere no more.
    assert_eq!(port.take("203.0.113.4:61002", 5, 1), Nobody(Why::Stranger));
    assert_eq!(port.take("10.0.0.5:4000", 6, 1), Heard(mute));
}

#[test]
fn a_stranger_is_nobodys() {
    let mut port = Port::new();
    let call = port.call("192.0.2.1:4000", CARRIER);
    for sequence in 0..5 {
        assert_eq!(
            port.take("203.0.113.7:4000", 1, sequence),
            Nobody(Why::Stranger)
        );
    }
    assert_eq!(port.take("192.0.2.1:4000", 1, 5), Heard(call));
}

#[test]
fn a_thief_at_the_callers_address_cannot_take_over() {
    let mut port = Port::new();
    let call = port.call("192.0.2.1:4000", CARRIER);
    port.take("192.0.2.1:4000", 77, 100);
    for (thief, turn) in ["192.0.2.1:6000", "198.51.100.9:4000"].into_iter().zip(1..) {
        // He guesses the stream, or sends his own.
        for sequence in 101..110 {
            assert_eq!(port.take(thief, 77, sequence), Nobody(Why::Stranger));
            assert_eq!(port.take(thief, turn, sequence), Nobody(Why::Stranger));
        }
    }
    port.wait(Duration::from_secs(3));
    assert_eq!(port.take("192.0.2.1:6000", 5, 1), Nobody(Why::Stranger));
    assert_eq!(
        port.take("203.0.113.7:9", 77, 101),
        Nobody(Why::Stranger),
        "who knows the stream is still at a place that nobody expects"
    );
    assert_eq!(port.take("192.0.2.1:4000", 77, 101), Heard(call));
    assert_eq!(port.moves(), 0);
}

#[test]
fn a_thief_who_says_the_address_of_another_call_gets_none_of_its_packets() {
    let mut port = Port::new();
    let victim = port.call("192.0.2.1:4000", "192.0.2.1");
    let thief = port.call("192.0.2.66:4000", "192.0.2.66");
    port.reinvite(thief, "192.0.2.1:4000");
    assert_eq!(port.take("192.0.2.1:4000", 1, 1), Heard(victim));
    port.reinvite(victim, "192.0.2.1:4002");
    port.reinvite(victim, "192.0.2.1:4000");
    assert_eq!(
        port.take("192.0.2.1:4000", 1, 2),
        Heard(thief),
        "its SDP said so first"
    );
    port.end(thief);
    assert_eq!(port.take("192.0.2.1:4000", 1, 3), Heard(victim));
}

#[test]
fn what_a_confirmed_source_sends_is_its_calls_whatever_another_sdp_says() {
    let mut port = Port::new();
    let natted = port.call("10.0.0.5:4000", "203.0.113.4");
    port.take("203.0.113.4:5000", 1, 1);
    assert_eq!(port.take("203.0.113.4:5000", 1, 2), Heard(natted));
    port.call("203.0.113.4:5000", "203.0.113.4");
    assert_eq!(port.take("203.0.113.4:5000", 1, 3), Heard(natted));
}

#[test]
fn a_new_address_in_the_sdp_is_heard_at_once_and_the_old_one_no_more() {
    let mut port = Port::new();
    let call = port.call("192.0.2.1:4000", CARRIER);
    let other = port.call("192.0.2.50:4000", "192.0.2.1");
    port.take("192.0.2.1:4000", 1, 1);
    port.reinvite(call, "192.0.2.9:8000");
    assert_eq!(port.take("192.0.2.9:8000", 2, 1), Heard(call));
    assert_eq!(port.moves(), 1);
    // What is under way from the old address does not become the other call's, which could come from there.
    for sequence in 2..5 {
        assert_eq!(
            port.take("192.0.2.1:4000", 1, sequence),
            Nobody(Why::Stranger)
        );
    }
    assert_eq!(port.take("192.0.2.50:4000", 3, 1), Heard(other));
}

#[test]
fn a_source_that_an_sdp_gave_up_can_be_found_again_by_its_call() {
    let mut port = Port::new();
    let call = port.call("10.0.0.5:4000", "203.0.113.4");
    let natted = "203.0.113.4:5000";
    port.take(natted, 1, 1);
    assert_eq!(port.take(natted, 1, 2), Heard(call));
    // Hold, and back again.
    port.reinvite(call, "0.0.0.0:4000");
    port.reinvite(call, "10.0.0.5:4000");
    assert_eq!(port.take(natted, 1, 3), Pending(call));
    assert_eq!(port.take(natted, 1, 4), Heard(call));
}

#[test]
fn a_source_that_falls_silent_is_followed_where_its_stream_goes_on() {
    let mut port = Port::new();
    let call = port.call("10.0.0.5:4000", "203.0.113.4");
    let waiting = port.call("10.0.0.6:4000", "203.0.113.4");
    port.take("10.0.0.5:4000", 1, 100);
    port.wait(2_999 * MILLI);
    assert_eq!(port.take("203.0.113.4:7000", 1, 110), Pending(waiting));
    port.wait(MILLI);
    assert_eq!(port.take("203.0.113.4:7001", 1, 120), Heard(call));
    assert_eq!(port.moves(), 1);
    assert_eq!(port.take("203.0.113.4:7001", 1, 121), Heard(call));
}

#[test]
fn what_comes_before_the_answer_is_nobodys_and_confirms_nothing() {
    let mut port = Port::new();
    for sequence in 0..3 {
        let fate = port.take("203.0.113.4:61000", 1, sequence);
        assert_eq!(fate, Nobody(Why::Stranger));
    }
    let call = port.call("10.0.0.5:4000", "203.0.113.4");
    assert_eq!(port.take("203.0.113.4:61000", 1, 3), Pending(call));
    assert_eq!(port.take("203.0.113.4:61000", 1, 4), Heard(call));
}

#[test]
fn stray_packets_of_a_call_that_is_over_do_not_become_the_next_ones() {
    let mut port = Port::new();
    let old = port.call("10.0.0.5:4000", "203.0.113.4");
    let natted = "203.0.113.4:61000";
    port.take(natted, 1, 1);
    assert_eq!(port.take(natted, 1, 2), Heard(old));
    port.end(old);
    let new = port.call("10.0.0.6:4000", "203.0.113.4");
    for sequence in 3..9 {
        assert_eq!(port.take(natted, 1, sequence), Nobody(Why::Former));
        assert_eq!(port.take(natted, 2, sequence), Nobody(Why::Former));
    }
    port.wait(STRAYS_FOR);
    assert_eq!(port.take(natted, 1, 10), Nobody(Why::Former), "its stream");
    let later = port.call("10.0.0.7:4000", "203.0.113.4");
    // After a while it may be anybody's who is there.
    assert_eq!(port.take(natted, 2, 10), Pending(later));
    assert_eq!(port.take(natted, 2, 11), Heard(later));
    assert_eq!(port.take("10.0.0.6:4000", 4, 1), Heard(new));
}

#[test]
fn a_new_call_whose_sdp_says_the_old_source_is_heard_from_there() {
    let mut port = Port::new();
    let old = port.call("192.0.2.1:4000", CARRIER);
    port.take("192.0.2.1:4000", 1, 1);
    port.end(old);
    let new = port.call("192.0.2.1:4000", CARRIER);
    assert_eq!(port.take("192.0.2.1:4000", 2, 1), Heard(new));
}

#[test]
fn reports_are_told_apart_by_their_sender_else_by_their_source() {
    let mut port = Port::new();
    let first = port.call("203.0.113.4:4000", CARRIER);
    let second = port.call("203.0.113.4:4002", CARRIER);
    let third = port.call("203.0.113.4:4004", CARRIER);
    port.line(third).reports = Some(address("203.0.113.4:9999"));
    port.take("203.0.113.4:4000", 11, 1);
    port.take("203.0.113.4:4002", 22, 1);
    // A NAT has changed their ports: even to where another's are to come from.
    for from in ["203.0.113.4:50000", "203.0.113.4:4001", "198.51.100.9:7"] {
        assert_eq!(port.reports(from, 22), Route::Call(second));
        assert_eq!(port.reports(from, 11), Route::Call(first));
    }
    // One who has sent no packets yet.
    assert_eq!(port.reports("203.0.113.4:9999", 33), Route::Call(third));
    assert_eq!(port.reports("203.0.113.4:4003", 33), Route::Call(second));
    assert_eq!(
        port.reports("203.0.113.4:4005", 33),
        Route::Nobody(Why::Ambiguous)
    );
    assert_eq!(
        port.reports("192.0.2.7:4001", 11),
        Route::Nobody(Why::Stranger)
    );
    // No report has moved anything.
    assert_eq!(port.take("203.0.113.4:4000", 11, 2), Heard(first));
    assert_eq!(port.demux.known(address("203.0.113.4:4001")), None);
}

#[test]
fn the_only_call_of_an_address_gets_its_reports_from_any_port() {
    let mut port = Port::new();
    let call = port.call("203.0.113.4:4000", CARRIER);
    port.call("203.0.113.5:4000", "198.51.100.10");
    assert_eq!(port.reports("203.0.113.4:61000", 5), Route::Call(call));
}

#[test]
fn addresses_of_version_6_are_told_apart_the_same_way() {
    let mut port = Port::new();
    let first = port.call("[2001:db8::1]:4000", "2001:db8::9");
    let second = port.call("[2001:db8::2]:4000", "2001:db8::8");
    assert_eq!(port.take("[2001:db8::2]:4000", 1, 1), Heard(second));
    assert_eq!(port.take("[2001:db8::9]:5", 1, 1), Pending(first));
    assert_eq!(port.take("[2001:db8::9]:5", 1, 2), Heard(first));
    assert_eq!(port.take("[2001:db8::3]:4000", 1, 1), Nobody(Why::Stranger));
}

#[test]
fn nothing_is_left_of_calls_that_are_over() {
    let mut port = Port::new();
    for call in 0..1000 {
        let sdp = format!("192.0.2.{}:{}", call % 200, 4000 + call);
        let call = port.call(&sdp, CARRIER);
        if !call.is_multiple_of(3) {
            port.take(&sdp, 1, 1);
        }
        port.reinvite(call, &format!("192.0.2.7:{}", 9000 + call));
        port.end(call);
        port.wait(100 * MILLI);
    }
    port.wait(STREAM_FOR);
    let last = port.call("192.0.2.1:4000", CARRIER);
    port.end(last);
    let Demux {
        entries,
        owners,
        by_ip,
        former,
        ..
    } = &port.demux;
    assert!(entries.is_empty() && owners.is_empty() && by_ip.is_empty());
    assert!(former.len() <= FORMER, "{}", former.len());
}

#[test]
fn what_is_no_packet_shows_nothing() {
    let from = address("192.0.2.1:4000");
    assert_eq!(Sight::of(&[0x80; 11], from), None);
    assert_eq!(Sight::of(&[0; 40], from), None);
    let packet = [0x80, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 9];
    let sight = Sight::of(&packet, from).unwrap();
    assert_eq!((sight.ssrc, sight.sequence), (9, 0x0102));
    assert_eq!(reporter(&packet), None);
    assert_eq!(reporter(&[0x80, 200, 0, 1, 0, 0, 0, 7]), Some(7));
    assert_eq!(reporter(&[0x80, 200, 0, 1, 0, 0, 0]), None);
}

#[path = "demux_keys_tests.rs"]
mod keys;

#[path = "demux_checks_tests.rs"]
mod checks;

#[path = "demux_networks_tests.rs"]
mod networks;
