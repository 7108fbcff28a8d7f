//! Watches: local copies of what the API server holds, kept up to date. Nothing here judges what it sees.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use ringwire_config::ObjectRef;
use ringwire_crds::{MediaGateway, PhoneNumber, SipProvider, VoiceAgent};
use serde::de::DeserializeOwned;

use crate::failure::chain;
use crate::media_gateway::build::{MANAGED_BY, MANAGER};
use crate::options::{Options, Scope};
use crate::signal::Signal;

const WAITING: u8 = 0;
const READY: u8 = 1;
const FORBIDDEN: u8 = 2;

/// Annotation in which kubectl keeps a copy of the whole object, values of Secrets included: it never enters our memory.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A local copy of all objects of one type, of one or several namespaces.
pub struct View<K>
where
    K: Resource + 'static,
    K::DynamicType: Hash + Eq,
{
    parts: Vec<(Store<K>, Arc<AtomicU8>)>,
}

impl<K> View<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.parts
            .iter()
            .flat_map(|(store, _)| store.state())
            .collect()
    }

    /// One object.
    pub fn get(&self, id: &ObjectRef) -> Option<Arc<K>> {
        let key = reflector::ObjectRef::new(&id.name).within(&id.namespace);
        self.parts.iter().find_map(|(store, _)| store.get(&key))
    }

    /// Whether the copy was complete at least once. What we may not read (and can do without) counts as complete and empty.
    fn is_complete(&self) -> bool {
        self.parts
            .iter()
            .all(|(_, state)| state.load(Ordering::Acquire) != WAITING)
    }
}

/// Waits between attempts to watch: 200 ms doubling to `longest`.
struct Waits {
    next: Duration,
    longest: Duration,
    last: Option<Instant>,
}

const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Longest wait for what must be watched.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for what can be done without.
const LONGEST_OPTIONAL_WAIT: Duration = Duration::from_secs(60);

/// After this long without a failure the waits start over.
const CALM: Duration = Duration::from_secs(120);

impl Waits {
    fn new(optional: bool) -> Self {
        let longest = if optional {
            LONGEST_OPTIONAL_WAIT
        } else {
            LONGEST_WAIT
        };
        Self {
            next: FIRST_WAIT,
            longest,
            last: None,
        }
    }
}

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        self.last = Some(Instant::now());
        Some(wait.mul_f64(rand::random_range(0.75..1.0)))
    }
}

impl Backoff for Waits {
    /// Called at everything that is no failure, also at the mere start of a list that then fails.
    fn reset(&mut self) {
        if self.last.is_none_or(|last| last.elapsed() > CALM) {
            self.next = FIRST_WAIT;
        }
    }
}

/// What a change of an object means to the loop.
#[derive(Clone, Copy)]
enum Wakes {
    /// Compilation reads it.
    Objects,
    /// Only children and statuses depend on it.
    State,
}

struct Starter {
    client: Client,
    signal: Arc<Signal>,
    scope: Scope,
}

impl Starter {
    fn namespaced<K>(&self, config: &watcher::Config, wakes: Wakes) -> View<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let apis: Vec<Api<K>> = match &self.scope {
            Scope::Cluster => vec![Api::all(self.client.clone())],
            Scope::Namespaces(names) => names
                .iter()
                .map(|name| Api::namespaced(self.client.clone(), name))
                .collect(),
        };
        View {
            parts: apis
                .into_iter()
                .map(|api| self.part(api, config.clone(), wakes, false))
                .collect(),
        }
    }

    /// Nodes and namespaces: with Roles alone they cannot be read, and the rest works without.
    fn cluster<K>(&self) -> View<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        View {
            parts: vec![self.part(
                Api::all(self.client.clone()),
                watcher::Config::default(),
                Wakes::Objects,
                true,
            )],
        }
    }

    fn part<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
        wakes: Wakes,
        optional: bool,
    ) -> (Store<K>, Arc<AtomicU8>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut writer = reflector::store::Writer::<K>::new(());
        let store = writer.as_reader();
        let state = Arc::new(AtomicU8::new(WAITING));
        let (signal, shared) = (Arc::clone(&self.signal), Arc::clone(&state));
        tokio::spawn(async move {
            let kind = K::kind(&());
            let mut events = watcher(api, config).backoff(Waits::new(optional)).boxed();
            let mut broken = false;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if std::mem::take(&mut broken) {
                            tracing::info!(%kind, "watching again");
                        }
                        let done = matches!(event, watcher::Event::InitDone);
                        let quiet =
                            matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
                        writer.apply_watcher_event(&event.modify(slim));
                        if done {
                            shared.store(READY, Ordering::Release);
                        }
                        if !quiet {
                            match wakes {
                                Wakes::Objects => signal.objects_changed(),
                                Wakes::State => signal.state_changed(),
                            }
                        }
                    }
                    Err(error) => {
                        let skip = optional
                            && is_forbidden(&error)
                            && shared.load(Ordering::Acquire) != READY;
                        if skip && shared.swap(FORBIDDEN, Ordering::AcqRel) != FORBIDDEN {
                            tracing::warn!(%kind, "not allowed to read these; going on without");
                            signal.objects_changed();
                        } else if is_expired(&error) {
                            tracing::debug!(%kind, "listing again");
                        } else if !skip && !std::mem::replace(&mut broken, true) {
                            tracing::warn!(%kind, error = chain(&error), "cannot watch; trying again");
                        }
                    }
                }
            }
        });
        (store, state)
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.is_forbidden(),
        _ => false,
    }
}

/// Whether the API server only wants us to list again, which is part of watching.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == 410)
}

/// Drops what nobody here reads.
fn slim<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Everything that is watched.
pub struct Views {
    /// SIP providers.
    pub providers: View<DeserializeGuard<SipProvider>>,
    /// Phone numbers.
    pub numbers: View<DeserializeGuard<PhoneNumber>>,
    /// Voice agents.
    pub agents: View<DeserializeGuard<VoiceAgent>>,
    /// Media gateways.
    pub gateways: View<DeserializeGuard<MediaGateway>>,
    /// Metadata of Secrets.
    pub secrets: View<PartialObjectMeta<Secret>>,
    /// Metadata of namespaces.
    pub namespaces: View<PartialObjectMeta<Namespace>>,
    /// Nodes.
    pub nodes: View<DeserializeGuard<Node>>,
    /// Pods of gateways.
    pub pods: View<DeserializeGuard<Pod>>,
    /// Deployments of gateways.
    pub deployments: View<DeserializeGuard<Deployment>>,
    /// Gateways' Services: load balancers write their addresses there.
    pub services: View<DeserializeGuard<Service>>,
    /// Metadata of gateways' service accounts.
    pub service_accounts: View<PartialObjectMeta<ServiceAccount>>,
    /// Metadata of gateways' Roles.
    pub roles: View<PartialObjectMeta<Role>>,
    /// Metadata of gateways' `RoleBindings`.
    pub role_bindings: View<PartialObjectMeta<RoleBinding>>,
    /// Metadata of gateways' `PodDisruptionBudgets`.
    pub disruption_budgets: View<PartialObjectMeta<PodDisruptionBudget>>,
    /// The `ConfigMap` of the default gateway.
    pub default_gateway: Option<View<DeserializeGuard<ConfigMap>>>,
}

impl Views {
    /// Starts all watches; they wake `signal`.
    pub fn start(client: &Client, options: &Options, signal: &Arc<Signal>) -> Self {
        let starter = Starter {
            client: client.clone(),
            signal: Arc::clone(signal),
            scope: options.scope.clone(),
        };
        let all = watcher::Config::default();
        let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
        // Helm's releases are large, many, and never hold credentials that an object refers to.
        let secrets = watcher::Config::default().fields("type!=helm.sh/release.v1");
        let default_gateway = options.default_gateway.as_ref().map(|source| {
            let namespaces = BTreeSet::from([source.config_map.namespace.clone()]);
            let starter = Starter {
                client: client.clone(),
                signal: Arc::clone(signal),
                scope: Scope::Namespaces(namespaces),
            };
            let config = watcher::Config::default()
                .fields(&format!("metadata.name={}", source.config_map.name));
            starter.namespaced(&config, Wakes::State)
        });
        Self {
            providers: starter.namespaced(&all, Wakes::Objects),
            numbers: starter.namespaced(&all, Wakes::Objects),
            agents: starter.namespaced(&all, Wakes::Objects),
            gateways: starter.namespaced(&all, Wakes::Objects),
            secrets: starter.namespaced(&secrets, Wakes::Objects),
            namespaces: starter.cluster(),
            nodes: starter.cluster(),
            pods: starter.namespaced(&ours, Wakes::State),
            deployments: starter.namespaced(&ours, Wakes::State),
            services: starter.namespaced(&ours, Wakes::Objects),
            service_accounts: starter.namespaced(&ours, Wakes::State),
            roles: starter.namespaced(&ours, Wakes::State),
            role_bindings: starter.namespaced(&ours, Wakes::State),
            disruption_budgets: starter.namespaced(&ours, Wakes::State),
            default_gateway,
        }
    }

    /// The first view that was never complete. Acting before would take what is not yet known for missing.
    pub fn incomplete(&self) -> Option<&'static str> {
        let Self {
            providers,
            numbers,
            agents,
            gateways,
            secrets,
            namespaces,
            nodes,
            pods,
            deployments,
            services,
            service_accounts,
            roles,
            role_bindings,
            disruption_budgets,
            default_gateway,
        } = self;
        [
            ("SipProvider", providers.is_complete()),
            ("PhoneNumber", numbers.is_complete()),
            ("VoiceAgent", agents.is_complete()),
            ("MediaGateway", gateways.is_complete()),
            ("Secret", secrets.is_complete()),
            ("Namespace", namespaces.is_complete()),
            ("Node", nodes.is_complete()),
            ("Pod", pods.is_complete()),
            ("Deployment", deployments.is_complete()),
            ("Service", services.is_complete()),
            ("ServiceAccount", service_accounts.is_complete()),
            ("Role", roles.is_complete()),
            ("RoleBinding", role_bindings.is_complete()),
            ("PodDisruptionBudget", disruption_budgets.is_complete()),
            (
                "ConfigMap",
                default_gateway.as_ref().is_none_or(View::is_complete),
            ),
        ]
        .into_iter()
        .find_map(|(kind, complete)| (!complete).then_some(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_keeps_failing_is_tried_less_and_less() {
        let mut waits = Waits::new(false);
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            waits.reset();
            longest = longest.max(waits.next().unwrap());
        }
        assert!(
            (LONGEST_WAIT.mul_f64(0.7)..=LONGEST_WAIT).contains(&longest),
            "{longest:?}"
        );
    }
}
