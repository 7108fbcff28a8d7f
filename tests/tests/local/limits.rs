//! How many calls a provider may bring and an agent takes.

use ringwire_tests::agent::{Agent, Manner};
use ringwire_tests::gateway::Gateway;
use ringwire_tests::manifests::{NUMBER, echo, number, static_trunk, web_socket};
use ringwire_tests::phone::{Message, Phone};
use ringwire_tests::wait::{self, seconds};

/// A gateway whose trunk and agent have these limits, in flow style.
fn limited(trunk: &str, agent: &str) -> Gateway {
    let trunk = format!("allowedSources: [127.0.0.0/8], limits: {{{trunk}}}");
    let set = [
        static_trunk("127.0.0.1", &trunk),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", &format!("limits: {{{agent}}}")),
    ];
    Gateway::start(&[("all.yaml", &set.join("---\n"))])
}

fn dial(phone: &mut Phone) -> Message {
    let offer = phone.offer();
    phone.invite("", &offer)
}

#[track_caller]
fn assert_busy(answer: &Message) {
    assert_eq!(answer.status(), 486, "{}", answer.text);
    let reason = answer.header("Reason");
    assert!(reason.contains("AtCapacity"), "{}", answer.text);
    assert_eq!(answer.header("Retry-After"), "", "{}", answer.text);
}

#[test]
fn a_provider_at_its_limit_is_busy_and_a_call_that_ends_makes_room() {
    let gateway = limited("maxCalls: 2", "");
    let mut phones: Vec<Phone> = (0..3).map(|_| Phone::udp(gateway.sip())).collect();
    phones[0].call();
    phones[1].call();
    assert_busy(&dial(&mut phones[2]));
    let record = gateway.record_of(phones[2].call_id());
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("spec.limits.maxCalls is 2"), "{record}");
    let refusal = wait::until(seconds(3), "the status tells", || {
        gateway.refusal("trunk", "AtCapacity")
    });
    assert_eq!(refusal["count"], 1, "{refusal}");
    phones[0].hang_up();
    wait::until(seconds(3), "room for a call", || {
        phones[2].new_call();
        let answer = dial(&mut phones[2]);
        (answer.status() == 200).then(|| phones[2].confirm(&answer, ""))
    });
    phones[0].new_call();
    assert_busy(&dial(&mut phones[0]));
}

#[test]
fn a_call_that_rings_counts_against_the_limit() {
    let agent = Agent::start(Manner {
        hesitates: true,
        ..Manner::default()
    });
    let trunk = "allowedSources: [127.0.0.0/8], limits: {maxCalls: 1}";
    let set = [
        static_trunk("127.0.0.1", trunk),
        number("main", NUMBER, "trunk", "bot"),
        web_socket("bot", &agent.url(), ""),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    let (mut first, mut second) = (Phone::udp(gateway.sip()), Phone::udp(gateway.sip()));
    let offer = first.offer();
    let invite = first.request("INVITE", "", &offer);
    first.send(&invite);
    // At once, and when it rings.
    assert_busy(&dial(&mut second));
    first.expect("180", |message| message.status() == 180);
    second.new_call();
    assert_busy(&dial(&mut second));
    let cancel = first.cancel(&invite);
    first.send(&cancel);
    assert_eq!(first.finish_invite(&invite).status(), 487);
    agent.accept();
    wait::until(seconds(3), "room for a call", || {
        second.new_call();
        (dial(&mut second).status() == 200).then_some(())
    });
}

#[test]
fn an_agent_at_its_limit_is_busy() {
    let gateway = limited("", "maxCalls: 1");
    let (mut first, mut second) = (Phone::udp(gateway.sip()), Phone::udp(gateway.sip()));
    first.call();
    assert_busy(&dial(&mut second));
    let record = gateway.record_of(second.call_id());
    assert!(
        record["detail"].as_str().unwrap().contains("VoiceAgent"),
        "{record}"
    );
    first.hang_up();
}

#[test]
fn a_source_at_its_limit_is_busy_and_another_is_not() {
    let gateway = limited("maxCallsPerSource: 1", "");
    let (mut one, mut other) = (Phone::udp(gateway.sip()), Phone::udp(gateway.sip()));
    one.call();
    one.new_call();
    assert_busy(&dial(&mut one));
    let record = gateway.record_of(one.call_id());
    let detail = record["detail"].as_str().unwrap();
    assert!(
        detail.contains("spec.limits.maxCallsPerSource is 1"),
        "{record}"
    );
    other.call();
}

#[test]
fn more_new_calls_of_one_source_in_a_second_than_allowed_are_busy_and_anothers_are_not() {
    let gateway = limited("callsPerSecondPerSource: 1", "");
    let (mut one, mut other) = (Phone::udp(gateway.sip()), Phone::udp(gateway.sip()));
    one.call();
    one.new_call();
    assert_busy(&dial(&mut one));
    let detail = gateway.record_of(one.call_id())["detail"].clone();
    assert!(detail.as_str().unwrap().contains("callsPerSecondPerSource"));
    other.call();
}

#[test]
fn calls_that_come_together_never_pass_the_limit() {
    let gateway = limited("maxCalls: 5", "");
    let mut phones: Vec<Phone> = (0..20).map(|_| Phone::udp(gateway.sip())).collect();
    let invites: Vec<String> = phones
        .iter_mut()
        .map(|phone| {
            let offer = phone.offer();
            let invite = phone.request("INVITE", "", &offer);
            phone.send(&invite);
            invite
        })
        .collect();
    let answers: Vec<u16> = phones
        .iter_mut()
        .zip(&invites)
        .map(|(phone, invite)| {
            let answer = phone.finish_invite(invite);
            if answer.status() == 200 {
                phone.confirm(&answer, "");
            }
            answer.status()
        })
        .collect();
    let answered = answers.iter().filter(|status| **status == 200).count();
    let busy = answers.iter().filter(|status| **status == 486).count();
    assert_eq!((answered, busy), (5, 15), "{answers:?}");
}

#[test]
fn more_new_calls_in_a_second_than_allowed_are_busy_and_an_edit_takes_effect() {
    let gateway = limited("callsPerSecond: 2", "");
    let mut phone = Phone::udp(gateway.sip());
    let statuses: Vec<u16> = (0..6)
        .map(|_| {
            phone.new_call();
            let answer = dial(&mut phone);
            if answer.status() == 200 {
                phone.confirm(&answer, "");
                phone.hang_up();
            }
            answer.status()
        })
        .collect();
    // The third and later ones come within the same second, unless the machine is very busy.
    let busy = statuses.iter().filter(|status| **status == 486).count();
    assert!(busy >= 2 && statuses[..2] == [200, 200], "{statuses:?}");
    let detail = gateway.record_of(phone.call_id())["detail"].clone();
    assert!(detail.as_str().unwrap().contains("callsPerSecond, 2"));
    let set = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    gateway.write("all.yaml", &set.join("---\n"));
    wait::until(seconds(5), "six calls in a row", || {
        let all = (0..6).all(|_| {
            phone.new_call();
            let answer = dial(&mut phone);
            let taken = answer.status() == 200;
            if taken {
                phone.confirm(&answer, "");
                phone.hang_up();
            }
            taken
        });
        all.then_some(())
    });
}
