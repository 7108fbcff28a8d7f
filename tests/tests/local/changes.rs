//! Edits while calls run.

use std::time::{Duration, Instant};

use ringwire_tests::address::Address;
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk, web_socket};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

use crate::ECHO_EXPECTED;

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
    println!("edit to a call with the new agent: {:?}", edited.elapsed());
    assert!(
        edited.elapsed() < Duration::from_secs(1),
        "{:?}",
        edited.elapsed()
    );
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
