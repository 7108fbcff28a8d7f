//! RTP headers (RFC 3550 §5.1): read from what arrives, write what leaves.
//!
//! Not here: which source is believed (`source`), and order and loss (`jitter`, `reception`).

use thiserror::Error;

/// Bytes of a header without CSRC and extension, the only kind that is written here.
pub const HEADER_BYTES: usize = 12;

/// Why a datagram is not an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RtpError {
    /// Shorter than the fixed header.
    #[error("{0} bytes are too few for an RTP header")]
    TooShort(usize),
    /// Not version 2: STUN, DTLS or noise.
    #[error("RTP version {0} instead of 2")]
    Version(u8),
    /// An RTCP packet on the RTP port (RFC 5761 §4).
    #[error("an RTCP packet, not RTP")]
    Rtcp,
    /// CSRC list or header extension run past the end.
    #[error("header runs past the end of the datagram")]
    Truncated,
    /// The padding count is zero or larger than the payload.
    #[error("padding count {0} does not fit the payload")]
    Padding(u8),
}

/// One RTP packet, borrowed from the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Marker bit: for audio, the first packet after silence.
    pub marker: bool,
    /// Payload type, 0–127.
    pub payload_type: u8,
    /// Sequence number, wraps.
    pub sequence: u16,
    /// Time of the first sample in units of the codec's clock, wraps.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload without padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads one datagram. Any input is safe; CSRCs and the extension are skipped.
    pub fn parse(data: &'a [u8]) -> Result<Self, RtpError> {
        let Some((fixed, mut rest)) = data.split_first_chunk::<HEADER_BYTES>() else {
            return Err(RtpError::TooShort(data.len()));
        };
        let version = fixed[0] >> 6;
        if version != 2 {
            return Err(RtpError::Version(version));
        }
        if is_rtcp(data) {
            return Err(RtpError::Rtcp);
        }
        let csrc_bytes = usize::from(fixed[0] & 0x0f) * 4;
        rest = rest.get(csrc_bytes..).ok_or(RtpError::Truncated)?;
        if fixed[0] & 0x10 != 0 {
            let (head, body) = rest.split_first_chunk::<4>().ok_or(RtpError::Truncated)?;
            let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
            rest = body.get(words * 4..).ok_or(RtpError::Truncated)?;
        }
        if fixed[0] & 0x20 != 0 {
            let count = rest.last().copied().unwrap_or(0);
            if count == 0 || usize::from(count) > rest.len() {
                return Err(RtpError::Padding(count));
            }
            rest = &rest[..rest.len() - usize::from(count)];
        }
        Ok(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            payload: rest,
        })
    }

    /// Writes the packet with a plain 12-byte header; `None` if `out` is too small, else the number of bytes written.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let total = HEADER_BYTES + self.payload.len();
        let out = out.get_mut(..total)?;
        out[0] = 0x80;
        out[1] = (u8::from(self.marker) << 7) | (self.payload_type & 0x7f);
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        out[12..].copy_from_slice(self.payload);
        Some(total)
    }
}

/// Whether a datagram is RTCP by its packet type (192–223, RFC 5761 §4).
pub fn is_rtcp(data: &[u8]) -> bool {
    data.len() >= 2 && data[0] >> 6 == 2 && (192..=223).contains(&data[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_it_wrote() {
        let packet = Packet {
            marker: true,
            payload_type: 101,
            sequence: 65535,
            timestamp: 0xdead_beef,
            ssrc: 7,
            payload: &[1, 2, 3],
        };
        let mut buffer = [0; 32];
        let length = packet.write(&mut buffer).unwrap();
        assert_eq!(Packet::parse(&buffer[..length]), Ok(packet));
        assert_eq!(packet.write(&mut [0; 14]), None);
    }

    #[test]
    fn skips_csrc_extension_and_padding() {
        let mut data = vec![0x80 | 0x20 | 0x10 | 2, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        data.extend([0; 8]);
        data.extend([0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
        data.extend([42, 43, 0, 2]);
        assert_eq!(Packet::parse(&data).unwrap().payload, &[42, 43]);
    }

    #[test]
    fn refuses_bad_padding_truncation_and_rtcp() {
        let header = |first: u8, second: u8| vec![first, second, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        assert_eq!(Packet::parse(&header(0xa0, 0)), Err(RtpError::Padding(0)));
        assert_eq!(Packet::parse(&header(0x8f, 0)), Err(RtpError::Truncated));
        assert_eq!(Packet::parse(&header(0x90, 0)), Err(RtpError::Truncated));
        assert_eq!(Packet::parse(&header(0x80, 200)), Err(RtpError::Rtcp));
        assert_eq!(Packet::parse(&header(0x00, 0)), Err(RtpError::Version(0)));
        assert_eq!(Packet::parse(&[0x80; 11]), Err(RtpError::TooShort(11)));
        let mut long_padding = header(0xa0, 0);
        long_padding.extend([1, 2, 9]);
        assert_eq!(Packet::parse(&long_padding), Err(RtpError::Padding(9)));
    }

    proptest! {
        #[test]
        fn never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packet) = Packet::parse(&data) {
                prop_assert!(packet.payload.len() <= data.len() - HEADER_BYTES);
            }
        }

        #[test]
        fn never_panics_on_version_2(mut data in proptest::collection::vec(any::<u8>(), 12..100)) {
            data[0] = (data[0] & 0x3f) | 0x80;
            let _ = Packet::parse(&data);
        }
    }
}
