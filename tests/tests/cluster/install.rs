//! What `helm install` brings, and what `kubectl` shows of it.

use ringwire_tests::cluster::{self, SYSTEM, Space, http, kubectl, pods};
use ringwire_tests::wait::seconds;

#[test]
fn the_default_gateway_is_ready_after_install_under_pod_security_restricted() {
    cluster::ready();
    cluster::wait_ready(SYSTEM, "mediagateway", "default", "True", seconds(1));
    cluster::wait_object(
        SYSTEM,
        "mediagateway",
        "default",
        seconds(5),
        "UDP and TCP addresses of two registrars",
        |gateway| {
            let addresses = gateway["status"]["addresses"].as_array();
            addresses.is_some_and(|addresses| addresses.len() == 4)
        },
    );
    let namespace = kubectl(&["get", "namespace", SYSTEM, "--show-labels"]).unwrap();
    assert!(
        namespace.contains("pod-security.kubernetes.io/enforce=restricted"),
        "{namespace}"
    );
    for component in ["operator", "registrar", "media"] {
        cluster::pod(component);
    }
}

#[test]
fn kubectl_prints_the_tables_and_explains_every_kind() {
    let space = Space::new("tables");
    space.apply(&space.complete());
    space.wait_registered(seconds(5));
    let broken = "apiVersion: ringwire.dev/v1alpha1\nkind: SipProvider\nmetadata: {name: broken}\nspec: {server: nowhere.carrier.test, credentialsSecretRef: {name: account}}\n";
    space.apply(broken);
    space.wait_registration_of("broken", "Unregistered", "ServerNotFound", seconds(15));
    let table = space.kubectl(&["get", "sipproviders,phonenumbers,voiceagents", "-o", "wide"]);
    let gateways = kubectl(&["--namespace", SYSTEM, "get", "mediagateways", "-o", "wide"]).unwrap();
    println!("{table}\n{gateways}");
    let row = |name: &str| {
        table
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("no row {name} in\n{table}"))
            .to_owned()
    };
    assert!(
        row("sipprovider.ringwire.dev/trunk ").contains("Registered"),
        "{table}"
    );
    assert!(
        row("sipprovider.ringwire.dev/broken ").contains("ServerNotFound"),
        "{table}"
    );
    assert!(
        row("phonenumber.ringwire.dev/main ").contains("Active"),
        "{table}"
    );
    assert!(
        row("voiceagent.ringwire.dev/bot ").contains("Echo"),
        "{table}"
    );
    assert!(gateways.contains("True"), "{gateways}");
    for name in ["sipp", "trunk", "did", "vagent", "mgw", "ringwire"] {
        space.kubectl(&["get", name]);
    }
    for path in [
        "sipprovider.spec",
        "phonenumber.spec",
        "voiceagent.spec.webSocket",
        "mediagateway.spec.sip.exposure",
        "sipprovider.status",
    ] {
        let text = kubectl(&["explain", path]).unwrap();
        assert!(
            text.contains("DESCRIPTION") && text.contains("FIELDS"),
            "{path}: {text}"
        );
        assert!(
            !text.contains("<no description>") && !text.contains("<empty>"),
            "{path} has a field without text: {text}"
        );
    }
}

#[test]
fn the_operator_serves_health_and_metrics() {
    cluster::ready();
    let pods = pods(SYSTEM, "operator");
    let address = format!("{}:8080", pods[0]["status"]["podIP"].as_str().unwrap())
        .parse()
        .unwrap();
    assert_eq!(http(address, "/healthz").unwrap().0, 200);
    let (status, metrics) = http(address, "/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(
        metrics.lines().any(|line| line.starts_with("ringwire_")),
        "{metrics}"
    );
}

#[test]
fn a_gateway_can_be_scaled_by_kubectl() {
    cluster::ready();
    kubectl(&[
        "--namespace",
        SYSTEM,
        "scale",
        "mediagateway/default",
        "--replicas=2",
    ])
    .unwrap();
    cluster::wait_object(
        SYSTEM,
        "mediagateway",
        "default",
        seconds(20),
        "two media pods",
        |gateway| gateway["status"]["readyReplicas"] == 2,
    );
    kubectl(&[
        "--namespace",
        SYSTEM,
        "scale",
        "mediagateway/default",
        "--replicas=1",
    ])
    .unwrap();
    cluster::wait_object(
        SYSTEM,
        "mediagateway",
        "default",
        seconds(20),
        "one media pod",
        |gateway| gateway["status"]["readyReplicas"] == 1,
    );
}
