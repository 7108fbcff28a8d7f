//! How calls end, and how the process does.

use std::time::{Duration, Instant};

use ringwire_tests::address::Address;
use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::audio;
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk, web_socket};
use ringwire_tests::phone::Phone;
use ringwire_tests::wait::{self, seconds};

use crate::{ECHO_EXPECTED, agent_gateway, draining_after, echo_gateway, local_set};

#[test]
fn a_caller_who_is_gone_is_asked_and_then_given_up() {
    let agent = Agent::start(Manner::default());
    let gateway = agent_gateway(&agent, "");
    let mut phone = Phone::udp(gateway.sip());
    let remote = phone.call().media();
    audio::exchange(&phone.rtp, remote, 0, &[1; 8000], seconds(1));
    // From here on nothing: no packet, no answer.
    let silent = Instant::now();
    let options = phone.wait_request("OPTIONS", seconds(40));
    let asked = silent.elapsed();
    assert!(
        (28..=34).contains(&asked.as_secs()),
        "asked after {asked:?}"
    );
    assert!(!options.header("To").is_empty());
    phone.wait_request("BYE", seconds(40));
    println!(
        "silent caller: asked after {asked:?}, given up after {:?}",
        silent.elapsed()
    );
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["ended_by"], &record["reason"]),
        (&"gateway".into(), &"CallerGone".into()),
        "{record}"
    );
    gateway.wait_calls(0);
    agent.wait("closed");
}

/// Asks after five seconds of silence.
fn impatient_gateway() -> Gateway {
    let more = "allowedSources: [127.0.0.0/8], mediaTimeoutSeconds: 5";
    let set = [
        static_trunk("127.0.0.1", more),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start(&[("all.yaml", &set.join("---\n"))])
}

#[test]
fn a_caller_who_is_silent_but_there_keeps_his_call() {
    let gateway = impatient_gateway();
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    for turn in 1..=3 {
        let silent = Instant::now();
        let options = phone.wait_request("OPTIONS", seconds(8));
        let asked = silent.elapsed();
        assert!((4..7).contains(&asked.as_secs()), "asked after {asked:?}");
        phone.respond(&options, 200);
        assert_eq!(gateway.active_calls(), 1, "turn {turn}");
    }
    phone.hang_up();
    assert_eq!(gateway.record_of(phone.call_id())["reason"], "CallerHungUp");
}

#[test]
fn a_call_on_hold_may_be_silent() {
    let gateway = impatient_gateway();
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    let offer = format!("{}a=inactive\n", phone.offer());
    let answer = phone.ask("INVITE", "", &offer);
    phone.confirm(&answer, "");
    let came = phone.receive(seconds(11));
    assert!(came.is_none(), "during hold came {}", came.unwrap().text);
    phone.hang_up();
}

#[test]
fn an_agents_longest_call_is_kept_to() {
    let set = local_set(&echo("bot", "limits: {maxCallSeconds: 2}"));
    let gateway = Gateway::start(&[("all.yaml", &set)]);
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    let answered = Instant::now();
    let bye = phone.wait_request("BYE", seconds(5));
    phone.respond(&bye, 200);
    assert!(
        (1900..2600).contains(&answered.elapsed().as_millis()),
        "{:?}",
        answered.elapsed()
    );
    assert!(bye.header("Reason").contains("MaxDuration"), "{}", bye.text);
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["ended_by"], &record["reason"]),
        (&"gateway".into(), &"MaxDuration".into()),
        "{record}"
    );
}

#[test]
fn a_stopping_gateway_refuses_new_calls_and_ends_the_old_ones_after_their_time() {
    let set = [local_set(&echo("bot", "")), draining_after(2)].join("---\n");
    let mut gateway = Gateway::start(&[("all.yaml", &set)]);
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    gateway.process().signal("TERM");
    let stopping = Instant::now();
    let mut late = Phone::udp(gateway.sip());
    wait::until(seconds(1), "new calls are refused", || {
        late.new_call();
        let offer = late.offer();
        let answer = late.invite("", &offer);
        if answer.status() == 200 {
            late.confirm(&answer, "");
            late.hang_up();
            return None;
        }
        assert_eq!(answer.status(), 503, "{}", answer.text);
        assert!(!answer.header("Retry-After").is_empty(), "{}", answer.text);
        Some(())
    });
    assert_eq!(late.ask("OPTIONS", "", "").status(), 503);
    let bye = phone.wait_request("BYE", seconds(5));
    let waited = stopping.elapsed();
    phone.respond(&bye, 200);
    assert!(
        (1800..3000).contains(&waited.as_millis()),
        "BYE after {waited:?}"
    );
    assert!(bye.header("Reason").contains("Draining"), "{}", bye.text);
    let status = gateway.process().wait(seconds(6));
    println!("stopped {:?} after SIGTERM", stopping.elapsed());
    assert_eq!(status.code(), Some(0));
    let record = gateway.record_of(phone.call_id());
    assert_eq!(
        (&record["ended_by"], &record["reason"]),
        (&"gateway".into(), &"Draining".into()),
        "{record}"
    );
}

#[test]
fn a_stopping_gateway_leaves_a_call_its_time_and_ends_with_it() {
    let agent = Agent::start(Manner {
        echoes: true,
        ..Manner::default()
    });
    let mut gateway = agent_gateway(&agent, "");
    let call = gateway::place(
        &format!("sip:{NUMBER}@{}", gateway.sip()),
        Address::claim().ip(),
        &ECHO_EXPECTED,
    );
    agent.wait("start");
    gateway.process().signal("TERM");
    let call = call.end();
    assert!(call.success, "{}", call.result);
    assert_eq!(call.result["endedBy"], "us");
    assert_eq!(gateway.process().wait(seconds(6)).code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_calls_at_once() {
    for signal in ["TERM", "INT"] {
        let mut gateway = echo_gateway();
        let mut phone = Phone::udp(gateway.sip());
        phone.call();
        gateway.process().signal(signal);
        wait::until(seconds(2), "it drains", || {
            gateway
                .process()
                .log()
                .contains("\"draining\"")
                .then_some(())
        });
        gateway.process().signal(signal);
        let bye = phone.wait_request("BYE", seconds(2));
        phone.respond(&bye, 200);
        assert_eq!(gateway.process().wait(seconds(5)).code(), Some(0));
    }
}

#[test]
fn an_idle_gateway_stops_at_once() {
    let mut gateway = echo_gateway();
    let told = Instant::now();
    gateway.process().signal("TERM");
    assert_eq!(gateway.process().wait(seconds(3)).code(), Some(0));
    println!("idle: stopped after {:?}", told.elapsed());
}

#[test]
fn an_answer_that_is_never_confirmed_is_taken_back() {
    let agent = Agent::start(Manner::default());
    let set = local_set(&web_socket("bot", &agent.url(), ""));
    let gateway = Gateway::start(&[("all.yaml", &set)]);
    let mut phone = Phone::udp(gateway.sip());
    let offer = phone.offer();
    assert_eq!(phone.invite("", &offer).status(), 200);
    phone.wait_request("BYE", Duration::from_secs(40));
    let record = gateway.record_of(phone.call_id());
    assert_eq!(record["reason"], "NoAck", "{record}");
    agent.wait("closed");
    gateway.wait_calls(0);
}

#[test]
fn a_call_whose_connection_is_gone_is_ended_at_its_contact() {
    let set = local_set(&echo("bot", "limits: {maxCallSeconds: 3}"));
    let gateway = Gateway::start(&[("all.yaml", &set)]);
    let (mut phone, listener) = Phone::listening(gateway.sip());
    phone.call();
    // As carriers do with connections that were idle for a while.
    phone.close();
    phone.accept(&listener, seconds(8));
    let bye = phone.wait_request("BYE", seconds(2));
    phone.respond(&bye, 200);
    assert!(bye.header("Reason").contains("MaxDuration"), "{}", bye.text);
}
