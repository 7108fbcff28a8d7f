//! The registrations of one registrar: which there are, where their requests go, what they report.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ringwire_config::Reason;
use ringwire_config::gateway::{Provider, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::state::{RegistrationReport, RegistrationState};
use ringwire_crds::Transport as ConfigTransport;
use ringwire_sip::digest::Credentials;
use ringwire_sip::message::{HeaderName, Host, NameAddr, Request, Response, Uri};
use ringwire_sip::registration::{self, Registration, RegistrationConfig};
use ringwire_sip::transaction::{ClientError, ClientId, Flow, Transport};

use super::edge::Peers;
use super::names::{self, Names, Nowhere, Target};

/// Where there is another server, one that says nothing for so long is given up for it.
const PATIENCE: Duration = Duration::from_millis(3500);

/// One provider that registers.
struct Trunk {
    /// Tells it from a predecessor of the same name that is still un-REGISTERing.
    serial: u64,
    provider: Provider,
    registration: Registration,
    /// Who the server has to prove to be, over TLS.
    peer: u32,
    /// Waiting for the server's addresses.
    unsent: Option<(u64, Request)>,
    /// Where the last request went.
    target: Option<Target>,
    /// Until when something has to be heard of that server, and in which transaction: there is another one.
    patience: Option<(Instant, Option<ClientId>)>,
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
            let rejoins = provider.registration.is_some() && self.rejoin(&provider.id);
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
                        peer: 0,
                        unsent: None,
                        target: None,
                        patience: None,
                        reported: None,
                    };
                    self.active.insert(provider.id.clone(), trunk);
                }
                Some(trunk) => {
                    let same = !rejoins
                        && trunk.provider.registration == provider.registration
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
                        trunk.patience = None;
                    }
                }
            }
        }
    }

    /// A provider that is made again while it is being taken back goes on: its requests stay in order, so the last one counts.
    fn rejoin(&mut self, id: &ObjectRef) -> bool {
        if self.active.contains_key(id) {
            return false;
        }
        let mut leaving = self.leaving.iter();
        let Some(at) = leaving.position(|trunk| trunk.provider.id == *id) else {
            return false;
        };
        let mut trunk = self.leaving.remove(at);
        trunk.reported = None;
        self.active.insert(id.clone(), trunk);
        true
    }

    /// Takes over who the servers have to prove to be. Ones that are being left keep what they had.
    pub fn set_peers(&mut self, peers: &Peers) {
        for (id, trunk) in &mut self.active {
            trunk.peer = peers.of(id);
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
            let targets = match trunk.targets(names) {
                Ok(targets) => targets,
                // Its name may be forgotten with it, but the binding is where the last request went.
                Err(_) if leaves && trunk.target.is_some() => trunk.target.into_iter().collect(),
                Err(Nowhere::Unknown(_)) => continue,
                Err(Nowhere::Failed(error)) => {
                    trunk.unsent = None;
                    trunk.registration.on_unresolved(&error, now);
                    continue;
                }
            };
            let (Some(target), Some((token, request))) =
                (names.pick(&targets, now), trunk.unsent.take())
            else {
                continue;
            };
            trunk.registration.set_server(&text(target));
            trunk.target = Some(target);
            trunk.patience = names
                .has_other(&targets, target, now)
                .then_some((now + PATIENCE, None));
            let flow = trunk.flow(target);
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
        let trunk = self.all().find(|trunk| trunk.serial == key.0);
        if let Some(Trunk {
            patience: Some((_, waiting)),
            ..
        }) = trunk
        {
            *waiting = Some(client);
        }
    }

    /// Whether a transaction is ours.
    pub fn owns_client(&self, client: ClientId) -> bool {
        self.clients.contains_key(&client)
    }

    /// Hands a response to the registration that asked.
    pub fn on_response(
        &mut self,
        client: ClientId,
        response: &Response,
        names: &mut Names,
        now: Instant,
    ) {
        let Some((trunk, token)) = self.of_client(client) else {
            return;
        };
        trunk.patience = None;
        // RFC 3263 section 4.3: 503 is the one response that means this server and not the carrier.
        if response.status == 503 && trunk.turn_to_another(token, names, now) {
            return;
        }
        trunk.registration.on_response(token, response, now);
    }

    /// Tells a registration that its request was sent again.
    pub fn on_retransmitted(&mut self, client: ClientId, sends: u32, elapsed: Duration) {
        if let Some((trunk, token)) = self.of_client(client) {
            trunk.registration.on_retransmitted(token, sends, elapsed);
        }
    }

    /// Tells a registration that its request got no answer.
    pub fn on_failed(
        &mut self,
        client: ClientId,
        error: &ClientError,
        names: &mut Names,
        now: Instant,
    ) {
        if let Some((trunk, token)) = self.of_client(client)
            && !trunk.turn_to_another(token, names, now)
        {
            trunk.registration.on_failed(token, error, now);
        }
    }

    fn of_client(&mut self, client: ClientId) -> Option<(&mut Trunk, u64)> {
        let (serial, token) = self.clients.get(&client).copied()?;
        let trunk = self.all().find(|trunk| trunk.serial == serial)?;
        Some((trunk, token))
    }

    /// A transaction has ended.
    pub fn client_ended(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// A stream has closed.
    pub fn flow_lost(&mut self, flow: &Flow, now: Instant) {
        let lost = Target {
            remote: flow.remote,
            transport: flow.transport,
        };
        for trunk in self.all() {
            if trunk.target == Some(lost) && (flow.connection.is_some() || trunk.peer == flow.peer)
            {
                trunk.registration.on_flow_lost(now);
            }
        }
    }

    /// Runs due timers. Gives the transactions that nobody waits for any more.
    pub fn handle_timeout(&mut self, names: &mut Names, now: Instant) -> Vec<ClientId> {
        let mut given_up = Vec::new();
        for trunk in self.all() {
            if let Some((_, waiting)) = trunk.patience.take_if(|(until, _)| *until <= now)
                && let Some(token) = trunk.registration.waiting_for()
                && trunk.turn_to_another(token, names, now)
            {
                given_up.extend(waiting);
            }
            if trunk
                .registration
                .poll_timeout()
                .is_some_and(|at| at <= now)
            {
                trunk.registration.handle_timeout(now);
            }
        }
        self.leaving.retain(|trunk| !trunk.registration.is_done());
        given_up
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.active
            .values()
            .chain(&self.leaving)
            .flat_map(|trunk| {
                let patience = trunk.patience.map(|(until, _)| until);
                [trunk.registration.poll_timeout(), patience]
            })
            .flatten()
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
            .filter_map(|trunk| Some(trunk.flow(trunk.target?)))
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
            changed.push((id.clone(), report(trunk, revision, wall, now)));
        }
        changed
    }

    /// The providers that have a registration here.
    pub fn ids(&self) -> impl Iterator<Item = &ObjectRef> {
        self.active.keys()
    }
}

impl Trunk {
    fn flow(&self, target: Target) -> Flow {
        Flow {
            transport: target.transport,
            remote: target.remote,
            connection: None,
            peer: match target.transport {
                Transport::Tls => self.peer,
                Transport::Udp | Transport::Tcp => 0,
            },
        }
    }

    fn targets(&self, names: &Names) -> Result<Vec<Target>, Nowhere> {
        let (host, port, way) = names::server(&self.provider);
        names.targets(host, port, way)
    }

    /// The server that was asked does not do its work: asks the next one, if there is one that has not failed as well.
    fn turn_to_another(&mut self, token: u64, names: &mut Names, now: Instant) -> bool {
        let waiting = self.registration.waiting_for() == Some(token);
        let (true, Some(target), Ok(targets)) = (waiting, self.target, self.targets(names)) else {
            return false;
        };
        names.avoid(target, now);
        names.has_other(&targets, target, now) && self.registration.ask_again(token, now)
    }
}

/// Where a provider's requests go, as far as it is known before DNS was asked.
fn server_text(provider: &Provider) -> String {
    match names::server(provider) {
        (host, Some(port), _) => format!("{host}:{port}"),
        (host, None, _) => host.to_string(),
    }
}

fn text(target: Target) -> String {
    format!("{} over {}", target.remote, target.transport)
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
    trunk: &Trunk,
    revision: String,
    wall: jiff::Timestamp,
    now: Instant,
) -> RegistrationReport {
    use registration::Reason as Sip;
    let status = trunk.registration.status();
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
            Sip::TlsUntrusted => Reason::TlsUntrusted,
            Sip::TlsFailed => Reason::TlsFailed,
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
        transport: trunk.target.map(|target| match target.transport {
            Transport::Udp => ConfigTransport::UDP,
            Transport::Tcp => ConfigTransport::TCP,
            Transport::Tls => ConfigTransport::TLS,
        }),
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
    "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, PRACK",
);

#[cfg(test)]
mod tests {
    use ringwire_config::fixture;
    use serde_json::json;

    use super::super::names::{Lookup, Place, Question};
    use super::*;

    fn config() -> RegistrarConfig {
        let registration = json!({
            "username": "alice", "authUsername": "alice", "password": "hunter2", "fromDomain": "carrier.test",
            "expirySeconds": 300, "revision": "1",
        });
        fixture::registrar([Provider {
            registration: serde_json::from_value(registration).unwrap(),
            ..fixture::provider("trunk")
        }])
    }

    /// A domain with two servers.
    fn names() -> Names {
        let places = ["192.0.2.1", "192.0.2.2"].map(|address| Place {
            address: address.parse().unwrap(),
            port: Some(5070),
            way: None,
        });
        let mut names = Names::default();
        let question = Question::Service("carrier.test".into(), None);
        names.update(question, Lookup::Found(places.into()));
        names
    }

    fn configure(trunks: &mut Trunks, config: &RegistrarConfig, names: &Names, now: Instant) {
        let contact = |_: &Provider, _: &Names| NameAddr::parse("<sip:token@192.0.2.9>").ok();
        trunks.configure(config, |_| true, contact, names, now);
    }

    fn started(names: &Names, now: Instant) -> Trunks {
        let mut trunks = Trunks::default();
        configure(&mut trunks, &config(), names, now);
        trunks
    }

    /// The next request's transaction, and where it goes.
    fn sent(trunks: &mut Trunks, names: &Names, now: Instant) -> (ClientId, String, Request) {
        let mut sends = trunks.poll_sends(names, now);
        assert_eq!(sends.len(), 1);
        let send = sends.remove(0);
        let mut endpoint = ringwire_sip::transaction::Endpoint::new(
            ringwire_sip::transaction::EndpointConfig::default(),
            send.key.1,
        );
        let host = Host::Name("us.test".into());
        let client = endpoint.request(send.request.clone(), send.flow.clone(), &host, 5060, now);
        trunks.sent(client, send.key);
        let mut request = send.request;
        let via = "SIP/2.0/UDP us.test;branch=z9hG4bK1";
        request.headers.insert_first(HeaderName::Via, via);
        (client, send.flow.remote.to_string(), request)
    }

    #[test]
    fn a_silent_server_is_left_for_the_next_within_four_seconds() {
        let (mut names, now) = (names(), Instant::now());
        let mut trunks = started(&names, now);
        let (silent, first, _) = sent(&mut trunks, &names, now);
        assert_eq!(first, "192.0.2.1:5070");
        let later = trunks.poll_timeout().unwrap();
        assert!(later <= now + Duration::from_secs(4));
        assert_eq!(trunks.handle_timeout(&mut names, later), [silent]);
        let (_, second, _) = sent(&mut trunks, &names, later);
        assert_eq!(second, "192.0.2.2:5070");
        // It is the last one: it has all the time that RFC 3261 gives it.
        assert_eq!(trunks.poll_timeout(), None);
    }

    #[test]
    fn a_server_that_is_overloaded_is_left_and_a_refusal_is_not() {
        for (status, next) in [(503, Some("192.0.2.2:5070")), (403, None)] {
            let (mut names, now) = (names(), Instant::now());
            let mut trunks = started(&names, now);
            let (client, _, request) = sent(&mut trunks, &names, now);
            let response = Response::to_request(&request, status, None);
            trunks.on_response(client, &response, &mut names, now);
            let sends = trunks.poll_sends(&names, now);
            let remote = sends.first().map(|send| send.flow.remote.to_string());
            assert_eq!(remote.as_deref(), next, "{status}");
        }
    }

    #[test]
    fn an_answer_ends_the_patience() {
        let (mut names, now) = (names(), Instant::now());
        let mut trunks = started(&names, now);
        let (client, _, request) = sent(&mut trunks, &names, now);
        let trying = Response::to_request(&request, 100, None);
        trunks.on_response(client, &trying, &mut names, now);
        assert!(trunks.handle_timeout(&mut names, now + PATIENCE).is_empty());
        assert!(trunks.poll_sends(&names, now + PATIENCE).is_empty());
    }

    /// `Expires` and `CSeq` of the next REGISTER.
    fn asked(trunks: &mut Trunks, names: &Names, now: Instant) -> (Option<u32>, u32) {
        let (_, _, request) = sent(trunks, names, now);
        let (cseq, _) = request.headers.cseq().unwrap();
        (request.headers.expires(), cseq)
    }

    #[test]
    fn a_provider_that_registers_no_more_is_taken_back_though_it_stays() {
        let (names, now) = (names(), Instant::now());
        let mut trunks = started(&names, now);
        assert_eq!(asked(&mut trunks, &names, now), (Some(300), 1));
        let mut disabled = config();
        for provider in disabled.providers.values_mut() {
            provider.registration = None;
        }
        for _ in 0..2 {
            configure(&mut trunks, &disabled, &names, now);
        }
        assert_eq!(asked(&mut trunks, &names, now), (Some(0), 2));
        assert!(!trunks.is_quiet());
    }

    #[test]
    fn a_provider_that_is_made_again_goes_on_with_the_next_number() {
        let (names, now) = (names(), Instant::now());
        let mut trunks = started(&names, now);
        sent(&mut trunks, &names, now);
        let gone = RegistrarConfig {
            providers: BTreeMap::new(),
            ..config()
        };
        configure(&mut trunks, &gone, &names, now);
        assert_eq!(asked(&mut trunks, &names, now), (Some(0), 2));
        configure(&mut trunks, &config(), &names, now);
        assert_eq!(asked(&mut trunks, &names, now), (Some(300), 3));
        assert!(trunks.is_quiet());
    }
}
