//! A call's dialog: what comes in for it, what it wants sent, and what it tells.

use std::time::Instant;

use ringwire_config::Reason;
use ringwire_sip::dialog::{CallEvent, EndedBy};
use ringwire_sip::refer::ReferEvent;

use super::Call;
use crate::media::exchange::ToCall;

impl Call<'_> {
    /// Takes what the node has for the call while it is not answered yet; whether that ended it.
    pub(super) async fn hear(&mut self, message: Option<ToCall>) -> bool {
        self.on_inbox(message);
        self.act().await;
        self.ended
    }

    pub(super) fn on_inbox(&mut self, message: Option<ToCall>) {
        let now = Instant::now();
        match message {
            Some(ToCall::Dialog(message)) => self.leg.take(message, now),
            Some(ToCall::HandOver { replaces, reply }) => self.hand_over(&replaces, reply),
            Some(ToCall::HangUp { reason }) => self.end("gateway", reason, String::new()),
            Some(ToCall::LinkLost) => {
                if !self.leg.uas.is_answered() {
                    self.note_end(
                        "gateway",
                        Reason::InternalError,
                        "the registrar is gone".to_owned(),
                    );
                    self.leg.uas.on_cancel(None, now);
                }
            }
            None => {
                self.note_end(
                    "gateway",
                    Reason::InternalError,
                    "the media pod is stopping".to_owned(),
                );
                self.ended = true;
            }
        }
    }

    /// Writes down who ended the call and why; the first one counts.
    pub(super) fn note_end(&mut self, by: &'static str, reason: Reason, detail: String) {
        if self.record.reason.is_none() {
            (self.record.ended_by, self.record.reason, self.record.detail) =
                (by, Some(reason), detail);
        }
    }

    /// Ends the call from our side.
    pub(super) fn end(&mut self, by: &'static str, reason: Reason, detail: String) {
        self.note_end(by, reason, detail);
        self.stop_media();
        let header = format!("SIP;cause=200;text=\"{}\"", reason.as_str());
        self.leg.uas.hang_up(Some(header), Instant::now());
    }

    /// Carries out what the dialog wants, and takes in what it tells.
    pub(super) async fn act(&mut self) {
        loop {
            while let Some(message) = self.leg.poll() {
                self.shared.tell(message).await;
            }
            self.note_answer();
            let Some(event) = self.leg.uas.poll_event() else {
                return;
            };
            self.on_event(event);
        }
    }

    pub(super) fn on_event(&mut self, event: CallEvent) {
        match event {
            CallEvent::MediaChanged(negotiated) => self.media_changed(&negotiated),
            CallEvent::Confirmed => self.release_playback(),
            CallEvent::Dtmf(digit) => self.on_digit(digit),
            CallEvent::PeerGone => {
                self.end(
                    "gateway",
                    Reason::CallerGone,
                    "no RTP for 30 s and no answer to OPTIONS".to_owned(),
                );
            }
            CallEvent::Ended { by, status, reason } => {
                let detail = reason.unwrap_or_default();
                match by {
                    EndedBy::Peer => self.note_end("caller", Reason::CallerHungUp, detail),
                    EndedBy::Cancel => self.note_end("caller", Reason::CallerCancelled, detail),
                    EndedBy::SessionExpired => {
                        self.note_end("gateway", Reason::CallerGone, detail);
                    }
                    EndedBy::NoAck => self.note_end("gateway", Reason::NoAck, detail),
                    EndedBy::BadAnswer => self.note_end("gateway", Reason::CodecMismatch, detail),
                    EndedBy::Us | EndedBy::NoAnswer => {
                        self.note_end("gateway", Reason::InternalError, detail);
                    }
                }
                if let Some(status) = status.filter(|_| self.record.answer.is_none()) {
                    self.record.status = status;
                }
                self.ended = true;
            }
            CallEvent::PeerAlive | CallEvent::Progress { .. } | CallEvent::Answered => {}
            CallEvent::Refer(event) => self.on_refer(event),
        }
    }

    /// What the other side asks for by REFER, and is not given: calls are not transferred yet. It goes on as it is (RFC 3515 section 2.4.2).
    fn on_refer(&mut self, event: ReferEvent) {
        if let ReferEvent::Asked { id, referral } = event {
            #[cfg(test)]
            assert!(
                referral.target.uri.host.to_string() != "fault.invalid",
                "the fault that tests ask for"
            );
            tracing::info!(call_id = %self.key.call_id, to = %referral.target.bare(), "a transfer was asked for, and declined");
            self.leg.uas.answer_refer(id, false, Instant::now());
        }
    }
}
