//! Offer and answer (RFC 3264) for one audio stream: which codec, which payload types, where to, and who may send.

use std::net::{IpAddr, SocketAddr};

use super::encryption::{self, Accepted, Encryption, Security};
use super::ice::{self, IceTerms, Remote};
use super::{
    Attribute, Codec, Direction, MediaDescription, Origin, Parameters, Secret, SessionDescription,
};

/// The payload type under which we offer DTMF events at 8,000 ticks a second (RFC 4733).
const TELEPHONE_EVENT_OFFERED: u8 = 101;
/// The clock of DTMF events that everybody has.
const TELEPHONE_EVENT_CLOCK: u32 = 8000;
/// Payload types that are given out as they are needed.
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;
/// The events that we understand: digits, `*`, `#`, A to D.
const EVENTS: &str = "0-15";

/// What we can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Codecs in order of preference. It decides, not the order of the offer.
    pub codecs: Vec<Codec>,
    /// Whether DTMF events are taken (RFC 4733).
    pub telephone_event: bool,
    /// The packet time that we send, in milliseconds, whatever the peer's `ptime` (a wish) says; 10 where its `maxptime` asks for that.
    pub ptime_millis: u16,
    /// Whether media is encrypted.
    pub encryption: Encryption,
    /// What our names and passwords of ICE are made of; without it ICE is not answered.
    pub ice: Option<Secret>,
}

/// Our end of the stream. The caller picks an address of the family that the peer can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalMedia {
    /// The address that the peer sends to.
    pub address: IpAddr,
    /// The RTP port; RTCP is the next one.
    pub rtp_port: u16,
    /// The session id of `o=`: the same for the whole call.
    pub session_id: u64,
    /// The version of `o=`: grows by one whenever our description changes.
    pub version: u64,
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The codec that we send.
    pub codec: Codec,
    /// The payload type that we send it under.
    pub payload_type: u8,
    /// What the peer's `fmtp` asks of our encoder.
    pub parameters: Parameters,
    /// The payload type that it arrives under.
    pub receive_payload_type: u8,
    /// Every payload type under which audio may arrive, [`Self::receive_payload_type`] first: a peer that answered with several codecs
    /// may use any of them.
    pub receive_codecs: Vec<(u8, Codec)>,
    /// The payload types of DTMF events: sent and received.
    pub telephone_event: Option<(u8, u8)>,
    /// Their clock rate: the codec's, or 8,000 if the peer has no other.
    pub telephone_event_clock: u32,
    /// Where RTP goes; `None` when the peer gave no usable address (`0.0.0.0`, the hold of RFC 2543).
    pub remote: Option<SocketAddr>,
    /// Where RTCP goes: `a=rtcp` (RFC 3605), else the port after RTP.
    pub remote_rtcp: Option<SocketAddr>,
    /// What we may do, after hold.
    pub local_direction: Direction,
    /// The packet time that we send, in milliseconds.
    pub ptime_millis: u16,
    /// Whether the peer does not want to hear us (RFC 3264 section 8.4).
    pub on_hold: bool,
    /// How it is encrypted; `None`: in the clear.
    pub security: Option<Security>,
    /// How the peer checks which way leads to us, if it does (ICE). [`Self::remote`] is where it says it is then, which need not be so.
    pub ice: Option<Box<IceTerms>>,
}

/// Why an offer or an answer can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// It can't be read.
    #[error("malformed session description: {0}")]
    Malformed(String),
    /// No codec in common.
    #[error("no common codec, offered: {offered}")]
    NoCommonCodec {
        /// What the peer offered.
        offered: String,
    },
    /// Only encrypted media is offered (SAVP or SAVPF).
    #[error("only encrypted media is offered")]
    EncryptionRequired,
    /// Media in the clear is offered where it has to be encrypted.
    #[error("media in the clear is offered, and encryption is required")]
    InTheClear,
    /// Encrypted media is offered, but in no way that we have or want.
    #[error("no common encryption, offered: {offered}")]
    NoCommonEncryption {
        /// What the peer offered.
        offered: String,
    },
    /// No audio, or only audio that is switched off or not over RTP.
    #[error("no audio is offered")]
    NoAudio,
}

impl OfferError {
    /// The code of the `Warning` header that goes with a 488 (RFC 3261 section 20.43).
    pub fn warn_code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 399,
            Self::NoCommonCodec { .. } => 305,
            Self::EncryptionRequired | Self::InTheClear | Self::NoCommonEncryption { .. } => 302,
            Self::NoAudio => 304,
        }
    }
}

/// A stream of an offer that can be taken: where it is, the codec with its payload type, and its encryption.
type Chosen<'a> = (usize, &'a MediaDescription, (Codec, u8), Accepted);

/// Answers an offer: the first audio stream over RTP with a common codec is taken, every other is refused.
///
/// Payload types are those of the offer. One codec is answered, so that nothing switches in the middle of the call.
pub fn answer(
    offer: &SessionDescription,
    caps: &Capabilities,
    local: &LocalMedia,
) -> Result<(SessionDescription, Negotiated), OfferError> {
    let mut chosen: Option<Chosen> = None;
    let mut error = OfferError::NoAudio;
    for (index, media) in offer
        .media
        .iter()
        .enumerate()
        .filter(|(_, media)| media.kind == "audio" && media.port != 0)
    {
        let accepted = caps.encryption.accept(offer, media);
        match accepted.and_then(|secured| Ok((secured, pick_or_name(media, caps)?))) {
            Ok((secured, picked)) => {
                // The same twice, with and without encryption: the first one with it, or else the first.
                let better = chosen.as_ref().is_none_or(|(.., before)| before.is_none());
                if better && (chosen.is_none() || secured.is_some()) {
                    chosen = Some((index, media, picked, secured));
                }
            }
            Err(why) => {
                let codecs = matches!(why, OfferError::NoCommonCodec { .. });
                if codecs || error == OfferError::NoAudio {
                    error = why;
                }
            }
        }
    }
    let (chosen, media, (codec, payload_type), secured) = chosen.ok_or(error)?;
    let (security, keys) = secured.unzip();
    let default = remote(offer, media)?;
    let is_muxed = encryption::is_muxed(media);
    let Ice {
        terms,
        remote,
        of_stream,
        of_session,
        names,
    } = answer_ice(offer, media, caps, local, default);
    let (remote, remote_rtcp) = reports(is_muxed, remote);
    let event = caps.telephone_event.then(|| event_type(media, codec));
    let event = event.flatten();
    // Without an address nothing can be sent, whatever the direction says.
    let is_known = remote.is_some() || terms.is_some();
    let local_direction = Direction::new(
        media.direction.receives() && is_known,
        media.direction.sends(),
    );
    let parameters = Parameters::of(media, payload_type);
    let ptime_millis = codec.packet_millis(&parameters, caps.ptime_millis, media.maxptime());
    let negotiated = Negotiated {
        codec,
        payload_type,
        parameters,
        receive_payload_type: payload_type,
        receive_codecs: vec![(payload_type, codec)],
        telephone_event: event.map(|(number, _)| (number, number)),
        telephone_event_clock: event.map_or(TELEPHONE_EVENT_CLOCK, |(_, clock)| clock),
        remote,
        remote_rtcp,
        local_direction,
        ptime_millis,
        on_hold: is_hold(media, is_known),
        security,
        ice: terms,
    };
    let answers = offer.media.iter().enumerate().map(|(index, media)| {
        if index == chosen {
            let codecs = [(payload_type, codec)];
            let answer = audio(
                &media.protocol,
                local,
                (&codecs, Some(&negotiated.parameters)),
                event,
                negotiated.ptime_millis,
                local_direction,
            );
            let mut answer = secure(answer, keys.clone().unwrap_or_default());
            if is_muxed && !encryption::is_muxed(&answer) {
                answer.attributes.push(("rtcp-mux".to_owned(), None));
            }
            answer.attributes.extend(of_stream.clone());
            answer
        } else {
            refused(media, names)
        }
    });
    let media = answers.collect();
    let mut answer = description(local, offer.timing.clone(), media);
    answer.attributes = of_session;
    Ok((answer, negotiated))
}

/// What an offer of ICE comes to, and what our answer says about it.
struct Ice {
    terms: Option<Box<IceTerms>>,
    remote: Remote,
    of_stream: Vec<Attribute>,
    of_session: Vec<Attribute>,
    /// Streams keep their names.
    names: bool,
}

fn answer_ice(
    offer: &SessionDescription,
    media: &MediaDescription,
    caps: &Capabilities,
    local: &LocalMedia,
    remote: Remote,
) -> Ice {
    let mut ice = Ice {
        terms: None,
        remote,
        of_stream: Vec::new(),
        of_session: Vec::new(),
        names: false,
    };
    let Some((secret, theirs)) = caps.ice.as_ref().zip(ice::theirs(offer, media)) else {
        return ice;
    };
    ice.names = true;
    ice.of_session.extend(ice::group(offer, media));
    ice.of_stream.extend(ice::mid(media));
    let is_muxed = encryption::is_muxed(media);
    if theirs.is_mismatch(remote, media.port, is_muxed) {
        ice.of_stream.push(("ice-mismatch".to_owned(), None));
        return ice;
    }
    let (ufrag, password) = theirs.ours(secret);
    ice.terms = theirs.terms(&ufrag, &password, is_muxed);
    ice.remote = theirs.remote(remote, local.address);
    ice.of_session.splice(..0, ice::session());
    let ours = ice::ours(&ufrag, &password, local, is_muxed);
    ice.of_stream.extend(ours);
    ice
}

/// Our offer: all codecs in our order, and DTMF events.
pub fn offer(caps: &Capabilities, local: &LocalMedia) -> SessionDescription {
    let (codecs, event) = formats(caps, None);
    let (protocol, keys) = caps.encryption.offer();
    let media = audio(
        protocol,
        local,
        (&codecs, None),
        event,
        caps.ptime_millis,
        Direction::SendRecv,
    );
    description(local, "0 0".to_owned(), vec![secure(media, keys)])
}

/// Our offer inside a session: no stream of what we said before disappears, and formats keep their payload types (RFC 3264 section 8).
pub fn offer_again(
    caps: &Capabilities,
    local: &LocalMedia,
    said: &SessionDescription,
) -> SessionDescription {
    let mut offer = offer(caps, local);
    let audio_at = said
        .media
        .iter()
        .position(|media| media.kind == "audio" && media.port != 0);
    let Some(at) = audio_at else { return offer };
    let before = &said.media[at];
    let (codecs, event) = formats(caps, Some(before));
    let again = audio(
        &before.protocol,
        local,
        (&codecs, None),
        event,
        caps.ptime_millis,
        Direction::SendRecv,
    );
    let refused = said.media.iter().map(|media| refused(media, true));
    offer.media = refused.collect();
    offer.media[at] = secure(again, encryption::said(before).collect());
    offer.media[at].attributes.extend(ice::said(before));
    offer.attributes = ice::said_of_session(said).collect();
    offer.timing.clone_from(&said.timing);
    offer
}

/// Reads the answer to our offer.
pub fn apply_answer(
    offer: &SessionDescription,
    answer: &SessionDescription,
    caps: &Capabilities,
) -> Result<Negotiated, OfferError> {
    let index = offer
        .media
        .iter()
        .position(|media| media.kind == "audio" && media.port != 0);
    let (Some(ours), Some(media)) = (
        index.map(|at| &offer.media[at]),
        index.and_then(|at| answer.media.get(at)),
    ) else {
        return Err(OfferError::NoAudio);
    };
    if media.kind != "audio" || media.port == 0 {
        return Err(OfferError::NoAudio);
    }
    let security = caps.encryption.agree(ours, answer, media)?;
    let offered: Vec<(u8, Codec)> = ours
        .payload_types()
        .filter_map(|number| Some((number, Codec::of(ours, number)?)))
        .collect();
    let usable = |number: u8| {
        let codec = Codec::of(media, number).filter(|codec| caps.codecs.contains(codec))?;
        let (receive, _) = offered.iter().find(|(_, own)| *own == codec)?;
        Some((number, *receive, codec))
    };
    let accepted: Vec<_> = media.payload_types().filter_map(usable).collect();
    // The order is the peer's choice now.
    let Some(&(payload_type, receive_payload_type, codec)) = accepted.first() else {
        return Err(OfferError::NoCommonCodec {
            offered: names(media),
        });
    };
    let mut default = remote(answer, media)?;
    let is_muxed = encryption::is_muxed(ours) && encryption::is_muxed(media);
    let mut terms = None;
    let own = ours.attribute("ice-ufrag").zip(ours.attribute("ice-pwd"));
    if let (Some((ufrag, password)), Some(theirs)) = (own, ice::theirs(answer, media))
        && media.attribute("ice-mismatch").is_none()
        && !theirs.is_mismatch(default, media.port, is_muxed)
    {
        terms = theirs.terms(ufrag, password, is_muxed);
        let local = offer.connection.map(|local| theirs.remote(default, local));
        default = local.unwrap_or(default);
    }
    let (remote, remote_rtcp) = reports(is_muxed, default);
    let is_known = remote.is_some() || terms.is_some();
    let event = event_type(media, codec).and_then(|(send, clock)| {
        let (receive, _) = events(ours).find(|(_, own)| *own == clock)?;
        Some((send, receive, clock))
    });
    let allowed = media.direction.reverse().and(ours.direction);
    let parameters = Parameters::of(media, payload_type);
    let ptime_millis = codec.packet_millis(&parameters, caps.ptime_millis, media.maxptime());
    Ok(Negotiated {
        codec,
        payload_type,
        parameters,
        receive_payload_type,
        receive_codecs: accepted
            .iter()
            .map(|(_, receive, codec)| (*receive, *codec))
            .collect(),
        telephone_event: event.map(|(send, receive, _)| (send, receive)),
        telephone_event_clock: event.map_or(TELEPHONE_EVENT_CLOCK, |(.., clock)| clock),
        remote,
        remote_rtcp,
        local_direction: Direction::new(allowed.sends() && is_known, allowed.receives()),
        ptime_millis,
        on_hold: is_hold(media, is_known),
        security,
        ice: terms,
    })
}

fn is_hold(media: &MediaDescription, is_known: bool) -> bool {
    !is_known || !media.direction.receives()
}

/// The first of our codecs that is offered, and its payload type there.
fn pick(media: &MediaDescription, caps: &Capabilities) -> Option<(Codec, u8)> {
    caps.codecs.iter().find_map(|codec| {
        media
            .payload_types()
            .find(|number| Codec::of(media, *number) == Some(*codec))
            .map(|number| (*codec, number))
    })
}

/// The same, or what is offered instead.
fn pick_or_name(media: &MediaDescription, caps: &Capabilities) -> Result<(Codec, u8), OfferError> {
    pick(media, caps).ok_or_else(|| OfferError::NoCommonCodec {
        offered: names(media),
    })
}

/// Where RTP goes, and where reports do: the same, if both sides have them on one port (RFC 5761).
fn reports(is_muxed: bool, (remote, remote_rtcp): Remote) -> Remote {
    (remote, if is_muxed { remote } else { remote_rtcp })
}

/// The stream with its keys.
fn secure(mut media: MediaDescription, keys: Vec<Attribute>) -> MediaDescription {
    media.attributes.extend(keys);
    media
}

/// The payload types of DTMF events, and their clock rates.
fn events(media: &MediaDescription) -> impl Iterator<Item = (u8, u32)> {
    media.payload_types().filter_map(|number| {
        let (name, clock, _) = media.rtpmap(number)?;
        let events = name.eq_ignore_ascii_case("telephone-event") && clock > 0;
        events.then_some((number, clock))
    })
}

/// The payload type of DTMF events that goes with a codec, and its clock rate: that of the codec (RFC 4733 section 2.1). Many who speak
/// Opus offer events at 8,000 only, and mean it.
fn event_type(media: &MediaDescription, codec: Codec) -> Option<(u8, u32)> {
    let at = |clock| events(media).find(|(_, own)| *own == clock);
    at(codec.clock_rate()).or_else(|| at(TELEPHONE_EVENT_CLOCK))
}

/// Codecs, and the clock rates of DTMF events, each with its payload type.
type Formats = (Vec<(u8, Codec)>, Vec<(u8, u32)>);

/// What we offer: codecs and DTMF events at each of their clocks, with payload types. What has one already keeps it, and none of what was
/// said `before` gets another meaning.
fn formats(caps: &Capabilities, before: Option<&MediaDescription>) -> Formats {
    let said = || before.into_iter().flat_map(MediaDescription::payload_types);
    let mut taken: Vec<u8> = said().chain([TELEPHONE_EVENT_OFFERED]).collect();
    let mut choose = |known: Option<u8>, usual: Option<u8>| {
        let free = |taken: &[u8]| DYNAMIC.into_iter().find(|number| !taken.contains(number));
        let number = known.or(usual).or_else(|| free(&taken));
        taken.extend(number);
        number
    };
    let mut codecs: Vec<(u8, Codec)> = Vec::new();
    for codec in &caps.codecs {
        let known = before.and_then(|media| {
            media
                .payload_types()
                .find(|number| Codec::of(media, *number) == Some(*codec))
        });
        let number = choose(known, codec.static_payload_type());
        codecs.extend(number.map(|number| (number, *codec)));
    }
    let mut clocks: Vec<u32> = Vec::new();
    for (_, codec) in codecs.iter().filter(|_| caps.telephone_event) {
        if !clocks.contains(&codec.clock_rate()) {
            clocks.push(codec.clock_rate());
        }
    }
    let event = |clock: u32| {
        let known = before.and_then(|media| events(media).find(|(_, own)| *own == clock));
        let usual = (clock == TELEPHONE_EVENT_CLOCK
            && !said().any(|it| it == TELEPHONE_EVENT_OFFERED))
        .then_some(TELEPHONE_EVENT_OFFERED);
        Some((choose(known.map(|(number, _)| number), usual)?, clock))
    };
    let events = clocks.into_iter().filter_map(event).collect();
    (codecs, events)
}

/// The offered formats for a message to people.
fn names(media: &MediaDescription) -> String {
    let named = media.formats.iter().take(16).map(|format| {
        let number = format.parse().ok();
        match number.and_then(|number| media.rtpmap(number)) {
            Some((name, clock, _)) => format!("{name}/{clock}"),
            None => match number {
                Some(0) => "PCMU/8000".to_owned(),
                Some(3) => "GSM/8000".to_owned(),
                Some(4) => "G723/8000".to_owned(),
                Some(8) => "PCMA/8000".to_owned(),
                Some(9) => "G722/8000".to_owned(),
                Some(18) => "G729/8000".to_owned(),
                _ => format!("payload type {format}"),
            },
        }
    });
    let named: Vec<_> = named.collect();
    // It ends up in a header and a log line: what the peer wrote stays short and printable.
    named
        .join(", ")
        .chars()
        .filter(|c| !c.is_control() && *c != '"' && *c != '\\')
        .take(200)
        .collect()
}

/// Whether it is one host's address, or none.
pub(super) fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_multicast() && !broadcast
}

fn remote(session: &SessionDescription, media: &MediaDescription) -> Result<Remote, OfferError> {
    let Some(address) = media.connection.or(session.connection) else {
        return Err(OfferError::Malformed(
            "no c= line with an address".to_owned(),
        ));
    };
    let address = address.to_canonical();
    if address.is_unspecified() {
        return Ok((None, None));
    }
    if !is_unicast(address) {
        return Err(OfferError::Malformed(
            "media address is not unicast".to_owned(),
        ));
    }
    let rtcp = match media.attribute("rtcp") {
        Some(text) => explicit_rtcp(text, address),
        None => media
            .port
            .checked_add(1)
            .map(|port| SocketAddr::new(address, port)),
    };
    Ok((Some(SocketAddr::new(address, media.port)), rtcp))
}

/// `53020` or `53020 IN IP4 126.16.64.4` (RFC 3605).
fn explicit_rtcp(text: &str, default: IpAddr) -> Option<SocketAddr> {
    let mut parts = text.split_whitespace();
    let port = parts.next()?.parse().ok().filter(|port| *port != 0)?;
    let address = parts
        .nth(2)
        .and_then(|text| text.parse::<IpAddr>().ok())
        .map(|address| address.to_canonical());
    let address = address
        .filter(|address| !address.is_multicast() && !address.is_unspecified())
        .unwrap_or(default);
    Some(SocketAddr::new(address, port))
}

/// The stream switched off; with its name, if it has one and that is wanted.
fn refused(media: &MediaDescription, named: bool) -> MediaDescription {
    MediaDescription {
        port: 0,
        connection: None,
        bandwidth: Vec::new(),
        direction: Direction::Inactive,
        attributes: ice::mid(media).filter(|_| named).into_iter().collect(),
        ..media.clone()
    }
}

/// A stream of these codecs, with what the peer said of the one that is answered.
fn audio(
    protocol: &str,
    local: &LocalMedia,
    (codecs, offered): (&[(u8, Codec)], Option<&Parameters>),
    event: impl IntoIterator<Item = (u8, u32)>,
    ptime_millis: u16,
    direction: Direction,
) -> MediaDescription {
    let event: Vec<_> = event.into_iter().collect();
    let mut attributes = Vec::new();
    let mut push = |name: &str, value: String| attributes.push((name.to_owned(), Some(value)));
    for (number, codec) in codecs {
        push("rtpmap", format!("{number} {}", codec.rtpmap()));
        if let Some(fmtp) = codec.fmtp(offered) {
            push("fmtp", format!("{number} {fmtp}"));
        }
    }
    for (number, clock) in &event {
        push("rtpmap", format!("{number} telephone-event/{clock}"));
        push("fmtp", format!("{number} {EVENTS}"));
    }
    push("ptime", ptime_millis.to_string());
    MediaDescription {
        kind: "audio".to_owned(),
        port: local.rtp_port,
        protocol: protocol.to_owned(),
        formats: codecs
            .iter()
            .map(|(number, _)| *number)
            .chain(event.iter().map(|(number, _)| *number))
            .map(|number| number.to_string())
            .collect(),
        connection: None,
        bandwidth: Vec::new(),
        direction,
        attributes,
    }
}

fn description(
    local: &LocalMedia,
    timing: String,
    media: Vec<MediaDescription>,
) -> SessionDescription {
    SessionDescription {
        origin: Origin {
            username: "ringwire".to_owned(),
            session_id: local.session_id.to_string(),
            version: local.version.to_string(),
            address: local.address.to_string(),
        },
        session_name: "-".to_owned(),
        connection: Some(local.address),
        bandwidth: Vec::new(),
        timing,
        attributes: Vec::new(),
        media,
    }
}
