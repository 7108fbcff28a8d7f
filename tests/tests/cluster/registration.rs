//! Trunks that register with a real registrar, and everything that keeps them from it.

use std::time::Instant;

use ringwire_tests::cluster::{
    self, CARRIER, SYSTEM, Space, carrier, carrier_up, contacts, kubectl, median, wait_contacts,
};
use ringwire_tests::manifests::account;
use ringwire_tests::wait::{self, seconds};

/// A Space whose trunk is registered.
fn registered(name: &str, more: &str) -> Space {
    let space = Space::new(name);
    space.apply(&[space.account(), space.trunk(more)].join("---\n"));
    space.wait_registered(seconds(5));
    space
}

#[test]
fn a_trunk_is_registered_within_two_seconds_of_apply() {
    let space = Space::new("apply");
    let mut times = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        space.apply(&[space.account(), space.trunk("")].join("---\n"));
        space.wait_registered(seconds(5));
        times.push(begun.elapsed());
        space.kubectl(&["delete", "sipprovider/trunk", "secret/account"]);
        wait_contacts(&space.user, 0, seconds(5));
    }
    let (middle, worst) = median(times);
    println!("    apply (with kubectl itself) to Registered: median {middle:?}, worst {worst:?}");
    assert!(middle < seconds(2), "median {middle:?}");
}

#[test]
fn a_wrong_password_is_named_and_the_right_one_registers_within_ten_seconds() {
    let space = Space::new("password");
    space.apply(&[account(&space.user, "wrong"), space.trunk("")].join("---\n"));
    let state = space.wait_registration("Unregistered", "WrongCredentials", seconds(5));
    assert!(
        state["message"].as_str().unwrap().contains(&space.user),
        "{state}"
    );
    assert!(
        !space
            .get("sipprovider", "trunk")
            .to_string()
            .contains("wrong\""),
        "a password in the status"
    );
    space.wait_condition(
        "sipprovider",
        "trunk",
        ("Ready", "False", "WrongCredentials"),
        seconds(2),
    );
    let begun = Instant::now();
    space.apply(&space.account());
    space.wait_registered(seconds(10));
    println!("    right password to Registered: {:?}", begun.elapsed());
    // And rotated while it works: Kamailio still knows the old one.
    space.apply(&account(&space.user, "rotated"));
    space.wait_registration("Unregistered", "WrongCredentials", seconds(10));
    space.apply(&space.account());
    space.wait_registered(seconds(10));
}

#[test]
fn a_missing_secret_or_key_is_named_within_a_second_and_heals() {
    let space = Space::new("secret");
    let begun = Instant::now();
    space.apply(&space.trunk(""));
    let seen = space.wait_condition(
        "sipprovider",
        "trunk",
        ("CredentialsResolved", "False", "SecretNotFound"),
        seconds(2),
    );
    println!("    SecretNotFound after {:?}", begun.elapsed());
    assert!(
        seen["message"].as_str().unwrap().contains("account"),
        "{seen}"
    );
    space.apply(&account(&space.user, "x").replace("password", "passwort"));
    let seen = space.wait_condition(
        "sipprovider",
        "trunk",
        ("CredentialsResolved", "False", "SecretKeyMissing"),
        seconds(2),
    );
    assert!(
        seen["message"].as_str().unwrap().contains("password"),
        "{seen}"
    );
    let begun = Instant::now();
    space.apply(&space.account());
    space.wait_registered(seconds(5));
    println!("    Secret to Registered: {:?}", begun.elapsed());
}

#[test]
fn an_unknown_host_is_named_and_an_edit_registers() {
    let space = Space::new("host");
    space.apply(
        &[
            space.account(),
            space
                .trunk("")
                .replace("sip.carrier.test", "nowhere.carrier.test"),
        ]
        .join("---\n"),
    );
    let state = space.wait_registration("Unregistered", "ServerNotFound", seconds(15));
    assert!(
        state["message"]
            .as_str()
            .unwrap()
            .contains("nowhere.carrier.test"),
        "{state}"
    );
    let begun = Instant::now();
    space.apply(&space.trunk(""));
    space.wait_registered(seconds(10));
    println!("    edit to Registered: {:?}", begun.elapsed());
}

#[test]
fn tries_are_counted_while_nobody_answers() {
    let space = Space::new("silent");
    // A host that drops what comes: no ICMP tells that nothing listens.
    let netns = ["netns", "exec", "rw-carrier"];
    let rule = [
        "iptables", "-I", "INPUT", "-p", "udp", "--dport", "5099", "-j", "DROP",
    ];
    let run = |arguments: &[&str]| {
        assert!(
            std::process::Command::new("ip")
                .args(netns)
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    };
    run(&rule);
    space.apply(&[space.account(), space.trunk("port: 5099")].join("---\n"));
    let seen = wait::until_ok(seconds(15), "the tries are counted", || {
        let state = space.get("sipprovider", "trunk")["status"]["registration"].clone();
        let message = state["message"].as_str().unwrap_or_default().to_owned();
        if message.contains("no reply yet") && message.contains("4 tries") {
            Ok(state)
        } else {
            Err(state.to_string())
        }
    });
    run(&[
        "iptables", "-D", "INPUT", "-p", "udp", "--dport", "5099", "-j", "DROP",
    ]);
    println!("    {}", seen["message"]);
    space.apply(&space.trunk(""));
    space.wait_registered(seconds(10));
}

#[test]
fn a_port_without_listener_and_the_wrong_transport_are_named() {
    let space = Space::new("transport");
    space.apply(&[space.account(), space.trunk("port: 5098, transport: TCP")].join("---\n"));
    space.wait_registration("Unregistered", "ConnectionRefused", seconds(10));
    space.apply(&space.trunk("transport: TCP"));
    space.wait_registered(seconds(10));
    let contact = &contacts(&space.user)[0];
    assert!(
        contact.contains("transport=tcp")
            || space.get("sipprovider", "trunk")["status"]["transport"] == "TCP",
        "{contact}"
    );
}

#[test]
fn a_restarted_carrier_and_a_removed_binding_are_healed_by_the_next_refresh() {
    // So that refreshes come every few seconds.
    let space = Space::new("restart");
    carrier_up(&["--max-expires", "6"]);
    space.apply(&[space.account(), space.trunk("")].join("---\n"));
    space.wait_registered(seconds(5));
    wait_contacts(&space.user, 1, seconds(2));
    carrier(&["forget", &space.user]);
    let begun = Instant::now();
    wait_contacts(&space.user, 1, seconds(10));
    println!(
        "    binding back {:?} after it was removed",
        begun.elapsed()
    );
    carrier(&["down"]);
    wait::until_ok(seconds(45), "the outage shows", || {
        let state = space.get("sipprovider", "trunk")["status"]["registration"].clone();
        if state["reason"] == "Registered" {
            Err(state.to_string())
        } else {
            Ok(())
        }
    });
    carrier(&["up"]);
    let begun = Instant::now();
    space.wait_registered(seconds(40));
    println!(
        "    Registered {:?} after the carrier came back",
        begun.elapsed()
    );
    wait_contacts(&space.user, 1, seconds(2));
}

#[test]
fn a_deleted_or_paused_provider_is_unregistered() {
    let space = registered("delete", "");
    wait_contacts(&space.user, 1, seconds(2));
    space.patch("sipprovider", "trunk", "{\"spec\":{\"paused\":true}}");
    space.wait_condition(
        "sipprovider",
        "trunk",
        ("Ready", "True", "Paused"),
        seconds(5),
    );
    wait_contacts(&space.user, 0, seconds(5));
    space.patch("sipprovider", "trunk", "{\"spec\":{\"paused\":false}}");
    space.wait_registered(seconds(5));
    wait_contacts(&space.user, 1, seconds(2));
    space.kubectl(&["delete", "sipprovider/trunk"]);
    wait_contacts(&space.user, 0, seconds(5));
}

#[test]
fn a_replaced_registrar_pod_registers_again_and_takes_its_predecessors_binding_back() {
    let space = registered("pod", "");
    let before = wait_contacts(&space.user, 1, seconds(2));
    let by = |object: &serde_json::Value| {
        let by = &object["status"]["registration"]["by"];
        by.as_str().unwrap_or_default().to_owned()
    };
    let old = by(&space.get("sipprovider", "trunk"));
    kubectl(&["--namespace", SYSTEM, "delete", "pod", &old, "--wait=false"]).unwrap();
    let begun = Instant::now();
    let after = wait::until_ok(seconds(30), "another Contact at the carrier", || {
        let found = contacts(&space.user);
        assert!(!found.is_empty(), "a stopping pod has un-REGISTERed");
        if found.iter().any(|contact| !before.contains(contact)) {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    });
    println!(
        "    new Contact {:?} after the pod was deleted: {before:?} -> {after:?}",
        begun.elapsed()
    );
    cluster::wait_object(
        &space.name,
        "sipprovider",
        "trunk",
        seconds(20),
        "registered by another pod",
        |object| object["status"]["registration"]["state"] == "Registered" && by(object) != old,
    );
    let left = wait_contacts(&space.user, 1, seconds(20));
    assert!(!before.contains(&left[0]), "{left:?}");
}

/// Packets of pods to the carrier leave with their node's address, as on most clouds.
struct Nat;

impl Nat {
    fn switch(action: &str) {
        for node in ["rw-node1", "rw-node2"] {
            let script = format!(
                "iptables -t nat {action} POSTROUTING -s 10.244.0.0/16 -d {CARRIER} -p udp -j MASQUERADE; \
                 conntrack -D -p udp -d {CARRIER} >/dev/null 2>&1 || true"
            );
            let done = std::process::Command::new("nsenter")
                .arg(format!("--net=/run/netns/{node}"))
                .args(["sh", "-c", &script])
                .status();
            assert!(done.unwrap().success());
        }
    }

    fn begin() -> Self {
        Self::switch("-I");
        Self
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        Self::switch("-D");
    }
}

#[test]
fn a_contact_that_a_nat_makes_useless_is_told() {
    let space = Space::new("nat");
    carrier_up(&["--max-expires", "8"]);
    let nat = Nat::begin();
    space.apply(&space.complete());
    let seen = space.wait_registration("Registered", "AddressMismatch", seconds(5));
    println!("    {}", seen["message"]);
    let observed = seen["observedAddress"].as_str().unwrap();
    assert!(observed.starts_with("198.51.100.1"), "{seen}");
    assert!(
        seen["message"]
            .as_str()
            .unwrap()
            .contains("spec.sip.exposure.addresses"),
        "{seen}"
    );
    let ready = ("Ready", "True", "AddressMismatch");
    space.wait_condition("sipprovider", "trunk", ready, seconds(2));
    drop(nat);
    space.wait_registered(seconds(20));
}

#[test]
fn a_dead_server_is_left_for_the_next_that_dns_names() {
    let space = Space::new("failover");
    carrier_up(&[]);
    let begun = Instant::now();
    space.apply(&space.account());
    space.apply(
        &space
            .trunk("")
            .replace("server: sip.carrier.test", "server: fail.carrier.test"),
    );
    space.wait_registered(seconds(10));
    println!(
        "    registered at the second server after {:?}",
        begun.elapsed()
    );
    let addresses = &space.get("sipprovider", "trunk")["status"]["resolvedAddresses"];
    assert_eq!(
        *addresses,
        serde_json::json!([CARRIER, "198.51.100.99"]),
        "both may call"
    );
}

#[test]
fn dns_chooses_transport_and_port() {
    let space = Space::new("naptr");
    carrier_up(&[]);
    space.apply(&space.account());
    let trunk = space.trunk("");
    space.apply(&trunk.replace("server: sip.carrier.test", "server: tcp.carrier.test"));
    let state = space.wait_registered(seconds(10));
    assert!(
        state["contact"].as_str().unwrap().contains("transport=tcp"),
        "{state}"
    );
    let status = &space.get("sipprovider", "trunk")["status"];
    assert_eq!(status["transport"], "TCP", "{status}");
}
