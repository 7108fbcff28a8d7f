//! Comparing the status that an object has with the one that it should have. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use ringwire_config::compile::Verdict;
use ringwire_config::status as reported;
use ringwire_config::{ObjectRef, Objects, Reason};
use ringwire_crds::{
    Condition, Kind, MediaGateway, MediaGatewayStatus, PhoneNumber, PhoneNumberStatus, SipProvider,
    SipProviderStatus, VoiceAgent, VoiceAgentStatus, condition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::events::{Told, turns};
use crate::world::Malformed;

/// Which object's status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusKey {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub id: ObjectRef,
}

/// How soon a status has to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Something turned.
    AtOnce,
    /// Counters moved.
    InTime,
}

/// A status that differs from the object's.
pub struct Change {
    /// Whose.
    pub key: StatusKey,
    /// The version of the object that was looked at.
    pub resource_version: String,
    /// The status as it should be.
    pub status: Value,
    /// How soon.
    pub urgency: Urgency,
    /// What is told once it is written.
    pub told: Vec<Told>,
}

/// A kind with a status.
pub trait Reported: Resource<DynamicType = ()> + Clone {
    /// The kind.
    const KIND: Kind;
    /// Its status.
    type Status: Clone + PartialEq + Serialize + DeserializeOwned;
    /// The status that the object has.
    fn status(&self) -> Option<&Self::Status>;
    /// Gives the object another.
    fn set_status(&mut self, status: Self::Status);
    /// Its conditions.
    fn conditions(status: &Self::Status) -> &[Condition];
    /// The same without what moves with every call.
    fn without_counters(status: Self::Status) -> Self::Status;
}

macro_rules! reported {
    ($kind:ident, $status:ident, |$value:ident| $without:expr) => {
        impl Reported for $kind {
            const KIND: Kind = Kind::$kind;
            type Status = $status;
            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }
            fn set_status(&mut self, status: $status) {
                self.status = Some(status);
            }
            fn conditions(status: &$status) -> &[Condition] {
                &status.conditions
            }
            fn without_counters($value: $status) -> $status {
                $without
            }
        }
    };
}

reported!(SipProvider, SipProviderStatus, |status| SipProviderStatus {
    active_calls: 0,
    ..status
});
reported!(PhoneNumber, PhoneNumberStatus, |status| PhoneNumberStatus {
    active_calls: 0,
    last_call_at: None,
    ..status
});
reported!(VoiceAgent, VoiceAgentStatus, |status| VoiceAgentStatus {
    active_calls: 0,
    ..status
});
reported!(MediaGateway, MediaGatewayStatus, |status| {
    MediaGatewayStatus {
        active_calls: 0,
        ..status
    }
});

/// What has to be written about `object`, if anything.
pub fn compare<K: Reported>(object: &K, wanted: K::Status) -> Option<Change> {
    let old = object.status();
    if old == Some(&wanted) {
        return None;
    }
    let quiet = old
        .is_some_and(|old| K::without_counters(old.clone()) == K::without_counters(wanted.clone()));
    let old_conditions = old.map(K::conditions).unwrap_or_default();
    Some(Change {
        key: StatusKey {
            kind: K::KIND,
            id: ObjectRef::of(object),
        },
        resource_version: object.meta().resource_version.clone().unwrap_or_default(),
        told: turns(
            old_conditions,
            K::conditions(&wanted),
            &object.object_ref(&()),
        ),
        // A status is made of strings, numbers and maps with string keys: it always has a JSON form.
        status: serde_json::to_value(wanted).unwrap_or_default(),
        urgency: if quiet {
            Urgency::InTime
        } else {
            Urgency::AtOnce
        },
    })
}

/// What the status of a malformed object should be.
pub fn malformed(object: &Malformed, now: Timestamp) -> Change {
    let Malformed {
        kind,
        metadata,
        error,
    } = object;
    let message = format!("the object does not have the form of its kind and is left out: {error}");
    let verdict = Verdict::no(Reason::InvalidSpec, message);
    let ready = reported::condition(condition::READY, &verdict, metadata.generation, &[], now);
    let regarding = ObjectReference {
        api_version: Some(ringwire_crds::API_VERSION.to_owned()),
        kind: Some(kind.name().to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let told = turns(&[], std::slice::from_ref(&ready), &regarding);
    let id = ObjectRef::new(
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    );
    Change {
        key: StatusKey { kind: *kind, id },
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        status: json!({ "observedGeneration": metadata.generation, "conditions": [ready] }),
        urgency: Urgency::AtOnce,
        told,
    }
}

/// Statuses that were written but that the watch has not shown yet. Without them a pass in between would take the old status for
/// the present one, and write again with another time.
#[derive(Default)]
pub struct Written {
    written: BTreeMap<StatusKey, (String, Value)>,
}

impl Written {
    /// Notes a write that was made after the object was seen in `resource_version`, and shows it in `objects` if they are as old.
    pub fn note(
        &mut self,
        key: StatusKey,
        resource_version: String,
        status: Value,
        objects: Option<&mut Objects>,
    ) {
        if let Some(objects) = objects {
            match key.kind {
                Kind::SipProvider => {
                    show(&mut objects.providers, &key.id, &resource_version, &status);
                }
                Kind::PhoneNumber => {
                    show(&mut objects.numbers, &key.id, &resource_version, &status);
                }
                Kind::VoiceAgent => show(&mut objects.agents, &key.id, &resource_version, &status),
                Kind::MediaGateway => {
                    show(&mut objects.gateways, &key.id, &resource_version, &status);
                }
            }
        }
        self.written.insert(key, (resource_version, status));
    }

    /// Gives the objects what was written, and forgets what the watch has shown by now.
    pub fn overlay(&mut self, objects: &mut Objects) {
        if self.written.is_empty() {
            return;
        }
        let mut kept = BTreeMap::new();
        self.overlay_kind(&mut objects.providers, &mut kept);
        self.overlay_kind(&mut objects.numbers, &mut kept);
        self.overlay_kind(&mut objects.agents, &mut kept);
        self.overlay_kind(&mut objects.gateways, &mut kept);
        self.written = kept;
    }

    fn overlay_kind<K: Reported>(
        &self,
        objects: &mut [K],
        kept: &mut BTreeMap<StatusKey, (String, Value)>,
    ) {
        for object in objects {
            let key = StatusKey {
                kind: K::KIND,
                id: ObjectRef::of(object),
            };
            let Some((version, status)) = self.written.get(&key) else {
                continue;
            };
            if object.meta().resource_version.as_ref() != Some(version) {
                continue;
            }
            if let Ok(parsed) = serde_json::from_value(status.clone()) {
                object.set_status(parsed);
                kept.insert(key, (version.clone(), status.clone()));
            }
        }
    }
}

/// Gives one object a status. The objects are in the order of their names.
fn show<K: Reported>(objects: &mut [K], id: &ObjectRef, resource_version: &str, status: &Value) {
    let Ok(index) = objects.binary_search_by_key(id, ObjectRef::of) else {
        return;
    };
    let object = &mut objects[index];
    if object.meta().resource_version.as_deref() == Some(resource_version)
        && let Ok(parsed) = serde_json::from_value(status.clone())
    {
        object.set_status(parsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire_crds::PhoneNumberSpec;

    fn number(calls: u32) -> PhoneNumber {
        let mut object = PhoneNumber::new("main", PhoneNumberSpec::default());
        object.metadata.namespace = Some("voice".into());
        object.metadata.resource_version = Some("7".into());
        object.status = Some(PhoneNumberStatus {
            active_calls: calls,
            ..PhoneNumberStatus::default()
        });
        object
    }

    fn status(calls: u32, agent: &str) -> PhoneNumberStatus {
        let agent = Some(agent.to_owned()).filter(|agent| !agent.is_empty());
        PhoneNumberStatus {
            active_calls: calls,
            agent,
            ..PhoneNumberStatus::default()
        }
    }

    #[test]
    fn counters_wait_and_all_else_does_not() {
        assert!(compare(&number(1), status(1, "")).is_none());
        assert_eq!(
            compare(&number(1), status(2, "")).map(|change| change.urgency),
            Some(Urgency::InTime)
        );
        assert_eq!(
            compare(&number(1), status(2, "x")).map(|change| change.urgency),
            Some(Urgency::AtOnce)
        );
        let mut fresh = number(0);
        fresh.status = None;
        assert_eq!(
            compare(&fresh, status(0, "")).map(|change| change.urgency),
            Some(Urgency::AtOnce)
        );
    }

    #[test]
    fn what_was_written_counts_until_the_watch_shows_it() {
        let mut written = Written::default();
        let key = StatusKey {
            kind: Kind::PhoneNumber,
            id: ObjectRef::new("voice", "main"),
        };
        let mut present = Objects {
            numbers: vec![number(0)],
            ..Objects::default()
        };
        written.note(
            key,
            "7".into(),
            serde_json::to_value(status(3, "x")).unwrap(),
            Some(&mut present),
        );
        assert_eq!(
            present.numbers[0].status,
            Some(status(3, "x")),
            "what the loop still looks at"
        );
        let mut objects = Objects {
            numbers: vec![number(0)],
            ..Objects::default()
        };
        written.overlay(&mut objects);
        assert_eq!(objects.numbers[0].status, Some(status(3, "x")));

        let mut shown = number(5);
        shown.metadata.resource_version = Some("8".into());
        let mut objects = Objects {
            numbers: vec![shown],
            ..Objects::default()
        };
        written.overlay(&mut objects);
        assert_eq!(
            objects.numbers[0]
                .status
                .as_ref()
                .map(|status| status.active_calls),
            Some(5)
        );
        assert!(written.written.is_empty());
    }

    #[test]
    fn a_malformed_object_gets_a_condition() {
        let metadata = kube::core::ObjectMeta {
            name: Some("bad".into()),
            namespace: Some("voice".into()),
            generation: Some(4),
            ..kube::core::ObjectMeta::default()
        };
        let object = Malformed {
            kind: Kind::PhoneNumber,
            metadata,
            error: "missing field `number`".into(),
        };
        let change = malformed(&object, Timestamp::UNIX_EPOCH);
        let ready = &change.status["conditions"][0];
        assert_eq!(ready["status"], "False");
        assert_eq!(ready["reason"], "InvalidSpec");
        assert_eq!(ready["observedGeneration"], 4);
        assert!(
            ready["message"]
                .as_str()
                .unwrap()
                .contains("missing field `number`")
        );
        assert_eq!(change.told.len(), 1);
    }
}
