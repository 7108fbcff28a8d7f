//! Whether one more call is within the limits of its provider and its agent.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use ringwire_config::ObjectRef;
use ringwire_config::gateway::RegistrarConfig;
use ringwire_config::route::Route;

use super::loads::Loads;
use crate::registrar::bucket::Bucket;
use crate::registrar::guard::table::Key;

/// The rates of new calls, by provider.
#[derive(Default)]
pub struct Rates {
    buckets: BTreeMap<ObjectRef, Bucket>,
    /// By provider and source.
    sources: HashMap<(ObjectRef, IpAddr), Bucket>,
}

/// What calls of a source are counted for: its IPv4 address, or its IPv6 network of 64 bits, which one host may have to itself.
pub fn counted(source: IpAddr) -> IpAddr {
    Key::of(source.to_canonical()).address()
}

/// Sources whose rate is remembered; a full bucket is as good as none.
const MAX_SOURCES: usize = 16_384;

impl Rates {
    /// Forgets providers that are gone.
    pub fn configure(&mut self, config: &RegistrarConfig) {
        self.buckets
            .retain(|id, _| config.providers.contains_key(id));
        self.sources
            .retain(|(id, _), _| config.providers.contains_key(id));
    }

    /// Lets a call in, or tells people why not. `source` is as [`counted`] gives it.
    pub fn admit(
        &mut self,
        route: &Route<'_>,
        source: IpAddr,
        loads: &Loads,
        now: Instant,
    ) -> Result<(), String> {
        let provider = &route.provider.id;
        if let Some(limit) = route.provider.limits.max_calls_per_source {
            let calls = loads.of_source(provider, source, now);
            if calls >= limit {
                return Err(format!(
                    "{source} has {calls} calls of SipProvider {provider}, whose spec.limits.maxCallsPerSource is {limit}"
                ));
            }
        }
        if let Some(limit) = route.provider.limits.max_calls {
            let calls = loads.of_provider(provider, now);
            if calls >= limit {
                return Err(format!(
                    "SipProvider {provider} has {calls} calls, and its spec.limits.maxCalls is {limit}"
                ));
            }
        }
        if let Some(limit) = route.entry.agent_max_calls {
            let calls = loads.of_agent(route.agent, now);
            if calls >= limit {
                return Err(format!(
                    "VoiceAgent {} has {calls} calls, and its spec.limits.maxCalls is {limit}",
                    route.agent
                ));
            }
        }
        if let Some(limit) = route.provider.limits.calls_per_second_per_source
            && !self
                .source(provider, source, limit, now)
                .take(limit, limit, now)
        {
            return Err(format!(
                "{source} brings more new calls than spec.limits.callsPerSecondPerSource of SipProvider {provider}, {limit}, allows"
            ));
        }
        if let Some(limit) = route.provider.limits.calls_per_second {
            let bucket = self
                .buckets
                .entry(provider.clone())
                .or_insert_with(|| Bucket::full(limit, now));
            if !bucket.take(limit, limit, now) {
                return Err(format!(
                    "SipProvider {provider} brings more new calls than its spec.limits.callsPerSecond, {limit}, allows"
                ));
            }
        }
        Ok(())
    }

    fn source(
        &mut self,
        provider: &ObjectRef,
        source: IpAddr,
        limit: u32,
        now: Instant,
    ) -> &mut Bucket {
        let key = (provider.clone(), source);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&key) {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            // So many call at once: no bucket tells them apart any more, the provider's limits do.
            if self.sources.len() >= MAX_SOURCES {
                self.sources.clear();
            }
        }
        let fresh = || Bucket::full(limit, now);
        self.sources.entry(key).or_insert_with(fresh)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ringwire_config::gateway::{Limits, Number, Provider};
    use ringwire_config::token::Incarnation;
    use serde_json::json;

    use super::*;
    use crate::link::Load;

    const SOURCE: [u8; 4] = [192, 0, 2, 1];

    fn provider(limits: Limits) -> Provider {
        let provider = json!({
            "id": "voice/trunk", "server": {"name": "carrier.test"}, "contactUser": "token", "contactUserIsSecret": true,
            "allowedSources": [], "codecs": ["PCMA"], "numbers": {}, "limits": limits,
        });
        serde_json::from_value(provider).unwrap()
    }

    fn loads(calls: u32, now: Instant) -> Loads {
        let mut loads = Loads::default();
        for (pod, calls) in [(1, calls / 2), (2, calls - calls / 2)] {
            let load = Load {
                calls,
                begun: 9,
                providers: [(ObjectRef::new("voice", "trunk"), calls)].into(),
                agents: [(ObjectRef::new("voice", "bot"), calls)].into(),
                sources: [(
                    ObjectRef::new("voice", "trunk"),
                    [(SOURCE.into(), calls)].into(),
                )]
                .into(),
            };
            loads.up(Incarnation(pod), now);
            loads.report(Incarnation(pod), Arc::new(load), now);
        }
        loads
    }

    fn admit(
        rates: &mut Rates,
        limits: Limits,
        agent_max_calls: Option<u32>,
        loads: &Loads,
        now: Instant,
    ) -> Result<(), String> {
        let agent = ObjectRef::new("voice", "bot");
        let entry = Number {
            id: ObjectRef::new("voice", "main"),
            agent: Some(agent.clone()),
            agent_max_calls,
        };
        let route = Route {
            provider: &provider(limits),
            number: "+34911234567",
            entry: &entry,
            agent: &agent,
        };
        rates.admit(&route, SOURCE.into(), loads, now)
    }

    #[test]
    fn the_calls_of_all_pods_count_against_a_providers_limit() {
        let now = Instant::now();
        let limits = Limits {
            max_calls: Some(5),
            ..Limits::default()
        };
        let mut rates = Rates::default();
        assert!(admit(&mut rates, limits, None, &loads(4, now), now).is_ok());
        let refused = admit(&mut rates, limits, None, &loads(5, now), now).unwrap_err();
        assert!(refused.contains("voice/trunk has 5 calls"), "{refused}");
    }

    #[test]
    fn the_calls_of_one_source_are_limited_and_those_of_another_are_not_concerned() {
        let now = Instant::now();
        let limits = Limits {
            max_calls_per_source: Some(4),
            ..Limits::default()
        };
        let mut rates = Rates::default();
        assert!(admit(&mut rates, limits, None, &loads(3, now), now).is_ok());
        let refused = admit(&mut rates, limits, None, &loads(4, now), now).unwrap_err();
        assert!(refused.contains("192.0.2.1 has 4 calls"), "{refused}");
        let other = IpAddr::from([192, 0, 2, 2]);
        let loads = loads(4, now);
        assert_eq!(
            loads.of_source(&ObjectRef::new("voice", "trunk"), other, now),
            0
        );
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_source() {
        for (source, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let source: IpAddr = source.parse().unwrap();
            assert_eq!(counted(source).to_string(), expected);
        }
    }

    #[test]
    fn new_calls_per_second_of_one_source_are_limited_however_many_sources_there_are() {
        let now = Instant::now();
        let limits = Limits {
            calls_per_second_per_source: Some(2),
            ..Limits::default()
        };
        let (mut rates, loads) = (Rates::default(), loads(0, now));
        let admitted = (0..10).filter(|_| admit(&mut rates, limits, None, &loads, now).is_ok());
        assert_eq!(admitted.count(), 2);
        let trunk = ObjectRef::new("voice", "trunk");
        for number in 0..100_000u32 {
            let source = IpAddr::from(number.to_be_bytes());
            assert!(rates.source(&trunk, source, 2, now).take(2, 2, now));
        }
        assert!(rates.sources.len() <= MAX_SOURCES);
    }

    #[test]
    fn an_agent_takes_no_more_calls_than_its_limit() {
        let now = Instant::now();
        let mut rates = Rates::default();
        let none = Limits::default();
        assert!(admit(&mut rates, none, Some(3), &loads(2, now), now).is_ok());
        let refused = admit(&mut rates, none, Some(3), &loads(3, now), now).unwrap_err();
        assert!(refused.contains("VoiceAgent voice/bot has 3"), "{refused}");
    }

    #[test]
    fn new_calls_per_second_are_limited_and_a_pause_allows_a_second_of_them() {
        let now = Instant::now();
        let limits = Limits {
            calls_per_second: Some(10),
            ..Limits::default()
        };
        let (mut rates, loads) = (Rates::default(), loads(0, now));
        let mut admitted = |at: Duration, tries: usize| {
            (0..tries)
                .filter(|_| admit(&mut rates, limits, None, &loads, now + at).is_ok())
                .count()
        };
        assert_eq!(admitted(Duration::ZERO, 30), 10);
        assert_eq!(admitted(Duration::from_millis(500), 30), 5);
        assert_eq!(admitted(Duration::from_secs(60), 30), 10);
    }
}
