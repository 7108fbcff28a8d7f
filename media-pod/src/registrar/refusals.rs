//! What is told of refused calls: a report that does not change with every one of them, and a log that a storm does not fill.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ringwire_config::state::{MAX_REFUSED_SOURCES, PodState, RefusalReport, RefusedSource};
use ringwire_config::{ObjectRef, Reason};

use super::edge::RefusedCall;

/// Between two reports of the same.
const PAUSE: Duration = Duration::from_secs(60);

/// What is known of one provider's refusals.
#[derive(Default)]
struct Page {
    counts: BTreeMap<Reason, RefusalReport>,
    /// The latest first.
    sources: Vec<RefusedSource>,
    /// When to report next; `None`: all is reported, and the last report is long ago.
    next: Option<Instant>,
    /// Whether something is not reported yet.
    changed: bool,
}

/// Refused calls by provider, and which of them were reported. The first of a kind is reported at once; from then on once a minute, for
/// each report may end as a write of the provider's status.
#[derive(Default)]
pub struct Ledger {
    pages: BTreeMap<ObjectRef, Page>,
}

impl Ledger {
    /// Notes a refusal and reports it if its turn has come.
    pub fn note(&mut self, call: &RefusedCall, now: Instant, at: Timestamp, state: &mut PodState) {
        let Some(provider) = &call.provider else {
            return;
        };
        let page = self.pages.entry(provider.clone()).or_default();
        let mut is_new = page.count(call.reason, 1, &call.detail, at);
        if matches!(
            call.reason,
            Reason::SourceNotAllowed | Reason::SourceAddressLost
        ) && let Some(number) = &call.number
        {
            let address = call.source.ip();
            let known = page.sources.iter().any(|source| source.address == address);
            is_new |= !known && page.sources.len() < MAX_REFUSED_SOURCES;
            page.sources.retain(|other| other.address != address);
            let source = RefusedSource {
                address,
                number: number.clone(),
                at,
            };
            page.sources.insert(0, source);
            page.sources.truncate(MAX_REFUSED_SOURCES);
        }
        page.publish_if(is_new, provider, now, state);
    }

    /// Notes so many messages for a provider that were dropped unanswered.
    pub fn note_dropped(
        &mut self,
        provider: &ObjectRef,
        (reason, count, detail): (Reason, u64, &str),
        now: Instant,
        at: Timestamp,
        state: &mut PodState,
    ) {
        let page = self.pages.entry(provider.clone()).or_default();
        let is_new = page.count(reason, count, detail, at);
        page.publish_if(is_new, provider, now, state);
    }

    /// Whether something has waited long enough.
    pub fn is_due(&self, now: Instant) -> bool {
        self.pages
            .values()
            .any(|page| page.changed && page.next.is_none_or(|next| next <= now))
    }

    /// Reports what has waited long enough.
    pub fn publish_due(&mut self, now: Instant, state: &mut PodState) {
        for (provider, page) in &mut self.pages {
            if page.changed && page.next.is_none_or(|next| next <= now) {
                page.publish(provider, now, state);
            }
        }
    }

    /// Forgets all providers but these.
    pub fn retain(&mut self, keep: impl Fn(&ObjectRef) -> bool) {
        self.pages.retain(|id, _| keep(id));
    }
}

impl Page {
    /// Counts; `true`: it is the first for this reason.
    fn count(&mut self, reason: Reason, count: u64, detail: &str, at: Timestamp) -> bool {
        self.changed = true;
        let before = self.counts.entry(reason);
        let is_new = matches!(before, Entry::Vacant(_));
        let entry = before.or_insert_with(|| RefusalReport {
            count: 0,
            detail: String::new(),
            at,
        });
        entry.count += count;
        entry.at = at;
        detail.clone_into(&mut entry.detail);
        is_new
    }

    fn publish_if(&mut self, is_new: bool, id: &ObjectRef, now: Instant, state: &mut PodState) {
        if is_new || self.next.is_none_or(|next| next <= now) {
            self.publish(id, now, state);
        }
    }

    fn publish(&mut self, provider: &ObjectRef, now: Instant, state: &mut PodState) {
        state
            .provider_refusals
            .insert(provider.clone(), self.counts.clone());
        if !self.sources.is_empty() {
            state
                .refused_sources
                .insert(provider.clone(), self.sources.clone());
        }
        self.changed = false;
        self.next = Some(now + PAUSE);
    }
}

/// The same refusal from the same source is logged again after so long.
const BURST: Duration = Duration::from_secs(10);

/// How many of a burst are logged where a provider is concerned: they may be calls that somebody misses.
const LOGGED: u64 = 10;

/// Sources that are remembered for that; the others share one burst.
const MAX_BURSTS: usize = 1_024;

/// What was logged and what was not, lately.
#[derive(Default)]
pub struct Bursts {
    known: HashMap<(Reason, IpAddr), Burst>,
    others: Option<Burst>,
}

struct Burst {
    since: Instant,
    count: u64,
    suppressed: u64,
}

impl Burst {
    fn admit(&mut self, limit: u64, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= BURST {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        if self.count > limit {
            self.suppressed += 1;
            return None;
        }
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Bursts {
    /// Whether to log a refusal, and how many like it were not logged before; `None`: this one is not, either. Scanners are refused a
    /// million times, and once in a while is enough for the log.
    pub fn admit(&mut self, call: &RefusedCall, now: Instant) -> Option<u64> {
        let limit = if call.provider.is_some() { LOGGED } else { 1 };
        let key = (call.reason, call.source.ip());
        let fresh = || Burst {
            since: now,
            count: 0,
            suppressed: 0,
        };
        if let Some(burst) = self.known.get_mut(&key) {
            return burst.admit(limit, now);
        }
        if self.known.len() >= MAX_BURSTS {
            let is_full = self
                .others
                .as_ref()
                .is_some_and(|others| now < others.since + BURST);
            if !is_full {
                self.known.retain(|_, burst| now < burst.since + BURST);
            }
        }
        if self.known.len() >= MAX_BURSTS {
            return self.others.get_or_insert_with(fresh).admit(LOGGED, now);
        }
        self.known
            .entry(key)
            .or_insert_with(fresh)
            .admit(limit, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ringwire_config::shard::Role;
    use ringwire_config::token::Incarnation;

    use super::*;

    fn call(provider: Option<&str>, reason: Reason, source: [u8; 4]) -> RefusedCall {
        RefusedCall {
            reason,
            status: 486,
            source: SocketAddr::from((source, 5060)),
            call_id: "1".into(),
            from: String::new(),
            to: String::new(),
            provider: provider.map(|name| ObjectRef::new("voice", name)),
            number: Some("+34911234567".into()),
            detail: "full".into(),
        }
    }

    fn state() -> PodState {
        PodState::new("registrar-0", Role::Registrar, Incarnation(1))
    }

    #[test]
    fn the_first_refusal_is_reported_at_once_and_the_others_once_a_minute() {
        let (mut ledger, mut state) = (Ledger::default(), state());
        let (start, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let id = ObjectRef::new("voice", "trunk");
        let mut reports = 0;
        let mut last = None;
        // 100 a second for ten minutes.
        for turn in 0..60_000u32 {
            let now = start + Duration::from_millis(10) * turn;
            ledger.note(
                &call(Some("trunk"), Reason::AtCapacity, [192, 0, 2, 1]),
                now,
                at,
                &mut state,
            );
            let report = state.provider_refusals[&id][&Reason::AtCapacity].clone();
            if last.as_ref() != Some(&report) {
                reports += 1;
                last = Some(report);
            }
        }
        assert_eq!(reports, 10);
        let end = start + Duration::from_secs(600);
        assert!(ledger.is_due(end));
        ledger.publish_due(end, &mut state);
        assert_eq!(
            state.provider_refusals[&id][&Reason::AtCapacity].count,
            60_000
        );
        assert!(!ledger.is_due(end + PAUSE), "there is nothing new");
    }

    #[test]
    fn another_reason_and_another_source_are_news() {
        let (mut ledger, mut state) = (Ledger::default(), state());
        let (now, at) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let id = ObjectRef::new("voice", "trunk");
        ledger.note(
            &call(Some("trunk"), Reason::AtCapacity, [192, 0, 2, 1]),
            now,
            at,
            &mut state,
        );
        for last in 1..=3 {
            let refused = call(Some("trunk"), Reason::SourceNotAllowed, [192, 0, 2, last]);
            ledger.note(&refused, now, at, &mut state);
        }
        assert_eq!(state.provider_refusals[&id].len(), 2);
        let first = state.refused_sources[&id][0].address;
        assert_eq!(first, IpAddr::from([192, 0, 2, 3]));
        // Forged ones without end do not rewrite it all the time.
        for last in 0..=255 {
            let refused = call(
                Some("trunk"),
                Reason::SourceNotAllowed,
                [198, 51, 100, last],
            );
            ledger.note(&refused, now, at, &mut state);
        }
        assert_eq!(
            state.refused_sources[&id][0].address,
            IpAddr::from([198, 51, 100, 4])
        );
    }

    #[test]
    fn a_strangers_burst_is_logged_once_and_counted() {
        let (mut bursts, start) = (Bursts::default(), Instant::now());
        let refused = call(None, Reason::SourceNotAllowed, [192, 0, 2, 1]);
        let logged: Vec<Option<u64>> = (0..1000).map(|_| bursts.admit(&refused, start)).collect();
        assert_eq!(logged[0], Some(0));
        assert!(logged[1..].iter().all(Option::is_none));
        assert_eq!(bursts.admit(&refused, start + BURST), Some(999));
    }

    #[test]
    fn forged_sources_without_end_fill_neither_log_nor_memory() {
        let (mut bursts, now) = (Bursts::default(), Instant::now());
        let logged = (0..100_000u32)
            .filter(|source| {
                let refused = call(None, Reason::SourceNotAllowed, source.to_be_bytes());
                bursts.admit(&refused, now).is_some()
            })
            .count();
        assert_eq!(logged, MAX_BURSTS + LOGGED as usize);
        assert_eq!(bursts.known.len(), MAX_BURSTS);
    }
}
