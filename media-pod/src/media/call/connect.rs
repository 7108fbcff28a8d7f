//! Until the answer: the agent is connected while the caller hears ringing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringwire_config::gateway::{Agent, GatewaySettings, MediaConfig};
use ringwire_config::{ObjectRef, Reason};
use ringwire_media::ports::Wanted;
use ringwire_sip::message::HeaderName;

use super::{Call, Line, Timing, sleep_until};
use crate::media::agent_link::{self, Hearing, Unreachable};
use crate::media::shared::Shared;

/// An agent that was configured a moment ago may not have reached us yet.
const CONFIG_WAIT: Duration = Duration::from_secs(1);

/// The agent's entry in the configuration, once it is there.
async fn find(shared: &Shared, agent: &ObjectRef) -> Option<(Agent, GatewaySettings)> {
    let mut config = shared.config.clone();
    let has = |config: &Option<Arc<MediaConfig>>| {
        config.as_ref().is_some_and(|config| {
            config.agents.contains_key(agent) || config.not_understood.agents.contains_key(agent)
        })
    };
    let waiting = tokio::time::timeout(CONFIG_WAIT, config.wait_for(has));
    let config = waiting.await.ok()?.ok()?.clone()?;
    Some((config.agents.get(agent)?.clone(), config.settings.clone()))
}

impl Call<'_> {
    /// Connects the agent while the caller hears ringing. True if it was answered.
    pub(super) async fn connect(&mut self) -> bool {
        let shared = self.shared;
        let agent = &self.agent.clone();
        let rng = StdRng::from_rng(&mut self.rng);
        let about = std::mem::take(&mut self.about);
        let started = Instant::now();
        let connecting = async {
            let (entry, settings) = find(shared, agent).await?;
            let connected =
                agent_link::connect(&entry, &settings, &shared.connector, about, rng).await;
            Some((entry, connected))
        };
        tokio::pin!(connecting);
        let found = loop {
            let timer = self.leg.uas.poll_timeout();
            tokio::select! {
                biased;
                message = self.inbox.recv() => {
                    if self.hear(message).await {
                        // Dropping the attempt closes whatever stands of the connection.
                        return false;
                    }
                }
                found = &mut connecting => break found,
                () = sleep_until(timer) => {
                    self.leg.uas.handle_timeout(Instant::now());
                    self.act().await;
                }
            }
        };
        let Some((entry, connected)) = found else {
            let (reason, detail) = self.agent_missing();
            self.refuse(480, reason, detail);
            self.act().await;
            return false;
        };
        match connected {
            Ok((link, ears)) => {
                if ears.is_proof {
                    self.prove_agent();
                }
                self.record.agent_call_id.clone_from(&ears.call_id);
                self.line = Some(Line::Agent(link));
                self.ears = Some(ears);
                tracing::debug!(
                    millis = started.elapsed().as_millis() as u64,
                    "agent connected"
                );
                self.timing = Timing::of(&entry);
                self.hearing = Hearing::of(&entry.backend);
                self.limit = Instant::now() + Duration::from_secs(entry.max_call_seconds.into());
                self.answer().await
            }
            Err(Unreachable { reason, message }) => {
                shared.agent_failed(agent, false, reason, &message);
                self.refuse(480, reason, message);
                self.act().await;
                false
            }
        }
    }

    /// Why there is no agent to connect to.
    fn agent_missing(&self) -> (Reason, String) {
        let agent = &self.agent;
        let config = self.shared.config.borrow();
        let known = config
            .as_ref()
            .is_some_and(|config| config.not_understood.agents.contains_key(agent));
        if known {
            let detail = format!("agent {agent} needs a newer version of the media pod");
            (Reason::NewerVersionNeeded, detail)
        } else {
            let detail = format!("agent {agent} is not configured");
            (Reason::AgentNotFound, detail)
        }
    }

    /// 200, and with it the packets if all is agreed on. False if there is no port for them.
    pub(super) async fn answer(&mut self) -> bool {
        let seated = self.seat.is_some() || self.take_seat();
        if seated {
            self.leg.uas.accept(Instant::now());
        }
        self.act().await;
        seated
    }

    /// A place on a port, which our SDP names. False if there is none: then the call is refused.
    pub(super) fn take_seat(&mut self) -> bool {
        let shared = self.shared;
        let range = shared
            .config
            .borrow()
            .as_ref()
            .map(|config| config.settings.rtp_ports);
        let negotiated = self.leg.uas.negotiated();
        let wanted = Wanted {
            bind: shared.identity.bind,
            range: range.unwrap_or_default(),
            remote: negotiated.and_then(|negotiated| negotiated.remote),
            signalling: Some(self.signalling_ip),
            networks: self.media_sources.clone(),
            thread: match &self.line {
                Some(Line::Inherited(media)) => Some(media.thread()),
                Some(Line::Agent(_)) | None => None,
            },
        };
        match shared.plane.seat(&wanted) {
            Ok(seat) => {
                self.local.rtp_port = seat.port();
                self.leg.uas.set_local(self.local);
                self.seat = Some(seat);
                true
            }
            Err(error) => {
                tracing::warn!(call_id = %self.key.call_id, %error, "no RTP port for a call");
                self.refuse(503, Reason::AtCapacity, error.to_string());
                false
            }
        }
    }

    /// Refuses the call before its answer.
    pub(super) fn refuse(&mut self, status: u16, reason: Reason, detail: String) {
        let header = (
            HeaderName::Reason,
            format!("SIP;cause={status};text=\"{}\"", reason.as_str()),
        );
        self.leg
            .uas
            .reject(status, None, vec![header], Instant::now());
        (self.record.reason, self.record.status, self.record.detail) =
            (Some(reason), status, detail);
    }
}
