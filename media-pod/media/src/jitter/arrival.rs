//! Frames as soon as their packets are there: nothing is held back, so what comes late costs only what is missing.
//!
//! A frame that has not come when its packet was due is waited for, longer than an adaptive buffer would, for that delays nothing else. Then
//! it is concealed; if it comes after all, and nothing that follows it has, it is heard as well: to who listens on a connection that keeps what
//! was said, a moment twice is better than one that is lost.

use std::time::{Duration, Instant};

use super::sound::Sample;
use super::{FRAME, JitterBuffer};

/// How long what is missing is waited for at least.
pub const PATIENCE: Duration = Duration::from_millis(60);

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
        let patience = self.necessary().max(PATIENCE.as_micros() as i64);
        let micros = self.model.base() + self.micros_of(position + packet) + patience;
        Some(epoch + Duration::from_micros(micros.max(0).cast_unsigned()))
    }

    /// A packet comes after a pause, or in place of one that has been concealed: it is what is heard next.
    pub(super) fn take_place(&mut self, start: i64) {
        let pause = self.concealer.is_silent() && self.store.first().is_none();
        let Some(sync) = &mut self.sync else {
            return;
        };
        let back = sync.next - start;
        if pause && back <= 0 {
            sync.next = start;
        } else if back > 0 && back <= sync.missing {
            sync.next -= back;
            sync.missing -= back;
        }
    }
}

#[cfg(test)]
#[path = "arrival_tests.rs"]
mod tests;
