//! Where carriers are, as far as it is known. Looked up by the shell ([`super::lookup`]), used by the edge without waiting.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ringwire_config::gateway::{AllowedSource, Host, Provider, RegistrarConfig};
use ringwire_config::object::ObjectRef;
use ringwire_config::route::ResolvedAddresses;
use ringwire_sip::message::{Scheme, Uri};
use ringwire_sip::transaction::Transport;
use sha2::{Digest, Sha256};

/// A server that did not answer is passed over for so long, where there are others.
const AVOIDED_FOR: Duration = Duration::from_secs(60);

/// What DNS is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The addresses of a name.
    Addresses(String),
    /// Where a domain speaks SIP (RFC 3263 section 4): over this transport, or over the one that it prefers.
    Service(String, Option<Way>),
}

impl Question {
    /// What it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Addresses(name) | Self::Service(name, _) => name,
        }
    }
}

/// A transport, in an order for maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl Way {
    /// The SIP crate's name.
    pub fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Tcp => Transport::Tcp,
            Self::Tls => Transport::Tls,
        }
    }

    /// How a URI wants to be reached: over TLS if its scheme says so, else by its `transport` parameter.
    pub fn of(uri: &Uri) -> Option<Self> {
        if uri.scheme == Scheme::Sips {
            return Some(Self::Tls);
        }
        let text = uri.transport()?;
        Some(match &*text.to_ascii_lowercase() {
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            _ => Self::Udp,
        })
    }
}

/// One address of a name; with the port and transport that DNS gave with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The port; `None`: DNS gives none.
    pub port: Option<u16>,
    /// The transport; `None`: DNS gives none.
    pub way: Option<Way>,
    /// Whose turn it is among others.
    pub share: Share,
}

/// How much a server is to get of what goes to its name (RFC 2782). Addresses of one server have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The lower ones are tried first.
    pub priority: u16,
    /// The part within its priority.
    pub weight: u16,
    /// Tells servers apart: the [`lot`] of the server's name and port.
    pub server: u64,
}

impl Share {
    /// Who comes first for this one, which has a lot of its own. The first of one priority is each server with the chance that its weight
    /// gives it, then the second among the others, and so on: waiting times with those rates, drawn by hash. So it needs no memory, the
    /// same in every pod, and a server that comes or goes takes or leaves only what is its own.
    fn compare(self, other: Self, lot: u64) -> Ordering {
        let waits = |share: Self| share.waits(lot);
        let by_weight = || waits(self).total_cmp(&waits(other));
        self.priority.cmp(&other.priority).then_with(by_weight)
    }

    fn waits(self, lot: u64) -> f64 {
        let drawn = (mixed(lot ^ self.server) >> 32) as u32;
        // Between 0 and 1, never either.
        let uniform = (f64::from(drawn) + 0.5) / 4_294_967_296.0;
        // RFC 2782: a very small chance beside others, and the same one among its like.
        let rate = match self.weight {
            0 => 0.01,
            weight => f64::from(weight),
        };
        -uniform.ln() / rate
    }
}

/// The lot of somebody who looks for a server, or of a server: the same for the same text, in every version.
pub fn lot(of: &str) -> u64 {
    let digest = Sha256::digest(of.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

/// A number in which each bit depends on each bit of another (`SplitMix64`).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What is known of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// These places, in no order but that of one server's addresses; never empty.
    Found(Vec<Place>),
    /// It could not be looked up; the text says why.
    Failed(String),
}

/// One server to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Address and port.
    pub remote: SocketAddr,
    /// How.
    pub transport: Transport,
}

/// Why there is no target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// This has to be looked up first.
    Unknown(Question),
    /// It could not be looked up.
    Failed(String),
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<Question, Lookup>,
    /// The addresses in all answers about a name.
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Servers that did not answer, and until when they are passed over.
    avoided: HashMap<Target, Instant>,
    /// How many of them there may be until those whose time is over are looked for.
    sweep_at: usize,
}

impl Names {
    /// Takes an answer. A failed look-up does not erase places that were good before: a resolver's hiccup must not lock out a carrier.
    pub fn update(&mut self, question: Question, lookup: Lookup) {
        let keep = matches!(lookup, Lookup::Failed(_))
            && matches!(self.known.get(&question), Some(Lookup::Found(_)));
        if !keep {
            let name = question.name().to_owned();
            self.known.insert(question, lookup);
            self.index(name);
        }
    }

    /// Forgets all questions but these.
    pub fn retain(&mut self, wanted: &BTreeSet<Question>) {
        self.known.retain(|question, _| wanted.contains(question));
        let names: HashSet<&str> = wanted.iter().map(Question::name).collect();
        self.addresses
            .retain(|name, _| names.contains(name.as_str()));
    }

    fn index(&mut self, name: String) {
        let ways = [None, Some(Way::Udp), Some(Way::Tcp), Some(Way::Tls)];
        let questions = std::iter::once(Question::Addresses(name.clone()))
            .chain(ways.map(|way| Question::Service(name.clone(), way)));
        let found = questions.filter_map(|question| match self.known.get(&question)? {
            Lookup::Found(places) => Some(places),
            Lookup::Failed(_) => None,
        });
        let addresses = found.flatten().map(|place| place.address).collect();
        self.addresses.insert(name, addresses);
    }

    /// The addresses of a provider's server and proxy, and of the names that may call for it.
    pub fn addresses_of(&self, provider: &Provider) -> Vec<IpAddr> {
        let proxy = provider.outbound_proxy.as_ref().map(|(host, _)| host);
        let hosts = std::iter::once(&provider.server).chain(proxy);
        let given = hosts.filter_map(|host| match host {
            Host::Address(address) => Some(*address),
            Host::Name(_) => None,
        });
        let found = names_of(provider).filter_map(|name| self.addresses.get(name));
        given.chain(found.flatten().copied()).collect()
    }

    /// The servers that a host stands for, the ones that who has this [`lot`] is to try first in front; `port` and `way` where they are
    /// given.
    pub fn targets(
        &self,
        host: &Host,
        port: Option<u16>,
        way: Option<Way>,
        lot: u64,
    ) -> Result<Vec<Target>, Nowhere> {
        let target = |address, found_port: Option<u16>, found_way: Option<Way>| {
            let transport = way.or(found_way).unwrap_or(Way::Udp).transport();
            let default = match transport {
                Transport::Tls => DEFAULT_TLS_PORT,
                _ => DEFAULT_PORT,
            };
            let port = port.or(found_port).unwrap_or(default);
            Target {
                remote: SocketAddr::new(address, port),
                transport,
            }
        };
        let question = match host {
            Host::Address(address) => return Ok(vec![target(*address, None, None)]),
            Host::Name(name) => question(name, port, way),
        };
        match self.known.get(&question) {
            None => Err(Nowhere::Unknown(question)),
            Some(Lookup::Failed(error)) => Err(Nowhere::Failed(error.clone())),
            Some(Lookup::Found(places)) => {
                let mut places: Vec<&Place> = places.iter().collect();
                places.sort_by(|one, other| one.share.compare(other.share, lot));
                let targets = places.into_iter();
                Ok(targets
                    .map(|place| target(place.address, place.port, place.way))
                    .collect())
            }
        }
    }

    /// Where to send now: the first target that is not passed over; the first of all where none answered.
    pub fn pick(&self, targets: &[Target], now: Instant) -> Option<Target> {
        let good = targets.iter().find(|target| !self.is_avoided(target, now));
        good.or(targets.first()).copied()
    }

    /// Whether there is a server to turn to when `target` does not answer.
    pub fn has_other(&self, targets: &[Target], target: Target, now: Instant) -> bool {
        targets
            .iter()
            .any(|other| *other != target && !self.is_avoided(other, now))
    }

    /// A server did not answer: others get their turn for a while.
    pub fn avoid(&mut self, target: Target, now: Instant) {
        if self.avoided.len() >= self.sweep_at {
            self.avoided.retain(|_, until| *until > now);
            self.sweep_at = self.avoided.len() * 2 + 16;
        }
        self.avoided.insert(target, now + AVOIDED_FOR);
    }

    fn is_avoided(&self, target: &Target, now: Instant) -> bool {
        self.avoided.get(target).is_some_and(|until| *until > now)
    }
}

impl ResolvedAddresses for Names {
    fn has(&self, name: &str, address: IpAddr) -> bool {
        self.addresses
            .get(name)
            .is_some_and(|addresses| addresses.contains(&address))
    }
}

/// Port of SIP over UDP and TCP (RFC 3261 section 19.1.2).
const DEFAULT_PORT: u16 = 5060;

/// Port of SIP over TLS (RFC 3261 section 19.1.2).
const DEFAULT_TLS_PORT: u16 = 5061;

fn question(name: &str, port: Option<u16>, way: Option<Way>) -> Question {
    match port {
        Some(_) => Question::Addresses(name.to_owned()),
        None => Question::Service(name.to_owned(), way),
    }
}

/// The carrier's server as it is written: the outbound proxy if there is one.
pub fn server(provider: &Provider) -> (&Host, Option<u16>, Option<Way>) {
    use ringwire_crds::Transport;
    let way = provider.transport.map(|transport| match transport {
        Transport::UDP => Way::Udp,
        Transport::TCP => Way::Tcp,
        Transport::TLS => Way::Tls,
    });
    match &provider.outbound_proxy {
        Some((host, port)) => (host, *port, way),
        None => (&provider.server, provider.port, way),
    }
}

/// The names that a provider's server, proxy and callers are known by.
fn names_of(provider: &Provider) -> impl Iterator<Item = &str> {
    let proxy = provider.outbound_proxy.as_ref().map(|(host, _)| host);
    let hosts = std::iter::once(&provider.server).chain(proxy);
    let servers = hosts.filter_map(|host| match host {
        Host::Name(name) => Some(name.as_str()),
        Host::Address(_) => None,
    });
    let callers = provider.allowed_sources.iter();
    servers.chain(callers.filter_map(|allowed| match allowed {
        AllowedSource::Name(name) => Some(name.as_str()),
        AllowedSource::Net(_) => None,
    }))
}

/// Which providers an answer about a name concerns.
pub fn users(config: &RegistrarConfig) -> HashMap<String, Vec<ObjectRef>> {
    let mut users: HashMap<String, Vec<ObjectRef>> = HashMap::new();
    for provider in config.providers.values() {
        for name in names_of(provider) {
            let users = users.entry(name.to_owned()).or_default();
            if users.last() != Some(&provider.id) {
                users.push(provider.id.clone());
            }
        }
    }
    users
}

/// Every question that a configuration needs an answer to.
pub fn wanted(config: &RegistrarConfig) -> BTreeSet<Question> {
    let mut questions = BTreeSet::new();
    for provider in config.providers.values() {
        let (host, port, way) = server(provider);
        if let Host::Name(name) = host {
            questions.insert(question(name, port, way));
        }
        if provider.outbound_proxy.is_some()
            && let Host::Name(name) = &provider.server
        {
            questions.insert(question(name, provider.port, way));
        }
        for allowed in &provider.allowed_sources {
            if let AllowedSource::Name(name) = allowed {
                questions.insert(Question::Addresses(name.clone()));
            }
        }
    }
    questions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str, port: u16) -> Place {
        Place {
            address: address.parse().unwrap(),
            port: Some(port),
            way: Some(Way::Udp),
            share: Share::default(),
        }
    }

    fn carrier() -> Host {
        Host::Name("carrier.test".into())
    }

    fn known() -> Names {
        let mut names = Names::default();
        let question = Question::Service("carrier.test".into(), None);
        let places = vec![place("192.0.2.1", 5070), place("192.0.2.2", 5060)];
        names.update(question, Lookup::Found(places));
        names
    }

    #[test]
    fn a_given_port_asks_for_addresses_only() {
        let names = known();
        assert_eq!(
            names.targets(&carrier(), Some(5080), None, 0),
            Err(Nowhere::Unknown(Question::Addresses("carrier.test".into())))
        );
        let targets = names.targets(&carrier(), None, None, 0).unwrap();
        let expected: SocketAddr = "192.0.2.1:5070".parse().unwrap();
        assert_eq!(targets[0].remote, expected);
        assert_eq!(targets[0].transport, Transport::Udp);
    }

    #[test]
    fn tls_has_a_port_of_its_own() {
        let mut names = Names::default();
        let place = Place {
            address: "192.0.2.1".parse().unwrap(),
            port: None,
            way: Some(Way::Tls),
            share: Share::default(),
        };
        let question = Question::Service("carrier.test".into(), Some(Way::Tls));
        names.update(question, Lookup::Found(vec![place]));
        let targets = names.targets(&carrier(), None, Some(Way::Tls), 0).unwrap();
        assert_eq!(targets[0].remote.port(), 5061);
        assert_eq!(targets[0].transport, Transport::Tls);
    }

    #[test]
    fn a_uri_says_how_it_is_reached() {
        for (text, way) in [
            ("sip:a@b", None),
            ("sip:a@b;transport=TCP", Some(Way::Tcp)),
            ("sip:a@b;transport=tls", Some(Way::Tls)),
            ("sips:a@b", Some(Way::Tls)),
            ("sips:a@b;transport=tcp", Some(Way::Tls)),
        ] {
            assert_eq!(Way::of(&Uri::parse(text).unwrap()), way, "{text}");
        }
    }

    #[test]
    fn a_server_that_did_not_answer_is_passed_over_for_a_minute() {
        let (mut names, now) = (known(), Instant::now());
        let targets = names.targets(&carrier(), None, None, 0).unwrap();
        assert!(names.has_other(&targets, targets[0], now));
        names.avoid(targets[0], now);
        assert_eq!(names.pick(&targets, now), Some(targets[1]));
        assert!(!names.has_other(&targets, targets[1], now));
        names.avoid(targets[1], now);
        assert_eq!(
            names.pick(&targets, now),
            Some(targets[0]),
            "any is better than none"
        );
        assert_eq!(names.pick(&targets, now + AVOIDED_FOR), Some(targets[0]));
    }

    /// Where each of 10,000 goes first, by port, with servers of these priorities, weights and ports, two addresses each.
    fn first_choices(servers: &[(u16, u16, u16)]) -> Vec<u16> {
        let places = servers.iter().flat_map(|&(priority, weight, port)| {
            ["192.0.2.1", "192.0.2.2"].map(|address| Place {
                share: Share {
                    priority,
                    weight,
                    server: lot(&format!("sip.carrier.test:{port}")),
                },
                ..place(address, port)
            })
        });
        let mut names = Names::default();
        let question = Question::Service("carrier.test".into(), None);
        names.update(question, Lookup::Found(places.collect()));
        let chosen = (0..10_000).map(|who| {
            let lot = lot(&format!("default/trunk-{who}"));
            let targets = names.targets(&carrier(), None, None, lot).unwrap();
            let ports: Vec<u16> = targets.iter().map(|target| target.remote.port()).collect();
            let last = servers.iter().max().unwrap().2;
            assert!(ports.ends_with(&[last, last]), "{ports:?}");
            for pair in targets.chunks(2) {
                assert_eq!(pair[0].remote.port(), pair[1].remote.port(), "{targets:?}");
                assert!(pair[0].remote.ip() < pair[1].remote.ip(), "{targets:?}");
            }
            ports[0]
        });
        chosen.collect()
    }

    #[test]
    fn servers_are_tried_by_priority_and_shared_by_weight() {
        let chosen = first_choices(&[(20, 5, 4), (10, 30, 1), (10, 10, 2), (10, 0, 3)]);
        let share = |port| chosen.iter().filter(|chosen| **chosen == port).count();
        assert!((7_200..7_800).contains(&share(1)), "{}", share(1));
        assert!((2_200..2_800).contains(&share(2)), "{}", share(2));
        assert!(share(3) < 50, "{}", share(3));
        // The same among their like, without any weight.
        let chosen = first_choices(&[(20, 5, 4), (10, 0, 1), (10, 0, 2)]);
        let half = chosen.iter().filter(|chosen| **chosen == 1).count();
        assert!((4_700..5_300).contains(&half), "{half}");
    }

    #[test]
    fn a_server_that_comes_takes_its_share_and_moves_nobody_else() {
        let before = first_choices(&[(20, 5, 4), (10, 30, 1), (10, 10, 2)]);
        let after = first_choices(&[(20, 5, 4), (10, 30, 1), (10, 10, 2), (10, 40, 3)]);
        let pairs = || before.iter().zip(&after);
        assert!(
            pairs()
                .filter(|(_, after)| **after != 3)
                .all(|(before, after)| before == after)
        );
        let moved = pairs().filter(|(_, after)| **after == 3).count();
        assert!((4_700..5_300).contains(&moved), "{moved}");
    }

    #[test]
    fn many_servers_that_did_not_answer_are_forgotten_in_time() {
        let (mut names, mut now) = (Names::default(), Instant::now());
        for turn in 0..10_000_u32 {
            let target = Target {
                remote: (std::net::Ipv4Addr::from(turn), 5060).into(),
                transport: Transport::Udp,
            };
            names.avoid(target, now);
            assert!(names.is_avoided(&target, now));
            now += Duration::from_secs(1);
        }
        assert!(names.avoided.len() < 200, "{}", names.avoided.len());
    }

    #[test]
    fn all_addresses_of_a_name_may_call_and_survive_a_failed_look_up() {
        let mut names = known();
        let hosts = vec![place("192.0.2.9", 5060)];
        names.update(
            Question::Addresses("carrier.test".into()),
            Lookup::Found(hosts),
        );
        names.update(
            Question::Service("carrier.test".into(), None),
            Lookup::Failed("no answer".into()),
        );
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.9"] {
            assert!(names.has("carrier.test", address.parse().unwrap()));
        }
        assert!(!names.has("carrier.test", "192.0.2.3".parse().unwrap()));
        names.retain(&BTreeSet::new());
        assert!(!names.has("carrier.test", "192.0.2.1".parse().unwrap()));
    }
}
