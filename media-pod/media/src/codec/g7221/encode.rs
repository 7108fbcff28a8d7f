//! From sound to frames (G.722.1 section 3).

use super::huffman::{Word, Writer};
use super::regions::{self, CHANGES, Choices};
use super::tables::CATEGORIES;
use super::transform::TRANSFORM;
use super::{CODED, REGION, REGIONS, SAMPLES, deviation};

/// The most vectors of a region.
const VECTORS: usize = 10;
/// Bits that say which choice of categories was taken.
const CHOICE_BITS: u32 = 4;

/// What goes from frame to frame.
#[derive(Debug)]
pub struct Analysis {
    /// What was said in the frame before.
    before: [f32; SAMPLES],
}

impl Analysis {
    pub fn new() -> Self {
        Self {
            before: [0.0; SAMPLES],
        }
    }

    /// Encodes 20 ms, so that they fill the frame.
    pub fn encode(&mut self, sound: &[i16; SAMPLES], frame: &mut [u8]) {
        let now = sound.map(f32::from);
        let coefficients = TRANSFORM.forward(&self.before, &now);
        self.before = now;
        let (spectrum, _) = coefficients[..CODED].as_chunks::<REGION>();
        let bits = 8 * frame.len() as u32;
        let mut writer = Writer::new(frame);

        let mut mean_squares = [0.0; REGIONS];
        for (mean, values) in mean_squares.iter_mut().zip(spectrum) {
            let unit = deviation(0);
            *mean = values.iter().map(|it| (it / unit).powi(2)).sum::<f32>() / REGION as f32;
        }
        let powers = regions::powers(&mean_squares);
        let taken = regions::write(&powers, &mut writer) + CHOICE_BITS;
        let bits = bits - taken;
        let choices = Choices::new(bits as u16, &powers);

        // From the middle to finer ones while bits are left over, and then to coarser ones until they fit.
        let mut choice = CHANGES / 2;
        let mut categories = choices.at(choice);
        let coded = |region: usize, categories: &[u8; REGIONS]| {
            let deviation = deviation(powers[region]);
            Region::code(categories[region], deviation, &spectrum[region])
        };
        let mut regions: [Region; REGIONS] =
            std::array::from_fn(|region| coded(region, &categories));
        let mut total: u32 = regions.iter().map(Region::bits).sum();
        let mut change = |region: usize, categories: &[u8; REGIONS]| {
            let before = regions[region].bits();
            regions[region] = coded(region, categories);
            (regions[region].bits(), before)
        };
        while total < bits && choice > 0 {
            choice -= 1;
            categories = choices.at(choice);
            let region = usize::from(choices.changes[choice]);
            let (now, before) = change(region, &categories);
            total = total + now - before;
        }
        while total > bits && choice < CHANGES {
            let region = usize::from(choices.changes[choice]);
            choice += 1;
            categories = choices.at(choice);
            let (now, before) = change(region, &categories);
            total = total + now - before;
        }
        writer.write(Word {
            bits: choice as u32,
            length: CHOICE_BITS,
        });
        let words = regions.iter().flat_map(|region| &region.words);
        words.for_each(|word| writer.write(*word));
    }
}

/// The code words of a region.
#[derive(Debug, Default)]
struct Region {
    words: [Word; VECTORS],
}

impl Region {
    /// Codes coefficients.
    fn code(category: u8, deviation: f32, values: &[f32; REGION]) -> Self {
        let mut region = Self::default();
        let Some(category) = CATEGORIES.get(usize::from(category)) else {
            return region;
        };
        let base = category.levels.len();
        let steps = 1.0 / (category.step * deviation);
        let vectors = values.chunks_exact(category.dimension);
        for (word, vector) in region.words.iter_mut().zip(vectors) {
            let levels = vector.iter().map(|value| {
                let level = (value.abs() * steps + category.rounding) as usize;
                (level.min(base - 1), *value > 0.0)
            });
            let number = levels.clone().fold(0, |sum, (level, _)| sum * base + level);
            *word = Word::of(category.codes[number]);
            for (_, is_positive) in levels.filter(|(level, _)| *level > 0) {
                word.push(is_positive);
            }
        }
        region
    }

    fn bits(&self) -> u32 {
        self.words.iter().map(|word| word.length).sum()
    }
}
