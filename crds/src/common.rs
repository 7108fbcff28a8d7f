//! What several kinds share: references, limits of status texts, patterns and schema helpers.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The longest text, in characters, that a field of a status may hold (a condition's message may be longer).
pub const MAX_STATUS_TEXT: usize = 1024;
/// The longest machine-readable reason, in characters.
pub const MAX_REASON: usize = 128;
/// The most entries of a list in a status.
pub const MAX_STATUS_ITEMS: usize = 64;

/// Cuts `text` to `max` characters, so that what a carrier or agent said never makes a status too long to be written.
///
/// A cut text ends in `…`.
pub fn clip(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// `skip_serializing_if` for fields whose absence means their default.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A Secret of the same namespace, whose keys are fixed by the field that refers to it.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct SecretRef {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// A `SipProvider` of the same namespace.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct ProviderRef {
    /// Name of the SipProvider, in the namespace of this object.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// A `VoiceAgent` of the same namespace.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct AgentRef {
    /// Name of the VoiceAgent, in the namespace of this object.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// A `MediaGateway`, here or in another namespace.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct GatewayRef {
    /// Name of the MediaGateway.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Namespace of the MediaGateway. Default: the namespace of this object. A gateway of another namespace is used only if
    /// the operator shares that namespace (`--shared-gateway-namespaces`) and the gateway's allowedNamespaces agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
}

/// A host name whose last label starts with a letter, so that no mistyped IPv4 address passes for one.
pub(crate) const HOST_NAME: &str = r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\\.?";

/// CEL that is true when `self` is an IP address or host name, without port.
pub(crate) fn cel_host() -> String {
    format!("isIP(self) || self.matches('^{HOST_NAME}$')")
}

/// CEL that is true when `self` is an IP address, a CIDR or a host name.
pub(crate) fn cel_source() -> String {
    format!("isIP(self) || isCIDR(self) || self.matches('^{HOST_NAME}$')")
}

/// CEL that is true when `self` is a host name or IP address, with or without port (IPv6 with port: in brackets).
pub(crate) fn cel_host_port() -> String {
    format!(
        "isIP(self) || self.matches('^({HOST_NAME}|[0-9.]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{{1,5}})?$')"
    )
}

/// An enum's own description would replace that of the field which has it.
pub(crate) fn without_description(schema: &mut Schema) {
    schema.remove("description");
}

/// Adds a CEL rule to each item of a list.
pub(crate) fn item_rule(schema: &mut Schema, rule: &str, message: &str) {
    if let Some(Value::Object(items)) = schema.get_mut("items") {
        items.insert(
            "x-kubernetes-validations".to_owned(),
            json!([{ "rule": rule, "message": message }]),
        );
    }
}

/// Adds a CEL rule to a value.
pub(crate) fn value_rule(schema: &mut Schema, rule: &str, message: &str) {
    schema.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{ "rule": rule, "message": message }]),
    );
}

/// Conditions: a list-map by `type`. The rest of the item's schema stands as in metav1.Condition.
pub(crate) fn conditions(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(["type"]));
    schema.insert("maxItems".to_owned(), json!(16));
    let Some(Value::Object(properties)) = schema.pointer_mut("/items/properties") else {
        return;
    };
    let mut limit = |field: &str, keywords: Value| {
        if let (Some(Value::Object(field)), Value::Object(keywords)) =
            (properties.get_mut(field), keywords)
        {
            field.extend(keywords);
        }
    };
    limit(
        "type",
        json!({ "maxLength": 316, "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$" }),
    );
    limit(
        "status",
        json!({ "enum": ["True", "False", "Unknown"], "maxLength": 7 }),
    );
    limit(
        "reason",
        json!({ "minLength": 1, "maxLength": 1024, "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$" }),
    );
    limit("message", json!({ "maxLength": 32768 }));
    limit("observedGeneration", json!({ "minimum": 0 }));
    limit("lastTransitionTime", json!({ "maxLength": 64 }));
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn clips_by_characters_and_marks_the_cut() {
        assert_eq!(clip("añb", 3), "añb");
        assert_eq!(clip("añbc", 3), "añ…");
    }
}
