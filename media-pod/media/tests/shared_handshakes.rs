//! Two calls of one place on one port, whose keys come from handshakes, on the port for reports too (RFC 5764 section 4.2). Both callers are
//! behind one NAT: nothing in the datagram of a handshake says whose it is, so only where it comes from can.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringwire_media::cover::Protection;
use ringwire_media::dtls::{Identity, Terms};
use ringwire_media::format::MOST_BYTES;
use ringwire_media::ice::Component;
use ringwire_media::networks::Networks;
use ringwire_media::plane::{Agent, CallHandle, Parts, Plane, Turn};
use ringwire_media::ports::Wanted;
use ringwire_media::ports::demux::Why;
use ringwire_media::rtcp::REPORT_BYTES;
use ringwire_media::stream::{
    Codec, PACKET_BYTES, RtpStream, Session, StreamConfig, StreamEvent, StreamStats,
};
use ringwire_sip_allocations::held;

const LIMIT: Duration = Duration::from_secs(15);
const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// What the NAT shows of both callers, and where their signalling comes from.
const NAT: &str = "127.0.0.2";

/// Says nothing.
struct Mute;

impl Agent for Mute {
    fn frame(&mut self, _: &[u8], _: u64, _: &mut RtpStream, _: Instant) -> Turn {
        Turn::Done
    }
}

/// A caller, and his call.
struct Caller {
    stream: RtpStream,
    rtp: UdpSocket,
    reports: UdpSocket,
    /// Whether his handshakes for reports leave.
    shakes: bool,
    reports_sent: u32,
    reports_heard: u32,
    /// Where our port for sound is.
    to: SocketAddr,
    call: CallHandle,
    events: mpsc::Receiver<StreamEvent>,
}

/// What the NAT makes of a caller's ports: that of sound, and that of reports.
struct Mapping {
    rtp: UdpSocket,
    reports: UdpSocket,
}

/// A port of the NAT, and the one after it.
fn neighbours() -> [UdpSocket; 2] {
    let pair = (0..100).find_map(|_| {
        let first = UdpSocket::bind((NAT, 0)).unwrap();
        let port = first.local_addr().unwrap().port().checked_add(1)?;
        Some([first, UdpSocket::bind((NAT, port)).ok()?])
    });
    pair.expect("no two ports side by side are free")
}

fn terms(identity: &Arc<Identity>, peer: &Identity, active: bool) -> Protection {
    Protection::Handshake(Terms {
        identity: Arc::clone(identity),
        active,
        fingerprints: vec![peer.fingerprint()],
    })
}

impl Caller {
    /// A call that is carried once this returns, without keys for reports.
    fn call(plane: &Plane, identity: &Arc<Identity>, number: u8, mapping: Mapping) -> Self {
        let own = Arc::new(Identity::generate().unwrap());
        // What his session description says is where nobody is.
        let told = SocketAddr::from(([127, 0, 10, number], 4000));
        let signalling = NAT.parse().ok();
        let seat = plane
            .seat(&Wanted {
                bind: OURS,
                range: (24_400, 24_499),
                remote: Some(told),
                signalling,
                networks: Networks::default(),
                thread: None,
            })
            .unwrap();
        let to = SocketAddr::new(OURS, seat.port());
        // So small numbers mean a report every 2.5 s.
        let ssrc = u32::from(number);
        let config = StreamConfig {
            signalling_ip: signalling,
            protection: terms(identity, &own, false),
            ..StreamConfig::new(Session::new(Codec::Pcmu, 0, Some(told)), (ssrc, 1, 1))
        };
        let (tell, events) = mpsc::channel();
        let call = plane.open(Parts {
            seat,
            stream: RtpStream::new(config, Instant::now()),
            agent: Box::new(Mute),
            tell: Box::new(move |event| drop(tell.send(event))),
        });
        call.with(RtpStream::start);
        let config = StreamConfig {
            protection: terms(&own, identity, true),
            ..StreamConfig::new(Session::new(Codec::Pcmu, 0, Some(to)), (100 + ssrc, 1, 1))
        };
        let now = Instant::now();
        let mut stream = RtpStream::new(config, now);
        stream.start(now);
        let Mapping { rtp, reports } = mapping;
        for socket in [&rtp, &reports] {
            socket.set_nonblocking(true).unwrap();
        }
        let mut caller = Self {
            stream,
            rtp,
            reports,
            shakes: false,
            reports_sent: 0,
            reports_heard: 0,
            to,
            call,
            events,
        };
        let begun = Instant::now();
        while caller.stats().packets_received < 5 || caller.stream.stats().packets_received < 5 {
            assert!(begun.elapsed() < LIMIT, "no sound");
            pass(&mut [&mut caller], Duration::from_millis(50));
        }
        caller
    }

    /// The counters of his call.
    fn stats(&self) -> StreamStats {
        ask(&self.call, RtpStream::stats)
    }

    fn socket(&self, component: Component) -> &UdpSocket {
        match component {
            Component::Rtp => &self.rtp,
            Component::Reports => &self.reports,
        }
    }

    fn turn(&mut self, now: Instant) {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = self.rtp.recv_from(&mut datagram) {
            self.stream.take(&mut datagram[..length], from, now);
        }
        while let Ok((length, from)) = self.reports.recv_from(&mut datagram) {
            self.reports_heard += u32::from(ringwire_media::rtp::is_rtcp(&datagram[..length]));
            self.stream.take_report(&mut datagram[..length], from, now);
        }
        if self.stream.poll_timeout().is_some_and(|due| due <= now) {
            self.stream.handle_timeout(now);
        }
        while let Some((component, datagram, to)) = self.stream.poll_handshake() {
            if component == Component::Rtp || self.shakes {
                self.socket(component).send_to(&datagram, to).unwrap();
            }
        }
        let mut packet = [0; PACKET_BYTES];
        while let Some((length, to)) = self.stream.poll_transmit(&mut packet) {
            self.rtp.send_to(&packet[..length], to).unwrap();
        }
        let mut report = [0; REPORT_BYTES];
        if let Some((length, to)) = self.stream.poll_report(&mut report, now) {
            self.reports.send_to(&report[..length], to).unwrap();
            self.reports_sent += 1;
        }
        while self.stream.poll_frame(&mut [0; MOST_BYTES]).is_some() {}
        while self.stream.poll_event().is_some() {}
    }

    /// Whether either side has taken a report of the other.
    fn has_reports(&self) -> bool {
        let taken = |stats: StreamStats| stats.packets_lost_remote.is_some();
        taken(self.stats()) || taken(self.stream.stats())
    }
}

/// What the thread of a call knows.
fn ask<T: Send + 'static>(
    call: &CallHandle,
    of: impl FnOnce(&RtpStream) -> T + Send + 'static,
) -> T {
    let (told, answer) = mpsc::channel();
    call.with(move |stream, _| drop(told.send(of(stream))));
    answer.recv_timeout(LIMIT).unwrap()
}

/// So much time passes for the callers.
fn pass(callers: &mut [&mut Caller], time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let now = Instant::now();
        for caller in &mut *callers {
            caller.turn(now);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// So much time passes in which sound goes both ways in each call, and no call's owner is told of a failure.
fn talk(callers: &mut [&mut Caller], time: Duration) {
    let counted = |callers: &[&mut Caller]| -> Vec<[u64; 4]> {
        let count = |caller: &Caller| {
            let (ours, his) = (caller.stats(), caller.stream.stats());
            [
                his.packets_sent,
                ours.packets_received,
                ours.packets_sent,
                his.packets_received,
            ]
        };
        callers.iter().map(|caller| count(caller)).collect()
    };
    let before = counted(callers);
    pass(callers, time);
    for (after, before) in counted(callers).iter().zip(before) {
        let [sent, received, sent_back, heard] = [0, 1, 2, 3].map(|at| after[at] - before[at]);
        // They are not counted at the same moment.
        assert!(
            received > 20 && received + 10 > sent,
            "{received} of {sent}"
        );
        assert!(
            heard > 20 && heard + 10 > sent_back,
            "{heard} of {sent_back}"
        );
    }
    for caller in callers {
        assert!(caller.events.try_recv().is_err());
    }
}

fn plane() -> (Plane, Arc<Identity>) {
    let identity = Arc::new(Identity::generate().unwrap());
    (Plane::start(1).unwrap(), identity)
}

fn somewhere() -> UdpSocket {
    UdpSocket::bind((NAT, 0)).unwrap()
}

/// Packets that were nobody's for that reason.
fn nobodys(plane: &Plane, why: Why) -> u64 {
    plane.ports().stats().nobody[why as usize]
}

#[test]
fn where_a_nat_keeps_ports_side_by_side_each_call_has_keys_for_its_reports() {
    let (plane, identity) = plane();
    let [mut first, mut second] = [1, 2].map(|number| {
        let [rtp, reports] = neighbours();
        Caller::call(&plane, &identity, number, Mapping { rtp, reports })
    });
    assert_eq!(first.to, second.to, "they share a port");
    (first.shakes, second.shakes) = (true, true);
    let begun = Instant::now();
    let both = |caller: &Caller| caller.stats().packets_lost_remote.is_some();
    while !(both(&first) && both(&second) && first.reports_heard > 0 && second.reports_heard > 0) {
        assert!(begun.elapsed() < LIMIT, "no reports");
        talk(&mut [&mut first, &mut second], Duration::from_secs(1));
    }
    for caller in [&first, &second] {
        assert_eq!(caller.stats().not_authentic, 0);
        assert_eq!(caller.stream.stats().not_authentic, 0);
    }
}

#[test]
fn whose_handshake_cannot_be_told_has_no_reports_until_the_other_call_is_over() {
    let (plane, identity) = plane();
    let [mut first, mut second] = [1, 2].map(|number| {
        let (rtp, reports) = (somewhere(), somewhere());
        Caller::call(&plane, &identity, number, Mapping { rtp, reports })
    });
    assert_eq!(first.to, second.to, "they share a port");
    let before = nobodys(&plane, Why::Ambiguous);
    (first.shakes, second.shakes) = (true, true);
    talk(&mut [&mut first, &mut second], Duration::from_secs(4));
    assert!(nobodys(&plane, Why::Ambiguous) > before);
    for caller in [&first, &second] {
        assert!(!caller.has_reports());
        assert_eq!((caller.reports_sent, caller.reports_heard), (0, 0));
    }
    drop(first);
    let begun = Instant::now();
    while second.stats().packets_lost_remote.is_none() || second.reports_heard == 0 {
        assert!(begun.elapsed() < LIMIT, "no reports");
        talk(&mut [&mut second], Duration::from_secs(1));
    }
}

#[test]
fn a_handshake_that_comes_from_where_anothers_would_gives_nobody_keys() {
    let (plane, identity) = plane();
    // The NAT gives the second caller's reports the port after that of the first one's sound.
    let [rtp, reports] = neighbours();
    let mapping = Mapping {
        rtp,
        reports: somewhere(),
    };
    let mut first = Caller::call(&plane, &identity, 1, mapping);
    let mapping = Mapping {
        rtp: somewhere(),
        reports,
    };
    let mut second = Caller::call(&plane, &identity, 2, mapping);
    assert_eq!(first.to, second.to, "they share a port");
    second.shakes = true;
    talk(&mut [&mut first, &mut second], Duration::from_secs(4));
    first.shakes = true;
    talk(&mut [&mut first, &mut second], Duration::from_secs(4));
    for caller in [&first, &second] {
        assert!(!caller.has_reports());
        assert_eq!((caller.reports_sent, caller.reports_heard), (0, 0));
    }
}

/// A piece of a message of a handshake (RFC 6347 section 4.2), of which the rest never comes.
fn piece(number: u32) -> Vec<u8> {
    const BODY: usize = 1000;
    let number = number.to_be_bytes();
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0];
    record.extend(number);
    record.extend((BODY as u16 + 12).to_be_bytes());
    // A ClientHello of a mebibyte, message 0 to 255.
    record.extend([1, 0x10, 0, 0, 0, number[3], 0, number[2], 0]);
    record.extend([0, (BODY >> 8) as u8, BODY as u8]);
    record.resize(record.len() + BODY, number[3]);
    record
}

#[test]
fn pieces_of_handshakes_take_no_more_than_so_much_memory() {
    let (plane, identity) = plane();
    let [mut first, mut second] = [1, 2].map(|number| {
        let [rtp, reports] = neighbours();
        Caller::call(&plane, &identity, number, Mapping { rtp, reports })
    });
    let to = SocketAddr::new(first.to.ip(), first.to.port() + 1);
    let before = ask(&first.call, |_| held());
    let mut flood = |bursts: std::ops::Range<u32>| {
        for number in bursts.flat_map(|burst| burst * 20..(burst + 1) * 20) {
            for caller in [&first, &second] {
                caller.reports.send_to(&piece(number), to).unwrap();
            }
            if number % 20 == 19 {
                pass(&mut [&mut first, &mut second], Duration::from_millis(10));
            }
        }
        // It is asked for after all that has come in has been read.
        ask(&first.call, |_| held()) - before
    };
    let (some, many) = (flood(0..20), flood(20..250));
    assert!(some < 1_000_000, "{some} bytes for 800 pieces");
    assert!(
        many < some + 50_000,
        "{many} bytes for 10,000, {some} for 800"
    );
    assert!(nobodys(&plane, Why::Ambiguous) == 0 && nobodys(&plane, Why::Stranger) == 0);
    talk(&mut [&mut first, &mut second], Duration::from_secs(1));
}
