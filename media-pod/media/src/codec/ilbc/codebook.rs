//! Sub-blocks made of what is known of the residual: three vectors of a codebook that is the past itself (RFC 3951 section 3.6).

use super::bits::Block;
use super::lpc::{Filter, ORDER, all_pole};
use super::tables::{EXPANSION, GAINS_3, GAINS_4, GAINS_5};
use super::{BLOCK, STATE_BLOCKS};

/// Samples that a codebook is made of at most, and for what completes the start state.
pub const MEMORY: usize = 147;
pub const STATE_MEMORY: usize = 85;
/// Vectors of the largest codebook.
const MAX_VECTORS: usize = 256;
/// Over so many samples the past is faded into itself, where it is shorter than a sub-block.
const FADE: usize = 5;
/// No gain of the first stage is more.
const MAX_GAIN: f32 = 1.3;
/// The scale of the gains of a stage is at least this.
const LEAST_SCALE: f32 = 0.1;

/// The past, and the same through the filter of expansion.
#[derive(Debug)]
struct Book<'a> {
    memory: &'a [f32],
    filtered: [f32; MEMORY],
    length: usize,
}

impl<'a> Book<'a> {
    /// Of vectors of so many samples.
    fn new(memory: &'a [f32], length: usize) -> Self {
        let mut filtered = [0.0; MEMORY];
        for (at, to) in filtered.iter_mut().enumerate().take(memory.len()) {
            let taps = EXPANSION.iter().rev().enumerate();
            let terms = taps.map(|(tap, weight)| {
                let from = (at + tap).checked_sub(3);
                weight
                    * from
                        .and_then(|from| memory.get(from))
                        .copied()
                        .unwrap_or(0.0)
            });
            *to = terms.sum();
        }
        Self {
            memory,
            filtered,
            length,
        }
    }

    /// Vectors that are pieces of the memory.
    fn pieces(&self) -> usize {
        self.memory.len() - self.length + 1
    }

    /// Vectors of the first half: the pieces, and for whole sub-blocks those that repeat the latest past.
    fn half(&self) -> usize {
        if self.length == BLOCK {
            self.pieces() + BLOCK / 2
        } else {
            self.pieces()
        }
    }

    /// The vector; silence beyond the book.
    fn vector(&self, index: usize, vector: &mut [f32]) {
        let (from, index) = if index < self.half() {
            (self.memory, index)
        } else {
            (&self.filtered[..self.memory.len()], index - self.half())
        };
        let end = from.len();
        let length = self.length;
        if index < self.pieces() {
            let begin = end - length - index;
            vector.copy_from_slice(&from[begin..begin + length]);
        } else if index < self.half() {
            // As long as half a sub-block and more, then again from its beginning.
            let period = length / 2 + (index - self.pieces());
            for (at, to) in vector.iter_mut().enumerate() {
                let again = from[(end + at - 2 * period).min(end - 1)];
                *to = if at + FADE < period {
                    from[end - period + at]
                } else if at < period {
                    let weight = (at + FADE - period) as f32 / FADE as f32;
                    (1.0 - weight) * from[end - period + at] + weight * again
                } else {
                    again
                };
            }
        } else {
            vector.fill(0.0);
        }
    }
}

/// The gain behind an index of a stage, whose scale is the gain before it.
fn gain(stage: usize, index: u8, before: f32) -> f32 {
    let index = usize::from(index);
    let scale = before.abs().max(LEAST_SCALE);
    scale
        * match stage {
            0 => GAINS_5[index % GAINS_5.len()],
            1 => GAINS_4[index % GAINS_4.len()],
            _ => GAINS_3[index % GAINS_3.len()],
        }
}

/// The gain that is closest to this.
fn closest_gain(stage: usize, wanted: f32, before: f32) -> u8 {
    let count = [GAINS_5.len(), GAINS_4.len(), GAINS_3.len()][stage.min(2)] as u8;
    let distance = |index: u8| (gain(stage, index, before) - wanted).abs();
    (0..count)
        .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
        .unwrap_or(0)
}

/// Makes what these parameters say of the past.
pub fn construct(block: Block, memory: &[f32], made: &mut [f32]) {
    let book = Book::new(memory, made.len());
    let mut vector = [0.0; BLOCK];
    let vector = &mut vector[..made.len()];
    made.fill(0.0);
    let mut before = 1.0;
    for stage in 0..3 {
        before = gain(stage, block.gains[stage], before);
        book.vector(usize::from(block.vectors[stage]), vector);
        for (to, from) in made.iter_mut().zip(&*vector) {
            *to += before * from;
        }
    }
}

/// Which vectors a stage may use. Those of the first sub-block of a frame have seven bits in its second and third stage: see [`narrow`].
pub fn allowed(index: usize, stage: usize, first: bool) -> bool {
    !first || stage == 0 || matches!(index, 0..44 | 108..172 | 236..)
}

/// The seven bits of such an index.
pub fn narrow(index: u8) -> u8 {
    match index {
        108..172 => index - 64,
        236.. => index - 128,
        _ => index,
    }
}

/// The index behind such seven bits.
pub fn widen(index: u8) -> u8 {
    match index {
        44..108 => index + 64,
        108..128 => index + 128,
        _ => index,
    }
}

/// Finds what makes the past the most like `wanted`, to ears that are the less sensitive the more there is: both are weighed by a filter first.
#[allow(
    clippy::large_stack_arrays,
    reason = "40 KiB for a moment, and nothing is asked for while a call runs"
)]
pub fn search(wanted: &[f32], memory: &[f32], weight: &Filter, first: bool) -> Block {
    let length = wanted.len();
    let mut weighed = [0.0; ORDER + MEMORY + BLOCK];
    let end = ORDER + memory.len();
    weighed[ORDER..end].copy_from_slice(memory);
    weighed[end..end + length].copy_from_slice(wanted);
    all_pole(&mut weighed[..end + length], weight);
    let (memory, target) = weighed[ORDER..end + length].split_at_mut(end - ORDER);
    let power = energy(target);

    let book = Book::new(memory, length);
    let count = (2 * book.half()).min(MAX_VECTORS);
    let mut vectors = [[0.0; BLOCK]; MAX_VECTORS];
    let mut energies = [0.0; MAX_VECTORS];
    for (index, (vector, energy_of)) in vectors
        .iter_mut()
        .zip(&mut energies)
        .enumerate()
        .take(count)
    {
        book.vector(index, &mut vector[..length]);
        *energy_of = energy(&vector[..length]);
    }

    let mut block = Block::default();
    let mut coded = [0.0; BLOCK];
    let mut before = 1.0;
    let mut first_gain = 0.0;
    for stage in 0..3 {
        let mut best = (0, 0.0, 0.0);
        for index in (0..count).filter(|index| allowed(*index, stage, first)) {
            let products = target.iter().zip(&vectors[index][..length]);
            let product: f32 = products.map(|(a, b)| a * b).sum();
            if energies[index] <= 1e-3 || (stage == 0 && product <= 0.0) {
                continue;
            }
            let found = product / energies[index];
            let measure = product * found;
            if measure > best.1 && found.abs() < MAX_GAIN {
                best = (index, measure, found);
            }
        }
        let (index, _, wanted) = best;
        block.vectors[stage] = index as u8;
        block.gains[stage] = closest_gain(stage, wanted, before);
        before = gain(stage, block.gains[stage], before);
        if stage == 0 {
            first_gain = before;
        }
        let vector = &vectors[index][..length];
        for ((left, coded), sample) in target.iter_mut().zip(&mut coded).zip(vector) {
            *left -= before * sample;
            *coded += before * sample;
        }
    }
    block.gains[0] = louder(block.gains[0], first_gain, power, energy(&coded[..length]));
    block
}

fn energy(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum()
}

/// What is coded is quieter than what is wanted. The first gain, which scales all of it, makes up for that, twofold at most (section 3.7).
fn louder(index: u8, own: f32, wanted: f32, coded: f32) -> u8 {
    let mut chosen = index;
    for (at, gain) in GAINS_5.iter().enumerate().skip(index.into()) {
        if coded * gain * gain < wanted * own * own && *gain < 2.0 * own {
            chosen = at as u8;
        }
    }
    chosen
}

/// The past that a codebook is made of: silence, then these samples, the last one the newest.
pub fn remember(samples: impl DoubleEndedIterator<Item = f32>) -> [f32; MEMORY] {
    let mut memory = [0.0; MEMORY];
    for (to, sample) in memory.iter_mut().rev().zip(samples.rev()) {
        *to = sample;
    }
    memory
}

/// Adds a sub-block to the past.
pub fn append(memory: &mut [f32; MEMORY], block: &[f32]) {
    memory.copy_within(block.len().., 0);
    memory[MEMORY - block.len()..].copy_from_slice(block);
}

/// Where things are in a frame whose start state is in these sub-blocks.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// First sample of the two sub-blocks.
    pub begin: usize,
    /// First sample of the start state.
    pub state: usize,
    /// How many samples complete them, and whether these come before it.
    pub rest: usize,
    pub rest_before: bool,
}

impl Plan {
    /// As the parameters say, for a start state of so many samples.
    pub fn new(start: u8, first: bool, state: usize) -> Self {
        let begin = (usize::from(start).max(1) - 1) * BLOCK;
        let rest = STATE_BLOCKS - state;
        Self {
            begin,
            state: if first { begin } else { begin + rest },
            rest,
            rest_before: !first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_of_the_first_sub_block_fit_into_seven_bits() {
        let allowed: Vec<usize> = (0..256).filter(|index| allowed(*index, 1, true)).collect();
        assert_eq!(allowed.len(), 128);
        for (narrowed, index) in allowed.into_iter().enumerate() {
            assert_eq!(usize::from(narrow(index as u8)), narrowed);
            assert_eq!(usize::from(widen(narrowed as u8)), index);
        }
    }

    #[test]
    fn what_is_in_the_past_is_found_there() {
        let memory: Vec<f32> = (0..MEMORY)
            .map(|n| ((n * n * 7919) % 2003) as f32 - 1000.0)
            .collect();
        let mut weight = [0.0; ORDER + 1];
        weight[0] = 1.0;
        let wanted = &memory[60..60 + BLOCK];
        let block = search(wanted, &memory, &weight, false);
        assert_eq!(usize::from(block.vectors[0]), MEMORY - BLOCK - 60);
        let mut made = [0.0; BLOCK];
        construct(block, &memory, &mut made);
        for (made, wanted) in made.iter().zip(wanted) {
            assert!((made - wanted).abs() < 60.0, "{made} {wanted}");
        }
    }
}
