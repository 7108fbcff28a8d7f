//! The edge between a carrier and media pods that say what a test has them say, by a clock that the test turns.

use ringwire_config::fixture;
use ringwire_config::gateway::{Account, Host, Number};
use ringwire_config::object::NodeAddresses;
use ringwire_config::token::TokenKey;
use ringwire_config::{Reason, Secret};
use ringwire_sip::digest::{Challenge, Credentials, DigestClient};
use ringwire_sip::message::parse_datagram;

use super::timers::{FIRST_SIGN, TIMER_C};
use super::*;
use crate::registrar::place::Fronts;

const CARRIER: &str = "192.0.2.1:5060";

/// 64*T1.
const TIMER_B: Duration = Duration::from_secs(32);

fn key() -> TokenKey {
    fixture::settings().token_keys.remove(0)
}

fn config() -> RegistrarConfig {
    let number = Number {
        id: ObjectRef::new("voice", "main"),
        agent: Some(ObjectRef::new("voice", "bot")),
        agent_max_calls: None,
    };
    fixture::registrar([Provider {
        server: Host::Address([192, 0, 2, 1].into()),
        numbers: [("+34911234567".to_owned(), number)].into(),
        ..fixture::provider("trunk")
    }])
}

/// Who a message went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Carrier,
    Pod(u64),
}

/// A request or a response in short.
fn short(message: &Message) -> String {
    match message {
        Message::Request(request) => request.method.to_string(),
        Message::Response(response) => {
            let (_, method) = response.headers.cseq().unwrap();
            format!("{} {method}", response.status)
        }
    }
}

struct World {
    edge: Edge,
    now: Instant,
    sent: Vec<(To, Message)>,
}

fn pod_flow(pod: u64) -> Flow {
    Flow::open(Transport::Tcp, ([0, 0, 0, 0], 0).into(), pod)
}

fn carrier_flow() -> Flow {
    Flow::udp(CARRIER.parse().unwrap())
}

impl World {
    /// With so many media pods.
    fn new(pods: u64) -> Self {
        Self::with(pods, config())
    }

    fn with(pods: u64, config: RegistrarConfig) -> Self {
        Self::behind(None, pods, config)
    }

    /// Where carriers come through Services.
    fn behind(fronts: Option<Fronts>, pods: u64, config: RegistrarConfig) -> Self {
        let now = Instant::now();
        let local = Local {
            advertised: Some([198, 51, 100, 7].into()),
            udp_port: 5060,
            tcp_port: 5060,
            tls_port: 5061,
            fronts,
        };
        let config = Arc::new(config);
        let mut edge = Edge::new(Arc::clone(&config), local.clone(), |_| None, (now, 0), 7);
        edge.configure(config, local, Arc::new(|_| true), now);
        for pod in 1..=pods {
            edge.link_up(Incarnation(pod), pod_flow(pod), now);
            edge.link_load(Incarnation(pod), Arc::default(), true, now);
        }
        let sent = Vec::new();
        Self { edge, now, sent }
    }

    fn collect(&mut self) {
        while let Some(transmit) = self.edge.poll_transmit() {
            let to = match transmit.flow.connection {
                Some(pod) => To::Pod(pod),
                None => To::Carrier,
            };
            let message = parse_datagram(&transmit.bytes).unwrap();
            self.sent.push((to, message));
        }
    }

    /// What has been sent since this was last asked.
    fn sent(&mut self) -> Vec<(To, Message)> {
        self.collect();
        std::mem::take(&mut self.sent)
    }

    /// The same in short.
    fn said(&mut self) -> Vec<(To, String)> {
        let sent = self.sent();
        sent.iter()
            .map(|(to, message)| (*to, short(message)))
            .collect()
    }

    /// The only request to a pod among what has been sent.
    #[track_caller]
    fn asked(&mut self) -> (u64, Request) {
        let mut asked = self.sent().into_iter().filter_map(|sent| match sent {
            (To::Pod(pod), Message::Request(request)) => Some((pod, request)),
            _ => None,
        });
        let only = asked.next().expect("a request to a pod");
        assert!(asked.next().is_none());
        only
    }

    /// The only INVITE to a pod among what has been sent, beside ACKs.
    #[track_caller]
    fn asked_to_invite(&mut self) -> (u64, Request) {
        let sent = self.sent();
        let mut asked = sent.into_iter().filter_map(|sent| match sent {
            (To::Pod(pod), Message::Request(request)) if request.method == Method::INVITE => {
                Some((pod, request))
            }
            (To::Carrier, Message::Response(response)) if response.status > 100 => {
                panic!("{response:?}")
            }
            _ => None,
        });
        let only = asked.next().expect("an INVITE to a pod");
        assert!(asked.next().is_none());
        only
    }

    fn carrier(&mut self, method: &str, branch: &str, more: &str) {
        self.carrier_in("call", method, branch, more);
    }

    /// The same in the call of that name.
    fn carrier_in(&mut self, call: &str, method: &str, branch: &str, more: &str) {
        let uri = "sip:+34911234567@198.51.100.7";
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CARRIER};branch=z9hG4bK{branch};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@192.0.2.1>;tag=a\r\nTo: <{uri}>{more}\r\nCall-ID: {call}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:alice@{CARRIER}>\r\nContent-Length: 0\r\n\r\n"
        );
        let message = parse_datagram(text.as_bytes()).unwrap();
        self.edge.receive(message, carrier_flow(), self.now);
    }

    /// A pod answers.
    fn pod(&mut self, pod: u64, request: &Request, status: u16) {
        let mut response = Response::to_request(request, status, None);
        if status > 100 {
            response.set_to_tag(&format!("{}.1", key().sign(Incarnation(pod))));
            response
                .headers
                .push(HeaderName::Contact, "<sip:bot@198.51.100.7>");
        }
        self.edge.receive(response.into(), pod_flow(pod), self.now);
    }

    /// Lets time pass, and runs what is due meanwhile.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        self.collect();
        while let Some(at) = self.edge.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.edge.handle_timeout(self.now);
            assert!(
                self.edge.poll_timeout().is_none_or(|at| at > self.now),
                "still due after it was run"
            );
            self.collect();
        }
        self.now = end;
    }

    /// Nothing is under way any more.
    #[track_caller]
    fn check_quiet(&mut self) {
        self.wait(TIMER_B * 2);
        assert!(self.edge.relays.is_empty() && self.edge.timers.is_empty());
        assert!(self.edge.by_client.is_empty() && self.edge.abandoned.is_empty());
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[track_caller]
fn assert_said(world: &mut World, expected: &[(To, &str)]) {
    let said = world.said();
    let said: Vec<(To, &str)> = said.iter().map(|(to, text)| (*to, text.as_str())).collect();
    assert_eq!(said, expected);
}

/// A call that rings at the first pod.
fn ringing() -> (World, Request) {
    let mut world = World::new(1);
    world.carrier("INVITE", "1", "");
    let (pod, invite) = world.asked();
    assert_eq!(pod, 1);
    world.pod(1, &invite, 100);
    world.pod(1, &invite, 180);
    assert_said(&mut world, &[(To::Carrier, "180 INVITE")]);
    (world, invite)
}

#[test]
fn ringing_that_is_said_again_every_minute_goes_on_and_is_heard() {
    let (mut world, invite) = ringing();
    for _ in 0..20 {
        world.wait(seconds(60));
        assert_said(&mut world, &[]);
        world.pod(1, &invite, 180);
        assert_said(&mut world, &[(To::Carrier, "180 INVITE")]);
    }
    world.pod(1, &invite, 200);
    assert_said(&mut world, &[(To::Carrier, "200 INVITE")]);
    world.check_quiet();
    assert_said(&mut world, &[]);
}

#[test]
fn a_number_of_a_newer_version_is_refused_for_now() {
    for (newer, reason) in [(false, Reason::NoAgent), (true, Reason::NewerVersionNeeded)] {
        let mut config = config();
        let trunk = config.providers.values_mut().next().unwrap();
        let number = trunk.numbers.values_mut().next().unwrap();
        number.agent = None;
        if newer {
            let left_out = &mut config.not_understood.numbers;
            left_out.insert(number.id.clone(), "unknown form".into());
        }
        let mut world = World::with(1, config);
        world.carrier("INVITE", "1", "");
        assert_said(&mut world, &[(To::Carrier, "480 INVITE")]);
        let outputs: Vec<Output> = std::iter::from_fn(|| world.edge.poll_output()).collect();
        let refused = outputs.iter().find_map(|output| match output {
            Output::Refused(call) => Some(call.reason),
            _ => None,
        });
        assert_eq!(refused, Some(reason));
    }
}

#[test]
fn what_rings_for_three_minutes_without_a_word_is_cancelled_and_its_487_relayed() {
    let (mut world, invite) = ringing();
    world.wait(seconds(180));
    // It says nothing of the callee.
    world.pod(1, &invite, 100);
    assert_said(&mut world, &[]);
    world.wait(TIMER_C.saturating_sub(seconds(180)));
    let (_, cancel) = world.asked();
    assert_eq!(cancel.method, Method::CANCEL);
    let reason = cancel.headers.get(&HeaderName::Reason).unwrap();
    assert!(reason.contains("cause=408"), "{reason}");
    world.pod(1, &cancel, 200);
    world.pod(1, &invite, 487);
    assert_said(
        &mut world,
        &[(To::Pod(1), "ACK"), (To::Carrier, "487 INVITE")],
    );
    world.carrier("ACK", "1", "");
    world.check_quiet();
    assert_said(&mut world, &[]);
}

#[test]
fn a_pod_that_does_not_take_timer_cs_cancel_is_not_waited_for() {
    let (mut world, invite) = ringing();
    world.wait(TIMER_C);
    assert_eq!(world.asked().1.method, Method::CANCEL);
    // Too late to be heard out: it goes on ringing.
    world.wait(seconds(20));
    world.pod(1, &invite, 180);
    assert_said(&mut world, &[(To::Carrier, "180 INVITE")]);
    world.wait(seconds(12));
    assert_said(&mut world, &[(To::Carrier, "408 INVITE")]);
    world.carrier("ACK", "1", "");
    world.check_quiet();
    let outputs: Vec<Output> = std::iter::from_fn(|| world.edge.poll_output()).collect();
    assert!(
        !outputs
            .iter()
            .any(|output| matches!(output, Output::Refused(_))),
        "the media pod reports the call"
    );
}

#[test]
fn an_invite_that_is_answered_leaves_no_timer() {
    let mut world = World::new(2);
    world.carrier("INVITE", "1", "");
    let (pod, invite) = world.asked();
    world.pod(pod, &invite, 200);
    assert_said(&mut world, &[(To::Carrier, "200 INVITE")]);
    assert!(world.edge.timers.is_empty());
    world.wait(seconds(600));
    assert_said(&mut world, &[]);
    world.check_quiet();
}

#[test]
fn timer_c_watches_over_both_ways_of_a_dialog_but_only_over_invites() {
    let mut world = World::new(1);
    let tag = format!(";tag={}.1", key().sign(Incarnation(1)));
    world.carrier("OPTIONS", "1", &tag);
    assert!(world.asked().1.method == Method::OPTIONS && world.edge.timers.is_empty());
    world.carrier("INVITE", "2", &tag);
    let (_, invite) = world.asked();
    world.pod(1, &invite, 183);
    assert_said(&mut world, &[(To::Carrier, "183 INVITE")]);
    world.wait(TIMER_C);
    assert!(world.said().contains(&(To::Pod(1), "CANCEL".to_owned())));

    let text = format!(
        "INVITE sip:alice@{CARRIER} SIP/2.0\r\nVia: SIP/2.0/TCP media.invalid:5060;branch=z9hG4bK3\r\nMax-Forwards: 70\r\n\
         From: <sip:+34911234567@198.51.100.7>{tag}\r\nTo: <sip:alice@192.0.2.1>;tag=a\r\nCall-ID: call\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:bot@198.51.100.7>\r\nContent-Length: 0\r\n\r\n"
    );
    let message = parse_datagram(text.as_bytes()).unwrap();
    world.edge.receive(message, pod_flow(1), world.now);
    let sent = world.sent();
    let Some((_, Message::Request(reinvite))) = sent.iter().find(|(to, _)| *to == To::Carrier)
    else {
        panic!("{sent:?}")
    };
    let mut response = Response::to_request(reinvite, 180, None);
    response.set_to_tag("a");
    world
        .edge
        .receive(response.into(), carrier_flow(), world.now);
    world.wait(TIMER_C);
    assert!(world.said().contains(&(To::Carrier, "CANCEL".to_owned())));
}

#[test]
fn a_silent_pod_is_left_for_another_and_its_late_answer_ended() {
    let mut world = World::new(2);
    world.carrier("INVITE", "1", "");
    let (silent, first) = world.asked();
    world.wait(FIRST_SIGN);
    let (other, second) = world.asked();
    assert_ne!(silent, other);
    world.pod(other, &second, 200);
    assert_said(&mut world, &[(To::Carrier, "200 INVITE")]);
    world.pod(silent, &first, 200);
    let ended = world.sent();
    let [(to, Message::Request(ack)), (also, Message::Request(bye))] = &ended[..] else {
        panic!("{ended:?}")
    };
    assert!(*to == To::Pod(silent) && also == to);
    assert_eq!((&ack.method, &bye.method), (&Method::ACK, &Method::BYE));
    world.pod(silent, bye, 200);
    world.check_quiet();
}

/// A pod says that another should take the call.
fn decline(world: &mut World, pod: u64, invite: &Request) {
    let mut response = Response::to_request(invite, 503, None);
    let marker = crate::private::name(crate::private::TRY_ANOTHER);
    response.headers.push(marker, "1");
    world
        .edge
        .receive(response.into(), pod_flow(pod), world.now);
}

#[test]
fn a_pod_that_would_have_another_take_the_call_is_left_at_once_and_the_carrier_hears_nothing_of_it()
{
    let mut world = World::new(5);
    world.carrier("INVITE", "1", "");
    let mut asked = Vec::new();
    for _ in 0..MAX_TRIES {
        let (pod, invite) = world.asked_to_invite();
        decline(&mut world, pod, &invite);
        asked.push(pod);
    }
    // All that may be asked have declined: the gateway as a whole takes no calls.
    assert!(
        world
            .said()
            .contains(&(To::Carrier, "503 INVITE".to_owned()))
    );
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), MAX_TRIES);
    world.carrier("ACK", "1", "");
    world.check_quiet();

    let mut world = World::new(2);
    world.carrier("INVITE", "1", "");
    let (first, invite) = world.asked_to_invite();
    decline(&mut world, first, &invite);
    let (second, invite) = world.asked_to_invite();
    assert_ne!(first, second);
    world.pod(second, &invite, 200);
    assert_said(&mut world, &[(To::Carrier, "200 INVITE")]);
    world.check_quiet();
}

#[test]
fn a_pod_that_had_another_take_a_call_is_asked_last_for_a_while() {
    /// The pod that a new call comes to, which refuses it unless it would have another take it.
    fn asked(world: &mut World, call: &str, declines: bool) -> u64 {
        world.carrier_in(call, "INVITE", call, "");
        let (first, mut invite) = world.asked_to_invite();
        let mut pod = first;
        if declines {
            decline(world, pod, &invite);
            (pod, invite) = world.asked_to_invite();
        }
        world.pod(pod, &invite, 486);
        world.carrier_in(call, "ACK", call, "");
        world.sent();
        first
    }
    let mut world = World::new(4);
    let unwilling: Vec<u64> = (0..3)
        .map(|call| asked(&mut world, &format!("first{call}"), true))
        .collect();
    let is_unwilling = |pod: &u64| unwilling.contains(pod);
    for call in 0..20 {
        let pod = asked(&mut world, &format!("call{call}"), false);
        assert!(!is_unwilling(&pod), "{pod} of {unwilling:?}");
    }
    // After that they are as good as the others.
    world.wait(Duration::from_secs(4));
    let later = (0..20).map(|call| asked(&mut world, &format!("later{call}"), false));
    assert!(later.filter(is_unwilling).count() > 5);
}

#[test]
fn a_pod_that_dies_is_left_for_another_unless_its_agent_may_have_been_reached() {
    let mut world = World::new(2);
    world.carrier("INVITE", "1", "");
    let (first, _) = world.asked_to_invite();
    world
        .edge
        .flow_failed(&pod_flow(first), TransportError::Closed, world.now);
    let (second, invite) = world.asked_to_invite();
    assert_ne!(first, second, "at once");
    world.pod(second, &invite, 180);
    world.said();
    world
        .edge
        .flow_failed(&pod_flow(second), TransportError::Closed, world.now);
    assert_said(&mut world, &[(To::Carrier, "480 INVITE")]);
    world.carrier("ACK", "1", "");
    world.check_quiet();

    // One that has rung is not left although others are there.
    let mut world = World::new(3);
    world.carrier("INVITE", "1", "");
    let (first, invite) = world.asked_to_invite();
    world.pod(first, &invite, 180);
    world.said();
    world
        .edge
        .flow_failed(&pod_flow(first), TransportError::Closed, world.now);
    assert_said(&mut world, &[(To::Carrier, "480 INVITE")]);
}

#[test]
fn three_pods_are_asked_and_then_the_last_has_the_time_that_it_takes() {
    let mut world = World::new(5);
    world.carrier("INVITE", "1", "");
    let mut asked = vec![world.asked()];
    for _ in 1..MAX_TRIES {
        world.wait(FIRST_SIGN);
        asked.push(world.asked());
    }
    world.wait(seconds(10));
    assert_said(&mut world, &[]);
    let (pod, invite) = asked.pop().unwrap();
    world.pod(pod, &invite, 180);
    world.pod(pod, &invite, 200);
    let expected = [(To::Carrier, "180 INVITE"), (To::Carrier, "200 INVITE")];
    assert_said(&mut world, &expected);
    asked.push((pod, invite));
    asked.sort_by_key(|(pod, _)| *pod);
    asked.dedup_by_key(|(pod, _)| *pod);
    assert_eq!(asked.len(), MAX_TRIES);
    world.check_quiet();
}

#[test]
fn a_caller_who_gave_up_hears_so_whatever_becomes_of_the_pod() {
    let (mut world, _) = ringing();
    world.carrier("CANCEL", "1", "");
    let said = world.said();
    assert!(said.contains(&(To::Carrier, "200 CANCEL".to_owned())) && said.len() == 2);
    world
        .edge
        .flow_failed(&pod_flow(1), TransportError::Closed, world.now + seconds(1));
    assert_said(&mut world, &[(To::Carrier, "487 INVITE")]);
    world.carrier("ACK", "1", "");
    world.check_quiet();

    // One that would have another take it.
    let mut world = World::new(2);
    world.carrier("INVITE", "1", "");
    let (pod, invite) = world.asked();
    world.carrier("CANCEL", "1", "");
    let mut response = Response::to_request(&invite, 503, None);
    response
        .headers
        .push(crate::private::name(crate::private::TRY_ANOTHER), "1");
    world.said();
    world
        .edge
        .receive(response.into(), pod_flow(pod), world.now);
    let expected = [(To::Pod(pod), "ACK"), (To::Carrier, "487 INVITE")];
    assert_said(&mut world, &expected);
}

/// What the media pod is told to have as Contact, for an INVITE like this.
fn contact(uri: &str, more: &str, transport: Transport) -> String {
    contact_in(World::new(1), uri, more, transport)
}

fn contact_in(mut world: World, uri: &str, more: &str, transport: Transport) -> String {
    let text = format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {CARRIER};branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@192.0.2.1>;tag=a\r\nTo: <{uri}>\r\nCall-ID: call\r\nCSeq: 1 INVITE\r\n{more}\
         Content-Length: 0\r\n\r\n"
    );
    let message = parse_datagram(text.as_bytes()).unwrap();
    let remote = CARRIER.parse().unwrap();
    let flow = match transport {
        Transport::Udp => Flow::udp(remote),
        _ => Flow::open(transport, remote, 99),
    };
    world.edge.receive(message, flow, world.now);
    let invites = world.sent().into_iter().filter_map(|sent| match sent {
        (To::Pod(1), Message::Request(request)) => Some(request),
        _ => None,
    });
    let invite = invites.last().unwrap();
    let name = crate::private::name(crate::private::CONTACT);
    invite.headers.get(&name).unwrap().to_owned()
}

#[test]
fn who_asks_for_tls_on_the_whole_way_gets_a_contact_that_does() {
    let (sip, sips) = (
        "sip:+34911234567@198.51.100.7",
        "sips:+34911234567@198.51.100.7",
    );
    let plain = "Contact: <sip:alice@192.0.2.1>\r\n";
    let secure = "Contact: <sips:alice@192.0.2.1>\r\n";
    let routed = format!("Record-Route: <sip:192.0.2.1;lr>\r\n{secure}");
    let securely = format!("Record-Route: <sips:192.0.2.1;lr>\r\n{plain}");
    let usual = "sip:198.51.100.7:5061;transport=tls";
    for (uri, more, expected) in [
        (sip, plain, usual),
        (sips, plain, "sips:198.51.100.7:5061"),
        (sip, secure, "sips:198.51.100.7:5061"),
        (sip, &routed, usual),
        (sip, &securely, "sips:198.51.100.7:5061"),
    ] {
        assert_eq!(contact(uri, more, Transport::Tls), expected, "{uri} {more}");
    }
    // There is nothing to connect to over TLS.
    assert_eq!(
        contact(sips, plain, Transport::Udp),
        "sip:198.51.100.7:5060"
    );
}

#[test]
fn behind_services_whoever_asks_for_tls_is_told_of_the_one_for_tls() {
    let named = |name: &str, port| Some((ringwire_sip::message::Host::Name(name.into()), port));
    let fronts = Fronts {
        udp: named("udp.example.com", 30060),
        tcp: named("tcp.example.com", 30070),
        tls: named("tcp.example.com", 30061),
    };
    let (uri, plain) = (
        "sips:+34911234567@198.51.100.7",
        "Contact: <sip:alice@192.0.2.1>\r\n",
    );
    let world = World::behind(Some(fronts), 1, config());
    let contact = contact_in(world, uri, plain, Transport::Tls);
    assert_eq!(contact, "sips:tcp.example.com:30061");
}

/// A trunk whose callers have to log in.
fn asking() -> RegistrarConfig {
    let mut config = config();
    for provider in config.providers.values_mut() {
        let account = Account {
            username: "pbx".to_owned(),
            password: Secret::new("secret"),
        };
        provider.incoming = Some(vec![account]);
    }
    config
}

/// The only response to the carrier among what has been sent.
#[track_caller]
fn answered(world: &mut World) -> Response {
    let sent = world.sent();
    let [(To::Carrier, Message::Response(response))] = &sent[..] else {
        panic!("{sent:?}")
    };
    response.clone()
}

/// The header lines of a caller that was asked for its password.
fn login(challenge: &Response, password: &str) -> String {
    let credentials = Credentials {
        username: "pbx".to_owned(),
        password: password.to_owned(),
        realm: None,
    };
    let challenges = Challenge::from_response(challenge);
    let mut client = DigestClient::new();
    let answers = client.answer(
        &challenges,
        &credentials,
        &Method::INVITE,
        "sip:x",
        b"",
        "c0",
    );
    let mut lines = String::new();
    for (name, value) in answers.unwrap() {
        lines = format!("{lines}\r\n{}: {value}", name.as_str());
    }
    lines
}

#[test]
fn each_registrar_takes_the_answer_to_anothers_challenge() {
    let (mut one, mut other) = (World::with(1, asking()), World::with(1, asking()));
    one.carrier("INVITE", "1", "");
    let challenge = answered(&mut one);
    assert_eq!(challenge.status, 401);
    other.carrier("INVITE", "2", &login(&challenge, "secret"));
    let (_, invite) = other.asked();
    assert!(!invite.headers.has(&HeaderName::Authorization));
    one.carrier("INVITE", "3", "");
    let again = answered(&mut one);
    let nonce = |response| Challenge::from_response(response)[0].nonce.clone();
    assert_ne!(nonce(&challenge), nonce(&again));
}

#[test]
fn a_challenge_is_not_repeated_and_whoever_gives_no_answer_is_told_of_once() {
    let mut world = World::with(1, asking());
    world.carrier("INVITE", "1", "");
    assert_said(&mut world, &[(To::Carrier, "401 INVITE")]);
    world.check_quiet();
    assert_said(&mut world, &[]);
    let outputs = std::iter::from_fn(|| world.edge.poll_output());
    let refused = outputs.filter_map(|output| match output {
        Output::Refused(call) => Some(call.reason),
        _ => None,
    });
    assert_eq!(refused.collect::<Vec<_>>(), [Reason::CredentialsMissing]);
}

#[test]
fn a_wrong_password_is_refused_and_told_with_its_source() {
    let mut world = World::with(1, asking());
    world.carrier("INVITE", "1", "");
    let challenge = answered(&mut world);
    world.carrier("INVITE", "2", &login(&challenge, "guess"));
    assert_eq!(answered(&mut world).status, 403);
    let outputs: Vec<Output> = std::iter::from_fn(|| world.edge.poll_output()).collect();
    let is_told = |output: &Output| matches!(output, Output::WrongCredentials(source) if source.to_string() == "192.0.2.1");
    assert!(outputs.iter().any(is_told), "{outputs:?}");
    // Old by now: nothing is said of the password.
    world.wait(seconds(100));
    world.carrier("INVITE", "3", &login(&challenge, "guess"));
    world.collect();
    let mut sent = world.sent().into_iter().rev();
    let Some((_, Message::Response(again))) = sent.next() else {
        panic!()
    };
    assert_eq!(again.status, 401);
    assert!(Challenge::from_response(&again)[0].stale);
}

#[test]
fn requests_within_a_call_are_not_asked_again() {
    let mut world = World::with(1, asking());
    let tag = format!(";tag={}.1", key().sign(Incarnation(1)));
    for (method, branch) in [("INVITE", "1"), ("BYE", "2")] {
        world.carrier(method, branch, &tag);
        assert_eq!(world.asked().1.method.as_str(), method);
    }
}

/// What is in front has put its own address in the caller's place.
#[test]
fn a_call_from_the_address_of_a_node_is_refused_for_its_lost_source() {
    let mut config = config();
    for provider in config.providers.values_mut() {
        provider.server = Host::Address([203, 0, 113, 5].into());
    }
    let refused = |config: &RegistrarConfig| {
        let mut world = World::with(1, config.clone());
        world.carrier("INVITE", "1", "");
        let said = world.said();
        assert_eq!(said.last(), Some(&(To::Carrier, "403 INVITE".to_owned())));
        let mut outputs = std::iter::from_fn(|| world.edge.poll_output());
        outputs.find_map(|output| match output {
            Output::Refused(call) => Some(call.reason),
            _ => None,
        })
    };
    assert_eq!(refused(&config), Some(Reason::SourceNotAllowed));
    let node = NodeAddresses {
        internal: vec![[192, 0, 2, 1].into()],
        ..NodeAddresses::default()
    };
    config.settings.nodes.insert("node1".to_owned(), node);
    assert_eq!(refused(&config), Some(Reason::SourceAddressLost));
}
