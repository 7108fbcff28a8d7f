//! Keeps the answers of DNS up to date, by TTL, away from any packet's path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::rdata::{NAPTR, SRV};
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::names::{Lookup, Place, Question, Share, Way, lot};

/// Names are asked for at most this often, whatever their TTL says.
const SHORTEST: Duration = Duration::from_secs(5);

/// And at least this often.
const LONGEST: Duration = Duration::from_secs(3600);

/// After a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Most look-ups at a time.
const CONCURRENT: usize = 32;

/// Most servers of one domain that are looked at.
const MAX_SERVERS: usize = 16;

/// When each question is to be asked next.
#[derive(Default)]
struct Agenda {
    /// `None`: it is being asked.
    at: BTreeMap<Question, Option<Instant>>,
    due: BTreeSet<(Instant, Question)>,
}

impl Agenda {
    /// Takes what is wanted from now on: new questions are due at once.
    fn want(&mut self, wanted: &BTreeSet<Question>, now: Instant) {
        self.at.retain(|question, _| wanted.contains(question));
        self.due.retain(|(_, question)| wanted.contains(question));
        for question in wanted {
            if !self.at.contains_key(question) {
                self.at.insert(question.clone(), Some(now));
                self.due.insert((now, question.clone()));
            }
        }
    }

    /// A question to ask now.
    fn take(&mut self, now: Instant) -> Option<Question> {
        self.due.first().filter(|(at, _)| *at <= now)?;
        let (_, question) = self.due.pop_first()?;
        self.at.insert(question.clone(), None);
        Some(question)
    }

    /// It was answered, and is to be asked again then, if it is still wanted.
    fn answered(&mut self, question: &Question, again: Instant) {
        if let Some(at) = self.at.get_mut(question).filter(|at| at.is_none()) {
            *at = Some(again);
            self.due.insert((again, question.clone()));
        }
    }

    /// When the next one is due.
    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Looks up what is wanted, again whenever a TTL ends, until `stop`.
pub async fn run(
    resolver: TokioResolver,
    mut wanted: watch::Receiver<Arc<BTreeSet<Question>>>,
    results: mpsc::Sender<(Question, Lookup)>,
    stop: CancellationToken,
) {
    let mut agenda = Agenda::default();
    agenda.want(&wanted.borrow_and_update(), Instant::now());
    let mut running = JoinSet::new();
    loop {
        let now = Instant::now();
        while running.len() < CONCURRENT
            && let Some(question) = agenda.take(now)
        {
            let resolver = resolver.clone();
            running.spawn(async move {
                let (lookup, again) = look_up(&resolver, &question).await;
                (question, lookup, again)
            });
        }
        let full = running.len() >= CONCURRENT;
        let next = agenda.next().filter(|_| !full);
        let sleep = next.map_or(LONGEST, |at| at.saturating_duration_since(now));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                agenda.want(&wanted.borrow_and_update(), Instant::now());
            }
            () = tokio::time::sleep(sleep) => {}
            Some(Ok((question, lookup, again))) = running.join_next() => {
                agenda.answered(&question, Instant::now() + again);
                if results.send((question, lookup)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn look_up(resolver: &TokioResolver, question: &Question) -> (Lookup, Duration) {
    let found = match question {
        Question::Addresses(name) => addresses(resolver, name).await.map(|(addresses, until)| {
            let place = |address| Place {
                address,
                port: None,
                way: None,
                share: Share::default(),
            };
            (addresses.into_iter().map(place).collect(), until)
        }),
        Question::Service(name, way) => service(resolver, name, *way).await,
    };
    match found {
        Ok((places, until)) => {
            let ttl = until.saturating_duration_since(Instant::now());
            (Lookup::Found(places), ttl.clamp(SHORTEST, LONGEST))
        }
        Err(error) => (Lookup::Failed(error), AFTER_FAILURE),
    }
}

/// The addresses of a name, sorted, and until when they are good.
async fn addresses(resolver: &TokioResolver, name: &str) -> Result<(Vec<IpAddr>, Instant), String> {
    match resolver.lookup_ip(absolute(name)).await {
        Ok(found) => {
            let until = found.valid_until();
            let mut addresses: Vec<IpAddr> = found.iter().collect();
            addresses.sort();
            addresses.dedup();
            if addresses.is_empty() {
                return Err(format!("{name} has no address"));
            }
            Ok((addresses, until))
        }
        Err(error) if error.is_nx_domain() => Err(format!("{name} does not exist in DNS")),
        Err(error) if error.is_no_records_found() => Err(format!("{name} has no address in DNS")),
        Err(error) => Err(format!("{name} could not be looked up: {error}")),
    }
}

/// A final dot keeps search domains out: carriers' names are complete.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// Where a domain speaks SIP (RFC 3263 section 4.1 and 4.2): what NAPTR points to, else its SRV records, else its addresses.
async fn service(
    resolver: &TokioResolver,
    name: &str,
    way: Option<Way>,
) -> Result<(Vec<Place>, Instant), String> {
    let mut services = match way {
        Some(_) => Vec::new(),
        None => naptr(resolver, name).await,
    };
    if services.is_empty() {
        let ways = way.map_or(vec![Way::Udp, Way::Tcp, Way::Tls], |way| vec![way]);
        services = ways
            .into_iter()
            .map(|way| (way, format!("{}.{name}", prefix(way)), None))
            .collect();
    }
    for (way, record, valid) in services {
        let (servers, until) = srv(resolver, &record).await;
        let mut until = valid.map_or(until, |valid: Instant| valid.min(until));
        let mut places = Vec::new();
        for server in servers.iter().take(MAX_SERVERS) {
            // One server without address is no reason to give up the others.
            let Ok((found, valid)) = addresses(resolver, &server.target.to_ascii()).await else {
                continue;
            };
            until = until.min(valid);
            let share = Share {
                priority: server.priority,
                weight: server.weight,
                server: lot(&format!("{}:{}", server.target, server.port).to_ascii_lowercase()),
            };
            places.extend(found.into_iter().map(|address| Place {
                address,
                port: Some(server.port),
                way: Some(way),
                share,
            }));
        }
        if !places.is_empty() {
            return Ok((places, until));
        }
    }
    let (addresses, until) = addresses(resolver, name).await?;
    let place = |address| Place {
        address,
        port: None,
        way,
        share: Share::default(),
    };
    Ok((addresses.into_iter().map(place).collect(), until))
}

fn prefix(way: Way) -> &'static str {
    match way {
        Way::Udp => "_sip._udp",
        Way::Tcp => "_sip._tcp",
        Way::Tls => "_sips._tcp",
    }
}

/// The SRV names that a domain's NAPTR records point to, in its order, as far as we speak their transport.
async fn naptr(resolver: &TokioResolver, name: &str) -> Vec<(Way, String, Option<Instant>)> {
    let Ok(found) = resolver.lookup(absolute(name), RecordType::NAPTR).await else {
        return Vec::new();
    };
    let mut records: Vec<&NAPTR> = found
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::NAPTR(naptr) => Some(naptr),
            _ => None,
        })
        .collect();
    records.sort_by_key(|record| (record.order, record.preference));
    let services = records.into_iter().filter_map(|record| {
        let way = match &*record.services.to_ascii_uppercase() {
            b"SIP+D2U" => Way::Udp,
            b"SIP+D2T" => Way::Tcp,
            b"SIPS+D2T" => Way::Tls,
            _ => return None,
        };
        record.flags.eq_ignore_ascii_case(b"s").then(|| {
            (
                way,
                record.replacement.to_ascii(),
                Some(found.valid_until()),
            )
        })
    });
    services.collect()
}

/// The servers of an SRV name, by priority, and until when that is good. Whatever goes wrong means: none.
async fn srv(resolver: &TokioResolver, name: &str) -> (Vec<SRV>, Instant) {
    match resolver.lookup(absolute(name), RecordType::SRV).await {
        Ok(found) => {
            let mut servers: Vec<SRV> = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    // A target of "." says that the service is decidedly not there (RFC 2782).
                    RData::SRV(srv) if !srv.target.is_root() => Some(srv.clone()),
                    _ => None,
                })
                .collect();
            servers.sort_by_key(|server| (server.priority, Reverse(server.weight)));
            (servers, found.valid_until())
        }
        Err(_) => (Vec::new(), Instant::now() + LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_asked_when_it_is_due_and_once_at_a_time() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let question = |name: &str| Question::Addresses(name.to_owned());
        let (a, b) = (question("a.test"), question("b.test"));
        let both = BTreeSet::from([a.clone(), b.clone()]);
        agenda.want(&both, now);
        assert_eq!(agenda.take(now), Some(a.clone()));
        assert_eq!(agenda.take(now), Some(b.clone()));
        agenda.want(&both, now);
        assert_eq!((agenda.take(now), agenda.next()), (None, None));
        let later = now + Duration::from_secs(60);
        agenda.answered(&a, later);
        assert_eq!((agenda.take(now), agenda.next()), (None, Some(later)));
        assert_eq!(agenda.take(later), Some(a.clone()));
        // Nobody wants it any more, or wants it again meanwhile: an old answer does not put it off.
        agenda.want(&BTreeSet::from([b.clone()]), later);
        agenda.answered(&a, later);
        assert_eq!(agenda.next(), None);
        agenda.want(&both, later);
        agenda.answered(&a, later + Duration::from_secs(60));
        assert_eq!(agenda.take(later), Some(a));
    }
}
