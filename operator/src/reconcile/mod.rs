//! The loop: look at everything, start the writes that are due, wait for the next change.
//!
//! Level-triggered: a pass depends on the present state alone, so nothing is lost when events are, and nothing is done twice when
//! they come twice. A pass itself makes no request and blocks on nothing; writes run beside it, one at a time for each object.
//! Without being the leader it reads and compiles all the same, and writes nothing.

mod compiled;
mod gateways;
mod statuses;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Recorder;
use ringwire_config::ObjectRef;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::http::Health;
use crate::leader::{self, Term};
use crate::media_gateway::apply::{Applied, Children};
use crate::media_gateway::build::ChildKey;
use crate::media_gateway::certificates::Clients;
use crate::metrics::Metrics;
use crate::observe::Observer;
use crate::options::Options;
use crate::retry::{Fingerprint, Slots};
use crate::secrets::{Fetched, Secrets};
use crate::signal::Signal;
use crate::status::budget::Budget;
use crate::status::changes::{StatusKey, Written};
use crate::status::events::Told;
use crate::status::write;
use crate::watch::Views;

use compiled::Known;
use gateways::{DefaultGateway, Prepared};

/// Requests under way at once.
const MAX_REQUESTS: usize = 64;

/// Events under way at once; more are dropped.
const MAX_EVENTS: usize = 32;

/// A pass is made at least this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Everything is compiled anew at least this often.
const RECOMPILE: Duration = Duration::from_secs(60);

/// After a start no status is written before the pods were heard and the default gateway is there, but no longer than this:
/// else each restart of the operator would turn registrations Unknown for a moment.
const SETTLING: Duration = Duration::from_secs(5);

/// One thing that is written or read by a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Fetch(ObjectRef),
    Child(ChildKey),
    Keys(ChildKey),
    Status(StatusKey),
    DefaultGateway,
}

impl Work {
    /// Kind and name for the log.
    fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Fetch(id) => ("Secret", id.to_string()),
            Self::Child(key) | Self::Keys(key) => (key.kind.name(), key.id.to_string()),
            Self::Status(key) => (key.kind.name(), key.id.to_string()),
            Self::DefaultGateway => ("MediaGateway", "default gateway".to_owned()),
        }
    }
}

/// How a request ended.
enum Done {
    Fetched {
        id: ObjectRef,
        version: Fingerprint,
        result: Result<Fetched, Failure>,
    },
    Applied {
        key: ChildKey,
        result: Result<Applied, Failure>,
    },
    Deleted {
        key: ChildKey,
        result: Result<(), Failure>,
    },
    Keys {
        key: ChildKey,
        result: Result<(), Failure>,
    },
    Status(Box<StatusDone>),
    DefaultGateway {
        fingerprint: Fingerprint,
        result: Result<Option<i64>, Failure>,
    },
}

/// How a status write ended.
struct StatusDone {
    key: StatusKey,
    resource_version: String,
    status: serde_json::Value,
    told: Vec<Told>,
    /// Malformed objects: what was looked at, so that it is looked at once.
    malformed: Option<Fingerprint>,
    /// Whether it was written, or stood there already.
    result: Result<bool, Failure>,
}

/// Everything that the loop remembers between passes.
pub struct Reconciler {
    client: Client,
    options: Options,
    term: watch::Receiver<Term>,
    leads: bool,
    views: Views,
    signal: Arc<Signal>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    recorder: Recorder,
    events: Arc<Semaphore>,
    slots: Slots<Work>,
    tasks: JoinSet<Done>,
    secrets: Secrets,
    clients: Clients,
    children: Children,
    prepared: BTreeMap<ObjectRef, Prepared>,
    default_gateway: DefaultGateway,
    written: Written,
    malformed_told: BTreeMap<StatusKey, Fingerprint>,
    budget: Budget<StatusKey>,
    observer: Observer,
    known: Option<Known>,
    compiled_at: Instant,
    started: Instant,
    settled: bool,
    waiting_for: Option<&'static str>,
}

impl Reconciler {
    /// Starts the watches. It writes as long as `term` says that this operator leads.
    pub fn new(
        client: Client,
        options: Options,
        term: watch::Receiver<Term>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        recorder: Recorder,
    ) -> Self {
        let signal = Arc::new(Signal::default());
        signal.objects_changed();
        let views = Views::start(&client, &options, &signal);
        let now = Instant::now();
        Self {
            observer: Observer::new(Arc::clone(&signal)),
            client,
            options,
            term,
            leads: false,
            views,
            signal,
            metrics,
            health,
            recorder,
            events: Arc::new(Semaphore::new(MAX_EVENTS)),
            slots: Slots::new(MAX_REQUESTS),
            tasks: JoinSet::new(),
            secrets: Secrets::default(),
            clients: Clients::default(),
            children: Children::default(),
            prepared: BTreeMap::new(),
            default_gateway: DefaultGateway::default(),
            written: Written::default(),
            malformed_told: BTreeMap::new(),
            budget: Budget::new(now),
            known: None,
            compiled_at: now,
            started: now,
            settled: false,
            waiting_for: None,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let signal = Arc::clone(&self.signal);
        let mut term = self.term.clone();
        loop {
            // Kept over finished requests: dropping it half-way would lose the change that it has taken.
            let mut changed = pin!(signal.changed());
            let now = Instant::now();
            let deadline = self.pass(now, Timestamp::now());
            self.metrics.reconciled(now.elapsed().as_secs_f64());
            self.health.beat();
            let mut due = pin!(tokio::time::sleep_until(deadline.into()));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = &mut changed => break,
                    () = &mut due => break,
                    // Most renewals change nothing.
                    Ok(()) = term.changed() => if self.leads != self.is_leader(Instant::now()) { break },
                    Some(done) = self.tasks.join_next() => match done {
                        Ok(done) => self.done(done, Instant::now()),
                        // Tasks are never aborted, and a panic ends the process.
                        Err(error) => tracing::error!(%error, "a request was lost"),
                    },
                }
            }
        }
    }

    /// Looks at everything once. Returns when to look again if nothing happens.
    fn pass(&mut self, now: Instant, time: Timestamp) -> Instant {
        let mut deadline = now + HEARTBEAT;
        self.take_turn(now);
        if let Some(kind) = self.views.incomplete() {
            if self.waiting_for.replace(kind) != Some(kind) {
                tracing::info!(kind, "waiting for the first complete list");
            }
            return deadline.min(now + Duration::from_millis(200));
        }
        // Reads and keys that failed start in a compilation only, and certificates age without any event.
        let retries = self.slots.next_retry().is_some_and(|at| at <= now);
        let aged = now.duration_since(self.compiled_at) >= RECOMPILE;
        if self.signal.take_objects() || self.known.is_none() || retries || aged {
            self.compiled_at = now;
            self.compile(now, time);
        }
        // Taken out, so that the rest can change while it is read.
        let Some(known) = self.known.take() else {
            return deadline;
        };
        let pods = self.follow_pods(&known);
        let mut silence = None;
        if self.leads {
            self.write_gateways(&known, now);
            self.write_default_gateway(&known, now);
            silence = self.write_statuses(&known, &pods, now, time);
        }
        self.known = Some(known);
        self.health.set_ready();
        if !self.settled {
            deadline = deadline.min(self.started + SETTLING);
        }
        for due in [
            self.children.take_next_repair(),
            self.slots.next_retry(),
            self.budget.next(now),
            silence,
            self.leads.then(|| *self.term.borrow()).flatten(),
        ]
        .into_iter()
        .flatten()
        {
            deadline = deadline.min(due);
        }
        // A request in back-off whose time has come is started by the pass, so this never spins.
        deadline.max(now + Duration::from_millis(5))
    }

    fn is_leader(&self, now: Instant) -> bool {
        leader::holds(*self.term.borrow(), now)
    }

    /// Notes whether this operator may write from now on.
    fn take_turn(&mut self, now: Instant) {
        let leads = self.is_leader(now);
        if self.leads == leads {
            return;
        }
        self.leads = leads;
        self.metrics.set_leader(leads);
        // Writes that only a compilation starts are due now.
        self.signal.objects_changed();
        if leads {
            tracing::info!("this operator leads: it writes from now on");
            return;
        }
        tracing::warn!("this operator leads no longer: it writes nothing until it does again");
        // Nobody knows what became of what was under way: it stops, and what was written by us may be another's by the next time.
        self.tasks = JoinSet::new();
        self.slots = Slots::new(MAX_REQUESTS);
        self.budget = Budget::new(now);
        self.children = Children::default();
        self.written = Written::default();
        self.malformed_told.clear();
        self.default_gateway = DefaultGateway::default();
    }

    /// Takes the end of a request.
    fn done(&mut self, done: Done, now: Instant) {
        match done {
            Done::Fetched {
                id,
                version,
                result,
            } => {
                let work = Work::Fetch(id.clone());
                match result {
                    Ok(fetched) => {
                        self.slots.succeeded(&work);
                        self.secrets.fetched(&id, version, fetched);
                    }
                    Err(failure) => {
                        self.secrets.failed(&id);
                        self.failed(&work, &failure, now);
                    }
                }
                self.signal.objects_changed();
            }
            Done::Applied { key, result } => {
                let work = Work::Child(key.clone());
                match result {
                    Ok(applied) => {
                        tracing::info!(object = %key.id, kind = key.kind.name(), "applied");
                        self.slots.succeeded(&work);
                        self.children.applied(key, applied);
                    }
                    Err(failure) => {
                        self.children.failed(&key, &failure);
                        self.failed(&work, &failure, now);
                    }
                }
                self.signal.state_changed();
            }
            Done::Deleted { key, result } => {
                let work = Work::Child(key.clone());
                match result {
                    Ok(()) | Err(Failure::Gone | Failure::Conflict) => {
                        tracing::info!(object = %key.id, kind = key.kind.name(), "deleted, no longer wanted");
                        self.slots.succeeded(&work);
                    }
                    Err(failure) => self.failed(&work, &failure, now),
                }
            }
            Done::Keys { key, result } => {
                let work = Work::Keys(key.clone());
                match result {
                    Ok(()) => {
                        tracing::info!(object = %key.id, kind = key.kind.name(), "keys written");
                        self.slots.succeeded(&work);
                        self.children.keys_written(&key);
                    }
                    Err(failure) => {
                        self.children.failed(&key, &failure);
                        self.failed(&work, &failure, now);
                    }
                }
                self.signal.state_changed();
            }
            Done::Status(done) => self.status_done(*done, now),
            Done::DefaultGateway {
                fingerprint,
                result,
            } => self.default_gateway_done(fingerprint, result, now),
        }
    }

    /// Notes a failed request: it waits, and whoever reads the log knows.
    fn failed(&mut self, work: &Work, failure: &Failure, now: Instant) {
        self.slots.failed(work, now);
        let (kind, object) = work.describe();
        match failure {
            Failure::Gone | Failure::Conflict => {
                tracing::debug!(object, kind, %failure, "request failed");
            }
            Failure::Refused(_) | Failure::Foreign(_) | Failure::Unavailable(_) => {
                self.metrics.error(kind);
                tracing::warn!(object, kind, error = %failure, "request failed; trying again later");
            }
        }
    }

    /// Sends Events, as far as there is room for them.
    fn tell(&self, told: Vec<Told>) {
        for told in told {
            let Ok(permit) = Arc::clone(&self.events).try_acquire_owned() else {
                tracing::debug!(
                    reason = told.event.reason,
                    "too many Events at once; this one is dropped"
                );
                continue;
            };
            let recorder = self.recorder.clone();
            tokio::spawn(async move {
                write::tell(recorder, told).await;
                drop(permit);
            });
        }
    }
}
