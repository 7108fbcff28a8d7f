//! What offer and answer agreed on, and how a stream begins.

use std::net::{IpAddr, SocketAddr};

use crate::codec::Codec;
use crate::cover::Protection;
use crate::format::Format;
use crate::ice;
use crate::jitter::Delay;
use crate::networks::Networks;

/// Payload types of telephone events, and their clock (RFC 4733 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// The peer's number, which we send.
    pub send: u8,
    /// Our number, which the peer sends.
    pub receive: u8,
    /// Ticks per second of the durations in it: those of the codec, or 8,000 if the peer has no other.
    pub clock_rate: u32,
}

/// What offer and answer agreed on. A re-INVITE brings a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Audio codec, the same both ways.
    pub codec: Codec,
    /// Payload type to send, from the peer's SDP.
    pub send_payload_type: u8,
    /// Payload type to expect, from our SDP.
    pub receive_payload_type: u8,
    /// Telephone events, if agreed.
    pub telephone_event: Option<TelephoneEvent>,
    /// Where the peer's SDP wants media; `None` before an answer.
    pub remote: Option<SocketAddr>,
    /// Where the peer's SDP wants reports, if it says so (RFC 3605).
    pub remote_rtcp: Option<SocketAddr>,
    /// We may send (the peer is not holding us). While not, the agent's audio waits.
    pub send: bool,
    /// The peer sends. While not, its packets are ignored and their absence is not missed.
    pub receive: bool,
}

impl Session {
    /// Sound both ways under the same payload type, with a peer whose SDP wants it there, and keys as tones in it. Reports go to the port after.
    pub fn new(codec: Codec, payload_type: u8, remote: Option<SocketAddr>) -> Self {
        Self {
            codec,
            send_payload_type: payload_type,
            receive_payload_type: payload_type,
            telephone_event: None,
            remote,
            remote_rtcp: None,
            send: true,
            receive: true,
        }
    }

    /// Either side may not send: silence means nothing now.
    pub fn on_hold(&self) -> bool {
        !self.send || !self.receive
    }
}

/// How to start a stream. The random values are the caller's to draw (RFC 3550 §5.1).
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Result of offer and answer.
    pub session: Session,
    /// IP address that the peer's SIP comes from; a plausible source of its media too.
    pub signalling_ip: Option<IpAddr>,
    /// The provider's networks: from these, too.
    pub networks: Networks,
    /// Our synchronisation source.
    pub ssrc: u32,
    /// Our first sequence number.
    pub sequence: u16,
    /// Our first timestamp.
    pub timestamp: u32,
    /// How the agent hears and speaks.
    pub format: Format,
    /// How long the caller's packets wait before the agent hears them.
    pub delay: Delay,
    /// How long the first audio of a talk spurt waits, so that the agent's may be late by that: 20 is a good default. With 0 what the agent says
    /// in real time leaves when it comes.
    pub cushion_millis: u32,
    /// Whether the owner has a port for reports, and calls [`RtpStream::poll_report`](super::RtpStream::poll_report).
    pub reports: bool,
    /// How its packets are protected.
    pub protection: Protection,
    /// What was agreed on for ICE, where the peer offers it and checks which way leads to us.
    pub ice: Option<ice::Terms>,
}

impl StreamConfig {
    /// A call in the clear without ICE, of a peer of whom nothing is known but its SDP, with a port for reports. The agent hears and speaks what
    /// the codec loses nothing of, delay adapts to the network, and the cushion has 20 ms. The random values are the caller's to draw here, too:
    /// synchronisation source, first sequence number, first timestamp.
    pub fn new(session: Session, (ssrc, sequence, timestamp): (u32, u16, u32)) -> Self {
        Self {
            session,
            signalling_ip: None,
            networks: Networks::default(),
            ssrc,
            sequence,
            timestamp,
            format: Format::of(session.codec),
            delay: Delay::Adaptive,
            cushion_millis: 20,
            reports: true,
            protection: Protection::None,
            ice: None,
        }
    }
}
