//! Session descriptions (RFC 8866) and the offer/answer model (RFC 3264) for one audio stream.
//!
//! Reads leniently, writes strictly. Only what this gateway can do is negotiated: one of its codecs and DTMF events over RTP, plain or
//! encrypted. ICE is answered where it is offered; a bundle is answered with the one stream that is taken.

mod amr;
mod codec;
mod crypto;
mod dtls;
mod encryption;
mod ice;
mod negotiate;
mod parse;
mod print;

use std::fmt;
use std::net::IpAddr;

pub use amr::AmrWb;
pub use codec::{Codec, Parameters, ilbc_millis};
pub use crypto::{Keying, SdesKeys, Secret, Suite};
pub use dtls::{DtlsTerms, Fingerprint};
pub use encryption::{Encryption, Security};
pub use ice::IceTerms;
pub use negotiate::{
    Capabilities, LocalMedia, Negotiated, OfferError, answer, apply_answer, offer, offer_again,
};

/// The media type of a session description.
pub const CONTENT_TYPE: &str = "application/sdp";

/// Most `m=` lines in one description.
pub const MAX_MEDIA: usize = 16;
/// Most attributes of one description, those of its media included.
pub const MAX_ATTRIBUTES: usize = 512;

/// Most formats of one `m=` line: there are no more payload types.
pub const MAX_FORMATS: usize = 128;
/// A name and an optional value: `a=name:value` or `a=name`.
pub type Attribute = (String, Option<String>);

/// A session description. Shown without the keys in it.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionDescription {
    /// The `o=` line.
    pub origin: Origin,
    /// The `s=` line; `-` when it is missing.
    pub session_name: String,
    /// The address of the session's `c=` line. `None` when it is missing or names a host.
    pub connection: Option<IpAddr>,
    /// The session's `b=` lines, without `b=`.
    pub bandwidth: Vec<String>,
    /// The first `t=` line, without `t=`; `0 0` when it is missing.
    pub timing: String,
    /// The session's attributes. A direction is kept in the media that it applies to.
    pub attributes: Vec<Attribute>,
    /// The media in order.
    pub media: Vec<MediaDescription>,
}

/// The `o=` line. The numbers are text, since others send more than 64 bits or no numbers at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// User name, or `-`.
    pub username: String,
    /// Session id: stays the same for the whole call.
    pub session_id: String,
    /// Version: grows with each change.
    pub version: String,
    /// The address, as text.
    pub address: String,
}

/// One `m=` line and what belongs to it. Shown without the keys in it.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaDescription {
    /// `audio`, `video`, `image`, …
    pub kind: String,
    /// The port; 0 refuses the media or takes it away.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVP`, `udptl`, …
    pub protocol: String,
    /// The formats: payload types for RTP.
    pub formats: Vec<String>,
    /// The address of its own `c=` line. `None` when it is missing or names a host.
    pub connection: Option<IpAddr>,
    /// Its `b=` lines, without `b=`.
    pub bandwidth: Vec<String>,
    /// The direction: its own, else the session's, else `sendrecv`.
    pub direction: Direction,
    /// The other attributes.
    pub attributes: Vec<Attribute>,
}

/// The value of the first attribute of that name; `Some("")` when it has none.
fn attribute<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    let found = attributes
        .iter()
        .find(|(own, _)| own.eq_ignore_ascii_case(name))?;
    Some(found.1.as_deref().unwrap_or(""))
}

/// The attributes that are no secret.
fn shown(attributes: &[Attribute]) -> Vec<&Attribute> {
    let secret = |name: &str| {
        ["crypto", "ice-pwd"]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
    };
    attributes
        .iter()
        .filter(|(name, _)| !secret(name))
        .collect()
}

impl fmt::Debug for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionDescription")
            .field("origin", &self.origin)
            .field("connection", &self.connection)
            .field("attributes", &shown(&self.attributes))
            .field("media", &self.media)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MediaDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaDescription")
            .field("kind", &self.kind)
            .field("port", &self.port)
            .field("protocol", &self.protocol)
            .field("formats", &self.formats)
            .field("connection", &self.connection)
            .field("direction", &self.direction)
            .field("attributes", &shown(&self.attributes))
            .finish_non_exhaustive()
    }
}

impl MediaDescription {
    /// The value of the first attribute of that name; `Some("")` when it has none.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        attribute(&self.attributes, name)
    }

    /// The wanted packet time, in milliseconds.
    pub fn ptime(&self) -> Option<u16> {
        self.attribute("ptime")
            .and_then(|text| text.trim().parse().ok())
    }

    /// The longest packet time, in milliseconds.
    pub fn maxptime(&self) -> Option<u16> {
        self.attribute("maxptime")
            .and_then(|text| text.trim().parse().ok())
    }

    /// What `rtpmap` says of a payload type: encoding, clock rate in Hz and channels. A static type may lack it.
    pub fn rtpmap(&self, payload_type: u8) -> Option<(&str, u32, u8)> {
        let maps = self
            .attributes
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("rtpmap"));
        for map in maps.filter_map(|(_, value)| value.as_deref()) {
            let Some((number, rest)) = map.trim().split_once([' ', '\t']) else {
                continue;
            };
            if number.parse() != Ok(payload_type) {
                continue;
            }
            let mut parts = rest.trim().split('/').map(str::trim);
            let encoding = parts.next()?;
            let clock = parts.next()?.parse().ok()?;
            let channels = parts.next().and_then(|text| text.parse().ok()).unwrap_or(1);
            return Some((encoding, clock, channels));
        }
        None
    }

    /// The `fmtp` text of a payload type.
    pub fn fmtp(&self, payload_type: u8) -> Option<&str> {
        self.attributes
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("fmtp"))
            .filter_map(|(_, value)| value.as_deref()?.trim().split_once([' ', '\t']))
            .find(|(number, _)| number.parse() == Ok(payload_type))
            .map(|(_, text)| text.trim())
    }

    /// The payload types of the `m=` line, in order.
    pub fn payload_types(&self) -> impl Iterator<Item = u8> {
        self.formats
            .iter()
            .filter_map(|format| format.parse().ok())
            .filter(|number| *number < 128)
    }
}

/// Who sends, seen from the side that wrote the description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// The writer only sends.
    SendOnly,
    /// The writer only receives.
    RecvOnly,
    /// No one.
    Inactive,
}

impl Direction {
    /// From its two halves.
    pub fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether the writer sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether the writer receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same, seen from the other side.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// What both allow, seen from the same side.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(
            self.sends() && other.sends(),
            self.receives() && other.receives(),
        )
    }

    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [
            Self::SendRecv,
            Self::SendOnly,
            Self::RecvOnly,
            Self::Inactive,
        ]
        .into_iter()
        .find(|own| own.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
