//! `SipProvider`: one account with a carrier.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::common::{
    GatewayRef, SecretRef, cel_host, cel_host_port, cel_source, conditions, is_default, item_rule,
    value_rule, without_description,
};

/// One account with a carrier: where the carrier is, how we authenticate, and whom we accept calls from.
///
/// With registration (the default) the carrier learns our address by itself, and `kubectl get sipproviders` shows
/// whether it accepted. Without, the carrier must be told the gateway's address.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ringwire.dev",
    version = "v1alpha1",
    kind = "SipProvider",
    plural = "sipproviders",
    namespaced,
    status = "SipProviderStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "ringwire",
    shortname = "sipp",
    shortname = "trunk",
    doc = "One account with a carrier: where the carrier is, how we authenticate, and whom we accept calls from.",
    printcolumn(
        name = "Type",
        type_ = "string",
        json_path = ".spec.type",
        description = "The carrier's preset."
    ),
    printcolumn(
        name = "Server",
        type_ = "string",
        json_path = ".status.server",
        description = "Where requests go."
    ),
    printcolumn(
        name = "Transport",
        type_ = "string",
        json_path = ".status.transport",
        description = "UDP, TCP or TLS."
    ),
    printcolumn(
        name = "Registration",
        type_ = "string",
        json_path = ".status.registration.state",
        description = "Does the carrier hold our registration?"
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
        description = "Can calls come in?"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.registration.reason",
        priority = "1",
        description = "Why the registration is in this state."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.registration.message",
        priority = "1",
        description = "What happened, and what to do."
    ),
    printcolumn(
        name = "Contact",
        type_ = "string",
        json_path = ".status.registration.contact",
        priority = "1",
        description = "Where the carrier sends calls to."
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'Generic' || has(self.server)")
    .message("spec.server is required when spec.type is Generic"))]
#[x_kube(validation = Rule::new("!self.registration.enabled || has(self.credentialsSecretRef)")
    .message("spec.credentialsSecretRef is required when spec.registration.enabled is true, which is the default"))]
pub struct SipProviderSpec {
    /// The carrier: Generic, Netelip, Zadarma, Telnyx, VoIPms or OVH. All but Generic only fill in server, port and
    /// transport where these are not set; the values in force are in the status. Default: Generic.
    #[serde(rename = "type", default)]
    pub type_: ProviderType,

    /// Host name or IP address of the carrier's SIP server, without port. Required for type Generic; for other types it
    /// replaces the preset, for example sip-eu.netelip.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), transform = server_rule)]
    pub server: Option<String>,

    /// Port of the carrier's SIP server, 1 to 65535. Default: for a host name the one that DNS names (SRV records, and then several
    /// servers in the order that DNS gives), else 5060, with TLS 5061.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// How SIP messages travel to the carrier: UDP, TCP or TLS. Default: the preset's; for Generic what DNS prefers for a host name
    /// (NAPTR records) when port is not set either, else UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,

    /// How the carrier proves who it is where it is spoken to over TLS, and how we do. Default: its certificate comes from a public
    /// authority and is issued for the server's name; we show none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: ProviderTls,

    /// Where requests are sent instead of server, if the carrier asks for an outbound proxy: a host name or IP address,
    /// with or without port, for example proxy.example.com:5080 or [2001:db8::5]:5060. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 261), transform = outbound_proxy_rule)]
    pub outbound_proxy: Option<String>,

    /// The Secret with the account, in this namespace. Keys: username (the SIP user name, not the display name),
    /// password, and where the carrier gave them authUsername (the user name for authentication only) and realm (the only
    /// realm to answer). A change of the Secret takes effect at once. Required while registration is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,

    /// The Secret with the user name and password that callers have to prove they know (digest authentication, MD5 or SHA-256), in this
    /// namespace. Keys: username, password. Without allowedSources calls are then taken from wherever they come, which suits a PBX
    /// without fixed address; with them, both must hold. A change of the Secret takes effect at once. Default: none, callers are known by
    /// their address or by dialling the contact that we registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming_credentials_secret_ref: Option<SecretRef>,

    /// Registration with the carrier. Default: enabled, for 300 seconds at a time.
    #[serde(default)]
    pub registration: RegistrationSpec,

    /// Who else may send us calls for this provider: IP addresses, CIDRs (203.0.113.0/24, 2001:db8::/32) and host names,
    /// at most 64. The addresses of the server, and calls to the address that we registered, are accepted without. To accept
    /// everyone write 0.0.0.0/0 and ::/0. With incomingCredentialsSecretRef all of these have to log in; without, the sound of calls may
    /// come from these addresses too, if the network is /16 or narrower (IPv6: /32). Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 253)),
        transform = allowed_sources_rule,
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_sources: Vec<String>,

    /// The codecs to accept, in order of preference; the first that the caller offers, too, is taken, whatever his own order. PCMA (G.711
    /// A-law, usual in Europe), PCMU (G.711 µ-law, usual in North America), G722 (wideband), Opus (wideband, little bandwidth, bears loss),
    /// L16 (uncompressed, 16 or 8 kHz, for links of one's own), AMR-WB (G.722.2, mobile networks), iLBC (narrow, bears loss) and G7221 (G.722.1,
    /// video rooms), which are in builds of one's own only (docs/codecs.md): others do without them, and the condition CodecsBuilt says so.
    /// Default: PCMA, then PCMU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), transform = codecs_rule, extend("x-kubernetes-list-type" = "atomic"))]
    pub codecs: Vec<Codec>,

    /// Whether the sound of calls is encrypted (SRTP). None: calls are in the clear, and one that comes only encrypted is refused. SDES: with
    /// keys in the SIP messages (RFC 4568), which are a secret only where SIP goes over TLS, see the condition KeysInClear. DTLS: with keys
    /// from a handshake beside the sound (RFC 5763). With both a call in the clear is refused (488). OptionalSDES, OptionalDTLS: encrypted
    /// where the carrier offers it, else in the clear. Default: None.
    #[serde(default, skip_serializing_if = "is_default")]
    pub media_encryption: MediaEncryption,

    /// After so many seconds without packets from the caller, hold left out, he is asked by SIP whether he is still there; the call ends
    /// only if he is not. Silence is no reason to hang up: callers mute themselves, and some codecs send nothing then. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 3600))]
    pub media_timeout_seconds: Option<u32>,

    /// Where the called number stands in an INVITE: RequestUri, PCalledPartyId (the header P-Called-Party-ID) or To. Default:
    /// the Request-URI unless it is the contact that we registered, then P-Called-Party-ID, then To.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_number_from: Option<CalledNumberFrom>,

    /// The country code, without +, of called numbers that the carrier sends in national form. With 34, the numbers
    /// 911234567, 34911234567 and 0034911234567 all mean +34911234567. Default: none, numbers must come with their country code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), regex(pattern = "^[1-9][0-9]{0,2}$"))]
    pub country_code: Option<String>,

    /// How many calls the provider may bring; further ones are refused as busy (486). Default: as many as the gateway can carry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: ProviderLimits,

    /// The MediaGateway that carries the calls. Default: the default gateway of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ref: Option<GatewayRef>,

    /// Stop using this provider: our registration is removed and new calls are refused, calls in progress go on.
    /// Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused: bool,
}

fn server_rule(schema: &mut Schema) {
    value_rule(
        schema,
        &cel_host(),
        "spec.server must be a host name or an IP address, without sip: and without port (the port goes to spec.port)",
    );
}

fn outbound_proxy_rule(schema: &mut Schema) {
    value_rule(
        schema,
        &cel_host_port(),
        "spec.outboundProxy must be HOST or HOST:PORT with a host name or an IP address (IPv6 with port in brackets)",
    );
}

fn from_domain_rule(schema: &mut Schema) {
    value_rule(
        schema,
        &cel_host(),
        "spec.registration.fromDomain must be a host name or an IP address, without sip: and without port",
    );
}

fn allowed_sources_rule(schema: &mut Schema) {
    item_rule(
        schema,
        &cel_source(),
        "spec.allowedSources: each entry must be an IP address, a CIDR such as 203.0.113.0/24, or a host name",
    );
}

fn codecs_rule(schema: &mut Schema) {
    value_rule(
        schema,
        "self.all(codec, self.exists_one(other, other == codec))",
        "spec.codecs must not name a codec twice",
    );
}

/// The carrier's preset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum ProviderType {
    /// Any carrier; `server` is required.
    #[default]
    Generic,
    /// netelip.com
    Netelip,
    /// zadarma.com
    Zadarma,
    /// telnyx.com
    Telnyx,
    /// voip.ms
    VoIPms,
    /// ovhtelecom.fr
    OVH,
}

/// The transport of SIP messages.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[schemars(transform = without_description)]
pub enum Transport {
    /// One message per datagram.
    #[default]
    UDP,
    /// Messages on a connection.
    TCP,
    /// Messages on an encrypted connection, to a server that proves who it is.
    TLS,
}

/// TLS with the carrier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderTls {
    /// The name that the carrier's certificate has to be issued for. Default: the outbound proxy's name if there is one, else the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), transform = server_name_rule)]
    pub server_name: Option<String>,

    /// The Secret with the authorities that may have issued the carrier's certificate, in this namespace; key: ca.crt (PEM). Only these
    /// are trusted then. A change takes effect with the next connection. Default: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,

    /// The Secret with the certificate that we show to the carrier, in this namespace, as cert-manager writes it; keys: tls.crt and
    /// tls.key (PEM). Default: none is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<SecretRef>,
}

fn server_name_rule(schema: &mut Schema) {
    value_rule(
        schema,
        &cel_host(),
        "spec.tls.serverName must be a host name or an IP address, without sip: and without port",
    );
}

/// An audio codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum Codec {
    /// G.711 µ-law, payload type 0.
    PCMU,
    /// G.711 A-law, payload type 8.
    PCMA,
    /// G.722, payload type 9.
    G722,
    /// Opus (RFC 7587).
    Opus,
    /// 16-bit linear at 16,000 or 8,000 samples per second.
    L16,
    /// AMR-WB, also G.722.2 (RFC 4867), of builds with the feature `amr-wb`.
    #[serde(rename = "AMR-WB")]
    AmrWb,
    /// iLBC (RFC 3952), of builds with the feature `ilbc`.
    #[serde(rename = "iLBC")]
    Ilbc,
    /// G.722.1 (RFC 5577), of builds with the feature `g7221`.
    G7221,
}

impl Codec {
    /// Its name in a manifest, which is that of its `rtpmap` but for the case.
    pub fn name(self) -> &'static str {
        match self {
            Self::PCMU => "PCMU",
            Self::PCMA => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "Opus",
            Self::L16 => "L16",
            Self::AmrWb => "AMR-WB",
            Self::Ilbc => "iLBC",
            Self::G7221 => "G7221",
        }
    }
}

/// Whether media is encrypted, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum MediaEncryption {
    /// In the clear.
    #[default]
    None,
    /// Keys in the session description, or no call.
    SDES,
    /// Keys in the session description if both have them.
    OptionalSDES,
    /// Keys from a handshake, or no call.
    DTLS,
    /// Keys from a handshake if both have them.
    OptionalDTLS,
}

impl MediaEncryption {
    /// All of them.
    const ALL: [Self; 5] = [
        Self::None,
        Self::SDES,
        Self::OptionalSDES,
        Self::DTLS,
        Self::OptionalDTLS,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::SDES => "SDES",
            Self::OptionalSDES => "OptionalSDES",
            Self::DTLS => "DTLS",
            Self::OptionalDTLS => "OptionalDTLS",
        }
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.name() == name)
    }

    /// Whether nothing is encrypted.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether keys stand in SIP messages.
    pub fn is_sdes(self) -> bool {
        matches!(self, Self::SDES | Self::OptionalSDES)
    }
}

/// Where the called number stands in an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum CalledNumberFrom {
    /// The user part of the Request-URI.
    RequestUri,
    /// The header P-Called-Party-ID (RFC 7315).
    PCalledPartyId,
    /// The user part of the To header.
    To,
}

/// Registration with the carrier (REGISTER, RFC 3261 section 10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationSpec {
    /// Register with the carrier, so that it knows where to send calls. Set it to false for a carrier that sends calls to
    /// a fixed address; then tell the carrier the gateway's address. Default: true.
    #[serde(default = "enabled")]
    pub enabled: bool,

    /// How long one registration should hold, in seconds, 60 to 7200. The carrier may choose less. It is refreshed well
    /// before it ends. Default: 300.
    #[serde(default = "expiry_seconds")]
    #[schemars(range(min = 60, max = 7200))]
    pub expiry_seconds: u32,

    /// The domain in From and To of REGISTER, if the carrier asks for one other than the server's name. Default: the
    /// server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), transform = from_domain_rule)]
    pub from_domain: Option<String>,

    /// The user part of the contact that we register, for carriers that insist on one (often the user name). Default: a
    /// random token which only the carrier knows, so that its calls are accepted from any address; a contactUser that others
    /// can guess loses this protection. Letters, digits and . _ + - up to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._+-]+$"))]
    pub contact_user: Option<String>,
}

/// How many calls a provider may bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderLimits {
    /// The most calls at a time, over all pods of the gateway, 1 to 100000: those in progress and those that ring. Example: the
    /// number of channels that the carrier sells. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_calls: Option<u32>,

    /// The most new calls per second that each registrar pod takes, 1 to 10000; as many may come at once after a pause.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub calls_per_second: Option<u32>,

    /// The most calls at a time from one source, an IPv4 address or IPv6 /64, over all pods of the gateway, 1 to 100000: those in
    /// progress and those that ring. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_calls_per_source: Option<u32>,

    /// The most new calls per second from one source, an IPv4 address or IPv6 /64, that each registrar pod takes, 1 to 10000; as many
    /// may come at once after a pause. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub calls_per_second_per_source: Option<u32>,
}

fn enabled() -> bool {
    true
}

fn expiry_seconds() -> u32 {
    300
}

impl Default for RegistrationSpec {
    fn default() -> Self {
        Self {
            enabled: enabled(),
            expiry_seconds: expiry_seconds(),
            from_domain: None,
            contact_user: None,
        }
    }
}

/// What is known about a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipProviderStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The registration with the carrier. Absent when registration is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationStatus>,

    /// Calls of this provider in progress.
    #[serde(default)]
    pub active_calls: u32,

    /// Where requests go, as in force: host:port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub server: Option<String>,

    /// The transport in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,

    /// The addresses that the server and the host names of allowedSources stand for now, sorted, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub resolved_addresses: Vec<String>,

    /// Addresses that were refused although they called a number of this provider, the latest first, at most 8: each is
    /// written as the entry to add to spec.allowedSources if the call was the carrier's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub refused_sources: Vec<String>,

    /// Calls of this provider that were refused, by reason, since the registrar pods started, at most 8 reasons. The count is brought
    /// up to date once a minute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"])
    )]
    pub refusals: Vec<RefusalStatus>,

    /// Ready: calls can come in. Registered: the carrier holds our registration. CredentialsResolved: the Secret and its
    /// keys are there. GatewayAccepted: a gateway serves this provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = conditions)]
    pub conditions: Vec<Condition>,
}

/// Does the carrier hold our registration?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum RegistrationState {
    /// It does.
    Registered,
    /// It does not.
    Unregistered,
    /// Not known: not tried yet, or the pod that would know is out of reach.
    #[default]
    Unknown,
}

/// The registration with the carrier, as the pod that keeps it sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationStatus {
    /// Registered, Unregistered or Unknown.
    #[serde(default)]
    pub state: RegistrationState,

    /// Why, in one word, for example WrongCredentials or NoAnswer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,

    /// What happened and what to do, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// The carrier's last answer, for example 200 OK or 403 Forbidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_response: Option<String>,

    /// The contact that we registered: where the carrier sends calls to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub contact: Option<String>,

    /// The address that the carrier sees our requests come from, as it told us (received and rport of Via).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub observed_address: Option<String>,

    /// Since when the carrier has held a registration of ours without interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub registered_at: Option<Time>,

    /// The pod that keeps the registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub by: Option<String>,
}

/// Calls of a provider that were refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusalStatus {
    /// Why, in one word, for example AtCapacity or NumberNotFound.
    #[schemars(length(max = 128))]
    pub reason: String,

    /// How many calls were refused for this reason.
    #[serde(default)]
    pub count: u64,

    /// What was said of the last one that was reported, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// When the last one that was reported was refused, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_at: Option<Time>,
}
