//! iLBC (RFC 3951) as RTP carries it (RFC 3952): 8,000 samples per second, frames of 20 ms in 38 bytes or 30 ms in 50 that need nothing of
//! those before, so that a loss is over with the frame.
//!
//! A frame is what linear prediction leaves of the sound. Its loudest part, the start state, is coded sample by sample; all around it is made of
//! what is known already. What is left to whoever implements it is left out: the enhancer of section 4.6 (it delays by 10 ms), and the concealment of
//! section 4.5, for the jitter buffer has its own.

mod bits;
mod codebook;
mod decode;
mod encode;
mod lpc;
mod lsf;
mod state;
mod tables;

#[cfg(test)]
mod tests;

use super::{Decoder, Encoder, IlbcMode};
use bits::Parameters;
use decode::Synthesis;
use encode::Coder;

const RATE: u32 = 8000;
/// Samples of a sub-block.
const BLOCK: usize = 40;
/// Samples of the longest packet that is taken: 256 ms, as the jitter buffer does.
const LONGEST_PACKET: usize = 2048;
/// Samples of the longest frame, and of the longest start state.
const MAX_SAMPLES: usize = 240;
const MAX_STATE: usize = 58;
/// Samples of the two sub-blocks that a start state is in.
const STATE_BLOCKS: usize = 2 * BLOCK;

/// Which of the two.
type Length = IlbcMode;

impl Length {
    fn samples(self) -> usize {
        self.blocks() * BLOCK
    }

    fn blocks(self) -> usize {
        match self {
            Self::Millis20 => 4,
            Self::Millis30 => 6,
        }
    }

    /// Samples of the start state.
    fn state(self) -> usize {
        match self {
            Self::Millis20 => 57,
            Self::Millis30 => MAX_STATE,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Millis20 => 38,
            Self::Millis30 => 50,
        }
    }
}

#[derive(Debug)]
pub struct IlbcDecoder {
    length: Length,
    synthesis: Box<Synthesis>,
}

impl IlbcDecoder {
    pub fn new(length: Length) -> Self {
        Self {
            length,
            synthesis: Box::new(Synthesis::new()),
        }
    }
}

impl Decoder for IlbcDecoder {
    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn clock_rate(&self) -> u32 {
        RATE
    }

    /// Payloads with a frame in which nothing was coded are as good as lost.
    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        let frames = payload.chunks(self.length.bytes());
        let count = frames.len();
        // Longer packets are not taken: they need not be read.
        let known = payload.len() == count * self.length.bytes()
            && count * self.length.samples() <= LONGEST_PACKET
            && frames
                .clone()
                .all(|frame| Parameters::read(frame, self.length).is_some());
        (count > 0 && known).then_some((count * self.length.samples()) as u32)
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        let frames = payload.chunks_exact(self.length.bytes());
        let places = sound.chunks_exact_mut(self.length.samples());
        let mut count = 0;
        for (frame, place) in frames.zip(places) {
            let Some(parameters) = Parameters::read(frame, self.length) else {
                break;
            };
            self.synthesis.decode(self.length, &parameters, place);
            count += place.len();
        }
        count
    }

    fn reset(&mut self) {
        *self.synthesis = Synthesis::new();
    }
}

#[derive(Debug)]
pub struct IlbcEncoder {
    length: Length,
    coder: Box<Coder>,
    /// What is not a whole frame yet.
    waiting: [i16; MAX_SAMPLES + 80],
    count: usize,
    lead: u32,
}

impl IlbcEncoder {
    pub fn new(length: Length) -> Self {
        Self {
            length,
            coder: Box::new(Coder::new()),
            waiting: [0; MAX_SAMPLES + 80],
            count: 0,
            lead: 0,
        }
    }
}

impl Encoder for IlbcEncoder {
    fn sample_rate(&self) -> u32 {
        RATE
    }

    fn clock_rate(&self) -> u32 {
        RATE
    }

    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let Some(place) = self.waiting.get_mut(self.count..self.count + sound.len()) else {
            self.count = 0;
            return 0;
        };
        place.copy_from_slice(sound);
        // It begins with what waited, so long before this sound.
        self.lead = self.count as u32;
        self.count += sound.len();
        let (samples, bytes) = (self.length.samples(), self.length.bytes());
        let Some(payload) = payload.get_mut(..bytes).filter(|_| self.count >= samples) else {
            return 0;
        };
        self.coder
            .encode(self.length, &self.waiting[..samples], payload);
        self.waiting.copy_within(samples..self.count, 0);
        self.count -= samples;
        bytes
    }

    fn lead(&self) -> u32 {
        self.lead
    }

    fn skip(&mut self) {
        self.count = 0;
    }
}
