//! A call that goes on asks for no memory: counted in the thread that carries it, which tells its count when asked.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringwire_media::FRAME_SAMPLES;
use ringwire_media::cover::Protection;
use ringwire_media::format::Format;
use ringwire_media::jitter::Delay;
use ringwire_media::plane::{Agent, CallHandle, Parts, Plane, Turn};
use ringwire_media::ports::Wanted;
use ringwire_media::stream::{Codec, RtpStream, Session, StreamConfig};
use ringwire_sip_allocations::count;

const LIMIT: Duration = Duration::from_secs(5);

struct Echo;

impl Agent for Echo {
    fn frame(
        &mut self,
        ulaw: &[u8],
        _timestamp_millis: u64,
        stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        stream.play(ulaw, now);
        Turn::Done
    }
}

fn open(
    plane: &Plane,
    remote: SocketAddr,
    delay: Delay,
    cushion_millis: u32,
) -> (CallHandle, SocketAddr) {
    let bind = IpAddr::from([127, 0, 0, 1]);
    let wanted = Wanted {
        bind,
        range: (24_000, 24_099),
        remote: Some(remote),
        signalling: None,
        networks: ringwire_media::networks::Networks::default(),
        thread: None,
    };
    let seat = plane.seat(&wanted).unwrap();
    let to = SocketAddr::new(bind, seat.port());
    let config = StreamConfig {
        session: Session {
            codec: Codec::Pcma,
            send_payload_type: 8,
            receive_payload_type: 8,
            telephone_event: None,
            remote: Some(remote),
            remote_rtcp: None,
            send: true,
            receive: true,
        },
        signalling_ip: None,
        networks: ringwire_media::networks::Networks::default(),
        ssrc: 1,
        sequence: 1,
        timestamp: 1,
        format: Format::Ulaw,
        delay,
        cushion_millis,
        reports: true,
        protection: Protection::None,
        ice: None,
    };
    let handle = plane.open(Parts {
        seat,
        stream: RtpStream::new(config, Instant::now()),
        agent: Box::new(Echo),
        tell: Box::new(|_| {}),
    });
    handle.with(RtpStream::start);
    (handle, to)
}

/// How often the thread of a call has asked for memory.
fn count_of(handle: &CallHandle) -> u64 {
    let (told, counted) = mpsc::channel();
    handle.with(move |_, _| told.send(count()).unwrap());
    counted.recv_timeout(LIMIT).unwrap()
}

/// Two calls on one port: what leaves together is sent together.
fn carry(delay: Delay, cushion_millis: u32) {
    let plane = Plane::start(1).unwrap();
    let callers = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| {
        let caller = UdpSocket::bind(address).unwrap();
        caller.set_read_timeout(Some(LIMIT)).unwrap();
        caller
    });
    let calls = callers
        .each_ref()
        .map(|caller| open(&plane, caller.local_addr().unwrap(), delay, cushion_millis));
    assert_eq!(calls[0].1, calls[1].1, "they share a port");
    let mut answer = [0; 2048];
    let mut talk = |packets: std::ops::Range<u16>| {
        let mut sounds = 0;
        for number in packets {
            let mut packet = vec![0x80, 8];
            packet.extend(number.to_be_bytes());
            packet.extend((u32::from(number) * 160).to_be_bytes());
            packet.extend([0, 0, 0, 9]);
            packet.extend([0x23; FRAME_SAMPLES]);
            for (caller, (_, to)) in callers.iter().zip(&calls) {
                caller.send_to(&packet, to).unwrap();
            }
            // One packet for each, every 20 ms.
            for caller in &callers {
                let length = caller.recv(&mut answer).unwrap();
                sounds += u32::from(answer[length - 1] == 0x23);
            }
        }
        sounds
    };
    talk(0..150);
    let before = count_of(&calls[0].0);
    let sounds = talk(150..400);
    let asked = count_of(&calls[0].0) - before;
    assert!(sounds > 400, "only {sounds} of 500 packets came back");
    // Those that ask for the count, and what a late thread has to keep for the first time.
    assert!(asked <= 20, "{asked} allocations for 500 packets each way");
}

#[test]
fn a_packet_is_carried_without_asking_for_memory() {
    carry(Delay::Adaptive, 20);
}

#[test]
fn a_packet_that_does_not_wait_is_carried_without_asking_for_memory() {
    carry(Delay::OnArrival, 0);
}
