//! Where the registrar's loop hands over what it reads and sends. While nobody listens each call is two relaxed loads.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use ringwire_config::ObjectRef;
use ringwire_config::gateway::RegistrarConfig;
use ringwire_sip::message::Message;
use ringwire_sip::transaction::Flow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::known::{Ours, Surroundings};

/// Messages on their way to the tracer.
pub(super) const QUEUE: usize = 2_048;

/// Bytes of messages that may wait anywhere between the loop and the slowest listener.
const MAX_BYTES: usize = 16 << 20;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the registrar.
    In,
    /// From the registrar.
    Out,
}

/// A message as it was on the wire.
pub(super) struct Captured {
    pub at: Timestamp,
    pub direction: Direction,
    pub flow: Flow,
    /// The media pod, if the other side is one.
    pub pod: Option<Arc<str>>,
    pub bytes: Vec<u8>,
    /// Its share of [`MAX_BYTES`], given back with the last copy.
    pub share: OwnedSemaphorePermit,
}

/// What the loop tells the tracer.
pub(super) enum News {
    Message(Captured),
    /// A call was refused before any media pod.
    Refused {
        call_id: String,
        provider: Option<ObjectRef>,
        called: Option<String>,
    },
    /// Everything that the messages so far have caused at once was told.
    Turn,
}

/// What tap, tracer and listeners share.
pub(super) struct Shared {
    /// Whether anybody listens.
    pub listening: AtomicBool,
    /// Whether the configuration names a collector.
    pub exporting: AtomicBool,
    /// Messages that found no room on the way to the tracer.
    pub lost: AtomicU64,
}

/// The registrar's end.
pub struct Tap {
    shared: Arc<Shared>,
    news: mpsc::Sender<News>,
    room: Arc<Semaphore>,
    around: watch::Sender<Surroundings>,
    /// Media pods by connection.
    pods: HashMap<u64, Arc<str>>,
    /// Something was told since the last turn.
    told: bool,
}

impl Tap {
    pub(super) fn new(
        shared: Arc<Shared>,
        news: mpsc::Sender<News>,
        around: watch::Sender<Surroundings>,
    ) -> Self {
        Self {
            shared,
            news,
            room: Arc::new(Semaphore::new(MAX_BYTES)),
            around,
            pods: HashMap::new(),
            told: false,
        }
    }

    /// The configuration has changed; `ours` is where carriers reach us by it.
    pub fn configured(&self, config: &Arc<RegistrarConfig>, ours: Ours) {
        // At once: what is sent next belongs to the collector already.
        let exporting = config.hep.is_some();
        self.shared.exporting.store(exporting, Ordering::Relaxed);
        self.around.send_modify(|around| {
            around.config = Some(Arc::clone(config));
            around.ours = ours;
        });
    }

    /// Their addresses have changed.
    pub fn resolved(&self, resolved: Arc<BTreeMap<ObjectRef, Vec<IpAddr>>>) {
        self.around.send_modify(|around| around.resolved = resolved);
    }

    /// A flow leads to this media pod.
    pub fn link(&mut self, flow: &Flow, pod: &str) {
        if let Some(connection) = flow.connection {
            self.pods.insert(connection, pod.into());
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, flow: &Flow) {
        if let Some(connection) = flow.connection {
            self.pods.remove(&connection);
        }
    }

    /// These bytes were read.
    pub fn received(&mut self, flow: &Flow, bytes: &[u8]) {
        if self.is_open() {
            self.take(Direction::In, flow, bytes.to_vec());
        }
    }

    /// This message was read from a stream.
    pub fn received_message(&mut self, flow: &Flow, message: &Message) {
        if self.is_open() {
            self.take(Direction::In, flow, message.to_bytes());
        }
    }

    /// These bytes are sent.
    pub fn sent(&mut self, flow: &Flow, bytes: &[u8]) {
        if self.is_open() {
            self.take(Direction::Out, flow, bytes.to_vec());
        }
    }

    /// A call was refused here.
    pub fn refused(&mut self, call_id: &str, provider: Option<&ObjectRef>, called: Option<&str>) {
        if self.is_open() {
            self.tell(News::Refused {
                call_id: call_id.to_owned(),
                provider: provider.cloned(),
                called: called.map(str::to_owned),
            });
        }
    }

    /// What was read so far has had its immediate effects.
    pub fn turn(&mut self) {
        if std::mem::take(&mut self.told) {
            // Without room for it the tracer has enough to do, and the next one will come.
            let _ = self.news.try_send(News::Turn);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.shared.listening.load(Ordering::Relaxed)
            || self.shared.exporting.load(Ordering::Relaxed)
    }

    fn take(&mut self, direction: Direction, flow: &Flow, bytes: Vec<u8>) {
        // Keep-alives are no messages.
        if bytes.trim_ascii().is_empty() {
            return;
        }
        let Ok(share) = Arc::clone(&self.room).try_acquire_many_owned(bytes.len() as u32) else {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let pod = flow
            .connection
            .and_then(|connection| self.pods.get(&connection).cloned());
        self.tell(News::Message(Captured {
            at: Timestamp::now(),
            direction,
            flow: flow.clone(),
            pod,
            bytes,
            share,
        }));
    }

    fn tell(&mut self, news: News) {
        self.told = true;
        if self.news.try_send(news).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
