//! What stands between a call's packets and the network: nothing, keys, or a closed door until there are keys.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::dtls::{Handshake, Terms};
use crate::srtp::{Guard, MasterKey, Refused};

/// How a call's packets are protected.
#[derive(Debug, Clone, Default)]
pub enum Protection {
    /// In the clear.
    #[default]
    None,
    /// Nothing is sent, nothing is taken: the keys are not known (yet).
    Closed,
    /// SRTP.
    Keys {
        /// Ours.
        send: MasterKey,
        /// The peer's.
        receive: MasterKey,
    },
    /// SRTP with the keys of a handshake; until it is over, nothing is sent or taken.
    Handshake(Terms),
}

/// What a packet needs to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Nothing.
    Open,
    /// The call's key.
    Locked,
    /// Nothing passes yet.
    Closed,
}

/// Packets of strangers are tried on the key no more often than that.
const TRIAL_INTERVAL: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Cover {
    state: State,
    /// It stays when it is over.
    handshake: Option<Box<Handshake>>,
    next_trial: Option<Instant>,
}

#[derive(Debug)]
enum State {
    None,
    Closed,
    Keyed(Box<Guard>),
}

impl Cover {
    /// What was agreed on. Without usable keys the door stays closed.
    pub fn new(protection: &Protection, now: Instant) -> Self {
        Self {
            state: match protection {
                Protection::None => State::None,
                Protection::Closed | Protection::Handshake(_) => State::Closed,
                Protection::Keys { send, receive } => Guard::new(send, receive)
                    .map_or(State::Closed, |guard| State::Keyed(Box::new(guard))),
            },
            handshake: match protection {
                Protection::Handshake(terms) => Some(Box::new(Handshake::new(terms, now))),
                _ => None,
            },
            next_trial: None,
        }
    }

    /// What was agreed on now. Keys that stay keep their contexts. Whether what we send begins anew.
    pub fn change(&mut self, protection: &Protection, now: Instant) -> bool {
        if let (Some(handshake), Protection::Handshake(terms)) = (&self.handshake, protection)
            && handshake.is_with(terms)
        {
            return false;
        }
        if let (State::Keyed(guard), Protection::Keys { send, receive }) =
            (&mut self.state, protection)
        {
            // They may have come from one until now.
            self.handshake = None;
            match guard.rekey(send, receive) {
                Ok(anew) => return anew,
                Err(_) => self.state = State::Closed,
            }
        } else {
            *self = Self::new(protection, now);
        }
        self.has_keys()
    }

    /// Takes a datagram of a handshake. Whether there are keys now.
    pub fn take_handshake(&mut self, datagram: &[u8], from: SocketAddr, now: Instant) -> bool {
        let Some(handshake) = &mut self.handshake else {
            return false;
        };
        handshake.take(datagram, from, now);
        let Some((send, receive)) = handshake.take_keys() else {
            return false;
        };
        self.state = Guard::new(&send, &receive)
            .map_or(State::Closed, |guard| State::Keyed(Box::new(guard)));
        self.has_keys()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.handshake.as_ref()?.poll_timeout()
    }

    /// Repeats what of a handshake was not answered.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(handshake) = &mut self.handshake
            && handshake.poll_timeout().is_some_and(|due| due <= now)
        {
            handshake.handle_timeout(now);
        }
    }

    /// The next datagram of a handshake, and where the peer's own came from.
    pub fn poll_handshake(&mut self) -> Option<(Vec<u8>, Option<SocketAddr>)> {
        self.handshake.as_mut()?.poll_transmit()
    }

    /// Why a handshake failed, once.
    pub fn take_failure(&mut self) -> Option<String> {
        self.handshake.as_mut()?.take_failure()
    }

    /// Whether the keys are those of a handshake.
    pub fn shakes_hands(&self) -> bool {
        self.handshake.is_some()
    }

    /// Whether packets are protected.
    pub fn has_keys(&self) -> bool {
        matches!(self.state, State::Keyed(_))
    }

    /// What a packet needs to pass.
    pub fn door(&self) -> Door {
        match self.state {
            State::None => Door::Open,
            State::Closed => Door::Closed,
            State::Keyed(_) => Door::Locked,
        }
    }

    /// Whether anything may leave.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// Whether a packet of nobody who is expected may be tried on the key.
    pub fn may_try(&mut self, now: Instant) -> bool {
        let may = self.has_keys() && self.next_trial.is_none_or(|next| next <= now);
        if may {
            self.next_trial = Some(now + TRIAL_INTERVAL);
        }
        may
    }

    /// Takes the protection off an RTP packet. Gives the length that is left.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        match &mut self.state {
            State::None => Ok(packet.len()),
            State::Closed => Err(Refused::Forged),
            State::Keyed(guard) => guard.unprotect_rtp(packet),
        }
    }

    /// The same for RTCP.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Refused> {
        match &mut self.state {
            State::None => Ok(packet.len()),
            State::Closed => Err(Refused::Forged),
            State::Keyed(guard) => guard.unprotect_rtcp(packet),
        }
    }

    /// Protects the RTP packet in the first `length` bytes. Gives the new length; nothing if it must not leave.
    pub fn seal_rtp(&mut self, buffer: &mut [u8], length: usize) -> Option<usize> {
        match &mut self.state {
            State::None => Some(length),
            State::Closed => None,
            State::Keyed(guard) => guard.protect_rtp(buffer, length).ok(),
        }
    }

    /// The same for RTCP.
    pub fn seal_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Option<usize> {
        match &mut self.state {
            State::None => Some(length),
            State::Closed => None,
            State::Keyed(guard) => guard.protect_rtcp(buffer, length).ok(),
        }
    }
}
