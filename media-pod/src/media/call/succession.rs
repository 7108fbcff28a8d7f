//! A call that takes the place of another (`Replaces`, RFC 3891): the agent, what it has said, and the time that is left go over to it.
//!
//! The new call answers first, then the old one says BYE. Whatever goes wrong before leaves the old call as it was.

use std::time::{Duration, Instant};

use ringwire_config::Reason;
use ringwire_sip::refer::Replaces;
use tokio::sync::{mpsc, oneshot};

use super::{Call, Line};
use crate::media::agent_link::Ears;
use crate::media::exchange::ToCall;

/// The old call has so long to hand over: it runs in the same thread.
const HANDOVER_LIMIT: Duration = Duration::from_secs(2);

/// What a call that takes another's place goes on with.
pub struct Handover {
    line: Line,
    ears: Ears,
    cushion_millis: u32,
    limit: Instant,
    /// To be told, or dropped, when the new call has answered.
    succeeded: oneshot::Sender<()>,
}

/// Whose place a new call takes.
pub struct TakeOver {
    /// Its inbox; none if it has just ended.
    pub from: Option<mpsc::Sender<ToCall>>,
    /// What it asks for.
    pub replaces: Replaces,
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
            tokio::select! {
                biased;
                message = self.inbox.recv() => {
                    if self.hear(message).await {
                        // What may still be handed over goes back when the answer finds nobody.
                        return false;
                    }
                }
                handed = &mut answer, if asked => break handed.unwrap_or(Err(481)),
                () = &mut limit, if asked => break Err(500),
                else => break Err(481),
            }
        };
        match handed {
            Ok(handover) => {
                let Handover {
                    line,
                    ears,
                    cushion_millis,
                    limit,
                    succeeded,
                } = *handover;
                self.record.agent_call_id.clone_from(&ears.call_id);
                self.line = Some(line);
                self.ears = Some(ears);
                self.cushion_millis = cushion_millis;
                self.limit = limit;
                self.answer().await;
                // The old call says BYE now, whether it hears this or finds us gone.
                let _ = succeeded.send(());
                true
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
        let carried = self.media.is_some();
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
            cushion_millis: self.cushion_millis,
            limit: self.limit,
            succeeded,
        });
        match reply.send(Ok(handover)) {
            Ok(()) => {
                self.media_events = None;
                self.succeeded = Some(told);
            }
            // The new call was given up meanwhile: this one goes on.
            Err(Ok(handover)) => {
                let Handover { line, ears, .. } = *handover;
                self.ears = Some(ears);
                match line {
                    Line::Inherited(media) if carried => self.media = Some(media),
                    line => self.line = Some(line),
                }
            }
            Err(Err(_)) => {}
        }
    }

    /// The call that takes this one's place has begun.
    pub(super) fn on_succeeded(&mut self) {
        self.succeeded = None;
        self.end("caller", Reason::Replaced, String::new());
    }
}
