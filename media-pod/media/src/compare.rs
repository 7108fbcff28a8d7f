//! How alike two recordings are, and how much later the second is: did the echo come back whole, and when?
//!
//! Cross-correlation, first over one delay for all, then block by block over delays that differ from it by whole frames: where a sender
//! or a jitter buffer has left out or put in some, what follows is earlier or later, and still the same.

use crate::FRAME_SAMPLES;

/// Samples that must overlap for a delay to count: 200 ms.
const MIN_OVERLAP: usize = 1600;
/// Coarse search runs at 8000 / 4 = 2000 Hz.
const DECIMATION: usize = 4;
/// Coarse delays that are looked at again at full rate.
const CANDIDATES: usize = 8;
/// Blocks that have a delay of their own: 400 ms, some syllables.
const BLOCK: usize = 3200;
/// By how many frames of 20 ms that may differ from the delay of all. Few, so that other words don't find a place where they fit.
const MAX_FRAMES: isize = 12;

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// By how many 8 kHz samples the second signal is later, for most of it.
    pub delay_samples: usize,
    /// Normalised correlation, −1 to 1; 1 is the same signal at any volume.
    pub correlation: f64,
}

impl Comparison {
    /// The delay in milliseconds.
    pub fn delay_millis(&self) -> f64 {
        self.delay_samples as f64 / 8.0
    }
}

/// Finds the delay (0 to `max_delay_millis`) at which `received` is most like `reference`, both at 8 kHz. `None` if either
/// is silent or the overlap is shorter than 200 ms. What `received` lacks at its end is not compared.
pub fn compare(reference: &[i16], received: &[i16], max_delay_millis: u32) -> Option<Comparison> {
    let max_delay = max_delay_millis as usize * 8;
    let (coarse_a, coarse_b) = (
        Signal::new(decimate(reference)),
        Signal::new(decimate(received)),
    );
    let mut coarse: Vec<(usize, f64)> = (0..=max_delay / DECIMATION)
        .filter_map(|delay| {
            Some((
                delay,
                coarse_a.correlate(&coarse_b, delay, MIN_OVERLAP / DECIMATION)?,
            ))
        })
        .collect();
    coarse.sort_by(|a, b| b.1.total_cmp(&a.1));
    coarse.truncate(CANDIDATES);
    let full =
        |samples: &[i16]| Signal::new(samples.iter().map(|sample| f32::from(*sample)).collect());
    let (a, b) = (full(reference), full(received));
    coarse
        .iter()
        .flat_map(|(delay, _)| {
            let center = delay * DECIMATION;
            center.saturating_sub(DECIMATION)..=(center + DECIMATION).min(max_delay)
        })
        .filter_map(|delay| {
            let correlation = a.correlate(&b, delay, MIN_OVERLAP)?;
            Some(Comparison {
                delay_samples: delay,
                correlation,
            })
        })
        .max_by(|a, b| a.correlation.total_cmp(&b.correlation))
        .map(|whole| Comparison {
            correlation: a.correlate_in_blocks(&b, whole.delay_samples),
            ..whole
        })
}

/// Samples with the running sum of their power, so that the power of any part is one subtraction.
struct Signal {
    samples: Vec<f32>,
    power: Vec<f64>,
}

impl Signal {
    fn new(samples: Vec<f32>) -> Self {
        let mut sum = 0.0;
        let sums = samples.iter().map(|sample| {
            sum += f64::from(*sample).powi(2);
            sum
        });
        let power = std::iter::once(0.0).chain(sums).collect();
        Self { samples, power }
    }

    /// Normalised correlation of `self[n]` with `later[n + delay]` over their overlap.
    fn correlate(&self, later: &Self, delay: usize, min_overlap: usize) -> Option<f64> {
        let shifted = later.samples.get(delay..)?;
        let length = self.samples.len().min(shifted.len());
        if length < min_overlap {
            return None;
        }
        let cross = dot(&self.samples[..length], &shifted[..length]);
        let power = self.power[length] * later.power_of(delay, delay + length);
        (power > 0.0).then(|| cross / power.sqrt())
    }

    /// Normalised correlation of all of `self` that `later` reaches to, each block at the delay that suits it best.
    fn correlate_in_blocks(&self, later: &Self, delay: usize) -> f64 {
        let (mut cross, mut power) = (0.0, (0.0, 0.0));
        let reach = self
            .samples
            .len()
            .min(later.samples.len().saturating_sub(delay));
        for start in (0..reach).step_by(BLOCK) {
            let end = (start + BLOCK).min(reach);
            let own = self.power_of(start, end);
            let at = |frames: isize| {
                let from =
                    (start + delay).checked_add_signed(frames * FRAME_SAMPLES.cast_signed())?;
                let shifted = later.samples.get(from..from + end - start)?;
                let (found, theirs) = (
                    dot(&self.samples[start..end], shifted),
                    later.power_of(from, from + end - start),
                );
                let score = if own * theirs > 0.0 {
                    found / (own * theirs).sqrt()
                } else {
                    0.0
                };
                Some((score, found, theirs))
            };
            let best = (-MAX_FRAMES..=MAX_FRAMES).filter_map(at);
            if let Some((_, found, theirs)) = best.max_by(|a, b| a.0.total_cmp(&b.0)) {
                cross += found;
                power = (power.0 + own, power.1 + theirs);
            }
        }
        let power: f64 = power.0 * power.1;
        if power > 0.0 {
            cross / power.sqrt()
        } else {
            0.0
        }
    }

    fn power_of(&self, start: usize, end: usize) -> f64 {
        self.power[end] - self.power[start]
    }
}

/// Sums of short runs in f32 are exact enough and let the compiler vectorise.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let runs = a.chunks(64).zip(b.chunks(64));
    runs.map(|(a, b)| f64::from(a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>()))
        .sum()
}

fn decimate(samples: &[i16]) -> Vec<f32> {
    samples
        .as_chunks::<DECIMATION>()
        .0
        .iter()
        .map(|chunk| chunk.iter().map(|sample| f32::from(*sample)).sum::<f32>() / DECIMATION as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        g711::{decode_alaw, decode_ulaw, encode_ulaw, ulaw_to_alaw},
        tone::speech_like,
    };

    #[test]
    fn finds_the_delay_through_both_laws() {
        let signal = speech_like(4000, 3);
        for delay in [0usize, 1, 333, 4801, 15_999] {
            let mut received = vec![0; delay];
            received.extend(
                signal
                    .iter()
                    .map(|sample| decode_alaw(ulaw_to_alaw(encode_ulaw(*sample)))),
            );
            received.truncate(signal.len() + 800);
            let result = compare(&signal, &received, 2000).unwrap();
            assert_eq!(result.delay_samples, delay);
            assert!(result.correlation > 0.99, "{result:?}");
        }
    }

    #[test]
    fn ten_seconds_over_two_seconds_of_delay_are_compared() {
        let signal = speech_like(10_000, 9);
        assert_eq!(compare(&signal, &signal, 2000).unwrap().delay_samples, 0);
    }

    #[test]
    fn volume_does_not_matter_but_holes_do() {
        let signal = speech_like(3000, 4);
        let mut quiet: Vec<i16> = signal
            .iter()
            .map(|sample| decode_ulaw(encode_ulaw(sample / 4)))
            .collect();
        assert!(compare(&signal, &quiet, 100).unwrap().correlation > 0.98);
        quiet[..12_000].fill(0);
        assert!(compare(&signal, &quiet, 100).unwrap().correlation < 0.9);
    }

    #[test]
    fn frames_that_were_left_out_or_put_in_cost_no_more_than_themselves() {
        let signal = speech_like(6000, 8);
        let mut received = signal[..16_000].to_vec();
        received.extend(&signal[16_000 + 5 * FRAME_SAMPLES..32_000]);
        received.extend([0; 3 * FRAME_SAMPLES]);
        received.extend(&signal[32_000..]);
        let result = compare(&signal, &received, 1000).unwrap();
        assert!((0.93..0.999).contains(&result.correlation), "{result:?}");
    }

    #[test]
    fn other_audio_scores_low_and_silence_nothing() {
        let signal = speech_like(3000, 5);
        assert!(
            compare(&signal, &speech_like(3000, 6), 500)
                .unwrap()
                .correlation
                < 0.5
        );
        assert_eq!(compare(&signal, &vec![0; 24_000], 500), None);
        assert_eq!(compare(&signal, &signal[..100], 500), None);
    }
}
