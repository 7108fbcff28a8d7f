//! What a call wants sent and what it tells, in order, until its owner takes it.

use std::collections::VecDeque;

use super::{Action, CallEvent, EndedBy, RespondTo};
use crate::message::{Request, Response};

/// What goes out and what is told, in order.
#[derive(Default)]
pub(crate) struct Outbox {
    actions: VecDeque<Action>,
    events: VecDeque<CallEvent>,
    next_token: u64,
    pub ended: bool,
}

impl Outbox {
    pub fn respond(&mut self, to: RespondTo, response: Response) {
        self.actions.push_back(Action::Respond { to, response });
    }

    pub fn request(&mut self, request: Request) -> u64 {
        self.next_token += 1;
        self.actions.push_back(Action::Request {
            token: self.next_token,
            request,
        });
        self.next_token
    }

    pub fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub fn tell(&mut self, event: CallEvent) {
        if !self.ended {
            self.events.push_back(event);
        }
    }

    pub fn end(&mut self, by: EndedBy, status: Option<u16>, reason: Option<String>) {
        self.tell(CallEvent::Ended { by, status, reason });
        self.ended = true;
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<CallEvent> {
        self.events.pop_front()
    }
}
