//! MediaGateway: settings of its pods, and which namespaces it serves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use ringwire_crds::{
    AllowedNamespaces, ExposureType, MediaGateway, NamespacesFrom, SipExposure, SipExposureType,
    Transport, secret_key,
};

use super::provider::host_port;
use super::{Verdict, secrets};
use crate::gateway::{Exposure, Front, GatewayConfig, GatewaySettings, Hep, Host, ServerTls};
use crate::object::{self, Hiding, ObjectRef, Objects, Settings};
use crate::reason::Reason;
use crate::secret::Secret;

/// Where HEP collectors listen unless something else is said.
const HEP_PORT: u16 = 9060;

/// Longest password for a HEP collector in bytes: it travels with each message.
const MAX_HEP_PASSWORD: usize = 256;

/// The gateway's configuration, still without providers and agents; `None` while it has no signing key.
pub(super) fn config(
    gateway: &MediaGateway,
    objects: &Objects,
    settings: &Settings,
) -> Option<GatewayConfig> {
    let id = ObjectRef::of(gateway);
    let token_keys = objects.keys.get(&id)?.tokens.clone();
    let spec = &gateway.spec;
    let settings = GatewaySettings {
        gateway: id,
        sip: exposure(
            spec.sip.exposure.type_ == SipExposureType::HostNetwork,
            &spec.sip.exposure.addresses,
        ),
        sip_udp_port: spec.sip.udp_port,
        sip_tcp_port: spec.sip.tcp_port,
        sip_fronts: BTreeMap::new(),
        rtp: exposure(
            spec.rtp.exposure.type_ == ExposureType::HostNetwork,
            &spec.rtp.exposure.addresses,
        ),
        rtp_ports: (spec.rtp.port_range.from, spec.rtp.port_range.to),
        drain_seconds: spec.drain_seconds,
        allowed_agent_addresses: spec
            .allowed_agent_addresses
            .iter()
            .filter_map(|text| network(text))
            .collect(),
        restrict_agent_addresses: settings.restrict_agent_addresses,
        nodes: objects.nodes.clone(),
        token_keys,
    };
    Some(GatewayConfig {
        settings,
        tls: None,
        hep: None,
        providers: BTreeMap::new(),
        agents: BTreeMap::new(),
    })
}

/// SIP over TLS for carriers that connect to us, if it is asked for.
pub(super) fn tls(gateway: &MediaGateway, objects: &Objects) -> Result<Option<ServerTls>, Verdict> {
    let Some(tls) = &gateway.spec.sip.tls else {
        return Ok(None);
    };
    let secret = secrets::find(
        objects,
        &ObjectRef::of(gateway).namespace,
        &tls.secret_ref,
        "spec.sip.tls.secretRef",
        &[secret_key::CERTIFICATE, secret_key::PRIVATE_KEY],
    )?;
    Ok(Some(ServerTls {
        port: tls.port,
        certificate: secret.certificate()?,
    }))
}

/// Who gets copies of SIP messages, if anybody.
pub(super) fn hep(gateway: &MediaGateway, objects: &Objects) -> Result<Option<Hep>, Verdict> {
    let Some(hep) = &gateway.spec.sip.hep else {
        return Ok(None);
    };
    let password = match &hep.password_secret_ref {
        Some(reference) => {
            let secret = secrets::find(
                objects,
                &ObjectRef::of(gateway).namespace,
                reference,
                "spec.sip.hep.passwordSecretRef",
                &[secret_key::PASSWORD],
            )?;
            let password = secret.required(secret_key::PASSWORD)?;
            if password.len() > MAX_HEP_PASSWORD {
                let why = format!("is longer than {MAX_HEP_PASSWORD} bytes");
                return Err(secret.invalid(secret_key::PASSWORD, &why));
            }
            Some(Secret::new(password))
        }
        None => None,
    };
    let (host, port) = host_port(&hep.address);
    Ok(Some(Hep {
        host,
        port: port.unwrap_or(HEP_PORT),
        capture_id: hep.capture_id,
        password,
    }))
}

/// Where carriers reach SIP through Services, and what is to be said of that.
pub(super) fn fronts(
    gateway: &MediaGateway,
    objects: &Objects,
    settings: &Settings,
) -> (BTreeMap<Transport, Front>, Option<Verdict>) {
    let sip = &gateway.spec.sip;
    let SipExposure {
        type_,
        addresses,
        service: _,
    } = &sip.exposure;
    let Some(wanted) = type_.service_type() else {
        return (BTreeMap::new(), None);
    };
    if !settings.services {
        let message = format!(
            "spec.sip.exposure.type {wanted} needs a cluster: carriers are told this machine's own address, or the one in \
             spec.sip.exposure.addresses"
        );
        let verdict = Verdict::yes(Reason::ExposureIgnored, message);
        return (BTreeMap::new(), Some(verdict));
    }
    let ObjectRef { namespace, name } = ObjectRef::of(gateway);
    let udp = ObjectRef::new(&namespace, object::sip_udp_service(&name));
    let tcp = ObjectRef::new(&namespace, object::sip_tcp_service(&name));
    let told = addresses.first().map(|address| Host::parse(address));
    let ports = [
        (Transport::UDP, &udp, Some(sip.udp_port)),
        (Transport::TCP, &tcp, Some(sip.tcp_port)),
        (Transport::TLS, &tcp, sip.tls.as_ref().map(|tls| tls.port)),
    ];
    let (mut fronts, mut verdict) = (BTreeMap::new(), None);
    for (transport, id, port) in ports {
        let Some(port) = port else {
            continue;
        };
        let service = objects.services.get(id);
        let front = if *type_ == SipExposureType::NodePort {
            let ports = service.map(|service| &service.node_ports);
            let port = ports.and_then(|ports| ports.get(object::sip_port_name(transport)));
            port.map(|&port| match told.clone() {
                Some(host) => Front::At { host, port },
                None => Front::Node { port },
            })
        } else {
            let ingress = || service?.ingress.first().cloned();
            let host = told.clone().or_else(ingress);
            host.map(|host| Front::At { host, port })
        };
        if front.is_none() {
            let missing = match type_ {
                SipExposureType::NodePort => "has no node port yet",
                _ => "has got no address from a load balancer yet",
            };
            let message = format!(
                "Service {id} {missing}; see kubectl describe service, and spec.sip.exposure"
            );
            verdict.get_or_insert(Verdict::unknown(Reason::NoAddress, message));
        }
        fronts.insert(transport, front.unwrap_or(Front::Nowhere));
    }
    let hidden = [udp, tcp].into_iter().find_map(|id| {
        let hiding = objects.services.get(&id)?.hides_source?;
        Some((id, hiding))
    });
    if let Some((id, hiding)) = hidden {
        let message = match hiding {
            Hiding::Policy => format!(
                "somebody has set externalTrafficPolicy of Service {id} to Cluster, which hides where calls come from; it is set \
                 back to Local, and must stay so"
            ),
            Hiding::Proxy => format!(
                "the load balancer of Service {id} is a proxy (ipMode Proxy), which hides where calls come from; use one that \
                 keeps the source address"
            ),
        };
        verdict = Some(Verdict::no(Reason::SourceAddressLost, message));
    }
    (fronts, verdict)
}

fn exposure(host_network: bool, addresses: &[String]) -> Exposure {
    Exposure {
        host_network,
        addresses: addresses
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
    }
}

/// A network, or a single address as a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether the gateway serves objects of `namespace`.
pub(super) fn serves(gateway: &MediaGateway, namespace: &str, objects: &Objects) -> bool {
    let AllowedNamespaces { from, selector } = &gateway.spec.allowed_namespaces;
    match from {
        NamespacesFrom::All => true,
        NamespacesFrom::Same => ObjectRef::of(gateway).namespace == namespace,
        NamespacesFrom::Selector => {
            let labels = objects.namespaces.get(namespace);
            selector
                .as_ref()
                .zip(labels)
                .is_some_and(|(selector, labels)| matches(selector, labels))
        }
    }
}

/// Label selector semantics of the Kubernetes API; an empty selector selects everything.
fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|rule| {
            let value = labels.get(&rule.key);
            let listed =
                value.is_some_and(|value| rule.values.iter().flatten().any(|v| v == value));
            match rule.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
