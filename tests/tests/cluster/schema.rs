//! Schemas, samples and cases before the real API server.

use std::collections::{BTreeMap, BTreeSet};

use ringwire_crds::cases::{self, Case};
use ringwire_tests::cluster::{self, Space, kubectl, kubectl_with};
use ringwire_tests::process::repository;
use serde_json::Value;

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

fn try_create(namespace: &str, objects: &str) -> Result<String, String> {
    let arguments = [
        "--namespace",
        namespace,
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
    ];
    kubectl_with(&arguments, objects)
}

/// What the API server says of an object: its messages, in a set.
fn judge(namespace: &str, object: &Value) -> BTreeSet<String> {
    let Err(error) = try_create(namespace, &object.to_string()) else {
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
fn the_api_server_judges_every_written_case_as_it_says() {
    let space = Space::new("cases");
    let cases = cases::written().unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let found = judge(&space.name, &case.object);
        if found != case.errors {
            let expected = &case.errors;
            wrong.push(format!(
                "{case}\n  found {found:#?}\n  expected {expected:#?}"
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

/// What the API server says of each object, in one go: a line each, by the name of the object.
fn judge_all(namespace: &str, objects: &[Value]) -> BTreeMap<String, String> {
    let objects: Vec<String> = objects.iter().map(Value::to_string).collect();
    let text = try_create(namespace, &objects.join("\n")).unwrap_or_else(|error| error);
    text.lines()
        .filter_map(|line| {
            // `Error from server (Invalid): error when creating "STDIN": KIND "NAME" is invalid: MESSAGES`
            let (object, messages) = line.split_once(" is invalid: ")?;
            let name = object.strip_suffix('"')?.rsplit('"').next()?;
            Some((name.to_owned(), messages.to_owned()))
        })
        .collect()
}

/// Whether `said` is these messages and no other, in any order: `MESSAGE`, or `[MESSAGE, MESSAGE]`.
fn says(said: &str, messages: &BTreeSet<String>) -> bool {
    let several = said
        .strip_prefix('[')
        .and_then(|said| said.strip_suffix(']'));
    let mut rest = several.unwrap_or(said);
    let mut left: Vec<&str> = messages.iter().map(String::as_str).collect();
    // The longest first: one may begin as another does.
    left.sort_by_key(|message| std::cmp::Reverse(message.len()));
    while let Some(index) = left.iter().position(|message| rest.starts_with(message)) {
        rest = &rest[left.remove(index).len()..];
        rest = rest.strip_prefix(", ").unwrap_or(rest);
    }
    rest.is_empty() && left.is_empty()
}

#[test]
fn the_api_server_names_the_field_and_the_structural_rule_that_are_broken() {
    let space = Space::new("rules");
    let cases = cases::generated();
    let name = |index: usize| format!("x-{index}");
    let named = |(index, case): (usize, &Case)| {
        let mut object = case.object.clone();
        object["metadata"]["name"] = name(index).into();
        object
    };
    let objects: Vec<Value> = cases.iter().enumerate().map(named).collect();
    let found = judge_all(&space.name, &objects);
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let said = found.get(&name(index)).map_or("nothing", String::as_str);
        if !says(said, &case.errors) {
            let expected = &case.errors;
            wrong.push(format!("{case}\n  said {said}\n  expected {expected:#?}"));
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
