//! How often mere counters (`activeCalls`, `lastCallAt`) are written: a busy gateway must not be a busy API server.
//!
//! Pure: the clock is passed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Writes per second, all objects together.
pub const WRITES_PER_SECOND: u32 = 20;

/// A token bucket with a queue in which the oldest change is first.
#[derive(Debug)]
pub struct Budget<K> {
    waiting: BTreeMap<K, Instant>,
    tokens: f64,
    filled: Instant,
}

impl<K: Ord + Clone> Budget<K> {
    /// A full bucket.
    pub fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            tokens: f64::from(WRITES_PER_SECOND),
            filled: now,
        }
    }

    /// Takes the keys that now differ; gives those that may be written now, the longest waiting first.
    pub fn admit(&mut self, differing: Vec<K>, now: Instant) -> Vec<K> {
        let rate = f64::from(WRITES_PER_SECOND);
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(rate);
        self.filled = now;

        let mut waiting: BTreeMap<K, Instant> = differing
            .into_iter()
            .map(|key| (key.clone(), self.waiting.get(&key).copied().unwrap_or(now)))
            .collect();
        let mut order: Vec<(Instant, K)> = waiting
            .iter()
            .map(|(key, since)| (*since, key.clone()))
            .collect();
        order.sort();
        let mut admitted = Vec::new();
        for (_, key) in order {
            if self.tokens < 1.0 {
                break;
            }
            self.tokens -= 1.0;
            waiting.remove(&key);
            admitted.push(key);
        }
        self.waiting = waiting;
        admitted
    }

    /// When the next may be written, if one waits.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        let missing = (1.0 - self.tokens).max(0.0) / f64::from(WRITES_PER_SECOND);
        // A little later than exact, so that rounding never makes it a little too early.
        (!self.waiting.is_empty())
            .then(|| now + Duration::from_secs_f64(missing) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_at_most_twenty_a_second_and_loses_none() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut left: Vec<u32> = (0..100).collect();
        let mut now = start;
        while !left.is_empty() {
            let admitted = budget.admit(left.clone(), now);
            left.retain(|key| !admitted.contains(key));
            now = budget.next(now).unwrap_or(now);
        }
        let took = now - start;
        assert!(
            (Duration::from_millis(3900)..Duration::from_millis(4300)).contains(&took),
            "{took:?}"
        );
    }

    #[test]
    fn the_longest_waiting_goes_first() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(budget.admit((0..20).collect(), start).len(), 20);
        assert_eq!(budget.admit(vec![900], start), [0; 0]);
        let later = start + Duration::from_millis(50);
        assert_eq!(budget.admit(vec![1, 2, 900], later), [900]);
    }

    #[test]
    fn forgets_what_no_longer_differs() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        budget.admit((0..25).collect(), start);
        assert!(budget.next(start).is_some());
        budget.admit(vec![], start);
        assert_eq!(budget.next(start), None);
    }
}
