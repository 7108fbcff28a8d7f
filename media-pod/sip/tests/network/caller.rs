//! The side that asks: it decides at random what its endpoint leaves to it, and notes what it may never see.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use rand::Rng;
use rand::rngs::StdRng;
use ringwire_sip::message::{
    HeaderName, Host, Message, Method, Request, Response, Uri, Via, parse_datagram,
};
use ringwire_sip::transaction::{ClientId, Counts, Endpoint, Event, Flow, Transmit};

use super::callee::Callee;
use super::common::{Agenda, Key, Told, endpoint, flow, seconds};

/// A request of the caller's.
struct Sent {
    key: Key,
    sends: u32,
    finals: u32,
    failed: bool,
    ended: bool,
    cancelled: bool,
}

enum CallerTask {
    Send(Method),
    Cancel(ClientId),
}

/// Sends requests, cancels some, acknowledges what is answered, and hangs up.
pub struct Caller {
    pub endpoint: Endpoint,
    flow: Flow,
    agenda: Agenda<CallerTask>,
    sent: HashMap<ClientId, Sent>,
    keys: HashMap<Key, ClientId>,
    outbox: VecDeque<Transmit>,
    cseq: u32,
    told: Told,
}

impl Caller {
    /// With one to three requests to send.
    pub fn new(reliable: bool, now: Instant, rng: &mut StdRng) -> Self {
        let mut agenda = Agenda::new();
        for _ in 0..rng.random_range(1..=3) {
            let methods = [
                Method::INVITE,
                Method::INVITE,
                Method::OPTIONS,
                Method::INFO,
            ];
            let method = methods[rng.random_range(0..methods.len())].clone();
            agenda.at(now + seconds(rng, 2.0), CallerTask::Send(method));
        }
        Self {
            endpoint: endpoint(rng),
            flow: flow(reliable, "192.0.2.2:5060"),
            agenda,
            sent: HashMap::new(),
            keys: HashMap::new(),
            outbox: VecDeque::new(),
            cseq: 0,
            told: Told::default(),
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.agenda.next(), self.endpoint.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub fn receive(&mut self, message: Message, now: Instant) {
        self.endpoint.receive(message, self.flow.clone(), now);
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let before = self.outbox.pop_front();
        before.or_else(|| self.endpoint.poll_transmit())
    }

    pub fn handle_timeout(&mut self, now: Instant, rng: &mut StdRng) {
        while let Some(task) = self.agenda.due(now) {
            match task {
                CallerTask::Send(method) => self.send(&method, now, rng),
                CallerTask::Cancel(id) => self.cancel(id, now),
            }
        }
        self.endpoint.handle_timeout(now);
    }

    fn send(&mut self, method: &Method, now: Instant, rng: &mut StdRng) {
        self.cseq += 1;
        let mut request = Request::new(method.clone(), Uri::parse("sip:bob@192.0.2.2").unwrap());
        let headers = &mut request.headers;
        headers.push(HeaderName::MaxForwards, "70");
        headers.push(HeaderName::From, "<sip:alice@192.0.2.1>;tag=a");
        headers.push(HeaderName::To, "<sip:bob@192.0.2.2>");
        headers.push(HeaderName::CallId, format!("call-{}", self.cseq));
        headers.push(HeaderName::CSeq, format!("{} {method}", self.cseq));
        let host = Host::from("192.0.2.1");
        let id = self
            .endpoint
            .request(request, self.flow.clone(), &host, 5060, now);
        while let Some(transmit) = self.endpoint.poll_transmit() {
            self.outbox.push_back(transmit);
        }
        // The last one is the request: its branch is known from there only.
        let Ok(Message::Request(request)) = parse_datagram(&self.outbox.back().unwrap().bytes)
        else {
            panic!("no request")
        };
        self.note(id, &request.headers.via().unwrap(), method.clone());
        if *method == Method::INVITE {
            // No one rings forever: the latest CANCEL is what timer C is to a proxy.
            let often = rng.random_ratio(1, 2);
            let at = now + seconds(rng, if often { 8.0 } else { 200.0 });
            self.agenda.at(at, CallerTask::Cancel(id));
        }
    }

    fn note(&mut self, id: ClientId, via: &Via, method: Method) {
        let key = (via.branch().unwrap().to_owned(), method);
        assert_eq!(self.keys.insert(key.clone(), id), None, "a branch twice");
        let sent = Sent {
            key,
            sends: 0,
            finals: 0,
            failed: false,
            ended: false,
            cancelled: false,
        };
        self.sent.insert(id, sent);
    }

    fn cancel(&mut self, id: ClientId, now: Instant) {
        let Some(cancel) = self.endpoint.cancel(id, None, now) else {
            return;
        };
        let sent = self.sent.get_mut(&id).unwrap();
        assert!(sent.finals == 0 && !sent.ended, "cancelled after its end");
        sent.cancelled = true;
        self.told.cancelled += 1;
        let key = (sent.key.0.clone(), Method::CANCEL);
        self.keys.insert(key.clone(), cancel);
        let sent = Sent {
            key,
            sends: 0,
            finals: 0,
            failed: false,
            ended: false,
            cancelled: false,
        };
        self.sent.insert(cancel, sent);
    }

    /// Nothing goes out under the branch of a transaction that has ended, or more often than the timers allow.
    pub fn check_sent(&mut self, message: &Message) {
        let Message::Request(request) = message else {
            panic!("the caller answers nothing")
        };
        let branch = request.headers.via().unwrap().branch().unwrap().to_owned();
        if request.method == Method::ACK {
            // That of a 2xx has a branch of its own.
            if let Some(id) = self.keys.get(&(branch, Method::INVITE)) {
                assert!(!self.sent[id].ended, "an ACK after the end");
            }
            return;
        }
        let most = if request.method == Method::INVITE {
            7
        } else {
            11
        };
        let id = self.keys[&(branch, request.method.clone())];
        let sent = self.sent.get_mut(&id).unwrap();
        sent.sends += 1;
        assert!(!sent.ended && sent.finals == 0, "sent again after its end");
        assert!(sent.sends <= most, "sent too often");
    }

    pub fn on_event(&mut self, event: Event, now: Instant, rng: &mut StdRng) {
        match event {
            Event::Response { id, response, .. } => self.on_response(id, &response, now, rng),
            Event::Failed { id, .. } => {
                let sent = self.sent.get_mut(&id).unwrap();
                assert!(!sent.ended && !sent.failed && sent.finals == 0);
                sent.failed = true;
                self.told.failed += 1;
            }
            Event::ClientEnded { id } => {
                let sent = self.sent.get_mut(&id).unwrap();
                assert!(!sent.ended, "ended twice");
                sent.ended = true;
                // A CANCEL that the answer overtook is never sent.
                let unsent = sent.key.1 == Method::CANCEL && sent.sends == 0;
                assert!(
                    sent.finals > 0 || sent.failed || unsent,
                    "it ends with an outcome"
                );
            }
            Event::Retransmitted { id, .. } => assert!(!self.sent[&id].ended),
            // Late for a transaction that is over.
            Event::StrayResponse { .. } => {}
            other => panic!("the caller gets no requests: {other:?}"),
        }
    }

    fn on_response(&mut self, id: ClientId, response: &Response, now: Instant, rng: &mut StdRng) {
        let sent = self.sent.get_mut(&id).unwrap();
        assert!(!sent.ended && !sent.failed, "a response after the end");
        if response.is_provisional() {
            assert_eq!(sent.finals, 0, "a provisional response after the final one");
            return;
        }
        sent.finals += 1;
        let first = sent.finals == 1;
        let invite = sent.key.1 == Method::INVITE;
        assert!(
            first || (invite && response.is_success()),
            "a final response twice"
        );
        if !response.is_success() {
            self.told.refused += 1;
            return;
        }
        if first {
            self.told.answered += 1;
            self.told.crossed += u64::from(sent.cancelled);
        }
        if !invite {
            return;
        }
        let mut ack = Request::new(Method::ACK, Uri::parse("sip:bob@192.0.2.2").unwrap());
        let host = Host::from("192.0.2.1");
        let via = self.endpoint.new_via(self.flow.transport, &host, 5060);
        ack.headers.push(HeaderName::Via, via.to_string());
        for name in [HeaderName::From, HeaderName::To, HeaderName::CallId] {
            ack.headers
                .push(name.clone(), response.headers.get(&name).unwrap());
        }
        let (number, _) = response.headers.cseq().unwrap();
        ack.headers.push(HeaderName::CSeq, format!("{number} ACK"));
        self.endpoint.send_stateless(ack.into(), self.flow.clone());
        if first {
            self.agenda
                .at(now + seconds(rng, 5.0), CallerTask::Send(Method::BYE));
        }
    }

    /// Everything is quiet: nothing may be left on either side.
    pub fn finish(mut self, mut callee: Callee) -> Told {
        for (side, endpoint) in [("caller", &self.endpoint), ("callee", &callee.endpoint)] {
            assert_eq!(endpoint.counts(), Counts::default(), "left at the {side}");
            assert_eq!(endpoint.poll_timeout(), None);
        }
        for sent in self.sent.values() {
            assert!(sent.ended, "{:?} never ended", sent.key);
        }
        assert!(
            callee.ended.values().all(|ended| *ended),
            "a request never ended"
        );
        self.told.unacknowledged = callee.answered.len() as u64;
        self.told.add(std::mem::take(&mut callee.told));
        self.told
    }
}
