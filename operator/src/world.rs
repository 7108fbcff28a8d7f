//! Dereference: from the watches to what compilation reads. Objects that cannot be read are set aside, with the reason.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use kube::Resource;
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta};
use ringwire_config::gateway::Host;
use ringwire_config::object::{Hiding, NodeAddresses, SipService};
use ringwire_config::{ObjectRef, Objects};
use ringwire_crds::Kind;

use crate::secrets::{Lookup, Secrets};
use crate::watch::Views;

/// Annotation of a Node: the address by which the outside reaches it.
const EXTERNAL_ADDRESS: &str = "ringwire.dev/external-address";

/// An object that does not have the form of its kind.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Its kind.
    pub kind: Kind,
    /// Its metadata, which can always be read.
    pub metadata: ObjectMeta,
    /// What is wrong with it.
    pub error: String,
}

/// The objects of all four kinds, without Secrets and keys yet.
pub fn objects(views: &Views) -> (Objects, Vec<Malformed>) {
    let mut malformed = Vec::new();
    let objects = Objects {
        providers: split(views.providers.all(), Kind::SipProvider, &mut malformed),
        numbers: split(views.numbers.all(), Kind::PhoneNumber, &mut malformed),
        agents: split(views.agents.all(), Kind::VoiceAgent, &mut malformed),
        gateways: split(views.gateways.all(), Kind::MediaGateway, &mut malformed),
        secrets: BTreeMap::new(),
        namespaces: namespaces(&views.namespaces.all()),
        nodes: nodes(&views.nodes.all()),
        services: services(&views.services.all()),
        keys: BTreeMap::new(),
    };
    (objects, malformed)
}

fn split<K>(
    all: Vec<Arc<DeserializeGuard<K>>>,
    kind: Kind,
    malformed: &mut Vec<Malformed>,
) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug,
{
    let mut good = Vec::with_capacity(all.len());
    for object in all {
        match &object.0 {
            // What is being deleted waits for somebody else's finalizer, and is out of service already.
            Ok(object) if object.meta().deletion_timestamp.is_some() => {}
            Ok(object) => good.push(object.clone()),
            Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => {}
            Err(invalid) => malformed.push(Malformed {
                kind,
                metadata: invalid.metadata.clone(),
                error: invalid.error.clone(),
            }),
        }
    }
    good.sort_by_cached_key(ObjectRef::of);
    good
}

fn namespaces(
    all: &[Arc<PartialObjectMeta<Namespace>>],
) -> BTreeMap<String, BTreeMap<String, String>> {
    all.iter()
        .filter_map(|namespace| {
            let meta = &namespace.metadata;
            Some((meta.name.clone()?, meta.labels.clone().unwrap_or_default()))
        })
        .collect()
}

/// Services of gateways; which of them are for carriers, their names say.
fn services(all: &[Arc<DeserializeGuard<Service>>]) -> BTreeMap<ObjectRef, SipService> {
    all.iter()
        .filter_map(|service| {
            let service = service.0.as_ref().ok()?;
            // One that is deleted leads nowhere any more.
            if service.metadata.deletion_timestamp.is_some() {
                return None;
            }
            Some((ObjectRef::of(service), sip_service(service)))
        })
        .collect()
}

fn sip_service(service: &Service) -> SipService {
    let spec = service.spec.as_ref();
    let balancer = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let ingress = || {
        balancer
            .and_then(|b| b.ingress.as_ref())
            .into_iter()
            .flatten()
    };
    let addresses = ingress().filter_map(|entry| entry.ip.as_deref());
    // A name has to be looked up, and by everybody: an address is better.
    let names = ingress().filter_map(|entry| entry.hostname.as_deref());
    let ports = spec
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten();
    let policy = spec.and_then(|spec| spec.external_traffic_policy.as_deref());
    let hides_source = if policy == Some("Local") {
        ingress()
            .any(|entry| entry.ip_mode.as_deref() == Some("Proxy"))
            .then_some(Hiding::Proxy)
    } else {
        Some(Hiding::Policy)
    };
    SipService {
        hides_source,
        ingress: addresses.chain(names).map(Host::parse).collect(),
        node_ports: ports
            .filter_map(|port| {
                let number = u16::try_from(port.node_port?).ok()?;
                Some((port.name.clone()?, number))
            })
            .collect(),
    }
}

fn nodes(all: &[Arc<DeserializeGuard<Node>>]) -> BTreeMap<String, NodeAddresses> {
    all.iter()
        .filter_map(|node| {
            let node = node.0.as_ref().ok()?;
            let name = node.metadata.name.clone()?;
            let annotations = node.metadata.annotations.as_ref();
            let annotated = annotations
                .and_then(|all| all.get(EXTERNAL_ADDRESS))
                .and_then(|text| {
                    let address = text.trim().parse().ok();
                    if address.is_none() {
                        tracing::warn!(
                            object = name,
                            kind = "Node",
                            "annotation {EXTERNAL_ADDRESS} is not an IP address"
                        );
                    }
                    address
                });
            let of_type = |kind: &'static str| {
                let addresses = node
                    .status
                    .as_ref()
                    .and_then(|status| status.addresses.as_ref());
                let matching = addresses
                    .into_iter()
                    .flatten()
                    .filter(move |address| address.type_ == kind);
                matching.filter_map(|address| address.address.parse::<IpAddr>().ok())
            };
            let addresses = NodeAddresses {
                annotated,
                external: of_type("ExternalIP").next(),
                internal: of_type("InternalIP").collect(),
            };
            Some((name, addresses))
        })
        .collect()
}

/// Fills in the Secrets that objects refer to. False if one of them is still being read for the first time: it is neither there
/// nor missing, and whoever judged now would judge wrongly.
pub fn fill_secrets(objects: &mut Objects, secrets: &Secrets) -> bool {
    let mut complete = true;
    for id in objects.referenced_secrets() {
        match secrets.get(&id) {
            Lookup::Present(fetched) => {
                objects.secrets.insert(id, fetched.data.clone());
            }
            Lookup::Pending => complete = false,
            Lookup::Absent | Lookup::Unreadable => {}
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire_crds::PhoneNumber;
    use serde_json::{Value, json};

    fn number(name: &str, spec: &Value) -> Arc<DeserializeGuard<PhoneNumber>> {
        let object = json!({
            "apiVersion": ringwire_crds::API_VERSION,
            "kind": "PhoneNumber",
            "metadata": { "name": name, "namespace": "voice" },
            "spec": spec,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn reads_what_services_lead_to() {
        let service = |ingress: Value, policy: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": { "name": "main-sip-udp", "namespace": "voice" },
                "spec": {
                    "externalTrafficPolicy": policy,
                    "ports": [{ "name": "sip-udp", "port": 5060, "nodePort": 30060 }],
                },
                "status": { "loadBalancer": { "ingress": ingress } },
            }))
            .unwrap()
        };
        let ingress = json!([{ "hostname": "lb.example.com" }, { "ip": "192.0.2.9" }]);
        let read = sip_service(&service(ingress, "Local"));
        assert_eq!(
            read,
            SipService {
                hides_source: None,
                ingress: ["192.0.2.9", "lb.example.com"].map(Host::parse).into(),
                node_ports: [("sip-udp".to_owned(), 30060)].into(),
            }
        );
        let proxy = json!([{ "ip": "192.0.2.9", "ipMode": "Proxy" }]);
        for (ingress, policy, hiding) in [
            (json!([]), "Cluster", Hiding::Policy),
            (proxy, "Local", Hiding::Proxy),
        ] {
            let read = sip_service(&service(ingress, policy));
            assert_eq!(read.hides_source, Some(hiding));
        }
    }

    #[test]
    fn one_malformed_object_never_stops_the_others() {
        let good = json!({ "number": "+34911234567", "providerRef": { "name": "trunk" } });
        let mut malformed = Vec::new();
        let all = vec![
            number("bad", &json!({ "number": 5 })),
            number("good", &good),
        ];
        let read = split(all, Kind::PhoneNumber, &mut malformed);
        assert_eq!(read.len(), 1);
        assert_eq!(malformed.len(), 1);
        assert_eq!(malformed[0].metadata.name.as_deref(), Some("bad"));
    }

    #[test]
    fn an_object_that_is_being_deleted_is_out_of_service() {
        let spec = json!({ "number": "+34911234567", "providerRef": { "name": "trunk" } });
        let mut object = number("going", &spec).0.clone().unwrap();
        object.metadata.deletion_timestamp = Some(ringwire_crds::Time(jiff::Timestamp::now()));
        let mut malformed = Vec::new();
        assert!(
            split(
                vec![Arc::new(DeserializeGuard(Ok(object)))],
                Kind::PhoneNumber,
                &mut malformed
            )
            .is_empty()
        );
        assert!(malformed.is_empty());
    }

    #[test]
    fn reads_a_nodes_addresses() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": "node1", "annotations": { EXTERNAL_ADDRESS: " 203.0.113.7" } },
            "status": { "addresses": [
                { "type": "Hostname", "address": "node1" },
                { "type": "InternalIP", "address": "10.0.0.1" },
                { "type": "InternalIP", "address": "fd00::1" },
                { "type": "ExternalIP", "address": "198.51.100.1" },
            ] },
        }))
        .unwrap();
        let nodes = nodes(&[Arc::new(DeserializeGuard(Ok(node)))]);
        let NodeAddresses {
            annotated,
            external,
            internal,
        } = &nodes["node1"];
        assert_eq!(*annotated, "203.0.113.7".parse().ok());
        assert_eq!(*external, "198.51.100.1".parse().ok());
        assert_eq!(internal.len(), 2);
    }
}
