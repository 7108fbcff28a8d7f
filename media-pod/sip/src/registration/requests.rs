//! The REGISTERs that are sent.

use std::time::Instant;

use rand::Rng;

use super::{Action, Goal, InFlight, Registration};
use crate::digest::{Challenge, DigestClient, DigestError};
use crate::message::{HeaderName, Method, NameAddr, Request, Response};

impl Registration {
    pub(super) fn send(&mut self, flight: InFlight, _now: Instant) {
        self.cseq += 1;
        self.next_token += 1;
        self.next_try = None;
        let mut request = Request::new(Method::REGISTER, self.config.registrar.clone());
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, "70");
        headers.push(
            HeaderName::From,
            NameAddr::new(self.config.aor.clone())
                .with_tag(&self.from_tag)
                .to_string(),
        );
        headers.push(
            HeaderName::To,
            NameAddr::new(self.config.aor.clone()).to_string(),
        );
        headers.push(HeaderName::CallId, self.config.call_id.clone());
        headers.push(HeaderName::CSeq, format!("{} REGISTER", self.cseq));
        let expiry = if matches!(self.goal, Goal::Register) {
            self.expiry
        } else {
            0
        };
        let mut contact = self.config.contact.clone();
        contact.params.set("expires", Some(&expiry.to_string()));
        headers.push(HeaderName::Contact, contact.to_string());
        for old in &self.obsolete {
            let mut old = old.clone();
            old.params.set("expires", Some("0"));
            headers.push(HeaderName::Contact, old.to_string());
        }
        headers.push(HeaderName::Expires, expiry.to_string());
        headers.push(HeaderName::UserAgent, self.config.user_agent.clone());
        let mut flight = InFlight {
            token: self.next_token,
            cseq: self.cseq,
            authorized: false,
            ..flight
        };
        if !self.asked.challenges().is_empty() {
            let cnonce = format!("{:016x}", self.rng.random::<u64>());
            let uri = self.config.registrar.to_string();
            let answer = self.digest.answer(
                self.asked.challenges(),
                &self.config.credentials,
                &Method::REGISTER,
                &uri,
                &[],
                cnonce,
            );
            // What can't be answered was told when the challenge came.
            for (name, value) in answer.unwrap_or_default() {
                request.headers.push(name, value);
                flight.authorized = true;
            }
        }
        self.in_flight = Some(flight);
        self.action = Some(Action::Send {
            token: flight.token,
            request,
        });
    }

    /// Sends the REGISTER again with an answer to the challenge, if that may help.
    pub(super) fn answer_challenge(
        &mut self,
        flight: InFlight,
        response: &Response,
        now: Instant,
    ) -> bool {
        let challenges = Challenge::from_response(response);
        if flight.answers == 0 {
            self.asked.begin();
        }
        if self.can_answer(&challenges).is_err() || !self.asked.take(challenges) {
            return false;
        }
        self.send(
            InFlight {
                answers: flight.answers + 1,
                ..flight
            },
            now,
        );
        true
    }

    /// Asked with a client of its own, so that no nonce count is used up.
    pub(super) fn can_answer(&self, challenges: &[Challenge]) -> Result<(), DigestError> {
        let uri = self.config.registrar.to_string();
        let cnonce = "0".to_owned();
        let credentials = &self.config.credentials;
        DigestClient::new()
            .answer(
                challenges,
                credentials,
                &Method::REGISTER,
                &uri,
                &[],
                cnonce,
            )
            .map(|_| ())
    }
}
