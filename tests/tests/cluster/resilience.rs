//! Pods that work on while others are away, and a media pod that drains.

use std::net::IpAddr;
use std::time::Instant;

use ringwire_tests::cluster::{
    self, ApiServerAway, CARRIER, PodProcess, SYSTEM, Space, assert_echoed, carrier, carrier_up,
    contacts, helm, kubectl, pods, ready_pods, wait_contacts,
};
use ringwire_tests::sipp;
use ringwire_tests::wait::{self, seconds};
use serde_json::Value;

/// A Space that takes calls, with refreshes every few seconds.
fn taking_calls(name: &str) -> Space {
    taking_calls_of(name, &[])
}

/// The same, with these options of the carrier.
fn taking_calls_of(name: &str, more: &[&str]) -> Space {
    let space = Space::new(name);
    carrier_up(&[&["--max-expires", "10"], more].concat());
    space.apply(&space.complete());
    space.wait_answering();
    space
}

/// The time until the only binding of a user ends, as the carrier says.
fn left(space: &Space) -> i64 {
    let prefix = format!("{} ", space.user);
    let bindings = carrier(&["bindings"]);
    let line = bindings
        .lines()
        .find(|line| line.starts_with(&prefix))
        .unwrap_or_else(|| panic!("no binding of {}", space.user));
    line.split("expires in ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

/// Calls go on, are taken, and the registration is refreshed.
#[track_caller]
fn works(space: &Space, running: &mut cluster::Call) {
    assert_echoed("a new call", || space.call(&["--duration", "3"]));
    let mut last = left(space);
    wait::until_ok(seconds(15), "a refresh", || {
        let now = left(space);
        let refreshed = now > last;
        last = now;
        if refreshed {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
    assert!(!running.ended(), "the running call has ended");
}

#[test]
fn pods_work_on_without_the_api_server() {
    let space = taking_calls("apiserver");
    let mut running = space.call(&["--duration", "80"]);
    running.wait_answered();
    {
        let _away = ApiServerAway::begin();
        works(&space, &mut running);
    }
    wait::until_ok(seconds(30), "objects are taken again", || {
        cluster::kubectl_with(
            &["--namespace", &space.name, "apply", "-f", "-"],
            &space.main(""),
        )?;
        cluster::kubectl(&[
            "--namespace",
            &space.name,
            "patch",
            "phonenumber",
            "main",
            "--type=merge",
            "-p",
            "{\"spec\":{\"agentRef\":null}}",
        ])
    });
    let begun = Instant::now();
    wait::until_ok(seconds(60), "the edit reaches the pods", || {
        let result = space.call(&["--duration", "1"]).end();
        if result["status"] == 480 {
            Ok(())
        } else {
            Err(result.to_string())
        }
    });
    println!(
        "    an edit holds {:?} after the API server came back",
        begun.elapsed()
    );
    assert!(!running.ended());
    running.hang_up();
    cluster::wait_object(
        &space.name,
        "sipprovider",
        "trunk",
        seconds(30),
        "Registered",
        |object| object["status"]["registration"]["state"] == "Registered",
    );
}

#[test]
fn pods_work_on_without_the_operator_and_take_what_was_missed() {
    let space = taking_calls("operator");
    let mut running = space.call(&["--duration", "240"]);
    running.wait_answered();
    let scale = |replicas: &str| {
        kubectl(&[
            "--namespace",
            SYSTEM,
            "scale",
            "deployment/ringwire-operator",
            replicas,
        ])
        .unwrap()
    };
    scale("--replicas=0");
    // The cluster's own controllers may still wait to watch again after the API server was away: up to a minute.
    wait::until_ok(seconds(90), "no operator pod", || {
        let count = pods(SYSTEM, "operator").len();
        if count == 0 {
            Ok(())
        } else {
            Err(count.to_string())
        }
    });
    works(&space, &mut running);
    space.patch("phonenumber", "main", "{\"spec\":{\"agentRef\":null}}");
    scale("--replicas=2");
    space.wait_condition(
        "phonenumber",
        "main",
        ("Ready", "True", "NoAgent"),
        seconds(90),
    );
    let result = space.call(&["--duration", "1"]).end();
    assert_eq!(result["status"], 480, "what was missed holds: {result}");
    assert!(!running.ended());
    running.hang_up();
    space.wait_registered(seconds(20));
}

#[test]
fn a_stopping_media_pod_lets_its_calls_end_and_new_ones_go_to_the_next() {
    let space = taking_calls("drain");
    let old = cluster::pod("media");
    let mut running = space.call(&["--duration", "25"]);
    running.wait_answered();
    kubectl(&["--namespace", SYSTEM, "delete", "pod", &old, "--wait=false"]).unwrap();
    let begun = Instant::now();
    wait::until_ok(seconds(30), "a new call is answered by the new pod", || {
        let result = space.call(&["--duration", "2"]).end();
        if result["status"] == 200 {
            Ok(())
        } else {
            Err(result.to_string())
        }
    });
    println!(
        "    new calls are answered {:?} after the pod was deleted",
        begun.elapsed()
    );
    assert_ne!(cluster::pod("media"), old);
    assert!(!running.ended(), "the running call was cut");
    let result = running.end();
    assert_eq!(result["endedBy"], "us", "{result}");
    assert!(
        result["durationMillis"].as_f64().unwrap() > 24_000.0,
        "{result}"
    );
    assert!(
        result["packetsReceived"].as_u64().unwrap() > 1_200,
        "{result}"
    );
    wait::until_ok(seconds(15), "the old pod is gone", || {
        let left = cluster::get(SYSTEM, "pod", &old);
        if left.is_null() {
            Ok(())
        } else {
            Err(left["status"]["phase"].to_string())
        }
    });
}

/// The default gateway has two media pods as long as this lives.
struct TwoMediaPods;

impl TwoMediaPods {
    fn start() -> Self {
        scale("2");
        Self
    }

    /// Their names, once both are ready and take calls.
    #[track_caller]
    fn wait(space: &Space) -> [String; 2] {
        wait::until_ok(seconds(90), "calls at two media pods", || {
            let ready = ready_pods("media");
            let call = space.call(&["--duration", "0.2"]).end();
            let calls = |pod: &String| {
                let log = cluster::log(SYSTEM, pod);
                let mut records = log.iter().filter(|line| line["target"] == "ringwire::call");
                records.any(|record| record["call_id"] != "")
            };
            let all = call["status"] == 200 && ready.iter().all(calls);
            let names = <[String; 2]>::try_from(ready);
            names
                .map_err(|ready| format!("{ready:?}"))
                .and_then(|two| all.then_some(two).ok_or(call.to_string()))
        })
    }
}

impl Drop for TwoMediaPods {
    fn drop(&mut self) {
        scale("1");
    }
}

fn scale(replicas: &str) {
    let replicas = format!("--replicas={replicas}");
    let scale = ["scale", "mediagateway/default", &replicas];
    kubectl(&[&["--namespace", SYSTEM], &scale[..]].concat()).unwrap();
}

#[test]
fn callers_do_not_notice_that_a_media_pod_hangs_or_dies_or_stops() {
    // One process of the carrier: with two, a 200 may overtake its 180, which sipp does not bear.
    let space = taking_calls_of("another", &["--children", "1"]);
    let two = TwoMediaPods::start();
    let [bad, good] = TwoMediaPods::wait(&space);
    let number = space.phone_number(0);
    // Ten brief calls a second, all of which have to succeed.
    let calls = |count: &str| {
        let arguments = [
            "-s",
            &number,
            "-key",
            "trunk",
            &space.user,
            "-m",
            count,
            "-r",
            "10",
            "-d",
            "200",
        ];
        let scenario = "../../hack/carrier/call.xml";
        let carrier = (CARRIER.parse::<IpAddr>().unwrap(), 5060).into();
        sipp::start_from(cluster::here(), scenario, carrier, &arguments)
    };
    let taken = |pod: &str| {
        let log = cluster::log(SYSTEM, pod);
        let records = log.iter().filter(|line| line["target"] == "ringwire::call");
        records.count()
    };
    // Nobody is talking there: what an agent has begun ends with its pod.
    let process = PodProcess::find(&bad);
    process.signal("STOP");
    calls("30").end();
    let tried_another = || {
        let logs = ready_pods("registrar").into_iter();
        let lines = logs.flat_map(|pod| cluster::log(SYSTEM, &pod));
        let said = "a media pod said nothing for 300 ms";
        lines.filter(|line| line["message"] == said).count()
    };
    println!("    {} calls were asked of the other pod", tried_another());
    assert!(
        tried_another() > 0,
        "none was offered to the pod that hangs"
    );
    let before = taken(&good);
    let calling = calls("60");
    wait::until(seconds(5), "calls", || {
        (taken(&good) > before).then_some(())
    });
    process.signal("KILL");
    calling.end();
    drop(process);
    let [bad, good] = TwoMediaPods::wait(&space);
    let before = (taken(&bad), taken(&good));
    let calling = calls("100");
    wait::until(seconds(8), "calls at both pods", || {
        (taken(&bad) > before.0 && taken(&good) > before.1).then_some(())
    });
    kubectl(&["--namespace", SYSTEM, "delete", "pod", &bad, "--wait=false"]).unwrap();
    calling.end();
    drop(two);
    let one = |gateway: &Value| gateway["status"]["readyReplicas"] == 1;
    let limit = seconds(30);
    cluster::wait_object(SYSTEM, "mediagateway", "default", limit, "one pod", one);
}

#[test]
fn an_upgrade_of_the_release_keeps_calls_and_registrations() {
    let space = taking_calls("upgrade");
    let before = wait_contacts(&space.user, 1, seconds(3));
    let mut running = space.call(&["--duration", "60"]);
    running.wait_answered();
    cluster::install(&["--set", "podAnnotations.upgraded=yes"]);
    space.wait_registered(seconds(20));
    assert_eq!(
        contacts(&space.user),
        before,
        "the upgrade of the operator touched the registrar"
    );
    works(&space, &mut running);
    running.hang_up();
    assert!(
        helm(&["--namespace", SYSTEM, "list"])
            .unwrap()
            .contains("deployed")
    );
}
