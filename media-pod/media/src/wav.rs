//! WAV files: what people have on disk into 8 kHz samples, and 8 kHz samples into a file.
//!
//! Whole files in memory, bounded to 64 MiB. For the test caller and tests, not for calls.

use std::f64::consts::PI;

use thiserror::Error;

use crate::g711::{decode_alaw, decode_ulaw};

/// Largest file that is read.
pub const MAX_BYTES: usize = 64 << 20;
const OUT_RATE: u32 = 8000;
const RATES: [u32; 6] = [8000, 16_000, 24_000, 32_000, 44_100, 48_000];

/// Why a file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WavError {
    /// Larger than [`MAX_BYTES`].
    #[error("file has {0} bytes, more than 64 MiB")]
    TooLarge(usize),
    /// No RIFF/WAVE header.
    #[error("not a WAV file: it does not start with RIFF….WAVE")]
    NotWav,
    /// A chunk is missing.
    #[error("WAV file without a complete {0:?} chunk")]
    MissingChunk(&'static str),
    /// Encoding or bits per sample not read here.
    #[error(
        "WAV encoding {tag} with {bits} bits is not supported: use 8 or 16-bit PCM, A-law or µ-law"
    )]
    Encoding {
        /// The format tag.
        tag: u16,
        /// Bits per sample.
        bits: u16,
    },
    /// Neither mono nor stereo.
    #[error("WAV file with {0} channels: use one or two")]
    Channels(u16),
    /// Sample rate not read here.
    #[error(
        "WAV sample rate {0} Hz is not supported: use 8000, 16000, 24000, 32000, 44100 or 48000"
    )]
    Rate(u32),
}

#[derive(Clone, Copy)]
struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    bits: u16,
}

/// Reads a WAV file as mono samples at 8 kHz; stereo is mixed, other rates are filtered and resampled. A file cut short
/// gives what is there.
pub fn read(file: &[u8]) -> Result<Vec<i16>, WavError> {
    if file.len() > MAX_BYTES {
        return Err(WavError::TooLarge(file.len()));
    }
    if file.len() < 12 || &file[..4] != b"RIFF" || &file[8..12] != b"WAVE" {
        return Err(WavError::NotWav);
    }
    let (format, data) = find_chunks(&file[12..])?;
    if !(1..=2).contains(&format.channels) {
        return Err(WavError::Channels(format.channels));
    }
    if !RATES.contains(&format.rate) {
        return Err(WavError::Rate(format.rate));
    }
    let samples: Vec<i16> = match (format.tag, format.bits) {
        (1, 16) => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|pair| i16::from_le_bytes(*pair))
            .collect(),
        (1, 8) => data
            .iter()
            .map(|byte| (i16::from(*byte) - 128) << 8)
            .collect(),
        (6, 8) => data.iter().map(|code| decode_alaw(*code)).collect(),
        (7, 8) => data.iter().map(|code| decode_ulaw(*code)).collect(),
        (tag, bits) => return Err(WavError::Encoding { tag, bits }),
    };
    let mono = if format.channels == 2 {
        samples
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| left.midpoint(*right))
            .collect()
    } else {
        samples
    };
    Ok(if format.rate == OUT_RATE {
        mono
    } else {
        resample(&mono, format.rate)
    })
}

fn find_chunks(mut rest: &[u8]) -> Result<(Format, &[u8]), WavError> {
    let mut format = None;
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let [i0, i1, i2, i3, l0, l1, l2, l3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let chunk = &body[..length.min(body.len())];
        match &[i0, i1, i2, i3] {
            b"fmt " => format = Some(parse_format(chunk).ok_or(WavError::MissingChunk("fmt "))?),
            b"data" => return Ok((format.ok_or(WavError::MissingChunk("fmt "))?, chunk)),
            _ => {}
        }
        rest = body.get(length + (length & 1)..).unwrap_or_default();
    }
    Err(WavError::MissingChunk(if format.is_some() {
        "data"
    } else {
        "fmt "
    }))
}

fn parse_format(chunk: &[u8]) -> Option<Format> {
    let word = |at: usize| Some(u16::from_le_bytes([*chunk.get(at)?, *chunk.get(at + 1)?]));
    let tag = word(0)?;
    Some(Format {
        // WAVE_FORMAT_EXTENSIBLE keeps the real tag in the first bytes of its GUID.
        tag: if tag == 0xfffe { word(24)? } else { tag },
        channels: word(2)?,
        rate: u32::from(word(4)?) | (u32::from(word(6)?) << 16),
        bits: word(14)?,
    })
}

/// Linear-phase low-pass and decimation by any rational factor: a Blackman-windowed sinc for each output phase.
fn resample(input: &[i16], rate: u32) -> Vec<i16> {
    const LOBES: f64 = 24.0;
    const CUTOFF_HZ: f64 = 3700.0;
    let divisor = gcd(rate, OUT_RATE);
    let (up, down) = ((OUT_RATE / divisor) as usize, (rate / divisor) as usize);
    let ratio = f64::from(rate) / f64::from(OUT_RATE);
    let half = (LOBES * ratio).ceil() as usize;
    let cutoff = 2.0 * CUTOFF_HZ / f64::from(rate);
    let kernels: Vec<Vec<f32>> = (0..up)
        .map(|phase| {
            let fraction = (phase * down % up) as f64 / up as f64;
            let taps: Vec<f64> = (0..2 * half)
                .map(|tap| {
                    windowed_sinc(
                        tap as f64 - (half as f64 - 1.0) - fraction,
                        cutoff,
                        half as f64,
                    )
                })
                .collect();
            let sum: f64 = taps.iter().sum();
            taps.into_iter().map(|tap| (tap / sum) as f32).collect()
        })
        .collect();
    let count = input.len() * up / down;
    (0..count)
        .map(|index| {
            let center = index * down / up;
            let kernel = &kernels[index % up];
            let before = center + 1;
            let from = before.saturating_sub(half);
            let skipped = half - (before - from);
            let sum: f32 = input[from..]
                .iter()
                .zip(&kernel[skipped..])
                .map(|(sample, tap)| f32::from(*sample) * tap)
                .sum();
            sum.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16
        })
        .collect()
}

fn windowed_sinc(at: f64, cutoff: f64, half: f64) -> f64 {
    if at.abs() >= half {
        return 0.0;
    }
    let x = PI * at * cutoff;
    let sinc = if x.abs() < 1e-9 { 1.0 } else { x.sin() / x };
    let window = 0.42 + 0.5 * (PI * at / half).cos() + 0.08 * (2.0 * PI * at / half).cos();
    cutoff * sinc * window
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A WAV file of 16-bit mono samples at 8 kHz.
pub fn write(samples: &[i16]) -> Vec<u8> {
    let bytes = samples.len() as u32 * 2;
    let mut file = Vec::with_capacity(44 + bytes as usize);
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    for word in [1u16, 1] {
        file.extend(word.to_le_bytes());
    }
    file.extend(OUT_RATE.to_le_bytes());
    file.extend((OUT_RATE * 2).to_le_bytes());
    for word in [2u16, 16] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    for sample in samples {
        file.extend(sample.to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVE".to_vec();
        file.extend(b"LIST\x03\0\0\0abc\0fmt \x10\0\0\0");
        file.extend(tag.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    fn sine(rate: u32, hertz: f64) -> Vec<u8> {
        (0..rate)
            .flat_map(|n| {
                ((2.0 * PI * hertz * f64::from(n) / f64::from(rate)).sin() * 10_000.0)
                    .round()
                    .to_le_pcm()
            })
            .collect()
    }

    trait ToPcm {
        fn to_le_pcm(self) -> [u8; 2];
    }

    impl ToPcm for f64 {
        fn to_le_pcm(self) -> [u8; 2] {
            (self as i16).to_le_bytes()
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let samples = [0, 1, -1, i16::MAX, i16::MIN];
        assert_eq!(read(&write(&samples)).unwrap(), samples);
    }

    #[test]
    fn every_rate_keeps_a_tone_in_place_and_removes_what_8_khz_cannot_hold() {
        for rate in [16_000, 24_000, 32_000, 44_100, 48_000] {
            let out = read(&file(1, 1, rate, 16, &sine(rate, 1000.0))).unwrap();
            assert!((7998..=8000).contains(&out.len()), "{rate}: {}", out.len());
            for (n, sample) in out.iter().enumerate().skip(200).take(7500) {
                let expected = (2.0 * PI * 1000.0 * n as f64 / 8000.0).sin() * 10_000.0;
                assert!(
                    (f64::from(*sample) - expected).abs() < 60.0,
                    "{rate} Hz, sample {n}: {sample} {expected}"
                );
            }
            let out = read(&file(1, 1, rate, 16, &sine(rate, 5000.0))).unwrap();
            assert!(
                out[200..7500].iter().all(|sample| sample.abs() < 30),
                "{rate}"
            );
        }
    }

    #[test]
    fn mixes_stereo_and_reads_8_bit_and_g711() {
        assert_eq!(read(&file(1, 2, 8000, 16, &[0, 1, 0, 3])).unwrap(), [512]);
        assert_eq!(
            read(&file(1, 1, 8000, 8, &[128, 255, 0])).unwrap(),
            [0, 32_512, -32_768]
        );
        assert_eq!(
            read(&file(7, 1, 8000, 8, &[0xff, 0x80])).unwrap(),
            [0, 32_124]
        );
        assert_eq!(read(&file(6, 1, 8000, 8, &[0xd5])).unwrap(), [8]);
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        assert_eq!(read(b"ID3 something else"), Err(WavError::NotWav));
        assert_eq!(
            read(b"RIFF\0\0\0\0WAVE"),
            Err(WavError::MissingChunk("fmt "))
        );
        assert_eq!(
            read(&file(3, 1, 8000, 32, &[])),
            Err(WavError::Encoding { tag: 3, bits: 32 })
        );
        assert_eq!(read(&file(1, 6, 8000, 16, &[])), Err(WavError::Channels(6)));
        assert_eq!(
            read(&file(1, 1, 11_025, 16, &[])),
            Err(WavError::Rate(11_025))
        );
    }

    proptest! {
        #[test]
        fn never_panics(tail in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..80usize) {
            let mut data = file(1, 1, 44_100, 16, &tail);
            let _ = read(&data);
            data.truncate(data.len().saturating_sub(cut));
            let _ = read(&data);
            let mut noise = b"RIFF\0\0\0\0WAVE".to_vec();
            noise.extend(tail);
            let _ = read(&noise);
        }
    }
}
