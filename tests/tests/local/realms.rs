//! Two proxies in a row that each ask for credentials, in realms of their own: both challenges have to be answered at once.

use ringwire_tests::address::Address;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, account, echo, number, registering_trunk};
use ringwire_tests::pbx::OutboundProxy;
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::seconds;

use crate::ECHO_EXPECTED;

fn registers_and_is_called_through_a_proxy(transport: &str) {
    let carrier = Carrier::start(&["--max-expires", "10"]);
    let proxy = OutboundProxy::start(carrier.sip(), "secret1");
    let more = format!("outboundProxy: {}, transport: {transport}", proxy.ip());
    let set = [
        registering_trunk("trunk", carrier.ip(), &more),
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    carrier.wait_contacts(1, seconds(1));
    let (asked, passed) = proxy.seen("REGISTER");
    assert_eq!(asked, 1, "the proxy asks once");
    // Without and with what the carrier asks for.
    assert_eq!(passed, 2);
    // A refresh has both answers at once, with nonces that are still good.
    let counters = carrier.counters();
    let before = counters.registers();
    ringwire_tests::wait::until(seconds(12), "a refresh", || {
        (counters.registers() > before).then_some(())
    });
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    let network = [&["--header", "X-Provider: network"], &ECHO_EXPECTED[..]].concat();
    let call = gateway::call(&target, Address::claim().ip(), &network);
    assert!(call.success, "{}", call.result);
}

#[test]
fn a_trunk_registers_through_a_proxy_that_asks_too() {
    registers_and_is_called_through_a_proxy("UDP");
}

#[test]
fn a_trunk_registers_over_tcp_through_a_proxy_that_asks_too() {
    registers_and_is_called_through_a_proxy("TCP");
}

#[test]
fn ringwire_call_passes_a_proxy_and_a_carrier_that_both_ask() {
    let carrier = Carrier::start(&[]);
    let set = [
        registering_trunk("trunk", carrier.ip(), ""),
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let proxy = OutboundProxy::start(carrier.sip(), "secret2");
    let scratch = Scratch::new("password");
    let password = |text: &str| {
        let file = scratch.path().join(text);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let login = |file: &str, more: &[&str]| {
        let login = ["--username", "phone", "--password-file", file];
        let target = format!("sip:{NUMBER}@{}", proxy.ip());
        let arguments = [&login[..], more].concat();
        gateway::call(&target, Address::claim().ip(), &arguments)
    };
    let right = password("secret2");
    for (transport, calls) in [("udp", 1), ("tcp", 2)] {
        let how = [&["--transport", transport], &ECHO_EXPECTED[..]].concat();
        let call = login(&right, &how);
        assert!(call.success, "{transport}: {}", call.result);
        // The INVITE once as it is, once with what the proxy asked for, once with what the carrier asked for as well.
        assert_eq!(proxy.seen("INVITE"), (calls, 2 * calls), "{transport}");
        let (_, passed) = proxy.seen("BYE");
        assert_eq!(passed, calls, "{transport}");
    }
    assert_eq!(gateway.records().len(), 2);
    let call = login(&password("wrong"), &[]);
    assert!(!call.success, "{}", call.result);
    assert_eq!(call.result["status"], 407, "{}", call.result);
}
