//! The objects of `ringwire run` with their status, as `kubectl get` would show them.
//!
//! There may be thousands: what changes in the pods' reports changes the status of the objects that it is about, and of no others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringwire_config::compile::Compiled;
use ringwire_config::shard::Role;
use ringwire_config::state::PodState;
use ringwire_config::status::{self, GatewayWorkload, Observed, ObservedPod};
use ringwire_config::{ObjectRef, Objects, Reason};
use ringwire_crds::Condition;
use serde_json::{Value, json};

/// See the module.
pub struct Board {
    objects: Objects,
    compiled: Compiled,
    gateway: ObjectRef,
    /// Where each name stands among the providers, numbers and agents.
    places: HashMap<ObjectRef, [Option<usize>; 3]>,
    /// The reports that the statuses follow from; `None`: none do yet.
    seen: Option<[PodState; 2]>,
}

impl Board {
    /// Objects without status.
    pub fn new(objects: Objects, compiled: Compiled, gateway: ObjectRef) -> Self {
        let places = places(&objects);
        Self {
            objects,
            compiled,
            gateway,
            places,
            seen: None,
        }
    }

    /// Takes the objects of changed manifests; conditions keep their times.
    pub fn load(&mut self, mut objects: Objects, compiled: Compiled, gateway: ObjectRef) {
        macro_rules! keep {
            ($($field:ident),*) => {$(
                let old = std::mem::take(&mut self.objects.$field).into_iter();
                let mut old: HashMap<_, _> = old.map(|object| (ObjectRef::of(&object), object.status)).collect();
                for object in &mut objects.$field {
                    object.status = old.remove(&ObjectRef::of(object)).flatten();
                }
            )*};
        }
        keep!(providers, numbers, agents, gateways);
        *self = Self::new(objects, compiled, gateway);
    }

    /// Takes the reports of the two roles, and works out the statuses that follow from what has changed in them.
    pub fn observe(&mut self, pods: [PodState; 2]) {
        let changed = self.seen.as_ref().and_then(|seen| {
            let mut changed = BTreeSet::new();
            for (new, old) in pods.iter().zip(seen) {
                changed.extend(new.differing(old)?);
            }
            Some(changed)
        });
        self.seen = Some(pods.clone());
        let pods = pods.map(|state| {
            let (pod, reachable) = (state.pod.clone(), true);
            (pod, ObservedPod { state, reachable })
        });
        let observed = Observed {
            pods: BTreeMap::from([(self.gateway.clone(), pods.into())]),
            ..Observed::default()
        };
        let places: Vec<[Option<usize>; 3]> = match changed {
            Some(changed) => {
                let known = changed.iter().filter_map(|id| self.places.get(id));
                known.copied().collect()
            }
            None => self.places.values().copied().collect(),
        };
        self.write(&places, &observed);
    }

    fn write(&mut self, places: &[[Option<usize>; 3]], observed: &Observed) {
        let now = jiff::Timestamp::now();
        let Self {
            objects, compiled, ..
        } = self;
        macro_rules! write {
            ($kind:literal, $field:ident, $place:literal, $status:path) => {
                for at in places.iter().filter_map(|places| places[$place]) {
                    let object = &mut objects.$field[at];
                    let id = ObjectRef::of(object);
                    let Some(findings) = compiled.$field.get(&id) else {
                        continue;
                    };
                    let fresh = $status(object, findings, observed, now);
                    let old = object.status.as_ref().map(|status| &status.conditions[..]);
                    tell($kind, &id, old, &fresh.conditions);
                    object.status = Some(fresh);
                }
            };
        }
        write!("SipProvider", providers, 0, status::sip_provider);
        write!("PhoneNumber", numbers, 1, status::phone_number);
        write!("VoiceAgent", agents, 2, status::voice_agent);
        let ready = |role| {
            let mut pods = observed.pods.values().flat_map(BTreeMap::values);
            pods.any(|pod| pod.state.role == role && pod.state.ready)
        };
        for object in &mut objects.gateways {
            let id = ObjectRef::of(object);
            let trouble = compiled.gateway_troubles.get(&id);
            let workload = GatewayWorkload {
                replicas: 1,
                ready_replicas: i32::from(ready(Role::Media)),
                // This process is all of them.
                ready_registrars: if ready(Role::Registrar) {
                    object.spec.registrar.replicas
                } else {
                    0
                },
                selector: None,
                trouble: trouble.map(|found| (found.reason, found.message.clone())),
                front: compiled.gateway_fronts.get(&id).cloned(),
            };
            let fresh = status::media_gateway(object, &workload, observed, now);
            let old = object.status.as_ref().map(|status| &status.conditions[..]);
            tell("MediaGateway", &id, old, &fresh.conditions);
            object.status = Some(fresh);
        }
    }

    /// The objects that are in force, with their status.
    pub fn items(&self) -> Vec<Value> {
        let Self {
            objects, compiled, ..
        } = self;
        let providers = objects.providers.iter();
        let providers = providers.filter(|o| compiled.providers.contains_key(&ObjectRef::of(*o)));
        let numbers = objects.numbers.iter();
        let numbers = numbers.filter(|o| compiled.numbers.contains_key(&ObjectRef::of(*o)));
        let agents = objects.agents.iter();
        let agents = agents.filter(|o| compiled.agents.contains_key(&ObjectRef::of(*o)));
        let mut items: Vec<Value> = providers.map(|object| json!(object)).collect();
        items.extend(numbers.map(|object| json!(object)));
        items.extend(agents.map(|object| json!(object)));
        items.extend(objects.gateways.iter().map(|object| json!(object)));
        items
    }
}

fn places(objects: &Objects) -> HashMap<ObjectRef, [Option<usize>; 3]> {
    let mut places: HashMap<ObjectRef, [Option<usize>; 3]> = HashMap::new();
    for (at, object) in objects.providers.iter().enumerate() {
        places.entry(ObjectRef::of(object)).or_default()[0] = Some(at);
    }
    for (at, object) in objects.numbers.iter().enumerate() {
        places.entry(ObjectRef::of(object)).or_default()[1] = Some(at);
    }
    for (at, object) in objects.agents.iter().enumerate() {
        places.entry(ObjectRef::of(object)).or_default()[2] = Some(at);
    }
    places
}

/// Logs a condition that changed, as an Event would tell it.
fn tell(kind: &str, object: &ObjectRef, old: Option<&[Condition]>, new: &[Condition]) {
    for condition in new {
        let before = old
            .unwrap_or_default()
            .iter()
            .find(|other| other.type_ == condition.type_);
        if before.is_some_and(|before| {
            before.status == condition.status && before.reason == condition.reason
        }) {
            continue;
        }
        let Condition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        // What is switched off on purpose is no trouble.
        let chosen = [Reason::RegistrationDisabled, Reason::Paused]
            .iter()
            .any(|r| r.as_str() == reason);
        if status == "False" && !chosen {
            tracing::warn!(kind, %object, condition = type_, status, reason, "{message}");
        } else {
            tracing::info!(kind, %object, condition = type_, status, reason, "{message}");
        }
    }
}
