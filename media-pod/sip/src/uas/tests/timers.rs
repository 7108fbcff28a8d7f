//! What a callee says to session timers (RFC 4028), message by message.

use super::*;

fn invite(headers: &[(HeaderName, &str)]) -> Request {
    let mut invite = from_peer("INVITE", 1, Some(&sdp(4000, "0", "sendrecv")));
    for (name, value) in headers {
        invite.headers.push(name.clone(), *value);
    }
    invite
}

/// The `Session-Expires` and `Require` of our answer.
fn answer_to(headers: &[(HeaderName, &str)]) -> (Option<String>, Option<String>) {
    let now = Instant::now();
    let mut call = UasCall::new(invite(headers), uas_params(), now).expect("good");
    call.accept(now);
    let Some(Action::Respond { response, .. }) = call.poll_action() else {
        panic!("a 200")
    };
    said(&response)
}

fn said(response: &Response) -> (Option<String>, Option<String>) {
    assert_eq!(response.status, 200);
    let text = |name| response.headers.get(&name).map(str::to_owned);
    (text(HeaderName::SessionExpires), text(HeaderName::Require))
}

fn pair(expires: &str, require: Option<&str>) -> (Option<String>, Option<String>) {
    (Some(expires.to_owned()), require.map(str::to_owned))
}

/// A call with a timer that the peer asked for so.
fn timed(expires: &str, now: Instant) -> UasCall {
    let headers = [
        (HeaderName::Supported, "timer"),
        (HeaderName::SessionExpires, expires),
        (HeaderName::Allow, "INVITE, UPDATE, BYE"),
    ];
    let mut call = UasCall::new(invite(&headers), uas_params(), now).expect("good");
    call.accept(now);
    call.on_ack(&from_peer("ACK", 1, None), now);
    drain(&mut call);
    call
}

fn seconds(call: &UasCall, now: Instant) -> Option<u64> {
    call.poll_timeout()
        .map(|at| at.duration_since(now).as_secs())
}

#[test]
fn the_offered_interval_is_taken_up_to_1800_seconds_and_the_refresher_is_as_asked() {
    let timer = (HeaderName::Supported, "100rel, timer");
    let ask = |expires| answer_to(&[timer.clone(), (HeaderName::SessionExpires, expires)]);
    assert_eq!(ask("600"), pair("600;refresher=uac", Some("timer")));
    assert_eq!(
        ask("600 ; Refresher=UAS"),
        pair("600;refresher=uas", Some("timer"))
    );
    assert_eq!(
        ask("86400;refresher=uac"),
        pair("1800;refresher=uac", Some("timer"))
    );
    assert_eq!(ask("90"), pair("90;refresher=uac", Some("timer")));
    assert_eq!(ask("soon"), (None, None));
    // Nobody asked for a timer.
    assert_eq!(answer_to(std::slice::from_ref(&timer)), (None, None));
    // The peer's least may be more than our most.
    let least = [
        timer,
        (HeaderName::SessionExpires, "7200"),
        (HeaderName::MinSe, "3600"),
    ];
    assert_eq!(answer_to(&least), pair("3600;refresher=uac", Some("timer")));
}

#[test]
fn a_peer_without_timers_is_not_forced_and_we_refresh() {
    let asked = [(HeaderName::SessionExpires, "1800;refresher=uac")];
    assert_eq!(answer_to(&asked), pair("1800;refresher=uas", None));
    assert_eq!(answer_to(&[]), (None, None));
    // It could not follow a 422 either.
    let short = [(HeaderName::SessionExpires, "30")];
    assert_eq!(answer_to(&short), (None, None));
}

#[test]
fn an_interval_below_90_seconds_gets_422_with_the_least() {
    let short = refused(invite(&[
        (HeaderName::Supported, "timer"),
        (HeaderName::SessionExpires, "89"),
    ]));
    assert_eq!(
        (short.status, short.headers.get(&HeaderName::MinSe)),
        (422, Some("90"))
    );
    let now = Instant::now();
    let mut call = timed("90", now);
    for (number, method) in [(2, "UPDATE"), (3, "INVITE")] {
        let mut short = from_peer(method, number, None);
        short.headers.push(HeaderName::Require, "timer");
        short.headers.push(HeaderName::SessionExpires, "60");
        assert_eq!(ask(&mut call, &short, now).status, 422);
    }
    assert_eq!(seconds(&call, now), Some(60), "it runs on as it was");
}

#[test]
fn requiring_timers_is_no_reason_to_refuse() {
    let now = Instant::now();
    let mut first = invite(&[]);
    first.headers.push(HeaderName::Require, "Timer");
    assert!(UasCall::new(first, uas_params(), now).is_ok());
    let mut call = answered(now);
    for (number, method) in [(2, "UPDATE"), (3, "INVITE")] {
        let mut request = from_peer(method, number, None);
        request.headers.push(HeaderName::Require, "timer");
        request.headers.push(HeaderName::SessionExpires, "300");
        let response = ask(&mut call, &request, now);
        assert_eq!(said(&response), pair("300;refresher=uac", Some("timer")));
    }
}

#[test]
fn the_peers_refreshes_restart_the_timer_and_may_change_it() {
    let now = Instant::now();
    let mut call = timed("300", now);
    // 300 s less 32 s.
    assert_eq!(seconds(&call, now), Some(268));
    let later = now + Duration::from_secs(150);
    let mut update = from_peer("UPDATE", 2, None);
    update.headers.push(HeaderName::Supported, "timer");
    update
        .headers
        .push(HeaderName::SessionExpires, "300;refresher=uac");
    ask(&mut call, &update, later);
    assert_eq!(seconds(&call, now), Some(150 + 268));
    // From here on we refresh, every 600 s.
    let mut reinvite = from_peer("INVITE", 3, Some(&sdp(4000, "0", "sendrecv")));
    reinvite.headers.push(HeaderName::Supported, "timer");
    reinvite
        .headers
        .push(HeaderName::SessionExpires, "1200;refresher=uas");
    let ok = ask(&mut call, &reinvite, later);
    assert_eq!(said(&ok), pair("1200;refresher=uas", Some("timer")));
    call.on_ack(&from_peer("ACK", 3, None), later);
    assert_eq!(seconds(&call, now), Some(150 + 600));
}

#[test]
fn a_request_about_something_else_keeps_the_timer_and_restarts_it() {
    let now = Instant::now();
    let mut call = timed("300", now);
    let later = now + Duration::from_secs(100);
    let mut hold = from_peer("UPDATE", 2, Some(&sdp(4000, "0", "sendonly")));
    hold.headers.push(HeaderName::Supported, "timer");
    let ok = ask(&mut call, &hold, later);
    assert_eq!(said(&ok), pair("300;refresher=uac", Some("timer")));
    assert_eq!(seconds(&call, now), Some(100 + 268));
    // Without `timer` it can't be the one who refreshes.
    let ok = ask(
        &mut call,
        &from_peer("UPDATE", 3, Some(&sdp(4000, "0", "sendrecv"))),
        later,
    );
    assert_eq!(said(&ok), pair("300;refresher=uas", None));
    assert_eq!(seconds(&call, now), Some(100 + 150));
}

#[test]
fn without_a_refresh_the_call_is_ended_before_it_expires() {
    let now = Instant::now();
    let mut call = timed("90", now);
    let at = call.poll_timeout().unwrap();
    assert_eq!(at, now + Duration::from_secs(60));
    call.handle_timeout(at);
    let (actions, events) = drain(&mut call);
    let [Action::Request { request: bye, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(bye.method, Method::BYE);
    assert!(
        bye.headers
            .get(&HeaderName::Reason)
            .unwrap()
            .contains("408")
    );
    assert_eq!(ended(&events), Some(EndedBy::SessionExpired));
    assert_eq!(call.poll_timeout(), None);
}

#[test]
fn our_refresh_waits_for_the_ack_of_the_peers_invite() {
    let now = Instant::now();
    let headers = [
        (HeaderName::Supported, "timer"),
        (HeaderName::SessionExpires, "90;refresher=uas"),
        (HeaderName::Allow, "UPDATE"),
    ];
    let slow = UasParams {
        t1: Duration::from_secs(2),
        ..uas_params()
    };
    let mut call = UasCall::new(invite(&headers), slow, now).expect("good");
    call.accept(now);
    drain(&mut call);
    let late = now + Duration::from_secs(60);
    while let Some(at) = call.poll_timeout().filter(|at| *at < late) {
        call.handle_timeout(at);
        assert!(matches!(
            call.poll_action(),
            Some(Action::ResendFinal { .. })
        ));
    }
    call.on_ack(&from_peer("ACK", 1, None), late);
    assert_eq!(seconds(&call, now), Some(45));
    call.handle_timeout(late);
    assert!(
        matches!(call.poll_action(), Some(Action::Request { request, .. }) if request.method == Method::UPDATE)
    );
    assert_eq!(
        ask(
            &mut call,
            &from_peer("INVITE", 4, Some(&sdp(4000, "0", "sendrecv"))),
            late
        )
        .status,
        200,
        "an UPDATE without offer is no glare"
    );
}

#[test]
fn a_reinvite_that_crosses_ours_gets_491() {
    let now = Instant::now();
    let mut call = timed("90;refresher=uas", now);
    let mut update = from_peer("UPDATE", 2, None);
    update.headers.push(HeaderName::Allow, "INVITE, BYE");
    ask(&mut call, &update, now);
    let due = call.poll_timeout().unwrap();
    call.handle_timeout(due);
    let Some(Action::Request { token, request }) = call.poll_action() else {
        panic!("a re-INVITE")
    };
    assert_eq!(request.method, Method::INVITE);
    let offer = sdp(4000, "0", "sendrecv");
    for (number, method, body, status) in [
        (3, "INVITE", Some(&offer), 491),
        (4, "INVITE", None, 491),
        (5, "UPDATE", Some(&offer), 491),
        (6, "UPDATE", None, 200),
    ] {
        let crossing = from_peer(method, number, body.map(String::as_str));
        assert_eq!(ask(&mut call, &crossing, due).status, status);
    }
    let mut ok = Response::to_request(&request, 200, None);
    ok.set_body("application/sdp", offer.into_bytes());
    call.on_response(token, &ok, due);
    call.on_response(token, &ok, due);
    let (actions, events) = drain(&mut call);
    let [
        Action::Ack { request: first },
        Action::Ack { request: again },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(first, again, "each 2xx is acknowledged");
    assert_eq!(
        first.headers.cseq().unwrap().0,
        request.headers.cseq().unwrap().0
    );
    assert!(events.is_empty());
    assert_eq!(
        ask(
            &mut call,
            &from_peer("INVITE", 7, Some(&sdp(4000, "0", "sendrecv"))),
            due
        )
        .status,
        200
    );
}
