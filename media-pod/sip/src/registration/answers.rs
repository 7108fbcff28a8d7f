//! What the carrier's answers mean.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{
    Binding, Goal, InFlight, MAX_OBSOLETE, Reason, Registration, RegistrationStatus, State, backoff,
};
use crate::digest::{Asked, Challenge};
use crate::message::{HeaderName, NameAddr, Response};

impl Registration {
    /// Takes a response to the request with that token.
    pub fn on_response(&mut self, token: u64, response: &Response, now: Instant) {
        let Some(flight) = self.flight(token) else {
            return;
        };
        if response.is_provisional()
            || response
                .headers
                .cseq()
                .is_ok_and(|(cseq, _)| cseq != flight.cseq)
        {
            return;
        }
        self.in_flight = None;
        let line = format!("{} {}", response.status, printable(&response.reason));
        if (response.status == 401 || response.status == 407)
            && self.answer_challenge(flight, response, now)
        {
            // Part of every registration: not worth telling.
            return;
        }
        // The version goes up once for each answer, with the state that follows from it.
        self.status.received = source_of(response).or(self.status.received);
        self.status.last_response = Some(line.clone());
        if response.status == 401 || response.status == 407 {
            return self.on_refused_answer(flight, response, &line, now);
        }
        if matches!(self.goal, Goal::Unregister(_)) {
            return self.done();
        }
        match response.status {
            200..300 => self.on_success(response, now),
            423 => self.on_too_brief(flight, response, now),
            403 => {
                if flight.authorized && !speaks_of_account(&response.reason) {
                    self.refused_credentials(&line, now);
                } else {
                    let message = format!(
                        "the carrier refuses the account ({line}): is it active, paid, and allowed to register from this address?"
                    );
                    self.fail_for(Reason::AccountForbidden, message, backoff::SLOW, now);
                }
            }
            404 => {
                let user = self.config.aor.user.as_deref().unwrap_or_default();
                let message = format!(
                    "the carrier does not know user {user} ({line}): check the user name and the domain"
                );
                self.fail(Reason::NotFound, message, now);
            }
            500..600 => {
                let message = format!("the carrier's server answered {line}; trying again");
                let asked = response
                    .headers
                    .retry_after()
                    .map(|seconds| Duration::from_secs(u64::from(seconds)));
                let pause = self
                    .backoff
                    .failed(now, &mut self.rng)
                    .max(asked.unwrap_or_default())
                    .min(backoff::SLOW);
                self.fail_for(Reason::ServerError, message, pause, now);
            }
            _ => self.fail(
                Reason::Rejected,
                format!("the carrier answered {line}: check server, domain and user name"),
                now,
            ),
        }
    }

    fn on_refused_answer(
        &mut self,
        flight: InFlight,
        response: &Response,
        line: &str,
        now: Instant,
    ) {
        self.asked = Asked::default();
        if matches!(self.goal, Goal::Unregister(_)) {
            return self.done();
        }
        match self.can_answer(&Challenge::from_response(response)) {
            Err(error) if flight.answers == 0 => {
                let message =
                    format!("the carrier answered {line}, which can't be followed: {error}");
                self.fail(Reason::ChallengeUnsupported, message, now);
            }
            _ => self.refused_credentials(line, now),
        }
    }

    fn refused_credentials(&mut self, line: &str, now: Instant) {
        let user = printable(&self.config.credentials.username);
        let message = format!(
            "the carrier refused user {user} ({line}): check the password; use the trunk's SIP user name, not the display name"
        );
        self.fail_for(Reason::WrongCredentials, message, backoff::SLOW, now);
    }

    fn on_too_brief(&mut self, flight: InFlight, response: &Response, now: Instant) {
        match response.headers.min_expires() {
            Some(least) if least > self.expiry && !flight.lengthened => {
                self.expiry = least;
                self.send(
                    InFlight {
                        lengthened: true,
                        ..flight
                    },
                    now,
                );
            }
            least => {
                let least = least.map_or_else(
                    || "no minimum".to_owned(),
                    |least| format!("a minimum of {least} s"),
                );
                let message = format!(
                    "the carrier finds {} s too short and names {least}: set registration.expirySeconds higher",
                    self.expiry
                );
                self.fail(Reason::IntervalTooShort, message, now);
            }
        }
    }

    fn on_success(&mut self, response: &Response, now: Instant) {
        let ours = &self.config.contact.uri;
        let contacts = response.headers.readable(&HeaderName::Contact);
        let found = contacts
            .iter()
            .find(|contact| contact.uri.equivalent(ours))
            .or_else(|| {
                // Some registrars write the address that they saw into our Contact; the user part is still ours.
                contacts
                    .iter()
                    .find(|contact| ours.user.is_some() && contact.uri.user == ours.user)
            });
        let granted = found.map(|contact| {
            let own = contact
                .params
                .get("expires")
                .and_then(|text| text.trim().parse::<u32>().ok());
            own.or_else(|| response.headers.expires())
                .unwrap_or(self.expiry)
        });
        let Some(granted) = granted.filter(|granted| *granted > 0) else {
            self.binding = None;
            let message = "the carrier said 200, but our contact is not among its bindings: is another device using the account?";
            return self.fail(Reason::BindingRemoved, message.to_owned(), now);
        };
        let bound = found.map(|contact| contact.uri.to_string());
        let left_over = self.left_over(&contacts);
        let is_first = self.binding.is_none();
        let since = self.binding.as_ref().map_or(now, |binding| binding.since);
        let expires_at = now + Duration::from_secs(u64::from(granted));
        self.binding = Some(Binding { expires_at, since });
        self.failure = None;
        let asked_for = std::mem::replace(&mut self.obsolete, left_over);
        self.backoff.reset();
        self.last_success = Some(now);
        self.service_route = response.headers.readable(&HeaderName::ServiceRoute);
        self.next_try = Some(now + backoff::refresh_after(granted, is_first, &mut self.rng));
        self.set_status(RegistrationStatus {
            state: State::Registered,
            reason: Reason::Registered,
            message: format!("registered at {}", self.config.registrar.host),
            contact: bound,
            registered_at: Some(since),
            ..self.status.clone()
        });
        // At once, but only once: what stays although it was taken back is taken back again with each refresh.
        let is_new =
            |contact: &NameAddr| !asked_for.iter().any(|old| old.uri.equivalent(&contact.uri));
        if self.obsolete.iter().any(is_new) {
            self.send(InFlight::first(), now);
        }
    }

    /// Bindings that a predecessor of ours has left behind: calls forked to them are lost, or wait for them.
    fn left_over(&self, contacts: &[NameAddr]) -> Vec<NameAddr> {
        let ours = &self.config.contact.uri;
        // A registrar that writes another address into our Contact lists us under it.
        let verbatim = contacts.iter().any(|contact| contact.uri.equivalent(ours));
        if !verbatim || !self.config.contact_user_is_ours {
            return Vec::new();
        }
        let others = contacts
            .iter()
            .filter(|contact| contact.uri.user == ours.user && !contact.uri.equivalent(ours));
        others
            .take(MAX_OBSOLETE)
            .map(|contact| NameAddr::new(contact.uri.clone()))
            .collect()
    }
}

/// Where the registrar saw us, from the `Via` that it gave back.
fn source_of(response: &Response) -> Option<SocketAddr> {
    let via = response.headers.via().ok()?;
    let address = via.received().or_else(|| via.host.ip())?;
    Some(SocketAddr::new(
        address,
        via.rport().or(via.port).unwrap_or(5060),
    ))
}

/// Whether a refusal is about the account and not about the password.
fn speaks_of_account(phrase: &str) -> bool {
    let phrase = phrase.to_ascii_lowercase();
    [
        "account", "suspend", "disabled", "blocked", "balance", "unpaid", "expired", "inactive",
        "barred",
    ]
    .iter()
    .any(|word| phrase.contains(word))
}

/// Text of a peer's, short and on one line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
