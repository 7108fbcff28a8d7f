//! `PodDisruptionBudgets`: nodes are drained one registrar at a time.
//!
//! Media pods have none: they wait for their calls by themselves, as long as `drainSeconds` says.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringwire_config::shard::Role;

use super::{metadata, role_name, selector};
use crate::media_gateway::validate::ValidGateway;

/// None for a single registrar: it would keep its node from ever being drained.
pub(super) fn build(gateway: &ValidGateway<'_>) -> Option<PodDisruptionBudget> {
    let name = gateway.id().name;
    (gateway.object().spec.registrar.replicas > 1).then(|| PodDisruptionBudget {
        metadata: metadata(
            gateway,
            role_name(&name, Role::Registrar),
            Some(Role::Registrar),
        ),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(selector(&name, Role::Registrar)),
                ..LabelSelector::default()
            }),
            // A pod that does not work is no reason to keep its node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}
