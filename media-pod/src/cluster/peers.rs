//! Whether the other registrars live, while the API server cannot say: by the state stream of each.
//!
//! Not for every day: Leases are cheaper, and know of pods that nobody has met yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ringwire_control::GatewayTls;
use ringwire_control::client::StateStream;
use ringwire_control::server::{CONTROL_PORT, CONTROL_PORTS};
use tokio::task::AbortHandle;

/// Pause between attempts to reach a pod.
const PAUSE: Duration = Duration::from_millis(500);

/// When each pod was last heard of.
type Heard = Arc<Mutex<BTreeMap<String, Instant>>>;

/// Open streams to the other registrars; they end when this is dropped.
pub(super) struct Peers {
    tls: Arc<ArcSwap<GatewayTls>>,
    heard: Heard,
    streams: BTreeMap<(String, IpAddr), Stream>,
}

struct Stream(AbortHandle);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Peers {
    pub(super) fn new(tls: &Arc<ArcSwap<GatewayTls>>) -> Self {
        Self {
            tls: Arc::clone(tls),
            heard: Heard::default(),
            streams: BTreeMap::new(),
        }
    }

    /// Listens to exactly these pods.
    pub(super) fn listen(&mut self, wanted: &BTreeMap<String, IpAddr>) {
        self.streams
            .retain(|(pod, address), _| wanted.get(pod) == Some(address));
        for (pod, address) in wanted {
            let key = (pod.clone(), *address);
            self.streams.entry(key).or_insert_with(|| {
                let (tls, heard) = (Arc::clone(&self.tls), Arc::clone(&self.heard));
                let task = tokio::spawn(follow(pod.clone(), *address, tls, heard));
                Stream(task.abort_handle())
            });
        }
    }

    /// When a pod was last heard of.
    pub(super) fn heard(&self, pod: &str) -> Option<Instant> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(pod).copied()
    }
}

async fn follow(pod: String, address: IpAddr, tls: Arc<ArcSwap<GatewayTls>>, heard: Heard) {
    let note = || {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(pod.clone(), Instant::now());
    };
    loop {
        let config = Arc::clone(&tls.load().client_http);
        let ports = CONTROL_PORT..CONTROL_PORT + CONTROL_PORTS;
        if let Ok((mut stream, _)) = StateStream::open(address, ports, &pod, &config).await {
            note();
            while stream.next().await.is_some() {
                note();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use ringwire_config::shard::Role;
    use ringwire_config::state::PodState;
    use ringwire_config::token::Incarnation;
    use ringwire_control::{Reporter, issue, server};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn tls() -> Arc<ArcSwap<GatewayTls>> {
        let now = std::time::SystemTime::now();
        let ca = issue::authority("voice/main", now).unwrap();
        let leaf = issue::leaf(&ca, "pods", now).unwrap();
        let [ca, certificate, key] =
            [&ca.certificate, &leaf.certificate, &leaf.key].map(String::as_bytes);
        Arc::new(ArcSwap::from_pointee(
            GatewayTls::from_pem(ca, certificate, key).unwrap(),
        ))
    }

    #[tokio::test]
    async fn a_pod_is_heard_as_long_as_it_runs_and_nobody_else_in_its_place() {
        let (tls, address) = (tls(), IpAddr::from([127, 0, 0, 78]));
        let start = |pod: &str| {
            let reporter = Reporter::new(PodState::new(pod, Role::Registrar, Incarnation(1)));
            let (stop, tls) = (CancellationToken::new(), Arc::clone(&tls));
            let stopping = stop.clone();
            let task = tokio::spawn(async move {
                let listener = server::bind(address).await.unwrap();
                server::serve(listener, tls, reporter, None, stopping).await;
            });
            (stop, task)
        };
        let (stop, served) = start("a");
        let mut peers = Peers::new(&tls);
        let wanted = ["a", "b"].map(|pod| (pod.to_owned(), address));
        peers.listen(&wanted.into());
        let until_heard_after = async |before: Option<Instant>| {
            let begun = Instant::now();
            while peers.heard("a") <= before {
                assert!(begun.elapsed() < Duration::from_secs(10), "never heard");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        until_heard_after(None).await;
        // A heartbeat.
        until_heard_after(peers.heard("a")).await;
        stop.cancel();
        served.await.unwrap();
        let last = peers.heard("a");
        let (_stop, _served) = start("c");
        // Two attempts at least.
        tokio::time::sleep(PAUSE * 3).await;
        assert_eq!(peers.heard("a"), last);
        assert_eq!(peers.heard("b"), None);
    }
}
