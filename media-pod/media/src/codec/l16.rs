//! L16 (RFC 3551 section 4.5.11): 16-bit samples in network order.

use super::{Decoder, Encoder};

#[derive(Debug)]
pub struct L16Decoder {
    rate: u32,
}

impl L16Decoder {
    pub fn new(rate: u32) -> Self {
        Self { rate }
    }
}

impl Decoder for L16Decoder {
    fn sample_rate(&self) -> u32 {
        self.rate
    }

    fn clock_rate(&self) -> u32 {
        self.rate
    }

    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        (!payload.is_empty() && payload.len().is_multiple_of(2)).then_some(payload.len() as u32 / 2)
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        let (samples, _) = payload.as_chunks();
        let count = samples.len().min(sound.len());
        for (to, from) in sound.iter_mut().zip(samples) {
            *to = i16::from_be_bytes(*from);
        }
        count
    }

    fn reset(&mut self) {}
}

#[derive(Debug)]
pub struct L16Encoder {
    rate: u32,
}

impl L16Encoder {
    pub fn new(rate: u32) -> Self {
        Self { rate }
    }
}

impl Encoder for L16Encoder {
    fn sample_rate(&self) -> u32 {
        self.rate
    }

    fn clock_rate(&self) -> u32 {
        self.rate
    }

    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let (places, _) = payload.as_chunks_mut();
        let count = sound.len().min(places.len());
        for (to, from) in places.iter_mut().zip(sound) {
            *to = from.to_be_bytes();
        }
        2 * count
    }
}
