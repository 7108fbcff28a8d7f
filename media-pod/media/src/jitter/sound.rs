//! Sound that has been played lately and sound that is about to be, in one piece: concealment and time scaling look at both.

use crate::g711::{ULAW_SILENCE, decode_ulaw, encode_ulaw};

/// What is kept of the sound played, in milliseconds: three of the longest pitch periods and a quarter (G.711 appendix I).
pub const HISTORY_MILLIS: usize = 50;

/// One sample as it is played: 16-bit linear, or µ-law, which stays as it came unless it has to be changed.
pub trait Sample: Copy + std::fmt::Debug + PartialEq {
    /// Silence.
    const SILENCE: Self;

    /// As a number of 16 bits.
    fn linear(self) -> f32;

    /// The sample that is closest to this number.
    fn nearest(linear: f32) -> Self;
}

impl Sample for i16 {
    const SILENCE: Self = 0;

    fn linear(self) -> f32 {
        f32::from(self)
    }

    fn nearest(linear: f32) -> Self {
        // Out of range saturates.
        linear.round() as Self
    }
}

impl Sample for u8 {
    const SILENCE: Self = ULAW_SILENCE;

    fn linear(self) -> f32 {
        f32::from(decode_ulaw(self))
    }

    fn nearest(linear: f32) -> Self {
        encode_ulaw(linear as i16)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Sound<S> {
    /// First `history` samples that were played, then those that wait.
    samples: Vec<S>,
    history: usize,
}

impl<S: Sample> Sound<S> {
    /// Silence, at so many samples in a millisecond.
    pub fn new(samples_per_milli: usize) -> Self {
        let history = HISTORY_MILLIS * samples_per_milli;
        let mut samples = Vec::with_capacity(history + 60 * samples_per_milli);
        samples.resize(history, S::SILENCE);
        Self { samples, history }
    }

    /// How many samples wait.
    pub fn waiting(&self) -> usize {
        self.samples.len() - self.history
    }

    /// History and what waits; the history's length.
    pub fn all(&self) -> (&[S], usize) {
        (&self.samples, self.history)
    }

    /// Adds so many samples of silence, to be overwritten.
    pub fn extend(&mut self, count: usize) -> &mut [S] {
        let before = self.samples.len();
        self.samples.resize(before + count, S::SILENCE);
        &mut self.samples[before..]
    }

    /// Takes some of the newest samples that wait away: the first `count` of the last `of`.
    pub fn cut(&mut self, of: usize, count: usize) {
        let from = self.samples.len() - of;
        self.samples.drain(from..from + count);
    }

    /// Takes `count` of the samples that wait away, after the first `keep`.
    pub fn remove(&mut self, keep: usize, count: usize) {
        let from = self.history + keep;
        self.samples.drain(from..from + count);
    }

    /// Puts silence before what waits, to be overwritten.
    pub fn insert(&mut self, count: usize) {
        let before = self.samples.len();
        self.samples.resize(before + count, S::SILENCE);
        self.samples
            .copy_within(self.history..before, self.history + count);
    }

    /// What waits.
    pub fn waiting_mut(&mut self) -> &mut [S] {
        &mut self.samples[self.history..]
    }

    /// Plays what fills the frame; at least so much must wait.
    pub fn play(&mut self, frame: &mut [S]) {
        let count = frame.len();
        frame.copy_from_slice(&self.samples[self.history..self.history + count]);
        let length = self.samples.len();
        self.samples.copy_within(count..length, 0);
        self.samples.truncate(length - count);
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.samples.clear();
        self.samples.resize(self.history, S::SILENCE);
    }

    /// Memory that it holds, in bytes.
    #[cfg(test)]
    pub fn footprint(&self) -> usize {
        self.samples.capacity() * size_of::<S>()
    }
}
