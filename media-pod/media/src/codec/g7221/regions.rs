//! How loud the regions of the spectrum are, and how finely each is coded, which both sides compute from that (G.722.1 sections 3.3, 3.4).

use super::REGIONS;
use super::huffman::{POWERS, Reader, Word, Writer};
use super::tables::{EXPECTED_BITS, POWER_CODES};

/// Power of each region: the mean square of its coefficients is 2 to the power of that, so one step is 3.01 dB.
pub type Powers = [i32; REGIONS];

/// What is added to the first one for sending.
const SENT_ABOVE: i32 = 7;
/// The least and the most of it as it is sent. 0 is kept for an escape that nobody has.
const FIRST: (i32, i32) = (1, 31);
/// The same of the others.
const OTHERS: (i32, i32) = (-8, 31);
/// The least and the most that a region can be louder than the one before.
const STEPS: (i32, i32) = (-12, 11);
/// Bits of the first one.
const FIRST_BITS: u32 = 5;

/// How often the categories can be changed from the finest choice to the coarsest, by one step of one region each time.
pub const CHANGES: usize = 15;
/// The category that is noise alone.
pub const NOISE_ONLY: u8 = 7;

/// The powers of regions with these mean squares, as they can be sent.
pub fn powers(mean_squares: &[f32; REGIONS]) -> Powers {
    let mut powers = mean_squares.map(|it| (it.max(1e-6).log2() + 0.5).floor() as i32);
    // Before a loud region there is none that is too low for the step.
    for region in (1..REGIONS).rev() {
        powers[region - 1] = powers[region - 1].max(powers[region] - STEPS.1);
    }
    for (region, power) in powers.iter_mut().enumerate() {
        let (least, most) = if region == 0 { FIRST } else { OTHERS };
        *power = (*power).clamp(least - SENT_ABOVE, most - SENT_ABOVE);
    }
    for region in 1..REGIONS {
        let before = powers[region - 1];
        powers[region] = powers[region].clamp(before + STEPS.0, before + STEPS.1);
    }
    powers
}

/// Writes them; gives the bits that they take.
pub fn write(powers: &Powers, writer: &mut Writer) -> u32 {
    let first = Word {
        bits: (powers[0] + SENT_ABOVE) as u32,
        length: FIRST_BITS,
    };
    writer.write(first);
    let steps = powers.windows(2).map(|pair| pair[1] - pair[0] - STEPS.0);
    let words = steps.zip(&POWER_CODES).map(|(step, codes)| {
        let word = Word::of(codes[step as usize]);
        writer.write(word);
        word.length
    });
    FIRST_BITS + words.sum::<u32>()
}

/// Reads them. None if they are none that are sent.
pub fn read(reader: &mut Reader) -> Option<Powers> {
    let mut powers = [0; REGIONS];
    powers[0] = i32::from(reader.number(FIRST_BITS)?) - SENT_ABOVE;
    for (region, tree) in POWERS.iter().enumerate() {
        powers[region + 1] = powers[region] + i32::from(reader.symbol(tree)?) + STEPS.0;
    }
    let known = OTHERS.0 - SENT_ABOVE..=OTHERS.1 - SENT_ABOVE;
    powers
        .iter()
        .all(|power| known.contains(power))
        .then_some(powers)
}

/// The choices of categories, sixteen of them.
#[derive(Debug)]
pub struct Choices {
    /// The categories of the finest choice.
    pub finest: [u8; REGIONS],
    /// The region that is coded more coarsely by one category in each choice after it.
    pub changes: [u8; CHANGES],
}

impl Choices {
    /// The choices for so many bits. Powers are some that are sent.
    pub fn new(bits: u16, powers: &Powers) -> Self {
        // More bits take more than is expected of them.
        let bits = i32::from(bits);
        let bits = if bits > 320 {
            320 + (bits - 320) * 5 / 8
        } else {
            bits
        };
        let offset = offset(bits, powers);
        let middle = powers.map(|power| category(offset, power));
        let (mut finest, mut coarsest) = (middle, middle);
        let mut most = expected(&middle);
        let mut least = most;
        // Finer choices fill it from behind, coarser ones from there on.
        let mut changes = [0; 2 * CHANGES];
        let (mut begin, mut end) = (CHANGES, CHANGES);
        // How much coarser a region is than its power asks for, but for its sign.
        let excess =
            |region: usize, category: u8| offset - powers[region] - 2 * i32::from(category);
        while end - begin < CHANGES {
            if most + least <= 2 * bits {
                let able = (0..REGIONS).filter(|region| finest[*region] > 0);
                let chosen = able.min_by_key(|region| excess(*region, finest[*region]));
                let Some(region) = chosen else { break };
                begin -= 1;
                changes[begin] = region as u8;
                most -= EXPECTED_BITS[usize::from(finest[region])];
                finest[region] -= 1;
                most += EXPECTED_BITS[usize::from(finest[region])];
            } else {
                let able = (0..REGIONS).rev();
                let able = able.filter(|region| coarsest[*region] < NOISE_ONLY);
                // Of equal ones the highest: the first that is found.
                let chosen = able.min_by_key(|region| -excess(*region, coarsest[*region]));
                let Some(region) = chosen else { break };
                changes[end] = region as u8;
                end += 1;
                least -= EXPECTED_BITS[usize::from(coarsest[region])];
                coarsest[region] += 1;
                least += EXPECTED_BITS[usize::from(coarsest[region])];
            }
        }
        let mut made = [0; CHANGES];
        made.copy_from_slice(&changes[begin..begin + CHANGES]);
        Self {
            finest,
            changes: made,
        }
    }

    /// The categories of a choice, from 0, the finest, to 15.
    pub fn at(&self, choice: usize) -> [u8; REGIONS] {
        let mut categories = self.finest;
        for region in self.changes.iter().take(choice) {
            let category = &mut categories[usize::from(*region)];
            *category = (*category + 1).min(NOISE_ONLY);
        }
        categories
    }
}

/// The category of a region of that power.
fn category(offset: i32, power: i32) -> u8 {
    ((offset - power) >> 1).clamp(0, i32::from(NOISE_ONLY)) as u8
}

/// The bits that regions of these categories are expected to take.
fn expected(categories: &[u8; REGIONS]) -> i32 {
    let bits = categories.iter().map(|it| EXPECTED_BITS[usize::from(*it)]);
    bits.sum()
}

/// The offset with which almost all bits are taken: found by halves.
fn offset(bits: i32, powers: &Powers) -> i32 {
    let mut offset = -32;
    for shift in (0..=5).rev() {
        let tried = offset + (1 << shift);
        if expected(&powers.map(|power| category(tried, power))) >= bits - 32 {
            offset = tried;
        }
    }
    offset
}
