//! What the caller writes into a frame of µ-law so that whoever meets it later knows which frame it is and how old.
//!
//! 33 bytes at the start of a frame, each of them a µ-law code of 0x82 to 0x9f: G.711's tables and 16-bit samples carry them unchanged.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Bytes of a marker.
pub const BYTES: usize = 33;

const START: [u8; 4] = [0x91, 0x82, 0x93, 0x84];
const CALL: std::ops::Range<usize> = 4..8;
const FRAME: std::ops::Range<usize> = 8..13;
const SENT: std::ops::Range<usize> = 13..23;
const AGENT: std::ops::Range<usize> = 23..33;

/// Times are counted in microseconds, in 40 bits: twelve days.
const TIME_MASK: u64 = (1 << 40) - 1;

/// What a marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Which call.
    pub call: u16,
    /// Which frame of it.
    pub frame: u32,
    /// When the caller sent it.
    pub sent: u64,
    /// When the agent had it; 0 if it did not say.
    pub agent: u64,
}

/// The time, as markers have it: the same for all processes of a machine.
pub fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_micros() as u64 & TIME_MASK
}

/// The time that it was then.
pub fn at(then: Instant) -> u64 {
    let passed = then.elapsed().as_micros() as u64;
    now().wrapping_sub(passed) & TIME_MASK
}

/// Microseconds from one time to a later one. 0 if it is no later: clocks are read one after the other.
pub fn between(earlier: u64, later: u64) -> u64 {
    let passed = later.wrapping_sub(earlier) & TIME_MASK;
    if passed > TIME_MASK / 2 { 0 } else { passed }
}

fn write(digits: &mut [u8], value: u64) {
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        *digit = 0x90 | (value >> (4 * at) & 0xf) as u8;
    }
}

fn read(digits: &[u8]) -> u64 {
    let value = |sum, digit: &u8| sum << 4 | u64::from(digit & 0xf);
    digits.iter().fold(0, value)
}

impl Marker {
    /// Writes it at the start of a frame.
    pub fn put(&self, frame: &mut [u8]) {
        frame[..START.len()].copy_from_slice(&START);
        write(&mut frame[CALL], self.call.into());
        write(&mut frame[FRAME], self.frame.into());
        write(&mut frame[SENT], self.sent);
        write(&mut frame[AGENT], self.agent);
    }

    /// Reads the one at the start of a frame.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let frame = frame.get(..BYTES)?.strip_prefix(&START).map(|_| frame)?;
        Some(Self {
            call: read(&frame[CALL]) as u16,
            frame: read(&frame[FRAME]) as u32,
            sent: read(&frame[SENT]),
            agent: read(&frame[AGENT]),
        })
    }
}

/// Notes in a frame when the agent had it, if there is a marker: whether there is one.
pub fn stamp(frame: &mut [u8]) -> bool {
    let marked = frame.len() >= BYTES && frame.starts_with(&START);
    if marked {
        write(&mut frame[AGENT], now());
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_through_g711_as_it_was_written() {
        let marker = Marker {
            call: 51_234,
            frame: 654_321,
            sent: now(),
            agent: 0,
        };
        let mut frame = [0xff; 160];
        marker.put(&mut frame);
        let there_and_back = frame
            .map(|code| ringwire_media::g711::encode_ulaw(ringwire_media::g711::decode_ulaw(code)));
        assert_eq!(Marker::of(&there_and_back), Some(marker));
        assert!(stamp(&mut frame));
        let stamped = Marker::of(&frame).unwrap();
        assert!(between(stamped.sent, stamped.agent) < 1_000_000);
        assert_eq!(Marker::of(&[0xff; 160]), None);
        assert!(!stamp(&mut [0xff; 160]));
    }
}
