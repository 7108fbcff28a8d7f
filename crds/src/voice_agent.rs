//! `VoiceAgent`: who answers, and how to reach it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::common::{SecretRef, conditions, value_rule, without_description};

/// Who answers calls, how to reach it and what it may do.
///
/// Exactly one backend is set. The agent is connected before the call is answered: if it can't be reached, the caller is
/// not billed and the status says why.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ringwire.dev",
    version = "v1alpha1",
    kind = "VoiceAgent",
    plural = "voiceagents",
    namespaced,
    status = "VoiceAgentStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "ringwire",
    shortname = "vagent",
    doc = "Who answers calls, how to reach it and what it may do.",
    printcolumn(
        name = "Backend",
        type_ = "string",
        json_path = ".status.backend",
        description = "How the agent is reached."
    ),
    printcolumn(
        name = "Numbers",
        type_ = "integer",
        json_path = ".status.phoneNumbers",
        description = "PhoneNumbers that this agent answers."
    ),
    printcolumn(
        name = "Calls",
        type_ = "integer",
        json_path = ".status.activeCalls",
        description = "Calls in progress."
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Is the agent configured rightly?"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="BackendReachable")].status"#,
        priority = "1",
        description = "Did the last call reach the agent?"
    ),
    printcolumn(
        name = "Last Error",
        type_ = "string",
        json_path = ".status.lastError",
        priority = "1",
        description = "What went wrong the last time that something did."
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.echo) ? 1 : 0) + (has(self.webSocket) ? 1 : 0) + (has(self.audioSocket) ? 1 : 0) == 1")
    .message("spec must set exactly one backend: spec.echo, spec.webSocket or spec.audioSocket"))]
pub struct VoiceAgentSpec {
    /// The built-in agent that sends the caller's audio back, to test a trunk: "echo: {}".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<EchoBackend>,

    /// An agent that is reached by WebSocket, one connection for each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_socket: Option<WebSocketBackend>,

    /// An agent that speaks AudioSocket, the protocol of Asterisk's res_audiosocket, one TCP connection for each call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_socket: Option<AudioSocketBackend>,

    /// How long the agent may take to accept a call, in seconds, 1 to 30; after that the call is refused without having
    /// been answered. Default: 5.
    #[serde(default = "connect_timeout_seconds")]
    #[schemars(range(min = 1, max = 30))]
    pub connect_timeout_seconds: u32,

    /// How late the agent's audio may be within a talk spurt without the caller hearing a gap, in milliseconds, 0 to 200: the first audio
    /// after silence waits so long. 0 plays at once. An agent that sends faster than real time needs none and waits for none. Default: 20.
    #[serde(default = "cushion_millis")]
    #[schemars(range(min = 0, max = 200))]
    pub cushion_millis: u32,

    /// How the agent hears the caller. Paced: a frame every 20 ms, however the network delivers; so packets wait as long as it is uneven.
    /// OnArrival: each frame as soon as it has come, so nothing waits but for what is missing; for agents that do not mind a few frames at
    /// once. Default: Paced.
    #[serde(default)]
    pub caller_audio: CallerAudio,

    /// What a call may use up.
    #[serde(default)]
    pub limits: AgentLimits,
}

fn connect_timeout_seconds() -> u32 {
    5
}

fn cushion_millis() -> u32 {
    20
}

impl Default for VoiceAgentSpec {
    /// No backend: set one before it is applied.
    fn default() -> Self {
        Self {
            echo: None,
            web_socket: None,
            audio_socket: None,
            connect_timeout_seconds: connect_timeout_seconds(),
            cushion_millis: cushion_millis(),
            caller_audio: CallerAudio::default(),
            limits: AgentLimits::default(),
        }
    }
}

/// How an agent hears the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum CallerAudio {
    /// A frame every 20 ms.
    #[default]
    Paced,
    /// Each frame as soon as it has come.
    OnArrival,
}

/// The built-in agent that sends the caller's audio back. It has no settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EchoBackend {}

/// An agent that is reached by WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketBackend {
    /// Where the agent listens: ws://HOST[:PORT]/PATH or, encrypted, wss://HOST[:PORT]/PATH, at most 2048 characters.
    /// Example: ws://bot.agents.svc:8080/media. Passwords and tokens belong into headersSecretRef.
    #[schemars(length(min = 6, max = 2048), transform = url_rule)]
    pub url: String,

    /// What is spoken on the connection: Twilio (Twilio Media Streams). Default: Twilio.
    #[serde(default)]
    pub protocol: WebSocketProtocol,

    /// A Secret of this namespace, each key of which is sent as an HTTP header when connecting. Example: a key Authorization
    /// with the value "Bearer …". Default: no further headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret_ref: Option<SecretRef>,

    /// Names and values that the agent gets at the start of each call (customParameters of Twilio's start message), at most
    /// 32, beside what is known of the caller: caller_id, called_number, from_uri and others. Of two with the same name the one
    /// given here holds. Names up to 128, values up to 1024 characters. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = custom_parameters_rule)]
    pub custom_parameters: BTreeMap<String, String>,
}

fn url_rule(schema: &mut Schema) {
    value_rule(
        schema,
        r"self.matches('^wss?://([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?([/?][!-~]*)?$') && !self.contains('#')",
        "spec.webSocket.url must be ws://HOST[:PORT]/PATH or wss://HOST[:PORT]/PATH, without user, password, spaces and #",
    );
}

fn custom_parameters_rule(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), 32.into());
    schema.insert("x-kubernetes-map-type".to_owned(), "granular".into());
    if let Some(serde_json::Value::Object(values)) = schema.get_mut("additionalProperties") {
        values.insert("maxLength".to_owned(), 1024.into());
    }
    value_rule(
        schema,
        "self.all(name, name.size() >= 1 && name.size() <= 128)",
        "spec.webSocket.customParameters: each name must have 1 to 128 characters",
    );
}

/// What is spoken on the WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum WebSocketProtocol {
    /// Twilio Media Streams.
    #[default]
    Twilio,
}

/// An agent that speaks AudioSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioSocketBackend {
    /// Where the agent listens: HOST:PORT, an IPv6 address in brackets, at most 261 characters. Example: bot.agents.svc:9092. The
    /// connection is not encrypted, and the agent is told a random UUID of the call, which is in the call record, too.
    #[schemars(length(min = 3, max = 261), transform = address_rule)]
    pub address: String,

    /// Samples per second of the audio, both ways: 8000, 12000, 16000, 24000, 32000 or 48000. More than 8000 is heard of callers with
    /// G722, Opus or L16, and the agent has to know the kinds of frames for it: the protocol had 8000 only at first. Default: 8000.
    #[serde(default = "sample_rate")]
    #[schemars(range(min = 8000, max = 48_000), transform = sample_rate_rule)]
    pub sample_rate: u32,
}

impl Default for AudioSocketBackend {
    /// No address: set one before it is applied.
    fn default() -> Self {
        Self {
            address: String::new(),
            sample_rate: sample_rate(),
        }
    }
}

/// What Asterisk's res_audiosocket has a kind of frame for, as far as calls have sound in it.
pub const SAMPLE_RATES: [u32; 6] = [8000, 12_000, 16_000, 24_000, 32_000, 48_000];

fn sample_rate() -> u32 {
    SAMPLE_RATES[0]
}

fn sample_rate_rule(schema: &mut Schema) {
    schema.insert("enum".to_owned(), SAMPLE_RATES.to_vec().into());
}

fn address_rule(schema: &mut Schema) {
    value_rule(
        schema,
        r"self.matches('^([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$')",
        "spec.audioSocket.address must be HOST:PORT with a port from 1 to 65535 and no scheme, for example bot.agents.svc:9092",
    );
}

/// What a call may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentLimits {
    /// The longest a call may last, in seconds from its answer, 1 to 86400; then it is hung up. Default: 7200 (two hours).
    #[serde(default = "max_call_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub max_call_seconds: u32,

    /// The most calls at a time that this agent takes, over all providers of a gateway, 1 to 100000; further ones are refused as
    /// busy (486). Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_calls: Option<u32>,
}

fn max_call_seconds() -> u32 {
    7200
}

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            max_call_seconds: max_call_seconds(),
            max_calls: None,
        }
    }
}

/// What is known about an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoiceAgentStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// How the agent is reached: Echo, WebSocket or AudioSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendKind>,

    /// How many PhoneNumbers this agent answers.
    #[serde(default)]
    pub phone_numbers: u32,

    /// Calls with this agent in progress.
    #[serde(default)]
    pub active_calls: u32,

    /// What went wrong the last time that something did, for example "AgentTimeout: no answer from ws://bot:8080 in 5 s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_error: Option<String>,

    /// When lastError happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_error_at: Option<Time>,

    /// Ready: the spec can be carried out. BackendReachable: the last call reached the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = conditions)]
    pub conditions: Vec<Condition>,
}

/// How an agent is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum BackendKind {
    /// The built-in echo.
    Echo,
    /// By WebSocket.
    WebSocket,
    /// By TCP with AudioSocket.
    AudioSocket,
}
