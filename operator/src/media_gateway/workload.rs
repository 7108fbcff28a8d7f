//! How a gateway's pods are, as their objects say: counts for the status, and what keeps them from running.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DeserializeGuard;
use ringwire_config::shard::Role;
use ringwire_config::status::GatewayWorkload;
use ringwire_config::{ObjectRef, Reason};

use super::build::{COMPONENT, GATEWAY, selector_text};

/// One pod of a gateway.
pub struct GatewayPod {
    /// Its name.
    pub name: String,
    /// Its UID: a pod of the same name may be another.
    pub uid: String,
    /// What it is.
    pub role: Role,
    /// Where it is, once it runs.
    pub address: Option<IpAddr>,
    /// Whether it is ready.
    pub ready: bool,
    /// What keeps it from starting.
    pub trouble: Option<String>,
}

/// The pods of every gateway.
pub fn pods(pods: &[Arc<DeserializeGuard<Pod>>]) -> BTreeMap<ObjectRef, Vec<GatewayPod>> {
    let mut found: BTreeMap<ObjectRef, Vec<GatewayPod>> = BTreeMap::new();
    for pod in pods.iter().filter_map(|pod| pod.0.as_ref().ok()) {
        if let Some((gateway, pod)) = read(pod) {
            found.entry(gateway).or_default().push(pod);
        }
    }
    for pods in found.values_mut() {
        pods.sort_by(|a, b| a.name.cmp(&b.name));
    }
    found
}

fn read(pod: &Pod) -> Option<(ObjectRef, GatewayPod)> {
    let meta = &pod.metadata;
    let labels = meta.labels.as_ref()?;
    let component = labels.get(COMPONENT)?;
    let role = Role::ALL
        .into_iter()
        .find(|role| role.as_str() == component)?;
    let gateway = ObjectRef::new(meta.namespace.clone()?, labels.get(GATEWAY)?);
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    let conditions = || {
        status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
    };
    let ready =
        conditions().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let address = status
        .filter(|_| phase == "Running")
        .and_then(|status| status.pod_ip.as_ref()?.parse().ok());
    let name = meta.name.clone()?;
    let containers = status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten();
    let waiting = containers
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .find_map(|waiting| {
            let reason = waiting.reason.as_deref()?;
            // On the way to running.
            if matches!(reason, "ContainerCreating" | "PodInitializing") {
                return None;
            }
            Some(format!(
                "pod {name}: {reason}: {}",
                waiting.message.as_deref().unwrap_or("no message")
            ))
        });
    let unscheduled = conditions()
        .find(|condition| {
            condition.type_ == "PodScheduled"
                && condition.reason.as_deref() == Some("Unschedulable")
        })
        .map(|condition| {
            format!(
                "pod {name}: {}",
                condition
                    .message
                    .as_deref()
                    .unwrap_or("cannot be scheduled")
            )
        });
    Some((
        gateway,
        GatewayPod {
            uid: meta.uid.clone().unwrap_or_default(),
            role,
            address,
            ready: ready && meta.deletion_timestamp.is_none(),
            trouble: waiting
                .or(unscheduled)
                .filter(|_| meta.deletion_timestamp.is_none()),
            name,
        },
    ))
}

/// The counts for a gateway's status; `trouble` and `front` are filled in later.
pub fn counts(gateway: &ObjectRef, pods: &[GatewayPod]) -> GatewayWorkload {
    let count = |role, only_ready: bool| {
        let counted = pods
            .iter()
            .filter(|pod| pod.role == role && (pod.ready || !only_ready));
        i32::try_from(counted.count()).unwrap_or(i32::MAX)
    };
    GatewayWorkload {
        replicas: count(Role::Media, false),
        ready_replicas: count(Role::Media, true),
        ready_registrars: count(Role::Registrar, true),
        selector: Some(selector_text(&gateway.name, Role::Media)),
        trouble: None,
        front: None,
    }
}

/// Why a gateway's pods cannot be created, if they cannot.
pub fn creation_trouble(
    gateway: &ObjectRef,
    deployments: &[&Deployment],
) -> Option<(Reason, String)> {
    deployments.iter().find_map(|deployment| {
        let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
        let message = failure.message.as_deref().unwrap_or_default();
        Some(if message.contains("violates PodSecurity") {
            let namespace = &gateway.namespace;
            let text = format!(
                "pod security refuses the pods, for HostNetwork needs a namespace that allows it; if this one may: \
                 kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite ({message})"
            );
            (Reason::PodSecurityDenied, text)
        } else {
            (Reason::ApplyFailed, format!("pods cannot be created: {message}"))
        })
    })
}

/// Why a role has no pod that is ready, if one of its pods says so.
pub fn start_trouble(pods: &[GatewayPod]) -> Option<(Reason, String)> {
    Role::ALL.into_iter().find_map(|role| {
        let of_role = || pods.iter().filter(move |pod| pod.role == role);
        if of_role().any(|pod| pod.ready) {
            return None;
        }
        let trouble = of_role().find_map(|pod| pod.trouble.clone())?;
        Some((Reason::PodsNotReady, trouble))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, component: &str, status: &Value) -> Arc<DeserializeGuard<Pod>> {
        let labels = json!({ COMPONENT: component, GATEWAY: "main" });
        let meta = json!({ "name": name, "namespace": "voice", "uid": name, "labels": labels });
        let spec = json!({ "containers": [] });
        Arc::new(
            serde_json::from_value(json!({ "metadata": meta, "spec": spec, "status": status }))
                .unwrap(),
        )
    }

    fn running(ready: &str) -> Value {
        json!({ "phase": "Running", "podIP": "10.1.0.5", "conditions": [{ "type": "Ready", "status": ready }] })
    }

    #[test]
    fn counts_pods_by_role_and_leaves_out_those_that_ended() {
        let found = pods(&[
            pod("a", "media", &running("True")),
            pod("b", "media", &running("False")),
            pod("c", "media", &json!({ "phase": "Succeeded" })),
            pod("d", "registrar", &running("True")),
            pod("e", "stranger", &running("True")),
        ]);
        let id = ObjectRef::new("voice", "main");
        let GatewayWorkload {
            replicas,
            ready_replicas,
            ready_registrars,
            selector,
            trouble,
            front: _,
        } = counts(&id, &found[&id]);
        assert_eq!(
            (replicas, ready_replicas, ready_registrars, trouble),
            (2, 1, 1, None)
        );
        assert_eq!(
            selector.as_deref(),
            Some("app.kubernetes.io/component=media,ringwire.dev/gateway=main")
        );
    }

    #[test]
    fn a_pod_that_cannot_start_is_told_unless_another_is_ready() {
        let waiting = json!({ "reason": "ImagePullBackOff", "message": "no such image" });
        let status = json!({
            "phase": "Pending",
            "containerStatuses": [{
                "name": "x", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "waiting": waiting },
            }],
        });
        let broken = pod("a", "media", &status);
        let id = ObjectRef::new("voice", "main");
        let trouble = start_trouble(&pods(&[Arc::clone(&broken)])[&id]);
        assert_eq!(
            trouble,
            Some((
                Reason::PodsNotReady,
                "pod a: ImagePullBackOff: no such image".into()
            ))
        );
        assert_eq!(
            start_trouble(&pods(&[broken, pod("b", "media", &running("True"))])[&id]),
            None
        );
    }

    #[test]
    fn pod_security_names_the_label_to_set() {
        let message =
            "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": host namespaces";
        let condition = json!({ "type": "ReplicaFailure", "status": "True", "message": message });
        let deployment: Deployment =
            serde_json::from_value(json!({ "status": { "conditions": [condition] } })).unwrap();
        let (reason, text) =
            creation_trouble(&ObjectRef::new("voice", "main"), &[&deployment]).unwrap();
        assert_eq!(reason, Reason::PodSecurityDenied);
        assert!(
            text.contains(
                "kubectl label namespace voice pod-security.kubernetes.io/enforce=privileged"
            ),
            "{text}"
        );
    }
}
