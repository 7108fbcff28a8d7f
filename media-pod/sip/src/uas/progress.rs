//! Before the answer: ringing, early media, and the PRACKs for what went reliably (RFC 3262).

use std::time::{Duration, Instant};

use super::{State, UasCall};
use crate::dialog::reliable::{Due, Rack};
use crate::dialog::{EndedBy, RespondTo, body, refusal};
use crate::message::{HeaderName, Request, Response};
use crate::sdp::{self, SessionDescription};
use crate::transaction::ServerId;

/// A provisional response goes again after so long, for proxies give up on an INVITE that hears nothing for three minutes (RFC 3261
/// section 13.3.1.1).
const REFRESH: Duration = Duration::from_secs(60);

/// The same where none can get lost (RFC 3262 section 3).
const REFRESH_RELIABLE: Duration = Duration::from_secs(150);

impl UasCall {
    /// 180, repeated every minute until the answer. Reliably if the caller requires it, or supports it and
    /// [`UasParams::reliable_provisionals`](super::UasParams::reliable_provisionals) says so.
    pub fn ring(&mut self, now: Instant) {
        if !self.ringing {
            self.ringing = true;
            self.provisional(180, now);
        }
    }

    /// 183 with the answer, repeated as [`Self::ring`] is: the caller hears us before we answer. Without an offer in the INVITE there is nothing
    /// to answer, and only a reliable response may bring ours.
    pub fn progress(&mut self, now: Instant) {
        if !self.progressed {
            self.progressed = true;
            self.provisional(183, now);
        }
    }

    fn provisional(&mut self, status: u16, now: Instant) {
        if self.state != State::Incoming || self.out.ended {
            return;
        }
        let body = match &self.offer {
            Some(offer) if status == 183 => match self.session.answer(offer) {
                Ok(answer) => Some(answer),
                Err(error) => {
                    let response = refusal::refuse_offer(&self.invite, &error);
                    return self.refuse(response, EndedBy::Us, Some(error.to_string()));
                }
            },
            // The first reliable response has to bring the offer that the INVITE lacks (RFC 3261 section 13.2.1).
            None if self.reliable && !self.session.has_described() => {
                let offer = self.session.offer();
                self.early_offer = Some(offer.clone());
                Some(offer)
            }
            _ => None,
        };
        let mut response = self.session.reply(&self.invite, status, None);
        for route in self.invite.headers.get_all(&HeaderName::RecordRoute) {
            response.headers.push(HeaderName::RecordRoute, route);
        }
        response.headers.push(
            HeaderName::Contact,
            self.session.dialog.contact().to_string(),
        );
        let bare = self.reliable.then(|| response.clone());
        if let Some(body) = body {
            response.set_body(sdp::CONTENT_TYPE, body.to_bytes());
        }
        // What went reliably has arrived, and is not said twice.
        let again = bare.unwrap_or_else(|| response.clone());
        self.refresh = Some((now + self.refresh_interval(), again));
        self.send_provisional(response, now);
    }

    fn refresh_interval(&self) -> Duration {
        if self.reliable {
            REFRESH_RELIABLE
        } else {
            REFRESH
        }
    }

    fn send_provisional(&mut self, mut response: Response, now: Instant) {
        if self.reliable {
            // Who knows our methods may send UPDATE before the answer (RFC 3311 section 5.1).
            response
                .headers
                .push(HeaderName::Allow, self.session.allow());
            if let Some(response) = self.provisionals.send(response, now) {
                self.out.respond(RespondTo::Invite, response);
            }
        } else {
            self.out.respond(RespondTo::Invite, response);
        }
    }

    /// A PRACK: 481 unless it is for the response that waits for one (RFC 3262 section 3).
    pub(super) fn on_prack(&mut self, id: ServerId, request: &Request, now: Instant) {
        let to = RespondTo::Request(id);
        let refused = match (
            self.session.dialog.check(request),
            Rack::of(&request.headers),
        ) {
            (Err(status), _) => Err(status),
            (Ok(()), None) => Err(400),
            (Ok(()), Some(rack)) => self.provisionals.acknowledge(&rack).ok_or(481),
        };
        match refused {
            Err(status) => {
                let response = self.session.reply(request, status, None);
                self.out.respond(to, response);
            }
            Ok(_) if self.out.ended => {
                let response = self.session.reply(request, 200, None);
                self.out.respond(to, response);
            }
            Ok(described) => {
                self.take_prack(to, request, described);
                self.acknowledged(now);
            }
        }
    }

    /// What the body of a PRACK means (RFC 3262 section 5): the answer to our offer, or one more offer.
    fn take_prack(&mut self, to: RespondTo, request: &Request, described: bool) {
        let description = body::description(&request.headers, &request.body);
        if let Some(offer) = self.early_offer.take_if(|_| described) {
            let response = match &description {
                Ok(_) => self.session.reply(request, 200, None),
                Err(error) => self.session.finish(refusal::refuse_body(request, error)),
            };
            self.out.respond(to, response);
            return self.take_answer(&offer, description.ok().flatten().as_ref());
        }
        // Our answer has arrived for sure: nothing more is said on it in the 2xx.
        self.agreed |= described;
        let response = match description {
            Ok(None) => self.session.reply(request, 200, None),
            Ok(Some(_)) if !self.agreed || self.session.awaits_answer() => {
                self.session.reply(request, 491, None)
            }
            Ok(Some(offer)) => {
                let before = self.session.negotiated().cloned();
                match self.session.answer(&offer) {
                    Ok(answer) => {
                        let mut response = self.session.reply(request, 200, None);
                        response.set_body(sdp::CONTENT_TYPE, answer.to_bytes());
                        self.out.respond(to, response);
                        return self.session.tell_if_changed(before.as_ref(), &mut self.out);
                    }
                    Err(error) => self.session.finish(refusal::refuse_offer(request, &error)),
                }
            }
            Err(error) => self.session.finish(refusal::refuse_body(request, &error)),
        };
        self.out.respond(to, response);
    }

    /// The answer to the offer in our reliable response; without a usable one there can be no call.
    fn take_answer(&mut self, offer: &SessionDescription, answer: Option<&SessionDescription>) {
        let agreed =
            answer.map(|answer| sdp::apply_answer(offer, answer, &self.session.own.capabilities));
        if let Some(Ok(negotiated)) = agreed {
            self.agreed = true;
            self.session.set_negotiated(negotiated, &mut self.out);
        } else {
            let response = Response::to_request(&self.invite, 488, None);
            self.refuse(
                response,
                EndedBy::BadAnswer,
                Some("no usable answer in the PRACK".to_owned()),
            );
        }
    }

    /// What had to wait for a PRACK goes now.
    fn acknowledged(&mut self, now: Instant) {
        if self.state != State::Incoming || self.out.ended {
            return;
        }
        if std::mem::take(&mut self.accepting) {
            self.accept(now);
        } else if let Some(response) = self.provisionals.next(now) {
            self.out.respond(RespondTo::Invite, response);
        }
    }

    /// A final response goes: none of these follows.
    pub(super) fn stop_provisionals(&mut self) {
        self.provisionals.finish();
        self.refresh = None;
    }

    pub(super) fn provisional_timeout(&mut self, now: Instant) {
        let next = now + self.refresh_interval();
        if let Some((at, response)) = self.refresh.as_mut().filter(|(at, _)| *at <= now) {
            *at = next;
            let response = response.clone();
            self.send_provisional(response, now);
        }
        match self.provisionals.due(now) {
            Some(Due::Repeat(response)) => self.out.respond(RespondTo::Invite, response),
            Some(Due::Lost) => {
                let response = Response::to_request(&self.invite, 504, None);
                self.refuse(response, EndedBy::NoAck, Some("no PRACK".to_owned()));
            }
            None => {}
        }
    }
}
