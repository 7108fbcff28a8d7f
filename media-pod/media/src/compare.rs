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
    let (coarse_a, coarse_b) = (decimate(reference), decimate(received));
    let mut coarse: Vec<(usize, f64)> = (0..=max_delay / DECIMATION)
        .filter_map(|delay| Some((delay, correlate(&coarse_a, &coarse_b, delay, MIN_OVERLAP / DECIMATION)?)))
        .collect();
    coarse.sort_by(|a, b| b.1.total_cmp(&a.1));
    coarse.truncate(CANDIDATES);
    let (a, b) = (to_float(reference), to_float(received));
    coarse
        .iter()
        .flat_map(|(delay, _)| {
            let center = delay * DECIMATION;
            center.saturating_sub(DECIMATION)..=(center + DECIMATION).min(max_delay)
        })
        .filter_map(|delay| {
            let correlation = correlate(&a, &b, delay, MIN_OVERLAP)?;
            Some(Comparison { delay_samples: delay, correlation })
        })
        .max_by(|a, b| a.correlation.total_cmp(&b.correlation))
}

fn to_float(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|sample| f32::from(*sample)).collect()
}

fn decimate(samples: &[i16]) -> Vec<f32> {
    samples
        .as_chunks::<DECIMATION>()
        .0
        .iter()
        .map(|chunk| chunk.iter().map(|sample| f32::from(*sample)).sum::<f32>() / DECIMATION as f32)
        .collect()
}

/// Normalised correlation of `a[n]` with `b[n + delay]` over their overlap.
fn correlate(a: &[f32], b: &[f32], delay: usize, min_overlap: usize) -> Option<f64> {
    let b = b.get(delay..)?;
    let length = a.len().min(b.len());
    if length < min_overlap {
        return None;
    }
    let (mut cross, mut power_a, mut power_b) = (0.0f64, 0.0f64, 0.0f64);
    // Sums of short runs in f32 are exact enough and let the compiler vectorise.
    for (chunk_a, chunk_b) in a[..length].chunks(64).zip(b[..length].chunks(64)) {
        let (mut c, mut pa, mut pb) = (0.0f32, 0.0f32, 0.0f32);
        for (x, y) in chunk_a.iter().zip(chunk_b) {
            c += x * y;
            pa += x * x;
            pb += y * y;
        }
        cross += f64::from(c);
        power_a += f64::from(pa);
        power_b += f64::from(pb);
    }
    let scale = (power_a * power_b).sqrt();
    (scale > 0.0).then(|| cross / scale)
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
            received.extend(signal.iter().map(|sample| decode_alaw(ulaw_to_alaw(encode_ulaw(*sample)))));
            received.truncate(signal.len() + 800);
            let result = compare(&signal, &received, 2000).unwrap();
            assert_eq!(result.delay_samples, delay);
            assert!(result.correlation > 0.99, "{result:?}");
        }
    }

    #[test]
    fn volume_does_not_matter_but_holes_do() {
        let signal = speech_like(3000, 4);
        let mut quiet: Vec<i16> = signal.iter().map(|sample| decode_ulaw(encode_ulaw(sample / 4))).collect();
        assert!(compare(&signal, &quiet, 100).unwrap().correlation > 0.98);
        quiet[..12_000].fill(0);
        assert!(compare(&signal, &quiet, 100).unwrap().correlation < 0.9);
    }

    #[test]
    fn other_audio_scores_low_and_silence_nothing() {
        let signal = speech_like(3000, 5);
        assert!(compare(&signal, &speech_like(3000, 6), 500).unwrap().correlation < 0.5);
        assert_eq!(compare(&signal, &[0; 24_000], 500), None);
        assert_eq!(compare(&signal, &signal[..100], 500), None);
    }
}
