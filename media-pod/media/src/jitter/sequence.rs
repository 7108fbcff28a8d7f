//! Which sequence numbers have been seen: a packet that comes twice is played once.

/// How far behind a number may be before the sender must have begun to count anew.
const MAX_BEHIND: u16 = 3000;

/// The last 64 numbers.
#[derive(Debug)]
pub struct Sequences {
    highest: u16,
    /// Bit n: `highest - n` was received.
    seen: u64,
}

impl Sequences {
    pub fn new(first: u16) -> Self {
        Self {
            highest: first,
            seen: 1,
        }
    }

    /// Takes a number; whether it had been seen before.
    pub fn is_duplicate(&mut self, sequence: u16) -> bool {
        let ahead = sequence.wrapping_sub(self.highest).cast_signed();
        if ahead > 0 {
            let shift = ahead.unsigned_abs().into();
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = sequence;
            return false;
        }
        let behind = ahead.unsigned_abs();
        if behind >= 64 {
            // Too old to know: a restarted counter, or so late that its timestamp tells.
            if behind > MAX_BEHIND {
                *self = Self::new(sequence);
            }
            return false;
        }
        let bit = 1 << behind;
        let known = self.seen & bit != 0;
        self.seen |= bit;
        known
    }
}
