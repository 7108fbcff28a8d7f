//! The registrations of one registrar: which there are, where their requests go, what they report.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use ringwire_config::Reason;
use ringwire_config::gateway::{Host as ConfigHost, Provider, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::state::{RegistrationReport, RegistrationState};
use ringwire_crds::Transport as ConfigTransport;
use ringwire_sip::digest::Credentials;
use ringwire_sip::message::{HeaderName, Host, NameAddr, Request, Uri};
use ringwire_sip::registration::{self, Registration, RegistrationConfig};
use ringwire_sip::transaction::{ClientId, Flow, Transport};

use super::names::{Lookup, Names};

/// The SIP crate's name of a configured transport.
pub fn transport(transport: ConfigTransport) -> Transport {
    match transport {
        ConfigTransport::UDP => Transport::Udp,
        ConfigTransport::TCP => Transport::Tcp,
    }
}

/// One provider that registers.
struct Trunk {
    /// Tells it from a predecessor of the same name that is still un-REGISTERing.
    serial: u64,
    provider: Provider,
    registration: Registration,
    /// Waiting for the server's addresses.
    unsent: Option<(u64, Request)>,
    /// Where the last request went.
    flow: Option<Flow>,
    /// Counts failed tries, to go through the server's addresses in turn.
    failures: usize,
    reported: Option<(u64, String)>,
}

/// All of them.
#[derive(Default)]
pub struct Trunks {
    active: BTreeMap<ObjectRef, Trunk>,
    /// Taken out of the configuration, un-REGISTERing.
    leaving: Vec<Trunk>,
    next_serial: u64,
    /// Which trunk's request a transaction carries, and its token.
    clients: HashMap<ClientId, (u64, u64)>,
}

/// A request to be sent.
pub struct Send {
    /// Of which trunk it is, and which of its requests; for [`Trunks::sent`].
    pub key: (u64, u64),
    /// The request, without Via.
    pub request: Request,
    /// Where to.
    pub flow: Flow,
}

impl Trunks {
    /// Takes a configuration: new trunks register, changed ones register anew, and ones that are gone from the configuration
    /// un-REGISTER. Ones that another registrar owns now are dropped without a word to the carrier.
    pub fn configure(
        &mut self,
        config: &RegistrarConfig,
        owns: impl Fn(&ObjectRef) -> bool,
        contact: impl Fn(&Provider, &Names) -> Option<NameAddr>,
        names: &Names,
        now: Instant,
    ) {
        let wanted = |id: &ObjectRef| {
            config
                .providers
                .get(id)
                .filter(|p| p.registration.is_some())
        };
        let gone: Vec<ObjectRef> = self
            .active
            .keys()
            .filter(|id| wanted(id).is_none() || !owns(id))
            .cloned()
            .collect();
        for id in gone {
            let Some(mut trunk) = self.active.remove(&id) else {
                continue;
            };
            if wanted(&id).is_none() {
                trunk.registration.unregister(now);
                self.leaving.push(trunk);
            }
        }
        for provider in config
            .providers
            .values()
            .filter(|provider| owns(&provider.id))
        {
            let Some(contact) = contact(provider, names) else {
                continue;
            };
            match self.active.get_mut(&provider.id) {
                None => {
                    let call_id = format!("{:032x}", rand::random::<u128>());
                    let Some(settings) = settings(provider, contact, call_id) else {
                        continue;
                    };
                    let mut registration = Registration::new(settings, now);
                    registration.set_server(&server_text(provider));
                    self.next_serial += 1;
                    let trunk = Trunk {
                        serial: self.next_serial,
                        provider: provider.clone(),
                        registration,
                        unsent: None,
                        flow: None,
                        failures: 0,
                        reported: None,
                    };
                    self.active.insert(provider.id.clone(), trunk);
                }
                Some(trunk) => {
                    let same = trunk.provider.registration == provider.registration
                        && trunk.registration.config().contact == contact;
                    trunk.provider = provider.clone();
                    if same {
                        continue;
                    }
                    let call_id = trunk.registration.config().call_id.clone();
                    if let Some(settings) = settings(provider, contact, call_id) {
                        trunk.registration.set_server(&server_text(provider));
                        trunk.registration.update(settings, now);
                        trunk.unsent = None;
                        trunk.failures = 0;
                    }
                }
            }
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Trunk> {
        self.active.values_mut().chain(&mut self.leaving)
    }

    /// The requests that can be sent now. Call again after every event.
    pub fn poll_sends(&mut self, names: &Names, now: Instant) -> Vec<Send> {
        let mut sends = Vec::new();
        let active = self.active.values_mut().map(|trunk| (trunk, false));
        let leaving = self.leaving.iter_mut().map(|trunk| (trunk, true));
        for (trunk, leaves) in active.chain(leaving) {
            if let Some(registration::Action::Send { token, request }) =
                trunk.registration.poll_action()
            {
                trunk.unsent = Some((token, request));
            }
            if trunk.unsent.is_none() {
                continue;
            }
            let (host, port) = trunk
                .provider
                .outbound_proxy
                .clone()
                .unwrap_or_else(|| (trunk.provider.server.clone(), trunk.provider.port));
            let mut addresses = names.addresses(&host);
            if addresses.is_empty()
                && leaves
                && let Some(flow) = &trunk.flow
            {
                // Its name may be forgotten with it, but the binding is where the last request went.
                addresses.push(flow.remote.ip());
            }
            if addresses.is_empty() {
                if let ConfigHost::Name(name) = &host
                    && let Some(Lookup::Failed(error)) = names.get(name)
                {
                    trunk.unsent = None;
                    trunk.registration.on_unresolved(error, now);
                }
                continue;
            }
            let Some((token, request)) = trunk.unsent.take() else {
                continue;
            };
            let remote = SocketAddr::new(addresses[trunk.failures % addresses.len()], port);
            let flow = Flow {
                transport: transport(trunk.provider.transport),
                remote,
                connection: None,
            };
            trunk
                .registration
                .set_server(&format!("{remote} over {}", flow.transport.as_str()));
            trunk.flow = Some(flow.clone());
            sends.push(Send {
                key: (trunk.serial, token),
                request,
                flow,
            });
        }
        self.leaving.retain(|trunk| !trunk.registration.is_done());
        sends
    }

    /// Remembers which transaction carries a request.
    pub fn sent(&mut self, client: ClientId, key: (u64, u64)) {
        self.clients.insert(client, key);
    }

    /// Whether a transaction is ours.
    pub fn owns_client(&self, client: ClientId) -> bool {
        self.clients.contains_key(&client)
    }

    /// Hands what came of a transaction to its registration.
    pub fn on_client(
        &mut self,
        client: ClientId,
        event: impl FnOnce(&mut Registration, u64),
        failed: bool,
    ) {
        let Some((serial, token)) = self.clients.get(&client).copied() else {
            return;
        };
        if let Some(trunk) = self.all().find(|trunk| trunk.serial == serial) {
            trunk.failures += usize::from(failed);
            event(&mut trunk.registration, token);
        }
    }

    /// A transaction has ended.
    pub fn client_ended(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// A stream has closed.
    pub fn flow_lost(&mut self, transport: Transport, remote: SocketAddr, now: Instant) {
        for trunk in self.all() {
            if trunk
                .flow
                .as_ref()
                .is_some_and(|flow| flow.transport == transport && flow.remote == remote)
            {
                trunk.registration.on_flow_lost(now);
            }
        }
    }

    /// Runs due timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        for trunk in self.all() {
            if trunk
                .registration
                .poll_timeout()
                .is_some_and(|at| at <= now)
            {
                trunk.registration.handle_timeout(now);
            }
        }
        self.leaving.retain(|trunk| !trunk.registration.is_done());
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.active
            .values()
            .chain(&self.leaving)
            .filter_map(|trunk| trunk.registration.poll_timeout())
            .min()
    }

    /// Whether every provider that is gone has been un-REGISTERed.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Where keep-alives are due: the flows of all bindings.
    pub fn bound_flows(&self) -> Vec<Flow> {
        self.active
            .values()
            .filter(|trunk| trunk.registration.status().state == registration::State::Registered)
            .filter_map(|trunk| trunk.flow.clone())
            .collect()
    }

    /// Reports that changed since the last call, and providers that have none any more.
    pub fn poll_reports(
        &mut self,
        wall: jiff::Timestamp,
        now: Instant,
    ) -> Vec<(ObjectRef, RegistrationReport)> {
        let mut changed = Vec::new();
        for (id, trunk) in &mut self.active {
            let Some(revision) = trunk
                .provider
                .registration
                .as_ref()
                .map(|r| r.revision.clone())
            else {
                continue;
            };
            let version = (trunk.registration.version(), revision.clone());
            if trunk.reported.as_ref() == Some(&version) {
                continue;
            }
            trunk.reported = Some(version);
            changed.push((
                id.clone(),
                report(trunk.registration.status(), revision, wall, now),
            ));
        }
        changed
    }

    /// The providers that have a registration here.
    pub fn ids(&self) -> impl Iterator<Item = &ObjectRef> {
        self.active.keys()
    }
}

fn server_text(provider: &Provider) -> String {
    format!(
        "{}:{} over {}",
        provider.server,
        provider.port,
        transport(provider.transport).as_str()
    )
}

fn settings(provider: &Provider, contact: NameAddr, call_id: String) -> Option<RegistrationConfig> {
    let registration = provider.registration.as_ref()?;
    let domain = Host::parse(&registration.from_domain).ok()?;
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
        contact_user_is_ours: provider.contact_user_is_secret,
    })
}

fn report(
    status: &registration::RegistrationStatus,
    revision: String,
    wall: jiff::Timestamp,
    now: Instant,
) -> RegistrationReport {
    use registration::Reason as Sip;
    RegistrationReport {
        revision,
        state: match status.state {
            registration::State::Registered => RegistrationState::Registered,
            registration::State::Unregistered => RegistrationState::Unregistered,
            registration::State::Unknown => RegistrationState::Unknown,
        },
        reason: match status.reason {
            Sip::Registering => Reason::Registering,
            Sip::Registered => Reason::Registered,
            Sip::RefreshFailing => Reason::RefreshFailing,
            Sip::WrongCredentials => Reason::WrongCredentials,
            Sip::AccountForbidden => Reason::AccountForbidden,
            Sip::NoAnswer => Reason::NoAnswer,
            Sip::ServerNotFound => Reason::ServerNotFound,
            Sip::ConnectionRefused => Reason::ConnectionRefused,
            Sip::IntervalTooShort => Reason::IntervalTooShort,
            Sip::ServerError => Reason::ServerError,
            Sip::NotFound => Reason::AccountNotFound,
            Sip::BindingRemoved => Reason::BindingRemoved,
            Sip::Rejected => Reason::RegistrationRejected,
            Sip::ChallengeUnsupported => Reason::ChallengeUnsupported,
            Sip::Unregistered => Reason::Paused,
        },
        message: status.message.clone(),
        last_response: status.last_response.clone(),
        contact: status.contact.clone(),
        observed_address: status.received.map(|address| address.to_string()),
        registered_at: status
            .registered_at
            .and_then(|at| wall.checked_sub(now.saturating_duration_since(at)).ok())
            // Whole seconds: the moment itself does not change between two reports.
            .and_then(|at| jiff::Timestamp::from_second(at.as_second()).ok()),
    }
}

/// A header's value that lists what we accept.
pub const ALLOW: (HeaderName, &str) = (
    HeaderName::Allow,
    "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO",
);
