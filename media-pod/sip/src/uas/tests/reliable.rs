//! Reliable provisional responses of a callee (RFC 3262), message by message.

use super::*;

fn invite(body: Option<&str>) -> Request {
    let mut invite = from_peer("INVITE", 1, body);
    invite.headers.push(HeaderName::Require, "100rel");
    invite
}

fn offered() -> String {
    sdp(4000, "0", "sendrecv")
}

fn incoming(body: Option<&str>, now: Instant) -> UasCall {
    UasCall::new(invite(body), uas_params(), now).expect("a good INVITE")
}

fn prack(number: u32, to: &Response, body: Option<&str>) -> Request {
    let rseq = to.headers.get(&HeaderName::Rseq).expect("an RSeq");
    let mut prack = from_peer("PRACK", number, body);
    prack
        .headers
        .push(HeaderName::Rack, format!("{rseq} 1 INVITE"));
    prack
}

#[test]
fn only_who_requires_it_gets_it_unless_the_owner_asks_for_more() {
    let now = Instant::now();
    let mut supports = from_peer("INVITE", 1, Some(&offered()));
    supports.headers.push(HeaderName::Supported, "100rel");
    for (request, asked, reliably) in [
        (invite(None), false, true),
        (supports.clone(), false, false),
        (supports, true, true),
        (from_peer("INVITE", 1, None), true, false),
    ] {
        let params = UasParams {
            reliable_provisionals: asked,
            ..uas_params()
        };
        let mut call = UasCall::new(request, params, now).expect("good");
        call.ring(now);
        let ringing = response(&mut call);
        assert_eq!(
            ringing.headers.get(&HeaderName::Require),
            reliably.then_some("100rel")
        );
        assert_eq!(ringing.headers.has(&HeaderName::Rseq), reliably);
        let repeated = call.poll_timeout().unwrap() == now + T1;
        assert_eq!(repeated, reliably);
    }
}

#[test]
fn a_prack_for_something_else_gets_481_and_the_right_one_200_once() {
    let now = Instant::now();
    let mut call = incoming(Some(&offered()), now);
    call.ring(now);
    let ringing = response(&mut call);
    let rseq: u32 = ringing
        .headers
        .get(&HeaderName::Rseq)
        .unwrap()
        .parse()
        .unwrap();
    let wrong = [
        format!("{} 1 INVITE", rseq + 1),
        format!("{rseq} 2 INVITE"),
        format!("{rseq} 1 UPDATE"),
    ];
    for (number, rack) in (2..).zip(wrong) {
        let mut other = from_peer("PRACK", number, None);
        other.headers.push(HeaderName::Rack, rack);
        assert_eq!(ask(&mut call, &other, now).status, 481);
    }
    assert_eq!(call.poll_timeout(), Some(now + T1));
    assert_eq!(ask(&mut call, &prack(8, &ringing, None), now).status, 200);
    assert_eq!(call.poll_timeout(), Some(now + Duration::from_secs(150)));
    assert_eq!(ask(&mut call, &prack(9, &ringing, None), now).status, 481);
}

#[test]
fn the_200_goes_at_once_when_the_180_said_nothing_on_media() {
    let now = Instant::now();
    let mut call = incoming(Some(&offered()), now);
    call.ring(now);
    let ringing = response(&mut call);
    call.accept(now);
    assert!(response(&mut call).body.starts_with(b"v=0"));
    call.on_ack(&from_peer("ACK", 1, None), now);
    assert_eq!(call.poll_timeout(), None, "the 180 is not repeated");
    assert_eq!(ask(&mut call, &prack(2, &ringing, None), now).status, 200);
}

#[test]
fn the_200_waits_for_the_prack_of_an_answer() {
    let now = Instant::now();
    let mut call = incoming(Some(&offered()), now);
    call.progress(now);
    let progress = response(&mut call);
    assert_eq!(progress.status, 183);
    assert!(progress.body.starts_with(b"v=0"));
    assert!(progress.headers.lists(&HeaderName::Allow, "UPDATE"));
    call.accept(now);
    assert!(call.poll_action().is_none() && !call.is_answered());
    // The PRACK brings a second offer.
    let more = prack(2, &progress, Some(&sdp(4004, "8", "sendrecv")));
    let ok = ask(&mut call, &more, now);
    assert_eq!(ok.status, 200);
    assert!(String::from_utf8_lossy(&ok.body).contains("PCMA"));
    let ok = response(&mut call);
    assert_eq!((ok.status, ok.body.len()), (200, 0));
    assert!(call.is_answered());
    let (_, events) = drain(&mut call);
    assert!(
        matches!(&events[..], [CallEvent::MediaChanged(media)] if media.remote.unwrap().port() == 4004)
    );
}

#[test]
fn giving_up_while_the_200_waits_refuses_the_call() {
    let now = Instant::now();
    let mut call = incoming(Some(&offered()), now);
    call.progress(now);
    let progress = response(&mut call);
    call.accept(now);
    call.on_cancel(None, now);
    assert_eq!(response(&mut call).status, 487);
    assert_eq!(call.poll_timeout(), None);
    assert_eq!(ask(&mut call, &prack(2, &progress, None), now).status, 200);
    assert!(call.poll_action().is_none());
}

#[test]
fn an_offerless_invite_gets_our_offer_with_the_180_and_the_prack_answers_it() {
    let now = Instant::now();
    let mut call = incoming(None, now);
    call.ring(now);
    let ringing = response(&mut call);
    assert!(ringing.body.starts_with(b"v=0"));
    call.progress(now);
    call.accept(now);
    assert!(call.poll_action().is_none());
    let crossing = from_peer("UPDATE", 2, Some(&offered()));
    assert_eq!(ask(&mut call, &crossing, now).status, 491);
    let answer = prack(3, &ringing, Some(&sdp(4000, "8", "sendrecv")));
    assert_eq!(ask(&mut call, &answer, now).status, 200);
    let ok = response(&mut call);
    assert_eq!((ok.status, ok.body.len()), (200, 0));
    call.on_ack(&from_peer("ACK", 1, None), now);
    let (_, events) = drain(&mut call);
    assert!(matches!(
        events[..],
        [CallEvent::MediaChanged(_), CallEvent::Confirmed]
    ));
    assert_eq!(call.negotiated().unwrap().payload_type, 8);
}

#[test]
fn a_prack_without_the_answer_to_our_offer_ends_the_call() {
    let now = Instant::now();
    for body in [None, Some(sdp(4000, "18", "sendrecv"))] {
        let mut call = incoming(None, now);
        call.ring(now);
        let ringing = response(&mut call);
        let answer = prack(2, &ringing, body.as_deref());
        assert_eq!(ask(&mut call, &answer, now).status, 200);
        let (actions, events) = drain(&mut call);
        assert!(
            matches!(&actions[..], [Action::Respond { to: RespondTo::Invite, response }] if response.status == 488)
        );
        assert_eq!(ended(&events), Some(EndedBy::BadAnswer));
    }
}

#[test]
fn what_was_agreed_reliably_may_be_changed_before_the_answer() {
    let now = Instant::now();
    let mut call = incoming(Some(&offered()), now);
    let update = |number| from_peer("UPDATE", number, Some(&sdp(4006, "0", "sendrecv")));
    assert_eq!(ask(&mut call, &update(2), now).status, 500);
    assert_eq!(
        ask(&mut call, &from_peer("UPDATE", 3, None), now).status,
        200
    );
    call.progress(now);
    let progress = response(&mut call);
    assert_eq!(ask(&mut call, &prack(4, &progress, None), now).status, 200);
    let ok = ask(&mut call, &update(5), now);
    assert!(ok.status == 200 && ok.body.starts_with(b"v=0"));
    assert!(!ok.headers.has(&HeaderName::SessionExpires));
    assert!(
        matches!(call.poll_event(), Some(CallEvent::MediaChanged(media)) if media.remote.unwrap().port() == 4006)
    );
    let early = from_peer("INVITE", 6, Some(&offered()));
    assert_eq!(ask(&mut call, &early, now).status, 500);
}

#[test]
fn early_media_that_is_not_reliable_is_said_again_in_the_200() {
    let now = Instant::now();
    let mut call = call(Some(&offered()));
    call.progress(now);
    call.progress(now);
    let progress = response(&mut call);
    call.set_local(local(7000));
    call.accept(now);
    let ok = response(&mut call);
    assert_eq!(progress.body, ok.body);
    assert!(!progress.headers.has(&HeaderName::Require));
}

#[test]
fn a_long_ringing_is_said_again_reliably_and_without_a_second_answer() {
    let begun = Instant::now();
    let mut call = incoming(Some(&offered()), begun);
    call.progress(begun);
    let mut last = response(&mut call);
    for (number, round) in (2..).zip(1..4) {
        assert_eq!(
            ask(&mut call, &prack(number, &last, None), begun).status,
            200
        );
        let now = begun + Duration::from_secs(150) * round;
        assert_eq!(call.poll_timeout(), Some(now));
        call.handle_timeout(now);
        let again = response(&mut call);
        assert_eq!((again.status, again.body.len()), (183, 0));
        let rseq = |response: &Response| response.headers.get(&HeaderName::Rseq).map(str::to_owned);
        assert_ne!(rseq(&again), rseq(&last));
        last = again;
    }
}
