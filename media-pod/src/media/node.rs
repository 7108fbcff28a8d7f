//! The media pod's shell: links from registrars, the [`Switch`] between them and the calls, and the threads that carry these.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_agent::connect::Connector;
use ringwire_config::Reason;
use ringwire_config::gateway::MediaConfig;
use ringwire_config::token::Incarnation;
use ringwire_control::Reporter;
use ringwire_media::plane::Plane;
use ringwire_sip::transaction::Transport;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::call::{NewCall, TakeOver};
use super::exchange::{CallKey, FromCall, ToCall, ToDialog};
use super::ports::Ports;
use super::shared::Shared;
use super::switch::{Incoming, Output, Switch};
use super::{retired, worker};
use crate::link::LinkStream;
use crate::registrar::Identity;
use crate::streams::{Idle, Sent, StreamEvent, Streams};

/// Messages that wait for one call.
const INBOX: usize = 64;

/// After BYE was said to all, calls have so long to end.
const HANG_UP_LIMIT: Duration = Duration::from_secs(8);

/// After the last call has ended, its agent may be spoken to so long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a media pod is made of.
pub struct Params {
    /// Its configuration.
    pub config: watch::Receiver<Option<Arc<MediaConfig>>>,
    /// Links from registrars.
    pub links: mpsc::Receiver<Box<dyn LinkStream>>,
    /// Its report.
    pub reporter: Reporter,
    /// Where it runs.
    pub identity: Identity,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Makes the agents' connections.
    pub connector: Connector,
    /// Take no more calls, wait for those that run, then end them and return.
    pub drain: CancellationToken,
    /// While draining: end the calls that are left now.
    pub hurry: CancellationToken,
    /// How many threads carry calls.
    pub workers: usize,
    /// Told once, when calls can be taken.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Told that the loop turns.
    pub beat: Box<dyn Fn() + Send>,
}

/// How a call is told something, and where it runs.
struct Inbox {
    sender: mpsc::Sender<ToCall>,
    worker: usize,
}

struct Node {
    switch: Switch,
    streams: Streams,
    inboxes: HashMap<CallKey, Inbox>,
    workers: Vec<mpsc::Sender<NewCall>>,
    next_worker: usize,
}

/// Runs a media pod until it has drained.
pub async fn run(params: Params) {
    let Params {
        mut config,
        mut links,
        reporter,
        identity,
        incarnation,
        connector,
        drain,
        hurry,
        workers,
        ready,
        beat,
    } = params;
    tokio::select! {
        _ = config.wait_for(Option::is_some) => {}
        () = drain.cancelled() => return,
    }
    let (from_calls_in, mut from_calls) = mpsc::channel(1_024);
    let config = retired::keep(config);
    let mut changes = config.clone();
    changes.mark_changed();
    let plane = match Plane::start(workers) {
        Ok(plane) => plane,
        Err(error) => {
            tracing::error!(%error, "no threads for calls");
            std::process::abort();
        }
    };
    let shared = Arc::new(Shared {
        config,
        connector,
        ports: Ports::new(),
        plane: plane.clone(),
        identity,
        reporter: reporter.clone(),
        node: from_calls_in,
    });
    let (workers, threads): (Vec<_>, Vec<_>) = (0..workers.max(1))
        .map(|index| worker::start(index, &shared))
        .unzip();
    let (events_in, mut events) = mpsc::channel(1_024);
    let mut node = Node {
        switch: Switch::new(incarnation, rand::random()),
        streams: Streams::new(events_in),
        inboxes: HashMap::new(),
        workers,
        next_worker: 0,
    };
    node.configure(shared.config.borrow().as_deref());
    reporter.update(|state| state.ready = true);
    ready();
    let mut drain_until: Option<Instant> = None;
    let mut hung_up = false;
    loop {
        node.pump();
        beat();
        let now = Instant::now();
        if let Some(until) = drain_until {
            if node.inboxes.is_empty() || (hung_up && until <= now) {
                break;
            }
            if until <= now {
                hung_up = true;
                drain_until = Some(now + HANG_UP_LIMIT);
                tracing::info!(
                    calls = node.inboxes.len(),
                    "drain time is over; ending the calls that are left"
                );
                node.hang_up_all();
            }
        }
        let timeout = [node.switch.poll_timeout(), drain_until]
            .into_iter()
            .flatten()
            .min();
        let sleep = timeout
            .map_or(Duration::from_secs(1), |at| {
                at.saturating_duration_since(now)
            })
            .min(Duration::from_secs(1));
        tokio::select! {
            Some(event) = events.recv() => node.on_stream(event),
            Some(message) = from_calls.recv() => {
                node.on_call(message);
                while let Ok(message) = from_calls.try_recv() {
                    node.on_call(message);
                }
            }
            Some(link) = links.recv() => {
                let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                let flow = node.streams.add(link, (Transport::Tcp, nowhere), Idle::Forever, &CancellationToken::new());
                node.switch.link_up(flow, Instant::now());
            }
            () = tokio::time::sleep(sleep) => node.switch.handle_timeout(Instant::now()),
            // A new call looks it up: it is in force already.
            Ok(()) = changes.changed() => {
                let config = changes.borrow_and_update().clone();
                node.configure(config.as_deref());
                if let Some(config) = config {
                    reporter.update(|state| {
                        state.configuration.clone_from(&config.shards);
                        state.not_understood.clone_from(&config.not_understood);
                        state.agents.retain(|id, _| config.agents.contains_key(id));
                    });
                }
            }
            () = hurry.cancelled(), if drain_until.is_some() && !hung_up => drain_until = Some(Instant::now()),
            () = drain.cancelled(), if drain_until.is_none() => {
                node.switch.drain();
                let seconds = shared.config.borrow().as_ref().map_or(0, |config| config.settings.drain_seconds);
                tracing::info!(calls = node.inboxes.len(), seconds, "draining");
                reporter.update(|state| { state.draining = true; state.ready = false; });
                drain_until = Some(Instant::now() + Duration::from_secs(u64::from(seconds)));
            }
        }
    }
    node.pump();
    // What was said last has to leave before the streams close.
    tokio::time::sleep(Duration::from_millis(100)).await;
    node.streams.close_all();
    drop(node);
    let _ = tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
        // The agents get their last words.
        plane.wind_up(LAST_WORDS);
    })
    .await;
    tracing::info!("media stopped");
}

impl Node {
    fn configure(&mut self, config: Option<&MediaConfig>) {
        let key = config.and_then(|config| config.settings.token_keys.first());
        self.switch.set_token_key(key.cloned());
    }

    fn on_stream(&mut self, event: StreamEvent) {
        let now = Instant::now();
        match event {
            StreamEvent::Message(link, message) => self.switch.receive(*message, link, now),
            StreamEvent::Unreadable(_, failure) => {
                tracing::error!(error = %failure.error, "a registrar sent an unreadable message");
            }
            StreamEvent::Closed(link, error, _) => {
                self.streams.closed(&link);
                self.switch.link_closed(&link, error, now);
            }
        }
    }

    fn on_call(&mut self, message: FromCall) {
        if let FromCall::Ended(key) = &message {
            self.inboxes.remove(key);
            ringwire_sip::transaction::give_back(&mut self.inboxes);
        }
        self.switch.take(message, Instant::now());
    }

    /// Tells the calls and sends, until there is nothing more.
    fn pump(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.switch.poll_output() {
                idle = false;
                match output {
                    Output::New(incoming) => self.begin(*incoming),
                    Output::To(key, message) => self.tell(&key, message),
                }
            }
            while let Some(transmit) = self.switch.poll_transmit() {
                idle = false;
                let connection = transmit.flow.connection;
                let sent = connection.map(|to| self.streams.send(to, transmit.bytes));
                if sent != Some(Sent::Queued) {
                    self.switch.unsent(&transmit.flow, Instant::now());
                }
            }
            if idle {
                return;
            }
        }
    }

    /// A call that does not read is not waited for: what is asked of it is refused.
    fn tell(&mut self, key: &CallKey, message: ToCall) {
        let Some(inbox) = self.inboxes.get(key) else {
            return;
        };
        if let Err(TrySendError::Full(unread)) = inbox.sender.try_send(message) {
            tracing::warn!(call_id = %key.call_id, "a call has more messages than it reads");
            if let ToCall::Dialog(ToDialog::Request { server, request }) = unread {
                self.switch.refuse_busy(server, &request, Instant::now());
            }
        }
    }

    /// Gives a new call to a thread: to that of the call whose place it takes, else to the next one.
    fn begin(&mut self, incoming: Incoming) {
        let Incoming {
            key,
            invite,
            server,
            decision,
            replaces,
        } = incoming;
        let replaced = replaces.map(|(old, replaces)| (self.inboxes.get(&old), replaces));
        let worker = if let Some((Some(inbox), _)) = &replaced {
            inbox.worker
        } else {
            self.next_worker = (self.next_worker + 1) % self.workers.len();
            self.next_worker
        };
        let takes_over = replaced.map(|(inbox, replaces)| TakeOver {
            from: inbox.map(|inbox| inbox.sender.clone()),
            replaces,
        });
        let (sender, inbox) = mpsc::channel(INBOX);
        let call = NewCall {
            key: key.clone(),
            invite,
            server,
            decision,
            takes_over,
            inbox,
        };
        if self.workers[worker].try_send(call).is_err() {
            return self.switch.decline(&key, Instant::now());
        }
        self.inboxes.insert(key, Inbox { sender, worker });
    }

    fn hang_up_all(&mut self) {
        for inbox in self.inboxes.values() {
            let reason = Reason::Draining;
            let _ = inbox.sender.try_send(ToCall::HangUp { reason });
        }
    }
}
