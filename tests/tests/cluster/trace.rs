//! `ringwire trace` with a kubeconfig: an administrator's, and that of somebody who may do just what the book says. And the copies of
//! messages for a collector.

use std::path::{Path, PathBuf};

use ringwire_tests::cluster::{self, SYSTEM, Space, apply_cluster, here, install, kubectl};
use ringwire_tests::collector::{Collected, Collector};
use ringwire_tests::process::{Process, repository};
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};
use serde_json::{Value, json};

fn trace(kubeconfig: Option<&Path>, folder: &Path, arguments: &[&str]) -> Process {
    let mut command = cluster::ringwire();
    command.arg("trace").args(arguments);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    Process::start("trace", command, folder)
}

/// Waits until this was printed.
#[track_caller]
fn wait_for(trace: &Process, text: &str) -> String {
    wait::until_ok(seconds(15), &format!("{text:?} in the trace"), || {
        let log = trace.log();
        if log.contains(text) {
            Ok(log)
        } else {
            Err(log)
        }
    })
}

fn called(name: &str) -> Space {
    let space = Space::new(name);
    space.apply(&space.complete());
    space.wait_answering();
    space
}

/// What a trace printed of a type.
fn lines(log: &str, kind: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["type"] == kind).collect()
}

/// Whether a trace runs in a pod: this machine is all nodes.
fn runs_in_a_pod() -> bool {
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
            line.starts_with(b"/ringwire\0trace\0") && line.ends_with(b"/trunk\0")
        })
    })
}

#[test]
fn a_call_to_the_gateway_is_followed_through_the_api_server() {
    let space = called("trace");
    let scratch = Scratch::new("trace");
    let provider = format!("{}/trunk", space.name);
    let options = ["--cluster", "-o", "json", "--provider", &provider];
    let trace = trace(None, scratch.path(), &options);
    let registrars = cluster::ready_pods("registrar");
    // Gateways of the tests before this one may still be there, and are followed as well.
    wait::until_ok(seconds(15), "every registrar is followed", || {
        let log = trace.log();
        let followed = lines(&log, "listening");
        let all = registrars
            .iter()
            .all(|name| followed.iter().any(|line| line["pod"] == name.as_str()));
        if all { Ok(()) } else { Err(log) }
    });
    assert!(runs_in_a_pod());
    let mut call = space.call(&["--duration", "60"]);
    call.wait_answered();
    call.hang_up();
    let log = wait::until_ok(seconds(15), "the end of the call in the trace", || {
        let log = trace.log();
        let ended = lines(&log, "message").iter().any(|message| {
            message["method"] == "BYE" && message["status"] == 200 && message["peer"] == "outside"
        });
        if ended { Ok(log) } else { Err(log) }
    });
    let all = lines(&log, "message");
    let seen = |peer: &str, method: &str, status: Value| {
        all.iter().any(|message| {
            (&message["peer"], &message["method"], &message["status"])
                == (&json!(peer), &json!(method), &status)
        })
    };
    for (peer, method, status) in [
        ("outside", "INVITE", Value::Null),
        ("mediaPod", "INVITE", Value::Null),
        ("mediaPod", "INVITE", json!(200)),
        ("outside", "INVITE", json!(200)),
        ("outside", "ACK", Value::Null),
        ("mediaPod", "BYE", Value::Null),
    ] {
        assert!(
            seen(peer, method, status.clone()),
            "no {peer} {method} {status} in\n{log}"
        );
    }
    for message in &all {
        assert_eq!(message["provider"], provider.as_str(), "{message}");
        let pod = message["pod"].as_str().unwrap_or_default();
        assert!(registrars.iter().any(|name| name == pod), "{message}");
    }
    // The user part of our Contact, by which anybody could reach the media pod.
    let contact = cluster::contacts(&space.user).remove(0);
    let user = contact.trim_start_matches("sip:").split('@').next();
    assert!(!log.contains(user.unwrap()), "{user:?} is in\n{log}");
    drop(trace);
    wait::until(seconds(10), "the trace in the pod ends", || {
        (!runs_in_a_pod()).then_some(())
    });
}

/// A `ServiceAccount` that may do nothing, and a kubeconfig for it.
fn viewer(space: &Space, folder: &Path) -> PathBuf {
    space.kubectl(&["create", "serviceaccount", "viewer"]);
    let token = space.kubectl(&["create", "token", "viewer"]);
    let view = ["config", "view", "--raw", "--minify", "-o", "json"];
    let mut config: Value = serde_json::from_str(&kubectl(&view).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    config["contexts"][0]["context"]["namespace"] = json!(SYSTEM);
    let file = folder.join("kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// Gives the viewer these rules in the gateway's namespace.
fn grant(space: &Space, name: &str, rules: &Value) {
    let metadata = json!({"name": format!("{}-{name}", space.name), "namespace": SYSTEM});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": space.name}],
    });
    apply_cluster(&format!("{role}\n---\n{binding}\n"));
}

/// Takes back what was granted, also after a failure.
struct Granted<'a>(&'a Space);

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        for name in ["list", "book"] {
            let name = format!("{}-{name}", self.0.name);
            let what = "role,rolebinding";
            let _ = kubectl(&["-n", SYSTEM, "delete", what, &name, "--ignore-not-found"]);
        }
    }
}

/// The rules that docs/trace.md says are needed.
fn rules_of_the_book() -> Value {
    let book = std::fs::read_to_string(repository().join("docs/trace.md")).unwrap();
    let yaml = book.split("```yaml\n").nth(1).unwrap();
    let yaml = yaml.split("```").next().unwrap();
    let parsed: Value = serde_yaml::from_str(yaml).unwrap();
    parsed["rules"].clone()
}

#[test]
fn who_may_not_is_told_what_is_missing_and_the_books_role_is_enough() {
    let space = Space::new("viewer");
    let scratch = Scratch::new("viewer");
    let kubeconfig = viewer(&space, scratch.path());
    let _granted = Granted(&space);
    let refused = |text: &str| {
        wait::until_ok(seconds(15), &format!("it ends with {text:?}"), || {
            let folder = Scratch::new("trace");
            let mut trace = trace(Some(&kubeconfig), folder.path(), &["--cluster"]);
            let status = trace.wait(seconds(15));
            let log = trace.log();
            assert_eq!(status.code(), Some(1), "{log}");
            // What was granted takes a moment.
            if log.contains(text) {
                Ok(log)
            } else {
                Err(log)
            }
        })
    };
    let log = refused("not allowed to list pods in namespace ringwire-system");
    print!("    {log}");
    let list = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    grant(&space, "list", &list);
    let log = refused("without the right to create pods/exec");
    print!("    {log}");
    assert!(log.contains("not allowed to exec into it"), "{log}");

    grant(&space, "book", &rules_of_the_book());
    wait::until_ok(seconds(15), "it follows", || {
        let folder = Scratch::new("trace");
        let mut trace = trace(Some(&kubeconfig), folder.path(), &["-n", SYSTEM]);
        wait::until(seconds(10), "it follows or ends", || {
            let follows = trace.log().contains("-- following ");
            (follows || trace.ended().is_some()).then_some(())
        });
        let log = trace.log();
        if log.contains("-- following ") {
            Ok(())
        } else {
            Err(log)
        }
    });
}

#[test]
fn a_place_without_a_gateway_is_named() {
    let space = Space::new("nowhere");
    let scratch = Scratch::new("trace");
    let trace = trace(None, scratch.path(), &["-n", &space.name]);
    let text = format!("no registrar pod in namespace {}", space.name);
    print!("    {}", wait_for(&trace, &text));
}

#[test]
fn a_collector_in_the_charts_values_gets_the_calls_of_the_default_gateway() {
    let space = called("hep");
    let before = (
        cluster::ready_pods("registrar"),
        cluster::contacts(&space.user),
    );
    let collector = Collector::start_on(here());
    let set = |value: &str| format!("defaultGateway.spec.sip.hep{value}");
    let address = set(&format!(".address={}", collector.place()));
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "homer", "namespace": SYSTEM},
        "stringData": {"password": "collect-me"},
    });
    apply_cluster(&secret.to_string());
    install(&[
        "--set",
        &address,
        "--set",
        &set(".captureId=2001"),
        "--set",
        &set(".passwordSecretRef.name=homer"),
    ]);
    let of_this = wait::until(seconds(20), "the collector gets a call", || {
        let mut call = space.call(&["--duration", "60"]);
        call.wait_answered();
        call.hang_up();
        let all = collector.collected();
        let ends = all.iter().find(|message| message.what() == "BYE")?;
        let call_id = ends.correlation_id.clone();
        let of_this = all.into_iter();
        Some(
            of_this
                .filter(|message| message.correlation_id == call_id)
                .collect::<Vec<_>>(),
        )
    });
    install(&[]);
    let _ = kubectl(&["-n", SYSTEM, "delete", "secret", "homer"]);
    let whats: Vec<&str> = of_this.iter().map(Collected::what).collect();
    assert!(whats.starts_with(&["INVITE", "100"]), "{whats:?}");
    assert!(whats.contains(&"ACK"), "{whats:?}");
    for message in &of_this {
        assert_eq!((message.version, message.capture_id), (3, 2001));
        assert_eq!(message.password, "collect-me");
        assert!(
            [message.source, message.destination]
                .iter()
                .any(|end| end.ip().to_string() == cluster::CARRIER),
            "{message:#?}"
        );
    }
    assert_eq!(
        (
            cluster::ready_pods("registrar"),
            cluster::contacts(&space.user),
        ),
        before,
        "the gateway was restarted for it"
    );
}
