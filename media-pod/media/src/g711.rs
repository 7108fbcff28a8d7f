//! G.711 (ITU-T G.711): µ-law and A-law to 16-bit linear and back, and from one law to the other.
//!
//! Linear values are scaled to 16 bits (the recommendation's 14 and 13 bits, left-aligned). Tables are made at compile
//! time.

/// µ-law code of silence (positive zero).
pub const ULAW_SILENCE: u8 = 0xff;
/// A-law code of silence (the smallest positive value).
pub const ALAW_SILENCE: u8 = 0xd5;

const ULAW_BIAS: i32 = 0x84;
const ULAW_CLIP: i32 = 32_635;

static ULAW_DECODE: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = expand_ulaw(code as u8);
        code += 1;
    }
    table
};

static ALAW_DECODE: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = expand_alaw(code as u8);
        code += 1;
    }
    table
};

static ULAW_TO_ALAW: [u8; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = encode_alaw(expand_ulaw(code as u8));
        code += 1;
    }
    // Both laws' zeros are silence; negative zero must not become a negative step.
    table[0x7f] = ALAW_SILENCE;
    table
};

static ALAW_TO_ULAW: [u8; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = encode_ulaw(expand_alaw(code as u8));
        code += 1;
    }
    // A-law has no zero: its silence is the smallest step, which must become real silence.
    table[ALAW_SILENCE as usize] = ULAW_SILENCE;
    table
};

const fn expand_ulaw(code: u8) -> i16 {
    let code = !code;
    let exponent = (code >> 4) & 0x07;
    let magnitude = ((((code & 0x0f) as i32) << 3) + ULAW_BIAS) << exponent;
    let value = (magnitude - ULAW_BIAS) as i16;
    if code & 0x80 == 0 { value } else { -value }
}

const fn expand_alaw(code: u8) -> i16 {
    let code = code ^ 0x55;
    let exponent = (code >> 4) & 0x07;
    let mantissa = ((code & 0x0f) as i32) << 4;
    let magnitude = if exponent == 0 {
        mantissa + 8
    } else {
        (mantissa + 0x108) << (exponent - 1)
    };
    let value = magnitude as i16;
    if code & 0x80 == 0 { -value } else { value }
}

/// One linear sample as µ-law.
pub const fn encode_ulaw(sample: i16) -> u8 {
    let value = sample as i32;
    let sign = if value < 0 { 0x80 } else { 0 };
    let magnitude = if value < 0 { -value } else { value };
    let magnitude = if magnitude > ULAW_CLIP {
        ULAW_CLIP
    } else {
        magnitude
    } + ULAW_BIAS;
    let exponent = 24 - magnitude.leading_zeros();
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | ((exponent as u8) << 4) | mantissa as u8)
}

/// One linear sample as A-law.
pub const fn encode_alaw(sample: i16) -> u8 {
    let (value, mask) = if sample >= 0 {
        (sample as i32, 0xd5)
    } else {
        (!sample as i32, 0x55)
    };
    let code = if value < 256 {
        (value >> 4) as u8
    } else {
        let exponent = 24 - value.leading_zeros();
        let mantissa = (value >> (exponent + 3)) & 0x0f;
        ((exponent as u8) << 4) | mantissa as u8
    };
    code ^ mask
}

/// One µ-law code as a linear sample.
pub fn decode_ulaw(code: u8) -> i16 {
    ULAW_DECODE[usize::from(code)]
}

/// One A-law code as a linear sample.
pub fn decode_alaw(code: u8) -> i16 {
    ALAW_DECODE[usize::from(code)]
}

/// Appends samples (16 bit, little endian) as µ-law codes.
pub fn append_as_ulaw(samples: &[[u8; 2]], out: &mut Vec<u8>) {
    let encode = |sample: &[u8; 2]| encode_ulaw(i16::from_le_bytes(*sample));
    out.extend(samples.iter().map(encode));
}

/// Writes µ-law codes as samples (16 bit, little endian), each in its place.
pub fn write_as_linear(ulaw: &[u8], out: &mut [[u8; 2]]) {
    for (code, sample) in ulaw.iter().zip(out) {
        *sample = decode_ulaw(*code).to_le_bytes();
    }
}

/// One µ-law code as the nearest A-law code.
pub fn ulaw_to_alaw(code: u8) -> u8 {
    ULAW_TO_ALAW[usize::from(code)]
}

/// One A-law code as the nearest µ-law code.
pub fn alaw_to_ulaw(code: u8) -> u8 {
    ALAW_TO_ULAW[usize::from(code)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ulaw_code_survives_a_round_trip() {
        for code in 0..=255u8 {
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(encode_ulaw(decode_ulaw(code)), expected, "code {code:#x}");
        }
    }

    #[test]
    fn every_alaw_code_survives_a_round_trip() {
        for code in 0..=255u8 {
            assert_eq!(encode_alaw(decode_alaw(code)), code, "code {code:#x}");
        }
    }

    #[test]
    fn known_values_are_those_of_the_recommendation() {
        for (code, linear) in [
            (0x00, -32124),
            (0x80, 32124),
            (0xff, 0),
            (0x7f, 0),
            (0xfe, 8),
            (0xf0, 120),
            (0xef, 132),
        ] {
            assert_eq!(decode_ulaw(code), linear, "µ-law {code:#x}");
        }
        for (code, linear) in [
            (0xd5, 8),
            (0x55, -8),
            (0xaa, 32256),
            (0x2a, -32256),
            (0xd4, 24),
            (0x80, 5504),
        ] {
            assert_eq!(decode_alaw(code), linear, "A-law {code:#x}");
        }
        assert_eq!(encode_ulaw(i16::MAX), 0x80);
        assert_eq!(encode_ulaw(i16::MIN), 0x00);
        assert_eq!(encode_alaw(i16::MAX), 0xaa);
        assert_eq!(encode_alaw(i16::MIN), 0x2a);
    }

    #[test]
    fn encoding_is_monotonic_and_close() {
        let (mut ulaw, mut alaw) = (i16::MIN, i16::MIN);
        for sample in i16::MIN..=i16::MAX {
            let (u, a) = (
                decode_ulaw(encode_ulaw(sample)),
                decode_alaw(encode_alaw(sample)),
            );
            assert!(u >= ulaw && a >= alaw, "sample {sample}");
            (ulaw, alaw) = (u, a);
            let allowed = i32::from(sample).abs() / 16 + 16;
            if i32::from(sample).abs() < 32_000 {
                assert!(
                    (i32::from(u) - i32::from(sample)).abs() <= allowed,
                    "sample {sample}"
                );
                assert!(
                    (i32::from(a) - i32::from(sample)).abs() <= allowed,
                    "sample {sample}"
                );
            }
        }
    }

    #[test]
    fn transcoding_keeps_silence_and_stays_close() {
        assert_eq!(ulaw_to_alaw(ULAW_SILENCE), ALAW_SILENCE);
        assert_eq!(alaw_to_ulaw(ALAW_SILENCE), ULAW_SILENCE);
        for code in 0..=255u8 {
            let (from, to) = (decode_ulaw(code), decode_alaw(ulaw_to_alaw(code)));
            assert!(
                (i32::from(from) - i32::from(to)).abs() <= i32::from(from).abs() / 16 + 16,
                "code {code:#x}"
            );
        }
    }
}
