//! Whose a packet is, where many calls share a port.
//!
//! It is that call's whose confirmed source it comes from, or else whose SDP names exactly its address and port: one look into a map. Only
//! packets from elsewhere are ambiguous (a NAT changed the port, the peer moved, or a stranger sends). Such a packet is for a call that is
//! encrypted if it was made with the call's key, for one that has fallen silent if it goes on with its stream from a plausible address, or
//! else for the only one of which no source is known yet and that is plausible. If there are several of these, or none, it is dropped and
//! counted. Whether a call then believes it is the call's own to say ([`crate::source`]).
//!
//! Checks (ICE) say in their user name whose they are; what comes from where a good one came from is that call's.
//!
//! No sockets and no clock here. The owner names calls by numbers, and tells of what their source filters found.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::cover::Door;
use crate::networks::Networks;
use crate::source::SourceFilter;
use crate::stun;

/// A call of which no source is known is no candidate for packets from elsewhere any more after so long: it must not stand in the way of
/// new ones. Packets from where its SDP says are taken all the same.
pub const CANDIDATE_FOR: Duration = Duration::from_secs(5);

/// What comes from where a call had its packets from is nobody else's for so long after its end.
pub const STRAYS_FOR: Duration = Duration::from_secs(5);

/// The same for packets with its synchronisation source: a peer that did not hear our BYE goes on for a while.
const STREAM_FOR: Duration = Duration::from_secs(30);

/// Calls on whose keys one packet is tried.
const TRIALS: usize = 4;

/// Packets a second that are tried on keys: from addresses that a call's could come from, and from others.
const LIKELY_TRIALS: u32 = 100;
const STRANGE_TRIALS: u32 = 10;

/// Former sources for which nothing is thrown away yet.
const FORMER: usize = 64;
/// And no more often than this.
const SWEEP: Duration = Duration::from_secs(1);

/// What a call knows of its peer.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Its sources.
    pub source: &'a SourceFilter,
    /// What packets need.
    pub door: Door,
    /// Whether keys come from a handshake.
    pub shakes_hands: bool,
    /// Where its reports come from, if its SDP says so.
    pub reports: Option<SocketAddr>,
}

/// The calls of a port.
pub trait Peers {
    /// The peer of a call.
    fn peer(&self, call: usize) -> Option<Peer<'_>>;
}

/// The same with a packet that may be tried on their keys.
pub trait Trial: Peers {
    /// Tries the packet on the call's key; if it fits, the call has it.
    fn prove(&mut self, call: usize) -> bool;
}

/// What of a packet tells whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Where it comes from; IPv4 addresses as such.
    pub from: SocketAddr,
    /// Its synchronisation source.
    pub ssrc: u32,
    /// Its number.
    pub sequence: u16,
}

impl Sight {
    /// Looks at an RTP packet; nothing if it is none.
    pub fn of(datagram: &[u8], from: SocketAddr) -> Option<Self> {
        let word = |at: usize| datagram.get(at..at + 4)?.try_into().ok();
        let first = word(0).filter(|first: &[u8; 4]| first[0] >> 6 == 2)?;
        Some(Self {
            from,
            ssrc: u32::from_be_bytes(word(8)?),
            sequence: u16::from_be_bytes([first[2], first[3]]),
        })
    }
}

/// The synchronisation source of the sender of reports; nothing if it is none. Encrypted ones show it too.
pub fn reporter(datagram: &[u8]) -> Option<u32> {
    let ssrc = datagram.get(4..8)?.try_into().ok()?;
    crate::rtp::is_rtcp(datagram).then(|| u32::from_be_bytes(ssrc))
}

/// Why a packet is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No call expects it.
    Stranger,
    /// It could be of several calls.
    Ambiguous,
    /// Its source was that of a call that is over, or went elsewhere.
    Former,
    /// It is a check (ICE) that no call asked for, or was made without the call's password.
    BadCheck,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Stranger,
        Self::Ambiguous,
        Self::Former,
        Self::BadCheck,
    ];
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To that call, which judges it.
    Call(usize),
    /// It has proved to be that call's, which has it.
    Proved(usize),
    /// It is a check for that call, which judges it.
    Check(usize),
    /// To nobody.
    Nobody(Why),
}

/// How many calls there are of a kind: none, one, or it cannot be told.
#[derive(Debug, Clone, Copy, Default)]
enum Only {
    #[default]
    None,
    One(usize),
    Many,
}

impl Only {
    fn add(&mut self, call: usize) {
        *self = match self {
            Self::None => Self::One(call),
            Self::One(_) | Self::Many => Self::Many,
        };
    }

    fn one(self) -> Option<usize> {
        match self {
            Self::One(call) => Some(call),
            Self::None | Self::Many => None,
        }
    }
}

/// Who gets what comes from an address.
#[derive(Debug, Default)]
struct Owner {
    confirmed: Option<usize>,
    checked: Option<usize>,
    sdp: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    sdp: Option<SocketAddr>,
    confirmed: Option<SocketAddr>,
    ssrc: Option<u32>,
    /// Where packets are no surprise: addresses of SDP, signalling and confirmed source.
    plausible: [Option<IpAddr>; 3],
    /// The name that its checks come under.
    ufrag: Option<String>,
    /// Where good ones came from.
    checked: Vec<SocketAddr>,
    /// Since when a source is looked for.
    since: Instant,
}

/// Where a call's packets came from, and do no more.
#[derive(Debug)]
struct Former {
    call: usize,
    /// It is over.
    over: bool,
    ssrc: Option<u32>,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Demux {
    entries: HashMap<usize, Entry>,
    owners: HashMap<SocketAddr, Owner>,
    by_ip: HashMap<IpAddr, Vec<usize>>,
    /// Calls by the networks of their providers, of which there are few.
    by_networks: Vec<(Networks, Vec<usize>)>,
    by_ufrag: HashMap<String, usize>,
    former: HashMap<SocketAddr, Former>,
    /// When the old ones of these were last looked for.
    former_swept: Option<Instant>,
    trials: [Bucket; 2],
    /// Whose turn it is to be tried by strangers' packets.
    turn: usize,
}

impl Demux {
    /// A call is on this port from now on.
    pub fn open(&mut self, call: usize, source: &SourceFilter, now: Instant) {
        let entry = Entry {
            sdp: None,
            confirmed: None,
            ssrc: None,
            plausible: [None; 3],
            ufrag: None,
            checked: Vec::new(),
            since: now,
        };
        self.entries.insert(call, entry);
        let networks = source.networks();
        if !networks.is_empty() {
            let mut known = self.by_networks.iter_mut();
            match known.find(|(known, _)| known == networks) {
                Some((_, calls)) => calls.push(call),
                None => self.by_networks.push((networks.clone(), vec![call])),
            }
        }
        self.follow(call, source, now);
    }

    /// A call's confirmed source, or what its SDP says, has changed.
    pub fn follow(&mut self, call: usize, source: &SourceFilter, now: Instant) {
        let Some(entry) = self.entries.get_mut(&call) else {
            return;
        };
        let sdp = source
            .sdp()
            .filter(|sdp| !sdp.ip().is_unspecified() && sdp.port() != 0);
        let confirmed = source.confirmed();
        let before = (entry.sdp, entry.confirmed, entry.plausible);
        let ssrc = std::mem::replace(&mut entry.ssrc, source.ssrc());
        if confirmed.is_none() && (before.1.is_some() || before.0 != sdp) {
            entry.since = now;
        }
        let plausible = [
            sdp.map(|sdp| sdp.ip()),
            source.signalling(),
            confirmed.map(|confirmed| confirmed.ip()),
        ];
        (entry.sdp, entry.confirmed, entry.plausible) = (sdp, confirmed, plausible);
        self.follow_checks(call, source.ufrag(), source.checked().collect());
        self.list(call, before.2, plausible);
        if before.0 != sdp {
            self.disclaim(call, before.0);
            if let Some(sdp) = sdp {
                // The older claim stands.
                self.owners.entry(sdp).or_default().sdp.get_or_insert(call);
            }
        }
        if before.1 != confirmed {
            self.unconfirm(call, before.1, ssrc, false, now);
            if let Some(confirmed) = confirmed {
                self.former.remove(&confirmed);
                let owner = self.owners.entry(confirmed).or_default();
                owner.confirmed.get_or_insert(call);
            }
        }
    }

    /// The name of a call's checks, and where good ones came from, are these from now on.
    fn follow_checks(&mut self, call: usize, ufrag: Option<&str>, checked: Vec<SocketAddr>) {
        let Some(entry) = self.entries.get_mut(&call) else {
            return;
        };
        if entry.ufrag.as_deref() != ufrag {
            let before = std::mem::replace(&mut entry.ufrag, ufrag.map(str::to_owned));
            if let Some(before) = before.filter(|name| self.by_ufrag.get(name) == Some(&call)) {
                self.by_ufrag.remove(&before);
            }
            if let Some(ufrag) = ufrag {
                self.by_ufrag.entry(ufrag.to_owned()).or_insert(call);
            }
        }
        if entry.checked != checked {
            let before = std::mem::replace(&mut entry.checked, checked.clone());
            for gone in before.iter().filter(|before| !checked.contains(before)) {
                if let Some(owner) = self.owners.get_mut(gone) {
                    owner.checked.take_if(|owner| *owner == call);
                }
                self.forget(*gone);
            }
            for address in checked {
                let owner = self.owners.entry(address).or_default();
                owner.checked.get_or_insert(call);
            }
        }
    }

    /// A call is not on this port any more.
    pub fn close(&mut self, call: usize, now: Instant) {
        self.follow_checks(call, None, Vec::new());
        let Some(entry) = self.entries.remove(&call) else {
            return;
        };
        self.list(call, entry.plausible, [None; 3]);
        self.by_networks.retain_mut(|(_, calls)| {
            calls.retain(|other| *other != call);
            !calls.is_empty()
        });
        self.disclaim(call, entry.sdp);
        // What was never heard may still begin.
        let source = entry.confirmed.or(entry.sdp);
        self.unconfirm(call, source, entry.ssrc, true, now);
        for former in self.former.values_mut() {
            former.over |= former.call == call;
        }
    }

    /// Whether no call is on this port.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whose a packet from there is beyond doubt.
    pub fn known(&self, from: SocketAddr) -> Option<usize> {
        let owner = self.owners.get(&from)?;
        // A check may have come from anywhere, and long ago. Where a peer wants its packets is confirmed by that.
        owner.confirmed.or(owner.sdp).or(owner.checked)
    }

    /// Whether checks may come here.
    pub fn has_checks(&self) -> bool {
        !self.by_ufrag.is_empty()
    }

    /// Whose a check is. Without the name of one of our calls it is not answered.
    pub fn check(&self, datagram: &[u8], from: SocketAddr) -> Route {
        let Some(message) = stun::Message::read(datagram) else {
            return Route::Nobody(Why::BadCheck);
        };
        let call = if message.is_request() {
            let call = message.ufrag().and_then(|ufrag| self.by_ufrag.get(ufrag));
            call.map(|call| Route::Check(*call))
        } else if message.is_indication() {
            // It keeps a way open, and is all there is to it.
            self.known(from).map(Route::Call)
        } else {
            None
        };
        call.unwrap_or(Route::Nobody(Why::BadCheck))
    }

    /// The calls that name that address.
    fn naming(&self, ip: IpAddr) -> &[usize] {
        self.by_ip.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// The calls whose sound is no surprise from there, each once.
    fn expecting(&self, ip: IpAddr) -> impl Iterator<Item = usize> + Clone {
        let by_ip = self.naming(ip);
        let of_provider = self.by_networks.iter();
        let of_provider = of_provider.filter(move |(networks, _)| networks.contains(ip));
        let others = of_provider
            .flat_map(|(_, calls)| calls)
            .filter(move |call| {
                let entry = self.entries.get(call);
                entry.is_some_and(|entry| !entry.plausible.contains(&Some(ip)))
            });
        by_ip.iter().chain(others).copied()
    }

    /// Whose an RTP packet is.
    pub fn route(&mut self, sight: Sight, now: Instant, peers: &mut impl Trial) -> Route {
        if let Some(call) = self.known(sight.from) {
            return Route::Call(call);
        }
        if let Some(call) = self.prove(sight, now, peers) {
            return Route::Proved(call);
        }
        let only = match self.former_of(sight, now) {
            Some(Err(why)) => return Route::Nobody(why),
            Some(Ok(call)) => Some(call),
            None => None,
        };
        let (mut going_on, mut new) = (Only::None, Only::None);
        for call in self.expecting(sight.from.ip()) {
            let Some(peer) = peers.peer(call).filter(|peer| peer.door == Door::Open) else {
                continue;
            };
            if only.is_some_and(|only| only != call) {
                continue;
            }
            let Sight {
                from,
                ssrc,
                sequence,
            } = sight;
            if peer.source.continues(from, ssrc, sequence, now) {
                going_on.add(call);
            } else if self.looks(call, peer.source, now) {
                new.add(call);
            }
        }
        match (going_on, new) {
            (Only::One(call), _) | (Only::None, Only::One(call)) => Route::Call(call),
            (Only::Many, _) | (_, Only::Many) => Route::Nobody(Why::Ambiguous),
            (Only::None, Only::None) => Route::Nobody(Why::Stranger),
        }
    }

    /// Whose a datagram of a handshake is.
    pub fn handshake(&self, from: SocketAddr, now: Instant, peers: &impl Peers) -> Route {
        if let Some(call) = self.known(from) {
            return Route::Call(call);
        }
        let mut new = Only::None;
        for &call in self.naming(from.ip()) {
            let peer = peers.peer(call).filter(|peer| peer.shakes_hands);
            if peer.is_some_and(|peer| self.looks(call, peer.source, now)) {
                new.add(call);
            }
        }
        route_of(new)
    }

    /// Whose reports are, by the synchronisation source of their sender, or by where they come from. They move nothing. Without a sender it
    /// is a datagram of a handshake for them.
    pub fn reports(&self, from: SocketAddr, sender: Option<u32>, peers: &impl Peers) -> Route {
        let (mut by_sender, mut by_address, mut any) = (Only::None, Only::None, Only::None);
        for &call in self.naming(from.ip()) {
            let Some(peer) = peers.peer(call) else {
                continue;
            };
            if sender.is_none() && !peer.shakes_hands {
                continue;
            }
            let source = peer.source;
            if sender.is_some() && source.ssrc() == sender {
                by_sender.add(call);
            }
            let beside = |rtp: Option<SocketAddr>| {
                rtp.is_some_and(|rtp| Some(from.port()) == rtp.port().checked_add(1))
            };
            if peer.reports.map_or_else(
                || beside(source.confirmed()) || beside(source.sdp()),
                |told| told == from,
            ) {
                by_address.add(call);
            }
            any.add(call);
        }
        let told = by_sender.one().or(by_address.one());
        told.map_or_else(|| route_of(any), Route::Call)
    }

    /// Whether a call still looks for its source among packets from elsewhere.
    fn looks(&self, call: usize, source: &SourceFilter, now: Instant) -> bool {
        source.confirmed().is_none()
            && self
                .entries
                .get(&call)
                .is_some_and(|entry| now.saturating_duration_since(entry.since) < CANDIDATE_FOR)
    }

    /// Tries a packet on the keys of calls whose source is not known, or silent.
    fn prove(&mut self, sight: Sight, now: Instant, peers: &mut impl Trial) -> Option<usize> {
        // Those who have this stream come first, then one after the other.
        let waits = |call: usize, same: bool| {
            peers.peer(call).is_some_and(|peer| {
                peer.door == Door::Locked
                    && !peer.source.is_checked()
                    && peer.source.is_silent(now)
                    && same == (peer.source.ssrc() == Some(sight.ssrc))
            })
        };
        let pick = |calls: &mut dyn Iterator<Item = (usize, bool)>| {
            let mut tried = [None; TRIALS];
            let calls = calls.filter(|(call, same)| waits(*call, *same));
            for (place, (call, _)) in tried.iter_mut().zip(calls) {
                *place = Some(call);
            }
            tried
        };
        let mut tried = {
            let calls = self.naming(sight.from.ip()).iter().copied();
            let skipped = self.turn % calls.clone().count().max(1);
            let turned = calls
                .clone()
                .skip(skipped)
                .chain(calls.clone().take(skipped));
            let mut likely = calls
                .map(|call| (call, true))
                .chain(turned.map(|call| (call, false)));
            pick(&mut likely)
        };
        let [of_likely, of_strange] = &mut self.trials;
        if tried[0].is_some() {
            if !of_likely.take(LIKELY_TRIALS, now) {
                return None;
            }
        } else {
            if self.entries.is_empty() || !of_strange.take(STRANGE_TRIALS, now) {
                return None;
            }
            let skipped = self.turn % self.entries.len();
            let calls = self.entries.keys().copied();
            let turned = calls
                .clone()
                .skip(skipped)
                .chain(calls.clone().take(skipped));
            let mut any = calls
                .map(|call| (call, true))
                .chain(turned.map(|call| (call, false)));
            tried = pick(&mut any);
        }
        self.turn = self.turn.wrapping_add(TRIALS);
        let mut tried = tried.into_iter().flatten();
        tried.find(|call| peers.prove(*call))
    }

    /// What the source was before: that of a call that is over, or the one that may have it again.
    fn former_of(&mut self, sight: Sight, now: Instant) -> Option<Result<usize, Why>> {
        let former = self.former.get(&sight.from)?;
        let since = now.saturating_duration_since(former.at);
        let holds = since < STRAYS_FOR || (former.ssrc == Some(sight.ssrc) && since < STREAM_FOR);
        if !holds {
            if since >= STREAM_FOR {
                self.former.remove(&sight.from);
            }
            return None;
        }
        Some(if former.over {
            Err(Why::Former)
        } else {
            Ok(former.call)
        })
    }

    /// Where a call's packets are no surprise.
    fn list(&mut self, call: usize, before: [Option<IpAddr>; 3], now: [Option<IpAddr>; 3]) {
        for ip in before.into_iter().flatten() {
            if !now.contains(&Some(ip))
                && let Some(calls) = self.by_ip.get_mut(&ip)
            {
                calls.retain(|other| *other != call);
                if calls.is_empty() {
                    self.by_ip.remove(&ip);
                }
            }
        }
        for ip in now.into_iter().flatten() {
            let calls = self.by_ip.entry(ip).or_default();
            if !before.contains(&Some(ip)) && !calls.contains(&call) {
                calls.push(call);
            }
        }
    }

    /// The SDP of a call does not say any more that its packets come from there. Another's may.
    fn disclaim(&mut self, call: usize, sdp: Option<SocketAddr>) {
        let Some(sdp) = sdp else { return };
        let Some(owner) = self
            .owners
            .get_mut(&sdp)
            .filter(|owner| owner.sdp == Some(call))
        else {
            return;
        };
        let others = self.by_ip.get(&sdp.ip()).into_iter().flatten().copied();
        let says = |other: &usize| {
            let entry = self.entries.get(other).filter(|_| *other != call);
            entry.is_some_and(|entry| entry.sdp == Some(sdp))
        };
        owner.sdp = others.into_iter().find(says);
        self.forget(sdp);
    }

    fn unconfirm(
        &mut self,
        call: usize,
        source: Option<SocketAddr>,
        ssrc: Option<u32>,
        over: bool,
        now: Instant,
    ) {
        let Some(source) = source else { return };
        if let Some(owner) = self.owners.get_mut(&source) {
            owner.confirmed.take_if(|owner| *owner == call);
        }
        self.forget(source);
        let swept = self.former_swept;
        if self.former.len() >= FORMER
            && swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP)
        {
            let holds = |former: &Former| now.saturating_duration_since(former.at) < STREAM_FOR;
            self.former.retain(|_, former| holds(former));
            self.former_swept = Some(now);
        }
        let former = Former {
            call,
            over,
            ssrc,
            at: now,
        };
        self.former.insert(source, former);
    }

    fn forget(&mut self, address: SocketAddr) {
        let nobody = |owner: &Owner| {
            owner.confirmed.is_none() && owner.checked.is_none() && owner.sdp.is_none()
        };
        if self.owners.get(&address).is_some_and(nobody) {
            self.owners.remove(&address);
        }
    }
}

fn route_of(only: Only) -> Route {
    match only {
        Only::One(call) => Route::Call(call),
        Only::None => Route::Nobody(Why::Stranger),
        Only::Many => Route::Nobody(Why::Ambiguous),
    }
}

/// So many a second.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// When there is one for the next, were all taken evenly.
    next: Option<Instant>,
}

impl Bucket {
    /// Takes one, if one is left; those of half a second may be taken at once.
    pub(crate) fn take(&mut self, a_second: u32, now: Instant) -> bool {
        let next = self.next.map_or(now, |next| next.max(now));
        let may = next.saturating_duration_since(now) < Duration::from_millis(500);
        if may {
            self.next = Some(next + Duration::from_secs(1) / a_second);
        }
        may
    }
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;
