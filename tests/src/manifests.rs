//! YAML of the kinds, as short as tests need it. Everything is in the namespace `default`.

use std::fmt::Display;

/// The number that tests call.
pub const NUMBER: &str = "+34911234567";

/// A SipProvider called `trunk` without registration, whose carrier is at `server`; `more` are further lines of the spec, flow style.
pub fn static_trunk(server: impl Display, more: &str) -> String {
    object(
        "SipProvider",
        "trunk",
        &format!("{{server: {server}, registration: {{enabled: false}}, {more}}}"),
    )
}

/// A SipProvider that registers with the account of the Secret `account`; `more` are further fields of the spec.
pub fn registering_trunk(name: &str, server: impl Display, more: &str) -> String {
    object(
        "SipProvider",
        name,
        &format!("{{server: {server}, credentialsSecretRef: {{name: account}}, {more}}}"),
    )
}

/// A Secret with user name and password.
pub fn account(username: &str, password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: account}}\nstringData: {{username: {username}, password: {password}}}\n"
    )
}

/// A PhoneNumber of the provider; without agent if that is empty.
pub fn number(name: &str, number: &str, provider: &str, agent: &str) -> String {
    let agent = if agent.is_empty() {
        String::new()
    } else {
        format!(", agentRef: {{name: {agent}}}")
    };
    object(
        "PhoneNumber",
        name,
        &format!("{{number: \"{number}\", providerRef: {{name: {provider}}}{agent}}}"),
    )
}

/// A VoiceAgent with the built-in echo; `more` are further fields of the spec.
pub fn echo(name: &str, more: &str) -> String {
    object("VoiceAgent", name, &format!("{{echo: {{}}, {more}}}"))
}

/// A VoiceAgent that is reached by WebSocket.
pub fn web_socket(name: &str, url: &str, more: &str) -> String {
    object(
        "VoiceAgent",
        name,
        &format!("{{webSocket: {{url: \"{url}\"}}, {more}}}"),
    )
}

/// A VoiceAgent that speaks AudioSocket.
pub fn audio_socket(name: &str, address: impl std::fmt::Display, more: &str) -> String {
    object(
        "VoiceAgent",
        name,
        &format!("{{audioSocket: {{address: \"{address}\"}}, {more}}}"),
    )
}

/// A MediaGateway; `spec` in flow style.
pub fn media_gateway(spec: &str) -> String {
    object("MediaGateway", "default", spec)
}

/// An object of a kind of ours; `spec` in flow style.
pub fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ringwire.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}
