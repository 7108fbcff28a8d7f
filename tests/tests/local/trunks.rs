//! Callers that have to prove who they are: digest authentication towards us.

use std::time::Duration;

use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{NUMBER, account, echo, number, static_trunk};
use ringwire_tests::pbx::Pbx;
use ringwire_tests::phone::{Message, Phone};
use ringwire_tests::sipp;
use ringwire_tests::wait::{self, seconds};
use serde_json::Value;

const USER: &str = "trunk1";
const PASSWORD: &str = "Geheim,=1";

/// A trunk that asks for [`USER`] and [`PASSWORD`]; `more` are further fields of its spec.
fn set(more: &str) -> String {
    let spec = format!("incomingCredentialsSecretRef: {{name: account}}, {more}");
    let set = [
        // Nobody calls from the server's address.
        static_trunk("10.255.0.1", &spec),
        account(USER, &format!("'{PASSWORD}'")),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    set.join("---\n")
}

fn asking(more: &str) -> Gateway {
    Gateway::start(&[("all.yaml", &set(more))])
}

fn invite(phone: &mut Phone, more: &str) -> Message {
    let offer = phone.offer();
    phone.invite(more, &offer)
}

#[test]
fn sipp_logs_in_and_calls_from_anywhere() {
    let gateway = asking("");
    let login = [
        "-au", USER, "-ap", PASSWORD, "-d", "200", "-m", "5", "-r", "5",
    ];
    sipp::run("authenticated.xml", gateway.sip(), &login);
    wait::until_ok(seconds(5), "five records", || {
        let records = gateway.records();
        let reasons: Vec<&Value> = records.iter().map(|record| &record["reason"]).collect();
        let good = reasons.len() == 5 && reasons.iter().all(|reason| **reason == "CallerHungUp");
        good.then_some(()).ok_or_else(|| format!("{reasons:?}"))
    });
    assert!(
        !gateway.log().contains(PASSWORD),
        "the password is in the log"
    );
}

#[test]
fn a_pbx_logs_in_with_each_call() {
    let gateway = asking("");
    let pbx = Pbx::start(gateway.sip(), USER, PASSWORD);
    sipp::run("call.xml", pbx.sip(), &["-d", "200", "-m", "3"]);
    let record = gateway.record();
    assert_eq!(record["reason"], "CallerHungUp", "{record}");
    assert_eq!(record["provider"], "default/trunk");
}

#[test]
fn our_own_test_call_logs_in() {
    let gateway = asking("");
    let scratch = ringwire_tests::scratch::Scratch::new("password");
    let file = scratch.path().join("password");
    std::fs::write(&file, PASSWORD).unwrap();
    let from = ringwire_tests::address::Address::claim();
    let target = format!("sip:{NUMBER}@{}", gateway.sip());
    let login = [
        "--username",
        USER,
        "--password-file",
        file.to_str().unwrap(),
    ];
    let call = gateway::call(
        &target,
        from.ip(),
        &[&login[..], &["--duration", "1"]].concat(),
    );
    assert!(call.success, "{}", call.result);
}

#[test]
fn without_the_password_there_is_no_call_and_the_status_says_so() {
    let gateway = asking("");
    let mut phone = Phone::udp(gateway.sip());
    let answer = invite(&mut phone, "");
    assert_eq!(answer.status(), 401, "{}", answer.text);
    let challenges = answer.headers("WWW-Authenticate");
    for algorithm in ["SHA-256", "MD5"] {
        let asks = challenges.iter().any(|challenge| {
            challenge.contains(&format!("algorithm={algorithm}"))
                && challenge.contains("qop=\"auth\"")
        });
        assert!(asks, "{}", answer.text);
    }
    let record = wait::until(seconds(15), "a record of the call", || {
        gateway.records().pop()
    });
    assert_eq!(record["reason"], "CredentialsMissing", "{record}");
    let refusal = wait::until(seconds(3), "the status tells", || {
        gateway.refusal("trunk", "CredentialsMissing")
    });
    assert_eq!(refusal["count"], 1, "{refusal}");
}

#[test]
fn whoever_guesses_is_refused_counted_and_shut_out() {
    let gateway = asking("");
    let mut phone = Phone::udp(gateway.sip());
    let wrong = |nonce: &str| {
        format!(
            "Authorization: Digest username=\"{USER}\", realm=\"ringwire\", nonce=\"{nonce}\", uri=\"sip:x\", \
             response=\"00000000000000000000000000000000\", qop=auth, nc=00000001, cnonce=\"c\"\n"
        )
    };
    // A nonce that is not ours proves nothing of who sends it.
    for _ in 0..7 {
        phone.new_call();
        assert_eq!(invite(&mut phone, &wrong("made-up")).status(), 401);
        std::thread::sleep(Duration::from_millis(250));
    }
    // One of ours does for one guess.
    for _ in 0..5 {
        phone.new_call();
        let challenge = invite(&mut phone, "");
        std::thread::sleep(Duration::from_millis(250));
        phone.new_call();
        let answer = invite(&mut phone, &wrong(&nonce(&challenge)));
        assert_eq!(answer.status(), 403, "{}", answer.text);
        std::thread::sleep(Duration::from_millis(250));
    }
    let refusal = wait::until(seconds(3), "the status tells", || {
        gateway.refusal("trunk", "CredentialsRefused")
    });
    assert!(refusal["count"].as_u64().unwrap() >= 1, "{refusal}");
    wait::until(seconds(3), "the source is shut out", || {
        let log = gateway.log();
        let mut lines = log.lines();
        lines.find(|line| line.contains("is shut out") && line.contains("CredentialsRefused"))?;
        Some(())
    });
    phone.new_call();
    let offer = phone.offer();
    let request = phone.request("INVITE", "", &offer);
    phone.send(&request);
    // The last refusal is repeated, for its ACK was not heard either.
    while let Some(message) = phone.receive(Duration::from_millis(700)) {
        assert_ne!(message.header("Call-ID"), phone.call_id(), "{message:?}");
    }
    // Another caller is not concerned.
    sipp::run(
        "authenticated.xml",
        gateway.sip(),
        &["-au", USER, "-ap", PASSWORD],
    );
}

/// The nonce of the first challenge.
fn nonce(answer: &Message) -> String {
    let challenge = answer.header("WWW-Authenticate");
    let (_, rest) = challenge.split_once("nonce=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_list_of_sources_holds_beside_the_password() {
    let gateway = asking("allowedSources: [203.0.113.0/24]");
    assert_eq!(invite(&mut Phone::udp(gateway.sip()), "").status(), 403);
    gateway.write("all.yaml", &set("allowedSources: [127.0.0.0/8]"));
    wait::until(seconds(3), "it may come from here", || {
        std::thread::sleep(Duration::from_millis(250));
        let answer = invite(&mut Phone::udp(gateway.sip()), "");
        (answer.status() == 401).then_some(())
    });
    sipp::run(
        "authenticated.xml",
        gateway.sip(),
        &["-au", USER, "-ap", PASSWORD],
    );
}

#[test]
fn a_new_password_takes_effect_at_once_and_without_one_nobody_calls() {
    let gateway = asking("");
    gateway.write("all.yaml", &set("").replace(PASSWORD, "another"));
    let tries = |password: &str| {
        sipp::start(
            "authenticated.xml",
            gateway.sip(),
            &["-au", USER, "-ap", password],
        )
    };
    wait::until(seconds(5), "the new password is taken", || {
        tries("another").succeeded().then_some(())
    });
    assert!(!tries(PASSWORD).succeeded(), "the old password is taken");
    let without = set("").replace("password:", "passwort:");
    gateway.write("all.yaml", &without);
    wait::until(seconds(5), "the status tells", || {
        let trunk = gateway.object("SipProvider", "trunk");
        let conditions = trunk["status"]["conditions"].as_array()?;
        let resolved = conditions
            .iter()
            .find(|condition| condition["type"] == "CredentialsResolved")?;
        (resolved["reason"] == "SecretKeyMissing").then_some(())
    });
    wait::until(seconds(3), "nobody may call", || {
        std::thread::sleep(Duration::from_millis(250));
        let answer = invite(&mut Phone::udp(gateway.sip()), "");
        (answer.status() == 403).then_some(())
    });
}
