//! Services: how registrars are reached inside the cluster, and how media pods are found.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringwire_config::shard::Role;
use ringwire_control::server::CONTROL_PORT;

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
            let mut ports = vec![
                port("sip-udp", "UDP", sip.udp_port),
                port("sip-tcp", "TCP", sip.tcp_port),
            ];
            ports.extend(sip.tls.as_ref().map(|tls| port("sip-tls", "TCP", tls.port)));
            spec.ports = Some(ports);
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
