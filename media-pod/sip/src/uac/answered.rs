//! The 2xx to our INVITE: the first makes the call, each other fork is acknowledged and ended.

use std::time::Instant;

use super::{MAX_FORKS, State, UacCall, remote_tag};
use crate::dialog::{Action, CallEvent, Dialog, EndedBy, body};
use crate::message::{HeaderName, Method, Request, Response};
use crate::sdp;

/// A second 2xx, from another fork: acknowledged and ended at once.
pub(super) struct Fork {
    pub remote_tag: String,
    pub dialog: Dialog,
}

impl UacCall {
    pub(super) fn on_success(&mut self, response: &Response, now: Instant) {
        let remote_tag = remote_tag(response).unwrap_or_default();
        if let Some(session) = &self.session
            && session.dialog.id().remote_tag == remote_tag
        {
            let request = session.dialog.ack(self.cseq);
            return self.acknowledge(request);
        }
        if let Some(fork) = self.forks.iter().find(|fork| fork.remote_tag == remote_tag) {
            let request = fork.dialog.ack(self.cseq);
            return self.acknowledge(request);
        }
        let Some(mut session) = self.confirmed_session(&remote_tag, response) else {
            // Nothing can be sent to whom that names; the peer gives up without ACK.
            return;
        };
        let ack = session.dialog.ack(self.cseq);
        self.acknowledge(ack);
        if self.session.is_some() {
            if self.forks.len() < MAX_FORKS {
                self.out.request(session.dialog.request(Method::BYE));
                self.forks.push(Fork {
                    remote_tag,
                    dialog: session.dialog,
                });
            }
            return;
        }
        let cancelled = self.state == State::Cancelling;
        self.state = State::Answered;
        session.established = true;
        session.refers.taken = self.takes_refer;
        session.note_peer(&response.headers);
        session.timer = self.timer.clone();
        session.timer.answered(response, now);
        // What came reliably before is the answer; another in the 2xx is none (RFC 3261 section 13.2.1).
        let reliable = session.negotiated().cloned();
        let answer = body::description(&response.headers, &response.body)
            .ok()
            .flatten();
        let agreed =
            answer.map(|answer| sdp::apply_answer(&self.offer, &answer, &self.own.capabilities));
        if cancelled {
            // The CANCEL came too late.
            session.hang_up_as(EndedBy::Us, self.reason.take(), &mut self.out);
        } else {
            match (reliable.map(Ok).or(agreed), self.early_media.take()) {
                (Some(Ok(negotiated)), early) => {
                    session.agreed_quietly(negotiated.clone());
                    self.out.tell(CallEvent::Answered);
                    if early.as_ref() != Some(&negotiated) {
                        self.out.tell(CallEvent::MediaChanged(negotiated));
                    }
                }
                // The answer came with a provisional response already.
                (None, Some(early)) => {
                    session.agreed_quietly(early);
                    self.out.tell(CallEvent::Answered);
                }
                _ => session.hang_up_as(
                    EndedBy::BadAnswer,
                    Some("SIP;cause=488;text=\"no usable answer\"".to_owned()),
                    &mut self.out,
                ),
            }
        }
        self.session = Some(session);
    }

    fn acknowledge(&mut self, mut request: Request) {
        // Proxies that asked for credentials want them in the ACK too (RFC 3261 section 22.1).
        for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
            for value in self.invite.headers.get_all(&name) {
                request.headers.push(name.clone(), value);
            }
        }
        self.out.act(Action::Ack { request });
    }
}
