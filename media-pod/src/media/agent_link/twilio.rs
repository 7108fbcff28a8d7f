//! Twilio's Media Streams over a WebSocket, with a task that writes.

use std::collections::BTreeMap;
use std::time::Instant;

use http::{HeaderName, HeaderValue};
use rand::rngs::StdRng;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::connect::{ConnectError, Connector, WebSocketTarget};
use ringwire_agent::socket::{AgentReceiver, AgentSender, AgentSocket, Received};
use ringwire_agent::stream::STUCK_AFTER;
use ringwire_agent::twilio::{Session, StartInfo, new_sid};
use ringwire_config::Secret;
use tokio::sync::{mpsc, oneshot};

use super::{CLOSE_TIMEOUT, FromAgent, QUEUED_AUDIO, RESERVED};

/// See [`super::AgentLink::Twilio`].
pub struct TwilioLink {
    session: Session,
    queue: mpsc::Sender<String>,
    receiver: AgentReceiver,
    /// Why nothing more can be sent, once that is so.
    stuck: oneshot::Receiver<String>,
    /// Audio frames that the agent did not read in time.
    dropped: u64,
}

impl TwilioLink {
    /// Connects.
    pub(super) async fn connect(
        url: &str,
        headers: &BTreeMap<String, Secret>,
        allowed: AddressPolicy,
        connector: &Connector,
        deadline: Instant,
    ) -> Result<AgentSocket, ConnectError> {
        let usable = |name: &str, value: &str| {
            Some((
                HeaderName::from_bytes(name.as_bytes()).ok()?,
                HeaderValue::from_str(value).ok()?,
            ))
        };
        let headers = headers
            .iter()
            .filter_map(|(name, value)| usable(name, value.expose()))
            .collect();
        let target = WebSocketTarget::new(url, headers, allowed)?;
        connector.connect(&target, deadline.into()).await
    }

    /// A stream over a connected socket.
    pub(super) fn new(
        socket: AgentSocket,
        custom_parameters: BTreeMap<String, String>,
        rng: &mut StdRng,
    ) -> Self {
        let session = Session::new(StartInfo {
            account_sid: new_sid("AC", rng),
            call_sid: new_sid("CA", rng),
            stream_sid: new_sid("MZ", rng),
            custom_parameters,
        });
        let (sender, receiver) = socket.split();
        let (queue, queued) = mpsc::channel(QUEUED_AUDIO + RESERVED);
        let (stuck_in, stuck) = oneshot::channel();
        tokio::task::spawn_local(write(sender, queued, stuck_in));
        Self {
            session,
            queue,
            receiver,
            stuck,
            dropped: 0,
        }
    }

    pub(super) fn start(&mut self) {
        self.send(Session::connected().to_owned());
        let start = self.session.start();
        self.send(start);
    }

    pub(super) fn call_id(&self) -> String {
        self.session.call_sid().to_owned()
    }

    /// Audio is dropped when the agent does not read, and never takes the place of other messages.
    pub(super) fn audio(&mut self, ulaw: &[u8], timestamp_millis: u64) {
        let mut text = String::with_capacity(512);
        self.session.media(ulaw, timestamp_millis, &mut text);
        if self.queue.capacity() > RESERVED {
            self.send(text);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn digit(&mut self, digit: char) {
        let text = self.session.dtmf(digit);
        self.send(text);
    }

    pub(super) fn mark_played(&mut self, name: &str) {
        let text = self.session.mark(name);
        self.send(text);
    }

    pub(super) fn stop(&mut self) {
        let text = self.session.stop();
        self.send(text);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn send(&mut self, text: String) {
        if self.queue.try_send(text).is_err() {
            self.dropped += 1;
        }
    }

    pub(super) async fn receive(&mut self) -> FromAgent {
        loop {
            let received = tokio::select! {
                received = self.receiver.receive() => received,
                // Without a word the writer has ended with the call.
                Ok(problem) = &mut self.stuck => return FromAgent::Closed(problem),
            };
            return match received {
                Some(Ok(Received::Text(text))) => match self.session.receive(&text) {
                    Ok(Some(command)) => FromAgent::Command(command),
                    Ok(None) => continue,
                    Err(error) => FromAgent::Unusable(error.to_string()),
                },
                Some(Ok(Received::Binary(_))) => FromAgent::Unusable("a binary message".to_owned()),
                Some(Ok(Received::Closed { code, reason })) => {
                    let text = if reason.is_empty() {
                        format!("code {code}")
                    } else {
                        format!("code {code}, {reason}")
                    };
                    FromAgent::Closed(text)
                }
                Some(Err(error)) => FromAgent::Closed(error.to_string()),
                None => FromAgent::Closed("connection lost".to_owned()),
            };
        }
    }
}

/// Sends what is queued, then closes. Tells why if it cannot go on.
async fn write(
    mut sender: AgentSender,
    mut queue: mpsc::Receiver<String>,
    stuck: oneshot::Sender<String>,
) {
    while let Some(text) = queue.recv().await {
        let problem = match tokio::time::timeout(STUCK_AFTER, sender.send_text(text)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it has read nothing for {} s", STUCK_AFTER.as_secs()),
        };
        // The call may be over.
        let _ = stuck.send(problem);
        return;
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, sender.close(1000, "")).await;
}
