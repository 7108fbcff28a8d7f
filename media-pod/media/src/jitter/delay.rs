//! How late packets come, and how long they must therefore be held back.
//!
//! A packet's transit is its arrival minus the timestamp of its end, by two clocks that have nothing to do with each other. Its delay is how much its
//! transit exceeds the shortest of the last seconds. A histogram of these delays forgets slowly; the target is where longer waiting would
//! cost more than the packets that it saves are worth.
//! All times are in microseconds.

/// Width and number of the histogram's bins: up to 256 ms.
const BIN: i64 = 2000;
const BINS: usize = 128;
/// What it is worth not to lose packets: 60 ms of delay for each in a hundred. Less, and the delay is too short for networks that are seldom
/// but much later than usual; more, and it is long because of stalls that it does not cover after all (`docs/jitter.md` has the trials).
const LATE_COST: f32 = 6000.0;
/// By this each packet counts more than the one before: half of what is known is forgotten after some 350 packets, 7 s.
const GROWTH: f32 = 1.002;
/// When weights are scaled down again.
const HEAVY: f32 = 1e6;
/// What is assumed of a network that nothing is known of, and how much of a packet that counts.
const FIRST_GUESS: i64 = 20_000;
const FIRST_WEIGHT: f32 = 0.1;
/// Packets between two looks at the histogram, if none is later than the target.
const REVIEW: u32 = 8;
/// The shortest transit is that of 8 parts of 1 s, so that it follows clocks that drift.
const PARTS: i64 = 8;
const PART: i64 = 1_000_000;
/// What is later than this no buffer waits for: the sender stood still, or the network did.
const HOPELESS: i64 = 400_000;
/// A smaller step of the shortest transit is the clocks' doing, and delays are what they were.
const DRIFT: i64 = 1000;
/// A packet that comes so soon after the one before, and less late, was held up with it: that is one event.
const BURST: i64 = 3000;

/// See the module.
#[derive(Debug)]
pub struct DelayModel {
    bins: [f32; BINS],
    total: f32,
    weight: f32,
    unreviewed: u32,
    spread: i64,
    shortest: [i64; PARTS as usize],
    part: i64,
    base: i64,
    /// The transit of the first bin's lower edge.
    origin: i64,
    /// Arrival and transit of the last packet.
    last: (i64, i64),
}

impl DelayModel {
    pub fn new() -> Self {
        let mut model = Self {
            bins: [0.0; BINS],
            total: 0.0,
            weight: FIRST_WEIGHT,
            unreviewed: 0,
            spread: 0,
            shortest: [i64::MAX; PARTS as usize],
            part: 0,
            base: 0,
            origin: 0,
            last: (i64::MIN / 2, 0),
        };
        model.count(FIRST_GUESS);
        model.weight = 1.0;
        model.review();
        model
    }

    /// Another stream begins: its timestamps say something else, the network is the same.
    pub fn restart(&mut self, transit: i64, now: i64) {
        self.shortest = [i64::MAX; PARTS as usize];
        self.part = now.div_euclid(PART);
        self.base = transit;
        self.origin = transit;
        self.record(transit, now);
    }

    /// Takes the transit of one packet.
    pub fn record(&mut self, transit: i64, now: i64) {
        let part = now.div_euclid(PART);
        let passed = (part - self.part).clamp(0, PARTS);
        for old in 0..passed {
            self.shortest[(part - old).rem_euclid(PARTS) as usize] = i64::MAX;
        }
        self.part = self.part.max(part);
        let slot = &mut self.shortest[self.part.rem_euclid(PARTS) as usize];
        let shorter = transit < *slot;
        *slot = transit.min(*slot);
        if shorter || passed > 0 {
            let before = self.base;
            self.base = self.shortest.iter().copied().min().unwrap_or(transit);
            if (self.base - before).abs() < DRIFT {
                self.origin += self.base - before;
            }
            self.move_origin();
        }
        let (last, before) = std::mem::replace(&mut self.last, (now, transit));
        let late = transit - self.base;
        if (now - last < BURST && transit < before) || late > HOPELESS {
            return;
        }
        self.count(transit - self.origin);
        self.unreviewed += 1;
        if late > self.spread || self.unreviewed >= REVIEW {
            self.review();
        }
    }

    /// What the histogram says is still true when the base is another: the bins move.
    fn move_origin(&mut self) {
        let bins = (self.base - self.origin).div_euclid(BIN);
        let moved = bins.unsigned_abs().min(BINS as u64) as usize;
        if bins > 0 {
            // Late by less than nothing is not late.
            let early: f32 = self.bins[..moved].iter().sum();
            self.bins.copy_within(moved.., 0);
            self.bins[BINS - moved..].fill(0.0);
            self.bins[0] += early;
        } else if bins < 0 {
            let most: f32 = self.bins[BINS - moved..].iter().sum();
            self.bins.copy_within(..BINS - moved, moved);
            self.bins[..moved].fill(0.0);
            self.bins[BINS - 1] += most;
        }
        self.origin += bins * BIN;
        self.unreviewed += if bins == 0 { 0 } else { REVIEW };
    }

    fn count(&mut self, delay: i64) {
        let bin = ((delay / BIN).max(0) as usize).min(BINS - 1);
        self.bins[bin] += self.weight;
        self.total += self.weight;
        self.weight *= GROWTH;
        if self.weight > HEAVY {
            for bin in &mut self.bins {
                *bin /= HEAVY;
            }
            self.total /= HEAVY;
            self.weight /= HEAVY;
        }
    }

    fn review(&mut self) {
        self.unreviewed = 0;
        // Waiting costs time, not waiting costs packets.
        let mut late = 0.0;
        let mut best = (f32::MAX, 0);
        for (bin, weight) in self.bins.iter().enumerate().rev() {
            let cost = (bin + 1) as f32 * BIN as f32 / 1000.0 + LATE_COST * late / self.total;
            if cost < best.0 {
                best = (cost, bin.cast_signed() as i64);
            }
            late += weight;
        }
        self.spread = (best.1 + 1) * BIN + self.origin - self.base;
    }

    /// The shortest transit of the last seconds.
    pub fn base(&self) -> i64 {
        self.base
    }

    /// The delay that nearly all packets keep to.
    pub fn spread(&self) -> i64 {
        self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(model: &mut DelayModel, packets: std::ops::Range<i64>, delay: impl Fn(i64) -> i64) {
        for number in packets {
            let delay = delay(number);
            model.record(7_000_000 + delay, number * 20_000 + delay);
        }
    }

    #[test]
    fn a_clean_network_needs_no_delay_after_a_second() {
        let mut model = DelayModel::new();
        assert_eq!(model.spread(), FIRST_GUESS + BIN);
        run(&mut model, 0..50, |_| 0);
        assert_eq!(model.spread(), BIN);
    }

    #[test]
    fn the_target_rises_within_a_second_and_falls_within_half_a_minute() {
        let mut model = DelayModel::new();
        run(&mut model, 0..3000, |_| 0);
        run(&mut model, 3000..3050, |number| number % 4 * 20_000);
        assert!(model.spread() >= 40_000, "{}", model.spread());
        run(&mut model, 3050..3250, |_| 0);
        assert!(model.spread() >= 40_000, "{}", model.spread());
        run(&mut model, 3250..4600, |_| 0);
        assert_eq!(model.spread(), BIN);
    }

    #[test]
    fn a_stall_is_one_event() {
        let mut model = DelayModel::new();
        run(&mut model, 0..1000, |_| 0);
        run(&mut model, 1000..1100, |number| (1100 - number) * 20_000);
        run(&mut model, 1100..1110, |_| 0);
        assert_eq!(model.spread(), BIN);
    }

    #[test]
    fn rare_stragglers_are_not_waited_for() {
        let mut model = DelayModel::new();
        run(&mut model, 0..3000, |number| {
            i64::from(number % 100 == 0) * 150_000
        });
        assert_eq!(model.spread(), BIN);
    }

    #[test]
    fn a_longer_way_is_not_jitter() {
        let mut model = DelayModel::new();
        run(&mut model, 0..1000, |_| 0);
        run(&mut model, 1000..1100, |_| 150_000);
        assert!(model.spread() > 150_000, "{}", model.spread());
        run(&mut model, 1100..1500, |_| 150_000);
        assert!(model.spread() <= BIN, "{}", model.spread());
    }

    #[test]
    fn the_base_follows_a_slow_clock_and_a_fast_one() {
        for step in [-8, 8] {
            let mut model = DelayModel::new();
            for number in 0..50_000 {
                model.record(number * step, number * 20_000);
                let off = model.base() - number * step;
                assert!((-3500..=0).contains(&off), "{off}");
            }
            assert!(model.spread() <= 3 * BIN, "{}", model.spread());
        }
    }
}
