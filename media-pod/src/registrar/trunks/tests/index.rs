//! The lists of the trunks are what going through all of them would give, whatever has happened.

use proptest::prelude::*;
use ringwire_sip::transaction::{Endpoint, EndpointConfig, TransportError};

use super::*;

/// What may happen to a few trunks.
#[derive(Clone, Debug)]
enum Step {
    /// These providers are in the configuration, with this revision, and these are ours.
    Configure(u8, u8, u8),
    /// What there is to send is sent.
    Send,
    /// The eldest request of which nothing was heard is answered so.
    Answer(u16),
    /// Or it fails.
    Fail,
    /// Time passes, in milliseconds.
    Pass(u32),
    /// The servers' name is known from now on, or cannot be looked up.
    Resolve(bool),
    /// The servers' name is forgotten.
    Forget,
    /// A connection is lost.
    Lose,
    /// What is to be told is told.
    Report,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<u8>(), 0..3_u8, any::<u8>()).prop_map(|(there, revision, ours)| Step::Configure(there, revision, ours)),
        4 => Just(Step::Send),
        4 => prop::sample::select(vec![200_u16, 200, 200, 401, 401, 403, 423, 503, 100]).prop_map(Step::Answer),
        1 => Just(Step::Fail),
        3 => (0..400_000_u32).prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::Resolve),
        1 => Just(Step::Forget),
        1 => Just(Step::Lose),
        1 => Just(Step::Report),
    ]
}

struct World {
    trunks: Trunks,
    names: Names,
    now: Instant,
    endpoint: Endpoint,
    asked: VecDeque<(ClientId, Request)>,
}

impl World {
    fn run(&mut self, step: &Step) {
        let now = self.now;
        match step {
            Step::Configure(there, revision, ours) => {
                let named = (0..8).filter(|bit| there & (1 << bit) != 0);
                let mut config = config_of(named.map(|bit| bit.to_string()));
                for provider in config.providers.values_mut() {
                    let registration = provider.registration.as_mut().unwrap();
                    registration.revision = revision.to_string();
                }
                let owns = |id: &ObjectRef| ours & (1 << id.name.parse::<u8>().unwrap()) != 0;
                let contact = |_: &Provider| NameAddr::parse("<sip:token@192.0.2.9>").ok();
                self.trunks
                    .configure(&config, owns, &Peers::default(), contact, now);
            }
            Step::Send => {
                for send in self.trunks.poll_sends(&self.names, now) {
                    let host = Host::Name("us.test".into());
                    let mut request = send.request.clone();
                    let client = self
                        .endpoint
                        .request(send.request, send.flow, &host, 5060, now);
                    self.trunks.sent(client, send.key);
                    let via = "SIP/2.0/UDP us.test;branch=z9hG4bK1";
                    request.headers.insert_first(HeaderName::Via, via);
                    self.asked.push_back((client, request));
                }
            }
            Step::Answer(status) => {
                if let Some((client, request)) = self.asked.pop_front() {
                    let mut response = Response::to_request(&request, *status, None);
                    let challenge = "Digest realm=\"r\", nonce=\"n\"";
                    response
                        .headers
                        .push(HeaderName::WwwAuthenticate, challenge);
                    response.headers.push(HeaderName::MinExpires, "600");
                    let contact = "<sip:token@192.0.2.9>;expires=300";
                    response.headers.push(HeaderName::Contact, contact);
                    self.trunks
                        .on_response(client, &response, &mut self.names, now);
                }
            }
            Step::Fail => {
                if let Some((client, _)) = self.asked.pop_front() {
                    let error = ClientError::Transport(TransportError::Closed);
                    self.trunks.on_failed(client, &error, &mut self.names, now);
                    self.trunks.client_ended(client);
                }
            }
            Step::Pass(millis) => {
                self.now += Duration::from_millis((*millis).into());
                self.trunks.handle_timeout(&mut self.names, self.now);
            }
            Step::Resolve(found) => {
                let places = ["192.0.2.1", "192.0.2.2"].map(|address| Place {
                    address: address.parse().unwrap(),
                    port: None,
                    way: None,
                    share: Share::default(),
                });
                let lookup = if *found {
                    Lookup::Found(places.into())
                } else {
                    Lookup::Failed("no such name".into())
                };
                let question = Question::Service("carrier.test".into(), None);
                self.names.update(question.clone(), lookup);
                self.trunks.resolved(&question, now);
            }
            Step::Forget => self.names.retain(&BTreeSet::new()),
            Step::Lose => {
                let remote = "192.0.2.1:5060".parse().unwrap();
                self.trunks.flow_lost(&Flow::udp(remote), now);
            }
            Step::Report => drop(self.trunks.poll_reports(jiff::Timestamp::now(), now)),
        }
    }

    /// Goes through all trunks, as nothing else does.
    fn check(&self) {
        let trunks = &self.trunks;
        let (mut timers, mut turns, mut changed) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (serial, trunk) in &trunks.by_serial {
            timers.extend(trunk.timer().map(|at| (at, *serial)));
            let waits = trunk.unsent.is_some() || trunk.stay == Stay::Leaves;
            if waits && trunk.waits_for_name {
                assert!(
                    trunks
                        .waiting
                        .values()
                        .flatten()
                        .any(|waiting| waiting == serial)
                );
            } else if waits {
                let answers = trunks.answers.contains(serial);
                let turn = trunks.turns.values().any(|waiting| waiting == serial);
                assert!(answers || turn, "nobody comes to send its request");
            }
            turns.extend(trunk.listed.turn.map(|turn| (turn, *serial)));
            let stays = trunk.stay == Stay::Stays;
            if stays && trunk.reported != Some(trunk.registration.version()) {
                changed.insert(*serial);
            }
            let list = if stays {
                &trunks.active
            } else {
                &trunks.leaving
            };
            assert_eq!(list.get(&trunk.id), Some(serial));
            for target in ["192.0.2.1:5060", "192.0.2.2:5060"] {
                let flow = Flow::udp(target.parse().unwrap());
                let bound = trunk
                    .bound()
                    .is_some_and(|(target, _)| trunk.flow(target) == flow);
                assert_eq!(trunks.flows.lost(&flow).contains(serial), bound);
            }
        }
        assert_eq!(trunks.timers, timers);
        let listed = trunks.turns.iter().map(|(turn, serial)| (*turn, *serial));
        assert_eq!(listed.collect::<BTreeSet<_>>(), turns);
        assert!(
            trunks.changed.is_superset(&changed),
            "a change is never told"
        );
        assert_eq!(
            trunks.active.len() + trunks.leaving.len(),
            trunks.by_serial.len()
        );
        if !turns.is_empty() {
            assert!(trunks.pace.is_none() || trunks.poll_timeout().is_some());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn what_is_due_is_in_the_lists(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World {
            trunks: Trunks::default(),
            names: Names::default(),
            now: Instant::now(),
            endpoint: Endpoint::new(EndpointConfig::default(), 1),
            asked: VecDeque::new(),
        };
        for step in &steps {
            world.run(step);
            world.check();
        }
    }
}
