//! Bits of a frame, the highest of each byte first, and the trees that read code words.

use super::tables::{CATEGORIES, POWER_CODES};

/// A tree that reads code words: for each node and bit the next node, or, not above zero, what was read, negated. It begins with node 0.
pub type Tree = [[i16; 2]];

/// There is nothing yet.
const NONE: i16 = i16::MIN;

/// The tree of these code words, which has so many nodes.
#[allow(clippy::cast_possible_wrap, reason = "no table has so many")]
const fn tree<const NODES: usize>(codes: &[u32]) -> [[i16; 2]; NODES] {
    let mut tree = [[NONE; 2]; NODES];
    let mut used = 1;
    let mut number = 0;
    while number < codes.len() {
        let mut node = 0;
        let mut rest = codes[number].ilog2();
        while rest > 0 {
            rest -= 1;
            let bit = (codes[number] >> rest & 1) as usize;
            let next = tree[node][bit];
            if rest == 0 {
                // Of several with one word, the first is meant.
                if next == NONE {
                    tree[node][bit] = -(number as i16);
                }
            } else if next == NONE {
                tree[node][bit] = used as i16;
                node = used;
                used += 1;
            } else {
                node = next as usize;
            }
        }
        number += 1;
    }
    assert!(used == NODES, "the tree has another size");
    tree
}

/// For the vectors of categories 0 to 6.
pub static VECTORS: [&Tree; 7] = [
    &const { tree::<180>(CATEGORIES[0].codes) },
    &const { tree::<93>(CATEGORIES[1].codes) },
    &const { tree::<47>(CATEGORIES[2].codes) },
    &const { tree::<519>(CATEGORIES[3].codes) },
    &const { tree::<208>(CATEGORIES[4].codes) },
    &const { tree::<191>(CATEGORIES[5].codes) },
    &const { tree::<31>(CATEGORIES[6].codes) },
];

/// For the power of each region but the first.
pub static POWERS: [[[i16; 2]; 23]; 13] = {
    let mut trees = [[[0; 2]; 23]; 13];
    let mut region = 0;
    while region < trees.len() {
        trees[region] = tree(&POWER_CODES[region]);
        region += 1;
    }
    trees
};

/// Reads a frame.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits that are left.
    pub fn left(&self) -> usize {
        8 * self.bytes.len() - self.at
    }

    /// The next bit.
    pub fn bit(&mut self) -> Option<usize> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    /// A number of so many bits.
    pub fn number(&mut self, bits: u32) -> Option<u16> {
        (0..bits).try_fold(0, |number, _| {
            Some(number << 1 | u16::from(self.bit()? == 1))
        })
    }

    /// What the next code word stands for.
    pub fn symbol(&mut self, tree: &Tree) -> Option<u16> {
        let mut node = 0;
        loop {
            let next = tree[node][self.bit()?];
            if next <= 0 {
                return Some(next.unsigned_abs());
            }
            node = next.unsigned_abs().into();
        }
    }
}

/// A code word: its bits, and how many they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Word {
    pub bits: u32,
    pub length: u32,
}

impl Word {
    /// One of the tables.
    pub fn of(code: u32) -> Self {
        let length = code.ilog2();
        Self {
            bits: code ^ 1 << length,
            length,
        }
    }

    /// With another bit behind it.
    pub fn push(&mut self, bit: bool) {
        self.bits = self.bits << 1 | u32::from(bit);
        self.length += 1;
    }
}

/// Writes a frame, which is all ones before.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Self {
        bytes.fill(0xff);
        Self { bytes, at: 0 }
    }

    /// Writes a word; what is beyond the end is left out.
    pub fn write(&mut self, word: Word) {
        for shift in (0..word.length).rev() {
            let Some(byte) = self.bytes.get_mut(self.at / 8) else {
                return;
            };
            if word.bits >> shift & 1 == 0 {
                *byte &= !(0x80 >> (self.at % 8));
            }
            self.at += 1;
        }
    }
}
