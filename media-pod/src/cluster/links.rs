//! A registrar's connections to the media pods: of each pod its state stream, and one SIP link.
//!
//! Not the SIP itself. A pod that is no longer listed is followed until its state stream ends, and its link stays until it ends: the list
//! may be wrong, and calls run over the link.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rand::Rng;
use ringwire_config::state::PodState;
use ringwire_config::token::Incarnation;
use ringwire_control::GatewayTls;
use ringwire_control::client::{self, ConnectError, StateStream};
use ringwire_control::server::{CONTROL_PORT, CONTROL_PORTS};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::discovery::Pods;
use crate::link::{LinkEvent, LinkStream, Load};

/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(50);

/// Longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// A failure that persists is logged at this attempt, when pauses have reached their longest, and then no more: pods come and go.
const LOG_AT: u32 = 6;

/// Keeps the connections to `pods` until `stop` or until nobody takes `events` any more.
pub async fn run(
    pods: watch::Receiver<Pods>,
    tls: Arc<ArcSwap<GatewayTls>>,
    events: mpsc::Sender<LinkEvent>,
    stop: CancellationToken,
) {
    run_on(
        CONTROL_PORT..CONTROL_PORT + CONTROL_PORTS,
        pods,
        tls,
        events,
        stop,
    )
    .await;
}

async fn run_on(
    ports: std::ops::Range<u16>,
    mut pods: watch::Receiver<Pods>,
    tls: Arc<ArcSwap<GatewayTls>>,
    events: mpsc::Sender<LinkEvent>,
    stop: CancellationToken,
) {
    let stop = stop.child_token();
    let _stop_all = stop.clone().drop_guard();
    let tasks = TaskTracker::new();
    let mut listed: BTreeMap<(String, IpAddr), CancellationToken> = BTreeMap::new();
    loop {
        let current = pods.borrow_and_update().clone();
        listed.retain(|(pod, address), unlisted| {
            let keep = current.get(pod) == Some(address);
            if !keep {
                unlisted.cancel();
            }
            keep
        });
        for (pod, address) in current {
            listed.entry((pod.clone(), address)).or_insert_with(|| {
                let unlisted = CancellationToken::new();
                let link = Link {
                    pod,
                    address,
                    ports: ports.clone(),
                    tls: Arc::clone(&tls),
                    events: events.clone(),
                    unlisted: unlisted.clone(),
                };
                let stop = stop.clone();
                tasks.spawn(async move {
                    let events = link.events.clone();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = events.closed() => {}
                        () = link.run() => {}
                    }
                });
                unlisted
            });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = events.closed() => break,
            changed = pods.changed() => if changed.is_err() {
                // No more news of pods: what is there stays.
                stop.cancelled().await;
                break;
            },
        }
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// One pod, as the list names it.
struct Link {
    pod: String,
    address: IpAddr,
    ports: std::ops::Range<u16>,
    tls: Arc<ArcSwap<GatewayTls>>,
    events: mpsc::Sender<LinkEvent>,
    unlisted: CancellationToken,
}

/// What is known of a pod by its state stream.
#[derive(Clone, PartialEq)]
struct Known {
    incarnation: Incarnation,
    port: u16,
    load: Arc<Load>,
    accepting: bool,
    /// Whether the state stream is open. If not, another run of the pod may be at the port.
    open: bool,
}

impl Known {
    fn of(state: &PodState, port: u16) -> Self {
        Self {
            incarnation: state.incarnation,
            port,
            load: Arc::new(Load::from(&state.calls)),
            accepting: state.ready && !state.draining,
            open: true,
        }
    }

    /// Whether `now` is about the same run of the pod, and current.
    fn still(&self, now: Option<&Self>) -> bool {
        now.is_some_and(|now| {
            now.open && now.incarnation == self.incarnation && now.port == self.port
        })
    }
}

impl Link {
    async fn run(self) {
        let (sender, receiver) = watch::channel(None);
        tokio::join!(self.follow_state(sender), self.keep_sip(receiver));
        tracing::debug!(pod = self.pod, "the media pod is gone");
    }

    /// Follows the pod's state until it is neither listed nor there.
    async fn follow_state(&self, known: watch::Sender<Option<Known>>) {
        let mut pauses = Pauses::default();
        loop {
            let config = Arc::clone(&self.tls.load().client_http);
            match StateStream::open(self.address, self.ports.clone(), &self.pod, &config).await {
                Ok((mut stream, state)) => {
                    pauses.succeeded(&self.pod, "state");
                    let port = stream.port;
                    let mut state = Some(state);
                    while let Some(current) = &state {
                        let now = Some(Known::of(current, port));
                        known.send_if_modified(|known| {
                            let changed = *known != now;
                            *known = now;
                            changed
                        });
                        state = stream.next().await;
                    }
                    known.send_if_modified(|known| match known {
                        Some(known) => std::mem::replace(&mut known.open, false),
                        None => false,
                    });
                }
                Err(error) => {
                    pauses.failed(&self.pod, "state", &error);
                    // Not as soon as the stream is lost: a hiccup is no reason to send calls elsewhere.
                    known.send_if_modified(|known| match known {
                        Some(known) => std::mem::replace(&mut known.accepting, false),
                        None => false,
                    });
                }
            }
            tokio::select! {
                biased;
                () = self.unlisted.cancelled() => return,
                () = tokio::time::sleep(pauses.next()) => {}
            }
        }
    }

    /// Keeps a SIP link to the pod and tells the registrar of it and of the pod's load, until nothing is known any more and the link has
    /// ended.
    async fn keep_sip(&self, mut known: watch::Receiver<Option<Known>>) {
        let mut pauses = Pauses::default();
        loop {
            let open = known
                .wait_for(|known| known.as_ref().is_some_and(|known| known.open))
                .await
                .map(|known| known.clone());
            let Ok(Some(target)) = open else { return };
            let config = Arc::clone(&self.tls.load().client_sip);
            match client::connect_sip(self.address, target.port, config).await {
                // The state stream ended meanwhile: this may be a link to the pod's next run.
                Ok(_) if !target.still(known.borrow().as_ref()) => {}
                Ok(stream) => {
                    let since = Instant::now();
                    if self
                        .tell(target.incarnation, Box::new(stream), &mut known)
                        .await
                        .is_none()
                    {
                        return;
                    }
                    // A link that is closed as soon as it is made is as good as none.
                    if since.elapsed() > LONGEST {
                        pauses.succeeded(&self.pod, "SIP");
                    }
                }
                Err(error) => pauses.failed(&self.pod, "SIP", &error),
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Hands a link over and reports the pod's load until the link is lost or the pod has started anew; `None` when there will be no
    /// other link.
    async fn tell(
        &self,
        incarnation: Incarnation,
        stream: Box<dyn LinkStream>,
        known: &mut watch::Receiver<Option<Known>>,
    ) -> Option<()> {
        let closed = CancellationToken::new();
        let up = LinkEvent::Up {
            incarnation,
            pod: self.pod.clone(),
            stream,
            closed: closed.clone(),
        };
        self.events.send(up).await.ok()?;
        let mut said = None;
        loop {
            let now = known.borrow_and_update().clone()?;
            if now.incarnation != incarnation {
                return Some(());
            }
            let news = (now.load, now.accepting);
            if said.as_ref() != Some(&news) {
                let (load, accepting) = news.clone();
                said = Some(news);
                self.events
                    .send(LinkEvent::Load {
                        incarnation,
                        load,
                        accepting,
                    })
                    .await
                    .ok()?;
            }
            tokio::select! {
                () = closed.cancelled() => return Some(()),
                changed = known.changed() => if changed.is_err() {
                    closed.cancelled().await;
                    return None;
                },
            }
        }
    }
}

/// Doubling pauses between attempts, and what is logged of them.
#[derive(Default)]
struct Pauses {
    failures: u32,
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(rand::rng().random_range(0.7..=1.0))
    }

    fn failed(&self, pod: &str, link: &str, error: &ConnectError) {
        if self.failures == LOG_AT {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(pod, link, %error, cause, "cannot reach the media pod; trying again");
        } else {
            tracing::debug!(pod, link, %error, "cannot reach the media pod");
        }
    }

    fn succeeded(&mut self, pod: &str, link: &str) {
        if self.failures > LOG_AT {
            tracing::info!(pod, link, "reached the media pod again");
        }
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use ringwire_config::shard::Role;
    use ringwire_control::{Reporter, issue, server};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::server::TlsStream;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), future)
            .await
            .unwrap_or_else(|_| panic!("waited 20 s: {what}"))
    }

    struct Gateway {
        tls: Arc<ArcSwap<GatewayTls>>,
    }

    struct Pod {
        port: u16,
        reporter: Reporter,
        sip: mpsc::Receiver<TlsStream<TcpStream>>,
        stop: tokio_util::sync::DropGuard,
    }

    impl Gateway {
        fn new() -> Self {
            let now = SystemTime::now();
            let ca = issue::authority("voice/default", now).unwrap();
            let leaf = issue::leaf(&ca, "test", now).unwrap();
            let pem = |text: &str| text.as_bytes().to_vec();
            let tls = GatewayTls::from_pem(
                &pem(&ca.certificate),
                &pem(&leaf.certificate),
                &pem(&leaf.key),
            )
            .unwrap();
            Self {
                tls: Arc::new(ArcSwap::from_pointee(tls)),
            }
        }

        async fn pod(&self, port: u16, incarnation: u64) -> Pod {
            let listener = TcpListener::bind((LOOPBACK, port)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut state = PodState::new("media-0", Role::Media, Incarnation(incarnation));
            state.ready = true;
            let reporter = Reporter::new(state);
            let (sender, sip) = mpsc::channel(1);
            let stop = CancellationToken::new();
            tokio::spawn(server::serve(
                listener,
                Arc::clone(&self.tls),
                reporter.clone(),
                Some(sender),
                stop.clone(),
            ));
            Pod {
                port,
                reporter,
                sip,
                stop: stop.drop_guard(),
            }
        }

        fn follow(&self, port: u16) -> (watch::Sender<Pods>, mpsc::Receiver<LinkEvent>) {
            let (pods, receiver) = watch::channel(Pods::from([("media-0".to_owned(), LOOPBACK)]));
            let (sender, events) = mpsc::channel(8);
            tokio::spawn(run_on(
                port..port + 1,
                receiver,
                Arc::clone(&self.tls),
                sender,
                CancellationToken::new(),
            ));
            (pods, events)
        }
    }

    async fn up(
        events: &mut mpsc::Receiver<LinkEvent>,
    ) -> (Incarnation, Box<dyn LinkStream>, CancellationToken) {
        loop {
            match soon("a link", events.recv()).await.unwrap() {
                LinkEvent::Up {
                    incarnation,
                    stream,
                    closed,
                    ..
                } => return (incarnation, stream, closed),
                LinkEvent::Load { .. } => {}
            }
        }
    }

    async fn load(events: &mut mpsc::Receiver<LinkEvent>) -> (u64, u32, bool) {
        match soon("a load", events.recv()).await.unwrap() {
            LinkEvent::Load {
                incarnation,
                load,
                accepting,
            } => (incarnation.0, load.calls, accepting),
            LinkEvent::Up { .. } => panic!("another link"),
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_found_gives_a_link_and_then_its_load() {
        let gateway = Gateway::new();
        let mut pod = gateway.pod(0, 1).await;
        let (_pods, mut events) = gateway.follow(pod.port);
        let (incarnation, mut near, _closed) = up(&mut events).await;
        assert_eq!(incarnation, Incarnation(1));
        assert_eq!(load(&mut events).await, (1, 0, true));

        let mut far = soon("SIP at the pod", pod.sip.recv()).await.unwrap();
        near.write_all(b"INVITE").await.unwrap();
        let mut received = [0; 6];
        soon("bytes", far.read_exact(&mut received)).await.unwrap();
        assert_eq!(&received, b"INVITE");

        pod.reporter.update(|state| state.calls.total = 5);
        assert_eq!(load(&mut events).await, (1, 5, true));
        pod.reporter.update(|state| state.draining = true);
        assert_eq!(load(&mut events).await, (1, 5, false));
    }

    #[tokio::test]
    async fn a_lost_link_is_made_again() {
        let gateway = Gateway::new();
        let pod = gateway.pod(0, 1).await;
        let (_pods, mut events) = gateway.follow(pod.port);
        let (_, first, closed) = up(&mut events).await;
        assert_eq!(load(&mut events).await, (1, 0, true));
        drop(first);
        closed.cancel();
        let (incarnation, _second, _closed) = up(&mut events).await;
        assert_eq!(incarnation, Incarnation(1));
        assert_eq!(
            load(&mut events).await,
            (1, 0, true),
            "said again for the new link"
        );
    }

    #[tokio::test]
    async fn a_pod_that_dies_takes_no_calls_and_its_successor_is_a_new_incarnation() {
        let gateway = Gateway::new();
        let pod = gateway.pod(0, 1).await;
        let port = pod.port;
        let (_pods, mut events) = gateway.follow(port);
        let (_, mut link, closed) = up(&mut events).await;
        assert_eq!(load(&mut events).await, (1, 0, true));
        drop(pod);
        assert!(soon("the end of the link", link.read_u8()).await.is_err());
        assert_eq!(
            load(&mut events).await,
            (1, 0, false),
            "also if the link's end were not noticed"
        );
        closed.cancel();

        let _successor = gateway.pod(port, 2).await;
        let (incarnation, _link, _closed) = up(&mut events).await;
        assert_eq!(incarnation, Incarnation(2));
        assert_eq!(load(&mut events).await, (2, 0, true));
    }

    #[tokio::test]
    async fn a_pod_missing_from_the_list_keeps_its_link() {
        let gateway = Gateway::new();
        let mut pod = gateway.pod(0, 1).await;
        let (pods, mut events) = gateway.follow(pod.port);
        let (_, mut near, _closed) = up(&mut events).await;
        assert_eq!(load(&mut events).await, (1, 0, true));
        let mut far = soon("SIP at the pod", pod.sip.recv()).await.unwrap();
        pods.send_replace(Pods::new());
        pod.reporter.update(|state| state.calls.total = 1);
        assert_eq!(load(&mut events).await, (1, 1, true));
        far.write_all(b"BYE").await.unwrap();
        let mut received = [0; 3];
        soon("bytes", near.read_exact(&mut received)).await.unwrap();
        assert_eq!(&received, b"BYE");
        drop(pod.stop);
    }

    #[test]
    fn pauses_end_at_a_second() {
        let mut pauses = Pauses::default();
        assert!(pauses.next() <= FIRST);
        for _ in 0..100 {
            assert!(pauses.next() <= LONGEST);
        }
    }
}
