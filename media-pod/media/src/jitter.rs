//! Jitter buffer for G.711: packets of any size and order in, one 20 ms frame on every tick out.
//!
//! The buffer is a ring of samples addressed by RTP timestamp, so packets of 10, 30 or 60 ms need no special case, and
//! its memory is fixed. Its delay is fixed too (the target), only corrected when it has run away for some time: adaptive
//! delay and concealment are not here, a hole is silence.

use std::time::{Duration, Instant};

use crate::{FRAME_SAMPLES, g711::ULAW_SILENCE};

/// Samples that the ring holds: 512 ms.
const CAPACITY: usize = 4096;
/// Largest target delay.
pub const MAX_TARGET_MILLIS: u32 = 200;
/// Ticks over which the fill level must be off before a frame is dropped or repeated: 2 s.
const DRIFT_WINDOW: u32 = 100;
/// Late packets in a row after which the sender, not the network, has changed.
const LATE_RUN: u32 = 3;
/// A late packet after such a pause continues a stream whose clock stood still.
const PAUSE: Duration = Duration::from_millis(100);
const FRAME: i64 = FRAME_SAMPLES as i64;

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Its samples, or those still in time, will be played.
    Stored,
    /// The play-out had passed it.
    Late,
    /// Its sequence number was seen before.
    Duplicate,
}

/// Where and when a packet belongs.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Synchronisation source; a change starts anew.
    pub ssrc: u32,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp of the first sample.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
}

/// The buffer of one received stream. Samples are µ-law.
#[derive(Debug)]
pub struct JitterBuffer {
    target: i64,
    samples: Box<[u8; CAPACITY]>,
    present: Box<[u64; CAPACITY / 64]>,
    sync: Option<Sync>,
    late: u64,
    duplicates: u64,
    corrections: u64,
}

/// State that a resynchronisation replaces as a whole. Times are extended timestamps.
#[derive(Debug)]
struct Sync {
    ssrc: u32,
    last_timestamp: u32,
    last_extended: i64,
    /// Next sample to play.
    play: i64,
    /// End of the newest packet.
    newest: i64,
    highest_sequence: u16,
    /// Bit n: `highest_sequence - n` was received.
    seen: u64,
    late_run: u32,
    last_arrival: Instant,
    window: Window,
}

#[derive(Debug)]
struct Window {
    ticks: u32,
    packets: u32,
    lowest: i64,
    highest: i64,
}

impl Window {
    const NEW: Self = Self {
        ticks: 0,
        packets: 0,
        lowest: i64::MAX,
        highest: i64::MIN,
    };
}

impl JitterBuffer {
    /// A buffer that holds every packet back by `target_millis` (0–200).
    pub fn new(target_millis: u32) -> Self {
        Self {
            target: i64::from(target_millis.min(MAX_TARGET_MILLIS)) * 8,
            samples: Box::new([ULAW_SILENCE; CAPACITY]),
            present: Box::new([0; CAPACITY / 64]),
            sync: None,
            late: 0,
            duplicates: 0,
            corrections: 0,
        }
    }

    /// Packets that came after their play-out.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Packets received more than once.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Frames dropped or repeated because the sender's clock differs from ours.
    pub fn corrections(&self) -> u64 {
        self.corrections
    }

    /// Takes one packet's samples; `codes` are µ-law after whatever conversion the codec needs.
    pub fn insert(&mut self, at: Position, codes: impl ExactSizeIterator<Item = u8>, now: Instant) -> Insert {
        let length = codes.len() as i64;
        if length == 0 || length > CAPACITY as i64 / 2 {
            return Insert::Stored;
        }
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.ssrc == at.ssrc) else {
            return self.restart(at, codes, now);
        };
        if sync.is_duplicate(at.sequence) {
            self.duplicates += 1;
            return Insert::Duplicate;
        }
        let step = at.timestamp.wrapping_sub(sync.last_timestamp).cast_signed();
        let start = sync.last_extended + i64::from(step);
        let pause = now.saturating_duration_since(sync.last_arrival);
        let span = CAPACITY as i64;
        if start + length > sync.play + span || start + span < sync.play {
            return self.restart(at, codes, now);
        }
        if start + length <= sync.play {
            self.late += 1;
            sync.late_run += 1;
            sync.last_arrival = now;
            if at.marker || pause > PAUSE || sync.late_run >= LATE_RUN {
                self.late -= 1;
                return self.restart(at, codes, now);
            }
            return Insert::Late;
        }
        sync.late_run = 0;
        sync.last_arrival = now;
        sync.window.packets += 1;
        if step > 0 {
            sync.last_timestamp = at.timestamp;
            sync.last_extended = start;
        }
        sync.newest = sync.newest.max(start + length);
        let play = sync.play;
        self.store(start, play, codes);
        Insert::Stored
    }

    fn restart(&mut self, at: Position, codes: impl ExactSizeIterator<Item = u8>, now: Instant) -> Insert {
        self.present.fill(0);
        let start = i64::from(at.timestamp);
        let play = start - self.target;
        self.sync = Some(Sync {
            ssrc: at.ssrc,
            last_timestamp: at.timestamp,
            last_extended: start,
            play,
            newest: start + codes.len() as i64,
            highest_sequence: at.sequence,
            seen: 1,
            late_run: 0,
            last_arrival: now,
            window: Window::NEW,
        });
        self.store(start, play, codes);
        Insert::Stored
    }

    fn store(&mut self, start: i64, play: i64, codes: impl Iterator<Item = u8>) {
        for (time, code) in (start..).zip(codes) {
            if time >= play {
                let slot = time.rem_euclid(CAPACITY as i64) as usize;
                self.samples[slot] = code;
                self.present[slot / 64] |= 1 << (slot % 64);
            }
        }
    }

    /// Plays the next 20 ms into `frame`, holes as silence; gives the number of samples that were there. To be called once
    /// every 20 ms, also while nothing arrives.
    pub fn pop(&mut self, frame: &mut [u8; FRAME_SAMPLES]) -> usize {
        frame.fill(ULAW_SILENCE);
        let Some(sync) = self.sync.as_mut() else {
            return 0;
        };
        let mut play = sync.play;
        let mut advance = FRAME;
        match sync.measure_drift(self.target) {
            Drift::None => {}
            Drift::Drop => {
                self.corrections += 1;
                for time in play..play + FRAME {
                    let slot = time.rem_euclid(CAPACITY as i64) as usize;
                    self.present[slot / 64] &= !(1 << (slot % 64));
                }
                play += FRAME;
            }
            Drift::Repeat => {
                self.corrections += 1;
                advance = 0;
            }
        }
        sync.play = play + advance;
        let mut found = 0;
        for (time, sample) in (play..).zip(frame.iter_mut()) {
            let slot = time.rem_euclid(CAPACITY as i64) as usize;
            let bit = 1 << (slot % 64);
            if self.present[slot / 64] & bit != 0 {
                *sample = self.samples[slot];
                found += 1;
                if advance > 0 {
                    self.present[slot / 64] &= !bit;
                }
            }
        }
        found
    }

    /// Passes over `frames` frames that the caller was too late to play.
    pub fn skip(&mut self, frames: u64) {
        let mut ignored = [0; FRAME_SAMPLES];
        if frames as usize > CAPACITY / FRAME_SAMPLES {
            if let Some(sync) = self.sync.as_mut() {
                sync.play += frames.cast_signed() * FRAME;
            }
            self.present.fill(0);
            return;
        }
        for _ in 0..frames {
            self.pop(&mut ignored);
        }
    }
}

enum Drift {
    None,
    Drop,
    Repeat,
}

impl Sync {
    fn is_duplicate(&mut self, sequence: u16) -> bool {
        let ahead = sequence.wrapping_sub(self.highest_sequence).cast_signed();
        if ahead > 0 {
            self.seen = self.seen.checked_shl(ahead.unsigned_abs().into()).unwrap_or(0) | 1;
            self.highest_sequence = sequence;
            return false;
        }
        let behind = ahead.unsigned_abs();
        if behind >= 64 {
            // Too old to know: a restarted counter, or so late that its timestamp tells.
            if behind > 3000 {
                self.highest_sequence = sequence;
                self.seen = 1;
            }
            return false;
        }
        let bit = 1 << behind;
        let known = self.seen & bit != 0;
        self.seen |= bit;
        known
    }

    /// In steady state the buffer holds the target and one frame when a tick comes. Only when it held clearly more (or
    /// less) at every tick of the window is the clock, or the first packet's luck, to blame rather than jitter.
    fn measure_drift(&mut self, target: i64) -> Drift {
        let level = self.newest - self.play;
        let window = &mut self.window;
        window.ticks += 1;
        window.lowest = window.lowest.min(level);
        window.highest = window.highest.max(level);
        if window.ticks < DRIFT_WINDOW {
            return Drift::None;
        }
        let finished = std::mem::replace(window, Window::NEW);
        if finished.packets < DRIFT_WINDOW / 4 {
            return Drift::None;
        }
        if finished.lowest > target + 2 * FRAME {
            Drift::Drop
        } else if finished.highest < target.max(FRAME / 2) {
            Drift::Repeat
        } else {
            Drift::None
        }
    }
}

#[cfg(test)]
mod tests {
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
            Self { buffer: JitterBuffer::new(target_millis), start, now: start }
        }

        /// Inserts packet `number` of a 20 ms stream whose samples all carry its number.
        fn put(&mut self, number: u16) -> Insert {
            self.put_at(number, u32::from(number) * 160, FRAME_SAMPLES, false)
        }

        fn put_at(&mut self, sequence: u16, timestamp: u32, length: usize, marker: bool) -> Insert {
            let at = Position { ssrc: 1, sequence, timestamp, marker };
            self.buffer.insert(at, std::iter::repeat_n(sequence as u8, length), self.now)
        }

        /// One tick; the frame's code if uniform, `None` for silence.
        fn tick(&mut self) -> Option<u8> {
            self.now += Duration::from_millis(20);
            let mut frame = [0; FRAME_SAMPLES];
            let found = self.buffer.pop(&mut frame);
            assert!(frame.iter().all(|code| *code == frame[0]), "mixed frame {frame:?}");
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
                        Position { ssrc: 1, sequence, timestamp: sent, marker: false },
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
        let at = Position { ssrc: 2, sequence: 900, timestamp: 5, marker: false };
        bench.buffer.insert(at, std::iter::repeat_n(9, 160), bench.now);
        assert_eq!(bench.tick(), Some(9));
        let at = Position { ssrc: 2, sequence: 901, timestamp: 0x9000_0000, marker: false };
        bench.buffer.insert(at, std::iter::repeat_n(8, 160), bench.now);
        assert_eq!(bench.tick(), Some(8));
        // The sequence alone may jump: the timestamp says where the audio belongs.
        let at = Position { ssrc: 2, sequence: 30_000, timestamp: 0x9000_0000 + 160, marker: false };
        bench.buffer.insert(at, std::iter::repeat_n(6, 160), bench.now);
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
                bench.put_at(number % 256, u32::from(number) * 160, 160, number == 260);
                bench.tick()
            })
            .collect();
        assert_eq!(out, [None, None, Some(4), Some(5), Some(6)]);
        assert_eq!(bench.buffer.late(), 0);
    }

    #[test]
    fn a_stream_that_stood_still_and_continues_is_heard_again_at_once() {
        let mut bench = Bench::new(0);
        bench.put(0);
        bench.tick();
        for _ in 0..100 {
            bench.tick();
        }
        assert_eq!(bench.put(1), Insert::Stored);
        assert_eq!(bench.tick(), Some(1));
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
            assert!((40..=80).contains(&bench.buffer.corrections()), "{}", bench.buffer.corrections());
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
                    bench.tick();
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
            arrivals.sort();
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
}
