//! Registration with a real carrier, and with one that is not as it should be: each ends in the right state, with the right reason, and
//! heals by itself.

use std::net::UdpSocket;
use std::time::Instant;

use ringwire_tests::address::Address;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{account, registering_trunk};
use ringwire_tests::wait::{self, seconds};

/// A server with the trunk `trunk` at this carrier, and the account in a file of its own.
fn start(carrier: &Carrier, more: &str, password: &str) -> Gateway {
    let trunk = registering_trunk("trunk", carrier.ip(), more);
    Gateway::start(&[
        ("trunk.yaml", &trunk),
        ("account.yaml", &account("trunk1", password)),
    ])
}

fn registers_within_two_seconds(transport: &str) {
    let carrier = Carrier::start(&[]);
    let began = Instant::now();
    let gateway = start(&carrier, &format!("transport: {transport}"), "secret1");
    let registration = gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let took = began.elapsed();
    println!("start to Registered over {transport}: {took:?}");
    assert!(took < seconds(2), "{took:?}");
    let contacts = carrier.wait_contacts(1, seconds(1));
    assert_eq!(
        registration["contact"], contacts[0],
        "the status shows another Contact than the carrier has"
    );
    assert!(
        contacts[0].contains(&gateway.sip().to_string()),
        "{contacts:?}"
    );
    assert_eq!(
        contacts[0].contains("transport=tcp"),
        transport == "TCP",
        "{contacts:?}"
    );
    assert_eq!(registration["lastResponse"], "200 OK");
    let provider = gateway.object("SipProvider", "trunk");
    let conditions = provider["status"]["conditions"].as_array().unwrap();
    for kind in [
        "Ready",
        "Registered",
        "CredentialsResolved",
        "GatewayAccepted",
    ] {
        let condition = conditions
            .iter()
            .find(|condition| condition["type"] == kind)
            .unwrap();
        assert_eq!(condition["status"], "True", "{condition}");
    }
}

#[test]
fn registers_over_udp_within_two_seconds() {
    registers_within_two_seconds("UDP");
}

#[test]
fn registers_over_tcp_within_two_seconds() {
    registers_within_two_seconds("TCP");
}

#[test]
fn a_wrong_password_is_told_and_its_rotation_heals_without_touching_the_object() {
    let carrier = Carrier::start(&[]);
    let gateway = start(&carrier, "", "wrong");
    let registration =
        gateway.wait_registration("trunk", "Unregistered", "WrongCredentials", seconds(5));
    assert!(
        registration["message"].as_str().unwrap().contains("trunk1"),
        "{registration}"
    );
    assert!(
        registration["lastResponse"]
            .as_str()
            .unwrap()
            .starts_with("40"),
        "{registration}"
    );
    let told = Instant::now();
    gateway.write("account.yaml", &account("trunk1", "secret1"));
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(10));
    println!("Secret changed to Registered: {:?}", told.elapsed());
    // And back again: the carrier would still have the binding, but the account no longer works.
    gateway.write("account.yaml", &account("trunk1", "forgotten"));
    gateway.wait_registration("trunk", "Unregistered", "WrongCredentials", seconds(10));
    let status = gateway.http("/status").unwrap().1;
    for secret in ["secret1", "forgotten"] {
        assert!(!status.contains(secret), "a password in the status");
    }
}

#[test]
fn passwords_are_never_logged() {
    let carrier = Carrier::start(&[]);
    let mut gateway = start(&carrier, "", "wrong-hush-hush");
    gateway.wait_registration("trunk", "Unregistered", "WrongCredentials", seconds(5));
    assert!(!gateway.process().log().contains("hush-hush"));
}

#[test]
fn a_server_that_does_not_exist_is_told_and_registers_once_it_is_named_rightly() {
    let carrier = Carrier::start(&[]);
    let wrong = registering_trunk("trunk", "sip.does-not-exist.invalid", "port: 5060");
    let gateway = Gateway::start(&[
        ("trunk.yaml", &wrong),
        ("account.yaml", &account("trunk1", "secret1")),
    ]);
    let registration =
        gateway.wait_registration("trunk", "Unregistered", "ServerNotFound", seconds(20));
    assert!(
        registration["message"]
            .as_str()
            .unwrap()
            .contains("sip.does-not-exist.invalid"),
        "{registration}"
    );
    gateway.write("trunk.yaml", &registering_trunk("trunk", carrier.ip(), ""));
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(10));
}

#[test]
fn a_server_that_is_silent_is_told_while_it_lasts_and_in_the_end() {
    let address = Address::claim();
    let silent = UdpSocket::bind(address.port(5060)).unwrap();
    let trunk = registering_trunk("trunk", &address, "");
    let gateway = Gateway::start(&[
        ("trunk.yaml", &trunk),
        ("account.yaml", &account("trunk1", "secret1")),
    ]);
    wait::until_ok(seconds(8), "no reply yet, 4 tries", || {
        let seen = gateway.registration("trunk");
        let message = seen["message"].as_str().unwrap_or_default();
        let good = seen["state"] == "Unknown"
            && message.contains("no reply yet")
            && message.contains("4 tries");
        if good { Ok(()) } else { Err(seen.to_string()) }
    });
    let registration = gateway.wait_registration("trunk", "Unregistered", "NoAnswer", seconds(40));
    let message = registration["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("no reply from {address}:5060 over UDP in 32 s")),
        "{message}"
    );
    drop(silent);
}

#[test]
fn the_wrong_transport_is_a_refused_connection() {
    let address = Address::claim();
    // Speaks UDP only.
    let _udp = UdpSocket::bind(address.port(5060)).unwrap();
    let trunk = registering_trunk("trunk", &address, "transport: TCP");
    let gateway = Gateway::start(&[
        ("trunk.yaml", &trunk),
        ("account.yaml", &account("trunk1", "secret1")),
    ]);
    let registration =
        gateway.wait_registration("trunk", "Unregistered", "ConnectionRefused", seconds(5));
    assert!(
        registration["message"]
            .as_str()
            .unwrap()
            .contains("transport"),
        "{registration}"
    );
}

#[test]
fn a_missing_secret_is_told_and_its_appearance_heals() {
    let carrier = Carrier::start(&[]);
    let gateway = Gateway::start(&[("trunk.yaml", &registering_trunk("trunk", carrier.ip(), ""))]);
    let provider = gateway.object("SipProvider", "trunk");
    let conditions = provider["status"]["conditions"].as_array().unwrap();
    let resolved = conditions
        .iter()
        .find(|condition| condition["type"] == "CredentialsResolved")
        .unwrap();
    assert_eq!(
        (&resolved["status"], &resolved["reason"]),
        (&"False".into(), &"SecretNotFound".into()),
        "{resolved}"
    );
    gateway.write("account.yaml", &account("trunk1", "secret1"));
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(3));
}

/// The carrier grants 10 s whatever we ask for, so that refreshes come soon.
const SHORT: [&str; 2] = ["--max-expires", "10"];

#[test]
fn a_refresh_that_fails_while_the_binding_holds_is_told_as_that() {
    let carrier = Carrier::start(&SHORT);
    let gateway = start(&carrier, "", "secret1");
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    carrier.tell(&["fault", "trunk1", "503"]);
    let registration =
        gateway.wait_registration("trunk", "Registered", "RefreshFailing", seconds(8));
    assert!(
        registration["message"].as_str().unwrap().contains("503"),
        "{registration}"
    );
    gateway.wait_registration("trunk", "Unregistered", "ServerError", seconds(8));
    carrier.tell(&["fault", "trunk1", "-"]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(20));
}

fn survives_a_crash_of_the_carrier(transport: &str) {
    let carrier = Carrier::start(&SHORT);
    let gateway = start(&carrier, &format!("transport: {transport}"), "secret1");
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    carrier.down();
    wait::until_ok(seconds(45), "the binding is lost", || {
        let seen = gateway.registration("trunk");
        if seen["state"] == "Unregistered" {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    carrier.up();
    let up = Instant::now();
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(40));
    println!(
        "carrier back to Registered over {transport}: {:?}",
        up.elapsed()
    );
    carrier.wait_contacts(1, seconds(1));
}

#[test]
fn registers_again_over_udp_after_the_carrier_has_crashed() {
    survives_a_crash_of_the_carrier("UDP");
}

#[test]
fn registers_again_over_tcp_after_the_carrier_has_crashed() {
    survives_a_crash_of_the_carrier("TCP");
}

#[test]
fn a_binding_that_was_removed_behind_our_back_is_back_at_the_next_refresh() {
    let carrier = Carrier::start(&SHORT);
    let gateway = start(&carrier, "", "secret1");
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let contacts = carrier.wait_contacts(1, seconds(2));
    carrier.tell(&["forget", "trunk1"]);
    assert!(carrier.contacts().is_empty());
    assert_eq!(carrier.wait_contacts(1, seconds(12)), contacts);
    assert_eq!(gateway.registration("trunk")["state"], "Registered");
}

#[test]
fn a_carrier_with_a_fault_of_its_own_is_told_and_tried_again() {
    let carrier = Carrier::start(&[]);
    carrier.tell(&["fault", "trunk1", "500"]);
    let gateway = start(&carrier, "", "secret1");
    let registration =
        gateway.wait_registration("trunk", "Unregistered", "ServerError", seconds(5));
    assert!(
        registration["lastResponse"]
            .as_str()
            .unwrap()
            .starts_with("500"),
        "{registration}"
    );
    carrier.tell(&["fault", "trunk1", "-"]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(20));
}

#[test]
fn each_way_in_which_a_carrier_refuses_has_its_reason() {
    let carrier = Carrier::start(&[]);
    for (code, reason) in [
        ("403", "AccountForbidden"),
        ("404", "AccountNotFound"),
        // Without a minimum, a challenge or a binding: nothing that could be followed.
        ("423", "IntervalTooShort"),
        ("401", "ChallengeUnsupported"),
        ("200", "BindingRemoved"),
        ("486", "RegistrationRejected"),
    ] {
        carrier.tell(&["fault", "trunk1", code]);
        let gateway = start(&carrier, "", "secret1");
        gateway.wait_registration("trunk", "Unregistered", reason, seconds(5));
    }
}

#[test]
fn deleting_or_pausing_a_provider_takes_its_registration_back() {
    let carrier = Carrier::start(&[]);
    let gateway = start(&carrier, "", "secret1");
    carrier.wait_contacts(1, seconds(5));
    gateway.write(
        "trunk.yaml",
        &registering_trunk("trunk", carrier.ip(), "paused: true"),
    );
    carrier.wait_contacts(0, seconds(5));
    let provider = gateway.object("SipProvider", "trunk");
    let ready = provider["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Ready")
        .unwrap()
        .clone();
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&"True".into(), &"Paused".into())
    );
    gateway.write("trunk.yaml", &registering_trunk("trunk", carrier.ip(), ""));
    carrier.wait_contacts(1, seconds(5));
    gateway.remove("trunk.yaml");
    carrier.wait_contacts(0, seconds(5));
    assert!(gateway.object("SipProvider", "trunk").is_null());
}

#[test]
fn a_restart_keeps_the_registration_and_its_contact() {
    let carrier = Carrier::start(&[]);
    let mut gateway = start(&carrier, "", "secret1");
    let before = carrier.wait_contacts(1, seconds(5));
    gateway.process().signal("TERM");
    let status = gateway.process().wait(seconds(5));
    assert_eq!(status.code(), Some(0));
    assert_eq!(carrier.contacts(), before, "a restart must not un-REGISTER");
    gateway.start_again();
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    assert_eq!(carrier.contacts(), before);
}

#[test]
fn a_changed_contact_replaces_the_old_one() {
    let carrier = Carrier::start(&[]);
    let gateway = start(&carrier, "", "secret1");
    carrier.wait_contacts(1, seconds(5));
    gateway.write(
        "trunk.yaml",
        &registering_trunk(
            "trunk",
            carrier.ip(),
            "registration: {contactUser: reception}",
        ),
    );
    wait::until_ok(seconds(5), "only the new Contact is bound", || {
        let contacts = carrier.contacts();
        if contacts.len() == 1 && contacts[0].starts_with("sip:reception@") {
            Ok(())
        } else {
            Err(format!("{contacts:?}"))
        }
    });
}

#[test]
fn an_interval_that_is_too_brief_for_the_carrier_is_lengthened() {
    let carrier = Carrier::start(&["--min-expires", "600"]);
    let gateway = start(&carrier, "registration: {expirySeconds: 60}", "secret1");
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    wait::until_ok(seconds(5), "a binding of ten minutes", || {
        let bindings = carrier.bindings();
        let long = ["expires in 5", "expires in 600"];
        if long.iter().any(|text| bindings.contains(text)) {
            Ok(())
        } else {
            Err(bindings)
        }
    });
}
