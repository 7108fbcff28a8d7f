//! A call's connection to its agent, whatever protocol it speaks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use rand::rngs::StdRng;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::connect::{ConnectError, Connector, WebSocketTarget};
use ringwire_agent::socket::{AgentReceiver, AgentSender, Received};
use ringwire_agent::twilio::{self, Command, StartInfo};
use ringwire_config::gateway::{Agent, Backend, GatewaySettings};
use ringwire_config::{ObjectRef, Reason};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for an agent that doesn't read: 5 s of audio. What is more is dropped, for recognisers want the present.
const QUEUE: usize = 250 + RESERVED;

/// Places among them for what is not audio.
const RESERVED: usize = 64;

/// An agent that reads nothing for so long is gone.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Sending the last messages may take so long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an agent could not be reached, for people.
pub struct Unreachable {
    /// `AgentUnreachable` or `AgentTimeout`.
    pub reason: Reason,
    /// What happened, without secrets.
    pub message: String,
}

impl Unreachable {
    fn new(error: &ConnectError, gateway: &ObjectRef) -> Self {
        let reason = if error.reason() == "AgentTimeout" {
            Reason::AgentTimeout
        } else {
            Reason::AgentUnreachable
        };
        let advice = if matches!(error, ConnectError::AddressNotAllowed { .. }) {
            format!(
                "; use another address, or list it in spec.allowedAgentAddresses of MediaGateway {gateway}"
            )
        } else {
            String::new()
        };
        Self {
            reason,
            message: format!("{error}{advice}"),
        }
    }
}

/// What the agent wants.
pub enum FromAgent {
    /// Something to play, mark or clear.
    Command(Command),
    /// A message that cannot be used; the call goes on.
    Unusable(String),
    /// The agent is gone: it ended the call.
    Closed(String),
}

/// A connected agent.
pub enum AgentLink {
    /// The caller hears himself.
    Echo,
    /// Twilio's Media Streams over a WebSocket.
    Twilio(Box<TwilioLink>),
}

/// See [`AgentLink::Twilio`].
pub struct TwilioLink {
    session: twilio::Session,
    queue: mpsc::Sender<String>,
    receiver: AgentReceiver,
    /// Why nothing more can be sent, once that is so.
    stuck: oneshot::Receiver<String>,
    /// Audio frames that the agent did not read in time.
    dropped: u64,
}

/// Connects to an agent. `about` is what it is told of the call, `rng` makes the identifiers of the stream.
pub async fn connect(
    agent: &Agent,
    settings: &GatewaySettings,
    connector: &Connector,
    about: BTreeMap<String, String>,
    mut rng: StdRng,
) -> Result<AgentLink, Unreachable> {
    let Backend::TwilioWebSocket {
        url,
        headers,
        custom_parameters,
    } = &agent.backend
    else {
        return Ok(AgentLink::Echo);
    };
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
    let nodes = settings.nodes.values();
    let deny_nodes: Vec<IpAddr> = nodes
        .flat_map(|node| {
            node.annotated
                .into_iter()
                .chain(node.external)
                .chain(node.internal.clone())
        })
        .collect();
    let policy = AddressPolicy {
        allow: settings.allowed_agent_addresses.clone(),
        deny_nodes,
        restrict: settings.restrict_agent_addresses,
    };
    let unreachable = |error: ConnectError| Unreachable::new(&error, &settings.gateway);
    let target = WebSocketTarget::new(url, headers, policy).map_err(unreachable)?;
    let timeout = Duration::from_secs(u64::from(agent.connect_timeout_seconds));
    let socket = connector
        .connect(&target, (Instant::now() + timeout).into())
        .await
        .map_err(unreachable)?;
    let session = twilio::Session::new(StartInfo {
        account_sid: twilio::new_sid("AC", &mut rng),
        call_sid: twilio::new_sid("CA", &mut rng),
        stream_sid: twilio::new_sid("MZ", &mut rng),
        custom_parameters: start_parameters(about, custom_parameters),
    });
    let (sender, receiver) = socket.split();
    let (queue, queued) = mpsc::channel(QUEUE);
    let (stuck_in, stuck) = oneshot::channel();
    tokio::task::spawn_local(write(sender, queued, stuck_in));
    Ok(AgentLink::Twilio(Box::new(TwilioLink {
        session,
        queue,
        receiver,
        stuck,
        dropped: 0,
    })))
}

/// What the agent gets at the start. What was configured outranks what the caller says.
fn start_parameters(
    mut about: BTreeMap<String, String>,
    configured: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    about.extend(configured.clone());
    about
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

impl TwilioLink {
    /// Marks, keys and the end: they have places of their own in the queue.
    fn send(&mut self, text: String) {
        if self.queue.try_send(text).is_err() {
            self.dropped += 1;
        }
    }

    /// Audio is dropped when the agent does not read, and never takes the place of other messages.
    fn send_audio(&mut self, text: String) {
        if self.queue.capacity() > RESERVED {
            self.send(text);
        } else {
            self.dropped += 1;
        }
    }
}

impl AgentLink {
    /// The call is answered.
    pub fn start(&mut self) {
        if let Self::Twilio(link) = self {
            link.send(twilio::Session::connected().to_owned());
            let start = link.session.start();
            link.send(start);
        }
    }

    /// 20 ms of the caller's audio. Gives back what to play at once, if the agent is an echo.
    pub fn audio<'a>(&mut self, ulaw: &'a [u8], timestamp_millis: u64) -> Option<&'a [u8]> {
        match self {
            Self::Echo => Some(ulaw),
            Self::Twilio(link) => {
                let mut text = String::with_capacity(512);
                link.session.media(ulaw, timestamp_millis, &mut text);
                link.send_audio(text);
                None
            }
        }
    }

    /// The caller pressed a key.
    pub fn digit(&mut self, digit: char) {
        if let Self::Twilio(link) = self {
            let text = link.session.dtmf(digit);
            link.send(text);
        }
    }

    /// The audio before a mark was played.
    pub fn mark_played(&mut self, name: &str) {
        if let Self::Twilio(link) = self {
            let text = link.session.mark(name);
            link.send(text);
        }
    }

    /// The call is over. The connection closes behind what is still queued.
    pub fn stop(&mut self) {
        if let Self::Twilio(link) = self {
            let text = link.session.stop();
            link.send(text);
        }
    }

    /// Frames that the agent did not read in time.
    pub fn dropped(&self) -> u64 {
        match self {
            Self::Echo => 0,
            Self::Twilio(link) => link.dropped,
        }
    }

    /// What the agent says next. Never ends for an echo.
    pub async fn receive(&mut self) -> FromAgent {
        let Self::Twilio(link) = self else {
            return std::future::pending().await;
        };
        loop {
            let received = tokio::select! {
                received = link.receiver.receive() => received,
                // Without a word the writer has ended with the call.
                Ok(problem) = &mut link.stuck => return FromAgent::Closed(problem),
            };
            return match received {
                Some(Ok(Received::Text(text))) => match link.session.receive(&text) {
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
