//! Offers that cross (RFC 3261 section 14), and a callee's changes as the caller sees them.

use super::*;
use crate::dialog::testing::sdp;

/// Both sides believe that the refreshes are theirs, and that the other one takes no UPDATE.
fn both_refresh(by: Side, message: &mut Message) {
    in_first_invite(message, HeaderName::SessionExpires, "1800;refresher=uas");
    match message {
        Message::Response(response) => {
            let allowed = "INVITE, ACK, BYE, CANCEL";
            response.headers.set(HeaderName::Allow, allowed);
            if by == Side::Callee && response.headers.has(&HeaderName::SessionExpires) {
                response
                    .headers
                    .set(HeaderName::SessionExpires, "1800;refresher=uac");
            }
        }
        Message::Request(request) => {
            let allowed = "INVITE, ACK, BYE, CANCEL";
            request.headers.set(HeaderName::Allow, allowed);
        }
    }
}

#[test]
fn reinvites_that_cross_are_both_refused_and_the_callee_is_the_first_to_try_again() {
    let mut pair = Pair::with(both_refresh);
    pair.run_to(900);
    assert_eq!(pair.responses(Side::Callee, 491).len(), 1);
    assert_eq!(pair.responses(Side::Caller, 491).len(), 1);
    let caller = pair.caller.poll_timeout().unwrap();
    let callee = pair.callee.as_ref().unwrap().poll_timeout().unwrap();
    let after = |at: Instant| at.duration_since(pair.start).as_millis() - 900_000;
    assert!(
        (2100..=4000).contains(&after(caller)),
        "the Call-ID is ours"
    );
    assert!((0..=2000).contains(&after(callee)));
    pair.run_to(910);
    // The callee's second try restarts both timers, so that the caller need not try again.
    let tries = |side| pair.times(side, &Method::INVITE).len();
    assert_eq!((tries(Side::Callee), tries(Side::Caller)), (2, 2));
    assert!(pair.ended(Side::Caller).is_none() && pair.ended(Side::Callee).is_none());
    pair.run_to(35 * 60);
    assert!(pair.ended(Side::Caller).is_none() && pair.ended(Side::Callee).is_none());
}

#[test]
fn the_callees_hold_is_told_to_the_caller() {
    let mut pair = Pair::with(|_, _| {});
    let id = ServerId::for_test(77);
    let own = pair.sent[0].request().unwrap().headers.clone();
    let callee = pair.responses(Side::Callee, 200)[0].headers.clone();
    for (number, direction, held) in [(1, "sendonly", true), (2, "sendrecv", false)] {
        let mut update = Request::new(Method::UPDATE, pair.sent[0].request().unwrap().uri.clone());
        let headers = &mut update.headers;
        headers.push(HeaderName::Via, "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx");
        headers.push(HeaderName::From, callee.get(&HeaderName::To).unwrap());
        headers.push(HeaderName::To, own.get(&HeaderName::From).unwrap());
        headers.push(HeaderName::CallId, own.call_id().unwrap());
        headers.push(HeaderName::CSeq, format!("{number} UPDATE"));
        update.set_body("application/sdp", sdp(6000, "0", direction).into_bytes());
        pair.caller.on_request(id, &update, pair.now);
        assert!(matches!(
            pair.caller.poll_action(),
            Some(Action::Respond { response, .. }) if response.status == 200 && !response.body.is_empty()
        ));
        let told = std::iter::from_fn(|| pair.caller.poll_event()).last();
        assert!(matches!(told, Some(CallEvent::MediaChanged(media)) if media.on_hold == held));
    }
}
