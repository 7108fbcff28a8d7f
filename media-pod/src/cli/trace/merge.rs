//! Puts the messages of several registrars in the order of their time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::trace::entry::Line;

/// Lines that wait for earlier ones.
pub struct Merge {
    patience: Duration,
    /// By time, then in the order in which they came.
    waiting: BTreeMap<(Timestamp, u64), (Instant, Line)>,
    came: u64,
}

impl Merge {
    /// Each line waits so long.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            waiting: BTreeMap::new(),
            came: 0,
        }
    }

    /// Takes a line that has come now.
    pub fn push(&mut self, line: Line, now: Instant) {
        let time = match &line {
            Line::Message(entry) => entry.time,
            Line::Lost { time, .. } => *time,
            Line::Listening { .. } | Line::Refused { .. } => Timestamp::MIN,
        };
        self.came += 1;
        self.waiting
            .insert((time, self.came), (now + self.patience, line));
    }

    /// When [`Self::pop`] has the next line.
    pub fn next_at(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, (due, _))| *due)
    }

    /// The earliest line, if it has waited long enough; without `now` in any case.
    pub fn pop(&mut self, now: Option<Instant>) -> Option<Line> {
        let first = self.waiting.first_entry()?;
        if now.is_some_and(|now| first.get().0 > now) {
            return None;
        }
        Some(first.remove().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(time: i64, messages: u64) -> Line {
        Line::Lost {
            pod: "a".into(),
            time: Timestamp::from_millisecond(time).unwrap(),
            messages,
        }
    }

    #[test]
    fn lines_that_come_late_are_shown_where_they_belong() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut merge = Merge::new(Duration::from_millis(300));
        merge.push(lost(20, 2), at(20));
        merge.push(lost(10, 1), at(120));
        assert_eq!(merge.next_at(), Some(at(420)));
        assert_eq!(merge.pop(Some(at(419))), None);
        assert_eq!(merge.pop(Some(at(420))), Some(lost(10, 1)));
        assert_eq!(merge.pop(Some(at(420))), Some(lost(20, 2)));
        assert_eq!(merge.next_at(), None);
    }

    #[test]
    fn a_single_source_waits_for_nobody_and_keeps_its_order() {
        let now = Instant::now();
        let mut merge = Merge::new(Duration::ZERO);
        merge.push(lost(5, 1), now);
        merge.push(lost(5, 2), now);
        assert_eq!(merge.pop(Some(now)), Some(lost(5, 1)));
        assert_eq!(merge.pop(Some(now)), Some(lost(5, 2)));
        assert_eq!(merge.pop(Some(now)), None);
    }

    #[test]
    fn at_the_end_everything_is_shown() {
        let mut merge = Merge::new(Duration::from_secs(9));
        merge.push(lost(5, 1), Instant::now());
        assert!(merge.pop(None).is_some());
    }
}
