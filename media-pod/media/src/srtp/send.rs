//! What leaves: our packets' indices, and their protection.

use aws_lc_rs::error::Unspecified;

use super::cipher::{Cipher, Usage};
use super::{MasterKey, RTCP_HEADER_BYTES, Refused, header_bytes, sequence, word};

/// The index of SRTCP has 31 bits.
const MAX_RTCP_INDEX: u32 = 0x7fff_ffff;

/// Protects one stream of ours, packets in the order of their sequence numbers.
pub struct Protect {
    rtp: Cipher,
    rtcp: Cipher,
    rollovers: u32,
    last: Option<u16>,
    rtcp_index: u32,
}

impl Protect {
    /// A context that has protected nothing yet. Its stream's first sequence number is best below 2^15, so that a peer that misses the
    /// first packets does not miss a roll-over (RFC 3711 section 3.3.1).
    pub fn new(key: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Cipher::derive(key, Usage::Rtp)?,
            rtcp: Cipher::derive(key, Usage::Rtcp)?,
            rollovers: 0,
            last: None,
            rtcp_index: 0,
        })
    }

    /// Protects the RTP packet in the first `length` bytes; the rest is room for the tag ([`super::OVERHEAD`]). Gives the new length.
    pub fn rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refused> {
        let packet = buffer.get(..length).ok_or(Refused::Malformed)?;
        let header = header_bytes(packet).ok_or(Refused::Malformed)?;
        let (sequence, ssrc) = sequence(packet)
            .zip(word(packet, 8))
            .ok_or(Refused::Malformed)?;
        let wrapped = self.last.is_some_and(|last| sequence < last);
        let rollovers = self
            .rollovers
            .checked_add(wrapped.into())
            .ok_or(Refused::Exhausted)?;
        let index = (u64::from(rollovers) << 16) | u64::from(sequence);
        let total = self.rtp.seal_rtp(buffer, header, length, (ssrc, index))?;
        (self.rollovers, self.last) = (rollovers, Some(sequence));
        Ok(total)
    }

    /// Protects the RTCP packet in the first `length` bytes. Gives the new length.
    pub fn rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refused> {
        let packet = buffer.get(..length).ok_or(Refused::Malformed)?;
        let ssrc = word(packet, 4)
            .filter(|_| length >= RTCP_HEADER_BYTES)
            .ok_or(Refused::Malformed)?;
        if self.rtcp_index >= MAX_RTCP_INDEX {
            return Err(Refused::Exhausted);
        }
        let index = self.rtcp_index + 1;
        let total = self.rtcp.seal_rtcp(buffer, length, (ssrc, index))?;
        self.rtcp_index = index;
        Ok(total)
    }
}
