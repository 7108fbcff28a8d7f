mod offers;
mod reliable;
mod timers;

use std::time::{Duration, Instant};

use super::*;
use crate::dialog::testing::{T1, from_peer, local, sdp, uas_params};

fn call(body: Option<&str>) -> UasCall {
    UasCall::new(from_peer("INVITE", 1, body), uas_params(), Instant::now()).expect("a good INVITE")
}

fn answered(now: Instant) -> UasCall {
    let mut call = call(Some(&sdp(4000, "0 101", "sendrecv")));
    call.accept(now);
    call.on_ack(&from_peer("ACK", 1, None), now);
    drain(&mut call);
    call
}

fn drain(call: &mut UasCall) -> (Vec<Action>, Vec<CallEvent>) {
    (
        std::iter::from_fn(|| call.poll_action()).collect(),
        std::iter::from_fn(|| call.poll_event()).collect(),
    )
}

/// Hands in a request and gives back its only answer.
fn ask(call: &mut UasCall, request: &Request, now: Instant) -> Response {
    let id = ServerId::for_test(99);
    call.on_request(id, request, now);
    match call.poll_action() {
        Some(Action::Respond { to, response }) if to == RespondTo::Request(id) => response,
        other => panic!("no answer but {other:?}"),
    }
}

/// The only response to the INVITE.
fn response(call: &mut UasCall) -> Response {
    match call.poll_action() {
        Some(Action::Respond {
            to: RespondTo::Invite,
            response,
        }) => {
            assert!(call.poll_action().is_none());
            response
        }
        other => panic!("no response but {other:?}"),
    }
}

fn ended(events: &[CallEvent]) -> Option<EndedBy> {
    events.iter().find_map(|event| {
        if let CallEvent::Ended { by, .. } = event {
            Some(*by)
        } else {
            None
        }
    })
}

fn refused(request: Request) -> Response {
    match UasCall::new(request, uas_params(), Instant::now()) {
        Ok(_) => panic!("not refused"),
        Err(response) => response,
    }
}

#[test]
fn unknown_requirements_get_420_naming_them() {
    let mut invite = from_peer("INVITE", 1, None);
    invite
        .headers
        .push(HeaderName::Require, "100rel, timer, precondition, x");
    let response = refused(invite);
    assert_eq!(response.status, 420);
    assert_eq!(
        response.headers.get(&HeaderName::Unsupported),
        Some("precondition, x")
    );
    assert_eq!(response.headers.to().unwrap().tag(), Some("b"));
}

#[test]
fn useless_offers_are_refused_with_the_reason() {
    let no_codec = refused(from_peer("INVITE", 1, Some(&sdp(4000, "18", "sendrecv"))));
    assert_eq!(no_codec.status, 488);
    assert!(
        no_codec
            .headers
            .get(&HeaderName::Warning)
            .unwrap()
            .starts_with("305 ")
    );
    let encrypted = sdp(4000, "0", "sendrecv").replace("RTP/AVP", "RTP/SAVP");
    let encrypted = refused(from_peer("INVITE", 1, Some(&encrypted)));
    assert!(
        encrypted
            .headers
            .get(&HeaderName::Warning)
            .unwrap()
            .starts_with("302 ")
    );
    assert_eq!(refused(from_peer("INVITE", 1, Some("no sdp"))).status, 400);
    let mut other = from_peer("INVITE", 1, None);
    other.set_body("text/plain", b"hello".to_vec());
    let other = refused(other);
    assert_eq!(
        (other.status, other.headers.get(&HeaderName::Accept)),
        (415, Some("application/sdp"))
    );
    let mut no_contact = from_peer("INVITE", 1, None);
    no_contact.headers.remove(&HeaderName::Contact);
    assert_eq!(refused(no_contact).status, 400);
}

#[test]
fn ringing_is_said_again_every_minute_until_the_answer() {
    let begun = Instant::now();
    let mut call = call(Some(&sdp(4000, "8 0", "sendrecv")));
    assert_eq!(call.poll_timeout(), None);
    call.ring(begun);
    let first = response(&mut call);
    for minute in 1..6 {
        let now = begun + Duration::from_secs(60) * minute;
        call.handle_timeout(now.checked_sub(Duration::from_millis(1)).unwrap());
        assert!(call.poll_action().is_none());
        assert_eq!(call.poll_timeout(), Some(now));
        call.handle_timeout(now);
        assert_eq!(response(&mut call), first);
    }
    // Early media is said again with its answer, so that one who missed it hears us.
    let now = begun + Duration::from_secs(320);
    call.progress(now);
    let first = response(&mut call);
    call.handle_timeout(now + Duration::from_secs(60));
    let again = response(&mut call);
    assert_eq!(again, first);
    assert!(again.status == 183 && again.body.starts_with(b"v=0"));
    call.accept(now);
    drain(&mut call);
    call.on_ack(&from_peer("ACK", 1, None), now);
    assert_eq!(call.poll_timeout(), None);
}

#[test]
fn a_quick_answer_or_an_early_end_is_followed_by_no_ringing() {
    let now = Instant::now();
    for cancelled in [false, true] {
        let mut call = call(Some(&sdp(4000, "8 0", "sendrecv")));
        call.ring(now);
        if cancelled {
            call.on_cancel(None, now);
        } else {
            call.accept(now);
            call.on_ack(&from_peer("ACK", 1, None), now);
        }
        drain(&mut call);
        assert_eq!(call.poll_timeout(), None);
        call.handle_timeout(now + Duration::from_secs(600));
        assert!(call.poll_action().is_none());
    }
}

#[test]
fn rings_once_and_answers_with_the_route_and_the_answer() {
    let now = Instant::now();
    let mut invite = from_peer("INVITE", 1, Some(&sdp(4000, "8 0", "sendrecv")));
    invite.headers.push(HeaderName::RecordRoute, "<sip:p2;lr>");
    invite.headers.push(HeaderName::RecordRoute, "<sip:p1;lr>");
    let mut call = UasCall::new(invite, uas_params(), now).expect("good");
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4000);
    call.ring(now);
    call.ring(now);
    call.set_local(local(7000));
    call.accept(now);
    call.accept(now);
    let (actions, _) = drain(&mut call);
    let [
        Action::Respond {
            response: ringing, ..
        },
        Action::Respond { response: ok, .. },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((ringing.status, ok.status), (180, 200));
    assert_eq!(
        ok.headers
            .get_all(&HeaderName::RecordRoute)
            .collect::<Vec<_>>(),
        ["<sip:p2;lr>", "<sip:p1;lr>"]
    );
    assert!(String::from_utf8_lossy(&ok.body).contains("m=audio 7000 "));
    call.on_ack(&from_peer("ACK", 1, None), now);
    call.hang_up(None, now);
    let (actions, _) = drain(&mut call);
    let [Action::Request { request: bye, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        bye.headers.get_all(&HeaderName::Route).collect::<Vec<_>>(),
        ["<sip:p2;lr>", "<sip:p1;lr>"]
    );
    assert_eq!(bye.uri.to_string(), "sip:alice@192.0.2.1:5060");
    assert_eq!(bye.headers.from_().unwrap().tag(), Some("b"));
}

#[test]
fn strict_routers_get_their_own_uri_in_the_request_line() {
    let now = Instant::now();
    let mut invite = from_peer("INVITE", 1, Some(&sdp(4000, "0", "sendrecv")));
    invite
        .headers
        .push(HeaderName::RecordRoute, "<sip:strict.example>, <sip:p1;lr>");
    let mut call = UasCall::new(invite, uas_params(), now).expect("good");
    call.accept(now);
    call.on_ack(&from_peer("ACK", 1, None), now);
    drain(&mut call);
    call.probe(now);
    let Some(Action::Request { request, .. }) = call.poll_action() else {
        panic!("an OPTIONS")
    };
    assert_eq!(request.uri.to_string(), "sip:strict.example");
    assert_eq!(
        request
            .headers
            .get_all(&HeaderName::Route)
            .collect::<Vec<_>>(),
        ["<sip:p1;lr>", "<sip:alice@192.0.2.1:5060>"]
    );
}

#[test]
fn the_2xx_is_repeated_until_the_ack() {
    let now = Instant::now();
    let mut call = call(Some(&sdp(4000, "0", "sendrecv")));
    call.accept(now);
    drain(&mut call);
    let mut times = Vec::new();
    while let Some(at) = call
        .poll_timeout()
        .filter(|at| *at < now + Duration::from_secs(13))
    {
        call.handle_timeout(at);
        assert!(
            matches!(call.poll_action(), Some(Action::ResendFinal { response, .. }) if response.status == 200)
        );
        times.push(at.duration_since(now).as_millis());
    }
    assert_eq!(times, [500, 1500, 3500, 7500, 11_500]);
    call.on_ack(&from_peer("ACK", 1, None), now);
    call.on_ack(&from_peer("ACK", 1, None), now);
    let (_, events) = drain(&mut call);
    assert!(matches!(events[..], [CallEvent::Confirmed]));
    assert_eq!(call.poll_timeout(), None);
}

#[test]
fn without_an_ack_the_call_is_ended_with_bye() {
    let now = Instant::now();
    let mut call = call(Some(&sdp(4000, "0", "sendrecv")));
    call.accept(now);
    while let Some(at) = call.poll_timeout() {
        call.handle_timeout(at);
    }
    let (actions, events) = drain(&mut call);
    assert!(
        matches!(actions.last(), Some(Action::Request { request, .. }) if request.method == Method::BYE)
    );
    assert_eq!(ended(&events), Some(EndedBy::NoAck));
    assert!(call.is_ended());
}

#[test]
fn hanging_up_waits_for_the_ack() {
    let now = Instant::now();
    let mut call = call(Some(&sdp(4000, "0", "sendrecv")));
    call.accept(now);
    drain(&mut call);
    call.hang_up(Some("Q.850;cause=16".to_owned()), now);
    assert!(call.poll_action().is_none());
    call.on_ack(&from_peer("ACK", 1, None), now);
    let (actions, events) = drain(&mut call);
    let [Action::Request { request, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        request.headers.get(&HeaderName::Reason),
        Some("Q.850;cause=16")
    );
    assert_eq!(ended(&events), Some(EndedBy::Us));
}

#[test]
fn an_offerless_invite_gets_our_offer_and_the_ack_answers_it() {
    let now = Instant::now();
    let mut call = call(None);
    assert!(call.negotiated().is_none());
    call.accept(now);
    let (actions, _) = drain(&mut call);
    assert!(
        matches!(&actions[..], [Action::Respond { response, .. }] if response.body.starts_with(b"v=0"))
    );
    assert_eq!(
        ask(
            &mut call,
            &from_peer("UPDATE", 2, Some(&sdp(1, "0", "sendrecv"))),
            now
        )
        .status,
        491
    );
    call.on_ack(&from_peer("ACK", 1, Some(&sdp(4000, "8", "sendrecv"))), now);
    let (_, events) = drain(&mut call);
    assert!(matches!(
        events[..],
        [CallEvent::Confirmed, CallEvent::MediaChanged(_)]
    ));
    assert_eq!(call.negotiated().unwrap().payload_type, 8);
}

#[test]
fn an_ack_without_the_answer_to_our_offer_ends_the_call() {
    let now = Instant::now();
    let mut call = call(None);
    call.accept(now);
    drain(&mut call);
    call.on_ack(&from_peer("ACK", 1, None), now);
    let (actions, events) = drain(&mut call);
    assert!(
        matches!(&actions[..], [Action::Request { request, .. }] if request.method == Method::BYE)
    );
    assert_eq!(ended(&events), Some(EndedBy::BadAnswer));
}

#[test]
fn cancel_before_the_answer_gets_487_and_after_it_nothing() {
    let now = Instant::now();
    let mut early = call(None);
    early.on_cancel(Some("SIP;cause=200".to_owned()), now);
    early.accept(now);
    early.reject(486, None, Vec::new(), now);
    early.on_cancel(None, now);
    let (actions, events) = drain(&mut early);
    assert!(
        matches!(&actions[..], [Action::Respond { to: RespondTo::Invite, response }] if response.status == 487)
    );
    assert!(
        matches!(&events[..], [CallEvent::Ended { by: EndedBy::Cancel, reason: Some(reason), .. }] if reason == "SIP;cause=200")
    );

    let mut late = answered(now);
    late.on_cancel(None, now);
    assert!(late.poll_action().is_none() && !late.is_ended());
}

#[test]
fn hanging_up_before_the_answer_refuses_with_480() {
    let mut call = call(None);
    call.hang_up(Some("X;text=\"no agent\"".to_owned()), Instant::now());
    let (actions, _) = drain(&mut call);
    assert!(matches!(&actions[..], [Action::Respond { response, .. }]
        if response.status == 480 && response.headers.get(&HeaderName::Reason) == Some("X;text=\"no agent\"")));
}

#[test]
fn bye_ends_the_call_with_its_reason_and_later_requests_get_481() {
    let now = Instant::now();
    let mut call = answered(now);
    let mut bye = from_peer("BYE", 2, None);
    bye.headers.push(HeaderName::Reason, "Q.850;cause=16");
    assert_eq!(ask(&mut call, &bye, now).status, 200);
    let (_, events) = drain(&mut call);
    assert!(
        matches!(&events[..], [CallEvent::Ended { by: EndedBy::Peer, reason: Some(reason), .. }] if reason == "Q.850;cause=16")
    );
    assert_eq!(
        ask(&mut call, &from_peer("OPTIONS", 3, None), now).status,
        481
    );
    call.hang_up(None, now);
    call.probe(now);
    assert!(call.poll_action().is_none());
}

#[test]
fn bye_in_the_early_dialog_ends_both() {
    let now = Instant::now();
    let mut call = call(None);
    assert_eq!(ask(&mut call, &from_peer("BYE", 2, None), now).status, 200);
    let (actions, events) = drain(&mut call);
    assert!(
        matches!(&actions[..], [Action::Respond { to: RespondTo::Invite, response }] if response.status == 487)
    );
    assert_eq!(ended(&events), Some(EndedBy::Peer));
}

#[test]
fn an_unchanged_reinvite_keeps_the_session_and_its_version() {
    let now = Instant::now();
    let mut call = call(Some(&sdp(4000, "0 101", "sendrecv")));
    call.accept(now);
    let (actions, _) = drain(&mut call);
    let [
        Action::Respond {
            response: first, ..
        },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    call.on_ack(&from_peer("ACK", 1, None), now);
    drain(&mut call);
    let again = ask(
        &mut call,
        &from_peer("INVITE", 2, Some(&sdp(4000, "0 101", "sendrecv"))),
        now,
    );
    assert_eq!(again.body, first.body);
    assert!(call.poll_event().is_none());
    assert!(call.poll_timeout().is_some(), "its 2xx is repeated too");
    call.on_ack(&from_peer("ACK", 2, None), now);
    assert!(call.poll_timeout().is_none());
}

#[test]
fn hold_and_new_addresses_are_told_and_the_target_moves() {
    let now = Instant::now();
    let mut call = answered(now);
    let held = ask(
        &mut call,
        &from_peer("INVITE", 2, Some(&sdp(4000, "0 101", "sendonly"))),
        now,
    );
    assert!(String::from_utf8_lossy(&held.body).contains("a=recvonly"));
    assert!(matches!(call.poll_event(), Some(CallEvent::MediaChanged(media)) if media.on_hold));
    let mut update = from_peer("UPDATE", 3, Some(&sdp(4444, "0 101", "sendrecv")));
    update
        .headers
        .set(HeaderName::Contact, "<sip:alice@192.0.2.55>");
    let moved = ask(&mut call, &update, now);
    assert_eq!(moved.status, 200);
    assert!(
        matches!(call.poll_event(), Some(CallEvent::MediaChanged(media))
        if !media.on_hold && media.remote.unwrap().port() == 4444)
    );
    call.probe(now);
    assert!(
        matches!(call.poll_action(), Some(Action::Request { request, .. }) if request.uri.to_string() == "sip:alice@192.0.2.55")
    );
}

#[test]
fn a_reinvite_that_can_not_be_met_leaves_the_session() {
    let now = Instant::now();
    let mut call = answered(now);
    let before = call.negotiated().cloned();
    assert_eq!(
        ask(
            &mut call,
            &from_peer("INVITE", 2, Some(&sdp(4000, "18", "sendrecv"))),
            now
        )
        .status,
        488
    );
    assert_eq!(call.negotiated().cloned(), before);
    assert!(!call.is_ended() && call.poll_timeout().is_none());
}

#[test]
fn an_offerless_reinvite_gets_an_offer() {
    let now = Instant::now();
    let mut call = answered(now);
    let ok = ask(&mut call, &from_peer("INVITE", 2, None), now);
    assert!(ok.body.starts_with(b"v=0"));
    assert_eq!(
        ask(
            &mut call,
            &from_peer("INVITE", 3, Some(&sdp(4000, "0", "sendrecv"))),
            now
        )
        .status,
        491
    );
    call.on_ack(&from_peer("ACK", 2, Some(&sdp(4002, "8", "sendrecv"))), now);
    assert!(matches!(
        call.poll_event(),
        Some(CallEvent::MediaChanged(_))
    ));
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4002);
}

#[test]
fn old_numbers_other_dialogs_and_unknown_methods_are_refused() {
    let now = Instant::now();
    let mut call = answered(now);
    assert_eq!(
        ask(&mut call, &from_peer("OPTIONS", 9, None), now).status,
        200
    );
    assert_eq!(
        ask(&mut call, &from_peer("INVITE", 8, None), now).status,
        500
    );
    let mut other = from_peer("BYE", 10, None);
    other
        .headers
        .set(HeaderName::From, "<sip:alice@192.0.2.1>;tag=other");
    assert_eq!(ask(&mut call, &other, now).status, 481);
    let refer = ask(&mut call, &from_peer("REFER", 11, None), now);
    assert_eq!(
        (
            refer.status,
            refer.headers.get(&HeaderName::Allow).is_some()
        ),
        (405, true)
    );
    assert_eq!(
        ask(&mut call, &from_peer("FROB", 12, None), now).status,
        501
    );
    let mut prack = from_peer("PRACK", 13, None);
    assert_eq!(ask(&mut call, &prack, now).status, 400);
    prack = from_peer("PRACK", 13, None);
    prack.headers.push(HeaderName::Rack, "1 1 INVITE");
    assert_eq!(ask(&mut call, &prack, now).status, 481);
    let mut demanding = from_peer("UPDATE", 14, None);
    demanding.headers.push(HeaderName::Require, "precondition");
    assert_eq!(ask(&mut call, &demanding, now).status, 420);
    assert!(!call.is_ended());
}

#[test]
fn requests_before_the_answer_that_need_it_are_put_off() {
    let now = Instant::now();
    let mut call = call(Some(&sdp(4000, "0", "sendrecv")));
    let response = ask(
        &mut call,
        &from_peer("UPDATE", 2, Some(&sdp(4000, "0", "sendrecv"))),
        now,
    );
    assert_eq!(
        (
            response.status,
            response.headers.get(&HeaderName::RetryAfter).is_some()
        ),
        (500, true)
    );
}

#[test]
fn digits_by_info_are_told() {
    let now = Instant::now();
    let mut call = answered(now);
    let mut info = from_peer("INFO", 2, None);
    info.set_body(
        "application/dtmf-relay",
        b"Signal=7\r\nDuration=160\r\n".to_vec(),
    );
    assert_eq!(ask(&mut call, &info, now).status, 200);
    assert!(matches!(call.poll_event(), Some(CallEvent::Dtmf('7'))));
    let mut other = from_peer("INFO", 3, None);
    other.set_body("application/json", b"{}".to_vec());
    assert_eq!(ask(&mut call, &other, now).status, 415);
}

#[test]
fn a_probe_tells_whether_the_peer_has_the_call() {
    let now = Instant::now();
    let mut call = answered(now);
    for (status, alive) in [(200, true), (405, true), (481, false), (408, false)] {
        call.probe(now);
        call.probe(now);
        let Some(Action::Request { token, request }) = call.poll_action() else {
            panic!("an OPTIONS")
        };
        assert!(call.poll_action().is_none(), "one at a time");
        call.on_response(token, &Response::to_request(&request, 100, None), now);
        call.on_response(token, &Response::to_request(&request, status, None), now);
        let event = call.poll_event();
        assert!(matches!(
            (event, alive),
            (Some(CallEvent::PeerAlive), true) | (Some(CallEvent::PeerGone), false)
        ));
    }
    call.probe(now + T1);
    let Some(Action::Request { token, .. }) = call.poll_action() else {
        panic!("an OPTIONS")
    };
    call.on_failed(token, now);
    assert!(matches!(call.poll_event(), Some(CallEvent::PeerGone)));
}
