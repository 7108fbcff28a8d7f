//! Connections that stay silent for long (RFC 5626): each side asks the other whether it is still there, and one that is not is left.

use std::time::Duration;

use ringwire_tests::address::Address;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::certificates::secret;
use ringwire_tests::dns::Dns;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::kamailio::Kamailio;
use ringwire_tests::manifests::{NUMBER, account, echo, number, registering_trunk};
use ringwire_tests::wait::{self, seconds};
use ringwire_tests::wire::Wire;

use crate::ECHO_EXPECTED;

/// We ask after 25 s of a registration.
const ASKED_WITHIN: Duration = Duration::from_secs(30);

/// Who has not answered for 10 s is left.
const LEFT_WITHIN: Duration = Duration::from_secs(40);

/// What we have counted of connections that we cut off for want of an answer.
const UNANSWERED: &str = "ringwire_connections_cut_off_total{reason=\"KeepAliveUnanswered\"}";

fn set(server: impl std::fmt::Display, more: &str) -> String {
    let set = [
        registering_trunk("trunk", server, more),
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    set.join("---\n")
}

#[track_caller]
fn wait_registered(gateway: &Gateway) {
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
}

/// A call that comes over the connection of the registration.
#[track_caller]
fn assert_called(carrier: &Carrier) {
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    let network = ["--header", "X-Provider: network", "--duration", "2"];
    let arguments = [&network[..], &ECHO_EXPECTED].concat();
    let call = gateway::call(&target, Address::claim().ip(), &arguments);
    assert!(call.success, "{}", call.result);
}

#[test]
fn a_carrier_that_answers_keep_alives_is_called_over_the_same_connection_later() {
    let carrier = Carrier::start(&["--follow", "source"]);
    let wire = Wire::to(carrier.sip());
    let gateway = Gateway::start(&[("all.yaml", &set(wire.ip(), "transport: TCP"))]);
    wait_registered(&gateway);
    wait::until_ok(seconds(5), "the first keep-alive and its answer", || {
        let seen = wire.line_feeds();
        (seen == (2, 1)).then_some(()).ok_or(format!("{seen:?}"))
    });
    wait::until_ok(ASKED_WITHIN, "the second", || {
        let seen = wire.line_feeds();
        (seen == (4, 2)).then_some(()).ok_or(format!("{seen:?}"))
    });
    assert_called(&carrier);
    assert_eq!(wire.connections(), 1);
    assert_eq!(gateway.metric_or_none(UNANSWERED), None);
}

#[test]
fn keep_alives_are_asked_and_answered_over_tls_too() {
    let carrier = Carrier::start(&["--tls-port", "5061"]);
    let wire = Wire::to((carrier.ip(), 5061).into());
    let more = "transport: TLS, port: 5061, tls: {serverName: sip.carrier.test, caSecretRef: {name: authority}}";
    let authority = secret("authority", &[("ca.crt", &carrier.authority())]);
    let set = [set(wire.ip(), more), authority].join("---\n");
    let gateway = Gateway::start(&[("all.yaml", &set)]);
    wait_registered(&gateway);
    wire.wait_quiet();
    let before = wire.bytes();
    // Nothing else is said.
    wait::until_ok(ASKED_WITHIN, "a keep-alive and its answer", || {
        let (there, back) = wire.bytes();
        let both = there > before.0 && back > before.1;
        both.then_some(())
            .ok_or(format!("{before:?} {there} {back}"))
    });
    assert_eq!(wire.connections(), 1);
    assert_eq!(gateway.metric_or_none(UNANSWERED), None);
}

#[test]
fn a_carrier_that_hangs_is_left_and_registered_with_again_once_it_goes_on() {
    let carrier = Carrier::start(&["--follow", "source"]);
    let wire = Wire::to(carrier.sip());
    let gateway = Gateway::start(&[("all.yaml", &set(wire.ip(), "transport: TCP"))]);
    wait_registered(&gateway);
    wire.wait_quiet();
    assert_eq!(wire.line_feeds(), (2, 1));
    carrier.signal("STOP");
    wait::until(LEFT_WITHIN, "the connection is given up", || {
        (gateway.metric_or_none(UNANSWERED)? > 0.0).then_some(())
    });
    wait::until(seconds(5), "another connection", || {
        (wire.connections() == 2).then_some(())
    });
    carrier.signal("CONT");
    wait_registered(&gateway);
    assert_called(&carrier);
    assert_eq!(wire.connections(), 2);
}

#[test]
fn a_carrier_that_hangs_is_left_for_its_next_server() {
    let carriers = [(); 2].map(|()| Carrier::start(&[]));
    let wire = Wire::to(carriers[0].sip());
    let dns = Dns::start(&format!(
        "_sip._tcp IN SRV 10 10 5060 first\n_sip._tcp IN SRV 20 10 5060 second\nfirst IN A {}\nsecond IN A {}\n",
        wire.ip(),
        carriers[1].ip(),
    ));
    let set = set("carrier.test", "transport: TCP");
    let gateway = Gateway::start_asking(&dns, &[("all.yaml", &set)]);
    carriers[0].wait_contacts(1, seconds(5));
    wire.wait_quiet();
    assert_eq!(wire.line_feeds(), (2, 1));
    carriers[0].signal("STOP");
    // Those that are left, and those until the next is tried.
    carriers[1].wait_contacts(1, LEFT_WITHIN + seconds(5));
    wait_registered(&gateway);
    assert!(gateway.metric(UNANSWERED) > 0.0);
    assert_called(&carriers[1]);
}

#[test]
fn a_carriers_own_keep_alives_are_answered() {
    // Each registration is followed by a keep-alive over its connection.
    let carrier = Kamailio::start(
        &[],
        r#"
route[REQUEST] {
    append_to_reply("Contact: $ct;expires=3600\r\n");
    sl_send_reply("200", "OK");
    send_data("sip:$si:$sp;transport=tcp", "\r\n\r\n");
}
"#,
    );
    let wire = Wire::to(carrier.sip());
    let gateway = Gateway::start(&[("all.yaml", &set(wire.ip(), "transport: TCP"))]);
    wait_registered(&gateway);
    wait::until_ok(seconds(5), "a keep-alive and an answer each way", || {
        let seen = wire.line_feeds();
        (seen == (3, 3))
            .then_some(())
            .ok_or(format!("{seen:?}: {}", carrier.log()))
    });
    wire.wait_quiet();
    assert_eq!(wire.line_feeds(), (3, 3));
    assert_eq!(wire.connections(), 1);
}
