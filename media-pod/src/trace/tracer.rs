//! The task between the registrar's loop and the listeners: it masks, finds out whose each message is, and hands it to those who want
//! it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::TokioResolver;
use ringwire_sip::message::parse_datagram;
use ringwire_sip::transaction::Transport;
use tokio::sync::{mpsc, watch};

use super::entry::{Entry, Peer};
use super::filter::{Facts, Filter};
use super::hep::{self, Exported};
use super::known::{Known, Ours, Surroundings};
use super::mask::mask;
use super::summary::Summary;
use super::tap::{Captured, Direction, News, QUEUE, Shared, Tap};

/// Messages that wait for one listener.
const LISTENER_QUEUE: usize = 512;

/// Messages that wait for a collector.
const EXPORT_QUEUE: usize = 2_048;

/// Listeners at a time.
const MAX_LISTENERS: usize = 16;

/// Messages that may wait for the end of a turn.
const MAX_TURN: usize = 256;

/// Messages that are remembered to know one that comes again.
const REMEMBERED: usize = 1_024;

/// A masked message and what is known of it.
pub struct Traced {
    /// All but the whole message; without what people alone want to know, if none of them wants this one.
    pub entry: Entry,
    /// The masked message.
    pub masked: Vec<u8>,
    /// Over what it went.
    pub transport: Transport,
    /// From where; between our own it does not matter.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// Room on the way that it takes as long as anybody has it.
    _share: tokio::sync::OwnedSemaphorePermit,
}

impl Traced {
    /// Says in short what the message is, which only people want to know: it takes a second look at all of it.
    fn summarise(&mut self) {
        let Summary {
            method,
            uri,
            status,
            reason,
            cseq,
            headers,
            media,
        } = Summary::of(&self.masked);
        let entry = &mut self.entry;
        (entry.method, entry.uri, entry.status) = (method, uri, status);
        (entry.reason, entry.cseq) = (reason, cseq);
        (entry.headers, entry.media) = (headers, media);
    }
}

/// Which messages a listener gets.
enum Wants {
    /// These, for people.
    Filtered(Filter),
    /// All with carriers that can be read, for a collector.
    Carriers,
}

impl Wants {
    fn includes(&self, entry: &Entry, facts: &Facts, exporting: bool) -> bool {
        match self {
            Self::Filtered(filter) => filter.wants(&entry.call_id, facts),
            Self::Carriers => exporting && entry.peer == Peer::Outside && !entry.call_id.is_empty(),
        }
    }
}

struct Listener {
    wants: Wants,
    queue: mpsc::Sender<Arc<Traced>>,
    lost: Arc<AtomicU64>,
}

/// What a listener has.
pub struct Listening {
    /// The messages.
    pub messages: mpsc::Receiver<Arc<Traced>>,
    lost: Arc<AtomicU64>,
}

impl Listening {
    /// How many messages were lost since this was asked last.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// Where listeners come; to be cloned.
#[derive(Clone)]
pub struct Hub {
    pod: Arc<str>,
    shared: Arc<Shared>,
    listeners: Arc<Mutex<Vec<Listener>>>,
    around: watch::Receiver<Surroundings>,
}

impl Hub {
    /// The registrar's name.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Follows the messages that `filter` wants from now on; `None` if there are too many listeners already. Ends when what it gives
    /// is dropped.
    pub fn listen(&self, filter: Filter) -> Option<Listening> {
        let mut listeners = self.lock();
        listeners.retain(|listener| !listener.queue.is_closed());
        let people = listeners
            .iter()
            .filter(|listener| matches!(listener.wants, Wants::Filtered(_)));
        if people.count() >= MAX_LISTENERS {
            return None;
        }
        let (queue, messages) = mpsc::channel(LISTENER_QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        listeners.push(Listener {
            wants: Wants::Filtered(filter),
            queue,
            lost: Arc::clone(&lost),
        });
        self.shared.listening.store(true, Ordering::Relaxed);
        Some(Listening { messages, lost })
    }

    /// Sends copies to the collector that the configuration names, for as long as the registrar is there.
    pub fn export(&self, resolver: TokioResolver, exported: Exported) {
        let messages = self.carriers(&exported);
        tokio::spawn(hep::run(
            self.clone(),
            messages,
            self.around.clone(),
            resolver,
            exported,
        ));
    }

    /// Follows all messages with carriers while there is a collector; what is lost counts as dropped.
    pub(super) fn carriers(&self, exported: &Exported) -> mpsc::Receiver<Arc<Traced>> {
        let (queue, messages) = mpsc::channel(EXPORT_QUEUE);
        self.lock().push(Listener {
            wants: Wants::Carriers,
            queue,
            lost: exported.dropped(),
        });
        messages
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Listener>> {
        // Nothing panics while it is locked.
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets listeners that are gone, and closes the tap behind the last.
    fn tidy(&self) {
        let mut listeners = self.lock();
        listeners.retain(|listener| !listener.queue.is_closed());
        let people = listeners
            .iter()
            .any(|listener| matches!(listener.wants, Wants::Filtered(_)));
        self.shared.listening.store(people, Ordering::Relaxed);
    }

    fn publish(&self, mut traced: Traced, facts: &Facts) {
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        let exporting = self.shared.exporting.load(Ordering::Relaxed);
        let listeners = self.lock();
        let includes = |listener: &Listener, entry: &Entry| {
            let wants = &listener.wants;
            wants.includes(entry, facts, exporting)
        };
        if listeners.iter().any(|listener| {
            matches!(listener.wants, Wants::Filtered(_)) && includes(listener, &traced.entry)
        }) {
            traced.summarise();
        }
        let traced = Arc::new(traced);
        for listener in &*listeners {
            if lost > 0 {
                listener.lost.fetch_add(lost, Ordering::Relaxed);
            }
            if includes(listener, &traced.entry)
                && let Err(mpsc::error::TrySendError::Full(_)) =
                    listener.queue.try_send(Arc::clone(&traced))
            {
                listener.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Makes the way from a registrar called `pod` to its listeners. Its task ends with the tap.
pub fn open(pod: &str) -> (Tap, Hub) {
    let shared = Arc::new(Shared {
        listening: AtomicBool::new(false),
        exporting: AtomicBool::new(false),
        lost: AtomicU64::new(0),
    });
    let (news_in, news) = mpsc::channel(QUEUE);
    let (around_in, around) = watch::channel(Surroundings::default());
    let hub = Hub {
        pod: pod.into(),
        shared: Arc::clone(&shared),
        listeners: Arc::default(),
        around: around.clone(),
    };
    tokio::spawn(run(news, around, hub.clone()));
    (Tap::new(shared, news_in, around_in), hub)
}

async fn run(mut news: mpsc::Receiver<News>, around: watch::Receiver<Surroundings>, hub: Hub) {
    let mut tracer = Tracer::default();
    while let Some(news) = news.recv().await {
        let ends = matches!(news, News::Turn);
        tracer.take(news, &around);
        if ends || tracer.turn.len() >= MAX_TURN {
            let ours = around.borrow().ours;
            for (traced, facts) in tracer.end_turn(&hub.pod, ours) {
                hub.publish(traced, &facts);
            }
            hub.tidy();
        }
    }
}

/// What the task knows.
#[derive(Default)]
struct Tracer {
    known: Known,
    recent: Recent,
    /// Messages of this turn with their Call-IDs. Only its end tells whose they are: the INVITE comes before the decision.
    turn: Vec<(Captured, String)>,
}

impl Tracer {
    fn take(&mut self, news: News, around: &watch::Receiver<Surroundings>) {
        match news {
            News::Message(captured) => {
                let message = parse_datagram(&captured.bytes).ok();
                if let Some(message) = &message {
                    let outside = captured.pod.is_none().then(|| captured.flow.remote.ip());
                    self.known.learn(message, outside, &around.borrow());
                }
                let call_id = message
                    .and_then(|message| message.headers().call_id().ok().map(str::to_owned))
                    .unwrap_or_default();
                self.turn.push((captured, call_id));
            }
            News::Refused {
                call_id,
                provider,
                called,
            } => self.known.refused(&call_id, provider, called),
            News::Turn => {}
        }
    }

    fn end_turn(&mut self, pod: &str, ours: Ours) -> Vec<(Traced, Facts)> {
        let turn = std::mem::take(&mut self.turn);
        let traced = turn
            .into_iter()
            .map(|(captured, call_id)| self.traced(captured, call_id, pod, ours));
        traced.collect()
    }

    fn traced(
        &mut self,
        captured: Captured,
        call_id: String,
        pod: &str,
        ours: Ours,
    ) -> (Traced, Facts) {
        let Captured {
            at,
            direction,
            flow,
            pod: media_pod,
            bytes,
            share,
        } = captured;
        let again = self
            .recent
            .has(&(direction == Direction::In, &flow, &bytes));
        let facts = self.known.facts(&call_id);
        let masked = mask(&bytes);
        let (peer, name, transport) = match media_pod {
            Some(pod) => (Peer::MediaPod, pod.to_string(), "link"),
            None => (
                Peer::Outside,
                flow.remote.to_string(),
                flow.transport.as_str(),
            ),
        };
        let ours = ours.end(flow.transport);
        let (from, to, source, destination) = match direction {
            Direction::In => (name, pod.to_owned(), flow.remote, ours),
            Direction::Out => (pod.to_owned(), name, ours, flow.remote),
        };
        let entry = Entry {
            time: at,
            pod: pod.to_owned(),
            from,
            to,
            peer,
            transport: transport.to_owned(),
            method: String::new(),
            uri: None,
            status: None,
            reason: String::new(),
            cseq: None,
            call_id,
            again,
            provider: facts.provider.clone(),
            number: facts.called.clone(),
            headers: BTreeMap::new(),
            media: None,
            message: None,
        };
        let traced = Traced {
            entry,
            masked,
            transport: flow.transport,
            source,
            destination,
            _share: share,
        };
        (traced, facts)
    }
}

/// The last messages, by a hash of each.
#[derive(Default)]
struct Recent {
    hasher: RandomState,
    seen: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    /// Whether this was there before; from now on it was.
    fn has(&mut self, message: &impl std::hash::Hash) -> bool {
        let hash = self.hasher.hash_one(message);
        if !self.seen.insert(hash) {
            return true;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        false
    }
}
