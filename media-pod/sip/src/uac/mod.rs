//! One outbound call's protocol side, on top of an [`Endpoint`](crate::transaction::Endpoint) that the owner has: INVITE
//! with an offer, digest, provisional responses, forks, ACK, CANCEL and BYE, and the dialog after that.
//!
//! It does not find servers.

mod answered;
mod early;
mod redirect;
mod signing;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::dialog::outbox::Outbox;
use crate::dialog::refusal::SUPPORTED;
use crate::dialog::session::{ALLOW, Own, Session};
use crate::dialog::timer::SessionTimer;
use crate::dialog::{Action, CallEvent, DialogId, EndedBy, RespondTo};
use crate::digest::{Asked, Credentials, DigestClient};
use crate::message::{HeaderName, Method, NameAddr, Request, Response, Uri};
use crate::refer::{ReferId, Referral};
use crate::sdp::{self, Capabilities, LocalMedia, Negotiated, SessionDescription};
use crate::transaction::ServerId;
use answered::Fork;
use early::Early;
use redirect::Alternatives;
use signing::is_answered;

/// Most forks whose 2xx is ended again.
const MAX_FORKS: usize = 8;

/// What an outbound call is told at the beginning.
#[derive(Clone, Debug)]
pub struct UacParams {
    /// Whom to call.
    pub target: Uri,
    /// Who calls; the tag is added.
    pub from: NameAddr,
    /// Who is called, for `To`.
    pub to: NameAddr,
    /// Our Contact.
    pub contact: NameAddr,
    /// Unpredictable, unique.
    pub call_id: String,
    /// Our tag: unpredictable.
    pub local_tag: String,
    /// Random text for digest answers.
    pub cnonce: String,
    /// What we can do.
    pub capabilities: Capabilities,
    /// Where our audio is.
    pub local: LocalMedia,
    /// User name and password, if the other side may ask.
    pub credentials: Option<Credentials>,
    /// Proxies that the INVITE goes through.
    pub routes: Vec<NameAddr>,
    /// Whether a 3xx is followed to where it says. Whoever answers decides whom we call then; without it a 3xx ends the call.
    pub follow_redirects: bool,
    /// More headers of the INVITE.
    pub headers: Vec<(HeaderName, String)>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// T1 (500 ms).
    pub t1: Duration,
    /// T2 (4 s).
    pub t2: Duration,
}

/// The tag of whoever sent a response.
fn remote_tag(response: &Response) -> Option<String> {
    let to = response.headers.to().ok()?;
    to.tag().map(str::to_owned)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calling,
    /// Given up by us: a CANCEL goes, or has gone.
    Cancelling,
    Answered,
}

/// One outbound call.
pub struct UacCall {
    params: UacParams,
    own: Own,
    state: State,
    cseq: u32,
    invite: Request,
    invite_token: u64,
    offer: SessionDescription,
    digest: DigestClient,
    /// Of the INVITE: one more answers it again.
    asked: Asked,
    bye_asked: Asked,
    refresh_asked: Asked,
    timer: SessionTimer,
    /// What was agreed on media before the answer.
    early_media: Option<Negotiated>,
    /// The tag of whom that was agreed with.
    early_media_of: Option<String>,
    early: Vec<Early>,
    alternatives: Alternatives,
    takes_refer: bool,
    session: Option<Session>,
    forks: Vec<Fork>,
    reason: Option<String>,
    out: Outbox,
}

impl UacCall {
    /// Calls at once.
    pub fn new(params: UacParams, _now: Instant) -> Self {
        let own = Own {
            capabilities: params.capabilities.clone(),
            local: params.local,
            product: params.user_agent.clone(),
            t1: params.t1,
            t2: params.t2,
        };
        let offer = sdp::offer(&own.capabilities, &own.local);
        let invite = Request::new(Method::INVITE, params.target.clone());
        let mut call = Self {
            params,
            own,
            state: State::Calling,
            cseq: 0,
            invite,
            invite_token: 0,
            offer,
            digest: DigestClient::new(),
            asked: Asked::default(),
            bye_asked: Asked::default(),
            refresh_asked: Asked::default(),
            timer: SessionTimer::default(),
            early_media: None,
            early_media_of: None,
            early: Vec::new(),
            alternatives: Alternatives::default(),
            takes_refer: false,
            session: None,
            forks: Vec::new(),
            reason: None,
            out: Outbox::default(),
        };
        call.send_invite(Vec::new());
        call
    }

    fn send_invite(&mut self, authorization: Vec<(HeaderName, String)>) {
        self.early.clear();
        self.cseq += 1;
        let params = &self.params;
        let mut invite = Request::new(Method::INVITE, params.target.clone());
        let headers = &mut invite.headers;
        headers.push(HeaderName::MaxForwards, "70");
        for route in &params.routes {
            headers.push(HeaderName::Route, route.to_string());
        }
        headers.push(
            HeaderName::From,
            params.from.clone().with_tag(&params.local_tag).to_string(),
        );
        headers.push(HeaderName::To, params.to.to_string());
        headers.push(HeaderName::CallId, params.call_id.clone());
        headers.push(HeaderName::CSeq, format!("{} INVITE", self.cseq));
        headers.push(HeaderName::Contact, params.contact.to_string());
        headers.push(HeaderName::Allow, ALLOW);
        // 199: early dialogs that end are told of (RFC 6228).
        headers.push(HeaderName::Supported, format!("{SUPPORTED}, 199"));
        headers.push(HeaderName::UserAgent, params.user_agent.clone());
        for (name, value) in params.headers.iter().cloned().chain(authorization) {
            headers.push(name, value);
        }
        self.timer.ask(&mut invite);
        invite.set_body(sdp::CONTENT_TYPE, self.offer.to_bytes());
        self.invite = invite.clone();
        self.invite_token = self.out.request(invite);
    }

    /// Ends the call: BYE once it is answered, before that CANCEL. [`CallEvent::Ended`] comes when that is answered.
    /// `reason` is a `Reason` header value of the BYE.
    pub fn hang_up(&mut self, reason: Option<String>, _now: Instant) {
        if self.out.ended {
            return;
        }
        match (self.state, &mut self.session) {
            (State::Answered, Some(session)) => {
                session.hang_up_as(EndedBy::Us, reason, &mut self.out);
            }
            (State::Calling, _) => {
                self.state = State::Cancelling;
                self.reason = reason;
                self.out.act(Action::Cancel {
                    token: self.invite_token,
                });
            }
            _ => {}
        }
    }

    /// A response to the request with that token.
    pub fn on_response(&mut self, token: u64, response: &Response, now: Instant) {
        if self.out.ended {
            return;
        }
        let ours = response
            .headers
            .cseq()
            .is_ok_and(|(number, method)| number == self.cseq && method == Method::INVITE);
        if token == self.invite_token && ours {
            self.on_invite_response(response, now);
        } else if self.session.is_some() {
            self.on_dialog_response(token, response, now);
        }
    }

    fn on_invite_response(&mut self, response: &Response, now: Instant) {
        match response.status {
            ..200 => self.on_progress(response),
            200..300 => self.on_success(response, now),
            // The dialog stands: this is from another fork.
            _ if self.state == State::Answered => {}
            401 | 407 if self.state == State::Calling => {
                let headers = is_answered(&mut self.asked, &self.params, response)
                    .then(|| self.sign_invite())
                    .flatten();
                match headers {
                    Some(headers) => self.send_invite(headers),
                    None if self.tries_elsewhere(response) => {}
                    None => self.refused(response),
                }
            }
            422 if self.state == State::Calling && self.timer.raise(response) => {
                let headers = self.sign_invite().unwrap_or_default();
                self.send_invite(headers);
            }
            300.. if self.state == State::Calling && self.tries_elsewhere(response) => {}
            _ => self.refused(response),
        }
    }

    fn refused(&mut self, response: &Response) {
        let by = if self.state == State::Cancelling {
            EndedBy::Us
        } else {
            EndedBy::Peer
        };
        self.out
            .end(by, Some(response.status), Some(response.reason.clone()));
    }

    /// The request with that token failed: no response, or no connection.
    pub fn on_failed(&mut self, token: u64, now: Instant) {
        if self.out.ended {
            return;
        }
        if let Some(session) = &mut self.session {
            session.on_failed(token, now, &mut self.out);
        } else if token == self.invite_token {
            let by = if self.state == State::Cancelling {
                EndedBy::Us
            } else {
                EndedBy::NoAnswer
            };
            self.out.end(by, None, Some("no answer".to_owned()));
        }
    }

    /// From here on REFERs of the other side are told by [`CallEvent::Refer`], and have to be answered with
    /// [`Self::answer_refer`]. Without this they get 405.
    pub fn take_refer(&mut self) {
        self.takes_refer = true;
        if let Some(session) = &mut self.session {
            session.refers.taken = true;
        }
    }

    /// Follows a REFER (202) or declines it (603).
    pub fn answer_refer(&mut self, id: ReferId, accept: bool, now: Instant) {
        if let Some(session) = &mut self.session {
            session.answer_refer(id, accept, now, &mut self.out);
        }
    }

    /// Tells the other side what became of the call that it referred us to: the status of its INVITE. A final one is
    /// the last.
    pub fn refer_progress(&mut self, id: ReferId, status: u16, now: Instant) {
        if let Some(session) = &mut self.session {
            session.refer_progress(id, status, now, &mut self.out);
        }
    }

    /// Refers the other side to somebody else. `None` when the call does not stand, or too many REFERs are open.
    pub fn refer(&mut self, referral: &Referral, _now: Instant) -> Option<ReferId> {
        self.session.as_mut()?.refer(referral, &mut self.out)
    }

    /// A request with our dialog's Call-ID; never ACK or CANCEL. It is always answered.
    pub fn on_request(&mut self, id: ServerId, request: &Request, now: Instant) {
        let to = RespondTo::Request(id);
        match &mut self.session {
            Some(session) if !self.out.ended => {
                // A fork that ends itself is none of our call.
                let tag = request
                    .headers
                    .from_()
                    .ok()
                    .and_then(|from| from.tag().map(str::to_owned));
                let fork = self
                    .forks
                    .iter()
                    .any(|fork| tag.as_deref() == Some(&fork.remote_tag));
                if fork && request.method == Method::BYE {
                    let response = session.reply(request, 200, None);
                    return self.out.respond(to, response);
                }
                session.on_request(id, request, now, &mut self.out);
            }
            _ => self.on_early_request(id, request, now),
        }
    }

    /// An ACK: for our 2xx to a re-INVITE.
    pub fn on_ack(&mut self, request: &Request, _now: Instant) {
        if let Some(session) = &mut self.session {
            session.on_ack(request, &mut self.out);
        }
    }

    /// Asks the other side by OPTIONS whether it still has the call.
    pub fn probe(&mut self, _now: Instant) {
        if let Some(session) = &mut self.session {
            session.probe(&mut self.out);
        }
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            session.handle_timeout(now, &mut self.out);
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.session.as_ref().and_then(Session::poll_timeout)
    }

    /// The next thing to send.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.poll_action()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<CallEvent> {
        self.out.poll_event()
    }

    /// What was agreed on media.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.session
            .as_ref()
            .and_then(Session::negotiated)
            .or(self.early_media.as_ref())
    }

    /// The dialog's identity, once answered.
    pub fn dialog_id(&self) -> Option<&DialogId> {
        self.session.as_ref().map(|session| session.dialog.id())
    }

    /// Whether the call is over: our BYE or CANCEL is answered, or the other side ended it.
    pub fn is_ended(&self) -> bool {
        self.out.ended
    }
}
