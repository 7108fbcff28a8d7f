//! How good a call sounds, estimated from its counters: the E-model of ITU-T G.107, reduced to loss and delay.
//!
//! For codecs of the telephone band with concealment. Wide-band codecs are counted by the same scale, where they get no more than G.711:
//! that of G.107.1 is another one.

use std::time::Duration;

/// Rating of a call without loss and delay with the default values of G.107 (table 3).
const BEST: f64 = 93.2;
/// Robustness of G.711 with concealment against random loss, in percent (G.113 appendix I, table I.4).
const ROBUSTNESS: f64 = 25.1;
/// Delay from which on people notice that they talk at the same time, in milliseconds.
const NOTICED: f64 = 177.3;

/// The mean opinion score, 1 to 4.4, of sound of which that share was `lost` (0 to 1) and that comes so much later than it was said.
pub fn mos(lost: f64, delay: Duration) -> f64 {
    let millis = delay.as_secs_f64() * 1000.0;
    // R. Cole and J. Rosenbluth, "Voice over IP performance monitoring" (2001): the delay's part of G.107 by two straight lines.
    let delayed = 0.024 * millis + 0.11 * (millis - NOTICED).max(0.0);
    let percent = lost.clamp(0.0, 1.0) * 100.0;
    // G.107 section 3.5, with an equipment impairment of nought.
    let damaged = 95.0 * percent / (percent + ROBUSTNESS);
    score(BEST - delayed - damaged)
}

/// G.107 annex B.
fn score(rating: f64) -> f64 {
    if rating <= 0.0 {
        return 1.0;
    }
    let rating = rating.min(100.0);
    (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_are_those_of_the_table() {
        // G.107 table B.1.
        for (rating, expected) in [
            (90.0, 4.34),
            (80.0, 4.03),
            (70.0, 3.60),
            (60.0, 3.10),
            (50.0, 2.58),
        ] {
            assert!((score(rating) - expected).abs() < 0.01, "{rating}");
        }
        assert!((score(-5.0) - 1.0).abs() < 1e-9);
        assert!((score(120.0) - 4.5).abs() < 1e-9);
    }

    #[test]
    fn loss_and_delay_make_it_worse() {
        let millis = Duration::from_millis;
        assert!((mos(0.0, millis(20)) - 4.4).abs() < 0.02);
        let mut before = 5.0;
        for lost in [0.0, 0.01, 0.03, 0.1, 0.3, 1.0] {
            let now = mos(lost, millis(50));
            assert!(now < before, "{lost}: {now}");
            before = now;
        }
        assert!(mos(0.0, millis(400)) < mos(0.0, millis(150)) - 0.5);
        assert!((1.0..1.1).contains(&mos(1.0, millis(2000))));
    }
}
