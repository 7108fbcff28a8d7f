//! G.722.1 (ITU-T, 05/2005) as RTP carries it (RFC 5577): 16,000 samples per second of which 50 to 7,000 Hz are heard, frames of 20 ms in 60
//! or 80 bytes. Annex C, which has 32,000 samples per second, is not here.
//!
//! A frame is a spectrum in 14 regions of 500 Hz: how loud each is, and of each as much more as there are bits for, the loudest most finely.
//! The rest is noise. What is heard is 20 ms late, for every transform overlaps the one before. It is computed in floating point, where the
//! recommendation's program has whole numbers, so that sound and frames agree with that program's not to the last bit.

mod decode;
mod encode;
mod huffman;
mod regions;
mod tables;
mod transform;

#[cfg(test)]
mod tests;

use super::{Decoder, Encoder, G7221Rate};
use decode::Synthesis;
use encode::Analysis;

const RATE: u32 = 16_000;
/// Samples, and coefficients, of a frame.
const SAMPLES: usize = 320;
/// Regions of the spectrum that are coded, and their coefficients.
const REGIONS: usize = 14;
const REGION: usize = 20;
/// Coefficients that are coded.
const CODED: usize = REGIONS * REGION;
/// Frames of the longest packet that is taken.
const MOST_FRAMES: usize = 12;

/// The deviation of coefficients in a region of that power. The recommendation's transform is 2^4.5 times lower than ours.
fn deviation(power: i32) -> f32 {
    ((power + 9) as f32 / 2.0).exp2()
}

impl G7221Rate {
    /// Bytes of a frame.
    fn bytes(self) -> usize {
        match self {
            Self::Kilobits24 => 60,
            Self::Kilobits32 => 80,
        }
    }
}

#[derive(Debug)]
pub struct G7221Decoder {
    rate: G7221Rate,
    synthesis: Box<Synthesis>,
}

impl G7221Decoder {
    pub fn new(rate: G7221Rate) -> Self {
        Self {
            rate,
            synthesis: Box::new(Synthesis::new()),
        }
    }
}

impl Decoder for G7221Decoder {
    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn clock_rate(&self) -> u32 {
        RATE
    }

    /// Only whole frames are taken (RFC 5577 section 4.2).
    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        let (frames, rest) = (
            payload.len() / self.rate.bytes(),
            payload.len() % self.rate.bytes(),
        );
        let is_known = rest == 0 && (1..=MOST_FRAMES).contains(&frames);
        is_known.then_some((frames * SAMPLES) as u32)
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        let frames = payload.chunks_exact(self.rate.bytes());
        let places = sound.chunks_exact_mut(SAMPLES);
        let mut count = 0;
        for (frame, place) in frames.zip(places) {
            self.synthesis.play(Some(frame), place);
            count += place.len();
        }
        count
    }

    fn conceal(&mut self, _next: Option<&[u8]>, sound: &mut [i16]) -> bool {
        let (places, rest) = sound.as_chunks_mut::<SAMPLES>();
        if places.is_empty() || !rest.is_empty() {
            return false;
        }
        for place in places {
            self.synthesis.play(None, place);
        }
        true
    }

    fn reset(&mut self) {
        *self.synthesis = Synthesis::new();
    }
}

#[derive(Debug)]
pub struct G7221Encoder {
    rate: G7221Rate,
    analysis: Box<Analysis>,
}

impl G7221Encoder {
    pub fn new(rate: G7221Rate) -> Self {
        Self {
            rate,
            analysis: Box::new(Analysis::new()),
        }
    }
}

impl Encoder for G7221Encoder {
    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn clock_rate(&self) -> u32 {
        RATE
    }

    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let frame = payload.get_mut(..self.rate.bytes());
        let (Some(sound), Some(frame)) = (sound.first_chunk(), frame) else {
            return 0;
        };
        self.analysis.encode(sound, frame);
        frame.len()
    }
}
