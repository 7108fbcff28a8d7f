//! Brings the delay to where it is to be: by the time at which frames are asked for, else by making sound shorter or longer.

use super::sound::Sample;
use super::stretch::Change;
use super::{Delay, FRAME, JitterBuffer, MAX_DELAY, Play};

/// What is added to the delay that nearly all packets keep to.
const HEADROOM: i64 = 1500;
/// The delay that is left alone around that.
const TOLERANCE: i64 = 500;
/// By how much the next frame may be asked for sooner or later, at once and in all.
pub const MAX_SHIFT: i64 = 1000;
const MAX_PHASE: i64 = FRAME;
/// Beyond this the delay is changed in a hurry.
const HURRY: i64 = 40_000;
/// Frames between two changes of sound otherwise, and between two that only put packets and frames in step.
const PAUSE: u32 = 5;
const LONG_PAUSE: u32 = 25;
/// How far into a frame packets begin at most, lately, in microseconds: so much sooner than it is played a packet must be there.
#[derive(Debug)]
pub struct Residue {
    now: i64,
    before: i64,
    seen: u32,
}

impl Residue {
    /// Packets after which what was seen before is forgotten.
    const WINDOW: u32 = 6;

    pub fn new(most: i64) -> Self {
        Self {
            now: 0,
            before: most,
            seen: 0,
        }
    }

    pub fn see(&mut self, into: i64) {
        self.now = self.now.max(into);
        self.seen += 1;
        if self.seen >= Self::WINDOW {
            *self = Self::new(self.now);
        }
    }

    pub fn most(&self) -> i64 {
        self.now.max(self.before)
    }
}

fn common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

impl<S: Sample> JitterBuffer<S> {
    /// By how much the delay is longer than necessary, in microseconds.
    pub(super) fn excess(&self) -> i64 {
        match self.delay {
            Delay::Fixed(millis) => self.now_delayed - i64::from(millis) * 1000,
            Delay::Adaptive => {
                let residue = self.sync.as_ref().map_or(0, |sync| sync.residue.most());
                self.now_delayed - residue - self.necessary()
            }
            Delay::OnArrival => 0,
        }
    }

    /// The delay that the network makes necessary, in microseconds.
    pub(super) fn necessary(&self) -> i64 {
        (self.model.spread() + HEADROOM).min(MAX_DELAY)
    }

    /// Where the delay is far beyond the limit, and sound cannot be made shorter in time, some is left out.
    pub(super) fn limit_delay(&mut self) {
        let beyond = self.now_delayed - MAX_DELAY;
        if self.delay == Delay::Adaptive && beyond > HURRY {
            let ticks = self.ticks_in(beyond);
            if let Some(sync) = &mut self.sync {
                sync.next += ticks;
            }
            self.now_delayed -= beyond;
        }
    }

    /// Changes the delay for nothing.
    pub(super) fn shift(&mut self, excess: i64) -> i64 {
        // More than a frame is for `change_length`.
        if self.delay != Delay::Adaptive || excess.abs() <= TOLERANCE || excess >= FRAME + FRAME / 4
        {
            return 0;
        }
        let before = self.phase;
        let shift = if before <= -MAX_PHASE && excess > FRAME / 4 {
            // Frames cannot come sooner: first a little later, then the sound is made shorter by a frame.
            FRAME - excess
        } else {
            (-excess).clamp(-MAX_SHIFT, MAX_SHIFT)
        };
        self.phase = (before + shift).clamp(-MAX_PHASE, MAX_PHASE);
        self.phase - before
    }

    /// Changes the delay by taking something away from the sound or putting something in, if that is to be done now.
    pub(super) fn change_length(
        &mut self,
        play: &mut (impl Play<S> + ?Sized),
        excess: i64,
        frame: usize,
    ) {
        let urgent = excess.abs() > HURRY;
        if self.unchanged < if urgent { 1 } else { PAUSE } {
            return;
        }
        let Some(sync) = &self.sync else {
            return;
        };
        let residue = sync.residue.most();
        // What makes a difference: a packet is needed when the frame begins into which it falls.
        let packet = self.micros_of(sync.decoded.map_or(0, |(_, ticks)| ticks));
        let step = common_divisor(FRAME, packet);
        let surplus = residue % step;
        let adaptive = self.delay == Delay::Adaptive;
        let (shortens, lengthens) = if adaptive {
            let at_limit = self.phase >= MAX_PHASE;
            let deficit = if at_limit { 0 } else { 2 * MAX_SHIFT };
            (excess >= step, -excess > deficit + TOLERANCE)
        } else {
            (excess > FRAME + FRAME / 4, excess < 0)
        };
        let aligns = adaptive && !lengthens && surplus > FRAME / 8 && self.unchanged >= LONG_PAUSE;
        let by = if shortens || aligns {
            let wanted = if shortens { excess } else { surplus };
            let change = Change {
                samples: self.samples_in(wanted),
                urgent,
            };
            self.fill(play, frame + self.stretcher.reach(), frame, false);
            -(self
                .stretcher
                .shorten(&mut self.sound, change, frame)
                .cast_signed() as i64)
        } else if lengthens {
            let change = Change {
                samples: self.samples_in(step - surplus),
                urgent,
            };
            self.fill(play, frame, frame, false);
            self.stretcher
                .lengthen(&mut self.sound, change)
                .cast_signed() as i64
        } else {
            return;
        };
        // What cannot be changed here is not looked at again in the next frame.
        self.unchanged = 0;
        if by != 0 {
            self.stats.corrections += 1;
            let surplus = (surplus + by * 1000 / self.samples_per_milli).rem_euclid(step);
            if let Some(sync) = &mut self.sync {
                sync.residue = Residue::new(residue / step * step + surplus);
            }
        }
    }
}
