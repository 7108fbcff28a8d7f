//! What all calls of a pod share: its configuration, connections and ports, and its report.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use ringwire_agent::connect::Connector;
use ringwire_config::gateway::MediaConfig;
use ringwire_config::state::AgentReport;
use ringwire_config::{ObjectRef, Reason};
use ringwire_control::Reporter;
use ringwire_media::dtls;
use ringwire_media::plane::Plane;
use tokio::sync::{mpsc, watch};

use super::CallMetrics;
use super::exchange::FromCall;
use super::verdict;
use crate::registrar::Identity;

/// What all calls of a pod share.
pub struct Shared {
    /// The newest configuration.
    pub config: watch::Receiver<Option<Arc<MediaConfig>>>,
    /// Makes the agents' connections.
    pub connector: Connector,
    /// Who we are in handshakes for encrypted media.
    pub certificate: Arc<dtls::Identity>,
    /// Carries the calls' packets, and has the ports for them.
    pub plane: Plane,
    /// Counts what became of their sound.
    pub calls: CallMetrics,
    /// Where the pod runs.
    pub identity: Identity,
    pub(super) reporter: Reporter,
    pub(super) node: mpsc::Sender<FromCall>,
}

impl Shared {
    /// Tells the node.
    pub async fn tell(&self, message: FromCall) {
        // The node outlives the calls; at the very end nobody needs to know.
        let _ = self.node.send(message).await;
    }

    /// Counts a call in or out; by source if it is given.
    pub fn count(
        &self,
        provider: &ObjectRef,
        number: &ObjectRef,
        agent: &ObjectRef,
        source: Option<IpAddr>,
        change: i32,
    ) {
        self.reporter.update(|state| {
            let calls = &mut state.calls;
            calls.total = calls.total.saturating_add_signed(change);
            calls.begun += u64::from(change > 0);
            for (counts, id) in [
                (&mut calls.providers, provider),
                (&mut calls.numbers, number),
                (&mut calls.agents, agent),
            ] {
                add(counts, id, change);
            }
            if let Some(source) = source {
                let sources = calls.sources.entry(provider.clone()).or_default();
                add(sources, &source, change);
                if sources.is_empty() {
                    calls.sources.remove(provider);
                }
            }
        });
    }

    /// A call has proved that its agent can be reached.
    pub fn agent_works(&self, agent: &ObjectRef) {
        self.judge(agent, verdict::after_proof);
    }

    /// A call failed because of its agent; `reachable`: it said so itself.
    pub fn agent_failed(&self, agent: &ObjectRef, reachable: bool, reason: Reason, message: &str) {
        self.judge(agent, |before, now| {
            verdict::after_failure(before, reachable, (reason, message), now)
        });
    }

    /// A call has told whether sound goes both ways with that provider, or which way is missing.
    pub fn heard_sound(&self, provider: &ObjectRef, one_way: Option<String>) {
        let now = this_second();
        let news = self
            .reporter
            .read(|state| verdict::after_sound(state.sound.get(provider), one_way, now));
        if let Some(report) = news {
            self.reporter
                .update(|state| drop(state.sound.insert(provider.clone(), report)));
        }
    }

    fn judge(
        &self,
        agent: &ObjectRef,
        judge: impl Fn(Option<&AgentReport>, Timestamp) -> Option<AgentReport>,
    ) {
        let now = this_second();
        let news = self
            .reporter
            .read(|state| judge(state.agents.get(agent), now));
        if let Some(report) = news {
            self.reporter
                .update(|state| drop(state.agents.insert(agent.clone(), report)));
        }
    }
}

/// Now, as reports tell it: so that a second's news are one.
fn this_second() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Adds to a count; none is kept of nothing.
fn add<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K, change: i32) {
    let count = counts.entry(key.clone()).or_default();
    *count = count.saturating_add_signed(change);
    if *count == 0 {
        counts.remove(key);
    }
}
