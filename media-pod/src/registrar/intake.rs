//! What comes in over UDP and TCP before the edge sees it: the guards of both, and whom they know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_config::gateway::RegistrarConfig;
use ringwire_config::state::UdpReport;
use ringwire_config::{ObjectRef, Reason};
use ringwire_control::Reporter;
use ringwire_sip::transaction::Flow;

use super::guard::known::{Known, Learned, Standing};
use super::guard::sight::Sight;
use super::guard::{Guard, Verdict};
use super::udp::{self, Dropped, Udp};

/// How often what was dropped is reported: a flood must not be one of reports.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Intake {
    pub udp: Udp,
    /// Of the streams; datagrams have their own where they are read.
    guard: Guard,
    known: Arc<Known>,
    config: Arc<RegistrarConfig>,
    resolved: BTreeMap<ObjectRef, Vec<IpAddr>>,
    learned: Learned,
    /// What the streams' guard dropped, and not yet reported.
    dropped: BTreeMap<Reason, u64>,
    /// What was reported of the socket.
    reported: Dropped,
    report_at: Instant,
}

impl Intake {
    /// Nobody is known until names are looked up.
    pub fn new(udp: Udp, config: Arc<RegistrarConfig>) -> Self {
        let (known, now) = (Arc::new(Known::default()), Instant::now());
        let reported = udp.dropped();
        Self {
            udp,
            guard: Guard::new(Arc::clone(&known), now),
            known,
            config,
            resolved: BTreeMap::new(),
            learned: Learned::default(),
            dropped: BTreeMap::new(),
            reported,
            report_at: now,
        }
    }

    /// Takes a configuration.
    pub fn configure(&mut self, config: Arc<RegistrarConfig>) {
        self.config = config;
        self.publish();
    }

    /// Takes the addresses of the carriers' names.
    pub fn set_resolved(&mut self, resolved: &BTreeMap<ObjectRef, Vec<IpAddr>>) {
        if self.resolved != *resolved {
            self.resolved.clone_from(resolved);
            self.publish();
        }
    }

    /// A call from there was let in: whoever it is, he is no stranger any more.
    pub fn learn(&mut self, source: IpAddr) {
        let is_stranger = self.known.standing(source.to_canonical()) == Standing::Stranger;
        if is_stranger && self.learned.note(source) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let known = Known::new(&self.config, &self.resolved, self.learned.iter());
        self.known = Arc::new(known);
        self.guard.set_known(Arc::clone(&self.known));
        self.udp.set_known(Arc::clone(&self.known));
    }

    /// Whether a message on a stream is for the edge. Media pods, whose streams have no address, are always heard.
    pub fn hears(&mut self, flow: &Flow, message: &impl Sight, now: Instant) -> bool {
        if flow.remote.ip().is_unspecified() {
            return true;
        }
        match self.guard.judge(flow.remote.ip(), message, now) {
            Verdict::Carrier | Verdict::Stranger => true,
            Verdict::Drop(why) => {
                *self.dropped.entry(udp::reason(why)).or_default() += 1;
                if let Some(ban) = self.guard.take_ban() {
                    udp::log_ban(ban, 0);
                }
                false
            }
        }
    }

    /// Whether connections from there are refused.
    pub fn shuts_out(&mut self, source: IpAddr, now: Instant) -> bool {
        let is_banned = self.guard.is_banned(source, now);
        if is_banned {
            *self.dropped.entry(Reason::SourceBanned).or_default() += 1;
        }
        is_banned
    }

    /// Reports what was dropped, if there is news and it is time.
    pub fn report(&mut self, reporter: &Reporter, now: Instant) {
        if now < self.report_at {
            return;
        }
        self.report_at = now + REPORT_PAUSE;
        let dropped = self.udp.dropped();
        for ((reason, count), (_, before)) in dropped.by_reason.iter().zip(&self.reported.by_reason)
        {
            if count > before {
                *self.dropped.entry(*reason).or_default() += count - before;
            }
        }
        self.reported = dropped;
        let udp = Some(UdpReport {
            receive_buffer: self.udp.receive_buffer() as u64,
            dropped_by_kernel: dropped.kernel,
            overflow: dropped.overflow,
        });
        if self.dropped.is_empty() && reporter.read(|state| state.udp == udp) {
            return;
        }
        reporter.update(|state| {
            state.udp = udp;
            for (reason, count) in std::mem::take(&mut self.dropped) {
                *state.refusals.entry(reason).or_default() += count;
            }
        });
    }
}
