//! A test signal for calls without a WAV file: deterministic, speech-like, and unmistakable about its delay.
//!
//! Syllables with a gliding pitch and formants, some of them noise, pauses between; not for human ears.

use std::f64::consts::TAU;

const RATE: f64 = 8000.0;

/// `millis` of the signal at 8 kHz; the same seed gives the same samples.
pub fn speech_like(millis: u32, seed: u64) -> Vec<i16> {
    let count = millis as usize * 8;
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::with_capacity(count + 4000);
    while out.len() < count {
        syllable(&mut out, &mut random);
        let pause = 160 + random.below(1600) as usize;
        out.resize(out.len() + pause, 0);
    }
    out.truncate(count);
    out
}

fn syllable(out: &mut Vec<i16>, random: &mut Random) {
    let length = 640 + random.below(1600) as usize;
    let voiced = random.below(4) != 0;
    let pitch = 90.0 + f64::from(random.below(120));
    let glide = 0.7 + f64::from(random.below(60)) / 100.0;
    let formants = [300 + random.below(600), 1000 + random.below(1400)].map(f64::from);
    let mut phase = 0.0;
    for n in 0..length {
        let position = n as f64 / length as f64;
        let envelope = (position * TAU / 2.0).sin();
        phase += pitch * (1.0 + (glide - 1.0) * position) / RATE;
        let value = if voiced {
            let frequency = pitch * (1.0 + (glide - 1.0) * position);
            (1..=(3400.0 / frequency) as u32)
                .map(|harmonic| {
                    let hertz = frequency * f64::from(harmonic);
                    let gain: f64 = formants
                        .iter()
                        .map(|formant| 1.0 / (1.0 + ((hertz - formant) / 150.0).powi(2)))
                        .sum();
                    gain * (TAU * phase * f64::from(harmonic)).sin()
                })
                .sum::<f64>()
        } else {
            f64::from(random.below(2000)) / 1000.0 - 1.0
        };
        out.push((value * envelope * 5000.0).clamp(-30_000.0, 30_000.0) as i16);
    }
}

/// Xorshift: repeatable on every machine, which is all that matters here.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_repeatable_loud_enough_and_as_long_as_asked() {
        let signal = speech_like(3000, 1);
        assert_eq!(signal.len(), 24_000);
        assert_eq!(signal, speech_like(3000, 1));
        assert_ne!(signal, speech_like(3000, 2));
        let power: f64 = signal
            .iter()
            .map(|sample| f64::from(*sample).powi(2))
            .sum::<f64>()
            / 24_000.0;
        assert!(
            (500.0..10_000.0).contains(&power.sqrt()),
            "{}",
            power.sqrt()
        );
    }
}
