use std::collections::BTreeMap;

use ringwire_crds::MediaGateway;
use serde_json::{Value, json};

use super::*;

fn gateway(spec: &Value) -> MediaGateway {
    serde_json::from_value(json!({
        "apiVersion": API_VERSION,
        "kind": "MediaGateway",
        "metadata": {
            "name": "main", "namespace": "voice", "uid": "7f4c",
            "labels": { "argocd.argoproj.io/instance": "must not be copied" },
        },
        "spec": spec,
    }))
    .unwrap()
}

fn built(spec: &Value) -> BTreeMap<String, Value> {
    let gateway = gateway(spec);
    let valid = ValidGateway::new(&gateway).unwrap();
    let defaults = PodDefaults {
        image: "ringwire:test".into(),
        image_pull_policy: None,
    };
    let children = workload(&valid, &defaults, Some("privileged"));
    children
        .into_iter()
        .map(|child| {
            (
                format!("{} {}", child.key.kind.name(), child.key.id.name),
                child.body,
            )
        })
        .collect()
}

fn deployments(spec: &Value) -> Vec<Value> {
    built(spec)
        .into_iter()
        .filter(|(name, _)| name.starts_with("Deployment"))
        .map(|(_, body)| body)
        .collect()
}

#[test]
fn a_gateway_on_the_pod_network() {
    for (name, body) in built(&json!({})) {
        insta::assert_yaml_snapshot!(format!("pod-network {name}").replace(' ', "-"), body);
    }
}

#[test]
fn a_gateway_on_the_host_network() {
    let host = json!({ "type": "HostNetwork" });
    let spec = json!({ "replicas": 3, "sip": { "exposure": host, "udpPort": 5070 }, "rtp": { "exposure": host } });
    insta::assert_yaml_snapshot!("host-network-deployments", deployments(&spec));
}

/// The Services that carriers come through.
fn fronts(spec: &Value) -> Vec<Value> {
    built(spec)
        .into_iter()
        .filter(|(name, _)| name.starts_with("Service main-sip"))
        .map(|(_, body)| body)
        .collect()
}

#[test]
fn a_gateway_behind_load_balancers() {
    let service = json!({
        "annotations": { "metallb.io/allow-shared-ip": "sip" }, "loadBalancerClass": "metallb.io/metallb",
    });
    let exposure = json!({ "type": "LoadBalancer", "service": service });
    let tls = json!({ "secretRef": { "name": "server" } });
    let spec = json!({ "sip": { "exposure": exposure, "udpPort": 5070, "tls": tls } });
    insta::assert_yaml_snapshot!("load-balancer-services", fronts(&spec));
}

#[test]
fn a_gateway_at_ports_of_its_nodes() {
    let service = json!({ "nodePorts": { "udp": 30060 } });
    let exposure = json!({ "type": "NodePort", "service": service });
    let spec = json!({ "sip": { "exposure": exposure } });
    insta::assert_yaml_snapshot!("node-port-services", fronts(&spec));
    assert!(fronts(&json!({})).is_empty());
}

#[test]
fn registrars_behind_services_have_time_for_load_balancers() {
    let path = "/template/spec/terminationGracePeriodSeconds";
    let grace = |spec| registrars(&spec).pointer(path).cloned();
    assert_eq!(grace(json!({})), Some(json!(15)));
    let balanced = json!({ "sip": { "exposure": { "type": "LoadBalancer" } } });
    assert_eq!(grace(balanced), Some(json!(45)));
}

#[test]
fn every_field_of_the_pod_template_arrives() {
    let spec = json!({
        "drainSeconds": 60,
        "podTemplate": {
            "image": "registry.example/ringwire:1",
            "imagePullPolicy": "Always",
            "imagePullSecrets": [{ "name": "pull" }],
            "priorityClassName": "high",
            "resources": { "requests": { "cpu": "1" } },
            "labels": { "team": "voice", GATEWAY: "ours wins" },
            "annotations": { "note": "x" },
            "nodeSelector": { "pool": "media" },
            "tolerations": [{ "key": "media", "operator": "Exists" }],
            "affinity": { "nodeAffinity": {} },
            "topologySpreadConstraints": [
                { "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }
            ],
        },
    });
    insta::assert_yaml_snapshot!("pod-template-deployments", deployments(&spec));
}

#[test]
fn secrets_of_a_gateway() {
    let gateway = gateway(&json!({}));
    let valid = ValidGateway::new(&gateway).unwrap();
    let time = "2030-01-02T03:04:05Z".parse().unwrap();
    let ca = control_ca(
        &valid,
        [
            (CA_CRT, "certificate".to_owned()),
            (CA_KEY, "key".to_owned()),
        ]
        .into(),
        time,
    );
    insta::assert_yaml_snapshot!("secret-control-ca", ca.body);
    insta::assert_yaml_snapshot!(
        "secret-control",
        control(&valid, [(TLS_CRT, "x".to_owned())].into(), time, time).body
    );
    insta::assert_yaml_snapshot!(
        "secret-shard",
        shard(&valid, Role::Media, 3, b"content").body
    );
}

#[test]
fn no_port_of_a_pod_on_the_host_network_is_declared() {
    let deployments = deployments(&json!({ "sip": { "exposure": { "type": "HostNetwork" } } }));
    for body in deployments {
        let on_host = body.pointer("/spec/template/spec/hostNetwork").is_some();
        let declared = body
            .pointer("/spec/template/spec/containers/0/ports")
            .is_some();
        assert_ne!(on_host, declared, "{}", body["metadata"]["name"]);
    }
}

/// The spec of the registrars' Deployment.
fn registrars(spec: &Value) -> Value {
    built(spec)["Deployment main-registrar"]["spec"].clone()
}

#[test]
fn registrars_of_a_host_network_never_share_a_node() {
    let own = json!({ "topologyKey": "zone", "labelSelector": {} });
    let mut spec = json!({
        "sip": { "exposure": { "type": "HostNetwork" } },
        "podTemplate": { "affinity": { "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [own],
        } } },
    });
    let path =
        "/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let terms = registrars(&spec).pointer(path).cloned().unwrap();
    assert_eq!(terms[0], own, "what the user wants stays");
    assert_eq!(terms[1]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(
        terms[1]["labelSelector"]["matchLabels"],
        json!(selector("main", Role::Registrar))
    );
    spec["podTemplate"] = json!({});
    assert_eq!(
        registrars(&spec)["strategy"]["rollingUpdate"],
        json!({ "maxSurge": 0, "maxUnavailable": 1 })
    );
}

#[test]
fn registrars_of_the_pod_network_spread_unless_told_otherwise() {
    let path = "/template/spec/topologySpreadConstraints/0";
    let spread = registrars(&json!({})).pointer(path).cloned().unwrap();
    assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway");
    let own = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" });
    let spec = json!({ "podTemplate": { "topologySpreadConstraints": [own] } });
    assert_eq!(registrars(&spec).pointer(path), Some(&own));
}

#[test]
fn a_single_registrar_keeps_no_node_from_being_drained() {
    let budget = "PodDisruptionBudget main-registrar";
    assert!(built(&json!({})).contains_key(budget));
    let single = json!({ "registrar": { "replicas": 1 } });
    assert!(!built(&single).contains_key(budget));
    assert_eq!(registrars(&single)["replicas"], 1);
}

#[test]
fn knows_its_children_by_name() {
    let all = json!({ "sip": { "exposure": { "type": "NodePort" } } });
    for (name, _) in built(&all) {
        let (kind, name) = name.split_once(' ').unwrap();
        let kinds = [
            ChildKind::ServiceAccount,
            ChildKind::Role,
            ChildKind::RoleBinding,
            ChildKind::Service,
            ChildKind::Deployment,
            ChildKind::PodDisruptionBudget,
        ];
        let kind = kinds.into_iter().find(|k| k.name() == kind).unwrap();
        assert!(is_child("main", kind, name));
    }
    assert!(is_child("main", ChildKind::Secret, "main-media-7"));
    assert!(is_child("main", ChildKind::Secret, "main-control-ca"));
    assert!(!is_child("main", ChildKind::Secret, "main-media-8"));
    assert!(!is_child("main", ChildKind::Service, "main-other"));
}
