//! How a call is left: the agent is told, the record is written; also when the call broke.

use std::time::{Duration, Instant};

use ringwire_config::Reason;

use super::{Call, END_LIMIT, sleep_until};
use crate::media::verdict::BORNE;

/// The counters of a call come from another thread, which is not waited for any longer.
const COUNTS_LIMIT: Duration = Duration::from_secs(1);

/// So many packets are no accident: a second of sound.
const HEARD: u64 = 50;

impl Call<'_> {
    /// Ends a call whose logic failed in the middle: the dialog stands for itself, so the caller can still be told.
    pub(super) async fn end_broken(&mut self) {
        tracing::error!(call_id = %self.key.call_id, "a fault in the gateway; the call is ended");
        self.stop_media();
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
    pub(super) async fn finish(&mut self) {
        self.stop_media();
        let borne = self.record.answer.is_some_and(|answer| {
            let held = jiff::Timestamp::now().duration_since(answer);
            held.unsigned_abs() >= BORNE
        });
        if borne && self.ears.is_some() && self.record.ended_by != "agent" {
            self.prove_agent();
        }
        self.record.end = Some(jiff::Timestamp::now());
        self.keep_counts().await;
        if let Some(ears) = &self.ears {
            let (dropped, unusable) = (ears.tally.dropped(), ears.tally.unusable());
            if dropped > 0 {
                tracing::warn!(call_id = %self.key.call_id, dropped, "the agent did not read all of the caller's audio");
            }
            if unusable > 1 {
                tracing::warn!(call_id = %self.key.call_id, messages = unusable, "the agent sent unusable messages");
            }
        }
        self.act().await;
        self.record.write();
    }

    /// Takes the stream's counters into the record.
    async fn keep_counts(&mut self) {
        let Some(stats) = self.stats.take() else {
            return;
        };
        // None where the thread that carried the call has failed it.
        if let Ok(Ok(stats)) = tokio::time::timeout(COUNTS_LIMIT, stats).await {
            self.shared.calls.over(&stats);
            self.record.packets_received = stats.packets_received;
            self.record.packets_lost = stats.packets_lost;
            self.record.packets_sent = stats.packets_sent;
            self.record.packets_lost_remote = stats.packets_lost_remote;
            self.record.packets_not_authentic = stats.not_authentic;
            self.record.jitter_millis = stats.jitter_millis;
            self.record.round_trip_millis = stats.round_trip_millis;
            self.record.mos = stats.mos;
            self.record.mos_remote = stats.mos_remote;
            if stats.both_ways && stats.packets_received >= HEARD {
                self.shared.heard_sound(&self.provider, None);
            }
        }
    }
}
