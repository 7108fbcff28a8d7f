//! Frames as soon as their packets are there: nothing is held back, so what comes late costs only what is missing.
//!
//! A frame that has not come when its packet was due is waited for, longer than an adaptive buffer would, for that delays nothing else. Then
//! it is concealed; if it comes after all, and nothing that follows it has, it is heard as well: to who listens on a connection that keeps what
//! was said, a moment twice is better than one that is lost. What follows such a packet comes with it, and has time for that.

use std::time::{Duration, Instant};

use super::sound::Sample;
use super::{FRAME, JitterBuffer, MAX_DELAY};

/// How long what is missing is waited for at least.
pub const PATIENCE: Duration = Duration::from_millis(60);
const LEAST: i64 = PATIENCE.as_micros() as i64;
/// What is learned from a packet that came after its place was filled is forgotten by this part with each packet: half of it after 14 s.
const FORGETS: i64 = 1000;
/// Packets that a spurt's first one may have overtaken.
const OVERTAKEN: u16 = 3;

/// How long is waited. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// More than the least.
    learned: i64,
    /// Nothing is given up before.
    until: i64,
}

impl Patience {
    fn length(self, necessary: i64) -> i64 {
        (LEAST + self.learned).max(necessary).min(MAX_DELAY)
    }

    /// A packet came so much later than it was waited for; what was held up with it comes behind it.
    fn came_late(&mut self, by: i64, clock: i64) {
        self.learned = (self.learned + by + FRAME).min(MAX_DELAY - LEAST);
        self.until = clock + LEAST;
    }
}

impl<S: Sample> JitterBuffer<S> {
    /// Whether the next frame can be made of what has come. A pause that the sender has made is no hole.
    pub fn is_ready(&self) -> bool {
        let Some(sync) = &self.sync else {
            return false;
        };
        let needed = self.samples_in(FRAME);
        let mut have = self.sound.waiting();
        let mut next = sync.next;
        let mut last = sync.decoded.map(|(sequence, _)| sequence);
        for entry in self.store.entries() {
            let follows = last.is_none_or(|last| entry.sequence == last.wrapping_add(1));
            if have >= needed || (entry.start > next && !follows) {
                break;
            }
            if entry.end() > next {
                have += self.samples_of(entry.end() - next);
                next = entry.end();
            }
            last = Some(entry.sequence);
        }
        have >= needed
    }

    /// Until when the next frame is waited for, if packets have come.
    pub fn deadline(&self) -> Option<Instant> {
        let (position, epoch) = (self.position()?, self.epoch?);
        let packet = self.lengths.0.max(self.lengths.1);
        let micros = self.given_up_at(position + packet).max(self.patience.until);
        Some(epoch + Duration::from_micros(micros.max(0).cast_unsigned()))
    }

    /// A frame was given up that was waited for until then. The next one has its own time, however late that is noticed.
    pub fn gave_up(&mut self, due: Instant) {
        self.patience.until = self.clock(due) + FRAME;
    }

    /// When a packet that ends there is not waited for any more.
    fn given_up_at(&self, end: i64) -> i64 {
        self.model.base() + self.micros_of(end) + self.patience.length(self.necessary())
    }

    /// A packet comes after a pause, or in place of one that has been concealed: it is what is heard next.
    pub(super) fn take_place(&mut self, start: i64, sequence: u16, length: i64, clock: i64) {
        let late = clock - self.given_up_at(start + length);
        let pause = self.concealer.is_silent() && self.store.first().is_none();
        let patience = &mut self.patience;
        let Some(sync) = &mut self.sync else {
            return;
        };
        if late > 0 {
            patience.came_late(late, clock);
        } else {
            patience.learned -= patience.learned / FORGETS;
        }
        let back = sync.next - start;
        if pause && back <= 0 {
            let last = sync
                .decoded
                .map_or(sequence, |(last, _)| last.wrapping_add(1));
            let overtaken = sequence.wrapping_sub(last);
            let before = if overtaken <= OVERTAKEN {
                i64::from(overtaken) * length
            } else {
                0
            };
            sync.next = sync.next.max(start - before);
        } else if back > 0 && back <= sync.missing {
            sync.next -= back;
            sync.missing -= back;
        }
    }

    /// A packet without sound has its sequence number: what follows it is no hole.
    pub fn pass_over(&mut self, ssrc: u32, sequence: u16) {
        let sync = self.sync.as_mut().filter(|sync| sync.ssrc == ssrc);
        if let Some((last, _)) = sync.and_then(|sync| sync.decoded.as_mut())
            && sequence == last.wrapping_add(1)
        {
            *last = sequence;
        }
    }
}

#[cfg(test)]
#[path = "arrival_tests.rs"]
mod tests;
