//! `ringwire trace`: what people see of calls and registrations, and what nobody may see.

use std::path::Path;

use ringwire_tests::address::Address;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::gateway::{self, Gateway, run};
use ringwire_tests::manifests::{NUMBER, account, registering_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::process::{self, Process};
use ringwire_tests::scratch::Scratch;
use ringwire_tests::sipp;
use ringwire_tests::wait::{self, seconds};
use serde_json::Value;

use crate::{echo_gateway, tls};

/// Starts `ringwire trace` with these options and waits until it follows.
#[track_caller]
fn trace(gateway: &Gateway, folder: &Path, options: &[&str]) -> Process {
    let mut command = process::command(process::ringwire());
    command
        .args(["trace", "--server", &gateway.url()])
        .args(options);
    let process = Process::start("trace", command, folder);
    wait_for(&process, "local-registrar");
    process
}

/// Waits until this was printed.
#[track_caller]
fn wait_for(trace: &Process, text: &str) -> String {
    wait::until_ok(seconds(10), &format!("{text:?} in the trace"), || {
        let log = trace.log();
        if log.contains(text) {
            Ok(log)
        } else {
            Err(log)
        }
    })
}

/// The messages of a trace with `-o json`.
fn messages(log: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["type"] == "message").collect()
}

#[test]
fn a_call_is_a_ladder_of_carrier_registrar_and_media_pod() {
    let gateway = echo_gateway();
    let scratch = Scratch::new("trace");
    let trace = trace(&gateway, scratch.path(), &[]);
    sipp::run("call.xml", gateway.sip(), &[]);
    let log = wait_for(&trace, "200 OK");
    for wanted in [
        " INVITE ",
        " 100 Trying ",
        " 200 OK ",
        " ACK ",
        "▶ local-registrar",
        "▶ local-media",
        "provider default/trunk",
        &format!("number {NUMBER}"),
        "SDP: audio ",
    ] {
        assert!(log.contains(wanted), "{wanted:?} is not in\n{log}");
    }
    assert!(!log.contains('\x1b'), "colours without a terminal:\n{log}");
}

#[test]
fn a_registration_is_shown_without_its_secrets() {
    let carrier = Carrier::start(&[]);
    let trunk = registering_trunk("trunk", carrier.ip(), "");
    let gateway = Gateway::start(&[
        ("trunk.yaml", &trunk),
        ("account.yaml", &account("trunk1", "wrong")),
    ]);
    let scratch = Scratch::new("trace");
    let trace = trace(
        &gateway,
        scratch.path(),
        &["-o", "json", "--provider", "trunk"],
    );
    gateway.write("account.yaml", &account("trunk1", "secret1"));
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(10));
    let contact = carrier.wait_contacts(1, seconds(5)).remove(0);
    let user = contact
        .trim_start_matches("sip:")
        .split('@')
        .next()
        .unwrap();
    let find = || {
        let all = messages(&trace.log());
        let signed = all
            .iter()
            .any(|message| message["headers"]["Authorization"] == "Digest ***");
        let accepted = all.iter().any(|message| message["status"] == 200);
        (signed && accepted).then_some(all)
    };
    let all = wait::until(seconds(5), "a signed REGISTER and its 200", find);
    for message in &all {
        assert_eq!(message["method"], "REGISTER", "{message}");
        assert_eq!(message["provider"], "default/trunk", "{message}");
    }
    assert!(
        all.iter()
            .any(|message| message["message"].as_str().unwrap().contains("nonce=")),
        "a challenge is no secret"
    );
    let log = trace.log();
    for secret in ["secret1", "response=", user] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}

#[test]
fn what_goes_over_tls_is_shown_in_the_clear_and_marked() {
    let carrier = Carrier::start(&tls::TLS);
    let gateway = tls::start(&carrier, "", &carrier.authority());
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let scratch = Scratch::new("trace");
    let trace = trace(&gateway, scratch.path(), &["-o", "json"]);
    let caller = Address::claim();
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    let call = gateway::call(
        &target,
        caller.ip(),
        &["--header", "X-Provider: network", "--duration", "1"],
    );
    assert!(call.success, "{}", call.result);
    let log = wait_for(&trace, "\"BYE\"");
    let all = messages(&log);
    let outside = |message: &&Value| message["peer"] == "outside";
    for message in all.iter().filter(outside) {
        assert_eq!(message["transport"], "TLS", "{message}");
    }
    let invite = all
        .iter()
        .find(|message| outside(message) && message["method"] == "INVITE")
        .unwrap_or_else(|| panic!("no INVITE from the carrier in\n{log}"));
    assert_eq!(invite["provider"], "default/trunk", "{invite}");
    assert!(
        !log.contains("secret1") && !log.contains("response="),
        "{log}"
    );
}

#[test]
fn only_what_was_asked_for_is_shown() {
    let gateway = echo_gateway();
    let folders = [
        Scratch::new("ours"),
        Scratch::new("other"),
        Scratch::new("call"),
    ];
    let ours = trace(
        &gateway,
        folders[0].path(),
        &["-o", "json", "--number", "911 234 567"],
    );
    let other = trace(
        &gateway,
        folders[1].path(),
        &["-o", "json", "--number", "+34900000000"],
    );
    let mut phones = [(); 2].map(|()| Phone::udp(gateway.sip()));
    let id = phones[1].call_id().to_owned();
    let one = trace(&gateway, folders[2].path(), &["-o", "json", "--call", &id]);
    for phone in &mut phones {
        phone.call();
        phone.hang_up();
    }
    wait_for(&one, "\"BYE\"");
    wait_for(&ours, "\"BYE\"");
    assert!(messages(&ours.log()).len() >= 8, "{}", ours.log());
    assert_eq!(messages(&other.log()), Vec::<Value>::new());
    // Of two calls the one that was asked for.
    let of_one = messages(&one.log());
    assert!(of_one.len() >= 8, "{}", one.log());
    for message in of_one {
        let text = message["message"].as_str().unwrap();
        assert!(text.contains(&format!("Call-ID: {id}\r\n")), "{message}");
    }
}

#[test]
fn somebody_elsewhere_can_follow_through_the_pods_own_program_and_it_ends_with_him() {
    let gateway = echo_gateway();
    let (_, answer) = gateway.http("/trace").unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let scratch = Scratch::new("pod");
    let socket = answer["socket"].as_str().unwrap();
    std::os::unix::fs::symlink(socket, scratch.path().join("trace.sock")).unwrap();
    let mut command = process::command(process::ringwire());
    command
        .args(["trace", "--local", "--while-stdin", "-o", "json"])
        .env("RINGWIRE_RUN_DIR", scratch.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut first).unwrap();
    assert!(first.contains("\"listening\""), "{first}");
    drop(child.stdin.take());
    let ended = wait::until(seconds(5), "the end of the trace", || {
        child.try_wait().unwrap()
    });
    assert!(ended.success());
}

#[test]
fn only_the_servers_user_may_open_the_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    let gateway = echo_gateway();
    let (_, answer) = gateway.http("/trace").unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let socket = std::fs::metadata(answer["socket"].as_str().unwrap()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let (code, _, error) = run(&["trace", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code, 1);
    assert!(error.contains("127.0.0.1:1"), "{error}");
}
