//! Frames as soon as they come, as a thread of the plane has them: a turn after each packet, and one when something is due.

use super::tests::config;
use super::*;
use crate::format::MOST_BYTES;
use crate::g711::ULAW_SILENCE;
use crate::jitter::Delay;
use crate::rtcp::REPORT_BYTES;
use proptest::prelude::*;

const PEER: &str = "192.0.2.1:4000";

struct Ear {
    stream: RtpStream,
    begin: Instant,
    now: Instant,
    /// When each frame came in milliseconds, its middle sample, and its timestamp.
    heard: Vec<(u64, u8, u64)>,
}

impl Ear {
    fn new() -> Self {
        let now = Instant::now();
        let mut stream = RtpStream::new(config(Codec::Pcmu, 20, Delay::OnArrival), now);
        stream.start(now);
        Self {
            stream,
            begin: now,
            now,
            heard: Vec::new(),
        }
    }

    /// What the plane does after anything.
    fn turn(&mut self) {
        if self
            .stream
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.stream.handle_timeout(self.now);
        }
        let mut frame = [0; MOST_BYTES];
        let at = self.now.duration_since(self.begin).as_millis() as u64;
        while let Some((_, timestamp)) = self.stream.poll_frame(&mut frame) {
            self.heard.push((at, frame[80], timestamp));
        }
        while self.stream.poll_transmit(&mut [0; PACKET_BYTES]).is_some() {}
        self.stream.poll_report(&mut [0; REPORT_BYTES], self.now);
    }

    /// Time passes until so many microseconds after the begin, and what is due is done.
    fn pass(&mut self, micros: u64) {
        let until = self.begin + Duration::from_micros(micros);
        while let Some(due) = self.stream.poll_timeout().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.turn();
        }
        self.now = until;
    }

    fn arrive(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        let packet = Packet {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp,
            ssrc: 5,
            payload,
        };
        let mut buffer = [0; 1500];
        let length = packet.write(&mut buffer).unwrap();
        self.stream
            .receive(&buffer[..length], PEER.parse().unwrap(), self.now);
    }

    /// Packet `number` of an even stream, which carries its number, at that time.
    fn packet(&mut self, micros: u64, number: u16) {
        self.pass(micros);
        self.arrive(number, u32::from(number) * 160, &[number as u8; 160]);
        self.turn();
    }

    fn times(&self) -> Vec<u64> {
        self.heard.iter().map(|(at, ..)| *at).collect()
    }

    /// What was heard from that time on.
    fn since(&self, millis: u64) -> Vec<u8> {
        let then = self.heard.iter().filter(|(at, ..)| *at >= millis);
        then.map(|(_, code, _)| *code).collect()
    }
}

#[test]
fn frames_do_not_wait_and_what_is_missing_is_filled() {
    let mut ear = Ear::new();
    for number in 4..12 {
        if number != 7 {
            ear.packet(u64::from(number) * 20_000 + 13_000, number);
        }
    }
    ear.pass(400_000);
    // The first is waited for, too.
    let expected = [
        60, 80, 93, 113, 133, 213, 213, 213, 213, 233, 313, 333, 353, 373, 393,
    ];
    assert_eq!(ear.times(), expected);
    let codes: Vec<u8> = ear.heard.iter().map(|(_, code, _)| *code).collect();
    assert_eq!(codes[..5], [ULAW_SILENCE, ULAW_SILENCE, 4, 5, 6]);
    assert_eq!(codes[6..10], [8, 9, 10, 11]);
    // They number on, and are never far behind the time.
    let timestamps: Vec<u64> = ear.heard.iter().map(|(.., at)| *at).collect();
    let expected = [
        60, 80, 100, 120, 140, 160, 180, 200, 220, 240, 260, 280, 300, 320, 340,
    ];
    assert_eq!(timestamps, expected);
    assert_eq!(ear.stream.stats().ticks_skipped, 0);
}

#[test]
fn all_that_a_stall_held_up_is_heard_in_one_piece() {
    for apart in [0, 200, 900, 3000] {
        let mut ear = Ear::new();
        for number in 1..=100 {
            ear.packet(u64::from(number) * 20_000, number);
        }
        // Nothing for 240 ms, then what was sent meanwhile.
        let stalled = 2_000_000 + 265_000;
        for number in 101..=112 {
            ear.packet(stalled + u64::from(number - 101) * apart, number);
        }
        for number in 114..=130 {
            ear.packet(u64::from(number) * 20_000, number);
        }
        let heard = ear.since(stalled / 1000);
        // Number 113 is lost and concealed, and nothing else is.
        assert_eq!(heard.len(), 30, "{apart} µs apart");
        assert!(
            heard[..12].iter().copied().eq(101..=112),
            "{apart} µs apart"
        );
        assert!(
            heard[13..].iter().copied().eq(114..=130),
            "{apart} µs apart"
        );
        let stats = ear.stream.stats();
        assert_eq!(
            (stats.late, stats.ticks_skipped),
            (0, 0),
            "{apart} µs apart"
        );
    }
}

#[test]
fn a_network_that_becomes_slower_is_heard_without_holes() {
    let mut ear = Ear::new();
    for number in 1..=50 {
        ear.packet(u64::from(number) * 20_000, number);
    }
    for number in 51..=200 {
        ear.packet(u64::from(number) * 20_000 + 150_000, number);
    }
    assert_eq!(ear.since(51 * 20 + 150), (51..=200).collect::<Vec<u8>>());
}

#[test]
fn a_phone_whose_clock_stood_still_on_hold_is_heard() {
    let mut ear = Ear::new();
    for number in 1..=50 {
        ear.packet(u64::from(number) * 20_000, number);
    }
    for number in 51..=100 {
        ear.packet(u64::from(number) * 20_000 + 5_000_000, number);
    }
    let silence = ear
        .heard
        .iter()
        .filter(|(at, ..)| (1000..6020).contains(at));
    assert!((246..=250).contains(&silence.count()));
    let heard = ear.since(6020);
    assert!(
        heard.ends_with(&(51..=100).collect::<Vec<u8>>()),
        "{heard:?}"
    );
    let stats = ear.stream.stats();
    assert_eq!((stats.late, stats.ticks_skipped), (0, 0));
}

#[test]
fn a_late_thread_finds_what_came_meanwhile() {
    let mut ear = Ear::new();
    ear.packet(20_000, 1);
    ear.packet(40_000, 2);
    // It sleeps for a fifth of a second. All of it is read before anything is done, and number 3 was lost.
    ear.now = ear.begin + Duration::from_millis(260);
    for number in 4..=13_u16 {
        ear.arrive(number, u32::from(number) * 160, &[number as u8; 160]);
    }
    ear.turn();
    let heard = ear.since(260);
    assert_eq!(heard[1..], (4..=13).collect::<Vec<u8>>());
    let stats = ear.stream.stats();
    assert_eq!(
        (stats.late, stats.ticks_skipped, stats.concealed),
        (0, 0, 1)
    );
    // Without packets it fills no more than a moment, and goes on from now.
    ear.now = ear.begin + Duration::from_secs(3);
    ear.turn();
    assert!(ear.since(3000).len() <= 3);
    ear.pass(3_100_000);
    assert_eq!(ear.times().iter().filter(|at| **at > 3000).count(), 5);
}

#[test]
fn a_successor_waits_for_its_first_packet_and_numbers_on() {
    let mut ear = Ear::new();
    ear.packet(20_000, 1);
    ear.packet(40_000, 2);
    ear.pass(50_000);
    let config = config(Codec::Pcma, 20, Delay::OnArrival);
    ear.stream = ear.stream.into_successor(config, ear.now);
    ear.heard.clear();
    ear.pass(145_000);
    let frames: Vec<(u64, u64)> = ear
        .heard
        .iter()
        .map(|(at, _, stamp)| (*at, *stamp))
        .collect();
    assert_eq!(frames, [(110, 100), (130, 120)]);
}

proptest! {
    /// Whatever timestamps say: no more frames than time passes for, but for a second that may have been held up.
    #[test]
    fn no_packets_make_more_frames_than_time(
        steps in proptest::collection::vec((0..30_000u64, 0..4097u32, 1..400usize, 0..20u16), 1..300),
    ) {
        let mut ear = Ear::new();
        let (mut micros, mut timestamp, mut sequence) = (0, 0u32, 0u16);
        for (passed, step, length, skipped) in steps {
            micros += passed;
            timestamp = timestamp.wrapping_add(step);
            sequence = sequence.wrapping_add(if skipped == 19 { 2 } else { 1 });
            ear.pass(micros);
            ear.arrive(sequence, timestamp, &vec![7; length]);
            ear.turn();
        }
        let time = micros as usize / 19_800 + 1;
        prop_assert!(ear.heard.len() <= time + 50, "{} frames in {time} x 20 ms", ear.heard.len());
        prop_assert_eq!(ear.stream.stats().frames_dropped, 0);
        prop_assert!(ear.heard.windows(2).all(|pair| pair[0].2 < pair[1].2));
    }
}
