//! Offers and answers in an answered call (RFC 3264): hold, moves, new codecs, late and crossing offers.

use super::*;
use crate::sdp::{Codec, Direction, SessionDescription};

fn described(response: &Response) -> SessionDescription {
    assert_eq!(response.status, 200);
    SessionDescription::parse(&response.body).expect("a session description")
}

fn version(description: &SessionDescription) -> u64 {
    description.origin.version.parse().unwrap()
}

/// A call with PCMU at port 4000.
fn agreed(now: Instant) -> (UasCall, SessionDescription) {
    let mut call = call(Some(&sdp(4000, "0 101", "sendrecv")));
    call.accept(now);
    let Some(Action::Respond { response, .. }) = call.poll_action() else {
        panic!("a 200")
    };
    call.on_ack(&from_peer("ACK", 1, None), now);
    drain(&mut call);
    (call, described(&response))
}

fn changed(call: &mut UasCall) -> Option<Negotiated> {
    let event = call.poll_event()?;
    match event {
        CallEvent::MediaChanged(negotiated) => Some(negotiated),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn each_kind_of_hold_and_its_end_is_told_by_reinvite_and_by_update() {
    let now = Instant::now();
    let zero = sdp(4000, "0 101", "sendrecv").replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0");
    for method in ["INVITE", "UPDATE"] {
        for (hold, answered, allowed) in [
            (
                sdp(4000, "0 101", "sendonly"),
                Direction::RecvOnly,
                Direction::RecvOnly,
            ),
            (
                sdp(4000, "0 101", "inactive"),
                Direction::Inactive,
                Direction::Inactive,
            ),
            (zero.clone(), Direction::RecvOnly, Direction::RecvOnly),
        ] {
            let (mut call, first) = agreed(now);
            let held = described(&ask(&mut call, &from_peer(method, 2, Some(&hold)), now));
            assert_eq!(held.media[0].direction, answered);
            assert_eq!(version(&held), version(&first) + 1);
            let told = changed(&mut call).expect("the hold is told");
            assert!(told.on_hold);
            assert_eq!(told.local_direction, allowed);
            // The hold is said once more, as some do to refresh the session.
            call.on_ack(&from_peer("ACK", 2, None), now);
            let again = described(&ask(&mut call, &from_peer(method, 3, Some(&hold)), now));
            assert_eq!(again, held);
            call.on_ack(&from_peer("ACK", 3, None), now);
            assert!(changed(&mut call).is_none());
            let resume = sdp(4000, "0 101", "sendrecv");
            let resumed = described(&ask(&mut call, &from_peer(method, 4, Some(&resume)), now));
            assert_eq!(resumed.media[0].direction, Direction::SendRecv);
            assert_eq!(version(&resumed), version(&held) + 1);
            let told = changed(&mut call).expect("the end of the hold is told");
            assert!(!told.on_hold && told.local_direction == Direction::SendRecv);
            assert_eq!(told.remote.unwrap().port(), 4000);
        }
    }
}

#[test]
fn another_codec_and_another_address_are_taken_by_reinvite_and_by_update() {
    let now = Instant::now();
    for method in ["INVITE", "UPDATE"] {
        let (mut call, _) = agreed(now);
        let moved = sdp(4100, "8 101", "sendrecv").replace("IP4 192.0.2.1", "IP4 198.51.100.7");
        let answer = described(&ask(&mut call, &from_peer(method, 2, Some(&moved)), now));
        assert_eq!(answer.media[0].formats, ["8"]);
        let told = changed(&mut call).expect("the move is told");
        assert_eq!(told.codec, Codec::Pcma);
        assert_eq!(told.remote, Some("198.51.100.7:4100".parse().unwrap()));
    }
}

#[test]
fn a_stream_that_comes_in_addition_is_refused_and_stays_in_our_offers() {
    let now = Instant::now();
    let (mut call, _) = agreed(now);
    let mut more = sdp(4000, "0 96", "sendrecv");
    more.push_str("a=rtpmap:96 telephone-event/8000\r\nm=video 4002 RTP/AVP 97\r\n");
    let answer = described(&ask(&mut call, &from_peer("INVITE", 2, Some(&more)), now));
    assert_eq!((answer.media.len(), answer.media[1].port), (2, 0));
    call.on_ack(&from_peer("ACK", 2, None), now);
    let offer = described(&ask(&mut call, &from_peer("INVITE", 3, None), now));
    assert_eq!(version(&offer), version(&answer) + 1);
    assert_eq!((offer.media.len(), offer.media[1].port), (2, 0));
    assert_eq!(
        (offer.media[0].kind.as_str(), offer.media[1].kind.as_str()),
        ("audio", "video")
    );
    // All our codecs, and DTMF events under the number that they have.
    assert_eq!(offer.media[0].formats, ["0", "8", "96"]);
    assert_eq!(offer.media[0].direction, Direction::SendRecv);
}

#[test]
fn a_late_offer_that_is_not_answered_leaves_an_answered_call_as_it_was() {
    let now = Instant::now();
    for answer in [
        None,
        Some(sdp(4002, "18", "sendrecv")),
        Some("x".to_owned()),
    ] {
        let (mut call, _) = agreed(now);
        let before = call.negotiated().cloned();
        described(&ask(&mut call, &from_peer("INVITE", 2, None), now));
        call.on_ack(&from_peer("ACK", 2, answer.as_deref()), now);
        assert!(changed(&mut call).is_none());
        assert_eq!(call.negotiated().cloned(), before);
        assert!(!call.is_ended() && call.poll_timeout().is_none());
        // The next offer is taken again.
        let next = from_peer("INVITE", 3, Some(&sdp(4006, "0", "sendrecv")));
        described(&ask(&mut call, &next, now));
        assert!(changed(&mut call).is_some());
    }
}

#[test]
fn a_late_answer_that_is_of_no_use_ends_a_new_call() {
    let now = Instant::now();
    for answer in [sdp(4000, "18", "sendrecv"), sdp(0, "0", "sendrecv")] {
        let mut call = call(None);
        call.accept(now);
        drain(&mut call);
        call.on_ack(&from_peer("ACK", 1, Some(&answer)), now);
        let (actions, events) = drain(&mut call);
        assert!(
            matches!(&actions[..], [Action::Request { request, .. }] if request.method == Method::BYE)
        );
        assert_eq!(ended(&events), Some(EndedBy::BadAnswer));
    }
}

#[test]
fn a_held_call_resumes_by_a_late_offer() {
    let now = Instant::now();
    let (mut call, _) = agreed(now);
    let hold = from_peer("UPDATE", 2, Some(&sdp(4000, "0", "inactive")));
    described(&ask(&mut call, &hold, now));
    assert!(changed(&mut call).unwrap().on_hold);
    let offer = described(&ask(&mut call, &from_peer("INVITE", 3, None), now));
    assert_eq!(offer.media[0].direction, Direction::SendRecv);
    call.on_ack(&from_peer("ACK", 3, Some(&sdp(4000, "0", "sendrecv"))), now);
    assert!(!changed(&mut call).unwrap().on_hold);
}

#[test]
fn two_reinvites_may_wait_for_their_acks_in_any_order() {
    let now = Instant::now();
    let (mut call, _) = agreed(now);
    for (number, port) in [(2, 4002), (3, 4004)] {
        let reinvite = from_peer("INVITE", number, Some(&sdp(port, "0", "sendrecv")));
        described(&ask(&mut call, &reinvite, now));
    }
    call.on_ack(&from_peer("ACK", 3, None), now);
    call.handle_timeout(now + T1);
    let (actions, _) = drain(&mut call);
    let [Action::ResendFinal { response, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(response.headers.cseq().unwrap().0, 2);
    call.on_ack(&from_peer("ACK", 2, None), now);
    assert_eq!(call.poll_timeout(), None);
    assert_eq!(call.negotiated().unwrap().remote.unwrap().port(), 4004);
}
