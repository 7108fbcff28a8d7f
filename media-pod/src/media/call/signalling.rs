//! A call's dialog: what comes in for it, what it wants sent, and what it tells.

use std::time::Instant;

use ringwire_config::Reason;
use ringwire_sip::dialog::{Action, CallEvent, EndedBy, RespondTo};
use ringwire_sip::message::Request;
use ringwire_sip::refer::ReferEvent;

use super::Call;
use crate::media::exchange::{FromCall, ToCall};
use crate::private;

impl Call<'_> {
    pub(super) fn on_inbox(&mut self, message: Option<ToCall>) {
        let now = Instant::now();
        match message {
            Some(ToCall::Request { server, request }) => {
                self.uas.on_request(server, &request, now);
            }
            Some(ToCall::Ack { request }) => self.uas.on_ack(&request, now),
            Some(ToCall::Cancel { reason }) => self.uas.on_cancel(reason, now),
            Some(ToCall::Response { token, response }) => {
                self.uas.on_response(token, &response, now);
            }
            Some(ToCall::Failed { token }) => self.uas.on_failed(token, now),
            Some(ToCall::HandOver { replaces, reply }) => self.hand_over(&replaces, reply),
            Some(ToCall::HangUp { reason }) => self.end("gateway", reason, String::new()),
            Some(ToCall::LinkLost) => {
                if !self.uas.is_answered() {
                    self.note_end(
                        "gateway",
                        Reason::InternalError,
                        "the registrar is gone".to_owned(),
                    );
                    self.uas.on_cancel(None, now);
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
        if let Some(rtp) = &mut self.rtp {
            rtp.stop();
        }
        let header = format!("SIP;cause=200;text=\"{}\"", reason.as_str());
        self.uas.hang_up(Some(header), Instant::now());
    }

    /// Carries out what the dialog wants, and takes in what it tells.
    pub(super) async fn act(&mut self) {
        loop {
            while let Some(action) = self.uas.poll_action() {
                let message = match action {
                    Action::Respond { to, response } | Action::ResendFinal { to, response } => {
                        let server = match to {
                            RespondTo::Invite => self.server,
                            RespondTo::Request(server) => server,
                        };
                        FromCall::Respond { server, response }
                    }
                    Action::Request { token, request } => FromCall::Request {
                        key: self.key.clone(),
                        token,
                        request: self.to_caller(request),
                    },
                    Action::Ack { request } => FromCall::Ack {
                        key: self.key.clone(),
                        request: self.to_caller(request),
                    },
                    // Only outbound calls cancel.
                    Action::Cancel { .. } => continue,
                };
                self.shared.tell(message).await;
            }
            let Some(event) = self.uas.poll_event() else {
                return;
            };
            self.on_event(event);
        }
    }

    pub(super) fn on_event(&mut self, event: CallEvent) {
        match event {
            CallEvent::MediaChanged(negotiated) => self.media_changed(&negotiated),
            CallEvent::Confirmed => {
                self.confirmed = true;
                if let Some(rtp) = &mut self.rtp {
                    rtp.pause_playback(false);
                }
            }
            CallEvent::Dtmf(digit) => {
                if let Some(link) = &mut self.link {
                    link.digit(digit);
                }
            }
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
            tracing::info!(call_id = %self.key.call_id, to = %referral.target.bare(), "a transfer was asked for, and declined");
            self.uas.answer_refer(id, false, Instant::now());
        }
    }

    /// A request to the caller, with his provider: where his connection is gone, the one that takes its place has to lead to the same
    /// carrier.
    fn to_caller(&self, mut request: Request) -> Box<Request> {
        if let Some(provider) = &self.record.provider {
            let name = private::name(private::PROVIDER);
            request.headers.set(name, provider.clone());
        }
        Box::new(request)
    }
}
