//! What arrives: which index a packet has, whether it was there before, and whether it is the peer's.

use aws_lc_rs::error::Unspecified;

use super::cipher::{Cipher, Usage};
use super::{MasterKey, Refused, header_bytes, sequence, word};

/// Streams of a peer that are told apart under one key: its phone, music on hold, whom it transferred to. Of more, the one that was
/// heard longest ago is forgotten.
const MAX_STREAMS: usize = 8;

/// Indices behind the highest one that may still come.
const WINDOW: u64 = u128::BITS as u64;

/// Takes the protection off what the peer sends.
pub struct Unprotect {
    rtp: Cipher,
    rtcp: Cipher,
    streams: Streams,
    rtcp_streams: Streams,
}

impl Unprotect {
    /// A context that has seen nothing yet.
    pub fn new(key: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Cipher::derive(key, Usage::Rtp)?,
            rtcp: Cipher::derive(key, Usage::Rtcp)?,
            streams: Streams::default(),
            rtcp_streams: Streams::default(),
        })
    }

    /// Unprotects an RTP packet. Gives the length that is left. One that is refused is not to be read any more, and leaves no trace: only
    /// what is authentic moves the window.
    pub fn rtp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        let header = header_bytes(packet).ok_or(Refused::Malformed)?;
        let (sequence, ssrc) = sequence(packet)
            .zip(word(packet, 8))
            .ok_or(Refused::Malformed)?;
        let index = match self.streams.of(ssrc) {
            Some(seen) => seen.index(sequence),
            None => sequence.into(),
        };
        self.streams.check(ssrc, index)?;
        let length = self.rtp.open_rtp(packet, header, (ssrc, index))?;
        self.streams.note(ssrc, index);
        Ok(length)
    }

    /// Unprotects an RTCP packet. Gives the length that is left.
    pub fn rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        let ssrc = word(packet, 4)
            .filter(|_| packet[0] >> 6 == 2)
            .ok_or(Refused::Malformed)?;
        let index = self.rtcp.rtcp_index(packet)?;
        self.rtcp_streams.check(ssrc, index.into())?;
        let length = self.rtcp.open_rtcp(packet, (ssrc, index))?;
        self.rtcp_streams.note(ssrc, index.into());
        Ok(length)
    }
}

/// What was seen of the peer's streams, the one heard last first.
#[derive(Default)]
struct Streams([Option<Seen>; MAX_STREAMS]);

impl Streams {
    fn of(&self, ssrc: u32) -> Option<&Seen> {
        self.0.iter().flatten().find(|seen| seen.ssrc == ssrc)
    }

    fn check(&self, ssrc: u32, index: u64) -> Result<(), Refused> {
        match self.of(ssrc) {
            Some(seen) if seen.has(index) => Err(Refused::Replayed),
            _ => Ok(()),
        }
    }

    fn note(&mut self, ssrc: u32, index: u64) {
        let known = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.ssrc == ssrc);
        let at = self.0.iter().position(known).unwrap_or_else(|| {
            self.0[MAX_STREAMS - 1] = Some(Seen {
                ssrc,
                highest: index,
                window: 0,
            });
            MAX_STREAMS - 1
        });
        self.0[..=at].rotate_right(1);
        if let Some(seen) = &mut self.0[0] {
            seen.note(index);
        }
    }
}

/// The indices of one stream.
struct Seen {
    ssrc: u32,
    highest: u64,
    /// Bit n: n below the highest one was seen.
    window: u128,
}

impl Seen {
    /// The index nearest to the highest one with this sequence number (RFC 3711 section 3.3.1).
    fn index(&self, sequence: u16) -> u64 {
        let distance = sequence.wrapping_sub(self.highest as u16).cast_signed();
        let near = self.highest.checked_add_signed(distance.into());
        // Before the first of all there is nothing.
        near.unwrap_or(sequence.into())
    }

    fn has(&self, index: u64) -> bool {
        let Some(behind) = self.highest.checked_sub(index) else {
            return false;
        };
        behind >= WINDOW || self.window >> behind & 1 == 1
    }

    fn note(&mut self, index: u64) {
        if let Some(ahead) = index.checked_sub(self.highest) {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.window = self.window.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = index;
        } else if self.highest - index < WINDOW {
            self.window |= 1 << (self.highest - index);
        }
    }
}
