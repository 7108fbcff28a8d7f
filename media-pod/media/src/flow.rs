//! Whether sound goes both ways. One-way audio is the commonest fault of a trunk, and neither side is told of it: packets get lost in
//! somebody's firewall, or go to an address that nobody outside can reach.

use std::time::{Duration, Instant};

use crate::rtcp::Heard;

/// Nothing for so long is a fault, and not a pause.
const MISSED_AFTER: Duration = Duration::from_secs(5);
/// A peer that gets our packets knows of them after so long, and says so in its next report.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// Which direction is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Nothing comes from the peer.
    FromPeer,
    /// The peer's reports say that nothing of ours gets there.
    ToPeer,
}

/// Watches both directions of a call. Each is told of once, and again only after it was there.
#[derive(Debug, Default)]
pub struct Flow {
    /// Since when nothing has come that should.
    waiting: Option<Instant>,
    from_peer_missed: bool,
    /// When our first packet left, or the first one since it was told that they get lost.
    sending: Option<Instant>,
    /// The highest of our sequence numbers that a report has told of, and when.
    told: Option<(u32, Instant)>,
    to_peer_missed: bool,
}

impl Flow {
    /// The peer should send, or not any more.
    pub fn expect(&mut self, expected: bool, now: Instant) {
        self.waiting = expected.then_some(now);
    }

    /// A packet came. After `comfort` noise nothing need come for as long as the peer is silent (RFC 3389).
    pub fn received(&mut self, comfort: bool, now: Instant) {
        self.from_peer_missed = false;
        self.waiting = (!comfort).then_some(now);
    }

    /// A packet left.
    pub fn sent(&mut self, now: Instant) {
        self.sending.get_or_insert(now);
    }

    /// Nothing leaves, or it goes elsewhere: what reports say is about the past.
    pub fn stopped_sending(&mut self) {
        self.sending = None;
        self.told = None;
    }

    /// A report of the peer: whether it tells of newer packets of ours than the one before did.
    pub fn reported(&mut self, heard: &Heard, now: Instant) -> Option<Missing> {
        let since = self.sending?;
        if now.saturating_duration_since(since) < TOLD_AFTER {
            return None;
        }
        if let Some(block) = heard.about_us {
            match self.told {
                Some((highest, at)) if highest == block.highest => {
                    if now.saturating_duration_since(at) < TOLD_AFTER {
                        return None;
                    }
                }
                _ => {
                    self.told = Some((block.highest, now));
                    self.to_peer_missed = false;
                    return None;
                }
            }
        }
        (!std::mem::replace(&mut self.to_peer_missed, true)).then_some(Missing::ToPeer)
    }

    /// Whether what should come has not for too long.
    pub fn check(&mut self, now: Instant) -> Option<Missing> {
        let waiting = self.waiting.filter(|_| !self.from_peer_missed)?;
        let missed = now.saturating_duration_since(waiting) >= MISSED_AFTER;
        self.from_peer_missed = missed;
        missed.then_some(Missing::FromPeer)
    }

    /// Whether both directions are there now, as far as is known.
    pub fn is_whole(&self) -> bool {
        !self.from_peer_missed && !self.to_peer_missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::Block;

    fn seconds(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    fn report(highest: Option<u32>) -> Heard {
        Heard {
            sent_at: None,
            about_us: highest.map(|highest| Block {
                highest,
                ..Block::default()
            }),
        }
    }

    #[test]
    fn a_peer_that_never_sends_is_missed_once() {
        let start = Instant::now();
        let mut flow = Flow::default();
        assert_eq!(
            flow.check(seconds(start, 60.0)),
            None,
            "nothing is expected yet"
        );
        flow.expect(true, start);
        assert_eq!(flow.check(seconds(start, 4.9)), None);
        assert_eq!(flow.check(seconds(start, 5.0)), Some(Missing::FromPeer));
        assert_eq!(flow.check(seconds(start, 50.0)), None);
        assert!(!flow.is_whole());
        flow.received(false, seconds(start, 51.0));
        assert!(flow.is_whole());
        assert_eq!(flow.check(seconds(start, 57.0)), Some(Missing::FromPeer));
    }

    #[test]
    fn neither_hold_nor_comfort_noise_is_a_fault() {
        let start = Instant::now();
        let mut flow = Flow::default();
        flow.expect(true, start);
        flow.received(true, seconds(start, 1.0));
        assert_eq!(flow.check(seconds(start, 60.0)), None);
        flow.received(false, seconds(start, 61.0));
        flow.expect(false, seconds(start, 62.0));
        assert_eq!(flow.check(seconds(start, 99.0)), None);
        flow.expect(true, seconds(start, 100.0));
        assert_eq!(flow.check(seconds(start, 104.0)), None);
        assert_eq!(flow.check(seconds(start, 105.0)), Some(Missing::FromPeer));
    }

    #[test]
    fn reports_tell_whether_our_packets_arrive() {
        let start = Instant::now();
        let mut flow = Flow::default();
        assert_eq!(
            flow.reported(&report(None), start),
            None,
            "nothing was sent"
        );
        flow.sent(start);
        assert_eq!(
            flow.reported(&report(None), seconds(start, 1.0)),
            None,
            "too early"
        );
        assert_eq!(
            flow.reported(&report(None), seconds(start, 3.0)),
            Some(Missing::ToPeer)
        );
        assert_eq!(
            flow.reported(&report(None), seconds(start, 8.0)),
            None,
            "once"
        );
        assert_eq!(flow.reported(&report(Some(400)), seconds(start, 9.0)), None);
        assert!(flow.is_whole());
        assert_eq!(
            flow.reported(&report(Some(400)), seconds(start, 14.0)),
            Some(Missing::ToPeer),
            "no more since then"
        );
        flow.stopped_sending();
        assert_eq!(
            flow.reported(&report(Some(400)), seconds(start, 20.0)),
            None
        );
    }
}
