//! The media pod's shell: links from registrars, the [`Switch`] between them and the calls, and the calls' dialogs. Their packets have
//! threads of their own ([`ringwire_media::plane`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_agent::connect::Connector;
use ringwire_config::Reason;
use ringwire_config::gateway::MediaConfig;
use ringwire_config::token::Incarnation;
use ringwire_control::Reporter;
use ringwire_media::dtls;
use ringwire_media::plane::Plane;
use ringwire_sip::transaction::Transport;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::CallMetrics;
use super::call::{self, NewCall, TakeOver};
use super::exchange::{CallKey, FromCall, ToCall, ToDialog};
use super::retired;
use super::shared::Shared;
use super::switch::{Incoming, Output, Switch};
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
    /// Carries the calls' packets.
    pub plane: Plane,
    /// Counts what became of their sound.
    pub calls: CallMetrics,
    /// Told once, when calls can be taken.
    pub ready: Box<dyn FnOnce() + Send>,
    /// Told that the loop turns.
    pub beat: Box<dyn Fn() + Send>,
}

struct Node {
    switch: Switch,
    streams: Streams,
    shared: Arc<Shared>,
    /// How calls are told something.
    inboxes: HashMap<CallKey, mpsc::Sender<ToCall>>,
    dialogs: JoinSet<()>,
    /// Whose dialogs they are.
    keys: HashMap<tokio::task::Id, CallKey>,
}

/// Runs a media pod until it has drained. The calls' dialogs are tasks beside it, so it has to run in a [`tokio::task::LocalSet`], best
/// alone on a thread ([`crate::alone`]).
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
        plane,
        calls,
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
    // Without it calls cannot be carried as they are to be.
    let certificate = match dtls::Identity::generate() {
        Ok(certificate) => Arc::new(certificate),
        Err(error) => {
            tracing::error!(%error, "no certificate for encrypted media");
            std::process::abort();
        }
    };
    let shared = Arc::new(Shared {
        config,
        certificate,
        connector,
        plane: plane.clone(),
        calls,
        identity,
        reporter: reporter.clone(),
        node: from_calls_in,
    });
    let (events_in, mut events) = mpsc::channel(1_024);
    let mut node = Node {
        switch: Switch::new(incarnation, rand::random()),
        streams: Streams::new(events_in),
        shared: Arc::clone(&shared),
        inboxes: HashMap::new(),
        dialogs: JoinSet::new(),
        keys: HashMap::new(),
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
            Some(ended) = node.dialogs.join_next_with_id() => node.on_ended(ended),
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
    // A call that waits for something must not hold up the end.
    let Node { mut dialogs, .. } = node;
    let _ = tokio::time::timeout(LAST_WORDS, async {
        while dialogs.join_next().await.is_some() {}
    })
    .await;
    drop(dialogs);
    // The agents get their last words.
    let _ = tokio::task::spawn_blocking(move || plane.wind_up(LAST_WORDS)).await;
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
        if let Err(TrySendError::Full(unread)) = inbox.try_send(message) {
            tracing::warn!(call_id = %key.call_id, "a call has more messages than it reads");
            if let ToCall::Dialog(ToDialog::Request { server, request }) = unread {
                self.switch.refuse_busy(server, &request, Instant::now());
            }
        }
    }

    /// Begins a new call.
    fn begin(&mut self, incoming: Incoming) {
        let Incoming {
            key,
            invite,
            server,
            decision,
            replaces,
        } = incoming;
        let takes_over = replaces.map(|(old, replaces)| TakeOver {
            from: self.inboxes.get(&old).cloned(),
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
        let dialog = self
            .dialogs
            .spawn_local(call::run(call, Arc::clone(&self.shared)));
        self.keys.insert(dialog.id(), key.clone());
        self.inboxes.insert(key, sender);
    }

    /// A call that could not even be ended in order is over; the others go on.
    fn on_ended(&mut self, ended: Result<(tokio::task::Id, ()), JoinError>) {
        match ended {
            Ok((task, ())) => drop(self.keys.remove(&task)),
            Err(error) => {
                tracing::error!(%error, "a call failed");
                if let Some(key) = self.keys.remove(&error.id()) {
                    self.on_call(FromCall::Ended(key));
                }
            }
        }
        ringwire_sip::transaction::give_back(&mut self.keys);
    }

    fn hang_up_all(&mut self) {
        for inbox in self.inboxes.values() {
            let reason = Reason::Draining;
            let _ = inbox.try_send(ToCall::HangUp { reason });
        }
    }
}
