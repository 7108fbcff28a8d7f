//! Edits while calls run.

use std::time::Instant;

use ringwire_tests::address::Address;
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk, web_socket};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

use crate::{ECHO_EXPECTED, echo_gateway};

#[test]
fn an_edit_of_the_agent_holds_from_the_next_call_and_a_running_call_keeps_its_agent() {
    let (first, second) = (
        Agent::start(Manner {
            echoes: true,
            ..Manner::default()
        }),
        Agent::start(Manner::default()),
    );
    let base = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        web_socket("first", &first.url(), ""),
        web_socket("second", &second.url(), ""),
    ];
    let files = base.join("---\n");
    let gateway = Gateway::start(&[
        ("base.yaml", &files),
        ("number.yaml", &number("main", NUMBER, "trunk", "first")),
    ]);
    let running = gateway::place(
        &format!("sip:{NUMBER}@{}", gateway.sip()),
        Address::claim().ip(),
        &ECHO_EXPECTED,
    );
    first.wait("start");
    let edited = Instant::now();
    gateway.write("number.yaml", &number("main", NUMBER, "trunk", "second"));
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    wait::until(seconds(3), "a call reaches the second agent", || {
        phone.new_call();
        let answer = phone.invite("", &offer);
        phone.confirm(&answer, "");
        phone.hang_up();
        (second.connections().0 > 0).then_some(())
    });
    // How long that takes is judged on the cluster, with nothing beside it.
    println!("edit to a call with the new agent: {:?}", edited.elapsed());
    // The agent's own edit, and its deletion, leave the call alone as well.
    gateway.write("base.yaml", &files.replace("/media?bot=1", "/elsewhere"));
    let call = running.end();
    assert!(call.success, "{}", call.result);
    assert_eq!(call.result["endedBy"], "us");
}

#[test]
fn one_broken_file_leaves_the_others_alone_and_is_named() {
    let base = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let mut gateway = Gateway::start(&[("base.yaml", &base.join("---\n"))]);
    gateway.write("broken.yaml", "kind: [SipProvider\n");
    gateway.write("wrong.yaml", &echo("other", "connectTimeoutSeconds: 500"));
    wait::until(seconds(3), "the log names both", || {
        let log = gateway.process().log();
        (log.contains("broken.yaml")
            && log.contains("wrong.yaml")
            && log.contains("connectTimeoutSeconds"))
        .then_some(())
    });
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    phone.hang_up();
    assert!(gateway.object("VoiceAgent", "other").is_null());
}

#[test]
fn a_number_that_two_objects_claim_stays_with_the_older_one() {
    let base = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[("base.yaml", &base.join("---\n"))]);
    gateway.write("late.yaml", &number("a-late-one", NUMBER, "trunk", ""));
    wait::until_ok(seconds(3), "the younger one is in conflict", || {
        let late = gateway.object("PhoneNumber", "a-late-one");
        let conditions = late["status"]["conditions"].to_string();
        if late["status"]["state"] == "Error" && conditions.contains("Conflict") {
            Ok(())
        } else {
            Err(late.to_string())
        }
    });
    assert_eq!(
        gateway.object("PhoneNumber", "main")["status"]["state"],
        "Active"
    );
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    phone.hang_up();
}

/// The user part of our Contact.
fn token(phone: &mut Phone) -> String {
    let contact = phone.call().contact();
    let user = contact
        .split_once(':')
        .and_then(|(_, rest)| rest.split_once('@'));
    user.unwrap().0.to_owned()
}

#[test]
fn calls_outlive_the_key_that_signed_their_contacts_as_long_as_it_is_listed() {
    let mut gateway = echo_gateway();
    let file = gateway.signing_keys();
    let first = std::fs::read_to_string(&file).unwrap();
    let mut reloads = 0;
    let mut rotate = |gateway: &mut Gateway, keys: &[&str]| {
        std::fs::write(&file, keys.join("\n")).unwrap();
        reloads += 1;
        wait::until(seconds(3), "the keys are taken", || {
            let log = gateway.process().log();
            (log.matches("manifests read again").count() >= reloads).then_some(())
        });
    };
    let mut old = Phone::udp(gateway.sip());
    let signed_by_first = token(&mut old);

    let (second, third) = ("2".repeat(64), "3".repeat(64));
    rotate(&mut gateway, &[&second, &first]);
    let mut new = Phone::udp(gateway.sip());
    let signed_by_second = token(&mut new);
    assert_ne!(signed_by_first, signed_by_second);
    for phone in [&mut old, &mut new] {
        let offer = phone.offer();
        let answer = phone.invite("", &offer);
        phone.confirm(&answer, "");
        assert_eq!(answer.status(), 200, "{}", answer.text);
    }
    old.hang_up();

    // A key that is taken away is taken from its calls as well.
    rotate(&mut gateway, &[&third, &first]);
    assert_eq!(new.ask("BYE", "", "").status(), 481);
    let signed_by_third = token(&mut Phone::udp(gateway.sip()));
    assert_ne!(signed_by_third, signed_by_second);
}
