//! Addresses of carriers' names on their way to all who keep them: the report, the guard, the trace.
//!
//! Each of these goes through all providers, so what comes close together is handed on together: thousands of names are looked up at a
//! start. The first one goes at once. Neither calls nor messages wait for it: the edge has the addresses already, and the guard is told of
//! new ones by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ringwire_config::ObjectRef;

/// The least time from one to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Default)]
pub struct Resolved {
    waiting: BTreeMap<ObjectRef, Vec<IpAddr>>,
    handed_on: Option<Instant>,
}

impl Resolved {
    /// The names of these providers stand for these addresses now.
    pub fn note(&mut self, resolved: BTreeMap<ObjectRef, Vec<IpAddr>>) {
        self.waiting.extend(resolved);
    }

    /// Forgets providers that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&ObjectRef) -> bool) {
        self.waiting.retain(|id, _| is_there(id));
    }

    /// What is to be handed on, if it is time.
    pub fn take_due(&mut self, now: Instant) -> Option<BTreeMap<ObjectRef, Vec<IpAddr>>> {
        self.poll_timeout(now).filter(|at| *at <= now)?;
        self.handed_on = Some(now);
        Some(std::mem::take(&mut self.waiting))
    }

    /// When to ask for it, if something waits.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let at = self.handed_on.map_or(now, |at| at + PAUSE);
        (!self.waiting.is_empty()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(number: u32) -> BTreeMap<ObjectRef, Vec<IpAddr>> {
        let id = ObjectRef::new("voice", format!("trunk-{number}"));
        [(id, vec![IpAddr::from(number.to_be_bytes())])].into()
    }

    #[test]
    fn the_first_name_is_told_at_once_and_thousands_in_a_second_at_most_six_times() {
        let start = Instant::now();
        let mut resolved = Resolved::default();
        let (mut told, mut times) = (BTreeMap::new(), 0);
        for number in 0..5_000 {
            let now = start + Duration::from_micros(200) * number;
            resolved.note(one(number));
            if let Some(due) = resolved.take_due(now) {
                times += 1;
                told.extend(due);
            }
            assert!(number > 0 || told.len() == 1);
        }
        let last = resolved.poll_timeout(start).unwrap();
        assert!(last <= start + Duration::from_millis(1_200));
        told.extend(resolved.take_due(last).unwrap());
        assert_eq!((told.len(), times + 1), (5_000, 6));
        assert_eq!(resolved.poll_timeout(last), None);
        assert_eq!(resolved.take_due(last + PAUSE), None);
    }

    #[test]
    fn the_latest_addresses_of_a_provider_are_told() {
        let now = Instant::now();
        let mut resolved = Resolved::default();
        resolved.note(one(1));
        let id = ObjectRef::new("voice", "trunk-1");
        resolved.note([(id.clone(), vec![])].into());
        assert_eq!(resolved.take_due(now), Some([(id, vec![])].into()));
    }
}
