//! Session timers (RFC 4028) from both sides.

use super::*;

const ALLOW_WITHOUT_UPDATE: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO";

/// Neither side takes UPDATE.
fn no_update(_: Side, message: &mut Message) {
    match message {
        Message::Request(request) if request.headers.has(&HeaderName::Allow) => {
            request.headers.set(HeaderName::Allow, ALLOW_WITHOUT_UPDATE);
        }
        Message::Response(response) if response.headers.has(&HeaderName::Allow) => {
            response
                .headers
                .set(HeaderName::Allow, ALLOW_WITHOUT_UPDATE);
        }
        _ => {}
    }
}

fn callee_refreshes(_: Side, message: &mut Message) {
    in_first_invite(message, HeaderName::SessionExpires, "1800;refresher=uas");
}

fn session_expires(sent: &Sent) -> Option<String> {
    sent.request()?
        .headers
        .get(&HeaderName::SessionExpires)
        .map(str::to_owned)
}

fn live(pair: &Pair) -> bool {
    pair.ended(Side::Caller).is_none() && pair.ended(Side::Callee).is_none()
}

#[test]
fn a_call_of_35_minutes_is_refreshed_by_the_callers_update() {
    let mut pair = Pair::with(|_, _| {});
    let ok = pair.responses(Side::Callee, 200)[0];
    assert_eq!(
        ok.headers.get(&HeaderName::SessionExpires),
        Some("1800;refresher=uac")
    );
    assert_eq!(ok.headers.get(&HeaderName::Require), Some("timer"));
    assert!(ok.headers.lists(&HeaderName::Supported, "timer"));
    pair.run_to(35 * 60);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [900, 1800]);
    assert!(pair.times(Side::Callee, &Method::UPDATE).is_empty());
    let update = pair.sent.iter().find(|sent| sent.at == 900).unwrap();
    assert_eq!(
        session_expires(update).as_deref(),
        Some("1800;refresher=uac")
    );
    assert!(update.request().unwrap().body.is_empty());
    assert!(live(&pair));
    pair.caller.hang_up(None, pair.now);
    pair.run_to(35 * 60 + 1);
    assert_eq!(pair.ended(Side::Callee), Some(EndedBy::Peer));
}

#[test]
fn a_call_of_35_minutes_is_refreshed_by_the_callees_update() {
    let mut pair = Pair::with(callee_refreshes);
    pair.run_to(35 * 60);
    assert_eq!(pair.times(Side::Callee, &Method::UPDATE), [900, 1800]);
    assert!(pair.times(Side::Caller, &Method::UPDATE).is_empty());
    assert!(live(&pair));
}

#[test]
fn a_call_of_35_minutes_without_update_is_refreshed_by_reinvites_that_say_nothing_new() {
    for refresher in [Side::Caller, Side::Callee] {
        let mut pair = Pair::with(move |by, message| {
            no_update(by, message);
            if refresher == Side::Callee {
                callee_refreshes(by, message);
            }
        });
        let first = match refresher {
            Side::Caller => pair.sent[0].request().unwrap().body.clone(),
            Side::Callee => pair.responses(Side::Callee, 200)[0].body.clone(),
        };
        pair.run_to(35 * 60);
        let reinvites: Vec<_> = pair
            .sent
            .iter()
            .filter(|sent| sent.by == refresher && sent.at > 0)
            .filter_map(Sent::request)
            .filter(|request| request.method == Method::INVITE)
            .collect();
        assert_eq!(reinvites.len(), 2);
        for request in reinvites {
            assert_eq!(request.body, first, "the same version");
            assert!(request.headers.has(&HeaderName::Contact));
        }
        let acks = pair.times(refresher, &Method::ACK);
        assert!(acks.ends_with(&[900, 1800]), "{acks:?}");
        assert!(live(&pair));
        let changes = pair
            .events
            .iter()
            .filter(|(_, event)| matches!(event, CallEvent::MediaChanged(_)))
            .count();
        assert_eq!(changes, 1, "only the beginning is told");
    }
}

#[test]
fn a_refresh_that_is_not_answered_ends_the_call() {
    let mut pair = Pair::with(|_, _| {});
    pair.run_to(899);
    pair.cut = true;
    pair.run_to(2000);
    assert_eq!(pair.times(Side::Caller, &Method::BYE), [932]);
    assert_eq!(pair.ended(Side::Caller), Some(EndedBy::SessionExpired));
    // The callee waits for the refresh until 32 s before the expiry.
    assert_eq!(pair.times(Side::Callee, &Method::BYE), [1768]);
    assert_eq!(pair.ended(Side::Callee), Some(EndedBy::SessionExpired));
}

#[test]
fn short_intervals_are_ended_a_third_before_they_expire() {
    let mut pair = Pair::with(|_, message| {
        in_first_invite(message, HeaderName::SessionExpires, "90;refresher=uac");
    });
    pair.run_to(1);
    pair.cut = true;
    pair.run_to(200);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [45]);
    assert_eq!(pair.times(Side::Callee, &Method::BYE), [60]);
}

#[test]
fn who_does_not_know_the_call_any_more_ends_it() {
    for status in [408, 481] {
        let mut pair = Pair::with(move |by, message| {
            if let Message::Response(response) = message
                && by == Side::Callee
                && response.headers.cseq().unwrap().1 == Method::UPDATE
            {
                response.status = status;
            }
        });
        pair.run_to(1000);
        assert_eq!(pair.times(Side::Caller, &Method::BYE), [900]);
        assert_eq!(pair.ended(Side::Caller), Some(EndedBy::SessionExpired));
    }
}

#[test]
fn other_failures_of_a_refresh_keep_the_call_until_it_expires() {
    let mut pair = Pair::with(|by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
        {
            response.status = 500;
        }
    });
    // The callee believes that it was refreshed: it would not end the call.
    pair.run_to(1799);
    let tries = pair.times(Side::Caller, &Method::UPDATE);
    assert_eq!(&tries[..3], [900, 1350, 1575]);
    assert!(tries.len() < 10, "{tries:?}");
    assert!(live(&pair));
    pair.run_to(1801);
    assert_eq!(pair.times(Side::Caller, &Method::BYE), [1800]);
    assert_eq!(pair.ended(Side::Caller), Some(EndedBy::SessionExpired));
}

#[test]
fn a_failed_refresh_that_succeeds_later_keeps_the_call() {
    let mut failures = 2;
    let mut pair = Pair::with(move |by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
            && failures > 0
        {
            failures -= 1;
            response.status = 503;
        }
    });
    pair.run_to(35 * 60);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [900, 1350, 1575]);
    assert!(live(&pair));
}

#[test]
fn the_answer_to_a_refresh_moves_the_target() {
    let mut pair = Pair::with(|by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
        {
            response
                .headers
                .set(HeaderName::Contact, "<sip:moved@192.0.2.99>");
        }
    });
    pair.run_to(1_801);
    let targets: Vec<_> = pair
        .sent
        .iter()
        .filter(|sent| sent.by == Side::Caller && sent.at >= 900)
        .filter_map(Sent::request)
        .map(|request| request.uri.to_string())
        .collect();
    assert_eq!(targets, ["sip:us@192.0.2.9:5060", "sip:moved@192.0.2.99"]);
}

#[test]
fn who_refuses_update_after_all_gets_a_reinvite() {
    let mut pair = Pair::with(|by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
        {
            response.status = 405;
        }
    });
    pair.run_to(901);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [900]);
    assert_eq!(pair.times(Side::Caller, &Method::INVITE), [0, 900]);
    assert!(live(&pair));
}

#[test]
fn glare_puts_a_refresh_off_for_as_long_as_the_call_id_says() {
    for (refresher, least, most) in [(Side::Caller, 2100, 4000), (Side::Callee, 0, 2000)] {
        let mut glares = 1;
        let mut pair = Pair::with(move |by, message| {
            if refresher == Side::Callee {
                callee_refreshes(by, message);
            }
            if let Message::Response(response) = message
                && by != refresher
                && response.headers.cseq().unwrap().1 == Method::UPDATE
                && glares > 0
            {
                glares -= 1;
                response.status = 491;
            }
        });
        pair.run_to(900);
        let next = match refresher {
            Side::Caller => pair.caller.poll_timeout(),
            Side::Callee => pair.callee.as_ref().unwrap().poll_timeout(),
        };
        let wait = next.unwrap().duration_since(pair.start).as_millis() - 900_000;
        assert!((least..=most).contains(&wait) && wait % 10 == 0, "{wait}");
        pair.run_to(905);
        assert_eq!(pair.times(refresher, &Method::UPDATE).len(), 2);
        assert!(live(&pair));
    }
}

#[test]
fn a_422_to_the_invite_or_to_a_refresh_raises_the_interval() {
    let mut pair = Pair::with(|by, message| {
        if by == Side::Caller {
            in_first_invite(message, HeaderName::SessionExpires, "60");
        }
    });
    // Ours asks for 90 s at least; the caller has not asked for less than that, so it gives up.
    pair.run_to(1);
    let refused = pair.responses(Side::Callee, 422);
    assert_eq!(refused[0].headers.get(&HeaderName::MinSe), Some("90"));
    assert_eq!(pair.ended(Side::Caller), Some(EndedBy::Peer));

    let mut refusals = 1;
    let mut pair = Pair::with(move |by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.status == 200
            && refusals > 0
        {
            refusals -= 1;
            response.status = 422;
            response.headers.push(HeaderName::MinSe, "3600");
        }
    });
    pair.run_to(1);
    let asked: Vec<_> = pair.sent.iter().filter_map(session_expires).collect();
    assert_eq!(asked, ["1800", "3600"]);

    let mut refusals = 1;
    let mut pair = Pair::with(move |by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
            && refusals > 0
        {
            refusals -= 1;
            response.status = 422;
            response.headers.push(HeaderName::MinSe, "2400");
        }
    });
    pair.run_to(901);
    let updates: Vec<_> = pair
        .sent
        .iter()
        .filter(|sent| sent.at == 900)
        .filter_map(Sent::request)
        .collect();
    assert_eq!(updates.len(), 2);
    assert_eq!(
        updates[1].headers.get(&HeaderName::SessionExpires),
        Some("2400;refresher=uac")
    );
    assert_eq!(updates[1].headers.get(&HeaderName::MinSe), Some("2400"));
    pair.run_to(2099);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [900, 900]);
    pair.run_to(2101);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [900, 900, 2100]);
    assert!(live(&pair));
}

#[test]
fn a_peer_that_always_wants_more_is_not_followed_for_ever() {
    let mut least = 1_800;
    let mut pair = Pair::with(move |by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
        {
            least += 1;
            response.status = 422;
            response.headers.push(HeaderName::MinSe, least.to_string());
        }
    });
    pair.run_to(901);
    assert_eq!(pair.times(Side::Caller, &Method::UPDATE), [900; 4]);
    pair.run_to(1_801);
    assert_eq!(pair.ended(Side::Caller), Some(EndedBy::SessionExpired));
}

#[test]
fn an_answer_without_session_expires_means_no_timer() {
    let mut pair = Pair::with(|by, message| {
        if by == Side::Callee {
            without(message, &HeaderName::SessionExpires);
        }
    });
    assert_eq!(pair.caller.poll_timeout(), None);
    pair.run_to(1_000);
    assert!(pair.times(Side::Caller, &Method::UPDATE).is_empty());
    assert!(pair.ended(Side::Caller).is_none());
}

#[test]
fn a_challenged_refresh_is_signed() {
    let credentials = crate::digest::Credentials {
        username: "alice".to_owned(),
        password: "secret".to_owned(),
        realm: None,
    };
    let uac = UacParams {
        credentials: Some(credentials),
        ..uac_params()
    };
    let mut challenges = 1;
    let mut pair = Pair::new(uac, uas_params(), move |by, message| {
        if let Message::Response(response) = message
            && by == Side::Callee
            && response.headers.cseq().unwrap().1 == Method::UPDATE
            && challenges > 0
        {
            challenges -= 1;
            response.status = 407;
            response.headers.push(
                HeaderName::ProxyAuthenticate,
                "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"",
            );
        }
    });
    pair.run_to(901);
    let updates: Vec<_> = pair
        .sent
        .iter()
        .filter(|sent| sent.at == 900)
        .filter_map(Sent::request)
        .collect();
    assert_eq!(updates.len(), 2);
    assert!(updates[1].headers.has(&HeaderName::ProxyAuthorization));
    assert!(live(&pair));
}
