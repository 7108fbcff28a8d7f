//! What a relayed INVITE waits for: a first sign of the media pod, then an answer (timer C).

use std::time::{Duration, Instant};

use ringwire_sip::message::Method;
use ringwire_sip::transaction::ServerId;

use super::calls::untried;
use super::{Edge, Kind, MAX_TRIES};

/// A media pod has to say something by then, or another is asked (DESIGN §3).
pub(super) const FIRST_SIGN: Duration = Duration::from_millis(300);

/// Timer C: how long it may ring without a word. More than three minutes (RFC 3261 section 16.6 step 11).
pub(super) const TIMER_C: Duration = Duration::from_secs(181);

/// What a cancelled branch is told why (RFC 3326).
const TIMER_C_REASON: &str = "SIP;cause=408;text=\"Request Timeout\"";

/// What a relay waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The media pod says something.
    FirstSign,
    /// An answer.
    C,
}

impl Edge {
    /// Puts a timer in place of the one that a relay has.
    pub(super) fn set_timer(&mut self, id: ServerId, timer: Option<(Instant, Timer)>) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        if let Some((at, _)) = relay.timer {
            self.timers.remove(&(at, id));
        }
        relay.timer = timer;
        if let Some((at, _)) = timer {
            self.timers.insert((at, id));
        }
    }

    /// Begins to wait for the answer to an INVITE, or begins anew. One that was cancelled has 64*T1 left, which its transaction sees to.
    pub(super) fn await_answer(&mut self, id: ServerId, now: Instant) {
        if let Some(relay) = self.relays.get(&id)
            && relay.request.method == Method::INVITE
        {
            let waits = !relay.done && relay.cancelled.is_none();
            self.set_timer(id, waits.then_some((now + TIMER_C, Timer::C)));
        }
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            let timer = self.relays.get(&id).and_then(|relay| relay.timer);
            self.timers.remove(&(at, id));
            self.set_timer(id, None);
            match timer {
                Some((_, Timer::FirstSign)) => self.on_silence(id, now),
                Some((_, Timer::C)) => self.on_timer_c(id, now),
                None => {}
            }
        }
    }

    /// A media pod says nothing: another is asked if there is one, else this one has more time.
    fn on_silence(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get(&id) else {
            return;
        };
        let Kind::Call { tried, .. } = &relay.kind else {
            return;
        };
        let asks_another = tried.len() < MAX_TRIES && untried(&self.links, tried).next().is_some();
        tracing::warn!(asks_another, "a media pod said nothing for 300 ms");
        if asks_another {
            self.next_pod(id, now);
        } else {
            self.await_answer(id, now);
        }
    }

    /// It rings for too long (section 16.8): the branch is cancelled, and its 487 is the answer; 408 if none comes.
    fn on_timer_c(&mut self, id: ServerId, now: Instant) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        relay.cancelled.get_or_insert(408);
        let client = relay.client;
        tracing::warn!("an INVITE was neither answered nor heard of for three minutes");
        let cancelling =
            client.and_then(|client| self.endpoint.cancel(client, Some(TIMER_C_REASON), now));
        if cancelling.is_none() {
            self.refuse(id, 408, None, now);
        }
    }
}
