//! Keeps the addresses of names up to date, by TTL, away from any packet's path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::names::Lookup;

/// Names are asked for at most this often, whatever their TTL says.
const SHORTEST: Duration = Duration::from_secs(5);

/// And at least this often.
const LONGEST: Duration = Duration::from_secs(3600);

/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Most look-ups at a time.
const CONCURRENT: usize = 32;

/// Looks up the wanted names, again whenever their TTL ends, until `stop`.
pub async fn run(
    resolver: TokioResolver,
    mut wanted: watch::Receiver<BTreeSet<String>>,
    results: mpsc::Sender<(String, Lookup)>,
    stop: CancellationToken,
) {
    let mut due: BTreeMap<String, Instant> = BTreeMap::new();
    let mut running = JoinSet::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    loop {
        let now = Instant::now();
        let names = wanted.borrow_and_update().clone();
        due.retain(|name, _| names.contains(name));
        for name in &names {
            let at = due.entry(name.clone()).or_insert(now);
            if *at <= now && running.len() < CONCURRENT && busy.insert(name.clone()) {
                let (resolver, name) = (resolver.clone(), name.clone());
                running.spawn(async move {
                    let (lookup, again) = look_up(&resolver, &name).await;
                    (name, lookup, again)
                });
            }
        }
        let next = due
            .iter()
            .filter(|(name, _)| !busy.contains(*name))
            .map(|(_, at)| *at)
            .min();
        let sleep = next.map_or(LONGEST, |at| {
            at.saturating_duration_since(now)
                .max(Duration::from_millis(10))
        });
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(sleep) => {}
            Some(Ok((name, lookup, again))) = running.join_next() => {
                busy.remove(&name);
                due.insert(name.clone(), Instant::now() + again);
                if results.send((name, lookup)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn look_up(resolver: &TokioResolver, name: &str) -> (Lookup, Duration) {
    // A final dot keeps search domains out: carriers' names are complete.
    let absolute = format!("{name}.");
    match resolver.lookup_ip(absolute).await {
        Ok(found) => {
            let ttl = found
                .valid_until()
                .saturating_duration_since(Instant::now())
                .clamp(SHORTEST, LONGEST);
            let mut addresses: Vec<IpAddr> = found.iter().collect();
            addresses.sort();
            addresses.dedup();
            if addresses.is_empty() {
                return (
                    Lookup::Failed(format!("{name} has no address")),
                    AFTER_FAILURE,
                );
            }
            (Lookup::Found(addresses), ttl)
        }
        Err(error) => {
            let text = if error.is_nx_domain() {
                format!("{name} does not exist in DNS")
            } else if error.is_no_records_found() {
                format!("{name} has no address in DNS")
            } else {
                format!("{name} could not be looked up: {error}")
            };
            (Lookup::Failed(text), AFTER_FAILURE)
        }
    }
}
