//! Sound in place of packets that did not come, made of the last pitch periods of what was played.
//!
//! As ITU-T G.711 appendix I describes it: the last period is repeated, from 10 ms on the last two, from 20 ms on the last three, so that a
//! long gap does not hum; the seams overlap by a quarter of a period; it fades by a fifth every 10 ms, and after 60 ms there is silence.
//! Unlike there nothing is delayed for the overlap at the beginning: the step to the repetition is smoothed away in what follows it.

use super::pitch::{self, COMPARED_MILLIS, Toward, fade};
use super::sound::{HISTORY_MILLIS, Sample, Sound};

/// Until it is silent.
const FADED_MILLIS: usize = 60;
/// One step of number of periods and loudness.
const STEP_MILLIS: usize = 10;
/// Length of the smoothed step at the beginning, in samples of 8 kHz.
const SMOOTH: usize = 8;
/// Over how much the packet that comes at last takes over.
const MERGE_MILLIS: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Concealer {
    samples_per_milli: usize,
    /// What was played before the gap.
    before: Vec<f32>,
    /// Samples made in this gap.
    made: usize,
    period: usize,
    /// By how much the repetition begins off what was played last.
    step: f32,
    active: bool,
}

impl Concealer {
    pub fn new(samples_per_milli: usize) -> Self {
        Self {
            samples_per_milli,
            before: Vec::new(),
            made: 0,
            period: 0,
            step: 0.0,
            active: false,
        }
    }

    /// Whether the last sound was made here.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether what it makes now is only silence.
    pub fn is_silent(&self) -> bool {
        self.active && (self.period == 0 || self.made >= FADED_MILLIS * self.samples_per_milli)
    }

    /// Forgets the gap.
    pub fn stop(&mut self) {
        self.active = false;
    }

    /// Adds so many samples to what waits.
    pub fn conceal<S: Sample>(&mut self, sound: &mut Sound<S>, count: usize) {
        if !self.active {
            self.begin(sound);
        }
        let made = self.made;
        for (at, sample) in (made..).zip(sound.extend(count)) {
            *sample = S::nearest(self.at(at));
        }
        self.made += count;
    }

    /// Lets the first samples of what came at last (the last `length` that wait) take over from the concealment.
    pub fn merge<S: Sample>(&mut self, sound: &mut Sound<S>, length: usize) {
        if !std::mem::take(&mut self.active) {
            return;
        }
        let waiting = sound.waiting_mut();
        let begin = waiting.len() - length;
        let length = length.min(MERGE_MILLIS * self.samples_per_milli);
        for (at, sample) in waiting[begin..begin + length].iter_mut().enumerate() {
            let new = sample.linear();
            *sample = S::nearest(fade(self.at(self.made + at), new, at, length));
        }
    }

    fn begin<S: Sample>(&mut self, sound: &Sound<S>) {
        self.active = true;
        self.made = 0;
        self.period = 0;
        let (all, _) = sound.all();
        let newest = &all[all.len() - HISTORY_MILLIS * self.samples_per_milli..];
        self.before.clear();
        self.before
            .extend(newest.iter().map(|sample| sample.linear()));
        let compared = COMPARED_MILLIS * self.samples_per_milli;
        let end = self.before.len();
        if self.before[end - 2 * compared..]
            .iter()
            .all(|sample| *sample == 0.0)
        {
            return;
        }
        let found = pitch::find(
            &self.before,
            end - compared,
            Toward::Past,
            self.samples_per_milli,
        );
        self.period = found.lag;
        self.step = self.before[end - 1] - self.before[end - 1 - self.period];
    }

    /// The sample so many after the last one played.
    fn at(&self, at: usize) -> f32 {
        let step = STEP_MILLIS * self.samples_per_milli;
        let faded = FADED_MILLIS * self.samples_per_milli;
        if self.period == 0 || at >= faded {
            return 0.0;
        }
        let overlap = self.period / 4;
        let steps = at / step;
        let periods = (1 + steps).min(3);
        let mut sample = self.repeat(at, periods);
        // Two and three periods begin where one and two would go on.
        let into = at - steps * step;
        if (1..=2).contains(&steps) && into < overlap {
            sample = fade(self.repeat(at, periods - 1), sample, into, overlap);
        }
        let smooth = SMOOTH * self.samples_per_milli / 8;
        if at < smooth {
            sample += self.step * (1.0 - (at + 1) as f32 / (smooth + 1) as f32);
        }
        let loudness = 1.0 - (at as f32 - step as f32).max(0.0) / (faded - step) as f32;
        sample * loudness
    }

    /// The last `periods` over and over; the end of them fades into what was before their beginning, which is what goes on well there.
    fn repeat(&self, at: usize, periods: usize) -> f32 {
        let length = periods * self.period;
        let overlap = self.period / 4;
        let place = at % length;
        let begin = self.before.len() - length;
        let sample = self.before[begin + place];
        let left = length - place;
        if left > overlap {
            return sample;
        }
        let into = overlap - left;
        fade(sample, self.before[begin + place - length], into, overlap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 50 ms of a voice-like sound of 125 Hz, played.
    fn voiced() -> (Sound<i16>, impl Fn(usize) -> f32) {
        let wave = |n: usize| {
            let phase = n as f32 / 8000.0 * 125.0 * std::f32::consts::TAU;
            6000.0 * (phase.sin() + 0.5 * (3.0 * phase).cos())
        };
        let mut sound = Sound::new(8);
        for (n, sample) in sound.extend(400).iter_mut().enumerate() {
            *sample = i16::nearest(wave(n));
        }
        sound.play(&mut [0; 400]);
        (sound, move |n| wave(n + 400))
    }

    #[test]
    fn goes_on_with_the_pitch_and_fades_to_silence() {
        let (mut sound, wave) = voiced();
        let mut concealer = Concealer::new(8);
        concealer.conceal(&mut sound, 160);
        let mut frame = [0; 160];
        sound.play(&mut frame);
        for (n, sample) in frame[..80].iter().enumerate() {
            assert!((f32::from(*sample) - wave(n)).abs() < 300.0, "sample {n}");
        }
        let power = |frame: &[i16]| frame.iter().map(|s| f32::from(*s).powi(2)).sum::<f32>();
        let mut last = power(&frame);
        for _ in 0..2 {
            concealer.conceal(&mut sound, 160);
            sound.play(&mut frame);
            assert!(power(&frame) < last && power(&frame) > 0.0);
            last = power(&frame);
        }
        assert!(concealer.is_silent());
        concealer.conceal(&mut sound, 160);
        sound.play(&mut frame);
        assert_eq!(frame, [0; 160]);
    }

    #[test]
    fn has_no_seam_where_it_begins_or_ends() {
        let (mut sound, wave) = voiced();
        let mut concealer = Concealer::new(8);
        let steepest = 1600.0;
        let mut last = f32::from(sound.all().0[399]);
        concealer.conceal(&mut sound, 200);
        for (n, sample) in sound.extend(160).iter_mut().enumerate() {
            // The packet that comes at last has another phase.
            *sample = i16::nearest(wave(n + 231));
        }
        concealer.merge(&mut sound, 160);
        assert!(!concealer.is_active());
        let mut out = [0; 360];
        sound.play(&mut out);
        for sample in out {
            let sample = f32::from(sample);
            assert!((sample - last).abs() < steepest, "{last} to {sample}");
            last = sample;
        }
    }

    #[test]
    fn silence_stays_silence() {
        let mut sound = Sound::<u8>::new(8);
        let mut concealer = Concealer::new(8);
        concealer.conceal(&mut sound, 160);
        assert!(concealer.is_silent());
        let mut frame = [0; 160];
        sound.play(&mut frame);
        assert_eq!(frame, [u8::SILENCE; 160]);
    }
}
