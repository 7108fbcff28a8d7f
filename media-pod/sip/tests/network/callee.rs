//! The side that answers, sooner or later, and notes what it may never see.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use ringwire_sip::message::{Message, Method, Request, Response};
use ringwire_sip::transaction::{Endpoint, Event, Flow, ServerId};

use super::common::{Agenda, Key, Told, endpoint, flow, seconds};

enum CalleeTask {
    Answer(ServerId, u16),
    /// The 2xx once more, and how long after the last time.
    Again(ServerId, Duration),
}

/// Answers requests sooner or later, some with provisional responses before.
pub struct Callee {
    pub endpoint: Endpoint,
    flow: Flow,
    agenda: Agenda<CalleeTask>,
    requests: HashMap<ServerId, Request>,
    keys: HashMap<Key, ServerId>,
    pub ended: HashMap<ServerId, bool>,
    /// INVITEs that got a 2xx whose ACK hasn't come, by Call-ID.
    pub answered: HashMap<String, ServerId>,
    received: HashMap<Key, u64>,
    pub told: Told,
}

impl Callee {
    pub fn new(reliable: bool, rng: &mut StdRng) -> Self {
        Self {
            endpoint: endpoint(rng),
            flow: flow(reliable, "192.0.2.1:5060"),
            agenda: Agenda::new(),
            requests: HashMap::new(),
            keys: HashMap::new(),
            ended: HashMap::new(),
            answered: HashMap::new(),
            received: HashMap::new(),
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
        if let Message::Request(request) = &message {
            let branch = request.headers.via().unwrap().branch().unwrap().to_owned();
            let key = (branch, request.method.clone());
            let copies = self.received.entry(key).or_default();
            *copies += 1;
            self.told.absorbed += u64::from(*copies > 1);
        }
        self.endpoint.receive(message, self.flow.clone(), now);
    }

    pub fn handle_timeout(&mut self, now: Instant, rng: &mut StdRng) {
        while let Some(task) = self.agenda.due(now) {
            match task {
                CalleeTask::Answer(id, status) => self.answer(id, status, now, rng),
                CalleeTask::Again(id, interval) => self.again(id, interval, now),
            }
        }
        self.endpoint.handle_timeout(now);
    }

    fn response(&self, id: ServerId, status: u16) -> Response {
        let mut response = Response::to_request(&self.requests[&id], status, None);
        if status > 100 {
            response.set_to_tag("b");
        }
        response
    }

    fn answer(&mut self, id: ServerId, status: u16, now: Instant, rng: &mut StdRng) {
        let Some(request) = self.requests.get(&id).filter(|_| !self.ended[&id]) else {
            return;
        };
        let invite = request.method == Method::INVITE;
        let call = request.headers.call_id().unwrap().to_owned();
        let response = self.response(id, status);
        self.endpoint.respond(id, response, now);
        if (200..300).contains(&status) && invite && !self.answered.contains_key(&call) {
            self.answered.insert(call, id);
            let first = Duration::from_millis(500);
            self.agenda.at(now + first, CalleeTask::Again(id, first));
        }
        if status < 200 {
            let finals = [200, 200, 486, 603];
            let status = finals[rng.random_range(0..finals.len())];
            self.agenda
                .at(now + seconds(rng, 20.0), CalleeTask::Answer(id, status));
        }
    }

    fn again(&mut self, id: ServerId, interval: Duration, now: Instant) {
        if self.ended[&id] || !self.answered.values().any(|other| *other == id) {
            return;
        }
        let response = self.response(id, 200);
        self.endpoint.respond(id, response, now);
        let interval = (interval * 2).min(Duration::from_secs(4));
        self.agenda
            .at(now + interval, CalleeTask::Again(id, interval));
    }

    /// Nothing goes out for a transaction that has ended, but what needs none: 100 before it is told, 481 to a CANCEL.
    pub fn check_sent(&mut self, message: &Message) {
        let Message::Response(response) = message else {
            panic!("the callee asks nothing")
        };
        let (_, method) = response.headers.cseq().unwrap();
        let branch = response.headers.via().unwrap().branch().unwrap().to_owned();
        match self.keys.get(&(branch, method.clone())) {
            Some(id) => assert!(
                !self.ended[id] || response.status == 100,
                "sent after the end"
            ),
            None => assert!(response.status == 100 || method == Method::CANCEL),
        }
    }

    pub fn on_event(&mut self, event: Event, now: Instant, rng: &mut StdRng) {
        match event {
            Event::Request { id, request, .. } => {
                let branch = request.headers.via().unwrap().branch().unwrap().to_owned();
                let key = (branch, request.method.clone());
                if let Some(before) = self.keys.insert(key, id) {
                    // One that was under way for longer than the transaction lasted.
                    assert!(self.ended[&before], "a retransmission was told");
                }
                self.requests.insert(id, request);
                self.ended.insert(id, false);
                let statuses = [180, 183, 200, 404];
                let status = statuses[rng.random_range(0..statuses.len())];
                let most = if rng.random_ratio(1, 10) { 60.0 } else { 3.0 };
                self.agenda
                    .at(now + seconds(rng, most), CalleeTask::Answer(id, status));
            }
            Event::Cancelled { id, .. } => {
                assert!(!self.ended[&id], "cancelled after its end");
                let response = self.response(id, 487);
                self.endpoint.respond(id, response, now);
            }
            Event::Ack { request, .. } => {
                let call = request.headers.call_id().unwrap();
                self.told.acknowledged += u64::from(self.answered.remove(call).is_some());
            }
            Event::AckTimeout { id } => {
                assert!(!self.ended[&id]);
                self.told.ack_timeouts += 1;
            }
            Event::Ended { id } => {
                let ended = self.ended.insert(id, true);
                assert_eq!(ended, Some(false), "ended twice");
            }
            other => panic!("the callee gets no responses: {other:?}"),
        }
    }
}
