//! A call's sound: RTP and RTCP with the caller, audio and keys with the agent.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use ringwire_agent::Command;
use ringwire_config::Reason;
use ringwire_media::rtcp::REPORT_BYTES;
use ringwire_media::stream::{RtpStream, StreamConfig, StreamEvent};
use ringwire_sip::sdp::{Codec, Negotiated};

use super::Call;
use crate::media::agent_link::FromAgent;

/// No packets for so long, without hold, and the caller is asked whether he is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// Default delay of the jitter buffer.
const JITTER_MILLIS: u32 = 40;

impl Call<'_> {
    /// When the caller has been silent for too long.
    pub(super) fn silence_due(&self, now: Instant) -> Option<Instant> {
        let rtp = self.rtp.as_ref().filter(|rtp| !rtp.on_hold())?;
        let heard = now.checked_sub(rtp.idle_for(now)).unwrap_or(now);
        Some(heard.max(self.probed.unwrap_or(heard)) + SILENCE)
    }

    pub(super) fn media_changed(&mut self, negotiated: &Negotiated) {
        let now = Instant::now();
        let session = crate::negotiated::session(negotiated);
        self.record.codec = Some(match negotiated.codec {
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
        });
        self.probed = Some(now);
        if let Some(rtp) = &mut self.rtp {
            rtp.update(session, now);
            return;
        }
        let config = StreamConfig {
            session,
            signalling_ip: Some(self.signalling_ip),
            ssrc: self.rng.random(),
            sequence: self.rng.random(),
            timestamp: self.rng.random(),
            jitter_target_millis: JITTER_MILLIS,
            reports: true,
        };
        let mut rtp = match self.inherited.take() {
            Some(before) => before.into_successor(config, now),
            None => RtpStream::new(config, now),
        };
        // The caller may miss what is played before his ACK; the agent's audio waits for it, silence does not. (Without an offer in the
        // INVITE, it is the ACK that brought us here.)
        rtp.pause_playback(!self.confirmed);
        if self.leg.uas.is_answered() {
            rtp.start(now);
        }
        self.rtp = Some(rtp);
    }

    pub(super) fn on_rtp(
        &mut self,
        received: io::Result<(usize, SocketAddr)>,
        buffer: &[u8],
        now: Instant,
    ) {
        if let (Ok((length, from)), Some(rtp)) = (received, &mut self.rtp) {
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            rtp.receive(&buffer[..length], from, now);
        }
    }

    pub(super) fn on_agent(&mut self, from_agent: FromAgent) {
        match from_agent {
            FromAgent::Command(command) => {
                self.prove_agent();
                let Some(rtp) = &mut self.rtp else { return };
                match command {
                    Command::Audio(ulaw) => {
                        rtp.play(&ulaw);
                        if let Some(link) = &mut self.link {
                            link.reuse(ulaw);
                        }
                    }
                    Command::Mark(name) => rtp.mark(name),
                    Command::Clear => rtp.clear(),
                }
            }
            FromAgent::Unusable(error) => {
                self.prove_agent();
                self.unusable += 1;
                if self.unusable == 1 {
                    tracing::warn!(call_id = %self.key.call_id, %error, "the agent sent something unusable");
                }
            }
            FromAgent::Closed(detail) => {
                self.link = None;
                self.end("agent", Reason::AgentClosed, detail);
            }
            FromAgent::Failed(reason, detail) => {
                self.link = None;
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

    /// Packets to the caller, audio and digits to the agent.
    pub(super) fn pump_media(&mut self) {
        let Some(rtp) = &mut self.rtp else { return };
        let mut packet = [0; 512];
        while let Some((length, to)) = rtp.poll_transmit(&mut packet) {
            // A full buffer loses a packet, as the network might.
            let _ = self.socket.try_send_to(&packet[..length], to);
        }
        let mut report = [0; REPORT_BYTES];
        if let Some((length, to)) = rtp.poll_report(&mut report, Instant::now()) {
            let _ = self.reports.try_send_to(&report[..length], to);
        }
        while let Some(event) = rtp.poll_event() {
            match event {
                StreamEvent::Frame {
                    audio,
                    timestamp_millis,
                } => {
                    if let Some(echo) = self
                        .link
                        .as_mut()
                        .and_then(|link| link.audio(&audio, timestamp_millis))
                    {
                        rtp.play(echo);
                    }
                }
                StreamEvent::Digit(digit) => {
                    if let Some(link) = &mut self.link {
                        link.digit(digit);
                    }
                }
                StreamEvent::MarkPlayed(name) => {
                    if let Some(link) = &mut self.link {
                        link.mark_played(&name);
                    }
                }
                StreamEvent::AgentAudioOverflow => {
                    tracing::warn!(
                        call_id = %self.key.call_id, reason = %Reason::AgentAudioOverflow,
                        "the agent is more than 120 s ahead; its newest audio was dropped"
                    );
                }
                StreamEvent::SourceMoved { from, to } => {
                    tracing::info!(call_id = %self.key.call_id, %from, %to, "the caller's RTP comes from a new address");
                }
            }
        }
    }
}
