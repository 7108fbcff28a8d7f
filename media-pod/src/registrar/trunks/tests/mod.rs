mod index;
mod thousands;

use ringwire_config::fixture;
use ringwire_sip::message::Host;
use serde_json::json;

use super::trunk::PATIENCE;
use super::*;
use crate::registrar::names::{Lookup, Place, Share};

fn config() -> RegistrarConfig {
    config_of(["trunk".to_owned()])
}

fn config_of(names: impl IntoIterator<Item = String>) -> RegistrarConfig {
    fixture::registrar(names.into_iter().map(|name| provider(&name)))
}

fn provider(name: &str) -> Provider {
    let registration = json!({
        "username": "alice", "authUsername": "alice", "password": "hunter2", "fromDomain": "carrier.test",
        "expirySeconds": 300, "revision": "1",
    });
    Provider {
        registration: serde_json::from_value(registration).unwrap(),
        ..fixture::provider(name)
    }
}

/// A domain with two servers.
fn names() -> Names {
    let places = ["192.0.2.1", "192.0.2.2"].map(|address| Place {
        address: address.parse().unwrap(),
        port: Some(5070),
        way: None,
        share: Share::default(),
    });
    let mut names = Names::default();
    let question = Question::Service("carrier.test".into(), None);
    names.update(question, Lookup::Found(places.into()));
    names
}

fn configure(trunks: &mut Trunks, config: &RegistrarConfig, now: Instant) {
    let contact = |_: &Provider| NameAddr::parse("<sip:token@192.0.2.9>").ok();
    trunks.configure(config, |_| true, &Peers::default(), contact, now);
}

fn started(now: Instant) -> Trunks {
    let mut trunks = Trunks::default();
    configure(&mut trunks, &config(), now);
    trunks
}

/// The next request's transaction, and where it goes.
fn sent(trunks: &mut Trunks, names: &Names, now: Instant) -> (ClientId, String, Request) {
    let mut sends = trunks.poll_sends(names, now);
    assert_eq!(sends.len(), 1);
    let send = sends.remove(0);
    let mut endpoint = ringwire_sip::transaction::Endpoint::new(
        ringwire_sip::transaction::EndpointConfig::default(),
        send.key.1,
    );
    let host = Host::Name("us.test".into());
    let client = endpoint.request(send.request.clone(), send.flow.clone(), &host, 5060, now);
    trunks.sent(client, send.key);
    let mut request = send.request;
    let via = "SIP/2.0/UDP us.test;branch=z9hG4bK1";
    request.headers.insert_first(HeaderName::Via, via);
    (client, send.flow.remote.to_string(), request)
}

#[test]
fn a_silent_server_is_left_for_the_next_within_four_seconds() {
    let (mut names, now) = (names(), Instant::now());
    let mut trunks = started(now);
    let (silent, first, _) = sent(&mut trunks, &names, now);
    assert_eq!(first, "192.0.2.1:5070");
    let later = trunks.poll_timeout().unwrap();
    assert!(later <= now + Duration::from_secs(4));
    assert_eq!(trunks.handle_timeout(&mut names, later), [silent]);
    let (_, second, _) = sent(&mut trunks, &names, later);
    assert_eq!(second, "192.0.2.2:5070");
    // It is the last one: it has all the time that RFC 3261 gives it.
    assert_eq!(trunks.poll_timeout(), None);
}

#[test]
fn a_server_that_is_overloaded_is_left_and_a_refusal_is_not() {
    for (status, next) in [(503, Some("192.0.2.2:5070")), (403, None)] {
        let (mut names, now) = (names(), Instant::now());
        let mut trunks = started(now);
        let (client, _, request) = sent(&mut trunks, &names, now);
        let response = Response::to_request(&request, status, None);
        trunks.on_response(client, &response, &mut names, now);
        let sends = trunks.poll_sends(&names, now);
        let remote = sends.first().map(|send| send.flow.remote.to_string());
        assert_eq!(remote.as_deref(), next, "{status}");
    }
}

#[test]
fn an_answer_ends_the_patience() {
    let (mut names, now) = (names(), Instant::now());
    let mut trunks = started(now);
    let (client, _, request) = sent(&mut trunks, &names, now);
    let trying = Response::to_request(&request, 100, None);
    trunks.on_response(client, &trying, &mut names, now);
    assert!(trunks.handle_timeout(&mut names, now + PATIENCE).is_empty());
    assert!(trunks.poll_sends(&names, now + PATIENCE).is_empty());
}

/// `Expires` and `CSeq` of the next REGISTER.
fn asked(trunks: &mut Trunks, names: &Names, now: Instant) -> (Option<u32>, u32) {
    let (_, _, request) = sent(trunks, names, now);
    let (cseq, _) = request.headers.cseq().unwrap();
    (request.headers.expires(), cseq)
}

#[test]
fn a_provider_that_registers_no_more_is_taken_back_though_it_stays() {
    let (names, now) = (names(), Instant::now());
    let mut trunks = started(now);
    assert_eq!(asked(&mut trunks, &names, now), (Some(300), 1));
    let mut disabled = config();
    for provider in disabled.providers.values_mut() {
        provider.registration = None;
    }
    for _ in 0..2 {
        configure(&mut trunks, &disabled, now);
    }
    assert_eq!(asked(&mut trunks, &names, now), (Some(0), 2));
    assert!(!trunks.is_quiet());
}

#[test]
fn a_provider_that_is_not_understood_any_more_is_left_to_a_newer_registrar() {
    let (names, now) = (names(), Instant::now());
    let mut trunks = started(now);
    assert_eq!(asked(&mut trunks, &names, now), (Some(300), 1));
    let mut newer = config();
    let unknown = std::mem::take(&mut newer.providers).into_keys();
    newer.not_understood.providers = unknown.map(|id| (id, "unknown form".into())).collect();
    configure(&mut trunks, &newer, now);
    assert!(trunks.poll_sends(&names, now).is_empty(), "no un-REGISTER");
    assert!(trunks.by_serial.is_empty() && trunks.timers.is_empty());
}

#[test]
fn a_provider_that_is_made_again_goes_on_with_the_next_number() {
    let (names, now) = (names(), Instant::now());
    let mut trunks = started(now);
    sent(&mut trunks, &names, now);
    let gone = RegistrarConfig {
        providers: BTreeMap::new(),
        ..config()
    };
    configure(&mut trunks, &gone, now);
    assert_eq!(asked(&mut trunks, &names, now), (Some(0), 2));
    configure(&mut trunks, &config(), now);
    assert_eq!(asked(&mut trunks, &names, now), (Some(300), 3));
    assert!(trunks.is_quiet());
}
