use std::net::SocketAddr;

use super::*;
use crate::stream::{Codec, Session};

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
        ulaw: &[u8; FRAME_SAMPLES],
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

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn config(remote: SocketAddr) -> StreamConfig {
    StreamConfig {
        session: Session {
            codec: Codec::Pcmu,
            send_payload_type: 0,
            receive_payload_type: 0,
            telephone_event: None,
            remote: Some(remote),
            remote_rtcp: None,
            send: true,
            receive: true,
        },
        signalling_ip: None,
        ssrc: 1,
        sequence: 1,
        timestamp: 1,
        jitter_target_millis: 0,
        cushion_millis: 20,
        reports: true,
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
        let rtp = socket();
        let to = rtp.local_addr().unwrap();
        let (heard_in, heard) = mpsc::channel();
        let (events_in, events) = mpsc::channel();
        let handle = plane.open(Parts {
            rtp,
            reports: socket(),
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
    *sent += 1;
    let mut packet = vec![0x80, 0];
    packet.extend(sent.to_be_bytes());
    packet.extend((u32::from(*sent) * 160).to_be_bytes());
    packet.extend([0, 0, 0, 9]);
    packet.extend([code; FRAME_SAMPLES]);
    caller.send_to(&packet, to).unwrap();
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
    for _ in 0..4 {
        other.say(7);
    }
    other.hear(7);
    // What is asked of it now is passed over.
    broken.handle.with_agent(|agent| agent.digit('1'));
    broken.handle.end(|_| panic!("it has no counters"));
    plane.wind_up(Duration::ZERO);
    // A packet alone may come too late for its turn.
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "the other call has ended");
        other.say(8);
        let tick = Duration::from_millis(20);
        if other.heard.recv_timeout(tick) == Ok(Heard::Frame(8)) {
            break;
        }
    }
}

#[test]
fn another_caller_takes_the_place_and_the_agent_stays() {
    let plane = Plane::start(1).unwrap();
    let mut call = Bench::open(&plane, 0, 0);
    for _ in 0..4 {
        call.say(1);
    }
    call.hear(1);
    let (successor, rtp) = (caller(), socket());
    let to = rtp.local_addr().unwrap();
    let (events_in, events) = mpsc::channel::<StreamEvent>();
    call.handle.succeed(
        (rtp, socket()),
        config(successor.local_addr().unwrap()),
        Box::new(move |event| drop(events_in.send(event))),
    );
    call.handle.with(|stream, _| stream.pause_playback(false));
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
