//! A call that takes the place of another (`Replaces`, RFC 3891): the agent, what it has said, and the time that is left go over to it.
//!
//! The new call answers first, then the old one says BYE. Whatever goes wrong before leaves the old call as it was.

use std::time::{Duration, Instant};

use ringwire_config::Reason;
use ringwire_sip::refer::Replaces;
use tokio::sync::{mpsc, oneshot};

use super::{Call, Line, Timing};
use crate::media::agent_link::Ears;
use crate::media::exchange::ToCall;

/// The old call has so long to hand over: it runs in the same thread.
const HANDOVER_LIMIT: Duration = Duration::from_secs(2);

/// What a call that takes another's place goes on with.
pub struct Handover {
    line: Line,
    ears: Ears,
    timing: Timing,
    limit: Instant,
    /// To be told, or dropped, when the new call has answered.
    succeeded: oneshot::Sender<Succession>,
}

/// What became of a call's succession.
pub enum Succession {
    /// The new call has begun.
    Begun,
    /// It was given up before: the agent is the old one's again.
    GivenUp(Box<Handover>),
}

/// Whose place a new call takes.
pub struct TakeOver {
    /// Its inbox; none if it has just ended.
    pub from: Option<mpsc::Sender<ToCall>>,
    /// What it asks for.
    pub replaces: Replaces,
}

impl Handover {
    /// The new call was given up: the old one goes on.
    fn give_back(mut self) {
        let (nobody, _) = oneshot::channel();
        let succeeded = std::mem::replace(&mut self.succeeded, nobody);
        // It may have ended meanwhile.
        let _ = succeeded.send(Succession::GivenUp(Box::new(self)));
    }
}

impl Call<'_> {
    /// Takes the other call's place and answers. False if that was refused.
    pub(super) async fn take_over(&mut self, takes_over: TakeOver) -> bool {
        let (reply, mut answer) = oneshot::channel();
        let TakeOver { from, replaces } = takes_over;
        let asked = from.is_some_and(|inbox| {
            let ask = ToCall::HandOver { replaces, reply };
            inbox.try_send(ask).is_ok()
        });
        let limit = tokio::time::sleep(HANDOVER_LIMIT);
        tokio::pin!(limit);
        let handed = loop {
            if !asked {
                break Err(481);
            }
            tokio::select! {
                biased;
                message = self.inbox.recv() => {
                    if self.hear(message).await {
                        answer.close();
                        if let Ok(Ok(handover)) = answer.try_recv() {
                            handover.give_back();
                        }
                        return false;
                    }
                }
                handed = &mut answer => break handed.unwrap_or(Err(481)),
                () = &mut limit => break Err(500),
            }
        };
        match handed {
            Ok(handover) => {
                let Handover {
                    line,
                    ears,
                    timing,
                    limit,
                    succeeded,
                } = *handover;
                self.record.agent_call_id.clone_from(&ears.call_id);
                self.line = Some(line);
                self.ears = Some(ears);
                self.timing = timing;
                self.limit = limit;
                self.succeeds = Some(succeeded);
                self.answer().await
            }
            Err(status) => {
                let detail = "the call that it was to replace could not be replaced".to_owned();
                self.refuse(status, Reason::CallRefused, detail);
                self.act().await;
                false
            }
        }
    }

    /// Another call asks for this one's place.
    pub(super) fn hand_over(
        &mut self,
        replaces: &Replaces,
        reply: oneshot::Sender<Result<Box<Handover>, u16>>,
    ) {
        let over = self.ended || self.record.reason.is_some() || self.succeeded.is_some();
        if let Err(status) = replaces.check(over, self.leg.uas.is_answered(), false) {
            // Who asked may be gone.
            let _ = reply.send(Err(status));
            return;
        }
        let Some(ears) = self.ears.take_if(|ears| ears.told.is_some()) else {
            let _ = reply.send(Err(603));
            return;
        };
        if let Some(media) = &self.media {
            let (told, stats) = oneshot::channel();
            media.with(move |stream, _| {
                let _ = told.send(stream.stats());
            });
            self.stats = Some(stats);
        }
        let line = self.media.take().map(Line::Inherited).or(self.line.take());
        let Some(line) = line else {
            let _ = reply.send(Err(603));
            return;
        };
        let (succeeded, told) = oneshot::channel();
        let handover = Box::new(Handover {
            line,
            ears,
            timing: self.timing,
            limit: self.limit,
            succeeded,
        });
        match reply.send(Ok(handover)) {
            Ok(()) => self.succeeded = Some(told),
            // The new call was given up meanwhile: this one goes on.
            Err(Ok(handover)) => self.take_back(*handover),
            Err(Err(_)) => {}
        }
    }

    fn take_back(&mut self, handover: Handover) {
        let Handover { line, ears, .. } = handover;
        self.ears = Some(ears);
        self.stats = None;
        match line {
            // Its packets never stopped.
            Line::Inherited(media) if self.seat.is_none() => self.media = Some(media),
            line => self.line = Some(line),
        }
    }

    /// The call that takes this one's place has begun, or was given up.
    pub(super) fn on_succeeded(&mut self, succession: Option<Succession>) {
        self.succeeded = None;
        match succession {
            Some(Succession::GivenUp(handover)) => self.take_back(*handover),
            Some(Succession::Begun) | None => {
                self.end("caller", Reason::Replaced, String::new());
            }
        }
    }
}
