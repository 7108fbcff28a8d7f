//! Which of several operators writes: the one that holds the Lease.
//!
//! All of them watch, read and follow the pods, so that a successor knows everything when its turn comes. The leader renews every
//! [`LOOK`], and may write until [`VALID`] after its last renewal. Others take a Lease that did not change for [`LAPSES_AFTER`] by
//! their own clock, which begins later and lasts longer: whatever the clocks of machines say, one stops before the next starts. Of two
//! that try, the resourceVersion lets one through. Nothing here knows what a leader does.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, limited};
use crate::owner;

/// How often the leader renews, and the others look.
const LOOK: Duration = Duration::from_secs(2);

/// A Lease that was not renewed for so long is free.
const LAPSES_AFTER: Duration = Duration::from_secs(10);

/// A leader writes no longer than this after it asked for its last renewal.
const VALID: Duration = Duration::from_secs(8);

/// A request that takes longer is given up: a renewal has to have several tries within [`VALID`].
const PATIENCE: Duration = Duration::from_secs(2);

/// Until when this operator leads, if it does.
pub type Term = Option<Instant>;

/// Whether a term holds at this time.
pub fn holds(term: Term, now: Instant) -> bool {
    term.is_some_and(|until| now < until)
}

/// What is to be done about the Lease as it was read.
#[derive(Debug, PartialEq)]
enum Step {
    /// Create it.
    Create(Box<Lease>),
    /// Replace it by this, which names the version it replaces.
    Replace(Box<Lease>),
    /// Leave it to its holder.
    Stand,
}

/// One operator's judgement of the Lease. Pure: the clock is passed in.
struct Candidate {
    name: String,
    identity: String,
    /// The version that was seen last, and since when nothing else was.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    /// Judges the Lease as it was read just now.
    fn judge(&mut self, lease: Option<&Lease>, now: Instant, time: Timestamp) -> Step {
        let Some(lease) = lease else {
            self.seen = None;
            return Step::Create(Box::new(self.renewed(None, time)));
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let holder = holder(lease);
        let lapsed = now.duration_since(since) >= LAPSES_AFTER;
        if holder == self.identity || holder.is_empty() || lapsed {
            Step::Replace(Box::new(self.renewed(Some(lease), time)))
        } else {
            Step::Stand
        }
    }

    /// When to look again: in [`LOOK`], or sooner if the Lease lapses before.
    fn next_look(&self, now: Instant) -> Instant {
        let regular = now + LOOK;
        let lapses = self.seen.as_ref().map(|(_, since)| *since + LAPSES_AFTER);
        lapses
            .filter(|lapses| *lapses > now)
            .map_or(regular, |lapses| lapses.min(regular))
    }

    /// The Lease held by us from now on. Times in it are for people to read.
    fn renewed(&self, old: Option<&Lease>, time: Timestamp) -> Lease {
        let spec = old.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = spec.holder_identity.as_ref() == Some(&self.identity);
        let first = ObjectMeta {
            name: Some(self.name.clone()),
            ..ObjectMeta::default()
        };
        Lease {
            metadata: old.map_or(first, |lease| lease.metadata.clone()),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LAPSES_AFTER.as_secs()).ok(),
                acquire_time: spec.acquire_time.filter(|_| same).or(Some(MicroTime(time))),
                lease_transitions: Some(
                    spec.lease_transitions.unwrap_or(0) + i32::from(!same && old.is_some()),
                ),
                renew_time: Some(MicroTime(time)),
                ..spec
            }),
        }
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Who leads, as a look at the Lease has shown.
enum Leader {
    Ourselves,
    Other(String),
}

/// The election from one operator's side.
pub struct Election {
    leases: Api<Lease>,
    deployments: Api<Deployment>,
    /// Our Deployment, which the Lease goes with; nobody's if it is not known.
    owner: Option<String>,
    candidate: Candidate,
    term: watch::Sender<Term>,
    /// Who led when it was last told.
    told: Option<String>,
    failing: bool,
}

impl Election {
    /// Stands for the Lease `name` as `identity`, which no other may have. The receiver knows until when this operator leads.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        owner: Option<String>,
    ) -> (Self, watch::Receiver<Term>) {
        let (term, receiver) = watch::channel(None);
        let election = Self {
            leases: Api::namespaced(client.clone(), namespace),
            deployments: Api::namespaced(client, namespace),
            owner,
            candidate: Candidate {
                name: name.to_owned(),
                identity: identity.to_owned(),
                seen: None,
            },
            term,
            told: None,
            failing: false,
        };
        (election, receiver)
    }

    /// Takes part until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> Self {
        loop {
            let asked = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return self,
                result = self.look() => self.note(result, asked),
            }
            let next = self.candidate.next_look(Instant::now());
            tokio::select! {
                () = stop.cancelled() => return self,
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait for its end. Nothing may be written any more by then.
    pub async fn resign(self) {
        self.term.send_replace(None);
        let name = &self.candidate.name;
        let given_back = async {
            let Some(mut lease) = limited(self.leases.get_opt(name)).await? else {
                return Ok(false);
            };
            if holder(&lease) != self.candidate.identity {
                return Ok(false);
            }
            lease.spec.get_or_insert_default().holder_identity = None;
            let params = PostParams::default();
            limited(self.leases.replace(name, &params, &lease)).await?;
            Ok::<_, Failure>(true)
        };
        match tokio::time::timeout(PATIENCE, given_back).await {
            Ok(Ok(true)) => tracing::info!(lease = name, "no longer the leader"),
            Ok(Ok(false)) => {}
            Ok(Err(failure)) => {
                tracing::warn!(lease = name, error = %failure, "cannot give the Lease back");
            }
            Err(_) => tracing::warn!(lease = name, "cannot give the Lease back in time"),
        }
    }

    fn note(&mut self, result: Result<Leader, Failure>, asked: Instant) {
        let lease = &self.candidate.name;
        match result {
            Ok(leader) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(lease, "the Lease can be reached again");
                }
                let (holder, term) = match leader {
                    Leader::Ourselves => (self.candidate.identity.clone(), Some(asked + VALID)),
                    Leader::Other(holder) => (holder, None),
                };
                if self.told.as_ref() != Some(&holder) {
                    let leads = term.is_some();
                    tracing::info!(lease, leader = holder, leads, "the leader is known");
                    self.told = Some(holder);
                }
                self.term.send_replace(term);
            }
            // What we lead ends by itself if this goes on.
            Err(failure) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(lease, error = %failure, "cannot reach the Lease");
                }
            }
        }
    }

    /// Looks at the Lease; takes or renews it if it is free or ours.
    async fn look(&mut self) -> Result<Leader, Failure> {
        let name = self.candidate.name.clone();
        let found = patient(limited(self.leases.get_opt(&name))).await?;
        let params = PostParams::default();
        let step = self
            .candidate
            .judge(found.as_ref(), Instant::now(), Timestamp::now());
        let written = match step {
            Step::Create(mut lease) => {
                // Without its Deployment there is nothing to lead any more: no Lease is left behind.
                if let Some(name) = &self.owner {
                    let owner = patient(owner::reference(&self.deployments, name)).await?;
                    lease.metadata.owner_references = Some(vec![owner]);
                }
                patient(limited(self.leases.create(&params, &lease))).await
            }
            Step::Replace(lease) => {
                patient(limited(self.leases.replace(&name, &params, &lease))).await
            }
            Step::Stand => return Ok(self.leader(found.as_ref())),
        };
        match written {
            Ok(lease) => Ok(self.leader(Some(&lease))),
            // Somebody else was faster.
            Err(Failure::Conflict) => {
                let found = patient(limited(self.leases.get_opt(&name))).await?;
                Ok(self.leader(found.as_ref()))
            }
            Err(failure) => Err(failure),
        }
    }

    fn leader(&self, lease: Option<&Lease>) -> Leader {
        match lease.map(holder).unwrap_or_default() {
            holder if holder == self.candidate.identity => Leader::Ourselves,
            holder => Leader::Other(holder.to_owned()),
        }
    }
}

async fn patient<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Unavailable(
            "no answer from the API server within 2 s".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Candidate {
        Candidate {
            name: "operator".into(),
            identity: "me".into(),
            seen: None,
        }
    }

    fn lease(holder: &str, version: u64) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_transitions: Some(3),
                ..LeaseSpec::default()
            }),
        }
    }

    fn takes(candidate: &mut Candidate, lease: &Lease, now: Instant) -> bool {
        candidate.judge(Some(lease), now, Timestamp::UNIX_EPOCH) != Step::Stand
    }

    #[test]
    fn a_lease_of_another_is_left_alone_as_long_as_it_is_renewed() {
        let (mut me, start) = (candidate(), Instant::now());
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            assert!(!takes(&mut me, &lease("other", second), now));
        }
    }

    #[test]
    fn a_lease_that_was_given_back_or_lapsed_is_taken() {
        let (mut me, start) = (candidate(), Instant::now());
        assert!(takes(&mut me, &lease("", 1), start));
        assert!(!takes(&mut me, &lease("other", 2), start));
        let almost = start + LAPSES_AFTER.saturating_sub(Duration::from_millis(1));
        assert!(!takes(&mut me, &lease("other", 2), almost));
        assert!(takes(&mut me, &lease("other", 2), start + LAPSES_AFTER));
        assert!(takes(&mut me, &lease("me", 3), start + LAPSES_AFTER));
    }

    #[test]
    fn a_lease_is_taken_when_it_lapses_not_at_the_next_regular_look() {
        let (mut me, start) = (candidate(), Instant::now());
        takes(&mut me, &lease("other", 1), start);
        assert_eq!(me.next_look(start), start + LOOK);
        let late = start + Duration::from_secs(9);
        takes(&mut me, &lease("other", 1), late);
        assert_eq!(me.next_look(late), start + LAPSES_AFTER);
        // What cannot be taken then is looked at as usual.
        let lapsed = start + LAPSES_AFTER;
        assert_eq!(me.next_look(lapsed), lapsed + LOOK);
    }

    #[test]
    fn a_leader_stops_before_another_may_start() {
        let start = Instant::now();
        // The leader asks, the API server renews, and the other looks at the earliest moment: no delay between them.
        let mut other = candidate();
        assert!(!takes(&mut other, &lease("leader", 1), start));
        let term = Some(start + VALID);
        let mut now = start;
        while !takes(&mut other, &lease("leader", 1), now) {
            now += Duration::from_millis(100);
        }
        assert!(!holds(term, now));
        assert!(!holds(
            term,
            now.checked_sub(Duration::from_secs(1)).unwrap()
        ));
        assert!(holds(term, start) && !holds(None, start));
    }

    #[test]
    fn a_take_over_is_counted_and_names_the_version_it_replaces() {
        let (mut me, now) = (candidate(), Instant::now());
        let Step::Replace(taken) = me.judge(Some(&lease("", 7)), now, Timestamp::UNIX_EPOCH) else {
            panic!("not taken");
        };
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        let spec = taken.spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("me"));
        assert_eq!(spec.lease_transitions, Some(4));
        let kept = me.renewed(Some(&lease("me", 8)), Timestamp::UNIX_EPOCH);
        assert_eq!(kept.spec.unwrap().lease_transitions, Some(3));
    }

    #[test]
    fn a_missing_lease_is_made() {
        let Step::Create(made) = candidate().judge(None, Instant::now(), Timestamp::UNIX_EPOCH)
        else {
            panic!("not made");
        };
        assert_eq!(made.metadata.name.as_deref(), Some("operator"));
        assert_eq!(holder(&made), "me");
    }
}
