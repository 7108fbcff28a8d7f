//! One call: the SIP dialog, the RTP stream and the agent's connection, all in one task.

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
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use ringwire_config::{ObjectRef, Reason};
use ringwire_media::stream::RtpStream;
use ringwire_sip::message::Request;
use ringwire_sip::transaction::ServerId;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use futures::FutureExt as _;

pub use self::decision::Decision;
pub use self::leg::Leg;
pub use self::succession::{Handover, TakeOver};

use self::decision::Counted;
use super::agent_link::{AgentLink, FromAgent};
use super::exchange::{CallKey, FromCall, ToCall};
use super::shared::Shared;
use crate::record::CallRecord;

/// The dialog has so long to end after we said BYE.
const END_LIMIT: Duration = Duration::from_secs(40);

/// Datagrams that are read before timers and other calls get their turn.
const BATCH: usize = 32;

/// A new call, as the node hands it to a worker.
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
    if let Some((mut call, takes_over)) = begin::begin(call, &shared).await {
        let living = Box::pin(call.live(takes_over));
        // A fault in one call: it is ended as far as it can be, the caller is not left with a dead line, and the others go on.
        if AssertUnwindSafe(living).catch_unwind().await.is_err() {
            call.end_broken().await;
        }
        call.finish().await;
    }
    shared.tell(FromCall::Ended(key)).await;
}

struct Call<'a> {
    shared: &'a Shared,
    key: CallKey,
    inbox: mpsc::Receiver<ToCall>,
    leg: Leg,
    rng: StdRng,
    socket: UdpSocket,
    reports: UdpSocket,
    signalling_ip: IpAddr,
    agent: ObjectRef,
    /// What the agent is told of the call; gone with that.
    about: BTreeMap<String, String>,
    rtp: Option<RtpStream>,
    /// The stream of the call whose place this one took, until there is one here.
    inherited: Option<Box<RtpStream>>,
    link: Option<AgentLink>,
    record: CallRecord,
    /// When the call has lasted as long as it may.
    limit: Instant,
    /// Tells, or falls silent, once the call that takes this one's place has begun.
    succeeded: Option<oneshot::Receiver<()>>,
    /// Whether the ACK has come.
    confirmed: bool,
    ended: bool,
    /// When silence was last asked about.
    probed: Option<Instant>,
    /// Whether the agent has shown in this call that it is one.
    agent_proved: bool,
    /// Messages of the agent that could not be used.
    unusable: u64,
}

/// What the loop woke up for.
enum Wake {
    Inbox(Option<ToCall>),
    Rtp(io::Result<(usize, SocketAddr)>),
    Report(io::Result<(usize, SocketAddr)>),
    Agent(FromAgent),
    Succeeded,
    Timer,
}

impl Call<'_> {
    /// From ringing to the end.
    async fn live(&mut self, takes_over: Option<TakeOver>) {
        let answered = if let Some(takes_over) = takes_over {
            self.take_over(takes_over).await
        } else {
            self.leg.uas.ring(Instant::now());
            self.act().await;
            self.connect().await
        };
        if answered {
            self.talk().await;
        }
    }

    /// The answered call, until its end.
    async fn talk(&mut self) {
        let mut buffer = vec![0; 2_048];
        let mut report = [0; 512];
        let mut closing: Option<Instant> = None;
        while !self.ended {
            let now = Instant::now();
            let deadline = closing.unwrap_or(self.limit);
            let silence = self.silence_due(now).filter(|_| closing.is_none());
            let rtp = self.rtp.as_ref().and_then(RtpStream::poll_timeout);
            let timer = [self.leg.uas.poll_timeout(), rtp, silence, Some(deadline)]
                .into_iter()
                .flatten()
                .min();
            let wake = {
                let Self {
                    inbox,
                    socket,
                    reports,
                    link,
                    succeeded,
                    ..
                } = self;
                let successor = async {
                    match succeeded {
                        Some(told) => drop(told.await),
                        None => pending().await,
                    }
                };
                let agent = async {
                    match link {
                        Some(link) => link.receive().await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    message = inbox.recv() => Wake::Inbox(message),
                    received = socket.recv_from(&mut buffer) => Wake::Rtp(received),
                    received = reports.recv_from(&mut report) => Wake::Report(received),
                    from_agent = agent => Wake::Agent(from_agent),
                    () = successor => Wake::Succeeded,
                    () = sleep_until(timer) => Wake::Timer,
                }
            };
            let now = Instant::now();
            match wake {
                Wake::Inbox(message) => self.on_inbox(message),
                Wake::Rtp(received) => {
                    self.on_rtp(received, &buffer, now);
                    // A flood must not hold up this thread's other calls.
                    for _ in 1..BATCH {
                        let Ok(received) = self.socket.try_recv_from(&mut buffer) else {
                            break;
                        };
                        self.on_rtp(Ok(received), &buffer, now);
                    }
                }
                Wake::Report(received) => {
                    if let (Ok((length, from)), Some(rtp)) = (received, &mut self.rtp) {
                        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                        rtp.receive_report(&report[..length], from, now);
                    }
                }
                Wake::Agent(from_agent) => self.on_agent(from_agent),
                Wake::Succeeded => self.on_succeeded(),
                Wake::Timer => {
                    self.leg.uas.handle_timeout(now);
                    if let Some(rtp) = &mut self.rtp {
                        rtp.handle_timeout(now);
                    }
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
                    } else if silence.is_some_and(|at| at <= now) {
                        self.probed = Some(now);
                        self.leg.uas.probe(now);
                    }
                }
            }
            self.act().await;
            self.pump_media();
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
