//! A call that goes on asks for no memory: counted in the thread that carries it, which tells its count when asked.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringwire_media::FRAME_SAMPLES;
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

/// How a call has its sound.
#[derive(Clone, Copy)]
struct Manner {
    delay: Delay,
    cushion_millis: u32,
    /// Packets have 10 ms in place of 20, both ways.
    halves: bool,
}

fn open(plane: &Plane, remote: SocketAddr, manner: Manner) -> (CallHandle, SocketAddr) {
    let Manner {
        delay,
        cushion_millis,
        halves,
    } = manner;
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
    let session = Session::new(Codec::Pcma, 8, Some(remote));
    let config = StreamConfig {
        delay,
        cushion_millis,
        ..StreamConfig::new(session, (1, 1, 1))
    };
    let handle = plane.open(Parts {
        seat,
        stream: RtpStream::new(config, Instant::now()),
        agent: Box::new(Echo),
        tell: Box::new(|_| {}),
    });
    handle.with(move |stream, now| {
        stream.send_halves(halves);
        stream.start(now);
    });
    (handle, to)
}

/// How often the thread of a call has asked for memory.
fn count_of(handle: &CallHandle) -> u64 {
    let (told, counted) = mpsc::channel();
    handle.with(move |_, _| told.send(count()).unwrap());
    counted.recv_timeout(LIMIT).unwrap()
}

/// Two calls on one port: what leaves together is sent together.
fn carry(manner: Manner) {
    let in_twenty = 1 + u16::from(manner.halves);
    let samples = FRAME_SAMPLES / usize::from(in_twenty);
    let plane = Plane::start(1).unwrap();
    let callers = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| {
        let caller = UdpSocket::bind(address).unwrap();
        caller.set_read_timeout(Some(LIMIT)).unwrap();
        caller
    });
    let calls = callers
        .each_ref()
        .map(|caller| open(&plane, caller.local_addr().unwrap(), manner));
    assert_eq!(calls[0].1, calls[1].1, "they share a port");
    let mut answer = [0; 2048];
    let mut talk = |packets: std::ops::Range<u16>| {
        let mut sounds = 0;
        for number in packets {
            let mut packet = vec![0x80, 8];
            packet.extend(number.to_be_bytes());
            packet.extend((u32::from(number) * samples as u32).to_be_bytes());
            packet.extend([0, 0, 0, 9]);
            packet.resize(packet.len() + samples, 0x23);
            for (caller, (_, to)) in callers.iter().zip(&calls) {
                caller.send_to(&packet, to).unwrap();
            }
            // One packet for each, every 20 ms, or every 10.
            for caller in &callers {
                let length = caller.recv(&mut answer).unwrap();
                assert_eq!(length, 12 + samples);
                sounds += u16::from(answer[length - 1] == 0x23);
            }
        }
        sounds
    };
    talk(0..150 * in_twenty);
    let before = count_of(&calls[0].0);
    let sounds = talk(150 * in_twenty..400 * in_twenty);
    let asked = count_of(&calls[0].0) - before;
    let all = 500 * in_twenty;
    assert!(
        sounds > all / 5 * 4,
        "only {sounds} of {all} packets came back"
    );
    // Those that ask for the count, and what a late thread has to keep for the first time.
    assert!(
        asked <= 20,
        "{asked} allocations for {all} packets each way"
    );
}

#[test]
fn a_packet_is_carried_without_asking_for_memory() {
    carry(Manner {
        delay: Delay::Adaptive,
        cushion_millis: 20,
        halves: false,
    });
}

#[test]
fn a_packet_that_does_not_wait_is_carried_without_asking_for_memory() {
    carry(Manner {
        delay: Delay::OnArrival,
        cushion_millis: 0,
        halves: false,
    });
}

#[test]
fn packets_of_ten_milliseconds_are_carried_without_asking_for_memory() {
    carry(Manner {
        delay: Delay::Adaptive,
        cushion_millis: 20,
        halves: true,
    });
}
