//! How a call is left: the agent is told, the record is written; also when the call broke.

use std::time::Instant;

use ringwire_config::Reason;

use super::{Call, END_LIMIT, sleep_until};
use crate::media::verdict::BORNE;

impl Call<'_> {
    /// Ends a call whose logic failed in the middle: the dialog stands for itself, so the caller can still be told.
    pub(super) async fn end_broken(&mut self) {
        tracing::error!(call_id = %self.key.call_id, "a fault in the gateway; the call is ended");
        self.keep_counts();
        self.rtp = None;
        self.inherited = None;
        let (by, reason) = ("gateway", Reason::InternalError);
        self.note_end(by, reason, "a fault in the gateway".to_owned());
        if self.leg.uas.is_answered() {
            self.end(by, reason, String::new());
        } else {
            self.refuse(500, reason, "a fault in the gateway".to_owned());
        }
        let until = Instant::now() + END_LIMIT;
        self.act().await;
        while !self.ended && Instant::now() < until {
            let timer = self
                .leg
                .uas
                .poll_timeout()
                .map_or(until, |at| at.min(until));
            tokio::select! {
                message = self.inbox.recv() => self.on_inbox(message),
                () = sleep_until(Some(timer)) => self.leg.uas.handle_timeout(Instant::now()),
            }
            self.act().await;
        }
    }

    /// Closes the agent and writes the record.
    pub(super) async fn finish(mut self) {
        if let Some(link) = &mut self.link {
            let dropped = link.dropped();
            if dropped > 0 {
                tracing::warn!(call_id = %self.key.call_id, dropped, "the agent did not read all of the caller's audio");
            }
            link.stop();
        }
        let borne = self.record.answer.is_some_and(|answer| {
            let held = jiff::Timestamp::now().duration_since(answer);
            held.unsigned_abs() >= BORNE
        });
        if borne && self.link.is_some() {
            self.prove_agent();
        }
        if self.unusable > 1 {
            tracing::warn!(call_id = %self.key.call_id, messages = self.unusable, "the agent sent unusable messages");
        }
        self.record.end = Some(jiff::Timestamp::now());
        self.keep_counts();
        self.act().await;
        self.record.write();
    }

    /// Takes the stream's counters into the record.
    pub(super) fn keep_counts(&mut self) {
        if let Some(rtp) = &self.rtp {
            let stats = rtp.stats();
            self.record.packets_received = stats.packets_received;
            self.record.packets_lost = stats.packets_lost;
            self.record.packets_sent = stats.packets_sent;
            self.record.packets_lost_remote = stats.packets_lost_remote;
            self.record.jitter_millis = stats.jitter_millis;
        }
    }
}
