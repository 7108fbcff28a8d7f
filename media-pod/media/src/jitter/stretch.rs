//! Makes sound shorter or longer by a period of its pitch, which is not heard: the delay changes, nothing is cut.
//!
//! This is the overlap-add of similar pieces (WSOLA: Verhelst and Roelands, ICASSP 1993) done at one place at a time. In silence any
//! length will do.

use super::pitch::{self, COMPARED_MILLIS, Toward, fade, is_quiet};
use super::sound::{Sample, Sound};

/// How alike the pieces must be that are faded into each other.
const ALIKE: f32 = 0.75;
/// The same where it is urgent.
const ALIKE_IF_URGENT: f32 = 0.4;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// At most so many samples, when sound is made shorter. In silence just so many, but no more than fit.
    pub samples: usize,
    /// Whether it may be heard a little.
    pub urgent: bool,
}

/// Shortens and lengthens.
#[derive(Debug)]
pub struct Stretcher {
    samples_per_milli: usize,
    work: Vec<f32>,
}

impl Stretcher {
    pub fn new(samples_per_milli: usize) -> Self {
        Self {
            samples_per_milli,
            work: Vec::new(),
        }
    }

    /// How much should wait for [`Self::shorten`] to find all pitches.
    pub fn reach(&self) -> usize {
        pitch::longest_lag(self.samples_per_milli) + COMPARED_MILLIS * self.samples_per_milli
    }

    /// Takes up to `change` away from what waits, of which `needed` samples must stay. Gives how many it took.
    pub fn shorten<S: Sample>(
        &mut self,
        sound: &mut Sound<S>,
        change: Change,
        needed: usize,
    ) -> usize {
        let (all, history) = sound.all();
        if all.len() - history < self.reach() {
            return 0;
        }
        self.work.clear();
        self.work
            .extend(all[history..].iter().map(|sample| sample.linear()));
        let spare = self.work.len().saturating_sub(needed);
        let overlap = COMPARED_MILLIS * self.samples_per_milli;
        let lag = if is_quiet(&self.work[..self.reach()]) {
            change.samples.min(self.work.len() - overlap).min(spare)
        } else {
            self.find(0, Toward::Future, change)
        };
        if lag == 0 || lag > spare.min(change.samples) {
            return 0;
        }
        let overlap = lag.min(overlap);
        sound.remove(overlap, lag);
        for (at, sample) in sound.waiting_mut()[..overlap].iter_mut().enumerate() {
            let mixed = fade(self.work[at], self.work[at + lag], at, overlap);
            *sample = S::nearest(mixed);
        }
        lag
    }

    /// Puts a period before what waits, of what was played. Gives how many samples.
    pub fn lengthen<S: Sample>(&mut self, sound: &mut Sound<S>, change: Change) -> usize {
        let (all, history) = sound.all();
        let overlap = COMPARED_MILLIS * self.samples_per_milli;
        if all.len() - history < overlap {
            return 0;
        }
        let from = history - pitch::longest_lag(self.samples_per_milli);
        self.work.clear();
        self.work.extend(
            all[from..history + overlap]
                .iter()
                .map(|sample| sample.linear()),
        );
        let at = history - from;
        let lag = if is_quiet(&self.work) {
            change.samples.min(at)
        } else {
            self.find(at, Toward::Past, change)
        };
        if lag == 0 {
            return 0;
        }
        let overlap = lag.min(overlap);
        sound.insert(lag);
        let all = &mut sound.waiting_mut()[..lag];
        for (place, sample) in all.iter_mut().enumerate() {
            let again = self.work[at + place - lag];
            let value = if place < overlap {
                fade(self.work[at + place], again, place, overlap)
            } else {
                again
            };
            *sample = S::nearest(value);
        }
        lag
    }

    fn find(&self, at: usize, toward: Toward, change: Change) -> usize {
        let found = pitch::find(&self.work, at, toward, self.samples_per_milli);
        let enough = if change.urgent {
            ALIKE_IF_URGENT
        } else {
            ALIKE
        };
        if found.likeness >= enough {
            found.lag
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> f32 {
        let phase = n as f32 / 8000.0 * 125.0 * std::f32::consts::TAU;
        6000.0 * (phase.sin() + 0.5 * (3.0 * phase).cos())
    }

    fn voiced(waiting: usize) -> Sound<i16> {
        let mut sound = Sound::new(8);
        for (n, sample) in sound.extend(400 + waiting).iter_mut().enumerate() {
            *sample = i16::nearest(wave(n));
        }
        sound.play(&mut [0; 400]);
        sound
    }

    fn check(sound: &mut Sound<i16>, waiting: usize) {
        let mut out = vec![0; waiting];
        assert_eq!(sound.waiting(), waiting);
        sound.play(&mut out);
        for (n, sample) in out.iter().enumerate() {
            // Whole periods of 64 samples came or went, so the wave goes on as if nothing had happened.
            let expected = wave(400 + n);
            assert!((f32::from(*sample) - expected).abs() < 5.0, "sample {n}");
        }
    }

    const PLENTY: Change = Change {
        samples: 120,
        urgent: false,
    };

    #[test]
    fn takes_a_period_away_without_a_seam() {
        let mut sound = voiced(320);
        let mut stretcher = Stretcher::new(8);
        assert_eq!(stretcher.shorten(&mut sound, PLENTY, 160), 64);
        check(&mut sound, 320 - 64);
    }

    #[test]
    fn puts_a_period_in_without_a_seam() {
        let mut sound = voiced(160);
        let mut stretcher = Stretcher::new(8);
        assert_eq!(stretcher.lengthen(&mut sound, PLENTY), 64);
        check(&mut sound, 160 + 64);
    }

    #[test]
    fn in_silence_the_length_is_exact() {
        let mut stretcher = Stretcher::new(8);
        let change = Change {
            samples: 77,
            urgent: false,
        };
        let mut sound = Sound::<u8>::new(8);
        sound.extend(320);
        assert_eq!(stretcher.shorten(&mut sound, change, 160), 77);
        assert_eq!(stretcher.lengthen(&mut sound, change), 77);
        assert_eq!(sound.waiting(), 320);
    }

    #[test]
    fn leaves_alone_what_has_no_pitch_and_what_is_needed() {
        let mut stretcher = Stretcher::new(8);
        let mut sound = Sound::<i16>::new(8);
        let mut seed = 1u32;
        for sample in sound.extend(720) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *sample = (seed >> 18) as i16 - 8192;
        }
        sound.play(&mut [0; 400]);
        assert_eq!(stretcher.shorten(&mut sound, PLENTY, 160), 0);
        assert_eq!(stretcher.lengthen(&mut sound, PLENTY), 0);
        let mut sound = voiced(320);
        assert_eq!(stretcher.shorten(&mut sound, PLENTY, 300), 0);
    }
}
