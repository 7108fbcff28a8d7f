//! A call's connection to its agent, whatever protocol it speaks.

mod audiosocket;
mod twilio;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use ringwire_agent::Command;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::connect::{ConnectError, Connector};
use ringwire_config::gateway::{Agent, Backend, GatewaySettings};
use ringwire_config::{ObjectRef, Reason};

use self::audiosocket::AudioSocketLink;
use self::twilio::TwilioLink;

/// Audio frames that wait for an agent that doesn't read: 5 s. What is more is dropped, for recognisers want the present.
const QUEUED_AUDIO: usize = 250;

/// Further places for what is not audio.
const RESERVED: usize = 64;

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
    /// The agent failed or speaks something else: the call cannot go on.
    Failed(Reason, String),
}

/// A connected agent.
pub enum AgentLink {
    /// The caller hears himself.
    Echo,
    /// Twilio's Media Streams over a WebSocket.
    Twilio(Box<TwilioLink>),
    /// Asterisk's AudioSocket over TCP.
    AudioSocket(Box<AudioSocketLink>),
}

/// Connects to an agent. `about` is what it is told of the call, `rng` makes the identifiers of the stream.
pub async fn connect(
    agent: &Agent,
    settings: &GatewaySettings,
    connector: &Connector,
    about: BTreeMap<String, String>,
    mut rng: StdRng,
) -> Result<AgentLink, Unreachable> {
    let allowed = address_policy(settings);
    let timeout = Duration::from_secs(u64::from(agent.connect_timeout_seconds));
    let deadline = Instant::now() + timeout;
    let connected = match &agent.backend {
        Backend::Echo => Ok(AgentLink::Echo),
        Backend::TwilioWebSocket {
            url,
            headers,
            custom_parameters,
        } => {
            let mut parameters = about;
            // What was configured outranks what the caller says.
            parameters.extend(custom_parameters.clone());
            TwilioLink::connect(url, headers, allowed, connector, deadline)
                .await
                .map(|socket| TwilioLink::new(socket, parameters, &mut rng))
                .map(|link| AgentLink::Twilio(Box::new(link)))
        }
        Backend::AudioSocket { address } => {
            AudioSocketLink::connect(address, allowed, connector, deadline, &mut rng)
                .await
                .map(|link| AgentLink::AudioSocket(Box::new(link)))
        }
    };
    connected.map_err(|error| Unreachable::new(&error, &settings.gateway))
}

/// Where agents of this gateway may be.
fn address_policy(settings: &GatewaySettings) -> AddressPolicy {
    let nodes = settings.nodes.values();
    let deny_nodes: Vec<IpAddr> = nodes
        .flat_map(|node| {
            node.annotated
                .into_iter()
                .chain(node.external)
                .chain(node.internal.clone())
        })
        .collect();
    AddressPolicy {
        allow: settings.allowed_agent_addresses.clone(),
        deny_nodes,
        restrict: settings.restrict_agent_addresses,
    }
}

impl AgentLink {
    /// The call is answered.
    pub fn start(&mut self) {
        match self {
            Self::Echo => {}
            Self::Twilio(link) => link.start(),
            Self::AudioSocket(link) => link.start(),
        }
    }

    /// Whether a connection alone proves that the right program listens.
    pub fn is_proof(&self) -> bool {
        match self {
            Self::Echo | Self::Twilio(_) => true,
            Self::AudioSocket(_) => false,
        }
    }

    /// By which identifier the agent knows the call.
    pub fn call_id(&self) -> Option<String> {
        match self {
            Self::Echo => None,
            Self::Twilio(link) => Some(link.call_id()),
            Self::AudioSocket(link) => Some(link.call_id()),
        }
    }

    /// 20 ms of the caller's audio. Gives back what to play at once, if the agent is an echo.
    pub fn audio<'a>(&mut self, ulaw: &'a [u8], timestamp_millis: u64) -> Option<&'a [u8]> {
        match self {
            Self::Echo => return Some(ulaw),
            Self::Twilio(link) => link.audio(ulaw, timestamp_millis),
            Self::AudioSocket(link) => link.audio(ulaw),
        }
        None
    }

    /// The caller pressed a key.
    pub fn digit(&mut self, digit: char) {
        match self {
            Self::Echo => {}
            Self::Twilio(link) => link.digit(digit),
            Self::AudioSocket(link) => link.digit(digit),
        }
    }

    /// The audio before a mark was played.
    pub fn mark_played(&mut self, name: &str) {
        match self {
            // These set none.
            Self::Echo | Self::AudioSocket(_) => {}
            Self::Twilio(link) => link.mark_played(name),
        }
    }

    /// The call is over. The connection closes behind what is still queued.
    pub fn stop(&mut self) {
        match self {
            Self::Echo => {}
            Self::Twilio(link) => link.stop(),
            Self::AudioSocket(link) => link.stop(),
        }
    }

    /// Frames that the agent did not read in time.
    pub fn dropped(&self) -> u64 {
        match self {
            Self::Echo => 0,
            Self::Twilio(link) => link.dropped(),
            Self::AudioSocket(link) => link.dropped(),
        }
    }

    /// Takes back the memory of audio that was given as a command.
    pub fn reuse(&mut self, audio: Vec<u8>) {
        if let Self::AudioSocket(link) = self {
            link.reuse(audio);
        }
    }

    /// What the agent says next. Never ends for an echo. Safe to cancel.
    pub async fn receive(&mut self) -> FromAgent {
        match self {
            Self::Echo => std::future::pending().await,
            Self::Twilio(link) => link.receive().await,
            Self::AudioSocket(link) => link.receive().await,
        }
    }
}
