//! What is seen of the pods.

use std::collections::BTreeMap;

use crate::compile::Verdict;
use crate::not_understood::NotUnderstood;
use crate::object::ObjectRef;
use crate::reason::Reason;
use crate::shard::{self, Role};
use crate::state::PodState;

/// One pod as it is seen now.
#[derive(Clone, Debug)]
pub struct ObservedPod {
    /// Its last report.
    pub state: PodState,
    /// Whether it was seen within [`crate::state::UNREACHABLE_AFTER`].
    pub reachable: bool,
}

/// The pods of all gateways as they are seen now.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By gateway, then pod name.
    pub pods: BTreeMap<ObjectRef, BTreeMap<String, ObservedPod>>,
    /// Digests of the shards that the pods are to work by, by gateway and role. None without a cluster: what is compiled is in force.
    pub wanted: BTreeMap<(ObjectRef, Role), Vec<String>>,
}

impl Observed {
    pub(super) fn of<'a>(
        &'a self,
        gateway: &ObjectRef,
    ) -> impl Iterator<Item = &'a ObservedPod> + use<'a> {
        self.pods
            .get(gateway)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ObservedPod> {
        self.pods.values().flat_map(BTreeMap::values)
    }

    /// Whether all pods of a role that take calls work by the present configuration of an object.
    pub(super) fn know(&self, gateway: &ObjectRef, role: Role, object: &ObjectRef) -> bool {
        let index = shard::index_of(object);
        let wanted = self
            .wanted
            .get(&(gateway.clone(), role))
            .and_then(|digests| digests.get(index));
        let asked = self.of(gateway).filter(|pod| {
            pod.reachable
                && pod.state.role == role
                && !pod.state.draining
                && !pod.state.configuration.is_empty()
        });
        let mut told = asked.map(|pod| pod.state.configuration.get(index));
        wanted.is_none() || told.all(|digest| digest == wanted)
    }

    /// What is to be said of an object that a pod which takes calls does not understand; `said` finds it in a report.
    pub(super) fn newer_version_needed<'a>(
        pods: impl Iterator<Item = &'a ObservedPod>,
        kind: &str,
        said: impl Fn(&'a NotUnderstood) -> Option<&'a String>,
    ) -> Option<Verdict> {
        let mut pods = pods.filter(|pod| pod.reachable && !pod.state.draining);
        pods.find_map(|pod| {
            let message = format!(
                "the {} pod {} needs a newer version of Ringwire to understand this {kind} ({}), and goes on without it",
                pod.state.role,
                pod.state.pod,
                said(&pod.state.not_understood)?
            );
            Some(Verdict::no(Reason::NewerVersionNeeded, message))
        })
    }

    /// A sum over all pods that can be reached.
    pub(super) fn sum(&self, count: impl Fn(&PodState) -> u32) -> u32 {
        self.all()
            .filter(|pod| pod.reachable)
            .map(|pod| count(&pod.state))
            .sum()
    }
}
