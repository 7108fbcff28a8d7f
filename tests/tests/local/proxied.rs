//! Calls through Kamailio, which stays in their way (Record-Route): with the caller's own media, and with rtpengine in between.

use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, account, echo, number, registering_trunk, web_socket};
use ringwire_tests::sipp;
use ringwire_tests::wait::seconds;

/// Scenarios of sipp, and the reason in the record of their calls.
const SCENARIOS: [(&str, &str); 4] = [
    ("hold.xml", "CallerHungUp"),
    ("offerless.xml", "CallerHungUp"),
    ("prack.xml", "CallerHungUp"),
    ("call.xml", "CallerHungUp"),
];

/// A server that is registered at the carrier.
fn registered_gateway(carrier: &Carrier, agent: &str) -> Gateway {
    let set = [
        registering_trunk("trunk", carrier.ip(), "codecs: [PCMU, PCMA]"),
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        agent.to_owned(),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    gateway
}

fn scenarios_through_the_carrier(options: &[&str]) {
    let carrier = Carrier::start(options);
    let gateway = registered_gateway(&carrier, &echo("bot", ""));
    for (scenario, reason) in SCENARIOS {
        sipp::run(scenario, carrier.sip(), &["-d", "300"]);
        let records = gateway.records();
        assert_eq!(records.last().unwrap()["reason"], reason, "{scenario}");
    }
    assert_eq!(gateway.records().len(), SCENARIOS.len());
    gateway.wait_calls(0);
}

#[test]
fn sipp_calls_through_the_carrier() {
    scenarios_through_the_carrier(&[]);
}

#[test]
fn sipp_gives_up_through_the_carrier() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let carrier = Carrier::start(&[]);
    let gateway = registered_gateway(&carrier, &web_socket("bot", &agent.url(), ""));
    sipp::run("cancel.xml", carrier.sip(), &[]);
    assert_eq!(gateway.record()["reason"], "CallerCancelled");
    gateway.wait_calls(0);
}

#[test]
fn sipp_calls_through_the_carrier_and_its_relay() {
    scenarios_through_the_carrier(&["--relay", "yes"]);
}
