//! Gateways within a pass: their children, their pods, and the default one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Resource;
use kube::runtime::events::EventType;
use ringwire_config::gateway::GatewayConfig;
use ringwire_config::shard::{self, Role};
use ringwire_config::{ObjectRef, Reason};
use ringwire_crds::MediaGateway;

use super::compiled::Known;
use super::{Done, Reconciler, Work};
use crate::failure::{Failure, chain};
use crate::fingerprint;
use crate::media_gateway::apply::{self, Live};
use crate::media_gateway::build::{self, Child, ChildKey, ChildKind, GATEWAY};
use crate::media_gateway::claim::Claim;
use crate::media_gateway::default;
use crate::media_gateway::validate::ValidGateway;
use crate::media_gateway::workload::{self, GatewayPod};
use crate::observe::{PodKey, Target};
use crate::retry::Fingerprint;
use crate::status::events::Told;

/// Label of a namespace: which pods its pod security lets in.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";

/// The shards of a gateway, kept until its configuration changes: compressing is the dearest part of a pass.
pub(super) struct Prepared {
    uid: String,
    config: GatewayConfig,
    shards: Vec<(Child, Fingerprint)>,
    /// What the pods report once they work by it, by role.
    pub(super) digests: BTreeMap<Role, Vec<String>>,
    too_large: Option<String>,
}

impl Prepared {
    fn new(gateway: &ValidGateway<'_>, config: &GatewayConfig) -> Self {
        let (mut shards, mut too_large) = (Vec::new(), None);
        let mut digests: BTreeMap<Role, Vec<String>> = BTreeMap::new();
        for role in Role::ALL {
            let digests = digests.entry(role).or_default();
            for (index, content) in shard::split(config, role).iter().enumerate() {
                match shard::encode(content, index) {
                    Ok(bytes) => {
                        let wanted = fingerprint::of_bytes(&bytes);
                        digests.push(shard::digest(&bytes));
                        shards.push((build::shard(gateway, role, index, &bytes), wanted));
                    }
                    // The last good one stays.
                    Err(error) => {
                        digests.push(String::new());
                        too_large = Some(format!("{role}: {error}; use several gateways"));
                    }
                }
            }
        }
        Self {
            uid: gateway.uid().to_owned(),
            config: config.clone(),
            shards,
            digests,
            too_large,
        }
    }
}

/// What is known of the default gateway's making.
#[derive(Default)]
pub(super) struct DefaultGateway {
    applied: Option<AppliedDefault>,
    complaint: Option<String>,
}

struct AppliedDefault {
    fingerprint: Fingerprint,
    generation: i64,
    seen: bool,
}

impl DefaultGateway {
    /// Whether it was made and the watch has shown it.
    fn exists(&self) -> bool {
        self.applied.as_ref().is_some_and(|applied| applied.seen)
    }

    /// Whether it has to be applied; `live`: its generation (0: not told), if it exists.
    fn is_outdated(&mut self, wanted: Fingerprint, live: Option<i64>) -> bool {
        let Some(applied) = &mut self.applied else {
            return true;
        };
        if applied.fingerprint != wanted {
            return true;
        }
        match live {
            // Before the watch has shown it, its absence means nothing.
            None => applied.seen,
            Some(generation) => {
                applied.seen = true;
                generation > applied.generation
            }
        }
    }
}

/// The pods of every gateway.
pub(super) type Pods = BTreeMap<ObjectRef, Vec<GatewayPod>>;

impl Reconciler {
    /// Keeps a stream open to every pod of every gateway.
    pub(super) fn follow_pods(&mut self, known: &Known) -> Pods {
        let pods = workload::pods(&self.views.pods.all());
        let mut wanted = BTreeMap::new();
        let mut existing = BTreeSet::new();
        let mut unheard = false;
        for (gateway, pods) in &pods {
            let client = known
                .controls
                .get(gateway)
                .and_then(|control| control.client.clone());
            for pod in pods {
                let key = PodKey {
                    gateway: gateway.clone(),
                    pod: pod.name.clone(),
                    uid: pod.uid.clone(),
                };
                existing.insert(key.clone());
                unheard |= pod.ready && !self.observer.has_seen(&key);
                if let (Some(address), Some(client)) = (pod.address, client.clone()) {
                    wanted.insert(key, Target { address, client });
                }
            }
        }
        self.observer.follow(&wanted, |key| existing.contains(key));
        let making = self.options.default_gateway.is_some() && !self.default_gateway.exists();
        self.settled |= !(unheard || making) || self.started.elapsed() >= super::SETTLING;
        pods
    }

    /// Starts the writes that gateways' children need.
    pub(super) fn write_gateways(&mut self, known: &Known, now: Instant) {
        let live = apply::observe(&self.views);
        let mut gateways = BTreeSet::new();
        for gateway in known.valid_gateways() {
            let id = gateway.id();
            gateways.insert(id.clone());
            let labels = known.objects.namespaces.get(&id.namespace);
            let enforced = labels
                .and_then(|labels| labels.get(ENFORCED))
                .map(String::as_str);
            let claim = Claim::new(&gateway);
            let mut wanted_keys = BTreeSet::new();
            for child in build::workload(&gateway, &self.options.pods, enforced) {
                wanted_keys.insert(child.key.clone());
                // Pods without their service account are refused, and tried again later and later.
                let account = ChildKey {
                    kind: ChildKind::ServiceAccount,
                    id: child.key.id.clone(),
                };
                if child.key.kind == ChildKind::Deployment && !self.children.is_applied(&account) {
                    continue;
                }
                let wanted = fingerprint::of(&child.body);
                self.write_child(&claim, &child, wanted, &live, now);
            }
            if let Some(config) = known.compiled.gateways.get(&id) {
                self.write_shards(&gateway, config, &live, now);
            }
            for (key, uid) in apply::leftovers(&gateway, &live, &wanted_keys) {
                if self.slots.start(&Work::Child(key.clone()), 0, now) {
                    let client = self.client.clone();
                    self.tasks.spawn(async move {
                        let result = apply::delete(client, key.clone(), uid).await;
                        Done::Deleted { key, result }
                    });
                }
            }
        }
        self.prepared.retain(|id, _| gateways.contains(id));
        let of_gateway = |key: &ChildKey| {
            gateways.iter().any(|gateway| {
                gateway.namespace == key.id.namespace
                    && build::is_child(&gateway.name, key.kind, &key.id.name)
            })
        };
        self.children.retain(of_gateway);
        self.slots.retain(|work| match work {
            Work::Child(key) | Work::Keys(key) => of_gateway(key) || live.contains_key(key),
            _ => true,
        });
    }

    fn write_shards(
        &mut self,
        gateway: &ValidGateway<'_>,
        config: &GatewayConfig,
        live: &BTreeMap<ChildKey, Live>,
        now: Instant,
    ) {
        let id = gateway.id();
        let prepared = match self.prepared.remove(&id) {
            Some(prepared) if prepared.uid == gateway.uid() && prepared.config == *config => {
                prepared
            }
            _ => Prepared::new(gateway, config),
        };
        let claim = Claim::new(gateway);
        for (child, wanted) in &prepared.shards {
            self.write_child(&claim, child, *wanted, live, now);
        }
        self.prepared.insert(id, prepared);
    }

    fn write_child(
        &mut self,
        claim: &Claim,
        child: &Child,
        wanted: Fingerprint,
        live: &BTreeMap<ChildKey, Live>,
        now: Instant,
    ) {
        let key = &child.key;
        if self.slots.is_busy(&Work::Child(key.clone()))
            || !self.children.is_outdated(key, wanted, live.get(key), now)
            || !self.slots.start(&Work::Child(key.clone()), wanted, now)
        {
            return;
        }
        let known = live
            .get(key)
            .filter(|live| claim.is_owner(live.owner.as_deref()));
        let known = known.map(|live| live.uid.clone());
        let (client, claim, child) = (self.client.clone(), claim.clone(), child.clone());
        self.tasks.spawn(async move {
            let key = child.key.clone();
            let result = apply::apply(client, claim, child, known, wanted).await;
            Done::Applied { key, result }
        });
    }

    /// What is wrong with a gateway, if anything; the worst first.
    pub(super) fn trouble(
        &self,
        known: &Known,
        gateway: &MediaGateway,
        pods: &[GatewayPod],
    ) -> Option<(Reason, String)> {
        if let Err(invalid) = ValidGateway::new(gateway) {
            return Some((Reason::InvalidSpec, invalid.to_string()));
        }
        let id = ObjectRef::of(gateway);
        if let Some(secret) = known
            .controls
            .get(&id)
            .and_then(|control| control.foreign.as_ref())
        {
            let message = format!(
                "Secret {secret} exists but was not made for this gateway; delete or rename it"
            );
            return Some((Reason::ApplyFailed, message));
        }
        if let Some(found) = known.compiled.gateway_troubles.get(&id) {
            return Some((found.reason, found.message.clone()));
        }
        if let Some(message) = self
            .prepared
            .get(&id)
            .and_then(|prepared| prepared.too_large.as_ref())
        {
            return Some((Reason::ConfigTooLarge, message.clone()));
        }
        if let Some(message) = self.children.refused(&id) {
            return Some((Reason::ApplyFailed, message));
        }
        let all = self.views.deployments.all();
        let of_gateway = |deployment: &&Deployment| {
            let labels = deployment.metadata.labels.as_ref();
            deployment.metadata.namespace.as_ref() == Some(&id.namespace)
                && labels.and_then(|labels| labels.get(GATEWAY)) == Some(&id.name)
        };
        let deployments: Vec<&Deployment> = all
            .iter()
            .filter_map(|deployment| deployment.0.as_ref().ok())
            .filter(of_gateway)
            .collect();
        workload::creation_trouble(&id, &deployments).or_else(|| workload::start_trouble(pods))
    }

    /// Makes the default gateway from its `ConfigMap`.
    pub(super) fn write_default_gateway(&mut self, known: &Known, now: Instant) {
        let (Some(source), Some(view)) =
            (&self.options.default_gateway, &self.views.default_gateway)
        else {
            return;
        };
        let Some(config_map) = view.get(&source.config_map) else {
            return;
        };
        let Ok(config_map) = &config_map.0 else {
            return;
        };
        let spec = match default::spec(config_map) {
            Ok(spec) => spec,
            Err(error) => {
                let reference = config_map.object_ref(&());
                self.complain(chain(&error), reference);
                return;
            }
        };
        let wanted = fingerprint::of(&spec);
        let found = known
            .objects
            .gateways
            .iter()
            .find(|gateway| ObjectRef::of(*gateway) == source.gateway);
        let malformed = || {
            let mut all = known.malformed.iter().map(|object| &object.metadata);
            all.find(|meta| {
                meta.name.as_ref() == Some(&source.gateway.name)
                    && meta.namespace.as_ref() == Some(&source.gateway.namespace)
            })
        };
        let live = found
            .map(|gateway| &gateway.metadata)
            .or_else(malformed)
            .map(|meta| meta.generation.unwrap_or(0));
        if self.default_gateway.is_outdated(wanted, live)
            && self.slots.start(&Work::DefaultGateway, wanted, now)
        {
            let (client, source) = (self.client.clone(), source.clone());
            self.tasks.spawn(async move {
                let result = default::apply(client, source, spec).await;
                Done::DefaultGateway {
                    fingerprint: wanted,
                    result,
                }
            });
        }
    }

    pub(super) fn default_gateway_done(
        &mut self,
        fingerprint: Fingerprint,
        result: Result<Option<i64>, Failure>,
        now: Instant,
    ) {
        match result {
            Ok(generation) => {
                tracing::info!(kind = "MediaGateway", "default gateway applied");
                self.slots.succeeded(&Work::DefaultGateway);
                self.default_gateway.applied = Some(AppliedDefault {
                    fingerprint,
                    generation: generation.unwrap_or(0),
                    seen: false,
                });
                self.default_gateway.complaint = None;
            }
            Err(failure) => {
                self.failed(&Work::DefaultGateway, &failure, now);
                let view = self.views.default_gateway.as_ref();
                let source = self.options.default_gateway.as_ref();
                let config_map = view
                    .zip(source)
                    .and_then(|(view, source)| view.get(&source.config_map));
                if let (Failure::Refused(message), Some(config_map)) = (failure, config_map) {
                    self.complain(
                        format!("the default gateway was refused: {message}"),
                        config_map.object_ref(&()),
                    );
                }
            }
        }
        self.signal.state_changed();
    }

    /// Says once what is wrong with the default gateway's `ConfigMap`: it has no status to say it in.
    fn complain(
        &mut self,
        complaint: String,
        regarding: k8s_openapi::api::core::v1::ObjectReference,
    ) {
        if self.default_gateway.complaint.as_ref() == Some(&complaint) {
            return;
        }
        tracing::error!(object = regarding.name, kind = "ConfigMap", "{complaint}");
        self.metrics.error("ConfigMap");
        let reason = Reason::InvalidSpec.as_str();
        self.tell(vec![Told::new(
            EventType::Warning,
            reason,
            &complaint,
            regarding,
        )]);
        self.default_gateway.complaint = Some(complaint);
    }
}
