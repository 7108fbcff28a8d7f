//! Due times of many calls, a millisecond fine: putting one in and taking it out cost the same however many there are, and memory is
//! asked for only while there are more of them than ever before.

use std::time::{Duration, Instant};

/// Slots of one turn, a millisecond each. What is due later is looked at once a turn.
const SLOTS: u64 = 256;

/// Entries of one slot for which there is room from the beginning.
const AT_FIRST: usize = 8;

/// Which slot an entry is in; what is left behind in another one is old.
pub type Slot = u64;

/// See the module.
#[derive(Debug)]
pub struct Wheel {
    epoch: Instant,
    slots: Vec<Vec<usize>>,
    /// The next slot to be looked at.
    next: Slot,
    entries: usize,
}

impl Wheel {
    /// A wheel without entries.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            slots: (0..SLOTS).map(|_| Vec::with_capacity(AT_FIRST)).collect(),
            next: 0,
            entries: 0,
        }
    }

    /// The slot for what is due then: the first one that begins no earlier.
    pub fn slot_of(&self, at: Instant) -> Slot {
        let since = at.saturating_duration_since(self.epoch);
        let slot = since.as_nanos().div_ceil(1_000_000) as u64;
        slot.clamp(self.next, self.next + SLOTS - 1)
    }

    /// Puts an entry into a slot of [`Self::slot_of`].
    pub fn insert(&mut self, slot: Slot, entry: usize) {
        self.slots[(slot % SLOTS) as usize].push(entry);
        self.entries += 1;
    }

    /// Takes out an entry whose slot has begun.
    pub fn take(&mut self, now: Instant) -> Option<(Slot, usize)> {
        let current = now.saturating_duration_since(self.epoch).as_millis() as u64;
        while self.next <= current {
            if self.entries == 0 {
                self.next = current + 1;
                return None;
            }
            let slot = &mut self.slots[(self.next % SLOTS) as usize];
            if let Some(entry) = slot.pop() {
                self.entries -= 1;
                return Some((self.next, entry));
            }
            self.next += 1;
        }
        None
    }

    /// How long until the next slot with an entry begins.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.entries == 0 {
            return None;
        }
        let filled = (self.next..self.next + SLOTS)
            .find(|slot| !self.slots[(slot % SLOTS) as usize].is_empty())?;
        let at = self.epoch + Duration::from_millis(filled);
        Some(at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn entries_come_out_when_they_are_due_and_not_before() {
        let begin = Instant::now();
        let mut wheel = Wheel::new(begin);
        assert_eq!(wheel.timeout(begin), None);
        for (entry, millis) in [(1, 20), (2, 5), (3, 20)] {
            let slot = wheel.slot_of(begin + millis * MILLI);
            wheel.insert(slot, entry);
        }
        assert_eq!(wheel.timeout(begin), Some(5 * MILLI));
        assert_eq!(wheel.take(begin + 4 * MILLI), None);
        assert_eq!(wheel.take(begin + 5 * MILLI), Some((5, 2)));
        assert_eq!(wheel.take(begin + 5 * MILLI), None);
        assert_eq!(wheel.timeout(begin + 6 * MILLI), Some(14 * MILLI));
        let late = begin + 100 * MILLI;
        let mut rest: Vec<_> = std::iter::from_fn(|| wheel.take(late)).collect();
        rest.sort_unstable();
        assert_eq!(rest, [(20, 1), (20, 3)]);
        assert_eq!(wheel.timeout(late), None);
    }

    #[test]
    fn between_two_milliseconds_the_later_one_counts() {
        let begin = Instant::now();
        let wheel = Wheel::new(begin);
        assert_eq!(wheel.slot_of(begin + Duration::from_micros(4_001)), 5);
        assert_eq!(wheel.slot_of(begin), 0);
    }

    #[test]
    fn what_is_far_away_comes_out_once_a_turn_and_what_is_past_at_once() {
        let begin = Instant::now();
        let mut wheel = Wheel::new(begin);
        let far = begin + Duration::from_secs(5);
        let slot = wheel.slot_of(far);
        assert_eq!(slot, SLOTS - 1);
        wheel.insert(slot, 7);
        let now = begin + Duration::from_millis(SLOTS);
        assert_eq!(wheel.take(now), Some((SLOTS - 1, 7)));
        assert_eq!(wheel.take(now), None);
        let slot = wheel.slot_of(begin);
        wheel.insert(slot, 8);
        assert_eq!(
            wheel.timeout(now),
            Some(MILLI),
            "the slot of now has been looked at"
        );
        assert_eq!(wheel.take(now + MILLI), Some((slot, 8)));
    }

    #[test]
    fn an_empty_wheel_costs_nothing_after_a_long_sleep() {
        let begin = Instant::now();
        let mut wheel = Wheel::new(begin);
        let late = begin + Duration::from_secs(1_000_000);
        assert_eq!(wheel.take(late), None);
        let slot = wheel.slot_of(late);
        wheel.insert(slot, 1);
        assert_eq!(wheel.take(late + MILLI), Some((slot, 1)));
    }
}
