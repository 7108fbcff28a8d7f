use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::*;
use crate::FRAME_SAMPLES;
use crate::cover::{Cover, Protection};
use crate::ice::Terms;
use crate::jitter::Delay;
use crate::ports::demux::Why;
use crate::srtp::{MasterKey, OVERHEAD, Profile};
use crate::stream::{Codec, Session};
use crate::stun;

const LIMIT: Duration = Duration::from_secs(5);
const LOOPBACK: &str = "127.0.0.1:0";

/// What an agent of the tests' heard.
#[derive(Debug, PartialEq)]
enum Heard {
    Start,
    /// The first code of a frame that is not silence.
    Frame(u8),
    Digit(char),
    Mark(String),
    Stop,
    Gone,
}

/// Plays back what it hears.
struct Parrot {
    heard: mpsc::Sender<Heard>,
    /// Told what not to hear.
    breaks_at: u8,
    /// So many times asked before it is done.
    farewell: u32,
}

impl Parrot {
    fn tell(&self, what: Heard) {
        let _ = self.heard.send(what);
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.tell(Heard::Gone);
    }
}

impl Agent for Parrot {
    fn start(&mut self) {
        self.tell(Heard::Start);
    }

    fn frame(
        &mut self,
        ulaw: &[u8],
        _timestamp_millis: u64,
        stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        assert!(
            !ulaw.contains(&self.breaks_at),
            "the fault that the test asks for"
        );
        // A packet that was a little late begins in the middle of a frame.
        if let Some(code) = ulaw.iter().find(|code| **code != 0xff) {
            self.tell(Heard::Frame(*code));
            stream.play(ulaw, now);
            stream.mark("said".to_owned());
        }
        Turn::Done
    }

    fn digit(&mut self, digit: char) {
        self.tell(Heard::Digit(digit));
    }

    fn mark_played(&mut self, name: &str) {
        self.tell(Heard::Mark(name.to_owned()));
    }

    fn stop(&mut self) {
        self.tell(Heard::Stop);
    }

    fn close(&mut self, _hung_up: bool, _scratch: &mut [u8]) -> Turn {
        if self.farewell == 0 {
            return Turn::Over;
        }
        self.farewell -= 1;
        Turn::Done
    }
}

/// A place for a call, and where its packets are to be sent.
fn seat(plane: &Plane, remote: SocketAddr) -> (Seat, SocketAddr) {
    let bind = IpAddr::from([127, 0, 0, 1]);
    let wanted = Wanted {
        bind,
        range: (23_000, 23_999),
        remote: Some(remote),
        signalling: None,
        networks: crate::networks::Networks::default(),
        thread: None,
    };
    let seat = plane.seat(&wanted).unwrap();
    let to = SocketAddr::new(bind, seat.port());
    (seat, to)
}

fn config(remote: SocketAddr) -> StreamConfig {
    StreamConfig {
        delay: Delay::Fixed(0),
        ..StreamConfig::new(Session::new(Codec::Pcmu, 0, Some(remote)), (1, 1, 1))
    }
}

/// A caller and his call.
struct Bench {
    caller: UdpSocket,
    to: SocketAddr,
    sent: u16,
    handle: CallHandle,
    heard: mpsc::Receiver<Heard>,
    /// Has a sender as long as the call is carried.
    events: mpsc::Receiver<StreamEvent>,
}

fn caller() -> UdpSocket {
    let caller = UdpSocket::bind(LOOPBACK).unwrap();
    caller.set_read_timeout(Some(LIMIT)).unwrap();
    caller
}

impl Bench {
    fn open(plane: &Plane, breaks_at: u8, farewell: u32) -> Self {
        let caller = caller();
        let (seat, to) = seat(plane, caller.local_addr().unwrap());
        let (heard_in, heard) = mpsc::channel();
        let (events_in, events) = mpsc::channel();
        let handle = plane.open(Parts {
            seat,
            stream: RtpStream::new(config(caller.local_addr().unwrap()), Instant::now()),
            agent: Box::new(Parrot {
                heard: heard_in,
                breaks_at,
                farewell,
            }),
            tell: Box::new(move |event| drop(events_in.send(event))),
        });
        // What comes before the start is not played.
        let (started_in, started) = mpsc::channel();
        handle.with(move |stream, now| {
            stream.start(now);
            started_in.send(()).unwrap();
        });
        started.recv_timeout(LIMIT).unwrap();
        let bench = Self {
            caller,
            to,
            sent: 0,
            handle,
            heard,
            events,
        };
        bench.expect(&Heard::Start);
        bench
    }

    fn say(&mut self, code: u8) {
        say(&self.caller, self.to, &mut self.sent, code);
    }

    /// Says that until the agent hears it: packets that come in while the thread is busy may be too late for their turn.
    fn is_heard(&mut self, code: u8) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < LIMIT, "the call has ended");
            self.say(code);
            let tick = Duration::from_millis(20);
            if self.heard.recv_timeout(tick) == Ok(Heard::Frame(code)) {
                break;
            }
        }
    }

    /// Waits until the agent heard that; what it heard before is passed over.
    fn expect(&self, wanted: &Heard) {
        while self.heard.recv_timeout(LIMIT).unwrap() != *wanted {}
    }

    /// Waits for a packet with this code.
    fn hear(&self, code: u8) {
        hear(&self.caller, code);
    }
}

fn say(caller: &UdpSocket, to: SocketAddr, sent: &mut u16, code: u8) {
    caller.send_to(&packet(sent, code), to).unwrap();
}

/// The next packet of a caller.
fn packet(sent: &mut u16, code: u8) -> Vec<u8> {
    *sent += 1;
    let mut packet = vec![0x80, 0];
    packet.extend(sent.to_be_bytes());
    packet.extend((u32::from(*sent) * 160).to_be_bytes());
    packet.extend([0, 0, 0, 9]);
    packet.extend([code; FRAME_SAMPLES]);
    packet
}

fn hear(caller: &UdpSocket, code: u8) {
    let mut packet = [0; 2048];
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let length = caller.recv(&mut packet).unwrap();
        if packet[12..length].contains(&code) {
            return;
        }
    }
    panic!("{code} was never heard");
}

/// Takes longer for a frame than it lasts.
struct Slow;

impl Agent for Slow {
    fn frame(&mut self, _: &[u8], _: u64, _: &mut RtpStream, _: Instant) -> Turn {
        std::thread::sleep(Duration::from_millis(25));
        Turn::Done
    }
}

#[test]
fn a_plane_is_full_while_its_threads_have_no_rest() {
    let plane = Plane::start(1).unwrap();
    let mut quiet = Bench::open(&plane, 0, 0);
    let caller = caller();
    let (seat, _) = seat(&plane, caller.local_addr().unwrap());
    let slow = plane.open(Parts {
        seat,
        stream: RtpStream::new(config(caller.local_addr().unwrap()), Instant::now()),
        agent: Box::new(Slow),
        tell: Box::new(drop),
    });
    assert!(!plane.is_full());
    let begun = Instant::now();
    slow.with(RtpStream::start);
    while !plane.is_full() {
        assert!(begun.elapsed() < 2 * LIMIT, "{:?}", plane.ports().stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() > Duration::from_millis(1_900));
    assert!(plane.ports().stats().busy > 0.9);
    slow.end(drop);
    let begun = Instant::now();
    while plane.is_full() {
        assert!(begun.elapsed() < LIMIT, "{:?}", plane.ports().stats());
        std::thread::sleep(Duration::from_millis(20));
    }
    quiet.is_heard(7);
}

#[test]
fn what_the_caller_says_reaches_the_agent_and_comes_back() {
    let plane = Plane::start(2).unwrap();
    let mut calls: Vec<Bench> = (0..6).map(|_| Bench::open(&plane, 0, 0)).collect();
    for (call, code) in calls.iter_mut().zip(10..) {
        for _ in 0..4 {
            call.say(code);
        }
    }
    for (call, code) in calls.iter().zip(10..) {
        call.expect(&Heard::Frame(code));
        call.hear(code);
        call.expect(&Heard::Mark("said".to_owned()));
        call.handle.with_agent(|agent| agent.digit('5'));
        call.expect(&Heard::Digit('5'));
        assert!(call.handle.heard_at().elapsed() < LIMIT);
    }
}

#[test]
fn silence_goes_out_every_20_ms_and_the_end_stops_it_and_gives_the_counters() {
    let plane = Plane::start(1).unwrap();
    let mut call = Bench::open(&plane, 0, 0);
    call.say(3);
    call.say(3);
    let mut packet = [0; 2048];
    let begun = Instant::now();
    for _ in 0..20 {
        call.caller.recv(&mut packet).unwrap();
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(330), "{took:?}");
    let Bench {
        handle,
        heard,
        caller,
        ..
    } = call;
    let (told, stats) = mpsc::channel();
    handle.end(move |counters| told.send(counters).unwrap());
    let stats = stats.recv_timeout(LIMIT).unwrap();
    assert_eq!(stats.packets_received, 2);
    assert!(stats.packets_sent >= 20);
    let last: Vec<Heard> = heard.iter().collect();
    assert!(last.ends_with(&[Heard::Stop, Heard::Gone]), "{last:?}");
    // All that was sent before has arrived by now.
    caller.set_nonblocking(true).unwrap();
    while caller.recv(&mut packet).is_ok() {}
    std::thread::sleep(Duration::from_millis(60));
    assert!(caller.recv(&mut packet).is_err(), "a packet after the end");
}

#[test]
fn a_fault_in_one_call_ends_this_one_and_no_other() {
    let plane = Plane::start(1).unwrap();
    let mut broken = Bench::open(&plane, 66, 0);
    let mut other = Bench::open(&plane, 0, 0);
    for _ in 0..4 {
        broken.say(66);
    }
    broken.expect(&Heard::Gone);
    assert!(
        broken.events.recv_timeout(LIMIT).is_err(),
        "its owner sees that nobody will tell any more"
    );
    other.is_heard(7);
    // What is asked of it now is passed over.
    broken.handle.with_agent(|agent| agent.digit('1'));
    broken.handle.end(|_| panic!("it has no counters"));
    plane.wind_up(Duration::ZERO);
    other.is_heard(8);
}

#[test]
fn another_caller_takes_the_place_and_the_agent_stays() {
    let plane = Plane::start(1).unwrap();
    let mut call = Bench::open(&plane, 0, 0);
    for _ in 0..4 {
        call.say(1);
    }
    call.hear(1);
    let successor = caller();
    let (seat, to) = seat(&plane, successor.local_addr().unwrap());
    let (events_in, events) = mpsc::channel::<StreamEvent>();
    call.handle.succeed(
        seat,
        config(successor.local_addr().unwrap()),
        Box::new(move |event| drop(events_in.send(event))),
    );
    call.handle
        .with(|stream, now| stream.pause_playback(false, now));
    assert!(
        call.events.recv_timeout(LIMIT).is_err(),
        "the old one is told no more"
    );
    let mut sent = 0;
    for _ in 0..4 {
        say(&successor, to, &mut sent, 2);
    }
    call.expect(&Heard::Frame(2));
    hear(&successor, 2);
    drop(call.handle);
    assert!(events.recv_timeout(LIMIT).is_err());
    let rest: Vec<Heard> = call.heard.iter().collect();
    assert!(rest.ends_with(&[Heard::Stop, Heard::Gone]), "{rest:?}");
}

#[test]
fn whoever_does_not_leave_is_left() {
    let plane = Plane::start(1).unwrap();
    let call = Bench::open(&plane, 0, u32::MAX);
    let begun = Instant::now();
    drop(call.handle);
    plane.wind_up(LIMIT);
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < LIMIT,
        "{took:?}"
    );
    call.heard
        .iter()
        .find(|heard| *heard == Heard::Gone)
        .unwrap();
}

#[test]
fn an_agent_without_a_call_has_its_last_words() {
    let plane = Plane::start(2).unwrap();
    let (heard_in, heard) = mpsc::channel();
    plane.dismiss(Box::new(Parrot {
        heard: heard_in,
        breaks_at: 0,
        farewell: 0,
    }));
    let all: Vec<Heard> = heard.iter().collect();
    assert_eq!(all, [Heard::Stop, Heard::Gone]);
}

#[test]
fn calls_share_a_port_and_each_hears_its_own() {
    let plane = Plane::start(1).unwrap();
    let mut calls = Vec::new();
    for code in 10..16 {
        let mut call = Bench::open(&plane, 0, 0);
        for _ in 0..4 {
            call.say(code);
        }
        call.hear(code);
        calls.push(call);
    }
    assert!(
        calls.iter().all(|call| call.to == calls[0].to),
        "those who are known need no ports of their own"
    );
    for (call, code) in calls.iter_mut().zip(20..) {
        for _ in 0..4 {
            call.say(code);
        }
    }
    for (call, code) in calls.iter().zip(20..) {
        call.hear(code);
    }
    let stats = plane.ports().stats();
    assert_eq!((stats.pairs, stats.calls), (1, 6));
    assert_eq!(stats.nobody, [0; 4]);
    for call in calls {
        let (told, stats) = mpsc::channel();
        call.handle
            .end(move |counters| told.send(counters).unwrap());
        assert_eq!(stats.recv_timeout(LIMIT).unwrap().packets_received, 8);
    }
    plane.wind_up(LIMIT);
    assert_eq!(plane.ports().stats().calls, 0);
}

#[test]
fn a_strangers_packets_are_counted_and_reach_no_agent() {
    let plane = Plane::start(1).unwrap();
    let mut call = Bench::open(&plane, 0, 0);
    let stranger = UdpSocket::bind("127.0.0.9:0").unwrap();
    let mut sent = 0;
    for _ in 0..10 {
        say(&stranger, call.to, &mut sent, 99);
    }
    for _ in 0..4 {
        call.say(7);
    }
    call.hear(7);
    let heard: Vec<Heard> = call.heard.try_iter().collect();
    assert!(!heard.contains(&Heard::Frame(99)), "{heard:?}");
    let stats = plane.ports().stats();
    assert_eq!(stats.nobody[Why::Stranger as usize], 10);
}

#[test]
fn the_port_of_a_call_that_is_over_hears_no_more_of_it() {
    let plane = Plane::start(1).unwrap();
    let mut old = Bench::open(&plane, 0, 0);
    for _ in 0..4 {
        old.say(1);
    }
    old.hear(1);
    let Bench {
        caller: before,
        to,
        handle,
        heard,
        mut sent,
        ..
    } = old;
    drop(handle);
    heard.iter().find(|heard| *heard == Heard::Gone).unwrap();
    let mut new = Bench::open(&plane, 0, 0);
    assert_eq!(new.to, to);
    for _ in 0..6 {
        say(&before, to, &mut sent, 99);
    }
    for _ in 0..4 {
        new.say(2);
    }
    new.hear(2);
    let heard: Vec<Heard> = new.heard.try_iter().collect();
    assert!(!heard.contains(&Heard::Frame(99)), "{heard:?}");
    assert_eq!(plane.ports().stats().nobody[Why::Former as usize], 6);
}

#[test]
fn a_caller_is_heard_from_another_port_than_his_sdp_says() {
    let plane = Plane::start(1).unwrap();
    let mut call = Bench::open(&plane, 0, 0);
    // As if a NAT had changed it.
    call.caller = caller();
    for _ in 0..5 {
        call.say(5);
    }
    call.hear(5);
    let moves = plane.ports().stats().moves;
    assert_eq!(moves, 0, "found is not moved");
}

#[test]
fn encrypted_callers_are_found_by_their_keys_at_any_address() {
    for (profile, length) in [(Profile::Aes128Sha1_80, 30), (Profile::Aes128Gcm, 28)] {
        let plane = Plane::start(1).unwrap();
        let key = |byte: u8| MasterKey::new(profile, &vec![byte; length]).unwrap();
        let mut calls: Vec<(Bench, Cover, UdpSocket)> = (1..4)
            .map(|number| {
                let call = Bench::open(&plane, 0, 0);
                let keys = |send, receive| Protection::Keys {
                    send: key(send),
                    receive: key(receive),
                };
                let ours = keys(number, 100 + number);
                call.handle
                    .with(move |stream, now| stream.protect(&ours, now));
                let theirs = Cover::new(&keys(100 + number, number), Instant::now());
                (call, theirs, UdpSocket::bind("127.0.0.9:0").unwrap())
            })
            .collect();
        let begun = Instant::now();
        let mut found = [false; 3];
        while found.contains(&false) {
            assert!(begun.elapsed() < LIMIT, "{profile:?}: {found:?}");
            for (((call, cover, socket), code), found) in calls.iter_mut().zip(40..).zip(&mut found)
            {
                let mut packet = packet(&mut call.sent, code);
                let plain = packet.len();
                packet.resize(plain + OVERHEAD, 0);
                let length = cover.seal_rtp(&mut packet, plain).unwrap();
                socket.send_to(&packet[..length], call.to).unwrap();
                *found |= call
                    .heard
                    .try_iter()
                    .any(|heard| heard == Heard::Frame(code));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // In the clear nobody is heard, wherever he is.
        let before = plane.ports().stats().nobody[Why::Stranger as usize];
        let mut sent = 0;
        let stranger = UdpSocket::bind("127.0.0.8:0").unwrap();
        say(&stranger, calls[0].0.to, &mut sent, 99);
        while plane.ports().stats().nobody[Why::Stranger as usize] == before {
            assert!(begun.elapsed() < 2 * LIMIT, "it was not counted");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn two_callers_on_a_port_are_found_by_their_checks() {
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBtab";
    let plane = Plane::start(1).unwrap();
    let mut calls: Vec<(Bench, UdpSocket, String)> = (1..3)
        .map(|number| {
            let mut call = Bench::open(&plane, 0, 0);
            // Who is known does not need a port alone.
            call.is_heard(number);
            let ufrag = format!("number{number:02}");
            let terms = Terms {
                ufrag: ufrag.clone(),
                password: PASSWORD.to_owned().into(),
                muxed: true,
            };
            call.handle
                .with(move |stream, now| stream.set_ice(Some(&terms), now));
            // Each is somewhere else than his SDP says.
            let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            (call, socket, ufrag)
        })
        .collect();
    assert_eq!(calls[0].0.to, calls[1].0.to);
    let answer = |socket: &UdpSocket| loop {
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        // Sound may come, too.
        if stun::is_meant(&buffer[..length]) {
            return u16::from_be_bytes([buffer[0], buffer[1]]);
        }
    };
    for (call, socket, ufrag) in &mut calls {
        let guess = stun::tests::check(ufrag, "guess", true, 1);
        let check = stun::tests::check(ufrag, PASSWORD, true, 1);
        for (request, kind) in [(&guess, 0x0111), (&check, 0x0101)] {
            socket.send_to(request, call.to).unwrap();
            assert_eq!(answer(socket), kind);
        }
    }
    for ((call, socket, _), code) in calls.iter_mut().zip(40..) {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < LIMIT, "{code} is not heard");
            say(socket, call.to, &mut call.sent, code);
            let tick = Duration::from_millis(20);
            if call.heard.recv_timeout(tick) == Ok(Heard::Frame(code)) {
                break;
            }
        }
        // And hears its parrot.
        hear(socket, code);
    }
    assert_eq!(plane.ports().stats().nobody[Why::BadCheck as usize], 2);
}
