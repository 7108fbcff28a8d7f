//! Client transactions (RFC 3261 sections 17.1.1 and 17.1.2, RFC 6026): the states and timers of one request of ours.

use std::time::{Duration, Instant};

use super::types::{ClientId, EndpointConfig, Flow};
use crate::message::{HeaderName, Headers, Method, Request};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Calling, or Trying for another request than INVITE.
    Waiting,
    Proceeding,
    /// A final response came; for an INVITE one that is not 2xx.
    Completed,
    /// A 2xx to an INVITE came; more may.
    Accepted,
}

/// A CANCEL for this INVITE.
#[derive(Debug)]
pub(super) enum Cancel {
    None,
    /// Waits for a provisional response (RFC 3261 section 9.1).
    Asked {
        id: ClientId,
        reason: Option<String>,
    },
    Sent,
}

pub(super) struct Client {
    pub key: String,
    pub flow: Flow,
    /// With our `Via`; the body is dropped once it is sent.
    pub request: Request,
    pub state: State,
    pub started: Instant,
    pub sends: u32,
    pub cancel: Cancel,
    /// What a repeat sends: the request, or the ACK once completed. Empty where nothing is repeated.
    pub bytes: Vec<u8>,
    interval: Duration,
    /// Timers A and E.
    resend: Option<Instant>,
    /// Timers B, D, F, K, M.
    end: Option<Instant>,
}

/// What a time-out means.
pub(super) enum Expired {
    Resend,
    /// No final response in time.
    Failed,
    Ended,
    Nothing,
}

/// What a response means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Deliver,
    /// The first refusal of an INVITE: to be acknowledged.
    DeliverAndAck,
    /// A repeated refusal: the ACK goes again.
    RepeatAck,
    Absorb,
}

impl Client {
    pub fn new(
        key: String,
        request: Request,
        bytes: Vec<u8>,
        flow: Flow,
        now: Instant,
        config: &EndpointConfig,
    ) -> Self {
        let resend = (!flow.transport.is_reliable()).then_some(now + config.t1);
        Self {
            key,
            bytes: if resend.is_some() { bytes } else { Vec::new() },
            flow,
            request: Request {
                body: Vec::new(),
                ..request
            },
            state: State::Waiting,
            started: now,
            sends: 1,
            cancel: Cancel::None,
            interval: config.t1,
            resend,
            end: Some(now + config.t1 * 64),
        }
    }

    pub fn is_invite(&self) -> bool {
        self.request.method == Method::INVITE
    }

    /// Whether no final response came yet.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Waiting | State::Proceeding)
    }

    pub fn deadline(&self) -> Option<Instant> {
        [self.resend, self.end].into_iter().flatten().min()
    }

    pub fn on_timeout(&mut self, now: Instant, config: &EndpointConfig) -> Expired {
        if self.end.is_some_and(|end| end <= now) {
            return if self.is_pending() {
                Expired::Failed
            } else {
                Expired::Ended
            };
        }
        if self.resend.is_none_or(|resend| resend > now) {
            return Expired::Nothing;
        }
        self.interval = match (self.is_invite(), self.state) {
            (true, _) => self.interval * 2,
            (false, State::Waiting) => (self.interval * 2).min(config.t2),
            (false, _) => config.t2,
        };
        self.resend = Some(now + self.interval);
        self.sends = self.sends.saturating_add(1);
        Expired::Resend
    }

    /// Takes a response; when `deadline` says now afterwards, the transaction is over.
    pub fn on_response(&mut self, status: u16, now: Instant, config: &EndpointConfig) -> Verdict {
        match (self.state, status) {
            (State::Waiting | State::Proceeding, ..200) => {
                self.state = State::Proceeding;
                if self.is_invite() {
                    self.resend = None;
                    // Before a CANCEL the owner decides how long it may ring (timer C of a proxy).
                    if !matches!(self.cancel, Cancel::Sent) {
                        self.end = None;
                    }
                    self.bytes = Vec::new();
                }
                Verdict::Deliver
            }
            (State::Waiting | State::Proceeding, 200..300) if self.is_invite() => {
                self.finish(State::Accepted, now + config.t1 * 64);
                Verdict::Deliver
            }
            (State::Waiting | State::Proceeding, _) => {
                let reliable = self.flow.transport.is_reliable();
                if self.is_invite() {
                    // Timer D is at least 32 s over datagrams.
                    let wait = if reliable {
                        Duration::ZERO
                    } else {
                        (config.t1 * 64).max(Duration::from_secs(32))
                    };
                    self.finish(State::Completed, now + wait);
                    Verdict::DeliverAndAck
                } else {
                    self.finish(
                        State::Completed,
                        now + if reliable { Duration::ZERO } else { config.t4 },
                    );
                    Verdict::Deliver
                }
            }
            (State::Accepted, 200..300) => Verdict::Deliver,
            (State::Completed, 300..) if self.is_invite() => Verdict::RepeatAck,
            (State::Completed | State::Accepted, _) => Verdict::Absorb,
        }
    }

    fn finish(&mut self, state: State, end: Instant) {
        self.state = state;
        self.resend = None;
        self.end = Some(end);
        self.bytes = Vec::new();
        if !(self.is_invite() && state == State::Completed) {
            // Only the ACK of a refusal is still made from it, and this may stand for half a minute.
            self.request.headers = Headers::new();
        }
    }

    /// The CANCEL goes out: if no final response follows, the INVITE counts as cancelled.
    pub fn cancel_sent(&mut self, now: Instant, config: &EndpointConfig) {
        self.cancel = Cancel::Sent;
        self.end = Some(now + config.t1 * 64);
    }

    /// The ACK for a refusal (RFC 3261 section 17.1.1.3). `to` is that of the response, for its tag.
    pub fn ack(&self, to: Option<&str>) -> Request {
        let mut ack = self.companion(Method::ACK);
        if let Some(to) = to {
            ack.headers.set(HeaderName::To, to);
        }
        ack
    }

    /// The CANCEL for this INVITE (RFC 3261 section 9.1).
    pub fn cancel_request(&self, reason: Option<&str>) -> Request {
        let mut cancel = self.companion(Method::CANCEL);
        if let Some(reason) = reason {
            cancel.headers.push(HeaderName::Reason, reason);
        }
        cancel
    }

    /// A request that is part of this INVITE: the same hop, branch, route and number.
    fn companion(&self, method: Method) -> Request {
        let own = &self.request.headers;
        let mut headers = Headers::new();
        if let Some(via) = own.get(&HeaderName::Via) {
            headers.push(HeaderName::Via, via);
        }
        headers.push(HeaderName::MaxForwards, "70");
        for name in [
            HeaderName::Route,
            HeaderName::From,
            HeaderName::To,
            HeaderName::CallId,
        ] {
            headers.push_from(own, &name);
        }
        let number = own.cseq().map_or(1, |(number, _)| number);
        headers.push(HeaderName::CSeq, format!("{number} {method}"));
        Request {
            method,
            uri: self.request.uri.clone(),
            headers,
            body: Vec::new(),
        }
    }
}
