//! Copies of SIP messages for a collector, judged by Kamailio's.

use std::time::{SystemTime, UNIX_EPOCH};

use ringwire_tests::address::Address;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::collector::{Collected, Collector};
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{
    NUMBER, account, echo, media_gateway, number, registering_trunk, static_trunk,
};
use ringwire_tests::wait::{self, seconds};
use ringwire_tests::{phone::Phone, sipp};

/// A gateway whose collector is there; `more` are further fields of it.
fn exporting_to(place: impl std::fmt::Display, more: &str) -> String {
    media_gateway(&format!(
        "{{sip: {{hep: {{address: \"{place}\", {more}}}}}}}"
    ))
}

fn counted(gateway: &Gateway, result: &str) -> u64 {
    let name = format!("ringwire_hep_messages_total{{result=\"{result}\"}}");
    gateway.metric(&name) as u64
}

/// A server whose trunk takes calls from anywhere here.
fn called(hep: &str) -> Gateway {
    let set = [
        static_trunk("127.0.0.1", "allowedSources: [127.0.0.0/8]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start(&[("all.yaml", &set.join("---\n")), ("gateway.yaml", hep)])
}

#[test]
fn a_collector_gets_registration_and_call_with_all_that_belongs_to_them_but_secrets() {
    let (collector, carrier) = (Collector::start(), Carrier::start(&[]));
    let hep = exporting_to(
        collector.place(),
        "captureId: 2001, passwordSecretRef: {name: homer}",
    );
    let homer = "apiVersion: v1\nkind: Secret\nmetadata: {name: homer}\nstringData: {password: collect-me}\n";
    let set = [
        registering_trunk("trunk", carrier.ip(), ""),
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    let gateway = Gateway::start(&[
        ("gateway.yaml", &[hep.as_str(), homer].join("---\n")),
        ("all.yaml", &set.join("---\n")),
    ]);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let caller = Address::claim();
    let call = gateway::call(
        &format!("sip:{NUMBER}@{}", carrier.sip()),
        caller.ip(),
        &["--header", "X-Provider: network", "--duration", "1"],
    );
    assert!(call.success, "{}", call.result);
    collector.wait("the end of the call", |message| {
        message.what() == "200" && message.message.contains(" BYE\r\n")
    });
    let all = collector.collected();
    let find = |what: &str, from_us: bool| -> Vec<&Collected> {
        let of_this = all.iter().filter(|message| {
            message.what() == what && (message.source == gateway.sip()) == from_us
        });
        let mut of_this: Vec<_> = of_this.collect();
        // On a busy machine a message may be sent again before it is answered.
        of_this.dedup_by_key(|message| &message.message);
        of_this
    };

    let registers = find("REGISTER", true);
    assert_eq!(registers.len(), 2, "{all:#?}");
    assert!(
        registers[1]
            .message
            .contains("\r\nAuthorization: Digest ***\r\n")
    );
    assert!(find("401", false)[0].message.contains("nonce="));
    // One of each: nothing of what goes on between registrar and media pod.
    for (what, from_us) in [
        ("INVITE", false),
        ("100", true),
        ("ACK", false),
        ("BYE", false),
    ] {
        assert_eq!(find(what, from_us).len(), 1, "{what}: {all:#?}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for message in &all {
        let ends = [message.source, message.destination];
        assert!(
            ends.contains(&gateway.sip()) && ends.contains(&carrier.sip()),
            "{message:#?}"
        );
        assert_eq!(
            (
                message.version,
                message.kind,
                message.family,
                message.protocol
            ),
            (3, 1, 2, 17),
            "{message:#?}"
        );
        assert_eq!(message.capture_id, 2001);
        assert_eq!(message.password, "collect-me");
        assert!((0.0..30.0).contains(&(now.as_secs_f64() - message.time)));
        let call_id = format!("\r\nCall-ID: {}\r\n", message.correlation_id);
        assert!(message.message.contains(&call_id), "{message:#?}");
    }
    assert!(
        all.is_sorted_by(|a, b| a.time <= b.time),
        "out of order: {all:#?}"
    );
    let contact = carrier.contacts().remove(0);
    let user = contact.trim_start_matches("sip:").split('@').next();
    for secret in ["secret1", "response=", user.unwrap()] {
        let told = all.iter().find(|message| message.message.contains(secret));
        assert!(told.is_none(), "{secret} is in {told:#?}");
    }
    assert_eq!(counted(&gateway, "sent"), all.len() as u64);
    assert_eq!(counted(&gateway, "dropped"), 0);
}

#[test]
fn calls_do_not_need_the_collector_and_it_gets_what_comes_once_it_is_there() {
    let address = Address::claim();
    let gateway = called(&exporting_to(address.port(9060), ""));
    sipp::run("call.xml", gateway.sip(), &[]);
    wait::until(seconds(5), "messages that nobody took are counted", || {
        (counted(&gateway, "dropped") > 0).then_some(())
    });
    let collector = Collector::start_at(address);
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    phone.hang_up();
    let all = collector.wait("the end of the call", |message| message.what() == "BYE");
    assert!(
        all.iter().all(|message| message.capture_id == 1),
        "{all:#?}"
    );
}

#[test]
fn another_collector_gets_what_comes_from_then_on() {
    let (first, second) = (Collector::start(), Collector::start());
    let gateway = called(&exporting_to(first.place(), ""));
    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    first.wait("the call", |message| message.what() == "ACK");
    gateway.write(
        "gateway.yaml",
        &exporting_to(second.place(), "captureId: 7"),
    );
    // When it holds is only seen by a message.
    wait::until(seconds(10), "the second collector gets messages", || {
        let mut other = Phone::udp(gateway.sip());
        other.call();
        other.hang_up();
        (!second.collected().is_empty()).then_some(())
    });
    phone.hang_up();
    let all = second.wait("the end of the first call", |message| {
        message.what() == "BYE" && message.correlation_id == phone.call_id()
    });
    assert!(
        all.iter().all(|message| message.capture_id == 7),
        "{all:#?}"
    );
}
