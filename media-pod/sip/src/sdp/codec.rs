//! The codecs that can be agreed on: their names, clocks and payload types, and the parameters of a format.

use std::fmt;

use super::MediaDescription;

/// A codec that this gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722: 16,000 samples per second under a clock of 8,000 (RFC 3551 section 4.5.2).
    G722,
    /// 16-bit linear, one channel, at 8,000 or 16,000 samples per second. (The static types 10 and 11 have 44,100.)
    L16 {
        /// Samples per second, and clock rate.
        rate: u32,
    },
    /// Opus (RFC 7587).
    Opus,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Pcmu,
        Self::Pcma,
        Self::G722,
        Self::L16 { rate: 16_000 },
        Self::L16 { rate: 8000 },
        Self::Opus,
    ];

    /// The encoding name of `rtpmap`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::L16 { .. } => "L16",
            Self::Opus => "opus",
        }
    }

    /// The payload type that RFC 3551 gives it.
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::L16 { .. } | Self::Opus => None,
        }
    }

    /// The RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8000,
            Self::L16 { rate } => rate,
            Self::Opus => 48_000,
        }
    }

    /// The codecs of that name, the best first, whatever its case.
    pub fn named(name: &str) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// What `rtpmap` says of it. Opus always has two channels there, whatever is sent (RFC 7587 section 7).
    pub(super) fn rtpmap(self) -> String {
        let channels = if self == Self::Opus { "/2" } else { "" };
        format!("{}/{}{channels}", self.name(), self.clock_rate())
    }

    /// What we ask of the peer's encoder: that what is lost can be made of what follows.
    pub(super) fn fmtp(self) -> Option<&'static str> {
        (self == Self::Opus).then_some("useinbandfec=1")
    }

    /// The codec behind a payload type of this media.
    pub(super) fn of(media: &MediaDescription, payload_type: u8) -> Option<Self> {
        match media.rtpmap(payload_type) {
            Some((name, clock, channels)) => Self::named(name).find(|codec| {
                let stereo = channels == 2 && *codec == Self::Opus;
                codec.clock_rate() == clock && (channels == 1 || stereo)
            }),
            None => Self::ALL
                .into_iter()
                .find(|codec| codec.static_payload_type() == Some(payload_type)),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The parameters of a format, as `fmtp` has them: `name=value; name=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(String);

impl Parameters {
    /// Those of a payload type.
    pub(super) fn of(media: &MediaDescription, payload_type: u8) -> Self {
        Self(media.fmtp(payload_type).unwrap_or_default().to_owned())
    }

    /// A parameter's value, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.split(';').filter_map(|part| part.split_once('='));
        let found = all.find(|(own, _)| own.trim().eq_ignore_ascii_case(name))?;
        Some(found.1.trim())
    }

    /// A number; nothing if it is missing or none.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }

    /// Whether it is 1.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_whatever_is_around_them() {
        let parameters =
            Parameters(" maxplaybackrate=16000;UseInbandFec=1 ; usedtx=0;x".to_owned());
        assert_eq!(parameters.number("maxplaybackrate"), Some(16_000));
        assert!(parameters.is_set("useinbandfec") && !parameters.is_set("usedtx"));
        assert_eq!(parameters.get("x"), None);
        assert_eq!(Parameters::default().get("usedtx"), None);
    }
}
