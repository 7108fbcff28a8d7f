//! The endpoint: finds the transaction that a message belongs to and carries out what it decides.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::client::{self, Cancel, Client, Verdict};
use super::key;
use super::server::{self, Reply, Server};
use super::types::{
    ClientError, ClientId, Counts, EndpointConfig, Event, Flow, ServerId, Transmit, Transport,
    TransportError,
};
use crate::message::{BRANCH_MAGIC, HeaderName, Host, Message, Method, Request, Response, Via};

/// How long an INVITE may wait for its first response before 100 goes (RFC 3261 section 17.2.1).
const TRYING_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Id {
    Client(ClientId),
    Server(ServerId),
}

/// All transactions of one SIP element.
pub struct Endpoint {
    config: EndpointConfig,
    rng: StdRng,
    next_id: u64,
    clients: HashMap<ClientId, Client>,
    client_keys: HashMap<String, ClientId>,
    waiting_cancels: usize,
    servers: HashMap<ServerId, Server>,
    server_keys: HashMap<String, ServerId>,
    merge_keys: HashMap<String, ServerId>,
    refused: u64,
    deadlines: BTreeSet<(Instant, Id)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// An endpoint without transactions. The seed should be unpredictable: branches are made from it.
    pub fn new(config: EndpointConfig, seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            next_id: 0,
            clients: HashMap::new(),
            client_keys: HashMap::new(),
            waiting_cancels: 0,
            servers: HashMap::new(),
            server_keys: HashMap::new(),
            merge_keys: HashMap::new(),
            refused: 0,
            deadlines: BTreeSet::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a message that arrived on `flow`.
    pub fn receive(&mut self, message: Message, flow: Flow, now: Instant) {
        match message {
            Message::Response(response) => self.on_response(response, flow, now),
            Message::Request(mut request) => {
                let reply = Reply::to(&request, &flow);
                request.headers.note_source(flow.remote);
                match &request.method {
                    method if *method == Method::ACK => self.on_ack(request, flow, now),
                    method if *method == Method::CANCEL => self.on_cancel(request, reply, now),
                    _ => self.on_request(request, flow, reply, now),
                }
            }
        }
    }

    /// Sends a request in a new transaction. Our `Via` is added on top, with a fresh branch.
    pub fn request(
        &mut self,
        mut request: Request,
        flow: Flow,
        via_host: &Host,
        via_port: u16,
        now: Instant,
    ) -> ClientId {
        let id = ClientId(self.id());
        let branch = self.branch(id.0);
        // As Via would print it, in one piece. Writing to a String can't fail.
        let mut via = String::with_capacity(branch.len() + 80);
        let _ = write!(
            via,
            "SIP/2.0/{} {via_host}:{via_port};branch={branch};rport",
            flow.transport
        );
        if flow.transport == Transport::Tls {
            // RFC 5923 section 5: requests to us may come over the same connection.
            via.push_str(";alias");
        }
        request.headers.insert_first(HeaderName::Via, via);
        let key = key::client(&branch, &request.method);
        self.start_client(id, key, request, flow, now);
        id
    }

    /// Sends a message without a transaction: the ACK for a 2xx, or a forwarded response. Its `Via`s are the
    /// caller's business, see [`Self::new_via`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the message is gone: nothing is repeated"
    )]
    pub fn send_stateless(&mut self, message: Message, flow: Flow) {
        self.transmits.push_back(Transmit {
            flow,
            bytes: message.to_bytes(),
            otherwise: None,
        });
    }

    /// A `Via` of ours with a fresh branch, for [`Self::send_stateless`].
    pub fn new_via(&mut self, transport: Transport, via_host: &Host, via_port: u16) -> Via {
        let id = self.id();
        let branch = self.branch(id);
        let mut via = Via::new(
            transport.as_str(),
            via_host.clone(),
            Some(via_port),
            &branch,
        );
        via.request_rport();
        if transport == Transport::Tls {
            // RFC 5923 section 5: requests to us may come over the same connection.
            via.params.set("alias", None);
        }
        via
    }

    /// Cancels a pending INVITE of ours. The CANCEL goes out as soon as a provisional response has come; if a final
    /// one comes first it never does. Either way the returned transaction ends with [`Event::ClientEnded`]. `None`
    /// when there is nothing to cancel, or it is cancelled already. `reason` is a `Reason` header value.
    pub fn cancel(&mut self, id: ClientId, reason: Option<&str>, now: Instant) -> Option<ClientId> {
        let cancel = ClientId(self.next_id + 1);
        let client = self.clients.get_mut(&id)?;
        if !client.is_invite() || !client.is_pending() || !matches!(client.cancel, Cancel::None) {
            return None;
        }
        self.next_id += 1;
        client.cancel = Cancel::Asked {
            id: cancel,
            reason: reason.map(str::to_owned),
        };
        self.waiting_cancels += 1;
        if client.state == client::State::Proceeding {
            self.send_cancel(id, now);
        }
        Some(cancel)
    }

    /// Sends a response. What the state of the transaction doesn't allow (a second final response) is ignored; a 2xx
    /// to an INVITE may be sent again until the transaction has ended.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the response is given away: repeats are the endpoint's"
    )]
    pub fn respond(&mut self, id: ServerId, response: Response, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let before = server.deadline();
        // Some clients answer a challenge with the same CSeq.
        if matches!(response.status, 401 | 407)
            && let Some(key) = server.merge_key.take()
            && self.merge_keys.get(&key) == Some(&id)
        {
            self.merge_keys.remove(&key);
        }
        let bytes = response.to_bytes();
        if server.respond(response.status, &bytes, now, &self.config) {
            if response.status > 100 {
                let tag = response.headers.callee_tag().ok().flatten();
                server.to_tag = tag.map(Cow::into_owned);
            }
            self.transmits.push_back(server.reply.transmit(bytes));
        }
        self.server_changed(id, before, now);
    }

    /// Runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, id));
            match id {
                Id::Client(id) => self.client_timeout(id, now),
                Id::Server(id) => self.server_timeout(id, now),
            }
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        pop(&mut self.transmits)
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        pop(&mut self.events)
    }

    /// A flow can't carry messages: pending requests of ours on it fail. Server transactions run on, for a peer may
    /// come back on another connection.
    #[expect(clippy::needless_pass_by_value, reason = "an error is told once")]
    pub fn flow_failed(&mut self, flow: &Flow, error: TransportError, _now: Instant) {
        let mut failed: Vec<ClientId> = self
            .clients
            .iter()
            .filter(|(_, client)| client.flow == *flow && client.is_pending())
            // An ICMP error after a response was heard is about something else, or is forged.
            .filter(|(_, client)| {
                flow.transport.is_reliable() || client.state == client::State::Waiting
            })
            .map(|(id, _)| *id)
            .collect();
        failed.sort_unstable();
        for id in failed {
            self.fail_client(id, ClientError::Transport(error.clone()));
        }
    }

    /// Forgets a request of ours: its responses are stray from now on. For an INVITE that is pending, prefer
    /// [`Self::cancel`].
    pub fn abandon_client(&mut self, id: ClientId) {
        self.remove_client(id);
    }

    /// How many transactions there are.
    pub fn counts(&self) -> Counts {
        Counts {
            client: self.clients.len() + self.waiting_cancels,
            server: self.servers.len(),
            refused: self.refused,
        }
    }

    /// Whether this request outside a dialog is a copy of one that is being handled, come over another path
    /// (RFC 3261 section 8.2.2.2): a user agent answers it with 482.
    pub fn is_merged(&self, id: ServerId) -> bool {
        let merge_key = self
            .servers
            .get(&id)
            .and_then(|server| server.merge_key.as_ref());
        merge_key
            .and_then(|key| self.merge_keys.get(key))
            .is_some_and(|first| *first != id)
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A branch that no one can guess, and no one has made before.
    fn branch(&mut self, id: u64) -> String {
        let prefix = &self.config.branch_prefix;
        let mut branch = String::with_capacity(BRANCH_MAGIC.len() + prefix.len() + 32);
        let random = self.rng.random::<u64>();
        // Writing to a String can't fail.
        let _ = write!(branch, "{BRANCH_MAGIC}{prefix}{random:016x}{id:x}");
        branch
    }

    fn start_client(
        &mut self,
        id: ClientId,
        key: String,
        request: Request,
        flow: Flow,
        now: Instant,
    ) {
        let bytes = request.to_bytes();
        self.transmits.push_back(Transmit {
            flow: flow.clone(),
            bytes: bytes.clone(),
            otherwise: None,
        });
        let client = Client::new(key.clone(), request, bytes, flow, now, &self.config);
        self.client_keys.insert(key, id);
        self.clients.insert(id, client);
        self.client_changed(id, None, now);
    }

    fn on_response(&mut self, response: Response, flow: Flow, now: Instant) {
        let found = response
            .headers
            .via_parts()
            .ok()
            .zip(response.headers.cseq().ok())
            .and_then(|(via, (_, method))| via.branch().map(|branch| key::client(&branch, &method)))
            .and_then(|key| self.client_keys.get(&key).copied());
        let Some((id, client)) = found.and_then(|id| Some((id, self.clients.get_mut(&id)?))) else {
            self.events
                .push_back(Event::StrayResponse { response, flow });
            return;
        };
        let before = client.deadline();
        match client.on_response(response.status, now, &self.config) {
            Verdict::Deliver => self
                .events
                .push_back(Event::Response { id, response, flow }),
            Verdict::DeliverAndAck => {
                let ack = client.ack(response.headers.get(&HeaderName::To)).to_bytes();
                self.transmits.push_back(Transmit {
                    flow: client.flow.clone(),
                    bytes: ack.clone(),
                    otherwise: None,
                });
                client.bytes = ack;
                self.events
                    .push_back(Event::Response { id, response, flow });
            }
            Verdict::RepeatAck => {
                self.transmits.push_back(Transmit {
                    flow: client.flow.clone(),
                    bytes: client.bytes.clone(),
                    otherwise: None,
                });
            }
            Verdict::Absorb => {}
        }
        match client.state {
            client::State::Proceeding if matches!(client.cancel, Cancel::Asked { .. }) => {
                self.send_cancel(id, now);
            }
            client::State::Completed | client::State::Accepted => self.drop_waiting_cancel(id),
            _ => {}
        }
        self.client_changed(id, before, now);
    }

    fn send_cancel(&mut self, id: ClientId, now: Instant) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let Cancel::Asked {
            id: cancel_id,
            reason,
        } = std::mem::replace(&mut client.cancel, Cancel::Sent)
        else {
            return;
        };
        let before = client.deadline();
        let request = client.cancel_request(reason.as_deref());
        let flow = client.flow.clone();
        let branch = request
            .headers
            .via_parts()
            .ok()
            .and_then(|via| via.branch().map(Cow::into_owned))
            .unwrap_or_default();
        client.cancel_sent(now, &self.config);
        self.waiting_cancels -= 1;
        self.client_changed(id, before, now);
        self.start_client(
            cancel_id,
            key::client(&branch, &Method::CANCEL),
            request,
            flow,
            now,
        );
    }

    fn drop_waiting_cancel(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if let Cancel::Asked { id: cancel_id, .. } = client.cancel {
            client.cancel = Cancel::Sent;
            self.waiting_cancels -= 1;
            self.events.push_back(Event::ClientEnded { id: cancel_id });
        }
    }

    fn on_request(&mut self, request: Request, flow: Flow, reply: Reply, now: Instant) {
        // Without these there is nothing to answer to; the parser refuses such requests before.
        let Some(key) = key::server(&request, &request.method) else {
            return;
        };
        if let Some(server) = self
            .server_keys
            .get(&key)
            .and_then(|id| self.servers.get(id))
        {
            if let Some(bytes) = server.repeat() {
                self.transmits
                    .push_back(server.reply.transmit(bytes.to_vec()));
            }
            return;
        }
        let in_dialog = request.headers.callee_tag().is_ok_and(|tag| tag.is_some());
        let most = self.config.max_transactions;
        if self.servers.len() >= if in_dialog { most + most / 4 } else { most } {
            self.refused += 1;
            self.refuse(&request, &key, 503, reply);
            return;
        }
        let id = ServerId(self.id());
        let invite = request.method == Method::INVITE;
        let mut server = Server::new(key.clone(), invite, false, reply);
        if let Some(merge_key) = key::merge(&request.headers, &request.method) {
            self.merge_keys.entry(merge_key.clone()).or_insert(id);
            server.merge_key = Some(merge_key);
        }
        let trying = invite.then(|| Response::to_request(&request, 100, None));
        if let Some(trying) = trying.as_ref().filter(|_| !self.config.trying_at_once) {
            server.trying_later(trying.to_bytes(), now + TRYING_AFTER);
        }
        self.server_keys.insert(key, id);
        self.servers.insert(id, server);
        self.server_changed(id, None, now);
        if let Some(trying) = trying.filter(|_| self.config.trying_at_once) {
            self.respond(id, trying, now);
        }
        self.events.push_back(Event::Request { id, request, flow });
    }

    /// Refuses without a transaction: the same request always gets the same answer.
    fn refuse(&mut self, request: &Request, key: &str, status: u16, reply: Reply) {
        let mut response = Response::to_request(request, status, None);
        response.set_to_tag(&stateless_tag(key));
        if status == 503 {
            response.headers.push(HeaderName::RetryAfter, "5");
        }
        self.send_stateless(Message::Response(response), reply.flow);
    }

    fn on_ack(&mut self, request: Request, flow: Flow, now: Instant) {
        let id = key::server(&request, &Method::INVITE)
            .and_then(|key| self.server_keys.get(&key).copied());
        let Some((id, server)) = id.and_then(|id| Some((id, self.servers.get_mut(&id)?))) else {
            self.events.push_back(Event::Ack { request, flow });
            return;
        };
        let before = server.deadline();
        // Some send the ACK for a 2xx with the INVITE's branch, against RFC 3261 section 17.1.1.3.
        if server.on_ack(now, &self.config) {
            self.events.push_back(Event::Ack { request, flow });
        }
        self.server_changed(id, before, now);
    }

    fn on_cancel(&mut self, request: Request, reply: Reply, now: Instant) {
        let Some(own_key) = key::server(&request, &Method::CANCEL) else {
            return;
        };
        if let Some(server) = self
            .server_keys
            .get(&own_key)
            .and_then(|id| self.servers.get(id))
        {
            if let Some(bytes) = server.repeat() {
                self.transmits
                    .push_back(server.reply.transmit(bytes.to_vec()));
            }
            return;
        }
        let invite = key::server(&request, &Method::INVITE)
            .and_then(|key| self.server_keys.get(&key).copied());
        let Some((invite, server)) = invite.and_then(|id| Some((id, self.servers.get_mut(&id)?)))
        else {
            self.refuse(&request, &own_key, 481, reply);
            return;
        };
        // There is at most one CANCEL for an INVITE, so this needs no bound of its own.
        let tag = server
            .to_tag
            .clone()
            .unwrap_or_else(|| stateless_tag(&server.key));
        let pending = server.state == server::State::Proceeding;
        let mut response = Response::to_request(&request, 200, None);
        response.set_to_tag(&tag);
        let id = ServerId(self.id());
        self.server_keys.insert(own_key.clone(), id);
        self.servers
            .insert(id, Server::new(own_key, false, true, reply));
        self.respond(id, response, now);
        if pending {
            self.events.push_back(Event::Cancelled {
                id: invite,
                request,
            });
        }
    }

    fn client_timeout(&mut self, id: ClientId, now: Instant) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match client.on_timeout(now, &self.config) {
            client::Expired::Resend => {
                self.transmits.push_back(Transmit {
                    flow: client.flow.clone(),
                    bytes: client.bytes.clone(),
                    otherwise: None,
                });
                let elapsed = now.saturating_duration_since(client.started);
                self.events.push_back(Event::Retransmitted {
                    id,
                    sends: client.sends,
                    elapsed,
                });
            }
            client::Expired::Failed => return self.fail_client(id, ClientError::Timeout),
            client::Expired::Ended => return self.remove_client(id),
            client::Expired::Nothing => {}
        }
        self.client_changed(id, None, now);
    }

    fn server_timeout(&mut self, id: ServerId, now: Instant) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        match server.on_timeout(now, &self.config) {
            server::Expired::Send => {
                self.transmits
                    .push_back(server.reply.transmit(server.bytes.clone()));
            }
            server::Expired::NoAck => {
                self.events.push_back(Event::AckTimeout { id });
                return self.remove_server(id);
            }
            server::Expired::Ended => return self.remove_server(id),
            server::Expired::Nothing => {}
        }
        self.server_changed(id, None, now);
    }

    /// Puts the new deadline in place of the old one; one that has passed already means that the timer is zero.
    fn client_changed(&mut self, id: ClientId, before: Option<Instant>, now: Instant) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let after = client.deadline();
        if let Some(before) = before.filter(|before| Some(*before) != after) {
            self.deadlines.remove(&(before, Id::Client(id)));
        }
        let Some(after) = after else { return };
        if after <= now && !client.is_pending() {
            self.remove_client(id);
        } else {
            self.deadlines.insert((after, Id::Client(id)));
        }
    }

    fn server_changed(&mut self, id: ServerId, before: Option<Instant>, now: Instant) {
        let Some(server) = self.servers.get(&id) else {
            return;
        };
        let after = server.deadline();
        if let Some(before) = before.filter(|before| Some(*before) != after) {
            self.deadlines.remove(&(before, Id::Server(id)));
        }
        let Some(after) = after else { return };
        let zero = matches!(server.state, server::State::Confirmed) || !server.invite;
        if after <= now && zero && server.state != server::State::Proceeding {
            self.remove_server(id);
        } else {
            self.deadlines.insert((after, Id::Server(id)));
        }
    }

    fn fail_client(&mut self, id: ClientId, error: ClientError) {
        self.drop_waiting_cancel(id);
        self.events.push_back(Event::Failed { id, error });
        self.remove_client(id);
    }

    fn remove_client(&mut self, id: ClientId) {
        self.drop_waiting_cancel(id);
        if let Some(client) = self.clients.remove(&id) {
            self.client_keys.remove(&client.key);
            if let Some(deadline) = client.deadline() {
                self.deadlines.remove(&(deadline, Id::Client(id)));
            }
            self.events.push_back(Event::ClientEnded { id });
        }
        give_back(&mut self.clients);
        give_back(&mut self.client_keys);
    }

    fn remove_server(&mut self, id: ServerId) {
        if let Some(server) = self.servers.remove(&id) {
            self.server_keys.remove(&server.key);
            if let Some(key) = server
                .merge_key
                .as_ref()
                .filter(|key| self.merge_keys.get(*key) == Some(&id))
            {
                self.merge_keys.remove(key);
            }
            if let Some(deadline) = server.deadline() {
                self.deadlines.remove(&(deadline, Id::Server(id)));
            }
            if !server.internal {
                self.events.push_back(Event::Ended { id });
            }
        }
        give_back(&mut self.servers);
        give_back(&mut self.server_keys);
        give_back(&mut self.merge_keys);
    }
}

/// Tables and queues up to this many entries keep their room.
const KEPT: usize = 512;

/// The next of a queue; one that is empty gives the room of a rush back.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front();
    if next.is_none() && queue.capacity() > KEPT {
        queue.shrink_to(KEPT);
    }
    next
}

/// Gives the room of a table back once a rush is over; by itself it would keep that of its busiest moment. To be called after entries
/// were removed.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.capacity() > KEPT && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    }
}

fn stateless_tag(key: &str) -> String {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let mut tag = String::new();
    // Writing to a string does not fail.
    let _ = write!(tag, "{:016x}", hasher.finish());
    tag
}
