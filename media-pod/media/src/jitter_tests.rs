use super::*;
use proptest::prelude::*;

struct Bench {
    buffer: JitterBuffer,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn new(target_millis: u32) -> Self {
        let start = Instant::now();
        Self {
            buffer: JitterBuffer::new(target_millis),
            start,
            now: start,
        }
    }

    /// Inserts packet `number` of a 20 ms stream whose samples all carry its number.
    fn put(&mut self, number: u16) -> Insert {
        self.put_at(number, u32::from(number) * 160, FRAME_SAMPLES, false)
    }

    fn put_at(&mut self, sequence: u16, timestamp: u32, length: usize, marker: bool) -> Insert {
        let at = Position {
            ssrc: 1,
            sequence,
            timestamp,
            marker,
        };
        self.buffer
            .insert(at, std::iter::repeat_n(sequence as u8, length), self.now)
    }

    /// One tick; the frame's code if uniform, `None` for silence.
    fn tick(&mut self) -> Option<u8> {
        self.now += Duration::from_millis(20);
        let mut frame = [0; FRAME_SAMPLES];
        let found = self.buffer.pop(&mut frame);
        assert!(
            frame.iter().all(|code| *code == frame[0]),
            "mixed frame {frame:?}"
        );
        (found > 0).then_some(frame[0])
    }
}

#[test]
fn holds_packets_back_by_the_target() {
    let mut bench = Bench::new(40);
    let mut out = Vec::new();
    for number in 0..6 {
        bench.put(number);
        out.push(bench.tick());
    }
    assert_eq!(out, [None, None, Some(0), Some(1), Some(2), Some(3)]);
}

#[test]
fn a_target_of_zero_plays_at_once() {
    let mut bench = Bench::new(0);
    for number in 0..6 {
        bench.put(number);
        assert_eq!(bench.tick(), Some(number as u8));
    }
}

#[test]
fn reorders_and_drops_duplicates() {
    let mut bench = Bench::new(40);
    bench.put(0);
    assert_eq!(bench.put(2), Insert::Stored);
    assert_eq!(bench.put(1), Insert::Stored);
    assert_eq!(bench.put(1), Insert::Duplicate);
    assert_eq!(bench.put(2), Insert::Duplicate);
    let out: Vec<_> = (0..5).map(|_| bench.tick()).collect();
    assert_eq!(out, [None, None, Some(0), Some(1), Some(2)]);
    assert_eq!(bench.buffer.duplicates(), 2);
}

#[test]
fn a_late_packet_is_counted_and_its_place_stays_silent() {
    let mut bench = Bench::new(0);
    bench.put(0);
    assert_eq!(bench.tick(), Some(0));
    assert_eq!(bench.tick(), None);
    bench.put(2);
    assert_eq!(bench.put(1), Insert::Late);
    assert_eq!(bench.tick(), Some(2));
    assert_eq!(bench.buffer.late(), 1);
}

#[test]
fn splits_and_merges_packets_of_other_lengths() {
    for length in [80u32, 240, 320, 480] {
        let mut bench = Bench::new(60);
        let mut heard = 0;
        let (mut sent, mut sequence) = (0u32, 0u16);
        for tick in 0..100u32 {
            while sent < tick * 160 + 160 {
                bench.buffer.insert(
                    Position {
                        ssrc: 1,
                        sequence,
                        timestamp: sent,
                        marker: false,
                    },
                    std::iter::repeat_n(7, length as usize),
                    bench.now,
                );
                sent += length;
                sequence += 1;
            }
            heard += usize::from(bench.tick() == Some(7));
        }
        assert!(heard >= 97, "{length} samples a packet: {heard} of 100");
        assert_eq!(bench.buffer.late(), 0);
    }
}

#[test]
fn a_new_ssrc_or_a_timestamp_jump_starts_anew() {
    let mut bench = Bench::new(0);
    bench.put(0);
    bench.tick();
    let at = Position {
        ssrc: 2,
        sequence: 900,
        timestamp: 5,
        marker: false,
    };
    bench
        .buffer
        .insert(at, std::iter::repeat_n(9, 160), bench.now);
    assert_eq!(bench.tick(), Some(9));
    let at = Position {
        ssrc: 2,
        sequence: 901,
        timestamp: 0x9000_0000,
        marker: false,
    };
    bench
        .buffer
        .insert(at, std::iter::repeat_n(8, 160), bench.now);
    assert_eq!(bench.tick(), Some(8));
    // The sequence alone may jump: the timestamp says where the audio belongs.
    let at = Position {
        ssrc: 2,
        sequence: 30_000,
        timestamp: 0x9000_0000 + 160,
        marker: false,
    };
    bench
        .buffer
        .insert(at, std::iter::repeat_n(6, 160), bench.now);
    assert_eq!(bench.tick(), Some(6));
}

#[test]
fn a_silent_gap_with_running_timestamps_keeps_the_delay() {
    let mut bench = Bench::new(40);
    for number in 0..10 {
        bench.put(number);
        bench.tick();
    }
    for _ in 10..260 {
        bench.tick();
    }
    let out: Vec<_> = (260..265)
        .map(|number: u16| {
            bench.put_at(number - 250, u32::from(number) * 160, 160, number == 260);
            bench.tick()
        })
        .collect();
    assert_eq!(out, [None, None, Some(10), Some(11), Some(12)]);
    assert_eq!(bench.buffer.late(), 0);
}

#[test]
fn a_stream_that_stood_still_and_continues_is_heard_again() {
    for (marker, lost) in [(true, 0), (false, 2)] {
        let mut bench = Bench::new(0);
        bench.put(0);
        for _ in 0..100 {
            bench.tick();
        }
        let heard = (1..=10u16)
            .filter(|number| {
                bench.put_at(
                    *number,
                    u32::from(*number) * 160,
                    160,
                    marker && *number == 1,
                );
                bench.tick() == Some(*number as u8)
            })
            .count();
        assert_eq!((heard, bench.buffer.late()), (10 - lost, lost as u64));
    }
}

#[test]
fn a_burst_after_a_stall_does_not_add_delay() {
    let mut bench = Bench::new(40);
    for number in 0..10 {
        bench.put(number);
        bench.tick();
    }
    for _ in 10..100 {
        bench.tick();
    }
    for number in 10..=100 {
        bench.put(number);
    }
    assert_eq!(bench.tick(), Some(98));
}

#[test]
fn a_delay_that_stays_longer_is_followed_after_three_late_packets() {
    let mut bench = Bench::new(0);
    let mut heard = 0;
    for tick in 0..50u16 {
        // From tick 10 on every packet is 60 ms later than before.
        if tick < 10 {
            bench.put(tick);
        } else if tick >= 13 {
            bench.put(tick - 3);
        }
        heard += usize::from(bench.tick().is_some());
    }
    assert!(heard >= 43, "{heard}");
    assert!(bench.buffer.late() <= 3);
}

#[test]
fn clock_drift_both_ways_keeps_the_delay_bounded_and_the_audio_whole() {
    for micros_per_packet in [19_960u64, 20_040] {
        let mut bench = Bench::new(40);
        let mut sent = 0u64;
        let mut heard = 0u64;
        let ticks = 30_000u64;
        for tick in 0..ticks {
            let now = bench.start + Duration::from_millis(20 * tick);
            while bench.start + Duration::from_micros(micros_per_packet * sent) <= now {
                bench.put_at(sent as u16, (sent as u32).wrapping_mul(160), 160, false);
                sent += 1;
            }
            heard += u64::from(bench.tick().is_some());
            let sync = bench.buffer.sync.as_ref().unwrap();
            assert!(sync.newest - sync.play <= 320 + 4 * FRAME, "tick {tick}");
        }
        assert!(heard > ticks * 998 / 1000, "{heard} of {ticks}");
        assert!(bench.buffer.late() < 5, "{}", bench.buffer.late());
        assert!(
            (40..=80).contains(&bench.buffer.corrections()),
            "{}",
            bench.buffer.corrections()
        );
    }
}

#[test]
fn timestamps_and_sequence_numbers_may_wrap() {
    let mut bench = Bench::new(20);
    let mut heard = 0;
    for number in 0..100u16 {
        let timestamp = (u32::MAX - 8000).wrapping_add(u32::from(number) * 160);
        bench.put_at(65_500u16.wrapping_add(number), timestamp, 160, false);
        heard += usize::from(bench.tick().is_some());
    }
    assert_eq!(heard, 99);
}

proptest! {
    #[test]
    fn survives_anything(packets in proptest::collection::vec(
        (any::<u8>(), any::<u16>(), any::<u32>(), 0..2000usize, any::<bool>(), 0..4u8), 0..200,
    )) {
        let mut bench = Bench::new(40);
        for (ssrc, sequence, timestamp, length, marker, ticks) in packets {
            let at = Position { ssrc: u32::from(ssrc % 2), sequence, timestamp, marker };
            bench.buffer.insert(at, std::iter::repeat_n(1, length), bench.now);
            for _ in 0..ticks {
                bench.now += Duration::from_millis(20);
                prop_assert!(bench.buffer.pop(&mut [0; FRAME_SAMPLES]) <= FRAME_SAMPLES);
            }
        }
    }

    #[test]
    fn jitter_below_the_target_loses_nothing_and_keeps_order(delays in proptest::collection::vec(0..60u64, 30..120)) {
        let mut bench = Bench::new(60);
        let mut arrivals: Vec<(u64, u16)> = delays
            .iter()
            .enumerate()
            .map(|(number, delay)| (number as u64 * 20 + delay * u64::from(number > 0), number as u16))
            .collect();
        arrivals.sort_unstable();
        let count = arrivals.len();
        let mut arrivals = arrivals.into_iter().peekable();
        let mut heard = Vec::new();
        for tick in 0..count as u64 + 10 {
            while let Some((_, number)) = arrivals.next_if(|(at, _)| *at <= tick * 20) {
                bench.put(number);
            }
            heard.extend(bench.tick());
        }
        prop_assert_eq!(heard, (0..count as u8).collect::<Vec<_>>());
    }
}
