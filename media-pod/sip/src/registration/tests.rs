use std::time::{Duration, Instant};

use super::*;
use crate::message::{HeaderName, Response};
use crate::transaction::{ClientError, TransportError};

fn config() -> RegistrationConfig {
    RegistrationConfig {
        registrar: Uri::parse("sip:carrier.example").unwrap(),
        aor: Uri::parse("sip:alice@carrier.example").unwrap(),
        contact: NameAddr::parse("<sip:token@192.0.2.9:5060>").unwrap(),
        expiry_seconds: 600,
        credentials: Credentials {
            username: "alice".to_owned(),
            password: "secret".to_owned(),
            realm: None,
        },
        user_agent: "ringwire".to_owned(),
        call_id: "registration-1".to_owned(),
        contact_user_is_ours: true,
    }
}

fn start() -> (Registration, Instant) {
    let now = Instant::now();
    let mut registration = Registration::new(config(), now);
    registration.set_server("203.0.113.5:5060 over UDP");
    (registration, now)
}

fn sent(registration: &mut Registration) -> (u64, Request) {
    let Some(Action::Send { token, mut request }) = registration.poll_action() else {
        panic!("no REGISTER")
    };
    request.headers.insert_first(
        HeaderName::Via,
        "SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1;received=198.51.100.4;rport=40000",
    );
    (token, request)
}

fn answer(
    registration: &mut Registration,
    status: u16,
    headers: &[(HeaderName, &str)],
    now: Instant,
) -> Request {
    let (token, request) = sent(registration);
    let mut response = Response::to_request(&request, status, None);
    for (name, value) in headers {
        response.headers.push(name.clone(), *value);
    }
    registration.on_response(token, &response, now);
    request
}

const BOUND: (HeaderName, &str) = (
    HeaderName::Contact,
    "<sip:other@192.0.2.3>;expires=9, <sip:token@192.0.2.9:5060>;expires=600",
);

fn challenge(nonce: &str) -> (HeaderName, String) {
    (
        HeaderName::WwwAuthenticate,
        format!("Digest realm=\"carrier\", nonce=\"{nonce}\", qop=\"auth\""),
    )
}

fn challenged(registration: &mut Registration, nonce: &str, stale: bool, now: Instant) -> Request {
    let (name, value) = challenge(nonce);
    let value = if stale {
        format!("{value}, stale=true")
    } else {
        value
    };
    answer(registration, 401, &[(name, &value)], now)
}

fn registered() -> (Registration, Instant) {
    let (mut registration, now) = start();
    answer(&mut registration, 200, &[BOUND], now);
    assert_eq!(registration.status().state, State::Registered);
    (registration, now)
}

fn next(registration: &mut Registration) -> Instant {
    let at = registration.poll_timeout().expect("something is due");
    registration.handle_timeout(at);
    at
}

#[test]
fn registers_with_digest_and_tells_it_once() {
    let (mut registration, now) = start();
    assert_eq!(
        (registration.status().state, registration.status().reason),
        (State::Unknown, Reason::Registering)
    );
    let before = registration.version();
    let first = challenged(&mut registration, "n1", false, now);
    assert!(!first.headers.has(&HeaderName::Authorization));
    assert_eq!(registration.version(), before, "a challenge is no news");
    let second = answer(
        &mut registration,
        200,
        &[
            BOUND,
            (HeaderName::ServiceRoute, "<sip:edge.carrier.example;lr>"),
        ],
        now,
    );
    assert!(
        second
            .headers
            .get(&HeaderName::Authorization)
            .unwrap()
            .contains("nonce=\"n1\"")
    );
    assert_eq!(
        second.headers.get(&HeaderName::CallId),
        first.headers.get(&HeaderName::CallId)
    );
    assert_eq!(
        second.headers.cseq().unwrap().0,
        first.headers.cseq().unwrap().0 + 1
    );
    let status = registration.status();
    assert_eq!(
        (status.state, status.reason),
        (State::Registered, Reason::Registered)
    );
    assert_eq!(status.last_response.as_deref(), Some("200 OK"));
    assert_eq!(status.contact.as_deref(), Some("sip:token@192.0.2.9:5060"));
    assert_eq!(status.received, Some("198.51.100.4:40000".parse().unwrap()));
    assert_eq!(
        registration.service_route()[0].uri.to_string(),
        "sip:edge.carrier.example;lr"
    );
    assert_eq!(registration.expires_in(now), Some(Duration::from_secs(600)));
    assert_eq!(registration.version(), before + 1);
}

#[test]
fn refreshes_between_80_and_90_percent_without_news() {
    let (mut registration, now) = registered();
    let version = registration.version();
    let first = next(&mut registration);
    let after = first.duration_since(now).as_secs();
    assert!((270..=540).contains(&after), "{after}");
    answer(&mut registration, 200, &[BOUND], first);
    let at = next(&mut registration);
    let after = at.duration_since(first).as_secs();
    assert!((480..=540).contains(&after), "{after}");
    answer(&mut registration, 200, &[BOUND], at);
    assert_eq!(registration.version(), version);
    assert_eq!(registration.expires_in(at), Some(Duration::from_secs(600)));
}

#[test]
fn refreshes_never_come_sooner_than_five_seconds() {
    let mut rng = StdRng::seed_from_u64(1);
    for seconds in [1, 5, 9, 12, 60, 3600] {
        for is_first in [true, false] {
            let after = backoff::refresh_after(seconds, is_first, &mut rng);
            assert!(after >= Duration::from_secs(5));
            assert!(
                seconds < 10
                    || after + Duration::from_secs(5) <= Duration::from_secs(u64::from(seconds))
            );
        }
    }
}

#[test]
fn bindings_that_were_made_together_are_not_refreshed_together() {
    let now = Instant::now();
    let mut due = std::collections::BTreeMap::new();
    for number in 0..5_000 {
        let config = RegistrationConfig {
            call_id: format!("call-{number}"),
            ..config()
        };
        let mut registration = Registration::new(config, now);
        answer(&mut registration, 200, &[BOUND], now);
        let after = next(&mut registration).duration_since(now).as_secs();
        *due.entry(after).or_insert(0_u32) += 1;
    }
    // 5,000 over the 270 s between 45 and 90 % of the binding.
    let most = due.values().max().unwrap();
    assert!(*most <= 40, "{most} refreshes in one second");
}

#[test]
fn the_expiry_comes_from_our_contact_else_the_header_else_our_wish() {
    for (headers, expected) in [
        (vec![BOUND, (HeaderName::Expires, "77")], 600),
        (
            vec![
                (HeaderName::Contact, "<sip:token@192.0.2.9:5060>"),
                (HeaderName::Expires, "77"),
            ],
            77,
        ),
        (
            vec![(HeaderName::Contact, "<sip:token@192.0.2.9:5060>")],
            600,
        ),
        // Rewritten to the address that the registrar saw.
        (
            vec![(
                HeaderName::Contact,
                "<sip:token@198.51.100.4:40000>;expires=120",
            )],
            120,
        ),
    ] {
        let (mut registration, now) = start();
        answer(&mut registration, 200, &headers, now);
        assert_eq!(
            registration.expires_in(now),
            Some(Duration::from_secs(expected))
        );
    }
}

#[test]
fn a_200_without_our_contact_is_no_registration() {
    let (mut registration, now) = registered();
    let at = next(&mut registration);
    answer(
        &mut registration,
        200,
        &[(HeaderName::Contact, "<sip:other@192.0.2.3>;expires=9")],
        at,
    );
    assert_eq!(
        (registration.status().state, registration.status().reason),
        (State::Unregistered, Reason::BindingRemoved)
    );
    assert_eq!(registration.expires_in(now), None);
    let again = next(&mut registration);
    assert!(again.duration_since(at) <= Duration::from_secs(1));
    answer(&mut registration, 200, &[BOUND], again);
    assert_eq!(registration.status().state, State::Registered);
}

#[test]
fn a_second_challenge_means_wrong_credentials_and_a_long_pause() {
    let (mut registration, now) = start();
    challenged(&mut registration, "n1", false, now);
    challenged(&mut registration, "n2", false, now);
    let status = registration.status();
    assert_eq!(
        (status.state, status.reason),
        (State::Unregistered, Reason::WrongCredentials)
    );
    assert!(status.message.contains("alice") && !status.message.contains("secret"));
    assert_eq!(status.last_response.as_deref(), Some("401 Unauthorized"));
    assert_eq!(
        registration.poll_timeout(),
        Some(now + Duration::from_secs(300))
    );
    let shown = format!("{:?} {:?}", registration.status(), registration.config());
    assert!(!shown.contains("secret"));
}

#[test]
fn a_proxy_before_the_registrar_may_ask_as_well() {
    let (mut registration, mut now) = start();
    let proxy = "Digest realm=\"proxy\", nonce=\"p\", qop=\"auth\"";
    for (round, refreshed) in [("first", false), ("refresh", true)] {
        if refreshed {
            now = next(&mut registration);
        }
        let first = answer(
            &mut registration,
            407,
            &[(HeaderName::ProxyAuthenticate, proxy)],
            now,
        );
        assert_eq!(
            first.headers.has(&HeaderName::ProxyAuthorization),
            refreshed,
            "{round}"
        );
        challenged(&mut registration, round, false, now);
        let last = answer(&mut registration, 200, &[BOUND], now);
        assert!(last.headers.has(&HeaderName::ProxyAuthorization), "{round}");
        let answer = last.headers.get(&HeaderName::Authorization).unwrap();
        assert!(answer.contains(&format!("nonce=\"{round}\"")), "{answer}");
        assert_eq!(registration.status().state, State::Registered);
    }
}

#[test]
fn stale_nonces_are_answered_a_few_times() {
    let (mut registration, now) = start();
    challenged(&mut registration, "n1", false, now);
    challenged(&mut registration, "n2", true, now);
    challenged(&mut registration, "n3", true, now);
    answer(&mut registration, 200, &[BOUND], now);
    assert_eq!(registration.status().state, State::Registered);
    // A refresh carries the known nonce; a new one is answered once more, stale or not.
    let at = next(&mut registration);
    let refresh = challenged(&mut registration, "n4", false, at);
    let authorization = refresh.headers.get(&HeaderName::Authorization).unwrap();
    assert!(authorization.contains("nonce=\"n3\"") && authorization.contains("nc=00000002"));
    answer(&mut registration, 200, &[BOUND], at);
    assert_eq!(registration.status().reason, Reason::Registered);

    let (mut endless, now) = start();
    for nonce in 0..4 {
        challenged(&mut endless, &format!("n{nonce}"), true, now);
    }
    assert_eq!(endless.status().reason, Reason::WrongCredentials);
    assert!(endless.poll_action().is_none());
}

#[test]
fn each_403_is_told_by_what_it_is_about() {
    let (mut registration, now) = start();
    answer(&mut registration, 403, &[], now);
    assert_eq!(
        registration.status().reason,
        Reason::AccountForbidden,
        "nothing was proven yet"
    );
    let (mut registration, now) = start();
    challenged(&mut registration, "n1", false, now);
    answer(&mut registration, 403, &[], now);
    assert_eq!(registration.status().reason, Reason::WrongCredentials);
    let (mut registration, now) = start();
    challenged(&mut registration, "n1", false, now);
    let (token, request) = sent(&mut registration);
    registration.on_response(
        token,
        &Response::to_request(&request, 403, Some("Account suspended")),
        now,
    );
    assert_eq!(registration.status().reason, Reason::AccountForbidden);
    assert_eq!(
        registration.poll_timeout(),
        Some(now + Duration::from_secs(300))
    );
}

#[test]
fn an_interval_too_brief_is_lengthened_once() {
    let (mut registration, now) = start();
    answer(
        &mut registration,
        423,
        &[(HeaderName::MinExpires, "3600")],
        now,
    );
    let longer = answer(
        &mut registration,
        423,
        &[(HeaderName::MinExpires, "7200")],
        now,
    );
    assert!(
        longer
            .headers
            .get(&HeaderName::Contact)
            .unwrap()
            .contains("expires=3600")
    );
    assert_eq!(registration.status().reason, Reason::IntervalTooShort);
    let (mut registration, now) = start();
    answer(&mut registration, 423, &[], now);
    assert_eq!(registration.status().reason, Reason::IntervalTooShort);
}

#[test]
fn silence_is_told_while_it_lasts_and_then_named() {
    let (mut registration, now) = start();
    let (token, _) = sent(&mut registration);
    registration.on_retransmitted(token, 4, Duration::from_millis(3500));
    assert_eq!(
        registration.status().message,
        "no reply yet from 203.0.113.5:5060 over UDP, 4 tries"
    );
    assert_eq!(registration.status().state, State::Unknown);
    registration.on_failed(token, &ClientError::Timeout, now);
    let status = registration.status();
    assert_eq!(
        (status.state, status.reason),
        (State::Unregistered, Reason::NoAnswer)
    );
    assert_eq!(
        status.message,
        "no reply from 203.0.113.5:5060 over UDP in 32 s: firewall or wrong transport?"
    );
}

#[test]
fn each_failure_has_its_reason() {
    for (error, reason) in [
        (TransportError::Refused, Reason::ConnectionRefused),
        (TransportError::TimedOut, Reason::NoAnswer),
        (
            TransportError::Untrusted("expired".into()),
            Reason::TlsUntrusted,
        ),
        (TransportError::Tls("no TLS".into()), Reason::TlsFailed),
        (TransportError::Closed, Reason::NoAnswer),
    ] {
        let (mut registration, now) = start();
        let (token, _) = sent(&mut registration);
        registration.on_failed(token, &ClientError::Transport(error), now);
        assert_eq!(registration.status().reason, reason);
    }
    for (status, reason) in [
        (404, Reason::NotFound),
        (500, Reason::ServerError),
        (503, Reason::ServerError),
        (486, Reason::Rejected),
    ] {
        let (mut registration, now) = start();
        answer(&mut registration, status, &[], now);
        assert_eq!(registration.status().reason, reason);
    }
    let (mut registration, now) = start();
    answer(
        &mut registration,
        401,
        &[(
            HeaderName::WwwAuthenticate,
            "Digest realm=\"r\", nonce=\"n\", algorithm=FOO",
        )],
        now,
    );
    assert_eq!(registration.status().reason, Reason::ChallengeUnsupported);
    let (mut registration, now) = start();
    registration.poll_action();
    registration.on_unresolved("no such name", now);
    assert_eq!(registration.status().reason, Reason::ServerNotFound);
    assert!(registration.poll_timeout().is_some());
}

#[test]
fn pauses_grow_to_30_seconds_and_after_ten_minutes_to_300() {
    let (mut registration, mut now) = start();
    let begun = now;
    let (mut pauses, mut late) = (Vec::new(), Vec::new());
    while now < begun + Duration::from_secs(3600) {
        answer(&mut registration, 500, &[], now);
        let at = next(&mut registration);
        let list = if now < begun + Duration::from_secs(600) {
            &mut pauses
        } else {
            &mut late
        };
        list.push(at.duration_since(now).as_secs_f64());
        now = at;
    }
    assert!(pauses[0] <= 1.0 && pauses[1] > pauses[0] * 1.4);
    assert!(pauses.iter().all(|pause| *pause <= 30.0) && pauses.last().unwrap() >= &22.0);
    assert!(
        late.iter().all(|pause| (225.0..=300.0).contains(pause)),
        "{late:?}"
    );
}

#[test]
fn retry_after_is_respected() {
    let (mut registration, now) = start();
    answer(
        &mut registration,
        503,
        &[(HeaderName::RetryAfter, "120")],
        now,
    );
    assert_eq!(
        registration.poll_timeout(),
        Some(now + Duration::from_secs(120))
    );
}

#[test]
fn a_failing_refresh_is_named_while_the_binding_holds_and_its_cause_after_that() {
    let (mut registration, now) = registered();
    let at = next(&mut registration);
    let (token, _) = sent(&mut registration);
    registration.on_failed(token, &ClientError::Timeout, at);
    assert_eq!(
        (registration.status().state, registration.status().reason),
        (State::Registered, Reason::RefreshFailing)
    );
    assert!(registration.status().contact.is_some());
    while registration.status().state == State::Registered {
        let at = next(&mut registration);
        if let Some(Action::Send { token, .. }) = registration.poll_action() {
            registration.on_failed(token, &ClientError::Timeout, at);
        }
        assert!(at <= now + Duration::from_secs(600));
    }
    assert_eq!(registration.status().reason, Reason::NoAnswer);
    assert_eq!(registration.status().registered_at, None);
}

#[test]
fn a_lost_flow_registers_again_at_once_but_not_in_a_loop() {
    let (mut registration, now) = registered();
    let later = now + Duration::from_secs(60);
    registration.on_flow_lost(later);
    assert_eq!(registration.status().reason, Reason::RefreshFailing);
    answer(&mut registration, 200, &[BOUND], later);
    assert_eq!(registration.status().reason, Reason::Registered);
    registration.on_flow_lost(later);
    assert!(
        registration.poll_action().is_none(),
        "lost right after a success: pause first"
    );
    next(&mut registration);
    assert!(registration.poll_action().is_some());
}

#[test]
fn an_edit_resets_everything_and_takes_the_old_contact_back() {
    let (mut registration, now) = start();
    challenged(&mut registration, "n1", false, now);
    challenged(&mut registration, "n2", false, now);
    assert_eq!(registration.status().reason, Reason::WrongCredentials);
    let mut edited = config();
    edited.credentials.password = "right".to_owned();
    edited.contact = NameAddr::parse("<sip:token@192.0.2.10:5060>").unwrap();
    registration.update(edited.clone(), now);
    assert_eq!(
        (registration.status().state, registration.status().reason),
        (State::Unknown, Reason::Registering)
    );
    let bound = [(
        HeaderName::Contact,
        "<sip:token@192.0.2.10:5060>;expires=600",
    )];
    let request = answer(&mut registration, 200, &bound, now);
    let contacts: Vec<_> = request.headers.get_all(&HeaderName::Contact).collect();
    assert_eq!(
        contacts,
        [
            "<sip:token@192.0.2.10:5060>;expires=600",
            "<sip:token@192.0.2.9:5060>;expires=0"
        ]
    );
    registration.refresh_now(now);
    let (_, request) = sent(&mut registration);
    assert_eq!(
        request.headers.get_all(&HeaderName::Contact).count(),
        1,
        "taken back once"
    );
}

#[test]
fn answers_to_older_requests_are_ignored() {
    let (mut registration, now) = start();
    let (old, request) = sent(&mut registration);
    registration.update(config(), now);
    registration.on_response(old, &Response::to_request(&request, 403, None), now);
    registration.on_failed(old, &ClientError::Timeout, now);
    registration.on_retransmitted(old, 9, Duration::ZERO);
    assert_eq!(registration.status().reason, Reason::Registering);
    answer(&mut registration, 200, &[BOUND], now);
    assert_eq!(registration.status().state, State::Registered);
}

#[test]
fn taking_back_answers_the_challenge_and_ends() {
    let (mut registration, now) = registered();
    registration.unregister(now);
    assert!(!registration.is_done());
    let first = challenged(&mut registration, "n1", false, now);
    assert_eq!(
        first.headers.get(&HeaderName::Contact),
        Some("<sip:token@192.0.2.9:5060>;expires=0")
    );
    assert_eq!(first.headers.expires(), Some(0));
    answer(&mut registration, 200, &[], now);
    assert!(registration.is_done());
    assert_eq!(registration.status().reason, Reason::Unregistered);
    assert_eq!(registration.poll_timeout(), None);
}

#[test]
fn taking_back_gives_up_after_four_seconds() {
    let (mut registration, now) = registered();
    registration.unregister(now);
    assert_eq!(next(&mut registration), now + Duration::from_secs(4));
    assert!(registration.is_done() && registration.poll_timeout().is_none());
}

#[test]
fn taking_back_what_never_was_needs_no_message() {
    let (mut registration, now) = start();
    answer(&mut registration, 403, &[], now);
    registration.unregister(now);
    assert!(registration.is_done() && registration.poll_action().is_none());
    registration.update(config(), now);
    assert!(!registration.is_done() && registration.poll_action().is_some());
}

#[test]
fn a_predecessors_binding_is_taken_back_once_and_again_with_each_refresh() {
    const BOTH: (HeaderName, &str) = (
        HeaderName::Contact,
        "<sip:token@192.0.2.8:5060>;expires=90, <sip:token@192.0.2.9:5060>;expires=600, <sip:other@192.0.2.3>;expires=9",
    );
    let (mut registration, now) = start();
    answer(&mut registration, 200, &[BOTH], now);
    let request = answer(&mut registration, 200, &[BOTH], now);
    let contacts: Vec<&str> = request.headers.get_all(&HeaderName::Contact).collect();
    assert_eq!(
        contacts,
        [
            "<sip:token@192.0.2.9:5060>;expires=600",
            "<sip:token@192.0.2.8:5060>;expires=0"
        ]
    );
    assert_eq!(registration.status().state, State::Registered);
    // The registrar keeps it all the same: no storm of requests.
    assert!(registration.poll_action().is_none());
    let later = registration.poll_timeout().unwrap();
    assert!(later > now + Duration::from_secs(60));
    registration.handle_timeout(later);
    let request = answer(&mut registration, 200, &[BOUND], later);
    assert_eq!(request.headers.get_all(&HeaderName::Contact).count(), 2);
    assert!(registration.poll_action().is_none());
}

#[test]
fn others_bindings_with_a_contact_user_that_anybody_may_choose_stay() {
    let now = Instant::now();
    let guessable = RegistrationConfig {
        contact_user_is_ours: false,
        ..config()
    };
    let mut registration = Registration::new(guessable, now);
    let both = "<sip:token@192.0.2.8:5060>;expires=90, <sip:token@192.0.2.9:5060>;expires=600";
    answer(&mut registration, 200, &[(HeaderName::Contact, both)], now);
    assert!(registration.poll_action().is_none());
}
