//! VoiceAgent: its backend with headers filled in.

use std::collections::BTreeMap;

use ringwire_crds::{
    AudioSocketBackend, BackendKind, EchoBackend, SAMPLE_RATES, VoiceAgent, VoiceAgentSpec,
    WebSocketBackend, WebSocketProtocol,
};

use super::{Verdict, secrets};
use crate::gateway::{Agent, Backend};
use crate::object::{ObjectRef, Objects};
use crate::reason::Reason;
use crate::secret::Secret;

/// Headers that the WebSocket handshake sets itself (RFC 6455 section 4.1).
const RESERVED_HEADERS: &[&str] = &[
    "host",
    "upgrade",
    "connection",
    "content-length",
    "transfer-encoding",
];

/// Which backend the object names.
pub(super) fn kind(agent: &VoiceAgent) -> Option<BackendKind> {
    let VoiceAgentSpec {
        echo,
        web_socket,
        audio_socket,
        connect_timeout_seconds: _,
        cushion_millis: _,
        caller_audio: _,
        limits: _,
    } = &agent.spec;
    match (echo, web_socket, audio_socket) {
        (Some(_), None, None) => Some(BackendKind::Echo),
        (None, Some(_), None) => Some(BackendKind::WebSocket),
        (None, None, Some(_)) => Some(BackendKind::AudioSocket),
        _ => None,
    }
}

/// The agent's entry, or the verdict that says why it cannot be used.
pub(super) fn compile(agent: &VoiceAgent, objects: &Objects) -> Result<Agent, Verdict> {
    let id = ObjectRef::of(agent);
    let VoiceAgentSpec {
        echo,
        web_socket,
        audio_socket,
        connect_timeout_seconds,
        cushion_millis,
        caller_audio,
        limits,
    } = &agent.spec;
    let backend = match (echo, web_socket, audio_socket) {
        (Some(EchoBackend {}), None, None) => Backend::Echo,
        (None, Some(socket), None) => match socket.protocol {
            WebSocketProtocol::Twilio => Backend::TwilioWebSocket {
                url: socket.url.clone(),
                headers: headers(&id, socket, objects)?,
                custom_parameters: socket.custom_parameters.clone(),
            },
        },
        (
            None,
            None,
            Some(AudioSocketBackend {
                address,
                sample_rate,
            }),
        ) => {
            if !SAMPLE_RATES.contains(sample_rate) {
                let message = format!(
                    "spec.audioSocket.sampleRate: {sample_rate} is none of {SAMPLE_RATES:?}"
                );
                return Err(Verdict::no(Reason::InvalidSpec, message));
            }
            Backend::AudioSocket {
                address: address.clone(),
                sample_rate: *sample_rate,
            }
        }
        _ => {
            return Err(Verdict::no(
                Reason::InvalidSpec,
                "exactly one of spec.echo, spec.webSocket and spec.audioSocket must be set",
            ));
        }
    };
    Ok(Agent {
        id,
        backend,
        connect_timeout_seconds: *connect_timeout_seconds,
        cushion_millis: *cushion_millis,
        caller_audio: *caller_audio,
        max_call_seconds: limits.max_call_seconds,
    })
}

fn headers(
    id: &ObjectRef,
    socket: &WebSocketBackend,
    objects: &Objects,
) -> Result<BTreeMap<String, Secret>, Verdict> {
    let Some(reference) = &socket.headers_secret_ref else {
        return Ok(BTreeMap::new());
    };
    let field = "spec.webSocket.headersSecretRef";
    let secret = secrets::find(objects, &id.namespace, reference, field, &[])?;
    for (name, value) in secret.data {
        let usable = !name.is_empty()
            && !RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str())
            && !name.to_ascii_lowercase().starts_with("sec-websocket-");
        // Visible ASCII, blank and tab (RFC 9110 section 5.5); a trailing line feed is the usual accident.
        let clean = value
            .expose()
            .bytes()
            .all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte));
        if !usable {
            return Err(secret.invalid(name, "cannot be sent as a header; remove it"));
        }
        if !clean {
            let why = "has characters in its value that a header cannot carry, perhaps a trailing line feed (use `echo -n` or stringData)";
            return Err(secret.invalid(name, why));
        }
    }
    Ok(secret.data.clone())
}
