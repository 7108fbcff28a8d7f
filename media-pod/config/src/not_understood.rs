//! Objects that a pod was told of and cannot read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::object::ObjectRef;

/// Objects whose entries were written for a newer version than the pod's, and what it did not understand. The pod goes on as if they
/// were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotUnderstood {
    /// Trunks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub providers: BTreeMap<ObjectRef, String>,
    /// Numbers of trunks that are understood.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<ObjectRef, String>,
    /// Agents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<ObjectRef, String>,
}

impl NotUnderstood {
    /// Whether all was understood.
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Kind, name and what was not understood.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &ObjectRef, &str)> {
        let Self {
            providers,
            numbers,
            agents,
        } = self;
        let kinds = [
            ("SipProvider", providers),
            ("PhoneNumber", numbers),
            ("VoiceAgent", agents),
        ];
        kinds.into_iter().flat_map(|(kind, objects)| {
            let objects = objects.iter();
            objects.map(move |(id, detail)| (kind, id, detail.as_str()))
        })
    }

    pub(crate) fn extend(&mut self, other: Self) {
        let Self {
            providers,
            numbers,
            agents,
        } = other;
        self.providers.extend(providers);
        self.numbers.extend(numbers);
        self.agents.extend(agents);
    }
}
