//! What all calls of a pod share: its configuration, connections and ports, and its report.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringwire_agent::connect::Connector;
use ringwire_config::gateway::MediaConfig;
use ringwire_config::state::AgentReport;
use ringwire_config::{ObjectRef, Reason};
use ringwire_control::Reporter;
use ringwire_media::plane::Plane;
use tokio::sync::{mpsc, watch};

use super::exchange::FromCall;
use super::ports::Ports;
use crate::registrar::Identity;

/// What all calls of a pod share.
pub struct Shared {
    /// The newest configuration.
    pub config: watch::Receiver<Option<Arc<MediaConfig>>>,
    /// Makes the agents' connections.
    pub connector: Connector,
    /// RTP ports.
    pub ports: Ports,
    /// Carries the calls' packets.
    pub plane: Plane,
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

    /// Reports how an agent was reached, if that is news.
    pub fn report_agent(&self, agent: &ObjectRef, reachable: bool, reason: Reason, message: &str) {
        let known = self.reporter.read(|state| {
            state.agents.get(agent).is_some_and(|report| {
                report.reachable == reachable
                    && report.reason == reason
                    && report.message == message
            })
        });
        if !known {
            let report = agent_report(reachable, reason, message);
            self.reporter
                .update(|state| drop(state.agents.insert(agent.clone(), report)));
        }
    }
}

/// Adds to a count; none is kept of nothing.
fn add<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K, change: i32) {
    let count = counts.entry(key.clone()).or_default();
    *count = count.saturating_add_signed(change);
    if *count == 0 {
        counts.remove(key);
    }
}

/// Turns an attempt's outcome into a report.
fn agent_report(reachable: bool, reason: Reason, message: &str) -> AgentReport {
    let now = jiff::Timestamp::now();
    let at = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    AgentReport {
        reachable,
        reason,
        message: message.to_owned(),
        at,
    }
}
