//! The registrations of one registrar: which there are, where their requests go, what they report.
//!
//! There may be thousands, so nothing here looks at all of them for each message. Whatever happens to a trunk, [`Trunks::settle`] puts it
//! into the lists that it belongs into: what is to be sent, when something is due, what is to be told.

mod flows;
mod report;
#[cfg(test)]
mod tests;
mod trunk;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use ringwire_config::gateway::{Provider, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::state::RegistrationReport;
use ringwire_sip::message::{HeaderName, NameAddr, Request, Response};
use ringwire_sip::transaction::{ClientError, ClientId, Flow, give_back};

use self::flows::Flows;
use self::trunk::{Account, Stay, Trunk};
use super::bucket::Bucket;
use super::edge::Peers;
use super::names::{Names, Nowhere, Question};

/// REGISTERs that begin in a second, so that a start with thousands of trunks is no flood for the carrier, nor its answers for us.
const PACE: u32 = 500;

/// REGISTERs that begin at once after a pause.
const BURST: u32 = 50;

/// A trunk without binding lets those pass that have one to lose, for so long.
const YIELDS: Duration = Duration::from_secs(10);

/// All of them.
#[derive(Default)]
pub struct Trunks {
    /// By a number that tells a trunk from a predecessor of the same name.
    by_serial: HashMap<u64, Trunk>,
    active: BTreeMap<ObjectRef, u64>,
    /// Taken out of the configuration, un-REGISTERing.
    leaving: BTreeMap<ObjectRef, u64>,
    last: u64,
    /// Those whose request follows from an answer: the carrier waits for it.
    answers: VecDeque<u64>,
    /// Those whose REGISTER begins, by whose turn it is.
    turns: BTreeMap<(Instant, u64), u64>,
    pace: Option<Bucket>,
    /// Those that have a request for a server whose addresses are not known yet.
    waiting: BTreeMap<Question, Vec<u64>>,
    timers: BTreeSet<(Instant, u64)>,
    /// Those whose report has changed.
    changed: BTreeSet<u64>,
    flows: Flows,
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
    /// un-REGISTER. Ones that another registrar owns now, or that this version does not understand any more and a newer one may have
    /// registered, are dropped without a word to the carrier. `contact` gives none as long as the
    /// way to the carrier is unknown; [`Self::provide`] is to be called then.
    pub fn configure(
        &mut self,
        config: &RegistrarConfig,
        owns: impl Fn(&ObjectRef) -> bool,
        peers: &Peers,
        mut contact: impl FnMut(&Provider) -> Option<NameAddr>,
        now: Instant,
    ) {
        let wanted = |id: &ObjectRef| {
            let provider = config.providers.get(id);
            provider.is_some_and(|provider| provider.registration.is_some())
        };
        let gone: Vec<ObjectRef> = self
            .active
            .keys()
            .filter(|id| !wanted(id) || !owns(id))
            .cloned()
            .collect();
        for id in gone {
            let un_register = !wanted(&id) && !config.not_understood.providers.contains_key(&id);
            self.take_out(id, un_register, now);
        }
        for provider in config.providers.values().filter(|p| owns(&p.id)) {
            let peer = peers.of(&provider.id);
            self.provide(provider, peer, || contact(provider), now);
        }
    }

    fn take_out(&mut self, id: ObjectRef, un_register: bool, now: Instant) {
        let Some(serial) = self.active.remove(&id) else {
            return;
        };
        let Some(trunk) = self.by_serial.get_mut(&serial) else {
            return;
        };
        if !un_register {
            return self.remove(serial);
        }
        // Its turn may come late, and taking back has a limit of its own from when it begins.
        trunk.stay = Stay::Leaves;
        trunk.waits_for_name = false;
        if !trunk.may_be_bound(now) {
            trunk.registration.unregister(now);
        }
        self.leaving.insert(id, serial);
        self.settle(serial, now);
    }

    /// Takes one provider of the configuration, who its server has to prove to be over TLS, and our Contact there.
    pub fn provide(
        &mut self,
        provider: &Provider,
        peer: u32,
        contact: impl FnOnce() -> Option<NameAddr>,
        now: Instant,
    ) {
        let id = &provider.id;
        if let Some(serial) = self.active.get(id).copied()
            && let Some(trunk) = self.by_serial.get_mut(&serial)
            && trunk.peer != peer
        {
            trunk.peer = peer;
            self.settle(serial, now);
        }
        if provider.registration.is_none() {
            return;
        }
        let Some(contact) = contact() else {
            return;
        };
        let rejoins = self.rejoin(id);
        let known = self.active.get(id).copied();
        let Some((serial, trunk)) = known.and_then(|s| Some((s, self.by_serial.get_mut(&s)?)))
        else {
            let account = Account::of(provider);
            let Some(mut trunk) = account.and_then(|a| Trunk::new(id, a, contact, now)) else {
                return;
            };
            trunk.peer = peer;
            self.last += 1;
            self.by_serial.insert(self.last, trunk);
            self.active.insert(id.clone(), self.last);
            return self.settle(self.last, now);
        };
        trunk.peer = peer;
        let same = !rejoins
            && trunk.account.is_of(provider)
            && trunk.registration.config().contact == contact;
        if !same && let Some(account) = Account::of(provider) {
            trunk.change(account, contact, now);
            self.settle(serial, now);
        }
    }

    /// A provider that is made again while it is being taken back goes on: its requests stay in order, so the last one counts.
    fn rejoin(&mut self, id: &ObjectRef) -> bool {
        if self.active.contains_key(id) {
            return false;
        }
        let Some((id, serial)) = self.leaving.remove_entry(id) else {
            return false;
        };
        if let Some(trunk) = self.by_serial.get_mut(&serial) {
            trunk.stay = Stay::Stays;
        }
        self.active.insert(id, serial);
        true
    }

    /// Puts a trunk into the lists that it belongs into by now. To be called after anything that changes one.
    fn settle(&mut self, serial: u64, now: Instant) {
        let Some(trunk) = self.by_serial.get_mut(&serial) else {
            return;
        };
        if trunk.stay != Stay::Stays && trunk.registration.is_done() {
            self.leaving.remove(&trunk.id);
            return self.remove(serial);
        }
        trunk.collect();
        let timer = trunk.timer();
        if timer != trunk.listed.timer {
            if let Some(before) = trunk.listed.timer {
                self.timers.remove(&(before, serial));
            }
            self.timers.extend(timer.map(|at| (at, serial)));
            trunk.listed.timer = timer;
        }
        let bound = trunk.bound();
        if bound != trunk.listed.bound {
            if let Some(before) = trunk.listed.bound {
                self.flows.release(before, serial);
            }
            if let Some(bound) = bound {
                self.flows.bind(bound, serial, now);
            }
            trunk.listed.bound = bound;
        }
        if trunk.stay == Stay::Stays && trunk.reported != Some(trunk.registration.version()) {
            self.changed.insert(serial);
        }
        let sends = trunk.stay == Stay::Leaves || trunk.unsent.is_some();
        if !sends || trunk.waits_for_name {
            return;
        }
        if trunk.registration.follows_up() && trunk.stay != Stay::Leaves {
            if !trunk.listed.answers {
                trunk.listed.answers = true;
                self.answers.push_back(serial);
            }
        } else if trunk.listed.turn.is_none() {
            let holds = trunk.registration.expires_in(now).is_some();
            let patience = if holds { Duration::ZERO } else { YIELDS };
            self.last += 1;
            let turn = (now + patience, self.last);
            self.turns.insert(turn, serial);
            trunk.listed.turn = Some(turn);
        }
    }

    fn remove(&mut self, serial: u64) {
        let Some(trunk) = self.by_serial.remove(&serial) else {
            return;
        };
        if let Some(at) = trunk.listed.timer {
            self.timers.remove(&(at, serial));
        }
        if let Some(turn) = trunk.listed.turn {
            self.turns.remove(&turn);
        }
        if let Some(bound) = trunk.listed.bound {
            self.flows.release(bound, serial);
        }
        self.changed.remove(&serial);
        give_back(&mut self.by_serial);
    }

    /// What was asked is known now, or could not be looked up.
    pub fn resolved(&mut self, question: &Question, now: Instant) {
        for serial in self.waiting.remove(question).unwrap_or_default() {
            if let Some(trunk) = self.by_serial.get_mut(&serial) {
                trunk.waits_for_name = false;
                self.settle(serial, now);
            }
        }
    }

    /// The requests that can be sent now. Call again after every event.
    pub fn poll_sends(&mut self, names: &Names, now: Instant) -> Vec<Send> {
        let mut sends = Vec::new();
        while let Some(serial) = self.answers.pop_front() {
            if let Some(trunk) = self.by_serial.get_mut(&serial) {
                trunk.listed.answers = false;
                sends.extend(self.send(serial, names, now));
            }
        }
        while let Some((_, serial)) = self.turns.first_key_value() {
            let serial = *serial;
            let pace = self.pace.get_or_insert_with(|| Bucket::full(BURST, now));
            if pace.ready_at(PACE) > now {
                break;
            }
            self.turns.pop_first();
            let Some(trunk) = self.by_serial.get_mut(&serial) else {
                continue;
            };
            trunk.listed.turn = None;
            if trunk.stay == Stay::Leaves {
                trunk.stay = Stay::Left;
                trunk.registration.unregister(now);
                trunk.collect();
            }
            if let Some(send) = self.send(serial, names, now) {
                sends.push(send);
                if let Some(pace) = &mut self.pace {
                    pace.take(PACE, BURST, now);
                }
            }
        }
        sends
    }

    /// What a trunk has to send, if it is known where to.
    fn send(&mut self, serial: u64, names: &Names, now: Instant) -> Option<Send> {
        let trunk = self.by_serial.get_mut(&serial)?;
        let send = match trunk.targets(names) {
            _ if trunk.unsent.is_none() => None,
            Ok(targets) => trunk.address(&targets, names, now),
            // Its name may be forgotten with it, but the binding is where the last request went.
            Err(_) if trunk.stay == Stay::Left && trunk.target.is_some() => {
                let targets: Vec<_> = trunk.target.into_iter().collect();
                trunk.address(&targets, names, now)
            }
            Err(Nowhere::Unknown(question)) => {
                trunk.waits_for_name = true;
                self.waiting.entry(question).or_default().push(serial);
                None
            }
            Err(Nowhere::Failed(error)) => {
                trunk.unsent = None;
                trunk.registration.on_unresolved(&error, now);
                None
            }
        };
        self.settle(serial, now);
        let (token, request, flow) = send?;
        Some(Send {
            key: (serial, token),
            request,
            flow,
        })
    }

    /// Remembers which transaction carries a request.
    pub fn sent(&mut self, client: ClientId, key: (u64, u64)) {
        self.clients.insert(client, key);
        if let Some(Trunk {
            patience: Some((_, waiting)),
            ..
        }) = self.by_serial.get_mut(&key.0)
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
        self.with_client(client, now, |trunk, token| {
            trunk.patience = None;
            // RFC 3263 section 4.3: 503 is the one response that means this server and not the carrier.
            if response.status == 503 && trunk.turn_to_another(token, names, now) {
                return;
            }
            trunk.registration.on_response(token, response, now);
        });
    }

    /// Tells a registration that its request was sent again.
    pub fn on_retransmitted(
        &mut self,
        client: ClientId,
        sends: u32,
        elapsed: Duration,
        now: Instant,
    ) {
        self.with_client(client, now, |trunk, token| {
            trunk.registration.on_retransmitted(token, sends, elapsed);
        });
    }

    /// Tells a registration that its request got no answer.
    pub fn on_failed(
        &mut self,
        client: ClientId,
        error: &ClientError,
        names: &mut Names,
        now: Instant,
    ) {
        self.with_client(client, now, |trunk, token| {
            if !trunk.turn_to_another(token, names, now) {
                trunk.registration.on_failed(token, error, now);
            }
        });
    }

    fn with_client(&mut self, client: ClientId, now: Instant, event: impl FnOnce(&mut Trunk, u64)) {
        let Some((serial, token)) = self.clients.get(&client).copied() else {
            return;
        };
        if let Some(trunk) = self.by_serial.get_mut(&serial) {
            event(trunk, token);
            self.settle(serial, now);
        }
    }

    /// A transaction has ended.
    pub fn client_ended(&mut self, client: ClientId) {
        self.clients.remove(&client);
        give_back(&mut self.clients);
    }

    /// A stream has closed.
    pub fn flow_lost(&mut self, flow: &Flow, now: Instant) {
        for serial in self.flows.lost(flow) {
            if let Some(trunk) = self.by_serial.get_mut(&serial) {
                trunk.registration.on_flow_lost(now);
                self.settle(serial, now);
            }
        }
    }

    /// Runs due timers. Gives the transactions that nobody waits for any more.
    pub fn handle_timeout(&mut self, names: &mut Names, now: Instant) -> Vec<ClientId> {
        let mut given_up = Vec::new();
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<u64> = due.map(|(_, serial)| *serial).collect();
        for serial in due {
            let Some(trunk) = self.by_serial.get_mut(&serial) else {
                continue;
            };
            if let Some((_, waiting)) = trunk.patience.take_if(|(until, _)| *until <= now)
                && let Some(token) = trunk.registration.waiting_for()
                && trunk.turn_to_another(token, names, now)
            {
                given_up.extend(waiting);
            }
            let timeout = trunk.registration.poll_timeout();
            if timeout.is_some_and(|at| at <= now) {
                trunk.registration.handle_timeout(now);
            }
            self.settle(serial, now);
        }
        given_up
    }

    /// When to call [`Self::handle_timeout`], [`Self::poll_sends`] and [`Self::due_keep_alives`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let pace = self.pace.filter(|_| !self.turns.is_empty());
        let turn = pace.map(|pace| pace.ready_at(PACE));
        [timer, turn, self.flows.next()].into_iter().flatten().min()
    }

    /// Whether every provider that is gone has been un-REGISTERed.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty()
    }

    /// Where keep-alives are due: flows of bindings, each in its turn.
    pub fn due_keep_alives(&mut self, now: Instant) -> Vec<Flow> {
        self.flows.due(now)
    }

    /// Reports that changed since the last call.
    pub fn poll_reports(
        &mut self,
        wall: jiff::Timestamp,
        now: Instant,
    ) -> Vec<(ObjectRef, RegistrationReport)> {
        let mut reports = Vec::new();
        for serial in std::mem::take(&mut self.changed) {
            if let Some(trunk) = self.by_serial.get_mut(&serial)
                && trunk.stay == Stay::Stays
            {
                trunk.reported = Some(trunk.registration.version());
                reports.push((trunk.id.clone(), report::report(trunk, wall, now)));
            }
        }
        reports
    }

    /// The providers that have a registration here.
    pub fn ids(&self) -> impl Iterator<Item = &ObjectRef> {
        self.active.keys()
    }
}

/// A header's value that lists what we accept.
pub const ALLOW: (HeaderName, &str) = (
    HeaderName::Allow,
    "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO, PRACK",
);
