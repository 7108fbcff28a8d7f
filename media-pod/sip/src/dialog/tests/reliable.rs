//! Reliable provisional responses (RFC 3262) from both sides.

use super::*;

fn reliable() -> UasParams {
    UasParams {
        reliable_provisionals: true,
        ..uas_params()
    }
}

fn statuses(pair: &Pair) -> Vec<u16> {
    pair.sent
        .iter()
        .filter_map(|sent| match &sent.message {
            Message::Response(response) => Some(response.status),
            Message::Request(_) => None,
        })
        .collect()
}

#[test]
fn ringing_and_early_media_go_one_after_the_other_and_the_200_says_nothing_more() {
    let mut pair = Pair::begin(uac_params(), reliable(), false, |_, _| {});
    pair.callee(|callee, now| {
        callee.ring(now);
        callee.progress(now);
        callee.accept(now);
    });
    // The 180 has no body: the 200 need not wait for its PRACK, and the 183 is of no use any more.
    assert_eq!(statuses(&pair), [180, 200, 200]);

    let mut pair = Pair::begin(uac_params(), reliable(), false, |_, _| {});
    pair.callee(|callee, now| {
        callee.ring(now);
        callee.progress(now);
    });
    assert_eq!(statuses(&pair), [180, 200, 183, 200]);
    let racks: Vec<_> = pair
        .sent
        .iter()
        .filter_map(Sent::request)
        .filter_map(|request| request.headers.get(&HeaderName::Rack))
        .map(str::to_owned)
        .collect();
    let rseqs: Vec<_> = [180, 183]
        .into_iter()
        .map(|status| {
            let response = pair.responses(Side::Callee, status)[0];
            let rseq = response.headers.get(&HeaderName::Rseq).unwrap();
            format!("{rseq} 1 INVITE")
        })
        .collect();
    assert_eq!(racks, rseqs);
    assert!(pair.caller.negotiated().is_some());
    pair.callee(UasCall::accept);
    let ok = pair.responses(Side::Callee, 200);
    assert!(ok.last().unwrap().body.is_empty());
    let confirmed = |(_, event): &&(Side, CallEvent)| {
        matches!(event, CallEvent::Answered | CallEvent::Confirmed)
    };
    assert_eq!(pair.events.iter().filter(confirmed).count(), 2);
    // The numbers of the early dialog go on.
    pair.caller.hang_up(None, pair.now);
    pair.run_to(1);
    assert_eq!(pair.ended(Side::Callee), Some(EndedBy::Peer));
}

#[test]
fn a_required_reliability_that_nobody_acknowledges_ends_in_504() {
    let mut pair = Pair::begin(uac_params(), uas_params(), false, |by, message| {
        in_first_invite(message, HeaderName::Require, "100rel");
        if by == Side::Callee {
            // The caller takes it for an ordinary 180.
            without(message, &HeaderName::Rseq);
        }
    });
    pair.callee(UasCall::ring);
    pair.run_to(60);
    let times: Vec<_> = pair.sent.iter().map(|sent| sent.at).collect();
    // The INVITE, the 180 after T1 doubled each time, and the end after 64 of them.
    assert_eq!(times, [0, 0, 0, 1, 3, 7, 15, 31, 32]);
    assert_eq!(pair.responses(Side::Callee, 504).len(), 1);
    assert_eq!(pair.ended(Side::Callee), Some(EndedBy::NoAck));
    assert_eq!(pair.ended(Side::Caller), Some(EndedBy::Peer));
}
