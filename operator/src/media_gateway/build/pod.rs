//! The pods of a role, as their Deployment makes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ringwire_config::shard::Role;
use ringwire_control::server::CONTROL_PORT;
use ringwire_crds::{ImagePullPolicy, PodTemplate, SecretRef};

use super::{host_network, labels, role_name, spread};
use crate::media_gateway::validate::ValidGateway;
use crate::options::PodDefaults;

/// The image's entry point.
const BINARY: &str = "/ringwire";

/// Where the pods keep the socket that `ringwire health` asks; all else is read-only.
const RUN_DIRECTORY: &str = "/run/ringwire";

/// The user that the image runs as.
const USER: i64 = 65532;

/// How long a registrar may take to stop. It ends no calls: those are the media pods'.
const REGISTRAR_GRACE_SECONDS: i64 = 15;

/// How long where load balancers have to find its successor first.
const REGISTRAR_GRACE_SECONDS_BEHIND_SERVICES: i64 = 45;

/// What a media pod gets beyond `drainSeconds`, to hang up and close.
const MEDIA_GRACE_SECONDS: i64 = 15;

pub(super) fn template(
    gateway: &ValidGateway<'_>,
    role: Role,
    defaults: &PodDefaults,
) -> PodTemplateSpec {
    let PodTemplate {
        image,
        image_pull_policy,
        image_pull_secrets,
        priority_class_name,
        resources,
        labels: more_labels,
        annotations,
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
    } = gateway.object().spec.pod_template.clone();
    let on_host = host_network(gateway.object(), role);
    let (affinity, topology_spread_constraints) =
        spread::build(gateway, role, affinity, topology_spread_constraints);
    let mut pod_labels = more_labels;
    pod_labels.extend(labels(gateway, Some(role)));

    let container = Container {
        name: role.as_str().to_owned(),
        image: Some(image.unwrap_or_else(|| defaults.image.clone())),
        image_pull_policy: image_pull_policy
            .or(defaults.image_pull_policy)
            .map(|policy| pull_policy(policy).to_owned()),
        command: Some(vec![BINARY.to_owned()]),
        args: Some(vec![
            role.as_str().to_owned(),
            format!("--gateway={}", gateway.id()),
        ]),
        env: Some(environment()),
        // On the host's network a declared port is a host port, and two pods with the same never share a node.
        ports: (!on_host).then(|| ports(gateway, role)),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(2),
            ..health(&[])
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..health(&["--live"])
        }),
        // Asks for readiness, every second: a pod takes calls as soon as it can. It starts over when it can't for 10 minutes.
        startup_probe: Some(Probe {
            period_seconds: Some(1),
            timeout_seconds: Some(2),
            failure_threshold: Some(600),
            ..health(&[])
        }),
        resources: Some(resources.unwrap_or_else(|| default_resources(role))),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            seccomp_profile: Some(runtime_default()),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: "run".to_owned(),
            mount_path: RUN_DIRECTORY.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    let grace = match role {
        Role::Registrar
            if gateway
                .object()
                .spec
                .sip
                .exposure
                .type_
                .service_type()
                .is_some() =>
        {
            REGISTRAR_GRACE_SECONDS_BEHIND_SERVICES
        }
        Role::Registrar => REGISTRAR_GRACE_SECONDS,
        Role::Media => i64::from(gateway.object().spec.drain_seconds) + MEDIA_GRACE_SECONDS,
    };
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: some_unless_empty(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            service_account_name: Some(role_name(&gateway.id().name, role)),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(grace),
            host_network: on_host.then_some(true),
            dns_policy: on_host.then(|| "ClusterFirstWithHostNet".to_owned()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(runtime_default()),
                ..PodSecurityContext::default()
            }),
            volumes: Some(vec![Volume {
                name: "run".to_owned(),
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".to_owned()),
                    size_limit: Some(Quantity("1Mi".to_owned())),
                }),
                ..Volume::default()
            }]),
            image_pull_secrets: (!image_pull_secrets.is_empty()).then(|| {
                image_pull_secrets
                    .into_iter()
                    .map(|SecretRef { name }| LocalObjectReference { name })
                    .collect()
            }),
            priority_class_name,
            node_selector: some_unless_empty(node_selector),
            tolerations: (!tolerations.is_empty()).then_some(tolerations),
            affinity,
            topology_spread_constraints,
            ..PodSpec::default()
        }),
    }
}

fn some_unless_empty(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

fn pull_policy(policy: ImagePullPolicy) -> &'static str {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    }
}

fn environment() -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        // Owner of the registrar's Lease, which goes with the pod then.
        field("POD_UID", "metadata.uid"),
        field("NODE_NAME", "spec.nodeName"),
        EnvVar {
            name: "RINGWIRE_LOG_FORMAT".to_owned(),
            value: Some("json".to_owned()),
            ..EnvVar::default()
        },
    ]
}

fn ports(gateway: &ValidGateway<'_>, role: Role) -> Vec<ContainerPort> {
    let port = |name: &str, protocol: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        container_port: number.into(),
        ..ContainerPort::default()
    };
    let sip = &gateway.object().spec.sip;
    let mut ports = Vec::new();
    if role == Role::Registrar {
        ports.push(port("sip-udp", "UDP", sip.udp_port));
        ports.push(port("sip-tcp", "TCP", sip.tcp_port));
        ports.extend(sip.tls.as_ref().map(|tls| port("sip-tls", "TCP", tls.port)));
    }
    ports.push(port("control", "TCP", CONTROL_PORT));
    ports
}

fn health(arguments: &[&str]) -> Probe {
    let command = [BINARY, "health"]
        .iter()
        .chain(arguments)
        .map(|&part| part.to_owned())
        .collect();
    Probe {
        exec: Some(ExecAction {
            command: Some(command),
        }),
        ..Probe::default()
    }
}

/// No CPU limit: throttling makes audio stutter.
fn default_resources(role: Role) -> ResourceRequirements {
    let (cpu, memory, limit) = match role {
        Role::Registrar => ("50m", "32Mi", "256Mi"),
        Role::Media => ("100m", "64Mi", "512Mi"),
    };
    let quantities = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), Quantity(value.to_owned())))
            .collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", cpu), ("memory", memory)])),
        limits: Some(quantities(&[("memory", limit)])),
        ..ResourceRequirements::default()
    }
}
