//! Jitter buffer for G.711: packets of any size and order in, one 20 ms frame on every tick out.
//!
//! The buffer is a ring of samples addressed by RTP timestamp, so packets of 10, 30 or 60 ms need no special case, and
//! its memory is fixed. Its delay is fixed too (the target), only corrected when it has run away for some time: adaptive
//! delay and concealment are not here, a hole is silence.

use std::time::{Duration, Instant};

use crate::{FRAME_SAMPLES, g711::ULAW_SILENCE};

/// Samples that the ring holds: 512 ms.
const CAPACITY: usize = 4096;
const SPAN: i64 = 4096;
/// Largest target delay.
pub const MAX_TARGET_MILLIS: u32 = 200;
/// Ticks over which the fill level must be off before a frame is dropped or repeated: 2 s.
const DRIFT_WINDOW: u32 = 100;
/// Late packets in a row after which the sender, not the network, has changed.
const LATE_RUN: u32 = 3;
/// ... provided that they came over at least this time: a burst after a stall of the network is late too, but over at once.
const LATE_TIME: Duration = Duration::from_millis(40);
/// A timestamp so far in the past, one minute, is a new stream; one less far may be a burst after a stall.
const FAR_BEHIND: i64 = 480_000;
const FRAME: i64 = 160;
const _: () = assert!(
    SPAN.cast_unsigned() == CAPACITY as u64 && FRAME.cast_unsigned() == FRAME_SAMPLES as u64
);

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
    /// Arrival of the first packet of the run.
    late_since: Instant,
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

    /// Forgets the stream, so that the next packet starts anew; the counts stay.
    pub fn reset(&mut self) {
        self.sync = None;
        self.present.fill(0);
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
    pub fn insert(
        &mut self,
        at: Position,
        codes: impl ExactSizeIterator<Item = u8>,
        now: Instant,
    ) -> Insert {
        let length = i64::try_from(codes.len()).unwrap_or(i64::MAX);
        if length == 0 || length > SPAN / 2 {
            return Insert::Stored;
        }
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.ssrc == at.ssrc) else {
            return self.restart(at, length, codes, now);
        };
        if sync.is_duplicate(at.sequence) {
            self.duplicates += 1;
            return Insert::Duplicate;
        }
        let step = at.timestamp.wrapping_sub(sync.last_timestamp).cast_signed();
        let start = sync.last_extended + i64::from(step);
        if start + length > sync.play + SPAN || start + FAR_BEHIND < sync.play {
            return self.restart(at, length, codes, now);
        }
        if start + length <= sync.play {
            if sync.late_run == 0 {
                sync.late_since = now;
            }
            sync.late_run += 1;
            let lasts = now.saturating_duration_since(sync.late_since) >= LATE_TIME;
            if at.marker || (sync.late_run >= LATE_RUN && lasts) {
                return self.restart(at, length, codes, now);
            }
            self.late += 1;
            return Insert::Late;
        }
        sync.late_run = 0;
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

    fn restart(
        &mut self,
        at: Position,
        length: i64,
        codes: impl Iterator<Item = u8>,
        now: Instant,
    ) -> Insert {
        self.present.fill(0);
        let start = i64::from(at.timestamp);
        let play = start - self.target;
        self.sync = Some(Sync {
            ssrc: at.ssrc,
            last_timestamp: at.timestamp,
            last_extended: start,
            play,
            newest: start + length,
            highest_sequence: at.sequence,
            seen: 1,
            late_run: 0,
            late_since: now,
            window: Window::NEW,
        });
        self.store(start, play, codes);
        Insert::Stored
    }

    fn store(&mut self, start: i64, play: i64, codes: impl Iterator<Item = u8>) {
        for (time, code) in (start..).zip(codes) {
            if time >= play {
                let slot = slot_of(time);
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
                    let slot = slot_of(time);
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
            let slot = slot_of(time);
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

fn slot_of(time: i64) -> usize {
    time.rem_euclid(SPAN) as usize
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
            self.seen = self
                .seen
                .checked_shl(ahead.unsigned_abs().into())
                .unwrap_or(0)
                | 1;
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
#[path = "jitter_tests.rs"]
mod tests;
