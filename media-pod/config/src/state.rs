//! What a pod reports, and the stream format it does so in.
//!
//! A subscriber gets JSON lines: first the whole [`PodState`], then JSON merge patches (RFC 7396) against it, and an empty patch at least
//! every [`HEARTBEAT`] so that silence means trouble.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ringwire_crds::Transport;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::not_understood::NotUnderstood;
use crate::object::ObjectRef;
use crate::reason::Reason;
use crate::shard::Role;
use crate::token::Incarnation;

/// A line is sent at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(3);

/// A pod unseen for this long counts as unreachable.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(15);

/// How many refused sources of a provider are kept.
pub const MAX_REFUSED_SOURCES: usize = 8;

/// All that a pod reports. What has an entry for each of thousands of objects is shared by copies until one of them changes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    /// The pod's name.
    pub pod: String,
    /// Its role.
    pub role: Role,
    /// Which run of the pod this is.
    pub incarnation: Incarnation,
    /// Whether it takes calls.
    pub ready: bool,
    /// Whether it is stopping.
    pub draining: bool,
    /// Digests of the configuration's shards that it works by, in order; an older pod tells none.
    #[serde(default)]
    pub configuration: Vec<String>,
    /// Objects in that configuration that this pod's version does not understand; it goes on without them.
    #[serde(default, skip_serializing_if = "NotUnderstood::is_empty")]
    pub not_understood: NotUnderstood,
    /// What peers outside are told, such as `udp:203.0.113.7:5060`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Registrations that this pod holds or tries to get.
    #[serde(default)]
    pub registrations: Arc<BTreeMap<ObjectRef, RegistrationReport>>,
    /// Addresses of each provider's server.
    #[serde(default)]
    pub resolved: Arc<BTreeMap<ObjectRef, Vec<IpAddr>>>,
    /// Running calls (media pods).
    #[serde(default)]
    pub calls: CallCounts,
    /// Start of the last call of each number (registrars).
    #[serde(default)]
    pub last_call: Arc<BTreeMap<ObjectRef, Timestamp>>,
    /// Sources that were refused although they dialled a number of this provider (registrars).
    #[serde(default)]
    pub refused_sources: BTreeMap<ObjectRef, Vec<RefusedSource>>,
    /// Refused calls by reason since the pod started.
    #[serde(default)]
    pub refusals: BTreeMap<Reason, u64>,
    /// Connections of carriers that were cut off or refused, since the pod started (registrars).
    #[serde(default)]
    pub cut_off: BTreeMap<CutOff, u64>,
    /// The same of each provider (registrars); further ones of a minute are told at its end, so that a storm of them is no storm of
    /// reports.
    #[serde(default)]
    pub provider_refusals: BTreeMap<ObjectRef, BTreeMap<Reason, RefusalReport>>,
    /// How each agent was last reached (media pods).
    #[serde(default)]
    pub agents: BTreeMap<ObjectRef, AgentReport>,
    /// Whether sound goes both ways in the calls of each provider (media pods).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sound: BTreeMap<ObjectRef, SoundReport>,
    /// The socket of SIP over UDP (registrars).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpReport>,
}

impl PodState {
    /// The state of a pod that has just started.
    pub fn new(pod: impl Into<String>, role: Role, incarnation: Incarnation) -> Self {
        Self {
            pod: pod.into(),
            role,
            incarnation,
            ready: false,
            draining: false,
            configuration: Vec::new(),
            not_understood: NotUnderstood::default(),
            addresses: Vec::new(),
            registrations: Arc::default(),
            resolved: Arc::default(),
            calls: CallCounts::default(),
            last_call: Arc::default(),
            refused_sources: BTreeMap::new(),
            refusals: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            provider_refusals: BTreeMap::new(),
            agents: BTreeMap::new(),
            sound: BTreeMap::new(),
            udp: None,
        }
    }

    /// The same without what there is of thousands of objects.
    fn small(&self) -> Self {
        Self {
            registrations: Arc::default(),
            resolved: Arc::default(),
            last_call: Arc::default(),
            ..self.clone()
        }
    }

    /// The JSON merge patch that turns `old` into this; `None` if they are equal. Large parts that they share are not looked at.
    pub fn patch_from(&self, old: &Self) -> Option<Value> {
        let value = |state: Self| serde_json::to_value(state).unwrap_or_default();
        let patch = diff(&value(old.small()), &value(self.small()));
        let mut patch = match patch {
            Some(Value::Object(patch)) => patch,
            _ => Map::new(),
        };
        let parts = [
            (
                "registrations",
                entries(&old.registrations, &self.registrations),
            ),
            ("resolved", entries(&old.resolved, &self.resolved)),
            ("lastCall", entries(&old.last_call, &self.last_call)),
        ];
        for (name, part) in parts {
            if let Some(part) = part {
                patch.insert(name.to_owned(), part);
            }
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }

    /// Reads the state that `value` holds, where `patch` has led to it from this one: large parts that are not in the patch are shared.
    pub fn patched(&self, patch: &Value, value: &Value) -> serde_json::Result<Self> {
        let Some(fields) = value.as_object() else {
            return serde_json::from_value(value.clone());
        };
        let large = ["registrations", "resolved", "lastCall"];
        let kept = |name: &str| large.contains(&name) && patch.get(name).is_none();
        let fields = fields.iter().filter(|(name, _)| !kept(name));
        let fields: Map<_, _> = fields.map(|(n, v)| (n.clone(), v.clone())).collect();
        let mut state: Self = serde_json::from_value(Value::Object(fields))?;
        if kept("registrations") {
            state.registrations = Arc::clone(&self.registrations);
        }
        if kept("resolved") {
            state.resolved = Arc::clone(&self.resolved);
        }
        if kept("lastCall") {
            state.last_call = Arc::clone(&self.last_call);
        }
        Ok(state)
    }

    /// The objects of which the two say different things; `None`: the pod itself is another one, so it may be any.
    pub fn differing(&self, old: &Self) -> Option<BTreeSet<ObjectRef>> {
        let Self {
            pod,
            role,
            incarnation,
            ready,
            draining,
            configuration,
            not_understood,
            addresses,
            registrations,
            resolved,
            calls,
            last_call,
            refused_sources,
            // No object's status tells of these.
            refusals: _,
            cut_off: _,
            udp: _,
            provider_refusals,
            agents,
            sound,
        } = self;
        let same = *pod == old.pod
            && *role == old.role
            && *incarnation == old.incarnation
            && *ready == old.ready
            && *draining == old.draining
            && *configuration == old.configuration
            && *addresses == old.addresses;
        if !same {
            return None;
        }
        let mut objects = BTreeSet::new();
        if !Arc::ptr_eq(registrations, &old.registrations) {
            objects.extend(differing(&old.registrations, registrations));
        }
        if !Arc::ptr_eq(resolved, &old.resolved) {
            objects.extend(differing(&old.resolved, resolved));
        }
        if !Arc::ptr_eq(last_call, &old.last_call) {
            objects.extend(differing(&old.last_call, last_call));
        }
        let NotUnderstood {
            providers,
            numbers,
            agents: unknown_agents,
        } = not_understood;
        objects.extend(differing(&old.not_understood.providers, providers));
        objects.extend(differing(&old.not_understood.numbers, numbers));
        objects.extend(differing(&old.not_understood.agents, unknown_agents));
        objects.extend(differing(&old.calls.providers, &calls.providers));
        objects.extend(differing(&old.calls.numbers, &calls.numbers));
        objects.extend(differing(&old.calls.agents, &calls.agents));
        objects.extend(differing(&old.refused_sources, refused_sources));
        objects.extend(differing(&old.provider_refusals, provider_refusals));
        objects.extend(differing(&old.agents, agents));
        objects.extend(differing(&old.sound, sound));
        Some(objects.into_iter().cloned().collect())
    }
}

/// Names whose entries differ.
fn differing<'a, T: PartialEq>(
    old: &'a BTreeMap<ObjectRef, T>,
    new: &'a BTreeMap<ObjectRef, T>,
) -> Vec<&'a ObjectRef> {
    let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let (a, b) = (
            before.next_if(|_| order.is_le()),
            after.next_if(|_| order.is_ge()),
        );
        if a.map(|(_, value)| value) != b.map(|(_, value)| value) {
            found.extend(a.or(b).map(|(name, _)| name));
        }
    }
}

/// The patch of one part.
fn entries<T: PartialEq + Serialize>(
    old: &Arc<BTreeMap<ObjectRef, T>>,
    new: &Arc<BTreeMap<ObjectRef, T>>,
) -> Option<Value> {
    if Arc::ptr_eq(old, new) {
        return None;
    }
    let value = |entry: Option<&T>| serde_json::to_value(entry).unwrap_or_default();
    let changes = differing(old, new).into_iter().filter_map(|name| {
        let change = diff(&value(old.get(name)), &value(new.get(name)))?;
        Some((name.to_string(), change))
    });
    let changes: Map<_, _> = changes.collect();
    (!changes.is_empty()).then_some(Value::Object(changes))
}

/// Why a connection was cut off or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CutOff {
    /// A message that had begun was not complete in time.
    SlowMessage,
    /// A message was larger than any may be.
    OversizedMessage,
    /// What came was no SIP, so that nobody knows where the next message begins.
    Garbage,
    /// Nothing came for a long time.
    Idle,
    /// A keep-alive was not answered, by a peer that had answered others (RFC 5626 section 4.4.1).
    KeepAliveUnanswered,
    /// The peer did not read what was sent to it.
    NotReading,
    /// TLS was not agreed on, or not in time.
    TlsHandshake,
    /// There are too many of them, from this source or at all.
    TooMany,
    /// Its source is shut out for a while.
    SourceBanned,
}

impl CutOff {
    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SlowMessage => "SlowMessage",
            Self::OversizedMessage => "OversizedMessage",
            Self::Garbage => "Garbage",
            Self::Idle => "Idle",
            Self::KeepAliveUnanswered => "KeepAliveUnanswered",
            Self::NotReading => "NotReading",
            Self::TlsHandshake => "TlsHandshake",
            Self::TooMany => "TooMany",
            Self::SourceBanned => "SourceBanned",
        }
    }
}

/// Running calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallCounts {
    /// All of them.
    pub total: u32,
    /// Calls that this pod has taken since it started, those that are over included.
    #[serde(default)]
    pub begun: u64,
    /// By provider.
    #[serde(default)]
    pub providers: BTreeMap<ObjectRef, u32>,
    /// By number.
    #[serde(default)]
    pub numbers: BTreeMap<ObjectRef, u32>,
    /// By agent.
    #[serde(default)]
    pub agents: BTreeMap<ObjectRef, u32>,
    /// By the IPv4 address or IPv6 network of 64 bits that they come from, of providers with a limit for that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<ObjectRef, BTreeMap<IpAddr, u32>>,
}

/// The socket of SIP over UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UdpReport {
    /// Bytes of the kernel's buffer, its own overhead included.
    pub receive_buffer: u64,
    /// Datagrams that the kernel dropped: those of sources that are shut out, and those for which there was no room.
    pub dropped_by_kernel: u64,
    /// Datagrams that the registrar was too busy to take.
    pub overflow: u64,
}

/// Whether the carrier holds our binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistrationState {
    /// It does.
    Registered,
    /// It does not.
    Unregistered,
    /// We don't know yet.
    Unknown,
}

/// One registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationReport {
    /// [`crate::gateway::Registration::revision`] of the configuration that this is about.
    pub revision: String,
    /// Whether the carrier holds our binding.
    pub state: RegistrationState,
    /// Why.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
    /// The carrier's last final response, such as `403 Forbidden`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_response: Option<String>,
    /// How the carrier was reached last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The Contact as bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Address and port that the carrier sees us at (`received` and `rport` of Via, RFC 3581).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_address: Option<String>,
    /// When the binding was first made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
}

/// A source that dialled a number of ours and was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedSource {
    /// Where it came from.
    pub address: IpAddr,
    /// The number that was dialled.
    pub number: String,
    /// When it was last refused, to the minute.
    pub at: Timestamp,
}

/// Calls of a provider that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalReport {
    /// How many since the pod started.
    pub count: u64,
    /// What was said of the last one.
    pub detail: String,
    /// When that was, to the minute.
    pub at: Timestamp,
}

/// What the last call of a provider that told has told of its sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SoundReport {
    /// Which direction is missing, and between which addresses, for people; none: sound goes both ways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<String>,
    /// When this state began.
    pub at: Timestamp,
}

/// What calls have told of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentReport {
    /// Whether it can be reached, by the last call that proved something.
    pub reachable: bool,
    /// Why.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
    /// When this state began.
    pub at: Timestamp,
    /// The last call that failed because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<AgentError>,
}

/// A call that failed because of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentError {
    /// Why.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
    /// When it happened; the same one within a minute does not change it.
    pub at: Timestamp,
}

/// The JSON merge patch (RFC 7396) that turns `old` into `new`, both objects; `None` if they are equal.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(before) => {
                if let Some(change) = diff(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Applies a JSON merge patch (RFC 7396 section 2).
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, change) in patch {
        if change.is_null() {
            target.remove(&key);
        } else {
            apply(target.entry(key).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn state() -> PodState {
        let mut state = PodState::new("media-0", Role::Media, Incarnation(1));
        state.calls.total = 2;
        state.calls.agents.insert(ObjectRef::new("a", "b"), 2);
        state
    }

    #[test]
    fn a_patch_carries_only_what_changed() {
        let old = state();
        let mut new = old.clone();
        new.calls.agents.clear();
        let patch = diff(
            &serde_json::to_value(&old).unwrap(),
            &serde_json::to_value(&new).unwrap(),
        );
        assert_eq!(patch, Some(json!({"calls": {"agents": {"a/b": null}}})));
    }

    #[test]
    fn a_report_survives_the_stream() {
        let state = state();
        let mut seen = Value::Null;
        apply(&mut seen, serde_json::to_value(&state).unwrap());
        assert_eq!(serde_json::from_value::<PodState>(seen).unwrap(), state);
    }

    fn registration(contact: &str) -> RegistrationReport {
        RegistrationReport {
            revision: "1".into(),
            state: RegistrationState::Registered,
            reason: Reason::Registered,
            message: "registered".into(),
            last_response: Some("200 OK".into()),
            transport: None,
            contact: (!contact.is_empty()).then(|| contact.to_owned()),
            observed_address: None,
            registered_at: None,
        }
    }

    proptest! {
        #[test]
        fn a_state_patched_is_the_new_state_and_what_differs_is_named(
            before in proptest::collection::btree_map("[a-e]", "[xy]?", 0..5),
            after in proptest::collection::btree_map("[a-e]", "[xy]?", 0..5),
            calls in (0..3_u32, 0..3_u32),
        ) {
            let with = |names: &BTreeMap<String, String>, calls: u32| {
                let mut state = state();
                let id = |name: &String| ObjectRef::new("voice", name);
                state.registrations = Arc::new(names.iter().map(|(n, c)| (id(n), registration(c))).collect());
                let called = names.iter().filter(|(_, contact)| contact.is_empty());
                state.last_call = Arc::new(called.map(|(n, _)| (id(n), Timestamp::UNIX_EPOCH)).collect());
                state.resolved = Arc::new(names.keys().map(|n| (id(n), Vec::new())).collect());
                state.calls.total = calls;
                state
            };
            let (old, new) = (with(&before, calls.0), with(&after, calls.1));
            let (mut value, whole) = (serde_json::to_value(&old).unwrap(), serde_json::to_value(&new).unwrap());
            let patch = new.patch_from(&old);
            prop_assert_eq!(&patch, &diff(&value, &whole));
            let patch = patch.unwrap_or_else(|| json!({}));
            apply(&mut value, patch.clone());
            prop_assert_eq!(&value, &whole);
            prop_assert_eq!(old.patched(&patch, &value).unwrap(), new.clone());
            let names: BTreeSet<_> = before.keys().chain(after.keys()).filter(|n| before.get(*n) != after.get(*n)).collect();
            let named = new.differing(&old).unwrap();
            prop_assert_eq!(named, names.into_iter().map(|n| ObjectRef::new("voice", n)).collect());
        }
    }

    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from)
        ];
        let tree = leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", tree, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_patch_always_leads_to_the_new_state(old in object(), new in object()) {
            let mut target = old.clone();
            if let Some(patch) = diff(&old, &new) {
                apply(&mut target, patch);
            }
            prop_assert_eq!(target, new);
        }
    }
}
