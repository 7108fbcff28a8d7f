//! Offer and answer in a call (RFC 3264): what we say and what is agreed on, version by version, and the re-INVITEs and
//! UPDATEs that change it.

use std::time::Instant;

use super::outbox::Outbox;
use super::refresh::Refresh;
use super::session::{Own, Session};
use super::{CallEvent, RespondTo, body, refusal, timer};
use crate::message::{HeaderName, Method, Request};
use crate::sdp::{self, Negotiated, OfferError, SessionDescription};

/// Most 2xx that wait for their ACK at a time; a peer that sends more INVITEs than that gets 500.
const MAX_UNACKED: usize = 4;

impl Session {
    /// Answers an offer; our version goes up when what we say changes (RFC 3264 section 8).
    pub fn answer(&mut self, offer: &SessionDescription) -> Result<SessionDescription, OfferError> {
        let (mut answer, negotiated) = sdp::answer(offer, &self.own.capabilities, &self.own.local)?;
        if self.sent.as_ref().is_some_and(|sent| *sent != answer) {
            self.own.local.version += 1;
            answer = sdp::answer(offer, &self.own.capabilities, &self.own.local)?.0;
        }
        self.sent = Some(answer.clone());
        self.negotiated = Some(negotiated);
        Ok(answer)
    }

    /// What an offer will lead to, before it is answered.
    pub fn preview(&mut self, offer: &SessionDescription) -> Result<(), OfferError> {
        let (_, negotiated) = sdp::answer(offer, &self.own.capabilities, &self.own.local)?;
        self.negotiated = Some(negotiated);
        Ok(())
    }

    /// Our offer, with the version raised when it differs from what we said last.
    pub fn offer(&mut self) -> SessionDescription {
        let Own {
            capabilities,
            local,
            ..
        } = &mut self.own;
        let offer = match &self.sent {
            None => sdp::offer(capabilities, local),
            Some(said) => {
                let same = sdp::offer_again(capabilities, local, said);
                if same == *said {
                    same
                } else {
                    local.version += 1;
                    sdp::offer_again(capabilities, local, said)
                }
            }
        };
        self.sent = Some(offer.clone());
        offer
    }

    /// Whether we have said anything on media yet.
    pub fn has_described(&self) -> bool {
        self.sent.is_some()
    }

    /// What we offered before there was a dialog.
    pub fn offered(&mut self, offer: SessionDescription) {
        self.sent = Some(offer);
    }

    pub fn set_negotiated(&mut self, negotiated: Negotiated, out: &mut Outbox) {
        if self.negotiated.as_ref() != Some(&negotiated) {
            self.negotiated = Some(negotiated.clone());
            out.tell(CallEvent::MediaChanged(negotiated));
        }
    }

    /// What is agreed on, without telling it.
    pub fn agreed_quietly(&mut self, negotiated: Negotiated) {
        self.negotiated = Some(negotiated);
    }

    /// A re-INVITE or UPDATE. What can't be agreed on leaves the session as it is (section 14.2).
    pub(super) fn on_offer(
        &mut self,
        to: RespondTo,
        request: &Request,
        now: Instant,
        out: &mut Outbox,
    ) {
        let invite = request.method == Method::INVITE;
        let description = match body::description(&request.headers, &request.body) {
            Ok(description) => description,
            Err(error) => {
                return out.respond(to, self.finish(refusal::refuse_body(request, &error)));
            }
        };
        if let Some(refusal) = timer::refuse_short(request) {
            return out.respond(to, self.finish(refusal));
        }
        if (description.is_some() || invite) && self.awaits_answer() {
            // Our own offer is still unanswered (RFC 3264 section 4, RFC 3261 section 14.2, RFC 3311 section 5.2).
            return out.respond(to, self.reply(request, 491, None));
        }
        if invite && self.unacked.len() >= MAX_UNACKED {
            let mut response = self.reply(request, 500, None);
            response.headers.push(HeaderName::RetryAfter, "2");
            return out.respond(to, response);
        }
        let before = self.negotiated.clone();
        let (body, offer) = match description {
            Some(description) => match self.answer(&description) {
                Ok(answer) => (Some(answer), None),
                Err(error) => {
                    return out.respond(to, self.finish(refusal::refuse_offer(request, &error)));
                }
            },
            None if invite => {
                let offer = self.offer();
                (Some(offer.clone()), Some(offer))
            }
            None => (None, None),
        };
        if let Ok(Some(contact)) = request.headers.contact() {
            self.dialog.refresh_target(&contact);
        }
        self.note_peer(&request.headers);
        let mut response = self.success(request, body.as_ref());
        if self.established {
            self.timer.grant(request, &mut response, now);
        }
        if invite {
            let cseq = request.headers.cseq().map_or(0, |(number, _)| number);
            self.send_success(to, cseq, response, offer, now, out);
        } else {
            out.respond(to, response);
        }
        self.tell_if_changed(before.as_ref(), out);
    }

    /// Tells what is agreed on media, unless it was that before.
    pub fn tell_if_changed(&self, before: Option<&Negotiated>, out: &mut Outbox) {
        if let Some(negotiated) = &self.negotiated
            && before != Some(negotiated)
        {
            out.tell(CallEvent::MediaChanged(negotiated.clone()));
        }
    }

    /// Whether an offer of ours has no answer yet.
    pub fn awaits_answer(&self) -> bool {
        self.unacked.iter().any(|unacked| unacked.offer.is_some())
            || self.refresh.as_ref().is_some_and(Refresh::is_invite)
    }
}
