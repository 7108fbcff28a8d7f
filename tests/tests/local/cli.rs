//! The command line around the server: `check`, `get`, and what the README says to try first.

use std::path::Path;
use std::process::Command;

use ringwire_tests::address::Address;
use ringwire_tests::gateway::{self, run};
use ringwire_tests::manifests::{NUMBER, account, echo, number, registering_trunk};
use ringwire_tests::phone::Phone;
use ringwire_tests::process;
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};

use crate::{ECHO_EXPECTED, echo_gateway};

/// Runs `ringwire check` on these files: exit code and standard output.
fn check(files: &[(&str, &str)], options: &[&str]) -> (i32, String) {
    let scratch = Scratch::new("check");
    for (name, text) in files {
        std::fs::write(scratch.path().join(name), text).unwrap();
    }
    let path = scratch.path().display().to_string();
    let mut arguments = vec!["check", "-f", &path];
    arguments.extend(options);
    let (code, out, error) = run(&arguments);
    (code, out + &error)
}

#[test]
fn check_names_file_field_and_rule_of_what_the_api_server_would_refuse() {
    let bad = [
        ("number.yaml", number("main", "911234567", "trunk", "bot"), "spec.number must be an E.164 number in quotes"),
        ("agent.yaml", "apiVersion: ringwire.dev/v1alpha1\nkind: VoiceAgent\nmetadata: {name: none}\nspec: {}\n".to_owned(), "exactly one backend"),
        ("trunk.yaml", registering_trunk("t", "sip:host:5060", ""), "spec.server must be a host name or an IP address"),
        ("limit.yaml", echo("x", "limits: {maxCallSeconds: 0}"), "maxCallSeconds"),
        ("typo.yaml", echo("y", "conectTimeoutSeconds: 3"), "conectTimeoutSeconds"),
    ];
    let files: Vec<(&str, &str)> = bad
        .iter()
        .map(|(name, text, _)| (*name, text.as_str()))
        .collect();
    let (code, out) = check(&files, &[]);
    assert_eq!(code, 1, "{out}");
    for (name, _, message) in &bad {
        let line = out
            .lines()
            .find(|line| line.contains(name) && line.contains(message));
        assert!(
            line.is_some_and(|line| line.starts_with("error: ")),
            "{name}: {message}: not in\n{out}"
        );
    }
}

#[test]
fn check_sees_what_only_shows_between_objects_and_keeps_secrets_to_itself() {
    let set = [
        registering_trunk("trunk", "sip.example.com", ""),
        number("main", NUMBER, "trunk", "nobody"),
        number("first", "+34911111111", "trunk", "bot"),
        number("second", "+34911111111", "trunk", "bot"),
        echo("bot", ""),
        account("trunk1", "very-secret").replace("password", "passwort"),
    ];
    let (code, out) = check(&[("all.yaml", &set.join("---\n"))], &[]);
    assert_eq!(code, 1, "{out}");
    for reason in ["[AgentNotFound]", "[Conflict]", "[SecretKeyMissing]"] {
        assert!(out.contains(reason), "{reason} is not in\n{out}");
    }
    assert!(!out.contains("very-secret"), "{out}");
    let (code, out) = check(&[("all.yaml", &set[..2].join("---\n"))], &[]);
    assert_eq!(code, 0, "warnings alone are no failure: {out}");
    assert_eq!(
        check(&[("all.yaml", &set[..2].join("---\n"))], &["--strict"]).0,
        1
    );
}

#[test]
fn every_sample_passes_check() {
    for folder in ["config/samples", "config/samples/local"] {
        let (code, out, _) = run(&["check", "-f", folder]);
        assert_eq!(code, 0, "{folder}: {out}");
        assert!(out.contains(" 0 errors"), "{out}");
    }
}

#[test]
fn get_prints_the_tables_that_kubectl_would_print() {
    let gateway = echo_gateway();
    let url = gateway.url();
    let (code, out, _) = run(&["get", "sipproviders", "--server", &url]);
    assert_eq!(code, 0);
    let head: Vec<&str> = out.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head,
        [
            "NAME",
            "TYPE",
            "SERVER",
            "TRANSPORT",
            "REGISTRATION",
            "CALLS",
            "READY",
            "AGE"
        ]
    );
    let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["trunk", "Generic", "127.0.0.1:5060", "UDP"]);
    // It does not register, so that column is empty.
    assert_eq!(row[4..6], ["0", "True"]);

    let mut phone = Phone::udp(gateway.sip());
    phone.call();
    gateway.wait_calls(1);
    let (_, out, _) = run(&["get", "did", "main", "--server", &url, "--no-headers"]);
    assert_eq!(
        out.split_whitespace().take(5).collect::<Vec<_>>(),
        ["main", NUMBER, "trunk", "bot", "Active"],
        "{out}"
    );
    assert_eq!(out.split_whitespace().nth(5), Some("1"), "{out}");
    let (_, out, _) = run(&["get", "all", "-o", "wide", "--server", &url]);
    for row in [
        "sipprovider.ringwire.dev/trunk",
        "phonenumber.ringwire.dev/main",
        "voiceagent.ringwire.dev/bot",
    ] {
        assert!(out.contains(row), "{row} is not in\n{out}");
    }
    phone.hang_up();
    let (_, out, _) = run(&["get", "vagent", "-o", "json", "--server", &url]);
    assert!(
        serde_json::from_str::<serde_json::Value>(&out).is_ok(),
        "{out}"
    );
    let (code, _, error) = run(&["get", "trunk", "nobody", "--server", &url]);
    assert_eq!(code, 1);
    assert!(error.contains("nobody"), "{error}");
    let (code, _, error) = run(&["get", "all", "--server", "http://127.0.0.1:1"]);
    assert_ne!(code, 0);
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[test]
fn the_samples_answer_the_call_of_the_readme() {
    // Their number, trunk and agent as they stand; only the address is this test's, so that it can run beside others.
    let folder = ringwire_tests::process::repository().join("config/samples/local");
    let files: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(path).unwrap(),
            )
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let gateway = gateway::Gateway::start(&files);
    wait::until_ok(seconds(3), "all objects are ready", || {
        let (_, out, _) = run(&["get", "all", "--server", &gateway.url()]);
        if out.contains("Active") {
            Ok(())
        } else {
            Err(out)
        }
    });
    let call = gateway::call(
        &format!("sip:{NUMBER}@{}", gateway.sip()),
        Address::claim().ip(),
        &ECHO_EXPECTED,
    );
    assert!(call.success, "{}", call.result);
    let keys = [
        "answered",
        "status",
        "codec",
        "packetsSent",
        "packetsReceived",
        "packetsLost",
        "jitterMillis",
        "setupMillis",
        "echo",
    ];
    for key in keys {
        assert!(!call.result[key].is_null(), "{key}: {}", call.result);
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let address = Address::claim();
    let _taken = std::net::UdpSocket::bind(address.port(5060)).unwrap();
    let scratch = Scratch::new("taken");
    std::fs::write(scratch.path().join("a.yaml"), echo("bot", "")).unwrap();
    let (bind, http) = (address.to_string(), address.port(8080).to_string());
    let path = scratch.path().display().to_string();
    let (code, _, error) = run(&[
        "run",
        "-f",
        &path,
        "--bind",
        &bind,
        "--http",
        &http,
        "--state-dir",
        &path,
    ]);
    assert_eq!(code, 1);
    assert!(error.contains(&format!("{bind}:5060")), "{error}");
}

#[test]
fn the_operator_is_a_command_and_the_same_under_a_name_of_its_own() {
    let scratch = Scratch::new("operator");
    let named = scratch.path().join("ringwire-operator");
    std::os::unix::fs::symlink(process::ringwire(), &named).unwrap();
    let without_a_cluster = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("HOME", scratch.path())
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let last = log.lines().last().unwrap_or_default().to_owned();
        (output.status.code(), last)
    };
    let ways: [(&Path, &[&str]); 2] = [(&process::ringwire(), &["operator"]), (&named, &[])];
    for (program, start) in ways {
        let (code, line) = without_a_cluster(program, start);
        assert_eq!(code, Some(1), "{line}");
        // Its log is for machines unless told otherwise.
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["message"], "the operator cannot run");
        let (code, line) = without_a_cluster(program, &[start, &["--log-format", "text"]].concat());
        assert_eq!(code, Some(1), "{line}");
        assert!(line.contains("ERROR the operator cannot run"), "{line}");
        let (code, line) = without_a_cluster(program, &[start, &["--unknown"]].concat());
        assert_eq!(code, Some(2), "{line}");
    }
    let (code, help, _) = run(&["operator", "--help"]);
    assert_eq!(code, 0);
    assert!(help.contains("--default-gateway-config"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let (_, script, _) = run(&["completion", shell]);
        assert!(script.contains("default-gateway-config"), "{shell}");
    }
}
