//! Loss and jitter of a received stream, as RFC 3550 appendix A.3 and A.8 count them.
//!
//! Numbers only: what is played is decided by `jitter`.

use std::time::Instant;

use crate::rtcp::Block;

/// Sequence numbers that may be missing before a jump counts as a restart (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// How far behind a packet may be and still count as misordered.
const MAX_MISORDER: u16 = 100;

/// Counts of one received stream, across changes of its SSRC.
#[derive(Debug)]
pub struct Reception {
    epoch: Instant,
    run: Option<Run>,
    /// Lost packets of runs that ended.
    lost_before: i64,
    received: u64,
    jitter: f64,
    transit: Option<i64>,
}

#[derive(Debug)]
struct Run {
    ssrc: u32,
    base: u16,
    highest: u16,
    cycles: u64,
    received: u64,
    /// What the last report told: packets expected, and received.
    told: (u64, u64),
    /// Where a restarted counter would continue.
    restart_at: Option<u16>,
}

impl Run {
    fn new(ssrc: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            base: sequence,
            highest: sequence,
            cycles: 0,
            received: 1,
            told: (0, 0),
            restart_at: None,
        }
    }

    fn expected(&self) -> u64 {
        (self.cycles << 16) + u64::from(self.highest) + 1 - u64::from(self.base)
    }

    fn lost(&self) -> i64 {
        self.expected().cast_signed() - self.received.cast_signed()
    }
}

impl Reception {
    /// Counts from zero; `now` is only the origin of arrival times.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            run: None,
            lost_before: 0,
            received: 0,
            jitter: 0.0,
            transit: None,
        }
    }

    /// Counts one packet. `timestamp` is given for packets whose timestamp is their sampling time (audio, not telephone
    /// events).
    pub fn record(&mut self, ssrc: u32, sequence: u16, timestamp: Option<u32>, now: Instant) {
        self.received += 1;
        match self.run.as_mut().filter(|run| run.ssrc == ssrc) {
            None => self.restart(ssrc, sequence),
            Some(run) => {
                let ahead = sequence.wrapping_sub(run.highest);
                if ahead < MAX_DROPOUT {
                    if sequence < run.highest {
                        run.cycles += 1;
                    }
                    run.highest = sequence;
                    run.received += 1;
                    run.restart_at = None;
                } else if ahead <= u16::MAX - MAX_MISORDER {
                    if run.restart_at == Some(sequence) {
                        self.restart(ssrc, sequence);
                    } else {
                        run.restart_at = Some(sequence.wrapping_add(1));
                    }
                } else {
                    run.received += 1;
                }
            }
        }
        if let Some(timestamp) = timestamp {
            self.measure_jitter(timestamp, now);
        }
    }

    fn restart(&mut self, ssrc: u32, sequence: u16) {
        if let Some(old) = self.run.replace(Run::new(ssrc, sequence)) {
            self.lost_before += old.lost().max(0);
        }
        self.transit = None;
    }

    fn measure_jitter(&mut self, timestamp: u32, now: Instant) {
        let micros = now.saturating_duration_since(self.epoch).as_micros() as u64;
        let arrival = (micros / 125) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp).cast_signed());
        if let Some(previous) = self.transit.replace(transit) {
            let difference = (transit - previous).unsigned_abs();
            // A jump of the timestamp is not jitter.
            if difference < 8000 {
                self.jitter += (difference as f64 - self.jitter) / 16.0;
            }
        }
    }

    /// Packets counted.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that never came; duplicates can hide losses, as in the RFC, but never make the number negative.
    pub fn lost(&self) -> u64 {
        let now = self.run.as_ref().map_or(0, Run::lost);
        (self.lost_before + now).max(0).cast_unsigned()
    }

    /// What to report to the sender (RFC 3550 A.3); its share of lost packets is that since the last report.
    pub fn report(&mut self) -> Option<Block> {
        let jitter = self.jitter as u32;
        let run = self.run.as_mut()?;
        let (expected, received) = (run.expected(), run.received);
        let (asked, got) = (
            expected.saturating_sub(run.told.0),
            received.saturating_sub(run.told.1),
        );
        run.told = (expected, received);
        let lost = asked.saturating_sub(got);
        Some(Block {
            ssrc: run.ssrc,
            fraction_lost: (lost * 256).checked_div(asked).unwrap_or(0).min(255) as u8,
            lost: i32::try_from(run.lost()).unwrap_or(i32::MAX),
            highest: ((run.cycles << 16) + u64::from(run.highest)) as u32,
            jitter,
            ..Block::default()
        })
    }

    /// Interarrival jitter in milliseconds, for an 8 kHz clock.
    pub fn jitter_millis(&self) -> f64 {
        self.jitter / 8.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run(numbers: impl IntoIterator<Item = u16>) -> Reception {
        let now = Instant::now();
        let mut reception = Reception::new(now);
        for number in numbers {
            reception.record(1, number, None, now);
        }
        reception
    }

    #[test]
    fn counts_holes_over_a_wrap() {
        let numbers = (0..300u32)
            .filter(|n| n % 10 != 3)
            .map(|n| 65_400u16.wrapping_add(n as u16));
        assert_eq!(run(numbers).lost(), 30);
    }

    #[test]
    fn reordering_is_not_loss() {
        assert_eq!(run([1, 3, 2, 4, 6, 5]).lost(), 0);
    }

    #[test]
    fn a_restarted_counter_is_not_loss() {
        assert_eq!(run([10, 11, 13, 30_000, 30_001, 30_002, 30_003]).lost(), 1);
    }

    #[test]
    fn a_new_ssrc_keeps_the_old_losses() {
        let now = Instant::now();
        let mut reception = run([1, 2, 4]);
        reception.record(2, 50_000, None, now);
        reception.record(2, 50_002, None, now);
        assert_eq!((reception.lost(), reception.received()), (2, 5));
    }

    #[test]
    fn jitter_is_zero_for_an_even_stream_and_follows_an_uneven_one() {
        let start = Instant::now();
        let mut even = Reception::new(start);
        let mut uneven = Reception::new(start);
        for number in 0..200u16 {
            let timestamp = Some(u32::from(number) * 160);
            let at = start + Duration::from_millis(20 * u64::from(number));
            even.record(1, number, timestamp, at);
            uneven.record(
                1,
                number,
                timestamp,
                at + Duration::from_millis(u64::from(number % 2) * 10),
            );
        }
        assert!(even.jitter_millis() < 0.01);
        assert!(
            (uneven.jitter_millis() - 10.0).abs() < 0.5,
            "{}",
            uneven.jitter_millis()
        );
    }
}
