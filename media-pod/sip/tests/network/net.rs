//! A network between two sides that loses, doubles, delays and reorders, by the numbers of one generator.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringwire_sip::message::Message;

/// One of the two that talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends the requests.
    Caller,
    /// Answers them.
    Callee,
}

/// How good it is.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// Messages lost, of a hundred.
    pub loss: u32,
    /// Messages that come twice, of a hundred.
    pub doubled: u32,
    /// The longest that one is under way.
    pub delay: Duration,
    /// A stream: nothing is lost, doubled or overtaken.
    pub reliable: bool,
}

impl Quality {
    /// Datagrams over anything between a cable and a bad day, or a stream.
    pub fn any(reliable: bool, rng: &mut StdRng) -> Self {
        let delays = [1, 20, 400, 2000];
        Self {
            loss: if reliable { 0 } else { rng.random_range(0..50) },
            doubled: if reliable { 0 } else { rng.random_range(0..40) },
            delay: Duration::from_millis(delays[rng.random_range(0..delays.len())]),
            reliable,
        }
    }
}

/// What is under way.
pub struct Network {
    quality: Quality,
    packets: BTreeMap<(Instant, u64), (Side, Message)>,
    sent: u64,
    /// The last arrival on each way of a stream.
    last: [Option<Instant>; 2],
}

impl Network {
    pub fn new(quality: Quality) -> Self {
        Self {
            quality,
            packets: BTreeMap::new(),
            sent: 0,
            last: [None; 2],
        }
    }

    pub fn send(&mut self, to: Side, message: &Message, now: Instant, rng: &mut StdRng) {
        let Quality {
            loss,
            doubled,
            delay,
            reliable,
        } = self.quality;
        if rng.random_ratio(loss, 100) {
            return;
        }
        let copies = if rng.random_ratio(doubled, 100) { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = now + delay.mul_f64(rng.random_range(0.0..=1.0));
            if reliable {
                let last = &mut self.last[to as usize];
                at = last.map_or(at, |last| at.max(last));
                *last = Some(at);
            }
            self.sent += 1;
            self.packets.insert((at, self.sent), (to, message.clone()));
        }
    }

    /// When the next one arrives.
    pub fn next(&self) -> Option<Instant> {
        self.packets.keys().next().map(|(at, _)| *at)
    }

    /// One that has arrived.
    pub fn arrived(&mut self, now: Instant) -> Option<(Side, Message)> {
        let first = self.packets.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
