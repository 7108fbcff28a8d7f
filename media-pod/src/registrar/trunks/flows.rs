//! The flows that calls of registered trunks come in over: who has to hear when one is lost, and when its next keep-alive is due.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ringwire_sip::transaction::Flow;

use super::trunk::flow;
use crate::registrar::names::Target;

/// Keep-alives hold bindings of NATs, which forget UDP after 30 s (RFC 5626 section 4.4.2).
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// A flow, however many trunks share it.
struct Bound {
    trunks: BTreeSet<u64>,
    /// Its place among those that wait for their keep-alive.
    due: (Instant, u64),
}

/// All of them.
#[derive(Default)]
pub struct Flows {
    /// By server, and by who that has to be.
    bound: HashMap<Target, BTreeMap<u32, Bound>>,
    due: BTreeMap<(Instant, u64), (Target, u32)>,
    last: u64,
}

impl Flows {
    /// A trunk is registered over this flow. The first keep-alive goes after a whole interval, so those of flows that were bound one after
    /// the other go one after the other.
    pub fn bind(&mut self, (target, peer): (Target, u32), trunk: u64, now: Instant) {
        let peers = self.bound.entry(target).or_default();
        let bound = peers.entry(peer).or_insert_with(|| {
            self.last += 1;
            let due = (now + KEEP_ALIVE, self.last);
            self.due.insert(due, (target, peer));
            Bound {
                trunks: BTreeSet::new(),
                due,
            }
        });
        bound.trunks.insert(trunk);
    }

    /// It is no more.
    pub fn release(&mut self, (target, peer): (Target, u32), trunk: u64) {
        let Some(peers) = self.bound.get_mut(&target) else {
            return;
        };
        let Some(bound) = peers.get_mut(&peer) else {
            return;
        };
        bound.trunks.remove(&trunk);
        if bound.trunks.is_empty() {
            self.due.remove(&bound.due);
            peers.remove(&peer);
        }
        if peers.is_empty() {
            self.bound.remove(&target);
        }
    }

    /// The trunks whose calls came in over a flow that is lost. One that was open may have been anybody's.
    pub fn lost(&self, lost: &Flow) -> Vec<u64> {
        let target = Target {
            remote: lost.remote,
            transport: lost.transport,
        };
        let peers = self.bound.get(&target).into_iter().flatten();
        peers
            .filter(|(peer, _)| lost.connection.is_some() || **peer == lost.peer)
            .flat_map(|(_, bound)| bound.trunks.iter().copied())
            .collect()
    }

    /// The flows whose keep-alive is due now.
    pub fn due(&mut self, now: Instant) -> Vec<Flow> {
        let mut flows = Vec::new();
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, number), (target, peer)) = first.remove_entry();
            let next = (now + KEEP_ALIVE, number);
            self.due.insert(next, (target, peer));
            if let Some(bound) = self
                .bound
                .get_mut(&target)
                .and_then(|peers| peers.get_mut(&peer))
            {
                bound.due = next;
            }
            flows.push(flow(target, peer));
        }
        flows
    }

    /// When the next one is.
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use ringwire_sip::transaction::Transport;

    use super::*;

    fn target(port: u16) -> Target {
        Target {
            remote: ([192, 0, 2, 1], port).into(),
            transport: Transport::Udp,
        }
    }

    #[test]
    fn trunks_that_share_a_flow_share_its_keep_alives() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        for trunk in 0..100 {
            flows.bind((target(5060), 0), trunk, now);
        }
        let later = now + Duration::from_secs(1);
        flows.bind((target(5070), 0), 100, later);
        assert_eq!(flows.next(), Some(now + KEEP_ALIVE));
        let early = (now + KEEP_ALIVE).checked_sub(Duration::from_millis(1));
        assert!(flows.due(early.unwrap()).is_empty());
        assert_eq!(flows.due(now + KEEP_ALIVE), [flow(target(5060), 0)]);
        assert_eq!(flows.due(now + KEEP_ALIVE), []);
        assert_eq!(flows.due(later + KEEP_ALIVE), [flow(target(5070), 0)]);
        assert_eq!(flows.due(now + KEEP_ALIVE * 2), [flow(target(5060), 0)]);
    }

    #[test]
    fn a_flow_is_kept_alive_as_long_as_one_trunk_needs_it() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        flows.bind((target(5060), 0), 1, now);
        flows.bind((target(5060), 0), 2, now);
        flows.release((target(5060), 0), 1);
        assert_eq!(flows.due(now + KEEP_ALIVE).len(), 1);
        flows.release((target(5060), 0), 2);
        assert_eq!(flows.next(), None);
        assert!(flows.bound.is_empty());
    }

    #[test]
    fn who_expects_another_certificate_has_another_flow() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let target = Target {
            transport: Transport::Tls,
            ..target(5061)
        };
        flows.bind((target, 1), 10, now);
        flows.bind((target, 2), 20, now);
        assert_eq!(flows.lost(&flow(target, 2)), [20]);
        assert_eq!(
            flows.lost(&Flow::open(Transport::Tls, target.remote, 7)),
            [10, 20]
        );
        assert!(flows.lost(&Flow::udp(target.remote)).is_empty());
    }
}
