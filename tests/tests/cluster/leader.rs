//! Several operators, of which one works.

use std::time::{Duration, Instant};

use ringwire_tests::cluster::{self, PodProcess, SYSTEM, Space, http, kubectl, pods, ready_pods};
use ringwire_tests::wait::{self, seconds};

/// The pod that holds the Lease.
fn holder() -> String {
    let lease = cluster::get(SYSTEM, "lease", "ringwire-operator");
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The operators whose metrics say that they lead.
fn leaders() -> Vec<String> {
    let leads = |pod: &serde_json::Value| {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let address = format!("{address}:8080").parse();
        address.is_ok_and(|address| {
            http(address, "/metrics").is_ok_and(|(_, text)| {
                text.lines()
                    .any(|line| line == "ringwire_operator_leader 1")
            })
        })
    };
    pods(SYSTEM, "operator")
        .iter()
        .filter(|pod| leads(pod))
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Two ready operators on two nodes, of which one leads: its name.
#[track_caller]
fn leader_of_two() -> String {
    wait::until_ok(seconds(60), "two operators, one of which leads", || {
        let (ready, leaders) = (ready_pods("operator"), leaders());
        if ready.len() == 2 && leaders.len() == 1 && leaders[0] == holder() {
            Ok(leaders[0].clone())
        } else {
            Err(format!(
                "ready {ready:?}, leading {leaders:?}, Lease {}",
                holder()
            ))
        }
    })
}

/// Pauses the trunk or takes it back, and waits until its status says so: how long after `begun`.
#[track_caller]
fn status_follows(space: &Space, paused: bool, begun: Instant, limit: Duration) -> Duration {
    let patch = format!("{{\"spec\":{{\"paused\":{paused}}}}}");
    space.patch("sipprovider", "trunk", &patch);
    let is_paused = |object: &serde_json::Value| {
        (cluster::condition(object, "Ready")["reason"] == "Paused") == paused
            && object["status"]["observedGeneration"] == object["metadata"]["generation"]
    };
    cluster::wait_object(
        &space.name,
        "sipprovider",
        "trunk",
        limit,
        "as edited",
        is_paused,
    );
    begun.elapsed()
}

fn registered(name: &str) -> Space {
    let space = Space::new(name);
    space.apply(&[space.account(), space.trunk("")].join("---\n"));
    space.wait_registered(seconds(5));
    space
}

#[test]
fn another_operator_writes_within_fifteen_seconds_of_the_leaders_death() {
    let space = registered("leader-dies");
    let old = leader_of_two();
    // As when a node hangs or is cut off: nothing ends, and nothing is given back.
    let process = PodProcess::find(&old);
    process.signal("STOP");
    let took = status_follows(&space, true, Instant::now(), seconds(15));
    println!("    status by the next operator {took:?} after the leader fell silent");
    let new = holder();
    assert_ne!(new, old);
    // It comes back, and believes it leads until it looks at the time: it must not write.
    process.signal("CONT");
    wait::until_ok(seconds(10), "the old leader stands by", || {
        let leaders = leaders();
        if leaders == [new.as_str()] {
            Ok(())
        } else {
            Err(format!("{leaders:?}"))
        }
    });
    assert_eq!(holder(), new);
    status_follows(&space, false, Instant::now(), seconds(5));
}

#[test]
fn a_leader_that_is_stopped_hands_over_at_once() {
    let space = registered("leader-stops");
    let old = leader_of_two();
    let begun = Instant::now();
    kubectl(&["--namespace", SYSTEM, "delete", "pod", &old, "--wait=false"]).unwrap();
    let took = status_follows(&space, true, begun, seconds(6));
    println!("    status by the next operator {took:?} after the leader was deleted");
    assert_ne!(holder(), old);
    assert_ne!(leader_of_two(), old);
}

#[test]
fn operators_run_on_different_nodes() {
    cluster::ready();
    leader_of_two();
    let mut nodes: Vec<_> = pods(SYSTEM, "operator")
        .iter()
        .map(|pod| pod["spec"]["nodeName"].to_string())
        .collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
}
