//! Both halves of a call whose keys come from handshakes, while offers change which port reports have (RFC 5764 section 4.2): without keys of
//! that port none leaves, and none is taken.

use std::sync::Arc;

use super::*;
use crate::cover::Protection;
use crate::dtls::{Identity, Terms};
use crate::format::MOST_BYTES;
use crate::ice::{self, Component};
use crate::rtcp::{self, Block, REPORT_BYTES};
use crate::stun::tests::check;

/// The half that is ours, which knows ICE, and the other one.
const OURS: usize = 0;
const THEIRS: usize = 1;
const HALVES: [usize; 2] = [OURS, THEIRS];
const ADDRESSES: [&str; 2] = ["192.0.2.1:5000", "198.51.100.9:4000"];

/// Where an offer says that reports go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Where RTP does, which checks have found.
    Ice,
    /// Where RTP does.
    Muxed,
    /// To a port of their own.
    Apart,
}

/// What a half has sent.
struct Datagram {
    by: usize,
    component: Component,
    bytes: Vec<u8>,
    to: SocketAddr,
}

impl Datagram {
    fn is_report(&self) -> bool {
        rtp::is_rtcp(&self.bytes)
    }

    /// Of a handshake for the port that reports have.
    fn is_handshake_for_reports(&self) -> bool {
        self.component == Component::Reports && dtls::Handshake::is_meant(&self.bytes)
    }
}

struct Call {
    halves: [RtpStream; 2],
    identities: [Arc<Identity>; 2],
    /// Who begins handshakes.
    active: usize,
    now: Instant,
}

fn beside(rtp: SocketAddr) -> SocketAddr {
    SocketAddr::new(rtp.ip(), rtp.port() + 1)
}

fn rtp_of(half: usize) -> SocketAddr {
    ADDRESSES[half].parse().unwrap()
}

fn session(half: usize, way: Way) -> Session {
    let remote = rtp_of(1 - half);
    let muxed = way == Way::Muxed || (way == Way::Ice && half == THEIRS);
    Session {
        remote_rtcp: muxed.then_some(remote),
        ..Session::new(Codec::Pcmu, 0, Some(remote))
    }
}

fn checks(half: usize, way: Way) -> Option<ice::Terms> {
    (half == OURS && way == Way::Ice).then(|| ice::Terms {
        ufrag: "ours1234".to_owned(),
        password: "VOkJxbRl1RmTxUk/WvJxBtab".to_owned().into(),
        muxed: true,
    })
}

fn terms(half: usize, active: usize, identities: &[Arc<Identity>; 2]) -> Protection {
    Protection::Handshake(Terms {
        identity: Arc::clone(&identities[half]),
        active: half == active,
        fingerprints: vec![identities[1 - half].fingerprint()],
    })
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity::generate().unwrap())
}

/// A half that ticks.
fn stream(half: usize, way: Way, protection: Protection, reports: bool, now: Instant) -> RtpStream {
    // So small a number means a report every 2.5 s.
    let ssrc = 70 + half as u32;
    let config = StreamConfig {
        reports,
        protection,
        ice: checks(half, way),
        ..StreamConfig::new(session(half, way), (ssrc, 1, 1))
    };
    let mut stream = RtpStream::new(config, now);
    stream.start(now);
    stream
}

impl Call {
    fn new(way: Way, active: usize) -> Self {
        Self::with_reports(way, active, true)
    }

    /// Ours has a port for reports, or none.
    fn with_reports(way: Way, active: usize, reports: bool) -> Self {
        let now = Instant::now();
        let identities = [identity(), identity()];
        let halves = HALVES.map(|half| {
            let reports = reports || half == THEIRS;
            stream(half, way, terms(half, active, &identities), reports, now)
        });
        let mut call = Self {
            halves,
            identities,
            active,
            now,
        };
        call.check(way);
        call
    }

    /// Another device goes on with the peer's half, where it left off.
    fn hand_over(&mut self, way: Way) {
        self.identities[THEIRS] = identity();
        let terms = terms(THEIRS, self.active, &self.identities);
        self.halves[THEIRS] = stream(THEIRS, way, terms, true, self.now);
        self.agree(way);
    }

    /// The peer checks its way to us, where that was agreed on.
    fn check(&mut self, way: Way) {
        if let Some(terms) = checks(OURS, way) {
            let check = check(&terms.ufrag, &terms.password, true, 1);
            let stream = &mut self.halves[OURS];
            let checked = stream.take_check(&check, rtp_of(THEIRS), Component::Rtp, self.now);
            assert!(checked.good);
        }
    }

    /// What is agreed on from now on.
    fn agree(&mut self, way: Way) {
        for half in HALVES {
            let stream = &mut self.halves[half];
            let protection = terms(half, self.active, &self.identities);
            stream.protect(&protection, self.now);
            stream.update(session(half, way), self.now);
            stream.set_ice(checks(half, way).as_ref(), self.now);
        }
        self.check(way);
    }

    /// What a half sends now.
    fn sent(&mut self, by: usize) -> Vec<Datagram> {
        let (stream, now) = (&mut self.halves[by], self.now);
        let mut all = Vec::new();
        let mut put = |component, bytes: &[u8], to| {
            let bytes = bytes.to_vec();
            all.push(Datagram {
                by,
                component,
                bytes,
                to,
            });
        };
        if stream.poll_timeout().is_some_and(|due| due <= now) {
            stream.handle_timeout(now);
        }
        while let Some((component, datagram, to)) = stream.poll_handshake() {
            put(component, &datagram, to);
        }
        let mut packet = [0; PACKET_BYTES];
        while let Some((length, to)) = stream.poll_transmit(&mut packet) {
            put(Component::Rtp, &packet[..length], to);
        }
        let mut report = [0; REPORT_BYTES];
        if let Some((length, to)) = stream.poll_report(&mut report, now) {
            let component = if stream.is_muxed() {
                Component::Rtp
            } else {
                Component::Reports
            };
            put(component, &report[..length], to);
        }
        while stream.poll_frame(&mut [0; MOST_BYTES]).is_some() {}
        while let Some(event) = stream.poll_event() {
            assert!(
                !matches!(event, StreamEvent::EncryptionFailed(_)),
                "{event:?}"
            );
        }
        all
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let by = rtp_of(datagram.by);
        let from = match datagram.component {
            Component::Rtp => by,
            Component::Reports => beside(by),
        };
        let half = 1 - datagram.by;
        let mut bytes = datagram.bytes.clone();
        if datagram.to == rtp_of(half) {
            self.halves[half].take(&mut bytes, from, self.now);
        } else {
            assert_eq!(datagram.to, beside(rtp_of(half)));
            self.halves[half].take_report(&mut bytes, from, self.now);
        }
    }

    /// Time passes, and what both send arrives, but for what does not. Gives all of it.
    fn run(&mut self, millis: u64, arrives: impl Fn(&Datagram) -> bool) -> Vec<Datagram> {
        let until = self.now + Duration::from_millis(millis);
        let mut all = Vec::new();
        while self.now < until {
            self.now += Duration::from_millis(10);
            for half in HALVES {
                for datagram in self.sent(half) {
                    if arrives(&datagram) {
                        self.deliver(&datagram);
                    }
                    all.push(datagram);
                }
            }
        }
        all
    }

    /// Runs so long, and demands that sound goes both ways without a gap.
    fn talk(&mut self, millis: u64, arrives: impl Fn(&Datagram) -> bool) -> Vec<Datagram> {
        let received = |call: &Self| HALVES.map(|half| call.stats(half).packets_received);
        let before = received(self);
        let sent = self.run(millis, arrives);
        for (before, after) in before.into_iter().zip(received(self)) {
            assert!(after - before + 1 >= millis / 20, "{before} to {after}");
        }
        sent
    }

    fn stats(&self, half: usize) -> StreamStats {
        self.halves[half].stats()
    }

    /// Whether each has taken a report since this was last asked.
    fn have_heard(&mut self) -> [bool; 2] {
        let heard = |half: &mut RtpStream| half.stats.packets_lost_remote.take().is_some();
        self.halves.each_mut().map(heard)
    }

    /// A report for that half, in the clear, and its length.
    fn report_for(&self, half: usize) -> ([u8; REPORT_BYTES], usize) {
        let [ssrc, other] = [half, 1 - half].map(|half| self.halves[half].ssrc);
        let lost = 7;
        let block = Block {
            ssrc,
            lost,
            ..Block::default()
        };
        let mut report = [0; REPORT_BYTES];
        let length = rtcp::write(&mut report, other, None, Duration::ZERO, Some(block));
        (report, length)
    }

    /// Whether that half takes reports in the clear, and under the keys of the sound, on the port for reports.
    fn takes_in_the_clear_or_with_keys_of_the_sound(&mut self, half: usize) -> [bool; 2] {
        let (clear, length) = self.report_for(half);
        let mut sealed = clear;
        let cover = &mut self.halves[1 - half].cover;
        let sealed_length = cover.seal_rtcp(&mut sealed, length).unwrap();
        let from = beside(rtp_of(1 - half));
        let reports = [(clear, length), (sealed, sealed_length)];
        reports.map(|(mut report, length)| {
            let stream = &mut self.halves[half];
            let refused = stream.stats().not_authentic;
            stream.take_report(&mut report[..length], from, self.now);
            let taken = self.have_heard()[half];
            assert!(taken || self.stats(half).not_authentic == refused + 1);
            taken
        })
    }

    fn assert_that_only_keys_of_their_own_open_reports(&mut self) {
        for half in HALVES {
            let taken = self.takes_in_the_clear_or_with_keys_of_the_sound(half);
            assert_eq!(taken, [false; 2], "half {half}");
        }
    }
}

fn reports_of(sent: &[Datagram], half: usize) -> Vec<&Datagram> {
    let own = sent.iter().filter(|datagram| datagram.by == half);
    own.filter(|datagram| datagram.is_report()).collect()
}

fn handshakes(sent: &[Datagram]) -> Vec<&Datagram> {
    let shakes = |datagram: &&Datagram| dtls::Handshake::is_meant(&datagram.bytes);
    sent.iter().filter(shakes).collect()
}

/// Everything but handshakes for reports.
fn but_handshakes(datagram: &Datagram) -> bool {
    !datagram.is_handshake_for_reports()
}

/// They all leave there, for where the other half has them, and there are some.
fn are_of(datagrams: &[&Datagram], component: Component) -> bool {
    !datagrams.is_empty()
        && datagrams.iter().all(|datagram| {
            let rtp = rtp_of(1 - datagram.by);
            let to = match component {
                Component::Rtp => rtp,
                Component::Reports => beside(rtp),
            };
            (datagram.component, datagram.to) == (component, to)
        })
}

#[test]
fn reports_wait_for_keys_of_their_own_when_an_offer_drops_ice_or_rtcp_mux() {
    for (way, active) in [
        (Way::Ice, OURS),
        (Way::Ice, THEIRS),
        (Way::Muxed, OURS),
        (Way::Muxed, THEIRS),
    ] {
        let mut call = Call::new(way, active);
        let sent = call.run(6000, |_| true);
        for half in HALVES {
            let reports = reports_of(&sent, half);
            assert!(are_of(&reports, Component::Rtp), "{way:?} {active}");
        }
        assert!(!sent.iter().any(Datagram::is_handshake_for_reports));
        assert_eq!(call.have_heard(), [true; 2], "{way:?} {active}");

        call.agree(Way::Apart);
        let sent = call.talk(6000, but_handshakes);
        assert!(!sent.iter().any(Datagram::is_report), "{way:?} {active}");
        let shaking = handshakes(&sent);
        assert!(are_of(&shaking, Component::Reports), "{way:?} {active}");
        assert!(shaking.iter().all(|datagram| datagram.by == active));
        call.assert_that_only_keys_of_their_own_open_reports();

        let sent = call.talk(8000, |_| true);
        for half in HALVES {
            let reports = reports_of(&sent, half);
            assert!(are_of(&reports, Component::Reports), "{way:?} {active}");
            let cover = &mut call.halves[1 - half].cover;
            for report in reports {
                let opened = cover.open_rtcp(&mut report.bytes.clone());
                assert!(opened.is_err(), "{way:?} {active}: keys of the sound");
            }
        }
        assert_eq!(call.have_heard(), [true; 2], "{way:?} {active}");
        call.assert_that_only_keys_of_their_own_open_reports();
    }
}

#[test]
fn reports_that_share_the_port_of_the_sound_again_have_its_keys_at_once() {
    for way in [Way::Ice, Way::Muxed] {
        let mut call = Call::new(Way::Apart, THEIRS);
        let sent = call.run(6000, |_| true);
        assert!(are_of(&reports_of(&sent, OURS), Component::Reports));
        assert_eq!(call.have_heard(), [true; 2]);
        call.agree(way);
        let sent = call.talk(3000, |datagram| !datagram.is_report());
        assert_eq!(handshakes(&sent).len(), 0, "{way:?}");
        for half in HALVES {
            let reports = reports_of(&sent, half);
            assert!(are_of(&reports, Component::Rtp), "{way:?}");
            let cover = &mut call.halves[1 - half].cover;
            for report in reports {
                let opened = cover.open_rtcp(&mut report.bytes.clone());
                assert!(opened.is_ok(), "{way:?}: {opened:?}");
            }
        }
        call.talk(3000, |_| true);
        assert_eq!(call.have_heard(), [true; 2], "{way:?}");
    }
}

#[test]
fn with_another_certificate_of_the_peer_the_old_keys_of_reports_are_over() {
    let mut call = Call::new(Way::Apart, THEIRS);
    call.run(6000, |_| true);
    assert_eq!(call.have_heard(), [true; 2]);
    call.hand_over(Way::Apart);
    let sent = call.run(6000, but_handshakes);
    assert!(!sent.iter().any(Datagram::is_report));
    call.talk(8000, |_| true);
    assert_eq!(call.have_heard(), [true; 2]);
}

#[test]
fn keys_that_come_in_place_of_a_handshake_are_those_of_the_reports_too() {
    let key = |byte| {
        crate::srtp::MasterKey::new(crate::srtp::Profile::Aes128Sha1_80, &[byte; 30]).unwrap()
    };
    let mut call = Call::new(Way::Apart, OURS);
    call.run(6000, |_| true);
    assert_eq!(call.have_heard(), [true; 2]);
    for half in HALVES {
        let protection = Protection::Keys {
            send: key(half as u8),
            receive: key(1 - half as u8),
        };
        call.halves[half].protect(&protection, call.now);
    }
    let sent = call.talk(3000, |_| true);
    assert!(are_of(&reports_of(&sent, OURS), Component::Reports));
    assert_eq!(call.have_heard(), [true; 2]);
    let mut peer = crate::srtp::Guard::new(&key(1), &key(0)).unwrap();
    for report in reports_of(&sent, OURS) {
        let opened = peer.unprotect_rtcp(&mut report.bytes.clone());
        assert!(opened.is_ok(), "{opened:?}");
    }
    // And with the handshake that was before: both ports have one anew.
    call.agree(Way::Apart);
    let sent = call.run(4000, |_| true);
    let ports = |component| {
        handshakes(&sent)
            .iter()
            .any(|sent| sent.component == component)
    };
    assert!(ports(Component::Rtp) && ports(Component::Reports));
    assert_eq!(call.have_heard(), [true; 2]);
    call.talk(1000, |_| true);
}

#[test]
fn who_has_no_port_for_reports_takes_none_there_under_the_keys_of_the_sound() {
    let mut call = Call::with_reports(Way::Apart, THEIRS, false);
    let sent = call.run(3000, |_| true);
    let of_ours = |datagram: &&Datagram| datagram.by == OURS;
    assert!(
        sent.iter()
            .filter(of_ours)
            .all(|datagram| datagram.component == Component::Rtp)
    );
    let taken = call.takes_in_the_clear_or_with_keys_of_the_sound(OURS);
    assert_eq!(taken, [false; 2]);
    // Beside the sound they may be.
    call.agree(Way::Muxed);
    call.talk(3000, |_| true);
    assert!(call.have_heard()[OURS]);
}

#[test]
fn a_handshake_for_reports_that_failed_is_begun_again_by_an_offer_alone() {
    let mut call = Call::new(Way::Apart, OURS);
    call.run(1000, but_handshakes);
    let sent = call.talk(16_000, but_handshakes);
    assert!(!sent.iter().any(Datagram::is_report));
    // Neither by itself, nor because a call is held and comes back.
    for send in [false, true] {
        let session = Session {
            send,
            ..session(OURS, Way::Apart)
        };
        call.halves[OURS].update(session, call.now);
        let sent = call.run(2000, |_| true);
        assert_eq!(handshakes(&sent).len(), 0);
        assert!(!sent.iter().any(Datagram::is_report));
    }
    call.agree(Way::Apart);
    call.talk(4000, |_| true);
    assert_eq!(call.have_heard(), [true; 2]);
}

#[test]
fn a_strangers_handshake_for_reports_is_not_looked_at() {
    let mut call = Call::new(Way::Apart, THEIRS);
    call.run(1000, but_handshakes);
    let mut stranger = Call::new(Way::Apart, THEIRS);
    let stranger = stranger.run(20, |_| false);
    let hello = stranger.iter().find(|sent| sent.is_handshake_for_reports());
    let mut hello = hello.unwrap().bytes.clone();
    let from = "203.0.113.250:4001".parse().unwrap();
    let stream = &mut call.halves[OURS];
    stream.take_report(&mut hello, from, call.now);
    assert!(
        call.sent(OURS)
            .iter()
            .all(|sent| sent.component == Component::Rtp)
    );
    call.talk(5000, |_| true);
    assert_eq!(call.have_heard(), [true; 2]);
}
