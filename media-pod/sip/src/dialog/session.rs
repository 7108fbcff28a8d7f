//! An established call's behaviour inside its dialog, the same for both sides: requests of the peer, our BYE and OPTIONS,
//! and the 2xx that is repeated until its ACK comes.

use std::time::{Duration, Instant};

use super::body::{self, Info};
use super::outbox::Outbox;
use super::refresh::{Acked, Refresh};
use super::refusal;
use super::timer::{Due, SessionTimer};
use super::{Action, CallEvent, Dialog, EndedBy, RespondTo};
use crate::message::{HeaderName, Headers, Method, Request, Response};
use crate::refer::Refers;
use crate::sdp::{self, Capabilities, LocalMedia, Negotiated, SessionDescription};
use crate::transaction::ServerId;

/// What we take inside and outside of dialogs.
pub(crate) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK";
/// The same where the owner takes transfers.
pub(crate) const ALLOW_WITH_REFER: &str =
    "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK, REFER, NOTIFY";

/// What a call knows of itself before it has a dialog.
#[derive(Clone)]
pub(crate) struct Own {
    pub capabilities: Capabilities,
    pub local: LocalMedia,
    /// The `Server` or `User-Agent` header.
    pub product: String,
    pub t1: Duration,
    pub t2: Duration,
}

/// A 2xx to an INVITE whose ACK has not come.
pub(super) struct Unacked {
    to: RespondTo,
    cseq: u32,
    response: Response,
    /// The 2xx carried our offer: the ACK brings the answer.
    pub(super) offer: Option<SessionDescription>,
    next: Instant,
    interval: Duration,
    deadline: Instant,
}

pub(crate) struct Session {
    pub own: Own,
    pub dialog: Dialog,
    /// The description that we sent last.
    pub(super) sent: Option<SessionDescription>,
    pub(super) negotiated: Option<Negotiated>,
    pub(super) unacked: Vec<Unacked>,
    probe: Option<u64>,
    bye: Option<u64>,
    /// A BYE that waits for the ACK (RFC 3261 section 15).
    hang_up: Option<(EndedBy, Option<String>)>,
    /// Whether the call ends with the answer to our BYE, or with the BYE itself.
    pub waits_for_bye_answer: bool,
    /// Whether we made the Call-ID: decides who waits longer when both speak at once.
    pub owns_call_id: bool,
    /// Whether the INVITE was answered: before that there is no session to be timed.
    pub established: bool,
    /// Whether the peer takes UPDATE, by its `Allow`.
    pub(super) peer_updates: bool,
    pub timer: SessionTimer,
    pub(super) refresh: Option<Refresh>,
    pub(super) acked: Option<Acked>,
    pub refers: Refers,
    /// Whether the owner takes calls that replace this one.
    pub replaceable: bool,
}

impl Session {
    pub fn new(own: Own, dialog: Dialog) -> Self {
        Self {
            own,
            dialog,
            sent: None,
            negotiated: None,
            unacked: Vec::new(),
            probe: None,
            bye: None,
            hang_up: None,
            waits_for_bye_answer: false,
            owns_call_id: false,
            established: false,
            peer_updates: false,
            timer: SessionTimer::default(),
            refresh: None,
            acked: None,
            refers: Refers::default(),
            replaceable: false,
        }
    }

    /// Takes down what the peer says of itself in an INVITE, UPDATE or 2xx.
    pub fn note_peer(&mut self, headers: &Headers) {
        if headers.has(&HeaderName::Allow) {
            self.peer_updates = headers.lists(&HeaderName::Allow, "UPDATE");
        }
    }

    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// Whether the 2xx with that number waits for its ACK.
    pub fn awaits_ack(&self, cseq: u32) -> bool {
        self.unacked.iter().any(|unacked| unacked.cseq == cseq)
    }

    pub fn reply(&self, request: &Request, status: u16, phrase: Option<&str>) -> Response {
        let mut response = Response::to_request(request, status, phrase);
        response.set_to_tag(&self.dialog.id().local_tag);
        response
            .headers
            .push(HeaderName::Server, self.own.product.clone());
        response
    }

    /// A 2xx to an INVITE or UPDATE.
    pub fn success(&self, request: &Request, body: Option<&SessionDescription>) -> Response {
        let mut response = self.reply(request, 200, None);
        for route in request.headers.get_all(&HeaderName::RecordRoute) {
            response.headers.push(HeaderName::RecordRoute, route);
        }
        response
            .headers
            .push(HeaderName::Contact, self.dialog.contact().to_string());
        response.headers.push(HeaderName::Allow, self.allow());
        response
            .headers
            .push(HeaderName::Supported, self.supported());
        if let Some(body) = body {
            response.set_body(sdp::CONTENT_TYPE, body.to_bytes());
        }
        response
    }

    /// Sends a 2xx to an INVITE, and again until the ACK comes, whatever the transport (section 13.3.1.4).
    pub fn send_success(
        &mut self,
        to: RespondTo,
        cseq: u32,
        response: Response,
        offer: Option<SessionDescription>,
        now: Instant,
        out: &mut Outbox,
    ) {
        out.respond(to, response.clone());
        let interval = self.own.t1;
        self.unacked.push(Unacked {
            to,
            cseq,
            response,
            offer,
            next: now + interval,
            interval,
            deadline: now + self.own.t1 * 64,
        });
    }

    /// A request inside the dialog. Each is answered at once, and finally.
    pub fn on_request(&mut self, id: ServerId, request: &Request, now: Instant, out: &mut Outbox) {
        let to = RespondTo::Request(id);
        if let Err(status) = self.dialog.check(request) {
            return out.respond(to, self.reply(request, status, None));
        }
        if request.method == Method::BYE {
            out.respond(to, self.reply(request, 200, None));
            return self.end(EndedBy::Peer, reason_of(request), out);
        }
        if self.bye.is_some() {
            return out.respond(to, self.reply(request, 481, None));
        }
        if let Some(refusal) = refusal::refuse_unknown_extensions(request) {
            return out.respond(to, self.finish(refusal));
        }
        match request.method.as_str() {
            "INVITE" | "UPDATE" => self.on_offer(to, request, now, out),
            "OPTIONS" => {
                let mut response = self.success(request, None);
                response.headers.push(HeaderName::Accept, sdp::CONTENT_TYPE);
                out.respond(to, response);
            }
            "INFO" => match body::info(&request.headers, &request.body) {
                Info::Digit(digit) => {
                    out.respond(to, self.reply(request, 200, None));
                    out.tell(CallEvent::Dtmf(digit));
                }
                Info::Empty => out.respond(to, self.reply(request, 200, None)),
                Info::Unsupported => {
                    let mut response = self.reply(request, 415, None);
                    response.headers.push(
                        HeaderName::Accept,
                        "application/dtmf-relay, application/dtmf",
                    );
                    out.respond(to, response);
                }
            },
            "REFER" if self.refers.taken && self.established => {
                self.on_refer_or_notify(to, request, now, out);
            }
            // Without a REFER of ours there is nothing that it could be about.
            "NOTIFY" if self.refers.sent().any() => {
                self.on_refer_or_notify(to, request, now, out);
            }
            // One that belongs to a response of ours does not come here (RFC 3262 section 3).
            "PRACK" => out.respond(to, self.reply(request, 481, None)),
            _ => {
                let known = matches!(request.method, Method::Known(_));
                let mut response = self.reply(request, if known { 405 } else { 501 }, None);
                response.headers.push(HeaderName::Allow, self.allow());
                out.respond(to, response);
            }
        }
    }

    /// Adds to a refusal what each response of ours carries.
    pub fn finish(&self, mut response: Response) -> Response {
        response.set_to_tag(&self.dialog.id().local_tag);
        response
            .headers
            .push(HeaderName::Server, self.own.product.clone());
        response
    }

    /// The ACK for a 2xx of ours; whether it was one that was awaited.
    pub fn on_ack(&mut self, request: &Request, out: &mut Outbox) -> bool {
        if out.ended || self.dialog.check_tags(request).is_err() {
            return false;
        }
        let Ok((cseq, _)) = request.headers.cseq() else {
            return false;
        };
        let Some(at) = self.unacked.iter().position(|unacked| unacked.cseq == cseq) else {
            return false;
        };
        let unacked = self.unacked.remove(at);
        if let Some(offer) = unacked.offer {
            let answer = body::description(&request.headers, &request.body)
                .ok()
                .flatten();
            let agreed =
                answer.map(|answer| sdp::apply_answer(&offer, &answer, &self.own.capabilities));
            match agreed {
                Some(Ok(negotiated)) => self.set_negotiated(negotiated, out),
                // A re-INVITE that fails late leaves what was agreed before.
                _ if self.negotiated.is_some() => {}
                _ => self.hang_up_as(
                    EndedBy::BadAnswer,
                    Some("SIP;cause=488;text=\"no usable answer in the ACK\"".to_owned()),
                    out,
                ),
            }
        }
        if self.unacked.is_empty()
            && let Some((by, reason)) = self.hang_up.take()
        {
            self.send_bye(by, reason, out);
        }
        true
    }

    /// Ends the call with a BYE, as soon as RFC 3261 section 15 allows it.
    pub fn hang_up_as(&mut self, by: EndedBy, reason: Option<String>, out: &mut Outbox) {
        if out.ended || self.bye.is_some() || self.hang_up.is_some() {
            return;
        }
        if self
            .unacked
            .iter()
            .any(|unacked| unacked.to == RespondTo::Invite)
        {
            self.hang_up = Some((by, reason));
        } else {
            self.send_bye(by, reason, out);
        }
    }

    fn send_bye(&mut self, by: EndedBy, reason: Option<String>, out: &mut Outbox) {
        let mut bye = self.dialog.request(Method::BYE);
        bye.headers
            .push(HeaderName::UserAgent, self.own.product.clone());
        if let Some(reason) = &reason {
            bye.headers.push(HeaderName::Reason, reason.clone());
        }
        self.bye = Some(out.request(bye));
        self.unacked.clear();
        self.timer.stop();
        self.end_refers(out);
        self.hang_up = Some((by, reason));
        if !self.waits_for_bye_answer {
            self.closed(out);
        }
    }

    /// Our BYE is done with.
    fn closed(&mut self, out: &mut Outbox) {
        let (by, reason) = self.hang_up.take().unwrap_or((EndedBy::Us, None));
        self.end(by, reason, out);
    }

    fn end(&mut self, by: EndedBy, reason: Option<String>, out: &mut Outbox) {
        self.unacked.clear();
        self.timer.stop();
        self.end_refers(out);
        out.end(by, None, reason);
    }

    /// Asks whether the other side still has the call. One question at a time.
    pub fn probe(&mut self, out: &mut Outbox) {
        if out.ended || self.probe.is_some() || self.bye.is_some() {
            return;
        }
        let mut options = self.dialog.request(Method::OPTIONS);
        options.headers.push(HeaderName::Accept, sdp::CONTENT_TYPE);
        options
            .headers
            .push(HeaderName::UserAgent, self.own.product.clone());
        self.probe = Some(out.request(options));
    }

    /// The token of our BYE, if it is on its way.
    pub fn bye_token(&self) -> Option<u64> {
        self.bye
    }

    /// The BYE once more, with credentials.
    pub fn repeat_bye(&mut self, headers: Vec<(HeaderName, String)>, out: &mut Outbox) {
        let mut bye = self.dialog.request(Method::BYE);
        for (name, value) in headers {
            bye.headers.push(name, value);
        }
        self.bye = Some(out.request(bye));
    }

    pub fn on_response(&mut self, token: u64, response: &Response, now: Instant, out: &mut Outbox) {
        if out.ended || response.is_provisional() {
            return;
        }
        if self.probe == Some(token) {
            self.probe = None;
            let gone = matches!(response.status, 408 | 481);
            out.tell(if gone {
                CallEvent::PeerGone
            } else {
                CallEvent::PeerAlive
            });
        } else if self.bye == Some(token) {
            self.closed(out);
        } else if self.is_refresh(token) {
            self.on_refresh_response(response, now, out);
        } else if !self.repeat_ack(token, response, out) {
            self.on_refer_outcome(token, Some(response.status), now, out);
        }
    }

    pub fn on_failed(&mut self, token: u64, now: Instant, out: &mut Outbox) {
        if out.ended {
            return;
        }
        if self.probe == Some(token) {
            self.probe = None;
            out.tell(CallEvent::PeerGone);
        } else if self.bye == Some(token) {
            self.closed(out);
        } else if self.is_refresh(token) {
            self.refresh_lost(408, out);
        } else {
            self.on_refer_outcome(token, None, now, out);
        }
    }

    /// Whether a refresh of ours may go out: one at a time, and none while an INVITE of the peer's waits for its ACK
    /// (RFC 3261 section 14.1).
    fn may_refresh(&self) -> bool {
        self.refresh.is_none() && self.unacked.is_empty()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.unacked
            .iter()
            .map(|unacked| unacked.next.min(unacked.deadline))
            .chain(self.timer.poll(self.may_refresh()))
            .chain(self.refers.poll_timeout())
            .min()
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        if self.unacked.iter().any(|unacked| unacked.deadline <= now) {
            // Section 13.3.1.4: the session is to be ended with a BYE.
            let pending = self.hang_up.take();
            let (by, reason) = pending.unwrap_or_else(|| {
                (
                    EndedBy::NoAck,
                    Some("SIP;cause=408;text=\"no ACK\"".to_owned()),
                )
            });
            return self.send_bye(by, reason, out);
        }
        for unacked in self
            .unacked
            .iter_mut()
            .filter(|unacked| unacked.next <= now)
        {
            unacked.interval = (unacked.interval * 2).min(self.own.t2);
            unacked.next = now + unacked.interval;
            out.act(Action::ResendFinal {
                to: unacked.to,
                response: unacked.response.clone(),
            });
        }
        self.refers_timeout(now, out);
        match self.timer.due(self.may_refresh(), now) {
            Some(Due::Refresh) => self.send_refresh(Vec::new(), out),
            Some(Due::Expiry) => {
                // Also when the BYE has to wait for an ACK, it is decided now.
                self.timer.stop();
                self.hang_up_as(
                    EndedBy::SessionExpired,
                    Some("SIP;cause=408;text=\"session expired\"".to_owned()),
                    out,
                );
            }
            None => {}
        }
    }
}

/// The `Reason` header of a request.
pub(crate) fn reason_of(request: &Request) -> Option<String> {
    request.headers.get(&HeaderName::Reason).map(str::to_owned)
}
