//! The pairs of ports of a thread: their sockets, and whose packets come in there.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use mio::net::UdpSocket;
use mio::{Interest, Registry};
use slab::Slab;

use super::call::{Call, Part};
use super::inbox::Inbox;
use crate::dtls;
use crate::ports::demux::{self, Demux, Peer, Peers, Route, Sight, Trial, Why};
use crate::ports::{Counts, Sockets};
use crate::rtp;
use crate::stun;

/// Longest packet that is tried on keys.
const TRIED: usize = 2048;

/// A pair of ports.
pub struct Pair {
    rtp: UdpSocket,
    reports: UdpSocket,
    is_ipv4: bool,
    pub demux: Demux,
}

/// Those of a thread, by the numbers that seats have.
pub struct Pairs {
    pairs: Vec<Option<Pair>>,
    pub counts: Arc<Counts>,
}

impl Pairs {
    /// None yet.
    pub fn new(counts: Arc<Counts>) -> Self {
        Self {
            pairs: Vec::new(),
            counts,
        }
    }

    /// Watches a new pair.
    pub fn open(&mut self, registry: &Registry, slot: usize, sockets: Sockets) -> io::Result<()> {
        let Sockets { rtp, reports, .. } = sockets;
        let mut pair = Pair {
            is_ipv4: rtp.local_addr()?.is_ipv4(),
            rtp: UdpSocket::from_std(rtp),
            reports: UdpSocket::from_std(reports),
            demux: Demux::default(),
        };
        let parts = [
            (&mut pair.rtp, Part::Rtp),
            (&mut pair.reports, Part::Reports),
        ];
        for (socket, part) in parts {
            registry.register(socket, part.token(slot), Interest::READABLE)?;
        }
        if self.pairs.len() <= slot {
            self.pairs.resize_with(slot + 1, || None);
        }
        self.pairs[slot] = Some(pair);
        Ok(())
    }

    /// Closes a pair.
    pub fn close(&mut self, slot: usize) {
        if let Some(pair) = self.pairs.get_mut(slot) {
            *pair = None;
        }
    }

    /// The sockets of a pair.
    pub fn get(&self, slot: usize) -> Way<'_> {
        Way(self.pairs.get(slot).and_then(Option::as_ref))
    }

    /// A pair.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Pair> {
        self.pairs.get_mut(slot)?.as_mut()
    }
}

/// The way out.
pub struct Way<'a>(Option<&'a Pair>);

impl<'a> Way<'a> {
    /// Where it begins.
    pub fn socket(&self, part: Part) -> Option<&'a UdpSocket> {
        self.0.map(|pair| pair.socket(part))
    }

    /// Sends a datagram at once. A full buffer loses it, as the network might.
    pub fn send(&self, part: Part, datagram: &[u8], to: SocketAddr) {
        if let Some(socket) = self.socket(part) {
            let _ = socket.send_to(datagram, to);
        }
    }
}

impl Pair {
    fn socket(&self, part: Part) -> &UdpSocket {
        match part {
            Part::Rtp => &self.rtp,
            Part::Reports | Part::Agent => &self.reports,
        }
    }

    /// Reads what came in there, as [`Inbox::fill`].
    pub fn read(&self, part: Part, inbox: &mut Inbox) -> usize {
        inbox.fill(self.socket(part), self.is_ipv4)
    }

    /// Whose a datagram is that came in there. One that is tried on keys has reached its call already.
    pub fn route(
        &mut self,
        part: Part,
        datagram: &[u8],
        from: SocketAddr,
        calls: &mut Slab<Call>,
        now: Instant,
    ) -> Route {
        let stranger = Route::Nobody(Why::Stranger);
        if stun::is_meant(datagram) && self.demux.has_checks() {
            return self.demux.check(datagram, from);
        }
        if part != Part::Rtp && dtls::Handshake::is_meant(datagram) {
            return self.demux.reports(from, None, &Calls(calls));
        }
        if part != Part::Rtp || rtp::is_rtcp(datagram) {
            return demux::reporter(datagram).map_or(stranger, |sender| {
                self.demux.reports(from, Some(sender), &Calls(calls))
            });
        }
        if let Some(call) = self.demux.known(from) {
            return Route::Call(call);
        }
        if dtls::Handshake::is_meant(datagram) {
            return self.demux.handshake(from, now, &Calls(calls));
        }
        let Some(sight) = Sight::of(datagram, from) else {
            return stranger;
        };
        let mut packet = Packet {
            calls,
            datagram,
            from,
            now,
        };
        self.demux.route(sight, now, &mut packet)
    }
}

fn peer(calls: &Slab<Call>, call: usize) -> Option<Peer<'_>> {
    let media = calls.get(call)?.media.as_ref()?;
    Some(media.stream.peer())
}

/// The calls of a thread.
struct Calls<'a>(&'a Slab<Call>);

impl Peers for Calls<'_> {
    fn peer(&self, call: usize) -> Option<Peer<'_>> {
        peer(self.0, call)
    }
}

/// A packet of an unknown source.
struct Packet<'a> {
    calls: &'a mut Slab<Call>,
    datagram: &'a [u8],
    from: SocketAddr,
    now: Instant,
}

impl Peers for Packet<'_> {
    fn peer(&self, call: usize) -> Option<Peer<'_>> {
        peer(self.calls, call)
    }
}

impl Trial for Packet<'_> {
    fn prove(&mut self, call: usize) -> bool {
        // What is tried may not be read any more.
        let mut copy = [0; TRIED];
        let Some(copy) = copy.get_mut(..self.datagram.len()) else {
            return false;
        };
        copy.copy_from_slice(self.datagram);
        let media = self
            .calls
            .get_mut(call)
            .and_then(|call| call.media.as_mut());
        let Some(media) = media else { return false };
        let (from, now) = (self.from, self.now);
        // A fault in one call is none of the packet's other calls.
        let proved = catch_unwind(AssertUnwindSafe(|| media.prove(copy, from, now)));
        proved.unwrap_or(false)
    }
}
