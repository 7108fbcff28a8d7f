//! How many calls each media pod, provider and agent has, as far as a registrar can tell: what the pods report, and the calls handed
//! to them that no report has counted yet.
//!
//! A pod tells how many calls it has taken since it started, and takes them in the order in which they are handed over. So the oldest
//! calls handed over are known to be in a report as soon as that number has grown by as many.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_config::ObjectRef;
use ringwire_config::token::Incarnation;
use ringwire_sip::transaction::ServerId;

use crate::link::Load;

/// A call handed over is in a report by then, or it never will be.
const UNREPORTED: Duration = Duration::from_secs(5);

/// The calls of a pod count so long after its link is lost: most likely the link comes back, and its calls run on.
const LINGERS: Duration = Duration::from_secs(2);

/// A pod that has sent a call elsewhere is asked last for so long: it would do so again, and a call is not sent around for ever.
const DECLINES: Duration = Duration::from_secs(3);

/// Who brings a call and who answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The provider.
    pub provider: ObjectRef,
    /// The agent.
    pub agent: ObjectRef,
    /// The address or network that it comes from ([`super::limits::counted`]).
    pub source: IpAddr,
}

/// A call that no report has counted yet.
struct Handed {
    call: ServerId,
    parties: Parties,
    since: Instant,
    /// It was refused meanwhile: it counts no more, but a report still will.
    refused: bool,
}

#[derive(Default)]
struct Pod {
    load: Arc<Load>,
    /// In the order of handing over.
    handed: VecDeque<Handed>,
    lost: Option<Instant>,
    reported: bool,
    /// When it sent a call elsewhere.
    declined: Option<Instant>,
}

/// All pods.
#[derive(Default)]
pub struct Loads {
    pods: BTreeMap<Incarnation, Pod>,
}

impl Loads {
    /// A link to a pod is up, or up again.
    pub fn up(&mut self, incarnation: Incarnation, now: Instant) {
        self.forget_lost(now);
        self.pods.entry(incarnation).or_default().lost = None;
    }

    /// A link to a pod is lost.
    pub fn lost(&mut self, incarnation: Incarnation, now: Instant) {
        self.forget_lost(now);
        if let Some(pod) = self.pods.get_mut(&incarnation) {
            pod.lost.get_or_insert(now);
        }
    }

    fn forget_lost(&mut self, now: Instant) {
        self.pods
            .retain(|_, pod| pod.lost.is_none_or(|at| now < at + LINGERS));
    }

    /// A pod's report.
    pub fn report(&mut self, incarnation: Incarnation, load: Arc<Load>, now: Instant) {
        let Some(pod) = self.pods.get_mut(&incarnation) else {
            return;
        };
        let taken = if pod.reported {
            load.begun.saturating_sub(pod.load.begun)
        } else {
            0
        };
        let taken = usize::try_from(taken).map_or(pod.handed.len(), |n| n.min(pod.handed.len()));
        pod.handed.drain(..taken);
        pod.handed.retain(|handed| now < handed.since + UNREPORTED);
        pod.load = load;
        pod.reported = true;
    }

    /// A call was handed to a pod.
    pub fn hand(&mut self, call: ServerId, to: Incarnation, parties: Parties, now: Instant) {
        self.take_back(call);
        if let Some(pod) = self.pods.get_mut(&to) {
            pod.handed.retain(|handed| now < handed.since + UNREPORTED);
            pod.handed.push_back(Handed {
                call,
                parties,
                since: now,
                refused: false,
            });
        }
    }

    /// A call was not taken by the pod that it was handed to.
    pub fn take_back(&mut self, call: ServerId) {
        for pod in self.pods.values_mut() {
            pod.handed.retain(|handed| handed.call != call);
        }
    }

    /// A call was taken by the pod, and refused.
    pub fn refused(&mut self, call: ServerId) {
        for pod in self.pods.values_mut() {
            for handed in pod.handed.iter_mut().filter(|handed| handed.call == call) {
                handed.refused = true;
            }
        }
    }

    /// A pod would have another take a call.
    pub fn declined(&mut self, incarnation: Incarnation, now: Instant) {
        if let Some(pod) = self.pods.get_mut(&incarnation) {
            pod.declined = Some(now);
        }
    }

    /// Whether a pod has just had another take a call.
    pub fn declines(&self, incarnation: Incarnation, now: Instant) -> bool {
        let pod = self.pods.get(&incarnation);
        pod.and_then(|pod| pod.declined)
            .is_some_and(|at| now < at + DECLINES)
    }

    /// Calls of a pod.
    pub fn of_pod(&self, incarnation: Incarnation, now: Instant) -> u32 {
        self.pods.get(&incarnation).map_or(0, |pod| {
            pod.load.calls.saturating_add(pod.handed(now, |_| true))
        })
    }

    /// Calls of a provider.
    pub fn of_provider(&self, id: &ObjectRef, now: Instant) -> u32 {
        self.sum(
            now,
            |load| load.providers.get(id),
            |parties| parties.provider == *id,
        )
    }

    /// Calls of a provider from one source.
    pub fn of_source(&self, id: &ObjectRef, source: IpAddr, now: Instant) -> u32 {
        self.sum(
            now,
            |load| load.sources.get(id)?.get(&source),
            |parties| parties.provider == *id && parties.source == source,
        )
    }

    /// Calls of an agent.
    pub fn of_agent(&self, id: &ObjectRef, now: Instant) -> u32 {
        self.sum(
            now,
            |load| load.agents.get(id),
            |parties| parties.agent == *id,
        )
    }

    fn sum(
        &self,
        now: Instant,
        reported: impl Fn(&Load) -> Option<&u32>,
        is_meant: impl Fn(&Parties) -> bool,
    ) -> u32 {
        self.pods
            .values()
            .filter(|pod| pod.lost.is_none_or(|at| now < at + LINGERS))
            .map(|pod| reported(&pod.load).copied().unwrap_or(0) + pod.handed(now, &is_meant))
            .fold(0, u32::saturating_add)
    }
}

impl Pod {
    fn handed(&self, now: Instant, is_meant: impl Fn(&Parties) -> bool) -> u32 {
        let counted = self.handed.iter().filter(|handed| {
            !handed.refused && now < handed.since + UNREPORTED && is_meant(&handed.parties)
        });
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Incarnation = Incarnation(1);

    const SOURCE: [u8; 4] = [192, 0, 2, 1];

    fn id(name: &str) -> ObjectRef {
        ObjectRef::new("voice", name)
    }

    fn parties() -> Parties {
        Parties {
            provider: id("trunk"),
            agent: id("bot"),
            source: SOURCE.into(),
        }
    }

    fn report(calls: u32, begun: u64) -> Arc<Load> {
        Arc::new(Load {
            calls,
            begun,
            providers: [(id("trunk"), calls)].into(),
            agents: [(id("bot"), calls)].into(),
            sources: [(id("trunk"), [(SOURCE.into(), calls)].into())].into(),
        })
    }

    fn calls(count: u64) -> Vec<ServerId> {
        let mut endpoint = ringwire_sip::transaction::Endpoint::new(
            ringwire_sip::transaction::EndpointConfig::default(),
            1,
        );
        let flow = ringwire_sip::transaction::Flow::udp(([192, 0, 2, 1], 5060).into());
        for call in 0..count {
            let text = format!(
                "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK{call}\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:a@b>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            );
            let message = ringwire_sip::message::parse_datagram(text.as_bytes()).unwrap();
            endpoint.receive(message, flow.clone(), Instant::now());
        }
        std::iter::from_fn(|| endpoint.poll_event())
            .filter_map(|event| match event {
                ringwire_sip::transaction::Event::Request { id, .. } => Some(id),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_call_counts_from_its_hand_over_and_once() {
        let (mut loads, now, calls) = (Loads::default(), Instant::now(), calls(3));
        loads.up(POD, now);
        loads.report(POD, report(4, 10), now);
        for call in &calls {
            loads.hand(*call, POD, parties(), now);
        }
        assert_eq!(loads.of_provider(&id("trunk"), now), 7);
        assert_eq!(loads.of_agent(&id("bot"), now), 7);
        assert_eq!(loads.of_pod(POD, now), 7);
        // Two of them are in the report, and two older calls have ended.
        loads.report(POD, report(4, 12), now);
        assert_eq!(loads.of_provider(&id("trunk"), now), 5);
        loads.report(POD, report(5, 13), now);
        assert_eq!(loads.of_provider(&id("trunk"), now), 5);
        assert_eq!(loads.of_provider(&id("other"), now), 0);
    }

    #[test]
    fn a_refused_call_counts_no_more_and_its_report_is_not_taken_for_anothers() {
        let (mut loads, now, calls) = (Loads::default(), Instant::now(), calls(2));
        loads.up(POD, now);
        loads.report(POD, report(0, 0), now);
        loads.hand(calls[0], POD, parties(), now);
        loads.refused(calls[0]);
        loads.hand(calls[1], POD, parties(), now);
        assert_eq!(loads.of_provider(&id("trunk"), now), 1);
        loads.report(POD, report(0, 1), now);
        assert_eq!(loads.of_provider(&id("trunk"), now), 1);
        loads.report(POD, report(1, 2), now);
        assert_eq!(loads.of_provider(&id("trunk"), now), 1);
    }

    #[test]
    fn a_call_that_went_to_another_pod_counts_there() {
        let (mut loads, now, calls) = (Loads::default(), Instant::now(), calls(1));
        let other = Incarnation(2);
        for pod in [POD, other] {
            loads.up(pod, now);
            loads.report(pod, report(0, 0), now);
        }
        loads.hand(calls[0], POD, parties(), now);
        loads.hand(calls[0], other, parties(), now);
        assert_eq!((loads.of_pod(POD, now), loads.of_pod(other, now)), (0, 1));
        loads.take_back(calls[0]);
        assert_eq!(loads.of_provider(&id("trunk"), now), 0);
    }

    #[test]
    fn a_call_that_no_report_ever_counts_is_forgotten() {
        let (mut loads, now, calls) = (Loads::default(), Instant::now(), calls(1));
        loads.up(POD, now);
        loads.hand(calls[0], POD, parties(), now);
        assert_eq!(loads.of_pod(POD, now), 1);
        assert_eq!(loads.of_pod(POD, now + UNREPORTED), 0);
    }

    #[test]
    fn the_calls_of_a_lost_pod_count_until_its_link_would_be_back() {
        let (mut loads, now) = (Loads::default(), Instant::now());
        loads.up(POD, now);
        loads.report(POD, report(3, 3), now);
        loads.lost(POD, now);
        assert_eq!(loads.of_provider(&id("trunk"), now), 3);
        assert_eq!(loads.of_provider(&id("trunk"), now + LINGERS), 0);
        loads.lost(Incarnation(9), now + LINGERS);
        assert!(loads.pods.is_empty(), "nothing is kept of it");
    }
}
