//! MediaGateway: settings of its pods, and which namespaces it serves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use ringwire_crds::{
    AllowedNamespaces, Exposure as ExposureSpec, ExposureType, MediaGateway, NamespacesFrom,
    secret_key,
};

use super::provider::host_port;
use super::{Verdict, secrets};
use crate::gateway::{Exposure, GatewayConfig, GatewaySettings, Hep, ServerTls};
use crate::object::{ObjectRef, Objects, Settings};
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
        sip: exposure(&spec.sip.exposure),
        sip_udp_port: spec.sip.udp_port,
        sip_tcp_port: spec.sip.tcp_port,
        rtp: exposure(&spec.rtp.exposure),
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

fn exposure(spec: &ExposureSpec) -> Exposure {
    Exposure {
        host_network: spec.type_ == ExposureType::HostNetwork,
        addresses: spec
            .addresses
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
