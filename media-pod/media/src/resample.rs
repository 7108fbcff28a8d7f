//! From one sample rate to another: a polyphase low-pass filter (Kaiser window), exact in time.
//!
//! Flat to 0.45 of the lower rate, more than 70 dB down from 0.55 of it: speech at 8 kHz loses nothing below 3.5 kHz. The delay is
//! [`Resampler::delay_micros`], 28 samples of the lower rate (3.5 ms at 8 kHz) or some more. No memory is asked for once it is made.

use std::f64::consts::PI;

/// Taps of the filter in samples of the lower rate.
const SPAN: usize = 50;
/// Stop-band attenuation that the window is made for, in dB.
const ATTENUATION: f64 = 76.0;
/// Input samples that are worked on at once.
const BLOCK: usize = 960;
/// Products that are summed side by side, so that the compiler takes vector instructions.
const LANES: usize = 8;

/// Changes the sample rate of one stream.
#[derive(Debug, Clone)]
pub struct Resampler {
    from: u32,
    to: u32,
    /// Output samples for every `down` input samples.
    up: usize,
    down: usize,
    /// Taps of one phase, a multiple of [`LANES`].
    taps: usize,
    /// For each phase its taps, those of the oldest sample first.
    filter: Vec<f32>,
    /// The last `taps - 1` samples of what came before, then the block in work.
    samples: Vec<f32>,
    /// Where the next output sample is, in steps of 1/`up` of an input sample after the first of the next block.
    position: usize,
}

impl Resampler {
    /// None if a rate is nothing that sound has (4 to 192 kHz).
    pub fn new(from: u32, to: u32) -> Option<Self> {
        let known = 4000..=192_000;
        if !known.contains(&from) || !known.contains(&to) {
            return None;
        }
        let divisor = gcd(from, to);
        let (up, down) = ((to / divisor) as usize, (from / divisor) as usize);
        let lower = f64::from(from.min(to));
        let taps = (SPAN as f64 * f64::from(from) / lower).ceil() as usize;
        // Between related rates the delay is whole samples, so that a way there and back is, too.
        let taps = taps.next_multiple_of(if down <= 6 { LANES * down } else { LANES });
        Some(Self {
            from,
            to,
            up,
            down,
            taps,
            filter: design(up, taps, lower / f64::from(from) / up as f64),
            samples: vec![0.0; taps - 1 + BLOCK],
            position: 0,
        })
    }

    /// One between these rates; none is needed between equal ones.
    pub fn between(from: u32, to: u32) -> Option<Self> {
        // Making one takes longer than all else that a new call needs here.
        (from != to).then(|| Self::new(from, to)).flatten()
    }

    /// Samples per second that it takes.
    pub fn from_rate(&self) -> u32 {
        self.from
    }

    /// Samples per second that it gives.
    pub fn to_rate(&self) -> u32 {
        self.to
    }

    /// How much later sound comes out.
    pub fn delay_micros(&self) -> u32 {
        (self.taps as u64 * 500_000 / u64::from(self.from)) as u32
    }

    /// Gives the number of samples made of `input`, at the start of `output`; those that don't fit are lost. From 20 ms come 20 ms.
    pub fn process(&mut self, input: &[i16], output: &mut [i16]) -> usize {
        let mut made = 0;
        for block in input.chunks(BLOCK) {
            let history = self.taps - 1;
            for (to, from) in self.samples[history..].iter_mut().zip(block) {
                *to = f32::from(*from);
            }
            let end = block.len() * self.up;
            while self.position < end {
                let (at, phase) = (self.position / self.up, self.position % self.up);
                let filter = &self.filter[phase * self.taps..][..self.taps];
                let sample = dot(filter, &self.samples[at..at + self.taps]);
                if let Some(place) = output.get_mut(made) {
                    // Saturates.
                    *place = sample.round_ties_even() as i16;
                    made += 1;
                }
                self.position += self.down;
            }
            self.position -= end;
            self.samples
                .copy_within(block.len()..block.len() + history, 0);
        }
        made
    }

    /// Forgets what came before.
    pub fn reset(&mut self) {
        self.samples.fill(0.0);
        self.position = 0;
    }
}

/// The taps of each phase. `cutoff` is the lower rate as part of the rate at which the whole filter works.
fn design(up: usize, taps: usize, cutoff: f64) -> Vec<f32> {
    let beta = 0.1102 * (ATTENUATION - 8.7);
    let length = up * taps;
    let middle = length as f64 / 2.0;
    let tap = |n: usize| {
        let x = n as f64 - middle;
        let angle = PI * cutoff * x;
        let sinc = if x == 0.0 { 1.0 } else { angle.sin() / angle };
        let edge = 1.0 - (x / middle).powi(2);
        sinc * bessel_i0(beta * edge.max(0.0).sqrt())
    };
    let mut filter = vec![0.0; length];
    for phase in 0..up {
        let own = || (0..taps).map(|index| tap(index * up + phase));
        // Each phase lets a constant pass as it is.
        let sum: f64 = own().sum();
        for (index, value) in own().enumerate() {
            filter[phase * taps + taps - 1 - index] = (value / sum) as f32;
        }
    }
    filter
}

/// Modified Bessel function of the first kind, order 0.
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..60 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
