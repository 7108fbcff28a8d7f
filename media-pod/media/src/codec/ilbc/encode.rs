//! From sound to parameters (RFC 3951 section 3).

use super::bits::Parameters;
use super::codebook::{self, Plan};
use super::decode::{complete, filters, surround};
use super::lpc::{self, Analysis, Biquad, Lsf, ORDER};
use super::tables::HIGH_PASS_IN;
use super::{BLOCK, Length, MAX_SAMPLES, STATE_BLOCKS, state};

/// What counts for the start state in the middle of the frame, and how it begins and ends (section 3.5.1).
const FAVOURED: [f32; 5] = [0.8, 0.9, 1.0, 0.9, 0.8];
const EDGE: usize = 5;

/// What goes from frame to frame.
#[derive(Debug)]
pub struct Coder {
    high_pass: Biquad,
    analysis: Analysis,
    /// The frequencies of the last frame, as they were, and as the decoder has them.
    exact: Lsf,
    coded: Lsf,
    /// The last samples behind the high-pass filter.
    memory: [f32; ORDER],
}

impl Coder {
    pub fn new() -> Self {
        Self {
            high_pass: Biquad::new(HIGH_PASS_IN),
            analysis: Analysis::new(),
            exact: lpc::mean(),
            coded: lpc::mean(),
            memory: [0.0; ORDER],
        }
    }

    /// Encodes a frame.
    pub fn encode(&mut self, length: Length, sound: &[i16], payload: &mut [u8]) {
        let count = length.samples();
        let mut samples = [0.0; ORDER + MAX_SAMPLES];
        samples[..ORDER].copy_from_slice(&self.memory);
        for (to, sample) in samples[ORDER..].iter_mut().zip(sound) {
            *to = self.high_pass.filter((*sample).into());
        }
        let samples = &samples[..ORDER + count];
        self.memory.copy_from_slice(&samples[count..]);

        let mut parameters = Parameters::default();
        let exact = self.analysis.analyse(length, &samples[ORDER..]);
        let sets = match length {
            Length::Millis20 => 1,
            Length::Millis30 => 2,
        };
        for (set, indices) in exact[..sets].iter().zip(parameters.lsf.chunks_exact_mut(3)) {
            indices.copy_from_slice(&lpc::quantise(set));
        }
        let (_, filters) = filters(length, &parameters, &mut self.coded);
        let weights = lpc::weighting(&lpc::interpolate(length, &self.exact, &exact));
        self.exact = exact[sets - 1];

        let mut residual = [0.0; MAX_SAMPLES];
        let residual = &mut residual[..count];
        for (at, left) in residual.chunks_exact_mut(BLOCK).enumerate() {
            let seen = &samples[at * BLOCK..ORDER + (at + 1) * BLOCK];
            lpc::residual(seen, &filters[at], left);
        }

        let own = length.state();
        parameters.start = loudest(residual);
        let begin = (usize::from(parameters.start) - 1) * BLOCK;
        let early = power(&residual[begin..begin + own]);
        let late = power(&residual[begin + STATE_BLOCKS - own..begin + STATE_BLOCKS]);
        let first = early > late;
        parameters.first = first.into();
        let plan = Plan::new(parameters.start, first, own);
        let block = plan.begin / BLOCK;
        (parameters.scale, parameters.samples) = state::search(
            &residual[plan.state..plan.state + own],
            &filters[block],
            [&weights[block], &weights[block + 1]],
            first,
        );
        // From here on it goes along with the decoder.
        let mut made = [0.0; MAX_SAMPLES];
        state::construct(
            parameters.scale,
            &parameters.samples,
            &filters[block],
            &mut made[plan.state..plan.state + own],
        );
        let weight = &weights[if plan.rest_before { block } else { block + 1 }];
        let rest_begin = if plan.rest_before {
            plan.begin
        } else {
            plan.state + own
        };
        let rest = &mut parameters.rest;
        complete(plan, own, &mut made, |memory, made| {
            let wanted = piece(residual, rest_begin, made.len(), plan.rest_before);
            *rest = codebook::search(&wanted[..made.len()], memory, weight, false);
            codebook::construct(*rest, memory, made);
        });
        let blocks = &mut parameters.blocks;
        surround(length, plan, &mut made, |place, memory, made| {
            let wanted = piece(residual, place.block * BLOCK, BLOCK, place.backwards);
            let first = place.number == 0;
            let found = codebook::search(&wanted, memory, &weights[place.block], first);
            codebook::construct(found, memory, made);
            blocks[place.number] = found;
        });
        for vector in &mut parameters.blocks[0].vectors[1..] {
            *vector = codebook::narrow(*vector);
        }
        parameters.write(length, payload);
    }
}

/// A piece of the residual, backwards if it is to be.
fn piece(residual: &[f32], begin: usize, count: usize, backwards: bool) -> [f32; BLOCK] {
    let mut wanted = [0.0; BLOCK];
    wanted[..count].copy_from_slice(&residual[begin..begin + count]);
    if backwards {
        wanted[..count].reverse();
    }
    wanted
}

fn power(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum()
}

/// In which two sub-blocks the start state should be: 1 is the first and the second. They begin and end softly.
fn loudest(residual: &[f32]) -> u8 {
    let blocks = residual.len() / BLOCK;
    let favoured = &FAVOURED[usize::from(blocks == 4)..];
    let mut best = (1, -1.0);
    for (number, (pair, favour)) in (1_u8..).zip((0..blocks - 1).zip(favoured)) {
        let samples = &residual[pair * BLOCK..(pair + 2) * BLOCK];
        let weighed = samples.iter().enumerate().map(|(at, sample)| {
            let edge = (at + 1).min(STATE_BLOCKS - at).min(EDGE + 1);
            sample * sample * edge as f32 / (EDGE + 1) as f32
        });
        let loudness = weighed.sum::<f32>() * favour;
        if loudness > best.1 {
            best = (number, loudness);
        }
    }
    best.0
}
