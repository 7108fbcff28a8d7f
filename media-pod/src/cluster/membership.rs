//! Which registrar pods live, and which of them a provider belongs to.
//!
//! Each registrar renews a Lease of its own; a provider belongs to the live pod with the highest rendezvous hash, so that load spreads
//! and a take-over needs no write. A pod that cannot reach the API server keeps its providers: two registrations for a while are fine,
//! none is not. Meanwhile it asks the others themselves whether they live ([`super::peers`]), and takes over from those that do not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use ringwire_config::object::ObjectRef;
use ringwire_control::GatewayTls;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::peers::Peers;
use super::watching::describe_client;

/// How often the others are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often the own Lease is renewed, in looks.
const RENEW_EVERY: u32 = 2;

/// A pod whose Lease was not renewed for this long is not alive.
const LAPSES_AFTER: Duration = Duration::from_secs(8);

/// The most that one look adds to a pod's silence: while we could not look, nobody was seen to be silent.
const LONGEST_STEP: Duration = Duration::from_millis(2500);

/// A Lease that looks this old when first seen belongs to a pod that is gone. Only then are clocks of different machines compared, and
/// being wrong costs a second registration for as long as it takes the other to renew.
const LONG_GONE: SignedDuration = SignedDuration::from_secs(60);

/// A Lease that was not renewed for this long was left by a pod that crashed, and is deleted.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// A pod that has never reached the API server acts alone after this time.
const ALONE_AFTER: Duration = Duration::from_secs(5);

/// A request may take this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

const MANAGER: &str = "ringwire-registrar";
const GATEWAY_LABEL: &str = "ringwire.dev/gateway";
const ROLE_LABEL: &str = "ringwire.dev/role";
/// Annotation of a Lease: the pod's address.
const ADDRESS: &str = "ringwire.dev/address";

/// The live registrars of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// This pod.
    pub me: String,
    /// The live pods; this one is among them, unless it does not know yet or has resigned.
    pub live: BTreeSet<String>,
}

impl Members {
    /// Whether `provider` belongs to this pod: of all live pods it has the highest hash. A pod that is not live itself owns nothing.
    pub fn owns(&self, provider: &ObjectRef) -> bool {
        self.owner(provider) == Some(&self.me)
    }

    /// The pod that `provider` belongs to.
    pub fn owner(&self, provider: &ObjectRef) -> Option<&String> {
        let provider = provider.to_string();
        self.live.iter().max_by_key(|pod| {
            let mut hash = Sha256::new();
            hash.update(pod.as_bytes());
            hash.update([0]);
            hash.update(provider.as_bytes());
            hash.finalize()
        })
    }
}

/// This pod's membership.
pub struct Membership {
    members: watch::Receiver<Arc<Members>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Membership {
    /// The live registrars. Nobody at first, so nothing is owned; this pod and the others as soon as they are known, at the latest
    /// after 5 s.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// Leaves: deletes the Lease, so that the others take over within a second or two. From the call on this pod owns nothing.
    pub async fn resign(self) {
        self.stop.cancel();
        // The task ends by itself; only a panic in it is an error here, and it has been reported.
        let _ = self.task.await;
    }
}

/// Who joins.
pub struct Joining {
    /// The gateway.
    pub gateway: ObjectRef,
    /// The pod's name.
    pub pod: String,
    /// Its UID: with it the API server deletes the Lease together with the pod; without, a successor does so after ten minutes.
    pub uid: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// How the others' control ports are asked.
    pub tls: Arc<ArcSwap<GatewayTls>>,
}

/// Joins the registrars of a gateway.
pub fn join(client: &Client, joining: Joining) -> Membership {
    let Joining {
        gateway,
        pod,
        uid,
        address,
        tls,
    } = joining;
    let nobody = Members {
        me: pod.clone(),
        live: BTreeSet::new(),
    };
    let (sender, members) = watch::channel(Arc::new(nobody));
    let stop = CancellationToken::new();
    let api = Api::namespaced(client.clone(), &gateway.namespace);
    let member = Member {
        api,
        gateway: gateway.name,
        pod,
        uid,
        address,
        tls,
        sender,
    };
    let task = tokio::spawn(member.run(stop.clone()));
    Membership {
        members,
        stop,
        task,
    }
}

struct Member {
    api: Api<Lease>,
    gateway: String,
    pod: String,
    uid: Option<String>,
    address: IpAddr,
    tls: Arc<ArcSwap<GatewayTls>>,
    sender: watch::Sender<Arc<Members>>,
}

impl Member {
    async fn run(self, stop: CancellationToken) {
        let started = Instant::now();
        let mut observed = Observed::default();
        // While the API server is away.
        let mut peers: Option<Peers> = None;
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0_u32.. {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let result = tokio::select! {
                () = stop.cancelled() => break,
                result = self.turn(turn, &mut observed) => result,
            };
            match result {
                Ok(()) => {
                    if peers.take().is_some() {
                        tracing::info!("the registrars' leases can be reached again");
                    }
                    self.publish(observed.live(&self.pod));
                }
                Err(error) => {
                    let peers = peers.get_or_insert_with(|| {
                        tracing::warn!(
                            error,
                            "cannot reach the registrars' leases; keeping the providers, and asking the others themselves"
                        );
                        Peers::new(&self.tls)
                    });
                    peers.listen(&observed.addresses(&self.pod));
                    if observed.hear(|pod| peers.heard(pod), Instant::now()) {
                        self.publish(observed.live(&self.pod));
                    }
                    if self.sender.borrow().live.is_empty() && started.elapsed() >= ALONE_AFTER {
                        self.publish(BTreeSet::from([self.pod.clone()]));
                    }
                }
            }
        }
        self.publish(BTreeSet::new());
        self.withdraw().await;
    }

    fn publish(&self, live: BTreeSet<String>) {
        self.sender.send_if_modified(|members| {
            let differs = members.live != live;
            if differs {
                tracing::info!(live = ?live, "live registrars changed");
                *members = Arc::new(Members {
                    me: self.pod.clone(),
                    live,
                });
            }
            differs
        });
    }

    async fn turn(&self, turn: u32, observed: &mut Observed) -> Result<(), String> {
        if turn.is_multiple_of(RENEW_EVERY) {
            let name = self.pod.as_str();
            let lease = self.lease(Timestamp::now());
            let params = PatchParams::apply(MANAGER).force();
            request(self.api.patch(name, &params, &Patch::Apply(&lease))).await?;
        }
        let selector = format!("{GATEWAY_LABEL}={},{ROLE_LABEL}=registrar", self.gateway);
        let leases = request(self.api.list(&ListParams::default().labels(&selector))).await?;
        let abandoned = observed.look(
            leases.items.iter().map(Sighting::of),
            Instant::now(),
            Timestamp::now(),
        );
        for (name, version) in abandoned {
            let preconditions = Preconditions {
                resource_version: Some(version),
                uid: None,
            };
            let params = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            // It may have been deleted or renewed in between; either is fine.
            if request(self.api.delete(&name, &params)).await.is_ok() {
                tracing::info!(
                    lease = name,
                    "deleted the lease of a registrar that is gone"
                );
            }
        }
        Ok(())
    }

    fn lease(&self, now: Timestamp) -> Lease {
        let owner = self.uid.as_ref().map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.pod.clone(),
            uid: uid.clone(),
            ..OwnerReference::default()
        });
        let labels = [
            (GATEWAY_LABEL, self.gateway.as_str()),
            (ROLE_LABEL, "registrar"),
            ("app.kubernetes.io/managed-by", MANAGER),
        ];
        Lease {
            metadata: ObjectMeta {
                name: Some(self.pod.clone()),
                labels: Some(
                    labels
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                ),
                annotations: Some([(ADDRESS.to_owned(), self.address.to_string())].into()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.pod.clone()),
                lease_duration_seconds: Some(LAPSES_AFTER.as_secs() as i32),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn withdraw(&self) {
        match request(self.api.delete(&self.pod, &DeleteParams::default())).await {
            Ok(_) => tracing::info!("lease given back"),
            Err(error) => tracing::warn!(error, "cannot give the lease back; it lapses"),
        }
    }
}

async fn request<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| describe_client(&error)),
        Err(_) => Err("no answer of the API server within 3 s".to_owned()),
    }
}

/// A Lease as a look shows it.
struct Sighting {
    name: String,
    holder: String,
    /// Changes with each renewal.
    version: String,
    renewed: Option<Timestamp>,
    address: Option<IpAddr>,
}

impl Sighting {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        Self {
            name: lease.name_any(),
            holder: spec
                .and_then(|spec| spec.holder_identity.clone())
                .unwrap_or_default(),
            version: lease.resource_version().unwrap_or_default(),
            renewed: spec
                .and_then(|spec| spec.renew_time.as_ref())
                .map(|time| time.0),
            address: lease
                .annotations()
                .get(ADDRESS)
                .and_then(|text| text.parse().ok()),
        }
    }
}

/// What the looks so far have shown, by our own clock.
#[derive(Default)]
struct Observed {
    leases: BTreeMap<String, Seen>,
    last_look: Option<Instant>,
}

struct Seen {
    holder: String,
    version: String,
    silent: Duration,
    address: Option<IpAddr>,
}

impl Observed {
    /// Takes a successful look; gives back name and version of abandoned Leases.
    fn look(
        &mut self,
        sightings: impl Iterator<Item = Sighting>,
        now: Instant,
        wall: Timestamp,
    ) -> Vec<(String, String)> {
        let step = self
            .last_look
            .map_or(Duration::ZERO, |last| now.duration_since(last))
            .min(LONGEST_STEP);
        self.last_look = Some(now);
        let mut before = std::mem::take(&mut self.leases);
        let mut abandoned = Vec::new();
        for Sighting {
            name,
            holder,
            version,
            renewed,
            address,
        } in sightings
        {
            let silent = match before.remove(&name) {
                Some(seen) if seen.version == version => seen.silent + step,
                None if renewed.is_none_or(|renewed| wall.duration_since(renewed) > LONG_GONE) => {
                    LAPSES_AFTER
                }
                _ => Duration::ZERO,
            };
            if silent > ABANDONED_AFTER {
                abandoned.push((name.clone(), version.clone()));
            }
            self.leases.insert(
                name,
                Seen {
                    holder,
                    version,
                    silent,
                    address,
                },
            );
        }
        abandoned
    }

    /// Takes what the pods themselves had to say while nobody could look: when each was last heard of. False if nobody ever looked.
    fn hear(&mut self, heard: impl Fn(&str) -> Option<Instant>, now: Instant) -> bool {
        let Some(last) = self.last_look else {
            return false;
        };
        let step = now.duration_since(last).min(LONGEST_STEP);
        self.last_look = Some(now);
        for seen in self.leases.values_mut() {
            // What cannot be asked stays as it was.
            if seen.address.is_none() {
                continue;
            }
            seen.silent = match heard(&seen.holder) {
                // A stream says something every few seconds, so that it counts from then.
                Some(at) => now.duration_since(at).min(seen.silent + step),
                None => seen.silent + step,
            };
        }
        true
    }

    /// Where the other pods are.
    fn addresses(&self, me: &str) -> BTreeMap<String, IpAddr> {
        let others = self.leases.values().filter(|seen| seen.holder != me);
        others
            .filter_map(|seen| Some((seen.holder.clone(), seen.address?)))
            .collect()
    }

    /// The live pods, always with `me`.
    fn live(&self, me: &str) -> BTreeSet<String> {
        let others = self
            .leases
            .values()
            .filter(|seen| seen.silent < LAPSES_AFTER && !seen.holder.is_empty());
        others
            .map(|seen| seen.holder.clone())
            .chain([me.to_owned()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(me: &str, live: &[&str]) -> Members {
        Members {
            me: me.to_owned(),
            live: live.iter().map(ToString::to_string).collect(),
        }
    }

    fn providers() -> Vec<ObjectRef> {
        (0..3000)
            .map(|n| ObjectRef::new("voice", format!("trunk-{n}")))
            .collect()
    }

    #[test]
    fn providers_spread_evenly() {
        let members = members("a", &["a", "b", "c"]);
        let mine = providers()
            .iter()
            .filter(|provider| members.owns(provider))
            .count();
        assert!((900..1100).contains(&mine), "{mine} of 3000");
    }

    #[test]
    fn each_provider_has_one_owner() {
        for provider in providers() {
            let owners = ["a", "b", "c"]
                .iter()
                .filter(|me| members(me, &["a", "b", "c"]).owns(&provider))
                .count();
            assert_eq!(owners, 1, "{provider}");
        }
    }

    #[test]
    fn a_lost_member_moves_only_its_own_providers() {
        let (before, after) = (members("a", &["a", "b", "c"]), members("a", &["a", "b"]));
        for provider in providers() {
            let owner = before.owner(&provider).unwrap();
            if owner != "c" {
                assert_eq!(after.owner(&provider), Some(owner), "{provider}");
            }
        }
    }

    #[test]
    fn a_single_member_owns_everything() {
        let members = members("a", &["a"]);
        assert!(providers().iter().all(|provider| members.owns(provider)));
    }

    #[test]
    fn who_is_not_live_owns_nothing() {
        let (unknown, resigned) = (members("a", &[]), members("a", &["b"]));
        assert!(
            !providers()
                .iter()
                .any(|provider| unknown.owns(provider) || resigned.owns(provider))
        );
    }

    const ADDRESS_OF_ALL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A pretend cluster: leases with a version each, looked at by us.
    struct World {
        observed: Observed,
        now: Instant,
        wall: Timestamp,
        version: u32,
    }

    impl World {
        fn new() -> Self {
            Self {
                observed: Observed::default(),
                now: Instant::now(),
                wall: Timestamp::now(),
                version: 0,
            }
        }

        fn look(&mut self, leases: &[(&str, &str)], after: u64) -> (Vec<String>, usize) {
            self.now += Duration::from_secs(after);
            self.wall += SignedDuration::from_secs(after.cast_signed());
            self.version += 1;
            let sightings = leases.iter().map(|(pod, version)| Sighting {
                name: (*pod).to_owned(),
                holder: (*pod).to_owned(),
                version: if *version == "renewed" {
                    self.version.to_string()
                } else {
                    (*version).to_owned()
                },
                renewed: Some(if *version == "old" {
                    self.wall - SignedDuration::from_hours(1)
                } else {
                    self.wall
                }),
                address: Some(ADDRESS_OF_ALL),
            });
            let abandoned = self.observed.look(sightings, self.now, self.wall).len();
            (self.observed.live("a").into_iter().collect(), abandoned)
        }
    }

    #[test]
    fn a_pod_that_stops_renewing_lapses_after_eight_seconds() {
        let mut world = World::new();
        assert_eq!(
            world.look(&[("a", "renewed"), ("b", "renewed")], 1).0,
            ["a", "b"]
        );
        let mut silent = 0;
        while world.look(&[("a", "renewed"), ("b", "stuck")], 1).0.len() == 2 {
            silent += 1;
            assert!(silent <= 8, "still alive");
        }
        assert_eq!(silent, 8);
        assert_eq!(
            world.look(&[("a", "renewed"), ("b", "renewed")], 1).0,
            ["a", "b"],
            "and comes back"
        );
    }

    #[test]
    fn a_pod_that_gives_its_lease_back_is_gone_at_once() {
        let mut world = World::new();
        assert_eq!(
            world.look(&[("a", "renewed"), ("b", "renewed")], 1).0,
            ["a", "b"]
        );
        assert_eq!(world.look(&[("a", "renewed")], 1).0, ["a"]);
    }

    #[test]
    fn nobody_lapses_because_we_could_not_look() {
        let mut world = World::new();
        world.look(&[("a", "renewed"), ("b", "1")], 1);
        assert_eq!(
            world.look(&[("a", "renewed"), ("b", "1")], 300).0,
            ["a", "b"],
            "the API server was away for both"
        );
        assert_eq!(world.look(&[("a", "renewed"), ("b", "2")], 1).0, ["a", "b"]);
    }

    #[test]
    fn who_cannot_be_heard_either_while_the_api_server_is_away_lapses() {
        let mut world = World::new();
        world.look(&[("a", "renewed"), ("b", "renewed"), ("c", "renewed")], 1);
        assert_eq!(
            world
                .observed
                .addresses("a")
                .into_keys()
                .collect::<Vec<_>>(),
            ["b", "c"]
        );
        let start = world.now;
        // b says something every three seconds, c died after two.
        let mut lapsed = None;
        for second in 1..=30 {
            let now = start + Duration::from_secs(second);
            let heard = |pod: &str| {
                let last = if pod == "b" { second / 3 * 3 } else { 2 };
                Some(start + Duration::from_secs(last))
            };
            assert!(world.observed.hear(heard, now));
            let live = world.observed.live("a");
            assert!(live.contains("b"), "after {second} s");
            if !live.contains("c") {
                lapsed.get_or_insert(second);
            }
        }
        assert_eq!(lapsed, Some(10));
        // The API server is back, with the Leases as they were; c has not renewed.
        world.now = start + Duration::from_secs(30);
        let live = world
            .look(&[("a", "renewed"), ("b", "renewed"), ("c", "1")], 1)
            .0;
        assert_eq!(live, ["a", "b"]);
        let live = world
            .look(&[("a", "renewed"), ("b", "renewed"), ("c", "renewed")], 1)
            .0;
        assert_eq!(live, ["a", "b", "c"], "and comes back");
    }

    #[test]
    fn who_was_never_looked_at_is_not_judged_by_silence() {
        assert!(!Observed::default().hear(|_| None, Instant::now()));
    }

    #[test]
    fn a_lease_left_by_a_crash_counts_for_nothing_and_is_deleted_in_time() {
        let mut world = World::new();
        assert_eq!(
            world.look(&[("a", "renewed"), ("b", "old")], 1),
            (vec!["a".to_owned()], 0)
        );
        let mut looks = 0;
        while world.look(&[("a", "renewed"), ("b", "old")], 1).1 == 0 {
            looks += 1;
            assert!(looks < 700);
        }
        assert!(looks > 500, "{looks}");
    }
}
