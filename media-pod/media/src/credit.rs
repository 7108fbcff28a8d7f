//! How many frames a stream may give that nobody paces: as many as time has passed for, and some ahead.

use std::time::{Duration, Instant};

use crate::FRAME_MILLIS;

const FRAME: Duration = Duration::from_millis(FRAME_MILLIS);
/// What may be given at once, after a stall of the network: a second.
const MOST: Duration = Duration::from_secs(1);
/// Clocks that are faster than ours by less than a part in so many are never held up.
const FASTER: u32 = 100;

/// See the module.
#[derive(Debug)]
pub struct Credit {
    left: Duration,
    at: Instant,
}

impl Credit {
    /// All of it.
    pub fn new(now: Instant) -> Self {
        Self {
            left: MOST,
            at: now,
        }
    }

    /// Whether one more frame may be given now; then it is.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).min(MOST);
        self.at = self.at.max(now);
        self.left = (self.left + passed + passed / FASTER).min(MOST);
        let left = self.left.checked_sub(FRAME);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_may_be_given_at_once_and_then_as_much_as_passes() {
        let start = Instant::now();
        let mut credit = Credit::new(start);
        let mut given = |millis: u64| {
            let now = start + Duration::from_millis(millis);
            std::iter::from_fn(|| credit.take(now).then_some(())).count()
        };
        assert_eq!(given(0), 50);
        assert_eq!(given(19), 0);
        assert_eq!(given(20), 1);
        // The clock is ours, and never goes back.
        assert_eq!(given(10), 0);
        assert_eq!((1..=50).map(|n| given(20 + 20 * n)).sum::<usize>(), 50);
        assert_eq!(given(100_000), 50);
    }

    #[test]
    fn a_sender_whose_clock_is_a_little_faster_is_never_held_up() {
        let start = Instant::now();
        let mut credit = Credit::new(start);
        for n in 0..500_000 {
            assert!(credit.take(start + Duration::from_micros(19_900) * n));
        }
    }
}
