//! Which source address a call's RTP is taken from, and where ours goes (symmetric RTP with a fence around it).
//!
//! For one call; which of the calls that share a port a packet is for is [`crate::ports::demux`]'s to say. A source is confirmed by being
//! the address and port of the SDP, or by two consecutive packets of one SSRC from the IP address of the SDP or of the signalling (a NAT
//! changed the port), or from one of the provider's (another of its machines sends). Everything else is dropped and counted, so a stranger who finds the port hears nothing.
//!
//! Where ICE was agreed on, the first check of the peer ends all that: from then on packets come from where checks have come from, and go
//! where the peer wants them ([`Paths`]).

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::ice::{Paths, Proof};
use crate::networks::Networks;

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
    /// The provider's.
    networks: Networks,
    confirmed: Option<Confirmed>,
    /// The last confirmed source, kept over a new SDP to tell a move from a start.
    previous: Option<SocketAddr>,
    candidate: Option<Candidate>,
    moves: u64,
    rejected: u64,
    /// Changes with what is confirmed and what the SDP says.
    version: u32,
    ice: Option<Box<Ice>>,
}

/// What ICE found.
#[derive(Debug)]
struct Ice {
    /// Our name in checks.
    ufrag: String,
    paths: Paths,
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
            networks: Networks::default(),
            confirmed: None,
            previous: None,
            candidate: None,
            moves: 0,
            rejected: 0,
            version: 0,
            ice: None,
        }
    }

    /// The same with the provider's networks.
    #[must_use]
    pub fn or_from(self, networks: Networks) -> Self {
        Self { networks, ..self }
    }

    /// Under which name the peer's checks come; nothing without ICE. Another name than before begins anew with what was found as it is.
    pub fn set_ufrag(&mut self, ufrag: Option<&str>) {
        if self.ufrag() == ufrag {
            return;
        }
        self.version = self.version.wrapping_add(1);
        self.ice = ufrag.map(|ufrag| {
            let mut paths = self.ice.take().map(|ice| ice.paths).unwrap_or_default();
            paths.restart();
            let ufrag = ufrag.to_owned();
            Box::new(Ice { ufrag, paths })
        });
    }

    /// Under which name the peer's checks come.
    pub fn ufrag(&self) -> Option<&str> {
        self.ice.as_deref().map(|ice| ice.ufrag.as_str())
    }

    /// A check of the peer's came from there. Gives the move, if packets went elsewhere before.
    pub fn note_check(
        &mut self,
        from: SocketAddr,
        proof: Proof,
        now: Instant,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let ice = self.ice.as_mut()?;
        if !ice.paths.note(canonical(from), proof, now) {
            return None;
        }
        self.version = self.version.wrapping_add(1);
        let chosen = ice.paths.chosen()?;
        // Before anything was heard, nothing has moved.
        let heard = self.previous.filter(|_| self.confirmed.is_some());
        self.previous = Some(chosen);
        let from = heard.filter(|before| *before != chosen)?;
        self.moves += 1;
        Some((from, chosen))
    }

    /// Where checks have come from; nothing as long as there were none.
    fn paths(&self) -> Option<&Paths> {
        let paths = &self.ice.as_ref()?.paths;
        paths.is_known().then_some(paths)
    }

    /// Whether only checks tell where packets may come from.
    pub fn is_checked(&self) -> bool {
        self.paths().is_some()
    }

    /// All addresses that checks have come from.
    pub fn checked(&self) -> impl Iterator<Item = SocketAddr> {
        self.paths().into_iter().flat_map(Paths::addresses)
    }

    /// Judges one packet.
    pub fn check(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, now: Instant) -> Verdict {
        let from = canonical(from);
        if let Some(paths) = self.paths() {
            return if paths.has(from, now) {
                self.hear(from, ssrc, sequence, now)
            } else {
                self.reject()
            };
        }
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
            // Packets from where the SDP says outrank a source that is only plausible: an old stream in flight after a
            // re-INVITE must not lock out the new one.
            return if exact || self.continues(from, ssrc, sequence, now) {
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

    /// Judges one packet that was made with the call's key: it may come from wherever it does, but moves a source that is heard only to
    /// where the SDP says.
    pub fn check_authentic(
        &mut self,
        from: SocketAddr,
        ssrc: u32,
        sequence: u16,
        now: Instant,
    ) -> Verdict {
        let from = canonical(from);
        let silent = self.is_silent(now) && !self.is_checked();
        if silent && self.confirmed() != Some(from) {
            return self.confirm(from, ssrc, sequence, now);
        }
        self.check(from, ssrc, sequence, now)
    }

    /// A packet from where a check has come from. It moves nothing.
    fn hear(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, now: Instant) -> Verdict {
        if self.confirmed.is_none() {
            self.version = self.version.wrapping_add(1);
        }
        self.confirmed = Some(Confirmed {
            address: from,
            ssrc,
            sequence,
            last: now,
        });
        Verdict::Accepted
    }

    /// Whether a packet goes on with the stream of a source that has fallen silent, from another plausible address.
    pub fn continues(&self, from: SocketAddr, ssrc: u32, sequence: u16, now: Instant) -> bool {
        let confirmed = self.confirmed.as_ref().filter(|_| !self.is_checked());
        confirmed.is_some_and(|confirmed| {
            let advance = sequence.wrapping_sub(confirmed.sequence);
            confirmed.ssrc == ssrc
                && (1..=MAX_ADVANCE).contains(&advance)
                && self.is_silent(now)
                && self.is_plausible(from.ip())
        })
    }

    /// Whether nothing has been heard of it for so long that another source may take over; or never was.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.confirmed
            .as_ref()
            .is_none_or(|confirmed| now.saturating_duration_since(confirmed.last) >= SILENCE)
    }

    /// The confirmed source; with ICE the one that was chosen.
    pub fn confirmed(&self) -> Option<SocketAddr> {
        let heard = self.confirmed.as_ref().map(|confirmed| confirmed.address);
        self.paths().map_or(heard, Paths::chosen)
    }

    /// The synchronisation source that was last heard from there.
    pub fn ssrc(&self) -> Option<u32> {
        self.confirmed.as_ref().map(|confirmed| confirmed.ssrc)
    }

    /// Where the peer's SDP wants its packets.
    pub fn sdp(&self) -> Option<SocketAddr> {
        self.sdp
    }

    /// Where its signalling comes from.
    pub fn signalling(&self) -> Option<IpAddr> {
        self.signalling
    }

    /// The provider's networks, from which its packets may come as well.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Another one whenever [`Self::confirmed`] or [`Self::sdp`] has changed.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether handshakes, reports and packets that prove themselves are no surprise from that address. The provider's networks are for sound
    /// alone: what else their other machines could send, these need not.
    pub fn expects(&self, from: SocketAddr) -> bool {
        let from = canonical(from);
        if self.is_checked() {
            return self.checked().any(|checked| checked == from);
        }
        self.confirmed() == Some(from) || self.is_named(from.ip())
    }

    /// Counts a packet that was not looked at.
    pub fn note_stranger(&mut self) {
        self.rejected += 1;
    }

    /// Whether that address is in the SDP, or the signalling comes from it.
    pub fn is_named(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.sdp.is_some_and(|sdp| sdp.ip() == ip) || self.signalling == Some(ip)
    }

    /// Whether sound of this call may come from that address: it is named, or the provider's.
    fn is_plausible(&self, ip: IpAddr) -> bool {
        self.is_named(ip) || self.networks.contains(ip)
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
        self.version = self.version.wrapping_add(1);
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
        self.version = self.version.wrapping_add(1);
        if self
            .confirmed
            .as_ref()
            .is_some_and(|confirmed| Some(confirmed.address) != sdp)
        {
            self.confirmed = None;
        }
    }

    /// Where to send: the confirmed source, else the SDP's address. `None` without one, or with one that can't be sent to
    /// (0.0.0.0 or port 0, the old ways to say hold). With ICE nothing goes where nothing has come from.
    pub fn destination(&self) -> Option<SocketAddr> {
        if self.ice.is_some() {
            return self.confirmed();
        }
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
    fn another_machine_of_the_provider_needs_two_packets_too() {
        let networks = Networks::new(["203.0.113.0/28".parse().unwrap()]);
        let (mut filter, now) = (filter().or_from(networks), Instant::now());
        let (machine, stranger) = (address("203.0.113.7:9000"), address("203.0.113.16:9000"));
        // For sound alone.
        assert!(!filter.expects(machine) && !filter.expects(stranger));
        assert_eq!(filter.check(machine, 1, 1, now), Verdict::Pending);
        assert_eq!(filter.check(stranger, 1, 2, now), Verdict::Rejected);
        assert_eq!(filter.check(machine, 1, 2, now), Verdict::Accepted);
        assert_eq!(filter.destination(), Some(machine));
        // Another one of its own goes on only where this one has fallen silent.
        let other = address("203.0.113.8:9000");
        assert_eq!(filter.check(other, 1, 3, now), Verdict::Rejected);
        let moved = filter.check(other, 1, 3, now + SILENCE);
        let (from, to) = (machine, other);
        assert_eq!(moved, Verdict::Moved { from, to });
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
