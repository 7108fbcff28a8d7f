//! The payload of a frame (RFC 3951 section 3.8): the parameters, each in up to three parts, the most important part first.

use super::tables::{LAYOUT_20, LAYOUT_30, Layout, Parts};
use super::{Length, MAX_STATE};

/// Codebook vectors and gains of a block, one of each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    /// Which vector.
    pub vectors: [u8; 3],
    /// Which gain.
    pub gains: [u8; 3],
}

/// The parameters of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Line spectral frequencies: three for each of one or two analyses.
    pub lsf: [u8; 6],
    /// In which two sub-blocks the start state is: 1 is the first and the second.
    pub start: u8,
    /// Whether it is at the beginning of these.
    pub first: u8,
    /// Its scale.
    pub scale: u8,
    /// Its samples.
    pub samples: Samples,
    /// What completes the two sub-blocks.
    pub rest: Block,
    /// The other sub-blocks: those behind the start state, then those before it, backwards.
    pub blocks: [Block; 4],
    /// Nothing was coded.
    pub empty: u8,
}

/// As many as are in a start state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples(pub [u8; MAX_STATE]);

impl Default for Samples {
    fn default() -> Self {
        Self([0; MAX_STATE])
    }
}

impl Parameters {
    /// Visits part `part` of each parameter, with the number of bits that it has there and of those that follow.
    fn visit(&mut self, length: Length, part: usize, mut each: impl FnMut(&mut u8, u8, u8)) {
        let Layout {
            lsf,
            start,
            first,
            scale,
            sample,
            rest,
            rest_gains,
            blocks,
            gains,
        } = match length {
            Length::Millis20 => &LAYOUT_20,
            Length::Millis30 => &LAYOUT_30,
        };
        let mut go = |value: &mut u8, parts: &Parts| {
            each(value, parts[part], parts[part + 1..].iter().sum());
        };
        for (value, parts) in self.lsf.iter_mut().zip(*lsf) {
            go(value, parts);
        }
        go(&mut self.start, start);
        go(&mut self.first, first);
        go(&mut self.scale, scale);
        for value in &mut self.samples.0[..length.state()] {
            go(value, sample);
        }
        for (value, parts) in self.rest.vectors.iter_mut().zip(rest) {
            go(value, parts);
        }
        for (value, parts) in self.rest.gains.iter_mut().zip(rest_gains) {
            go(value, parts);
        }
        for (block, parts) in self.blocks.iter_mut().zip(*blocks) {
            for (value, parts) in block.vectors.iter_mut().zip(parts) {
                go(value, parts);
            }
        }
        for (block, parts) in self.blocks.iter_mut().zip(*gains) {
            for (value, parts) in block.gains.iter_mut().zip(parts) {
                go(value, parts);
            }
        }
    }

    /// Reads a payload of [`Length::bytes`]. None if it says that nothing was coded, or if the start state is nowhere.
    pub fn read(payload: &[u8], length: Length) -> Option<Self> {
        let mut parameters = Self::default();
        let mut at = 0;
        let mut take = |count: u8| {
            (0..count).fold(0_u8, |value, _| {
                let octet = payload.get(at / 8).copied().unwrap_or_default();
                let bit = octet >> (7 - at % 8) & 1;
                at += 1;
                value << 1 | bit
            })
        };
        for part in 0..3 {
            parameters.visit(length, part, |value, own, _| {
                *value = if own == 8 { 0 } else { *value << own } | take(own);
            });
        }
        parameters.empty = take(1);
        let known = (1..length.blocks() as u8).contains(&parameters.start);
        (known && parameters.empty == 0).then_some(parameters)
    }

    /// Writes the payload.
    pub fn write(&mut self, length: Length, payload: &mut [u8]) {
        payload.fill(0);
        let mut at = 0;
        for part in 0..3 {
            self.visit(length, part, |value, own, later| {
                for bit in (later..later + own).rev() {
                    if let Some(octet) = payload.get_mut(at / 8) {
                        *octet |= (*value >> bit & 1) << (7 - at % 8);
                    }
                    at += 1;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_but_the_last_bit_of_a_payload_is_used() {
        for (length, expected) in [(Length::Millis20, 303), (Length::Millis30, 399)] {
            let mut bits = 0;
            for part in 0..3 {
                Parameters::default().visit(length, part, |_, own, _| bits += u32::from(own));
            }
            assert_eq!(bits, expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written(payload in proptest::collection::vec(any::<u8>(), 50)) {
            for length in [Length::Millis20, Length::Millis30] {
                let mut own = payload[..length.bytes()].to_vec();
                own[length.bytes() - 1] &= 0xfe;
                let Some(mut parameters) = Parameters::read(&own, length) else {
                    continue;
                };
                let mut again = vec![0; length.bytes()];
                parameters.write(length, &mut again);
                prop_assert_eq!(own, again);
            }
        }
    }
}
