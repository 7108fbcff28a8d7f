//! What the pods of one gateway are told.
//!
//! Each entry is complete in itself, so that entries can be spread over Secrets ([`crate::shard`]) and arrive in any order.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ringwire_crds::{CalledNumberFrom, Codec, Transport};
pub use ringwire_crds::{CallerAudio, MediaEncryption};
use serde::{Deserialize, Serialize};

use crate::not_understood::NotUnderstood;
use crate::object::{NodeAddresses, ObjectRef};
use crate::secret::Secret;
use crate::token::TokenKey;

/// All that the pods of a gateway are told; [`crate::shard`] splits it by role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// What concerns the gateway as a whole.
    pub settings: GatewaySettings,
    /// SIP over TLS for carriers that connect to us, with its key: registrars only.
    pub tls: Option<ServerTls>,
    /// Who gets copies of SIP messages, with the password: registrars only.
    pub hep: Option<Hep>,
    /// The trunks, with their credentials: registrars only.
    pub providers: BTreeMap<ObjectRef, Provider>,
    /// The agents, with their credentials: media pods only.
    pub agents: BTreeMap<ObjectRef, Agent>,
}

/// What a registrar is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// What concerns the gateway as a whole.
    pub settings: GatewaySettings,
    /// SIP over TLS for carriers that connect to us.
    pub tls: Option<ServerTls>,
    /// Who gets copies of SIP messages.
    pub hep: Option<Hep>,
    /// The trunks by name.
    pub providers: BTreeMap<ObjectRef, Provider>,
    /// What is left out above.
    pub not_understood: NotUnderstood,
    /// Digests of the shards that this was read from; none without a cluster.
    pub shards: Vec<String>,
}

/// What a media pod is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaConfig {
    /// What concerns the gateway as a whole.
    pub settings: GatewaySettings,
    /// The agents by name.
    pub agents: BTreeMap<ObjectRef, Agent>,
    /// What is left out above.
    pub not_understood: NotUnderstood,
    /// Digests of the shards that this was read from; none without a cluster.
    pub shards: Vec<String>,
}

/// What concerns the gateway as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySettings {
    /// The gateway's name.
    pub gateway: ObjectRef,
    /// Where SIP comes in.
    pub sip: Exposure,
    /// UDP port of SIP.
    pub sip_udp_port: u16,
    /// TCP port of SIP.
    pub sip_tcp_port: u16,
    /// Where carriers reach SIP through Services, if through any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sip_fronts: BTreeMap<Transport, Front>,
    /// Where RTP comes in.
    pub rtp: Exposure,
    /// First and last UDP port of RTP.
    pub rtp_ports: (u16, u16),
    /// How long a stopping pod waits for its calls, in seconds.
    pub drain_seconds: u32,
    /// Agents' addresses that are allowed although they are loopback, link-local, metadata or node addresses.
    pub allowed_agent_addresses: Vec<IpNet>,
    /// Whether those addresses are refused at all.
    pub restrict_agent_addresses: bool,
    /// Addresses of the nodes by name, for pods on the host's network and for the agents' address check.
    pub nodes: BTreeMap<String, NodeAddresses>,
    /// Keys of Contact tokens, current key first.
    pub token_keys: Vec<TokenKey>,
}

/// How a role is reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// Whether the pods use their node's network.
    pub host_network: bool,
    /// Addresses to advertise instead of the pod's or node's own, if there is exactly one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// Where a Service is reached that leads to all registrars, or to those of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Front {
    /// At this address or name.
    At {
        /// The address or name.
        host: Host,
        /// The port.
        port: u16,
    },
    /// At the address of the pod's node.
    Node {
        /// The port.
        port: u16,
    },
    /// Nowhere yet.
    Nowhere,
}

/// SIP over TLS for carriers that connect to us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTls {
    /// The TCP port.
    pub port: u16,
    /// What we show.
    pub certificate: Certificate,
}

/// A collector of SIP messages that speaks HEP3 over UDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hep {
    /// Where it is.
    pub host: Host,
    /// The UDP port.
    pub port: u16,
    /// By which it knows us.
    pub capture_id: u32,
    /// What it asks of us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// A certificate of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The certificate and its chain, PEM.
    pub chain: String,
    /// Its private key, PEM.
    pub key: Secret,
}

/// TLS with a carrier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderTls {
    /// The name that its certificate has to be issued for; `None`: that of the server that is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The authorities that may have issued it, PEM; `None`: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// What we show; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// A host that is an address or a name to be looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A DNS name, lower case.
    Name(String),
}

impl Host {
    /// Reads an address (IPv6 with or without brackets) or takes the text for a name.
    pub fn parse(text: &str) -> Self {
        let bare = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.trim_end_matches('.').to_ascii_lowercase()),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    /// Its object.
    pub id: ObjectRef,
    /// The carrier's registrar and proxy.
    pub server: Host,
    /// Its port; `None`: the one that DNS gives, else the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How it is spoken to; `None`: as DNS says, else over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// How both sides prove who they are where that is over TLS.
    #[serde(default)]
    pub tls: ProviderTls,
    /// Where requests are sent instead of to `server`; the port as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_proxy: Option<(Host, Option<u16>)>,
    /// How to register; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// User part of our Contact: a call to it comes from a carrier that we registered with.
    pub contact_user: String,
    /// Whether `contact_user` is a random token, so that knowing it proves something.
    pub contact_user_is_secret: bool,
    /// Who may call besides the carrier's own addresses.
    pub allowed_sources: Vec<AllowedSource>,
    /// Who callers have to prove to be; `None`: they need not, `Some` of none: nobody can, for the Secret cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<Vec<Account>>,
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Whether media is encrypted.
    #[serde(default, skip_serializing_if = "MediaEncryption::is_none")]
    pub media_encryption: MediaEncryption,
    /// After how many seconds without packets a caller is asked whether he is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_timeout_seconds: Option<u32>,
    /// Where the dialled number is looked for; `None`: the order of DESIGN §5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_number_from: Option<CalledNumberFrom>,
    /// Country of national numbers, digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country_code: Option<String>,
    /// How many calls it may bring.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The numbers on this trunk, by E.164.
    pub numbers: BTreeMap<String, Number>,
}

/// What a caller proves to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The user name of the digest.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// How many calls a trunk may bring; `None`: as many as come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// At a time, over all pods of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_calls: Option<u32>,
    /// New ones per second, at each registrar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second: Option<u32>,
    /// At a time from one source, over all pods of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_calls_per_source: Option<u32>,
    /// New ones per second from one source, at each registrar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second_per_source: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How a trunk registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// User part of the address of record.
    pub username: String,
    /// User name of the digest.
    pub auth_username: String,
    /// Password of the digest.
    pub password: Secret,
    /// Realm to answer; `None`: whichever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// Domain of the address of record.
    pub from_domain: String,
    /// Interval to ask for, in seconds.
    pub expiry_seconds: u32,
    /// Changes whenever anything above or the server changes; reports name it, so that an old report is not taken for a new one.
    pub revision: String,
}

/// Whom a trunk accepts calls from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AllowedSource {
    /// A network or single address.
    Net(IpNet),
    /// The addresses of a name, looked up again as its TTL says.
    Name(String),
}

/// One number of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Number {
    /// Its object.
    pub id: ObjectRef,
    /// Who answers it; `None`: calls are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<ObjectRef>,
    /// How many calls at a time that agent takes; `None`: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_max_calls: Option<u32>,
}

/// One voice agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its object.
    pub id: ObjectRef,
    /// How it is reached.
    pub backend: Backend,
    /// How long it may take to accept a call, in seconds.
    pub connect_timeout_seconds: u32,
    /// How long the first audio of a talk spurt waits, in milliseconds.
    #[serde(default = "default_cushion_millis")]
    pub cushion_millis: u32,
    /// Whether the caller's audio is held back until it comes evenly.
    #[serde(default)]
    pub caller_audio: CallerAudio,
    /// Longest call, in seconds.
    pub max_call_seconds: u32,
}

/// That of operators that do not know of it.
fn default_cushion_millis() -> u32 {
    20
}

fn default_sample_rate() -> u32 {
    8000
}

/// How an agent is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// The caller hears himself.
    Echo,
    /// A WebSocket that speaks Twilio's Media Streams.
    TwilioWebSocket {
        /// `ws://` or `wss://`.
        url: String,
        /// Headers of the upgrade request.
        headers: BTreeMap<String, Secret>,
        /// `customParameters` of the start message.
        custom_parameters: BTreeMap<String, String>,
    },
    /// A TCP connection that speaks AudioSocket.
    AudioSocket {
        /// `HOST:PORT`.
        address: String,
        /// Samples per second, both ways.
        #[serde(default = "default_sample_rate")]
        sample_rate: u32,
    },
}
