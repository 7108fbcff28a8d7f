//! G.722 at 64 kbit/s (ITU-T G.722 mode 1, RFC 3551 section 4.5.2): 16,000 samples per second under a clock of 8,000.
//!
//! Two bands of 8,000 samples each, coded as differences from what is predicted: six bits for the low band, two for the high one. The names
//! of the steps are those of the recommendation, and so are the numbers: 16-bit arithmetic that saturates.

use std::array;

use super::{Decoder, Encoder};

const SAMPLE_RATE: u32 = 16_000;
const CLOCK_RATE: u32 = 8000;

/// Half of the quadrature mirror filter (table 11), which is symmetric: every other tap.
const FILTER: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Decision levels of the low band's quantiser (table 14), Q6.
const LEVELS: [i32; 30] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940,
    1023, 1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// What the low band's codes stand for (QQ6), and their four upper bits (QQ4), both to be multiplied by the scale factor.
const OUTPUT_6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232,
    -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776,
    -2400, -2032, -1688, -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280,
    11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776,
    2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
const OUTPUT_4: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584,
    1200, 0,
];
/// What the high band's codes stand for (QQ2).
const OUTPUT_2: [i32; 4] = [-7408, -1616, 7408, 1616];
/// By how much a code changes the logarithm of the scale factor: the low band's four upper bits, and the high band's codes (the
/// recommendation gives them by way of tables of the steps).
const STEPS_LOW: [i32; 16] = [
    -60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60,
];
const STEPS_HIGH: [i32; 4] = [798, -214, 798, -214];
/// The high band's only decision level.
const LEVEL_HIGH: i32 = 564;
/// Powers of two by 1/32, Q11 (ILB).
const POWERS: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

fn saturate(value: i32) -> i32 {
    value.clamp(i16::MIN.into(), i16::MAX.into())
}

/// One band's scale factor and predictor, the same in encoder and decoder.
#[derive(Debug, Clone)]
struct Band {
    /// Logarithm of the scale factor (NB) and its greatest value.
    logarithm: i32,
    limit: i32,
    /// Exponent of the scale factor at logarithm 0.
    exponent: i32,
    /// Scale factor (DET).
    scale: i32,
    /// What is predicted (S), and the part of it that the zeros predict (SZ).
    predicted: i32,
    zeros: i32,
    /// Coefficients of the poles (A) and zeros (B).
    a: [i32; 2],
    b: [i32; 6],
    /// The last two reconstructed samples (R) and partly reconstructed ones (P), and the last six differences (D), the newest first.
    r: [i32; 2],
    p: [i32; 2],
    d: [i32; 6],
}

impl Band {
    fn low() -> Self {
        Self::new(18_432, 8, 32)
    }

    fn high() -> Self {
        Self::new(22_528, 10, 8)
    }

    fn new(limit: i32, exponent: i32, scale: i32) -> Self {
        Self {
            logarithm: 0,
            limit,
            exponent,
            scale,
            predicted: 0,
            zeros: 0,
            a: [0; 2],
            b: [0; 6],
            r: [0; 2],
            p: [0; 2],
            d: [0; 6],
        }
    }

    /// What a code's output stands for now.
    fn scaled(&self, output: i32) -> i32 {
        (self.scale * output) >> 15
    }

    /// Goes on to the next sample: the difference that both sides know, and by how much its code changes the scale.
    fn adapt(&mut self, difference: i32, step: i32) {
        // LOGSCL and SCALEL.
        self.logarithm = (((self.logarithm * 127) >> 7) + step).clamp(0, self.limit);
        let power = POWERS[(self.logarithm >> 6 & 31) as usize];
        let shift = self.exponent - (self.logarithm >> 11);
        self.scale = if shift < 0 {
            power << -shift
        } else {
            power >> shift
        } << 2;
        self.predict(difference);
    }

    fn predict(&mut self, difference: i32) {
        // RECONS and PARREC.
        let reconstructed = saturate(self.predicted + difference);
        let partly = saturate(self.zeros + difference);
        // UPPOL2.
        let sign = |value: i32| value < 0;
        let with = |same: bool, value: i32| if same { value } else { -value };
        let like_last = sign(partly) == sign(self.p[0]);
        let like_before = sign(partly) == sign(self.p[1]);
        let product = with(!like_last, saturate(self.a[0] << 2)).min(i16::MAX.into());
        let second = (product >> 7) + with(like_before, 128) + ((self.a[1] * 32_512) >> 15);
        let second = second.clamp(-12_288, 12_288);
        // UPPOL1.
        let first = with(like_last, 192) + ((self.a[0] * 32_640) >> 15);
        let limit = 15_360 - second;
        self.a = [first.clamp(-limit, limit), second];
        // UPZERO.
        let step = if difference == 0 { 0 } else { 128 };
        for (b, d) in self.b.iter_mut().zip(self.d) {
            let toward = with(sign(d) == sign(difference), step);
            *b = saturate(toward + ((*b * 32_640) >> 15));
        }
        // DELAYA.
        self.d.copy_within(..5, 1);
        self.d[0] = difference;
        self.r = [reconstructed, self.r[0]];
        self.p = [partly, self.p[0]];
        // FILTEP, FILTEZ, PREDIC.
        let weigh = |(weight, value): (&i32, &i32)| (weight * saturate(value << 1)) >> 15;
        let poles = saturate(self.a.iter().zip(&self.r).map(weigh).sum());
        self.zeros = saturate(self.b.iter().zip(&self.d).map(weigh).sum());
        self.predicted = saturate(poles + self.zeros);
    }
}

/// The last 24 samples of the filter, the newest last, even and odd ones apart.
#[derive(Debug, Clone, Default)]
struct Mirror {
    even: [i32; 12],
    odd: [i32; 12],
}

impl Mirror {
    /// Takes two samples; gives the sums of both halves of the filter.
    fn push(&mut self, even: i32, odd: i32) -> (i32, i32) {
        self.even.copy_within(1.., 0);
        self.odd.copy_within(1.., 0);
        self.even[11] = even;
        self.odd[11] = odd;
        let forward: [i32; 12] = array::from_fn(|at| self.even[at] * FILTER[at]);
        let backward: [i32; 12] = array::from_fn(|at| self.odd[at] * FILTER[11 - at]);
        (forward.iter().sum(), backward.iter().sum())
    }
}

#[derive(Debug)]
pub struct G722Decoder {
    low: Band,
    high: Band,
    mirror: Mirror,
}

impl G722Decoder {
    pub fn new() -> Self {
        Self {
            low: Band::low(),
            high: Band::high(),
            mirror: Mirror::default(),
        }
    }

    fn decode_code(&mut self, code: u8) -> [i16; 2] {
        let limit = |value: i32| value.clamp(-16_384, 16_383);
        let code = usize::from(code);
        let (fine, coarse, upper) = (code & 63, code >> 2 & 15, code >> 6);
        let low = limit(self.low.predicted + self.low.scaled(OUTPUT_6[fine]));
        let difference = self.low.scaled(OUTPUT_4[coarse]);
        self.low.adapt(difference, STEPS_LOW[coarse]);
        let difference = self.high.scaled(OUTPUT_2[upper]);
        let high = limit(self.high.predicted + difference);
        self.high.adapt(difference, STEPS_HIGH[upper]);
        let (second, first) = self.mirror.push(low + high, low - high);
        [first, second].map(|sum| saturate(sum >> 11) as i16)
    }
}

impl Decoder for G722Decoder {
    fn sample_rate(&self) -> u32 {
        SAMPLE_RATE
    }

    fn clock_rate(&self) -> u32 {
        CLOCK_RATE
    }

    fn ticks(&self, payload: &[u8]) -> Option<u32> {
        (!payload.is_empty()).then_some(payload.len() as u32)
    }

    fn decode(&mut self, payload: &[u8], sound: &mut [i16]) -> usize {
        let (places, _) = sound.as_chunks_mut();
        for (place, code) in places.iter_mut().zip(payload) {
            *place = self.decode_code(*code);
        }
        2 * places.len().min(payload.len())
    }

    fn reset(&mut self) {
        *self = Self::new();
    }
}

#[derive(Debug)]
pub struct G722Encoder {
    low: Band,
    high: Band,
    mirror: Mirror,
}

impl G722Encoder {
    pub fn new() -> Self {
        Self {
            low: Band::low(),
            high: Band::high(),
            mirror: Mirror::default(),
        }
    }

    fn encode_samples(&mut self, [first, second]: [i16; 2]) -> u8 {
        let (forward, backward) = self.mirror.push(first.into(), second.into());
        let low = (backward + forward) >> 14;
        let high = (backward - forward) >> 14;
        // SUBTRA and QUANTL.
        let error = saturate(low - self.low.predicted);
        let magnitude = if error < 0 { !error } else { error };
        let scale = self.low.scale;
        // The levels rise.
        let level = LEVELS[1..].partition_point(|level| magnitude >= (level * scale) >> 12);
        let fine = match (error < 0, level) {
            (true, level @ 0..2) => 63 - level,
            (true, level) => 33 - level,
            (false, level) => 61 - level,
        };
        let difference = self.low.scaled(OUTPUT_4[fine >> 2]);
        self.low.adapt(difference, STEPS_LOW[fine >> 2]);
        // SUBTRA and QUANTH.
        let error = saturate(high - self.high.predicted);
        let magnitude = if error < 0 { !error } else { error };
        let far = magnitude >= (LEVEL_HIGH * self.high.scale) >> 12;
        let upper = match (error < 0, far) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        let difference = self.high.scaled(OUTPUT_2[upper]);
        self.high.adapt(difference, STEPS_HIGH[upper]);
        (upper << 6 | fine) as u8
    }
}

impl Encoder for G722Encoder {
    fn sample_rate(&self) -> u32 {
        SAMPLE_RATE
    }

    fn clock_rate(&self) -> u32 {
        CLOCK_RATE
    }

    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let (samples, _) = sound.as_chunks();
        for (place, samples) in payload.iter_mut().zip(samples) {
            *place = self.encode_samples(*samples);
        }
        samples.len().min(payload.len())
    }
}
