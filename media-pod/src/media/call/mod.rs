//! One call: a task with its SIP dialog. Its packets and its agent's connection are the plane's ([`ringwire_media::plane`]), which this one
//! tells what was agreed on, and from which it hears what ends the call.

mod begin;
mod connect;
mod decision;
mod finish;
mod leg;
mod signalling;
mod sound;
mod succession;

use std::collections::BTreeMap;
use std::future::pending;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use ringwire_config::gateway::{self as config, CallerAudio};
use ringwire_config::{ObjectRef, Reason};
use ringwire_media::jitter::Delay;
use ringwire_media::networks::Networks;
use ringwire_media::plane::{Agent, CallHandle};
use ringwire_media::ports::Seat;
use ringwire_media::stream::{StreamEvent, StreamStats};
use ringwire_sip::message::Request;
use ringwire_sip::sdp::LocalMedia;
use ringwire_sip::transaction::ServerId;
use tokio::sync::{mpsc, oneshot};

use futures::FutureExt as _;

pub use self::decision::Decision;
pub use self::leg::Leg;
pub use self::succession::{Handover, Succession, TakeOver};

use self::decision::Counted;
use super::agent_link::{Ears, FromAgent, Hearing};
use super::exchange::{CallKey, FromCall, ToCall};
use super::shared::Shared;
use crate::record::CallRecord;

/// The dialog has so long to end after we said BYE.
const END_LIMIT: Duration = Duration::from_secs(40);

/// A new call, as the node begins it.
pub struct NewCall {
    /// Which call.
    pub key: CallKey,
    /// Its INVITE, private headers included.
    pub invite: Request,
    /// The INVITE's transaction.
    pub server: ServerId,
    /// What the registrar decided.
    pub decision: Decision,
    /// Whose place it takes.
    pub takes_over: Option<TakeOver>,
    /// What the node has for it.
    pub inbox: mpsc::Receiver<ToCall>,
}

/// Runs a call to its end.
pub async fn run(call: NewCall, shared: Arc<Shared>) {
    let key = call.key.clone();
    let decision = call.decision.clone();
    let _counted = Counted::new(&shared, &decision);
    // In boxes: what only the beginning needs is not held for the whole call.
    let begun = Box::pin(begin::begin(call, &shared)).await;
    if let Some((mut call, takes_over)) = begun {
        let living = Box::pin(call.live(takes_over));
        // A fault in one call: it is ended as far as it can be, the caller is not left with a dead line, and the others go on.
        if AssertUnwindSafe(living).catch_unwind().await.is_err() {
            call.end_broken().await;
        }
        call.finish().await;
    }
    shared.tell(FromCall::Ended(key)).await;
}

/// The agent's side until the call has audio.
enum Line {
    /// Connected, and not told of the call yet.
    Agent(Box<dyn Agent>),
    /// In the call whose place this one takes.
    Inherited(CallHandle),
}

/// How long the caller's sound waits before the agent hears it, and the agent's first sound before the caller does.
#[derive(Clone, Copy)]
struct Timing {
    delay: Delay,
    cushion_millis: u32,
}

impl Timing {
    /// Before the agent is known.
    const NONE: Self = Self {
        delay: Delay::Adaptive,
        cushion_millis: 0,
    };

    /// As an agent wants it.
    fn of(agent: &config::Agent) -> Self {
        Self {
            delay: match agent.caller_audio {
                CallerAudio::Paced => Delay::Adaptive,
                CallerAudio::OnArrival => Delay::OnArrival,
            },
            cushion_millis: agent.cushion_millis,
        }
    }
}

struct Call<'a> {
    shared: &'a Shared,
    key: CallKey,
    inbox: mpsc::Receiver<ToCall>,
    leg: Leg,
    rng: StdRng,
    /// What our SDP says about us.
    local: LocalMedia,
    /// Its place on a port, from the answer until the plane has it.
    seat: Option<Seat>,
    signalling_ip: IpAddr,
    /// Where the provider's media may come from, besides.
    media_sources: Networks,
    provider: ObjectRef,
    agent: ObjectRef,
    /// After how much silence the caller is asked whether he is still there.
    media_timeout: Duration,
    /// What the agent is told of the call; gone with that.
    about: BTreeMap<String, String>,
    line: Option<Line>,
    /// The call's packets.
    media: Option<CallHandle>,
    /// What the plane tells of them; nothing more once it has given the call up.
    media_events: Option<mpsc::UnboundedReceiver<StreamEvent>>,
    /// What is heard of the agent.
    ears: Option<Ears>,
    /// Whether the agent has shown in this call that it is one.
    agent_proved: bool,
    /// The counters of the packets, once their carrying has ended.
    stats: Option<oneshot::Receiver<StreamStats>>,
    record: CallRecord,
    /// How long sound waits, both ways.
    timing: Timing,
    /// How the agent hears and speaks; after it took another call's place, as it did there.
    hearing: Hearing,
    /// When the call has lasted as long as it may.
    limit: Instant,
    /// Tells, or falls silent, once the call that takes this one's place has begun.
    succeeded: Option<oneshot::Receiver<Succession>>,
    /// The call whose place this one takes, until it has begun.
    succeeds: Option<oneshot::Sender<Succession>>,
    /// Whether the ACK has come.
    confirmed: bool,
    ended: bool,
    /// Either side may not send: silence means nothing.
    on_hold: bool,
    /// The agent was too far ahead once.
    overflowed: bool,
    /// When silence was last asked about.
    probed: Option<Instant>,
}

/// What the loop woke up for.
enum Wake {
    Inbox(Option<ToCall>),
    Media(Option<StreamEvent>),
    Agent(Option<FromAgent>),
    Succeeded(Option<Succession>),
    Timer,
}

impl Call<'_> {
    /// From ringing to the end.
    async fn live(&mut self, takes_over: Option<TakeOver>) {
        let answered = if let Some(takes_over) = takes_over {
            Box::pin(self.take_over(takes_over)).await
        } else if self.leg.uas.negotiated().is_none() && !self.take_seat() {
            // An offer of ours may go out with the ringing.
            self.act().await;
            false
        } else {
            self.leg.uas.ring(Instant::now());
            self.act().await;
            Box::pin(self.connect()).await
        };
        if answered {
            self.talk().await;
        }
    }

    /// The answered call, until its end.
    async fn talk(&mut self) {
        let mut closing: Option<Instant> = None;
        while !self.ended {
            let deadline = closing.unwrap_or(self.limit);
            let silence = self.silence_due().filter(|_| closing.is_none());
            let timer = [self.leg.uas.poll_timeout(), silence, Some(deadline)]
                .into_iter()
                .flatten()
                .min();
            let wake = {
                let Self {
                    inbox,
                    media_events,
                    ears,
                    succeeded,
                    ..
                } = self;
                let successor = async {
                    match succeeded {
                        Some(told) => told.await.ok(),
                        None => pending().await,
                    }
                };
                let media = async {
                    match media_events {
                        Some(events) => events.recv().await,
                        None => pending().await,
                    }
                };
                let agent = async {
                    match ears.as_mut().and_then(|ears| ears.told.as_mut()) {
                        Some(told) => told.recv().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    message = inbox.recv() => Wake::Inbox(message),
                    from_agent = agent => Wake::Agent(from_agent),
                    event = media => Wake::Media(event),
                    succession = successor => Wake::Succeeded(succession),
                    () = sleep_until(timer) => Wake::Timer,
                }
            };
            let now = Instant::now();
            match wake {
                Wake::Inbox(message) => self.on_inbox(message),
                Wake::Media(event) => self.on_media(event.as_ref()),
                Wake::Agent(from_agent) => self.on_agent(from_agent),
                Wake::Succeeded(succession) => self.on_succeeded(succession),
                Wake::Timer => {
                    self.leg.uas.handle_timeout(now);
                    if deadline <= now && closing.is_some() {
                        // The caller does not answer our BYE, and the dialog did not notice: the end all the same.
                        tracing::warn!(call_id = %self.key.call_id, "the dialog did not end in time");
                        self.ended = true;
                    } else if deadline <= now {
                        self.end(
                            "gateway",
                            Reason::MaxDuration,
                            "maxCallSeconds is reached".to_owned(),
                        );
                    } else if closing.is_none() && self.silence_due().is_some_and(|at| at <= now) {
                        self.probed = Some(now);
                        self.leg.uas.probe(now);
                    }
                }
            }
            self.act().await;
            if closing.is_none() && self.record.reason.is_some() {
                closing = Some(now + END_LIMIT);
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
