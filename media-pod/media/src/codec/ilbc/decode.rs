//! From parameters to sound (RFC 3951 section 4).

use super::bits::{Block, Parameters};
use super::codebook::{self, MEMORY, Plan, STATE_MEMORY};
use super::lpc::{self, Biquad, Filter, Lsf, ORDER};
use super::tables::HIGH_PASS_OUT;
use super::{BLOCK, Length, MAX_SAMPLES, STATE_BLOCKS, state};

/// What goes from frame to frame.
#[derive(Debug)]
pub struct Synthesis {
    lsf: Lsf,
    /// The last samples before the high-pass filter.
    memory: [f32; ORDER],
    high_pass: Biquad,
}

impl Synthesis {
    pub fn new() -> Self {
        Self {
            lsf: lpc::mean(),
            memory: [0.0; ORDER],
            high_pass: Biquad::new(HIGH_PASS_OUT),
        }
    }

    /// Decodes a frame into as many samples as it has.
    pub fn decode(&mut self, length: Length, parameters: &Parameters, sound: &mut [i16]) {
        let (_, filters) = filters(length, parameters, &mut self.lsf);
        let mut residual = [0.0; MAX_SAMPLES];
        excite(length, parameters, &filters, &mut residual);
        let mut samples = [0.0; ORDER + MAX_SAMPLES];
        samples[..ORDER].copy_from_slice(&self.memory);
        samples[ORDER..].copy_from_slice(&residual);
        for (at, filter) in filters.iter().enumerate().take(length.blocks()) {
            lpc::all_pole(&mut samples[at * BLOCK..ORDER + (at + 1) * BLOCK], filter);
        }
        let end = length.samples();
        self.memory.copy_from_slice(&samples[end..ORDER + end]);
        for sample in &mut self.memory {
            // Bits that nobody coded may make what grows without end, or fades into numbers that are slow to compute with.
            *sample = if sample.abs() > 1e-10 {
                sample.clamp(-1e6, 1e6)
            } else {
                0.0
            };
        }
        for (to, sample) in sound.iter_mut().zip(&samples[ORDER..]) {
            let sample = if sample.is_finite() { *sample } else { 0.0 };
            // Out of range saturates.
            *to = self.high_pass.filter(sample.clamp(-1e6, 1e6)).round() as i16;
        }
    }
}

/// The frequencies of a frame, and the filters of its sub-blocks. Those of the frame before are replaced.
pub fn filters(length: Length, parameters: &Parameters, old: &mut Lsf) -> ([Lsf; 2], [Filter; 6]) {
    let (indices, _) = parameters.lsf.as_chunks();
    let new = [lpc::dequantise(indices[0]), lpc::dequantise(indices[1])];
    let filters = lpc::interpolate(length, old, &new);
    *old = match length {
        Length::Millis20 => new[0],
        Length::Millis30 => new[1],
    };
    (new, filters)
}

/// Makes the residual.
fn excite(
    length: Length,
    parameters: &Parameters,
    filters: &[Filter; 6],
    residual: &mut [f32; MAX_SAMPLES],
) {
    let count = length.state();
    let plan = Plan::new(parameters.start, parameters.first == 1, count);
    let own = &mut residual[plan.state..plan.state + count];
    let filter = &filters[plan.begin / BLOCK];
    state::construct(parameters.scale, &parameters.samples, filter, own);
    complete(plan, count, residual, |memory, made| {
        codebook::construct(parameters.rest, memory, made);
    });
    let blocks = widened(parameters.blocks);
    surround(length, plan, residual, |at, memory, made| {
        codebook::construct(blocks[at.number], memory, made);
    });
}

/// The second and third vector of the first sub-block have seven bits.
fn widened(mut blocks: [Block; 4]) -> [Block; 4] {
    for vector in &mut blocks[0].vectors[1..] {
        *vector = codebook::widen(*vector);
    }
    blocks
}

/// Completes the two sub-blocks of the start state, of `count` samples: `make` is given the past, and makes what follows it. What comes before
/// the state is made backwards.
pub fn complete(
    plan: Plan,
    count: usize,
    residual: &mut [f32],
    make: impl FnOnce(&[f32], &mut [f32]),
) {
    let Plan {
        begin,
        state,
        rest,
        rest_before,
    } = plan;
    let own = residual[state..state + count].iter().copied();
    let memory = if rest_before {
        codebook::remember(own.rev())
    } else {
        codebook::remember(own)
    };
    let mut made = [0.0; BLOCK];
    let made = &mut made[..rest];
    make(&memory[MEMORY - STATE_MEMORY..], made);
    if rest_before {
        made.reverse();
        residual[begin..begin + rest].copy_from_slice(made);
    } else {
        residual[state + count..state + count + rest].copy_from_slice(made);
    }
}

/// A sub-block that is made of others.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The how manieth it is in the payload.
    pub number: usize,
    /// Which of the frame it is.
    pub block: usize,
    /// Made backwards.
    pub backwards: bool,
}

/// Makes all sub-blocks around the two of the start state: those behind it, then those before it, backwards.
pub fn surround(
    length: Length,
    plan: Plan,
    residual: &mut [f32],
    mut make: impl FnMut(Place, &[f32], &mut [f32]),
) {
    let end = length.samples();
    let behind = plan.begin + STATE_BLOCKS;
    let mut number = 0;
    let mut memory = codebook::remember(residual[plan.begin..behind].iter().copied());
    let mut made = [0.0; BLOCK];
    for begin in (behind..end).step_by(BLOCK) {
        let place = Place {
            number,
            block: begin / BLOCK,
            backwards: false,
        };
        make(place, &memory, &mut made);
        codebook::append(&mut memory, &made);
        residual[begin..begin + BLOCK].copy_from_slice(&made);
        number += 1;
    }
    let known = &residual[plan.begin..end.min(plan.begin + MEMORY)];
    let mut memory = codebook::remember(known.iter().copied().rev());
    for begin in (0..plan.begin).step_by(BLOCK).rev() {
        let place = Place {
            number,
            block: begin / BLOCK,
            backwards: true,
        };
        make(place, &memory, &mut made);
        codebook::append(&mut memory, &made);
        for (to, sample) in residual[begin..begin + BLOCK].iter_mut().rev().zip(made) {
            *to = sample;
        }
        number += 1;
    }
}
