//! Two registrars that share the providers, and what happens to those of one that goes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ringwire_tests::cluster::{
    self, ApiServerAway, PodProcess, SYSTEM, Space, carrier_up, contacts, kubectl, pods, raw,
    ready_pods, wait_contacts,
};
use ringwire_tests::wait::{self, seconds};

/// A Space whose trunk is registered, with refreshes every few seconds.
fn registered(name: &str) -> Space {
    let space = Space::new(name);
    carrier_up(&["--max-expires", "10"]);
    space.apply(&space.complete());
    space.wait_answering();
    wait_contacts(&space.user, 1, seconds(5));
    space
}

/// The pod that holds the registration of the trunk.
fn owner(space: &Space) -> String {
    let state = &space.get("sipprovider", "trunk")["status"]["registration"];
    state["by"].as_str().unwrap_or_default().to_owned()
}

/// Waits for a Contact that was not there before; how long it took.
#[track_caller]
fn wait_other_contact(space: &Space, before: &[String], begun: Instant) -> Duration {
    wait::until_ok(seconds(30), "a Contact of another registrar", || {
        let found = contacts(&space.user);
        if found.iter().any(|contact| !before.contains(contact)) {
            Ok(begun.elapsed())
        } else {
            Err(format!("{found:?}"))
        }
    })
}

/// Waits until there is one Contact that stays the only one for longer than a registration lasts without being refreshed.
#[track_caller]
fn one_owner_stays(space: &Space) {
    let (begun, mut since) = (Instant::now(), Instant::now());
    let mut contact = contacts(&space.user);
    while contact.len() != 1 || since.elapsed() < seconds(12) {
        assert!(begun.elapsed() < seconds(60), "still {contact:?}");
        std::thread::sleep(seconds(1) / 2);
        let now = contacts(&space.user);
        // A successor that starts may take the provider back, once.
        if now != contact {
            (contact, since) = (now, Instant::now());
        }
    }
    cluster::wait_object(
        &space.name,
        "sipprovider",
        "trunk",
        seconds(20),
        "registered by a pod that runs",
        |object| {
            let state = &object["status"]["registration"];
            let by = state["by"].as_str().unwrap_or_default();
            state["state"] == "Registered" && ready_pods("registrar").iter().any(|pod| pod == by)
        },
    );
}

#[test]
fn the_registrars_run_on_different_nodes_and_one_stays_when_nodes_are_drained() {
    cluster::ready();
    let nodes: BTreeSet<String> = pods(SYSTEM, "registrar")
        .iter()
        .map(|pod| pod["spec"]["nodeName"].to_string())
        .collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    let path =
        format!("/apis/policy/v1/namespaces/{SYSTEM}/poddisruptionbudgets/default-registrar");
    wait::until_ok(seconds(10), "one of two may go", || {
        let (_, body) = raw(&path).unwrap_or_default();
        let budget: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let status = &budget["status"];
        if status["disruptionsAllowed"] == 1 && status["expectedPods"] == 2 {
            Ok(())
        } else {
            Err(budget.to_string())
        }
    });
}

#[test]
fn a_killed_registrars_providers_are_registered_by_another_within_ten_seconds() {
    let space = registered("killed");
    let (old, before) = (owner(&space), contacts(&space.user));
    let begun = Instant::now();
    PodProcess::find(&old).signal("KILL");
    let force = ["--force", "--grace-period=0", "--wait=false"];
    let mut delete = vec!["--namespace", SYSTEM, "delete", "pod", &old];
    delete.extend(force);
    kubectl(&delete).unwrap();
    let took = wait_other_contact(&space, &before, begun);
    println!("    registered by another {took:?} after the owner was killed");
    assert!(took < seconds(10), "{took:?}");
    one_owner_stays(&space);
    assert_ne!(owner(&space), old);
}

#[test]
fn a_registrar_that_hangs_loses_its_providers_within_ten_seconds_and_shares_them_again_later() {
    let space = registered("hangs");
    let (old, before) = (owner(&space), contacts(&space.user));
    let process = PodProcess::find(&old);
    let begun = Instant::now();
    process.signal("STOP");
    let took = wait_other_contact(&space, &before, begun);
    println!("    registered by another {took:?} after the owner fell silent");
    assert!(took < seconds(10), "{took:?}");
    process.signal("CONT");
    one_owner_stays(&space);
}

#[test]
fn without_the_api_server_a_killed_registrars_providers_are_taken_over_all_the_same() {
    let space = registered("killed-alone");
    let (old, before) = (owner(&space), contacts(&space.user));
    {
        let _away = ApiServerAway::begin();
        let begun = Instant::now();
        // The kubelet starts it again, but it learns nothing of its gateway.
        PodProcess::find(&old).signal("KILL");
        let took = wait_other_contact(&space, &before, begun);
        println!("    registered by another {took:?} after the owner was killed");
        assert!(took < seconds(10), "{took:?}");
    }
    one_owner_stays(&space);
}

#[test]
fn without_the_api_server_nobody_takes_from_a_registrar_that_lives() {
    let space = registered("alone");
    let before = contacts(&space.user);
    let _away = ApiServerAway::begin();
    let begun = Instant::now();
    // Longer than a Lease lasts without being renewed.
    while begun.elapsed() < seconds(20) {
        assert_eq!(contacts(&space.user), before, "after {:?}", begun.elapsed());
        std::thread::sleep(seconds(1) / 2);
    }
}

#[test]
fn registrars_are_replaced_without_a_call_being_refused() {
    let space = registered("rolled");
    let before: BTreeSet<String> = ready_pods("registrar").into_iter().collect();
    let restart = ["rollout", "restart", "deployment/default-registrar"];
    let mut arguments = vec!["--namespace", SYSTEM];
    arguments.extend(restart);
    kubectl(&arguments).unwrap();
    let begun = Instant::now();
    let mut calls = 0;
    loop {
        let result = space.call(&["--duration", "0.2"]).end();
        calls += 1;
        assert_eq!(result["status"], 200, "call {calls}: {result}");
        let now: BTreeSet<String> = pods(SYSTEM, "registrar")
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let replaced = now.is_disjoint(&before) && ready_pods("registrar").len() == 2;
        // Those that end are not among the pods any more, but still take calls.
        let gone = before
            .iter()
            .all(|pod| cluster::get(SYSTEM, "pod", pod).is_null());
        if replaced && gone {
            break;
        }
        assert!(begun.elapsed() < seconds(120), "still {now:?}");
    }
    println!(
        "    {calls} calls while both registrars were replaced in {:?}",
        begun.elapsed()
    );
    one_owner_stays(&space);
}
