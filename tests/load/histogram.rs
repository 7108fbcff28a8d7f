//! Times, counted in classes of 1 % so that a million of them need no room.

/// The width of a class: each begins at so many times the one before.
const STEP: f64 = 1.01;

/// Microseconds that differ by less than 1 % are the same here.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    classes: Vec<u32>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Takes a time in microseconds.
    pub fn add(&mut self, micros: u64) {
        let class = (micros.max(1) as f64).log(STEP) as usize;
        if self.classes.len() <= class {
            self.classes.resize(class + 1, 0);
        }
        self.classes[class] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest, in milliseconds.
    pub fn max_millis(&self) -> f64 {
        self.max as f64 / 1000.0
    }

    /// The time that this share of all is not above, in milliseconds; `share` is from 0 to 1.
    pub fn millis(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (class, count) in self.classes.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted && seen > 0 {
                return (STEP.powf(class as f64 + 0.5) / 1000.0).min(self.max_millis());
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_shares_within_a_percent() {
        let mut times = Histogram::default();
        (1..=10_000).for_each(|micros| times.add(micros));
        assert!(
            (times.millis(0.5) - 5.0).abs() < 0.06,
            "{}",
            times.millis(0.5)
        );
        assert!(
            (times.millis(0.99) - 9.9).abs() < 0.11,
            "{}",
            times.millis(0.99)
        );
        assert!((times.max_millis() - 10.0).abs() < 1e-9);
        assert!(Histogram::default().millis(0.5) < 1e-9);
    }
}
