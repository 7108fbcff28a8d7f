//! Statuses within a pass: what each object should say, and which writes of it start now.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use ringwire_config::ObjectRef;
use ringwire_config::status::{self as reported, Observed};
use ringwire_crds::{Condition, RegistrationState, condition};
use serde_json::Value;

use super::compiled::Known;
use super::gateways::Pods;
use super::{Done, Reconciler, StatusDone, Work};
use crate::fingerprint;
use crate::media_gateway::workload;
use crate::metrics::ObjectSample;
use crate::retry::Fingerprint;
use crate::status::changes::{self, Change, Reported, StatusKey, Urgency, compare};
use crate::status::write;

/// What a pass found to say.
#[derive(Default)]
struct Findings {
    changes: Vec<Change>,
    samples: Vec<ObjectSample>,
}

impl Findings {
    fn add<K: Reported>(
        &mut self,
        object: &K,
        wanted: K::Status,
        active_calls: u32,
    ) -> &mut ObjectSample {
        let sample = ObjectSample {
            kind: K::KIND.name(),
            id: ObjectRef::of(object),
            ready: ready(K::conditions(&wanted)),
            registered: None,
            active_calls,
            replicas: None,
        };
        self.changes.extend(compare(object, wanted));
        self.samples.push(sample);
        let last = self.samples.len() - 1;
        &mut self.samples[last]
    }
}

fn ready(conditions: &[Condition]) -> &'static str {
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == condition::READY);
    match found.map(|condition| condition.status.as_str()) {
        Some("True") => "True",
        Some("False") => "False",
        _ => "Unknown",
    }
}

/// A short form of a status without its times: those of a status that cannot be written would differ at every attempt.
fn wish(status: &Value) -> Fingerprint {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastTransitionTime");
        }
    }
    fingerprint::of(&status)
}

impl Reconciler {
    /// Starts the status writes that are due. Returns when a pod becomes unreachable if it stays silent.
    pub(super) fn write_statuses(
        &mut self,
        known: &Known,
        pods: &Pods,
        now: Instant,
        time: Timestamp,
    ) -> Option<Instant> {
        let (mut observed, silence) = self.observer.observed(now);
        for (gateway, prepared) in &self.prepared {
            for (role, digests) in &prepared.digests {
                let key = (gateway.clone(), *role);
                observed.wanted.insert(key, digests.clone());
            }
        }
        if !self.settled {
            return silence;
        }
        let Findings { changes, samples } = self.find(known, pods, &observed, time);
        self.metrics.set_objects(samples);

        let idle = |change: &Change| !self.slots.is_busy(&Work::Status(change.key.clone()));
        let mut changes: BTreeMap<StatusKey, Change> = changes
            .into_iter()
            .filter(idle)
            .map(|change| (change.key.clone(), change))
            .collect();
        let in_time = changes
            .iter()
            .filter(|(_, change)| change.urgency == Urgency::InTime);
        let in_time: Vec<StatusKey> = in_time.map(|(key, _)| key.clone()).collect();
        let admitted = self.budget.admit(in_time, now);
        self.slots.retain(|work| match work {
            Work::Status(key) => changes.contains_key(key) || known.is_malformed(key),
            _ => true,
        });
        changes.retain(|key, change| change.urgency == Urgency::AtOnce || admitted.contains(key));
        for change in changes.into_values() {
            self.write_status(change, None, now);
        }
        self.write_malformed(known, now, time);
        silence
    }

    fn find(&self, known: &Known, pods: &Pods, observed: &Observed, time: Timestamp) -> Findings {
        let Known {
            objects,
            malformed: _,
            compiled,
            controls: _,
        } = known;
        let mut findings = Findings::default();
        for object in &objects.providers {
            let Some(found) = compiled.providers.get(&ObjectRef::of(object)) else {
                continue;
            };
            let status = reported::sip_provider(object, found, observed, time);
            let calls = status.active_calls;
            let registration = status
                .registration
                .as_ref()
                .map(|registration| registration.state);
            let registered = registration.filter(|_| found.registers);
            findings.add(object, status, calls).registered =
                registered.map(|state| state == RegistrationState::Registered);
        }
        for object in &objects.numbers {
            let Some(found) = compiled.numbers.get(&ObjectRef::of(object)) else {
                continue;
            };
            let status = reported::phone_number(object, found, observed, time);
            let calls = status.active_calls;
            findings.add(object, status, calls);
        }
        for object in &objects.agents {
            let Some(found) = compiled.agents.get(&ObjectRef::of(object)) else {
                continue;
            };
            let status = reported::voice_agent(object, found, observed, time);
            let calls = status.active_calls;
            findings.add(object, status, calls);
        }
        for object in &objects.gateways {
            let id = ObjectRef::of(object);
            let pods = pods.get(&id).map(Vec::as_slice).unwrap_or_default();
            let mut workload = workload::counts(&id, pods);
            workload.trouble = self.trouble(known, object, pods);
            workload.front = compiled.gateway_fronts.get(&id).cloned();
            let status = reported::media_gateway(object, &workload, observed, time);
            let (calls, ready) = (status.active_calls, status.ready_replicas);
            findings.add(object, status, calls).replicas = Some((ready, object.spec.replicas));
        }
        for object in &known.malformed {
            let meta = &object.metadata;
            findings.samples.push(ObjectSample {
                kind: object.kind.name(),
                id: ObjectRef::new(
                    meta.namespace.clone().unwrap_or_default(),
                    meta.name.clone().unwrap_or_default(),
                ),
                ready: "False",
                registered: None,
                active_calls: 0,
                replicas: None,
            });
        }
        findings
    }

    /// Objects of which only metadata can be read: each version of each is looked at once.
    fn write_malformed(&mut self, known: &Known, now: Instant, time: Timestamp) {
        let mut told = BTreeMap::new();
        for object in &known.malformed {
            let change = changes::malformed(object, time);
            let version =
                fingerprint::of(&[&object.metadata.uid, &object.metadata.resource_version]);
            if self.malformed_told.get(&change.key) == Some(&version) {
                told.insert(change.key, version);
            } else {
                self.write_status(change, Some(version), now);
            }
        }
        self.malformed_told = told;
    }

    fn write_status(&mut self, change: Change, malformed: Option<Fingerprint>, now: Instant) {
        let Change {
            key,
            resource_version,
            status,
            urgency: _,
            told,
        } = change;
        if !self
            .slots
            .start(&Work::Status(key.clone()), wish(&status), now)
        {
            return;
        }
        let client = self.client.clone();
        self.tasks.spawn(async move {
            let result = match malformed {
                None => write::status(client, key.clone(), status.clone())
                    .await
                    .map(|()| true),
                Some(_) => write::malformed(client, key.clone(), status.clone()).await,
            };
            Done::Status(Box::new(StatusDone {
                key,
                resource_version,
                status,
                told,
                malformed,
                result,
            }))
        });
    }

    pub(super) fn status_done(&mut self, done: StatusDone, now: Instant) {
        let StatusDone {
            key,
            resource_version,
            status,
            told,
            malformed,
            result,
        } = done;
        let work = Work::Status(key.clone());
        match result {
            Ok(written) => {
                self.slots.succeeded(&work);
                if written {
                    self.metrics.status_written(key.kind.name());
                    log_ready(&key, &status);
                    self.tell(told);
                }
                if let Some(version) = malformed {
                    self.malformed_told.insert(key, version);
                } else {
                    // The next pass has to start from what was written, whether or not the watch has shown it.
                    let objects = self.known.as_mut().map(|known| &mut known.objects);
                    self.written.note(key, resource_version, status, objects);
                }
                self.signal.state_changed();
            }
            Err(failure) => self.failed(&work, &failure, now),
        }
    }
}

impl Known {
    fn is_malformed(&self, key: &StatusKey) -> bool {
        self.malformed.iter().any(|object| {
            let meta = &object.metadata;
            object.kind == key.kind
                && meta.name.as_ref() == Some(&key.id.name)
                && meta.namespace.as_ref() == Some(&key.id.namespace)
        })
    }
}

fn log_ready(key: &StatusKey, status: &Value) {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let Some(ready) = conditions
        .into_iter()
        .find(|condition| condition["type"] == condition::READY)
    else {
        return;
    };
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    let (object, kind) = write::describe(key);
    let (ready, reason, message) = (text("status"), text("reason"), text("message"));
    tracing::info!(
        object,
        kind,
        ready,
        reason,
        detail = message,
        "status written"
    );
}
