//! Reliable provisional responses (RFC 3262), both sides: which one waits for its PRACK, and which PRACK is due.
//!
//! What the bodies mean for offer and answer is the business of [`crate::uas`] and [`crate::uac`].

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::message::{HeaderName, Headers, Method, Response};

/// The option tag.
pub(crate) const RELIABLE: &str = "100rel";
/// The largest number that a first `RSeq` may have (section 3), with room for what follows it.
const MAX_FIRST_RSEQ: u64 = (1 << 31) - 1;
/// Most responses that wait for the PRACK of the one before.
const MAX_QUEUE: usize = 4;

/// The header `RAck` (section 7.2): which response a PRACK is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rack {
    pub rseq: u32,
    pub cseq: u32,
    pub method: Method,
}

impl Rack {
    /// What the header says; nothing if it is missing or can't be read.
    pub fn of(headers: &Headers) -> Option<Self> {
        let mut parts = headers.get(&HeaderName::Rack)?.split_whitespace();
        let (rseq, cseq, method) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(())?;
        Some(Self {
            rseq: rseq.parse().ok()?,
            cseq: cseq.parse().ok()?,
            method: Method::parse(method),
        })
    }
}

/// The `RSeq` of a provisional response that was sent reliably.
pub(crate) fn rseq_of(response: &Response) -> Option<u32> {
    let reliable = (101..200).contains(&response.status)
        && response.headers.lists(&HeaderName::Require, RELIABLE);
    let text = response.headers.get(&HeaderName::Rseq)?;
    reliable.then(|| text.trim().parse().ok()).flatten()
}

/// A response that waits for its PRACK.
struct Waiting {
    rseq: u32,
    response: Response,
    next: Instant,
    interval: Duration,
    deadline: Instant,
    /// A final response went: the PRACK is still taken, but nothing is repeated.
    over: bool,
}

/// What a time-out means.
pub(crate) enum Due {
    /// This response once more.
    Repeat(Response),
    /// No PRACK in time.
    Lost,
}

/// The reliable provisional responses to one INVITE, one at a time.
pub(crate) struct Provisionals {
    t1: Duration,
    rseq: u32,
    cseq: u32,
    waiting: Option<Waiting>,
    queue: VecDeque<Response>,
}

impl Provisionals {
    /// For the INVITE with that number. The tag makes the first `RSeq` one that nobody can guess.
    pub fn new(cseq: u32, local_tag: &str, t1: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        local_tag.hash(&mut hasher);
        Self {
            t1,
            rseq: (hasher.finish() % MAX_FIRST_RSEQ) as u32,
            cseq,
            waiting: None,
            queue: VecDeque::new(),
        }
    }

    /// Takes a response that is to be reliable: gives it back with what makes it so, if it may go now. The next one goes
    /// when this one is acknowledged.
    pub fn send(&mut self, response: Response, now: Instant) -> Option<Response> {
        if self.waiting.is_some() {
            if self.queue.len() < MAX_QUEUE {
                self.queue.push_back(response);
            }
            return None;
        }
        self.rseq += 1;
        let mut response = response;
        response.headers.push(HeaderName::Require, RELIABLE);
        response
            .headers
            .push(HeaderName::Rseq, self.rseq.to_string());
        self.waiting = Some(Waiting {
            rseq: self.rseq,
            response: response.clone(),
            next: now + self.t1,
            interval: self.t1,
            deadline: now + self.t1 * 64,
            over: false,
        });
        Some(response)
    }

    /// Takes the `RAck` of a PRACK: whether it is for the response that waits, and if so whether that had a body.
    pub fn acknowledge(&mut self, rack: &Rack) -> Option<bool> {
        let waiting = self.waiting.take_if(|waiting| {
            rack.rseq == waiting.rseq && rack.cseq == self.cseq && rack.method == Method::INVITE
        })?;
        Some(!waiting.response.body.is_empty())
    }

    /// The next response, after a PRACK.
    pub fn next(&mut self, now: Instant) -> Option<Response> {
        let response = self.queue.pop_front()?;
        self.send(response, now)
    }

    /// Whether a response with a session description waits: a 2xx may not go before its PRACK (section 3).
    pub fn holds_back_success(&self) -> bool {
        self.waiting
            .as_ref()
            .is_some_and(|waiting| !waiting.response.body.is_empty())
    }

    /// A final response goes: nothing is repeated any more.
    pub fn finish(&mut self) {
        self.queue.clear();
        if let Some(waiting) = &mut self.waiting {
            waiting.over = true;
        }
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waiting
            .as_ref()
            .filter(|waiting| !waiting.over)
            .map(|waiting| waiting.next.min(waiting.deadline))
    }

    /// What is due: repeats after T1, doubled each time without bound, and the end after 64*T1.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        let waiting = self.waiting.as_mut().filter(|waiting| !waiting.over)?;
        if waiting.deadline <= now {
            return Some(Due::Lost);
        }
        (waiting.next <= now).then(|| {
            waiting.interval *= 2;
            waiting.next = now + waiting.interval;
            Due::Repeat(waiting.response.clone())
        })
    }
}

/// Which reliable responses of one early dialog were seen (section 4).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen(Option<u32>);

impl Seen {
    /// Whether this is the next one: it is to be acknowledged and heeded. Repeats are not, and one that comes too early
    /// comes again.
    pub fn take(&mut self, rseq: u32) -> bool {
        let next = self.0.is_none_or(|last| last.checked_add(1) == Some(rseq));
        if next {
            self.0 = Some(rseq);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rack_and_refuses_what_is_none() {
        let rack = |text: &str| {
            let mut headers = Headers::new();
            headers.push(HeaderName::Rack, text);
            Rack::of(&headers)
        };
        assert_eq!(
            rack("776656  1 INVITE"),
            Some(Rack {
                rseq: 776_656,
                cseq: 1,
                method: Method::INVITE
            })
        );
        for bad in [
            "",
            "1 INVITE",
            "1 2 3 INVITE",
            "-1 2 INVITE",
            "1 99999999999 INVITE",
        ] {
            assert_eq!(rack(bad), None, "{bad}");
        }
    }

    #[test]
    fn responses_are_taken_once_and_in_order() {
        let mut seen = Seen::default();
        let taken = [5, 5, 7, 6, 7, 6].map(|rseq| seen.take(rseq));
        assert_eq!(taken, [true, false, false, true, true, false]);
        let mut last = Seen(Some(u32::MAX));
        assert!(!last.take(0));
    }
}
