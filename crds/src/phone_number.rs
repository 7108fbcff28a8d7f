//! `PhoneNumber`: one E.164 number on a provider, and the agent that answers it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};

use crate::common::{AgentRef, ProviderRef, conditions, without_description};

/// One phone number of a provider, and the agent that answers calls to it.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ringwire.dev",
    version = "v1alpha1",
    kind = "PhoneNumber",
    plural = "phonenumbers",
    namespaced,
    status = "PhoneNumberStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "ringwire",
    shortname = "did",
    doc = "One phone number of a provider, and the agent that answers calls to it.",
    printcolumn(
        name = "Number",
        type_ = "string",
        json_path = ".spec.number",
        description = "The number, E.164."
    ),
    printcolumn(
        name = "Provider",
        type_ = "string",
        json_path = ".spec.providerRef.name",
        description = "The SipProvider whose number this is."
    ),
    printcolumn(
        name = "Agent",
        type_ = "string",
        json_path = ".status.agent",
        description = "The agent that answers."
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "Active, Inactive or Error."
    ),
    printcolumn(
        name = "Calls",
        type_ = "integer",
        json_path = ".status.activeCalls",
        description = "Calls in progress."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Last Call",
        type_ = "date",
        json_path = ".status.lastCallAt",
        priority = "1",
        description = "When the last call came in."
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = "1",
        description = "Why the number is in this state."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1",
        description = "What happened, and what to do."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberSpec {
    /// The number in E.164 form: +, country code, number, no spaces. In quotes, for without them YAML reads a whole number:
    /// "+34911234567".
    #[schemars(schema_with = "number_schema")]
    pub number: String,

    /// The SipProvider, in this namespace, that delivers calls to this number.
    pub provider_ref: ProviderRef,

    /// The VoiceAgent, in this namespace, that answers. A change holds from the next call; calls in progress keep their agent.
    /// Default: none; the number is Inactive and calls are refused, not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ref: Option<AgentRef>,
}

/// A string; an integer is let through by type, because only then can the rule's message say what to do about it.
fn number_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 64,
        "x-kubernetes-validations": [{
            "rule": r"string(self).matches('^[+][1-9][0-9]{1,14}$')",
            "message": "spec.number must be an E.164 number in quotes: + and 2 to 15 digits, for example \"+34911234567\" \
                (without quotes YAML reads an integer: quote it)",
        }],
    })
}

/// What is known about a number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhoneNumberStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Active: calls are answered. Inactive: it has no agent, calls are refused. Error: see the condition Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PhoneNumberState>,

    /// The agent that answers the next call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub agent: Option<String>,

    /// Calls to this number in progress.
    #[serde(default)]
    pub active_calls: u32,

    /// When the last call to this number came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_call_at: Option<Time>,

    /// Ready: calls to this number go where the spec says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = conditions)]
    pub conditions: Vec<Condition>,
}

/// Is the number answered?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum PhoneNumberState {
    /// Calls are answered.
    Active,
    /// No agent: calls are refused.
    Inactive,
    /// Something is wrong; the condition `Ready` says what.
    Error,
}
