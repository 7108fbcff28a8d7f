//! Services: how registrars are reached inside the cluster and by carriers, and how media pods are found.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringwire_config::object::{sip_port_name, sip_tcp_service, sip_udp_service};
use ringwire_config::shard::Role;
use ringwire_control::server::CONTROL_PORT;
use ringwire_crds::{NodePorts, SipExposure, SipService, SipSpec, Transport};

use super::{metadata, role_name, selector};
use crate::media_gateway::validate::ValidGateway;

fn port(name: &str, protocol: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: number.into(),
        // By number: pods on the host's network declare no ports, so that they have no names.
        target_port: Some(IntOrString::Int(number.into())),
        ..ServicePort::default()
    }
}

fn udp_ports(sip: &SipSpec) -> Vec<ServicePort> {
    vec![port(sip_port_name(Transport::UDP), "UDP", sip.udp_port)]
}

fn tcp_ports(sip: &SipSpec) -> Vec<ServicePort> {
    let tls = sip.tls.as_ref().map(|tls| (Transport::TLS, tls.port));
    [(Transport::TCP, sip.tcp_port)]
        .into_iter()
        .chain(tls)
        .map(|(transport, number)| port(sip_port_name(transport), "TCP", number))
        .collect()
}

/// The Services through which carriers reach the registrars, if they do. UDP and TCP have one each: many load balancers take only one
/// protocol.
pub(super) fn fronts(gateway: &ValidGateway<'_>) -> Vec<Service> {
    let name = gateway.id().name;
    let sip = &gateway.object().spec.sip;
    let SipExposure {
        type_,
        addresses: _,
        service,
    } = &sip.exposure;
    let Some(type_) = type_.service_type() else {
        return Vec::new();
    };
    let SipService {
        annotations,
        load_balancer_class,
        session_affinity,
        node_ports,
    } = service.clone().unwrap_or_default();
    let NodePorts { udp, tcp, tls } = node_ports.unwrap_or_default();
    let chosen: BTreeMap<&str, u16> = [
        (Transport::UDP, udp),
        (Transport::TCP, tcp),
        (Transport::TLS, tls),
    ]
    .into_iter()
    .filter_map(|(transport, port)| Some((sip_port_name(transport), port?)))
    .collect();
    let front = |name: String, mut ports: Vec<ServicePort>| {
        for port in &mut ports {
            let chosen = port.name.as_deref().and_then(|name| chosen.get(name));
            port.node_port = chosen.map(|&number| number.into());
        }
        let mut metadata = metadata(gateway, name, Some(Role::Registrar));
        metadata.annotations = Some(annotations.clone()).filter(|all| !all.is_empty());
        Service {
            metadata,
            spec: Some(ServiceSpec {
                type_: Some(type_.to_owned()),
                selector: Some(selector(&gateway.id().name, Role::Registrar)),
                ports: Some(ports),
                // Who calls is told by the source address.
                external_traffic_policy: Some("Local".to_owned()),
                // A CANCEL, or an INVITE that is sent again, has to meet its transaction.
                session_affinity: Some(session_affinity.as_str().to_owned()),
                load_balancer_class: load_balancer_class.clone(),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    };
    vec![
        front(sip_udp_service(&name), udp_ports(sip)),
        front(sip_tcp_service(&name), tcp_ports(sip)),
    ]
}

pub(super) fn build(gateway: &ValidGateway<'_>, role: Role) -> Service {
    let name = gateway.id().name;
    let sip = &gateway.object().spec.sip;
    let mut spec = ServiceSpec {
        selector: Some(selector(&name, role)),
        ..ServiceSpec::default()
    };
    match role {
        Role::Registrar => {
            spec.type_ = Some("ClusterIP".to_owned());
            spec.ports = Some([udp_ports(sip), tcp_ports(sip)].concat());
        }
        Role::Media => {
            spec.type_ = Some("ClusterIP".to_owned());
            spec.cluster_ip = Some("None".to_owned());
            // Registrars follow pods that drain, too.
            spec.publish_not_ready_addresses = Some(true);
            spec.ports = Some(vec![port("control", "TCP", CONTROL_PORT)]);
        }
    }
    Service {
        metadata: metadata(gateway, role_name(&name, role), Some(role)),
        spec: Some(spec),
        status: None,
    }
}
