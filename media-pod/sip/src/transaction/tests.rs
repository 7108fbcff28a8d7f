use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::message::{HeaderName, Host, Message, Method, Request, Response, Uri, parse_datagram};

const T1: Duration = Duration::from_millis(500);

fn peer() -> SocketAddr {
    "192.0.2.1:5060".parse().unwrap()
}

fn udp() -> Flow {
    Flow::udp(peer())
}

fn tcp() -> Flow {
    Flow::open(Transport::Tcp, peer(), 7)
}

fn endpoint() -> Endpoint {
    Endpoint::new(EndpointConfig::default(), 1)
}

fn request(method: Method) -> Request {
    let mut request = Request::new(method, Uri::parse("sip:bob@192.0.2.1").unwrap());
    let cseq = format!("1 {}", request.method);
    let headers = &mut request.headers;
    headers.push(HeaderName::MaxForwards, "70");
    headers.push(HeaderName::From, "<sip:alice@192.0.2.9>;tag=a");
    headers.push(HeaderName::To, "<sip:bob@192.0.2.1>");
    headers.push(HeaderName::CallId, "call-1");
    headers.push(HeaderName::CSeq, cseq);
    request
}

fn incoming(method: Method, branch: &str) -> Request {
    let mut request = request(method);
    request.headers.insert_first(
        HeaderName::Via,
        format!("SIP/2.0/UDP 192.0.2.1:5060;branch={branch};rport"),
    );
    request
}

fn send(endpoint: &mut Endpoint, method: Method, flow: Flow, now: Instant) -> ClientId {
    endpoint.request(request(method), flow, &Host::from("192.0.2.9"), 5060, now)
}

fn sent(endpoint: &mut Endpoint) -> Vec<Message> {
    std::iter::from_fn(|| endpoint.poll_transmit())
        .map(|sent| parse_datagram(&sent.bytes).expect("our own"))
        .collect()
}

fn sent_requests(endpoint: &mut Endpoint) -> Vec<Request> {
    sent(endpoint)
        .into_iter()
        .filter_map(|message| {
            if let Message::Request(request) = message {
                Some(request)
            } else {
                None
            }
        })
        .collect()
}

fn sent_statuses(endpoint: &mut Endpoint) -> Vec<u16> {
    sent(endpoint)
        .into_iter()
        .filter_map(|message| {
            if let Message::Response(response) = message {
                Some(response.status)
            } else {
                None
            }
        })
        .collect()
}

fn events(endpoint: &mut Endpoint) -> Vec<Event> {
    std::iter::from_fn(|| endpoint.poll_event()).collect()
}

fn names(endpoint: &mut Endpoint) -> Vec<&'static str> {
    events(endpoint)
        .iter()
        .map(|event| match event {
            Event::Request { .. } => "request",
            Event::Ack { .. } => "ack",
            Event::Cancelled { .. } => "cancelled",
            Event::Response { .. } => "response",
            Event::StrayResponse { .. } => "stray",
            Event::Retransmitted { .. } => "again",
            Event::Failed { .. } => "failed",
            Event::AckTimeout { .. } => "no ack",
            Event::Ended { .. } => "server ended",
            Event::ClientEnded { .. } => "client ended",
        })
        .collect()
}

/// Answers a request of the endpoint's, with a tag.
fn answer(endpoint: &mut Endpoint, request: &Request, status: u16, now: Instant) {
    let mut response = Response::to_request(request, status, None);
    response.set_to_tag("b");
    endpoint.receive(response.into(), udp(), now);
}

/// Runs until nothing is due any more; when what was sent, in milliseconds from `start`.
fn run(endpoint: &mut Endpoint, start: Instant) -> Vec<u128> {
    let mut times = Vec::new();
    while let Some(at) = endpoint.poll_timeout() {
        endpoint.handle_timeout(at);
        times.extend(
            sent(endpoint)
                .iter()
                .map(|_| at.duration_since(start).as_millis()),
        );
    }
    times
}

fn accept_request(endpoint: &mut Endpoint, request: Request, flow: Flow, now: Instant) -> ServerId {
    endpoint.receive(request.into(), flow, now);
    events(endpoint)
        .into_iter()
        .find_map(|event| {
            if let Event::Request { id, .. } = event {
                Some(id)
            } else {
                None
            }
        })
        .expect("a request")
}

fn respond(endpoint: &mut Endpoint, id: ServerId, to: &Request, status: u16, now: Instant) {
    let mut response = Response::to_request(to, status, None);
    response.set_to_tag("b");
    endpoint.respond(id, response, now);
}

#[test]
fn invite_is_repeated_by_timer_a_until_timer_b() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::INVITE, udp(), now);
    assert_eq!(sent(&mut endpoint).len(), 1);
    let start = now;
    let times = run(&mut endpoint, start);
    assert_eq!(times, [500, 1500, 3500, 7500, 15_500, 31_500]);
    let all = events(&mut endpoint);
    assert!(
        matches!(all[5], Event::Retransmitted { sends: 7, elapsed, .. } if elapsed == Duration::from_millis(31_500))
    );
    assert!(matches!(
        all[6],
        Event::Failed {
            error: ClientError::Timeout,
            ..
        }
    ));
    assert!(matches!(all[7], Event::ClientEnded { .. }));
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn other_requests_are_repeated_by_timer_e_until_timer_f() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::OPTIONS, udp(), now);
    sent(&mut endpoint);
    assert_eq!(
        run(&mut endpoint, now),
        [
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert_eq!(names(&mut endpoint).last(), Some(&"client ended"));
}

#[test]
fn a_provisional_slows_timer_e_to_t2_and_stops_timer_a() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::OPTIONS, udp(), now);
    let options = sent_requests(&mut endpoint).remove(0);
    answer(&mut endpoint, &options, 100, now);
    assert_eq!(
        run(&mut endpoint, now),
        [500, 4500, 8500, 12_500, 16_500, 20_500, 24_500, 28_500]
    );

    let id = send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    answer(&mut endpoint, &invite, 180, now);
    assert_eq!(
        endpoint.poll_timeout(),
        None,
        "how long it rings is the owner's decision"
    );
    endpoint.abandon_client(id);
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn nothing_is_repeated_over_a_stream() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::INVITE, tcp(), now);
    send(&mut endpoint, Method::OPTIONS, tcp(), now);
    sent(&mut endpoint);
    assert!(run(&mut endpoint, now).is_empty());
    assert_eq!(
        names(&mut endpoint),
        ["failed", "client ended", "failed", "client ended"]
    );
}

#[test]
fn a_refused_invite_is_acknowledged_each_time_until_timer_d() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    for _ in 0..3 {
        answer(&mut endpoint, &invite, 486, now);
        let ack = sent_requests(&mut endpoint).remove(0);
        assert_eq!(ack.method, Method::ACK);
        assert_eq!(
            ack.headers.get(&HeaderName::Via),
            invite.headers.get(&HeaderName::Via)
        );
        assert_eq!(ack.headers.cseq().unwrap(), (1, Method::ACK));
        assert_eq!(ack.headers.to().unwrap().tag(), Some("b"));
    }
    assert_eq!(names(&mut endpoint), ["response"]);
    assert_eq!(endpoint.poll_timeout(), Some(now + Duration::from_secs(32)));
    run(&mut endpoint, now);
    assert_eq!(names(&mut endpoint), ["client ended"]);
}

#[test]
fn timers_d_and_k_are_zero_over_a_stream() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::INVITE, tcp(), now);
    send(&mut endpoint, Method::OPTIONS, tcp(), now);
    for request in sent_requests(&mut endpoint) {
        answer(&mut endpoint, &request, 486, now);
    }
    assert_eq!(
        names(&mut endpoint),
        ["response", "client ended", "response", "client ended"]
    );
    assert_eq!(endpoint.counts(), Counts::default());
    assert_eq!(endpoint.poll_timeout(), None);
}

#[test]
fn timer_k_absorbs_repeated_answers() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::OPTIONS, udp(), now);
    let options = sent_requests(&mut endpoint).remove(0);
    answer(&mut endpoint, &options, 200, now);
    answer(&mut endpoint, &options, 200, now);
    assert_eq!(names(&mut endpoint), ["response"]);
    assert_eq!(endpoint.poll_timeout(), Some(now + Duration::from_secs(5)));
    run(&mut endpoint, now);
    answer(&mut endpoint, &options, 200, now);
    assert_eq!(names(&mut endpoint), ["client ended", "stray"]);
}

#[test]
fn every_2xx_to_an_invite_is_delivered_until_timer_m() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    for status in [180, 200, 200, 180, 486] {
        answer(&mut endpoint, &invite, status, now);
    }
    assert_eq!(
        names(&mut endpoint),
        ["response"; 3],
        "after a 2xx only further 2xx count"
    );
    assert!(
        sent(&mut endpoint).is_empty(),
        "the ACK for a 2xx is the owner's"
    );
    assert_eq!(endpoint.poll_timeout(), Some(now + T1 * 64));
    run(&mut endpoint, now);
    answer(&mut endpoint, &invite, 200, now);
    assert_eq!(names(&mut endpoint), ["client ended", "stray"]);
}

#[test]
fn a_response_needs_branch_and_method_of_the_request() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    let mut other = invite.clone();
    other.headers.set(HeaderName::CSeq, "1 OPTIONS");
    answer(&mut endpoint, &other, 200, now);
    other = invite;
    other
        .headers
        .replace_first(&HeaderName::Via, "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx");
    answer(&mut endpoint, &other, 200, now);
    assert_eq!(names(&mut endpoint), ["stray", "stray"]);
}

#[test]
fn cancel_waits_for_a_provisional_response() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let id = send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    let cancel_id = endpoint
        .cancel(id, Some("SIP;cause=200"), now)
        .expect("pending");
    assert_eq!(endpoint.cancel(id, None, now), None, "once is enough");
    assert!(sent(&mut endpoint).is_empty());
    assert_eq!(endpoint.counts().client, 2);
    answer(&mut endpoint, &invite, 100, now);
    let cancel = sent_requests(&mut endpoint).remove(0);
    assert_eq!(cancel.method, Method::CANCEL);
    assert_eq!(cancel.uri, invite.uri);
    assert_eq!(
        cancel.headers.get(&HeaderName::Via),
        invite.headers.get(&HeaderName::Via)
    );
    assert_eq!(cancel.headers.to().unwrap().tag(), None);
    assert_eq!(cancel.headers.cseq().unwrap(), (1, Method::CANCEL));
    assert_eq!(
        cancel.headers.get(&HeaderName::Reason),
        Some("SIP;cause=200")
    );
    answer(&mut endpoint, &cancel, 200, now);
    answer(&mut endpoint, &invite, 487, now);
    let all = events(&mut endpoint);
    assert!(matches!(&all[1], Event::Response { id, .. } if *id == cancel_id));
    assert!(
        matches!(&all[2], Event::Response { id: of, response, .. } if *of == id && response.status == 487)
    );
    assert_eq!(sent_requests(&mut endpoint)[0].method, Method::ACK);
    run(&mut endpoint, now);
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn cancel_never_goes_when_the_answer_came_first() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let id = send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    let cancel_id = endpoint.cancel(id, None, now).expect("pending");
    answer(&mut endpoint, &invite, 200, now);
    assert!(sent(&mut endpoint).is_empty());
    let all = events(&mut endpoint);
    assert!(matches!(&all[0], Event::Response { response, .. } if response.status == 200));
    assert!(matches!(all[1], Event::ClientEnded { id } if id == cancel_id));
    assert_eq!(endpoint.cancel(id, None, now), None);
    run(&mut endpoint, now);
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn a_cancelled_invite_without_final_response_fails() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let id = send(&mut endpoint, Method::INVITE, udp(), now);
    let invite = sent_requests(&mut endpoint).remove(0);
    answer(&mut endpoint, &invite, 180, now);
    endpoint.cancel(id, None, now);
    let cancel = sent_requests(&mut endpoint).remove(0);
    answer(&mut endpoint, &cancel, 200, now);
    answer(&mut endpoint, &invite, 180, now + T1);
    run(&mut endpoint, now);
    assert!(names(&mut endpoint).contains(&"failed"));
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn a_failed_flow_fails_its_requests() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    send(&mut endpoint, Method::OPTIONS, tcp(), now);
    let other = send(&mut endpoint, Method::OPTIONS, udp(), now);
    let invite = send(&mut endpoint, Method::INVITE, tcp(), now);
    endpoint.cancel(invite, None, now);
    endpoint.flow_failed(&tcp(), TransportError::Refused, now);
    assert_eq!(
        names(&mut endpoint),
        [
            "failed",
            "client ended",
            "client ended",
            "failed",
            "client ended"
        ]
    );
    assert_eq!(endpoint.counts().client, 1);
    endpoint.abandon_client(other);
    assert_eq!(endpoint.poll_timeout(), None);
}

#[test]
fn a_new_request_is_delivered_once_and_its_answer_repeated() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let options = incoming(Method::OPTIONS, "z9hG4bK1");
    let id = accept_request(&mut endpoint, options.clone(), udp(), now);
    endpoint.receive(options.clone().into(), udp(), now);
    assert!(sent(&mut endpoint).is_empty(), "nothing to repeat yet");
    respond(&mut endpoint, id, &options, 200, now);
    respond(&mut endpoint, id, &options, 500, now);
    endpoint.receive(options.clone().into(), udp(), now + T1);
    assert_eq!(sent_statuses(&mut endpoint), [200, 200]);
    assert!(events(&mut endpoint).is_empty());
    assert_eq!(endpoint.poll_timeout(), Some(now + T1 * 64), "timer J");
    run(&mut endpoint, now);
    assert_eq!(names(&mut endpoint), ["server ended"]);
}

#[test]
fn timers_i_and_j_are_zero_over_a_stream() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let options = incoming(Method::OPTIONS, "z9hG4bK1");
    let id = accept_request(&mut endpoint, options.clone(), tcp(), now);
    respond(&mut endpoint, id, &options, 200, now);
    assert_eq!(names(&mut endpoint), ["server ended"]);
    let invite = incoming(Method::INVITE, "z9hG4bK2");
    let id = accept_request(&mut endpoint, invite.clone(), tcp(), now);
    respond(&mut endpoint, id, &invite, 486, now);
    assert_eq!(
        endpoint.poll_timeout(),
        Some(now + T1 * 64),
        "timer H, without timer G"
    );
    endpoint.receive(incoming(Method::ACK, "z9hG4bK2").into(), tcp(), now);
    assert_eq!(names(&mut endpoint), ["server ended"]);
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn trying_goes_after_200_ms_or_at_once() {
    let now = Instant::now();
    let mut late = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    accept_request(&mut late, invite.clone(), udp(), now);
    assert_eq!(late.poll_timeout(), Some(now + Duration::from_millis(200)));
    late.receive(invite.clone().into(), udp(), now);
    assert!(sent(&mut late).is_empty());
    late.handle_timeout(now + Duration::from_millis(200));
    late.receive(invite.clone().into(), udp(), now);
    assert_eq!(sent_statuses(&mut late), [100, 100]);

    let config = EndpointConfig {
        trying_at_once: true,
        ..EndpointConfig::default()
    };
    let mut at_once = Endpoint::new(config, 1);
    let id = accept_request(&mut at_once, invite.clone(), udp(), now);
    assert_eq!(sent_statuses(&mut at_once), [100]);
    respond(&mut at_once, id, &invite, 180, now);
    at_once.receive(invite.into(), udp(), now);
    assert_eq!(sent_statuses(&mut at_once), [180, 180]);
}

#[test]
fn trying_does_not_go_when_something_else_went() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    respond(&mut endpoint, id, &invite, 180, now);
    assert_eq!(endpoint.poll_timeout(), None);
    assert_eq!(sent_statuses(&mut endpoint), [180]);
}

#[test]
fn a_refusal_is_repeated_by_timer_g_until_timer_h() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    respond(&mut endpoint, id, &invite, 486, now);
    sent(&mut endpoint);
    assert_eq!(
        run(&mut endpoint, now),
        [
            500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert_eq!(names(&mut endpoint), ["no ack", "server ended"]);
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn a_challenge_is_sent_once_for_each_invite_that_comes() {
    for (trying, challenge, repeats) in [(false, 401, 0), (false, 407, 0), (true, 401, 10)] {
        let now = Instant::now();
        let mut endpoint = endpoint();
        let invite = incoming(Method::INVITE, "z9hG4bK1");
        let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
        if trying {
            respond(&mut endpoint, id, &invite, 100, now);
        }
        respond(&mut endpoint, id, &invite, challenge, now);
        sent(&mut endpoint);
        endpoint.receive(invite.clone().into(), udp(), now);
        assert_eq!(sent_statuses(&mut endpoint), [challenge]);
        // Who has heard 100 does not send the INVITE again.
        assert_eq!(run(&mut endpoint, now).len(), repeats);
        assert_eq!(endpoint.counts(), Counts::default());
    }
}

#[test]
fn the_ack_for_a_refusal_is_absorbed_until_timer_i() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    respond(&mut endpoint, id, &invite, 486, now);
    sent(&mut endpoint);
    for _ in 0..2 {
        endpoint.receive(incoming(Method::ACK, "z9hG4bK1").into(), udp(), now);
    }
    endpoint.receive(invite.into(), udp(), now);
    assert!(sent(&mut endpoint).is_empty());
    assert_eq!(endpoint.poll_timeout(), Some(now + Duration::from_secs(5)));
    run(&mut endpoint, now);
    assert_eq!(names(&mut endpoint), ["server ended"]);
}

#[test]
fn a_2xx_may_be_sent_again_and_repeats_of_the_invite_are_absorbed_until_timer_l() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    respond(&mut endpoint, id, &invite, 200, now);
    endpoint.receive(invite.clone().into(), udp(), now);
    assert_eq!(sent_statuses(&mut endpoint), [200]);
    respond(&mut endpoint, id, &invite, 200, now + T1);
    respond(&mut endpoint, id, &invite, 486, now + T1);
    assert_eq!(sent_statuses(&mut endpoint), [200]);
    endpoint.receive(incoming(Method::ACK, "z9hG4bKother").into(), udp(), now);
    endpoint.receive(incoming(Method::ACK, "z9hG4bK1").into(), udp(), now);
    assert_eq!(names(&mut endpoint), ["ack", "ack"]);
    assert_eq!(endpoint.poll_timeout(), Some(now + T1 * 64));
    run(&mut endpoint, now);
    assert_eq!(names(&mut endpoint), ["server ended"]);
}

#[test]
fn cancel_is_answered_and_told_while_the_invite_is_pending() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    respond(&mut endpoint, id, &invite, 180, now);
    sent(&mut endpoint);
    let cancel = incoming(Method::CANCEL, "z9hG4bK1");
    endpoint.receive(cancel.clone().into(), udp(), now);
    endpoint.receive(cancel.into(), udp(), now);
    let answers = sent(&mut endpoint);
    assert_eq!(answers.len(), 2);
    assert_eq!(
        answers[0].headers().to().unwrap().tag(),
        Some("b"),
        "the tag of our 180"
    );
    assert!(matches!(events(&mut endpoint)[..], [Event::Cancelled { id: of, .. }] if of == id));
    respond(&mut endpoint, id, &invite, 487, now);
    endpoint.receive(incoming(Method::ACK, "z9hG4bK1").into(), udp(), now);
    run(&mut endpoint, now);
    assert_eq!(
        names(&mut endpoint),
        ["server ended"],
        "the CANCEL's own transaction is not the owner's"
    );
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn cancel_after_the_answer_is_answered_and_has_no_effect() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    respond(&mut endpoint, id, &invite, 200, now);
    sent(&mut endpoint);
    endpoint.receive(incoming(Method::CANCEL, "z9hG4bK1").into(), udp(), now);
    assert_eq!(sent_statuses(&mut endpoint), [200]);
    assert!(events(&mut endpoint).is_empty());
}

#[test]
fn cancel_for_nothing_gets_481() {
    let mut endpoint = endpoint();
    endpoint.receive(
        incoming(Method::CANCEL, "z9hG4bK1").into(),
        udp(),
        Instant::now(),
    );
    assert_eq!(sent_statuses(&mut endpoint), [481]);
    assert!(events(&mut endpoint).is_empty());
    assert_eq!(endpoint.counts(), Counts::default());
}

#[test]
fn old_peers_are_told_apart_without_a_branch() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let old = |method, cseq: &str| {
        let mut request = incoming(method, "1");
        request.headers.set(HeaderName::CSeq, cseq);
        request
    };
    let invite = old(Method::INVITE, "1 INVITE");
    let id = accept_request(&mut endpoint, invite.clone(), udp(), now);
    endpoint.receive(invite.clone().into(), udp(), now);
    assert!(events(&mut endpoint).is_empty());
    respond(&mut endpoint, id, &invite, 486, now);
    endpoint.receive(old(Method::ACK, "1 ACK").into(), udp(), now);
    assert!(events(&mut endpoint).is_empty(), "the ACK found its INVITE");
    accept_request(&mut endpoint, old(Method::INVITE, "2 INVITE"), udp(), now);
}

#[test]
fn answers_go_to_the_source_port_only_if_asked_for() {
    let now = Instant::now();
    let source = Flow::udp("203.0.113.7:40000".parse().unwrap());
    for (via, expected, received) in [
        (
            "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1;rport",
            "203.0.113.7:40000",
            true,
        ),
        (
            "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK2",
            "203.0.113.7:5070",
            true,
        ),
        (
            "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK3",
            "203.0.113.7:5060",
            true,
        ),
    ] {
        let mut endpoint = endpoint();
        let mut options = request(Method::OPTIONS);
        options.headers.insert_first(HeaderName::Via, via);
        endpoint.receive(options.into(), source.clone(), now);
        let Some(Event::Request { id, request, .. }) = endpoint.poll_event() else {
            panic!("a request")
        };
        assert_eq!(
            request.headers.via().unwrap().received().is_some(),
            received
        );
        respond(&mut endpoint, id, &request, 200, now);
        assert_eq!(
            endpoint.poll_transmit().unwrap().flow.remote,
            expected.parse().unwrap()
        );
    }
}

#[test]
fn too_many_transactions_get_503_except_inside_dialogs() {
    let now = Instant::now();
    let config = EndpointConfig {
        max_transactions: 4,
        ..EndpointConfig::default()
    };
    let mut endpoint = Endpoint::new(config, 1);
    for number in 0..6 {
        endpoint.receive(
            incoming(Method::INVITE, &format!("z9hG4bK{number}")).into(),
            udp(),
            now,
        );
    }
    assert_eq!(sent_statuses(&mut endpoint), [503, 503]);
    assert_eq!(
        endpoint.counts(),
        Counts {
            client: 0,
            server: 4,
            refused: 2
        }
    );
    let mut bye = incoming(Method::BYE, "z9hG4bKbye");
    bye.headers.set(HeaderName::To, "<sip:bob@192.0.2.1>;tag=b");
    accept_request(&mut endpoint, bye, udp(), now);
}

#[test]
fn the_same_invite_over_two_paths_is_merged() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let first = accept_request(
        &mut endpoint,
        incoming(Method::INVITE, "z9hG4bK1"),
        udp(),
        now,
    );
    let second = accept_request(
        &mut endpoint,
        incoming(Method::INVITE, "z9hG4bK2"),
        udp(),
        now,
    );
    assert!(!endpoint.is_merged(first));
    assert!(endpoint.is_merged(second));
}

#[test]
fn a_response_over_a_stream_knows_where_to_go_once_that_has_closed() {
    let now = Instant::now();
    let link = Flow::open(Transport::Tcp, "0.0.0.0:0".parse().unwrap(), 7);
    let tls = Flow::open(Transport::Tls, peer(), 7);
    for (flow, sent_by, expected) in [
        (tcp(), "192.0.2.99:5070", Some("192.0.2.1:5070")),
        (tcp(), "pbx.example", Some("192.0.2.1:5060")),
        (tls, "pbx.example", Some("192.0.2.1:5061")),
        (udp(), "192.0.2.99:5070", None),
        (link, "media.invalid:5060", None),
    ] {
        let mut endpoint = endpoint();
        let mut invite = request(Method::INVITE);
        let via = format!("SIP/2.0/TCP {sent_by};branch=z9hG4bK1;rport");
        invite.headers.insert_first(HeaderName::Via, via);
        endpoint.receive(invite.into(), flow.clone(), now);
        let Some(Event::Request { id, request, .. }) = endpoint.poll_event() else {
            panic!("the INVITE was not told")
        };
        endpoint.respond(id, Response::to_request(&request, 180, None), now);
        let sent = endpoint.poll_transmit().unwrap();
        assert_eq!(sent.flow, flow);
        let expected: Option<SocketAddr> = expected.map(|text| text.parse().unwrap());
        assert_eq!(sent.otherwise, expected, "{sent_by}");
    }
}

#[test]
fn an_answer_to_a_challenge_with_the_same_cseq_is_not_merged() {
    let now = Instant::now();
    let mut endpoint = endpoint();
    let invite = incoming(Method::INVITE, "z9hG4bK1");
    let first = accept_request(&mut endpoint, invite.clone(), udp(), now);
    endpoint.respond(first, Response::to_request(&invite, 401, None), now);
    let again = incoming(Method::INVITE, "z9hG4bK2");
    let second = accept_request(&mut endpoint, again, udp(), now);
    assert!(!endpoint.is_merged(second));
}
