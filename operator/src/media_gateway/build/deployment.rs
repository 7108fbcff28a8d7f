//! Deployments: how many pods of a role there are, and how they are replaced.

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringwire_config::shard::Role;

use super::{host_network, metadata, pod, role_name, selector};
use crate::media_gateway::validate::ValidGateway;
use crate::options::PodDefaults;

/// Annotation: what the namespace's pod security label said when the Deployment was written. Where pods were refused, the change
/// of this annotation makes the Deployment controller try again at once, instead of after minutes of back-off.
pub const POD_SECURITY: &str = "ringwire.dev/pod-security";

pub(super) fn build(
    gateway: &ValidGateway<'_>,
    role: Role,
    defaults: &PodDefaults,
    pod_security: Option<&str>,
) -> Deployment {
    let name = gateway.id().name;
    let spec = &gateway.object().spec;
    let on_host = host_network(gateway.object(), role);
    let (replicas, surge, unavailable) = match role {
        // The successor needs the port: on the host's network two registrars of one node cannot both have it.
        Role::Registrar if on_host => (spec.registrar.replicas, 0, 1),
        Role::Registrar => (spec.registrar.replicas, 1, 0),
        Role::Media => (spec.replicas, 1, 0),
    };
    let mut metadata = metadata(gateway, role_name(&name, role), Some(role));
    if on_host {
        let level = pod_security.unwrap_or("unset").to_owned();
        metadata.annotations = Some([(POD_SECURITY.to_owned(), level)].into());
    }
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            revision_history_limit: Some(3),
            selector: LabelSelector {
                match_labels: Some(selector(&name, role)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            template: pod::template(gateway, role, defaults),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
