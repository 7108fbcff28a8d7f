//! What both sides need: an agenda, the other's address, and the count of what happened.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringwire_sip::message::Method;
use ringwire_sip::transaction::{Endpoint, EndpointConfig, Flow, Transport};

/// What names a transaction on the wire: branch and method.
pub type Key = (String, Method);

/// How often something happened in the scenarios.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub answered: u64,
    pub refused: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Answered although a CANCEL was under way.
    pub crossed: u64,
    pub acknowledged: u64,
    /// 2xx that never got an ACK.
    pub unacknowledged: u64,
    pub ack_timeouts: u64,
    pub absorbed: u64,
}

impl Told {
    pub fn add(&mut self, other: Self) {
        let Self {
            answered,
            refused,
            failed,
            cancelled,
            crossed,
            acknowledged,
            unacknowledged,
            ack_timeouts,
            absorbed,
        } = other;
        self.answered += answered;
        self.refused += refused;
        self.failed += failed;
        self.cancelled += cancelled;
        self.crossed += crossed;
        self.acknowledged += acknowledged;
        self.unacknowledged += unacknowledged;
        self.ack_timeouts += ack_timeouts;
        self.absorbed += absorbed;
    }

    /// Each that often, the rare ones once.
    pub fn all_happened(&self, times: u64) -> bool {
        let often = [
            self.answered,
            self.refused,
            self.failed,
            self.cancelled,
            self.acknowledged,
            self.absorbed,
        ];
        let rare = [self.crossed, self.unacknowledged, self.ack_timeouts];
        often.iter().all(|count| *count >= times) && rare.iter().all(|count| *count >= 1)
    }
}

/// Things to do at some time.
pub struct Agenda<T>(BTreeMap<(Instant, u64), T>);

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub fn at(&mut self, at: Instant, task: T) {
        let last = self.0.keys().map(|(_, number)| *number).max();
        self.0.insert((at, last.unwrap_or(0) + 1), task);
    }

    pub fn next(&self) -> Option<Instant> {
        self.0.keys().next().map(|(at, _)| *at)
    }

    pub fn due(&mut self, now: Instant) -> Option<T> {
        let first = self.0.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

pub fn endpoint(rng: &mut StdRng) -> Endpoint {
    let config = EndpointConfig {
        trying_at_once: rng.random(),
        ..EndpointConfig::default()
    };
    Endpoint::new(config, rng.random())
}

/// Where the other side is.
pub fn flow(reliable: bool, remote: &str) -> Flow {
    Flow {
        transport: if reliable {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        remote: remote.parse().unwrap(),
        connection: reliable.then_some(1),
        peer: 0,
    }
}

pub fn seconds(rng: &mut StdRng, most: f64) -> Duration {
    Duration::from_secs_f64(rng.random_range(0.0..most))
}
