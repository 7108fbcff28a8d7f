//! From frames to sound (G.722.1 section 4).

use super::huffman::{Reader, VECTORS};
use super::regions::{self, CHANGES, Choices, NOISE_ONLY};
use super::tables::{CATEGORIES, Category, NOISE};
use super::transform::{OVERLAP, TRANSFORM};
use super::{CODED, REGION, REGIONS, SAMPLES, deviation};

/// What goes from frame to frame.
#[derive(Debug)]
pub struct Synthesis {
    noise: Noise,
    /// The coefficients of the last frame, to be repeated once.
    last: [f32; CODED],
    left: [f32; OVERLAP],
}

impl Synthesis {
    pub fn new() -> Self {
        Self {
            noise: Noise([1; 4]),
            last: [0.0; CODED],
            left: [0.0; OVERLAP],
        }
    }

    /// Plays a frame. In place of one that is damaged, or did not come, the last coefficients are heard once more, and then nothing (section 4.7).
    pub fn play(&mut self, frame: Option<&[u8]>, sound: &mut [i16]) {
        let mut coefficients = [0.0; SAMPLES];
        let coded = &mut coefficients[..CODED];
        if let Some(read) = frame.and_then(|frame| read(frame, &mut self.noise)) {
            coded.copy_from_slice(&read);
            self.last = read;
        } else {
            coded.copy_from_slice(&self.last);
            self.last = [0.0; CODED];
        }
        let heard = TRANSFORM.inverse(coefficients, &mut self.left);
        for (to, sample) in sound.iter_mut().zip(heard) {
            // Out of range saturates.
            *to = sample.round() as i16;
        }
    }
}

/// Whether a frame is one that is not seen to be damaged.
#[cfg(test)]
pub fn is_whole(frame: &[u8]) -> bool {
    read(frame, &mut Noise([1; 4])).is_some()
}

/// The coefficients of a frame. None if it is damaged, as far as that is seen: bits are missing or left over, or a power cannot be.
fn read(frame: &[u8], noise: &mut Noise) -> Option<[f32; CODED]> {
    let mut reader = Reader::new(frame);
    let powers = regions::read(&mut reader)?;
    let choice = usize::from(reader.number(4)?);
    let categories = Choices::new(reader.left() as u16, &powers).at(choice);
    let mut coefficients = [0.0; CODED];
    let (regions, _) = coefficients.as_chunks_mut::<REGION>();
    let mut is_short = false;
    for (region, values) in regions.iter_mut().enumerate().take(REGIONS) {
        let deviation = deviation(powers[region]);
        let mut category = categories[region];
        let coded = CATEGORIES.get(usize::from(category));
        if let Some(coded) = coded.filter(|_| !is_short) {
            is_short = vectors(&mut reader, category, coded, deviation, values).is_none();
        }
        if is_short {
            // What is left of the spectrum is noise, and so is all of this region.
            category = NOISE_ONLY;
            *values = [0.0; REGION];
        }
        if let Some(loudness) = usize::from(category).checked_sub(5) {
            noise.fill(values, deviation * NOISE[loudness]);
        }
    }
    let left = reader.left() - usize::from(is_short && reader.left() > 0);
    let is_missing = is_short && reader.left() == 0 && choice < CHANGES;
    let is_whole = !is_missing && (0..left).all(|_| reader.bit() == Some(1));
    is_whole.then_some(coefficients)
}

/// Reads the vectors of a region. None if the frame is too short.
fn vectors(
    reader: &mut Reader,
    number: u8,
    category: &Category,
    deviation: f32,
    values: &mut [f32; REGION],
) -> Option<()> {
    let base = category.levels.len();
    for vector in values.chunks_exact_mut(category.dimension) {
        let mut rest = usize::from(reader.symbol(VECTORS[usize::from(number)])?);
        let mut signs = 0;
        for value in vector.iter_mut().rev() {
            let level = rest % base;
            rest /= base;
            signs += usize::from(level > 0);
            *value = f32::from(category.levels[level]) / 4096.0 * deviation;
        }
        if reader.left() < signs {
            return None;
        }
        for value in vector.iter_mut().filter(|value| **value > 0.0) {
            if reader.bit()? == 0 {
                *value = -*value;
            }
        }
    }
    Some(())
}

/// Random signs, the same on both sides of a comparison.
#[derive(Debug)]
struct Noise([i16; 4]);

impl Noise {
    /// The next sixteen.
    fn next(&mut self) -> i16 {
        let sum = self.0[0].wrapping_add(self.0[3]);
        let word = if sum < 0 { sum + 1 } else { sum };
        self.0.rotate_right(1);
        self.0[0] = word;
        word
    }

    /// Puts noise in place of what is zero.
    fn fill(&mut self, values: &mut [f32; REGION], loudness: f32) {
        for half in values.chunks_exact_mut(REGION / 2) {
            let mut signs = self.next();
            for value in half.iter_mut().filter(|value| **value == 0.0) {
                *value = if signs & 1 == 0 { -loudness } else { loudness };
                signs >>= 1;
            }
        }
    }
}
