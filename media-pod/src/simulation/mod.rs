//! A carrier, registrars and a media pod in one simulated world: the product's own logic, from the datagram to the dialog, with a clock
//! that jumps from one time-out to the next.
//!
//! Registrars share one address, as behind a Service: what the carrier sends reaches any that runs.

mod carrier;
mod pod;
mod sessions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_config::gateway::{AllowedSource, Host, Number, Provider, RegistrarConfig};
use ringwire_config::token::Incarnation;
use ringwire_config::{ObjectRef, fixture};
use ringwire_sip::message::{HeaderName, Message, parse_datagram};
use ringwire_sip::transaction::{Flow, Transmit, Transport, TransportError};

use self::carrier::Carrier;
use self::pod::Pod;
use crate::registrar::edge::Edge;
use crate::registrar::place::Local;

const NUMBER: &str = "+34911234567";
const OURS: &str = "203.0.113.9:5060";
const CARRIERS: &str = "198.51.100.1:5060";
const INCARNATION: Incarnation = Incarnation(1);

/// A registrar that runs, and its link to the media pod.
struct Registrar {
    edge: Edge,
    /// Its number, which is that of its link as well.
    number: u64,
}

struct World {
    start: Instant,
    now: Instant,
    transport: Transport,
    registrars: Vec<Registrar>,
    next_registrar: u64,
    carrier: Carrier,
    pod: Pod,
    /// Connections between carrier and registrars: their number, and the registrar's.
    connections: BTreeMap<u64, u64>,
    next_connection: u64,
    /// Whether the carrier takes connections.
    listens: bool,
}

fn ours() -> SocketAddr {
    OURS.parse().unwrap()
}

fn carriers() -> SocketAddr {
    CARRIERS.parse().unwrap()
}

fn message(transmit: &Transmit) -> Message {
    parse_datagram(&transmit.bytes).unwrap_or_else(|failure| panic!("{}", failure.error))
}

/// Links have numbers that no connection has.
fn link(number: u64) -> Flow {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Flow::open(Transport::Tcp, nowhere, 1_000_000 + number)
}

fn config() -> RegistrarConfig {
    let number = Number {
        id: ObjectRef::new("voice", "main"),
        agent: Some(ObjectRef::new("voice", "bot")),
        agent_max_calls: None,
    };
    let trunk = Provider {
        server: Host::Address(carriers().ip()),
        allowed_sources: vec![AllowedSource::Net("198.51.100.0/24".parse().unwrap())],
        numbers: [(NUMBER.to_owned(), number)].into(),
        ..fixture::provider("trunk")
    };
    fixture::registrar([trunk])
}

impl World {
    /// The carrier calls; `headers` go with its INVITE.
    fn new(transport: Transport, headers: Vec<(HeaderName, String)>) -> Self {
        let now = Instant::now();
        let key = fixture::settings().token_keys.remove(0);
        let flow = Flow {
            transport,
            remote: ours(),
            connection: None,
            peer: 0,
        };
        let mut world = Self {
            start: now,
            now,
            transport,
            registrars: Vec::new(),
            next_registrar: 1,
            carrier: Carrier::new(carriers(), flow, NUMBER, headers, now),
            pod: Pod::new(INCARNATION, key),
            connections: BTreeMap::new(),
            next_connection: 0,
            listens: true,
        };
        world.start_registrar();
        world
    }

    fn start_registrar(&mut self) {
        let number = self.next_registrar;
        self.next_registrar += 1;
        let config = Arc::new(config());
        let local = Local {
            advertised: Some(ours().ip()),
            udp_port: 5060,
            tcp_port: 5060,
            tls_port: 5060,
            fronts: None,
        };
        let mut edge = Edge::new(
            Arc::clone(&config),
            local.clone(),
            |_| Some(ours().ip()),
            (self.now, 0),
            number,
        );
        edge.configure(config, local, Arc::new(|_| true), self.now);
        edge.link_up(INCARNATION, link(number), self.now);
        self.registrars.push(Registrar { edge, number });
        self.pod.switch.link_up(link(number), self.now);
    }

    /// Every registrar is gone at once, without a word: links and connections break.
    fn kill_registrars(&mut self) {
        for registrar in std::mem::take(&mut self.registrars) {
            let gone = link(registrar.number);
            self.pod
                .switch
                .link_closed(&gone, TransportError::Closed, self.now);
            let before = self.connections.len();
            self.connections.retain(|_, of| *of != registrar.number);
            if self.connections.len() < before {
                self.carrier.disconnected(self.now);
            }
        }
        self.settle();
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    /// Lets the time pass until so many seconds after the start.
    #[track_caller]
    fn run_until(&mut self, seconds: u64) {
        let end = self.at(seconds);
        for _ in 0..100_000 {
            self.settle();
            let registrars = self
                .registrars
                .iter()
                .filter_map(|registrar| registrar.edge.poll_timeout());
            let due = registrars
                .chain(self.pod.poll_timeout())
                .chain(self.carrier.poll_timeout())
                .min();
            match due {
                Some(due) if due <= end => self.now = self.now.max(due),
                _ => {
                    self.now = end;
                    return;
                }
            }
            for registrar in &mut self.registrars {
                registrar.edge.handle_timeout(self.now);
            }
            self.pod.handle_timeout(self.now);
            self.carrier.handle_timeout(self.now);
        }
        panic!("time-outs lead nowhere");
    }

    /// Delivers everything that is under way.
    fn settle(&mut self) {
        loop {
            let mut moved = self.carrier.settle(self.now) | self.pod.settle(self.now);
            while let Some(transmit) = self.carrier.poll_transmit() {
                moved = true;
                self.carry_from_carrier(&transmit);
            }
            while let Some(transmit) = self.pod.switch.poll_transmit() {
                moved = true;
                self.carry_from_pod(&transmit);
            }
            for at in 0..self.registrars.len() {
                while self.registrars[at].edge.poll_output().is_some() {}
                while let Some(transmit) = self.registrars[at].edge.poll_transmit() {
                    moved = true;
                    self.carry_from_registrar(at, &transmit);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn carry_from_pod(&mut self, transmit: &Transmit) {
        let to = self
            .registrars
            .iter_mut()
            .find(|registrar| link(registrar.number) == transmit.flow);
        match to {
            Some(registrar) => {
                let from = link(registrar.number);
                registrar.edge.receive(message(transmit), from, self.now);
            }
            None => self.pod.switch.unsent(&transmit.flow, self.now),
        }
    }

    fn carry_from_registrar(&mut self, at: usize, transmit: &Transmit) {
        let number = self.registrars[at].number;
        if transmit.flow == link(number) {
            return self
                .pod
                .switch
                .receive(message(transmit), link(number), self.now);
        }
        let connection = if self.transport == Transport::Udp {
            None
        } else {
            let open = transmit.flow.connection;
            let open = open.filter(|connection| self.connections.contains_key(connection));
            if open.is_none() && !self.listens {
                let edge = &mut self.registrars[at].edge;
                return edge.flow_failed(&transmit.flow, TransportError::Refused, self.now);
            }
            Some(open.unwrap_or_else(|| self.connect(number)))
        };
        let from = Flow {
            transport: self.transport,
            remote: ours(),
            connection,
            peer: 0,
        };
        self.carrier.receive(message(transmit), from, self.now);
    }

    fn connect(&mut self, registrar: u64) -> u64 {
        self.next_connection += 1;
        self.connections.insert(self.next_connection, registrar);
        self.next_connection
    }

    fn carry_from_carrier(&mut self, transmit: &Transmit) {
        let connection = if self.transport == Transport::Udp {
            None
        } else {
            let open = transmit.flow.connection;
            let open = open.filter(|connection| self.connections.contains_key(connection));
            let some = self.registrars.first().map(|registrar| registrar.number);
            let Some(connection) = open.or_else(|| Some(self.connect(some?))) else {
                return self.carrier.disconnected(self.now);
            };
            self.carrier.flow.connection = Some(connection);
            Some(connection)
        };
        let number = connection.map(|connection| self.connections[&connection]);
        let to = self
            .registrars
            .iter_mut()
            .find(|registrar| number.is_none_or(|number| registrar.number == number));
        // A datagram to nobody is lost.
        if let Some(registrar) = to {
            let from = Flow {
                transport: self.transport,
                remote: carriers(),
                connection,
                peer: 0,
            };
            registrar.edge.receive(message(transmit), from, self.now);
        }
    }
}
