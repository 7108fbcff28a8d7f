//! Following the pods: one open state stream for each pod of each gateway, and the last that each said.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringwire_config::ObjectRef;
use ringwire_config::state::{PodState, UNREACHABLE_AFTER};
use ringwire_config::status::{Observed, ObservedPod};
use ringwire_control::client::StateStream;
use ringwire_control::server::{CONTROL_PORT, CONTROL_PORTS};
use rustls::ClientConfig;
use tokio::task::AbortHandle;

use crate::failure::chain;
use crate::signal::Signal;

/// Streams that are open at once. More pods than this are not seen, which the log says.
const MAX_STREAMS: usize = 2000;

/// Waits between attempts to connect.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Which pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Its gateway.
    pub gateway: ObjectRef,
    /// Its name.
    pub pod: String,
    /// Its UID.
    pub uid: String,
}

/// How a pod is reached.
#[derive(Clone)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// The gateway's client configuration.
    pub client: Arc<ClientConfig>,
}

struct Seen {
    state: PodState,
    at: Instant,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<BTreeMap<PodKey, Seen>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report; true if it says something new.
    fn report(&self, key: &PodKey, state: PodState, now: Instant) -> bool {
        let mut seen = self.lock();
        let news = seen.get(key).is_none_or(|old| {
            old.state != state || now.duration_since(old.at) >= UNREACHABLE_AFTER
        });
        seen.insert(key.clone(), Seen { state, at: now });
        news
    }

    /// What is known, and when the next pod becomes unreachable if it stays silent.
    fn observed(&self, now: Instant) -> (Observed, Option<Instant>) {
        let mut observed = Observed::default();
        let mut next = None::<Instant>;
        for (key, Seen { state, at }) in &*self.lock() {
            let silent_at = *at + UNREACHABLE_AFTER;
            let reachable = now < silent_at;
            if reachable {
                next = Some(next.map_or(silent_at, |next| next.min(silent_at)));
            }
            let pod = ObservedPod {
                state: state.clone(),
                reachable,
            };
            observed
                .pods
                .entry(key.gateway.clone())
                .or_default()
                .insert(key.pod.clone(), pod);
        }
        (observed, next)
    }
}

struct Stream {
    target: Target,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All streams.
pub struct Observer {
    signal: Arc<Signal>,
    shared: Arc<Shared>,
    streams: BTreeMap<PodKey, Stream>,
    full: bool,
}

impl Observer {
    /// Follows nobody yet; wakes `signal` on news.
    pub fn new(signal: Arc<Signal>) -> Self {
        Self {
            signal,
            shared: Arc::default(),
            streams: BTreeMap::new(),
            full: false,
        }
    }

    /// Follows exactly these pods. `existing` are all pods there are: what others said is forgotten.
    pub fn follow(&mut self, wanted: &BTreeMap<PodKey, Target>, exists: impl Fn(&PodKey) -> bool) {
        self.streams.retain(|key, stream| {
            wanted.get(key).is_some_and(|target| {
                let Target { address, client } = target;
                stream.target.address == *address && Arc::ptr_eq(&stream.target.client, client)
            })
        });
        self.shared.lock().retain(|key, _| exists(key));
        for (key, target) in wanted {
            if self.streams.contains_key(key) {
                continue;
            }
            if self.streams.len() >= MAX_STREAMS {
                if !std::mem::replace(&mut self.full, true) {
                    tracing::error!("more than {MAX_STREAMS} pods: the rest is not observed");
                }
                break;
            }
            let (shared, signal) = (Arc::clone(&self.shared), Arc::clone(&self.signal));
            let task =
                tokio::spawn(run(key.clone(), target.clone(), shared, signal)).abort_handle();
            self.streams.insert(
                key.clone(),
                Stream {
                    target: target.clone(),
                    task,
                },
            );
        }
    }

    /// What is known now, and when that changes by silence.
    pub fn observed(&self, now: Instant) -> (Observed, Option<Instant>) {
        self.shared.observed(now)
    }

    /// Whether a pod has reported at all.
    pub fn has_seen(&self, key: &PodKey) -> bool {
        self.shared.lock().contains_key(key)
    }
}

/// Follows one pod until it is aborted.
async fn run(key: PodKey, target: Target, shared: Arc<Shared>, signal: Arc<Signal>) {
    let Target { address, client } = target;
    let object = key.gateway.to_string();
    let mut wait = FIRST_WAIT;
    let mut told = false;
    let mut port = None;
    loop {
        // The port that it had last time first: with several pods on one node, looking takes a while.
        let known = port.map(|port| port..port + 1);
        let ports = known.unwrap_or(CONTROL_PORT..CONTROL_PORT + CONTROL_PORTS);
        match StateStream::open(address, ports, &key.pod, &client).await {
            Ok((mut stream, state)) => {
                tracing::debug!(
                    object,
                    kind = "MediaGateway",
                    pod = key.pod,
                    "state stream open"
                );
                (wait, told, port) = (FIRST_WAIT, false, Some(stream.port));
                let mut next = Some(state);
                while let Some(state) = next {
                    if shared.report(&key, state, Instant::now()) {
                        signal.state_changed();
                    }
                    next = stream.next().await;
                }
                tracing::info!(
                    object,
                    kind = "MediaGateway",
                    pod = key.pod,
                    "state stream ended"
                );
            }
            Err(error) => {
                if port.take().is_none()
                    && wait == LONGEST_WAIT
                    && !std::mem::replace(&mut told, true)
                {
                    tracing::info!(
                        object,
                        kind = "MediaGateway",
                        pod = key.pod,
                        error = chain(&error),
                        "pod gives no state yet"
                    );
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire_config::shard::Role;
    use ringwire_config::token::Incarnation;

    fn key() -> PodKey {
        PodKey {
            gateway: ObjectRef::new("voice", "main"),
            pod: "media-0".into(),
            uid: "1".into(),
        }
    }

    fn state() -> PodState {
        PodState::new("media-0", Role::Media, Incarnation(1))
    }

    #[test]
    fn a_silent_pod_becomes_unreachable_but_is_not_forgotten() {
        let (shared, start) = (Shared::default(), Instant::now());
        shared.report(&key(), state(), start);
        let (observed, next) = shared.observed(start + Duration::from_secs(1));
        assert!(observed.pods[&key().gateway]["media-0"].reachable);
        assert_eq!(next, Some(start + UNREACHABLE_AFTER));
        let (observed, next) = shared.observed(start + UNREACHABLE_AFTER);
        assert!(!observed.pods[&key().gateway]["media-0"].reachable);
        assert_eq!(next, None);
    }

    #[test]
    fn a_heartbeat_is_no_news_unless_the_pod_was_unreachable() {
        let (shared, start) = (Shared::default(), Instant::now());
        assert!(shared.report(&key(), state(), start));
        assert!(!shared.report(&key(), state(), start + Duration::from_secs(3)));
        assert!(shared.report(&key(), state(), start + Duration::from_secs(30)));
        let mut changed = state();
        changed.calls.total = 1;
        assert!(shared.report(&key(), changed, start + Duration::from_secs(31)));
    }

    #[tokio::test]
    async fn forgets_pods_that_are_gone() {
        let mut observer = Observer::new(Arc::default());
        observer.shared.report(&key(), state(), Instant::now());
        observer.follow(&BTreeMap::new(), |_| true);
        assert!(observer.has_seen(&key()));
        observer.follow(&BTreeMap::new(), |_| false);
        assert!(!observer.has_seen(&key()));
    }

    /// A gateway's certificates as the operator makes them.
    fn tls() -> ringwire_control::GatewayTls {
        let now = std::time::SystemTime::now();
        let ca = ringwire_control::issue::authority("voice/main", now).unwrap();
        let leaf = ringwire_control::issue::leaf(&ca, "pods", now).unwrap();
        let [ca, certificate, key] =
            [&ca.certificate, &leaf.certificate, &leaf.key].map(String::as_bytes);
        ringwire_control::GatewayTls::from_pem(ca, certificate, key).unwrap()
    }

    #[tokio::test]
    async fn follows_a_pod_by_name_through_changes_and_a_restart() {
        let address: IpAddr = "127.0.0.77".parse().unwrap();
        let tls = tls();
        let server_tls = Arc::new(arc_swap::ArcSwap::from_pointee(tls.clone()));
        let start = |pod: &str| {
            let reporter =
                ringwire_control::Reporter::new(PodState::new(pod, Role::Media, Incarnation(1)));
            let stop = tokio_util::sync::CancellationToken::new();
            let (tls, served, stopping) = (Arc::clone(&server_tls), reporter.clone(), stop.clone());
            let serving = async move {
                let listener = ringwire_control::server::bind(address).await.unwrap();
                ringwire_control::server::serve(listener, tls, served, None, stopping).await;
            };
            (reporter, stop, serving)
        };
        // Another pod of the same node has the first port.
        let (_other, _stop, serving) = start("media-9");
        tokio::spawn(serving);
        let (reporter, stop, serving) = start("media-0");
        let first = tokio::spawn(serving);

        let signal = Arc::new(Signal::default());
        let mut observer = Observer::new(Arc::clone(&signal));
        let target = Target {
            address,
            client: Arc::clone(&tls.client_http),
        };
        observer.follow(&BTreeMap::from([(key(), target)]), |_| true);
        let calls = || {
            let (observed, _) = observer.observed(Instant::now());
            observed
                .pods
                .get(&key().gateway)
                .map(|pods| pods["media-0"].state.calls.total)
        };
        let until = async |wanted: u32| {
            while calls() != Some(wanted) {
                tokio::time::timeout(Duration::from_secs(10), signal.changed())
                    .await
                    .expect("the state arrives");
            }
        };
        until(0).await;
        reporter.update(|state| state.calls.total = 3);
        until(3).await;

        stop.cancel();
        first.await.unwrap();
        let (reporter, _stop, serving) = start("media-0");
        tokio::spawn(serving);
        reporter.update(|state| state.calls.total = 7);
        until(7).await;
    }
}
