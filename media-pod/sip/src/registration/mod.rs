//! One registration with a carrier: REGISTER, digest, refresh, failures and back-off, and what to tell people about it.
//!
//! It decides when a REGISTER is due and what its answer means. The owner finds the server, sends the request through an
//! [`Endpoint`](crate::transaction::Endpoint) and hands in what comes of it under the request's token; what belongs to an
//! older token is ignored.

mod answers;
mod backoff;
mod failures;
mod requests;
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

use crate::digest::{Asked, Credentials, DigestClient};
use crate::message::{NameAddr, Request, Uri};

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
    asked: Asked,
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
            asked: Asked::default(),
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
        self.asked = Asked::default();
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
