//! `MediaGateway`: the pods that carry the calls.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::common::{
    SecretRef, cel_host_port, conditions, is_default, item_rule, value_rule, without_description,
};

/// The pods that carry the calls: registrar pods, which speak SIP with the carriers, and media pods, which speak RTP with
/// them and connect the agents.
///
/// The operator makes one gateway by itself (from its settings), so most installations need no other. Pods of a gateway
/// know the credentials of all providers that it serves.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ringwire.dev",
    version = "v1alpha1",
    kind = "MediaGateway",
    plural = "mediagateways",
    namespaced,
    status = "MediaGatewayStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "ringwire",
    shortname = "mgw",
    doc = "The pods that carry the calls: how many, and at which addresses and ports carriers reach them.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Replicas",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "Media pods that there should be."
    ),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Media pods that are ready."
    ),
    printcolumn(
        name = "Addresses",
        type_ = "string",
        json_path = ".status.addresses",
        description = "Where carriers reach the gateway."
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
        description = "Can it take calls?"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = "1",
        description = "Why the gateway is in this state."
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
#[x_kube(validation = Rule::new("self.sip.udpPort < self.rtp.portRange.from || self.sip.udpPort > self.rtp.portRange.to")
    .message("spec.sip.udpPort must not lie within spec.rtp.portRange"))]
#[x_kube(validation = Rule::new("!has(self.sip.tls) || self.sip.tls.port != self.sip.tcpPort")
    .message("spec.sip.tls.port must not be spec.sip.tcpPort"))]
pub struct MediaGatewaySpec {
    /// How many media pods carry the calls, 0 to 100. kubectl scale and autoscalers set it. A pod that goes finishes its
    /// calls first (drainSeconds). Default: 1.
    #[serde(default = "replicas")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,

    /// Where SIP is spoken with carriers.
    #[serde(default)]
    pub sip: SipSpec,

    /// Where audio (RTP) is exchanged with carriers.
    #[serde(default)]
    pub rtp: RtpSpec,

    /// The pods that speak SIP with carriers.
    #[serde(default)]
    pub registrar: RegistrarSpec,

    /// How long a pod that is stopped lets its calls go on, in seconds, 0 to 86400; then they are hung up. Meanwhile it takes
    /// no new calls. Default: 300.
    #[serde(default = "drain_seconds")]
    #[schemars(range(min = 0, max = 86400))]
    pub drain_seconds: u32,

    /// The namespaces whose providers this gateway serves. Default: its own.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,

    /// Agents at loopback, link-local, cloud metadata and node addresses are refused, so that no tenant reaches them through
    /// the gateway, unless the address is listed here: IP addresses and CIDRs, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 64)),
        transform = allowed_agent_addresses_rule,
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_agent_addresses: Vec<String>,

    /// What the gateway's pods are made with: image, resources, where they run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pod_template: PodTemplate,
}

fn replicas() -> i32 {
    1
}

fn drain_seconds() -> u32 {
    300
}

impl Default for MediaGatewaySpec {
    fn default() -> Self {
        Self {
            replicas: replicas(),
            sip: SipSpec::default(),
            rtp: RtpSpec::default(),
            registrar: RegistrarSpec::default(),
            drain_seconds: drain_seconds(),
            allowed_namespaces: AllowedNamespaces::default(),
            allowed_agent_addresses: Vec::new(),
            pod_template: PodTemplate::default(),
        }
    }
}

fn allowed_agent_addresses_rule(schema: &mut Schema) {
    item_rule(
        schema,
        "isIP(self) || isCIDR(self)",
        "spec.allowedAgentAddresses: each entry must be an IP address or a CIDR such as 192.0.2.0/24",
    );
}

/// Where SIP is spoken with carriers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipSpec {
    /// How carriers reach the registrar pods.
    #[serde(default)]
    pub exposure: SipExposure,

    /// The UDP port for SIP, 1 to 65535. Default: 5060.
    #[serde(default = "sip_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub udp_port: u16,

    /// The TCP port for SIP, 1 to 65535. Default: 5060.
    #[serde(default = "sip_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub tcp_port: u16,

    /// SIP over TLS for carriers that connect to us. Default: none; connections that we make to carriers can speak TLS all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SipTls>,

    /// A Homer collector, which gets a copy of every SIP message with carriers, without secrets. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hep: Option<Hep>,
}

/// A collector of SIP messages that speaks HEP3 over UDP, such as Homer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hep {
    /// Where it listens: a host name or IP address, with or without UDP port, for example homer.monitoring.svc:9060 or
    /// [2001:db8::5]:9060. Default of the port: 9060.
    #[schemars(length(min = 1, max = 261), transform = hep_address_rule)]
    pub address: String,

    /// The number by which the collector tells this gateway from others (capture agent ID), 1 to 4294967295. Default: 1.
    #[serde(default = "capture_id")]
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub capture_id: u32,

    /// The Secret with the password of collectors that ask for one (authenticate key), in the gateway's namespace; key: password. It
    /// travels unencrypted, as HEP does. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretRef>,
}

fn capture_id() -> u32 {
    1
}

fn hep_address_rule(schema: &mut Schema) {
    value_rule(
        schema,
        &cel_host_port(),
        "spec.sip.hep.address must be HOST or HOST:PORT with a host name or an IP address (IPv6 with port in brackets)",
    );
}

/// SIP over TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipTls {
    /// The TCP port for SIP over TLS, 1 to 65535, another one than tcpPort. Default: 5061.
    #[serde(default = "sips_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// The Secret with our certificate and its key, in the gateway's namespace, as cert-manager writes it; keys: tls.crt and tls.key
    /// (PEM). A renewed certificate is used for new connections at once; open ones go on.
    pub secret_ref: SecretRef,
}

fn sips_port() -> u16 {
    5061
}

fn sip_port() -> u16 {
    5060
}

impl Default for SipSpec {
    fn default() -> Self {
        Self {
            exposure: SipExposure::default(),
            udp_port: sip_port(),
            tcp_port: sip_port(),
            tls: None,
            hep: None,
        }
    }
}

/// The pods that speak SIP with carriers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrarSpec {
    /// How many registrar pods there are, 1 to 16. They share the providers, and when one dies the others take its registrations
    /// over within 10 s; answered calls go on. Each runs on a node of its own: on the host network always, so that there must be
    /// as many nodes, else where possible. Default: 2.
    #[serde(default = "registrar_replicas")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,
}

fn registrar_replicas() -> i32 {
    2
}

impl Default for RegistrarSpec {
    fn default() -> Self {
        Self {
            replicas: registrar_replicas(),
        }
    }
}

/// Where audio is exchanged with carriers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RtpSpec {
    /// How carriers reach the media pods.
    #[serde(default)]
    pub exposure: Exposure,

    /// The UDP ports for RTP (even) and RTCP (odd). Many calls share a pair; how many depends on the kernel's buffer. On the host network
    /// the media pods of a node share the range, each port being one pod's. Default: 20000 to 20999.
    #[serde(default)]
    pub port_range: PortRange,
}

/// How carriers reach the registrar pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.service) || self.type in ['LoadBalancer', 'NodePort']")
    .message("spec.sip.exposure.service is only allowed when spec.sip.exposure.type is LoadBalancer or NodePort"))]
#[x_kube(validation = Rule::new("!has(self.service) || !has(self.service.loadBalancerClass) || self.type == 'LoadBalancer'")
    .message("spec.sip.exposure.service.loadBalancerClass is only allowed when spec.sip.exposure.type is LoadBalancer"))]
#[x_kube(validation = Rule::new("!has(self.service) || !has(self.service.nodePorts) || self.type == 'NodePort'")
    .message("spec.sip.exposure.service.nodePorts is only allowed when spec.sip.exposure.type is NodePort"))]
pub struct SipExposure {
    /// PodNetwork: at the address of the pod; carriers must have a route to it. HostNetwork: at the address of the pod's node;
    /// the namespace must allow privileged pods. LoadBalancer: at the address of a load balancer in front of Services (NAME-sip-udp
    /// and NAME-sip-tcp), which all registrar pods share. NodePort: at a port of the pod's node, which is a Service's. Services keep
    /// the callers' source addresses (externalTrafficPolicy Local). Default: PodNetwork.
    #[serde(rename = "type", default)]
    pub type_: SipExposureType,

    /// The IP address to tell carriers (in Via and Contact), where it is not the one that is known otherwise, such as the address
    /// of a NAT in front; at most one. Default: with LoadBalancer the load balancer's address or name; with HostNetwork and NodePort
    /// the node's annotation ringwire.dev/external-address, else its ExternalIP, else its InternalIP; with PodNetwork the pod's
    /// address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1),
        inner(length(min = 1, max = 64)),
        transform = addresses_rule,
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<String>,

    /// The Services of LoadBalancer and NodePort. Default: as the cluster makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<SipService>,
}

/// What the Services are made with through which carriers reach SIP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SipService {
    /// Annotations of both Services, by which load balancers are configured, at most 64. Example: metallb.io/allow-shared-ip, so
    /// that UDP and TCP have the same address. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = annotations_limits)]
    pub annotations: BTreeMap<String, String>,

    /// Which implementation makes the load balancer (loadBalancerClass of the Services), with LoadBalancer only. It cannot be
    /// changed later but by another spec.sip.exposure.type in between. Default: the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,

    /// What keeps a caller at one registrar (sessionAffinity of the Services): ClientIP, or None for load balancers that refuse
    /// that, such as those of AWS's in-tree provider; then it is up to them. Default: ClientIP.
    #[serde(default)]
    pub session_affinity: SessionAffinity,

    /// The ports of the nodes, with NodePort only. Default: the cluster picks free ones, which stay as long as the Services do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<NodePorts>,
}

/// What keeps a caller at one registrar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionAffinity {
    /// Its address.
    #[default]
    ClientIP,
    /// Nothing but what the load balancer does by itself.
    None,
}

impl SessionAffinity {
    /// As Services have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientIP => "ClientIP",
            Self::None => "None",
        }
    }
}

/// Ports of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.tcp) || !has(self.tls) || self.tcp != self.tls")
    .message("spec.sip.exposure.service.nodePorts.tls must not be spec.sip.exposure.service.nodePorts.tcp"))]
pub struct NodePorts {
    /// The UDP port for SIP, one of the cluster's range for NodePorts (30000 to 32767). Default: the cluster picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub udp: Option<u16>,

    /// The TCP port for SIP. Default: the cluster picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub tcp: Option<u16>,

    /// The TCP port for SIP over TLS, where spec.sip.tls is set. Default: the cluster picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub tls: Option<u16>,
}

/// How carriers reach the registrar pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum SipExposureType {
    /// At the pod's address.
    #[default]
    PodNetwork,
    /// At the node's address.
    HostNetwork,
    /// At the address of a load balancer.
    LoadBalancer,
    /// At a port of the node that is a Service's.
    NodePort,
}

impl SipExposureType {
    /// The type of the Services in front, if there are any.
    pub fn service_type(self) -> Option<&'static str> {
        match self {
            Self::PodNetwork | Self::HostNetwork => None,
            Self::LoadBalancer => Some("LoadBalancer"),
            Self::NodePort => Some("NodePort"),
        }
    }
}

/// How carriers reach the media pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// PodNetwork: at the address of the pod; carriers must have a route to it. HostNetwork: at the address of the pod's node;
    /// the namespace must allow privileged pods. Default: PodNetwork.
    #[serde(rename = "type", default)]
    pub type_: ExposureType,

    /// The IP address to tell carriers (in SDP), where it is not the pod's or the node's own, such as the
    /// address of a NAT in front; at most one. Default: with HostNetwork the node's annotation
    /// ringwire.dev/external-address, else its ExternalIP, else its InternalIP; with PodNetwork the pod's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1),
        inner(length(min = 1, max = 64)),
        transform = addresses_rule,
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<String>,
}

fn addresses_rule(schema: &mut Schema) {
    item_rule(
        schema,
        "isIP(self)",
        "exposure.addresses: each entry must be an IP address, without port",
    );
}

/// How carriers reach pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum ExposureType {
    /// At the pod's address.
    #[default]
    PodNetwork,
    /// At the node's address.
    HostNetwork,
}

/// A range of UDP ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.from % 2 == 0").message("spec.rtp.portRange.from must be even"))]
#[x_kube(validation = Rule::new("self.to > self.from")
    .message("spec.rtp.portRange.to must be greater than spec.rtp.portRange.from"))]
#[x_kube(validation = Rule::new("self.to < 30000 || self.from > 60999")
    .message("spec.rtp.portRange must not overlap 30000 to 60999: these are the ports of NodePort Services \
        (30000-32767) and those that the kernel gives out (32768-60999)"))]
pub struct PortRange {
    /// The first port, even, 1024 to 65534. Default: 20000.
    #[serde(default = "first_port")]
    #[schemars(range(min = 1024, max = 65534))]
    pub from: u16,

    /// The last port, 1025 to 65535. Default: 20999.
    #[serde(default = "last_port")]
    #[schemars(range(min = 1025, max = 65535))]
    pub to: u16,
}

fn first_port() -> u16 {
    20000
}

fn last_port() -> u16 {
    20999
}

impl Default for PortRange {
    fn default() -> Self {
        Self {
            from: first_port(),
            to: last_port(),
        }
    }
}

/// The namespaces whose providers a gateway serves.
#[derive(Clone, Debug, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.from != 'Selector' || has(self.selector)")
    .message("spec.allowedNamespaces.selector is required when spec.allowedNamespaces.from is Selector"))]
#[x_kube(validation = Rule::new("self.from == 'Selector' || !has(self.selector)")
    .message("spec.allowedNamespaces.selector is only allowed when spec.allowedNamespaces.from is Selector"))]
pub struct AllowedNamespaces {
    /// Same: the gateway's own. All: every namespace. Selector: those whose labels the selector matches. Default: Same.
    #[serde(default)]
    pub from: NamespacesFrom,

    /// Which namespaces, by their labels, when from is Selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum NamespacesFrom {
    /// The gateway's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those that a label selector matches.
    Selector,
}

/// What the gateway's pods are made with. It holds for registrar and media pods alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// The container image. Default: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// When nodes pull the image: Always, IfNotPresent or Never. Default: as Kubernetes does, Always for the tag latest, else
    /// IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets with the registry's credentials, at most 8. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<SecretRef>,

    /// The priority class of the pods. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// CPU and memory that the pods ask for and may use. A CPU limit makes audio stutter; leave it out. Default: the
    /// operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Further labels of the pods, at most 64. Those that the operator sets itself win. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = labels_limits)]
    pub labels: BTreeMap<String, String>,

    /// Further annotations of the pods, at most 64. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = annotations_limits)]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have to run the pods. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = labels_limits)]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate, at most 64. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// Which nodes, and near which other pods, the pods should run. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How the pods spread over zones and nodes, at most 8. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

fn map_limits(schema: &mut Schema, longest_value: u32) {
    schema.insert("maxProperties".to_owned(), 64.into());
    schema.insert("x-kubernetes-map-type".to_owned(), "granular".into());
    if let Some(serde_json::Value::Object(values)) = schema.get_mut("additionalProperties") {
        values.insert("maxLength".to_owned(), longest_value.into());
    }
}

fn labels_limits(schema: &mut Schema) {
    map_limits(schema, 63);
}

fn annotations_limits(schema: &mut Schema) {
    map_limits(schema, 4096);
}

/// When nodes pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = without_description)]
pub enum ImagePullPolicy {
    /// Each time a container starts.
    Always,
    /// If the node doesn't have it.
    IfNotPresent,
    /// The node must have it.
    Never,
}

/// What is known about a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaGatewayStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where carriers reach the gateway, for example udp:198.51.100.11:5060, sorted, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,

    /// Media pods that exist, those that finish their last calls included.
    #[serde(default)]
    pub replicas: i32,

    /// Media pods that are ready for calls.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Calls in progress on all pods.
    #[serde(default)]
    pub active_calls: u32,

    /// The label selector of the media pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,

    /// Ready: the gateway can take calls. Addressed: its pods know the addresses to tell carriers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = conditions)]
    pub conditions: Vec<Condition>,
}
