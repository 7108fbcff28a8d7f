//! Names of objects, and the bundle of everything that [`compile`](crate::compile) reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ringwire_crds::{MediaGateway, PhoneNumber, SipProvider, Transport, VoiceAgent};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::gateway::Host;
use crate::secret::Secret;
use crate::token::GatewayKeys;

/// A namespaced object's name. Prints and serialises as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ObjectRef {
    /// Names `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of an object that came from the API server or a manifest; a missing namespace reads as `default`.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(
            meta.namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text was not `namespace/name`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not of the form namespace/name")]
pub struct NotAnObjectRef(String);

impl FromStr for ObjectRef {
    type Err = NotAnObjectRef;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NotAnObjectRef(text.to_owned())),
        }
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The values of one Secret, by key. Values that are not UTF-8 are left out.
pub type SecretData = BTreeMap<String, Secret>;

/// The addresses of a node, as its object states them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// Annotation `ringwire.dev/external-address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotated: Option<IpAddr>,
    /// First address of type `ExternalIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<IpAddr>,
    /// Addresses of type `InternalIP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub internal: Vec<IpAddr>,
}

/// A Service through which carriers reach SIP, as its object states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SipService {
    /// Why pods do not see the callers' addresses, where that is so.
    pub hides_source: Option<Hiding>,
    /// Addresses and names of its load balancer.
    pub ingress: Vec<Host>,
    /// The nodes' ports by the names of its own.
    pub node_ports: BTreeMap<String, u16>,
}

/// What puts another address in the place of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hiding {
    /// The nodes do: `externalTrafficPolicy` is not `Local`.
    Policy,
    /// The load balancer does: its `ipMode` is `Proxy`.
    Proxy,
}

/// What the Service for UDP is called.
pub fn sip_udp_service(gateway: &str) -> String {
    format!("{gateway}-sip-udp")
}

/// What the Service for TCP and TLS is called.
pub fn sip_tcp_service(gateway: &str) -> String {
    format!("{gateway}-sip-tcp")
}

/// What the port of a SIP transport is called in a Service.
pub fn sip_port_name(transport: Transport) -> &'static str {
    match transport {
        Transport::UDP => "sip-udp",
        Transport::TCP => "sip-tcp",
        Transport::TLS => "sip-tls",
    }
}

/// Everything that a compilation reads. Missing entries mean "does not exist".
#[derive(Default)]
pub struct Objects {
    /// All SIP providers.
    pub providers: Vec<SipProvider>,
    /// All phone numbers.
    pub numbers: Vec<PhoneNumber>,
    /// All voice agents.
    pub agents: Vec<VoiceAgent>,
    /// All gateways.
    pub gateways: Vec<MediaGateway>,
    /// The Secrets that [`Objects::referenced_secrets`] names and that exist.
    pub secrets: BTreeMap<ObjectRef, SecretData>,
    /// Labels of each namespace.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Addresses of each node.
    pub nodes: BTreeMap<String, NodeAddresses>,
    /// The Services of gateways' SIP that exist.
    pub services: BTreeMap<ObjectRef, SipService>,
    /// Keys of each gateway.
    pub keys: BTreeMap<ObjectRef, GatewayKeys>,
}

impl Objects {
    /// The Secrets that some object refers to. An object reads Secrets of its own namespace only.
    pub fn referenced_secrets(&self) -> BTreeSet<ObjectRef> {
        let providers = self.providers.iter().flat_map(|provider| {
            let namespace = ObjectRef::of(provider).namespace;
            let spec = &provider.spec;
            let references = [
                &spec.credentials_secret_ref,
                &spec.incoming_credentials_secret_ref,
                &spec.tls.ca_secret_ref,
                &spec.tls.client_certificate_secret_ref,
            ];
            let references = references.into_iter().flatten();
            references.map(move |reference| ObjectRef::new(&namespace, &reference.name))
        });
        let gateways = self.gateways.iter().flat_map(|gateway| {
            let namespace = ObjectRef::of(gateway).namespace;
            let sip = &gateway.spec.sip;
            let tls = sip.tls.as_ref().map(|tls| &tls.secret_ref);
            let hep = sip.hep.as_ref();
            let hep = hep.and_then(|hep| hep.password_secret_ref.as_ref());
            let references = tls.into_iter().chain(hep);
            references.map(move |reference| ObjectRef::new(&namespace, &reference.name))
        });
        let agents = self.agents.iter().filter_map(|agent| {
            let reference = agent
                .spec
                .web_socket
                .as_ref()?
                .headers_secret_ref
                .as_ref()?;
            Some(ObjectRef::new(
                ObjectRef::of(agent).namespace,
                &reference.name,
            ))
        });
        providers.chain(gateways).chain(agents).collect()
    }
}

/// What the installation decides for all gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The gateway of providers without `gatewayRef`.
    pub default_gateway: ObjectRef,
    /// Namespaces whose gateways providers of other namespaces may name in `gatewayRef`.
    pub shared_gateway_namespaces: BTreeSet<String>,
    /// Whether agents at loopback, link-local, metadata and node addresses are refused unless the gateway lists them. True on a
    /// cluster; false for `ringwire run`, where the agent usually is on the same machine.
    pub restrict_agent_addresses: bool,
    /// Whether there are Services. True on a cluster.
    pub services: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        let reference = ObjectRef::new("voice", "trunk");
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }

    #[test]
    fn refuses_names_without_a_namespace() {
        for text in ["trunk", "/trunk", "voice/", "a/b/c"] {
            assert!(text.parse::<ObjectRef>().is_err(), "{text}");
        }
    }
}
