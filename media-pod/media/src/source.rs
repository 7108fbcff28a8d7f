//! Which source address a call's RTP is taken from, and where ours goes (symmetric RTP with a fence around it).
//!
//! For a call that has a port of its own. A source is confirmed by being the address and port of the SDP, or by two
//! consecutive packets of one SSRC from the IP address of the SDP or of the signalling (a NAT changed the port). Everything
//! else is dropped and counted, so a stranger who finds the port hears nothing.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Silence after which a plausible source that continues the stream may take over.
const SILENCE: Duration = Duration::from_secs(3);
/// How far the sequence number may have advanced meanwhile.
const MAX_ADVANCE: u16 = 3000;

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// From the confirmed source.
    Accepted,
    /// Accepted, and the source is another one than before.
    Moved {
        /// Where the call's packets came from until now.
        from: SocketAddr,
        /// Where they come from now.
        to: SocketAddr,
    },
    /// Plausible; the next consecutive packet confirms. Drop it.
    Pending,
    /// Not this call's source. Drop it.
    Rejected,
}

/// The source of one call's packets.
#[derive(Debug)]
pub struct SourceFilter {
    sdp: Option<SocketAddr>,
    signalling: Option<IpAddr>,
    confirmed: Option<Confirmed>,
    /// The last confirmed source, kept over a new SDP to tell a move from a start.
    previous: Option<SocketAddr>,
    candidate: Option<Candidate>,
    moves: u64,
    rejected: u64,
}

#[derive(Debug)]
struct Confirmed {
    address: SocketAddr,
    ssrc: u32,
    sequence: u16,
    last: Instant,
}

#[derive(Debug)]
struct Candidate {
    address: SocketAddr,
    ssrc: u32,
    sequence: u16,
}

impl SourceFilter {
    /// `sdp`: where the peer wants to get media; `signalling`: the IP address its SIP comes from.
    pub fn new(sdp: Option<SocketAddr>, signalling: Option<IpAddr>) -> Self {
        Self {
            sdp: sdp.map(canonical),
            signalling: signalling.map(|ip| ip.to_canonical()),
            confirmed: None,
            previous: None,
            candidate: None,
            moves: 0,
            rejected: 0,
        }
    }

    /// Judges one packet.
    pub fn check(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, now: Instant) -> Verdict {
        let from = canonical(from);
        let exact = self.sdp == Some(from);
        if let Some(confirmed) = self.confirmed.as_mut() {
            if confirmed.address == from {
                let newer = sequence.wrapping_sub(confirmed.sequence) < 0x8000;
                if confirmed.ssrc != ssrc || newer {
                    confirmed.sequence = sequence;
                }
                confirmed.ssrc = ssrc;
                confirmed.last = now;
                return Verdict::Accepted;
            }
            let advance = sequence.wrapping_sub(confirmed.sequence);
            let continues = confirmed.ssrc == ssrc && (1..=MAX_ADVANCE).contains(&advance);
            let silent = now.saturating_duration_since(confirmed.last) >= SILENCE;
            // Packets from where the SDP says outrank a source that is only plausible: an old stream in flight after a
            // re-INVITE must not lock out the new one.
            let takes_over = exact || (silent && continues && self.is_plausible(from.ip()));
            return if takes_over {
                self.confirm(from, ssrc, sequence, now)
            } else {
                self.reject()
            };
        }
        if exact {
            return self.confirm(from, ssrc, sequence, now);
        }
        if !self.is_plausible(from.ip()) {
            return self.reject();
        }
        let follows = self.candidate.as_ref().is_some_and(|candidate| {
            candidate.address == from
                && candidate.ssrc == ssrc
                && sequence == candidate.sequence.wrapping_add(1)
        });
        if follows {
            return self.confirm(from, ssrc, sequence, now);
        }
        self.candidate = Some(Candidate {
            address: from,
            ssrc,
            sequence,
        });
        Verdict::Pending
    }

    /// Whether media of this call may come from that address: it is in the SDP, or the signalling comes from it.
    pub fn is_plausible(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.sdp.is_some_and(|sdp| sdp.ip() == ip) || self.signalling == Some(ip)
    }

    fn reject(&mut self) -> Verdict {
        self.rejected += 1;
        Verdict::Rejected
    }

    fn confirm(&mut self, address: SocketAddr, ssrc: u32, sequence: u16, now: Instant) -> Verdict {
        self.confirmed = Some(Confirmed {
            address,
            ssrc,
            sequence,
            last: now,
        });
        self.candidate = None;
        match self.previous.replace(address) {
            Some(from) if from != address => {
                self.moves += 1;
                Verdict::Moved { from, to: address }
            }
            _ => Verdict::Accepted,
        }
    }

    /// The peer's new SDP address. The confirmed source stays only if the address is unchanged or is that source.
    pub fn set_remote(&mut self, sdp: Option<SocketAddr>) {
        let sdp = sdp.map(canonical);
        if sdp == self.sdp {
            return;
        }
        self.sdp = sdp;
        self.candidate = None;
        if self
            .confirmed
            .as_ref()
            .is_some_and(|confirmed| Some(confirmed.address) != sdp)
        {
            self.confirmed = None;
        }
    }

    /// Where to send: the confirmed source, else the SDP's address. `None` without one, or with one that can't be sent to
    /// (0.0.0.0 or port 0, the old ways to say hold).
    pub fn destination(&self) -> Option<SocketAddr> {
        let usable = self
            .sdp
            .filter(|sdp| !sdp.ip().is_unspecified() && sdp.port() != 0)?;
        Some(
            self.confirmed
                .as_ref()
                .map_or(usable, |confirmed| confirmed.address),
        )
    }

    /// How often the source changed.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Packets dropped because of their source.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }
}

/// An IPv4 address that arrived on an IPv6 socket is the same address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn filter() -> SourceFilter {
        SourceFilter::new(
            Some(address("192.0.2.1:4000")),
            Some("198.51.100.9".parse().unwrap()),
        )
    }

    #[test]
    fn the_exact_sdp_address_is_confirmed_by_one_packet() {
        let mut filter = filter();
        assert_eq!(
            filter.check(address("192.0.2.1:4000"), 1, 1, Instant::now()),
            Verdict::Accepted
        );
        assert_eq!(
            filter.check(address("[::ffff:192.0.2.1]:4000"), 1, 2, Instant::now()),
            Verdict::Accepted
        );
    }

    #[test]
    fn a_natted_port_needs_two_consecutive_packets_of_one_ssrc() {
        for ip in ["192.0.2.1:5555", "198.51.100.9:5555"] {
            let (mut filter, now) = (filter(), Instant::now());
            assert_eq!(filter.destination(), Some(address("192.0.2.1:4000")));
            assert_eq!(filter.check(address(ip), 1, 65535, now), Verdict::Pending);
            assert_eq!(filter.check(address(ip), 2, 0, now), Verdict::Pending);
            assert_eq!(filter.check(address(ip), 2, 5, now), Verdict::Pending);
            assert_eq!(filter.check(address(ip), 2, 6, now), Verdict::Accepted);
            assert_eq!(filter.destination(), Some(address(ip)));
        }
    }

    #[test]
    fn a_stranger_is_rejected_and_counted() {
        let mut filter = filter();
        for sequence in 0..5 {
            assert_eq!(
                filter.check(address("203.0.113.7:4000"), 1, sequence, Instant::now()),
                Verdict::Rejected
            );
        }
        assert_eq!(filter.rejected(), 5);
        assert_eq!(filter.destination(), Some(address("192.0.2.1:4000")));
    }

    #[test]
    fn a_confirmed_source_is_not_stolen_while_it_sends() {
        let (mut filter, now) = (filter(), Instant::now());
        filter.check(address("192.0.2.1:4000"), 1, 1, now);
        for sequence in 2..10 {
            assert_eq!(
                filter.check(address("192.0.2.1:6000"), 1, sequence, now),
                Verdict::Rejected
            );
        }
    }

    #[test]
    fn a_silent_source_is_replaced_only_by_a_plausible_one_that_continues_the_stream() {
        let (mut filter, start) = (filter(), Instant::now());
        let (old, new) = (address("192.0.2.1:4000"), address("198.51.100.9:7000"));
        filter.check(old, 1, 100, start);
        let later = start + Duration::from_secs(3);
        assert_eq!(
            filter.check(new, 1, 101, start + Duration::from_millis(2999)),
            Verdict::Rejected
        );
        assert_eq!(filter.check(new, 2, 101, later), Verdict::Rejected);
        assert_eq!(filter.check(new, 1, 99, later), Verdict::Rejected);
        assert_eq!(
            filter.check(address("203.0.113.7:7000"), 1, 101, later),
            Verdict::Rejected
        );
        assert_eq!(
            filter.check(new, 1, 250, later),
            Verdict::Moved { from: old, to: new }
        );
        assert_eq!((filter.moves(), filter.destination()), (1, Some(new)));
    }

    #[test]
    fn a_new_sdp_moves_the_source_and_sends_there_at_once() {
        let (mut filter, now) = (filter(), Instant::now());
        let (old, new) = (address("192.0.2.1:4000"), address("192.0.2.8:9000"));
        filter.check(old, 1, 1, now);
        filter.set_remote(Some(new));
        assert_eq!(filter.destination(), Some(new));
        assert_eq!(filter.check(old, 1, 2, now), Verdict::Rejected);
        assert_eq!(
            filter.check(new, 7, 1, now),
            Verdict::Moved { from: old, to: new }
        );
    }

    #[test]
    fn an_old_stream_in_flight_does_not_lock_out_the_new_sdp_address() {
        let (mut filter, now) = (filter(), Instant::now());
        let (old, new) = (address("192.0.2.1:4000"), address("192.0.2.1:4100"));
        filter.check(old, 1, 1, now);
        filter.set_remote(Some(new));
        filter.check(old, 1, 2, now);
        assert_eq!(filter.check(old, 1, 3, now), Verdict::Accepted);
        assert_eq!(
            filter.check(new, 5, 1, now),
            Verdict::Moved { from: old, to: new }
        );
        assert_eq!(filter.check(old, 1, 4, now), Verdict::Rejected);
    }

    #[test]
    fn an_unchanged_sdp_keeps_the_confirmed_source() {
        let (mut filter, now) = (filter(), Instant::now());
        let natted = address("192.0.2.1:5555");
        filter.check(natted, 1, 1, now);
        filter.check(natted, 1, 2, now);
        filter.set_remote(Some(address("192.0.2.1:4000")));
        assert_eq!(filter.destination(), Some(natted));
    }

    #[test]
    fn nothing_is_sent_to_an_unspecified_address() {
        let mut filter = filter();
        filter.set_remote(Some(address("0.0.0.0:4000")));
        assert_eq!(filter.destination(), None);
        filter.set_remote(None);
        assert_eq!(filter.destination(), None);
    }
}
