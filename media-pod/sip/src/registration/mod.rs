//! One registration with a carrier: REGISTER, digest, refresh, failures and back-off, and what to tell people about it.
//!
//! It decides when a REGISTER is due and what its answer means. The owner finds the server, sends the request through an
//! [`Endpoint`](crate::transaction::Endpoint) and hands in what comes of it under the request's token; what belongs to an
//! older token is ignored.

mod backoff;
mod status;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use backoff::Backoff;
pub use status::{Reason, RegistrationStatus, State};

use crate::digest::{Challenge, Credentials, DigestClient, DigestError};
use crate::message::{HeaderName, Method, NameAddr, Request, Response, Uri};
use crate::transaction::{ClientError, TransportError};

/// Most challenges that are answered before one REGISTER counts as refused.
const MAX_ANSWERS: u32 = 3;
/// How long taking back a registration may last.
const UNREGISTER_WITHIN: Duration = Duration::from_secs(4);
/// Most old Contacts that are taken back with the next REGISTER.
const MAX_OBSOLETE: usize = 4;
/// A flow that is lost sooner than this after a success counts as failure.
const QUICK_LOSS: Duration = Duration::from_secs(10);

/// What to register where.
#[derive(Clone, Debug)]
pub struct RegistrationConfig {
    /// The Request-URI: `sip:domain`.
    pub registrar: Uri,
    /// To and From: `sip:user@domain`.
    pub aor: Uri,
    /// Our Contact.
    pub contact: NameAddr,
    /// How long a binding shall hold, in seconds.
    pub expiry_seconds: u32,
    /// User name and password.
    pub credentials: Credentials,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The Call-ID; stays the same as long as we live.
    pub call_id: String,
    /// Whether nobody but us can know the user part of our Contact. Then other bindings with it are of a predecessor of ours, at an
    /// address where nobody answers any more, and are taken back.
    pub contact_user_is_ours: bool,
}

/// What the owner has to do.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send this in a transaction of its own.
    Send {
        /// Names the request in what is handed in.
        token: u64,
        /// The REGISTER, without `Via`.
        request: Request,
    },
}

/// A REGISTER that is on its way.
#[derive(Clone, Copy)]
struct InFlight {
    token: u64,
    cseq: u32,
    /// Whether it carries a digest answer.
    authorized: bool,
    /// Challenges answered since this REGISTER was due.
    answers: u32,
    /// Whether 423 was followed already.
    lengthened: bool,
}

struct Binding {
    expires_at: Instant,
    since: Instant,
}

enum Goal {
    Register,
    /// Take it back, until then at most.
    Unregister(Instant),
    Done,
}

/// A registration.
pub struct Registration {
    config: RegistrationConfig,
    rng: StdRng,
    from_tag: String,
    cseq: u32,
    next_token: u64,
    expiry: u32,
    goal: Goal,
    in_flight: Option<InFlight>,
    next_try: Option<Instant>,
    action: Option<Action>,
    digest: DigestClient,
    challenges: Vec<Challenge>,
    binding: Option<Binding>,
    /// Why the last try failed, for the moment when the binding ends.
    failure: Option<(Reason, String)>,
    /// Contacts to take back with the next REGISTER.
    obsolete: Vec<NameAddr>,
    backoff: Backoff,
    last_success: Option<Instant>,
    service_route: Vec<NameAddr>,
    server: String,
    status: RegistrationStatus,
    /// The status at the current version.
    told: RegistrationStatus,
    version: u64,
}

impl Registration {
    /// Registers at once.
    pub fn new(config: RegistrationConfig, now: Instant) -> Self {
        // The Call-ID is random text of the owner's: enough for jitter, tags and cnonces.
        let mut hasher = DefaultHasher::new();
        config.call_id.hash(&mut hasher);
        config.aor.to_string().hash(&mut hasher);
        let mut rng = StdRng::seed_from_u64(hasher.finish());
        let mut registration = Self {
            from_tag: format!("{:016x}", rng.random::<u64>()),
            rng,
            cseq: 0,
            next_token: 0,
            expiry: config.expiry_seconds,
            goal: Goal::Register,
            in_flight: None,
            next_try: None,
            action: None,
            digest: DigestClient::new(),
            challenges: Vec::new(),
            binding: None,
            failure: None,
            obsolete: Vec::new(),
            backoff: Backoff::default(),
            last_success: None,
            service_route: Vec::new(),
            server: config.registrar.host.to_string(),
            status: registering(None),
            told: registering(None),
            version: 1,
            config,
        };
        registration.send(InFlight::first(), now);
        registration
    }

    /// Takes a changed configuration: everything begins anew, at once. A Contact that is replaced is taken back with the
    /// same REGISTER; a binding at another registrar or user is left to expire.
    pub fn update(&mut self, config: RegistrationConfig, now: Instant) {
        let same_account =
            config.registrar == self.config.registrar && config.aor == self.config.aor;
        if !same_account {
            self.obsolete.clear();
            self.service_route.clear();
        } else if config.contact != self.config.contact {
            self.obsolete.push(self.config.contact.clone());
        }
        self.obsolete
            .retain(|old| !old.uri.equivalent(&config.contact.uri));
        let excess = self.obsolete.len().saturating_sub(MAX_OBSOLETE);
        self.obsolete.drain(..excess);
        self.server = config.registrar.host.to_string();
        self.expiry = config.expiry_seconds;
        self.config = config;
        self.goal = Goal::Register;
        self.digest = DigestClient::new();
        self.challenges.clear();
        self.binding = None;
        self.failure = None;
        self.backoff.reset();
        let received = self.status.received;
        self.set_status(registering(received));
        self.send(InFlight::first(), now);
    }

    /// Takes the registration back. Done when it is answered, and after 4 s at the latest: see [`Self::is_done`].
    pub fn unregister(&mut self, now: Instant) {
        if !matches!(self.goal, Goal::Register) {
            return;
        }
        if self.binding.is_none() && self.in_flight.is_none() {
            return self.done();
        }
        self.goal = Goal::Unregister(now + UNREGISTER_WITHIN);
        self.send(InFlight::first(), now);
    }

    /// Refreshes at once, unless a REGISTER is on its way.
    pub fn refresh_now(&mut self, now: Instant) {
        if matches!(self.goal, Goal::Register) && self.in_flight.is_none() {
            self.send(InFlight::first(), now);
        }
    }

    /// Tells where the REGISTER goes, for messages: `203.0.113.5:5060 over UDP`.
    pub fn set_server(&mut self, server: &str) {
        server.clone_into(&mut self.server);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

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

    /// The request with that token got no answer.
    pub fn on_failed(&mut self, token: u64, error: &ClientError, now: Instant) {
        if self.flight(token).is_none() {
            return;
        }
        if matches!(self.goal, Goal::Unregister(_)) {
            return self.done();
        }
        let server = &self.server;
        let (reason, message) = match error {
            ClientError::Timeout => (
                Reason::NoAnswer,
                format!("no reply from {server} in 32 s: firewall or wrong transport?"),
            ),
            ClientError::Transport(TransportError::TimedOut) => (
                Reason::NoAnswer,
                format!("no connection to {server}: firewall or wrong transport?"),
            ),
            ClientError::Transport(TransportError::Refused) => (
                Reason::ConnectionRefused,
                format!("{server} refused the connection: wrong port or transport?"),
            ),
            ClientError::Transport(TransportError::Untrusted(why)) => (
                Reason::TlsUntrusted,
                format!(
                    "the certificate of {server} is not trusted ({why}): name its authority in spec.tls.caSecretRef, or the name \
                     that it is issued for in spec.tls.serverName"
                ),
            ),
            ClientError::Transport(TransportError::Tls(why)) => (
                Reason::TlsFailed,
                format!(
                    "no TLS connection to {server} ({why}): does this port speak TLS, and does it ask for a client certificate?"
                ),
            ),
            ClientError::Transport(error) => (
                Reason::NoAnswer,
                format!("no reply from {server}: {error}; wrong port or transport?"),
            ),
        };
        self.fail(reason, message, now);
    }

    /// The request with that token was sent again.
    pub fn on_retransmitted(&mut self, token: u64, sends: u32, _elapsed: Duration) {
        if self.flight(token).is_some() && self.status.reason == Reason::Registering {
            let message = format!("no reply yet from {}, {sends} tries", self.server);
            self.set_status(RegistrationStatus {
                message,
                ..self.status.clone()
            });
        }
    }

    /// The token of the request that is on its way.
    pub fn waiting_for(&self) -> Option<u64> {
        self.in_flight.map(|flight| flight.token)
    }

    /// Whether that request follows from an answer of the carrier's to an earlier one, and so is expected there.
    pub fn follows_up(&self) -> bool {
        self.in_flight
            .is_some_and(|flight| flight.answers > 0 || flight.lengthened)
    }

    /// The server that the request with that token went to does not answer, but there is another one: makes the request anew, at once
    /// and without a word about it. `false` if nobody waits for that request.
    pub fn ask_again(&mut self, token: u64, now: Instant) -> bool {
        let Some(flight) = self.flight(token) else {
            return false;
        };
        self.send(flight, now);
        true
    }

    /// The server's name could not be resolved.
    pub fn on_unresolved(&mut self, error: &str, now: Instant) {
        if matches!(self.goal, Goal::Unregister(_)) {
            return self.done();
        }
        if matches!(self.goal, Goal::Register) {
            let message = format!(
                "the server {} was not found: {error}; check its name",
                self.config.registrar.host
            );
            self.fail(Reason::ServerNotFound, message, now);
        }
    }

    /// The connection over which we registered is gone, and calls can't come in over it: registers again.
    pub fn on_flow_lost(&mut self, now: Instant) {
        // What is on its way fails by itself.
        if !matches!(self.goal, Goal::Register)
            || self.in_flight.is_some()
            || self.binding.is_none()
        {
            return;
        }
        let message = format!(
            "the connection to {} was lost; registering again",
            self.server
        );
        if self
            .last_success
            .is_some_and(|last| now.saturating_duration_since(last) < QUICK_LOSS)
        {
            self.fail(Reason::NoAnswer, message, now);
        } else {
            self.set_failure(Reason::NoAnswer, message, now);
            self.send(InFlight::first(), now);
        }
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Goal::Unregister(deadline) = self.goal
            && deadline <= now
        {
            return self.done();
        }
        if self
            .binding
            .as_ref()
            .is_some_and(|binding| binding.expires_at <= now)
        {
            self.binding = None;
            let (reason, message) = self.failure.clone().unwrap_or((
                Reason::NoAnswer,
                format!(
                    "the binding has expired and {} has not answered the refresh yet",
                    self.server
                ),
            ));
            self.set_failure(reason, message, now);
        }
        if self.next_try.is_some_and(|at| at <= now) {
            self.send(InFlight::first(), now);
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.binding.as_ref().map(|binding| binding.expires_at);
        let limit = if let Goal::Unregister(at) = self.goal {
            Some(at)
        } else {
            None
        };
        [self.next_try, expiry, limit].into_iter().flatten().min()
    }

    /// How it stands.
    pub fn status(&self) -> &RegistrationStatus {
        &self.status
    }

    /// Goes up whenever the status changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How long the binding still holds.
    pub fn expires_in(&self, now: Instant) -> Option<Duration> {
        self.binding
            .as_ref()
            .map(|binding| binding.expires_at.saturating_duration_since(now))
    }

    /// The `Service-Route` of the last 200: the route of our requests to this carrier (RFC 3608).
    pub fn service_route(&self) -> &[NameAddr] {
        &self.service_route
    }

    /// Whether it was taken back.
    pub fn is_done(&self) -> bool {
        matches!(self.goal, Goal::Done)
    }

    /// What it registers.
    pub fn config(&self) -> &RegistrationConfig {
        &self.config
    }

    fn flight(&self, token: u64) -> Option<InFlight> {
        self.in_flight.filter(|flight| flight.token == token)
    }

    fn send(&mut self, flight: InFlight, _now: Instant) {
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
        if !self.challenges.is_empty() {
            let cnonce = format!("{:016x}", self.rng.random::<u64>());
            let uri = self.config.registrar.to_string();
            let answer = self.digest.answer(
                &self.challenges,
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
    fn answer_challenge(&mut self, flight: InFlight, response: &Response, now: Instant) -> bool {
        let challenges = Challenge::from_response(response);
        let stale = challenges.iter().any(|challenge| challenge.stale);
        let again = flight.answers == 0 || (stale && flight.answers < MAX_ANSWERS);
        if !again || self.can_answer(&challenges).is_err() {
            return false;
        }
        self.challenges = challenges;
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
    fn can_answer(&self, challenges: &[Challenge]) -> Result<(), DigestError> {
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

    fn on_refused_answer(
        &mut self,
        flight: InFlight,
        response: &Response,
        line: &str,
        now: Instant,
    ) {
        self.challenges.clear();
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

    fn fail(&mut self, reason: Reason, message: String, now: Instant) {
        let pause = self.backoff.failed(now, &mut self.rng);
        self.fail_for(reason, message, pause, now);
    }

    fn fail_for(&mut self, reason: Reason, message: String, pause: Duration, now: Instant) {
        self.in_flight = None;
        self.action = None;
        self.next_try = Some(now + pause);
        self.set_failure(reason, message, now);
    }

    /// Tells of a failure: while the binding holds, calls still come in.
    fn set_failure(&mut self, reason: Reason, message: String, now: Instant) {
        self.failure = Some((reason, message.clone()));
        let holds = self
            .binding
            .as_ref()
            .is_some_and(|binding| binding.expires_at > now);
        let status = self.status.clone();
        self.set_status(if holds {
            let message = format!("the binding still holds, but its refresh fails: {message}");
            RegistrationStatus {
                state: State::Registered,
                reason: Reason::RefreshFailing,
                message,
                ..status
            }
        } else {
            RegistrationStatus {
                state: State::Unregistered,
                reason,
                message,
                contact: None,
                registered_at: None,
                ..status
            }
        });
    }

    fn done(&mut self) {
        self.goal = Goal::Done;
        self.in_flight = None;
        self.action = None;
        self.next_try = None;
        self.binding = None;
        self.set_status(RegistrationStatus {
            state: State::Unregistered,
            reason: Reason::Unregistered,
            message: "taken back".to_owned(),
            contact: None,
            registered_at: None,
            ..self.status.clone()
        });
    }

    fn set_status(&mut self, status: RegistrationStatus) {
        if self.told != status {
            self.told = status.clone();
            self.version += 1;
        }
        self.status = status;
    }
}

impl InFlight {
    fn first() -> Self {
        Self {
            token: 0,
            cseq: 0,
            authorized: false,
            answers: 0,
            lengthened: false,
        }
    }
}

fn registering(received: Option<SocketAddr>) -> RegistrationStatus {
    RegistrationStatus {
        state: State::Unknown,
        reason: Reason::Registering,
        message: "waiting for the carrier's answer".to_owned(),
        last_response: None,
        contact: None,
        registered_at: None,
        received,
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
