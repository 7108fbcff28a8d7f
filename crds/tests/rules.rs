//! Every rule of the schemas: an object that breaks it is refused in the API server's words, a good one passes.
//!
//! `cases.yaml` holds the objects, so that the end-to-end tests can give the same ones to a real API server.

#![expect(
    clippy::unwrap_used,
    reason = "a case that can't be read fails its test"
)]

use std::collections::BTreeSet;

use ringwire_crds::generate::Kind;
use ringwire_crds::schema::validate;
use serde_json::{Value, json};

fn cases() -> Vec<Value> {
    serde_yaml::from_str(include_str!("cases.yaml")).unwrap()
}

fn object(case: &Value) -> Value {
    json!({
        "apiVersion": ringwire_crds::API_VERSION,
        "kind": case["kind"],
        "metadata": {"name": "x"},
        "spec": case["spec"],
    })
}

#[test]
fn refuses_what_breaks_a_rule_in_the_words_of_the_server() {
    let mut wrong = Vec::new();
    for case in cases() {
        let found: BTreeSet<String> = validate(&object(&case))
            .iter()
            .map(ToString::to_string)
            .collect();
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
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.insert(rule["message"].as_str().unwrap_or_default().to_owned());
    }
    for child in schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, child)| child)
    {
        messages(child, found);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            messages(&schema[key], found);
        }
    }
}

#[test]
fn every_rule_has_an_object_that_breaks_it() {
    let errors: Vec<String> = cases()
        .iter()
        .flat_map(|case| case["errors"].as_array().cloned().unwrap_or_default())
        .map(|error| error.as_str().unwrap().to_owned())
        .collect();
    let mut rules = BTreeSet::new();
    for kind in Kind::ALL {
        messages(kind.schema_json(), &mut rules);
    }
    assert!(rules.len() >= 17, "{rules:#?}");
    for rule in rules {
        assert!(
            errors.iter().any(|error| error.ends_with(&rule)),
            "no case breaks: {rule}"
        );
    }
}

#[test]
fn every_kind_has_an_object_that_passes() {
    for kind in Kind::ALL {
        let passes = |case: &Value| case["kind"] == kind.name() && case["errors"] == json!([]);
        assert!(cases().iter().any(passes), "{}", kind.name());
    }
}

#[test]
fn names_what_is_wrong_with_metadata_and_kind() {
    let good = json!({
        "apiVersion": "ringwire.dev/v1alpha1", "kind": "VoiceAgent", "metadata": {"name": "bot"}, "spec": {"echo": {}},
    });
    assert_eq!(validate(&good), []);
    let errors = |change: &dyn Fn(&mut Value)| {
        let mut object = good.clone();
        change(&mut object);
        validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        errors(&|object| object["metadata"] = json!({})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    let upper = errors(&|object| object["metadata"]["name"] = json!("Bot"));
    assert!(
        upper[0]
            .starts_with(r#"metadata.name: Invalid value: "Bot": a lowercase RFC 1123 subdomain"#),
        "{upper:?}"
    );
    assert_eq!(
        errors(&|object| object["metadata"]["labls"] = json!({})),
        ["unknown field \"metadata.labls\""]
    );
    assert_eq!(
        errors(&|object| object["specs"] = json!({})),
        ["unknown field \"specs\""]
    );
    assert_eq!(
        errors(&|object| object["kind"] = json!("Voiceagent")),
        [r#"kind: no matches for kind "Voiceagent" in version "ringwire.dev/v1alpha1""#]
    );
}

#[test]
fn ignores_a_status_and_drops_nulls() {
    let object = json!({
        "apiVersion": "ringwire.dev/v1alpha1", "kind": "VoiceAgent",
        "metadata": {"name": "bot", "creationTimestamp": null},
        "spec": {"echo": {}, "webSocket": null, "limits": null, "connectTimeoutSeconds": null},
        "status": {"anything": 1},
    });
    assert_eq!(validate(&object), []);
    let mut defaulted = object;
    ringwire_crds::schema::apply_defaults(&mut defaulted);
    assert_eq!(
        defaulted["spec"],
        json!({"echo": {}, "limits": {"maxCallSeconds": 7200}, "connectTimeoutSeconds": 5})
    );
}
