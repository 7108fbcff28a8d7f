//! One write at a time per thing, and back-off after failures. Pure: the clock is passed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// First wait after a failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A short form of what is wanted; a new one is tried at once, however often the old one failed.
pub type Fingerprint = u64;

#[derive(Debug)]
struct Slot {
    wanted: Fingerprint,
    busy: bool,
    failures: u32,
    not_before: Option<Instant>,
}

/// Which writes are under way and which have to wait.
#[derive(Debug)]
pub struct Slots<K> {
    keys: BTreeMap<K, Slot>,
    busy: usize,
    limit: usize,
}

impl<K: Ord + Clone> Slots<K> {
    /// At most `limit` writes at once.
    pub fn new(limit: usize) -> Self {
        Self {
            keys: BTreeMap::new(),
            busy: 0,
            limit,
        }
    }

    /// Whether a write of `key` is under way.
    pub fn is_busy(&self, key: &K) -> bool {
        self.keys.get(key).is_some_and(|slot| slot.busy)
    }

    /// Whether another write may start at all. If not, one that ends makes room.
    pub fn has_room(&self) -> bool {
        self.busy < self.limit
    }

    /// Takes the slot of `key` if nothing stands against writing `wanted` now.
    pub fn start(&mut self, key: &K, wanted: Fingerprint, now: Instant) -> bool {
        if !self.has_room() {
            return false;
        }
        let slot = self.keys.entry(key.clone()).or_insert(Slot {
            wanted,
            busy: false,
            failures: 0,
            not_before: None,
        });
        if slot.busy {
            return false;
        }
        if slot.wanted != wanted {
            *slot = Slot {
                wanted,
                busy: false,
                failures: 0,
                not_before: None,
            };
        }
        if slot.not_before.is_some_and(|time| now < time) {
            return false;
        }
        slot.busy = true;
        slot.not_before = None;
        self.busy += 1;
        true
    }

    /// The write of `key` ended well.
    pub fn succeeded(&mut self, key: &K) {
        if self.keys.remove(key).is_some_and(|slot| slot.busy) {
            self.busy -= 1;
        }
    }

    /// The write of `key` failed: it waits.
    pub fn failed(&mut self, key: &K, now: Instant) {
        if let Some(slot) = self.keys.get_mut(key) {
            if slot.busy {
                self.busy -= 1;
            }
            slot.busy = false;
            slot.failures = slot.failures.saturating_add(1);
            slot.not_before = Some(now + wait(slot.failures));
        }
    }

    /// When the next failed write may be tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        self.keys.values().filter_map(|slot| slot.not_before).min()
    }

    /// Forgets failures of what is no longer wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K) -> bool) {
        self.keys.retain(|key, slot| slot.busy || wanted(key));
    }
}

fn wait(failures: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_at_a_time_for_each_key() {
        let (mut slots, now) = (Slots::new(10), Instant::now());
        assert!(slots.start(&"a", 1, now));
        assert!(
            !slots.start(&"a", 2, now),
            "busy, even if something else is wanted by now"
        );
        assert!(slots.start(&"b", 1, now));
        slots.succeeded(&"a");
        assert!(slots.start(&"a", 2, now));
    }

    #[test]
    fn waits_longer_after_each_failure_and_starts_afresh_with_a_new_wish() {
        let (mut slots, mut now) = (Slots::new(10), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(slots.start(&"a", 1, now));
            slots.failed(&"a", now);
            assert!(!slots.start(&"a", 1, now));
            let retry = slots.next_retry().unwrap();
            waits.push((retry - now).as_millis());
            now = retry;
        }
        assert_eq!(waits[..4], [250, 500, 1000, 2000]);
        assert_eq!(waits[11], 60_000);
        slots.start(&"a", 1, now);
        slots.failed(&"a", now);
        assert!(slots.start(&"a", 2, now));
    }

    #[test]
    fn bounds_how_many_writes_are_under_way() {
        let (mut slots, now) = (Slots::new(2), Instant::now());
        assert!(slots.start(&1, 1, now) && slots.start(&2, 1, now));
        assert!(!slots.start(&3, 1, now));
        slots.failed(&1, now);
        assert!(slots.start(&3, 1, now));
        slots.succeeded(&2);
        slots.succeeded(&3);
        assert!(slots.has_room());
        assert_eq!(slots.busy, 0);
    }
}
