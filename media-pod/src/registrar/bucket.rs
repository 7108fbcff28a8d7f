//! A token bucket: so many per second, and so many at once after a pause.

use std::time::{Duration, Instant};

/// One bucket. Rate and size are given at each use, so that an edit of them takes effect at once.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A bucket of this size, full.
    pub fn full(size: u32, now: Instant) -> Self {
        Self {
            tokens: f64::from(size),
            at: now,
        }
    }

    /// Whether a bucket of one second's tokens is surely full again.
    pub fn is_full(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= Duration::from_secs(1)
    }

    /// Takes a token; `false`: there is none.
    pub fn take(&mut self, per_second: u32, size: u32, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * f64::from(per_second)).min(f64::from(size));
        // A hair less than one is one: rounding is no reason to refuse.
        let there = self.tokens >= 1.0 - 1e-3;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// When there is a token, if none is taken before.
    pub fn ready_at(&self, per_second: u32) -> Instant {
        let missing = (1.0 - 5e-4 - self.tokens).max(0.0);
        self.at + Duration::from_secs_f64(missing / f64::from(per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_size_at_once_and_its_rate_from_then_on() {
        let start = Instant::now();
        let mut bucket = Bucket::full(20, start);
        assert_eq!((0..100).filter(|_| bucket.take(10, 20, start)).count(), 20);
        let within_ten_seconds = (0..10_000)
            .filter(|turn| bucket.take(10, 20, start + Duration::from_millis(*turn)))
            .count();
        assert!(
            (98..=101).contains(&within_ten_seconds),
            "{within_ten_seconds}"
        );
    }

    #[test]
    fn tells_when_there_is_a_token() {
        let start = Instant::now();
        let mut bucket = Bucket::full(1, start);
        assert!(bucket.ready_at(500) <= start);
        assert!(bucket.take(500, 1, start));
        for _ in 0..1_000 {
            let at = bucket.ready_at(500);
            let early = at.checked_sub(Duration::from_micros(10)).unwrap();
            assert!(!bucket.take(500, 1, early));
            assert!(bucket.take(500, 1, at));
        }
        let took = bucket.at - start;
        assert!((1.99..2.01).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let (early, start) = (Instant::now(), Instant::now() + Duration::from_secs(10));
        let mut bucket = Bucket::full(1, start);
        assert!(bucket.take(1000, 1, start));
        assert!(!bucket.take(1000, 1, early));
        assert!(!bucket.take(1000, 1, start));
    }
}
