//! The reasons that appear in conditions, Events, logs and call records. Names are stable: users' alerts match on them.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Why something is as it is; CamelCase, as in a condition's `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The text of the condition's `reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it means, for the troubleshooting page and `ringwire explain`.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)* }
            }
        }
    };
}

reasons! {
    /// All is well.
    Ready,
    /// The change is on its way to the pods.
    Progressing,
    /// The referenced Secret was read.
    Resolved,
    /// Nothing is referenced, so nothing had to be resolved.
    NotNeeded,
    /// The gateway takes this object.
    Accepted,
    /// The object is switched off by `spec.paused`.
    Paused,
    /// The number has no agent: calls are refused, not answered.
    NoAgent,
    /// The named agent does not exist.
    AgentNotFound,
    /// The named provider does not exist.
    ProviderNotFound,
    /// The named provider exists, but cannot be used as it stands.
    ProviderNotReady,
    /// The named gateway does not exist.
    GatewayNotFound,
    /// The gateway does not serve this namespace.
    NamespaceNotAllowed,
    /// The named Secret does not exist in the object's namespace.
    SecretNotFound,
    /// The Secret lacks a key that is needed.
    SecretKeyMissing,
    /// A value in the Secret cannot be used.
    SecretInvalid,
    /// The specification cannot be used; only an edit helps.
    InvalidSpec,
    /// An older object already owns this number.
    Conflict,
    /// The carrier holds our binding.
    Registered,
    /// The first answer of the carrier is awaited.
    Registering,
    /// The last refresh failed, but the carrier still holds our binding.
    RefreshFailing,
    /// `spec.registration.enabled` is false: calls are accepted by source address only.
    RegistrationDisabled,
    /// The carrier refused user name or password.
    WrongCredentials,
    /// The carrier refused the account.
    AccountForbidden,
    /// The carrier does not know the account.
    AccountNotFound,
    /// The carrier's host name has no address.
    ServerNotFound,
    /// The carrier did not reply.
    NoAnswer,
    /// Nothing listens at the carrier's address, or not with this transport.
    ConnectionRefused,
    /// The carrier's certificate is not good for its name.
    TlsUntrusted,
    /// No TLS connection to the carrier came about.
    TlsFailed,
    /// The carrier wants a longer registration interval than we can ask for.
    IntervalTooShort,
    /// The carrier answered with a failure of its own.
    ServerError,
    /// The carrier no longer lists our binding.
    BindingRemoved,
    /// The carrier answered the REGISTER with something that is no success.
    RegistrationRejected,
    /// The carrier asks for an authentication that we don't know.
    ChallengeUnsupported,
    /// No pod has reported yet.
    WaitingForPod,
    /// The pod that holds the registration has not been seen for 15 s.
    PodUnreachable,
    /// The source address is not allowed to call.
    SourceNotAllowed,
    /// The caller was asked for a user name and password, and gave none.
    CredentialsMissing,
    /// The caller's user name or password is wrong.
    CredentialsRefused,
    /// The sender calls itself a scanner: it gets no answer.
    ScannerIgnored,
    /// A stranger sends more than strangers may: it gets no answer.
    FloodIgnored,
    /// The source is shut out for a while, for it sent too much: it gets no answer.
    SourceBanned,
    /// No object has the dialled number.
    NumberNotFound,
    /// The agent could not be reached.
    AgentUnreachable,
    /// The agent did not accept the connection in time.
    AgentTimeout,
    /// The agent closed the connection.
    AgentClosed,
    /// The agent reported an error.
    AgentFailed,
    /// The agent does not speak the protocol of its backend.
    AgentProtocolError,
    /// The agent's connection works.
    AgentReachable,
    /// The agent has not been called yet.
    NotCalledYet,
    /// The agent sent more audio than may be queued.
    AgentAudioOverflow,
    /// Sound goes one way only.
    OneWayAudio,
    /// Both sides have no codec in common.
    CodecMismatch,
    /// A codec is listed that this build does not have.
    CodecNotBuilt,
    /// The INVITE asks for something that we cannot do.
    CallRefused,
    /// One side insists on encryption that the other one does not have.
    EncryptionRequired,
    /// The handshake for the keys of encrypted media failed.
    EncryptionFailed,
    /// The keys of encrypted media travel in SIP messages that are not encrypted.
    KeysInClear,
    /// A limit was reached, or the gateway cannot take more calls.
    AtCapacity,
    /// The gateway is stopping and takes no new calls.
    Draining,
    /// Packets arrive from another address than the one we advertise.
    AddressMismatch,
    /// No address is known yet that the carrier could reach.
    NoAddress,
    /// Addresses that the carrier can reach are known.
    AddressKnown,
    /// The callers' own addresses do not reach the gateway, so it cannot tell who calls.
    SourceAddressLost,
    /// The way that carriers should take to the gateway is not there without a cluster.
    ExposureIgnored,
    /// Pods are missing or not ready.
    PodsNotReady,
    /// Pod security refuses the pods.
    PodSecurityDenied,
    /// The configuration does not fit into its Secrets.
    ConfigTooLarge,
    /// The API server refused a part of the gateway, or somebody else's object has its name.
    ApplyFailed,
    /// The gateway's pods are of a version that does not understand the object.
    NewerVersionNeeded,
    /// The caller hung up.
    CallerHungUp,
    /// Another call took this one's place, with the same agent.
    Replaced,
    /// The caller gave up before the answer.
    CallerCancelled,
    /// The caller is gone: no packets, and no answer to OPTIONS.
    CallerGone,
    /// The call reached `maxCallSeconds`.
    MaxDuration,
    /// The caller never confirmed the answer.
    NoAck,
    /// An error inside the gateway ended the call.
    InternalError,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_troubleshooting_page() {
        let page = include_str!("../../../docs/troubleshooting.md");
        let missing: Vec<_> = Reason::ALL
            .iter()
            .filter(|reason| !page.contains(&format!("| `{reason}` |")))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
