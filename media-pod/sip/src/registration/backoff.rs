//! When to try again after a failure.

use std::time::{Duration, Instant};

use rand::Rng;

/// The longest pause while the failure is young.
const YOUNG_CAP: Duration = Duration::from_secs(30);
/// How long a failure is young.
const YOUNG: Duration = Duration::from_secs(600);
/// The longest pause after that, and the only one after refused credentials.
pub(super) const SLOW: Duration = Duration::from_secs(300);

/// Failures in a row.
#[derive(Default)]
pub(super) struct Backoff {
    count: u32,
    since: Option<Instant>,
}

impl Backoff {
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Notes a failure: the pause until the next try, doubling from one second, with up to a quarter taken off so that
    /// many of us don't come back at the same moment.
    pub fn failed(&mut self, now: Instant, rng: &mut impl Rng) -> Duration {
        let since = *self.since.get_or_insert(now);
        let cap = if now.saturating_duration_since(since) < YOUNG {
            YOUNG_CAP
        } else {
            SLOW
        };
        let pause = Duration::from_secs(1 << self.count.min(9)).min(cap);
        self.count = self.count.saturating_add(1);
        pause.mul_f64(rng.random_range(0.75..=1.0))
    }
}

/// When to refresh a binding of that many seconds: at 80 to 90 % of it, a new one at 45 to 90 %, so that those that were made together
/// part at once; five seconds before its end at the latest, and not sooner than after five seconds.
pub(super) fn refresh_after(seconds: u32, is_first: bool, rng: &mut impl Rng) -> Duration {
    let whole = Duration::from_secs(u64::from(seconds));
    let margin = Duration::from_secs(5);
    let earliest = if is_first { 0.45 } else { 0.8 };
    whole
        .mul_f64(rng.random_range(earliest..=0.9))
        .min(whole.saturating_sub(margin))
        .max(margin)
}
