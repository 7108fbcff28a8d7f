//! The start state: scaled samples of three bits, behind a filter that evens out its phases (RFC 3951 sections 3.5 and 4.2).

use super::bits::Samples;
use super::lpc::{Filter, ORDER, all_pass, all_pole};
use super::tables::{SCALE, STATE};
use super::{BLOCK, MAX_STATE};

/// How much of the scale the quantiser's range is.
const RANGE: f32 = 4.5;

fn closest(book: &[f32], wanted: f32) -> u8 {
    let distance = |at: usize| (book[at] - wanted).abs();
    let best = (0..book.len()).min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    best.unwrap_or(0) as u8
}

/// Makes the state. The filter is that of the first of its two sub-blocks.
pub fn construct(scale: u8, samples: &Samples, filter: &Filter, made: &mut [f32]) {
    let count = made.len();
    let scale = 10_f32.powf(SCALE[usize::from(scale) % SCALE.len()]) / RANGE;
    let mut backwards = [0.0; MAX_STATE];
    for (to, sample) in backwards.iter_mut().zip(samples.0[..count].iter().rev()) {
        *to = scale * STATE[usize::from(*sample) % STATE.len()];
    }
    let mut passed = [0.0; 2 * MAX_STATE];
    all_pass(&backwards[..count], filter, &mut passed[..2 * count]);
    for (at, to) in made.iter_mut().rev().enumerate() {
        *to = passed[at] + passed[count + at];
    }
}

/// Finds scale and samples, with the noise where it is heard least: `filters` and `weights` are those of its two sub-blocks, and `first` is
/// whether it begins with the first of them.
pub fn search(
    wanted: &[f32],
    filter: &Filter,
    weights: [&Filter; 2],
    first: bool,
) -> (u8, Samples) {
    let count = wanted.len();
    let mut passed = [0.0; 2 * MAX_STATE];
    all_pass(wanted, filter, &mut passed[..2 * count]);
    let mut folded = [0.0_f32; ORDER + MAX_STATE];
    let mut most = 10.0_f32;
    for at in 0..count {
        folded[ORDER + at] = passed[at] + passed[count + at];
        most = most.max(folded[ORDER + at].abs());
    }
    let scale = closest(&SCALE, most.log10());
    let factor = RANGE / 10_f32.powf(SCALE[usize::from(scale)]);
    for sample in &mut folded {
        *sample *= factor;
    }

    // Where the second sub-block begins.
    let border = if first { BLOCK } else { count - BLOCK };
    all_pole(&mut folded[..ORDER + border], weights[0]);
    all_pole(&mut folded[border..ORDER + count], weights[1]);
    let mut samples = Samples::default();
    let mut made = [0.0; ORDER + MAX_STATE];
    for at in 0..count {
        let weight = weights[usize::from(at >= border)];
        let history = &mut made[at..=at + ORDER];
        all_pole(history, weight);
        let predicted = history[ORDER];
        let index = closest(&STATE, folded[ORDER + at] - predicted);
        samples.0[at] = index;
        history[ORDER] += STATE[usize::from(index)];
    }
    (scale, samples)
}
