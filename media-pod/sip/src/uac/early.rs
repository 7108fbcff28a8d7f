//! Before the answer: progress, early media, and the early dialogs of each fork with their PRACKs (RFC 3262).

use std::time::Instant;

use super::signing::sign;
use super::{MAX_FORKS, State, UacCall, remote_tag};
use crate::dialog::reliable::{Seen, rseq_of};
use crate::dialog::session::Session;
use crate::dialog::{CallEvent, Dialog, RespondTo, body};
use crate::message::{HeaderName, Method, Request, Response};
use crate::sdp::{self, Negotiated};
use crate::transaction::ServerId;

/// A dialog that a reliable provisional response made.
pub(super) struct Early {
    pub remote_tag: String,
    pub session: Session,
    seen: Seen,
}

impl UacCall {
    pub(super) fn on_progress(&mut self, response: &Response) {
        if self.state != State::Calling || response.status == 100 {
            return;
        }
        let early = match rseq_of(response) {
            Some(rseq) => match self.acknowledge_progress(response, rseq) {
                Some(at) => Some(at),
                // A repeat, or one that comes too early: it means nothing (RFC 3262 section 4).
                None => return,
            },
            None => None,
        };
        self.out.tell(CallEvent::Progress {
            status: response.status,
        });
        if response.status == 199 {
            return self.early_dialog_ended(response);
        }
        let Ok(Some(answer)) = body::description(&response.headers, &response.body) else {
            return;
        };
        match early.and_then(|at| self.early.get_mut(at)) {
            // The first reliable answer counts, and no other after it (RFC 3261 section 13.2.1).
            Some(early) if early.session.negotiated().is_some() => {}
            early => {
                let Ok(negotiated) =
                    sdp::apply_answer(&self.offer, &answer, &self.own.capabilities)
                else {
                    return;
                };
                if let Some(early) = early {
                    early.session.agreed_quietly(negotiated.clone());
                }
                self.early_media_of = remote_tag(response);
                self.heard(negotiated);
            }
        }
    }

    /// One of the forks will not answer (RFC 6228): what was agreed with it is nothing any more.
    fn early_dialog_ended(&mut self, response: &Response) {
        let Some(tag) = remote_tag(response) else {
            return;
        };
        self.early.retain(|early| early.remote_tag != tag);
        if self.early_media_of.as_deref() == Some(&tag) {
            (self.early_media, self.early_media_of) = (None, None);
        }
    }

    /// What is agreed on media before the answer.
    fn heard(&mut self, negotiated: Negotiated) {
        if self.early_media.as_ref() != Some(&negotiated) {
            self.early_media = Some(negotiated.clone());
            self.out.tell(CallEvent::MediaChanged(negotiated));
        }
    }

    /// Sends the PRACK for a reliable response, if it is the next one of its dialog; gives the dialog.
    fn acknowledge_progress(&mut self, response: &Response, rseq: u32) -> Option<usize> {
        let to = response.headers.to().ok()?;
        let tag = to.tag()?;
        let found = self.early.iter().position(|early| early.remote_tag == tag);
        let at = match found {
            Some(at) => at,
            None if self.early.len() < MAX_FORKS => {
                let dialog =
                    Dialog::from_response(&self.invite, response, &self.params.contact).ok()?;
                self.early.push(Early {
                    remote_tag: tag.to_owned(),
                    session: self.new_session(dialog),
                    seen: Seen::default(),
                });
                self.early.len() - 1
            }
            None => return None,
        };
        let early = &mut self.early[at];
        if !early.seen.take(rseq) {
            return None;
        }
        early.session.note_peer(&response.headers);
        let mut prack = early.session.dialog.request(Method::PRACK);
        prack.headers.push(
            HeaderName::Rack,
            format!("{rseq} {} {}", self.cseq, Method::INVITE),
        );
        prack
            .headers
            .push(HeaderName::UserAgent, self.own.product.clone());
        // Who asked for credentials before the INVITE passed will ask again.
        let uri = prack.uri.to_string();
        let (digest, params) = (&mut self.digest, &self.params);
        let asked = self.asked.challenges();
        let signed = sign(digest, params, asked, &Method::PRACK, &uri, &[]);
        for (name, value) in signed.unwrap_or_default() {
            prack.headers.push(name, value);
        }
        self.out.request(prack);
        Some(at)
    }

    /// The session of the dialog with that tag, now that it is answered: the early one if there was one, for its numbers
    /// and what was agreed on go on.
    pub(super) fn confirmed_session(
        &mut self,
        remote_tag: &str,
        response: &Response,
    ) -> Option<Session> {
        let found = self
            .early
            .iter()
            .position(|early| early.remote_tag == remote_tag);
        let session = if let Some(at) = found {
            let mut session = self.early.swap_remove(at).session;
            session.dialog.confirm(response);
            session
        } else {
            let dialog =
                Dialog::from_response(&self.invite, response, &self.params.contact).ok()?;
            self.new_session(dialog)
        };
        Some(session)
    }

    fn new_session(&self, dialog: Dialog) -> Session {
        let mut session = Session::new(self.own.clone(), dialog);
        session.waits_for_bye_answer = true;
        session.owns_call_id = true;
        session.offered(self.offer.clone());
        session
    }

    /// A request before the answer: only what belongs to an early dialog means something.
    pub(super) fn on_early_request(&mut self, id: ServerId, request: &Request, now: Instant) {
        let to = RespondTo::Request(id);
        let from = request.headers.from_().ok();
        let tag = from.as_ref().and_then(|from| from.tag());
        let early = self
            .early
            .iter_mut()
            .find(|early| tag == Some(&early.remote_tag));
        match early {
            // A callee does not end an early dialog by BYE (RFC 3261 section 15).
            Some(early) if !self.out.ended && request.method != Method::BYE => {
                let answered = early.session.negotiated().is_some();
                let pending = request.method == Method::INVITE
                    || (request.method == Method::UPDATE && !request.body.is_empty() && !answered);
                if pending {
                    // Our INVITE or its offer is still open (RFC 3261 section 14.2, RFC 3311 section 5.2).
                    let status = early.session.dialog.check(request).err().unwrap_or(491);
                    let response = early.session.reply(request, status, None);
                    return self.out.respond(to, response);
                }
                early.session.on_request(id, request, now, &mut self.out);
                if answered {
                    self.early_media = early.session.negotiated().cloned();
                }
            }
            _ => {
                let mut response = Response::to_request(request, 481, None);
                response.set_to_tag(&self.params.local_tag);
                self.out.respond(to, response);
            }
        }
    }
}
