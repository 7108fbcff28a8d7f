//! What every audio codec offers to the stream: payloads to sound and back.
//!
//! G.711 is not among them: its payloads pass as they are, or by the tables of [`crate::g711`].
//!
//! Sound is 16-bit linear, one channel, at the codec's sample rate. RTP timestamps count the codec's clock, which may differ from it
//! (G.722: 8,000 ticks for 16,000 samples, RFC 3551 section 4.5.2; Opus: 48,000 whatever is decoded, RFC 7587 section 4.1).

use std::fmt;

#[cfg(feature = "amr-wb")]
mod amr_wb;
mod g722;
#[cfg(feature = "g7221")]
mod g7221;
#[cfg(feature = "ilbc")]
mod ilbc;
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
    /// AMR-WB, also G.722.2 (RFC 4867), if it was built with the feature `amr-wb`.
    AmrWb(AmrWbParameters),
    /// iLBC (RFC 3951, RFC 3952), if it was built with the feature `ilbc`.
    Ilbc(IlbcMode),
    /// G.722.1 (RFC 5577), if it was built with the feature `g7221`.
    G7221(G7221Rate),
}

/// How AMR-WB was agreed on (RFC 4867 section 8.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AmrWbParameters {
    /// `octet-align`: which of the two payload formats.
    pub octet_aligned: bool,
    /// `mode-set`: bit n is set if mode n may be used, 0 (6.60 kbit/s) to 8 (23.85 kbit/s).
    pub modes: u16,
    /// `mode-change-period=2`: the peer takes another mode with every second frame only.
    pub every_second: bool,
    /// `mode-change-neighbor`: the peer takes only the next mode of the set.
    pub neighbors_only: bool,
}

/// Length of iLBC's frames, the same both ways (RFC 3952 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IlbcMode {
    /// 20 ms in 38 bytes.
    Millis20,
    /// 30 ms in 50 bytes.
    Millis30,
}

/// Bit rate of G.722.1, the same both ways (RFC 5577 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum G7221Rate {
    /// 24 kbit/s: 60 bytes every 20 ms.
    Kilobits24,
    /// 32 kbit/s: 80 bytes every 20 ms.
    Kilobits32,
}

/// Whether this build has AMR-WB.
pub const HAS_AMR_WB: bool = cfg!(feature = "amr-wb");

/// Whether this build has iLBC.
pub const HAS_ILBC: bool = cfg!(feature = "ilbc");

/// Whether this build has G.722.1.
pub const HAS_G7221: bool = cfg!(feature = "g7221");

impl Codec {
    /// Ticks per second of its RTP timestamps.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::Ilbc(_) => 8000,
            Self::AmrWb(_) | Self::G7221(_) => 16_000,
            Self::L16 { rate } => rate,
            Self::Opus(_) => 48_000,
        }
    }

    /// What decodes it, at `wanted_rate` samples per second if the codec can do that by itself. None for G.711, for what this build does
    /// not have, and if there is no memory.
    pub fn decoder(self, wanted_rate: u32) -> Option<Box<dyn Decoder>> {
        Some(match self {
            Self::Pcmu | Self::Pcma => return None,
            Self::G722 => Box::new(g722::G722Decoder::new()),
            Self::L16 { rate } => Box::new(l16::L16Decoder::new(rate)),
            Self::Opus(_) => Box::new(opus::OpusDecoder::new(wanted_rate)?),
            #[cfg(feature = "amr-wb")]
            Self::AmrWb(parameters) => Box::new(amr_wb::AmrWbDecoder::new(parameters)?),
            #[cfg(feature = "ilbc")]
            Self::Ilbc(mode) => Box::new(ilbc::IlbcDecoder::new(mode)),
            #[cfg(feature = "g7221")]
            Self::G7221(rate) => Box::new(g7221::G7221Decoder::new(rate)),
            #[cfg(not(feature = "amr-wb"))]
            Self::AmrWb(_) => return None,
            #[cfg(not(feature = "ilbc"))]
            Self::Ilbc(_) => return None,
            #[cfg(not(feature = "g7221"))]
            Self::G7221(_) => return None,
        })
    }

    /// What encodes it, from `wanted_rate` samples per second if the codec can do that by itself. None for G.711, for what this build does
    /// not have, and if there is no memory.
    pub fn encoder(self, wanted_rate: u32) -> Option<Box<dyn Encoder>> {
        Some(match self {
            Self::Pcmu | Self::Pcma => return None,
            Self::G722 => Box::new(g722::G722Encoder::new()),
            Self::L16 { rate } => Box::new(l16::L16Encoder::new(rate)),
            Self::Opus(parameters) => Box::new(opus::OpusEncoder::new(wanted_rate, parameters)?),
            #[cfg(feature = "amr-wb")]
            Self::AmrWb(parameters) => Box::new(amr_wb::AmrWbEncoder::new(parameters)?),
            #[cfg(feature = "ilbc")]
            Self::Ilbc(mode) => Box::new(ilbc::IlbcEncoder::new(mode)),
            #[cfg(feature = "g7221")]
            Self::G7221(rate) => Box::new(g7221::G7221Encoder::new(rate)),
            #[cfg(not(feature = "amr-wb"))]
            Self::AmrWb(_) => return None,
            #[cfg(not(feature = "ilbc"))]
            Self::Ilbc(_) => return None,
            #[cfg(not(feature = "g7221"))]
            Self::G7221(_) => return None,
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

    /// Encodes 20 ms, or 10 (not AMR-WB and iLBC), into the start of `payload`; gives the number of bytes. None are sent for 0 (discontinuous transmission, or a frame that is
    /// longer), and the timestamp goes on.
    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize;

    /// By how many ticks of the RTP clock the last payload begins before the sound that it was made with.
    fn lead(&self) -> u32 {
        0
    }

    /// Something else was sent in place of 20 ms of sound: what waits for more is of no use.
    fn skip(&mut self) {}

    /// Looks at a payload of the peer's, which may ask for something.
    fn hear(&mut self, payload: &[u8]) {
        let _ = payload;
    }
}

#[cfg(test)]
mod tests;
