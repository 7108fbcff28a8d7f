//! One provider that registers, and where its requests go.

use std::time::{Duration, Instant};

use ringwire_config::gateway::{self, Host, Provider};
use ringwire_config::object::ObjectRef;
use ringwire_sip::digest::Credentials;
use ringwire_sip::message::{Host as SipHost, NameAddr, Request, Uri};
use ringwire_sip::registration::{self, Action, Registration, RegistrationConfig};
use ringwire_sip::transaction::{ClientId, Flow, Transport};

use crate::registrar::names::{self, Names, Nowhere, Target, Way, lot};

/// Where there is another server, one that says nothing for so long is given up for it.
pub const PATIENCE: Duration = Duration::from_millis(3500);

/// What a trunk needs to know of its provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    host: Host,
    port: Option<u16>,
    way: Option<Way>,
    pub registration: gateway::Registration,
    contact_user_is_secret: bool,
}

impl Account {
    /// `None`: it does not register.
    pub fn of(provider: &Provider) -> Option<Self> {
        let registration = provider.registration.clone()?;
        let (host, port, way) = names::server(provider);
        Some(Self {
            host: host.clone(),
            port,
            way,
            registration,
            contact_user_is_secret: provider.contact_user_is_secret,
        })
    }

    /// Whether it is that provider's, without making another one.
    pub fn is_of(&self, provider: &Provider) -> bool {
        let server = (&self.host, self.port, self.way);
        provider.registration.as_ref() == Some(&self.registration)
            && names::server(provider) == server
            && provider.contact_user_is_secret == self.contact_user_is_secret
    }

    fn settings(&self, contact: NameAddr, call_id: String) -> Option<RegistrationConfig> {
        let registration = &self.registration;
        let domain = SipHost::parse(&registration.from_domain).ok()?;
        Some(RegistrationConfig {
            registrar: Uri::sip(None, domain.clone(), None),
            aor: Uri::sip(Some(&registration.username), domain, None),
            contact,
            expiry_seconds: registration.expiry_seconds,
            credentials: Credentials {
                username: registration.auth_username.clone(),
                password: registration.password.expose().to_owned(),
                realm: registration.realm.clone(),
            },
            user_agent: crate::USER_AGENT.to_owned(),
            call_id,
            contact_user_is_ours: self.contact_user_is_secret,
        })
    }

    /// Where requests go, as far as it is known before DNS was asked.
    fn server(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_string(),
        }
    }
}

/// Whether the provider is still in the configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It is.
    Stays,
    /// It is not; the binding is to be taken back when it is this trunk's turn.
    Leaves,
    /// The binding is being taken back.
    Left,
}

/// How the [`Trunks`](super::Trunks) have this trunk in their lists; see [`super::Trunks::settle`].
#[derive(Default)]
pub struct Listed {
    pub timer: Option<Instant>,
    pub turn: Option<(Instant, u64)>,
    pub answers: bool,
    pub bound: Option<(Target, u32)>,
}

/// One provider that registers.
pub struct Trunk {
    pub id: ObjectRef,
    pub account: Account,
    pub registration: Registration,
    pub stay: Stay,
    /// By which it finds its server among others.
    lot: u64,
    /// Who the server has to prove to be, over TLS.
    pub peer: u32,
    /// A request that is to be sent.
    pub unsent: Option<(u64, Request)>,
    /// It waits for the server's addresses.
    pub waits_for_name: bool,
    /// Where the last request went.
    pub target: Option<Target>,
    /// Until when something has to be heard of that server, and in which transaction: there is another one.
    pub patience: Option<(Instant, Option<ClientId>)>,
    /// The version that was told.
    pub reported: Option<u64>,
    pub listed: Listed,
}

impl Trunk {
    /// One that registers. `None`: its domain cannot be read.
    pub fn new(id: &ObjectRef, account: Account, contact: NameAddr, now: Instant) -> Option<Self> {
        let call_id = format!("{:032x}", rand::random::<u128>());
        let settings = account.settings(contact, call_id)?;
        let mut registration = Registration::new(settings, now);
        registration.set_server(&account.server());
        Some(Self {
            id: id.clone(),
            account,
            registration,
            stay: Stay::Stays,
            lot: lot(&id.to_string()),
            peer: 0,
            unsent: None,
            waits_for_name: false,
            target: None,
            patience: None,
            reported: None,
            listed: Listed::default(),
        })
    }

    /// Registers anew.
    pub fn change(&mut self, account: Account, contact: NameAddr, now: Instant) {
        self.account = account;
        self.reported = None;
        let call_id = self.registration.config().call_id.clone();
        if let Some(settings) = self.account.settings(contact, call_id) {
            self.registration.set_server(&self.account.server());
            self.registration.update(settings, now);
            self.unsent = None;
            self.waits_for_name = false;
            self.patience = None;
        }
    }

    /// Takes what the registration wants sent, in place of what it wanted before.
    pub fn collect(&mut self) {
        if let Some(Action::Send { token, request }) = self.registration.poll_action() {
            self.unsent = Some((token, request));
        }
        let waiting = self.registration.waiting_for();
        self.unsent.take_if(|(token, _)| Some(*token) != waiting);
    }

    /// Addresses what it has to send to the server whose turn it is.
    pub fn address(
        &mut self,
        targets: &[Target],
        names: &Names,
        now: Instant,
    ) -> Option<(u64, Request, Flow)> {
        let target = names.pick(targets, now)?;
        let (token, request) = self.unsent.take()?;
        let server = format!("{} over {}", target.remote, target.transport);
        self.registration.set_server(&server);
        self.target = Some(target);
        self.patience = names
            .has_other(targets, target, now)
            .then_some((now + PATIENCE, None));
        Some((token, request, self.flow(target)))
    }

    /// Whether the carrier has a binding that may have to be taken back.
    pub fn may_be_bound(&self, now: Instant) -> bool {
        self.registration.waiting_for().is_some() || self.registration.expires_in(now).is_some()
    }

    /// When it has something to do by itself.
    pub fn timer(&self) -> Option<Instant> {
        let patience = self.patience.map(|(until, _)| until);
        [self.registration.poll_timeout(), patience]
            .into_iter()
            .flatten()
            .min()
    }

    /// The flow that its calls come in over: keep-alives are due there.
    pub fn bound(&self) -> Option<(Target, u32)> {
        let registered = self.registration.status().state == registration::State::Registered;
        let target = self
            .target
            .filter(|_| registered && self.stay == Stay::Stays)?;
        Some((target, peer(target, self.peer)))
    }

    /// Where requests to `target` go.
    pub fn flow(&self, target: Target) -> Flow {
        flow(target, peer(target, self.peer))
    }

    /// The servers, the ones to try first in front.
    pub fn targets(&self, names: &Names) -> Result<Vec<Target>, Nowhere> {
        let Account {
            host, port, way, ..
        } = &self.account;
        names.targets(host, *port, *way, self.lot)
    }

    /// The server that was asked does not do its work: asks the next one, if there is one that has not failed as well.
    pub fn turn_to_another(&mut self, token: u64, names: &mut Names, now: Instant) -> bool {
        let waiting = self.registration.waiting_for() == Some(token);
        let (true, Some(target), Ok(targets)) = (waiting, self.target, self.targets(names)) else {
            return false;
        };
        names.avoid(target, now);
        names.has_other(&targets, target, now) && self.registration.ask_again(token, now)
    }
}

/// Only over TLS does it matter who the other side is.
fn peer(target: Target, peer: u32) -> u32 {
    match target.transport {
        Transport::Tls => peer,
        Transport::Udp | Transport::Tcp => 0,
    }
}

/// The flow to a server before there is a connection.
pub fn flow(target: Target, peer: u32) -> Flow {
    Flow {
        transport: target.transport,
        remote: target.remote,
        connection: None,
        peer,
    }
}
