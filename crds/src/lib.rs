//! The kinds of Ringwire: what a user writes (`spec`) and what the operator reports (`status`).
//!
//! | kind | is |
//! | --- | --- |
//! | [`SipProvider`] | one account with a carrier |
//! | [`PhoneNumber`] | one E.164 number on a provider, and the agent that answers it |
//! | [`VoiceAgent`] | who answers, and how to reach it |
//! | [`MediaGateway`] | the pods that carry the calls |
//!
//! The documentation of the fields is what `kubectl explain` shows. [`generate`] turns the types into the
//! `CustomResourceDefinition`s in `crds/*.yaml`, [`schema`] checks an object against them as the API server would, and
//! [`table`] prints objects as `kubectl get` would. What an object *means* (presets, references between objects) is not
//! decided here but in `ringwire-config`.

mod common;
#[expect(
    clippy::doc_markdown,
    clippy::duplicated_attributes,
    reason = "columns repeat keys; kubectl explain shows the docs as they stand, where backticks are only noise"
)]
mod media_gateway;
#[expect(clippy::duplicated_attributes, reason = "as above")]
mod phone_number;
#[expect(
    clippy::doc_markdown,
    clippy::duplicated_attributes,
    reason = "as above"
)]
mod sip_provider;
#[expect(
    clippy::doc_markdown,
    clippy::duplicated_attributes,
    reason = "as above"
)]
mod voice_agent;

#[doc(hidden)]
pub mod cases;
pub mod generate;
pub mod schema;
pub mod table;

pub use common::{
    AgentRef, GatewayRef, MAX_REASON, MAX_STATUS_ITEMS, MAX_STATUS_TEXT, ProviderRef, SecretRef,
    clip,
};
pub use generate::{Kind, crds};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
pub use media_gateway::{
    AllowedNamespaces, Exposure, ExposureType, ImagePullPolicy, MediaGateway, MediaGatewaySpec,
    MediaGatewayStatus, NamespacesFrom, NodePorts, PodTemplate, PortRange, RegistrarSpec, RtpSpec,
    SessionAffinity, SipExposure, SipExposureType, SipService, SipSpec,
};
pub use phone_number::{PhoneNumber, PhoneNumberSpec, PhoneNumberState, PhoneNumberStatus};
pub use sip_provider::{
    CalledNumberFrom, Codec, MediaEncryption, ProviderLimits, ProviderType, RefusalStatus,
    RegistrationSpec, RegistrationState, RegistrationStatus, SipProvider, SipProviderSpec,
    SipProviderStatus, Transport,
};
pub use voice_agent::{
    AgentLimits, AudioSocketBackend, BackendKind, CallerAudio, EchoBackend, SAMPLE_RATES,
    VoiceAgent, VoiceAgentSpec, VoiceAgentStatus, WebSocketBackend, WebSocketProtocol,
};

/// The API group of all kinds.
pub const GROUP: &str = "ringwire.dev";
/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all kinds.
pub const API_VERSION: &str = "ringwire.dev/v1alpha1";

/// The condition types that appear in `.status.conditions`.
pub mod condition {
    /// Every kind: the object does what it should. `Unknown` while progressing, `False` only for a failure.
    pub const READY: &str = "Ready";
    /// `SipProvider`: the carrier holds our registration.
    pub const REGISTERED: &str = "Registered";
    /// `SipProvider`: the Secret with the account exists and has its keys.
    pub const CREDENTIALS_RESOLVED: &str = "CredentialsResolved";
    /// `SipProvider`: a gateway serves this provider.
    pub const GATEWAY_ACCEPTED: &str = "GatewayAccepted";
    /// `SipProvider`, only where it is so: media is encrypted with keys that travel in SIP messages which are not.
    pub const KEYS_IN_CLEAR: &str = "KeysInClear";
    /// False where a SipProvider lists a codec that this build does not have.
    pub const CODECS_BUILT: &str = "CodecsBuilt";
    /// `SipProvider`, only where it is so: sound went one way only in the last call that told.
    pub const ONE_WAY_AUDIO: &str = "OneWayAudio";
    /// `VoiceAgent`: the last attempt to reach the agent succeeded.
    pub const BACKEND_REACHABLE: &str = "BackendReachable";
    /// `MediaGateway`: its pods know the addresses to tell carriers.
    pub const ADDRESSED: &str = "Addressed";
}

/// The keys of Secrets that Ringwire reads.
pub mod secret_key {
    /// The SIP user name of the account.
    pub const USERNAME: &str = "username";
    /// The password of the account.
    pub const PASSWORD: &str = "password";
    /// The user name in the digest answer, where it differs from `username`.
    pub const AUTH_USERNAME: &str = "authUsername";
    /// The only realm whose challenges are answered; any when absent.
    pub const REALM: &str = "realm";
    /// Certificates of the authorities that are trusted, PEM.
    pub const CA: &str = "ca.crt";
    /// A certificate with its chain, PEM; as in Secrets of type `kubernetes.io/tls`.
    pub const CERTIFICATE: &str = "tls.crt";
    /// The certificate's private key, PEM.
    pub const PRIVATE_KEY: &str = "tls.key";
}
