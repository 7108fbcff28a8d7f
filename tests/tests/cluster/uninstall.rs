//! Taking everything away, in any order. Named so that it comes last: it leaves a cluster without Ringwire.

use std::time::Instant;

use ringwire_tests::cluster::{
    self, SYSTEM, Space, carrier, helm, install, kubectl, wait_contacts,
};
use ringwire_tests::wait::{self, seconds};

const KINDS: [&str; 4] = [
    "sipproviders",
    "phonenumbers",
    "voiceagents",
    "mediagateways",
];

/// Ringwire installed, and a Space with a registered trunk.
fn installed(name: &str) -> Space {
    cluster::with_fixture();
    install(&[]);
    let space = Space::new(name);
    space.apply(&space.complete());
    space.wait_registered(seconds(10));
    space
}

fn delete(arguments: &[&str]) {
    let begun = Instant::now();
    let mut all = vec!["delete", "--timeout=60s"];
    all.extend(arguments);
    kubectl(&all).unwrap_or_else(|error| panic!("kubectl {all:?}: {error}"));
    println!(
        "    kubectl delete {}: {:?}",
        arguments.join(" "),
        begun.elapsed()
    );
}

fn uninstall() {
    let begun = Instant::now();
    helm(&[
        "uninstall",
        "ringwire",
        "--namespace",
        SYSTEM,
        "--wait",
        "--timeout",
        "60s",
    ])
    .unwrap();
    println!("    helm uninstall --wait: {:?}", begun.elapsed());
}

fn crds() -> Vec<String> {
    KINDS
        .iter()
        .map(|kind| format!("{kind}.ringwire.dev"))
        .collect()
}

fn delete_crds() {
    let names = crds();
    let mut arguments = vec!["crd", "--ignore-not-found"];
    arguments.extend(names.iter().map(String::as_str));
    delete(&arguments);
}

/// No pod, Secret, Role or anything else of ours is left; with `schemas` the CRDs are gone, too.
fn nothing_is_left(schemas: bool) {
    let begun = Instant::now();
    let look = || {
        let kinds = "deployments,pods,services,serviceaccounts,roles,rolebindings,secrets,configmaps,leases";
        let names = kubectl(&[
            "--namespace",
            SYSTEM,
            "get",
            kinds,
            "-o",
            "name",
            "--ignore-not-found",
        ])?;
        let cluster = kubectl(&[
            "get",
            if schemas {
                "clusterroles,clusterrolebindings,crd"
            } else {
                "clusterroles,clusterrolebindings"
            },
            "-o",
            "name",
        ])?;
        let usual = ["serviceaccount/default", "configmap/kube-root-ca.crt"];
        let left = names
            .lines()
            .filter(|name| !usual.contains(name))
            .chain(cluster.lines().filter(|name| name.contains("ringwire")));
        let left: Vec<&str> = left.collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(" "))
        }
    };
    wait::until_ok(seconds(90), "nothing is left", look);
    println!("    nothing is left after another {:?}", begun.elapsed());
}

#[test]
fn objects_first_then_the_release() {
    let space = installed("objects");
    space.kubectl(&[
        "delete",
        "sipproviders,phonenumbers,voiceagents",
        "--all",
        "--timeout=30s",
    ]);
    wait_contacts(&space.user, 0, seconds(5));
    delete(&["namespace", &space.name]);
    uninstall();
    // The garbage collector pauses when schemas go, so that comes last.
    nothing_is_left(false);
    delete_crds();
    nothing_is_left(true);
    delete(&["namespace", SYSTEM]);
}

#[test]
fn the_release_first_with_the_carrier_gone() {
    let space = installed("release");
    carrier(&["down"]);
    uninstall();
    // The schemas stay, and with them what users wrote.
    assert_eq!(
        space.get("sipprovider", "trunk")["metadata"]["name"],
        "trunk"
    );
    delete(&["namespace", &space.name]);
    nothing_is_left(false);
    delete_crds();
    nothing_is_left(true);
    delete(&["namespace", SYSTEM]);
}

#[test]
fn the_schemas_first_then_the_namespace_of_the_release() {
    let space = installed("schemas");
    delete_crds();
    delete(&["namespace", SYSTEM]);
    delete(&["namespace", &space.name]);
    // helm's own record of the release went with its namespace; what is cluster-wide is left to helm's `uninstall`, which cannot know it any more.
    let names = kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"]).unwrap();
    let left: Vec<&str> = names
        .lines()
        .filter(|name| name.contains("ringwire"))
        .collect();
    println!("    left without helm: {left:?}");
    let mut arguments = vec!["delete"];
    arguments.extend(&left);
    if !left.is_empty() {
        kubectl(&arguments).unwrap();
    }
}
