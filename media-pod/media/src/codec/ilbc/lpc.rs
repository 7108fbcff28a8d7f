//! Linear prediction: filters, and how their coefficients are coded (RFC 3951 sections 3.2 and 4.1).

use std::f32::consts::{PI, TAU};

use super::Length;
use super::lsf::{LSF_HIGH, LSF_LOW, LSF_MEAN, LSF_MIDDLE};
use super::tables::{LAG_WINDOW, WEIGHTS_20, WEIGHTS_30};

/// Order of the prediction.
pub const ORDER: usize = 10;
/// Coefficients of a filter; the first one is 1.
pub type Filter = [f32; ORDER + 1];
/// Line spectral frequencies in radians, rising.
pub type Lsf = [f32; ORDER];

/// Samples of what came before that the analysis sees, and all that it sees.
const LOOK_BACK: usize = 60;
const WINDOW: usize = 240;
/// By how much the poles are drawn in: for the synthesis, and for what noise is weighed with.
const CHIRP_SYNTHESIS: f32 = 0.9025;
const CHIRP_WEIGHT: f32 = 0.4222;

/// What frequencies must at least be apart, and their bounds.
const APART: f32 = 0.039;
const LOWEST: f32 = 0.01;
#[allow(clippy::approx_constant, reason = "as the RFC has it")]
const HIGHEST: f32 = 3.14;

pub fn mean() -> Lsf {
    LSF_MEAN.map(from_q13)
}

fn from_q13(value: u16) -> f32 {
    f32::from(value) / 8192.0
}

/// The frequencies behind three indices.
pub fn dequantise([low, middle, high]: [u8; 3]) -> Lsf {
    let mut lsf = [0.0; ORDER];
    let low = &LSF_LOW[usize::from(low) % LSF_LOW.len()];
    let middle = &LSF_MIDDLE[usize::from(middle) % LSF_MIDDLE.len()];
    let high = &LSF_HIGH[usize::from(high) % LSF_HIGH.len()];
    let all = low.iter().chain(middle).chain(high);
    for (to, from) in lsf.iter_mut().zip(all) {
        *to = from_q13(*from);
    }
    spread(&mut lsf);
    lsf
}

/// The closest of the book.
fn closest<const N: usize>(book: &[[u16; N]], wanted: &[f32]) -> u8 {
    let distance = |entry: &[u16; N]| -> f32 {
        let differences = entry.iter().zip(wanted);
        differences
            .map(|(own, wanted)| (from_q13(*own) - wanted).powi(2))
            .sum()
    };
    let mut best = (0, f32::INFINITY);
    for (at, entry) in book.iter().enumerate() {
        let distance = distance(entry);
        if distance < best.1 {
            best = (at, distance);
        }
    }
    best.0 as u8
}

/// The indices of frequencies.
pub fn quantise(lsf: &Lsf) -> [u8; 3] {
    [
        closest(&LSF_LOW, &lsf[..3]),
        closest(&LSF_MIDDLE, &lsf[3..6]),
        closest(&LSF_HIGH, &lsf[6..]),
    ]
}

/// Keeps frequencies apart and in order, so that the filter is stable (section 3.2.5).
fn spread(lsf: &mut Lsf) {
    for _ in 0..2 {
        for at in 0..ORDER - 1 {
            let (low, high) = (lsf[at], lsf[at + 1]);
            if high - low < APART {
                (lsf[at], lsf[at + 1]) = if high < low {
                    (low, low + APART / 2.0)
                } else {
                    (low - APART / 2.0, high + APART / 2.0)
                };
            }
            lsf[at] = lsf[at].clamp(LOWEST, HIGHEST);
        }
    }
}

/// The filter of these frequencies: half the sum of a symmetric and an antisymmetric polynomial, which have every other frequency as zeros.
fn filter_of(lsf: &Lsf) -> Filter {
    let mut both = [[0.0_f32; ORDER + 2]; 2];
    for (which, polynomial) in both.iter_mut().enumerate() {
        polynomial[0] = 1.0;
        polynomial[1] = if which == 0 { 1.0 } else { -1.0 };
        for at in (which..ORDER).step_by(2) {
            let middle = -2.0 * lsf[at].cos();
            for to in (1..ORDER + 2).rev() {
                let before = if to >= 2 { polynomial[to - 2] } else { 0.0 };
                polynomial[to] += middle * polynomial[to - 1] + before;
            }
        }
    }
    let mut filter = [0.0; ORDER + 1];
    for (at, coefficient) in filter.iter_mut().enumerate() {
        *coefficient = 0.5 * (both[0][at] + both[1][at]);
    }
    filter
}

/// The frequencies of a filter. None if it is not stable, or they are too close to be told apart.
fn frequencies(filter: &Filter) -> Option<Lsf> {
    let mut lsf = [0.0; ORDER];
    for which in 0..2 {
        let sign = if which == 0 { 1.0 } else { -1.0 };
        // The polynomial without its zero at -1 or 1.
        let mut reduced = [0.0_f32; ORDER + 1];
        let mut last = 0.0;
        for (at, to) in reduced.iter_mut().enumerate() {
            let mirrored = if at == 0 { 0.0 } else { filter[ORDER + 1 - at] };
            last = filter[at] + sign * mirrored - sign * last;
            *to = last;
        }
        // On the unit circle it is, but for a phase, a sum of cosines.
        let value = |radians: f32| -> f32 {
            let mut sum = reduced[ORDER / 2];
            for n in 1..=ORDER / 2 {
                sum += 2.0 * reduced[ORDER / 2 - n] * (n as f32 * radians).cos();
            }
            sum
        };
        let steps = 256;
        let mut found = 0;
        let mut before = (0.0, value(0.0));
        for step in 1..=steps {
            let here = PI * step as f32 / steps as f32;
            let now = (here, value(here));
            if (before.1 < 0.0) != (now.1 < 0.0) && found < ORDER / 2 {
                let (mut low, mut high) = (before.0, now.0);
                for _ in 0..10 {
                    let middle = 0.5 * (low + high);
                    if (value(middle) < 0.0) == (before.1 < 0.0) {
                        low = middle;
                    } else {
                        high = middle;
                    }
                }
                lsf[2 * found + which] = 0.5 * (low + high);
                found += 1;
            }
            before = now;
        }
        if found < ORDER / 2 {
            return None;
        }
    }
    lsf.is_sorted().then_some(lsf)
}

fn chirp(filter: &Filter, by: f32) -> Filter {
    let mut drawn = *filter;
    let mut factor = 1.0;
    for coefficient in &mut drawn {
        *coefficient *= factor;
        factor *= by;
    }
    drawn
}

/// The filters of the sub-blocks: between the frequencies of the last frame and those of this one.
pub fn interpolate(length: Length, old: &Lsf, new: &[Lsf; 2]) -> [Filter; 6] {
    let mix = |weight: f32, from: &Lsf, to: &Lsf| {
        let mut lsf = [0.0; ORDER];
        for (at, mixed) in lsf.iter_mut().enumerate() {
            *mixed = weight * from[at] + (1.0 - weight) * to[at];
        }
        filter_of(&lsf)
    };
    let mut filters = [[0.0; ORDER + 1]; 6];
    match length {
        Length::Millis20 => {
            for (filter, weight) in filters.iter_mut().zip(WEIGHTS_20) {
                *filter = mix(weight, old, &new[0]);
            }
        }
        Length::Millis30 => {
            for (at, (filter, weight)) in filters.iter_mut().zip(WEIGHTS_30).enumerate() {
                *filter = if at == 0 {
                    mix(weight, old, &new[0])
                } else {
                    mix(weight, &new[0], &new[1])
                };
            }
        }
    }
    filters
}

/// What noise is weighed with.
pub fn weighting(filters: &[Filter; 6]) -> [Filter; 6] {
    filters.map(|filter| chirp(&filter, CHIRP_WEIGHT))
}

/// The last samples that the encoder took: what the analysis sees.
#[derive(Debug)]
pub struct Analysis {
    seen: [f32; LOOK_BACK + WINDOW],
    last: Lsf,
}

impl Analysis {
    pub fn new() -> Self {
        Self {
            seen: [0.0; LOOK_BACK + WINDOW],
            last: mean(),
        }
    }

    /// Takes a frame; gives its frequencies, as they are, one or two sets. Where they are unclear they stay as they were.
    pub fn analyse(&mut self, length: Length, frame: &[f32]) -> [Lsf; 2] {
        let count = frame.len();
        self.seen.copy_within(count.., 0);
        let end = self.seen.len();
        self.seen[end - count..].copy_from_slice(frame);
        let symmetric = |n: usize| 0.5 * (1.0 - (TAU * (n + 1) as f32 / 241.0).cos());
        let late = |n: usize| {
            if n < 220 {
                (PI * (n + 1) as f32 / 441.0).sin().powi(2)
            } else {
                (PI * (n - 220) as f32 / 40.0).cos()
            }
        };
        let whole = self.at(LOOK_BACK, late);
        match length {
            Length::Millis20 => {
                self.last = whole.unwrap_or(self.last);
                [self.last; 2]
            }
            Length::Millis30 => {
                let first = self.at(0, symmetric).unwrap_or(self.last);
                self.last = whole.unwrap_or(first);
                [first, self.last]
            }
        }
    }

    fn at(&self, begin: usize, window: impl Fn(usize) -> f32) -> Option<Lsf> {
        let mut windowed = [0.0; WINDOW];
        for (at, sample) in windowed.iter_mut().enumerate() {
            *sample = self.seen[begin + at] * window(at);
        }
        let mut correlations = [0.0; ORDER + 1];
        for (lag, correlation) in correlations.iter_mut().enumerate() {
            let products = windowed[lag..].iter().zip(&windowed);
            *correlation = products.map(|(a, b)| a * b).sum::<f32>() * LAG_WINDOW[lag];
        }
        let filter = predictor(&correlations)?;
        let mut lsf = frequencies(&chirp(&filter, CHIRP_SYNTHESIS))?;
        spread(&mut lsf);
        Some(lsf)
    }
}

/// Levinson and Durbin's way from correlations to coefficients. None for silence.
fn predictor(correlations: &Filter) -> Option<Filter> {
    let mut filter = [0.0; ORDER + 1];
    filter[0] = 1.0;
    let mut error = correlations[0];
    if error <= 1.0 {
        return None;
    }
    for order in 1..=ORDER {
        let sum: f32 = (0..order)
            .map(|at| filter[at] * correlations[order - at])
            .sum();
        let reflection = -sum / error;
        if reflection.abs() >= 1.0 {
            return None;
        }
        let before = filter;
        for at in 1..=order {
            filter[at] = before[at] + reflection * before[order - at];
        }
        error *= 1.0 - reflection * reflection;
    }
    Some(filter)
}

/// Filters in place by 1/A; the ten samples before the block are those of its output.
pub fn all_pole(samples: &mut [f32], filter: &Filter) {
    for at in ORDER..samples.len() {
        let mut sum = samples[at];
        for (back, coefficient) in filter.iter().enumerate().skip(1) {
            sum -= coefficient * samples[at - back];
        }
        samples[at] = sum;
    }
}

/// What A leaves of a block: the ten samples before it come first.
pub fn residual(samples: &[f32], filter: &Filter, left: &mut [f32]) {
    for (at, to) in (ORDER..).zip(left) {
        let terms = filter.iter().enumerate();
        *to = terms
            .map(|(back, coefficient)| coefficient * samples[at - back])
            .sum();
    }
}

/// Filters by A mirrored through A, which changes phases alone, from rest. The input may be shorter than what is made of it.
pub fn all_pass(samples: &[f32], filter: &Filter, out: &mut [f32]) {
    let sample = |at: usize, back: usize| {
        at.checked_sub(back)
            .and_then(|at| samples.get(at))
            .copied()
            .unwrap_or(0.0)
    };
    for at in 0..out.len() {
        let mut sum = 0.0;
        for back in 0..=ORDER {
            sum += filter[ORDER - back] * sample(at, back);
        }
        for back in 1..=ORDER.min(at) {
            sum -= filter[back] * out[at - back];
        }
        out[at] = sum;
    }
}

/// A filter of two zeros and two poles.
#[derive(Debug)]
pub struct Biquad {
    coefficients: [[f32; 3]; 2],
    inputs: [f32; 2],
    outputs: [f32; 2],
}

impl Biquad {
    pub fn new(coefficients: [[f32; 3]; 2]) -> Self {
        Self {
            coefficients,
            inputs: [0.0; 2],
            outputs: [0.0; 2],
        }
    }

    pub fn filter(&mut self, sample: f32) -> f32 {
        let [zeros, poles] = self.coefficients;
        let out = zeros[0] * sample + zeros[1] * self.inputs[0] + zeros[2] * self.inputs[1]
            - poles[1] * self.outputs[0]
            - poles[2] * self.outputs[1];
        self.inputs = [sample, self.inputs[0]];
        // A sound that fades would go on for ever in numbers that are slow to compute with.
        let out = if out.abs() < 1e-10 { 0.0 } else { out };
        self.outputs = [out, self.outputs[0]];
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_and_filters_are_two_faces_of_the_same() {
        let wanted = mean();
        let found = frequencies(&filter_of(&wanted)).unwrap();
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-3, "{found} {wanted}");
        }
    }

    #[test]
    fn every_entry_of_the_books_is_found_again_and_rises() {
        for at in 0..128_u8 {
            let lsf = dequantise([at % 64, at, at]);
            assert!(lsf.is_sorted(), "{at}: {lsf:?}");
        }
        assert_eq!(quantise(&dequantise([5, 17, 99])), [5, 17, 99]);
    }
}
