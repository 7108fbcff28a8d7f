//! On which nodes registrars run: one each, so that a node that fails takes no more than one of them.

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, PodAntiAffinity, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use ringwire_config::shard::Role;

use super::{host_network, selector};
use crate::media_gateway::validate::ValidGateway;

const NODE: &str = "kubernetes.io/hostname";

/// What the user wants, and what the role needs beside that.
pub(super) fn build(
    gateway: &ValidGateway<'_>,
    role: Role,
    affinity: Option<Affinity>,
    constraints: Vec<TopologySpreadConstraint>,
) -> (Option<Affinity>, Option<Vec<TopologySpreadConstraint>>) {
    let some = |constraints: Vec<_>| (!constraints.is_empty()).then_some(constraints);
    if role != Role::Registrar {
        return (affinity, some(constraints));
    }
    let ours = LabelSelector {
        match_labels: Some(selector(&gateway.id().name, role)),
        ..LabelSelector::default()
    };
    if host_network(gateway.object(), role) {
        // Two cannot have the same port of a node: the second would never become ready there.
        return (Some(apart(affinity, ours)), some(constraints));
    }
    if !constraints.is_empty() {
        return (affinity, some(constraints));
    }
    let spread = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: NODE.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(ours),
        // Predecessors that go away do not count.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    (affinity, Some(vec![spread]))
}

/// `affinity`, and never two on one node.
fn apart(affinity: Option<Affinity>, pods: LabelSelector) -> Affinity {
    let mut affinity = affinity.unwrap_or_default();
    let PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: required,
        ..
    } = affinity.pod_anti_affinity.get_or_insert_default();
    required.get_or_insert_default().push(PodAffinityTerm {
        label_selector: Some(pods),
        topology_key: NODE.to_owned(),
        ..PodAffinityTerm::default()
    });
    affinity
}
