//! The codecs that can be agreed on: their names, clocks and payload types, and the parameters of a format.

use std::fmt;

use super::MediaDescription;
use super::amr::AmrWb;

/// Milliseconds of the shortest packets that we send.
const SHORT_PACKETS: u16 = 10;

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
    /// AMR-WB, also G.722.2 (RFC 4867). Its two payload formats are as different as two codecs.
    AmrWb {
        /// The octet-aligned format, not the bandwidth-efficient one.
        octet_aligned: bool,
    },
    /// iLBC (RFC 3952).
    Ilbc,
    /// G.722.1 (RFC 5577). Each bit rate has a payload type of its own.
    G7221 {
        /// Bits per second: 24,000 or 32,000.
        bitrate: u32,
    },
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Pcmu,
        Self::Pcma,
        Self::G722,
        Self::L16 { rate: 16_000 },
        Self::L16 { rate: 8000 },
        Self::Opus,
        Self::AmrWb {
            octet_aligned: false,
        },
        Self::AmrWb {
            octet_aligned: true,
        },
        Self::Ilbc,
        Self::G7221 { bitrate: 32_000 },
        Self::G7221 { bitrate: 24_000 },
    ];

    /// The encoding name of `rtpmap`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::L16 { .. } => "L16",
            Self::Opus => "opus",
            Self::AmrWb { .. } => "AMR-WB",
            Self::Ilbc => "iLBC",
            Self::G7221 { .. } => "G7221",
        }
    }

    /// The payload type that RFC 3551 gives it.
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::L16 { .. }
            | Self::Opus
            | Self::AmrWb { .. }
            | Self::Ilbc
            | Self::G7221 { .. } => None,
        }
    }

    /// The RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 | Self::Ilbc => 8000,
            Self::AmrWb { .. } | Self::G7221 { .. } => 16_000,
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

    /// What `fmtp` says of it in an offer of ours, or in the answer to what the peer offered: that lost Opus can be made of what follows; how
    /// AMR-WB is packed; how long iLBC's frames are; the bit rate of G.722.1.
    pub(super) fn fmtp(self, offered: Option<&Parameters>) -> Option<String> {
        match self {
            Self::Opus => Some("useinbandfec=1".to_owned()),
            Self::AmrWb { octet_aligned } => {
                let offered = offered.and_then(AmrWb::of);
                let modes = offered.and_then(|offered| offered.modes);
                Some(AmrWb::say(octet_aligned, modes))
            }
            Self::Ilbc => {
                let millis = offered.map_or(20, |offered| ilbc_millis(offered).unwrap_or(30));
                Some(format!("mode={millis}"))
            }
            Self::G7221 { bitrate } => Some(format!("bitrate={bitrate}")),
            Self::Pcmu | Self::Pcma | Self::G722 | Self::L16 { .. } => None,
        }
    }

    /// The packet time of what was agreed on, in milliseconds: the usual one, that of the codec's frames if it has no other, or 10 where the
    /// peer takes nothing longer (`maxptime`, RFC 8866 section 6.4). Shorter packets, and halves of frames, there are none.
    pub(super) fn packet_millis(
        self,
        parameters: &Parameters,
        usual: u16,
        most: Option<u16>,
    ) -> u16 {
        let longer = |most: u16| (SHORT_PACKETS..usual).contains(&most);
        match self {
            Self::Ilbc if ilbc_millis(parameters) == Some(30) => 30,
            Self::Ilbc | Self::AmrWb { .. } | Self::G7221 { .. } => usual,
            _ if most.is_some_and(longer) => SHORT_PACKETS,
            _ => usual,
        }
    }

    /// Whether these are parameters of it that we can do.
    fn is_described(self, parameters: &Parameters) -> bool {
        match self {
            Self::AmrWb { octet_aligned } => {
                AmrWb::of(parameters).is_some_and(|found| found.octet_aligned == octet_aligned)
            }
            Self::Ilbc => ilbc_millis(parameters).is_some(),
            // It has to be said: frames do not tell (RFC 5577 section 5.1).
            Self::G7221 { bitrate } => parameters.number("bitrate") == Some(bitrate),
            _ => true,
        }
    }

    /// The codec behind a payload type of this media.
    pub(super) fn of(media: &MediaDescription, payload_type: u8) -> Option<Self> {
        match media.rtpmap(payload_type) {
            Some((name, clock, channels)) => {
                let parameters = Parameters::of(media, payload_type);
                Self::named(name).find(|codec| {
                    let stereo = channels == 2 && *codec == Self::Opus;
                    let is_meant = codec.clock_rate() == clock && (channels == 1 || stereo);
                    is_meant && codec.is_described(&parameters)
                })
            }
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

/// The length of iLBC's frames in milliseconds: 30 if nothing is said, and what both sides then use (RFC 3952 section 4.2). None if it is one
/// that does not exist.
pub fn ilbc_millis(parameters: &Parameters) -> Option<u32> {
    match parameters.get("mode") {
        None | Some("30") => Some(30),
        Some("20") => Some(20),
        Some(_) => None,
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
