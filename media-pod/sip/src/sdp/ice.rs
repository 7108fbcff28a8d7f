//! What session descriptions say of ICE (RFC 8839): we are lite, and answer with one address; the peer finds the way to it.
//!
//! Only an offer that has ICE is answered with it. With it goes what a peer like a browser needs to find its stream in our answer: the
//! stream's name and its group (RFC 9143).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::negotiate::is_unicast;
use super::{Attribute, LocalMedia, MediaDescription, Secret, SessionDescription, attribute};

/// Candidates that are looked at.
const MAX_CANDIDATES: usize = 64;
/// Characters of our name and password: 48 and 144 random bits (section 5.4 wants 24 and 128).
const UFRAG: usize = 8;
const PASSWORD: usize = 24;
/// A host's address, and no other of ours (RFC 8445 section 5.1.2.1).
const PRIORITY: u32 = (126 << 24) + (65_535 << 8) + 256;
/// The port of an offer that does not know its address yet (section 4.2.5).
const DISCARD: u16 = 9;
/// What we say of the whole session: that we are lite, and that we know RFC 8445 (section 10 there).
const SESSION: [(&str, Option<&str>); 2] = [("ice-lite", None), ("ice-options", Some("ice2"))];

/// ICE that was agreed on: how the peer's checks name us, and are made.
#[derive(Clone, PartialEq, Eq)]
pub struct IceTerms {
    /// Our name.
    pub ufrag: String,
    /// Our password.
    pub password: Zeroizing<String>,
    /// RTCP goes where RTP does.
    pub muxed: bool,
}

impl fmt::Debug for IceTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceTerms")
            .field("ufrag", &self.ufrag)
            .field("muxed", &self.muxed)
            .finish_non_exhaustive()
    }
}

/// A stream's addresses: RTP and RTCP.
pub(super) type Remote = (Option<SocketAddr>, Option<SocketAddr>);

/// What the other side says of one stream.
pub(super) struct Theirs<'a> {
    ufrag: &'a str,
    password: &'a str,
    is_lite: bool,
    candidates: Vec<Candidate>,
}

struct Candidate {
    component: u8,
    priority: u32,
    is_host: bool,
    address: SocketAddr,
}

impl Candidate {
    /// `1 1 UDP 2130706431 192.0.2.1 4000 typ host …`; only UDP, and only addresses.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace().skip(1);
        let component = parts.next()?.parse().ok()?;
        let is_udp = parts.next()?.eq_ignore_ascii_case("udp");
        let priority = parts.next()?.parse().ok()?;
        let address: IpAddr = parts.next()?.parse().ok()?;
        let port: u16 = parts.next()?.parse().ok()?;
        let is_typed = parts.next()?.eq_ignore_ascii_case("typ");
        let is_host = parts.next()?.eq_ignore_ascii_case("host");
        let address = address.to_canonical();
        let is_place = !address.is_unspecified() && is_unicast(address);
        (is_udp && is_typed && is_place && port != 0).then(|| Self {
            component,
            priority,
            is_host,
            address: SocketAddr::new(address, port),
        })
    }
}

/// Reads what the other side says; nothing without a name and a password that can be.
pub(super) fn theirs<'a>(
    session: &'a SessionDescription,
    media: &'a MediaDescription,
) -> Option<Theirs<'a>> {
    let say = |name| {
        let own = media.attribute(name);
        own.or_else(|| attribute(&session.attributes, name))
    };
    let fits = |text: &&str, least| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        (least..=256).contains(&text.len()) && text.bytes().all(known)
    };
    let candidates = media
        .attributes
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("candidate"))
        .take(MAX_CANDIDATES)
        .filter_map(|(_, value)| Candidate::parse(value.as_deref()?));
    Some(Theirs {
        ufrag: say("ice-ufrag").filter(|text| fits(text, 4))?,
        password: say("ice-pwd").filter(|text| fits(text, 22))?,
        is_lite: attribute(&session.attributes, "ice-lite").is_some(),
        candidates: candidates.collect(),
    })
}

impl Theirs<'_> {
    /// Whether the addresses of the stream are none of its candidates: something in between has changed them, and ICE would go by it
    /// (section 4.2.5). RTCP is looked at where it has candidates.
    pub fn is_mismatch(&self, (rtp, rtcp): Remote, port: u16, muxed: bool) -> bool {
        let of = |component| {
            let own = self.candidates.iter();
            own.filter(move |candidate| candidate.component == component)
        };
        let Some(rtp) = rtp else {
            return port != DISCARD;
        };
        let has = |component, address| of(component).any(|own| own.address == address);
        let rtcp = rtcp.filter(|_| !muxed && of(2).next().is_some());
        !has(1, rtp) || rtcp.is_some_and(|rtcp| !has(2, rtcp))
    }

    /// Where the stream is, of what we can reach: its default, else the best candidate.
    pub fn remote(&self, default: Remote, local: IpAddr) -> Remote {
        let reachable = |address: &SocketAddr| address.is_ipv4() == local.to_canonical().is_ipv4();
        let best = |component| {
            let own = self.candidates.iter();
            let own = own.filter(|own| own.component == component && reachable(&own.address));
            own.max_by_key(|own| (own.is_host, own.priority))
                .map(|own| own.address)
        };
        if default.0.as_ref().is_some_and(reachable) {
            return default;
        }
        match best(1) {
            Some(rtp) => (Some(rtp), best(2)),
            None => default,
        }
    }

    /// How the peer's checks name us. One that is lite as well makes none: media go by the addresses that both say (RFC 8445 section 6.1.1).
    pub fn terms(&self, ufrag: &str, password: &str, muxed: bool) -> Option<Box<IceTerms>> {
        let terms = || IceTerms {
            ufrag: ufrag.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            muxed,
        };
        (!self.is_lite).then(|| Box::new(terms()))
    }

    /// Our name and password: the same as long as theirs are, and new ones with new ones (section 4.4.1.1.1).
    pub fn ours(&self, secret: &Secret) -> (String, Zeroizing<String>) {
        let mut hash = Sha512::new();
        hash.update(secret.bytes());
        // No separator could be part of them.
        hash.update(format!("ICE {} {}", self.ufrag, self.password));
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(hash.finalize()));
        let (ufrag, rest) = text.split_at(UFRAG);
        let password = rest.chars().take(PASSWORD).collect();
        (ufrag.to_owned(), Zeroizing::new(password))
    }
}

/// What we say of a stream: who we are, and where.
pub(super) fn ours(
    ufrag: &str,
    password: &str,
    local: &LocalMedia,
    muxed: bool,
) -> impl Iterator<Item = Attribute> {
    let components = if muxed { 1..=1 } else { 1..=2 };
    let address = local.address;
    let port = local.rtp_port;
    let candidates = components.map(move |component: u16| {
        let priority = PRIORITY - u32::from(component);
        let port = port.saturating_add(component - 1);
        let text = format!("1 {component} UDP {priority} {address} {port} typ host");
        ("candidate".to_owned(), Some(text))
    });
    let who = [("ice-ufrag", ufrag), ("ice-pwd", password)];
    let who = who.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
    who.into_iter().chain(candidates)
}

/// What we say of the whole session.
pub(super) fn session() -> impl Iterator<Item = Attribute> {
    let own = |text: &str| text.to_owned();
    SESSION
        .into_iter()
        .map(move |(name, value)| (own(name), value.map(own)))
}

/// The name of a stream, said again.
pub(super) fn mid(media: &MediaDescription) -> Option<Attribute> {
    let mid = media.attribute("mid").filter(|mid| !mid.is_empty())?;
    Some(("mid".to_owned(), Some(mid.to_owned())))
}

/// The group that a stream is in, with nobody else in it: the only one that is taken.
pub(super) fn group(offer: &SessionDescription, media: &MediaDescription) -> Option<Attribute> {
    let mid = media.attribute("mid")?;
    let groups = offer.attributes.iter();
    let has = |(name, value): &&Attribute| {
        let mut words = value.iter().flat_map(|text| text.split_whitespace());
        name.eq_ignore_ascii_case("group")
            && words.next() == Some("BUNDLE")
            && words.any(|word| word == mid)
    };
    groups
        .clone()
        .any(|group| has(&group))
        .then(|| ("group".to_owned(), Some(format!("BUNDLE {mid}"))))
}

/// What we said of a stream that has to do with ICE: said again, it is the same.
pub(super) fn said(media: &MediaDescription) -> impl Iterator<Item = Attribute> {
    const SAID: [&str; 4] = ["mid", "ice-ufrag", "ice-pwd", "candidate"];
    let own = media.attributes.iter();
    own.filter(|(name, _)| SAID.contains(&name.as_str()))
        .cloned()
}

/// The same of the whole session.
pub(super) fn said_of_session(said: &SessionDescription) -> impl Iterator<Item = Attribute> {
    const SAID: [&str; 3] = ["ice-lite", "ice-options", "group"];
    let own = said.attributes.iter();
    own.filter(|(name, _)| SAID.contains(&name.as_str()))
        .cloned()
}
