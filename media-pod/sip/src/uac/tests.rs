use std::time::Instant;

use super::*;
use crate::dialog::testing::{sdp, simulate, uac_params};

fn invite_of(call: &mut UacCall) -> (u64, Request) {
    match call.poll_action() {
        Some(Action::Request { token, request }) => (token, request),
        other => panic!("no request but {other:?}"),
    }
}

fn reply(request: &Request, status: u16, tag: &str, body: Option<&str>) -> Response {
    let mut response = Response::to_request(request, status, None);
    response.set_to_tag(tag);
    response
        .headers
        .push(HeaderName::Contact, "<sip:bob@192.0.2.77>");
    if let Some(body) = body {
        response.set_body("application/sdp", body.as_bytes().to_vec());
    }
    response
}

fn ended(call: &mut UacCall) -> Option<(EndedBy, Option<u16>)> {
    std::iter::from_fn(|| call.poll_event()).find_map(|event| match event {
        CallEvent::Ended { by, status, .. } => Some((by, status)),
        _ => None,
    })
}

#[test]
fn every_repeated_2xx_is_acknowledged_again() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    let ok = reply(&invite, 200, "b", Some(&sdp(4000, "0", "sendrecv")));
    for _ in 0..2 {
        call.on_response(token, &ok, now);
        let Some(Action::Ack { request }) = call.poll_action() else {
            panic!("an ACK")
        };
        assert_eq!(request.uri.to_string(), "sip:bob@192.0.2.77");
        assert_eq!(request.headers.cseq().unwrap(), (1, Method::ACK));
    }
    assert!(call.poll_action().is_none());
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4000);
}

#[test]
fn a_second_fork_is_acknowledged_and_ended() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    let body = sdp(4000, "0", "sendrecv");
    call.on_response(token, &reply(&invite, 200, "b", Some(&body)), now);
    call.poll_action();
    call.on_response(token, &reply(&invite, 200, "fork", Some(&body)), now);
    assert!(
        matches!(call.poll_action(), Some(Action::Ack { request }) if request.headers.to().unwrap().tag() == Some("fork"))
    );
    let (_, bye) = invite_of(&mut call);
    assert_eq!(
        (bye.method.as_str(), bye.headers.to().unwrap().tag()),
        ("BYE", Some("fork"))
    );
    assert!(!call.is_ended());
}

#[test]
fn a_challenge_is_answered_once() {
    let now = Instant::now();
    let credentials = Credentials {
        username: "alice".to_owned(),
        password: "secret".to_owned(),
        realm: None,
    };
    let mut call = UacCall::new(
        UacParams {
            credentials: Some(credentials),
            ..uac_params()
        },
        now,
    );
    let (token, invite) = invite_of(&mut call);
    let mut challenge = reply(&invite, 407, "p", None);
    challenge.headers.push(
        HeaderName::ProxyAuthenticate,
        "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"",
    );
    call.on_response(token, &challenge, now);
    let (token, second) = invite_of(&mut call);
    assert_eq!(second.headers.cseq().unwrap().0, 2);
    assert!(
        second
            .headers
            .get(&HeaderName::ProxyAuthorization)
            .unwrap()
            .contains("username=\"alice\"")
    );
    // The PRACK does not wait to be asked.
    call.on_response(token, &reliable(&second, 1, "b", None), now);
    let (_, prack) = invite_of(&mut call);
    let signed = prack.headers.get(&HeaderName::ProxyAuthorization).unwrap();
    assert!(signed.contains("nc=00000002"), "{signed}");
    call.poll_event();
    let mut again = reply(&second, 407, "p", None);
    again.headers.push(
        HeaderName::ProxyAuthenticate,
        "Digest realm=\"r\", nonce=\"m\", qop=\"auth\"",
    );
    call.on_response(token, &again, now);
    assert_eq!(ended(&mut call), Some((EndedBy::Peer, Some(407))));
}

#[test]
fn a_proxy_and_the_server_behind_it_may_each_ask() {
    let now = Instant::now();
    let credentials = Credentials {
        username: "alice".to_owned(),
        password: "secret".to_owned(),
        realm: None,
    };
    let mut call = UacCall::new(
        UacParams {
            credentials: Some(credentials),
            ..uac_params()
        },
        now,
    );
    let asks = |request: &Request, status: u16, realm: &str, nonce: &str| {
        let mut response = reply(request, status, "x", None);
        let name = if status == 407 {
            HeaderName::ProxyAuthenticate
        } else {
            HeaderName::WwwAuthenticate
        };
        let challenge = format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\"");
        response.headers.push(name, challenge);
        response
    };
    let answered = |request: &Request| -> Vec<String> {
        let headers = &request.headers;
        [HeaderName::ProxyAuthorization, HeaderName::Authorization]
            .iter()
            .flat_map(|name| headers.get_all(name))
            .map(|value| {
                let (_, rest) = value.split_once("realm=\"").unwrap();
                rest.split('"').next().unwrap().to_owned()
            })
            .collect()
    };
    let (token, first) = invite_of(&mut call);
    call.on_response(token, &asks(&first, 407, "outer", "1"), now);
    let (token, second) = invite_of(&mut call);
    assert_eq!(answered(&second), ["outer"]);
    call.on_response(token, &asks(&second, 407, "inner", "2"), now);
    let (token, third) = invite_of(&mut call);
    assert_eq!(answered(&third), ["outer", "inner"]);
    call.on_response(token, &asks(&third, 401, "server", "3"), now);
    let (token, last) = invite_of(&mut call);
    assert_eq!(answered(&last), ["outer", "inner", "server"]);
    assert_eq!(last.headers.cseq().unwrap().0, 4);
    let sdp = sdp(4000, "0", "sendrecv");
    call.on_response(token, &reply(&last, 200, "b", Some(&sdp)), now);
    assert!(matches!(call.poll_action(), Some(Action::Ack { .. })));
    // The same for the BYE, until one of them asks again without saying that the nonce was stale.
    call.hang_up(None, now);
    let (token, bye) = invite_of(&mut call);
    call.on_response(token, &asks(&bye, 407, "outer", "4"), now);
    let (token, bye) = invite_of(&mut call);
    call.on_response(token, &asks(&bye, 401, "server", "5"), now);
    let (token, bye) = invite_of(&mut call);
    assert_eq!(answered(&bye), ["outer", "server"]);
    assert!(!call.is_ended());
    call.on_response(token, &asks(&bye, 407, "outer", "6"), now);
    assert!(call.poll_action().is_none() && call.is_ended());
}

#[test]
fn hanging_up_before_the_answer_cancels_and_a_late_2xx_is_ended() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    call.on_response(token, &reply(&invite, 180, "b", None), now);
    call.hang_up(None, now);
    assert!(matches!(call.poll_action(), Some(Action::Cancel { token: of }) if of == token));
    call.on_response(
        token,
        &reply(&invite, 200, "b", Some(&sdp(4000, "0", "sendrecv"))),
        now,
    );
    assert!(matches!(call.poll_action(), Some(Action::Ack { .. })));
    let (bye_token, bye) = invite_of(&mut call);
    assert_eq!(bye.method, Method::BYE);
    assert!(ended(&mut call).is_none());
    call.on_response(bye_token, &Response::to_request(&bye, 200, None), now);
    assert_eq!(ended(&mut call), Some((EndedBy::Us, None)));
}

#[test]
fn an_unusable_answer_ends_the_call() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    call.on_response(token, &reply(&invite, 200, "b", None), now);
    assert!(matches!(call.poll_action(), Some(Action::Ack { .. })));
    assert_eq!(invite_of(&mut call).1.method, Method::BYE);
}

#[test]
fn early_media_is_told_and_stays_when_the_2xx_has_no_body() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    call.on_response(
        token,
        &reply(&invite, 183, "b", Some(&sdp(4002, "8", "sendrecv"))),
        now,
    );
    assert!(matches!(
        call.poll_event(),
        Some(CallEvent::Progress { status: 183 })
    ));
    assert!(matches!(
        call.poll_event(),
        Some(CallEvent::MediaChanged(_))
    ));
    call.on_response(token, &reply(&invite, 200, "b", None), now);
    assert!(matches!(call.poll_event(), Some(CallEvent::Answered)));
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4002);
}

fn reliable(request: &Request, rseq: u32, tag: &str, body: Option<&str>) -> Response {
    let mut response = reply(request, 183, tag, body);
    response.headers.push(HeaderName::Require, "100rel");
    response.headers.push(HeaderName::Rseq, rseq.to_string());
    response
}

#[test]
fn each_reliable_response_is_acknowledged_once_and_in_order() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    assert!(invite.headers.lists(&HeaderName::Supported, "100rel"));
    for (rseq, acknowledged) in [(7, true), (7, false), (9, false), (8, true), (9, true)] {
        call.on_response(token, &reliable(&invite, rseq, "b", None), now);
        let told = matches!(call.poll_event(), Some(CallEvent::Progress { status: 183 }));
        assert_eq!(told, acknowledged);
        let Some(action) = call.poll_action() else {
            assert!(!acknowledged);
            continue;
        };
        let Action::Request { request, .. } = action else {
            panic!("no PRACK but {action:?}")
        };
        assert!(acknowledged);
        assert_eq!(request.method, Method::PRACK);
        assert_eq!(
            request.headers.get(&HeaderName::Rack),
            Some(format!("{rseq} 1 INVITE").as_str())
        );
        assert_eq!(request.uri.to_string(), "sip:bob@192.0.2.77");
        assert_eq!(request.headers.to().unwrap().tag(), Some("b"));
    }
}

#[test]
fn the_first_reliable_answer_counts_and_an_update_may_change_it() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    let id = ServerId::for_test(1);
    let mut update = Request::new(Method::UPDATE, invite.uri.clone());
    for (name, value) in [
        (HeaderName::Via, "SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK1"),
        (HeaderName::From, "<sip:bob@192.0.2.9>;tag=b"),
        (HeaderName::To, "<sip:alice@192.0.2.1>;tag=a"),
        (HeaderName::CallId, "call-1"),
        (HeaderName::CSeq, "1 UPDATE"),
    ] {
        update.headers.push(name, value);
    }
    update.set_body("application/sdp", sdp(4006, "0", "sendrecv").into_bytes());
    let mut asked = |call: &mut UacCall, number: u32| {
        update
            .headers
            .set(HeaderName::CSeq, format!("{number} UPDATE"));
        call.on_request(id, &update, now);
        match call.poll_action() {
            Some(Action::Respond { response, .. }) => response.status,
            other => panic!("no answer but {other:?}"),
        }
    };
    assert_eq!(asked(&mut call, 1), 481, "no dialog yet");
    call.on_response(token, &reliable(&invite, 1, "b", None), now);
    call.poll_action();
    assert_eq!(asked(&mut call, 2), 491, "our offer is open");
    let answer = sdp(4002, "8", "sendrecv");
    call.on_response(token, &reliable(&invite, 2, "b", Some(&answer)), now);
    call.poll_action();
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4002);
    assert_eq!(asked(&mut call, 3), 200);
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4006);
    let other = sdp(4008, "0", "sendrecv");
    call.on_response(token, &reply(&invite, 200, "b", Some(&other)), now);
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4006);
}

#[test]
fn the_route_and_target_of_the_2xx_count_and_not_those_of_before() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    let mut early = reliable(&invite, 1, "b", None);
    early
        .headers
        .push(HeaderName::RecordRoute, "<sip:early;lr>");
    call.on_response(token, &early, now);
    let (_, prack) = invite_of(&mut call);
    assert_eq!(
        prack.headers.get(&HeaderName::Route),
        Some("<sip:early;lr>")
    );
    let mut ok = reply(&invite, 200, "b", Some(&sdp(4000, "0", "sendrecv")));
    ok.headers.set(HeaderName::Contact, "<sip:bob@192.0.2.88>");
    ok.headers
        .push(HeaderName::RecordRoute, "<sip:p2;lr>, <sip:p1;lr>");
    call.on_response(token, &ok, now);
    let Some(Action::Ack { request: ack }) = call.poll_action() else {
        panic!("an ACK")
    };
    assert_eq!(ack.uri.to_string(), "sip:bob@192.0.2.88");
    let routes: Vec<_> = ack.headers.get_all(&HeaderName::Route).collect();
    assert_eq!(routes, ["<sip:p1;lr>", "<sip:p2;lr>"]);
}

#[test]
fn a_fork_that_was_acknowledged_early_is_ended_with_a_later_number() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    for tag in ["b", "fork"] {
        call.on_response(token, &reliable(&invite, 1, tag, None), now);
        assert_eq!(invite_of(&mut call).1.headers.cseq().unwrap().0, 2);
    }
    let body = sdp(4000, "0", "sendrecv");
    call.on_response(token, &reply(&invite, 200, "b", Some(&body)), now);
    call.poll_action();
    call.on_response(token, &reply(&invite, 200, "fork", Some(&body)), now);
    call.poll_action();
    let (_, bye) = invite_of(&mut call);
    assert_eq!(bye.headers.cseq().unwrap(), (3, Method::BYE));
    call.hang_up(None, now);
    let (_, bye) = invite_of(&mut call);
    assert_eq!(bye.headers.cseq().unwrap(), (3, Method::BYE));
}

#[test]
fn no_answer_at_all_ends_the_call() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, _) = invite_of(&mut call);
    call.on_failed(token, now);
    assert_eq!(ended(&mut call), Some((EndedBy::NoAnswer, None)));
}

#[test]
fn calls_over_a_bad_network_always_end_on_both_sides() {
    let (mut stood, mut never, mut refreshes) = (0, 0, 0);
    for seed in 0..600 {
        let outcome = simulate(seed);
        stood += u32::from(outcome.confirmed_by_both);
        never += u32::from(outcome.answered_by_none);
        refreshes += outcome.refreshes;
    }
    // Otherwise the simulation would show nothing.
    assert!(
        stood > 150 && never > 50 && refreshes > 100,
        "{stood} calls stood, {never} were never answered, {refreshes} refreshes"
    );
}

fn redirected(request: &Request, contacts: &[&str]) -> Response {
    let mut response = Response::to_request(request, 302, None);
    response.set_to_tag("moved");
    for contact in contacts {
        response.headers.push(HeaderName::Contact, *contact);
    }
    response
}

#[test]
fn a_redirection_is_followed_where_that_is_allowed() {
    let now = Instant::now();
    let params = UacParams {
        follow_redirects: true,
        ..uac_params()
    };
    let mut call = UacCall::new(params, now);
    let (token, first) = invite_of(&mut call);
    let contacts = [
        "<sip:low@192.0.2.51>;q=0.1, <mailto:bob@example.com>",
        "<sip:best@192.0.2.52?Subject=x>;q=0.9",
    ];
    call.on_response(token, &redirected(&first, &contacts), now);
    let (token, second) = invite_of(&mut call);
    assert_eq!(second.uri.to_string(), "sip:best@192.0.2.52");
    let headers = &second.headers;
    assert_eq!(headers.cseq().unwrap(), (2, Method::INVITE));
    assert_eq!(headers.call_id().unwrap(), first.headers.call_id().unwrap());
    assert_eq!(headers.to().unwrap().tag(), None);
    // It leads back to the first, and in a circle: neither is tried again.
    let back = format!("<{}>", first.uri);
    call.on_response(
        token,
        &redirected(&second, &[&back, "<sip:best@192.0.2.52>"]),
        now,
    );
    let (token, third) = invite_of(&mut call);
    assert_eq!(third.uri.to_string(), "sip:low@192.0.2.51");
    call.on_response(token, &reply(&third, 486, "b", None), now);
    assert_eq!(ended(&mut call), Some((EndedBy::Peer, Some(486))));
    assert!(call.poll_action().is_none());
}

#[test]
fn a_redirection_ends_the_call_where_it_is_not_allowed_or_leads_nowhere() {
    let now = Instant::now();
    for (follow_redirects, contacts) in [
        (false, &["<sip:bob@192.0.2.51>"][..]),
        (true, &[]),
        (true, &["<tel:+34600000000>"]),
        (true, &["<not a uri"]),
    ] {
        let params = UacParams {
            follow_redirects,
            ..uac_params()
        };
        let mut call = UacCall::new(params, now);
        let (token, invite) = invite_of(&mut call);
        call.on_response(token, &redirected(&invite, contacts), now);
        assert_eq!(ended(&mut call), Some((EndedBy::Peer, Some(302))));
    }
}

#[test]
fn early_media_ends_with_the_fork_that_sent_it() {
    let now = Instant::now();
    let mut call = UacCall::new(uac_params(), now);
    let (token, invite) = invite_of(&mut call);
    assert!(invite.headers.lists(&HeaderName::Supported, "199"));
    let early = reply(&invite, 183, "a", Some(&sdp(4000, "0", "sendrecv")));
    call.on_response(token, &early, now);
    assert!(call.negotiated().is_some());
    call.on_response(token, &reply(&invite, 199, "other", None), now);
    assert!(call.negotiated().is_some());
    call.on_response(token, &reply(&invite, 199, "a", None), now);
    assert!(call.negotiated().is_none());
    let answer = reply(&invite, 200, "b", Some(&sdp(4002, "0", "sendrecv")));
    call.on_response(token, &answer, now);
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4002);
}
