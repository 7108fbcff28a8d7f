//! How alike two recordings are, and how much later the second is: did the echo come back whole, and when?
//!
//! Cross-correlation in blocks, each with a delay of its own. Between sender and listener the delay changes: where frames were left out or
//! put in, where a jitter buffer plays faster or slower for a while, where a clock drifts. What follows is earlier or later, and still
//! the same. So the best path of delays through all blocks is looked for, on which a change has its cost, the more the further it goes:
//! the right sound soon wins that back, other sound, which fits somewhere by chance, does not.

/// The path is looked for at 8000 / 4 = 2000 Hz, though to a sample of 8000 Hz.
const DECIMATION: usize = 4;
/// Samples to either side of the path that are tried at the full rate.
const NEAR: usize = 2;
/// Blocks that have a delay of their own: 100 ms, half a syllable.
const BLOCK: usize = 800;
/// What must be there of the first signal: 200 ms.
const MIN_LENGTH: usize = 2 * BLOCK;
/// What a wholly different delay than in the block before costs, in blocks of mean power that are the same.
const CHANGE_COST: f32 = 0.8;

/// What each sample of a change costs: from 80 ms on all changes cost the same.
const STEP_COST: f32 = CHANGE_COST / 640.0;
/// What a block that the second signal lacks at its end is worth, in the same unit: more than other sound, less than the same.
const MISSING: f64 = 0.5;

/// By how much a part of the second signal may be earlier than in the first, because what was before it was left out: 240 ms.
const LEAD: usize = 1920;

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// By how many 8 kHz samples the second signal is later, for half of it at least or at most.
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

/// Finds the delays (0 to `max_delay_millis`) at which `received` is most like `reference`, both at 8 kHz. `None` if either
/// is silent or there is less than 200 ms of one. What `received` lacks at its end is not compared.
pub fn compare(reference: &[i16], received: &[i16], max_delay_millis: u32) -> Option<Comparison> {
    if reference.len() < MIN_LENGTH || received.len() < MIN_LENGTH {
        return None;
    }
    // With silence before it all delays are positive.
    let received = [&[0; LEAD], received].concat();
    let max_delay = (LEAD + max_delay_millis as usize * 8).min(received.len() - MIN_LENGTH);
    let full =
        |samples: &[i16]| Signal::new(samples.iter().map(|sample| f32::from(*sample)).collect());
    let (own, later) = (full(reference), full(&received));
    let delays = path(reference, &received, max_delay);
    let blocks: Vec<(Block, usize)> = (0..reference.len())
        .step_by(BLOCK)
        .zip(delays)
        .filter_map(|(start, delay)| {
            // To the ear of the path, which hears no high tones, neighbours are alike.
            let near = delay.saturating_sub(NEAR)..=(delay + NEAR).min(max_delay);
            near.filter_map(|delay| Some((own.block(start, BLOCK, &later, delay)?, delay)))
                .max_by(|a, b| a.0.score().total_cmp(&b.0.score()))
        })
        .collect();
    let sum = |part: fn(&Block) -> f64| blocks.iter().map(|(block, _)| part(block)).sum::<f64>();
    let power = sum(|block| block.own) * sum(|block| block.later);
    (power > 0.0).then(|| Comparison {
        delay_samples: median_delay(&blocks).saturating_sub(LEAD),
        correlation: sum(|block| block.cross) / power.sqrt(),
    })
}

/// The delay of each block: the path through them whose correlations less the costs of its changes are the most.
fn path(own: &[i16], later: &[i16], max_delay: usize) -> Vec<usize> {
    const LENGTH: usize = BLOCK / DECIMATION;
    let own = Signal::new(decimate(own));
    let later: [Signal; DECIMATION] =
        std::array::from_fn(|phase| Signal::new(decimate(&later[phase..])));
    let length = own.samples.len();
    let count = length.div_ceil(LENGTH);
    let mean = own.power_of(0, length) / count.max(1) as f64;
    let mut best = vec![0.0_f32; max_delay + 1];
    // For each block and delay, the delay of the block before.
    let mut before: Vec<Vec<u32>> = Vec::with_capacity(count);
    for index in 0..count {
        let mut from: Vec<u32> = (0..).take(max_delay + 1).collect();
        let leader = maximum(&best);
        let mut change = |delay: usize, other: usize, cost: f32| {
            if best[delay] < best[other] - cost {
                best[delay] = best[other] - cost;
                from[delay] = from[other];
            }
        };
        (1..=max_delay).for_each(|delay| change(delay, delay - 1, STEP_COST));
        (0..max_delay)
            .rev()
            .for_each(|delay| change(delay, delay + 1, STEP_COST));
        (0..=max_delay).for_each(|delay| change(delay, leader, CHANGE_COST));
        // Loud blocks say no more than those of mean power: one of them alone is no reason to go elsewhere.
        let start = index * LENGTH;
        let weight = (own.power_of(start, (start + LENGTH).min(length)) / mean).min(1.0);
        for delay in 0..=max_delay {
            let (later, delay_there) = (&later[delay % DECIMATION], delay / DECIMATION);
            let block = own.block(start, LENGTH, later, delay_there);
            best[delay] += (weight * block.map_or(MISSING, |block| block.score())) as f32;
        }
        before.push(from);
    }
    let mut delay = maximum(&best);
    let mut path = Vec::with_capacity(count);
    for from in before.iter().rev() {
        path.push(delay);
        delay = from[delay] as usize;
    }
    path.reverse();
    path
}

/// Where the first of the largest is.
fn maximum(values: &[f32]) -> usize {
    let largest = values.iter().enumerate();
    largest
        .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))
        .map_or(0, |(at, _)| at)
}

/// Half of the common power has this delay or less.
fn median_delay(blocks: &[(Block, usize)]) -> usize {
    let mut delays: Vec<(usize, f64)> = blocks
        .iter()
        .map(|(block, delay)| (*delay, block.cross.max(0.0)))
        .collect();
    delays.sort_by_key(|(delay, _)| *delay);
    let half = delays.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let median = delays.iter().find(|(_, weight)| {
        sum += weight;
        sum >= half
    });
    median.map_or(0, |(delay, _)| *delay)
}

/// What a part of one signal and a part of another have in common.
#[derive(Debug, Clone, Copy)]
struct Block {
    cross: f64,
    own: f64,
    later: f64,
}

impl Block {
    /// Normalised correlation; 0 if either is silent.
    fn score(&self) -> f64 {
        let power = self.own * self.later;
        if power > 0.0 {
            self.cross / power.sqrt()
        } else {
            0.0
        }
    }
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

    /// `length` samples from `start` on beside those of `later` that come `delay` later, as far as both reach.
    fn block(&self, start: usize, length: usize, later: &Self, delay: usize) -> Option<Block> {
        let reach = self
            .samples
            .len()
            .min(later.samples.len().checked_sub(delay)?);
        let end = (start + length).min(reach);
        let own = self.samples.get(start..end)?;
        Some(Block {
            cross: dot(own, &later.samples[start + delay..end + delay]),
            own: self.power_of(start, end),
            later: later.power_of(start + delay, end + delay),
        })
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
        FRAME_SAMPLES,
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
    fn a_delay_that_grows_and_shrinks_is_followed() {
        let signal = speech_like(9000, 11);
        let mut received = vec![0; 400];
        // 80 ms more after each second for four of them, as from a sender that is late again and again; then 7 ms less at a time.
        for (index, second) in signal.chunks(8000).enumerate() {
            if index < 4 {
                received.extend([0; 640]);
                received.extend(second);
            } else {
                received.extend(&second[56..]);
            }
        }
        let result = compare(&signal, &received, 2000).unwrap();
        assert!(result.correlation > 0.93, "{result:?}");
        assert!(
            (400 + 640..=400 + 4 * 640).contains(&result.delay_samples),
            "{result:?}"
        );
    }

    #[test]
    fn what_came_just_before_the_end_of_the_recording_has_a_delay_too() {
        let signal = speech_like(3000, 12);
        let mut received = vec![0; 4000];
        received.extend(&signal[..8000]);
        let result = compare(&signal, &received, 2000).unwrap();
        assert_eq!(result.delay_samples, 4000);
        assert!(result.correlation > 0.99, "{result:?}");
    }

    #[test]
    fn other_audio_scores_low_and_silence_nothing() {
        let signal = speech_like(3000, 5);
        for (millis, seed) in [(3000, 6), (3000, 7), (6000, 8), (9000, 9)] {
            let result = compare(&signal, &speech_like(millis, seed), 2000).unwrap();
            assert!(result.correlation < 0.3, "{result:?}");
        }
        assert_eq!(compare(&signal, &vec![0; 24_000], 500), None);
        assert_eq!(compare(&signal, &signal[..100], 500), None);
    }
}
