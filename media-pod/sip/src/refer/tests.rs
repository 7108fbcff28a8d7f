use std::time::{Duration, Instant};

use super::*;
use crate::dialog::testing::{from_peer, sdp, uas_params};
use crate::dialog::{Action, DialogId, EndedBy, RespondTo};
use crate::message::{Response, Uri};
use crate::transaction::ServerId;
use crate::uas::UasCall;

fn answered(now: Instant) -> UasCall {
    let invite = from_peer("INVITE", 1, Some(&sdp(4000, "0", "sendrecv")));
    let mut call = UasCall::new(invite, uas_params(), now).expect("good");
    call.take_refer();
    call.accept(now);
    call.on_ack(&from_peer("ACK", 1, None), now);
    while call.poll_action().is_some() || call.poll_event().is_some() {}
    call
}

fn refer_to(number: u32, target: &str) -> Request {
    let mut refer = from_peer("REFER", number, None);
    refer.headers.push(HeaderName::ReferTo, target);
    refer
}

fn hand_in(call: &mut UasCall, request: &Request, now: Instant) -> Option<Response> {
    let id = ServerId::for_test(u64::from(request.headers.cseq().unwrap().0));
    call.on_request(id, request, now);
    response(call)
}

fn response(call: &mut UasCall) -> Option<Response> {
    match call.poll_action()? {
        Action::Respond {
            to: RespondTo::Request(_),
            response,
        } => Some(response),
        other => panic!("no response but {other:?}"),
    }
}

fn sent(call: &mut UasCall) -> (u64, Request) {
    match call.poll_action() {
        Some(Action::Request { token, request }) => (token, request),
        other => panic!("no request but {other:?}"),
    }
}

fn told(call: &mut UasCall) -> Option<ReferEvent> {
    match call.poll_event()? {
        CallEvent::Refer(event) => Some(event),
        other => panic!("not about REFER: {other:?}"),
    }
}

fn asked(call: &mut UasCall) -> (ReferId, Referral) {
    match told(call) {
        Some(ReferEvent::Asked { id, referral }) => (id, *referral),
        other => panic!("not asked but {other:?}"),
    }
}

/// Event, state and body of a NOTIFY.
fn notified(request: &Request) -> (String, String, String) {
    assert_eq!(request.method, Method::NOTIFY);
    let text = |name| request.headers.get(&name).unwrap().to_owned();
    assert_eq!(text(HeaderName::ContentType), "message/sipfrag");
    (
        text(HeaderName::Event),
        text(HeaderName::SubscriptionState),
        String::from_utf8(request.body.clone()).unwrap(),
    )
}

fn notify(number: u32, event: &str, state: &str, body: &str) -> Request {
    let mut notify = from_peer("NOTIFY", number, None);
    notify.headers.push(HeaderName::Event, event);
    notify.headers.push(HeaderName::SubscriptionState, state);
    notify.set_body("message/sipfrag;version=2.0", body.as_bytes().to_vec());
    notify
}

fn referral(target: &str) -> Referral {
    Referral {
        target: NameAddr::parse(target).unwrap(),
        replaces: None,
        referred_by: None,
    }
}

#[test]
fn a_refer_waits_for_the_owner_and_is_reported_on_until_the_end() {
    let now = Instant::now();
    let mut call = answered(now);
    let mut refer = refer_to(2, "\"Carol\" <sip:carol@192.0.2.5>");
    refer
        .headers
        .push(HeaderName::from("Referred-By"), "<sip:alice@192.0.2.1>");
    assert!(hand_in(&mut call, &refer, now).is_none());
    let (id, referral) = asked(&mut call);
    assert_eq!(referral.target.uri.to_string(), "sip:carol@192.0.2.5");
    assert!(referral.referred_by.is_some() && referral.replaces.is_none());
    call.answer_refer(id, true, now);
    assert_eq!(response(&mut call).unwrap().status, 202);
    let first = notified(&sent(&mut call).1);
    let expected = ("refer", "active;expires=240", "SIP/2.0 100 Trying\r\n");
    assert_eq!(
        (first.0.as_str(), first.1.as_str(), first.2.as_str()),
        expected
    );
    call.refer_progress(id, 180, now + Duration::from_secs(40));
    let ringing = notified(&sent(&mut call).1);
    assert_eq!(ringing.1, "active;expires=200");
    call.refer_progress(id, 200, now);
    let last = notified(&sent(&mut call).1);
    assert_eq!(last.1, "terminated;reason=noresource");
    assert_eq!(last.2, "SIP/2.0 200 OK\r\n");
    call.refer_progress(id, 200, now);
    call.answer_refer(id, true, now);
    assert!(call.poll_action().is_none());
    // The second one of a dialog is named.
    hand_in(&mut call, &refer_to(7, "<sip:dave@192.0.2.6>"), now);
    let (id, _) = asked(&mut call);
    call.answer_refer(id, true, now);
    response(&mut call);
    assert_eq!(notified(&sent(&mut call).1).0, "refer;id=7");
}

#[test]
fn a_declined_refer_gets_603_and_no_report() {
    let now = Instant::now();
    let mut call = answered(now);
    hand_in(&mut call, &refer_to(2, "sip:carol@192.0.2.5"), now);
    let crossing = refer_to(3, "sip:dave@192.0.2.5");
    assert_eq!(hand_in(&mut call, &crossing, now).unwrap().status, 491);
    let (id, _) = asked(&mut call);
    call.answer_refer(id, false, now);
    assert_eq!(response(&mut call).unwrap().status, 603);
    assert!(call.poll_action().is_none());
}

#[test]
fn useless_refers_are_refused_at_once() {
    let now = Instant::now();
    let mut call = answered(now);
    for (number, target, status) in [
        (2, "<sip:a@x>, <sip:b@x>", 400),
        (3, "<sip:a", 400),
        (4, "<sip:a@x;method=BYE>", 603),
        (5, "<sip:a@x?Replaces=nonsense>", 400),
    ] {
        let refused = hand_in(&mut call, &refer_to(number, target), now);
        assert_eq!(refused.unwrap().status, status, "{target}");
    }
    let none = from_peer("REFER", 6, None);
    assert_eq!(hand_in(&mut call, &none, now).unwrap().status, 400);
    assert!(call.poll_event().is_none());
}

#[test]
fn who_knows_nothing_of_a_subscription_gets_no_more_reports() {
    let now = Instant::now();
    for status in [Some(481), None] {
        let mut call = answered(now);
        hand_in(&mut call, &refer_to(2, "sip:carol@192.0.2.5"), now);
        let (id, _) = asked(&mut call);
        call.answer_refer(id, true, now);
        response(&mut call);
        let (token, request) = sent(&mut call);
        match status {
            Some(status) => {
                call.on_response(token, &Response::to_request(&request, status, None), now);
            }
            None => call.on_failed(token, now),
        }
        call.refer_progress(id, 200, now);
        assert!(call.poll_action().is_none() && !call.is_ended());
    }
}

#[test]
fn a_subscription_ends_when_the_call_takes_too_long() {
    let now = Instant::now();
    let mut call = answered(now);
    hand_in(&mut call, &refer_to(2, "sip:carol@192.0.2.5"), now);
    let (id, _) = asked(&mut call);
    call.answer_refer(id, true, now);
    response(&mut call);
    sent(&mut call);
    let end = now + Duration::from_secs(240);
    assert_eq!(call.poll_timeout(), Some(end));
    call.handle_timeout(end);
    let last = notified(&sent(&mut call).1);
    assert_eq!(last.1, "terminated;reason=timeout");
    assert_eq!(call.poll_timeout(), None);
}

#[test]
fn a_refer_that_the_call_ends_on_is_declined() {
    let now = Instant::now();
    let mut call = answered(now);
    hand_in(&mut call, &refer_to(2, "sip:carol@192.0.2.5"), now);
    asked(&mut call);
    let bye = from_peer("BYE", 3, None);
    assert_eq!(hand_in(&mut call, &bye, now).unwrap().status, 200);
    assert_eq!(response(&mut call).unwrap().status, 603);
    assert!(matches!(
        call.poll_event(),
        Some(CallEvent::Ended {
            by: EndedBy::Peer,
            ..
        })
    ));
}

#[test]
fn what_becomes_of_our_refer_is_told() {
    let now = Instant::now();
    let mut call = answered(now);
    let target = Referral {
        replaces: Some(Replaces {
            call_id: "a%b@x".to_owned(),
            to_tag: "1".to_owned(),
            from_tag: "2".to_owned(),
            early_only: false,
        }),
        ..referral("<sip:carol@192.0.2.5>")
    };
    let id = call.refer(&target, now).expect("a REFER");
    let (token, request) = sent(&mut call);
    assert_eq!(request.method, Method::REFER);
    assert_eq!(
        request.headers.get(&HeaderName::ReferTo),
        Some("<sip:carol@192.0.2.5?Replaces=a%25b%40x%3Bto-tag%3D1%3Bfrom-tag%3D2>")
    );
    call.on_response(token, &Response::to_request(&request, 202, None), now);
    assert_eq!(told(&mut call), Some(ReferEvent::Accepted { id }));
    assert_eq!(call.poll_timeout(), Some(now + Duration::from_secs(32)));
    let trying = notify(2, "refer", "active;expires=60", "SIP/2.0 100 Trying\r\n");
    assert_eq!(hand_in(&mut call, &trying, now).unwrap().status, 200);
    let progress = |status, last| Some(ReferEvent::Progress { id, status, last });
    assert_eq!(told(&mut call), progress(Some(100), false));
    assert_eq!(call.poll_timeout(), Some(now + Duration::from_secs(60)));
    let number = request.headers.cseq().unwrap().0;
    let done = notify(
        3,
        &format!("Refer;id={number}"),
        "terminated ; reason=noresource",
        "SIP/2.0 200 OK",
    );
    assert_eq!(hand_in(&mut call, &done, now).unwrap().status, 200);
    assert_eq!(told(&mut call), progress(Some(200), true));
    assert_eq!(call.poll_timeout(), None);
    let late = notify(4, "refer", "active", "SIP/2.0 200 OK");
    assert_eq!(hand_in(&mut call, &late, now).unwrap().status, 481);
}

#[test]
fn a_refer_that_nobody_follows_or_reports_on_is_told() {
    let now = Instant::now();
    let mut call = answered(now);
    for status in [Some(405), None] {
        let id = call.refer(&referral("<sip:carol@x>"), now).unwrap();
        let (token, request) = sent(&mut call);
        match status {
            Some(status) => {
                call.on_response(token, &Response::to_request(&request, status, None), now);
            }
            None => call.on_failed(token, now),
        }
        assert_eq!(told(&mut call), Some(ReferEvent::Refused { id, status }));
    }
    let id = call.refer(&referral("<sip:carol@x>"), now).unwrap();
    let (token, request) = sent(&mut call);
    call.on_response(token, &Response::to_request(&request, 202, None), now);
    told(&mut call);
    call.handle_timeout(call.poll_timeout().unwrap());
    let progress = ReferEvent::Progress {
        id,
        status: None,
        last: true,
    };
    assert_eq!(told(&mut call), Some(progress));
}

#[test]
fn notifies_of_something_else_are_refused() {
    let now = Instant::now();
    let mut call = answered(now);
    let early = notify(2, "refer", "active", "SIP/2.0 200 OK");
    assert_eq!(hand_in(&mut call, &early, now).unwrap().status, 405);
    // A NOTIFY may be faster than the 202.
    let id = call.refer(&referral("<sip:carol@x>"), now).unwrap();
    let (token, request) = sent(&mut call);
    let first = notify(3, "refer", "active", "SIP/2.0 100 Trying");
    assert_eq!(hand_in(&mut call, &first, now).unwrap().status, 200);
    assert_eq!(told(&mut call), Some(ReferEvent::Accepted { id }));
    told(&mut call);
    call.on_response(token, &Response::to_request(&request, 202, None), now);
    assert!(call.poll_event().is_none());
    for (number, event, status) in [(4, "presence", 489), (5, "refer;id=99", 481)] {
        let other = notify(number, event, "active", "");
        assert_eq!(hand_in(&mut call, &other, now).unwrap().status, status);
    }
    let mut stateless = from_peer("NOTIFY", 6, None);
    stateless.headers.push(HeaderName::Event, "refer");
    assert_eq!(hand_in(&mut call, &stateless, now).unwrap().status, 400);
}

#[test]
fn without_take_refer_it_gets_405_without_refer_in_allow() {
    let now = Instant::now();
    let invite = from_peer("INVITE", 1, Some(&sdp(4000, "0", "sendrecv")));
    let mut call = UasCall::new(invite, uas_params(), now).expect("good");
    call.accept(now);
    call.poll_action();
    call.on_ack(&from_peer("ACK", 1, None), now);
    let refused = hand_in(&mut call, &refer_to(2, "sip:carol@x"), now).unwrap();
    assert_eq!(refused.status, 405);
    assert!(!refused.headers.lists(&HeaderName::Allow, "REFER"));
    let options = from_peer("OPTIONS", 3, None);
    call.take_refer();
    let allowed = hand_in(&mut call, &options, now).unwrap();
    assert!(allowed.headers.lists(&HeaderName::Allow, "REFER"));
}

fn dialog() -> DialogId {
    DialogId {
        call_id: "98732@sip.example".to_owned(),
        local_tag: "r33th4x0r".to_owned(),
        remote_tag: "ff87ff".to_owned(),
    }
}

#[test]
fn replaces_names_one_dialog_and_survives_the_way_through_a_refer() {
    let text = "98732@sip.example ;from-tag=ff87ff; to-tag=r33th4x0r;early-only;x=\"y\"";
    let replaces = Replaces::parse(text).unwrap();
    assert!(replaces.names(&dialog()) && replaces.early_only);
    assert_eq!(
        replaces.to_string(),
        "98732@sip.example;to-tag=r33th4x0r;from-tag=ff87ff;early-only"
    );
    let swapped = Replaces::at_peer(&dialog());
    assert!(!swapped.names(&dialog()));
    for bad in [
        "",
        "a;to-tag=1",
        "a;from-tag=1;to-tag=",
        ";to-tag=1;from-tag=2",
    ] {
        assert_eq!(Replaces::parse(bad), None, "{bad}");
    }
    let untagged = DialogId {
        remote_tag: String::new(),
        ..dialog()
    };
    let old = Replaces::parse("98732@sip.example;to-tag=r33th4x0r;from-tag=0").unwrap();
    assert!(old.names(&untagged) && !old.names(&dialog()));

    let whole = Referral {
        replaces: Some(replaces),
        ..referral("<sip:carol@192.0.2.5;transport=tcp>")
    };
    let mut request = Request::new(Method::REFER, Uri::parse("sip:x@y").unwrap());
    whole.put(&mut request);
    assert_eq!(Referral::of(&request), Ok(whole));
}

#[test]
fn an_invite_with_replaces_is_read_once_and_its_requirement_is_met() {
    let header = "98732@sip.example;from-tag=ff87ff;to-tag=r33th4x0r";
    let mut invite = from_peer("INVITE", 1, None);
    assert_eq!(Replaces::take(&mut invite), Ok(None));
    invite.headers.push(HeaderName::Replaces, header);
    invite.headers.push(HeaderName::Require, "Replaces, timer");
    let replaces = Replaces::take(&mut invite).unwrap().unwrap();
    assert!(replaces.names(&dialog()));
    assert_eq!(invite.headers.get(&HeaderName::Require), Some("timer"));
    assert!(!invite.headers.has(&HeaderName::Replaces));

    let mut twice = from_peer("INVITE", 1, None);
    twice.headers.push(HeaderName::Replaces, header);
    let mut joined = twice.clone();
    twice.headers.push(HeaderName::Replaces, header);
    joined.headers.push(HeaderName::from("Join"), header);
    assert_eq!(Replaces::take(&mut twice), Err(400));
    assert_eq!(Replaces::take(&mut joined), Err(400));
}

#[test]
fn only_what_may_be_replaced_is_replaced() {
    let any = Replaces::parse("a;to-tag=1;from-tag=2").unwrap();
    let early = Replaces::parse("a;to-tag=1;from-tag=2;early-only").unwrap();
    assert_eq!(any.check(false, true, false), Ok(()));
    assert_eq!(any.check(true, true, false), Err(603));
    assert_eq!(early.check(false, true, true), Err(486));
    assert_eq!(early.check(false, false, true), Ok(()));
    assert_eq!(any.check(false, false, false), Err(481));
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_and_what_comes_never_panics(
        call_id in "[!-~&&[^;,\"<>]]{1,40}",
        to_tag in "[a-zA-Z0-9.!%*_+`'~-]{1,20}",
        from_tag in "[a-zA-Z0-9.!%*_+`'~-]{1,20}",
        early_only: bool,
        noise in "\\PC{0,200}",
    ) {
        let replaces = Replaces { call_id, to_tag, from_tag, early_only };
        let whole = Referral { replaces: Some(replaces.clone()), ..referral("<sip:carol@x>") };
        proptest::prop_assert_eq!(Replaces::parse(&replaces.to_string()), Some(replaces));
        let mut request = Request::new(Method::REFER, Uri::parse("sip:x@y").unwrap());
        whole.put(&mut request);
        proptest::prop_assert_eq!(Referral::of(&request), Ok(whole));

        let _ = Replaces::parse(&noise);
        let _ = sipfrag::status(noise.as_bytes());
        let mut request = Request::new(Method::NOTIFY, Uri::parse("sip:x@y").unwrap());
        request.headers.push(HeaderName::Event, noise.clone());
        request.headers.push(HeaderName::ReferTo, noise);
        let _ = event_of(&request);
        let _ = Referral::of(&request);
    }
}
