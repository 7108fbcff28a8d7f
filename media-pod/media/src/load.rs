//! How busy a thread of the [plane](crate::plane)'s is. One that has no rest any more, or gets no processor when it wakes, leaves what comes in to wait in the sockets and sends late:
//! every call of its suffers, so no more are taken until that is over.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For so long it is summed up: rests are at most 20 ms apart, and a machine that stands still for a moment is not a thread that is busy.
const WINDOW: Duration = Duration::from_secs(1);
/// So many windows without rest are too many.
const MANY: u32 = 2;
/// From this share of a window on, in thousandths, there was no rest.
const FULL: u32 = 950;
/// A packet that was in its socket for so long has waited: the buffer for the network's jitter has no room for it any more.
const WAITED: Duration = Duration::from_millis(40);
/// So many packets tell something.
const TELLING: u32 = 20;
/// A window that ended longer ago says nothing: the thread has slept since.
const FRESH: Duration = Duration::from_millis(2_500);

/// What others see of it.
#[derive(Debug, Default)]
pub struct Load {
    epoch: OnceLock<Instant>,
    /// Thousandths of the last window.
    busy: AtomicU32,
    /// Windows without rest, or in which more packets waited than not, one after the other.
    full: AtomicU32,
    /// When the last window ended, in milliseconds since the epoch.
    ended: AtomicU64,
    /// When it woke, one more than the milliseconds since the epoch; 0 while it rests.
    awake: AtomicU64,
}

impl Load {
    fn millis(&self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_init(|| now);
        let since = now.saturating_duration_since(epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// The thread has something to do.
    pub fn wakes(&self, now: Instant) {
        let millis = self.millis(now).saturating_add(1);
        self.awake.store(millis, Ordering::Relaxed);
    }

    /// It has not come to rest for so long that no window has ended.
    fn is_stuck(&self, now: Instant) -> bool {
        let awake = self.awake.load(Ordering::Relaxed);
        awake != 0
            && Duration::from_millis(self.millis(now).saturating_sub(awake - 1)) >= MANY * WINDOW
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.epoch.get().is_some_and(|epoch| {
            let ended = *epoch + Duration::from_millis(self.ended.load(Ordering::Relaxed));
            now.saturating_duration_since(ended) < FRESH
        })
    }

    /// The share of its time that it was busy for in the last second, 0 to 1.
    pub fn share(&self, now: Instant) -> f64 {
        if self.is_stuck(now) {
            return 1.0;
        }
        if !self.is_fresh(now) {
            return 0.0;
        }
        f64::from(self.busy.load(Ordering::Relaxed)) / 1_000.0
    }

    /// Whether it has been too slow for two seconds.
    pub fn is_full(&self, now: Instant) -> bool {
        self.is_stuck(now) || (self.is_fresh(now) && self.full.load(Ordering::Relaxed) >= MANY)
    }
}

/// The thread's own account.
#[derive(Debug)]
pub struct Meter {
    begun: Instant,
    busy: Duration,
    heard: u32,
    waited: u32,
}

impl Meter {
    pub fn new(load: &Load, now: Instant) -> Self {
        load.epoch.get_or_init(|| now);
        Self {
            begun: now,
            busy: Duration::ZERO,
            heard: 0,
            waited: 0,
        }
    }

    /// It read so many packets, which have been there for so long.
    pub fn heard(&mut self, packets: usize, waited: Duration) {
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        self.heard = self.heard.saturating_add(packets);
        if waited >= WAITED {
            self.waited = self.waited.saturating_add(packets);
        }
    }

    /// It woke at one time, and rests again at the other.
    pub fn note(&mut self, load: &Load, woke: Instant, rests: Instant) {
        load.awake.store(0, Ordering::Relaxed);
        self.busy += rests.saturating_duration_since(woke);
        let window = rests.saturating_duration_since(self.begun);
        if window < WINDOW {
            return;
        }
        let share = self.busy.as_secs_f64() / window.as_secs_f64();
        let busy = (share.min(1.0) * 1_000.0) as u32;
        let full = load.full.load(Ordering::Relaxed);
        let late = self.heard >= TELLING && self.waited > self.heard / 2;
        let full = if busy >= FULL || late {
            full.saturating_add(1)
        } else {
            0
        };
        load.busy.store(busy, Ordering::Relaxed);
        load.full.store(full, Ordering::Relaxed);
        load.ended.store(load.millis(rests), Ordering::Relaxed);
        *self = Self::new(load, rests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// A thread that works so long of every 20 ms, for so many seconds.
    fn work(load: &Load, meter: &mut Meter, now: &mut Instant, millis: u32, seconds: u32) {
        for _ in 0..seconds * 50 {
            meter.note(load, *now, *now + millis * MILLI);
            *now += 20 * MILLI;
        }
    }

    #[test]
    fn a_thread_without_rest_is_full_until_it_has_some() {
        let load = Load::default();
        let mut now = Instant::now();
        let mut meter = Meter::new(&load, now);
        work(&load, &mut meter, &mut now, 15, 5);
        assert!(
            (0.74..0.77).contains(&load.share(now)),
            "{}",
            load.share(now)
        );
        assert!(!load.is_full(now));
        work(&load, &mut meter, &mut now, 20, 1);
        assert!(!load.is_full(now), "one second is not enough");
        work(&load, &mut meter, &mut now, 20, 2);
        assert!(load.is_full(now));
        work(&load, &mut meter, &mut now, 15, 2);
        assert!(!load.is_full(now));
    }

    #[test]
    fn a_thread_that_gets_to_its_packets_late_is_full_too() {
        let load = Load::default();
        let mut now = Instant::now();
        let mut meter = Meter::new(&load, now);
        for (waited, full) in [(50, true), (10, false), (50, true)] {
            for _ in 0..160 {
                meter.heard(4, waited * MILLI);
                meter.heard(3, Duration::ZERO);
                meter.note(&load, now, now + 5 * MILLI);
                now += 20 * MILLI;
            }
            assert_eq!(load.is_full(now), full);
        }
        // Too few to tell.
        for _ in 0..5 {
            meter.heard(3, 50 * MILLI);
            meter.note(&load, now, now + 5 * MILLI);
            now += 500 * MILLI;
        }
        assert!(!load.is_full(now));
    }

    #[test]
    fn a_stall_is_not_a_thread_without_rest() {
        let load = Load::default();
        let mut now = Instant::now();
        let mut meter = Meter::new(&load, now);
        work(&load, &mut meter, &mut now, 5, 3);
        meter.note(&load, now, now + 4_000 * MILLI);
        now += 4_000 * MILLI;
        assert!(load.share(now) > 0.8 && !load.is_full(now));
    }

    #[test]
    fn one_that_is_stuck_is_full_before_its_window_ends() {
        let load = Load::default();
        let mut now = Instant::now();
        let mut meter = Meter::new(&load, now);
        work(&load, &mut meter, &mut now, 5, 3);
        load.wakes(now);
        assert!(!load.is_full(now + 1_900 * MILLI));
        assert!(load.is_full(now + 10_000 * MILLI));
        assert!(load.share(now + 10_000 * MILLI) > 0.99);
        now += 10_000 * MILLI;
        meter.note(&load, now, now);
        assert!(!load.is_full(now));
    }

    #[test]
    fn one_that_sleeps_is_not_busy_whatever_it_was() {
        let load = Load::default();
        let mut now = Instant::now();
        let mut meter = Meter::new(&load, now);
        work(&load, &mut meter, &mut now, 20, 5);
        assert!(load.is_full(now));
        now += 3_000 * MILLI;
        assert!(!load.is_full(now) && load.share(now) == 0.0);
    }
}
