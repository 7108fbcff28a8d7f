//! A caller and a callee of ours, face to face: nothing between them but a clock that we move.

mod offers;
mod reliable;
mod timers;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::testing::{uac_params, uas_params};
use super::{Action, CallEvent, EndedBy, RespondTo};
use crate::message::{HeaderName, Message, Method, Request, Response};
use crate::transaction::ServerId;
use crate::uac::{UacCall, UacParams};
use crate::uas::{UasCall, UasParams};

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Caller,
    Callee,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// A message that went over, with the second at which it did.
pub(super) struct Sent {
    pub at: u64,
    pub by: Side,
    pub message: Message,
}

impl Sent {
    pub fn request(&self) -> Option<&Request> {
        match &self.message {
            Message::Request(request) => Some(request),
            Message::Response(_) => None,
        }
    }
}

type Change = Box<dyn FnMut(Side, &mut Message)>;

pub(super) struct Pair {
    pub caller: UacCall,
    pub callee: Option<UasCall>,
    pub start: Instant,
    pub now: Instant,
    pub sent: Vec<Sent>,
    pub events: Vec<(Side, CallEvent)>,
    /// From here on nothing arrives.
    pub cut: bool,
    /// The callee answers by itself.
    pub answers: bool,
    uas: UasParams,
    change: Change,
    invite_token: u64,
    next_id: u64,
    pending: BTreeMap<u64, (Side, u64)>,
    failures: Vec<(Instant, Side, u64)>,
}

impl Pair {
    /// A call that is set up at once; `change` sees each message on its way and may alter it.
    pub fn new(
        uac: UacParams,
        uas: UasParams,
        change: impl FnMut(Side, &mut Message) + 'static,
    ) -> Self {
        Self::begin(uac, uas, true, change)
    }

    /// A call that the callee answers by itself, or not.
    pub fn begin(
        uac: UacParams,
        uas: UasParams,
        answers: bool,
        change: impl FnMut(Side, &mut Message) + 'static,
    ) -> Self {
        let start = Instant::now();
        let mut pair = Self {
            caller: UacCall::new(uac, start),
            callee: None,
            start,
            now: start,
            sent: Vec::new(),
            events: Vec::new(),
            cut: false,
            answers,
            uas,
            change: Box::new(change),
            invite_token: 0,
            next_id: 0,
            pending: BTreeMap::new(),
            failures: Vec::new(),
        };
        pair.settle();
        pair
    }

    pub fn with(change: impl FnMut(Side, &mut Message) + 'static) -> Self {
        Self::new(uac_params(), uas_params(), change)
    }

    /// Lets the callee do something.
    pub fn callee(&mut self, act: impl FnOnce(&mut UasCall, Instant)) {
        act(self.callee.as_mut().expect("a callee"), self.now);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(action) = self.caller.poll_action() {
                quiet = false;
                self.carry(Side::Caller, action);
            }
            while let Some(action) = self.callee.as_mut().and_then(UasCall::poll_action) {
                quiet = false;
                self.carry(Side::Callee, action);
            }
            while let Some(event) = self.caller.poll_event() {
                self.events.push((Side::Caller, event));
            }
            while let Some(event) = self.callee.as_mut().and_then(UasCall::poll_event) {
                self.events.push((Side::Callee, event));
            }
            if quiet {
                return;
            }
        }
    }

    /// A message on its way; nothing if it is lost.
    fn pass(&mut self, by: Side, mut message: Message) -> Option<Message> {
        (self.change)(by, &mut message);
        self.sent.push(Sent {
            at: self.now.duration_since(self.start).as_secs(),
            by,
            message: message.clone(),
        });
        (!self.cut).then_some(message)
    }

    fn carry(&mut self, by: Side, action: Action) {
        match action {
            Action::Request { token, request } => {
                let Some(Message::Request(request)) = self.pass(by, request.into()) else {
                    self.failures
                        .push((self.now + Duration::from_secs(32), by, token));
                    return;
                };
                self.next_id += 1;
                self.pending.insert(self.next_id, (by, token));
                let id = ServerId::for_test(self.next_id);
                match by {
                    Side::Callee => self.caller.on_request(id, &request, self.now),
                    Side::Caller => match &mut self.callee {
                        Some(callee) => callee.on_request(id, &request, self.now),
                        None => self.invited(token, request),
                    },
                }
            }
            Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                let Some(Message::Response(response)) = self.pass(by, response.into()) else {
                    return;
                };
                self.respond(by, to, &response);
            }
            Action::Ack { request } => {
                if let Some(Message::Request(request)) = self.pass(by, request.into()) {
                    match by {
                        Side::Callee => self.caller.on_ack(&request, self.now),
                        Side::Caller => {
                            if let Some(callee) = &mut self.callee {
                                callee.on_ack(&request, self.now);
                            }
                        }
                    }
                }
            }
            Action::Cancel { .. } => {
                if let Some(callee) = &mut self.callee {
                    callee.on_cancel(None, self.now);
                }
            }
        }
    }

    fn invited(&mut self, token: u64, request: Request) {
        self.invite_token = token;
        match UasCall::new(request, self.uas.clone(), self.now) {
            Ok(mut callee) => {
                if self.answers {
                    callee.accept(self.now);
                }
                self.callee = Some(callee);
            }
            Err(response) => {
                if let Some(Message::Response(response)) = self.pass(Side::Callee, response.into())
                {
                    self.caller.on_response(token, &response, self.now);
                }
            }
        }
    }

    fn respond(&mut self, by: Side, to: RespondTo, response: &Response) {
        let token = match to {
            RespondTo::Invite => self.invite_token,
            RespondTo::Request(id) => {
                let found = self
                    .pending
                    .iter()
                    .find(|(number, _)| ServerId::for_test(**number) == id);
                let (_, (side, token)) = found.expect("a request to respond to");
                assert_eq!(*side, by.other());
                *token
            }
        };
        match by {
            Side::Callee => self.caller.on_response(token, response, self.now),
            Side::Caller => {
                if let Some(callee) = &mut self.callee {
                    callee.on_response(token, response, self.now);
                }
            }
        }
    }

    /// Lets the clock run, to that second after the beginning.
    pub fn run_to(&mut self, second: u64) {
        let end = self.start + Duration::from_secs(second);
        self.settle();
        loop {
            let callee = self.callee.as_ref().and_then(UasCall::poll_timeout);
            let failure = self.failures.iter().map(|(at, ..)| *at).min();
            let next = [self.caller.poll_timeout(), callee, failure]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            assert!(
                next >= self.now || callee.is_some(),
                "time does not run back"
            );
            self.now = self.now.max(next);
            let due: Vec<_> = self
                .failures
                .extract_if(.., |(at, ..)| *at <= self.now)
                .collect();
            for (_, side, token) in due {
                match (side, &mut self.callee) {
                    (Side::Caller, _) => self.caller.on_failed(token, self.now),
                    (Side::Callee, Some(callee)) => callee.on_failed(token, self.now),
                    _ => {}
                }
            }
            self.caller.handle_timeout(self.now);
            if let Some(callee) = &mut self.callee {
                callee.handle_timeout(self.now);
            }
            self.settle();
            assert!(self.sent.len() < 10_000, "it never comes to rest");
        }
        self.now = end;
    }

    /// When requests with that method went from one side, in seconds.
    pub fn times(&self, by: Side, method: &Method) -> Vec<u64> {
        self.sent
            .iter()
            .filter(|sent| {
                sent.by == by
                    && sent
                        .request()
                        .is_some_and(|request| request.method == *method)
            })
            .map(|sent| sent.at)
            .collect()
    }

    /// Every response with that status, by that side.
    pub fn responses(&self, by: Side, status: u16) -> Vec<&Response> {
        self.sent
            .iter()
            .filter(|sent| sent.by == by)
            .filter_map(|sent| match &sent.message {
                Message::Response(response) if response.status == status => Some(response),
                _ => None,
            })
            .collect()
    }

    pub fn ended(&self, side: Side) -> Option<EndedBy> {
        self.events.iter().find_map(|(of, event)| match event {
            CallEvent::Ended { by, .. } if *of == side => Some(*by),
            _ => None,
        })
    }
}

/// Sets a header where the message is the INVITE that begins the call.
pub(super) fn in_first_invite(message: &mut Message, name: HeaderName, value: &str) {
    if let Message::Request(request) = message
        && request.method == Method::INVITE
        && request.headers.to().is_ok_and(|to| to.tag().is_none())
    {
        request.headers.set(name, value);
    }
}

/// Takes a header out of a message.
pub(super) fn without(message: &mut Message, name: &HeaderName) {
    match message {
        Message::Request(request) => request.headers.remove(name),
        Message::Response(response) => response.headers.remove(name),
    };
}
