//! One inbound call's protocol side, on top of an [`Endpoint`](crate::transaction::Endpoint) that the owner has.
//!
//! The owner hands in what belongs to the call and carries out the [`Action`]s; when to answer, and with what audio, is
//! its decision. After [`CallEvent::Ended`] nothing is sent any more, except refusals of requests that still come in.

mod progress;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::dialog::outbox::Outbox;
use crate::dialog::reliable::{Provisionals, RELIABLE};
use crate::dialog::session::{self, Own, Session};
use crate::dialog::{
    Action, CallEvent, Dialog, DialogId, EndedBy, RespondTo, body, refusal, timer,
};
use crate::message::{HeaderName, Method, NameAddr, Request, Response};
use crate::refer::{ReferId, Referral};
use crate::sdp::{Capabilities, LocalMedia, Negotiated, SessionDescription};
use crate::transaction::ServerId;

/// What an inbound call is told at the beginning.
#[derive(Clone, Debug)]
pub struct UasParams {
    /// Our Contact.
    pub contact: NameAddr,
    /// Our tag: unpredictable, unique.
    pub local_tag: String,
    /// What we can do.
    pub capabilities: Capabilities,
    /// Where our audio is; may be changed until the answer by [`UasCall::set_local`].
    pub local: LocalMedia,
    /// The `Server` header.
    pub server: String,
    /// T1 (500 ms).
    pub t1: Duration,
    /// T2 (4 s).
    pub t2: Duration,
    /// Whether provisional responses go reliably (RFC 3262) to a caller who merely supports it; to one who requires it
    /// they always do.
    pub reliable_provisionals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not answered yet.
    Incoming,
    Answered,
}

/// One inbound call.
pub struct UasCall {
    state: State,
    invite: Request,
    cseq: u32,
    /// The caller's offer, if the INVITE had one.
    offer: Option<SessionDescription>,
    ringing: bool,
    progressed: bool,
    /// Provisional responses go reliably.
    reliable: bool,
    provisionals: Provisionals,
    /// The last provisional response, as it is to go again, and when.
    refresh: Option<(Instant, Response)>,
    /// Our offer in a reliable response, until the PRACK brings the answer.
    early_offer: Option<SessionDescription>,
    /// Offer and answer were exchanged reliably before our 2xx.
    agreed: bool,
    /// The owner has answered, and our 2xx waits for a PRACK.
    accepting: bool,
    session: Session,
    out: Outbox,
}

impl UasCall {
    /// Takes an INVITE outside of a dialog.
    ///
    /// # Errors
    /// The final response that refuses it: 400, 415, 420, 422 or 488.
    pub fn new(invite: Request, params: UasParams, _now: Instant) -> Result<Self, Response> {
        let UasParams {
            contact,
            local_tag,
            capabilities,
            local,
            server,
            t1,
            t2,
            reliable_provisionals,
        } = params;
        let refuse = |mut response: Response| {
            response.set_to_tag(&local_tag);
            response.headers.push(HeaderName::Server, server.clone());
            response
        };
        let dialog = Dialog::from_invite(&invite, &local_tag, &contact).map_err(|error| {
            // Upper case as in other phrases is not needed: people read it in traces.
            refuse(Response::to_request(
                &invite,
                400,
                Some(&format!("Bad Request: {error}")),
            ))
        })?;
        if let Some(response) = refusal::refuse_unknown_extensions(&invite) {
            return Err(refuse(response));
        }
        if let Some(response) = timer::refuse_short(&invite) {
            return Err(refuse(response));
        }
        let offer = body::description(&invite.headers, &invite.body)
            .map_err(|error| refuse(refusal::refuse_body(&invite, &error)))?;
        let cseq = invite.headers.cseq().map_or(0, |(number, _)| number);
        let own = Own {
            capabilities,
            local,
            product: server.clone(),
            t1,
            t2,
        };
        let mut session = Session::new(own, dialog);
        session.note_peer(&invite.headers);
        if let Some(offer) = &offer {
            session
                .preview(offer)
                .map_err(|error| refuse(refusal::refuse_offer(&invite, &error)))?;
        }
        let reliable = invite.headers.lists(&HeaderName::Require, RELIABLE)
            || (reliable_provisionals && invite.headers.lists(&HeaderName::Supported, RELIABLE));
        Ok(Self {
            state: State::Incoming,
            invite,
            cseq,
            offer,
            ringing: false,
            progressed: false,
            reliable,
            provisionals: Provisionals::new(cseq, &local_tag, t1),
            refresh: None,
            early_offer: None,
            agreed: false,
            accepting: false,
            session,
            out: Outbox::default(),
        })
    }

    /// The INVITE.
    pub fn invite(&self) -> &Request {
        &self.invite
    }

    /// Changes where our audio is; only before we have said where, and only to what can answer the offer as well.
    pub fn set_local(&mut self, local: LocalMedia) {
        if self.state == State::Incoming && !self.session.has_described() {
            self.session.own.local = local;
        }
    }

    /// 200 with the answer, or with our offer if the INVITE had none. While the PRACK for a response that said something
    /// on media is missing, the 200 waits for it.
    pub fn accept(&mut self, now: Instant) {
        if self.state != State::Incoming || self.out.ended {
            return;
        }
        if self.provisionals.holds_back_success() {
            self.accepting = true;
            return;
        }
        let (body, offer) = if self.agreed {
            (None, None)
        } else if let Some(offer) = &self.offer {
            match self.session.answer(offer) {
                Ok(answer) => (Some(answer), None),
                Err(error) => {
                    let response = refusal::refuse_offer(&self.invite, &error);
                    return self.refuse(response, EndedBy::Us, Some(error.to_string()));
                }
            }
        } else {
            let offer = self.session.offer();
            (Some(offer.clone()), Some(offer))
        };
        self.state = State::Answered;
        self.session.established = true;
        self.stop_provisionals();
        let mut response = self.session.success(&self.invite, body.as_ref());
        self.session.timer.grant(&self.invite, &mut response, now);
        self.session.send_success(
            RespondTo::Invite,
            self.cseq,
            response,
            offer,
            now,
            &mut self.out,
        );
    }

    /// Refuses the call, if it isn't answered yet.
    pub fn reject(
        &mut self,
        status: u16,
        phrase: Option<&str>,
        headers: Vec<(HeaderName, String)>,
        _now: Instant,
    ) {
        if self.state != State::Incoming || self.out.ended {
            return;
        }
        let mut response = Response::to_request(&self.invite, status.clamp(300, 699), phrase);
        for (name, value) in headers {
            response.headers.push(name, value);
        }
        let reason = response.reason.clone();
        self.refuse(response, EndedBy::Us, Some(reason));
    }

    fn refuse(&mut self, mut response: Response, by: EndedBy, reason: Option<String>) {
        response.set_to_tag(&self.session.dialog.id().local_tag);
        response
            .headers
            .push(HeaderName::Server, self.session.own.product.clone());
        let status = response.status;
        self.stop_provisionals();
        self.out.respond(RespondTo::Invite, response);
        self.out.end(by, Some(status), reason);
    }

    /// Ends the call: BYE, which waits for the ACK of our 2xx (RFC 3261 section 15); 480 if it isn't answered yet.
    /// `reason` is a `Reason` header value.
    pub fn hang_up(&mut self, reason: Option<String>, now: Instant) {
        match self.state {
            State::Incoming => {
                self.reject(
                    480,
                    None,
                    reason
                        .map(|reason| (HeaderName::Reason, reason))
                        .into_iter()
                        .collect(),
                    now,
                );
            }
            State::Answered => self.session.hang_up_as(EndedBy::Us, reason, &mut self.out),
        }
    }

    /// Asks the other side by OPTIONS whether it still has the call.
    pub fn probe(&mut self, _now: Instant) {
        if self.state == State::Answered {
            self.session.probe(&mut self.out);
        }
    }

    /// From here on REFERs of the other side are told by [`CallEvent::Refer`], and have to be answered with
    /// [`Self::answer_refer`]. Without this they get 405.
    pub fn take_refer(&mut self) {
        self.session.refers.taken = true;
    }

    /// From here on we say that calls which replace this one are taken (RFC 3891): the owner looks for `Replaces`
    /// ([`Replaces::take`](crate::refer::Replaces::take)) in each INVITE.
    pub fn take_replaces(&mut self) {
        self.session.replaceable = true;
    }

    /// Follows a REFER (202) or declines it (603).
    pub fn answer_refer(&mut self, id: ReferId, accept: bool, now: Instant) {
        self.session.answer_refer(id, accept, now, &mut self.out);
    }

    /// Tells the other side what became of the call that it referred us to: the status of its INVITE. A final one is
    /// the last.
    pub fn refer_progress(&mut self, id: ReferId, status: u16, now: Instant) {
        self.session.refer_progress(id, status, now, &mut self.out);
    }

    /// Refers the other side to somebody else. `None` when the call does not stand, or too many REFERs are open.
    pub fn refer(&mut self, referral: &Referral, _now: Instant) -> Option<ReferId> {
        self.session.refer(referral, &mut self.out)
    }

    /// A request with our dialog's Call-ID; never ACK or CANCEL. It is always answered.
    pub fn on_request(&mut self, id: ServerId, request: &Request, now: Instant) {
        let to = RespondTo::Request(id);
        if request.method == Method::PRACK {
            return self.on_prack(id, request, now);
        }
        if self.out.ended {
            let response = self.session.reply(request, 481, None);
            return self.out.respond(to, response);
        }
        if self.state == State::Incoming {
            match request.method.as_str() {
                "BYE" if self.session.dialog.check_tags(request).is_ok() => {
                    // A caller may end an early dialog by BYE as well (section 15).
                    let response = self.session.reply(request, 200, None);
                    self.out.respond(to, response);
                    let refusal = Response::to_request(&self.invite, 487, None);
                    return self.refuse(refusal, EndedBy::Peer, session::reason_of(request));
                }
                // What was agreed on reliably may be changed before our 2xx, and UPDATE may do without an offer.
                "UPDATE" if self.agreed || request.body.is_empty() => {}
                // The first offer is not answered yet (section 14.2, RFC 3311 section 5.2).
                "INVITE" | "UPDATE" => {
                    let ours = self.early_offer.is_some() && request.method == Method::UPDATE;
                    let pending = if ours { 491 } else { 500 };
                    let status = self.session.dialog.check(request).err().unwrap_or(pending);
                    let mut response = self.session.reply(request, status, None);
                    if status == 500 {
                        response.headers.push(HeaderName::RetryAfter, "3");
                    }
                    return self.out.respond(to, response);
                }
                _ => {}
            }
        }
        debug_assert!(request.method != Method::ACK && request.method != Method::CANCEL);
        self.session.on_request(id, request, now, &mut self.out);
    }

    /// An ACK that belongs to no refusal.
    pub fn on_ack(&mut self, request: &Request, _now: Instant) {
        if self.state != State::Answered {
            return;
        }
        let first = self.session.dialog.check_tags(request).is_ok()
            && request
                .headers
                .cseq()
                .is_ok_and(|(number, _)| number == self.cseq);
        if first && self.session.awaits_ack(self.cseq) {
            self.out.tell(CallEvent::Confirmed);
        }
        self.session.on_ack(request, &mut self.out);
    }

    /// The INVITE was cancelled; its CANCEL is answered already. After our answer it has no effect.
    pub fn on_cancel(&mut self, reason: Option<String>, _now: Instant) {
        if self.state == State::Incoming && !self.out.ended {
            let response = Response::to_request(&self.invite, 487, None);
            self.refuse(response, EndedBy::Cancel, reason);
        }
    }

    /// A response to the request with that token.
    pub fn on_response(&mut self, token: u64, response: &Response, now: Instant) {
        self.session
            .on_response(token, response, now, &mut self.out);
    }

    /// The request with that token failed: no response, or no connection.
    pub fn on_failed(&mut self, token: u64, now: Instant) {
        self.session.on_failed(token, now, &mut self.out);
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.provisional_timeout(now);
        self.session.handle_timeout(now, &mut self.out);
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.provisionals.poll_timeout(),
            self.refresh.as_ref().map(|(at, _)| *at),
            self.session.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to send.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.poll_action()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<CallEvent> {
        self.out.poll_event()
    }

    /// What was agreed on media; from the beginning if the INVITE had an offer, else from the ACK.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.session.negotiated()
    }

    /// The dialog's identity.
    pub fn dialog_id(&self) -> &DialogId {
        self.session.dialog.id()
    }

    /// Whether the call is over.
    pub fn is_ended(&self) -> bool {
        self.out.ended
    }

    /// Whether our 200 went out.
    pub fn is_answered(&self) -> bool {
        self.state == State::Answered
    }
}
