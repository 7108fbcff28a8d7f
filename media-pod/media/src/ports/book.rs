//! Which port a call gets: a pure book-keeping of which calls sit where.
//!
//! On the port that is chosen the call's remote address and port must not be in use, and no call of which no source is known yet may be
//! mistaken for it: two of which one's packets could come from where the other's could. Where there is none such, another port is opened.
//! When the range is used up, a call may sit beside one that it could be mistaken for: then only packets from exactly where its SDP says are
//! heard until one of them is known. Never beside one with the same remote address and port.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use slab::Slab;

use super::demux::{CANDIDATE_FOR, STRAYS_FOR};
use crate::networks::Networks;

/// A pair of ports without calls is closed when it has been so for so long: as many as a burst needed are not kept open.
pub const IDLE_FOR: Duration = Duration::from_secs(30);

/// Bytes that a packet of G.711 takes in the kernel's buffer.
const PACKET: usize = 2_304;

/// Packets of a call in 80 ms, for which a thread may be held up.
const PACKETS: usize = 4;

/// Calls that a thread may have more than the one with the fewest before another port is opened.
const SLACK: usize = 4;

/// Calls that a packet of an unknown source may have to be compared with.
const MOST: usize = 250;

/// How many calls a port with such a receive buffer carries without loss.
pub fn calls_per_port(receive_buffer: usize) -> usize {
    (receive_buffer / PACKET / PACKETS).clamp(1, MOST)
}

/// What a call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address to bind.
    pub bind: IpAddr,
    /// First and last port of the range.
    pub range: (u16, u16),
    /// Where the peer's SDP wants packets; nothing before it has said so.
    pub remote: Option<SocketAddr>,
    /// Where its signalling comes from.
    pub signalling: Option<IpAddr>,
    /// Its provider's networks.
    pub networks: Networks,
    /// The thread that has to carry it, if it is a certain one.
    pub thread: Option<usize>,
}

/// A call's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which pair of ports.
    pub pair: usize,
    /// Which of its calls.
    seat: usize,
}

/// What is to be done for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It sits there.
    Here(Place),
    /// A pair of ports is to be opened in this thread. The place in hand is for when that is not possible.
    Open {
        /// Which thread.
        thread: usize,
        /// What is left otherwise.
        instead: Option<usize>,
    },
}

#[derive(Debug)]
struct Seat {
    remote: Option<SocketAddr>,
    signalling: Option<IpAddr>,
    networks: Networks,
    confirmed: Option<SocketAddr>,
    /// Since when its source is looked for; nothing before its packets are carried.
    since: Option<Instant>,
}

impl Seat {
    fn uses(&self, remote: SocketAddr) -> bool {
        self.remote == Some(remote) || self.confirmed == Some(remote)
    }

    /// Whether its packets may still come from anywhere.
    fn looks(&self, now: Instant) -> bool {
        self.confirmed.is_none()
            && self
                .since
                .is_none_or(|since| now.saturating_duration_since(since) < CANDIDATE_FOR)
    }

    fn could_come_from(&self, ip: IpAddr) -> bool {
        self.signalling == Some(ip)
            || self.remote.is_some_and(|remote| remote.ip() == ip)
            || self.networks.contains(ip)
    }

    /// Whether a packet could be of either.
    fn is_like(&self, wanted: &Wanted) -> bool {
        let theirs = [wanted.remote.map(|remote| remote.ip()), wanted.signalling];
        let ours = [self.remote.map(|remote| remote.ip()), self.signalling];
        theirs
            .into_iter()
            .flatten()
            .any(|ip| self.could_come_from(ip))
            || ours
                .into_iter()
                .flatten()
                .any(|ip| wanted.networks.contains(ip))
            || self.networks.overlaps(&wanted.networks)
    }
}

/// A pair of ports.
#[derive(Debug)]
pub struct Pair {
    /// The address that they are bound to.
    pub bind: IpAddr,
    /// The even one, for RTP.
    pub port: u16,
    /// The thread that has the sockets.
    pub thread: usize,
    /// What the thread calls it.
    pub slot: usize,
    /// Bytes of the receive buffer for RTP.
    pub receive_buffer: usize,
    seats: Slab<Seat>,
    /// Where packets came from that may still be under way.
    strays: Vec<(SocketAddr, Instant)>,
    /// When its last call left; nothing while it has one, or has not had any.
    idle_since: Option<Instant>,
}

impl Pair {
    fn forget_strays(&mut self, now: Instant) {
        self.strays
            .retain(|(_, at)| now.saturating_duration_since(*at) < STRAYS_FOR);
    }

    /// How many calls it has.
    pub fn calls(&self) -> usize {
        self.seats.len()
    }

    fn has_room(&self) -> bool {
        self.seats.len() < calls_per_port(self.receive_buffer)
    }

    /// Whether it has room, and is one of those that are wanted.
    fn takes(&self, wanted: &Wanted) -> bool {
        self.is_of(wanted)
            && self.has_room()
            && wanted.thread.is_none_or(|thread| thread == self.thread)
    }

    fn is_of(&self, wanted: &Wanted) -> bool {
        let (first, last) = wanted.range;
        // The odd port after it is the range's, too.
        self.bind == wanted.bind && (first..last).contains(&self.port)
    }
}

/// How well a call would sit, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Well,
    /// What its peer sent to a call that is over may still come in.
    Strays,
    /// It, or another one, could be mistaken.
    Doubtful,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    pairs: Slab<Pair>,
    threads: usize,
}

impl Book {
    /// No ports yet.
    pub fn new(threads: usize) -> Self {
        Self {
            pairs: Slab::new(),
            threads,
        }
    }

    /// The pairs that are open.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().map(|(_, pair)| pair)
    }

    /// Whether that port is open.
    pub fn has(&self, bind: IpAddr, port: u16) -> bool {
        self.pairs()
            .any(|pair| pair.bind == bind && pair.port == port)
    }

    /// Notes a new pair of ports. What its thread is to call it is the first number that is free there.
    pub fn add(&mut self, bind: IpAddr, port: u16, thread: usize, receive_buffer: usize) -> usize {
        let taken = |slot: &usize| {
            let mut pairs = self.pairs();
            pairs.any(|pair| pair.thread == thread && pair.slot == *slot)
        };
        let slot = (0..=self.pairs.len())
            .find(|slot| !taken(slot))
            .unwrap_or_default();
        self.pairs.insert(Pair {
            bind,
            port,
            thread,
            slot,
            receive_buffer,
            seats: Slab::new(),
            strays: Vec::new(),
            idle_since: None,
        })
    }

    /// A pair.
    pub fn pair(&self, pair: usize) -> Option<&Pair> {
        self.pairs.get(pair)
    }

    /// Takes out the pairs that have had no calls for a while, or have none and are none of the range any more.
    pub fn take_unused(&mut self, wanted: &Wanted, now: Instant) -> Vec<Pair> {
        let idle = |pair: &Pair| {
            pair.idle_since
                .is_some_and(|since| now.saturating_duration_since(since) >= IDLE_FOR)
        };
        let unused = |pair: &Pair| pair.seats.is_empty() && (idle(pair) || !pair.is_of(wanted));
        let unused: Vec<usize> = self
            .pairs
            .iter()
            .filter(|(_, pair)| unused(pair))
            .map(|(index, _)| index)
            .collect();
        unused
            .into_iter()
            .map(|index| self.pairs.remove(index))
            .collect()
    }

    /// Where a call sits best, or that a pair of ports is to be opened for it.
    pub fn choose(&mut self, wanted: &Wanted, now: Instant) -> Choice {
        let mut loads = vec![0; self.threads.max(1)];
        for pair in self.pairs() {
            loads[pair.thread] += pair.calls();
        }
        let least = loads.iter().copied().min().unwrap_or_default();
        let best = |evenly: bool, worst: Fit| {
            let fitting = self.pairs.iter().filter(|(_, pair)| {
                pair.takes(wanted)
                    && (!evenly || wanted.thread.is_some() || loads[pair.thread] <= least + SLACK)
            });
            let fits = fitting.filter_map(|(index, pair)| {
                let fit = fit(pair, wanted, now).filter(|fit| *fit <= worst)?;
                Some((fit, loads[pair.thread], pair.calls(), index))
            });
            fits.min().map(|(.., index)| index)
        };
        if let Some(pair) = best(true, Fit::Well) {
            return Choice::Here(self.sit(pair, wanted));
        }
        let lightest = || loads.iter().position(|load| *load == least);
        Choice::Open {
            thread: wanted.thread.or_else(lightest).unwrap_or_default(),
            instead: best(false, Fit::Doubtful),
        }
    }

    /// Whether a call could sit on a pair that is open, if need be beside one that it could be mistaken for.
    pub fn fits(&self, wanted: &Wanted, now: Instant) -> bool {
        self.pairs()
            .any(|pair| pair.takes(wanted) && fit(pair, wanted, now).is_some())
    }

    /// A call takes a seat.
    pub fn sit(&mut self, pair: usize, wanted: &Wanted) -> Place {
        self.pairs[pair].idle_since = None;
        let seat = self.pairs[pair].seats.insert(Seat {
            remote: wanted.remote.filter(names_a_place),
            signalling: wanted.signalling,
            networks: wanted.networks.clone(),
            confirmed: None,
            since: None,
        });
        Place { pair, seat }
    }

    /// Where a call's packets are to come from, and come from. Until they do, its source is looked for.
    pub fn note(
        &mut self,
        place: Place,
        remote: Option<SocketAddr>,
        confirmed: Option<SocketAddr>,
        now: Instant,
    ) {
        let Some(pair) = self.pairs.get_mut(place.pair) else {
            return;
        };
        let Some(seat) = pair.seats.get_mut(place.seat) else {
            return;
        };
        let before = seat.confirmed.filter(|before| Some(*before) != confirmed);
        // On hold, by an address that is none, the place stays taken: it will be said again.
        let remote = remote.filter(names_a_place).or(seat.remote);
        if seat.remote != remote || seat.since.is_none() || before.is_some() {
            seat.since = Some(now);
        }
        (seat.remote, seat.confirmed) = (remote, confirmed);
        if let Some(before) = before {
            pair.forget_strays(now);
            pair.strays.push((before, now));
        }
    }

    /// A call leaves.
    pub fn leave(&mut self, place: Place, now: Instant) {
        let Some(pair) = self.pairs.get_mut(place.pair) else {
            return;
        };
        let Some(seat) = pair.seats.try_remove(place.seat) else {
            return;
        };
        pair.idle_since = pair.seats.is_empty().then_some(now);
        pair.forget_strays(now);
        // One that was never carried had no packets.
        if seat.since.is_some() {
            let sources = [seat.remote, seat.confirmed].into_iter().flatten();
            pair.strays.extend(sources.map(|source| (source, now)));
        }
    }
}

/// The old ways to say hold name none.
fn names_a_place(remote: &SocketAddr) -> bool {
    !remote.ip().is_unspecified() && remote.port() != 0
}

/// How well a call would sit there; not at all where its remote address and port are in use.
fn fit(pair: &Pair, wanted: &Wanted, now: Instant) -> Option<Fit> {
    let Some(remote) = wanted.remote.filter(names_a_place) else {
        // Where its packets will come from may be in use there.
        let alone = pair.seats.is_empty();
        return Some(if alone { Fit::Well } else { Fit::Doubtful });
    };
    let mut fit = Fit::Well;
    for (_, seat) in &pair.seats {
        if seat.uses(remote) {
            return None;
        }
        // One that waits for its remote address could get this one.
        let waits = seat.remote.is_none() && seat.since.is_none();
        if waits || (seat.looks(now) && seat.is_like(wanted)) {
            fit = Fit::Doubtful;
        }
    }
    let strays = |(source, at): &(SocketAddr, Instant)| {
        *source == remote && now.saturating_duration_since(*at) < STRAYS_FOR
    };
    if fit == Fit::Well && pair.strays.iter().any(strays) {
        fit = Fit::Strays;
    }
    Some(fit)
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
