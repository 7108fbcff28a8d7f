//! What a schema can't see: each becomes a condition soon, and heals by itself.

use std::time::{Duration, Instant};

use ringwire_tests::cluster::{Space, apply_cluster, install, kubectl, wait_contacts, wait_ready};
use ringwire_tests::manifests::{echo, number, object};
use ringwire_tests::wait::seconds;

/// DESIGN's second, and one for kubectl and a busy machine.
const SOON: Duration = seconds(2);

#[track_caller]
fn appears(
    space: &Space,
    kind: &str,
    name: &str,
    wanted: (&str, &str, &str),
    since: Instant,
) -> String {
    let condition = space.wait_condition(kind, name, wanted, SOON);
    println!(
        "    {kind} {} {} after {:?}: {}",
        wanted.0,
        wanted.2,
        since.elapsed(),
        condition["message"]
    );
    condition["message"].as_str().unwrap().to_owned()
}

#[test]
fn an_unknown_agent_or_provider_is_named_and_heals() {
    let space = Space::new("unknown");
    let begun = Instant::now();
    space.apply(&space.main("bot"));
    appears(
        &space,
        "phonenumber",
        "main",
        ("Ready", "False", "ProviderNotFound"),
        begun,
    );
    let begun = Instant::now();
    space.apply(&[space.account(), space.trunk("")].join("---\n"));
    let message = appears(
        &space,
        "phonenumber",
        "main",
        ("Ready", "False", "AgentNotFound"),
        begun,
    );
    assert!(message.contains("bot"), "{message}");
    let begun = Instant::now();
    space.apply(&echo("bot", ""));
    appears(
        &space,
        "phonenumber",
        "main",
        ("Ready", "True", "Ready"),
        begun,
    );
    let begun = Instant::now();
    space.apply(&space.main(""));
    space.patch("phonenumber", "main", "{\"spec\":{\"agentRef\":null}}");
    appears(
        &space,
        "phonenumber",
        "main",
        ("Ready", "True", "NoAgent"),
        begun,
    );
    assert_eq!(
        space.get("phonenumber", "main")["status"]["state"],
        "Inactive"
    );
}

#[test]
fn two_owners_of_a_number_conflict_until_the_older_one_goes() {
    let space = Space::new("conflict");
    space.apply(&space.complete());
    wait_ready(&space.name, "phonenumber", "main", "True", seconds(5));
    // Creation times have seconds: of two in the same one the name decides, and this one is the later in either case.
    let begun = Instant::now();
    space.apply(&number("second", &space.phone_number(0), "trunk", "bot"));
    let message = appears(
        &space,
        "phonenumber",
        "second",
        ("Ready", "False", "Conflict"),
        begun,
    );
    assert!(message.contains("main"), "{message}");
    wait_ready(&space.name, "phonenumber", "main", "True", SOON);
    let begun = Instant::now();
    space.kubectl(&["delete", "phonenumber/main"]);
    appears(
        &space,
        "phonenumber",
        "second",
        ("Ready", "True", "Ready"),
        begun,
    );
}

#[test]
fn an_unknown_gateway_is_named_and_heals() {
    let space = Space::new("gateway");
    let begun = Instant::now();
    space.apply(&[space.account(), space.trunk("gatewayRef: {name: own}")].join("---\n"));
    appears(
        &space,
        "sipprovider",
        "trunk",
        ("GatewayAccepted", "False", "GatewayNotFound"),
        begun,
    );
    let begun = Instant::now();
    space.patch("sipprovider", "trunk", "{\"spec\":{\"gatewayRef\":null}}");
    appears(
        &space,
        "sipprovider",
        "trunk",
        ("GatewayAccepted", "True", "Accepted"),
        begun,
    );
    space.wait_registered(seconds(5));
}

#[test]
fn a_namespace_that_the_gateway_does_not_serve_is_told_so_and_heals() {
    let space = Space::new("namespace");
    let owner = Space::new("owner");
    // Of the other namespace: not shared, so nobody else may name it.
    owner.apply(&object(
        "MediaGateway",
        "own",
        "{replicas: 0, allowedNamespaces: {from: All}}",
    ));
    let begun = Instant::now();
    space.apply(
        &[
            space.account(),
            space.trunk(&format!(
                "gatewayRef: {{name: own, namespace: {}}}",
                owner.name
            )),
        ]
        .join("---\n"),
    );
    appears(
        &space,
        "sipprovider",
        "trunk",
        ("GatewayAccepted", "False", "NamespaceNotAllowed"),
        begun,
    );
    let begun = Instant::now();
    space.patch("sipprovider", "trunk", "{\"spec\":{\"gatewayRef\":null}}");
    appears(
        &space,
        "sipprovider",
        "trunk",
        ("GatewayAccepted", "True", "Accepted"),
        begun,
    );
    space.wait_registered(seconds(5));
}

#[test]
fn a_gateway_that_is_closed_to_others_and_opened_again() {
    let space = Space::new("closed");
    space.apply(&[space.account(), space.trunk("")].join("---\n"));
    space.wait_registered(seconds(5));
    let begun = Instant::now();
    install(&["--set", "defaultGateway.spec.allowedNamespaces.from=Same"]);
    let message = appears(
        &space,
        "sipprovider",
        "trunk",
        ("GatewayAccepted", "False", "NamespaceNotAllowed"),
        begun,
    );
    assert!(message.contains("allowedNamespaces"), "{message}");
    wait_contacts(&space.user, 0, seconds(5));
    let begun = Instant::now();
    install(&[]);
    appears(
        &space,
        "sipprovider",
        "trunk",
        ("GatewayAccepted", "True", "Accepted"),
        begun,
    );
    space.wait_registered(seconds(5));
}

#[test]
fn one_malformed_object_does_not_stop_the_others() {
    let space = Space::new("malformed");
    // As an older or broken schema would have let in.
    let crd = "sipproviders.ringwire.dev";
    let lax = "[{\"op\":\"replace\",\"path\":\"/spec/versions/0/schema/openAPIV3Schema\",\"value\":{\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true}}]";
    kubectl(&["patch", "crd", crd, "--type=json", "--patch", lax]).unwrap();
    let bad = format!(
        "apiVersion: ringwire.dev/v1alpha1\nkind: SipProvider\nmetadata: {{name: bad, namespace: {}}}\nspec: {{server: {{a: 1}}, port: many, registration: 7}}\n",
        space.name
    );
    ringwire_tests::wait::until_ok(seconds(10), "the lax schema takes anything", || {
        ringwire_tests::cluster::kubectl_with(&["apply", "-f", "-"], &bad)
    });
    space.apply(&space.complete());
    let seen = space.wait_registered(seconds(10));
    println!("    with a malformed neighbour: {}", seen["message"]);
    space.wait_answering();
    let result = space.call(&["--duration", "1"]).end();
    assert_eq!(result["answered"], true, "{result}");
    apply_cluster(&ringwire_tests::cluster::read(
        "crds/crds/ringwire.dev_sipproviders.yaml",
    ));
    let bad = space.get("sipprovider", "bad");
    println!("    the malformed object's status: {}", bad["status"]);
    space.kubectl(&["delete", "sipprovider", "bad", "--timeout=20s"]);
    space.patch("sipprovider", "trunk", "{\"spec\":{\"paused\":true}}");
    space.wait_condition(
        "sipprovider",
        "trunk",
        ("Ready", "True", "Paused"),
        seconds(5),
    );
}
