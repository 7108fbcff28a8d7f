//! Server transactions (RFC 3261 sections 17.2.1 and 17.2.2, RFC 6026): the states and timers of one request that came.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::types::{EndpointConfig, Flow, Transmit, Transport};
use crate::message::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No final response yet (Trying and Proceeding).
    Proceeding,
    /// A final response went; for an INVITE one that is not 2xx.
    Completed,
    /// The ACK for our refusal came.
    Confirmed,
    /// A 2xx to an INVITE went; the owner may send it again.
    Accepted,
}

/// Where the responses to a request go.
#[derive(Clone)]
pub(super) struct Reply {
    pub flow: Flow,
    /// Once the connection has closed.
    otherwise: Option<SocketAddr>,
}

impl Reply {
    /// RFC 3261 section 18.2.2, RFC 3581: over datagrams to the address that the request came from, and there to the port it came from
    /// if `rport` was asked for, else to the port that the `Via` names; over a stream back on it, or to the port that the `Via` names.
    /// `maddr` is not honoured: it would send our answers to third parties.
    pub fn to(request: &Request, flow: &Flow) -> Self {
        let (flow, otherwise) = match (request.headers.via_parts(), flow.transport) {
            (Ok(via), Transport::Udp) if !via.wants_rport() => {
                let port = via.port.unwrap_or(5060);
                (Flow::udp(SocketAddr::new(flow.remote.ip(), port)), None)
            }
            // A connection between our own has no address.
            (Ok(via), Transport::Tcp | Transport::Tls) if !flow.remote.ip().is_unspecified() => {
                let usual = if flow.transport == Transport::Tls {
                    5061
                } else {
                    5060
                };
                let port = via.port.unwrap_or(usual);
                let otherwise = SocketAddr::new(flow.remote.ip(), port);
                (flow.clone(), Some(otherwise))
            }
            _ => (flow.clone(), None),
        };
        Self { flow, otherwise }
    }

    pub fn transmit(&self, bytes: Vec<u8>) -> Transmit {
        Transmit {
            flow: self.flow.clone(),
            bytes,
            otherwise: self.otherwise,
        }
    }
}

pub(super) struct Server {
    pub key: String,
    pub merge_key: Option<String>,
    pub invite: bool,
    /// Answered by the endpoint itself: its owner hears nothing of it.
    pub internal: bool,
    /// Where responses go.
    pub reply: Reply,
    pub state: State,
    /// The last response, for repeats; before the first one of an INVITE the 100 that is due.
    pub bytes: Vec<u8>,
    /// The tag of our last response, so that the 200 to a CANCEL carries the same.
    pub to_tag: Option<String>,
    interval: Duration,
    /// The 100 that is due, then timer G.
    resend: Option<Instant>,
    /// Timers H, I, J, L.
    end: Option<Instant>,
    sent: bool,
}

/// What a time-out means.
pub(super) enum Expired {
    Send,
    /// No ACK for our refusal.
    NoAck,
    Ended,
    Nothing,
}

impl Server {
    pub fn new(key: String, invite: bool, internal: bool, reply: Reply) -> Self {
        Self {
            key,
            merge_key: None,
            invite,
            internal,
            reply,
            state: State::Proceeding,
            bytes: Vec::new(),
            to_tag: None,
            interval: Duration::ZERO,
            resend: None,
            end: None,
            sent: false,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        [self.resend, self.end].into_iter().flatten().min()
    }

    /// Sends this 100 later, unless something else goes first.
    pub fn trying_later(&mut self, trying: Vec<u8>, at: Instant) {
        self.bytes = trying;
        self.resend = Some(at);
    }

    /// What a repeated request is answered with.
    pub fn repeat(&self) -> Option<&[u8]> {
        let answer = self.sent && matches!(self.state, State::Proceeding | State::Completed);
        (answer && !self.bytes.is_empty()).then_some(self.bytes.as_slice())
    }

    /// Takes the owner's response; whether it is to be sent. When `deadline` says now afterwards, the transaction is
    /// over.
    pub fn respond(
        &mut self,
        status: u16,
        bytes: &[u8],
        now: Instant,
        config: &EndpointConfig,
    ) -> bool {
        let reliable = self.reply.flow.transport.is_reliable();
        match (self.state, status) {
            (State::Proceeding, ..200) => {
                self.resend = None;
                self.bytes = bytes.to_vec();
            }
            (State::Proceeding, 200..300) if self.invite => {
                self.state = State::Accepted;
                self.resend = None;
                self.bytes = Vec::new();
                self.end = Some(now + config.t1 * 64);
            }
            (State::Proceeding, _) => {
                self.state = State::Completed;
                self.bytes = bytes.to_vec();
                self.resend = None;
                let long = now + config.t1 * 64;
                if self.invite {
                    // A challenge goes once for each INVITE that comes: its receiver may not have asked for it, if the source is forged
                    // (RFC 3261 section 26.3.2.4).
                    let once = matches!(status, 401 | 407) && !self.sent;
                    self.interval = config.t1;
                    self.resend = (!reliable && !once).then_some(now + config.t1);
                    self.end = Some(long);
                } else {
                    self.end = Some(if reliable { now } else { long });
                }
            }
            (State::Accepted, 200..300) => {}
            _ => return false,
        }
        self.sent = true;
        true
    }

    /// An ACK with the INVITE's branch came; whether it is for a 2xx, and so the owner's.
    pub fn on_ack(&mut self, now: Instant, config: &EndpointConfig) -> bool {
        if self.state == State::Completed {
            self.state = State::Confirmed;
            self.resend = None;
            self.bytes = Vec::new();
            self.end = Some(if self.reply.flow.transport.is_reliable() {
                now
            } else {
                now + config.t4
            });
        }
        self.state == State::Accepted
    }

    pub fn on_timeout(&mut self, now: Instant, config: &EndpointConfig) -> Expired {
        if self.end.is_some_and(|end| end <= now) {
            return if self.invite && self.state == State::Completed {
                Expired::NoAck
            } else {
                Expired::Ended
            };
        }
        if self.resend.is_none_or(|resend| resend > now) {
            return Expired::Nothing;
        }
        if self.state == State::Completed {
            self.interval = (self.interval * 2).min(config.t2);
            self.resend = Some(now + self.interval);
        } else {
            self.resend = None;
        }
        self.sent = true;
        Expired::Send
    }
}
