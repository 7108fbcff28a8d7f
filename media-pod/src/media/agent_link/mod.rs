//! A call's connection to its agent, whatever protocol it speaks: made here, then carried by the packet loop's thread, which hears and
//! speaks through it. The call itself hears only what ends it.

mod audiosocket;
mod twilio;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use ringwire_agent::address::AddressPolicy;
use ringwire_agent::connect::{ConnectError, Connector};
use ringwire_config::gateway::{Agent, Backend, GatewaySettings};
use ringwire_config::{ObjectRef, Reason};
use ringwire_media::format::Format;
use ringwire_media::plane::{Agent as AgentLink, Turn};
use ringwire_media::stream::{Codec, RtpStream};
use tokio::sync::mpsc;

use self::audiosocket::AudioSocketLink;
use self::twilio::TwilioLink;

/// Audio frames that wait for an agent that doesn't read: 5 s. What is more is dropped, for recognisers want the present.
const QUEUED_AUDIO: usize = 250;

/// Further places for what is not audio.
const RESERVED: usize = 64;

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

/// What the call is told of its agent.
pub enum FromAgent {
    /// It speaks its protocol, where a connection alone does not prove that.
    Spoke,
    /// A message that cannot be used, the first one; the call goes on.
    Unusable(String),
    /// The agent is gone: it ended the call.
    Closed(String),
    /// The agent failed or speaks something else: the call cannot go on.
    Failed(Reason, String),
}

/// What there was of an agent, for the end of the call.
#[derive(Default)]
pub struct Tally {
    unusable: AtomicU64,
    dropped: AtomicU64,
}

impl Tally {
    /// Messages of the agent that could not be used.
    pub fn unusable(&self) -> u64 {
        self.unusable.load(Ordering::Relaxed)
    }

    /// Frames that the agent did not read in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// How an agent's connection tells the call.
struct Teller {
    told: mpsc::UnboundedSender<FromAgent>,
    tally: Arc<Tally>,
    /// That it speaks has been told, or needs not be.
    spoke: bool,
}

impl Teller {
    fn unusable(&self, error: &impl ToString) {
        if self.tally.unusable.fetch_add(1, Ordering::Relaxed) == 0 {
            self.tell(FromAgent::Unusable(error.to_string()));
        }
    }

    fn spoke(&mut self) {
        if !std::mem::replace(&mut self.spoke, true) {
            self.tell(FromAgent::Spoke);
        }
    }

    fn dropped(&self) {
        self.tally.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The agent is gone.
    fn closed(&self, why: &impl ToString) -> Turn {
        self.tell(FromAgent::Closed(why.to_string()));
        Turn::Over
    }

    fn tell(&self, what: FromAgent) {
        // A call that has ended needs not know.
        let _ = self.told.send(what);
    }
}

/// What a call hears of its agent.
pub struct Ears {
    /// What there is to tell; none once the agent is gone.
    pub told: Option<mpsc::UnboundedReceiver<FromAgent>>,
    /// What there was.
    pub tally: Arc<Tally>,
    /// Whether a connection alone proves that the right program listens.
    pub is_proof: bool,
    /// By which identifier the agent knows the call.
    pub call_id: Option<String>,
}

/// Connects to an agent. `about` is what it is told of the call, `rng` makes the identifiers of the stream.
pub async fn connect(
    agent: &Agent,
    settings: &GatewaySettings,
    connector: &Connector,
    about: BTreeMap<String, String>,
    mut rng: StdRng,
) -> Result<(Box<dyn AgentLink>, Ears), Unreachable> {
    let allowed = address_policy(settings);
    let timeout = Duration::from_secs(u64::from(agent.connect_timeout_seconds));
    let deadline = Instant::now() + timeout;
    // Bounded by what is told: that it speaks, one unusable message, one end.
    let (sender, told) = mpsc::unbounded_channel();
    let tally = Arc::new(Tally::default());
    let is_proof = match agent.backend {
        Backend::Echo | Backend::TwilioWebSocket { .. } => true,
        Backend::AudioSocket { .. } => false,
    };
    let teller = Teller {
        told: sender,
        tally: Arc::clone(&tally),
        spoke: is_proof,
    };
    let connected = match &agent.backend {
        Backend::Echo => Ok((
            Box::new(Echo { _teller: teller }) as Box<dyn AgentLink>,
            None,
        )),
        Backend::TwilioWebSocket {
            url,
            headers,
            custom_parameters,
        } => {
            let mut parameters = about;
            // What was configured outranks what the caller says.
            parameters.extend(custom_parameters.clone());
            twilio::connect(url, headers, allowed, connector, deadline)
                .await
                .map(|socket| {
                    let link = TwilioLink::new(socket, parameters, teller, &mut rng);
                    let call_id = link.call_id();
                    (Box::new(link) as Box<dyn AgentLink>, Some(call_id))
                })
        }
        Backend::AudioSocket {
            address,
            sample_rate,
        } => {
            let target = (address.as_str(), allowed, *sample_rate);
            AudioSocketLink::connect(target, connector, deadline, teller, &mut rng)
                .await
                .map(|link| {
                    let call_id = link.call_id();
                    (Box::new(link) as Box<dyn AgentLink>, Some(call_id))
                })
        }
    };
    let ears = |call_id| Ears {
        told: Some(told),
        tally,
        is_proof,
        call_id,
    };
    connected
        .map(|(agent, call_id)| (agent, ears(call_id)))
        .map_err(|error| Unreachable::new(&error, &settings.gateway))
}

/// How an agent hears and speaks, whatever codec the caller has.
#[derive(Debug, Clone, Copy, Default)]
pub enum Hearing {
    /// As the caller does.
    #[default]
    AsCodec,
    /// So.
    As(Format),
}

impl Hearing {
    /// That of this agent.
    pub fn of(backend: &Backend) -> Self {
        match backend {
            Backend::Echo => Self::AsCodec,
            Backend::TwilioWebSocket { .. } => Self::As(Format::Ulaw),
            Backend::AudioSocket { sample_rate, .. } => {
                Self::As(Format::Linear { rate: *sample_rate })
            }
        }
    }

    /// In a call with this codec.
    pub fn format(self, codec: Codec) -> Format {
        match self {
            Self::AsCodec => Format::of(codec),
            Self::As(format) => format,
        }
    }
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

/// What becomes of a connection that is being closed, after what the agent still says was read.
fn closing(over: bool, drained: bool) -> Turn {
    match (over, drained) {
        (true, _) => Turn::Over,
        (false, true) => Turn::Done,
        (false, false) => Turn::More,
    }
}

/// The caller hears himself.
struct Echo {
    /// The call hears nothing of it, and never that it is gone.
    _teller: Teller,
}

impl AgentLink for Echo {
    fn frame(
        &mut self,
        audio: &[u8],
        _timestamp_millis: u64,
        stream: &mut RtpStream,
        now: Instant,
    ) -> Turn {
        stream.play(audio, now);
        Turn::Done
    }
}
