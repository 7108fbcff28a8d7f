//! A call's sound, which the plane carries: what the dialog has agreed on goes there, and what ends the call comes from there.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;
use ringwire_config::Reason;
use ringwire_media::flow::Missing;
use ringwire_media::plane::Parts;
use ringwire_media::stream::{RtpStream, StreamConfig, StreamEvent};
use ringwire_sip::sdp::{Negotiated, Security};
use tokio::sync::{mpsc, oneshot};

use super::{Call, Line, Succession};
use crate::media::agent_link::FromAgent;

impl Call<'_> {
    /// When the caller has been silent for too long.
    pub(super) fn silence_due(&self) -> Option<Instant> {
        let media = self.media.as_ref().filter(|_| !self.on_hold)?;
        let heard = media.heard_at();
        Some(heard.max(self.probed.unwrap_or(heard)) + self.media_timeout)
    }

    pub(super) fn media_changed(&mut self, negotiated: &Negotiated) {
        let now = Instant::now();
        let session = crate::negotiated::session(negotiated);
        let halves = crate::negotiated::has_short_packets(negotiated);
        let protection = crate::negotiated::protection(negotiated, Some(&self.shared.certificate));
        let ice = crate::negotiated::ice(negotiated);
        self.record.codec = Some(negotiated.codec.name());
        self.record.encryption = negotiated.security.as_ref().map(Security::name);
        self.probed = Some(now);
        self.on_hold = session.on_hold();
        if let Some(media) = &self.media {
            media.with(move |stream, now| {
                stream.protect(&protection, now);
                stream.update(session, now);
                stream.send_halves(halves);
                stream.set_ice(ice.as_ref(), now);
            });
            return;
        }
        // What is agreed on while the agent is still being connected waits for the answer.
        if !self.leg.uas.is_answered() || self.line.is_none() {
            return;
        }
        let (Some(seat), Some(line)) = (self.seat.take(), self.line.take()) else {
            return;
        };
        let config = StreamConfig {
            session,
            signalling_ip: Some(self.signalling_ip),
            networks: self.media_sources.clone(),
            ssrc: self.rng.random(),
            sequence: self.rng.random(),
            timestamp: self.rng.random(),
            format: self.hearing.format(session.codec),
            delay: self.timing.delay,
            cushion_millis: self.timing.cushion_millis,
            reports: true,
            protection,
            ice,
        };
        // Bounded by what is told: a move of the source takes seconds, an overflow minutes of audio.
        let (events_in, events) = mpsc::unbounded_channel();
        let tell = Box::new(move |event| drop(events_in.send(event)));
        self.media_events = Some(events);
        let media = match line {
            Line::Inherited(media) => {
                media.succeed(seat, config, tell);
                media
            }
            Line::Agent(agent) => self.shared.plane.open(Parts {
                seat,
                stream: RtpStream::new(config, now),
                agent,
                tell,
            }),
        };
        // The caller may miss what is played before his ACK; the agent's audio waits for it, silence does not. (Without an offer in the
        // INVITE, it is the ACK that brought us here.)
        let paused = !self.confirmed;
        media.with(move |stream, now| {
            stream.pause_playback(paused, now);
            stream.send_halves(halves);
            stream.start(now);
        });
        self.media = Some(media);
        if let Some(succeeds) = self.succeeds.take() {
            // The old call says BYE now, whether it hears this or finds us gone.
            let _ = succeeds.send(Succession::Begun);
        }
    }

    /// The caller has his 200.
    pub(super) fn note_answer(&mut self) {
        if self.record.answer.is_some() || !self.leg.uas.is_answered() {
            return;
        }
        self.record.status = 200;
        self.record.answer = Some(jiff::Timestamp::now());
        // With an offer in the INVITE all is agreed by now; without one the ACK brings the answer.
        if let Some(negotiated) = self.leg.uas.negotiated().cloned() {
            self.media_changed(&negotiated);
        }
    }

    /// The ACK has come.
    pub(super) fn release_playback(&mut self) {
        self.confirmed = true;
        if let Some(media) = &self.media {
            media.with(|stream, now| stream.pause_playback(false, now));
        }
    }

    /// The caller pressed a key, which he told by SIP.
    pub(super) fn on_digit(&mut self, digit: char) {
        if let Some(media) = &self.media {
            media.with_agent(move |agent| agent.digit(digit));
        }
    }

    pub(super) fn on_agent(&mut self, from_agent: Option<FromAgent>) {
        match from_agent {
            // Told before why.
            None => {
                if let Some(ears) = &mut self.ears {
                    ears.told = None;
                }
            }
            Some(FromAgent::Spoke) => self.prove_agent(),
            Some(FromAgent::Unusable(error)) => {
                tracing::warn!(call_id = %self.key.call_id, %error, "the agent sent something unusable");
            }
            Some(FromAgent::Closed(detail)) => self.end("agent", Reason::AgentClosed, detail),
            Some(FromAgent::Failed(reason, detail)) => {
                tracing::warn!(call_id = %self.key.call_id, %reason, %detail, "the agent cannot be used");
                let reachable = reason != Reason::AgentProtocolError;
                self.shared
                    .agent_failed(&self.agent, reachable, reason, &detail);
                self.end("agent", reason, detail);
            }
        }
    }

    /// The right program listens at the agent's address.
    pub(super) fn prove_agent(&mut self) {
        if !std::mem::replace(&mut self.agent_proved, true) {
            self.shared.agent_works(&self.agent);
        }
    }

    pub(super) fn on_media(&mut self, event: Option<&StreamEvent>) {
        match event {
            Some(StreamEvent::AgentAudioOverflow) if self.overflowed => {}
            Some(StreamEvent::AgentAudioOverflow) => {
                self.overflowed = true;
                tracing::warn!(
                    call_id = %self.key.call_id, reason = %Reason::AgentAudioOverflow,
                    "the agent is more than 120 s ahead; its newest audio was dropped"
                );
            }
            Some(StreamEvent::SourceMoved { from, to }) => {
                tracing::info!(call_id = %self.key.call_id, %from, %to, "the caller's RTP comes from a new address");
            }
            Some(StreamEvent::OneWay(missing)) => self.on_one_way(*missing),
            Some(StreamEvent::EncryptionFailed(detail)) => {
                tracing::warn!(call_id = %self.key.call_id, %detail, "media cannot be encrypted");
                self.end("gateway", Reason::EncryptionFailed, detail.clone());
            }
            // The agent's own.
            Some(StreamEvent::Digit(_) | StreamEvent::MarkPlayed(_)) => {}
            // The call that takes this one's place has the packets now.
            None if self.media.is_none() => self.media_events = None,
            None => {
                self.media_events = None;
                // First why: the agent may have left.
                while let Some(told) = self.ears.as_mut().and_then(|ears| ears.told.as_mut()) {
                    let Ok(told) = told.try_recv() else { break };
                    self.on_agent(Some(told));
                }
                if self.record.reason.is_some() {
                    return;
                }
                tracing::error!(call_id = %self.key.call_id, "a fault in the gateway; the call is ended");
                let detail = "a fault in the gateway".to_owned();
                self.end("gateway", Reason::InternalError, detail);
            }
        }
    }

    /// Sound goes one way only: the commonest fault of a trunk, of which SIP says nothing.
    fn on_one_way(&mut self, missing: Missing) {
        let negotiated = self.leg.uas.negotiated();
        let remote = negotiated.and_then(|negotiated| negotiated.remote);
        let theirs = remote.map_or_else(|| "?".to_owned(), |address| address.to_string());
        let ours = SocketAddr::new(self.local.address, self.local.rtp_port);
        let (direction, detail) = match missing {
            Missing::FromPeer => (
                "from the caller",
                format!(
                    "no sound from the caller: nothing came to {ours}, which our SDP names, for 5 s; his names {theirs}"
                ),
            ),
            Missing::ToPeer => (
                "to the caller",
                format!(
                    "the caller does not hear the agent: his reports say that nothing of ours arrives, which goes from {ours} to \
                     {theirs}"
                ),
            ),
        };
        tracing::warn!(call_id = %self.key.call_id, reason = %Reason::OneWayAudio, %detail, "sound goes one way only");
        self.record.one_way = Some(direction);
        self.shared.calls.one_way(missing == Missing::FromPeer);
        self.shared.heard_sound(&self.provider, Some(detail));
    }

    /// Nothing more is carried: the caller hears nothing from now on, the agent has its last words.
    pub(super) fn stop_media(&mut self) {
        self.media_events = None;
        if let Some(media) = self.media.take() {
            let (told, stats) = oneshot::channel();
            media.end(move |counters| {
                let _ = told.send(counters);
            });
            self.stats = Some(stats);
        }
        if let Some(Line::Agent(agent)) = self.line.take() {
            self.shared.plane.dismiss(agent);
        }
    }
}
