//! Schemas, samples and cases before the real API server.

use std::collections::BTreeSet;

use ringwire_tests::cluster::{self, Space, kubectl, kubectl_with, read};
use ringwire_tests::process::repository;
use serde_json::{Value, json};

#[test]
fn every_sample_applies() {
    let space = Space::new("samples");
    let out = space.kubectl(&["apply", "-k", "config/samples"]);
    for kind in ["sipprovider", "phonenumber", "voiceagent", "mediagateway"] {
        assert!(out.contains(&format!("{kind}.ringwire.dev/")), "{out}");
    }
    let seen = cluster::wait_object(
        &space.name,
        "sipprovider",
        "netelip",
        ringwire_tests::wait::seconds(5),
        "paused",
        |object| cluster::condition(object, "Ready")["reason"] == "Paused",
    );
    assert_eq!(seen["status"]["server"], "sip-eu.netelip.com:5060");
}

/// What the API server says of an object: its messages, in a set.
fn judge(namespace: &str, object: &Value) -> BTreeSet<String> {
    let arguments = [
        "--namespace",
        namespace,
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
    ];
    let Err(error) = kubectl_with(&arguments, &object.to_string()) else {
        return BTreeSet::new();
    };
    let text = error.trim();
    // `The KIND "x" is invalid: MESSAGE`, or with several a line each after `* `.
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("* "))
        .collect();
    if !lines.is_empty() {
        return lines.into_iter().map(str::to_owned).collect();
    }
    if let Some((_, rest)) = text.split_once(" is invalid: ") {
        return [rest.to_owned()].into();
    }
    if let Some((_, rest)) = text.split_once("strict decoding error: ") {
        return rest.split(", ").map(str::to_owned).collect();
    }
    [text.to_owned()].into()
}

#[test]
fn the_api_server_judges_every_case_as_the_file_says() {
    let space = Space::new("cases");
    let cases: Vec<Value> = serde_yaml::from_str(&read("crds/tests/cases.yaml")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let object = json!({"apiVersion": "ringwire.dev/v1alpha1", "kind": case["kind"], "metadata": {"name": "x"}, "spec": case["spec"]});
        let found = judge(&space.name, &object);
        let expected: BTreeSet<String> = case["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| error.as_str().unwrap().to_owned())
            .collect();
        if found != expected {
            wrong.push(format!(
                "{}\n  found {found:#?}\n  expected {expected:#?}",
                case["spec"]
            ));
        }
    }
    println!("    {} objects", cases.len());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_schemas_in_the_cluster_are_those_of_the_repository() {
    cluster::ready();
    let files = repository().join("crds/crds");
    for entry in std::fs::read_dir(files).unwrap() {
        let wanted: Value =
            serde_yaml::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        let name = wanted["metadata"]["name"].as_str().unwrap();
        let found: Value =
            serde_json::from_str(&kubectl(&["get", "crd", name, "-o", "json"]).unwrap()).unwrap();
        let (wanted, found) = (
            &wanted["spec"]["versions"][0],
            &found["spec"]["versions"][0],
        );
        for key in ["schema", "additionalPrinterColumns", "subresources"] {
            assert_eq!(wanted[key], found[key], "{name}: {key}");
        }
    }
}
