//! How an agent hears and says sound: one channel, in frames of 20 ms.

use crate::codec::Codec;
use crate::g711::{ULAW_SILENCE, decode_ulaw, encode_ulaw};
use crate::{FRAME_MILLIS, FRAME_SAMPLES};

/// Samples per second of linear sound that agents may ask for.
pub const RATES: [u32; 6] = [8000, 12_000, 16_000, 24_000, 32_000, 48_000];

/// The most samples and bytes of a frame.
pub const MOST_SAMPLES: usize = 960;
/// See [`MOST_SAMPLES`].
pub const MOST_BYTES: usize = 2 * MOST_SAMPLES;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// G.711 µ-law: 8,000 samples per second, a byte each.
    Ulaw,
    /// Linear: two bytes for each sample, little endian.
    Linear {
        /// Samples per second, one of [`RATES`].
        rate: u32,
    },
}

impl Format {
    /// The one in which a codec's sound loses nothing.
    pub fn of(codec: Codec) -> Self {
        match codec {
            Codec::Pcmu | Codec::Pcma => Self::Ulaw,
            Codec::L16 { rate } => Self::Linear { rate },
            Codec::G722 | Codec::AmrWb(_) | Codec::G7221(_) => Self::Linear { rate: 16_000 },
            Codec::Ilbc(_) => Self::Linear { rate: 8000 },
            Codec::Opus(_) => Self::Linear { rate: 48_000 },
        }
    }

    /// Samples per second.
    pub fn rate(self) -> u32 {
        match self {
            Self::Ulaw => 8000,
            Self::Linear { rate } => rate.min(48_000),
        }
    }

    /// Bytes of a millisecond.
    pub fn bytes_per_milli(self) -> usize {
        let samples = (self.rate() / 1000) as usize;
        match self {
            Self::Ulaw => samples,
            Self::Linear { .. } => 2 * samples,
        }
    }

    /// Bytes of a frame.
    pub fn frame_bytes(self) -> usize {
        self.bytes_per_milli() * FRAME_MILLIS as usize
    }

    /// The byte that silence is made of.
    pub fn silence(self) -> u8 {
        match self {
            Self::Ulaw => ULAW_SILENCE,
            Self::Linear { .. } => 0,
        }
    }

    /// Writes the samples of these bytes to the start of `samples`: how many.
    pub fn decode(self, bytes: &[u8], samples: &mut [i16]) -> usize {
        match self {
            Self::Ulaw => {
                for (sample, code) in samples.iter_mut().zip(bytes) {
                    *sample = decode_ulaw(*code);
                }
                bytes.len().min(samples.len())
            }
            Self::Linear { .. } => {
                let (pairs, _) = bytes.as_chunks();
                for (sample, pair) in samples.iter_mut().zip(pairs) {
                    *sample = i16::from_le_bytes(*pair);
                }
                pairs.len().min(samples.len())
            }
        }
    }

    /// Writes samples, each in its place, as far as there is room.
    pub fn encode(self, samples: &[i16], bytes: &mut [u8]) {
        match self {
            Self::Ulaw => {
                for (code, sample) in bytes.iter_mut().zip(samples) {
                    *code = encode_ulaw(*sample);
                }
            }
            Self::Linear { .. } => {
                let (pairs, _) = bytes.as_chunks_mut();
                for (pair, sample) in pairs.iter_mut().zip(samples) {
                    *pair = sample.to_le_bytes();
                }
            }
        }
    }
}

const _: () = assert!(FRAME_SAMPLES <= MOST_SAMPLES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_twenty_milliseconds_and_comes_back_as_it_was() {
        let sound: Vec<i16> = (0..960).map(|n| n * 30 - 14_000).collect();
        for rate in RATES {
            let format = Format::Linear { rate };
            assert_eq!(format.frame_bytes() as u32, rate / 50 * 2);
            let mut bytes = vec![1; format.frame_bytes()];
            let mut samples = [0; MOST_SAMPLES];
            format.encode(&sound, &mut bytes);
            let count = format.decode(&bytes, &mut samples);
            assert_eq!(samples[..count], sound[..(rate / 50) as usize]);
        }
        assert_eq!(Format::Linear { rate: 48_000 }.frame_bytes(), MOST_BYTES);
        let mut codes = [0; FRAME_SAMPLES];
        let mut samples = [0; FRAME_SAMPLES];
        assert_eq!(Format::Ulaw.frame_bytes(), codes.len());
        Format::Ulaw.encode(&sound, &mut codes);
        assert_eq!(Format::Ulaw.decode(&codes, &mut samples), FRAME_SAMPLES);
        let near = |(a, b): (&i16, &i16)| (a - b).abs() <= 512;
        assert!(samples.iter().zip(&sound).all(near));
    }
}
