//! Both directions of a call, over the changes of their keys.

use std::fmt;

use aws_lc_rs::error::Unspecified;

use super::{MasterKey, Protect, Refused, Unprotect};

/// Longest datagram that the key before is tried on.
const MAX_TRIED: usize = 2048;

/// The keys of a call: what we send with, and what the peer sends with.
pub struct Guard {
    keys: (MasterKey, MasterKey),
    send: Protect,
    receive: Unprotect,
    /// What the peer sent with until now: its packets are on their way until the first one with the new key has come.
    before: Option<Unprotect>,
}

impl Guard {
    /// New contexts.
    pub fn new(send: &MasterKey, receive: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self {
            keys: (send.clone(), receive.clone()),
            send: Protect::new(send)?,
            receive: Unprotect::new(receive)?,
            before: None,
        })
    }

    /// Other keys. A key that stays keeps its context, roll-over counter included. Whether what we send begins anew: then under another
    /// SSRC, so that no peer can take the old roll-over counter for the new one's.
    pub fn rekey(&mut self, send: &MasterKey, receive: &MasterKey) -> Result<bool, Unspecified> {
        if self.keys.1 != *receive {
            let fresh = Unprotect::new(receive)?;
            self.before = Some(std::mem::replace(&mut self.receive, fresh));
            self.keys.1 = receive.clone();
        }
        let anew = self.keys.0 != *send;
        if anew {
            self.send = Protect::new(send)?;
            self.keys.0 = send.clone();
        }
        Ok(anew)
    }

    /// See [`Protect::rtp`].
    pub fn protect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refused> {
        self.send.rtp(buffer, length)
    }

    /// See [`Protect::rtcp`].
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refused> {
        self.send.rtcp(buffer, length)
    }

    /// See [`Unprotect::rtp`].
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        if self.before.is_none() {
            return self.receive.rtp(packet);
        }
        self.with_either(packet, Unprotect::rtp)
    }

    /// See [`Unprotect::rtcp`].
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        if self.before.is_none() {
            return self.receive.rtcp(packet);
        }
        self.with_either(packet, Unprotect::rtcp)
    }

    fn with_either(
        &mut self,
        packet: &mut [u8],
        unprotect: fn(&mut Unprotect, &mut [u8]) -> Result<usize, Refused>,
    ) -> Result<usize, Refused> {
        let mut copy = [0; MAX_TRIED];
        let copy = copy.get_mut(..packet.len()).ok_or(Refused::Malformed)?;
        copy.copy_from_slice(packet);
        let result = unprotect(&mut self.receive, packet);
        let Some(before) = self.before.as_mut().filter(|_| result.is_err()) else {
            self.before = None;
            return result;
        };
        let length = unprotect(before, copy)?;
        packet[..length].copy_from_slice(&copy[..length]);
        Ok(length)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}
