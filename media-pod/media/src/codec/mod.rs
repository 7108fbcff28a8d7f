//! What every audio codec offers to the stream: payloads to sound and back.
//!
//! G.711 is not among them: its payloads pass as they are, or by the tables of [`crate::g711`].
//!
//! Sound is 16-bit linear, one channel, at the codec's sample rate. RTP timestamps count the codec's clock, which may differ from it
//! (G.722: 8,000 ticks for 16,000 samples, RFC 3551 section 4.5.2; Opus: 48,000 whatever is decoded, RFC 7587 section 4.1).

use std::fmt;

mod g722;
mod l16;
mod opus;

pub use opus::OpusParameters;

/// The longest payload that is made: 20 ms of L16 at 16 kHz. Opus is kept below by its bit rate.
pub const PAYLOAD_BYTES: usize = 640;

/// The longest sound of one payload that is decoded, in samples: 120 ms at 48 kHz, the most that Opus can pack.
pub const SOUND_SAMPLES: usize = 5760;

/// The audio codec of a call, with what was agreed on for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, static payload type 0.
    Pcmu,
    /// G.711 A-law, static payload type 8.
    Pcma,
    /// G.722 at 64 kbit/s, static payload type 9.
    G722,
    /// 16-bit linear, big endian (RFC 3551 section 4.5.11).
    L16 {
        /// Samples per second: 8,000 or 16,000.
        rate: u32,
    },
    /// Opus (RFC 6716, RFC 7587).
    Opus(OpusParameters),
}

impl Codec {
    /// Ticks per second of its RTP timestamps.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8000,
            Self::L16 { rate } => rate,
            Self::Opus(_) => 48_000,
        }
    }

    /// What decodes it, at `wanted_rate` samples per second if the codec can do that by itself. None for G.711, and if there is no memory.
    pub fn decoder(self, wanted_rate: u32) -> Option<Box<dyn Decoder>> {
        Some(match self {
            Self::Pcmu | Self::Pcma => return None,
            Self::G722 => Box::new(g722::G722Decoder::new()),
            Self::L16 { rate } => Box::new(l16::L16Decoder::new(rate)),
            Self::Opus(_) => Box::new(opus::OpusDecoder::new(wanted_rate)?),
        })
    }

    /// What encodes it, from `wanted_rate` samples per second if the codec can do that by itself. None for G.711, and if there is no memory.
    pub fn encoder(self, wanted_rate: u32) -> Option<Box<dyn Encoder>> {
        Some(match self {
            Self::Pcmu | Self::Pcma => return None,
            Self::G722 => Box::new(g722::G722Encoder::new()),
            Self::L16 { rate } => Box::new(l16::L16Encoder::new(rate)),
            Self::Opus(parameters) => Box::new(opus::OpusEncoder::new(wanted_rate, parameters)?),
        })
    }
}

/// Turns payloads into sound, in the order in which they are played. It keeps what it needs from one to the next.
pub trait Decoder: Send + fmt::Debug {
    /// Samples per second of what it gives.
    fn sample_rate(&self) -> u32;

    /// Ticks per second of its RTP timestamps.
    fn clock_rate(&self) -> u32;

    /// How long a payload plays, in ticks of the RTP clock. `None` if it cannot be decoded.
    fn ticks(&self, payload: &[u8]) -> Option<u32>;

    /// Decodes one payload into the start of `sound`; gives the number of samples. What does not fit, or cannot be decoded, is left out.
    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize;

    /// Fills `sound` in place of a payload that did not come, as the codec itself would (Opus: from the redundancy in `next`, the payload
    /// after it, if that is there). False if the codec has no way of its own.
    fn conceal(&mut self, next: Option<&[u8]>, sound: &mut [i16]) -> bool {
        let _ = (next, sound);
        false
    }

    /// Forgets what came before: another stream begins.
    fn reset(&mut self);
}

/// Turns sound into payloads.
pub trait Encoder: Send + fmt::Debug {
    /// Samples per second of what it takes.
    fn sample_rate(&self) -> u32;

    /// Ticks per second of its RTP timestamps.
    fn clock_rate(&self) -> u32;

    /// Encodes 20 ms into the start of `payload`; gives the number of bytes. None are sent for 0 (discontinuous transmission), and the
    /// timestamp goes on.
    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize;
}

#[cfg(test)]
mod tests;
