//! What the agent hears: frames every 20 ms, or as they come.

use std::time::{Duration, Instant};

use super::{MAX_CATCH_UP, MAX_EVENTS, RtpStream, StreamEvent, TICK, ticks_due};
use crate::FRAME_MILLIS;
use crate::format::MOST_BYTES;
use crate::playback::take_front;

/// Frames that wait for the owner. Beyond it they are dropped and counted.
pub(super) const MAX_FRAMES: usize = 64;

/// So many microseconds later.
fn shifted(at: Instant, micros: i64) -> Instant {
    let by = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        at.checked_sub(by).unwrap_or(at)
    } else {
        at + by
    }
}

impl RtpStream {
    /// Makes the frames that are there, once the stream has started. The next one is due when it is no longer waited for.
    pub(super) fn make_frames_on_arrival(&mut self, now: Instant) {
        if self.next_frame.is_none() {
            return;
        }
        while self.inbound.is_ready() {
            if !self.credit.take(now) {
                // Faster than time: then as fast as time.
                self.next_frame = Some(now + TICK);
                return;
            }
            self.make_frame(now);
        }
        self.next_frame = self.inbound.deadline().or(self.next_frame);
    }

    /// A frame every 20 ms.
    pub(super) fn make_due_frames(&mut self, due: Instant, now: Instant) {
        let (count, skipped) = ticks_due(due, now);
        self.next_frame = Some(due + TICK * (count + skipped));
        if skipped > 0 {
            self.stats.ticks_skipped += u64::from(skipped);
            self.ticks += u64::from(skipped);
            self.inbound.skip(skipped.into());
        }
        for number in 0..count {
            self.make_frame(due + TICK * (skipped + number));
        }
    }

    /// What is missing is not waited for any more, but for what a late thread would have to make up for.
    pub(super) fn give_up(&mut self, mut due: Instant, now: Instant) {
        for _ in 0..MAX_CATCH_UP {
            // Of what came while the thread was late, nothing is missing.
            if !self.inbound.is_ready() && self.credit.take(now) {
                self.make_frame(due);
                self.inbound.gave_up(due);
                self.next_frame = Some(due + TICK);
            }
            self.make_frames_on_arrival(now);
            match self.next_frame.filter(|due| *due <= now) {
                Some(next) => due = next,
                None => return,
            }
        }
        self.inbound.gave_up(now);
        self.next_frame = Some(now + TICK);
    }

    fn make_frame(&mut self, due: Instant) {
        let mut frame = [0; MOST_BYTES];
        let frame = &mut frame[..self.playback.format().frame_bytes()];
        let shift = self.inbound.pop(frame, due);
        self.next_frame = self.next_frame.map(|next| shifted(next, shift));
        self.listen_for_keys(frame);
        if self.inbound.is_on_arrival() {
            self.catch_up_with_time(due);
        }
        let timestamp_millis = self.ticks * FRAME_MILLIS;
        self.ticks += 1;
        if self.frames.len() < MAX_FRAMES {
            self.frames.push_back(timestamp_millis);
            self.sound.extend(&*frame);
        } else {
            self.stats.frames_dropped += 1;
        }
    }

    /// Frames that nobody paces begin when they come, where that is later than the one before would say.
    fn catch_up_with_time(&mut self, now: Instant) {
        let passed = self
            .begun
            .map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let ticks = (passed.as_millis() / TICK.as_millis()) as u64;
        if ticks > self.ticks + 2 {
            self.ticks = ticks;
        }
    }

    /// Keys are tones where no events were agreed on.
    fn listen_for_keys(&mut self, frame: &[u8]) {
        let Self { tones, events, .. } = self;
        let Some(tones) = tones else { return };
        tones.listen(frame, |digit| {
            if events.len() < 2 * MAX_EVENTS {
                events.push_back(StreamEvent::Digit(digit));
            }
        });
    }

    /// Frames wait that are not to wait.
    pub(super) fn has_arrived(&self) -> bool {
        !self.frames.is_empty() && self.inbound.is_on_arrival()
    }

    /// The next frame for the agent: its bytes at the start of `out` ([`MOST_BYTES`] suffice), how many, and when it began, in milliseconds
    /// since the stream's start.
    pub fn poll_frame(&mut self, out: &mut [u8]) -> Option<(usize, u64)> {
        let timestamp_millis = self.frames.pop_front()?;
        let length = self.playback.format().frame_bytes();
        take_front(&mut self.sound, out.get_mut(..length)?);
        Some((length, timestamp_millis))
    }
}
