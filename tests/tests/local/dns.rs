//! Carriers that are found by DNS (RFC 3263), and callers whose names say where they are: what `CoreDNS` says, and what it says later.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ringwire_tests::address::Address;
use ringwire_tests::carrier::{Carrier, Counters};
use ringwire_tests::dns::Dns;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{
    NUMBER, account, echo, number, object, registering_trunk, static_trunk,
};
use ringwire_tests::wait::{self, seconds};

use crate::ECHO_EXPECTED;

/// A server that hears and says nothing, so that nothing refuses for it.
struct Silent {
    address: Address,
    socket: UdpSocket,
}

impl Silent {
    fn start() -> Self {
        let address = Address::claim();
        let socket = UdpSocket::bind(address.port(5060)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { address, socket }
    }

    /// Messages that have come since this was last asked.
    fn heard(&self) -> usize {
        std::iter::from_fn(|| self.socket.recv(&mut [0; 4096]).ok()).count()
    }
}

/// A server with a trunk at a name of the carrier's.
fn registering(dns: &Dns, name: &str, more: &str) -> Gateway {
    let set = [
        registering_trunk("trunk", name, more),
        account("trunk1", "secret1"),
    ];
    Gateway::start_asking(dns, &[("all.yaml", &set.join("---\n"))])
}

#[track_caller]
fn wait_resolved(gateway: &Gateway, expected: &[String]) {
    wait::until_ok(seconds(15), "the addresses in the status", || {
        let status = gateway.object("SipProvider", "trunk")["status"].clone();
        let seen: Vec<String> =
            serde_json::from_value(status["resolvedAddresses"].clone()).unwrap_or_default();
        let all = expected.iter().all(|address| seen.contains(address));
        (all && seen.len() == expected.len())
            .then_some(())
            .ok_or_else(|| format!("{seen:?} instead of {expected:?}"))
    });
}

#[test]
fn a_silent_server_is_left_for_the_next_within_four_seconds_and_avoided_for_a_while() {
    // Refreshed every few seconds.
    let carrier = Carrier::start(&["--max-expires", "10"]);
    let silent = Silent::start();
    let (first, second) = (&silent.address, carrier.ip());
    let dns = Dns::start(&format!(
        "@ IN NAPTR 10 50 \"s\" \"SIP+D2U\" \"\" _sip._udp\n_sip._udp IN SRV 10 10 5060 first\n\
         _sip._udp IN SRV 20 10 5060 second\nfirst IN A {first}\nsecond IN A {second}\n"
    ));
    let gateway = registering(&dns, "carrier.test", "");
    let begun = wait::until(seconds(5), "a REGISTER at the first server", || {
        (silent.heard() > 0).then(Instant::now)
    });
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(6));
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(4_500), "{took:?}");
    let second = gateway.object("SipProvider", "trunk")["status"]["resolvedAddresses"].to_string();
    assert!(
        second.contains(&first.to_string()),
        "both may call: {second}"
    );
    silent.heard();
    let counters = carrier.counters();
    let before = counters.registers();
    wait::until(seconds(15), "a refresh", || {
        (counters.registers() > before).then_some(())
    });
    assert_eq!(
        silent.heard(),
        0,
        "the silent server is not tried again so soon"
    );
}

#[test]
fn a_server_that_moves_is_followed_and_all_its_addresses_may_call() {
    let carriers = [(); 2].map(|()| Carrier::start(&["--max-expires", "10"]));
    let extra = Address::claim();
    let [old, new] = carriers.each_ref().map(Carrier::ip);
    let dns = Dns::start(&format!("sip IN A {old}\n"));
    let gateway = registering(&dns, "sip.carrier.test", "port: 5060, transport: UDP");
    carriers[0].wait_contacts(1, seconds(5));
    assert_eq!(carriers[1].contacts(), Vec::<String>::new());
    dns.change(&format!("sip IN A {new}\n"));
    carriers[1].wait_contacts(1, seconds(20));
    // Several addresses, of both families.
    dns.change(&format!(
        "sip IN A {new}\nsip IN A {extra}\nsip IN AAAA 2001:db8::7\n"
    ));
    wait_resolved(
        &gateway,
        &[new.to_string(), extra.to_string(), "2001:db8::7".to_owned()],
    );
}

/// Trunks that share a name with two servers, of weight 10 and 90.
const SHARING: usize = 200;

#[test]
fn trunks_share_the_servers_of_a_name_by_weight_and_stay_where_they_are() {
    let users: Vec<String> = (0..SHARING).map(|n| format!("user{n}:secret{n}")).collect();
    // Refreshed every few seconds, so after each look-up.
    let options = ["--max-expires", "10", "--users", &users.join(" ")];
    let carriers = [(); 2].map(|()| Carrier::start(&options));
    let [light, heavy] = carriers.each_ref().map(Carrier::ip);
    let dns = Dns::start(&format!(
        "_sip._udp IN SRV 10 10 5060 light\n_sip._udp IN SRV 10 90 5060 heavy\n\
         light IN A {light}\nheavy IN A {heavy}\n"
    ));
    let set = (0..SHARING).map(|n| {
        let secret = account(&format!("user{n}"), &format!("secret{n}"));
        let spec = format!(
            "{{server: carrier.test, transport: UDP, credentialsSecretRef: {{name: account{n}}}}}"
        );
        let secret = secret.replace("{name: account}", &format!("{{name: account{n}}}"));
        [object("SipProvider", &format!("trunk{n}"), &spec), secret].join("---\n")
    });
    let set: Vec<String> = set.collect();
    let _gateway = Gateway::start_asking(&dns, &[("all.yaml", &set.join("---\n"))]);
    let counters = carriers.each_ref().map(Carrier::counters);
    let bound = || counters.each_ref().map(Counters::contacts);
    let first = wait::until_ok(seconds(20), "all trunks are registered", || {
        let bound = bound();
        let all = bound.iter().sum::<u64>() == SHARING as u64;
        all.then_some(bound).ok_or_else(|| format!("{bound:?}"))
    });
    println!("{first:?} of {SHARING} trunks are at the servers of weight 10 and 90");
    // Outside of this is what one draw in two million would do.
    assert!((3..=44).contains(&first[0]), "{first:?}");
    let registers = || counters.iter().map(Counters::registers).sum::<u64>();
    let before = registers();
    wait::until(seconds(20), "each trunk has been refreshed", || {
        (registers() >= before + SHARING as u64).then_some(())
    });
    assert_eq!(bound(), first, "a trunk has moved");
}

#[test]
fn callers_that_are_allowed_by_name_may_call_from_where_the_name_leads_now() {
    let [first, second] = [(); 2].map(|()| Address::claim());
    let dns = Dns::start(&format!("callers IN A {first}\n"));
    let server = "10.0.0.1";
    let trunk = static_trunk(
        server,
        "allowedSources: [callers.carrier.test], codecs: [PCMA]",
    );
    let set = [
        trunk,
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start_asking(&dns, &[("all.yaml", &set.join("---\n"))]);
    let target = format!("sip:{NUMBER}@{}", gateway.sip());
    let arguments = [&["--duration", "1"], &ECHO_EXPECTED[..]].concat();
    let may_call = |from: &Address| gateway::call(&target, from.ip(), &arguments).success;
    wait_resolved(&gateway, &[server.to_owned(), first.to_string()]);
    assert!(may_call(&first));
    assert!(!may_call(&second));
    dns.change(&format!("callers IN A {second}\n"));
    wait_resolved(&gateway, &[server.to_owned(), second.to_string()]);
    assert!(may_call(&second));
    assert!(!may_call(&first));
}
