//! How alike two recordings are, and how much later the second is: did the echo come back whole, and when?
//!
//! Cross-correlation over one common delay. A recording whose delay changes midway rightly scores lower.

/// Samples that must overlap for a delay to count: 200 ms.
const MIN_OVERLAP: usize = 1600;
/// Coarse search runs at 8000 / 4 = 2000 Hz.
const DECIMATION: usize = 4;
/// Coarse delays that are looked at again at full rate.
const CANDIDATES: usize = 8;

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// By how many 8 kHz samples the second signal is later.
    pub delay_samples: usize,
    /// Normalised correlation at that delay, −1 to 1; 1 is the same signal at any volume.
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
        // Sums of short runs in f32 are exact enough and let the compiler vectorise.
        let cross: f64 = self.samples[..length]
            .chunks(64)
            .zip(shifted[..length].chunks(64))
            .map(|(a, b)| f64::from(a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>()))
            .sum();
        let power = self.power[length] * (later.power[delay + length] - later.power[delay]);
        (power > 0.0).then(|| cross / power.sqrt())
    }
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
